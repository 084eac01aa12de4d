"""The derivative of a function by its parameters at one sample, a row for every output, kept as factors.

A leaf is `Pieces`, the factors of its sites for all outputs at once, of which mostly one alone depends on the output;
or it is multiplied out, (m, …). What lies between is one backward pass for every output, by the taps alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxchain.coordinates import Coordinates
from jaxchain.factored.axis import one_of
from jaxchain.factored.factors import Factor, Picked, Product, Thin, Whole, wide
from jaxchain.factored.function import Factored, Leaf
from jaxchain.factored.sites import Site
from jaxchain.kernels.varying import Rows, rows_of
from jaxchain.program.primitives import shape_of

__all__ = ["Basis", "Piece"]


@register_dataclass
@dataclass(frozen=True)
class Piece:
    """J[p] = Σ_t left[n, t] ⊗ right[p, n, t] of one leaf, or with p on the left one, or on both.

    Attributes
    ----------
    left, right
        ([p,] N, T, I) and ([p,] N, T, O); where rows are looked up, the first is their index (1, T).
    by_output
        Whether each has the axis p.
    rows
        How many there are to look up; ``None``: none is.
    """

    left: jax.Array
    right: jax.Array
    by_output: tuple[bool, bool] = field(metadata={"static": True})
    rows: int | None = field(default=None, metadata={"static": True})

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """N, T, I, O."""
        n, t, columns = self.right.shape[-3:]
        return n, t, self.left.shape[-1] if self.rows is None else self.rows, columns


@dataclass(frozen=True, eq=False)
class Basis:
    """A function of parameters and one sample, whose derivative is wanted for every output.

    Attributes
    ----------
    fun
        The function.
    function
        The same, read: with its weight sites.
    params, x
        Shapes of its arguments.
    """

    fun: Callable[[Any, Any], Any]
    function: Factored
    params: Any
    x: Any

    @classmethod
    def of(cls, fun: Callable[[Any, Any], Any], params: Any, x: Any) -> Basis:
        """Read ``fun`` at shapes."""
        return cls(fun, Factored.of(fun, (params, x)), params, x)

    @cached_property
    def space(self) -> Coordinates:
        """Coordinates of the outputs."""
        return Coordinates.of(self.function.out)

    @property
    def dtype(self) -> Any:
        """Of a kernel: real, and no narrower than single precision."""
        return wide(self.space.dtype, *(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(self.params)))

    @cached_property
    def deltas(self) -> Rows:
        """What the sites' rules read, and δ of every site, a row for each output: of the parameters and a sample."""

        def pulled(params: Any, x: Any) -> tuple[Any, Any]:
            done = self.function.evaluate(params, x)
            pull = jax.vmap(lambda row: done.pull(self.space.unflatten_cotangent(row)))
            return done.values, pull(self.space.identity())

        return rows_of(pulled, self.params, self.x)

    @cached_property
    def work(self) -> tuple[float, float]:
        """Operations of `deltas`, those of every sample and those done once."""
        return self.deltas.work

    @cached_property
    def one_delta(self) -> tuple[Any, tuple[Any, ...]]:
        """The shapes of the values, and of one output's δ."""
        values, deltas = self.deltas.unflatten(self.deltas.shapes)
        return values, one_of(deltas)

    # ------------------------------------------------------------------------------------------------ leaves as factors

    @cached_property
    def thin(self) -> tuple[int, ...]:
        """The leaves that can be kept as factors."""

        def of_one(values: Any, deltas: Any) -> list[list[Thin] | None]:
            factors = self.function.factors(values, deltas)
            return [self._thin(leaf, factors) for leaf in self.function.leaves]

        found = jax.eval_shape(of_one, *self.one_delta)
        return tuple(number for number, pieces in enumerate(found) if pieces is not None)

    def _thin(self, leaf: Leaf, factors: Sequence[Factor]) -> list[Thin] | None:
        if len(leaf.sites) != 1:
            return self.function.alike(leaf, factors) if leaf.sites else None
        (k,) = leaf.sites
        site, factor = self.function.sites[k], factors[k]
        scale = site.layout.scale
        if scale is None:
            return None
        match factor:
            # The scale goes to the left, so that what depends on the output is the same for all leaves with the same δ.
            case Product():
                return [factor if scale == 1 else Product(factor.left * scale, factor.right)]
            case Picked():
                return [factor.scaled(scale)]
            case Whole(value) if self._unstretched(k):
                n = math.prod(site.rows)
                return [Product(jnp.full((n, 1, 1), scale, value.dtype), value.reshape(n, 1, -1))]
            case _:
                return None

    def _unstretched(self, k: int) -> bool:
        """Whether a site is a bias, and its gradient δ itself: a dense layer's whose input is 1."""
        site = self.function.sites[k]
        each = site.found.lengths == site.rows and _operand_size(site) * math.prod(site.rows)
        return site.kind == "bias" and each == math.prod(self.one_delta[1][k].shape)

    def key(self, number: int) -> tuple[int, int] | None:
        """Equal for leaves whose right factor is δ, at one position, and the same δ; ``None``: for no other leaf."""
        sites = self.function.leaves[number].sites
        if len(sites) != 1 or number not in self.thin:
            return None
        site, delta = self.function.sites[sites[0]], self.same[sites[0]]
        meeting = site.found.meeting
        if meeting is None or site.kind not in ("dense", "bias") or (meeting.sides is not None and meeting.sides[0]):
            return None
        return delta, math.prod(site.rows)

    @cached_property
    def same(self) -> tuple[int, ...]:
        """Of every site, a number that is equal for those that have the very same δ."""
        return self.deltas.unflatten(self.deltas.same)[1]

    def pieces(self, numbers: Sequence[int], made: tuple[Any, Any]) -> list[list[Piece]]:
        """Some leaves, as factors, of what `deltas` made."""
        if not numbers:
            return []

        def of_one(values: Any, deltas: Any) -> list[list[Thin]]:
            factors = self.function.factors(values, deltas)
            return [self._thin(self.function.leaves[number], factors) or [] for number in numbers]

        of_output = rows_of(of_one, *self.one_delta)
        factors = of_output.unflatten(of_output.map(of_one, *made))
        flags = of_output.unflatten([axis is not None for axis in of_output.axes])
        return [
            _joined([_piece(factor, flag) for factor, flag in zip(*leaf, strict=True)])
            for leaf in zip(factors, flags, strict=True)
        ]

    # ---------------------------------------------------------------------------------------------- leaves multiplied out

    def gradients(self, numbers: Sequence[int], made: tuple[Any, Any]) -> list[jax.Array]:
        """Some leaves' derivatives, multiplied out: (m, …) each."""
        values, deltas = made
        sites = {k for number in numbers for k in self.function.leaves[number].sites}

        def of_one(deltas: Any) -> list[jax.Array]:
            each = {k: _gradient(self.function.sites[k], values[k], deltas[k]) for k in sites}
            leaves = [self.function.leaves[number].sites for number in numbers]
            return [sum((each[k] for k in leaf[1:]), each[leaf[0]]) for leaf in leaves]

        return jax.vmap(of_one)(deltas) if numbers else []


def _operand_size(site: Site) -> int:
    return math.prod(shape_of(site.layout.end))


def _piece(factor: Thin, flags: Any) -> Piece:
    match factor:
        case Product(left, right):
            return Piece(left, right, (flags.left, flags.right))
        case Picked(index, right, rows):
            return Piece(index, right, (flags.index, flags.right), rows)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces of one kind as one, of all their positions."""
    kinds: dict[Any, list[Piece]] = {}
    for piece in pieces:
        kinds.setdefault((piece.by_output, piece.rows), []).append(piece)
    return [same[0] if len(same) == 1 else _concatenated(same) for same in kinds.values()]


def _concatenated(pieces: Sequence[Piece]) -> Piece:
    left, right = [piece.left for piece in pieces], [piece.right for piece in pieces]
    axis = -2 if pieces[0].rows is None else -1
    return Piece(jnp.concatenate(left, axis), jnp.concatenate(right, -2), pieces[0].by_output, pieces[0].rows)


def _gradient(site: Site, values: Sequence[jax.Array], delta: jax.Array) -> jax.Array:
    """What a site adds to its leaf's gradient."""
    return site.gradient(site.multiplied(values, delta) or site.factors(values, delta))
