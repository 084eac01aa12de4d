"""Matrices kept as what they are: an identity vanishes, a diagonal scales, blocks meet blocks, the rest is multiplied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from jaxchain.coordinates import pieces, widest

__all__ = [
    "Blocks", "Dense", "Diagonal", "Identity", "Layout", "Matrix", "Triangle", "multiply", "scattered", "stretched_share",
    "stretches",
]  # fmt: skip

STRETCHES = 4
"""Into so many stretches positions are divided at most: each is one more program to compile."""


Runs = tuple[tuple[int, bool], ...]
"""(length, whether it counts positions) of neighbouring axes of an array taken together; equal for equal orders."""


Arrays = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""The shapes of a state's arrays, and of each some of its axes."""


@dataclass(frozen=True)
class Layout:
    """How the coordinates of a state lie in positions: array after array, row by row, some of whose axes count them.

    Attributes
    ----------
    arrays
        The runs of each array; all of them count the same positions, in the same order.
    """

    arrays: tuple[Runs, ...]

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]], axes: Iterable[Sequence[int]]) -> Layout:
        """That of a state's arrays, by the axes of each that count positions, which must come in order."""
        return cls(tuple(map(_runs, shapes, axes)))

    @classmethod
    def each(cls, before: Arrays, after: Arrays) -> tuple[tuple[Layout, Layout], ...]:
        """Those of two states, by the shapes of their arrays and the axes of each that count the same positions.

        The finest first, then those by fewer of the axes.
        """
        number = len(before[1][0])
        some = [kept for size in range(number, 0, -1) for kept in itertools.combinations(range(number), size)]

        def of(arrays: Arrays, kept: tuple[int, ...]) -> Layout:
            return cls.of(arrays[0], [[axes[k] for k in kept] for axes in arrays[1]])

        found = dict.fromkeys((of(before, kept), of(after, kept)) for kept in some)
        return tuple(pair for pair in found if pair[0].count > 1)

    @property
    def count(self) -> int:
        """P: how many positions there are."""
        return math.prod(length for length, counts in self.arrays[0] if counts)

    @property
    def widths(self) -> list[int]:
        """How many numbers each position has of each array."""
        return [math.prod(length for length, counts in runs if not counts) for runs in self.arrays]

    @property
    def width(self) -> int:
        """How many numbers each position has."""
        return sum(self.widths)

    @cached_property
    def places(self) -> np.ndarray:
        """Which coordinates each position has, (P, w)."""
        with jax.ensure_compile_time_eval():
            return np.asarray(self.split(jnp.arange(self.count * self.width), 0))

    def of_positions(self, count: int) -> Layout:
        """The same of so many positions; each array counts them along one axis."""
        return Layout(
            tuple(tuple((count if counts else size, counts) for size, counts in runs) for runs in self.arrays)
        )

    def split(self, array: jax.Array, axis: int) -> jax.Array:
        """An array whose ``axis`` counts coordinates, with two in its place: positions, and numbers in each."""
        parts = pieces(array, [self.count * width for width in self.widths], axis)
        return _concatenated(
            [_split(runs, part, axis) for runs, part in zip(self.arrays, parts, strict=True)], axis + 1
        )

    def join(self, array: jax.Array, axis: int) -> jax.Array:
        """What `split` makes, ``axis`` and the next one again."""
        parts = pieces(array, self.widths, axis + 1)
        return _concatenated([_join(runs, part, axis) for runs, part in zip(self.arrays, parts, strict=True)], axis)


def _found(fine: Layout, coarse: Layout) -> tuple[np.ndarray, np.ndarray]:
    """For each coordinate of each position of a layout, the position of a coarser one that has it, and where in it."""
    position, place = np.empty((2, fine.count * fine.width), int)
    position[coarse.places], place[coarse.places] = np.indices(coarse.places.shape)
    return position[fine.places], place[fine.places]


def _runs(shape: Sequence[int], axes: Sequence[int]) -> Runs:
    marked = [(size, axis in axes) for axis, size in enumerate(shape) if size != 1]
    together = itertools.groupby(marked, key=lambda run: run[1])
    return tuple((math.prod(size for size, _ in group), counts) for counts, group in together)


def _split(runs: Runs, array: jax.Array, axis: int) -> jax.Array:
    """`Layout.split`, of the coordinates of one array."""
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    order = _positions_first(runs)
    apart = array.reshape(*before, *(length for length, _ in runs), *after)
    moved = apart.transpose(*range(axis), *(axis + k for k in order), *range(axis + len(runs), apart.ndim))
    count = math.prod(length for length, counts in runs if counts)
    return moved.reshape(*before, count, array.shape[axis] // count, *after)


def _join(runs: Runs, array: jax.Array, axis: int) -> jax.Array:
    """`Layout.join`, of the coordinates of one array."""
    before, after = array.shape[:axis], array.shape[axis + 2 :]
    order = _positions_first(runs)
    apart = array.reshape(*before, *(runs[k][0] for k in order), *after)
    back = [axis + k for k in np.argsort(order).tolist()]
    moved = apart.transpose(*range(axis), *back, *range(axis + len(runs), apart.ndim))
    return moved.reshape(*before, math.prod(array.shape[axis : axis + 2]), *after)


def _positions_first(runs: Runs) -> list[int]:
    return sorted(range(len(runs)), key=lambda k: not runs[k][1])


def _concatenated(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)


@partial(register_dataclass, data_fields=(), meta_fields=("size", "dtype"))
@dataclass(frozen=True)
class Identity:
    """I, (n, n)."""

    size: int
    dtype: jax.typing.DTypeLike

    def dense(self) -> jax.Array:
        """All its entries."""
        return jnp.eye(self.size, dtype=self.dtype)


@partial(register_dataclass, data_fields=("entries",), meta_fields=())
@dataclass(frozen=True)
class Diagonal:
    """diag(entries), (n, n)."""

    entries: jax.Array

    @property
    def dtype(self) -> jax.typing.DTypeLike:
        """That of its entries."""
        return self.entries.dtype

    def dense(self) -> jax.Array:
        """All its entries: scattered, not multiplied out."""
        at = np.arange(len(self.entries))
        return scattered(at, at, self.entries, (len(at), len(at)))


@partial(register_dataclass, data_fields=("entries",), meta_fields=())
@dataclass(frozen=True)
class Dense:
    """Any (m, n) matrix."""

    entries: jax.Array

    def dense(self) -> jax.Array:
        """All its entries."""
        return self.entries


@partial(register_dataclass, data_fields=("entries",), meta_fields=("into", "out"))
@dataclass(frozen=True)
class Blocks:
    """A block for each position, (P · m, P · n).

    Attributes
    ----------
    entries
        (P, m, n); (1, m, n), where all are the same.
    into, out
        Where the coordinates of each position are, in the state before and in the state after.
    """

    entries: jax.Array
    into: Layout
    out: Layout

    def dense(self) -> jax.Array:
        """All its entries: scattered, not multiplied out."""
        at, (_, m, n) = np.arange(self.into.count), self.entries.shape
        apart = jnp.zeros((len(at), m, len(at), n), self.entries.dtype).at[at, :, at, :].set(self.entries)
        return self.into.join(self.out.join(apart, 0), 1)

    def times(self, columns: jax.Array) -> jax.Array:
        """The product with any matrix (P · n, k)."""
        return self.out.join(self.entries @ self.into.split(columns, 0), 0)

    def after(self, rows: jax.Array) -> jax.Array:
        """A matrix (k, P · m) times this one."""
        each = jnp.moveaxis(self.out.split(rows, 1), 1, 0)
        return self.into.join(jnp.moveaxis(each @ self.entries, 0, 1), 1)

    @classmethod
    def identity(cls, layout: Layout, dtype: jax.typing.DTypeLike) -> Blocks:
        """I, of so many positions."""
        return cls(jnp.eye(layout.width, dtype=dtype)[None], layout, layout)

    @classmethod
    def within(cls, entries: jax.Array, into: Layout, out: Layout) -> Blocks:
        """Those of a matrix (P · m, P · n) that is zero beside them."""
        at, apart = np.arange(into.count), into.split(out.split(entries, 0), 2)
        return cls(apart[at, :, at, :], into, out)

    def coarser(self, into: Layout, out: Layout) -> Blocks:
        """The same as blocks of fewer positions, each of which holds several of these."""
        if (into, out) == (self.into, self.out):
            return self
        rows, columns = _found(self.out, out), _found(self.into, into)
        alike = len(self.entries) == 1  # as many blocks as there are different ones
        kept = rows[0][:, 0] == 0 if alike else slice(None)
        at = rows[0][kept][:, :1, None], rows[1][kept][:, :, None], columns[1][kept][:, None, :]
        blocks = jnp.zeros((1 if alike else into.count, out.width, into.width), self.entries.dtype)
        return Blocks(blocks.at[at].set(self.entries), into, out)

    @property
    def transposed(self) -> Blocks:
        """Each block on its side."""
        return Blocks(jnp.swapaxes(self.entries, 1, 2), self.out, self.into)

    @property
    def each(self) -> jax.Array:
        """Every position's block, (P, m, n)."""
        return jnp.broadcast_to(self.entries, (self.into.count, *self.entries.shape[1:]))

    @property
    def at_once(self) -> jax.Array:
        """Columns of all positions' blocks side by side, (P · m, n): what does not mix them maps all in one go."""
        return self.out.join(self.each, 0)

    @classmethod
    def of(cls, matrix: Matrix, *, into: Layout | None = None, out: Layout | None = None) -> Blocks | None:
        """A matrix as blocks of such positions before or after it; ``None``: it is none of theirs."""
        match matrix:
            case Blocks() if matrix.into == (into or matrix.into) and matrix.out == (out or matrix.out):
                return matrix
            case Identity() | Diagonal() if (layout := into or out) is not None:
                each = cls.identity(layout, matrix.dtype)
                if isinstance(matrix, Identity):
                    return each
                return replace(each, entries=layout.split(matrix.entries, 0)[:, :, None] * each.entries)
            case _:
                return None


@partial(register_dataclass, data_fields=("parts",), meta_fields=("into", "out"))
@dataclass(frozen=True)
class Triangle:
    """Blocks on and below the diagonal, (P · m, P · n): no position reaches an earlier one.

    Attributes
    ----------
    parts
        (P − start, m, L, n), of each stretch of L positions before the blocks from its first position on.
    into, out
        Where the coordinates of each position are, in the state before and in the state after.
    """

    parts: tuple[jax.Array, ...]
    into: Layout
    out: Layout

    @classmethod
    def of(cls, matrix: Matrix, into: Layout, out: Layout) -> Triangle | None:
        """One of the kinds that are made of positions' blocks, of positions that lie so; ``None``: it is another."""
        if isinstance(matrix, Triangle):
            return matrix if (into, out) == (matrix.into, matrix.out) else None
        blocks = Blocks.of(matrix, into=into, out=out)
        if blocks is None or (into, out) != (blocks.into, blocks.out):
            return None
        each = blocks.each
        parts: list[jax.Array] = []
        for start, stop in stretches(into.count):
            at, rest = np.arange(stop - start), (into.count - start, each.shape[1], stop - start, each.shape[2])
            parts.append(jnp.zeros(rest, each.dtype).at[at, :, at, :].set(each[start:stop]))
        return cls(tuple(parts), into, out)

    @property
    def entries(self) -> jax.Array:
        """All of them."""
        return self.dense()

    def dense(self) -> jax.Array:
        """All its entries."""
        count = self.out.count
        full = [jnp.pad(part, ((count - len(part), 0), (0, 0), (0, 0), (0, 0))) for part in self.parts]
        return self.into.join(self.out.join(jnp.concatenate(full, 2), 0), 1)

    def scaled(self, diagonal: jax.Array) -> Triangle:
        """Rows times the entries of a diagonal."""
        each = self.out.split(diagonal, 0)
        return replace(self, parts=tuple(each[-len(part) :, :, None, None] * part for part in self.parts))

    def before(self, left: Blocks) -> Triangle:
        """Blocks of the same positions times this."""
        made: list[jax.Array] = []
        for part in self.parts:
            own = left.entries if len(left.entries) == 1 else left.entries[-len(part) :]
            made.append((own @ part.reshape(*part.shape[:2], -1)).reshape(len(part), -1, *part.shape[2:]))
        return Triangle(tuple(made), self.into, left.out)


def stretches(count: int, least: int = 1) -> list[tuple[int, int]]:
    """The first position of each stretch, and the first after it; of so many at ``least``."""
    parts = max(min(STRETCHES, count // least), 1)
    return list(itertools.pairwise(np.linspace(0, count, parts + 1).astype(int).tolist()))


def stretched_share(count: int) -> float:
    """What a triangle of so many positions keeps of its blocks."""
    return sum((count - start) * (stop - start) for start, stop in stretches(count)) / count**2


Matrix = Identity | Diagonal | Blocks | Triangle | Dense


def multiply(left: Matrix, right: Matrix) -> Matrix:
    """The product, as cheaply as the factors' structure allows."""
    if isinstance(left, Identity):
        return right
    if isinstance(right, Identity):
        return left
    match left, right:
        case Diagonal(), Triangle():
            return right.scaled(left.entries)
        case Blocks(), Triangle() if left.into == right.out:
            return right.before(left)
        case _:
            left, right = (Dense(each.dense()) if isinstance(each, Triangle) else each for each in (left, right))
    dtype = widest(left.entries.dtype, right.entries.dtype)
    a, b = left.entries.astype(dtype), right.entries.astype(dtype)
    match left, right:
        case Diagonal(), Diagonal():
            return Diagonal(a * b)
        case Diagonal(), Blocks():
            return replace(right, entries=right.out.split(a, 0)[:, :, None] * b)
        case Blocks(), Diagonal():
            return replace(left, entries=a * left.into.split(b, 0)[:, None, :])
        case Diagonal(), Dense():
            return Dense(a[:, None] * b)
        case Dense(), Diagonal():
            return Dense(a * b[None, :])
        case Blocks(), Blocks() if left.into == right.out:
            if len(a) == 1:  # the same for every position: one product, not one a position
                return Blocks(jnp.swapaxes(jnp.swapaxes(b, 1, 2) @ a[0].T, 1, 2), right.into, left.out)
            return Blocks(a @ b, right.into, left.out)
        case Blocks(), Blocks() if left.into.count < right.into.count:  # the smaller blocks are multiplied as such
            return Dense(replace(right, entries=b).after(left.dense().astype(dtype)))
        case Blocks(), _:
            return Dense(replace(left, entries=a).times(right.dense().astype(dtype)))
        case _, Blocks():
            return Dense(replace(right, entries=b).after(a))
        case _:
            return Dense(a @ b)


def scattered(rows: np.ndarray, columns: np.ndarray, entries: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """A matrix that is zero but for ``entries``, at places that all differ and come in row-major order.

    Written as one long row, and reshaped for nothing: XLA copies a matrix that was scattered into
    by rows and columns once more to reshape it.
    """
    if shape[0] * shape[1] > np.iinfo(np.int32).max:  # JAX's indices have 32 bits
        at = jnp.zeros(shape, entries.dtype).at[rows, columns]
    else:
        at = jnp.zeros(shape[0] * shape[1], entries.dtype).at[rows * shape[1] + columns]
    return at.set(entries, unique_indices=True, indices_are_sorted=True).reshape(shape)
