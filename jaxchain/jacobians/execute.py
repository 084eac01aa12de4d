"""Run a plan: an interpreter of its steps, made of vmapped JVPs and VJPs, scalings and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import map_basis
from jaxchain.discovery.find import Found
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.matrix import Dense, Diagonal, Identity, Matrix, multiply
from jaxchain.jacobians.planner import Plan
from jaxchain.jacobians.sparse import Colouring
from jaxchain.jacobians.unit import Unit

__all__ = ["execute"]


class Linearised:
    """One unit at one state: its matrix, and its action on matrices from either side."""

    def __init__(
        self, unit: Unit, sides: list[Any], core_sides: list[Any], state: tuple[Any, ...], chunk_size: int | None
    ) -> None:
        self.unit, self.sides, self.core_sides, self.state, self.chunk_size = unit, sides, core_sides, state, chunk_size

    def _fun(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.unit.call(self.sides, state)

    @cached_property
    def push(self) -> Callable[[jax.Array], jax.Array]:
        """One tangent, as vectors of coordinates."""
        _, linear = jax.linearize(self._fun, self.state)
        return lambda v: self.unit.there.flatten(linear(self.unit.here.unflatten(v)))

    @cached_property
    def pull(self) -> Callable[[jax.Array], jax.Array]:
        """One cotangent, as vectors of coordinates."""
        _, linear = jax.vjp(self._fun, self.state)
        return lambda v: self.unit.here.flatten_cotangent(*linear(self.unit.there.unflatten_cotangent(v)))

    @cached_property
    def diagonal(self) -> jax.Array:
        """The entries of a diagonal unit."""
        ones = self.unit.here.unflatten(jnp.ones((self.unit.here.size,), self.unit.here.dtype))
        return self.unit.there.flatten(jax.jvp(self._fun, (self.state,), (ones,))[1])

    def matrix(self, kind: str) -> Matrix:
        """J of the unit alone."""
        local = self.unit.local
        if self.unit.kind == "identity":
            return Identity(self.unit.here.size, self.unit.here.dtype)
        if self.unit.kind == "diagonal":
            return Diagonal(self.diagonal)
        if self.unit.kind == "linear" and local.matrix is not None:
            return Dense(local.matrix(*self.core_sides))
        if self.unit.colouring is not None:
            return Dense(self.unit.colouring.jacobian(self.sides, self.state, self.chunk_size))
        if kind == "accumulate tangent":
            return Dense(map_basis(self.push, self.unit.here.identity(), self.chunk_size).T)
        return Dense(map_basis(self.pull, self.unit.there.identity(), self.chunk_size))

    def after(self, columns: jax.Array) -> jax.Array:
        """J · columns."""
        if self.unit.kind in ("identity", "diagonal"):
            return columns if self.unit.kind == "identity" else self.diagonal[:, None] * columns
        return _columns(self.push, columns, self.chunk_size)

    def before(self, rows: jax.Array) -> jax.Array:
        """Rows · J."""
        if self.unit.kind in ("identity", "diagonal"):
            return rows if self.unit.kind == "identity" else rows * self.diagonal
        return map_basis(self.pull, rows, self.chunk_size)


def _columns(push: Callable[[jax.Array], jax.Array], columns: jax.Array, chunk_size: int | None) -> jax.Array:
    if chunk_size is None:
        return jax.vmap(push, in_axes=1, out_axes=1)(columns)
    return map_basis(push, columns.T, chunk_size).T


def execute(plan: Plan, args: tuple[Any, ...], chunk_size: int | None = None) -> jax.Array:
    """The whole Jacobian (m, n) of the planned function at ``args``."""
    if plan.whole is not None:
        return run_colouring(plan.found, plan.whole, args, chunk_size)
    units = linearise(plan, args, chunk_size)
    return perform(plan.steps, units)[0, len(units)].dense()


def run_colouring(found: Found, whole: Colouring, args: tuple[Any, ...], chunk_size: int | None) -> jax.Array:
    """The whole Jacobian (m, n), by colours."""
    state, values = _split(found, args, [whole.segment.sides])
    return whole.jacobian([values[v] for v in whole.segment.sides], state, chunk_size)


def _split(
    found: Found, args: tuple[Any, ...], wanted: Sequence[tuple[Any, ...]]
) -> tuple[tuple[Any, ...], dict[Any, Any]]:
    """The chain input's leaves, and the side values that are wanted."""
    position = found.argnum % len(args)
    others = jax.tree.leaves((*args[:position], *args[position + 1 :]))
    return tuple(jax.tree.leaves(args[position])), found.sides(tuple(wanted)).values(others)


def linearise(plan: Plan, args: tuple[Any, ...], chunk_size: int | None = None) -> list[Linearised]:
    """Evaluate the function; every unit at its state."""
    state, values = _split(plan.found, args, [(*unit.segment.sides, *unit.core.sides) for unit in plan.units])
    units: list[Linearised] = []
    for unit in plan.units:
        sides, core_sides = ([values[v] for v in segment.sides] for segment in (unit.segment, unit.core))
        units.append(Linearised(unit, sides, core_sides, state, chunk_size))
        state = unit.call(sides, state)
    return units


def perform(steps: Sequence[Step], units: list[Linearised]) -> dict[tuple[int, int], Matrix]:
    """The matrices that are left when all steps are done, by the states that they lie between."""
    ready: dict[tuple[int, int], Matrix] = {}
    for step in steps:
        i, k, j = step.start, step.middle, step.stop
        if k is None:
            ready[i, j] = units[i].matrix(step.kind)
        elif step.kind == "multiply":
            ready[i, j] = multiply(ready.pop((k, j)), ready.pop((i, k)))
        elif step.kind == "eliminate tangent":
            columns = ready.pop((i, k)).dense()
            for unit in units[k:j]:
                columns = unit.after(columns)
            ready[i, j] = Dense(columns)
        else:
            rows = ready.pop((k, j)).dense()
            for unit in reversed(units[i:k]):
                rows = unit.before(rows)
            ready[i, j] = Dense(rows)
    return ready
