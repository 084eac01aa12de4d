"""The decision: how a Jacobian is computed, and why. `jacobian` runs it, `plan` prints it, the page draws it.

Between the planner's order of multiplication, colours, and the two simple modes; all prices are scalar multiply-adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from jaxchain.discovery.find import Found
from jaxchain.errors import ModeError
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.planner import Plan, make_plan, whole_colouring
from jaxchain.jacobians.sparse import unavailable
from jaxchain.program.precision import asked_precision
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count, times_less

__all__ = ["Decision", "Mode", "Way", "decide"]

Way = Literal["forward", "reverse", "mixed", "sparse"]
"""How a Jacobian is computed: a tangent a column, a cotangent a row, a planned order of multiplication, by colours."""

Mode = Literal["auto", "forward", "reverse", "mixed", "sparse"]
"""What can be asked for."""

WORTH_IT = 0.9
"""A plan is used where it is predicted to cost less than this share of the better simple mode, the evaluation
counted with both: a smaller gain in work is easily lost in time."""

CLOSE = 1.02
"""Within this ratio, what predictions are good for, forward mode is taken: reverse mode's sums of cotangents are what
a compiler does again wherever they are read."""

READ = 0.99
"""Where the last layer's weights, read off, save more than the rest of this share, and the modes are close, reverse
mode from there on is taken: its rows are the result, where forward mode's columns are still to be transposed."""


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

    @property
    def waist(self) -> str:
        """The name of the narrowest state; empty where nothing is known."""
        return "" if self.plan is None else self.plan.waist

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
            return Table(f"Jacobian by {self.argument}: {self.mode} mode", (), [], [self.why])
        m, n = self.sizes[-1], self.sizes[0]
        rows = [(self.describe(step), _whole(step.cost)) for step in self.steps]
        notes = [
            self.why,
            _compared(self.plan),
            f"The narrowest state is {self.plan.waist}, {count(min(self.sizes), 'number')}.",
        ]
        precision = asked_precision(self.plan.found.program.eqns)
        if precision != "default":
            notes.append(
                f"Matrices are multiplied at precision {precision!r}, the highest that the function itself asks for."
            )
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
    return f"Multiply-adds: {', '.join(costs)}; the evaluation takes {_whole(plan.once)} beside."


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
    forward, reverse = plan.simple
    better = min(plan.simple)
    if plan.least + plan.once < WORTH_IT * better:
        way: Way = "mixed" if plan.cost <= plan.whole_cost else "sparse"
        return Decision(way, plan, _gain(plan, better), argument)
    if max(forward, reverse) < CLOSE * better:
        pulled = plan.pulled()
        if pulled is not None and pulled.cost + plan.once <= READ * better:
            why = "Forward and reverse mode are within 2 % of each other, and the last weights need no cotangent."
            return Decision("mixed", pulled, why, argument)
    way = "forward" if forward <= CLOSE * reverse else "reverse"
    return Decision(way, plan, _simple(plan, way), argument)


def _gain(plan: Plan, better: float) -> str:
    if not math.isfinite(better):
        return "Neither forward nor reverse mode exists for the whole function, but stage by stage one of them does."
    if not plan.least:
        return "Nothing needs to be multiplied."
    how = "By colours it takes" if plan.whole_cost < plan.cost else "In this order it takes"
    return f"{how} {times_less(better / (plan.least + plan.once), 'work')} than the better simple mode."


def _simple(plan: Plan, way: Way) -> str:
    """Why a simple mode is run: the other is dearer or missing, and no order saves enough."""
    rows, columns = count(plan.sizes[-1], "row"), count(plan.sizes[0], "column")
    if not math.isfinite(min(plan.forward_cost, plan.reverse_cost)):
        return "Neither forward nor reverse mode exists here, nor one of them for each stage: JAX says why."
    if not math.isfinite(max(plan.forward_cost, plan.reverse_cost)):
        first = f"Only {way} mode exists here."
    elif plan.forward_cost == plan.reverse_cost:
        first = f"Both simple modes cost the same: {rows}, {columns}."
    elif way == "forward" and plan.reverse_cost < plan.forward_cost:
        first = f"Forward mode is within {CLOSE - 1:.0%} of reverse mode: {columns} to push, {rows} to pull."
    elif way == "forward":
        first = f"Of the simple modes, forward is the cheaper: {columns} to push, against {rows} to pull."
    else:
        first = f"Of the simple modes, reverse is the cheaper: {rows} to pull, against {columns} to push."
    better = min(plan.simple)
    share = f"{(plan.least + plan.once) / better:.0%} of its work" if better else "as much work"
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
