"""Run a plan: an interpreter of its steps, made of bases pushed and pulled, scalings and products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxchain.derivative import ALL_AT_ONCE, Linear, Pass
from jaxchain.discovery.find import Found
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Layout, Matrix, Triangle, multiply
from jaxchain.jacobians.planner import Plan
from jaxchain.jacobians.sparse import Colouring
from jaxchain.jacobians.unit import Unit, known_together
from jaxchain.program.primitives import Var, like
from jaxchain.program.segment import known_values

Direction = Literal["forward", "reverse"]

__all__ = ["Linearised", "by_colours", "execute", "linearise", "perform", "state_and_sides"]


@dataclass(frozen=True, eq=False)
class Linearised:
    """One unit at one state: its matrix, and its action on matrices from either side.

    Products with it keep the positions of ``layouts`` apart. Where ``stretched``, columns that begin at later positions
    are pushed through what they reach alone.
    """

    unit: Unit
    sides: list[Any]
    core_sides: list[Any]
    state: tuple[Any, ...]
    how: Pass
    layouts: tuple[Layout, Layout] | None = None
    stretched: bool = False

    @cached_property
    def linear(self) -> Linear:
        """Its function at that state."""
        unit = self.unit
        return Linear(lambda state: unit.call(self.sides, state), self.state, unit.carries, unit.checkpointed)

    @cached_property
    def diagonal(self) -> jax.Array:
        """The entries of a diagonal unit."""
        return self.linear.diagonal()

    def matrix(self, kind: str) -> Matrix:
        """J of the unit alone."""
        unit = self.unit
        if unit.kind == "identity":
            return Identity(unit.here.size, unit.here.dtype)
        made = unit.beforehand.get(unit, lambda: self._beforehand(kind)) if unit.known else self._accumulated(kind)
        # What is known stays small until it is needed: blocks of fewer positions are larger.
        return made.coarser(*self.layouts) if isinstance(made, Blocks) and self.layouts else made

    def _beforehand(self, kind: str) -> Matrix:
        """J of a unit that no state enters, computed now, whatever is being traced."""
        segment, core = self.unit.segment, self.unit.core

        def of_values(values: list[Any], state: tuple[Any, ...]) -> Matrix:
            own, cores = values[: len(segment.sides)], values[len(segment.sides) :]
            return replace(self, sides=own, core_sides=cores, state=state)._accumulated(kind)

        with jax.ensure_compile_time_eval():
            nowhere = tuple(jnp.zeros(like(var).shape, like(var).dtype) for var in segment.inputs)
            return jax.jit(of_values)(known_values(segment.program, (*segment.sides, *core.sides)), nowhere)

    def _accumulated(self, kind: str) -> Matrix:
        unit = self.unit
        if unit.kind == "diagonal":
            return Diagonal(self.diagonal)
        if unit.kind == "linear" and unit.local.matrix is not None:
            return unit.local.matrix(*self.core_sides)
        if unit.colouring is not None:
            entries = unit.colouring.jacobian(self.sides, self.state, self.how.chunk_size)
            return Blocks.within(entries, *unit.positions) if unit.positions else Dense(entries)
        if unit.inside is not None:
            return Dense(unit.inside.matrix(self.sides, self.state))
        if kind == "accumulate tangent":
            made = self._forward(Identity(unit.here.size, unit.here.dtype), unit.positions)
            return Dense(self.linear.matrix(self.how, "forward")) if made is None else made
        made = self._reverse(Identity(unit.there.size, unit.there.dtype), unit.positions)
        return Dense(self.linear.matrix(self.how, "reverse")) if made is None else made

    def _forward(self, columns: Matrix, layouts: tuple[Layout, Layout] | None) -> Matrix | None:
        """J · columns of positions that stay apart, or reach later ones alone; ``None``: nothing is known of them."""
        if layouts is None:
            return self._onward(columns)
        into, out = layouts
        if (blocks := Blocks.of(columns, out=into)) is None:
            return None
        return Blocks(out.split(self.linear.columns(blocks.at_once, self.how), 0), blocks.into, out)

    def _reverse(self, rows: Matrix, layouts: tuple[Layout, Layout] | None) -> Blocks | None:
        """Rows of positions that stay apart · J; ``None``: nothing is known of them."""
        if layouts is None:
            return None
        into, out = layouts
        if (blocks := Blocks.of(rows, into=out)) is None:
            return None
        each = into.split(self.linear.rows(blocks.transposed.at_once.T, self.how), 1)
        return Blocks(jnp.moveaxis(each, 0, 1), into, blocks.out)

    def _onward(self, columns: Matrix) -> Triangle | Dense | None:
        """J · columns, in stretches of positions, where no position reaches an earlier one in either."""
        through = self.unit.onward if self.stretched and self.how == ALL_AT_ONCE else None
        if through is None:
            return None
        # A block for each position, or a triangle of them: of the positions that this unit has before.
        into = columns.into if isinstance(columns, Blocks | Triangle) else through.into
        blocks = Triangle.of(columns, into, through.into)
        return None if blocks is None else through.push(self.sides, self.state, blocks)

    def pushed(self, columns: Matrix) -> Matrix:
        """J · columns, as what they are."""
        if self.unit.kind in ("identity", "diagonal"):
            return multiply(self.matrix("read off"), columns)
        made = self._forward(columns, self.layouts)
        return Dense(self.linear.columns(columns.dense(), self.how)) if made is None else made

    def pulled(self, rows: Matrix) -> Matrix:
        """Rows · J, as what they are."""
        if self.unit.kind in ("identity", "diagonal"):
            return multiply(rows, self.matrix("read off"))
        made = self._reverse(rows, self.layouts)
        return Dense(self.linear.rows(rows.dense(), self.how)) if made is None else made

    def after(self, columns: jax.Array) -> jax.Array:
        """J · columns, all their entries."""
        return self.pushed(Dense(columns)).dense()

    def before(self, rows: jax.Array) -> jax.Array:
        """Rows · J, all their entries."""
        return self.pulled(Dense(rows)).dense()


def execute(plan: Plan, args: tuple[Any, ...], how: Pass = ALL_AT_ONCE) -> jax.Array:
    """The whole Jacobian (m, n) of the planned function at ``args``, in the planned order."""
    units = linearise(plan, plan.steps, args, how)
    return how.laid(perform(plan.steps, units)[0, len(units)].dense())


def by_colours(found: Found, whole: Colouring, args: tuple[Any, ...], how: Pass = ALL_AT_ONCE) -> jax.Array:
    """The whole Jacobian (m, n) by the colours of its pattern."""
    state, values = state_and_sides(found, args, [whole.segment.sides])
    return whole.jacobian([values[v] for v in whole.segment.sides], state, how.chunk_size)


def state_and_sides(
    found: Found, args: tuple[Any, ...], wanted: Sequence[tuple[Var, ...]]
) -> tuple[tuple[Any, ...], dict[Var, Any]]:
    """The chain input's leaves, and the side values that are wanted."""
    position = found.argnum % len(args)
    others = jax.tree.leaves((*args[:position], *args[position + 1 :]))
    return tuple(jax.tree.leaves(args[position])), found.sides(tuple(wanted)).values(others)


def linearise(plan: Plan, steps: Sequence[Step], args: tuple[Any, ...], how: Pass = ALL_AT_ONCE) -> list[Linearised]:
    """Evaluate the function for some steps; every unit at its state, in the mode that the steps use it in."""
    modes = _modes(steps)
    used = {k for step in steps for k in _passed(step)} | {k for k, unit in enumerate(plan.units) if unit.needs_state}
    last = max(used, default=-1)
    # What comes after is not evaluated, nor what it would read: XLA does not drop a loop whose result nobody wants.
    evaluated = [unit.segment.sides if k <= last else () for k, unit in enumerate(plan.units)]
    core = [unit.core.sides if k <= last or not unit.known else () for k, unit in enumerate(plan.units)]
    state, values = state_and_sides(plan.found, args, [*evaluated, *core])
    units: list[Linearised] = []
    for number, unit in enumerate(plan.units):
        sides, core_sides = ([values[v] for v in wanted[number]] for wanted in (evaluated, core))
        units.append(Linearised(unit, sides, core_sides, state, how, plan.layouts[number], stretched=True))
        if number >= last:
            continue
        mode = _direction(unit, modes.get(number))
        state = unit.call(sides, state) if mode is None else units[-1].linear.value(mode)
    return units


def _direction(unit: Unit, mode: Direction | None) -> Direction | None:
    """The mode whose own primal pass gives a unit's result; ``None`` where nothing but JAX's own rules is in it."""
    # A rule that somebody wrote says a value, too, and what is differentiated next is that value, not the function's.
    if unit.kind == "diagonal":
        return "forward"
    if unit.colouring is not None:
        return "forward" if unit.colouring.forward else "reverse"
    if unit.inside is not None:
        return "forward" if mode is not None else None
    return mode if unit.kind == "dense" else None


def _modes(steps: Sequence[Step]) -> dict[int, Direction]:
    """The mode in which each unit is linearised, so that its evaluation is that mode's own."""
    modes: dict[int, Direction] = {}
    for step in steps:
        if step.kind in ("accumulate tangent", "accumulate adjoint"):
            modes[step.start] = "forward" if step.kind == "accumulate tangent" else "reverse"
        else:
            modes.update(dict.fromkeys(_passed(step), "forward" if step.kind == "eliminate tangent" else "reverse"))
    return modes


def _passed(step: Step) -> range:
    """The units that a step pushes columns or pulls rows through."""
    if step.middle is None or step.kind == "multiply":
        return range(0)
    return range(step.middle, step.stop) if step.kind == "eliminate tangent" else range(step.start, step.middle)


def _now(left: Matrix, right: Matrix) -> Matrix:
    with jax.ensure_compile_time_eval():
        return jax.jit(multiply)(left, right)


def perform(steps: Sequence[Step], units: Sequence[Linearised]) -> dict[tuple[int, int], Matrix]:
    """The matrices that are left when all steps are done, by the states that they lie between."""
    ready: dict[tuple[int, int], Matrix] = {}
    for step in steps:
        i, k, j = step.start, step.middle, step.stop
        if k is None:
            ready[i, j] = units[i].matrix(step.kind)
        elif step.kind == "multiply":  # no plan uses a factor twice
            left, right = ready.pop((k, j)), ready.pop((i, k))
            if known_together(members := [each.unit for each in units[i:j]]):
                ready[i, j] = members[0].beforehand.get(members[-1], partial(_now, left, right))
            else:
                ready[i, j] = multiply(left, right)
        elif step.kind == "eliminate tangent":
            columns = ready.pop((i, k))
            for unit in units[k:j]:
                columns = unit.pushed(columns)
            ready[i, j] = columns
        else:
            rows = ready.pop((k, j))
            for unit in reversed(units[i:k]):
                rows = unit.pulled(rows)
            ready[i, j] = rows
    return ready
