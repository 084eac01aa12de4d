"""Values from inside of a stage, handed out by the one call that makes them: what an activation is given, what aux needs.

A stage's segment is run with some of its variables as further results, so nothing is computed twice. Builds on a
discovered stage's segment; a stage of another kind is discovered first, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxchain.coordinates import is_inexact
from jaxchain.discovery.find import find
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.primitives import Var
from jaxchain.program.segment import Segment, run
from jaxchain.stage import Side, Stage, State

__all__ = ["Tapped", "discovered_alone"]


@dataclass(frozen=True, eq=False)
class Tapped:
    """A stage that also returns the values of some of its variables: ``tapped(*side, state)`` → state, values."""

    stage: DiscoveredStage
    variables: tuple[Var, ...]

    def __call__(self, *args: Any) -> tuple[State, list[Any]]:
        """The next state, and the values."""
        *side, state = args
        segment = self.stage.segment
        call = run(
            segment.program,
            segment.equations,
            (*segment.sides, *segment.inputs),
            (*segment.outputs, *self.variables),
            segment.constants,
        )
        with jax.named_scope(self.stage.name):
            values = call(*side, *jax.tree.leaves(state))
        count = len(segment.outputs)
        return self.stage.out_tree.unflatten(values[:count]), values[count:]


def discovered_alone(
    stage: Stage, side: Side, state: State
) -> tuple[DiscoveredStage, Callable[..., tuple[Any, ...]]] | None:
    """A stage as a discovered one, and what makes the arguments of that from its own; ``None`` where it cannot be read.

    Side inputs and state may be abstract.
    """
    if isinstance(stage, DiscoveredStage):
        return stage, lambda *args: args
    if not all(map(is_inexact, jax.tree.leaves(state))):  # no chain begins there
        return None
    try:
        found = find(lambda side, state: stage(*side, state), (side, state), -1, 0)
    except (*REFUSALS, TypeError) as error:
        refusal(error)
        return None
    chain = found.chain([found.segments])

    def arguments(*args: Any) -> tuple[Any, ...]:
        state, (own,) = chain.split(args[:-1], args[-1])
        return (*own, state)

    (alone,) = chain.stages
    return (replace(alone, name=stage.name), arguments) if isinstance(alone, DiscoveredStage) else None


def part_of(stage: DiscoveredStage, part: Segment) -> DiscoveredStage:
    """One of the segments that a stage is made of, as a stage."""
    return DiscoveredStage.of(stage.name, (part,), stage.in_tree, stage.out_tree, stage.active)


def parts_inside(stage: DiscoveredStage) -> list[Segment]:
    """The segments between cuts of a stage, those of a sum's terms in place of the sum."""
    found: list[Segment] = []
    for part in stage.parts:
        branches: Sequence[Any] = part_of(stage, part).branches if len(part.equations) > 1 else ()
        inner = [one for branch in branches for one in branch if isinstance(one, DiscoveredStage)]
        found += [segment for one in inner for segment in parts_inside(one)] if inner else [part]
    return found
