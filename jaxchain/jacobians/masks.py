"""Numbers that are zero wherever a program is evaluated: what a softmax makes of scores that a mask has left out.

Followed through the equations that no tangent enters. A score counts as left out where −∞ is put in its place, or the
least number of its dtype, once the greatest of some scores that are not left out is taken off; where −10⁹ is, it does
not: other scores may be as low.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxchain.program.flat import Program
from jaxchain.program.primitives import (
    Atom,
    JaxprEqn,
    Var,
    axes_of,
    broadcast_axes,
    dtype_of,
    is_inexact,
    is_var,
    keeps_order,
    permutation_of,
    shape_of,
)

__all__ = ["zeros_of"]

Patterns = dict[Var, np.ndarray]


def zeros_of(program: Program, known: Callable[[Atom], np.ndarray | None]) -> Patterns:
    """Where values that depend on the arguments are zero nevertheless.

    Parameters
    ----------
    program
        Flat.
    known
        The value of an atom, where it has one before any call.
    """
    infinite, least, zero = Patterns(), Patterns(), Patterns()
    greatest: dict[Atom, Atom] = {}  # of which scores a value is the greatest, in each row of one that is not left out
    for equation in program.needed():
        eqn = equation.eqn
        if len(eqn.outvars) != 1 or eqn.outvars[0] not in program.open or not is_inexact(eqn.outvars[0]):
            continue
        name, (first, *_), (out,) = eqn.primitive.name, eqn.invars, eqn.outvars
        if name == "select_n":
            for found, is_so in ((infinite, _is_infinite), (least, _is_least), (zero, _is_zero)):
                _keep(found, out, _chosen(eqn, found, is_so, known))
        elif name == "reduce_max" and (pattern := _at(first, least)) is not None:
            if not pattern.all(axes_of(eqn)).any():
                greatest[out] = first
        elif name == "exp":
            _keep(zero, out, _at(first, infinite))
        elif name == "sub":
            is_greatest = is_var(first) and is_var(eqn.invars[1]) and greatest.get(eqn.invars[1]) is first
            _keep(infinite, out, _at(first, least if is_greatest else infinite))
        elif name == "mul":
            each = [_at(atom, zero) for atom in eqn.invars]
            _keep(zero, out, each[0] if each[1] is None else each[1] if each[0] is None else each[0] | each[1])
        elif name == "div":
            _keep(zero, out, _at(first, zero))
        elif name == "convert_element_type":
            for found in (infinite, zero):
                _keep(found, out, _at(first, found))
        elif (move := _move(eqn)) is not None:
            last = eqn.invars[-1]  # of what is the greater of −∞ and something
            if is_var(last) and last in greatest:
                greatest[out] = greatest[last]
            for found in (infinite, least, zero):
                pattern = _at(last, found)
                _keep(found, out, None if pattern is None else move(pattern))
    return zero


def _at(atom: Atom, found: Mapping[Var, np.ndarray]) -> np.ndarray | None:
    return found.get(atom) if is_var(atom) else None


def _keep(found: Patterns, out: Var, pattern: np.ndarray | None) -> None:
    if pattern is not None and pattern.any():
        found[out] = np.broadcast_to(pattern, shape_of(out))


def _is_infinite(value: np.ndarray, _dtype: Any) -> np.ndarray:
    return value == -np.inf


def _is_least(value: np.ndarray, dtype: Any) -> np.ndarray:
    return value <= np.asarray(jnp.finfo(dtype).min, value.dtype)


def _is_zero(value: np.ndarray, _dtype: Any) -> np.ndarray:
    return value == 0


def _chosen(
    eqn: JaxprEqn,
    found: Mapping[Var, np.ndarray],
    is_so: Callable[[np.ndarray, Any], np.ndarray],
    known: Callable[[Atom], np.ndarray | None],
) -> np.ndarray | None:
    """Where a choice by what is known picks something that is so."""
    which, *cases = eqn.invars
    predicate = known(which)
    if predicate is None:
        return None
    shape = shape_of(eqn.outvars[0])
    pattern = np.zeros(shape, bool)
    for k, case in enumerate(cases):
        value, so = known(case), _at(case, found)
        if value is not None:
            so = is_so(value, dtype_of(eqn.outvars[0]))
        if so is not None:
            pattern |= np.broadcast_to(predicate == k, shape) & np.broadcast_to(so, shape)
    return pattern


def _move(eqn: JaxprEqn) -> Callable[[np.ndarray], np.ndarray] | None:
    """What an equation does that computes nothing."""
    shape = shape_of(eqn.outvars[0])
    if keeps_order(eqn):
        return lambda pattern: pattern.reshape(shape)
    never = eqn.primitive.name == "max" and not is_var(eqn.invars[0]) and np.all(eqn.invars[0].val == -np.inf)
    if eqn.primitive.name == "stop_gradient" or never:
        return lambda pattern: pattern
    if eqn.primitive.name == "transpose":
        return lambda pattern: pattern.transpose(tuple(permutation_of(eqn)))
    if eqn.primitive.name == "broadcast_in_dim":
        places = dict(zip(broadcast_axes(eqn), shape_of(eqn.invars[0]), strict=True))
        return lambda pattern: pattern.reshape([places.get(axis, 1) for axis in range(len(shape))])
    return None
