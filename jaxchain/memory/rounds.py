"""A loop over equal steps: the least extra work within a limit, as loops within loops; plain integers, no JAX.

Steps are kept one by one; or in equal rounds, of which the carries before them are kept and each runs again, by a
schedule of its own, when its turn has come; or some first ones so and the rest otherwise. The least work of so many
steps, for many numbers of bytes at once, is a row of a table. Rounds of a loop are alike and few stand alone, so that the
program stays small, which is what the least work of `schedule` would not do.

References: Griewank and Walther, Algorithm 799: revolve, 2000; Chen et al., arXiv 1604.06174 (rounds of √l steps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxchain.memory.schedule import Way

__all__ = ["EqualSteps", "LoopPart", "Rounds", "Steps", "steps_in"]

COPY = 0.004
"""What a further copy of the step in the program is worth, as a share of the loop's work: each is compiled."""

COUNTS = (*range(2, 9), 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Into how many rounds a loop may be cut, beside one that stands alone."""

SHARES, FEW, SHORT = (0.8, 0.6, 0.4, 0.2), 4, 128
"""How much of a loop its first steps may be, and of a short one so few rounds, beside about all of it."""

DEEP = 3
"""How many loops lie within one another."""

OWN = 1
"""How many carries a loop within or beside others holds for itself."""

FINE, COARSE = 128, 1.04
"""So many numbers of bytes a quarter of a carry apart, and then each so many times the one before."""


class Steps(NamedTuple):
    """So many steps, each kept in the way of this number."""

    times: int
    way: int


class Rounds(NamedTuple):
    """So many rounds of steps, each round run for its result alone, and again for its derivative."""

    times: int
    inner: tuple[LoopPart, ...]


LoopPart = Steps | Rounds
Floats = NDArray[np.float64]


def steps_in(part: LoopPart) -> int:
    """How many steps a part of a loop has."""
    return part.times * (1 if isinstance(part, Steps) else sum(map(steps_in, part.inner)))


class _Stretch(NamedTuple):
    """So many steps, loops within one another at most so deep.

    ``tail``: others come before, whose rows are cut as theirs; ``there``: what it starts from is counted elsewhere.
    """

    length: int
    depth: int
    tail: bool
    there: bool


class _Choice(NamedTuple):
    """So many steps of a way, or so many rounds; and what comes after them."""

    times: int
    first: int | _Stretch
    rest: _Stretch | None


class _Row(NamedTuple):
    """Of a stretch, for each number of bytes: the extra work, what copies of the step there are, and the choice."""

    work: Floats
    copies: Floats
    choice: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class EqualSteps:
    """A loop, as far as memory goes.

    Attributes
    ----------
    length
        How many steps it has.
    carry, row
        Bytes of what goes from step to step, and of what a step reads of stacked values.
    sums
        Bytes of its constants' cotangents, which are summed up over its steps.
    copied
        Bytes of the constants of which a round that stands alone is given copies, and of its rows and its carry; ``None``:
        it reads them where they are.
    work
        FLOPs of a step.
    ways
        How what a step's derivative needs can be kept, all of the same peak; the first takes no work.
    """

    length: int
    carry: int
    row: int
    sums: int
    copied: int | None
    work: float
    ways: tuple[Way, ...]

    @property
    def peak(self) -> int:
        """Bytes that a step's own derivative takes."""
        return self.ways[0].peak

    @property
    def own(self) -> int:
        """Bytes that every further loop takes for itself: what goes round, and sums of its constants' cotangents."""
        return self.sums + OWN * self.carry

    @property
    def most(self) -> int:
        """Bytes in which every step can be kept in the first way."""
        return self.peak + self.length * self._kept[0]

    def best(self, room: int) -> tuple[LoopPart, ...] | None:
        """The parts that take least work within so many bytes, the steps' derivative included; ``None`` where none do."""
        place = int(np.searchsorted(self._sizes, room - self.peak, side="right")) - 1
        whole = _Stretch(self.length, DEEP, tail=False, there=self.copied is None)
        return self._parts(whole, place) if place >= 0 and np.isfinite(self._row(whole).work[place]) else None

    def extra(self, parts: Sequence[LoopPart]) -> float:
        """FLOPs that a schedule takes beside the evaluation and the derivative."""
        return sum(
            part.times * (self.ways[part.way].work if isinstance(part, Steps) else self._again(part)) for part in parts
        )

    def _again(self, part: Rounds) -> float:
        return steps_in(part) // part.times * self.work + self.extra(part.inner)

    def held(self, parts: Sequence[LoopPart]) -> int:
        """Bytes that are kept when all has run for its result."""
        there = self.copied is None
        return self._cut(parts) + sum(self._kept_of(part, there=there and not k) for k, part in enumerate(parts))

    def hosted(self, parts: Sequence[LoopPart]) -> int:
        """Bytes that lie in the host's memory: of a round, while it runs again."""
        return sum(
            part.times * self.ways[part.way].hosted if isinstance(part, Steps) else self.hosted(part.inner)
            for part in parts
        )

    def most_at_once(self, parts: Sequence[LoopPart]) -> int:
        """The most bytes that the derivative takes, what was kept included."""
        return self._most(parts, there=self.copied is None)

    def _most(self, parts: Sequence[LoopPart], *, there: bool) -> int:
        held, most = self._cut(parts), 0
        for number, part in enumerate(parts):
            first = there and not number
            taken = self._kept_of(part, there=first) + self.peak
            if isinstance(part, Rounds):
                each = steps_in(part) // part.times
                taken = self._within(part.times, each, there=first) + self._most(
                    part.inner, there=first and part.times == 1
                )
            most = max(most, held + taken)
            alone = isinstance(part, Rounds) and part.times == 1  # which is no loop
            held += self._kept_of(part, there=first) + (0 if alone else self.own)
        return most

    def _cut(self, parts: Sequence[LoopPart]) -> int:
        """Bytes of the rows that parts read, and of their cotangents, where they are not all of the loop's."""
        return 2 * sum(map(steps_in, parts)) * self.row if len(parts) > 1 else 0

    def _kept_of(self, part: LoopPart, *, there: bool) -> int:
        """Bytes that are kept of a part; ``there``: what the first one starts from is counted elsewhere."""
        if isinstance(part, Steps):
            return part.times * self._kept[part.way]
        return self._starts(part.times, steps_in(part) // part.times, there=there)

    def _starts(self, times: int, each: int, *, there: bool) -> int:
        """Bytes that rounds are run again from."""
        if times > 1:
            return times * self.carry
        if self.copied is not None:
            return self.copied + self.carry + each * self.row
        return 0 if there else self.carry

    def _within(self, times: int, each: int, *, there: bool) -> int:
        """Bytes that are taken while one of some rounds runs again; what it starts from is counted in it."""
        starts = self._starts(times, each, there=there)
        if times == 1:
            return starts + self.own - (0 if there else self.carry)
        return starts + self.own - self.carry + 2 * each * self.row

    @cached_property
    def _kept(self) -> tuple[int, ...]:
        """Bytes that are kept of each step, in each way."""
        return tuple(way.kept + (self.carry if way.reads_state else 0) for way in self.ways)

    # ---------------------------------------------------------------------------------------------------- the tables

    @cached_property
    def _sizes(self) -> Floats:
        """For how many bytes, a step's own aside, the least work is known."""
        most = self.most - self.peak
        fine = np.arange(FINE) * max(self.carry / 4, most / 2**14, 1.0)
        further = max(math.ceil(math.log(max(most, 1) / fine[-1], COARSE)), 0)
        return np.unique([*fine, *(fine[-1] * COARSE ** np.arange(1, 1 + further)), most])

    @cached_property
    def _rows(self) -> dict[_Stretch, _Row]:
        return {}

    def _row(self, of: _Stretch) -> _Row:
        """The least work of a stretch."""
        if of not in self._rows:
            self._rows[of] = self._filled(of)
        return self._rows[of]

    def _filled(self, of: _Stretch) -> _Row:
        sizes, everywhere = self._sizes, np.arange(len(self._sizes))
        options, copies = [], []
        for choice in self._choices(of):
            times, first, rest = choice
            if isinstance(first, int):
                work, written = np.full_like(sizes, times * self.ways[first].work), np.ones_like(sizes)
                fits = sizes >= times * self._kept[first]
            else:
                row, inner = self._row(first), self._left(of, choice, within=True)
                work, written = times * (first.length * self.work + row.work[inner]), 1 + row.copies[inner]
                fits = inner >= 0
            if rest is not None:
                row, after = self._row(rest), self._left(of, choice)
                work, written, fits = work + row.work[after], written + row.copies[after], fits & (after >= 0)
            options.append(np.where(fits, work, np.inf))
            copies.append(written)
        works, writings = np.stack(options), np.stack(copies)
        found = np.argmin(works + COPY * self.work * self.length * writings, axis=0)
        return _Row(works[found, everywhere], writings[found, everywhere], found)

    def _choices(self, of: _Stretch) -> list[_Choice]:
        """How a stretch can begin: with steps that are kept, or with rounds; and what is then left of it."""

        def after(steps: int) -> _Stretch | None:
            left = of.length - steps
            depth = of.depth if of.length <= SHORT else of.depth - 1
            return _Stretch(left, depth, tail=True, there=False) if left else None

        whole = [_Choice(of.length, way, None) for way in range(len(self.ways))]
        if not of.depth:
            return whole
        some = sorted({max(round(of.length * share), 1) for share in SHARES} - {of.length})
        kept = [_Choice(times, way, after(times)) for times in some for way in range(1, len(self.ways))]
        rounds = [
            _Choice(count, _Stretch(each, of.depth - 1, tail=False, there=of.there and count == 1), after(count * each))
            for count, each in _cuts(of.length)
        ]
        return [*whole, *kept, *rounds]

    def _left(self, of: _Stretch, choice: _Choice, *, within: bool = False) -> NDArray[np.intp]:
        """Where in a row the bytes are that are left for what comes after a choice, or within its rounds; −1: none are."""
        times, first, rest = choice
        used = 0 if of.tail or rest is None else 2 * of.length * self.row  # rows, cut, and as much of their cotangents
        if isinstance(first, int):
            used += times * self._kept[first] + self.own
        elif within:
            used += self._within(times, first.length, there=of.there)
        else:
            used += self._starts(times, first.length, there=of.there) + (self.own if times > 1 else 0)
        return np.searchsorted(self._sizes, self._sizes - used, side="right") - 1

    def _parts(self, of: _Stretch, place: int) -> tuple[LoopPart, ...]:
        """The choices behind a place of a row."""
        choice = self._choices(of)[int(self._row(of).choice[place])]
        times, first, rest = choice
        if isinstance(first, int):
            part: LoopPart = Steps(times, first)
        else:
            part = Rounds(times, self._parts(first, int(self._left(of, choice, within=True)[place])))
        return (part,) if rest is None else (part, *self._parts(rest, int(self._left(of, choice)[place])))


def _cuts(length: int) -> list[tuple[int, int]]:
    """So many rounds of so many steps; with a rest, or without one."""
    shares = SHARES if length <= SHORT else ()
    cuts = {
        (count, each)
        for count in COUNTS
        for each in {
            *(length // count, -(-length // (count + 1)), length // (count + 2)),
            *(round(length * share / count) for share in shares if count <= FEW),
        }
        if each and count * each <= length
    }
    alone = {(1, max(length * tenths // 10, 1)) for tenths in range(1, 10)}
    return sorted(cuts | alone if length > 1 else cuts)
