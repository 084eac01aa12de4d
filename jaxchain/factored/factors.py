"""The two factors of a weight's derivative, and what can be had of them without multiplying them out.

A `Product` is the gradient G = Σ_t x_t ⊗ δ_t of one sample, a `Picked` the same where x_t is a row of the identity,
`Whole` a gradient that is no larger than its factors. Norms and inner products come from the factors, or from the
gradient itself, whichever takes fewer multiply-adds, counted exactly.

References: Goodfellow, Efficient per-example gradient computations, arXiv 1510.01799; Li, Tramèr, Liang and Hashimoto,
Large language models can be strong differentially private learners, ICLR 2022, arXiv 2110.05679.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxchain.coordinates import widest

__all__ = ["Factor", "Picked", "Product", "Whole", "explicit_cost", "ghost_cost", "inner", "squared", "squared_norm"]


@register_dataclass
@dataclass(frozen=True)
class Product:
    """G[n] = Σ_t left[n, t] ⊗ right[n, t]: (N, T, I) and (N, T, O) are (N, I, O)."""

    left: jax.Array
    right: jax.Array

    def gradient(self) -> jax.Array:
        """Multiplied out: (N, I, O)."""
        return jnp.einsum("nti,nto->nio", self.left, self.right)

    def scaled(self, by: float) -> Product:
        """The gradient times a number."""
        return self if by == 1 else Product(self.left, self.right * by)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """N, T, I, O."""
        n, t, rows = self.left.shape
        return n, t, rows, self.right.shape[-1]

    @property
    def transposed(self) -> Product:
        """The same gradient, rows for columns."""
        return Product(self.right, self.left)


@register_dataclass
@dataclass(frozen=True)
class Picked:
    """G[0] = Σ_t e_{index_t} ⊗ right[0, t], of so many ``rows``: (1, T) and (1, T, O) are (1, I, O)."""

    index: jax.Array
    right: jax.Array
    rows: int = field(metadata={"static": True})

    def gradient(self) -> jax.Array:
        """The rows, each added where it belongs: (1, I, O)."""
        rows, width = self.rows, self.right.shape[-1]
        return jnp.zeros((rows, width), self.right.dtype).at[self.index[0]].add(self.right[0], mode="drop")[None]

    def scaled(self, by: float) -> Picked:
        """The gradient times a number."""
        return self if by == 1 else Picked(self.index, self.right * by, self.rows)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """N, T, I, O."""
        return 1, self.index.shape[1], self.rows, self.right.shape[-1]


@register_dataclass
@dataclass(frozen=True)
class Whole:
    """The gradient of the operand itself."""

    value: jax.Array

    def gradient(self) -> jax.Array:
        """As it is."""
        return self.value


Factor = Product | Picked | Whole
"""What one sample's gradient at a site is made of."""

Thin = Product | Picked
"""Those whose gradient is larger than they are."""


def explicit_cost(factors: Sequence[Thin]) -> float:
    """Multiply-adds of multiplying factors out, adding up and squaring the gradient."""
    cost = 0.0
    for factor in factors:
        n, t, rows, columns = factor.sizes
        cost += n * t * columns * (rows if isinstance(factor, Product) else 1)
    n, _, rows, columns = factors[0].sizes
    return cost + len(factors) * n * rows * columns


def ghost_cost(factors: Sequence[Thin]) -> float:
    """Multiply-adds of the norm of a sum of products from the inner products of its factors."""
    n, _, rows, columns = factors[0].sizes
    picked = any(isinstance(factor, Picked) for factor in factors)
    times = sum(factor.sizes[1] for factor in factors)
    # Of one position alone the pairs are norms; of several each pair of positions counts, for both factors.
    return float(n * times**2 * ((1 if picked else rows) + columns + 1))


def squared_norm(factors: Sequence[Thin]) -> jax.Array:
    """‖Σ_s G_s‖² of several sites' factors of one leaf, which all have its rows as rows."""
    if ghost_cost(factors) <= explicit_cost(factors):
        together = _joined(factors)
        first, *rest = (inner(one, one) for one in together)
        return sum((*rest, *(2 * inner(one, other) for one, other in combinations(together, 2))), first)
    return squared(sum((factor.gradient() for factor in factors[1:]), factors[0].gradient()))


def _joined(factors: Sequence[Thin]) -> list[Thin]:
    """Products of one leaf as one, of all their positions."""
    products = [factor for factor in factors if isinstance(factor, Product)]
    picked: list[Thin] = [factor for factor in factors if isinstance(factor, Picked)]
    if len(products) < 2:
        return [*picked, *products]
    left, right = (jnp.concatenate([getattr(one, side) for one in products], 1) for side in ("left", "right"))
    return [*picked, Product(left, right)]


def inner(one: Thin, other: Thin) -> jax.Array:
    """⟨G, G′⟩ = Σ_{t,t′} (x_t · x′_t′)(δ_t · δ′_t′), a real number."""
    if isinstance(one, Product) and one is other and one.sizes[1] == 1:
        return jnp.sum(_rows_squared(one.left) * _rows_squared(one.right))
    return jnp.sum((_left(one, other) * _right(one, other)).real)


def _rows_squared(rows: jax.Array) -> jax.Array:
    return jnp.einsum("nti,nti->nt", rows, rows.conj(), preferred_element_type=wide(rows.dtype)).real


def _right(one: Thin, other: Thin) -> jax.Array:
    """δ_t · δ′_t′: (N, T, T′)."""
    return _pairs(one.right, other.right)


def _left(one: Thin, other: Thin) -> jax.Array:
    """x_t · x′_t′: (N, T, T′)."""
    match one, other:
        case Product(), Product():
            return _pairs(one.left, other.left)
        case Picked(), Picked():
            return one.index[:, :, None] == other.index[:, None, :]
        case Picked(), Product():
            return jnp.take_along_axis(other.left, one.index[:, None, :], 2).conj().mT
        case _:
            return _left(other, one).conj().mT


def _pairs(rows: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.einsum("nti,nsi->nts", rows, others.conj(), preferred_element_type=wide(rows.dtype, others.dtype))


def squared(gradient: jax.Array) -> jax.Array:
    """The sum of the squares of all entries, a real number."""
    flat = gradient.reshape(-1)
    return jnp.einsum("i,i->", flat, flat.conj(), preferred_element_type=wide(flat.dtype)).real


def wide(*dtypes: Any) -> Any:
    """The dtype in which products are added up: that of half the precision is too coarse for sums."""
    return widest(jnp.float32, *dtypes)
