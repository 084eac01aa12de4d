"""The bracketing problem alone: in which order to form the product J_q ⋯ J_1. Integers, no JAX.

A chain has states of sizes n_0 … n_q and stages of |E_k| multiply-adds a tangent or cotangent. A
matrix from state i to state j comes to be in four ways, and the cheapest plan for a range is made
of cheapest plans for its parts: dynamic programming over ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxchain.checks import flag, integer, integers
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count

__all__ = ["Bracketing", "Costs", "Solution", "Step", "bracket", "solve"]

Kind = Literal["accumulate tangent", "accumulate adjoint", "multiply", "eliminate tangent", "eliminate adjoint"]
ACCUMULATIONS: tuple[Kind, Kind] = ("accumulate tangent", "accumulate adjoint")
COMBINATIONS: tuple[Kind, Kind, Kind] = ("multiply", "eliminate tangent", "eliminate adjoint")


@dataclass(frozen=True)
class Step:
    """One step of a plan: it makes the matrix from state ``start`` to state ``stop``.

    Attributes
    ----------
    kind
        ``accumulate tangent`` or ``accumulate adjoint``: one stage's own matrix, by basis vectors.
        ``multiply``: two ready matrices. ``eliminate tangent``: push the columns of the ready
        matrix (start, middle) through the stages after it; ``eliminate adjoint``: pull the rows of
        the ready matrix (middle, stop) back through the stages before it.
    start, middle, stop
        States 0 … q; ``middle`` is ``None`` for an accumulation.
    cost
        Of this step alone, in multiply-adds.

    Examples
    --------
    >>> step = jc.bracket([3, 1, 3], [3, 3]).steps[0]
    >>> print(step, step.cost)
    ∂x1/∂x0, by cotangents 3
    """

    kind: Kind
    start: int
    middle: int | None
    stop: int
    cost: float

    def __str__(self) -> str:
        def matrix(start: int | None, stop: int | None) -> str:
            return f"∂x{stop}/∂x{start}"

        left, right = matrix(self.middle, self.stop), matrix(self.start, self.middle)
        how = {
            "accumulate tangent": ", by tangents",
            "accumulate adjoint": ", by cotangents",
            "multiply": f" = {left} · {right}",
            "eliminate tangent": f": push the columns of {right} through to x{self.stop}",
            "eliminate adjoint": f": pull the rows of {left} back to x{self.start}",
        }
        return matrix(self.start, self.stop) + how[self.kind]


@dataclass(frozen=True)
class Bracketing(Tabular):
    """An optimal plan.

    Attributes
    ----------
    cost
        Of all steps, in multiply-adds.
    steps
        In an order that can be run: a matrix is made before it is used.

    Examples
    --------
    >>> plan = jc.bracket([3, 1, 3], [3, 3])
    >>> plan.cost, len(plan.steps)
    (12, 2)
    """

    cost: float
    steps: tuple[Step, ...]

    @property
    def rows(self) -> tuple[Step, ...]:
        """The steps."""
        return self.steps

    def _brief(self) -> str:
        return f"{count(len(self.steps), 'step')}, {si(self.cost, '')} multiply-adds"

    def _table(self) -> Table:
        rows = [(str(step), si(step.cost, "")) for step in self.steps]
        notes = [f"Together {si(self.cost, '')} multiply-adds."]
        return Table("Bracketing", ("step", "multiply-adds"), rows, notes)


@dataclass(frozen=True)
class Costs:
    """What each way costs; each function takes index arrays and broadcasts; infinite means forbidden.

    Attributes
    ----------
    tangent, adjoint
        (q,): accumulate one stage by tangents, by cotangents.
    multiply, push, pull
        ``f(start, middle, stop)``: the three combinations of `Step`.
    """

    tangent: np.ndarray
    adjoint: np.ndarray
    multiply: Callable[[Any, Any, Any], Any]
    push: Callable[[Any, Any, Any], Any]
    pull: Callable[[Any, Any, Any], Any]


def bracket(
    sizes: Sequence[int], edges: Sequence[int], *, memory_limit: int | None = None, matrix_free: bool = True
) -> Bracketing:
    """The cheapest order in which to form a chain's whole Jacobian.

    Parameters
    ----------
    sizes
        n_0 … n_q: numbers in each state.
    edges
        |E_1| … |E_q|: multiply-adds of one tangent or cotangent through each stage.
    memory_limit
        The most edges that may be recorded at once: an adjoint through stages with more in sum is
        forbidden. ``None``: no limit.
    matrix_free
        Whether ready matrices may be pushed or pulled through stages; otherwise every stage is
        accumulated and the matrices are multiplied.

    Returns
    -------
    Bracketing
        ``.cost`` and ``.steps``.

    Raises
    ------
    ValueError
        If the lengths do not match, a number is negative, or there is no stage.
    TypeError
        If a number is no integer.

    References
    ----------
    Naumann, Matrix-free Jacobian chaining, arXiv 2406.11862; Naumann et al., arXiv 2505.06056;
    Griewank and Naumann, Accumulating Jacobians as chained sparse matrix products, 2003.

    Examples
    --------
    Through a waist of one number, 3 → 1 → 3: one cotangent (3), then its row pushed on (9).

    >>> print(jc.bracket([3, 1, 3], [3, 3]))
    Bracketing
    step                                                multiply-adds
    ∂x1/∂x0, by cotangents                                          3
    ∂x2/∂x0: push the columns of ∂x1/∂x0 through to x2              9
    Together 12 multiply-adds.
    """
    _check(sizes, edges, memory_limit)
    flag("matrix_free", matrix_free)
    exact = _number_type(sizes, edges)
    n = np.array(sizes, exact)
    recorded = np.concatenate([np.zeros(1, exact), np.cumsum(np.array(edges, exact))])
    limit = recorded[-1] if memory_limit is None else memory_limit
    never = forbidden(exact)

    def pull(i: Any, k: Any, j: Any) -> Any:
        work = recorded[k] - recorded[i]
        return (
            np.where(work <= limit, n[j] * work, never) if matrix_free else np.full(np.broadcast(i, k, j).shape, never)
        )

    def push(i: Any, k: Any, j: Any) -> Any:
        return n[i] * (recorded[j] - recorded[k]) if matrix_free else np.full(np.broadcast(i, k, j).shape, never)

    each = np.diff(recorded)
    costs = Costs(
        tangent=n[:-1] * each,
        adjoint=np.where(each <= limit, n[1:] * each, never),
        multiply=lambda i, k, j: n[i] * n[k] * n[j],
        push=push,
        pull=pull,
    )
    solution = solve(costs)
    return Bracketing(solution.cost(0, len(edges)), solution.steps(0, len(edges)))


def forbidden(dtype: Any) -> Any:
    """A cost that no plan reaches, and that can still be added to."""
    return 1 << 200 if dtype is object else np.iinfo(np.int64).max // 4


def _number_type(sizes: Sequence[int], edges: Sequence[int]) -> Any:
    """int64 where no sum of costs can overflow it, else Python's own integers."""
    largest = max(sizes, default=0)
    # A plan has fewer than 2q steps, none dearer than a cubic product and a pass through everything.
    bound = 2 * len(edges) * (largest**3 + largest * sum(edges))
    return np.int64 if bound < np.iinfo(np.int64).max // 8 else object


@dataclass(frozen=True, eq=False)
class Solution:
    """Optimal plans for every range of stages.

    Attributes
    ----------
    best
        (q + 1, q + 1): the least cost of the matrix from state i to state j.
    middle, way
        Where and how that range is put together.
    """

    best: np.ndarray
    middle: np.ndarray
    way: np.ndarray

    def cost(self, start: int, stop: int) -> float:
        """The least cost of one range; nothing for an empty one."""
        return _plain(self.best[start, stop]) if stop > start else 0

    def steps(self, start: int, stop: int) -> tuple[Step, ...]:
        """The steps of one range, parts before wholes."""
        steps: list[Step] = []
        pending = [(start, stop)] if stop > start else []
        while pending:
            i, j = pending.pop()
            if j - i == 1:
                steps.append(Step(ACCUMULATIONS[self.way[i, j]], i, None, j, self.cost(i, j)))
                continue
            k, kind = int(self.middle[i, j]), COMBINATIONS[self.way[i, j]]
            parts = {"multiply": [(i, k), (k, j)], "eliminate tangent": [(i, k)], "eliminate adjoint": [(k, j)]}[kind]
            steps.append(Step(kind, i, k, j, self.cost(i, j) - sum(self.cost(*part) for part in parts)))
            pending += parts
        return tuple(reversed(steps))


def solve(costs: Costs) -> Solution:
    """The dynamic programme: c(i, j) = min over i < k < j of the three ways to make (i, j) of its parts.

    multiply c(i,k) + c(k,j) + …, push c(i,k) + …, pull c(k,j) + …; all ranges of one length at
    once, so q numpy steps for O(q³) work.
    """
    q = len(costs.tangent)
    best = np.zeros((q + 1, q + 1), costs.tangent.dtype)
    middle, way = np.zeros((q + 1, q + 1), int), np.zeros((q + 1, q + 1), int)
    singles = np.stack([costs.tangent, costs.adjoint])
    at = np.arange(q)
    way[at, at + 1] = np.argmin(singles, axis=0)
    best[at, at + 1] = np.min(singles, axis=0)
    for length in range(2, q + 1):
        i = np.arange(q - length + 1)[:, None]
        k, j = i + np.arange(1, length)[None], i + length
        before, after = best[i, k], best[k, j]
        ways = [before + after + costs.multiply(i, k, j), before + costs.push(i, k, j), after + costs.pull(i, k, j)]
        flat = np.stack(ways, axis=-1).reshape(len(i), -1)  # splits first, the three ways of each beside one another
        choice = np.argmin(flat, axis=1)
        rows = np.arange(len(i))
        best[rows, rows + length] = flat[rows, choice]
        middle[rows, rows + length], way[rows, rows + length] = rows + 1 + choice // 3, choice % 3
    return Solution(best, middle, way)


def _plain(number: Any) -> Any:
    """A Python number."""
    return number.item() if isinstance(number, np.generic) else number


def _check(sizes: Sequence[int], edges: Sequence[int], memory_limit: int | None) -> None:
    integers("sizes", sizes, "a count", least=0)
    integers("edges", edges, "a count", least=0)
    if len(edges) < 1 or len(sizes) != len(edges) + 1:
        msg = f"A chain of q ≥ 1 stages has q + 1 sizes and q edge counts, but {len(sizes)} sizes and {len(edges)} edges were given."
        raise ValueError(msg)
    integer("memory_limit", memory_limit, "the most edges recorded at once", least=0, optional=True)
