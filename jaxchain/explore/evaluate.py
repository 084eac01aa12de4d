"""Every value of a flat program, with its tangent and its cotangent.

One JVP, of the function that returns every value. From the end, each equation pulls back what its results were
given; equations of one kind (primitive, parameters, shapes) have one VJP, traced once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.derivative import jvp, vjp
from jaxchain.discovery.name import word
from jaxchain.errors import REFUSALS, first_line, refusal
from jaxchain.program.fingerprint import fingerprint
from jaxchain.program.flat import Equation, Program
from jaxchain.program.interpret import interpret, numbers_of
from jaxchain.program.primitives import (
    Var,
    any_equation_of,
    dtype_of,
    function_of_equation,
    inner_programs,
    is_inexact,
    is_var,
    like,
    sees_what_moves,
    shape_of,
)

__all__ = ["Values", "constant_direction", "evaluate"]

Run = tuple[Equation, list[Var], Callable[..., list[Any]]]
"""An equation, the variables that it reads, and the function that it is of them."""

Pull = Callable[[list[Any], list[Any]], dict[int, Any]]
"""Of an equation's operands and its results' cotangents: which operand has which cotangent."""


@dataclass(frozen=True)
class Values:
    """By variable; what has no derivative, or no mode to get it, is missing."""

    primals: dict[Any, Any]
    tangents: dict[Any, Any]
    cotangents: dict[Any, Any]
    notes: tuple[str, ...]


WHERE_NOTHING_MOVES = "No cotangents of what does not depend on the arguments"


def evaluate(
    program: Program,
    inputs: Sequence[Any],
    tangents: Sequence[Any],
    cotangents: Sequence[Any],
    start: Mapping[Var, Any] | None = None,
) -> Values:
    """Evaluate a program and its derivatives.

    Parameters
    ----------
    program
        Flat.
    inputs, tangents
        One array a variable of ``program.invars``; tangents float0 where there is none.
    cotangents
        One array an entry of ``program.outs``; float0 where there is none.
    start
        Tangents that begin inside, by the variable that they are of: where integers are turned into numbers.

    Returns
    -------
    Values
        Of arguments, constants and everything computed from them.
    """
    runs = list(_runs(program.equations))
    written = [var for equation in program.equations for var in equation.writes]
    variables = [*program.invars, *program.constants, *written]
    start = start or {}
    inputs, tangents = (*inputs, *map(jnp.zeros_like, start.values())), (*tangents, *start.values())

    def forward(*given: Any) -> list[Any]:
        env = {**program.constants, **dict(zip((*program.invars, *start), given, strict=True))}
        for equation, reads, call in runs:
            begins = {var: env[var] for var in equation.writes if var in start}
            env.update(zip(equation.writes, call(*(env[var] for var in reads)), strict=True))
            env.update({var: env[var] + nothing for var, nothing in begins.items()})
        return [env[var] for var in variables]

    notes: list[str] = []
    try:
        primals, moved = numbers_of(lambda given: jvp(lambda x: forward(*x), given, tangents), inputs)
    except REFUSALS as error:
        refusal(error)
        primals, moved = numbers_of(forward, *inputs), None  # whatever is wrong with the function itself is raised here
        notes.append(f"No tangents: {_reason(error, runs, dict(zip(variables, primals, strict=True)))}")
    values = dict(zip(variables, primals, strict=True))
    pulled = _pull_back(program, runs, values, cotangents, notes)
    pushed = {} if moved is None else {v: t for v, t in zip(variables, moved, strict=True) if is_inexact(v)}
    return Values(values, pushed, pulled, tuple(notes))


def _pull_back(
    program: Program, runs: Sequence[Run], values: dict[Any, Any], cotangents: Sequence[Any], notes: list[str]
) -> dict[Any, Any]:
    """The cotangents of all variables that can have one: each equation pulls back what its results were given."""
    found, kinds = dict[Any, Any](), dict[Hashable, Pull]()
    asked, carrying = set(filter(is_inexact, values)), set(filter(is_inexact, program.carrying))
    forbidden: str | None = None

    def give(atom: Any, cotangent: Any) -> None:
        if is_var(atom) and atom in asked:
            found[atom] = np.add(found[atom], cotangent) if atom in found else cotangent

    def pull(run: Run, given: list[Var], wanted: set[Any]) -> dict[int, Any] | Exception:
        equation, reads, call = run
        may = tuple(var in wanted for var in reads)
        kind = (fingerprint([equation.eqn], reads, given, {}), may)
        try:
            if kind not in kinds:
                kinds[kind] = _pull_of(equation, reads, call, given, may)
            return kinds[kind]([values[var] for var in reads], [found[var] for var in given])
        except REFUSALS as error:
            return error

    for atom, cotangent in zip(program.outs, cotangents, strict=True):
        give(atom, cotangent)
    for run in reversed(runs):
        equation, reads, _ = run
        # A result that nothing reads has no cotangent, not zeros: a rule may forbid what is not there.
        given = [var for var in equation.writes if var in found]
        if not given:
            continue
        # A rule that sees what moves may run only once, so it is asked for what JAX itself would ask it for.
        exact = any_equation_of(equation.eqn, sees_what_moves)
        pulled = pull(run, given, carrying if exact else asked)
        if exact and any(var in asked - carrying for var in reads):
            forbidden, asked = f"{WHERE_NOTHING_MOVES}: the rule is told what moves {_at(equation)}.", carrying
        elif isinstance(pulled, Exception) and asked != carrying:
            forbidden = f"{WHERE_NOTHING_MOVES}: {first_line(pulled)} {_at(equation)}."
            asked, pulled = carrying, pull(run, given, carrying)
        if isinstance(pulled, Exception):
            notes.append(f"No cotangents: {refusal(pulled)} {_at(equation)}.")
            return {}
        for k, cotangent in pulled.items():
            give(reads[k], cotangent)
    if forbidden is not None:
        notes.append(forbidden)
    whole = [found.get(var, np.zeros(shape_of(var), dtype_of(var))) for var in asked]
    return dict(zip(asked, jax.device_put(whole), strict=True))


def _pull_of(
    equation: Equation, reads: Sequence[Var], call: Callable[..., list[Any]], given: Sequence[Var], may: Sequence[bool]
) -> Pull:
    """An equation's VJP: of its operands and the cotangents ``given``, the cotangents of those operands that get one."""
    places = [equation.writes.index(var) for var in given]
    if not any(may):
        return lambda *_: {}

    def pull(values: list[Any], cotangents: list[Any]) -> dict[int, Any]:
        entered = set[int]()

        def of_given(*values: Any) -> list[Any]:
            out = call(*(_watched(value, k, entered) if may[k] else value for k, value in enumerate(values)))
            return [out[k] for k in places]

        back = vjp(of_given, *values, which=may)[1](cotangents)
        return {k: back[k] for k in sorted(entered)}

    try:
        closed, out = jax.make_jaxpr(pull, return_shape=True)(list(map(like, reads)), list(map(like, given)))
    except jax.errors.ConcretizationTypeError:  # a derivative rule that branches on a value, as it may outside jit
        return pull
    return lambda values, cotangents: dict(zip(out, interpret(closed, [*values, *cotangents]), strict=True))


def _watched(value: Any, k: int, entered: set[int]) -> Any:
    """``value``; on the way back JAX leaves it out, unless a cotangent that is no symbolic zero enters."""

    @jax.custom_vjp
    def watched(value: Any) -> Any:
        return value

    def backward(_: None, cotangent: Any) -> tuple[Any]:
        entered.add(k)
        return (cotangent,)

    watched.defvjp(lambda value: (value, None), backward)
    return watched(value)


def _runs(equations: Sequence[Equation]) -> Iterator[Run]:
    for equation in equations:
        reads, _, call = function_of_equation(equation.eqn)
        yield equation, reads, call


def _at(equation: Equation) -> str:
    return f"({word(equation)}, {equation.site})"


def _reason(error: Exception, runs: Sequence[Run], values: dict[Any, Any]) -> str:
    """Why there are no tangents, in JAX's words, and the first equation alone that refuses them."""
    text, seen = refusal(error), set[Any]()
    for equation, reads, call in runs:
        kind = (equation.name, *map(dtype_of, reads))  # of one kind all are refused, or none, but for programs inside
        if kind in seen:
            continue
        if not any(inner_programs(equation.eqn)):
            seen.add(kind)
        try:
            numbers_of(partial(_push, call), [values[var] for var in reads])
        except REFUSALS:
            return f"{text} {_at(equation)}."
    return f"{text}."


def _push(call: Callable[..., Any], read: Sequence[Any]) -> Any:
    return jvp(lambda given: call(*given), tuple(read), tuple(constant_direction(read, 1)))


def constant_direction(point: Any, value: float) -> Any:
    """A tangent or cotangent of ``point``, a tree of arrays or shapes: ``value`` everywhere, float0 where there is none."""

    def one(leaf: Any) -> Any:
        like = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        if jnp.issubdtype(like.dtype, jnp.inexact):
            return jnp.asarray(np.full(like.shape, value, like.dtype))  # jnp.full is compiled for every shape
        return np.zeros(like.shape, jax.dtypes.float0)

    return jax.tree.map(one, point)
