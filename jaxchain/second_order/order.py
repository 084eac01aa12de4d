"""The order in which a Hessian's factors are gathered, H = Σ_k P_kᵀ (λ_k · f_k″) P_k, found before anything is computed.

A prefix Jacobian P has as many columns as the state that it begins at. Where a later state is narrower it begins anew
there: H = Bᵀ M B + …, M the Hessian by that state, B the prefix up to it. Which states those are is a shortest path;
between them each stage is passed in the cheaper of two ways. All prices are floating-point operations.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, ch. 8 and 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from jaxchain.jacobians.matrix import Layout
from jaxchain.jacobians.planner import Plan
from jaxchain.second_order.bend import Bend, bend_of
from jaxchain.second_order.opened import Item, cost_of, items_of

__all__ = ["Form", "Order", "Stretch", "Turn", "Walk", "best_order"]

How = Literal["multiply", "push", "open"]
Wanted = Literal["matrix", "columns"]
"""H itself; or of every column p of a matrix pᵀ H p, whose sum is a trace."""

MOST = 1 << 26
"""A matrix of more entries is not made on the way: columns are pushed instead, in chunks."""


@dataclass(frozen=True)
class Form:
    """What a prefix Jacobian is: ``identity``, ``diagonal``, ``blocks`` or ``dense``; and its columns."""

    kind: Literal["identity", "diagonal", "blocks", "dense"]
    columns: int
    out: Layout | None = None

    @property
    def positions(self) -> int:
        """How many blocks there are."""
        return self.out.count if self.out else 1

    def entries(self, rows: int) -> float:
        """How many numbers it holds."""
        return {"identity": 0.0, "diagonal": float(rows)}.get(self.kind, rows * self.columns / self.positions)

    def gram(self, rows: int) -> float:
        """What Pᵀ · X takes, X of the same form."""
        if self.kind in ("identity", "diagonal"):
            return self.entries(rows)
        return 2.0 * rows * self.columns**2 / self.positions**2

    def applied(self, rows: int, inner: int, blocks: Layout | None) -> tuple[float, Layout | None]:
        """What a matrix of so many rows times it takes, and the positions that are left."""
        if self.kind == "identity":
            return 0.0, blocks
        size = rows * inner / (blocks.count if blocks else 1)
        if self.kind == "diagonal":
            return size, blocks
        if blocks is not None and self.kind == "blocks" and blocks == self.out:
            return 2.0 * size * self.columns / self.positions, blocks
        return 2.0 * size * self.columns if blocks else 2.0 * size * self.columns / self.positions, None


@dataclass(frozen=True)
class Walk:
    """P goes from one state to another through stages that do not bend: times their matrix, or pushed."""

    start: int
    stop: int
    how: How
    cost: float = 0.0


@dataclass(frozen=True)
class Turn:
    """P meets a curved stage: its own J and λ · f″ are multiplied with P, or P is pushed through both, or its equations."""

    unit: int
    how: How
    cost: float = 0.0


@dataclass(frozen=True)
class Stretch:
    """What happens between two states at which P begins anew.

    Attributes
    ----------
    start
        The first of them.
    steps
        In order.
    cost, own
        Of this and all that follows; of meeting what follows, M, alone.
    then
        What follows; ``None`` where nothing bends after.
    """

    start: int
    steps: tuple[Walk | Turn, ...]
    cost: float
    own: float = 0.0
    then: Stretch | None = None

    @property
    def starts(self) -> tuple[int, ...]:
        """Every state at which P begins."""
        return (self.start, *(self.then.starts if self.then else ()))


@dataclass(frozen=True, eq=False)
class Order:
    """A plan of first derivatives, and what each of its units' second derivative takes."""

    plan: Plan
    bends: tuple[Bend, ...]
    pairs: bool = False
    opened: dict[int, list[Item] | None] = field(default_factory=dict, repr=False)

    @cached_property
    def curved(self) -> tuple[int, ...]:
        """The units that bend."""
        return tuple(k for k, bend in enumerate(self.bends) if bend.curved)

    def inside(self, number: int) -> list[Item] | None:
        """The equations of a unit, where it can be opened."""
        if number not in self.opened:
            self.opened[number] = items_of(self.plan.units[number])
        return self.opened[number]

    def walk(self, form: Form, start: int, stop: int) -> tuple[float, Form, Walk]:
        """From state to state through units that do not bend."""
        plan, rows, inner = self.plan, self.plan.sizes[stop], self.plan.sizes[start]
        times = 2 if self.pairs else 1
        pushed = times * form.columns * 2 * sum(unit.tangent for unit in plan.units[start:stop])
        made = 2.0 * plan.solution.cost(start, stop)
        if plan.is_diagonal(start, stop):
            kind = "diagonal" if form.kind == "identity" else form.kind
            cost = made + times * form.entries(rows)
            return cost, replace(form, kind=kind), Walk(start, stop, "multiply", cost)
        ends = self._layouts(start, stop)
        before, after = ends or (None, None)
        work, left = form.applied(rows, inner, before)
        if rows * inner / (before.count if before else 1) > MOST:
            work = math.inf
        blocks = after if left is not None else None
        product = Form("blocks" if blocks else "dense", form.columns, blocks)
        if made + times * work < pushed or (form.kind == "identity" and made + work <= pushed):
            return made + times * work, product, Walk(start, stop, "multiply", made + times * work)
        return pushed, Form("dense", form.columns), Walk(start, stop, "push", pushed)

    def _layouts(self, start: int, stop: int) -> tuple[Layout, Layout] | None:
        """How the states of units that do not mix positions lie, first and last."""
        members = list(zip(self.plan.units, self.plan.layouts, strict=True))[start:stop]
        ends: tuple[Layout, Layout] | None = None
        for unit, layouts in members:
            if unit.kind in ("identity", "diagonal"):
                continue
            if layouts is None or (ends is not None and layouts[0] != ends[1]):
                return None
            ends = (ends[0] if ends else layouts[0], layouts[1])
        return ends

    def turn(self, form: Form, number: int, wanted: Wanted) -> tuple[float, Form, Turn]:
        """Through a unit that bends, what is wanted of it with that."""
        unit, rows, out = self.plan.units[number], self.plan.sizes[number], self.plan.sizes[number + 1]

        def read(form: Form) -> float:
            return form.gram(rows) + form.columns**2 if wanted == "matrix" else 2 * form.entries(rows)

        times = 2 if self.pairs else 1
        if unit.kind == "diagonal":
            kind = "diagonal" if form.kind == "identity" else form.kind
            cost = 4.0 * rows + (1 + times) * form.entries(rows)
            cost += read(form)
            return cost, replace(form, kind=kind), Turn(number, "multiply", cost)
        each = self.bends[number].work.tangent
        into, layout = self.plan.layouts[number] or (None, None)
        bent, _ = form.applied(rows, rows, into)
        moved, left = form.applied(out, rows, into)
        blocks = layout if left is not None else None
        own = (into.width if into else rows) * each + bent + times * moved
        if rows * max(rows, out) / (into.count if into else 1) > MOST:
            own = math.inf
        met = form if left is not None or form.kind != "blocks" else Form("dense", form.columns)
        pushed = form.columns * (each + (2 * unit.tangent if self.pairs else 0.0))
        dense = Form("dense", form.columns)
        inside = math.inf
        if wanted == "columns" and (items := self.inside(number)) is not None:
            inside = form.columns * cost_of(items, pairs=self.pairs)
        if inside < min(own + read(met), pushed + read(dense)):
            return inside, dense, Turn(number, "open", inside)
        if own + read(met) <= pushed + read(dense):
            after = Form("blocks" if blocks else "dense", form.columns, blocks)
            return own + read(met), after, Turn(number, "multiply", own + read(met))
        return pushed + read(dense), dense, Turn(number, "push", pushed + read(dense))

    def stretches(self, start: int, form: Form, wanted: Wanted, then: Callable[[int], Stretch]) -> Iterator[Stretch]:
        """One for each state at which P may begin anew, and one without; ``then`` tells what follows from there."""
        sizes, at, cost, steps = self.plan.sizes, start, 0.0, ()
        for number in (*(k for k in self.curved if k >= start), None):
            if number is None:
                yield Stretch(start, steps, cost)
                return
            for state in range(max(at, start + 1), number + 1):
                if sizes[state] < min(form.columns, sizes[state - 1]):
                    walked, met, walk = self.walk(form, at, state) if state > at else (0.0, form, None)
                    n, c = sizes[state], form.columns
                    last = met.gram(n) + c * c if wanted == "matrix" else 2 * met.entries(n)
                    meet = 2.0 * n * met.entries(n) + last
                    yield Stretch(start, (*steps, *([walk] if walk else [])), cost + walked + meet, meet, then(state))
            if number > at:
                walked, form, walk = self.walk(form, at, number)
                cost, steps = cost + walked, (*steps, walk)
            met, form, turn = self.turn(form, number, wanted)
            cost, steps, at = cost + met, (*steps, turn), number + 1


def best_order(plan: Plan, seed: Form, wanted: Wanted, *, pairs: bool = False) -> tuple[Order, Stretch]:
    """The cheapest way to gather what is wanted of the Hessian of a planned function of one number.

    Parameters
    ----------
    plan
        Its units, and how their Jacobians multiply.
    seed
        What P begins as.
    wanted
        H itself, or a number a column of P.
    pairs
        Whether each column comes with another one, and pᵀ H q is wanted.
    """
    order = Order(plan, tuple(map(bend_of, plan.units)), pairs)
    plain = replace(order, pairs=False)
    found: dict[int, Stretch] = {}

    def best(order: Order, start: int, form: Form, wanted: Wanted) -> Stretch:
        ways = order.stretches(start, form, wanted, after)
        return min((replace(way, cost=way.cost + (way.then.cost if way.then else 0.0)) for way in ways), key=_cost)

    def after(state: int) -> Stretch:
        if state not in found:
            found[state] = best(plain, state, Form("identity", plan.sizes[state]), "matrix")
        return found[state]

    # From the last narrow state on, so that no search is deeper than one.
    for state in reversed(_narrow(plan.sizes, seed.columns)):
        after(state)
    return order, best(order, 0, seed, wanted)


def _narrow(sizes: Sequence[int], columns: int) -> list[int]:
    """The states that P may begin anew at."""
    return [k for k in range(1, len(sizes)) if sizes[k] < min(columns, sizes[k - 1])]


def _cost(stretch: Stretch) -> float:
    return stretch.cost
