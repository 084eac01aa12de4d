"""The kernel between samples, in the ways that were chosen: one pair, mapped over both sides, at once or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.derivative import Pass, linearize
from jaxchain.errors import refused_in_words
from jaxchain.factored.axis import sample_at
from jaxchain.kernels.basis import Basis, Piece
from jaxchain.kernels.choosing import Choice, Group, groups_of
from jaxchain.kernels.pairing import OUTPUTS, Outputs, contract, lettered, overlap, product
from jaxchain.kernels.pricing import Block, Prices
from jaxchain.kernels.varying import Rows

__all__ = ["Kernel", "block_shape"]

Side = tuple[dict[int, list[Piece]], dict[int, jax.Array]]
"""One sample's derivative: leaves as factors, and leaves multiplied out."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """How a kernel is computed.

    Attributes
    ----------
    basis
        The function.
    choice
        The way of every leaf.
    groups
        Of the leaves that are products of factors.
    outputs
        Of the block of each pair.
    """

    basis: Basis
    choice: Choice
    groups: tuple[Group, ...]
    outputs: Outputs

    @classmethod
    def of(cls, prices: Prices, choice: Choice) -> Kernel:
        """With its groups of terms."""
        return cls(prices.basis, choice, tuple(groups_of(prices, choice.of("products"))), prices.outputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the block of one pair."""
        return block_shape(self.basis, self.outputs)

    @cached_property
    def _of_deltas(self) -> Callable[[tuple[Any, Any]], Side]:
        basis, products = self.basis, self.choice.of("products")
        whole = (*self.choice.of("contraction"), *self.choice.of("vectors"))

        def of_deltas(made: tuple[Any, Any]) -> Side:
            pieces, gradients = basis.pieces(products, made), basis.gradients(whole, made)
            return dict(zip(products, pieces, strict=True)), dict(zip(whole, gradients, strict=True))

        return of_deltas

    def side(self, params: Any, x: Any) -> Side:
        """The derivative at one sample."""
        return self._of_deltas(self.basis.deltas(params, x))

    @cached_property
    def rows(self) -> Rows:
        """What of a side depends on the sample."""
        return self.basis.deltas.then(self._of_deltas)

    def pair(self, push: Callable[[Any], jax.Array] | None, one: Side, other: Side) -> jax.Array:
        """The block of two samples."""
        total = jnp.zeros(self.shape, self.basis.dtype)
        for group in self.groups:
            total += self._real(self._products(group, one[0], other[0]), total)
        for leaf in self.choice.of("contraction"):
            flat = [side[1][leaf].reshape(self.basis.space.size, -1) for side in (one, other)]
            q, out = OUTPUTS[self.outputs]
            total += self._real(product(("pk", flat[0]), (q + "k", flat[1].conj()), out)[1], total)
        if push is not None:
            pushed = jax.vmap(push, out_axes=1)([other[1][leaf].conj() for leaf in self.choice.of("vectors")])
            total += self._of_outputs(pushed).astype(total.dtype)
        return total

    def _real(self, part: jax.Array, like: jax.Array) -> jax.Array:
        return part.real.reshape(self.shape).astype(like.dtype)

    def _of_outputs(self, block: jax.Array) -> jax.Array:
        return {"full": lambda: block, "diagonal": lambda: jnp.diagonal(block), "trace": lambda: jnp.trace(block)}[
            self.outputs
        ]()

    def _products(self, group: Group, one: dict[int, list[Piece]], other: dict[int, list[Piece]]) -> jax.Array:
        """Leaves that share their δ and δ′."""
        shared: tuple[str, jax.Array] | None = None
        for term in group.terms:
            letters, values = overlap(one[term.leaf][term.one], other[term.leaf][term.other], self.outputs)
            shared = letters, values if shared is None else shared[1] + values
        first = group.terms[0]
        mine, its = one[first.leaf][first.one], other[first.leaf][first.other]
        right = lettered(mine, own=True, outputs=self.outputs)[1], mine.right
        left = lettered(its, own=False, outputs=self.outputs)[1], its.right
        assert shared is not None
        return contract(shared, right, left, group.order, self.outputs)

    def pusher(self, params: Any, x: Any) -> Callable[[Any], jax.Array] | None:
        """J ẇ at one sample, of the tangents of the leaves that are pushed forward."""
        leaves = self.choice.of("vectors")
        if not leaves:
            return None
        given, tree = jax.tree.flatten(params)

        def of_leaves(chosen: list[jax.Array]) -> Any:
            full = [*given]
            for leaf, value in zip(leaves, chosen, strict=True):
                full[leaf] = value
            return self.basis.fun(tree.unflatten(full), x)

        push = linearize(of_leaves, [given[leaf] for leaf in leaves])[1]

        def pushed(tangents: Any) -> jax.Array:
            with refused_in_words("forward", "this function", 'Leave mode="vectors" out.'):
                return self.basis.space.flatten(push(tangents))

        return pushed

    def __call__(self, params: Any, xs: Any, ys: Any, block: Block) -> jax.Array:
        """The blocks of all pairs."""
        rows = self.rows
        if block.at_once:
            others = rows.map(self.side, params, ys)
            ones = others if block.symmetric else rows.map(self.side, params, xs)
            axes = list(rows.axes)

            def row(x: Any, one: list[jax.Array]) -> jax.Array:
                push = self.pusher(params, x)
                return jax.vmap(
                    lambda _, other: self.pair(push, rows.unflatten(one), rows.unflatten(other)), (0, axes)
                )(jnp.arange(block.columns), others)

            return jax.vmap(row, (0, axes))(xs, ones)
        how = Pass(block.chunk)

        def of_row(number: jax.Array) -> jax.Array:
            x = sample_at(xs, number)
            push, one = self.pusher(params, x), self.side(params, x)
            return how.map(
                lambda n: self.pair(push, one, self.side(params, sample_at(ys, n))), jnp.arange(block.columns)
            )

        return how.map(of_row, jnp.arange(block.rows))

    def diagonal(self, params: Any, xs: Any, how: Pass) -> jax.Array:
        """The block of every sample with itself."""

        def of_sample(number: jax.Array) -> jax.Array:
            x = sample_at(xs, number)
            side = self.side(params, x)
            return self.pair(self.pusher(params, x), side, side)

        return how.map(of_sample, jnp.arange(len(jax.tree.leaves(xs)[0])))


def block_shape(basis: Basis, outputs: Outputs) -> tuple[int, ...]:
    """(m, m), (m,) or ()."""
    return (basis.space.size,) * len(OUTPUTS[outputs][1])
