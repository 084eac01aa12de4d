"""What reverse mode keeps, and what it could do with less: a few places on the trade-off of memory and work."""

from __future__ import annotations

from typing import Any

from jaxchain.chain import Chain
from jaxchain.errors import REFUSALS, refusal
from jaxchain.memory.plan import memory_plan
from jaxchain.program.reading import abstract
from jaxchain.show.table import si

__all__ = ["keeping"]

PLACES = 6
"""How many places on the trade-off are told."""

MOST = 2_000
"""The most equations of a program whose schedules are looked for."""


def keeping(chain: Chain, args: tuple[Any, ...], equations: int) -> dict[str, Any]:
    """Rows of bytes and work, from everything kept to the least memory; and the finding in a sentence."""
    if equations > MOST:
        return {"rows": [], "finding": "", "note": ""}
    try:
        plan = memory_plan(lambda *given: chain(*given), abstract(args))
    except REFUSALS as error:  # no reverse mode, as of a while loop
        return {"rows": [], "finding": "", "note": f"Reverse mode does not exist here. {refusal(error)}."}
    most, least = plan.curve[0], plan.curve[-1]
    chosen = [most] + [
        min((place for place in plan.curve if place[0] <= size), key=lambda place: place[1])
        for size in (most[0] * 0.7**k for k in range(1, 2 * PLACES))
        if size > least[0]
    ]
    places = list(dict.fromkeys([*chosen, least]))
    kept = places[:: max(-(-len(places) // PLACES), 1)]
    rows = [{"bytes": size, "work": plan.times(extra)} for size, extra in dict.fromkeys([*kept, least])]
    finding = f"To pull one cotangent back, reverse mode keeps {si(most[0], 'B')}."
    if len(rows) > 1:
        finding += f" {si(least[0], 'B')} are enough, for {rows[-1]['work']:.2f} times the work."
    return {"rows": rows if len(rows) > 1 else [], "finding": finding, "note": ""}
