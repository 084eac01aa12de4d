"""The program that each transform makes of a function, traced with abstract values.

Forward mode pushes a tangent along with the primal values; split off what depends on the primal
alone, and a linear program is left; run that backwards, and it is reverse mode.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxchain.chain import Chain
from jaxchain.coordinates import is_real_number
from jaxchain.cost.count import total_flops
from jaxchain.cost.measure import compiled_of
from jaxchain.errors import REFUSALS, ModeError, refusal
from jaxchain.explore.listing import Line, compiled_lines, equation_stage, program_lines
from jaxchain.explore.mark import marked
from jaxchain.explore.rows import TransformRow
from jaxchain.program.flat import Equation, Program
from jaxchain.program.flatten import flatten
from jaxchain.program.primitives import (
    ClosedJaxpr,
    any_equation_of,
    dtype_of,
    is_forward_of_custom_vjp,
    is_var,
    new_jaxpr,
    size_of,
)

__all__ = ["make_rows"]

BATCH = 8
"""How many samples vmap gets: few, and a number that small models seldom have elsewhere."""

TITLES = {
    "fun": "The function itself, one equation a line: calls are looked through, those with a derivative rule of their own kept whole.",
    "jvp": "Forward mode: beside each equation its derivative, which carries a tangent along with the primal value.",
    "linearize": "The jvp without all that depends on primal values alone; that is computed before and kept. What is left is linear in the tangent.",
    "transpose": "The linear part run backwards: each equation transposed, in reverse order, from a cotangent of the output to one of the input. Reverse mode runs this.",
    "vjp": "Reverse mode as a whole: the primal pass, which keeps what the transpose reads, then the transpose.",
    "grad": "The vjp of the cotangent 1, without what only the value itself needed.",
    "vmap": f"The function on {BATCH} samples at once: every equation that reads the input gets a batch axis; the others stay.",
    "jit": "What XLA makes of the function: optimised HLO. Equations are the instructions of its entry, in which many are fused to one.",
}
GRAD_OF_SUM = "The vjp of a cotangent of ones, which is the gradient of the sum of the output's entries (real parts): the output is no real scalar."


@contextmanager
def jax_may_refuse() -> Generator[None]:
    """What JAX raises within is its refusal to transform or compile the function."""
    try:
        yield
    except REFUSALS as error:
        msg = f"{refusal(error)}."
        raise ModeError(msg) from error


@dataclass(frozen=True)
class Point:
    """A function of its leaves' shapes, and the argument that it is differentiated along.

    Attributes
    ----------
    call
        The marked chain.
    args
        Shapes of its arguments.
    at
        Which one is the chosen argument.
    """

    call: Callable[..., Any]
    args: tuple[Any, ...]
    at: int

    def along(self, given: Sequence[Any]) -> tuple[Callable[[Any], Any], Any]:
        """The function of the chosen argument alone, the others being ``given``; and that argument."""
        return lambda x: self.call(*given[: self.at], x, *given[self.at + 1 :]), given[self.at]

    @property
    def x(self) -> Any:
        """What the chosen argument, and so a tangent, looks like."""
        return self.args[self.at]

    @cached_property
    def out(self) -> Any:
        """What the result looks like."""
        return jax.eval_shape(self.call, *self.args)

    @property
    def cotangent(self) -> Any:
        """What a cotangent of the result looks like."""

        def one(leaf: Any) -> jax.ShapeDtypeStruct:
            inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if inexact else jax.dtypes.float0)

        return jax.tree.map(one, self.out)

    @property
    def is_scalar(self) -> bool:
        """Whether the result is one real number, so that it has a gradient."""
        return is_real_number(self.out)


def make_rows(chain: Chain, args: tuple[Any, ...], at: int) -> tuple[TransformRow, ...]:
    """One row a transform; ``args`` are shapes, ``at`` the chosen argument."""
    call = marked(chain)
    point = Point(lambda *given: call(*given), args, at)  # JAX prints what it traces, and a chain prints a table
    rows: dict[str, TransformRow] = {}
    for name, make in MAKERS.items():
        title = GRAD_OF_SUM if name == "grad" and not point.is_scalar else TITLES[name]
        row = TransformRow(name, title, names=chain.names)
        try:
            rows[name] = make(row, point)
        except ModeError as refusal:
            rows[name] = replace(row, note=f"Does not exist here. {refusal}")
    rows["vjp"] = replace(rows["vjp"], residual_bytes=rows["transpose"].residual_bytes)
    return tuple(rows.values())


def _fun(row: TransformRow, point: Point) -> TransformRow:
    return _traced(row, point.call, point.args)


def _jvp(row: TransformRow, point: Point) -> TransformRow:
    def jvp(*given: Any) -> Any:
        fun, x = point.along(given[:-1])
        return jax.jvp(fun, (x,), (given[-1],))

    return _traced(row, jvp, (*point.args, point.x))


def _linearize(row: TransformRow, point: Point) -> TransformRow:
    return _linear(row, lambda *given: jax.linearize(*point.along(given)), point.args, point.x)


def _transpose(row: TransformRow, point: Point) -> TransformRow:
    # The pullback is the linear part transposed, also where a custom VJP leaves none that could run forward.
    return _linear(row, lambda *given: jax.vjp(*point.along(given)), point.args, point.cotangent)


def _vjp(row: TransformRow, point: Point) -> TransformRow:
    def vjp(*given: Any) -> Any:
        value, pull = jax.vjp(*point.along(given[:-1]))
        return value, *pull(given[-1])

    return _traced(row, vjp, (*point.args, point.cotangent))


def _grad(row: TransformRow, point: Point) -> TransformRow:
    def total(out: Any) -> jax.Array:
        inexact = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        if not inexact:
            msg = "The output is made of integers or booleans, which have no gradient."
            raise ModeError(msg)
        first, *others = (jnp.sum(jnp.real(leaf)) for leaf in inexact)
        return sum(others, first)

    def grad(*given: Any) -> Any:
        fun, x = point.along(given)
        return jax.grad(fun if point.is_scalar else lambda x: total(fun(x)))(x)

    return _traced(row, grad, point.args)


def _vmap(row: TransformRow, point: Point) -> TransformRow:
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((BATCH, *leaf.shape), leaf.dtype), point.x)
    axes = [0 if k == point.at else None for k in range(len(point.args))]
    args = (*point.args[: point.at], batch, *point.args[point.at + 1 :])
    return _traced(row, jax.vmap(point.call, axes), args)


def _jit(row: TransformRow, point: Point) -> TransformRow:
    with jax_may_refuse():
        _, compiled = compiled_of(point.call, *point.args)
    lines, instructions = compiled_lines(compiled.as_text() or "")
    lines = _of_stages(lines, row.names)
    cost: Any = compiled.cost_analysis() or {}
    return replace(row, lines=lines, equations=instructions, flops=float(cost.get("flops", 0.0)))


MAKERS = {
    "fun": _fun, "jvp": _jvp, "linearize": _linearize, "transpose": _transpose,
    "vjp": _vjp, "grad": _grad, "vmap": _vmap, "jit": _jit,
}  # fmt: skip


def _traced(row: TransformRow, fun: Callable[..., Any], args: tuple[Any, ...]) -> TransformRow:
    """The row of a program that runs from the arguments to the result."""
    program = _flat(fun, args)
    equations, constants = _needed(program)
    return replace(_listed(row, program, equations, constants), jaxpr=_closed(program, equations, constants))


@dataclass(frozen=True, eq=False)
class _StandIn:
    """A constant of which nothing but its type is known."""

    aval: Any


def _linear(row: TransformRow, make: Callable[..., Any], args: tuple[Any, ...], seed: Any) -> TransformRow:
    """The row of the linear function that ``make`` returns beside the value."""
    held: list[Any] = []

    def primal_pass(*given: Any) -> Any:
        value, linear = make(*given)
        closed = jax.make_jaxpr(linear)(seed)
        # What outlives this trace holds stand-ins, not its tracers: one for each that differs.
        known = {id(const): _StandIn(jax.typeof(const)) for const in closed.consts if isinstance(const, Tracer)}
        held.append(ClosedJaxpr(closed.jaxpr, [known.get(id(const), const) for const in closed.consts]))
        return value, closed.consts  # as results, so that one can see which of them are computed

    primal = _flat(primal_pass, args)
    program = flatten(held[-1])
    equations, constants = _needed(program)
    start = len(primal.outs) - len(held[-1].consts)
    made = dict(zip(map(id, held[-1].consts), primal.outs[start:], strict=True))
    kept = [var for var in constants if id(program.constants[var]) in made]
    residuals = [made[id(program.constants[var])] for var in kept]
    primal.outs[start:] = residuals
    computed = {atom for atom in residuals if is_var(atom) and atom in primal.makers}
    known = [var for var in constants if var not in kept]
    return replace(
        _listed(row, program, equations, constants),
        residual_bytes=sum(size_of(atom) * dtype_of(atom).itemsize for atom in computed),
        jaxpr=_closed(replace(program, invars=[*kept, *program.invars]), equations, known),
        primal=_closed(primal, *_needed(primal)),
    )


def _flat(fun: Callable[..., Any], args: tuple[Any, ...]) -> Program:
    with jax_may_refuse():
        closed = jax.make_jaxpr(fun)(*args)
    return flatten(closed)


def _needed(program: Program) -> tuple[list[Equation], list[Any]]:
    """The equations that the results depend on, and the constants that these and the results read."""
    equations = program.needed()
    read = {var for equation in equations for var in equation.reads} | set(filter(is_var, program.outs))
    return equations, [var for var in program.constants if var in read]


def _listed(
    row: TransformRow, program: Program, equations: Sequence[Equation], constants: Sequence[Any]
) -> TransformRow:
    eqns = [equation.eqn for equation in equations]
    if any(any_equation_of(eqn, is_forward_of_custom_vjp) for eqn in eqns):
        msg = "A part of the function has a custom VJP and no JVP, so forward mode cannot pass."
        raise ModeError(msg)
    jaxpr = new_jaxpr(constants, program.invars, program.outs, eqns)
    lines = _of_stages(program_lines(jaxpr, [equation_stage(equation) for equation in equations]), row.names)
    return replace(row, lines=lines, equations=len(eqns), flops=total_flops(eqns))


def _of_stages(lines: Sequence[Line], names: Sequence[str]) -> tuple[Line, ...]:
    """The lines, those of no stage among them that a scope of the user's own, spelt like a mark, gave to one."""
    return tuple((text, None if stage is None or stage >= len(names) else stage) for text, stage in lines)


def _closed(program: Program, equations: Sequence[Equation], constants: Sequence[Any]) -> ClosedJaxpr:
    jaxpr = new_jaxpr(constants, program.invars, program.outs, [equation.eqn for equation in equations])
    return ClosedJaxpr(jaxpr, [program.constants[var] for var in constants])
