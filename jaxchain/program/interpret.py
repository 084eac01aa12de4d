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

from jaxchain.program.moves import by_numpy
from jaxchain.program.primitives import (
    FAMILY,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    branches_of,
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
)

__all__ = ["interpret", "numbers_of", "values_of"]


def numbers_of(fun: Callable[..., Any], *args: Any) -> Any:
    """``fun(*args)``, traced and then interpreted; run as it is, where it looks at numbers."""
    try:
        closed, out = jax.make_jaxpr(fun, return_shape=True)(*args)
    except jax.errors.ConcretizationTypeError:  # a derivative rule that branches on a value, as it may outside jit
        return fun(*args)
    with np.errstate(all="ignore"):  # as XLA does
        results = jax.device_put(interpret(closed, jax.tree.leaves(args)))
    return jax.tree.unflatten(jax.tree.structure(out), results)


def interpret(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The results of a program at ``args``, as JAX's arrays or NumPy's."""
    with np.errstate(all="ignore"):  # as XLA does
        return _run(closed, args)


def values_of(program: Jaxpr | ClosedJaxpr, args: Sequence[Any]) -> dict[Any, Any]:
    """Every value that a program's results are made of, by its variable."""
    with np.errstate(all="ignore"):  # as XLA does
        return _values(program, args)


def _run(program: Jaxpr | ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    env = _values(program, args)
    return [env[atom] if is_var(atom) else _as_array(atom.val, atom) for atom in opened(program)[0].outvars]


def _values(program: Jaxpr | ClosedJaxpr, args: Sequence[Any]) -> dict[Any, Any]:
    jaxpr, consts = opened(program)
    invars = [*jaxpr.constvars, *jaxpr.invars]
    given = [*consts, *args][-len(invars) :] if invars else []
    env: dict[Any, Any] = {var: _as_array(value, var) for var, value in zip(invars, given, strict=True)}

    def read(atom: Any) -> Any:
        return env[atom] if is_var(atom) else _as_array(atom.val, atom)

    for eqn in needed_eqns(jaxpr, jaxpr.outvars):
        values = [read(atom) for atom in eqn.invars]
        written = _inside(eqn, values)
        if written is None:
            written = by_numpy(eqn, values)
        if written is None:
            reads, _, call = function_of_equation(eqn)
            known = eqn.primitive.name in FAMILY  # JAX's own take NumPy's arrays; others may not
            made = iter(call(*(env[var] if known else jnp.asarray(env[var]) for var in reads)))
            written = [next(made) if is_used(var) else None for var in eqn.outvars]
        env.update(zip(eqn.outvars, written, strict=True))
    return env


def _as_array(value: Any, atom: Any) -> Any:
    """Python's numbers among a program's constants as NumPy's."""
    # Of JAX's literals some are Python's numbers that have a dtype; NumPy takes them for double precision.
    plain = isinstance(value, (bool, int, float, complex))
    return np.asarray(value, dtype_of(atom)) if plain or not hasattr(value, "dtype") else value


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
