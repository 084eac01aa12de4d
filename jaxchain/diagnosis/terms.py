"""A stage that is a sum, y = Σ_t g_t(x), at one point: J = Σ_t J_t, each term a chain of its own; one may be x itself.

Builds on a discovered stage's branches and on what the survey knows of the stage's own Jacobian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise

import jax
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Linear
from jaxchain.diagnosis.survey import Link
from jaxchain.discovery.name import names
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.interpret import numbers_of
from jaxchain.show.extremes import Floats
from jaxchain.stage import Side, Stage, State

__all__ = ["Part", "Term", "terms"]

ENTRIES = 1 << 20
"""The most entries of the local Jacobians of a term's own stages together."""

IDENTITY = "x"
"""What the term is called that is the state itself."""


@dataclass(frozen=True)
class Part:
    """One stage of a term's own chain: its name, the shape (m, n) of its local Jacobian, and that where it is known."""

    name: str
    shape: tuple[int, int]
    matrix: Floats | None


@dataclass(frozen=True)
class Term:
    """One summand.

    Attributes
    ----------
    name
        ``x`` where it is the state itself; else of what does most of its work.
    matrix
        Its Jacobian, with the columns that the survey holds of the stage's; ``None`` where it is not known.
    parts
        The stages of its own chain; none where it is the state itself.
    """

    name: str
    matrix: Floats | None
    parts: tuple[Part, ...]

    @property
    def is_identity(self) -> bool:
        """Whether it is the state itself."""
        return not self.parts


def terms(stage: DiscoveredStage, side: Side, state: State, link: Link) -> tuple[Term, ...]:
    """The summands of a stage at its side inputs and state; none where it is no sum. ``link`` is its own, surveyed."""
    branches = stage.branches
    parts = [() if _is_state(branch, stage) else _parts(branch, side, state) for branch in branches]
    matrices = [_product(own, link.columns) if own else _identity(link) for own in parts]
    unknown = [k for k, matrix in enumerate(matrices) if matrix is None]
    if len(unknown) == 1 and link.matrix is not None:
        matrices[unknown[0]] = link.matrix - sum(matrix for matrix in matrices if matrix is not None)
    elif link.whole is not None:
        for k in unknown:
            matrices[k] = _matrix(branches[k], side, state)
    return tuple(map(Term, _named(stage, branches, parts), matrices, parts))


def _is_state(branch: Chain, stage: DiscoveredStage) -> bool:
    """Whether a branch does nothing to a state of one array."""
    return len(stage.segment.inputs) == 1 and not any(one.row.equations for one in branch)


def _parts(branch: Chain, side: Side, state: State) -> tuple[Part, ...]:
    """The stages of a branch, with their Jacobians where those are small."""
    sides = branch.split(*side, state)[1]
    like, spaces = state, [Coordinates.of(state)]
    for stage, own in zip(branch, sides, strict=True):
        like = jax.eval_shape(stage, *own, like)
        spaces.append(Coordinates.of(like))
    shapes = [(there.size, here.size) for here, there in pairwise(spaces)]
    if sum(m * n for m, n in shapes) > ENTRIES:
        return tuple(Part(name, shape, None) for name, shape in zip(branch.names, shapes, strict=True))
    parts: list[Part] = []
    for stage, own, shape in zip(branch, sides, shapes, strict=True):
        parts.append(Part(stage.name, shape, _matrix(stage, own, state)))
        state = numbers_of(stage, *own, state)
    return tuple(parts)


def _matrix(stage: Stage | Chain, side: Side, state: State) -> Floats | None:
    """The whole Jacobian; ``None`` where no mode exists."""
    carries = stage.carries if isinstance(stage, Stage) else stage.stages[0].carries
    try:
        return np.asarray(numbers_of(Linear(partial(stage, *side), state, carries).matrix), np.float64)
    except REFUSALS as error:
        refusal(error)
        return None


def _product(parts: Sequence[Part], columns: Sequence[int] | None) -> Floats | None:
    """The Jacobian of a whole branch, or some of its columns, where those of all its stages are known."""
    matrices = [part.matrix for part in parts if part.matrix is not None]
    if len(matrices) < len(parts):
        return None
    first, *others = matrices
    return reduce(lambda product, matrix: matrix @ product, others, first if columns is None else first[:, columns])


def _identity(link: Link) -> Floats:
    """I, or those of its columns that the survey holds."""
    n = link.shape[1]
    columns = range(n) if link.columns is None else link.columns
    matrix = np.zeros((n, len(columns)))
    matrix[columns, range(len(columns))] = 1
    return matrix


def _named(stage: Stage, branches: Sequence[Chain], parts: Sequence[Sequence[Part]]) -> Iterator[str]:
    """What each branch is called, without module and line: as the stage if it is the only one, else as a stage beside others."""
    opened = [branch for branch, own in zip(branches, parts, strict=True) if own]
    groups = [[one.segment for one in branch if isinstance(one, DiscoveredStage)] for branch in opened]
    words = iter([stage.name] if len(groups) == 1 else names(groups))
    for own in parts:
        yield next(words).partition("@")[0].rpartition("/")[2] if own else IDENTITY
