"""One equation that is linear in tangents, in the boxes around what is not zero and matters of them.

`jaxchain.jacobians.reach` says which those are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import pieces
from jaxchain.jacobians.labels import Labels
from jaxchain.jacobians.reach import Box, whole
from jaxchain.program.primitives import JaxprEqn, Var, bind, broadcast_axes, dtype_of, is_var, shape_of, slice_of

__all__ = ["Boxes", "Held", "evaluated", "fit_columns", "lengths", "part_of", "size"]

Boxes = Mapping[Var, Box]
"""Tangents → their boxes; without those that are zero, or do not matter."""


def lengths(box: Box) -> tuple[int, ...]:
    """How many entries along each axis."""
    return tuple(stop - start for start, stop in box)


def size(box: Box) -> int:
    """How many entries."""
    return math.prod(lengths(box))


def fit(value: jax.Array, box: Box, wanted: Box) -> jax.Array:
    """What is zero outside of one box, in another."""
    if box == wanted:
        return value
    inner = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, wanted, strict=True)]
    if any(start >= stop for start, stop in inner):
        return jnp.zeros(lengths(wanted), value.dtype)
    cut = value[tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(inner, box, strict=True))]
    return jnp.pad(cut, [(lo - c, d - hi) for (lo, hi), (c, d) in zip(inner, wanted, strict=True)])


def fit_columns(value: jax.Array, box: Box, wanted: Box) -> jax.Array:
    """The same of columns, which come last."""
    columns = ((0, value.shape[-1]),)
    return fit(value, (*box, *columns), (*wanted, *columns))


def evaluated(
    eqn: JaxprEqn, how: Labels | None, boxes: Boxes, moving: Mapping[Var, jax.Array], point: Mapping[Var, Any]
) -> list[jax.Array]:
    """The results that have a box, in it."""
    if how is None:  # as it is, of whole arrays
        values = [_operand(atom, whole(atom), boxes, moving, point) for atom in eqn.invars]
        made, held = bind(eqn, values), [whole(var) for var in eqn.outvars]
    else:
        ranges = _ranges(eqn, how, boxes)
        values = [
            _operand(atom, _within(own, atom, ranges), boxes, moving, point)
            for atom, own in zip(eqn.invars, how.operands, strict=True)
        ]
        held = [_within(how.out, var, ranges) for var in eqn.outvars]
        made = _applied(eqn, values, held[0])
    results = made if eqn.primitive.multiple_results else [made]
    return [
        fit(value, box, boxes[var]) for var, value, box in zip(eqn.outvars, results, held, strict=True) if var in boxes
    ]


def part_of(eqn: JaxprEqn, how: Labels | None, boxes: Boxes) -> float:
    """Of the work of whole arrays, what is left in the boxes."""
    if not any(var in boxes for var in eqn.outvars):
        return 0.0
    if how is None:
        return 1.0
    ranges, sizes = _ranges(eqn, how, boxes), dict[int, int]()
    for atom, own in zip((*eqn.invars, eqn.outvars[0]), (*how.operands, how.out), strict=True):
        sizes |= {label: length for label, length in zip(own, shape_of(atom), strict=False) if label is not None}
    return math.prod((ranges[label][1] - ranges[label][0]) / length for label, length in sizes.items() if length)


def _within(own: Sequence[int | None], atom: Any, ranges: Mapping[int, tuple[int, int]]) -> Box:
    """The box of an operand or a result by the ranges of its labels; all of a number beside arrays."""
    if len(own) != len(shape_of(atom)):
        return whole(atom)
    return tuple(
        (0, length) if label is None else ranges[label] for label, length in zip(own, shape_of(atom), strict=True)
    )


def _ranges(eqn: JaxprEqn, how: Labels, boxes: Boxes) -> dict[int, tuple[int, int]]:
    """From where to where each label goes: in the results, or where it is summed, in the tangent that is read."""
    ranges: dict[int, tuple[int, int]] = {}
    for box in (boxes[var] for var in eqn.outvars if var in boxes):
        for label, (start, stop) in zip(how.out, box, strict=True):
            if label is not None:
                first, last = ranges.get(label, (start, stop))
                ranges[label] = min(first, start), max(last, stop)
    summed: dict[int, tuple[int, int]] = {}
    for atom, own in zip(eqn.invars, how.operands, strict=True):
        box = boxes.get(atom) if is_var(atom) else None
        for label, along in zip(own, box or whole(atom), strict=False):
            if label is not None and label not in ranges and (box is not None or label not in summed):
                summed[label] = along
    return ranges | summed


def _operand(atom: Any, wanted: Box, boxes: Boxes, moving: Mapping[Var, jax.Array], point: Mapping[Var, Any]) -> Any:
    """An operand, in a box."""
    if is_var(atom) and atom in moving:
        return fit(moving[atom], boxes[atom], wanted)
    if is_var(atom) and atom not in point:  # a tangent that is zero
        return jnp.zeros(lengths(wanted), dtype_of(atom))
    value = point[atom] if is_var(atom) else jnp.asarray(atom.val, dtype_of(atom))
    return value[tuple(slice(*along) for along in wanted)] if wanted != whole(atom) else value


def _applied(eqn: JaxprEqn, values: Sequence[Any], box: Box) -> Any:
    """The operation, of smaller arrays."""
    name = eqn.primitive.name
    if name in ("reshape", "expand_dims", "squeeze"):
        return values[0].reshape(lengths(box))
    if name == "broadcast_in_dim":
        return jax.lax.broadcast_in_dim(values[0], lengths(box), broadcast_axes(eqn))
    if name == "slice":
        before, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
        cuts = zip(slice_of(eqn), values[0].shape, before, after, strict=True)
        return values[0][tuple(slice(length) if old == new else slice(*cut) for cut, length, old, new in cuts)]
    return bind(eqn, values)


@dataclass
class Held:
    """Tangents, their columns last: of several stretches in one array, where these are computed together."""

    widths: list[int]
    arrays: dict[Var, dict[tuple[int, ...], jax.Array]] = field(default_factory=dict)

    def put(self, var: Var, numbers: tuple[int, ...], value: jax.Array) -> None:
        """Keep the columns of some stretches."""
        self.arrays.setdefault(var, {})[numbers] = value

    def get(self, var: Var, numbers: tuple[int, ...]) -> jax.Array:
        """The columns of some stretches, in order."""
        kept = self.arrays[var]
        if numbers not in kept:
            each = {n: part for group, value in kept.items() for n, part in self._apart(group, value, numbers)}
            parts = [each[n] for n in numbers]
            kept[numbers] = parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)
        return kept[numbers]

    def _apart(self, group: tuple[int, ...], value: jax.Array, numbers: tuple[int, ...]) -> list[tuple[int, jax.Array]]:
        if not set(group) & set(numbers):
            return []
        return list(zip(group, pieces(value, [self.widths[n] for n in group], -1), strict=True))
