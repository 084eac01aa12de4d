"""A program's numbers, one equation after the other, without compiling most of them.

XLA compiles every kind of equation by itself, which takes longer than a small program's whole arithmetic. NumPy
moves, compares, adds and multiplies numbers to the same bits; all else (sums, products of matrices, transcendentals,
loops) is bound as JAX does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.program.primitives import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    axes_of,
    branches_of,
    broadcast_axes,
    callee,
    custom_rule,
    dtype_of,
    function_of_equation,
    is_inlined,
    is_remat,
    is_used,
    is_var,
    needed_eqns,
    opened,
    padding_of,
    permutation_of,
    reshape_order,
    shape_of,
    slice_of,
)

__all__ = ["interpret", "numbers_of"]


def numbers_of(fun: Callable[..., Any], *args: Any) -> Any:
    """``fun(*args)``, traced and then interpreted; run as it is, where it looks at numbers."""
    try:
        closed, out = jax.make_jaxpr(fun, return_shape=True)(*args)
    except jax.errors.ConcretizationTypeError:  # a derivative rule that branches on a value, as it may outside jit
        return fun(*args)
    return jax.tree.unflatten(jax.tree.structure(out), interpret(closed, jax.tree.leaves(args)))


def interpret(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The results of a program at ``args``."""
    jaxpr, consts = opened(closed)
    args = [
        arg if hasattr(arg, "dtype") else np.asarray(arg, dtype_of(var))  # Python's numbers
        for arg, var in zip(args, jaxpr.invars, strict=True)
    ]
    with np.errstate(all="ignore"):  # as XLA does
        results = _run(jaxpr, [*consts, *args])
    return jax.device_put(results)


def _run(program: Jaxpr | ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr, consts = opened(program)
    invars = [*jaxpr.constvars, *jaxpr.invars]
    env: dict[Any, Any] = dict(zip(invars, [*consts, *args][-len(invars) :] if invars else [], strict=True))

    def read(atom: Any) -> Any:
        return env[atom] if is_var(atom) else np.asarray(atom.val, dtype_of(atom))

    for eqn in needed_eqns(jaxpr, jaxpr.outvars):
        values = [read(atom) for atom in eqn.invars]
        written = _inside(eqn, values)
        if written is None:
            written = _by_numpy(eqn, values)
        if written is None:
            reads, _, call = function_of_equation(eqn)
            given = iter(call(*(env[var] for var in reads)))
            written = [next(given) if is_used(var) else None for var in eqn.outvars]
        env.update(zip(eqn.outvars, written, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inside(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any] | None:
    """The results of a call or a branch, interpreted themselves; ``None`` of any other equation."""
    if eqn.primitive.name == "cond" and not isinstance(values[0], Tracer):
        branches = branches_of(eqn)
        return _run(branches[int(np.clip(int(values[0]), 0, len(branches) - 1))], values[1:])
    rule = custom_rule(eqn)
    body = callee(eqn) if rule is None else rule.body
    if body is None or not (rule is not None or is_remat(eqn) or is_inlined(eqn)):
        return None
    return _run(body, values)


def _by_numpy(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any] | None:
    """The results of an equation by NumPy; ``None`` where JAX is to be asked."""
    name = eqn.primitive.name
    rule, exact = MOVES.get(name), EXACT.get(name)
    if (rule is None and exact is None) or not all(map(_is_plain, (*values, *map(dtype_of, eqn.outvars)))):
        return None
    arrays = [np.asarray(value) for value in values]
    if rule is not None:
        moved = rule(eqn, *arrays)
        return None if moved is None else list(moved) if isinstance(moved, tuple) else [np.asarray(moved)]
    if exact is None or any(array.dtype.name not in ARITHMETIC for array in arrays):
        return None
    result = np.asarray(exact(*arrays))
    # XLA takes what is below the normal numbers for zero, and NumPy does not.
    return None if any(map(_is_subnormal, (*arrays, result))) else [result]


def _is_plain(value: Any) -> bool:
    """Whether NumPy can hold a value, or values of a dtype."""
    if isinstance(value, Tracer):
        return False
    dtype = getattr(value, "dtype", value)
    return dtype is not None and not jnp.issubdtype(dtype, jax.dtypes.extended)


def _is_subnormal(array: Any) -> bool:
    if array.dtype.kind != "f":
        return False
    return bool(np.any((np.abs(array) < np.finfo(array.dtype).tiny) & (array != 0)))


ARITHMETIC = frozenset(
    ["bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)
"""Of these dtypes NumPy and XLA have the same arithmetic."""

EXACT: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
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
    exact = {x.dtype.name, dtype.name} <= ARITHMETIC and not (x.dtype.kind == "f" and dtype.kind in "iu")
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


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": lambda eqn, x, *sizes: None if sizes else _broadcast(eqn, x),
    "concatenate": lambda eqn, *parts: np.concatenate(parts, axes_of(eqn)[0]),
    "convert_element_type": _convert,
    "copy": lambda _, x: x,
    "expand_dims": _as_result,
    "pad": _pad,
    "reshape": _as_result,
    "rev": lambda eqn, x: np.flip(x, axes_of(eqn)),
    "select_n": lambda _, which, *cases: (
        np.where(which, cases[1], cases[0]) if len(cases) == 2 and which.dtype == bool else None
    ),
    "slice": lambda eqn, x: x[tuple(slice(*along) for along in slice_of(eqn))],
    "split": _split,
    "squeeze": _as_result,
    "transpose": lambda eqn, x: x.transpose(permutation_of(eqn)),
}
"""Primitive → the same by NumPy, of the equation and its operands: nothing is computed. ``None``: not this one."""
