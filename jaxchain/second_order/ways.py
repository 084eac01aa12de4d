"""The decision how second derivatives are computed, and why: JAX's own order, the sum over stages, or by colours.

What each way takes is counted before anything runs, in floating-point operations; where the gain is small it is JAX's
own program that runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jaxchain.discovery.find import Found
from jaxchain.errors import ModeError
from jaxchain.jacobians.planner import Plan, make_plan
from jaxchain.jacobians.sparse import unavailable
from jaxchain.jacobians.unit import joined
from jaxchain.second_order.bend import bend_of
from jaxchain.second_order.order import Form, Order, Stretch, Walk, Wanted, best_order
from jaxchain.second_order.products import PRODUCTS, Product, existing
from jaxchain.second_order.scalar import of_input
from jaxchain.second_order.star import Star, may_be_sparse, star_of
from jaxchain.second_order.summands import summands
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count, times_less

__all__ = ["HessianMode", "HessianPlan", "HessianStep", "decide_second", "existing_order"]

Way = Literal[Product, "stages", "sparse"]
HessianMode = Literal["auto", Product, "stages", "sparse"]

WORTH_IT: dict[Wanted, float] = {"matrix": 0.8, "columns": 0.9}
"""Another way than JAX's own is taken where it is predicted to take less than this share of it; of the whole matrix
JAX's own is one fused program, that XLA repeats nothing of."""

FOREIGN = (
    "It holds a derivative rule that is not JAX's own, which need not be the derivative of the value beside it: this is "
    'what JAX itself makes of it, where mode="stages" takes the rule at its word.'
)

FEWEST = 3
"""Colours that a pattern takes at least which is not a diagonal."""


class HessianStep(NamedTuple):
    """One step of a plan, in words, and the floating-point operations that it takes.

    Examples
    --------
    >>> plan = jc.laplacian(lambda x: jnp.sum(jnp.sin(x))).plan(jnp.ones(100))
    >>> [row.flops for row in plan.rows]
    [400.0]
    """

    step: str
    flops: float


@dataclass(frozen=True, eq=False)
class HessianPlan(Tabular):
    """How second derivatives will be computed, and why; ``print`` shows it.

    Attributes
    ----------
    mode
        ``"stages"``, ``"sparse"``, or the order of JAX's modes: ``"forward-over-reverse"``, ….
    why
        In a sentence.
    costs
        Predicted floating-point operations of each way that was priced.
    argument
        Which argument is differentiated with respect to, in words.
    plan, order, stretch, star
        What is run, where it is the sum over stages, or colours.
    terms
        Where the result is a sum whose terms are cheaper each for itself: sign, function and plan of each.

    Examples
    --------
    >>> plan = jc.laplacian(lambda x: jnp.sum(jnp.sin(x))).plan(jnp.ones(100))
    >>> plan.mode, plan.costs["stages"] < plan.costs["forward-over-reverse"] / 50
    ('stages', True)
    """

    mode: Way
    why: str
    costs: Mapping[str, float]
    argument: str
    plan: Plan | None = None
    order: Order | None = None
    stretch: Stretch | None = None
    star: Star | None = None
    terms: tuple[tuple[int, Found, HessianPlan], ...] = ()

    @property
    def rows(self) -> tuple[HessianStep, ...]:
        """What is done, in order."""
        if self.mode == "sparse" and self.star is not None:
            words = f"∇² by {count(self.star.colours, 'colour')} of its pattern"
            return (HessianStep(words, self.costs["sparse"]),)
        if self.mode == "stages" and self.terms:
            return tuple(row for _, _, term in self.terms for row in term.rows)
        if self.mode != "stages" or self.stretch is None or self.plan is None:
            return (HessianStep(f"products with ∇², {self.mode.replace('-', ' ')}", self.costs[self.mode]),)
        return tuple(_steps(self.plan, self.stretch))

    def _table(self) -> Table:
        rows = [(row.step, _flop(row.flops)) for row in self.rows]
        told = ", ".join(f"{name.replace('-', ' ')} {_flop(cost)}" for name, cost in self.costs.items())
        title = f"Second derivatives by {self.argument}: {self.mode.replace('-', ' ')}"
        return Table(title, ("step", "work"), rows, [self.why, f"Predicted: {told}."])


def _flop(cost: float) -> str:
    return "not counted" if math.isnan(cost) else si(cost, "FLOP")


def _steps(plan: Plan, stretch: Stretch) -> list[HessianStep]:
    """The steps of a stretch and of all after it, in words."""
    names, told = plan.names, list[HessianStep]()
    begin = names[stretch.start]
    for step in stretch.steps:
        if isinstance(step, Walk):
            how = "times its matrix" if step.how == "multiply" else "pushed"
            whole, before = (f"∂{names[state]}/∂{begin}" for state in (step.stop, step.start))
            first = step.start == stretch.start and step.how == "multiply"
            words = f"{whole} is its matrix" if first else f"{whole}: {before} {how}"
            told.append(HessianStep(words, step.cost))
            continue
        unit = plan.units[step.unit]
        how = {
            "multiply": "its own second derivative",
            "push": "columns pushed through it",
            "open": "its equations, each",
        }
        told.append(
            HessianStep(
                f"{unit.name} bends: {'diagonals alone' if unit.kind == 'diagonal' else how[step.how]}", step.cost
            )
        )
    if stretch.then is None:
        return told
    narrow = names[stretch.then.start]
    words = f"the Hessian by {narrow}, {count(plan.sizes[stretch.then.start], 'number')}, met with ∂{narrow}/∂{begin}"
    return [*told, *_steps(plan, stretch.then), HessianStep(words, stretch.own)]


def decide_second(
    found: Found,
    wanted: Wanted,
    mode: HessianMode,
    argument: str,
    seed: Form | None = None,
    *,
    pairs: bool = False,
) -> HessianPlan:
    """How to compute the second derivatives of a traced function of one number.

    Parameters
    ----------
    found
        Of real numbers.
    wanted
        The whole matrix, or a number a column.
    mode
        What was asked for.
    argument
        What it is by, in words.
    seed
        What the columns are; default: the identity.
    pairs
        Whether columns come in pairs.

    Raises
    ------
    ImportError
        If ``mode="sparse"`` and asdex is not installed.
    ModeError
        If a way that was asked for does not exist, or none does; names the stage.
    """
    if mode in PRODUCTS:
        return HessianPlan(mode, f'mode="{mode}" was asked for.', {mode: math.nan}, argument)
    plan = make_plan(found)
    unit = joined(found, lambda: "whole", plan.units)
    n = plan.sizes[0]
    seed = seed or Form("identity", n)
    each = bend_of(unit)
    once, push = each.work.once, each.work.tangent + (0 if wanted == "matrix" else 2 * n)
    costs: dict[str, float] = {"forward-over-reverse": seed.columns * push + once}
    if each.refused is not None:
        return _without_both(found, plan, mode, argument)
    order, stretch = best_order(plan, seed, wanted, pairs=pairs)
    refused = [u.name for u, bend in zip(plan.units, order.bends, strict=True) if bend.refused is not None]
    if not refused:
        costs["stages"] = stretch.cost + once
    star = _star(unit, mode, min(costs.values()) - once, FEWEST * push) if seed.kind == "identity" else None
    if star is not None:
        costs["sparse"] = star.colours * push + once
    terms = _apart(found, order, wanted, argument, seed, costs.get("stages", math.inf), pairs=pairs)
    if terms:
        costs["stages"] = sum(term.costs["stages"] for _, _, term in terms)
    way, why = _chosen(mode, costs, WORTH_IT[wanted])
    if mode == "auto" and found.foreign:
        # What a rule says backwards and what the value does forwards may be two functions, of which JAX takes both.
        way, why = "forward-over-reverse", FOREIGN
    return HessianPlan(way, why, costs, argument, plan, order, stretch, star, terms)


def _apart(
    found: Found, order: Order, wanted: Wanted, argument: str, seed: Form, whole: float, *, pairs: bool
) -> tuple[tuple[int, Found, HessianPlan], ...]:
    """The terms of a result that is a sum, where they take less each for itself."""
    if not order.curved or len(order.plan.units[order.curved[-1]].segment.equations) < 2:
        return ()
    try:
        parts = [
            (sign, term, decide_second(term, wanted, "stages", argument, seed, pairs=pairs))
            for sign, term in summands(found)
        ]
    except ModeError:  # a term refuses what its sum allows
        return ()
    apart = sum(plan.costs["stages"] for _, _, plan in parts)
    return tuple(parts) if parts and apart < WORTH_IT["columns"] * whole else ()


def _chosen(mode: HessianMode, costs: Mapping[str, float], worth: float) -> tuple[Way, str]:
    if mode in ("stages", "sparse"):
        if mode not in costs:
            msg = f'mode="{mode}" does not exist for this function; mode="auto" takes what exists.'
            raise ModeError(msg)
        return mode, f'mode="{mode}" was asked for.'
    simple = costs["forward-over-reverse"]
    least = min(costs, key=lambda name: costs[name])
    if costs[least] < worth * simple:
        if not costs[least]:
            return least, "There is nothing to compute."  # pyright: ignore[reportReturnType]
        how = "By colours it takes" if least == "sparse" else "Stage by stage it takes"
        return least, f"{how} {times_less(simple / costs[least], 'work')} than JAX's own order."  # pyright: ignore[reportReturnType]
    share = f"{costs[least] / simple:.0%} of its work" if simple else "as much work"
    return (
        "forward-over-reverse",
        f"No other way is below {worth:.0%} of JAX's own order: the cheapest takes {share}.",
    )


def _star(unit: Any, mode: HessianMode, best: float, least: float) -> Star | None:
    """The coloured pattern, where it was asked for, or may be worth its while."""
    if mode == "sparse":
        if reason := unavailable():
            msg = f'mode="sparse" needs asdex to find and colour patterns, but {reason}: pip install --upgrade "jaxchain[sparse]".'
            raise ImportError(msg)
        if (star := star_of(unit)) is None:
            msg = 'asdex cannot find the sparsity pattern of this Hessian; use mode="auto".'
            raise ModeError(msg)
        return star
    return star_of(unit) if mode == "auto" and least < best and may_be_sparse(unit) else None


def _without_both(found: Found, plan: Plan, mode: HessianMode, argument: str) -> HessianPlan:
    """What is left where forward over reverse is refused."""
    stages = refusing(plan)
    if mode != "auto":
        msg = f'There is no mode="{mode}" for {stages}; mode="auto" takes what exists.'
        raise ModeError(msg)
    way = existing_order(found, plan)
    return HessianPlan(way, f"Forward over reverse does not exist for {stages}.", {way: math.nan}, argument, plan)


def refusing(plan: Plan) -> str:
    """The stages that refuse forward over reverse, in words."""
    names = [unit.name for unit in plan.units if bend_of(unit).refused is not None]
    return f"stage{'s' * (len(names) > 1)} {', '.join(names)}" if names else "this function"


def existing_order(found: Found, plan: Plan) -> Product:
    """The first order of JAX's modes that exists.

    Raises
    ------
    ModeError
        If none does; names the stages.
    """
    try:
        return existing(of_input(found), found.input)
    except ModeError as error:
        msg = (
            f"There is no second derivative of {refusing(plan)}: {error}. Give it a rule that can be differentiated "
            "again, or take it out of the derivative (jax.lax.stop_gradient)."
        )
        raise ModeError(msg) from error
