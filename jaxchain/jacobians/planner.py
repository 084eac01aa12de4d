"""The planner: the cheapest order in which to multiply a chain's Jacobians, found before anything is computed.

Counts what each stage costs, notes what can be read off, and solves the bracketing problem on it. All prices are
scalar multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxchain.discovery.find import Found
from jaxchain.jacobians.bracketing import Costs, Solution, Step, solve
from jaxchain.jacobians.bundles import opened_at_bundles
from jaxchain.jacobians.matrix import Layout, stretched_share
from jaxchain.jacobians.sparse import Colouring, available, colouring_of, may_be_sparse
from jaxchain.jacobians.unit import MOST_IN_BLOCKS, Unit, joined, known_together, units_of
from jaxchain.show.values import count

__all__ = ["Plan", "make_plan", "whole_colouring"]

Layouts = tuple[tuple[Layout, Layout] | None, ...]

FEWER = 0.97
"""More cuts are made where the plan then takes less than this share of the one without them."""

NEAR = 1.5
"""Within this ratio of each other both simple modes are priced by programs of their own."""

FINER = 1e-3
"""What finer layouts are worth beside one more boundary at which neighbours agree; their logarithm is taken of positions."""

FEW = 500
"""Above this many equations in a stage they are not: to trace reverse mode takes as long as to plan."""


@dataclass(frozen=True, eq=False)
class Plan:
    """An order of multiplication.

    Attributes
    ----------
    units
        The stages, in order of evaluation.
    layouts
        How the positions of each lie that do not mix in it, its state before and its state after; ``None``: of none.
    steps
        What to do, in order; states are numbered 0 … q.
    cost, forward_cost, reverse_cost
        Predicted multiply-adds of the plan, of one tangent a column, of one cotangent a row.
    once
        What each of them takes beside: the evaluation at the point.
    solution
        The cheapest order for every range of stages.
    whole, whole_cost
        The coloured pattern of the whole function, where that is cheaper still, and what it takes.
    """

    found: Found
    units: tuple[Unit, ...]
    layouts: Layouts
    steps: tuple[Step, ...]
    cost: float
    forward_cost: float
    reverse_cost: float
    once: float
    solution: Solution
    whole: Colouring | None = None
    whole_cost: float = math.inf

    @property
    def least(self) -> float:
        """Multiply-adds of the cheapest way beside the simple modes."""
        return min(self.cost, self.whole_cost)

    @property
    def simple(self) -> tuple[float, float]:
        """Multiply-adds of forward and of reverse mode, the evaluation at the point with them."""
        return self.forward_cost + self.once, self.reverse_cost + self.once

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """n_0 … n_q: numbers in each state."""
        return (self.units[0].here.size, *(unit.there.size for unit in self.units))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the states."""
        return ("input", *(unit.name for unit in self.units))

    @property
    def waist(self) -> str:
        """The narrowest state."""
        return self.names[int(np.argmin(self.sizes))]

    @cached_property
    def _positions(self) -> np.ndarray:
        """How many positions the product of units i … j has blocks for, at [i, j]."""
        return _positions(self.units, self.layouts)

    @cached_property
    def _share(self) -> np.ndarray:
        """What is left of the work of pushing the columns of state i through unit k, at [i, k]."""
        return _stretched(self.units, self.layouts)[0]

    def _goes_on(self, step: Step) -> bool:
        """Whether a step pushes columns in stretches of positions."""
        first = step.start if step.middle is None else step.middle
        return bool((self._share[step.start, first : step.stop] < 1).any())

    def is_diagonal(self, start: int, stop: int) -> bool:
        """Whether the matrix between two states is diagonal."""
        return all(unit.kind in ("identity", "diagonal") for unit in self.units[start:stop])

    def pulled(self) -> Plan | None:
        """Reverse mode from the last unit's ready matrix on, the others as one; ``None`` where none is ready."""
        *others, last = self.units
        if not others or not math.isfinite(last.ready):
            return None
        head, m = joined(self.found, others[-1].label, others), self.sizes[-1]
        pull = self.reverse_cost - m * last.adjoint
        steps = Step("accumulate adjoint", 1, None, 2, last.ready), Step("eliminate adjoint", 0, 1, 2, pull)
        layouts = None, self.layouts[-1]
        return replace(self, units=(head, last), layouts=layouts, steps=steps, cost=last.ready + pull)

    def describe(self, step: Step) -> str:
        """One step in words."""
        name = self.names
        whole = f"∂{name[step.stop]}/∂{name[step.start]}"
        if step.middle is None:
            unit = self.units[step.start]
            blocks = f", for each of {count(unit.positions[0].count, 'position')}" if unit.positions else ""
            if unit.kind in ("diagonal", "dense") and unit.known:
                return f"{whole} is the same at every input, computed once{blocks}"
            if unit.colouring is not None:
                return f"{whole} by {unit.colouring.colours} colours"
            if unit.inside is not None:
                return f"{whole} {unit.inside.words}"
            how = "tangent" if step.kind.endswith("tangent") else "cotangent"
            words = {
                "identity": "is the identity",
                "diagonal": "is a diagonal, by one tangent of ones",
                "linear": "is I ⊗ its weights, read off" if blocks else "is its weights, read off",
                "dense": f"by {count(unit.vectors[how == 'cotangent'], how)}",
            }[unit.kind]
            pushed = unit.kind == "dense" and how == "tangent"
            later = ", each through later positions alone" if pushed and self._goes_on(step) else ""
            return f"{whole} {words}{blocks}{later}"
        left, right = f"∂{name[step.stop]}/∂{name[step.middle]}", f"∂{name[step.middle]}/∂{name[step.start]}"
        if step.kind == "multiply":
            once = ", computed once" if known_together(self.units[step.start : step.stop]) else ""
            blocks = ", block by block" if self._positions[step.start, step.stop] > 1 else ""
            return f"{whole} = {left} · {right}{blocks}{once}"
        positions = int(self._positions[step.start, step.stop])
        each = f", for each of {count(positions, 'position')}" if positions > 1 else ""
        if step.kind == "eliminate tangent":
            columns = count(self.sizes[step.start] // positions, "column")
            later = ", each through later positions alone" if self._goes_on(step) else ""
            return f"{whole}: push the {columns} of {right} through to {name[step.stop]}{each}{later}"
        rows = count(self.sizes[step.stop] // positions, "row")
        return f"{whole}: pull the {rows} of {left} back to {name[step.start]}{each}"


def make_plan(found: Found) -> Plan:
    """The cheapest order of multiplication for a traced function."""
    plan = _between_cuts(found)
    opened = opened_at_bundles(found, plan.units)
    if len(opened.segments) == len(found.segments):
        return plan
    other = _between_cuts(opened)
    return other if other.least + other.once < FEWER * (plan.least + plan.once) else plan


def _between_cuts(found: Found) -> Plan:
    """The cheapest order of multiplication of the segments' matrices."""
    units = tuple(units_of(found))
    if len(units) == 1 and _are_close(units):  # of several the order matters more
        units = tuple(replace(unit, exact=True) for unit in units)
    sizes = np.array([units[0].here.size, *(u.there.size for u in units)], float)
    q, finest = len(units), tuple(unit.positions for unit in units)
    solutions = {layouts: solve(_costs(units, layouts, sizes)) for layouts in dict.fromkeys((finest, _agreed(units)))}
    layouts, solution = min(solutions.items(), key=lambda each: each[1].cost(0, q))
    cost = solution.cost(0, q)
    tangent, adjoint = sum(u.tangent for u in units), sum(u.adjoint for u in units)
    # Of a single unit the planner has asked for the pattern already.
    apart = bool(_positions(units, layouts)[0, q] > 1)
    worth = q > 1 and _may_be_sparse(units, apart) and _fewest(units, tangent, adjoint) < cost
    whole = whole_colouring(found, units) if worth else None
    by_colour = math.inf if whole is None else whole.colours * (tangent if whole.forward else adjoint)
    if by_colour >= cost:
        whole, by_colour = None, math.inf
    forward, reverse = float(_times(sizes[0], tangent)), float(_times(sizes[-1], adjoint))
    # What no matrix depends on is not evaluated: of the last unit whose matrix depends on the state, and after it.
    last = max((k for k, u in enumerate(units) if u.needs_state), default=None)
    once = 0.0 if last is None else sum(u.evaluation for u in units[:last]) + units[last].work.once
    return Plan(found, units, layouts, solution.steps(0, q), cost, forward, reverse, once, solution, whole, by_colour)


def _are_close(units: Sequence[Unit]) -> bool:
    """Whether the better simple mode is to be found out exactly: they are near each other, and quickly traced."""
    if max(len(unit.segment.equations) for unit in units) > FEW:
        return False
    once, tangent, adjoint = (
        sum(parts) for parts in zip(*((u.evaluation, u.tangent, u.adjoint) for u in units), strict=True)
    )
    forward, reverse = (
        once + size * vector for size, vector in ((units[0].here.size, tangent), (units[-1].there.size, adjoint))
    )
    return math.isfinite(forward + reverse) and max(forward, reverse) < NEAR * min(forward, reverse)


def whole_colouring(found: Found, units: Sequence[Unit]) -> Colouring | None:
    """The coloured pattern of a traced function as a whole."""
    whole = joined(found, lambda: "whole", units)
    return colouring_of(whole.segment, whole.here, whole.there)


def _may_be_sparse(units: tuple[Unit, ...], apart: bool) -> bool:
    """Whether no unit makes the product dense, as far as one can see without looking for a pattern.

    Blocks of a unit do not, but where the product keeps the same positions ``apart`` colours find no more than these.
    """
    # In this order: to find out whether asdex is available it is imported, which takes long.
    return (
        all(
            u.kind in ("identity", "diagonal")
            or (u.positions and not apart)
            or may_be_sparse(u.segment, u.here, u.there)
            for u in units
        )
        and available()
    )


def _fewest(units: tuple[Unit, ...], tangent: float, adjoint: float) -> float:
    """What colours of the whole take at least: a product is taken to have the pattern of its factors' product."""
    from scipy.sparse import csr_array, eye_array  # loaded where asdex, which needs it, is

    pattern = csr_array(eye_array(units[0].here.size, dtype=bool))
    for unit in units:
        if unit.kind in ("identity", "diagonal"):
            continue
        if (entries := _entries(unit)) is None:
            return math.inf
        rows, columns = entries
        own = csr_array((np.ones(len(rows), bool), (rows, columns)), (unit.there.size, unit.here.size))
        pattern = csr_array(own @ pattern)
        if pattern.data.size > unit.there.size * units[0].here.size / 2:
            return math.inf  # as good as dense; to list its entries one by one takes long
    in_rows, in_columns = (int(pattern.sum(axis, dtype=int).max()) for axis in (1, 0))
    return min(in_rows * tangent, in_columns * adjoint)


def _agreed(units: Sequence[Unit]) -> Layouts:
    """Layouts that neighbours share, as far as they may, if need be of fewer positions than each could tell apart."""
    ways: list[tuple[float, Layouts]] = [(0.0, ())]
    last: list[tuple[Layout, Layout] | None] = [None]
    for unit in units:
        if unit.kind in ("identity", "diagonal"):
            ways = [(worth, (*path, None)) for worth, path in ways]
            continue
        longer: list[tuple[float, Layouts]] = []
        for layouts in unit.layouts or (None,):
            shared = [layouts is not None and before is not None and before[1] == layouts[0] for before in last]
            worth, path = max(
                ((worth + own, path) for own, (worth, path) in zip(shared, ways, strict=True)), key=lambda way: way[0]
            )
            fine = 0.0 if layouts is None else FINER * math.log(layouts[0].count)
            longer.append((worth + fine, (*path, layouts)))
        ways, last = longer, [path[-1] for _, path in longer]
    return max(ways, key=lambda way: way[0])[1]


def _entries(unit: Unit) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and columns of what may be another number than zero, as far as one can see without much ado."""
    if unit.positions is not None and (unit.known or unit.colouring is None):
        if unit.here.size * unit.positions[1].width > MOST_IN_BLOCKS:
            return None
        into, out = (layout.places for layout in unit.positions)
        rows, columns = np.broadcast_arrays(out[:, :, None], into[:, None, :])
        return rows.ravel(), columns.ravel()
    found = colouring_of(unit.segment, unit.here, unit.there)
    return None if found is None else found.entries[:2]


def _costs(units: tuple[Unit, ...], layouts: Layouts, n: np.ndarray) -> Costs:
    """What each way costs; structure makes products cheaper than dense ones."""
    tangent, adjoint, ready = (np.array([getattr(u, name) for u in units]) for name in ("tangent", "adjoint", "ready"))
    columns, rows = np.array([u.vectors for u in units], float).T
    by_tangents, by_cotangents = _times(columns, tangent), _times(rows, adjoint)
    free = np.array([u.known for u in units])  # and computed in the cheaper mode
    free_by_tangents = free & (by_tangents <= by_cotangents)
    full = np.concatenate([[0], np.cumsum([u.kind not in ("identity", "diagonal") for u in units])])
    positions, known = _positions(units, layouts), _known(units)
    share, later = _stretched(units, layouts)
    own = np.diagonal(share)
    pushed, pulled = _sums(tangent, share / positions[:-1, 1:]), _sums(adjoint, 1 / positions[:-1, 1:].T)

    def multiply(i: Any, k: Any, j: Any) -> Any:
        # Two matrices; one scaled by a diagonal, or two diagonals: a multiplication without its addition.
        left, right = full[j] > full[k], full[k] > full[i]
        whole, before, after = positions[i, j], positions[i, k], positions[k, j]
        # Blocks by blocks of the same positions, else each position of one meets all of the other.
        product = n[i] * n[k] * n[j] / np.where(whole > 1, before * after, np.maximum(before, after))
        product = product * np.where(after > 1, later[i, k], 1.0)
        scaled = np.where(left & right, product, np.where(left | right, n[i] * n[j] / whole, n[i]) / 2)
        return np.where(known[i, j], 0.0, scaled)

    return Costs(
        tangent=np.where(free & ~free_by_tangents, math.inf, np.minimum(by_tangents * own, ready)),
        adjoint=np.where(free & ~free_by_tangents, 0.0, by_cotangents),
        multiply=multiply,
        push=lambda i, k, j: _times(n[i], pushed(i, k, j)),
        pull=lambda i, k, j: _times(n[j], pulled(j - 1, i, k)),
    )


def _stretched(units: Sequence[Unit], layouts: Layouts) -> tuple[np.ndarray, np.ndarray]:
    """What pushing columns in stretches of positions leaves of the work.

    Where no position reaches an earlier one: at [i, k] of the columns of state i through unit k, and of a product of their
    matrix up to state k with blocks.
    """
    q = len(units)
    share, later = np.ones((q, q)), np.ones((q + 1, q + 1))
    for i in range(q):
        layout, blocks = None, True
        for k in range(i, q):
            unit, own = units[k], layouts[k]
            if unit.kind in ("identity", "diagonal"):
                pass
            elif blocks and own is not None and layout in (None, own[0]):
                layout = own[1]
            elif unit.onward is not None and layout in (None, unit.onward.into):
                share[i, k], layout, blocks = unit.onward.share, unit.onward.out, False
                if layout is None:
                    break
            else:
                break
            if not blocks and layout is not None and k + 1 < q:
                following = layouts[k + 1]
                later[i, k + 1] = stretched_share(layout.count) if following and following[0] == layout else 1.0
    return share, later


def _positions(units: Sequence[Unit], layouts: Layouts) -> np.ndarray:
    """How many positions the product of units i … j has blocks for, at [i, j]; 1 where it is full, or a diagonal."""
    q = len(units)
    count = np.ones((q + 1, q + 1))
    for i in range(q):
        layout = None
        for j in range(i, q):
            if units[j].kind in ("identity", "diagonal"):
                count[i, j + 1] = count[i, j]
                continue
            if (known := layouts[j]) is None or layout not in (None, known[0]):
                break
            layout = known[1]
            count[i, j + 1] = layout.count
    return count


def _known(units: Sequence[Unit]) -> np.ndarray:
    """Whether the product of units i … j is computed before any call, at [i, j]."""
    q = len(units)
    known = np.zeros((q + 1, q + 1), bool)
    for i in range(q):
        for j in range(i, q):
            if not units[j].known:
                break
            known[i, j + 1] = known_together(units[i : j + 1])
    return known


def _times(count: Any, work: Any) -> Any:
    with np.errstate(invalid="ignore"):  # no vectors through a stage without that mode: 0 · ∞ is still ∞
        return np.where(np.isinf(work), math.inf, count * work)


def _sums(work: np.ndarray, share: np.ndarray) -> Callable[[Any, Any, Any], Any]:
    """At (which, start, stop): sums over ranges of units, of the share that is left for which state; infinite where a member is."""
    never = np.concatenate([[0], np.cumsum(np.isinf(work))])
    each = np.where(np.isinf(work), 0.0, work) * share
    total = np.concatenate([np.zeros((len(work), 1)), np.cumsum(each, axis=1)], axis=1)
    return lambda which, start, stop: np.where(
        never[stop] > never[start], math.inf, total[which, stop] - total[which, start]
    )
