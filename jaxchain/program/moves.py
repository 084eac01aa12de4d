"""What NumPy computes to the same bits as XLA: moves, comparisons, and arithmetic that is rounded once.

XLA compiles every kind of equation by itself, which takes longer than a small program's whole arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxchain.program.primitives import (
    JaxprEqn,
    Windows,
    axes_of,
    broadcast_axes,
    dtype_of,
    padding_of,
    permutation_of,
    reshape_order,
    shape_of,
    slice_of,
    windows_of,
    writes_as_given,
)

__all__ = ["by_numpy"]


def by_numpy(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any] | None:
    """The results of an equation by NumPy; ``None`` where JAX is to be asked."""
    name = eqn.primitive.name
    rule, exact = MOVES.get(name), EXACT.get(name)
    if (rule is None and exact is None) or not all(map(_is_plain, (*values, *map(dtype_of, eqn.outvars)))):
        return None
    arrays = [np.asarray(value) for value in values]
    if rule is not None:
        moved = rule(eqn, *arrays)
        return None if moved is None else list(moved) if isinstance(moved, tuple) else [np.asarray(moved)]
    if exact is None or any(array.dtype not in ARITHMETIC for array in arrays):
        return None
    result = exact(*arrays)
    # XLA takes what is below the normal numbers for zero, and NumPy does not.
    return None if result is None or any(map(_is_subnormal, (*arrays, result))) else [np.asarray(result)]


def _is_plain(value: Any) -> bool:
    """Whether NumPy can hold a value, or values of a dtype."""
    if isinstance(value, Tracer) or not getattr(value, "is_fully_addressable", True):  # other processes hold the rest
        return False
    return isinstance(getattr(value, "dtype", value), np.dtype)  # that of random keys is JAX's own


def _is_subnormal(array: Any) -> bool:
    """Whether a number is not zero, but below the normal ones: its bits, as a whole number, tell."""
    if array.dtype.kind != "f":
        return False
    distinct = array[tuple(slice(None if step else 1) for step in array.strides)]  # what is broadcast is seen once
    whole, limits = np.dtype(f"u{array.itemsize}"), np.finfo(array.dtype)
    bits = np.abs(distinct).view(whole) - whole.type(1)  # zero's become the largest
    return bool(bits.min(initial=np.iinfo(whole).max) < limits.tiny.view(whole) - 1)


ARITHMETIC = frozenset(map(np.dtype, ["bool", "float32", "float64", *np.typecodes["AllInteger"]]))
"""Of these dtypes NumPy and XLA have the same arithmetic."""

EXACT: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "div": lambda x, y: x / y if x.dtype.kind == "f" else None,  # XLA rounds whole numbers towards zero
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lt": np.less,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "rem": lambda x, y: np.fmod(x, y) if y.all() else None,
    "sqrt": np.sqrt,
    "square": lambda x: x * x,
    "sub": np.subtract,
    "xor": np.bitwise_xor,
}
"""Primitive → the same by NumPy: operations that are rounded once, or not at all."""


def _as_result(eqn: JaxprEqn, x: Any, *_: Any) -> Any:
    return x.reshape(shape_of(eqn.outvars[0])) if reshape_order(eqn) is None else None


def _broadcast(eqn: JaxprEqn, x: Any) -> Any:
    shape, axes = shape_of(eqn.outvars[0]), dict(zip(broadcast_axes(eqn), x.shape, strict=True))
    return np.broadcast_to(x.reshape([axes.get(axis, 1) for axis in range(len(shape))]), shape)


def _convert(eqn: JaxprEqn, x: Any) -> Any:
    dtype = np.dtype(dtype_of(eqn.outvars[0]))
    # From real to whole numbers, what is out of range is XLA's to say.
    exact = {x.dtype, dtype} <= ARITHMETIC and not (x.dtype.kind == "f" and dtype.kind in "iu")
    return None if not exact or _is_subnormal(x) or _is_subnormal(made := x.astype(dtype)) else made


def _pad(eqn: JaxprEqn, x: Any, value: Any) -> Any:
    along = padding_of(eqn)
    if any(before < 0 or after < 0 for before, after, _ in along):
        return None
    padded = np.full(shape_of(eqn.outvars[0]), value, x.dtype)
    places = [
        slice(low, low + size + max(size - 1, 0) * gap, gap + 1)
        for (low, _, gap), size in zip(along, x.shape, strict=True)
    ]
    padded[tuple(places)] = x
    return padded


def _split(eqn: JaxprEqn, x: Any) -> tuple[Any, ...]:
    axis = axes_of(eqn)[0]
    ends = np.cumsum([shape_of(var)[axis] for var in eqn.outvars])[:-1]
    return tuple(np.split(x, ends, axis))


def _places(windows: Windows, operand: Any, indices: Any) -> tuple[Any, ...] | None:
    """Where the numbers of all windows lie in the operand: an array an axis, batch first; ``None`` if one sticks out."""
    batch = indices.shape[:-1]
    places: list[Any] = []
    for axis, (long, size) in enumerate(zip(operand.shape, windows.sizes, strict=True)):
        start = np.zeros(batch, np.int64)
        if axis in windows.places:
            start = indices[..., windows.places[axis]].astype(np.int64)
        elif axis in windows.beside:
            start = np.indices(batch)[windows.beside[axis]]
        if np.any((start < 0) | (start > long - size)):
            return None  # whether it is left out or moved is JAX's to say
        shape = [size if axis == kept else 1 for kept in windows.kept]
        along = np.arange(size).reshape(shape) if axis in windows.kept else 0
        places.append(start.reshape((*batch, *[1] * len(shape))) + along)
    return tuple(places)


def _gather(eqn: JaxprEqn, operand: Any, indices: Any) -> Any:
    windows = windows_of(eqn)
    places, axes = _places(windows, operand, indices), windows.axes
    return np.moveaxis(operand[places], range(-len(axes), 0), axes) if places else None


def _scatter(eqn: JaxprEqn, operand: Any, indices: Any, updates: Any) -> Any:
    adds, windows = eqn.primitive.name == "scatter-add", windows_of(eqn)
    exact = operand.dtype in ARITHMETIC and not _is_subnormal(updates) if adds else writes_as_given(eqn)
    places, axes = _places(windows, operand, indices), windows.axes
    if not (exact and places):
        return None
    written, updates = operand.copy(), np.moveaxis(updates, axes, range(-len(axes), 0))
    if adds:
        np.add.at(written, places, updates)
    else:
        written[places] = updates
    return None if adds and _is_subnormal(written) else written


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": lambda eqn, x, *sizes: None if sizes else _broadcast(eqn, x),
    "concatenate": lambda eqn, *parts: np.concatenate(parts, axes_of(eqn)[0]),
    "convert_element_type": _convert,
    "copy": lambda _, x: x,
    "expand_dims": _as_result,
    "gather": _gather,
    "pad": _pad,
    "reshape": _as_result,
    "rev": lambda eqn, x: np.flip(x, axes_of(eqn)),
    "scatter": _scatter,
    "scatter-add": _scatter,
    "select_n": lambda _, which, *cases: (
        np.where(which, cases[1], cases[0]) if len(cases) == 2 and which.dtype == bool else None
    ),
    "slice": lambda eqn, x: x[tuple(slice(*along) for along in slice_of(eqn))],
    "split": _split,
    "squeeze": _as_result,
    "transpose": lambda eqn, x: x.transpose(permutation_of(eqn)),
}
"""Primitive → the same by NumPy, of the equation and its operands: nothing is computed. ``None``: not this one."""
