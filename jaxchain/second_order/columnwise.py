"""A number a column, pᵀ H p, in a planned order: their sum is a Laplacian, and no Hessian is ever made.

P is kept diagonal, or in blocks, as long as nothing has to be pushed; from there on every column goes for itself, as
many at once as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Matrix, Triangle, multiply
from jaxchain.second_order.gather import Point, entries_of, matrix, walked
from jaxchain.second_order.opened import Inside
from jaxchain.second_order.order import Stretch, Turn, Walk

__all__ = ["columns", "over_columns"]


def columns(
    at: Point,
    stretch: Stretch,
    seed: Matrix,
    other: jax.Array | None = None,
    how: Pass = ALL_AT_ONCE,
    *,
    total: bool = False,
) -> jax.Array:
    """Of every column p of ``seed``, or with the column q of ``other``: qᵀ H p; or the ``total`` of them.

    Parameters
    ----------
    at
        The function at its arguments.
    stretch
        The order, from the chain's input on.
    seed
        (n, c).
    other
        (n, c); ``None``: the same.
    how
        How many columns are pushed at once.
    total
        Whether only their sum is wanted.
    """
    then = None if stretch.then is None else matrix(at, stretch.then)
    steps, prefix, found = list(stretch.steps), seed, list[jax.Array]()
    read = terms_of if total else paired
    while steps and other is None and not isinstance(prefix, Dense) and steps[0].how == "multiply":
        step = steps.pop(0)
        if isinstance(step, Walk):
            prefix = walked(at, step, prefix)
            continue
        slope, second = at.links[step.unit].matrices
        found.append(read(second, prefix))
        prefix = multiply(slope, prefix)
    if not steps and other is None and not isinstance(prefix, Dense):
        found += [] if then is None else [read(then, prefix)]
    else:
        goings = [_going(at, step) for step in steps]
        each = over_columns(partial(_through, goings, then), prefix, other, how)
        found.append(each)
    if not found:
        return jnp.zeros(() if total else (_count(seed),), at.links[0].unit.here.dtype)
    return _total(found) if total else sum(found[1:], found[0])


def terms_of(second: Matrix, prefix: Matrix) -> jax.Array:
    """What the trace of Pᵀ C P is the sum of: for a diagonal C, the squared lengths of the rows of P, weighted."""
    if not isinstance(second, (Identity, Diagonal)):
        return paired(second, prefix)
    entries = entries_of(second)
    match prefix:
        case Identity():
            return entries
        case Blocks():
            return prefix.out.split(entries, 0) * jnp.sum(prefix.entries**2, axis=2)
        case _:
            squares = prefix.entries**2
            return entries * (squares if isinstance(prefix, Diagonal) else jnp.sum(squares, axis=1))


def _total(parts: Sequence[jax.Array]) -> jax.Array:
    """The sum of all their entries; those of one shape are added first, and gone through once."""
    alike: dict[tuple[int, ...], jax.Array] = {}
    for part in parts:
        alike[part.shape] = alike[part.shape] + part if part.shape in alike else part
    sums = [jnp.sum(part) for part in alike.values()]
    return sum(sums[1:], sums[0])


def paired(second: Matrix, prefix: Matrix) -> jax.Array:
    """Of every column p of a prefix pᵀ C p."""
    left, right = prefix, multiply(second, prefix)
    match left, right:
        case Identity(), _:
            return entries_of(right) if isinstance(right, (Identity, Diagonal)) else _diagonal(right)
        case Diagonal(), Diagonal():
            return left.entries * right.entries
        case Blocks(), Blocks() if (left.into, left.out) == (right.into, right.out):
            each = jnp.sum(left.entries * right.entries, axis=1)
            return left.into.join(jnp.broadcast_to(each, (left.into.count, left.into.width)), 0)
        case Diagonal(), _:
            return left.entries * _diagonal(right)
        case _:
            return jnp.sum(left.dense() * right.dense(), axis=0)


def _diagonal(matrix: Matrix) -> jax.Array:
    if isinstance(matrix, Blocks) and matrix.into == matrix.out:
        each = jnp.diagonal(matrix.entries, axis1=1, axis2=2)
        return matrix.into.join(jnp.broadcast_to(each, (matrix.into.count, matrix.into.width)), 0)
    return jnp.diagonal(matrix.dense())


def _count(seed: Matrix) -> int:
    """How many columns."""
    match seed:
        case Identity():
            return seed.size
        case Diagonal():
            return len(seed.entries)
        case Dense():
            return seed.entries.shape[1]
        case Blocks() | Triangle():
            return seed.into.count * seed.into.width


Going = Callable[[jax.Array, jax.Array | None], tuple[jax.Array, jax.Array | None, jax.Array | None]]
"""``go(p, q)`` → J p, J q and qᵀ (λ · f″) p, where q is ``None`` for p itself, and the last where nothing bends."""


def _going(at: Point, step: Walk | Turn) -> Going:
    """One step for columns, with what it multiplies by made, and what it pushes through linearised, once for all."""
    if isinstance(step, Walk):
        return _walking(at, step)
    link = at.links[step.unit]
    if step.how == "open":
        return Inside.of(link).through
    if step.how == "push":
        link.linearised(bends=True)
        return partial(_turning, link.push)
    slope, second = link.matrices
    return partial(_turning, lambda column: (_times(slope, column), _times(second, column)))


def _walking(at: Point, walk: Walk) -> Going:
    links = at.links[walk.start : walk.stop]
    if walk.how == "multiply":
        move = partial(_times, at.jacobian(walk))
    else:
        for link in links:
            link.linearised(bends=False)

        def move(column: jax.Array) -> jax.Array:
            for link in links:
                column = link.moved(column)
            return column

    return lambda column, beside: (move(column), None if beside is None else move(beside), None)


def _turning(
    push: Callable[[jax.Array], tuple[jax.Array, jax.Array]], column: jax.Array, beside: jax.Array | None
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    moved, met = push(column)
    if beside is None:
        return moved, None, jnp.vdot(column, met)
    return moved, push(beside)[0], jnp.vdot(beside, met)


def _times(matrix: Matrix, column: jax.Array) -> jax.Array:
    match matrix:
        case Identity():
            return column
        case Diagonal(entries):
            return entries * column
        case Dense(entries):
            return entries @ column
        case Triangle():
            return matrix.dense() @ column
        case Blocks():
            return matrix.times(column[:, None])[:, 0]


def _through(steps: Sequence[Going], then: Matrix | None, column: jax.Array, beside: jax.Array | None) -> jax.Array:
    """qᵀ H p of what is left to go through."""
    total = jnp.zeros((), column.dtype)
    for go in steps:
        column, beside, met = go(column, beside)
        total = total if met is None else total + met
    if then is not None:
        total = total + jnp.vdot(column if beside is None else beside, _times(then, column))
    return total


def over_columns(
    one: Callable[[jax.Array, jax.Array | None], jax.Array], seed: Matrix, other: jax.Array | None, how: Pass
) -> jax.Array:
    """``one(p, q)`` of every column p of a matrix and q of another, ``None`` where there is none."""
    if other is not None:
        both = jnp.concatenate([seed.dense(), other], axis=0).T
        half = both.shape[1] // 2
        return how.map(lambda row: one(row[:half], row[half:]), both)
    if isinstance(seed, Dense) or how.chunk_size is None:
        return how.map(lambda row: one(row, None), seed.dense().T)
    # A basis of many vectors is not made whole: each is made where it is pushed.
    count, dtype = _count(seed), seed.dtype if isinstance(seed, Identity) else seed.entries.dtype
    return how.map(
        lambda number: one(_times(seed, jax.nn.one_hot(number, count, dtype=dtype)), None), jnp.arange(count)
    )
