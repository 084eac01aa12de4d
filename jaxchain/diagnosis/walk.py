"""One walk along a chain, there and back, as numbers: every state, and every cotangent as far as one gets.

What a survey and a diagnosis look at. Equal stages share their programs, so nothing is compiled twice. Builds on
`kinds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Sharding

from jaxchain.chain import Chain
from jaxchain.coordinates import check_like, is_inexact, random_direction, require_inexact
from jaxchain.diagnosis.kinds import Placed, placed
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.interpret import numbers_of
from jaxchain.stage import Side, Stage, State

__all__ = ["Walk", "carried", "stages_at", "walk"]


@dataclass(frozen=True)
class Walk:
    """A chain at one point.

    Attributes
    ----------
    names
        Of the q + 1 states.
    stages
        The q stages, each at its side inputs and the state before it.
    states
        x_0 … x_q.
    cotangent
        The direction that was pulled back.
    cotangents
        x̄_0 … x̄_q; ``None`` beyond a stage that has no reverse mode.
    given
        Of each stage, the cotangents of its side inputs; ``None`` where none arrived.
    notes
        Which stage stopped it, and why.
    """

    names: tuple[str, ...]
    stages: tuple[Placed, ...]
    states: tuple[State, ...]
    cotangent: State
    cotangents: tuple[State | None, ...]
    given: tuple[Side | None, ...]
    notes: tuple[str, ...]


def walk(chain: Chain, args: tuple[Any, ...], cotangent: State | None = None) -> Walk:
    """Go along ``chain`` at ``args`` and back; ``cotangent`` as for a sweep, by default random and of length one.

    Raises
    ------
    TypeError
        If the chain input is not floating point, or the last stage returns no array.
    TangentMismatchError
        If ``cotangent`` does not look like the chain output.
    """
    stages = stages_at(chain, args)
    states = (stages[0].state, *(at.out for at in stages))
    if not jax.tree.leaves(states[-1]):
        msg = f"The last stage, {chain.names[-1]!r}, returns no array, so there is nothing to differentiate."
        raise TypeError(msg)
    cotangent = (
        random_direction(states[-1], 1)
        if cotangent is None
        else check_like(cotangent, states[-1], "cotangent", "chain output")
    )
    notes = list[str]()
    cotangents, given = _pulled(stages, cotangent, notes)
    return Walk(chain.names_with_input, tuple(stages), states, cotangent, tuple(cotangents), tuple(given), tuple(notes))


def carried(stage: Stage, aside: Any) -> list[Any]:
    """Of a stage's side inputs, or their cotangents, the leaves that carry a derivative from an argument: its parameters."""
    leaves, which = jax.tree.leaves(aside), stage.carries_back
    moved = leaves if which is None else [leaf for leaf, moves in zip(leaves, which, strict=False) if moves]
    return [leaf for leaf in moved if is_inexact(leaf)]


def stages_at(chain: Chain, args: tuple[Any, ...], sharding: Sharding | None = None) -> list[Placed]:
    """The stages of a chain at its arguments.

    Raises
    ------
    TypeError
        If the chain input is not floating point.
    """
    state, sides = numbers_of(chain.split, *args)
    return placed(chain.stages, sides, require_inexact(state, "chain input"), sharding)


def _pulled(
    stages: Sequence[Placed], cotangent: State, notes: list[str]
) -> tuple[list[State | None], list[Side | None]]:
    """Cotangents of all states, and of every stage's side inputs."""
    cotangents: list[State | None] = [cotangent]
    given: list[Side | None] = []
    for at in reversed(stages):
        side, before = None, None
        try:
            if cotangents[-1] is not None:
                *side, before = at.pull(cotangents[-1])
        except REFUSALS as error:
            notes.append(f"No cotangent passes {at.stage.name}: {refusal(error)}.")
        cotangents.append(before)
        given.append(None if side is None else tuple(side))
    return cotangents[::-1], given[::-1]
