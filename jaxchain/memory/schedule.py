"""Which states to keep, which stages to run again: the least extra work within a limit, as plain integers; no JAX.

Reverse stages s … t, the state before s being there. Either the values that stage s's derivative needs are kept (all,
or a few and the others made of them again) until it is its turn; or it and those after it up to some s′ run once for
their result alone, and again when everything after s′ is done. The least work of each stretch, for every number of
bytes at once, is a table; stretches of stages that are alike share it.

References: Herrmann, Beaumont, Eyraud-Dubois, Hermann, Joly and Shilova, Optimal checkpointing for heterogeneous
chains, arXiv 1911.13214 (rotor); for equal stages Griewank and Walther, Algorithm 799: revolve, 2000; several ways to
keep a stage, Zhao et al., Rockmate, ICML 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Again", "Kept", "Links", "Part", "Tables", "Way"]

SLOTS = 4096
"""How finely memory is divided at most; sizes are rounded up, the limit down."""
EFFORT = 3e8
"""Entries that all tables together are made of, about: a second."""


class Way(NamedTuple):
    """One way to keep what a stage's derivative needs.

    Attributes
    ----------
    kept
        Bytes beside the state before the stage.
    work
        FLOPs to make the other values of these again.
    peak
        Bytes that the stage's own derivative takes when it is its turn, what was kept included.
    reads_state
        Whether it needs the state before the stage, too.
    holds_next
        Whether it needs the state after it, too.
    hosted
        Bytes that lie in the host's memory meanwhile; sending them there and back is a part of the work.
    """

    kept: int
    work: float
    peak: int
    reads_state: bool = True
    holds_next: bool = False
    hosted: int = 0


@dataclass(frozen=True)
class Links:
    """A chain of stages, as far as memory goes.

    Attributes
    ----------
    states
        Bytes of the state before each stage; what is an argument of the whole takes none.
    work
        FLOPs of each stage.
    running
        Bytes that each stage takes while it runs for its result alone, that result included.
    waiting
        Bytes that stay once each stage's derivative is taken.
    ways
        How what its derivative needs can be kept; at least one each, the first of which takes no work.
    once
        Which stages run for their result alone only once: whatever runs again is after or before them.
    sums
        Bytes of a sum of cotangents that stages which run again hold for themselves: of what many read.
    """

    states: tuple[int, ...]
    work: tuple[float, ...]
    running: tuple[int, ...]
    waiting: tuple[int, ...]
    ways: tuple[tuple[Way, ...], ...]
    once: tuple[bool, ...]
    sums: int = 0

    def __len__(self) -> int:
        return len(self.states)


class Kept(NamedTuple):
    """A stage whose derivative is taken from what was kept of it, in the way of this number."""

    stage: int
    way: int


class Again(NamedTuple):
    """Stages that run for their result alone, and again, in this order, when everything after them is done."""

    parts: tuple[Part, ...]

    @property
    def stages(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(
            number for part in self.parts for number in (part.stages if isinstance(part, Again) else [part[0]])
        )


Part = Kept | Again
Costs = NDArray[np.float32]


class Tables:
    """The recurrence: of every stretch the least extra work, by the bytes that it may take."""

    def __init__(self, links: Links, limit: int) -> None:
        self.links, self.limit = links, limit
        self.waiting = np.cumsum([0, *links.waiting])
        self.number, each = _stretches(links)
        sizes = {
            links.sums,
            *links.states,
            *links.running,
            *links.waiting,
            *(size for ways in links.ways for w in ways for size in (w.kept, w.peak)),
        }
        slots = int(min(SLOTS, max(256.0, EFFORT / sum(last - first + 1 for first, last in each))))
        self.unit = max(math.gcd(*sizes) or 1, -(-limit // slots))
        self.top = limit // self.unit
        # By stretch, the state before it being there, or still to be kept if it is needed.
        self.paid = np.empty((len(each), self.top + 1), np.float32)
        self.unpaid = np.empty_like(self.paid)
        for first, last in each:
            self._fill(first, last)

    def work(self) -> Costs:
        """Of the whole: the least extra FLOPs by units of memory, 0 … top; infinite where it takes more."""
        return self.paid[self.number[0, len(self.links) - 1]]

    def within(self, size: int) -> float:
        """The least extra FLOPs of the whole in so many bytes."""
        return float(self.work()[min(size, self.limit) // self.unit])

    def parts(self, within: int) -> tuple[Part, ...]:
        """The best schedule within so many bytes."""
        return tuple(self._paid(0, len(self.links) - 1, min(within, self.limit) // self.unit))

    # -------------------------------------------------------------------------------------------------- the recurrence

    def _fill(self, first: int, last: int) -> None:
        stretch = self.number[first, last]
        kept = [self._keeping(first, last, way) for way in self.links.ways[first]]
        paid = np.minimum.reduce(kept)
        if first < last:
            paid = np.minimum(paid, self._running(first, last, slice(None)).min(axis=0))
        self.paid[stretch] = paid
        unpaid = [cost for cost, way in zip(kept, self.links.ways[first], strict=True) if not way.reads_state]
        unpaid.append(_shifted(paid, self._units(self.links.states[first])))
        self.unpaid[stretch] = np.minimum.reduce(unpaid)

    def _keeping(self, first: int, last: int, way: Way) -> Costs:
        """Stage ``first`` kept in this way, the best of the others after it."""
        costs = np.full(self.top + 1, way.work, np.float32)
        if first < last:
            costs += _shifted(*self._after(first, last, way))
        costs[: self._units(max(way.peak + self._waits(first, last), self.links.running[first]))] = np.inf
        return costs

    def _after(self, first: int, last: int, way: Way) -> tuple[Costs, int]:
        """What the stages after one that is kept take, and how much less room they have."""
        stretch, kept = self.number[first + 1, last], self._units(way.kept)
        if way.holds_next:
            return self.paid[stretch], kept + self._units(self.links.states[first + 1])
        return self.unpaid[stretch], kept

    def _running(self, first: int, last: int, room: slice | int) -> Costs:
        """The stages from ``first`` on run for their result alone, up to each of those before ``last``: one row each."""
        after = [self.number[stop + 1, last] for stop in range(first, last)]
        again = [self.number[first, stop] for stop in range(first, last)]
        waits = [self._units(self._waits(stop + 1, last) + self.links.sums) for stop in range(first, last)]
        if not any(waits):
            before = self.paid[again, room]
        elif isinstance(room, slice):
            before = np.stack([_shifted(self.paid[k], units) for k, units in zip(again, waits, strict=True)])
        else:
            before = np.array(
                [self.paid[k, room - u] if u <= room else np.inf for k, u in zip(again, waits, strict=True)]
            )
        costs = self.unpaid[after, room] + before
        work = np.where(self.links.once[first:last], np.inf, self.links.work[first:last])
        costs += np.cumsum(work, dtype=np.float32).reshape(-1, *[1] * (costs.ndim - 1))
        return costs

    # --------------------------------------------------------------------------------------------- the choices behind it

    def _paid(self, first: int, last: int, room: int) -> list[Part]:
        """The schedule of a stretch, the state before it being there."""
        kept = [self._keeping(first, last, way)[room] for way in self.links.ways[first]]
        best = int(np.argmin(kept))
        if first < last:
            running = self._running(first, last, room)
            stop = int(np.argmin(running))
            if running[stop] < kept[best]:
                rest = room - self._units(self._waits(first + stop + 1, last) + self.links.sums)
                again = Again(tuple(self._paid(first, first + stop, rest)))
                return [again, *self._unpaid(first + stop + 1, last, room)]
        return self._then(first, last, room, best)

    def _unpaid(self, first: int, last: int, room: int) -> list[Part]:
        """The schedule of a stretch; the state before it takes room, if it is needed."""
        free = [
            (self._keeping(first, last, way)[room], number)
            for number, way in enumerate(self.links.ways[first])
            if not way.reads_state
        ]
        rest = room - self._units(self.links.states[first])
        paid = self.paid[self.number[first, last]][rest] if rest >= 0 else np.inf
        if free and min(free)[0] <= paid:
            return self._then(first, last, room, min(free)[1])
        return self._paid(first, last, rest)

    def _then(self, first: int, last: int, room: int, way: int) -> list[Part]:
        here: list[Part] = [Kept(first, way)]
        if first == last:
            return here
        chosen = self.links.ways[first][way]
        rest = room - self._after(first, last, chosen)[1]
        return here + (self._paid if chosen.holds_next else self._unpaid)(first + 1, last, rest)

    def _waits(self, first: int, last: int) -> int:
        """Bytes that stay when the derivatives of these stages are taken."""
        return int(self.waiting[last + 1] - self.waiting[first])

    def _units(self, size: int) -> int:
        return -(-size // self.unit)


def _shifted(costs: Costs, units: int) -> Costs:
    """The same with so many units fewer to use."""
    if units == 0:
        return costs
    moved = np.full_like(costs, np.inf)
    moved[units:] = costs[: max(len(costs) - units, 0)]
    return moved


def _stretches(links: Links) -> tuple[dict[tuple[int, int], int], list[tuple[int, int]]]:
    """Of every stretch a number, the same for those made of the same stages; and one stretch a number, short ones first."""
    kinds: dict[object, int] = {}
    stages = zip(links.states, links.work, links.running, links.waiting, links.ways, links.once, strict=True)
    each = [kinds.setdefault(stage, len(kinds)) for stage in stages]
    numbers: dict[tuple[int, int], int] = {}
    found: dict[tuple[int, int], int] = {}
    for length in range(len(links)):
        for first in range(len(links) - length):
            before = found[first, first + length - 1] if length else -1
            found[first, first + length] = numbers.setdefault((before, each[first + length]), len(numbers))
    return found, list({number: stretch for stretch, number in reversed(found.items())}.values())[::-1]
