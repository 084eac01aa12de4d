"""A run of training under way: where it is, what its chunks left behind, and where it is to begin.

Builds on `batches`, `steps`, `identity`, `state` and the keeper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxchain.batches import Chunk, Source
from jaxchain.diagnosis import GradientFlow
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.fitted import History, Params
from jaxchain.resume.identity import identity
from jaxchain.resume.keeping import Keeper
from jaxchain.resume.state import room_for
from jaxchain.steps import Loss, Observe, joined

__all__ = ["Point", "Record", "Way", "begin", "history"]


@dataclass(frozen=True)
class Point:
    """A place in training to go on from, or to come back to."""

    step: int
    params: Params
    opt_state: optax.OptState
    before: GradientFlow | None
    """The last gradient flow that was observed, where one is followed."""


@dataclass(frozen=True)
class Record:
    """What one chunk of steps left behind, on the host: a loss a step, an observation an observed step."""

    start: int
    losses: np.ndarray
    observed: Any


class Kept(NamedTuple):
    """The arrays of a checkpoint, by the names that are said where one is another than it should be."""

    params: Params
    opt_state: optax.OptState
    flow: GradientFlow | None
    losses: np.ndarray
    observed: Any


@dataclass(frozen=True)
class Way:
    """How far training has come, what it left behind, and the data of its last chunk, where this call ran one."""

    here: Point
    records: tuple[Record, ...]
    chunk: Chunk | None = None

    def kept(self) -> Kept:
        """What a checkpoint holds of it."""
        here, losses = self.here, np.concatenate([record.losses for record in self.records])
        return Kept(here.params, here.opt_state, here.before, losses, _observed(self.records))


def _observed(records: tuple[Record, ...]) -> Any:
    """What was observed in all of them; ``None`` where nothing was."""
    return joined([record.observed for record in records if record.observed is not None], np.concatenate)


def history(records: tuple[Record, ...], every: int, diverged_at: int | None) -> History:
    """The losses, and what was observed, up to the step that diverged."""
    loss = np.concatenate([record.losses for record in records])[: None if diverged_at is None else diverged_at + 1]
    steps = np.arange(0, len(loss), every)
    return History(loss, jax.tree.map(lambda leaf: leaf[: len(steps)], _observed(records)), steps)


def begin(
    keeper: Keeper,
    start: Point,
    batches: Source,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    observe: Observe | None,
    every: int,
) -> Way:
    """Where a run is to begin: at its start, or where a checkpoint of the same run is."""
    if keeper.folder is None:
        return Way(start, ())
    here = start.params, start.opt_state, start.before
    told, seen = identity(loss, optimizer, observe, every, here, batches.first, batches.told, batches.order)
    step = keeper.saved
    record = Record(0, np.zeros(step), room_for(seen, len(range(0, step, every))))
    like = Way(start, (record,)).kept()
    kept = keeper.resumed(told, like)
    if kept is None:
        return Way(start, ())
    if isinstance(observe, FlowObserver):
        observe.resumed(step)
    return Way(Point(step, kept.params, kept.opt_state, kept.flow), (Record(0, kept.losses, kept.observed),))
