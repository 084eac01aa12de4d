"""The log-determinant of a Jacobian, stage by stage: det(J_q ⋯ J_1) is the product of the stages' determinants.

So nothing is multiplied. An elementwise stage has the product of its slopes, a product with weights the weights'
determinant, positions that do not mix one each; and of what is triangular, in whatever order of its numbers,
the diagonal is read, some tangents for all of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.execute import Linearised, linearise, perform
from jaxchain.jacobians.matrix import Blocks, Diagonal, Identity, Matrix
from jaxchain.jacobians.parts import of_plan, refuse_huge_steps
from jaxchain.jacobians.planner import Plan
from jaxchain.jacobians.sparse import available, colouring_of, may_have_pattern
from jaxchain.jacobians.unit import joined

__all__ = ["logdet"]


def logdet(fun: Callable[..., Any], argnums: int | None = None) -> Callable[..., jax.Array]:
    """The logarithm of |det J| of a square Jacobian, as a function: what a change of variables adds to a log-density.

    Parameters
    ----------
    fun
        A chain or any JAX function with as many outputs as inputs.
    argnums
        Which argument to differentiate with respect to; default: of a chain its input, else the first.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns a scalar of its floating-point dtype, minus infinity where J is
        singular. Works under ``jit``, ``vmap`` and ``grad``. An elementwise function costs one tangent; couplings
        and autoregressive functions of 32 numbers or more, with the extra ``sparse``, as many tangents as
        their pattern has colours.

    Raises
    ------
    ValueError
        From the call, if the Jacobian is not square.
    TypeError
        From the call, if an input or output is not real floating point.

    References
    ----------
    Papamakarios et al., Normalizing flows for probabilistic modeling and inference, JMLR 22, 2021.

    Examples
    --------
    >>> print(jc.logdet(lambda x: 2 * x + 1)(jnp.ones(3)))  # 3 log 2
    2.0794415
    """
    return of_plan(fun, argnums, _logdet, "The log-determinant of the Jacobian")


def _logdet(plan: Plan, args: tuple[Any, ...]) -> jax.Array:
    m, n = plan.sizes[-1], plan.sizes[0]
    if m != n:
        msg = f"Only a square Jacobian has a determinant; this one is {m} × {n}."
        raise ValueError(msg)
    dtype = plan.units[0].here.dtype
    if min(plan.sizes) < n:  # fewer numbers pass there
        return jnp.full((), -math.inf, dtype)
    square = [k for k, size in enumerate(plan.sizes) if size == n]
    parts = [_Part.of(plan, start, stop) for start, stop in itertools.pairwise(square)]
    for part in parts:
        if part.triangle is None:
            refuse_huge_steps(plan, part.steps)
    units = linearise(plan, [step for part in parts for step in part.steps], args)
    return sum((part.logdet(units) for part in parts), jnp.zeros((), dtype)).astype(dtype)


@dataclass(frozen=True)
class _Part:
    """Stages between two states as large as the input.

    Attributes
    ----------
    steps
        How its matrix is made; or that tangents are pushed through it.
    triangle
        Where the matrix is triangular in some order of its rows and columns: for each column its row on the diagonal,
        and its colour; the diagonal's rows of one colour's columns are read off one tangent.
    """

    start: int
    stop: int
    steps: tuple[Step, ...]
    triangle: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, plan: Plan, start: int, stop: int) -> _Part:
        """How the stages between two states are best gone about."""
        steps = plan.solution.steps(start, stop)
        triangle = None if plan.is_diagonal(start, stop) else _triangular(plan, start, stop)
        if triangle is not None:
            tangents = (triangle[1].max(initial=-1) + 1) * sum(unit.tangent for unit in plan.units[start:stop])
            if tangents < plan.solution.cost(start, stop) + plan.sizes[0] ** 3 / 3:  # of a factorisation
                return cls(start, stop, (Step("eliminate tangent", start, start, stop, tangents),), triangle)
        return cls(start, stop, steps)

    def logdet(self, units: list[Linearised]) -> jax.Array:
        """The logarithm of its |det J|."""
        if self.triangle is None:
            return _logdet_of(perform(self.steps, units)[self.start, self.stop])
        row, colour = self.triangle
        columns = jax.nn.one_hot(colour, colour.max() + 1, dtype=units[self.start].unit.here.dtype)
        for unit in units[self.start : self.stop]:
            columns = unit.after(columns)
        return _sum_of_logs(columns[row, colour])


def _triangular(plan: Plan, start: int, stop: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where some order of rows and columns makes the matrix triangular: the diagonal's rows, and columns' colours."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

    whole = joined(plan.found, lambda: "part", plan.units[start:stop])
    pushed = all(math.isfinite(unit.tangent) for unit in plan.units[start:stop])
    if not pushed or not may_have_pattern(whole.here, whole.there) or not available():
        return None
    if (pattern := colouring_of(whole.segment, whole.here, whole.there)) is None:
        return None
    rows, columns, (n, _) = pattern.entries
    # Rows in the order of a matching with the columns: of a triangle there is but one, its diagonal.
    row = maximum_bipartite_matching(csr_array((np.ones(len(rows), bool), (rows, columns)), (n, n)), perm_type="row")
    if (row < 0).any():
        return None
    rows = np.argsort(row)[rows]
    away = rows != columns
    ones = np.ones(np.count_nonzero(away), bool)
    changes = csr_array((ones, (rows[away], columns[away])), (n, n))
    if connected_components(changes, directed=True, connection="strong")[0] < n:
        return None  # some change each other in a circle
    near, colour = csr_array(changes + changes.T), np.full(n, -1)
    for k in range(n):
        taken = set(colour[near.indices[near.indptr[k] : near.indptr[k + 1]]].tolist())
        colour[k] = next(c for c in itertools.count() if c not in taken)
    return row, colour


def _logdet_of(matrix: Matrix) -> jax.Array:
    match matrix:
        case Identity():
            return jnp.zeros((), matrix.dtype)
        case Diagonal():
            return _sum_of_logs(matrix.entries)
        case Blocks():  # where the numbers lie is a permutation, whose determinant is ±1
            return _of_dense(matrix.entries).sum() * (matrix.into.count // len(matrix.entries))
        case _:
            return _of_dense(matrix.dense())


def _of_dense(matrix: jax.Array) -> jax.Array:
    half = jnp.finfo(matrix.dtype).bits < 32  # which LAPACK does not know
    return jnp.linalg.slogdet(matrix.astype(jnp.float32) if half else matrix)[1]


def _sum_of_logs(entries: jax.Array) -> jax.Array:
    return jnp.sum(jnp.log(jnp.abs(entries)))
