"""How an equation that is linear in tangents reads them: a product as a sum over labelled axes, one rule a primitive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxchain.program.primitives import (
    JaxprEqn,
    axes_of,
    broadcast_axes,
    dot_of,
    keeps_order,
    ndim_of,
    permutation_of,
    shape_of,
)

__all__ = ["CUTS", "JOINED", "Labels", "labels_of"]

JOINED = ("concatenate", "stack")
"""Primitives that put arrays together."""

CUTS = frozenset(["concatenate", "slice", "split", "stack"])
"""Primitives that take an array apart, or put some together: followed entry by entry."""


@dataclass(frozen=True)
class Labels:
    """A product as a sum over labelled axes.

    Attributes
    ----------
    operands
        A label for each axis of each operand; ``None``: an axis all of which is read for any entry of the result,
        or an operand without axes beside others.
    out
        A label for each axis of the result; ``None``: an axis that is made as a whole.
    """

    operands: tuple[tuple[int | None, ...], ...]
    out: tuple[int | None, ...]


def labels_of(eqn: JaxprEqn, moves: Sequence[bool], is_zero: Sequence[bool]) -> Labels | None:
    """How an equation that is linear in what ``moves`` reads its operands; ``None``: nobody knows.

    Parameters
    ----------
    eqn
        Of a JVP.
    moves
        Which operands are tangents.
    is_zero
        Which of the others are known to be zero: such may stand beside tangents in a sum.
    """
    name, out = eqn.primitive.name, tuple(range(ndim_of(eqn.outvars[0])))
    added = all(moving or zero for moving, zero in zip(moves, is_zero, strict=True))
    chosen = all(moving or zero for moving, zero in zip(moves[1:], is_zero[1:], strict=True)) and not moves[0]
    alone = sum(moves) == 1
    known = {
        "add": added,
        "add_any": added,
        "sub": added,
        "select_n": chosen,
        "mul": alone,
        "div": alone and moves[0],
        "neg": True,
        "convert_element_type": True,
        "copy": True,
    }
    if known.get(name):
        each = [_beside(shape_of(atom), shape_of(eqn.outvars[0])) for atom in eqn.invars]
        return None if None in each else Labels(tuple(own for own in each if own is not None), out)
    rule = RULES.get(name)
    return rule(eqn) if rule is not None and (added if name in JOINED else alone) else None


def _beside(shape: Sequence[int], out: Sequence[int]) -> tuple[int | None, ...] | None:
    """Labels of an elementwise operand: as long as the result, or of one entry that is read everywhere."""
    if not shape:
        return ()
    if len(shape) != len(out) or any(size not in (1, to) for size, to in zip(shape, out, strict=True)):
        return None
    return tuple(axis if size == to else None for axis, (size, to) in enumerate(zip(shape, out, strict=True)))


def _broadcast(eqn: JaxprEqn) -> Labels:
    shape = shape_of(eqn.outvars[0])
    own = [
        to if shape[to] == size else None for to, size in zip(broadcast_axes(eqn), shape_of(eqn.invars[0]), strict=True)
    ]
    return Labels((tuple(own),), tuple(range(len(shape))))


def _summed(eqn: JaxprEqn) -> Labels:
    every = tuple(range(ndim_of(eqn.invars[0])))
    return Labels((every,), tuple(axis for axis in every if axis not in axes_of(eqn)))


def _transposed(eqn: JaxprEqn) -> Labels:
    return Labels((tuple(range(ndim_of(eqn.invars[0]))),), tuple(permutation_of(eqn)))


def _dot(eqn: JaxprEqn) -> Labels:
    product, fresh = dot_of(eqn), iter(range(99))
    operands: list[list[int | None]] = [[None] * ndim_of(atom) for atom in eqn.invars]
    out: list[int | None] = []
    for one, other in zip(*product.batched, strict=True):
        operands[0][one] = operands[1][other] = label = next(fresh)
        out.append(label)
    for which in (0, 1):
        for axis in product.free(which, len(operands[which])):
            operands[which][axis] = label = next(fresh)
            out.append(label)
    for one, other in zip(*product.contracted, strict=True):
        operands[0][one] = operands[1][other] = next(fresh)
    return Labels((tuple(operands[0]), tuple(operands[1])), tuple(out))


def _reshaped(eqn: JaxprEqn) -> Labels | None:
    """An axis keeps its label where as many numbers lie before it, and as many after."""
    if not keeps_order(eqn):
        return None
    before, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])

    def places(shape: Sequence[int]) -> list[tuple[int, int]]:
        return [(int(np.prod(shape[:k])), size) for k, size in enumerate(shape)]

    found: dict[tuple[int, int], int] = {place: k for k, place in enumerate(places(before)) if place[1] > 1}
    out = tuple(found.get(place) for place in places(after))
    return Labels((tuple(k if k in out else None for k in range(len(before))),), out)


def _side_by_side(eqn: JaxprEqn) -> Labels:
    along = axes_of(eqn)[0]
    own = tuple(None if axis == along else axis for axis in range(ndim_of(eqn.outvars[0])))
    return Labels((own,) * len(eqn.invars), own)


def _cut(eqn: JaxprEqn) -> Labels:
    before, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    own = tuple(axis if size == after[axis] else None for axis, size in enumerate(before))
    return Labels((own,), own)


def _stacked(eqn: JaxprEqn) -> Labels:
    out = tuple(None if axis in axes_of(eqn) else axis for axis in range(ndim_of(eqn.outvars[0])))
    return Labels((tuple(label for label in out if label is not None),) * len(eqn.invars), out)


RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _side_by_side,
    "dot_general": _dot,
    "expand_dims": _reshaped,
    "reduce_sum": _summed,
    "reshape": _reshaped,
    "slice": _cut,
    "split": _cut,
    "squeeze": _reshaped,
    "stack": _stacked,
    "transpose": _transposed,
}
"""Primitives that are linear in one operand, or in all."""
