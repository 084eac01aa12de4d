"""What a report finds, in sentences: what is wrong, which order is cheap, where a cotangent grows or dies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from jaxchain.diagnosis.diagnosed import Diagnosis
from jaxchain.diagnosis.survey import Survey
from jaxchain.jacobians.decision import Decision
from jaxchain.show.values import count, large, ratio_text

__all__ = ["directions", "growth", "headline", "passes", "worst"]

STANDS_OUT = math.log(2)
"""A stage that changes a cotangent's length by less than a factor of two is not named."""


def headline(
    decision: Decision, names: Sequence[str], surveyed: Survey, diagnosed: Diagnosis, *, large: bool = False
) -> str:
    """What is wrong, or where a cotangent grows or dies; and which order is cheap.

    The latter first where nothing is wrong and somebody would form the Jacobian.
    """
    if not diagnosed.healthy:
        return " ".join(filter(None, (diagnosed.verdict, _cheapest(decision))))
    sentences = (_cheapest(decision), growth(("the input", *names), surveyed), worst(names, surveyed))
    return " ".join(filter(None, (*sentences[1:], sentences[0]) if large else sentences))


def passes(surveyed: Survey) -> list[float | None]:
    """By how much each stage multiplies the cotangent's length on its way back; ``None`` where that is not known."""
    pairs = pairwise(surveyed.cotangents)
    return [None if before is None or not after else before / after for before, after in pairs]


def worst(names: Sequence[str], surveyed: Survey) -> str:
    """The stage that changes a cotangent most, where it stands out among several."""
    known = [(times, name) for times, name in zip(passes(surveyed), names, strict=True) if times and times < math.inf]
    if len(known) < 2:
        return ""
    strengths = [abs(math.log(times)) for times, _ in known]
    most = int(np.argmax(strengths))
    if strengths[most] < STANDS_OUT:
        return ""
    times, name = known[most]
    return f"{name} alone multiplies it by {large(times)}."


def _cheapest(decision: Decision) -> str:
    """Which order is cheap, in one sentence."""
    plan = decision.plan
    if plan is None:
        return decision.why
    m, n = plan.sizes[-1], plan.sizes[0]
    forward, reverse = plan.simple
    better = min(plan.simple)
    if not math.isfinite(max(forward, reverse)):
        known = [word for word, cost in (("forward", forward), ("reverse", reverse)) if math.isfinite(cost)]
        return f"Only {known[0]} mode exists here." if known else "Neither forward nor reverse mode exists here."
    if not better:
        return ""
    if decision.mode in ("mixed", "sparse"):
        least = decision.cost + plan.once
        times = f"{ratio_text(better / least)}× less work than forward or reverse mode" if least else "no work at all"
        if decision.mode == "sparse":
            return f"The Jacobian is sparse: by colours it takes {times}."
        if min(plan.sizes[1:-1], default=n) < min(m, n):
            return f"The waist is {plan.waist} ({count(min(plan.sizes), 'number')}): multiplied in the planned order, the Jacobian takes {times}."
        return f"With local Jacobians that are read off, diagonal or in blocks, the planned order takes {times}."
    saved = 1 - (plan.least + plan.once) / better
    more = f" The planned order saves another {saved:.0%}." if saved >= 0.005 else ""
    if forward == reverse:
        return f"Forward and reverse mode cost the same here: {count(n, 'input')}, {count(m, 'output')}.{more}"
    rows, columns = f"{count(m, 'row')} to pull back", f"{count(n, 'column')} to push forward"
    if reverse < forward:
        return f"Reverse mode takes {ratio_text(forward / reverse)}× less work than forward mode: {rows} against {columns}.{more}"
    return f"Forward mode takes {ratio_text(reverse / forward)}× less work than reverse mode: {columns} against {rows}.{more}"


def growth(names: Sequence[str], surveyed: Survey) -> str:
    """Where a cotangent grows or dies, in one sentence."""
    known = [value for value in surveyed.cotangents if value is not None]
    if len(known) < len(surveyed.cotangents):
        return ""
    if not all(map(math.isfinite, (*known, *surveyed.primals))):
        return "Some states or cotangents are not finite."
    if not known[0] or not known[-1]:
        return "The cotangent is zero at the input: nothing flows back." if known[-1] else ""
    ratios = [value / known[-1] for value in known]
    ratio, strengths = ratios[0], [abs(math.log(r)) if r else math.inf for r in ratios]
    extreme = int(np.argmax(strengths))
    if strengths[extreme] > strengths[0] + math.log(3):
        there = ratios[extreme]
        word, times = ("grows", there) if there > 1 else ("shrinks", 1 / there if there else math.inf)
        return f"From output to input a cotangent {word} {large(times)}-fold until {names[extreme]} and arrives with {large(ratio)} times its size."
    if 0.5 <= ratio <= 2:
        return f"From output to input a cotangent about keeps its size (×{ratio:.2g})."
    return (
        f"From output to input a cotangent {'grows' if ratio > 1 else 'shrinks'} {large(max(ratio, 1 / ratio))}-fold."
    )


def directions(tangent_drawn: bool, cotangent_drawn: bool) -> str:
    """What the sweeps on the page follow."""
    if tangent_drawn and cotangent_drawn:
        return "The tangent followed from the input and the cotangent followed from the output are random, each of length one."
    words = [
        "random, of length one" if drawn else "the one that was given" for drawn in (tangent_drawn, cotangent_drawn)
    ]
    return f"The tangent followed from the input is {words[0]}; the cotangent followed from the output is {words[1]}."
