"""A loop over equal steps: how many of its carries to keep, and where to run steps again, as loops within loops.

The program stays small: all rounds of a loop within a loop are alike, and what is left after them is a loop of its
own. Within that, the work is the least. Builds on `inside`, which says what one step can keep.

References: Griewank and Walther, Algorithm 799: revolve, 2000; Chen et al., arXiv 1604.06174 (rounds of √l steps).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxchain.cost.count import total_flops
from jaxchain.cost.liveness import bytes_of, most_alive
from jaxchain.derivative import residual_program
from jaxchain.memory.inside import Chosen, Residuals, known_as, named
from jaxchain.memory.schedule import Way
from jaxchain.program.flow import moved_results
from jaxchain.program.primitives import JaxprEqn, is_inexact, like, scan_of

__all__ = ["Loop", "LoopPart"]

BUDGETS = 12
"""For how many numbers of bytes a loop is planned; each half or so of the one before."""

COPY = 0.004
"""What a further copy of the step in the program is worth, as a share of the loop's work: each is compiled."""

ROUNDS = (*range(1, 9), 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Into how many rounds a loop may be cut."""


CARRY = "carry"
"""The name by which a step's carry is sent to the host; values on the way are named by their numbers."""

HOST = "pinned_host"
"""What JAX calls the host's memory."""


class Steps(NamedTuple):
    """So many steps, each kept in the way of this number."""

    times: int
    way: int


class Rounds(NamedTuple):
    """So many rounds of steps, each round run for its result alone, and again for its derivative."""

    times: int
    inner: tuple[LoopPart, ...]


LoopPart = Steps | Rounds


class Planned(NamedTuple):
    """Parts of a loop, the work that is done again, and what a further copy of the step is worth."""

    price: float
    work: float
    parts: tuple[LoopPart, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """A ``scan`` as equal steps.

    Attributes
    ----------
    eqn
        The equation.
    carry, row
        Bytes of what goes from step to step, and of what a step reads of stacked values.
    work, running
        FLOPs of a step, and the bytes it takes to run for its result alone.
    ways
        How what a step's derivative needs can be kept; ``names``, of each, the values kept, ``None``: JAX's own way.
    """

    eqn: JaxprEqn
    carry: int
    row: int
    work: float
    running: int
    ways: tuple[Way, ...]
    names: tuple[tuple[str, ...] | None, ...]

    @classmethod
    def of(cls, eqn: JaxprEqn, moving: Sequence[bool], offload: float | None = None) -> Loop:
        """The loop of a ``scan``, some of whose operands carry a derivative; ``offload`` as of `memory_plan`."""
        loop = scan_of(eqn)
        body = loop.body.jaxpr
        first, rows = loop.consts, loop.consts + loop.carries
        carried = moved_results(eqn, moving)[: loop.carries]  # what moves once moves in every later step
        inner = [*moving[:first], *carried, *moving[rows:]]
        which = [is_inexact(var) and moves for var, moves in zip(body.invars, inner, strict=True)]
        step = partial(named, body, loop.body.consts)
        program, pulled = residual_program(lambda *values: step(values), *map(like, body.invars), which=which)
        held = {*program.jaxpr.invars[:first], *program.jaxpr.invars[rows:]}
        residuals = Residuals(program.jaxpr, len(body.outvars), held, ())
        peak = most_alive(pulled.jaxpr, inputs=pulled.jaxpr.invars[len(body.invars) :])
        # A loop holds the sums of its constants' cotangents, their transposes, and its carry and rows beside a step's.
        peak += 2 * sum(bytes_of(var) for var, moves in zip(body.invars[:first], which, strict=False) if moves)
        peak += 3 * sum(map(bytes_of, body.invars[first:]))
        chosen = [residuals.stacked(), *residuals.choices()]
        ways = [Way(c.kept, c.work, peak, c.reads_state) for c in chosen]
        carry = sum(map(bytes_of, body.invars[first:rows]))
        if offload is not None:
            sent = chosen[1:] or [Chosen((), 0, 0.0, reads_state=True, holds_next=False)]
            for one in sent:
                size = one.kept + (carry if one.reads_state else 0)
                ways.append(Way(0, one.work + offload * size, peak, reads_state=False, hosted=size))
            chosen += sent
        return cls(
            eqn,
            carry,
            sum(map(bytes_of, body.invars[rows:])),
            total_flops(body.eqns),
            most_alive(body),
            tuple(ways),
            (None, *(c.names for c in chosen[1:])),
        )

    # ------------------------------------------------------------------------------------------------------- the schedule

    def plans(self) -> list[tuple[Way, tuple[LoopPart, ...]]]:
        """Ways to keep the whole loop, each in fewer bytes than the one before it, with more work."""
        length = scan_of(self.eqn).length
        found: list[tuple[Way, tuple[LoopPart, ...]]] = []
        room = self._held((Steps(length, 0),)) + self.ways[0].peak
        for _ in range(BUDGETS):
            plan = self._best(length, room, 3)
            if plan is None:
                break
            way = Way(self._held(plan.parts), plan.work, self._peak(plan.parts), hosted=self._hosted(plan.parts))
            if not found or way.peak < found[-1][0].peak:
                found.append((way, plan.parts))
            room = int(min(room, way.peak) * 0.7)
        return found

    @cached_property
    def _known(self) -> dict[tuple[int, int, int], Planned | None]:
        """What `_best` has found."""
        return {}

    def _best(self, length: int, room: int, depth: int) -> Planned | None:
        """The least work to reverse so many steps in so many bytes; ``None`` where it takes more."""
        grain = max(self.carry * scan_of(self.eqn).length // 256, self.carry // 4, 1)
        room = room // grain * grain  # few different numbers, each a little less than there is
        if room < self.ways[0].peak:
            return None
        key, known = (length, room, depth), self._known
        if key not in known:
            options = [self._steps(length, room, number) for number in range(len(self.ways))]
            if depth and length > 1:
                options += [self._rounds(length, room, depth, *cut) for cut in _cuts(length)]
            known[key] = min((option for option in options if option is not None), key=lambda o: o.price, default=None)
        return known[key]

    def _steps(self, length: int, room: int, number: int) -> Planned | None:
        work, parts = length * self.ways[number].work, (Steps(length, number),)
        fits = self._peak(parts) <= room
        return Planned(work + self._copy, work, parts) if fits else None

    def _rounds(self, length: int, room: int, depth: int, count: int, each: int) -> Planned | None:
        rest = length - count * each
        copied = 2 * (length * self.row if rest else each * self.row)  # and as much of their cotangents
        starts = count * self.carry + copied
        inner = self._best(each, room - starts + self.carry, depth - 1)  # a round's own start is its state before
        if inner is None:
            return None
        after = self._best(rest, room - starts, depth - 1) if rest else Planned(0.0, 0.0, ())
        if after is None:
            return None
        again = count * (each * self.work + inner.work)
        price = count * each * self.work + count * inner.work + inner.price - inner.work + self._copy + after.price
        return Planned(price, again + after.work, (Rounds(count, inner.parts), *after.parts))

    @cached_property
    def _copy(self) -> float:
        return COPY * self.work * scan_of(self.eqn).length

    def _held(self, parts: Sequence[LoopPart]) -> int:
        """Bytes that are kept when all has run for its result."""
        sizes = (part.times * (self.carry if isinstance(part, Rounds) else self._kept(part.way)) for part in parts)
        return sum(sizes) + self._copied(parts)

    def _kept(self, number: int) -> int:
        way = self.ways[number]
        return way.kept + (self.carry if way.reads_state else 0)

    def _hosted(self, parts: Sequence[LoopPart]) -> int:
        """Bytes that lie in the host's memory: of a round, while it runs again."""
        return sum(
            part.times * self.ways[part.way].hosted if isinstance(part, Steps) else self._hosted(part.inner)
            for part in parts
        )

    def _copied(self, parts: Sequence[LoopPart]) -> int:
        """Bytes of the rows that a part reads, and of their cotangents, where they are not all of the loop's."""
        return 2 * sum(map(steps_in, parts)) * self.row if len(parts) > 1 else 0

    def _peak(self, parts: Sequence[LoopPart]) -> int:
        """The most bytes that the derivative takes, what was kept included."""
        held, most = self._copied(parts), 0
        for part in parts:
            held += self._held((part,))
            if isinstance(part, Steps):
                own = self.ways[part.way].peak
            else:
                own = self._peak(part.inner) - self.carry + 2 * steps_in(part) // part.times * self.row
            most = max(most, held + own)
        return most

    # ---------------------------------------------------------------------------------------------------------- the function

    def function(self, parts: Sequence[LoopPart]) -> Callable[..., list[Any]]:
        """From the operands of the equation to its results, so that reverse mode runs by this schedule."""
        loop = scan_of(self.eqn)

        def call(*values: Any) -> list[Any]:
            consts, carry = values[: loop.consts], list(values[loop.consts : loop.consts + loop.carries])
            carry, stacked = self._run(parts, consts, carry, list(values[loop.consts + loop.carries :]))
            return [*carry, *stacked]

        return call

    def _run(
        self, parts: Sequence[LoopPart], consts: Sequence[Any], carry: list[Any], rows: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """One part after another; a loop that runs backwards takes its rows from the end."""
        loop = scan_of(self.eqn)
        done, total, stacked = 0, sum(map(steps_in, parts)), list[list[Any]]()
        for part in parts:
            size = steps_in(part)
            start = total - done - size if loop.reverse else done
            some = rows if size == total else [row[start : start + size] for row in rows]
            carry, made = self._part(part, consts, carry, some)
            stacked.append(made)
            done += size
        if loop.reverse:
            stacked.reverse()
        if len(stacked) == 1:
            return carry, stacked[0]
        return carry, [jnp.concatenate(made) for made in zip(*stacked, strict=True)]

    def _part(
        self, part: LoopPart, consts: Sequence[Any], carry: list[Any], rows: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        loop = scan_of(self.eqn)
        if isinstance(part, Steps):
            step = self._step(consts, part.way)
            return jax.lax.scan(step, carry, rows, length=part.times, reverse=loop.reverse)

        def run(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
            return self._run(part.inner, consts, carry, rows)

        each = steps_in(part) // part.times
        rounds = [row.reshape(part.times, each, *row.shape[1:]) for row in rows]
        again = jax.checkpoint(run, prevent_cse=False)  # nothing is shared between a loop and its derivative's
        carry, made = jax.lax.scan(again, carry, rounds, length=part.times, reverse=loop.reverse)
        return carry, [each.reshape(-1, *each.shape[2:]) for each in made]

    def _step(self, consts: Sequence[Any], way: int) -> Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]:
        loop, names, sent = scan_of(self.eqn), self.names[way], self.ways[way].hosted > 0

        def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
            before = [known_as(CARRY, value) for value in carry] if sent else carry
            made = named(loop.body.jaxpr, loop.body.consts, [*consts, *before, *row])
            return made[: loop.carries], made[loop.carries :]

        if names is None:
            return step
        policies = jax.checkpoint_policies
        policy = (
            policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[*names, CARRY],
                offload_src="device",
                offload_dst=HOST,
            )
            if sent
            else policies.save_only_these_names(*names)
        )
        return jax.checkpoint(step, policy=policy, prevent_cse=False)


def steps_in(part: LoopPart) -> int:
    """How many steps a part of a loop has."""
    return part.times * (1 if isinstance(part, Steps) else sum(map(steps_in, part.inner)))


def _cuts(length: int) -> list[tuple[int, int]]:
    """So many rounds of so many steps; with a rest, or without one."""
    cuts = {
        (count, each)
        for count in ROUNDS
        for each in {length // count, -(-length // (count + 1)), length // (count + 2)}
        if each and count * each <= length and (count > 1 or each < length)
    }
    return sorted(cuts)
