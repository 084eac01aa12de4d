"""Every value of a flat program, with its tangent and its cotangent: one JVP and one VJP in all.

The JVP is of the function that returns every value. For the VJP each value passes through a tap, an
identity with a second input that does nothing; the cotangent of that input is the value's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.discovery.program import Equation, Program, is_inexact, is_var
from jaxchain.discovery.segment import new_jaxpr

__all__ = ["Values", "evaluate"]

REFUSALS = (TypeError, ValueError, NotImplementedError)
"""What JAX raises where a mode does not exist."""


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
    """
    runs = list(_runs(program.equations))
    variables = [*program.invars, *(var for equation in program.equations for var in equation.writes)]
    notes: list[str] = []

    def forward(*given: Any) -> list[Any]:
        env = _interpret(runs, _begin(program, given), lambda _, value: value)
        return [env[var] for var in variables]

    try:
        primals, moved = jax.jvp(forward, tuple(inputs), tuple(tangents))
    except REFUSALS as error:
        primals, moved = forward(*inputs), None  # whatever is wrong with the function itself is raised here
        notes.append(f"No tangents: {_first_line(error)}")
    values = dict(zip(variables, primals, strict=True))
    tapped = [var for var in variables if is_inexact(var)]

    def backward(*taps: Any) -> list[Any]:
        tap_of = dict(zip(tapped, taps, strict=True))

        def through(var: Any, value: Any) -> Any:
            return _tap(value, tap_of[var]) if var in tap_of else value

        begun = {var: through(var, value) for var, value in _begin(program, inputs).items()}
        env = _interpret(runs, begun, through)
        return [env[atom] if is_var(atom) else jnp.asarray(atom.val, atom.aval.dtype) for atom in program.outs]

    try:
        _, pull = jax.vjp(backward, *(jnp.zeros_like(values[var]) for var in tapped))
        pulled = pull(list(cotangents))
    except REFUSALS as error:
        pulled = None
        notes.append(f"No cotangents: {_first_line(error)}")
    return Values(
        {**values, **program.constants},
        {} if moved is None else {v: t for v, t in zip(variables, moved, strict=True) if is_inexact(v)},
        {} if pulled is None else dict(zip(tapped, pulled, strict=True)),
        tuple(notes),
    )


def _begin(program: Program, given: Sequence[Any]) -> dict[Any, Any]:
    return {**program.constants, **dict(zip(program.invars, given, strict=True))}


Run = tuple[Equation, Callable[..., list[Any]]]


def _runs(equations: Sequence[Equation]) -> Iterator[Run]:
    """Each equation with the function that it is, of the variables that it reads."""
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # pyright: ignore[reportPrivateImportUsage]

    for equation in equations:
        yield equation, jaxpr_as_fun(ClosedJaxpr(new_jaxpr([], _read(equation), equation.writes, [equation.eqn]), []))


def _read(equation: Equation) -> list[Any]:
    return list(dict.fromkeys(equation.reads))


def _interpret(runs: Sequence[Run], env: dict[Any, Any], pass_on: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """Every variable's value, each passed on as it is written."""
    for equation, call in runs:
        written = call(*(env[var] for var in _read(equation)))
        env.update({var: pass_on(var, value) for var, value in zip(equation.writes, written, strict=True)})
    return env


@jax.custom_vjp
def _tap(value: jax.Array, tap: jax.Array) -> jax.Array:
    """``value``, exactly; its cotangent is also that of ``tap``."""
    del tap
    return value


_tap.defvjp(lambda value, _: (value, None), lambda _, cotangent: (cotangent, cotangent))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
