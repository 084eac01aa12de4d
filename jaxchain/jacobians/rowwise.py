"""How a block of rows of a Jacobian comes to be: what is made once and kept, what is done again for every block.

Rows of ∂x_q/∂x_t (kept, or rows of the identity) are pulled back to x_s and multiplied by ∂x_s/∂x_0 (kept); or the
columns of ∂x_s/∂x_0 are pushed through to the output, of which a block takes its rows. Builds on the planner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxchain.derivative import Linear, Pass
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.decision import WORTH_IT
from jaxchain.jacobians.execute import Linearised, linearise, perform
from jaxchain.jacobians.matrix import Dense, Matrix, multiply
from jaxchain.jacobians.planner import Plan

__all__ = ["Kept", "RowMode", "RowWay", "each_of", "kept_of", "ways_of"]

RowMode = Literal["auto", "forward", "reverse", "mixed"]
"""What can be asked for."""


Kept = tuple[jax.Array | None, Matrix | None]
"""∂x_q/∂x_stop and ∂x_start/∂x_0, where they are kept."""


@dataclass(frozen=True)
class RowWay:
    """One way to make blocks of rows.

    Attributes
    ----------
    direction
        Whether rows are pulled back from state ``stop`` to state ``start``, or columns pushed on from ``start``.
    start, stop
        States 0 … q: ∂x_start/∂x_0 is kept unless it is the first, ∂x_q/∂x_stop unless it is the last.
    cost
        Predicted multiply-adds of all blocks together, and of what is kept.
    kept
        How many numbers are kept from block to block.
    """

    direction: Literal["pull", "push"]
    start: int
    stop: int
    cost: float
    kept: int

    def simple(self, plan: Plan) -> bool:
        """Whether it is forward or reverse mode, block by block."""
        return self.start == 0 and self.stop == len(plan.units)

    @property
    def mode(self) -> str:
        """The mode of differentiation that a block uses."""
        return "forward" if self.direction == "push" else "reverse"

    def words(self, plan: Plan) -> str:
        """What is done for a block, and what was done before."""
        names, sizes = plan.names, plan.sizes
        first = f"∂{names[self.start]}/∂input" if self.start else ""
        last = f"∂{names[-1]}/∂{names[self.stop]}" if self.stop < len(plan.units) else ""
        kept = [
            *([f"{last} ({sizes[-1]:,} × {sizes[self.stop]:,})"] if last else []),
            *([f"{first} ({sizes[self.start]:,} × {sizes[0]:,})"] if first else []),
        ]
        once = f"{' and '.join(kept)} {'is' if len(kept) == 1 else 'are'} computed once and kept. " if kept else ""
        if self.direction == "push":
            of = f" of {first}" if first else ""
            return f"{once}For every block all columns{of}, {sizes[0]:,}, are pushed through to {names[-1]}."
        rows = f"its rows of {last}" if last else "its rows"
        if self.start == self.stop:
            return f"{once}A block is {rows}{f' times {first}' if first else ''}."
        then = f", and multiplies them by {first}" if first else ""
        return f"{once}A block pulls {rows} back to {names[self.start]}{then}."


def ways_of(plan: Plan, mode: RowMode, blocks: int) -> list[RowWay]:
    """The ways of a mode worth trying, the cheapest first, each of which keeps less than those before it.

    The simple modes come last in any case, as they may need less beside what is kept, or be refused by a rule.

    Parameters
    ----------
    plan
        Of the whole Jacobian.
    mode
        What was asked for; a simple mode is one way, whether it exists or not.
    blocks
        How many blocks there are, if not all rows come at once.
    """
    every = _every_way(plan, blocks)
    if mode in ("forward", "reverse"):
        direction = "push" if mode == "forward" else "pull"
        return [way for way in every if way.simple(plan) and way.direction == direction]

    def price(way: RowWay) -> tuple[float, int]:
        return way.cost * (1 if way.simple(plan) else 1 / WORTH_IT), way.kept

    front: list[RowWay] = []
    known = sorted((way for way in every if math.isfinite(way.cost)), key=price)
    for way in known:
        if (mode == "auto" or not way.simple(plan)) and (not front or way.kept < front[-1].kept):
            front.append(way)
    return front + [way for way in known if mode == "auto" and way.simple(plan) and way not in front]


def _every_way(plan: Plan, blocks: int) -> list[RowWay]:
    """From every state back to every other one, and on from every one."""
    q, (n, m) = len(plan.units), (plan.sizes[0], plan.sizes[-1])
    made = plan.solution.cost
    tangents, adjoints = (_running([getattr(unit, name) for unit in plan.units]) for name in ("tangent", "adjoint"))
    again = blocks * plan.once
    found: list[RowWay] = []
    # Nothing is multiplied by a diagonal that is not sooner scaled by it.
    starts = [s for s in range(q) if s == 0 or not plan.is_diagonal(0, s)]
    stops = [t for t in range(q + 1) if t in (0, q) or not plan.is_diagonal(t, q)]
    for s in starts:
        before, size = (made(0, s), plan.sizes[s] * n) if s else (0.0, 0)
        pushed = before + blocks * _times(n, tangents(s, q)) + again
        found.append(RowWay("push", s, q, pushed, size))
        for t in (t for t in stops if t >= s):
            after, rows = (made(t, q), m * plan.sizes[t]) if t < q else (0.0, 0)
            product = m * plan.sizes[s] * n if s else 0
            pulled = _times(m, adjoints(s, t)) + (again if s < t else 0.0)
            found.append(RowWay("pull", s, t, before + after + pulled + product, size + rows))
    return found


def _times(number: int, work: float) -> float:
    return math.inf if math.isinf(work) else number * work


def _running(work: Sequence[float]) -> Callable[[int, int], float]:
    """Sums over ranges, infinite where a member is."""
    never, total = (
        [0.0, *accumulate(part)] for part in (map(math.isinf, work), (w if math.isfinite(w) else 0.0 for w in work))
    )
    return lambda i, j: math.inf if never[j] > never[i] else total[j] - total[i]


def kept_of(plan: Plan, way: RowWay, how: Pass, args: tuple[Any, ...]) -> Kept:
    """What is kept from block to block: ∂x_q/∂x_stop as an array, ∂x_start/∂x_0 as a matrix; ``None`` for none."""
    q = len(plan.units)
    steps = _kept_steps(plan, way)
    if not steps:
        return None, None
    ready = perform(steps, linearise(plan, steps, args, how))
    return (
        ready[way.stop, q].dense() if way.stop < q else None,
        ready[0, way.start] if way.start else None,
    )


def _kept_steps(plan: Plan, way: RowWay) -> tuple[Step, ...]:
    """The cheapest steps to what is kept."""
    return (*plan.solution.steps(0, way.start), *plan.solution.steps(way.stop, len(plan.units)))


def each_of(
    plan: Plan, way: RowWay, rows: int, how: Pass, kept: Kept, first: jax.Array, args: tuple[Any, ...]
) -> jax.Array:
    """Rows ``first``, ``first`` + 1, … of the Jacobian, so many: (rows, n)."""
    last, start = kept
    if way.direction == "push":
        return _pushed(plan, way, rows, how, start, first, args)
    if way.start == way.stop and last is not None:
        pulled = jax.lax.dynamic_slice_in_dim(last, first, rows)
    else:
        pull, space = _puller(plan, way, args)

        def row(number: jax.Array) -> jax.Array:
            return pull(_unit_vector(number, space) if last is None else last[number])

        pulled = how.map(row, first + jnp.arange(rows))
    return pulled if start is None else multiply(Dense(pulled), start).dense()


def _unit_vector(number: jax.Array, like: Any) -> jax.Array:
    """A row of the identity, made where it is used: the whole would take as much as a block."""
    return (jnp.arange(like.size) == number).astype(like.dtype)


def _puller(plan: Plan, way: RowWay, args: tuple[Any, ...]) -> tuple[Callable[[jax.Array], jax.Array], Any]:
    """What pulls a row back from state ``stop`` to state ``start``, linearised here; and the coordinates of ``stop``."""
    if way.simple(plan):  # the function as it is, as JAX pulls through it
        linear = _whole(plan, args)
        linear.value("reverse")
        return linear.pull, linear.there
    units = _at_point(plan, way, args)[way.start : way.stop]

    def pull(row: jax.Array) -> jax.Array:
        matrix = row[None]
        for unit in reversed(units):
            matrix = unit.before(matrix)
        return matrix[0]

    for unit in units:
        _linearise(unit, "reverse")
    return pull, units[-1].unit.there


def _pusher(plan: Plan, way: RowWay, args: tuple[Any, ...]) -> Callable[[jax.Array], jax.Array]:
    """What pushes a column from state ``start`` to the end, linearised here."""
    if way.simple(plan):
        linear = _whole(plan, args)
        linear.value("forward")
        return linear.push
    units = _at_point(plan, way, args)[way.start :]

    def push(column: jax.Array) -> jax.Array:
        matrix = column[:, None]
        for unit in units:
            matrix = unit.after(matrix)
        return matrix[:, 0]

    for unit in units:
        _linearise(unit, "forward")
    return push


def _pushed(
    plan: Plan, way: RowWay, rows: int, how: Pass, start: Any, first: jax.Array, args: tuple[Any, ...]
) -> jax.Array:
    """A block by all columns, of which it keeps its own rows alone."""
    here, push = plan.units[0].here, _pusher(plan, way, args)
    columns = None if start is None else start.dense()

    def part(number: jax.Array) -> jax.Array:
        column = _unit_vector(number, here) if columns is None else columns[:, number]
        return jax.lax.dynamic_slice_in_dim(push(column), first, rows)

    return how.map(part, jnp.arange(here.size)).T


def _whole(plan: Plan, args: tuple[Any, ...]) -> Linear:
    position = plan.found.argnum % len(args)

    def of_input(x: Any) -> Any:
        return plan.found.call(*args[:position], x, *args[position + 1 :])

    return Linear(of_input, args[position])


def _at_point(plan: Plan, way: RowWay, args: tuple[Any, ...]) -> list[Linearised]:
    """All units, evaluated as what is kept was, and in the mode that a block uses them in."""
    q = len(plan.units)
    passed = (
        Step("eliminate tangent", 0, way.start, q, 0.0)
        if way.direction == "push"
        else Step("eliminate adjoint", way.start, way.stop, q, 0.0)
    )
    return linearise(plan, (*_kept_steps(plan, way), passed), args)


def _linearise(unit: Linearised, mode: Literal["forward", "reverse"]) -> None:
    """Now, and not inside a loop over rows."""
    if unit.unit.kind in ("identity", "diagonal"):
        unit.matrix("read off")
    else:
        unit.linear.value(mode)
