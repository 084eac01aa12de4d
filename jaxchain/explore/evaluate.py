"""Every value of a flat program, with its tangent and its cotangent: one JVP and one VJP in all.

The JVP is of the function that returns every value. For the VJP each value passes through a tap, an
identity with a second input that does nothing; the cotangent of that input is the value's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.derivative import jvp, vjp
from jaxchain.discovery.name import word
from jaxchain.errors import REFUSALS, first_line, refusal
from jaxchain.program.flat import Equation, Program
from jaxchain.program.interpret import numbers_of
from jaxchain.program.primitives import (
    Var,
    dtype_of,
    function_of_equation,
    inner_programs,
    is_inexact,
    is_var,
    shape_of,
)

__all__ = ["Values", "check_numbers", "constant_direction", "evaluate"]

Run = tuple[Equation, list[Var], Callable[..., list[Any]]]
"""An equation, the variables that it reads, and the function that it is of them."""


@dataclass(frozen=True)
class Values:
    """By variable; what has no derivative, or no mode to get it, is missing."""

    primals: dict[Any, Any]
    tangents: dict[Any, Any]
    cotangents: dict[Any, Any]
    notes: tuple[str, ...]


def evaluate(program: Program, inputs: Sequence[Any], tangents: Sequence[Any], cotangents: Sequence[Any]) -> Values:
    """Evaluate a program and its derivatives.

    Parameters
    ----------
    program
        Flat.
    inputs, tangents
        One array a variable of ``program.invars``; tangents float0 where there is none.
    cotangents
        One array an entry of ``program.outs``; float0 where there is none.

    Returns
    -------
    Values
        Of arguments, constants and everything computed from them.
    """
    runs = list(_runs(program.equations))
    written = [var for equation in program.equations for var in equation.writes]
    variables = [*program.invars, *program.constants, *written]

    def forward(*given: Any) -> list[Any]:
        env = _interpret(runs, _begin(program, given), lambda _, value: value)
        return [env[var] for var in variables]

    notes: list[str] = []
    try:
        primals, moved = numbers_of(lambda given: jvp(lambda x: forward(*x), given, tuple(tangents)), tuple(inputs))
    except REFUSALS as error:
        refusal(error)
        primals, moved = numbers_of(forward, *inputs), None  # whatever is wrong with the function itself is raised here
        notes.append(f"No tangents: {_reason(error, runs, dict(zip(variables, primals, strict=True)), _push)}")
    values = dict(zip(variables, primals, strict=True))
    pull = partial(_pull_back, program, runs, values, cotangents)
    try:
        pulled = pull(variables)
    except REFUSALS as error:
        try:
            # All that `jax.vjp` of the function itself goes through.
            pulled = pull([var for var in variables if var in program.carrying])
            notes.append(f"No cotangents of what does not depend on the arguments: {first_line(error)}.")
        except REFUSALS as again:
            pulled = {}
            notes.append(f"No cotangents: {_reason(again, runs, values, _pull)}")
    pushed = {} if moved is None else {v: t for v, t in zip(variables, moved, strict=True) if is_inexact(v)}
    return Values(values, pushed, pulled, tuple(notes))


def _pull_back(
    program: Program, runs: Sequence[Run], values: dict[Any, Any], cotangents: Sequence[Any], wanted: Iterable[Any]
) -> dict[Any, Any]:
    """The cotangents of the variables ``wanted``, as far as they have any: one VJP."""
    tapped = [var for var in wanted if is_inexact(var)]

    def backward(*taps: Any) -> list[Any]:
        tap_of = dict(zip(tapped, taps, strict=True))

        def through(var: Any, value: Any) -> Any:
            return _tap(value, tap_of[var]) if var in tap_of else value

        begun = _begin(program, [values[var] for var in program.invars])
        env = _interpret(runs, {var: through(var, value) for var, value in begun.items()}, through)
        return [env[atom] if is_var(atom) else jnp.asarray(atom.val, dtype_of(atom)) for atom in program.outs]

    def pulled(*taps: Any) -> tuple[Any, ...]:
        return vjp(backward, *taps)[1](list(cotangents))

    taps = [np.zeros(shape_of(var), dtype_of(var)) for var in tapped]
    return dict(zip(tapped, numbers_of(pulled, *taps), strict=True))


def _begin(program: Program, given: Sequence[Any]) -> dict[Any, Any]:
    return {**program.constants, **dict(zip(program.invars, given, strict=True))}


def _runs(equations: Sequence[Equation]) -> Iterator[Run]:
    for equation in equations:
        reads, _, call = function_of_equation(equation.eqn)
        yield equation, reads, call


def _interpret(runs: Sequence[Run], env: dict[Any, Any], pass_on: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """Every variable's value, each passed on as it is written."""
    for equation, reads, call in runs:
        written = call(*(env[var] for var in reads))
        env.update({var: pass_on(var, value) for var, value in zip(equation.writes, written, strict=True)})
    return env


@jax.custom_vjp
def _tap(value: jax.Array, tap: jax.Array) -> jax.Array:
    """``value``, exactly; its cotangent is also that of ``tap``."""
    del tap
    return value


_tap.defvjp(lambda value, _: (value, None), lambda _, cotangent: (cotangent, cotangent))


def _reason(
    error: Exception, runs: Sequence[Run], values: dict[Any, Any], mode: Callable[[Any, Sequence[Any]], Any]
) -> str:
    """Why a mode does not exist, in JAX's words, and the first equation alone that refuses it."""
    text, seen = refusal(error), set[Any]()
    for equation, reads, call in runs:
        kind = (equation.name, *map(dtype_of, reads))  # of one kind all are refused, or none, but for programs inside
        if kind in seen:
            continue
        if not any(inner_programs(equation.eqn)):
            seen.add(kind)
        try:
            numbers_of(partial(mode, call), [values[var] for var in reads])
        except REFUSALS:
            return f"{text} ({word(equation)}, {equation.site})."
    return f"{text}."


def _push(call: Callable[..., Any], read: Sequence[Any]) -> Any:
    return jvp(lambda given: call(*given), tuple(read), tuple(constant_direction(read, 1)))


def _pull(call: Callable[..., Any], read: Sequence[Any]) -> Any:
    out, pull = vjp(call, *read)
    return pull(constant_direction(out, 1))


def constant_direction(point: Any, value: float) -> Any:
    """A tangent or cotangent of ``point``, a tree of arrays or shapes: ``value`` everywhere, float0 where there is none."""

    def one(leaf: Any) -> Any:
        like = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        if jnp.issubdtype(like.dtype, jnp.inexact):
            return jnp.full(like.shape, value, like.dtype)
        return np.zeros(like.shape, jax.dtypes.float0)

    return jax.tree.map(one, point)


def check_numbers(args: tuple[Any, ...], shower: str) -> None:
    """Refuse arguments that are mere shapes, or traced.

    Raises
    ------
    TypeError
        Names the argument.
    """
    for number, arg in enumerate(args):
        if any(isinstance(leaf, jax.ShapeDtypeStruct | Tracer) for leaf in jax.tree.leaves(arg)):
            msg = f"{shower} shows numbers, but argument {number} has only shapes. Give arrays, and call it outside jit, vmap and grad."
            raise TypeError(msg)
