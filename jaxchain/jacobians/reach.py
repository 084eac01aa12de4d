"""How far a tangent reaches in the program of a JVP: which numbers of each array it may enter, and which are then zero.

Of a tangent that begins at some positions alone. Every product is read as a sum over labelled axes, so that what may
be another number than zero, and what matters for the results, follow from patterns of zeros and ones: those of masks
and of other values that are known before any call, and ones for what is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxchain.jacobians.labels import CUTS, JOINED, Labels
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import Atom, JaxprEqn, Var, axes_of, is_var, shape_of, slice_of

__all__ = ["Box", "enclosing", "followed", "whole"]

Box = tuple[tuple[int, int], ...]
"""The first entry along each axis, and the first after it."""

MOST_TERMS = 1 << 24
"""A pattern of more terms is not worked out: all of it may then be other than zero."""


def whole(atom: Atom) -> Box:
    """All of an array."""
    return tuple((0, size) for size in shape_of(atom))


def enclosing(pattern: np.ndarray) -> Box | None:
    """The smallest box around what is not zero; ``None``: all is."""
    if not pattern.any():
        return None
    each = [
        np.flatnonzero(pattern.any(tuple(k for k in range(pattern.ndim) if k != axis))) for axis in range(pattern.ndim)
    ]
    return tuple((int(at[0]), int(at[-1]) + 1) for at in each)


def followed(
    equations: Sequence[Equation],
    labels: Mapping[int, Labels | None],
    starts: Mapping[Any, np.ndarray],
    known: Mapping[Any, np.ndarray],
    ends: Mapping[Any, np.ndarray],
) -> dict[Any, np.ndarray]:
    """Where each tangent may be another number than zero and matters for the results.

    Parameters
    ----------
    equations
        Those that tangents enter, in order.
    labels
        How each of them reads, by its place.
    starts
        Where the first tangents may be other than zero.
    known
        Where other values may be, of those that are known.
    ends
        Which entries of the results are wanted.
    """
    found = dict(starts)
    for k, equation in enumerate(equations):
        eqn, how = equation.eqn, labels[k]
        reads = [found.get(atom) if is_var(atom) else None for atom in eqn.invars]
        for var in equation.writes:
            found[var] = np.ones(shape_of(var), bool)
            if not any(read is not None and read.any() for read in reads):
                found[var] = np.zeros(shape_of(var), bool)
            elif eqn.primitive.name in CUTS:
                found[var] = _cut_out(
                    eqn,
                    var,
                    [np.zeros(shape_of(a), bool) if r is None else r for a, r in zip(eqn.invars, reads, strict=True)],
                )
            elif how is not None:
                each = [_product(eqn, how, j, read, known, var) for j, read in enumerate(reads) if read is not None]
                found[var] = np.logical_or.reduce(each)
    wanted: dict[Any, np.ndarray] = {var: found[var] & end for var, end in ends.items() if var in found}
    for k, equation in reversed(list(enumerate(equations))):
        eqn, how = equation.eqn, labels[k]
        for j, atom in enumerate(eqn.invars):
            if not is_var(atom) or atom not in found:
                continue
            for var in equation.writes:
                way = wanted.get(var)
                if way is None or not way.any():
                    continue
                if eqn.primitive.name in CUTS:
                    asked = _put_back(eqn, var, j, way)
                else:
                    asked = np.ones(shape_of(atom), bool) if how is None else _asked(eqn, how, j, way, known)
                wanted[atom] = wanted.get(atom, False) | (asked & found[atom])
    return {var: wanted.get(var, np.zeros(shape_of(var), bool)) for var in found}


def _place(eqn: JaxprEqn, var: Var, operand: int) -> tuple[slice, ...]:
    """Where a result lies in the operand, or of what is put together the operand in the result."""
    if eqn.primitive.name == "slice":
        return tuple(slice(*along) for along in slice_of(eqn))
    along, before, array = axes_of(eqn)[0], eqn.outvars[: eqn.outvars.index(var)], var
    if eqn.primitive.name == "concatenate":
        before, array = eqn.invars[:operand], eqn.invars[operand]
    start = sum(shape_of(part)[along] for part in before)
    return tuple(
        slice(start, start + size) if axis == along else slice(size) for axis, size in enumerate(shape_of(array))
    )


def _cut_out(eqn: JaxprEqn, var: Var, reads: Sequence[np.ndarray]) -> np.ndarray:
    if eqn.primitive.name in JOINED:
        return (np.stack if eqn.primitive.name == "stack" else np.concatenate)(reads, axes_of(eqn)[0])
    return reads[0][_place(eqn, var, 0)]


def _put_back(eqn: JaxprEqn, var: Var, operand: int, wanted: np.ndarray) -> np.ndarray:
    if eqn.primitive.name == "stack":
        return wanted.take(operand, axes_of(eqn)[0])
    if eqn.primitive.name == "concatenate":
        return wanted[_place(eqn, var, operand)]
    asked = np.zeros(shape_of(eqn.invars[0]), bool)
    asked[_place(eqn, var, 0)] = wanted
    return asked


def _still(eqn: JaxprEqn, how: Labels, moving: int, known: Mapping[Any, np.ndarray]) -> list[tuple[np.ndarray, Any]]:
    """The patterns of the other factors that are known, with their labels."""
    if eqn.primitive.name == "select_n":  # what the predicate keeps of this case
        predicate = known.get(eqn.invars[0]) if is_var(eqn.invars[0]) else None
        return [] if predicate is None else [(predicate == moving - 1, how.operands[0])]
    if eqn.primitive.name not in ("mul", "dot_general"):
        return []
    other = eqn.invars[1 - moving]
    pattern = known.get(other) if is_var(other) else None
    return [] if pattern is None else [(pattern != 0, how.operands[1 - moving])]


def _product(
    eqn: JaxprEqn, how: Labels, moving: int, read: np.ndarray, known: Mapping[Any, np.ndarray], out: Var
) -> np.ndarray:
    """Where a tangent's product with what is known may be other than zero."""
    factors = [(read, how.operands[moving]), *_still(eqn, how, moving, known)]
    return _spread(_summed_over(factors, how.out, _terms(eqn, how)), how.out, shape_of(out))


def _asked(eqn: JaxprEqn, how: Labels, moving: int, wanted: np.ndarray, known: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Which entries of a tangent enter what is wanted."""
    own = how.operands[moving]
    factors = [(wanted, how.out), *_still(eqn, how, moving, known)]
    return _spread(_summed_over(factors, own, _terms(eqn, how)), own, shape_of(eqn.invars[moving]))


def _terms(eqn: JaxprEqn, how: Labels) -> float:
    sizes = {
        label: size
        for atom, own in zip((*eqn.invars, eqn.outvars[0]), (*how.operands, how.out), strict=True)
        for label, size in zip(own, shape_of(atom), strict=False)
        if label is not None
    }
    return float(np.prod(list(sizes.values()), dtype=float)) if sizes else 1.0


def _summed_over(
    factors: Sequence[tuple[np.ndarray, Sequence[int | None]]], out: Sequence[int | None], terms: float
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Whether any term of a product is other than zero, by the labels that factors and result share."""
    reduced: list[tuple[np.ndarray, list[int]]] = []
    for pattern, labels in factors:
        if pattern.ndim != len(labels):  # a number beside arrays
            pattern, labels = np.asarray(pattern.any()), ()
        gone = tuple(axis for axis, label in enumerate(labels) if label is None)
        reduced.append(
            _without_copies(np.logical_or.reduce(pattern, gone), [label for label in labels if label is not None])
        )
    if terms > MOST_TERMS:
        reduced = [(np.ones_like(pattern), labels) for pattern, labels in reduced[:1]]
    shared = {label for _, labels in reduced for label in labels}
    kept = tuple(label for label in out if label is not None and label in shared)
    given: list[Any] = []
    for pattern, labels in reduced:
        given += [pattern.astype(np.float32), labels]
    return np.einsum(*given, list(kept)) > 0, kept


def _without_copies(pattern: np.ndarray, labels: list[int]) -> tuple[np.ndarray, list[int]]:
    """A pattern without the axes along which it is the same everywhere."""
    for axis in reversed(range(pattern.ndim)):
        first = pattern.take(0, axis)
        if (pattern == np.expand_dims(first, axis)).all():
            pattern, labels = first, [label for k, label in enumerate(labels) if k != axis]
    return pattern, labels


def _spread(
    found: tuple[np.ndarray, tuple[int, ...]], labels: Sequence[int | None], shape: tuple[int, ...]
) -> np.ndarray:
    """A pattern by labels, laid out as an array: the same wherever it has no label."""
    pattern, kept = found
    lengths = [size if label in kept else 1 for label, size in zip(labels, shape, strict=True)]
    order = sorted(range(len(kept)), key=lambda k: list(labels).index(kept[k]))
    return np.broadcast_to(pattern.transpose(order).reshape(lengths), shape)
