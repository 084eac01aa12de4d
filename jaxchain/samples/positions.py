"""Where a segment works position by position: axes along which its local Jacobian is block-diagonal.

The proof of samples, made along every axis of a state. Axes that it holds for one by one hold together: an entry of J
that is not zero has the same place on each of them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxchain.errors import REFUSALS
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.primitives import Var, dtype_of, is_var, shape_of, size_of
from jaxchain.program.segment import Segment
from jaxchain.samples.place import Place
from jaxchain.samples.proof import Batch

__all__ = ["Axes", "position_axes"]

KNOWN = Kept(1024)
"""What was proven, by program: equal blocks of a network are looked at once."""


class Axes(NamedTuple):
    """The axes that count positions, in order: of a segment's input, and of its output."""

    into: tuple[int, ...]
    out: tuple[int, ...]


def position_axes(segment: Segment) -> Axes | None:
    """The axes along which a segment of one array is proven to work position by position; ``None``: none."""
    if len(segment.inputs) != 1 or len(segment.outputs) != 1:
        return None
    (x,), (y,) = segment.inputs, segment.outputs
    if not is_var(y) or not all(jnp.issubdtype(dtype_of(v), jnp.floating) and size_of(v) for v in (x, y)):
        return None
    inputs = (x, *segment.sides, *segment.constants)  # no rule looks at their values
    key = fingerprint([e.eqn for e in segment.equations], inputs, (y,), {})
    return KNOWN.get(key, lambda: _proven(segment, x, y))


def _proven(segment: Segment, x: Var, y: Var) -> Axes | None:
    found: dict[int, int] = {}
    for axis, count in enumerate(shape_of(x)):
        place = _follow(segment, x, y, axis, count) if count > 1 else None
        # An axis that a reshape has joined with others counts positions no more by itself.
        if place is not None and place.inner == 1 and shape_of(y)[place.axis] == count:
            found[axis] = place.axis
    if not found:
        return None
    if list(found.values()) != sorted(set(found.values())):  # the function transposes them: the longest is kept
        longest = max(found, key=lambda axis: shape_of(x)[axis])
        found = {longest: found[longest]}
    return Axes(tuple(found), tuple(found.values()))


def _follow(segment: Segment, x: Var, y: Var, axis: int, count: int) -> Place | None:
    """Where the output holds what the input holds along an axis."""
    try:
        place = Batch(count).follow([e.eqn for e in segment.equations], {x: Place(axis)}).get(y)
    except REFUSALS:  # a rule that others wrote may refuse to be looked at
        return None
    return place if isinstance(place, Place) else None
