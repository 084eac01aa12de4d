"""Kronecker factors, made of samples' factored gradients: which sites are one block, and the two second moments of each.

Weights of several positions are taken in one of the two conventions of Eschenhagen et al. A bias that is added to what a
weight makes is a row more of the weight, whose x is 1.

References: Martens and Grosse, ICML 2015, arXiv 1503.05671; Eschenhagen, Immer, Turner, Schneider and Hennig, NeurIPS
2023, arXiv 2311.00636.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.checks import word
from jaxchain.factored.factors import Factor, Picked, Product, wide
from jaxchain.factored.function import Evaluated, Factored, Leaf
from jaxchain.gauss_newton.kronecker import Kronecker, KroneckerBlock
from jaxchain.gauss_newton.parts import bias_of, number_of
from jaxchain.gauss_newton.spread import spread, squares

__all__ = ["Making", "making"]

SHARED = ("expand", "reduce")


@dataclass(frozen=True, eq=False)
class Making:
    """What is to be made: parts, and the bias that belongs to each, if any."""

    function: Factored
    parts: tuple[Leaf, ...]
    biases: tuple[Leaf | None, ...]
    params: Any
    shared: str

    def make(self, done: Evaluated, cotangents: Any) -> list[Factor]:
        """The factors of one sample's columns."""
        return spread(self.function, self.parts, done, cotangents)

    def total(self, made: Sequence[Factor], weights: jax.Array) -> list[tuple[jax.Array | None, jax.Array]]:
        """Left and right factors of some samples, summed."""
        return [self._factors(*given, weights) for given in zip(self.parts, self.biases, made, strict=True)]

    def _factors(
        self, part: Leaf, bias: Leaf | None, factor: Factor, weights: jax.Array
    ) -> tuple[jax.Array | None, jax.Array]:
        match factor:
            case Product():
                left, right = factor.left, factor.right
                if bias is not None:  # what is added is not scaled as the weight is
                    scale = self.function.sites[part.sites[0]].layout.scale or 1
                    left = jnp.concatenate([left, jnp.full_like(left[..., :1], 1 / scale)], -1)
                if self.shared == "reduce":
                    left, right = jnp.mean(left, 2, keepdims=True), jnp.sum(right, 3, keepdims=True)
                return _second_moment(left), _of_cotangents(right, weights)
            case Picked():
                share = (
                    jnp.zeros((1, factor.rows), weights.dtype)
                    .at[0, factor.index.reshape(-1)]
                    .add(1 / factor.index.shape[-1])
                )
                return share, _of_cotangents(factor.right, weights)
            case _:
                return None, squares(self.function, part, factor, weights)

    def finish(self, sums: Sequence[tuple[jax.Array | None, jax.Array]]) -> Kronecker:
        """The operator, once the factors are means."""
        function = self.function
        blocks: list[KroneckerBlock] = []
        for part, bias, (left, right) in zip(self.parts, self.biases, sums, strict=True):
            site = function.sites[part.sites[0]]
            leaves = (part,) if bias is None else (part, bias)
            numbers = tuple(number_of(function, leaf) for leaf in leaves)
            blocks.append(
                KroneckerBlock(tuple(leaf.path for leaf in leaves), site.stage, site.kind, left, right, part, numbers)
            )
        return Kronecker(tuple(blocks), function, self.params)


def _second_moment(left: jax.Array) -> jax.Array:
    """Σ_b of the mean over positions of x xᵀ: (N, I, I)."""
    return jnp.einsum("bnti,bntk->nik", left, left, preferred_element_type=wide(left.dtype)) / left.shape[2]


def _of_cotangents(right: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ over samples, cotangents and positions of w δ δᵀ: (N, O, O)."""
    right = right.astype(wide(right.dtype))
    return jnp.einsum("bj,bjnto,bjntp->nop", weights.astype(right.dtype), right, right)


def making(function: Factored, parts: tuple[Leaf, ...], params: Any, x: Any, shared: Any) -> Making:
    """What is to be made of each sample.

    Raises
    ------
    ValueError
        If ``shared`` is no known convention.
    """
    word("convention for shared weights", shared, SHARED)
    factors = function.shapes(params, x)
    biases = [bias_of(function, part, factors[part.sites[0]]) for part in parts]
    taken = {bias.sites for bias in biases if bias is not None}
    kept = [(part, bias) for part, bias in zip(parts, biases, strict=True) if part.sites not in taken]
    return Making(function, tuple(part for part, _ in kept), tuple(bias for _, bias in kept), params, shared)
