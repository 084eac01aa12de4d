"""Where a segment works position by position: axes along which its local Jacobian is block-diagonal.

The proof of samples, made along every axis of a state. Axes that it holds for one by one hold together: an entry of J
that is not zero has the same place on each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp

from jaxchain.errors import REFUSALS
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.primitives import dtype_of, is_var, shape_of, size_of
from jaxchain.program.segment import Segment
from jaxchain.samples.place import Place
from jaxchain.samples.proof import Batch

__all__ = ["Axes", "candidates", "position_axes"]

KNOWN = Kept(1024)
"""What was proven, by program: equal blocks of a network are looked at once."""


class Axes(NamedTuple):
    """The axes that count positions, in order: of each array of a segment's input, and of its output."""

    into: tuple[tuple[int, ...], ...]
    out: tuple[tuple[int, ...], ...]


def position_axes(segment: Segment) -> Axes | None:
    """The axes along which a segment is proven to work position by position; ``None``: none."""
    state = (*segment.inputs, *segment.outputs)
    if not all(is_var(v) and jnp.issubdtype(dtype_of(v), jnp.floating) and size_of(v) for v in state):
        return None
    inputs = (*segment.inputs, *segment.sides, *segment.constants)  # no rule looks at their values
    key = fingerprint([e.eqn for e in segment.equations], inputs, segment.outputs, {})
    return KNOWN.get(key, lambda: _proven(segment))


def _proven(segment: Segment) -> Axes | None:
    proven: list[tuple[list[int], list[int]]] = []
    for into, count in candidates(list(map(shape_of, segment.inputs))):
        out = _follow(segment, into, count)
        # An axis that a reshape has joined with others counts positions no more by itself.
        plain = [
            p.axis
            for p, y in zip(out, segment.outputs, strict=True)
            if p and p.inner == 1 and shape_of(y)[p.axis] == count
        ]
        if len(plain) == len(segment.outputs):
            proven.append((into, plain))
    if not proven:
        return None
    each = zip(*([*into, *out] for into, out in proven), strict=True)
    if any(list(axes) != sorted(set(axes)) for axes in each):  # the function transposes them: the longest is kept
        proven = [max(proven, key=lambda one: shape_of(segment.inputs[0])[one[0][0]])]
    into, out = (tuple(zip(*side, strict=True)) for side in zip(*proven, strict=True))
    return Axes(into, out)


def candidates(shapes: list[tuple[int, ...]]) -> Iterator[tuple[list[int], int]]:
    """Axes that may count the same positions, one of each array, and how many: the same axis, else the first as long."""
    if not shapes:
        return
    for axis, count in enumerate(max(shapes, key=math.prod)):
        alike = [axis if axis < len(s) and s[axis] == count else s.index(count) for s in shapes if count in s]
        if count > 1 and len(alike) == len(shapes):
            yield alike, count


def _follow(segment: Segment, axes: list[int], count: int) -> list[Place | None]:
    """Where each output holds what the input holds along some axes."""
    start = dict(zip(segment.inputs, map(Place, axes), strict=True))
    try:
        known = Batch(count).follow([e.eqn for e in segment.equations], start)
    except REFUSALS:  # a rule that others wrote may refuse to be looked at
        known = {}
    states = [known.get(y) for y in segment.outputs]
    return [state if isinstance(state, Place) else None for state in states]
