"""A stage that is no chain inside, opened for pᵀ (λ · f″) p: its equations bend, each for itself, and sums of them do not.

A column is pushed once through the equations; each that bends adds what it does with the cotangent of its own result,
which one reverse sweep gave. The second-order part is pushed through nothing: half of forward over reverse.

References: Gower and Mello, A new framework for the computation of Hessians, Optimization Methods and Software 2012
(edge pushing); Li et al., Nature Machine Intelligence 2024 (forward Laplacian).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates
from jaxchain.cost.count import flops
from jaxchain.jacobians.execute import Linearised
from jaxchain.jacobians.local import read_off
from jaxchain.jacobians.unit import Unit
from jaxchain.program.flat import Equation
from jaxchain.program.flow import active
from jaxchain.program.primitives import BILINEAR, Var, is_inexact, is_var, like, size_of
from jaxchain.program.segment import Segment
from jaxchain.second_order.bend import Bend, Bent, bend_of

__all__ = ["Inside", "Item", "cost_of", "items_of"]

MOST = 256
"""A stage of more equations stays closed: each of them is traced for itself."""


@dataclass(frozen=True, eq=False)
class Item:
    """One equation of an opened stage, as a unit of those values that it reads and that move."""

    equation: Equation
    unit: Unit | None
    bend: Bend | None

    @property
    def curved(self) -> bool:
        """Whether it bends."""
        return self.bend is not None and self.bend.curved

    @property
    def product(self) -> bool:
        """Whether it is a product of two values that both move: f″(p, p) is then twice f of the tangents."""
        eqn = self.equation.eqn
        reads = () if self.unit is None else self.unit.segment.inputs
        return self.equation.name in BILINEAR and all(is_var(atom) and atom in reads for atom in eqn.invars)


def items_of(unit: Unit) -> list[Item] | None:
    """The equations of a unit; ``None`` where it is not opened: one equation, too many, or one without both modes."""
    equations = unit.segment.equations
    if not 1 < len(equations) <= MOST:
        return None
    moved = (var for var, moves in zip(unit.segment.inputs, unit.carries, strict=True) if moves)
    moving = active([equation.eqn for equation in equations], moved)
    items: list[Item] = []
    for equation in equations:
        reads = tuple(dict.fromkeys(var for var in equation.reads if var in moving))
        if not reads or not moving.intersection(equation.writes):
            items.append(Item(equation, None, None))
            continue
        segment = Segment((equation,), reads, tuple(equation.writes), unit.segment.program)
        one = Unit(partial(str, equation.name), segment, segment, read_off(segment), (True,) * len(reads))
        bend = bend_of(one)
        if bend.refused is not None:
            return None
        items.append(Item(equation, one, bend))
    return items


def cost_of(items: Sequence[Item], *, pairs: bool) -> float:
    """Floating-point operations of one column, or of one and another beside it."""
    total = 0.0
    for item in items:
        if item.unit is None or item.bend is None:
            continue
        unit, size = item.unit, float(item.unit.here.size)
        moved = 2 * unit.tangent
        if not item.bend.curved:
            total += moved * (1 + pairs)
        else:
            bent = 4 * size if unit.kind == "diagonal" else item.bend.work.tangent + 2 * size
            total += moved + flops(item.equation.eqn) + 2 * unit.there.size if item.product and not pairs else bent
            total += moved * pairs
    return total


@dataclass(frozen=True, eq=False)
class Inside:
    """An opened stage at a point, every equation linearised there."""

    unit: Unit
    links: tuple[tuple[Bent, Item], ...]

    @classmethod
    def of(cls, link: Bent) -> Inside:
        """A stage at its state, with the cotangent of its output."""
        unit, items = link.unit, items_of(link.unit)
        assert items is not None
        assert link.cotangent is not None
        segment = unit.segment
        values: dict[Any, Any] = {
            **segment.program.constants,
            **dict(zip(segment.sides, link.at.sides, strict=True)),
            **dict(zip(segment.inputs, link.at.state, strict=True)),
        }
        made: list[tuple[Bent, Item]] = []
        for item in items:
            if item.unit is None or item.bend is None:
                one = Segment((item.equation,), (), tuple(item.equation.writes), segment.program)
                values.update(zip(one.outputs, one.call(*(values[v] for v in one.sides)), strict=True))
                continue
            inner = item.unit.segment
            sides = [values[v] for v in inner.sides]
            state = tuple(values[v] for v in inner.inputs)
            at = Linearised(item.unit, sides, sides, state, link.at.how, item.unit.positions)
            values.update(zip(inner.outputs, at.linear.value("reverse"), strict=True))
            made.append((Bent(at), item))
        whole = cls(unit, tuple(made))
        return replace(whole, links=tuple(whole._pulled(link.cotangent)))

    def _pulled(self, cotangent: jax.Array) -> list[tuple[Bent, Item]]:
        """The same with the cotangent of every result, by one reverse sweep."""
        known: dict[Var, jax.Array] = {}
        _add(known, self.unit.segment.outputs, self.unit.there.split(cotangent))
        links: list[tuple[Bent, Item]] = []
        for link, item in reversed(self.links):
            there = link.unit.there
            parts = [known.get(var, _zero(var)) for var in link.unit.segment.outputs if is_inexact(var)]  # pyright: ignore[reportArgumentType, reportCallIssue]
            link = Bent(link.at, jnp.concatenate([part.astype(there.dtype) for part in parts]))
            _add(known, link.unit.segment.inputs, link.unit.here.split(link.pulled()))
            link.linearised(bends=item.curved)
            if item.product:
                link.linearised(bends=False)
            links.append((link, item))
        return links[::-1]

    def through(self, column: jax.Array, beside: jax.Array | None) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """J p, J q and qᵀ (λ · f″) p; without q, of p alone."""
        first = self._start(column)
        second = first if beside is None else self._start(beside)
        total = jnp.zeros((), column.dtype)
        for link, item in self.links:
            here = _read(first, link)
            other = here if beside is None else _read(second, link)
            if item.product and beside is None:
                moved = link.moved(here)
                total = total + 2 * _of_tangents(link, here)
            elif item.curved:
                moved, met = link.push(here)
                total = total + jnp.vdot(other, met)
            else:
                moved = link.moved(here)
            _write(first, link, moved)
            if beside is not None:
                _write(second, link, link.moved(other))
        return self._end(first), None if beside is None else self._end(second), total

    def _start(self, column: jax.Array) -> dict[Var, jax.Array]:
        unit = self.unit
        parts = zip(unit.segment.inputs, unit.here.split(column), unit.carries, strict=True)
        return {var: part for var, part, moves in parts if moves}

    def _end(self, tangents: dict[Var, jax.Array]) -> jax.Array:
        parts = [
            tangents.get(out, _zero(out)) if is_var(out) else jnp.zeros((size_of(out),), self.unit.there.dtype)
            for out in self.unit.segment.outputs
            if not is_var(out) or is_inexact(out)
        ]
        return jnp.concatenate([part.astype(self.unit.there.dtype) for part in parts])


def _of_tangents(link: Bent, vector: jax.Array) -> jax.Array:
    """λ · f of the tangents, of a product f."""
    unit = link.unit
    assert link.cotangent is not None
    return jnp.vdot(link.cotangent, unit.there.flatten(unit.call(link.at.sides, unit.here.unflatten(vector))))


def _read(tangents: dict[Var, jax.Array], link: Bent) -> jax.Array:
    """The tangent of what an equation reads, in its own coordinates."""
    here = link.unit.here
    parts = [tangents.get(var, _zero(var)).astype(here.dtype) for var in link.unit.segment.inputs]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _write(tangents: dict[Var, jax.Array], link: Bent, moved: jax.Array) -> None:
    tangents.update(zip(link.unit.segment.outputs, link.unit.there.split(moved), strict=True))  # pyright: ignore[reportArgumentType, reportCallIssue]


def _add(known: dict[Var, jax.Array], atoms: Sequence[Any], parts: Sequence[jax.Array]) -> None:
    for atom, part in zip(atoms, parts, strict=True):
        if is_var(atom) and is_inexact(atom):
            known[atom] = known[atom] + part.astype(known[atom].dtype) if atom in known else part


def _zero(var: Any) -> jax.Array:
    space = Coordinates.of(like(var))
    return jnp.zeros((space.size,), space.dtype)
