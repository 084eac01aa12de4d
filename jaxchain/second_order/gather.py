"""Gather a Hessian's factors in a planned order: the matrix Σ_k P_kᵀ (λ_k · f_k″) P_k, P kept as what it is.

And what that begins with: every unit at its state, with the cotangent of its output. `columnwise` does without the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.jacobians.execute import Linearised, perform, state_and_sides
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Matrix, multiply
from jaxchain.second_order.bend import Bent, along
from jaxchain.second_order.order import Order, Stretch, Turn, Walk

__all__ = ["Point", "entries_of", "matrix", "point", "walked"]


@dataclass(frozen=True, eq=False)
class Point:
    """A planned function at its arguments: every unit at its state, with the cotangent of its output.

    Attributes
    ----------
    order
        What is planned.
    links
        One a unit.
    """

    order: Order
    links: tuple[Bent, ...]

    @cached_property
    def units(self) -> list[Linearised]:
        """The units at their states."""
        return [link.at for link in self.links]

    def jacobian(self, walk: Walk) -> Matrix:
        """The matrix of the units of a walk."""
        steps = self.order.plan.solution.steps(walk.start, walk.stop)
        return perform(steps, self.units)[walk.start, walk.stop]


def point(order: Order, args: tuple[Any, ...], how: Pass = ALL_AT_ONCE) -> Point:
    """Evaluate a planned function, and pull the cotangent of its result back as far as something bends."""
    units = order.plan.units
    state, values = state_and_sides(
        order.plan.found, args, [*(unit.segment.sides for unit in units), *(unit.core.sides for unit in units)]
    )
    made: list[Linearised] = []
    for unit, layouts in zip(units, order.plan.layouts, strict=True):
        sides, core = ([values[v] for v in wanted.sides] for wanted in (unit.segment, unit.core))
        made.append(Linearised(unit, sides, core, state, how, layouts))
        # A rule that somebody wrote says a value, too, which the backward pass takes.
        ruled = unit.kind not in ("identity", "linear")
        state = made[-1].linear.value("reverse") if ruled else unit.call(sides, state)
    return Point(order, tuple(along(made, order.curved[0] if order.curved else len(made))))


def matrix(at: Point, stretch: Stretch) -> Matrix:
    """The Hessian by the state that a stretch starts at."""
    unit = at.links[stretch.start].unit
    prefix: Matrix = Identity(unit.here.size, unit.here.dtype)
    terms: list[Matrix] = []
    for step in stretch.steps:
        if isinstance(step, Walk):
            prefix = walked(at, step, prefix)
            continue
        met, moved = _turned(at, step, prefix)
        terms.append(multiply(transposed(prefix), met))
        prefix = moved
    if stretch.then is not None:
        terms.append(multiply(transposed(prefix), multiply(matrix(at, stretch.then), prefix)))
    return _sum(terms) if terms else Diagonal(jnp.zeros((unit.here.size,), unit.here.dtype))


def walked(at: Point, walk: Walk, prefix: Matrix) -> Matrix:
    """J P of the units of a walk."""
    if walk.how == "multiply":
        return multiply(at.jacobian(walk), prefix)
    entries = prefix.dense()
    for unit in at.units[walk.start : walk.stop]:
        entries = unit.after(entries)
    return Dense(entries)


def _turned(at: Point, turn: Turn, prefix: Matrix) -> tuple[Matrix, Matrix]:
    """(λ · f″) P and J P."""
    link = at.links[turn.unit]
    if turn.how == "multiply":
        slope, second = link.matrices
        return multiply(second, prefix), multiply(slope, prefix)
    moved, met = link.columns(prefix.dense(), link.at.how)
    return Dense(met), Dense(moved)


def transposed(matrix: Matrix) -> Matrix:
    """The same on its side."""
    match matrix:
        case Dense(entries):
            return Dense(entries.T)
        case Blocks():
            return matrix.transposed
        case _:
            return matrix


def _sum(terms: Sequence[Matrix]) -> Matrix:
    """Their sum, as structured as they are alike."""
    diagonals = [entries_of(term) for term in terms if isinstance(term, (Identity, Diagonal))]
    blocks = [term for term in terms if isinstance(term, Blocks)]
    dense = [term.entries for term in terms if isinstance(term, Dense)]
    if len({(term.into, term.out) for term in blocks}) > 1 or (dense and blocks):
        dense, blocks = [*dense, *(term.dense() for term in blocks)], []
    if not (dense or blocks):
        return Diagonal(sum(diagonals[1:], diagonals[0]))
    if diagonals:
        along = sum(diagonals[1:], diagonals[0])
        if blocks and blocks[0].into == blocks[0].out:
            each = blocks[0].into.split(along, 0)
            here = jnp.arange(each.shape[1])
            first = jnp.broadcast_to(blocks[0].entries, (len(each), *blocks[0].entries.shape[1:]))
            blocks[0] = Blocks(first.at[:, here, here].add(each), blocks[0].into, blocks[0].out)
        else:
            here = jnp.arange(len(along))
            dense = [*dense, *(term.dense() for term in blocks)]
            dense, blocks = [dense[0].at[here, here].add(along), *dense[1:]], []
    if blocks:
        entries = [term.entries for term in blocks]
        return Blocks(sum(entries[1:], entries[0]), blocks[0].into, blocks[0].out)
    return Dense(sum(dense[1:], dense[0]))


def entries_of(term: Identity | Diagonal) -> jax.Array:
    """The diagonal of what is one."""
    return jnp.ones((term.size,), term.dtype) if isinstance(term, Identity) else term.entries
