"""Jacobians along a chain as matrices, where they are small: each from the one before it, a stage at a time.

A stage whose own matrix is small multiplies by it, in double precision; through any other the columns are pushed, or
the rows pulled, a few at once. Builds on `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.diagnosis.kinds import CHUNK, Placed
from jaxchain.errors import REFUSALS, refusal
from jaxchain.show.extremes import Floats

__all__ = ["ENTRIES", "Matrices", "singular_values", "sizes_along"]

ENTRIES = 1 << 20
"""The most entries of a matrix that is decomposed, unless one of its sides is short: a second or so."""

THIN = 1 << 26
"""The most of one that has a short side."""


def sizes_along(stages: Sequence[Placed]) -> list[int]:
    """How many coordinates each of the q + 1 states has."""
    return [Coordinates.of(state).size for state in (stages[0].state, *(at.out for at in stages))]


def singular_values(matrix: Floats) -> Floats:
    """Of a finite matrix, largest first; of a diagonal one, as elementwise stages have, exactly and without work."""
    diagonal = np.diagonal(matrix)
    if np.count_nonzero(matrix) == np.count_nonzero(diagonal):
        return np.sort(np.abs(diagonal))[::-1].astype(np.float64)
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64)


class Matrices:
    """The Jacobians ∂x_last/∂x_first of a chain at one point that are small enough.

    ``short``: how short a side is where products with a basis of it are no more than Krylov's methods take.
    """

    def __init__(self, stages: Sequence[Placed], short: int) -> None:
        self.stages, self.sizes, self.short = stages, sizes_along(stages), short
        self.own: dict[int, np.ndarray | None] = {}
        self.held: dict[tuple[int, int], Floats] = {}

    def fits(self, first: int, last: int) -> bool:
        """Whether ∂x_last/∂x_first is made as a matrix."""
        m, n = self.sizes[last], self.sizes[first]
        return m * n <= ENTRIES or (min(m, n) <= self.short and m * n <= THIN)

    def local(self, k: int) -> np.ndarray | None:
        """The Jacobian of stage ``k``, in its own precision, since all are kept.

        ``None`` where it is large, or differentiated in no mode.
        """
        if k not in self.own:
            try:
                self.own[k] = self._made(k) if self.fits(k, k + 1) else None
            except REFUSALS as error:
                refusal(error)
                self.own[k] = None
        return self.own[k]

    def _made(self, k: int) -> np.ndarray:
        if not (self.sizes[k] and self.sizes[k + 1]):
            return np.zeros((self.sizes[k + 1], self.sizes[k]))
        matrix = self.stages[k].matrix()
        return matrix.astype(np.float32) if matrix.dtype.itemsize < 4 else matrix

    def between(self, first: int, last: int) -> Floats:
        """∂x_last/∂x_first, from the one that is a stage shorter at either end, where that was the last one asked for.

        Raises
        ------
        Exception
            Of the stage that refuses forward and reverse mode, as it said.
        """
        if last == first + 1 and (own := self.local(first)) is not None:
            matrix = own.astype(np.float64)
        elif (before := self.held.get((first, last - 1))) is not None:
            matrix = self._pushed(before, range(last - 1, last))
        elif (after := self.held.get((first + 1, last))) is not None:
            matrix = self._pulled(after, range(first, first + 1))
        else:
            matrix = self._from_identity(range(first, last), self.sizes[first], self.sizes[last])
        self.held = {(first, last): matrix}
        return matrix

    def _from_identity(self, run: range, n: int, m: int) -> Floats:
        ways = [lambda: self._pushed(np.eye(n), run), lambda: self._pulled(np.eye(m), run)]
        one, other = ways if n <= m else reversed(ways)
        try:
            return one()
        except REFUSALS as error:
            refusal(error)
            return other()

    def _pushed(self, matrix: Floats, run: range) -> Floats:
        """Its columns, through some stages."""

        def through(k: int, columns: Floats) -> Floats:
            own = self.local(k)
            if own is not None:
                return own @ columns
            dtype = Coordinates.of(self.stages[k].state).dtype
            return self.stages[k].images(columns.astype(dtype)).astype(np.float64)

        return _in_chunks(matrix, run, through)

    def _pulled(self, matrix: Floats, run: range) -> Floats:
        """Its rows, back through some stages."""

        def back(k: int, columns: Floats) -> Floats:
            own = self.local(k)
            if own is not None:
                return own.T @ columns
            dtype = Coordinates.of(self.stages[k].out).dtype
            return self.stages[k].rows(jnp.asarray(columns.T, dtype)).T.astype(np.float64)

        return _in_chunks(matrix.T, run[::-1], back).T


def _in_chunks(matrix: Floats, run: range, through: Callable[[int, Floats], Floats]) -> Floats:
    made = list[Floats]()
    for start in range(0, max(matrix.shape[1], 1), CHUNK):
        columns = matrix[:, start : start + CHUNK]
        for k in run:
            columns = through(k, columns)
        made.append(columns)
    return np.concatenate(made, 1)
