"""A survey: one walk along a chain, there and back: what every state and stage is at one point.

Norms of states, tangents and cotangents; each stage's local Jacobian, whole where that is cheap
enough and else some of its columns. What does not exist for a stage (forward mode through a custom
VJP, reverse mode through a while loop) is left out, and a note says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates, check_like, random_direction
from jaxchain.diagnosis.kinds import Placed
from jaxchain.diagnosis.krylov import largest
from jaxchain.diagnosis.walk import Walk, carried, walk
from jaxchain.errors import REFUSALS, refusal
from jaxchain.show.extremes import Floats
from jaxchain.stage import Side, Stage, State
from jaxchain.structure import Structure
from jaxchain.swept import state_norm

__all__ = ["Link", "Survey", "survey"]

WORK = 4e10
"""Floating-point operations that local Jacobians may take together: some seconds on a small machine."""

DECOMPOSITIONS = 1e10
"""The same for their singular values, m·n·min(m, n) each."""

ENTRIES = 1 << 22
"""The most entries of one matrix that is accumulated whole."""

LARGEST, STEPS = 5, 16
"""How many singular values are told of a matrix that is not decomposed, and the Krylov steps that they take."""


@dataclass(frozen=True)
class Link:
    """One stage at one point.

    Attributes
    ----------
    stage
        The stage.
    shape
        (m, n) of its local Jacobian.
    work
        Floating-point operations of one call.
    matrix
        The local Jacobian (m, n), or (m, len(columns)), or ``None``.
    columns
        Which columns ``matrix`` holds; ``None``: all.
    structure
        What the matrix is; ``None`` where it is not known whole or too large to decompose.
    sigma
        Its singular values, largest first; ``None`` likewise, or where an entry is not finite.
    largest
        The largest few, each from below, where they are not all known (`krylov`); ``None`` where that failed.
    aside
        How many numbers it reads beside its state that an argument reaches: its parameters, or what is made of them.
    gradient
        Norm of their cotangent; ``None`` where there are none or it was not computed.
    refusal
        Why there is no matrix.
    """

    stage: Stage
    shape: tuple[int, int]
    work: float
    matrix: Floats | None = None
    columns: tuple[int, ...] | None = None
    structure: Structure | None = None
    sigma: Floats | None = None
    largest: Floats | None = None
    aside: int = 0
    gradient: float | None = None
    refusal: str = ""

    @property
    def whole(self) -> Floats | None:
        """The local Jacobian where all of it was accumulated."""
        return self.matrix if self.columns is None else None


@dataclass(frozen=True)
class Survey:
    """A chain at one point: q links between q + 1 states, their names and norms, and what was left out.

    ``walked`` is what all of it was measured on; ``tangent`` and ``cotangent`` are the directions that were followed, at
    the input and at the output; ``pulled`` is the cotangent of what `Chain.split` gives, the input and the stages' side
    inputs, ``None`` where none arrived.
    """

    walked: Walk
    links: tuple[Link, ...]
    primals: tuple[float, ...]
    tangents: tuple[float | None, ...]
    cotangents: tuple[float | None, ...]
    tangent: State
    pulled: tuple[State, tuple[Side, ...]] | None
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the states."""
        return self.walked.names

    @property
    def states(self) -> tuple[State, ...]:
        """x_0 … x_q."""
        return self.walked.states

    @property
    def cotangent(self) -> State:
        """The direction that was pulled back."""
        return self.walked.cotangent


def survey(chain: Chain, args: tuple[Any, ...], tangent: State | None = None, cotangent: State | None = None) -> Survey:
    """Go along ``chain`` at ``args``; arguments as for the sweeps, directions of length one by default."""
    walked, notes = walk(chain, args, cotangent), list[str]()
    stages, states, cotangents, given = walked.stages, walked.states, walked.cotangents, walked.given
    tangent = (
        random_direction(states[0], 0) if tangent is None else check_like(tangent, states[0], "tangent", "chain input")
    )
    tangents = _pushed(stages, tangent, notes)
    notes += walked.notes
    spaces = [Coordinates.of(state) for state in states]
    counts = _affordable([at.kind.work for at in stages], spaces)
    links = [
        replace(
            _link(at, pair, count, DECOMPOSITIONS / len(chain)),
            **_gradient(at.stage, side),
        )
        for at, pair, count, side in zip(stages, pairwise(spaces), counts, given, strict=True)
    ]
    return Survey(
        walked,
        tuple(links),
        tuple(map(state_norm, states)),
        tuple(map(_length, tangents)),
        tuple(map(_length, cotangents)),
        tangent,
        None if cotangents[0] is None else (cotangents[0], tuple(side or () for side in given)),
        tuple(dict.fromkeys(notes)),
    )


def _gradient(stage: Stage, side: Side | None) -> dict[str, Any]:
    """Of the side inputs that carry a derivative from an argument, how many numbers they are, and their cotangent's norm."""
    moved = carried(stage, side)
    return {"aside": sum(leaf.size for leaf in moved), "gradient": state_norm(moved) if moved else None}


def _length(state: State | None) -> float | None:
    return None if state is None else state_norm(state)


def _pushed(stages: Sequence[Placed], tangent: State, notes: list[str]) -> list[State | None]:
    """Tangents of all states."""
    tangents: list[State | None] = [tangent]
    for at in stages:
        try:
            tangents.append(None if tangents[-1] is None else at.push(tangents[-1]))
        except REFUSALS as error:
            notes.append(f"No tangent passes {at.stage.name}: {refusal(error)}.")
            tangents.append(None)
    return tangents


def _affordable(work: Sequence[float], spaces: Sequence[Coordinates]) -> list[int | None]:
    """How many columns of each local Jacobian to compute; ``None``: all of it."""
    sizes = [(there.size, here.size) for here, there in pairwise(spaces)]
    share = WORK / max(sum(2 * cost * min(size) for cost, size in zip(work, sizes, strict=True)), WORK)
    counts: list[int | None] = []
    for m, n in sizes:
        most = min(int(share * n), ENTRIES // max(m, 1))
        counts.append(None if most >= n else max(most, min(n, 8)))
    return counts


def _link(at: Placed, spaces: tuple[Coordinates, Coordinates], count: int | None, most: float) -> Link:
    here, there = spaces
    link = Link(at.stage, (there.size, here.size), at.kind.work)
    try:
        if count is not None:
            columns = tuple(np.unique(np.linspace(0, here.size - 1, count).astype(int)).tolist())
            some = at.columns(columns).astype(np.float64)
            return replace(link, matrix=some, columns=columns, largest=_largest(at, link.shape))
        matrix = np.zeros(link.shape) if 0 in link.shape else at.matrix()
    except REFUSALS as error:
        return replace(link, refusal=f"{refusal(error)}.")
    wide = matrix.astype(np.float64)
    if wide.size * min(wide.shape) > most:
        return replace(link, matrix=wide, largest=_largest(at, link.shape))
    sigma = np.linalg.svd(wide, compute_uv=False) if wide.size and np.isfinite(wide).all() else None
    return replace(link, matrix=wide, structure=Structure.of(matrix, here.shape, there.shape), sigma=sigma)


def _largest(at: Placed, shape: tuple[int, int]) -> Floats | None:
    """The largest singular values, from below; ``None`` where they are not finite, or the stage lacks one of the modes."""
    try:
        found, _ = at.krylov(min(STEPS, *shape), estimate=False)
    except REFUSALS as error:
        refusal(error)
        return None
    return largest(found, LARGEST).sigma if np.isfinite(found.upper).all() else None
