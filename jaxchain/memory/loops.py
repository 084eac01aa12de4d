"""A loop over equal steps, run by a schedule of loops within loops.

Builds on `rounds`, which makes the schedule, and `inside`, which says what one step can keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.cost.count import total_flops
from jaxchain.cost.liveness import bytes_of, most_alive
from jaxchain.derivative import residual_program
from jaxchain.memory.apart import COPIES, apart, in_turn
from jaxchain.memory.inside import Chosen, Residuals, known_as, named
from jaxchain.memory.rounds import EqualSteps, LoopPart, Rounds, Steps, steps_in
from jaxchain.memory.schedule import Way
from jaxchain.program.flow import moved_results
from jaxchain.program.primitives import Atom, JaxprEqn, is_inexact, like, scan_of

__all__ = ["Loop"]

BUDGETS, NEXT = 24, 0.85
"""For how many numbers of bytes a loop is planned, each that share of what the one before takes."""

CARRY = "carry"
"""The name by which a step's carry is sent to the host; values on the way are named by their numbers."""

HOST = "pinned_host"
"""What JAX calls the host's memory."""


@dataclass(frozen=True, eq=False)
class Loop:
    """A ``scan`` as equal steps.

    Attributes
    ----------
    eqn
        The equation.
    steps
        What its steps take.
    names
        Of each way to keep a step, the values kept; ``None``: JAX's own way.
    """

    eqn: JaxprEqn
    steps: EqualSteps
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
        sums = sum(bytes_of(var) for var, moves in zip(body.invars[:first], which, strict=False) if moves)
        peak += 2 * sums
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
        row = sum(map(bytes_of, body.invars[rows:]))
        copied = sum(map(bytes_of, body.invars[:first])) if COPIES else None
        steps = EqualSteps(loop.length, carry, row, sums, copied, total_flops(body.eqns), tuple(ways))
        return cls(eqn, steps, (None, *(c.names for c in chosen[1:])))

    @property
    def stacks(self) -> set[Atom]:
        """What its steps read, or give back, a row each."""
        loop = scan_of(self.eqn)
        return {*self.eqn.invars[loop.consts + loop.carries :], *self.eqn.outvars[loop.carries :]}

    def plans(self) -> list[tuple[Way, tuple[LoopPart, ...]]]:
        """Ways to keep the whole loop, each in fewer bytes than the one before it, with more work."""
        steps, found, room = self.steps, list[tuple[Way, tuple[LoopPart, ...]]](), self.steps.most
        for _ in range(BUDGETS):
            parts = steps.best(room)
            if parts is None:
                break
            way = Way(steps.held(parts), steps.extra(parts), steps.most_at_once(parts), hosted=steps.hosted(parts))
            if not found or way.peak < found[-1][0].peak:
                found.append((way, parts))
            room = int(min(room, way.peak) * NEXT)
        return found

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
            if isinstance(part, Rounds) and part.times == 1:
                carry, consts = in_turn(carry, consts)
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

        if part.times == 1:
            return apart(run)(carry, rows)
        each = steps_in(part) // part.times
        rounds = [row.reshape(part.times, each, *row.shape[1:]) for row in rows]
        again = jax.checkpoint(run, prevent_cse=False)  # nothing is shared between a loop and its derivative's
        carry, made = jax.lax.scan(again, carry, rounds, length=part.times, reverse=loop.reverse)
        return carry, [each.reshape(-1, *each.shape[2:]) for each in made]

    def _step(self, consts: Sequence[Any], way: int) -> Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]:
        loop, names, sent = scan_of(self.eqn), self.names[way], self.steps.ways[way].hosted > 0

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
