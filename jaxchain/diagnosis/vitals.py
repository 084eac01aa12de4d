"""What a diagnosis goes by: of every state and stage of a chain a few numbers that say whether signals get through.

Norms of states and cotangents, entries that are not finite, dead and saturated units, whether rows of a state (samples
or positions) still differ, and how many of some random tangents are still told apart. Builds on `walk` and `slopes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxchain.coordinates import Coordinates, is_inexact
from jaxchain.diagnosis.kinds import Placed
from jaxchain.diagnosis.slopes import Activation, activations
from jaxchain.diagnosis.tapped import Tapped, discovered_alone
from jaxchain.diagnosis.walk import Walk, carried
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.interpret import numbers_of
from jaxchain.show.extremes import Floats
from jaxchain.stage import Stage, State
from jaxchain.swept import state_norm

__all__ = ["Entered", "StageVitals", "StateVitals", "Vitals", "vitals"]

TANGENTS = 8
"""How many random tangents are followed."""

DIFFERENT = 64
"""The most rows that are counted."""

PUSHED = 4e10
"""Floating-point operations that following them may take."""


@dataclass(frozen=True)
class StateVitals:
    """One state, and the cotangent there.

    Attributes
    ----------
    name
        The state's.
    size, width
        Entries, and entries of a row (its last axis).
    norm
        ‖x‖.
    broken
        How many entries are not finite.
    masked
        Whether all of these are infinite, none NaN, as where -∞ hides what softmax shall not choose.
    distinct
        ‖X − its mean row‖ over ‖X‖, of a state of two rows or more: 0 where all rows are one. ``None`` of a single row,
        and of a state that is zero.
    cotangent
        ‖x̄‖; ``None`` where none arrives.
    broken_back
        How many entries of x̄ are not finite.
    told_apart
        Of the tangents that were pushed here, how many directions are left in a row, on average: the exponential of the
        entropy of their singular values (Roy and Vetterli, EUSIPCO 2007). ``None`` where they were not followed.
    """

    name: str
    size: int
    width: int
    norm: float
    broken: int
    masked: bool
    distinct: float | None
    cotangent: float | None
    broken_back: int
    told_apart: float | None


@dataclass(frozen=True)
class Entered:
    """An activation of a stage, and what entered it: its root mean square, and how many of its first rows differ."""

    activation: Activation
    rms: float
    rows: int
    dead: float
    saturated: float


@dataclass(frozen=True)
class StageVitals:
    """One stage: its activations, its parameters' norm, how many numbers they are, and what is wrong.

    ``matrix`` is whether one of them has two axes or more, as weights have and scales or masks have not.
    """

    name: str
    entered: tuple[Entered, ...]
    parameters: int
    matrix: bool
    broken: int
    weight: float


@dataclass(frozen=True)
class Vitals:
    """Of q + 1 states and q stages."""

    states: tuple[StateVitals, ...]
    stages: tuple[StageVitals, ...]
    notes: tuple[str, ...]

    @property
    def last_matrix(self) -> int:
        """The number of the last state that weights have made; that of the last state where there are none."""
        return max((k + 1 for k, stage in enumerate(self.stages) if stage.matrix), default=len(self.stages))

    def factor(self, k: int) -> float | None:
        """By what stage k (from 0) multiplies the norm of the cotangent that it is given; ``None`` where unknown."""
        before, after = self.states[k].cotangent, self.states[k + 1].cotangent
        if before is None or not after or not math.isfinite(before) or not math.isfinite(after):
            return None
        return before / after


def vitals(walked: Walk) -> Vitals:
    """Measure a walk."""
    notes = list(walked.notes)
    followed = _followed(walked, notes)
    states = [
        _state(name, state, cotangent, left)
        for name, state, cotangent, left in zip(walked.names, walked.states, walked.cotangents, followed, strict=True)
    ]
    stages = map(_stage, walked.stages)
    loops = [at.stage.name for at in walked.stages if _is_loop(at.stage)]
    if loops:
        notes.append(
            f"{', '.join(loops)}: a loop, looked at from outside alone; what happens from step to step is not seen."
        )
    return Vitals(tuple(states), tuple(stages), tuple(notes))


def _is_loop(stage: Stage) -> bool:
    """Whether a stage is a loop over time or the like, as far as its program is known."""
    parts = stage.parts if isinstance(stage, DiscoveredStage) else ()
    return any(equation.name in ("scan", "while") for part in parts for equation in part.equations)


def _state(name: str, state: State, cotangent: State | None, told_apart: float | None) -> StateVitals:
    numbers = _numbers(state)
    rows = _rows(numbers)
    return StateVitals(
        name=name,
        size=Coordinates.of(state).size,
        width=0 if rows is None else rows.shape[1],
        norm=state_norm(state),
        broken=_broken(numbers),
        masked=not any(np.isnan(leaf).any() for leaf in numbers),
        distinct=_distinct(rows),
        cotangent=None if cotangent is None else state_norm(cotangent),
        broken_back=0 if cotangent is None else _broken(_numbers(cotangent)),
        told_apart=told_apart,
    )


def _numbers(tree: Any) -> list[np.ndarray]:
    """The leaves that carry a derivative, in NumPy's widest floats."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return [np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64) for leaf in leaves]


def _broken(numbers: Sequence[np.ndarray]) -> int:
    return sum(int((~np.isfinite(leaf)).sum()) for leaf in numbers)


def _rows(numbers: Sequence[np.ndarray]) -> Floats | None:
    """A state of one array as rows along its last axis."""
    if len(numbers) != 1 or not numbers[0].ndim or not numbers[0].size:
        return None
    return numbers[0].reshape(-1, numbers[0].shape[-1])


def _distinct(rows: Floats | None) -> float | None:
    if rows is None or len(rows) < 2 or not np.isfinite(rows).all():
        return None
    scale = np.abs(rows).max()
    if not scale:
        return None
    scaled = rows / scale
    return float(np.linalg.norm(scaled - scaled.mean(0)) / np.linalg.norm(scaled))


def _stage(at: Placed) -> StageVitals:
    weights = carried(at.stage, at.side)
    return StageVitals(
        name=at.stage.name,
        entered=tuple(_entered(at)),
        parameters=sum(leaf.size for leaf in weights),
        matrix=any(leaf.ndim > 1 for leaf in weights),
        broken=_broken(_numbers(weights)),
        weight=state_norm(weights) if weights else 0.0,
    )


def _entered(at: Placed) -> list[Entered]:
    """The activations of a stage, at what enters them."""
    try:
        alone = discovered_alone(at.stage, at.side, at.state)
        found = [] if alone is None else activations(alone[0])
        if alone is None or not found:
            return []
        stage, arguments = alone
        tapped = Tapped(stage, tuple(dict.fromkeys(one.segment.inputs[0] for one in found)))
        values = numbers_of(lambda side, state: tapped(*arguments(*side, state))[1], at.side, at.state)
        known = dict(zip(tapped.variables, values, strict=True))
        return [_given(one, known[one.segment.inputs[0]]) for one in found]
    except REFUSALS as error:  # a rule without forward mode, asked for its slopes
        refusal(error)
        return []


def _given(activation: Activation, value: Any) -> Entered:
    dead, saturated = (float(share) for share in numbers_of(activation.shares, value))
    wide = np.asarray(value, np.float64)
    each = wide.reshape(-1, wide.shape[-1]) if wide.ndim and wide.size else np.zeros((1, 1))
    rows = len(np.unique(each[:DIFFERENT], axis=0))
    return Entered(activation, float(np.sqrt(np.mean(wide**2))), rows, dead, saturated)


def _followed(walked: Walk, notes: list[str]) -> list[float | None]:
    """How many of some random tangents are told apart at each state."""
    space = Coordinates.of(walked.states[0])
    count = min(TANGENTS, space.size)
    left: list[float | None] = [None] * len(walked.states)
    if count < 2 or 2 * count * sum(at.kind.work for at in walked.stages) > PUSHED:
        return left
    tangents = np.linalg.qr(np.random.default_rng(5).normal(size=(space.size, count)))[0]
    left[0] = _directions(tangents, walked.states[0])
    for k, at in enumerate(walked.stages, 1):
        try:
            tangents = at.images(tangents.astype(Coordinates.of(at.state).dtype)).astype(np.float64)
        except REFUSALS as error:
            notes.append(f"No tangent passes {at.stage.name}: {refusal(error)}.")
            break
        scale = np.abs(tangents).max(initial=0.0)
        if not scale or not np.isfinite(scale):
            break
        tangents /= scale  # a chain may shrink them below what a float holds
        left[k] = _directions(tangents, at.out)
    return left


def _directions(tangents: Floats, state: State) -> float | None:
    """The effective rank of some tangents within a row, averaged over the rows that any of them moves."""
    rows = _rows(_numbers(state))
    if rows is None or np.iscomplexobj(rows):
        return None
    each = tangents.reshape(*rows.shape, -1)
    sigma = np.linalg.svd(each[np.linspace(0, len(each) - 1, min(len(each), 64)).astype(int)], compute_uv=False)
    sigma = sigma[sigma[:, 0] > 0]
    if not len(sigma):
        return None
    share = sigma / sigma.sum(1, keepdims=True)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)), 1)
    return float(np.exp(entropy).mean())
