"""The three ways to multiply a chain's Jacobians, step by step: forward, reverse, and the plan's.

Every step says which matrix is now known, what it cost, and shows it where the local Jacobians
are known whole. Builds on `survey` for the factors and on the plan for the costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxchain.diagnosis.survey import Survey
from jaxchain.discovery.name import operation
from jaxchain.errors import REFUSALS, refusal
from jaxchain.explore.arithmetic import MOST, product_of, written
from jaxchain.explore.mark import stage_of
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.decision import Decision
from jaxchain.jacobians.planner import Plan
from jaxchain.jacobians.unit import distinct
from jaxchain.page.picture import picture
from jaxchain.show.extremes import Floats
from jaxchain.show.values import count

__all__ = ["factors", "named", "running", "ways"]

CELLS = 4e5
"""Cells that the pictures of all steps share."""

WORK = 2e10
"""Multiply-adds that their matrices may take: some seconds."""

ENTRIES = 1 << 24
"""The most entries of all products together that are swept where they cannot be multiplied."""

KINDS = {"multiply": "multiply", "eliminate tangent": "push", "eliminate adjoint": "pull"}


Sweeps = Callable[[Literal["prefixes", "suffixes"]], Sequence[Any]]
"""Computes ∂x_k/∂x_0, or ∂x_q/∂x_k, for k = 0 … q."""


def ways(surveyed: Survey, decision: Decision, sweeps: Sweeps | None = None) -> dict[str, Any]:
    """``forward``, ``reverse`` and ``planned``, each with its steps, as the page's script reads them.

    ``sweeps`` gives the products that begin at the input or end at the output where they cannot be multiplied.
    """
    plan = decision.plan
    assert plan is not None
    sizes = [surveyed.links[0].shape[1], *(link.shape[0] for link in surveyed.links)]
    matrices = factors(surveyed)
    side = max(int(math.sqrt(CELLS / (2 * len(sizes) + len(plan.steps)))), 8)
    prefixes, suffixes = running(matrices), [m.T for m in running([m.T for m in reversed(matrices)])]
    why = "" if matrices else _why_not(surveyed)
    if not matrices and sweeps is not None:
        prefixes, suffixes = _swept(surveyed, sweeps, sizes)
    q = len(surveyed.links)
    pushed, pulled = _each(plan, q, "tangent", plan.forward_cost), _each(plan, q, "adjoint", plan.reverse_cost)
    names = surveyed.names
    forward = [
        _step(
            _joined(names, 0, k, k + 1),
            (0, k + 1),
            k,
            k,
            "push",
            (m, sizes[0]),
            matrices and [matrices[k], *prefixes[k - 1 : k], prefixes[k]],
        )
        for k, m in enumerate(sizes[1:])
    ]
    reverse = [
        _step(
            _joined(names, k, k + 1, q),
            (k, q),
            k + 1,
            k,
            "pull",
            (sizes[q], n),
            matrices and [*suffixes[q - k - 2 : q - k - 1], matrices[k], suffixes[q - k - 1]],
        )
        for k, n in reversed(list(enumerate(sizes[:-1])))
    ]
    return {
        "forward": _way(
            f"Push the {count(sizes[0], 'column')} of the identity through the stages, the first stage first.",
            forward, pushed, prefixes, side, why,
        ),
        "reverse": _way(
            f"Pull the {count(sizes[q], 'row')} of the identity back through the stages, the last stage first.",
            reverse, pulled[::-1], suffixes, side, why,
        ),
        "planned": _planned(decision, plan, sizes, _Known(matrices, prefixes, suffixes), side, why),
    }  # fmt: skip


def factors(surveyed: Survey) -> list[Floats]:
    """The local Jacobians, first stage first; none where one is not known whole, or their products take too long."""
    known = [link.whole for link in surveyed.links if link.whole is not None]
    sizes = [surveyed.links[0].shape[1], *(link.shape[0] for link in surveyed.links)]
    return known if len(known) == len(surveyed.links) and _product_work(sizes) <= WORK else []


class _Known(NamedTuple):
    """The local Jacobians, or nothing; their products from the input on, and from the output back."""

    factors: Sequence[Floats]
    prefixes: Sequence[Floats]
    suffixes: Sequence[Floats]

    def between(self, start: int, stop: int) -> Floats | None:
        """The product from one of the chain's states to another, where it is known."""
        if self.factors:
            return running(self.factors[start:stop])[-1]
        if start == 0 and self.prefixes:
            return self.prefixes[stop - 1]
        q = max(len(self.prefixes), len(self.suffixes))
        return self.suffixes[q - 1 - start] if stop == q and self.suffixes else None


def _swept(surveyed: Survey, sweeps: Sweeps, sizes: Sequence[int]) -> tuple[list[Floats], list[Floats]]:
    """Products from the input on, if it is few numbers, and from the output back, if that is: a loss is one row."""
    work = 2 * sum(link.work for link in surveyed.links)

    def made(kind: Literal["prefixes", "suffixes"], vectors: int) -> list[Floats]:
        if vectors * work > WORK or vectors * sum(sizes) > ENTRIES:
            return []
        try:
            return [np.asarray(matrix, np.float64) for matrix in sweeps(kind)]
        except REFUSALS as error:
            refusal(error)
            return []

    return made("prefixes", sizes[0])[1:], made("suffixes", sizes[-1])[-2::-1]


def _why_not(surveyed: Survey) -> str:
    """Why products are not drawn."""
    for link in surveyed.links:
        if link.whole is None:
            what = "no Jacobian is known" if link.refusal else "only some columns of the Jacobian were computed"
            return f" Products that are not drawn have a factor that is not known whole: of {link.stage.name} {what}."
    return " Products that are not drawn would take too long to multiply here."


def _way(
    start: str,
    steps: Sequence[dict[str, Any]],
    costs: Sequence[float],
    matrices: Sequence[Floats],
    side: int,
    why: str = "",
) -> dict[str, Any]:
    if not all(map(math.isfinite, costs)):
        return {"cost": None, "start": "This mode does not exist here: a stage has no rule for it.", "steps": []}
    pictures: Iterable[Any] = (picture(m, side) for m in matrices) if matrices else [None] * len(steps)
    filled = [
        {**step, "cost": cost, "total": total, "picture": image}
        for step, cost, total, image in zip(steps, costs, accumulate(costs), pictures, strict=True)
    ]
    return {"cost": sum(costs), "start": start if matrices else start + why, "steps": filled}


def _step(
    text: str, span: tuple[int, int], middle: int | None, stage: int, kind: str, shape: tuple[int, int],
    matrices: Sequence[Floats | None] = (),
) -> dict[str, Any]:  # fmt: skip
    """One step; ``matrices`` are its factors, as far as they are known, and the matrix that it makes."""
    start, stop = span
    about = {"text": text, "from": start, "to": stop, "middle": middle, "stage": stage, "kind": kind, "shape": shape}
    return {**about, "arithmetic": _arithmetic(matrices)}


def _joined(names: Sequence[str], start: int, middle: int, stop: int) -> str:
    """The chain rule at one state: ∂z/∂x = ∂z/∂y · ∂y/∂x; at an end of the span, nothing is multiplied."""
    whole = f"∂{names[stop]}/∂{names[start]}"
    if middle in (start, stop):
        return whole
    return f"{whole} = ∂{names[stop]}/∂{names[middle]} · ∂{names[middle]}/∂{names[start]}"


def _arithmetic(matrices: Sequence[Floats | None]) -> str:
    """``[2 0; 1 3] · [1; 4] = [2; 13]``, where all of it is small enough to be read."""
    known = [matrix for matrix in matrices if matrix is not None]
    if not known or len(known) < len(matrices) or max(max(matrix.shape) for matrix in known) > MOST:
        return ""
    *factors, result = known
    return f"{product_of(factors)} = {written(result)}" if len(factors) > 1 else written(result)


def _each(plan: Plan, q: int, way: Literal["tangent", "adjoint"], total: float) -> list[float]:
    """What each stage costs in a simple mode; where units hold several stages, in equal shares."""
    costs = [0.0] * q
    vectors = plan.sizes[0 if way == "tangent" else -1]
    for unit, (first, last) in zip(plan.units, _spans(plan), strict=True):
        cost: float = getattr(unit, way)
        for stage in range(first, last + 1):
            costs[stage] += vectors * cost / (last + 1 - first) if vectors else 0.0
    return costs if math.isfinite(total) else [math.inf] * q


def running(factors: Sequence[Floats]) -> list[Floats]:
    """Products from the first factor on: J_1, J_2 J_1 and so forth."""
    with np.errstate(all="ignore"):  # what is not finite is meant to be seen
        return list(accumulate(factors, lambda product, factor: factor @ product))


def _product_work(sizes: Sequence[int]) -> float:
    return sum(float(n) * m * (sizes[0] + sizes[-1]) for n, m in pairwise(sizes))


def named(plan: Plan, names: Sequence[str]) -> Plan:
    """A plan for a marked chain, whose states have the chain's own names where they are the chain's own."""
    spans = _spans(plan)
    ends = [after[0] > span[1] for span, after in pairwise(spans)] + [True]
    labels = [
        names[span[1]] if end else f"{names[span[1]]}/{operation([unit.core])}"
        for unit, span, end in zip(plan.units, spans, ends, strict=True)
    ]
    units = zip(plan.units, distinct(labels), strict=True)
    return replace(plan, units=tuple(replace(unit, label=lambda name=name: name) for unit, name in units))


def _spans(plan: Plan) -> list[tuple[int, int]]:
    """The first and the last stage that each unit has equations of."""
    spans: list[tuple[int, int]] = []
    for unit in plan.units:
        found = [stage_of("/".join(equation.origin.scope)) for equation in unit.segment.equations]
        known = [stage for stage in found if stage is not None] or [spans[-1][1] if spans else 0]
        spans.append((min(known), max(known)))
    return spans


def _places(plan: Plan, last: int) -> list[float]:
    """Where each of the plan's states stands among the chain's: a whole number, or k + ½ inside stage k."""
    spans = _spans(plan)
    inner = [float(after[0]) if before[1] < after[0] else before[1] + 0.5 for before, after in pairwise(spans)]
    return [0.0, *inner, float(last)]


def _planned(
    decision: Decision, plan: Plan, sizes: Sequence[int], products: _Known, side: int, why: str
) -> dict[str, Any]:
    q = len(sizes) - 1
    if not math.isfinite(plan.least):
        return {"cost": None, "start": "No plan exists here: a stage has neither mode.", "steps": []}
    if decision.mode == "sparse" and plan.whole is not None:
        text = f"∂output/∂input is a sparse matrix: {plan.whole.colours} colours, one sweep each"
        whole = [product] if (product := products.between(0, q)) is not None else []
        step = _step(text, (0, q), None, 0, "accumulate", (sizes[q], sizes[0]))
        return _way(
            "The pattern of the whole function is sparse enough to be coloured.",
            [step],
            [plan.whole_cost],
            whole,
            side,
            why,
        )
    places = _places(plan, q)
    ready: dict[tuple[int, int], Floats] = {}
    steps: list[dict[str, Any]] = []
    total = 0.0
    for step in plan.steps:
        total += step.cost
        known = _matrix(step, places, products, ready)
        if known is not None:
            ready[step.start, step.stop] = known
        span = math.floor(places[step.start]), math.ceil(places[step.stop])
        middle = None if step.middle is None else math.floor(places[step.middle])
        parts: list[Floats | None] = []
        if step.middle is not None:
            parts = [
                _between(step.middle, step.stop, places, products, ready),
                _between(step.start, step.middle, places, products, ready),
            ]
        kind, shape = KINDS.get(step.kind, "accumulate"), (plan.sizes[step.stop], plan.sizes[step.start])
        steps.append(
            {
                **_step(plan.describe(step), span, middle, _factor(step, places), kind, shape, [*parts, known]),
                "cost": step.cost,
                "total": total,
                "picture": None if known is None else picture(known, side),
            }
        )
    start = "Multiply in the order that needs the least work."
    if any(step["picture"] is None for step in steps):
        start += why or " A matrix that begins or ends inside a stage is not drawn."
    return {"cost": plan.cost, "start": start, "steps": steps}


def _factor(step: Step, places: Sequence[float]) -> int:
    """The stage to look at: the one factor that a step adds, or the first of them that it passes."""
    if step.middle is None:
        return math.floor(places[step.start])
    before_middle, after_middle = math.ceil(places[step.middle]) - 1, math.floor(places[step.middle])
    single = places[step.middle] - places[step.start] <= 1
    return before_middle if step.kind == "eliminate adjoint" or (step.kind == "multiply" and single) else after_middle


def _matrix(
    step: Step, places: Sequence[float], products: _Known, ready: dict[tuple[int, int], Floats]
) -> Floats | None:
    """The matrix that a step makes, multiplied out of the factors; ``None`` where it ends inside a stage."""
    whole = _between(step.start, step.stop, places, products, ready)
    if step.middle is None:
        return whole
    left, right = ready.get((step.middle, step.stop)), ready.get((step.start, step.middle))
    return whole if left is None or right is None else left @ right


def _between(
    start: int, stop: int, places: Sequence[float], products: _Known, ready: dict[tuple[int, int], Floats]
) -> Floats | None:
    """The Jacobian between two of a plan's states, where it is known or both are the chain's own."""
    if (start, stop) in ready:
        return ready[start, stop]
    first, last = places[start], places[stop]
    if not (first.is_integer() and last.is_integer()) or first == last:
        return None
    return products.between(int(first), int(last))
