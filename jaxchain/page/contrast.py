"""What two chains beside each other differ in, in sentences: the most important first, all of them computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxchain.page.beside import PairRow
from jaxchain.show.values import count, large
from jaxchain.stage import INPUT

__all__ = ["alignment", "finding", "headline"]

NOTABLE = 1.5
"""Norms on the two sides whose ratio is nearer to one are called alike."""

ROUNDING = 1e-5
"""Jacobians that are apart by no larger share of their norm are called equal."""

LISTED = 4
"""The most names in one sentence."""

Names = tuple[str, str]


@dataclass(frozen=True)
class _Ratio:
    """A norm of b over the same norm of a, at one place; or how that changes on the way to it."""

    number: int
    place: str
    value: float

    @property
    def strength(self) -> float:
        """How far it is from one, either way."""
        return abs(math.log(self.value))


def _place(row: PairRow) -> str:
    return "the input" if row.name == INPUT else row.name


def _norms(row: PairRow, quantity: str) -> tuple[float | None, float | None]:
    return getattr(row.a, quantity, None), getattr(row.b, quantity, None)


def _ratios(rows: Sequence[PairRow], quantity: str) -> list[_Ratio]:
    """Where both sides have a norm that is positive and finite."""
    found: list[_Ratio] = []
    for number, row in enumerate(rows):
        a, b = _norms(row, quantity)
        if a and b and 0 < b / a < math.inf:
            found.append(_Ratio(number, _place(row), b / a))
    return found


def headline(rows: Sequence[PairRow], whole: PairRow | None, names: Names) -> str:
    """The one difference to know first."""
    aligned = [row for row in rows if row.a and row.b]
    if len(aligned) < 2:
        return f"Nothing stands beside each other but the inputs: no stage of {names[0]} has the shapes of one of {names[1]}."
    told = _trouble(aligned, names) or _grown(rows, names) or _gradients(aligned, names)
    if told:
        return told
    most, place = max(_apart(aligned), default=(math.nan, ""))
    if math.isnan(most):
        return "The norms are alike; the Jacobians of aligned stages are not known on both sides."
    if most <= ROUNDING:
        return f"Where stages are aligned, {names[0]} and {names[1]} differ by no more than rounding."
    entire = f", that of the whole by {_percent(whole.difference)}" if whole and whole.difference else ""
    return f"The norms are alike; the Jacobian that differs most is that of {place}, by {_percent(most)} of its norm in {names[0]}{entire}."


def _apart(rows: Sequence[PairRow]) -> list[tuple[float, str]]:
    """How far the Jacobians of aligned stages are apart, where that is a number."""
    return [(row.difference, row.name) for row in rows if row.difference is not None and not math.isnan(row.difference)]


def _percent(share: float) -> str:
    return f"{large(100 * share)} %" if math.isfinite(share) else "more than any share"


def _trouble(rows: Sequence[PairRow], names: Names) -> str:
    """Where a norm is zero or not finite on one side alone: the first such state, else the first such cotangent going back."""
    for quantity, way in (("state", rows), ("cotangent", list(reversed(rows)))):
        for row in way:
            a, b = _norms(row, quantity)
            if a is not None and b is not None and _kind(a) != _kind(b):
                values = [large(value) if math.isfinite(value) else "not finite" for value in (a, b)]
                return f"At {_place(row)} the {quantity} of {names[0]} is {values[0]}, that of {names[1]} {values[1]}."
    return ""


def _kind(value: float) -> tuple[bool, bool]:
    return math.isfinite(value), value == 0


def _grown(rows: Sequence[PairRow], names: Names) -> str:
    """The cotangent at the input or the state at the output, whichever ratio is larger, and where most of it arises."""
    ends = [("cotangent", rows[0]), ("state", rows[-1])]
    found = [(ratio[0], quantity) for quantity, row in ends if (ratio := _ratios([row], quantity))]
    if not found:
        return ""
    ratio, quantity = max(found, key=lambda one: one[0].strength)
    if ratio.strength < math.log(NOTABLE):
        return ""
    where = "the input" if quantity == "cotangent" else "the output"
    by = _most_of(ratio, _ratios(rows, quantity), quantity)
    return f"{names[1]}: the {quantity} at {where} is {_times(ratio.value)} than that of {names[0]}{by}."


def _most_of(whole: _Ratio, ratios: Sequence[_Ratio], quantity: str) -> str:
    """Where, from one aligned state to the next, the largest part of a ratio arises."""
    steps: list[_Ratio] = []
    for before, after in pairwise(ratios):
        factor = before.value / after.value if quantity == "cotangent" else after.value / before.value
        direct = after.number == before.number + 1
        place = f"in {after.place}" if direct else f"between {before.place} and {after.place}"
        steps.append(_Ratio(after.number, place, factor))
    along = [step for step in steps if (step.value > 1) == (whole.value > 1)]
    if len(steps) < 2 or not along:
        return ""
    most = max(along, key=lambda step: step.strength)
    return f"; the largest part of that arises {most.place} (×{large(most.value)})"


def _gradients(rows: Sequence[PairRow], names: Names) -> str:
    ratios = _ratios(rows, "gradient")
    most = max(ratios, key=lambda ratio: ratio.strength, default=None)
    if most is None or most.strength < math.log(NOTABLE):
        return ""
    return (
        f"{names[1]}: the gradient of the parameters of {most.place} is {_times(most.value)} than that of {names[0]}."
    )


def _times(ratio: float) -> str:
    return f"{large(max(ratio, 1 / ratio))} times {'larger' if ratio > 1 else 'smaller'}"


def finding(rows: Sequence[PairRow], quantity: str, names: Names) -> str:
    """How one norm of b compares with that of a over all places, in a sentence or two; empty where neither has any."""
    if quantity == "difference":
        return _differences(rows, names)
    known = [value for row in rows for value in _norms(row, quantity) if value is not None]
    odd = sum(not math.isfinite(value) for value in known)
    words = [_spread(_ratios(rows, quantity), names), f"{count(odd, 'norm')} not finite." if odd else ""]
    return " ".join(filter(None, words)) or ("Not beside each other anywhere." if known else "")


def _spread(ratios: Sequence[_Ratio], names: Names) -> str:
    if not ratios:
        return ""
    low, high = min(ratios, key=lambda r: r.value), max(ratios, key=lambda r: r.value)
    over = f"{names[1]} / {names[0]}"
    if high.value / low.value >= 1.005:
        return f"{over}: from {large(low.value)} at {low.place} to {large(high.value)} at {high.place}."
    if high.strength >= 0.005:
        return f"{over}: {large(high.value)} wherever both are known."
    return "The same wherever both are known."


def _differences(rows: Sequence[PairRow], names: Names) -> str:
    known = _apart(rows)
    odd = sum(row.difference is not None for row in rows) - len(known)
    words = [f"{count(odd, 'difference')} not a number." if odd else ""]
    if known:
        most, place = max(known)
        same = sum(not difference for difference, _ in known)
        equal = f" {count(same, 'Jacobian')} {'is' if same == 1 else 'are'} equal." if same else ""
        share = f"As a share of the norm in {names[0]}: largest at {place}, {_percent(most)}.{equal}"
        words = [share if most else "The aligned stages have equal Jacobians.", *words]
    return " ".join(filter(None, words))


def alignment(rows: Sequence[PairRow], names: Names) -> list[str]:
    """Which stages stand beside each other, by what, and which stand alone."""
    stages = rows[1:]
    aligned = [row for row in stages if row.a and row.b]
    sentences: list[str] = []
    renamed = [row.name for row in aligned if row.a and row.b and row.a.name != row.b.name]
    if len(aligned) == len(stages) and not renamed:
        sentences.append("All stages agree in name and shape.")
    elif aligned:
        sentences.append(f"{count(len(aligned), 'stage')} of each stand{'s' * (len(aligned) == 1)} beside each other.")
    if renamed:
        sentences.append(f"By shape, not by name: {_listed(renamed)}.")
    for name, side in zip(names, ("a", "b"), strict=True):
        alone = [row.name for row in stages if getattr(row, side) and row not in aligned]
        if alone:
            sentences.append(f"Only in {name}: {_listed(alone)}.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
