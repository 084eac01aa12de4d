"""The planner: the cheapest way to a whole Jacobian, decided before anything is computed.

Counts what each stage costs, notes what can be read off, solves the bracketing problem on it, and decides
between that order of multiplication and the simple modes. All prices are scalar multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from jaxchain.discovery.find import Found
from jaxchain.errors import ModeError
from jaxchain.jacobians.bracketing import Costs, Solution, Step, solve
from jaxchain.jacobians.sparse import Colouring, available, colouring_of, may_be_sparse, unavailable
from jaxchain.jacobians.unit import Unit, joined, units_of
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count

__all__ = ["Decision", "Mode", "Plan", "Way", "decide", "make_plan"]

Way = Literal["forward", "reverse", "mixed", "sparse"]
"""How a Jacobian is computed: a tangent a column, a cotangent a row, a planned order of multiplication, by colours."""

Mode = Literal["auto", "forward", "reverse", "mixed", "sparse"]
"""What can be asked for."""

WORTH_IT = 0.9
"""A plan is used where it is predicted to cost less than this share of the better simple mode: a smaller
gain in work is easily lost in time."""

CLOSE = 1.02
"""Within this ratio, what predictions are good for, reverse mode from the last layer's weights on is taken where it
is predicted to be no dearer: its rows are the result, where forward mode's columns are still to be transposed."""


@dataclass(frozen=True, eq=False)
class Plan:
    """An order of multiplication.

    Attributes
    ----------
    units
        The stages, in order of evaluation.
    steps
        What to do, in order; states are numbered 0 … q.
    cost, forward_cost, reverse_cost
        Predicted multiply-adds of the plan, of one tangent a column, of one cotangent a row.
    solution
        The cheapest order for every range of stages.
    whole, whole_cost
        The coloured pattern of the whole function, where that is cheaper still, and what it takes.
    """

    found: Found
    units: tuple[Unit, ...]
    steps: tuple[Step, ...]
    cost: float
    forward_cost: float
    reverse_cost: float
    solution: Solution
    whole: Colouring | None = None
    whole_cost: float = math.inf

    @property
    def least(self) -> float:
        """Multiply-adds of the cheapest way beside the simple modes."""
        return min(self.cost, self.whole_cost)

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

    def is_diagonal(self, start: int, stop: int) -> bool:
        """Whether the matrix between two states is diagonal."""
        return all(unit.kind in ("identity", "diagonal") for unit in self.units[start:stop])

    def pulled(self) -> Plan | None:
        """Reverse mode from the last unit's ready matrix on, the others as one; ``None`` where none is ready."""
        *others, last = self.units
        if not others or not math.isfinite(last.ready):
            return None
        head, m = joined(self.found, others[-1].name, others), self.sizes[-1]
        pull = self.reverse_cost - m * last.adjoint
        steps = Step("accumulate adjoint", 1, None, 2, last.ready), Step("eliminate adjoint", 0, 1, 2, pull)
        return replace(self, units=(head, last), steps=steps, cost=last.ready + pull)

    def describe(self, step: Step) -> str:
        """One step in words."""
        name = self.names
        if step.middle is None:
            unit = self.units[step.start]
            if unit.colouring is not None:
                return f"∂{name[step.stop]}/∂{name[step.start]} by {unit.colouring.colours} colours"
            kind = unit.kind
            read = {
                "identity": "is the identity",
                "diagonal": "is a diagonal, by one tangent of ones",
                "linear": "is its weights, read off",
            }
            how = "tangents" if step.kind.endswith("tangent") else "cotangents"
            number = self.sizes[step.start if how == "tangents" else step.stop]
            return f"∂{name[step.stop]}/∂{name[step.start]} " + read.get(kind, f"by {count(number, how[:-1])}")
        whole = f"∂{name[step.stop]}/∂{name[step.start]}"
        left, right = f"∂{name[step.stop]}/∂{name[step.middle]}", f"∂{name[step.middle]}/∂{name[step.start]}"
        if step.kind == "multiply":
            return f"{whole} = {left} · {right}"
        if step.kind == "eliminate tangent":
            return (
                f"{whole}: push the {count(self.sizes[step.start], 'column')} of {right} through to {name[step.stop]}"
            )
        return f"{whole}: pull the {count(self.sizes[step.stop], 'row')} of {left} back to {name[step.start]}"


@dataclass(frozen=True, eq=False)
class Decision(Tabular):
    """How a Jacobian will be computed, and why: `jaxchain.jacobian` runs it, ``print`` shows it.

    Attributes
    ----------
    mode
        ``"forward"``, ``"reverse"``, ``"mixed"`` (a planned order of multiplication) or ``"sparse"`` (by colours).
    plan
        The cheapest order that was found, whether or not it is run; ``None`` where the function could not be read.
    why
        In a sentence.
    argument
        Which argument is differentiated with respect to, in words.
    chunk_size
        How many rows or columns at once keep it within a memory limit; ``None``: all.

    Examples
    --------
    >>> decision = jc.plan(lambda x: jnp.sum(x**2), (jnp.ones(100),))
    >>> decision.mode, decision.sizes[0], decision.sizes[-1]
    ('reverse', 100, 1)
    """

    mode: Way
    plan: Plan | None
    why: str
    argument: str = "argument 0"
    chunk_size: int | None = None

    @property
    def cost(self) -> float:
        """Predicted multiply-adds of what is run; NaN where nothing is known."""
        if self.plan is None:
            return math.nan
        costs = {"mixed": self.plan.cost, "sparse": self.plan.whole_cost}
        return costs.get(self.mode, self.forward_cost if self.mode == "forward" else self.reverse_cost)

    @property
    def forward_cost(self) -> float:
        """Predicted multiply-adds of one tangent a column; infinite where forward mode does not exist."""
        return math.nan if self.plan is None else self.plan.forward_cost

    @property
    def reverse_cost(self) -> float:
        """Predicted multiply-adds of one cotangent a row; infinite where reverse mode does not exist."""
        return math.nan if self.plan is None else self.plan.reverse_cost

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is done, in order; states are numbered 0 … q. A simple mode, or colours, are one step."""
        if self.plan is None:
            return ()
        if self.mode == "mixed":
            return self.plan.steps
        by_tangents = self.plan.whole.forward if self.mode == "sparse" and self.plan.whole else self.mode == "forward"
        kind = "accumulate tangent" if by_tangents else "accumulate adjoint"
        return (Step(kind, 0, None, len(self.plan.units), self.cost),)

    @property
    def rows(self) -> tuple[Step, ...]:
        """The steps."""
        return self.steps

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the states."""
        return () if self.plan is None else self.plan.names

    @property
    def sizes(self) -> tuple[int, ...]:
        """n_0 … n_q: numbers in each state."""
        return () if self.plan is None else self.plan.sizes

    def describe(self, step: Step) -> str:
        """One step in words.

        Examples
        --------
        >>> decision = jc.plan(jc.Chain([jc.Stage("sum", jnp.sum)]), (jnp.ones(100),))
        >>> [decision.describe(step) for step in decision.steps]
        ['∂sum/∂input by 1 cotangent']
        """
        if self.plan is None:
            return ""
        if self.mode == "mixed":
            return self.plan.describe(step)
        whole = f"∂{self.names[-1]}/∂input"
        if self.mode == "sparse" and self.plan.whole is not None:
            return f"{whole} by {count(self.plan.whole.colours, 'colour')} of the whole function"
        vectors = count(self.sizes[0], "tangent") if self.mode == "forward" else count(self.sizes[-1], "cotangent")
        return f"{whole} by {vectors}"

    def _table(self) -> Table:
        if self.plan is None:
            return Table(f"Jacobian by {self.argument}: {self.mode} mode", ("step", "multiply-adds"), [], [self.why])
        m, n = self.sizes[-1], self.sizes[0]
        rows = [(self.describe(step), _whole(step.cost)) for step in self.steps]
        notes = [
            self.why,
            _compared(self.plan),
            f"The narrowest state is {self.plan.waist}, {count(min(self.sizes), 'number')}.",
        ]
        if self.chunk_size:
            notes.append(f"The memory limit leaves room for {count(self.chunk_size, 'vector')} of a basis at a time.")
        title = f"Jacobian of {m} × {n} by {self.argument}: {self.mode} mode"
        return Table(title, ("step", "multiply-adds"), rows, notes)


def _whole(cost: float) -> str:
    """Multiply-adds for people: half a one is one."""
    return si(math.ceil(cost) if math.isfinite(cost) else cost, "")


def _compared(plan: Plan) -> str:
    """What each way would cost, in one sentence."""
    ways = {"forward mode": plan.forward_cost, "reverse mode": plan.reverse_cost, "the cheapest order": plan.cost}
    if plan.whole is not None:
        ways["colours"] = plan.whole_cost
    costs = [f"{way} {_whole(cost) if math.isfinite(cost) else 'does not exist'}" for way, cost in ways.items()]
    return f"Multiply-adds: {', '.join(costs)}."


def decide(found: Found, mode: Mode = "auto", argument: str = "argument 0") -> Decision:
    """How to compute the Jacobian of a traced function.

    Parameters
    ----------
    found
        Of real floating-point input and output.
    mode
        What was asked for.
    argument
        What it is by, in words.

    Raises
    ------
    ImportError
        If ``mode="sparse"`` and asdex is not installed; says how to install it.
    ModeError
        If ``mode="sparse"`` and asdex finds no pattern.
    """
    plan = make_plan(found)
    if mode == "sparse":
        return Decision("sparse", _coloured(plan), 'mode="sparse" was asked for.', argument)
    if mode != "auto":
        return Decision(mode, plan, f'mode="{mode}" was asked for.', argument)
    forward, reverse = plan.forward_cost, plan.reverse_cost
    better = min(forward, reverse)
    if plan.least < WORTH_IT * better:
        way: Way = "mixed" if plan.cost <= plan.whole_cost else "sparse"
        return Decision(way, plan, _gain(plan, better), argument)
    if max(forward, reverse) < CLOSE * better:
        pulled = plan.pulled()
        if pulled is not None and pulled.cost <= better:
            why = "Forward and reverse mode are within 2 % of each other, and the last weights need no cotangent."
            return Decision("mixed", pulled, why, argument)
    way = "forward" if forward < reverse else "reverse"
    return Decision(way, plan, _simple(plan, way), argument)


def _gain(plan: Plan, better: float) -> str:
    if not math.isfinite(better):
        return "Neither forward nor reverse mode exists for the whole function, but stage by stage one of them does."
    if not plan.least:
        return "Nothing needs to be multiplied."
    how = "By colours it takes" if plan.whole_cost < plan.cost else "In this order it takes"
    return f"{how} {better / plan.least:.3g} times less work than the better simple mode."


def _simple(plan: Plan, way: Way) -> str:
    """Why a simple mode is run: the other is dearer or missing, and no order saves enough."""
    rows, columns = count(plan.sizes[-1], "row"), count(plan.sizes[0], "column")
    if not math.isfinite(max(plan.forward_cost, plan.reverse_cost)):
        first = f"Only {way} mode exists here."
    elif plan.forward_cost == plan.reverse_cost:
        first = f"Both simple modes cost the same: {rows}, {columns}."
    elif way == "forward":
        first = f"Of the simple modes, forward is the cheaper: {columns} to push, against {rows} to pull."
    else:
        first = f"Of the simple modes, reverse is the cheaper: {rows} to pull, against {columns} to push."
    better = min(plan.forward_cost, plan.reverse_cost)
    share = f"{plan.least / better:.0%} of its work" if better else "as much work"
    return f"{first} No other way is below {WORTH_IT:.0%} of that: the cheapest takes {share}."


def _coloured(plan: Plan) -> Plan:
    """The plan that colours the whole function's pattern, whatever that costs."""
    if reason := unavailable():
        msg = f'mode="sparse" needs asdex to find and colour patterns, but {reason}: pip install --upgrade "jaxchain[sparse]".'
        raise ImportError(msg)
    whole = plan.whole or whole_colouring(plan.found, plan.units)
    if whole is None:
        msg = 'asdex cannot find the sparsity pattern of this function; use mode="auto".'
        raise ModeError(msg)
    vector = sum(unit.tangent if whole.forward else unit.adjoint for unit in plan.units)
    return replace(plan, whole=whole, whole_cost=whole.colours * vector)


def make_plan(found: Found) -> Plan:
    """The cheapest order of multiplication for a traced function."""
    units = tuple(units_of(found))
    sizes = np.array([units[0].here.size, *(u.there.size for u in units)], float)
    solution = solve(_costs(units, sizes))
    q = len(units)
    cost = solution.cost(0, q)
    tangent, adjoint = sum(u.tangent for u in units), sum(u.adjoint for u in units)
    whole = whole_colouring(found, units) if q > 1 and _may_be_sparse(units) else None
    by_colour = math.inf if whole is None else whole.colours * (tangent if whole.forward else adjoint)
    if by_colour >= cost:
        whole, by_colour = None, math.inf
    forward, reverse = float(_times(sizes[0], tangent)), float(_times(sizes[-1], adjoint))
    return Plan(found, units, solution.steps(0, q), cost, forward, reverse, solution, whole, by_colour)


def whole_colouring(found: Found, units: Sequence[Unit]) -> Colouring | None:
    """The coloured pattern of a traced function as a whole."""
    whole = joined(found, "whole", units)
    return colouring_of(whole.segment, whole.here, whole.there)


def _may_be_sparse(units: tuple[Unit, ...]) -> bool:
    """Whether no unit makes the product dense, as far as one can see without looking for a pattern."""
    # In this order: to find out whether asdex is available it is imported, which takes long.
    return (
        all(u.kind in ("identity", "diagonal") or may_be_sparse(u.segment, u.here, u.there) for u in units)
        and available()
    )


def _costs(units: tuple[Unit, ...], n: np.ndarray) -> Costs:
    """What each way costs; structure makes products cheaper than dense ones."""
    tangent, adjoint, ready = (np.array([getattr(u, name) for u in units]) for name in ("tangent", "adjoint", "ready"))
    full = np.concatenate([[0], np.cumsum([u.kind not in ("identity", "diagonal") for u in units])])
    pushed, pulled = _running(tangent), _running(adjoint)

    def multiply(i: Any, k: Any, j: Any) -> Any:
        left, right = full[j] > full[k], full[k] > full[i]
        return np.where(left & right, n[i] * n[k] * n[j], np.where(left | right, n[i] * n[j], n[i]) / 2)

    return Costs(
        tangent=np.minimum(_times(n[:-1], tangent), ready),
        adjoint=_times(n[1:], adjoint),
        multiply=multiply,
        push=lambda i, k, j: _times(n[i], pushed(k, j)),
        pull=lambda i, k, j: _times(n[j], pulled(i, k)),
    )


def _times(count: Any, work: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(work), math.inf, count * work)


def _running(work: np.ndarray) -> Callable[[Any, Any], Any]:
    """Sums over ranges, infinite where a member is."""
    never = np.concatenate([[0], np.cumsum(np.isinf(work))])
    total = np.concatenate([[0.0], np.cumsum(np.where(np.isinf(work), 0.0, work))])
    return lambda i, j: np.where(never[j] > never[i], math.inf, total[j] - total[i])
