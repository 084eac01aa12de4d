"""Gradients of several cotangents of each sample, leaf by leaf and still factored: squares of their entries, and norms.

Of a leaf whose sites all see the same rows and columns there are factors (rights with an axis of cotangents, lefts
without one), of any other leaf its gradients. Squares come from pairs of positions, Σ_{t,t′} x_t x_t′ Σ_j w_j δ_jt δ_jt′, or
from the gradients themselves, whichever takes fewer multiply-adds.

Reference: Dangel, Kunstner and Hennig, BackPACK, ICLR 2020, arXiv 1912.10985, app. A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.factored.axis import one_of
from jaxchain.factored.factors import Factor, Picked, Product, Whole, explicit_cost, ghost_cost, squared_norm, wide
from jaxchain.factored.function import Evaluated, Factored, Leaf
from jaxchain.factored.sites import Site

__all__ = [
    "Choice",
    "always",
    "for_norms",
    "for_squares",
    "leaf_factor",
    "matrices",
    "norms",
    "spread",
    "squares",
    "to_leaf",
]


def leaf_factor(function: Factored, leaf: Leaf, factors: Sequence[Factor]) -> Factor:
    """All that a leaf's sites add to its gradient, in one: a product in the axes of its first site, or the gradient."""
    thin = function.alike(leaf, factors)
    if thin is not None:
        if all(
            isinstance(one, Product) and one.left is _left(factors[k]) for one, k in zip(thin, leaf.sites, strict=True)
        ):
            return Product(*(jnp.concatenate([getattr(one, side) for one in thin], 1) for side in ("left", "right")))
        if all(isinstance(one, Picked) for one in thin):
            index, right = (jnp.concatenate([getattr(one, side) for one in thin], 1) for side in ("index", "right"))
            return Picked(index, right, thin[0].sizes[2])
    return Whole(function.leaf_gradient(leaf, factors))


def _left(factor: Factor) -> jax.Array | None:
    """The factor made of the data; of a weight that is also used transposed, sides have been exchanged."""
    return factor.left if isinstance(factor, Product) else None


Choice = Callable[[Product, int], bool]
"""Whether a weight's gradients of so many cotangents are better multiplied out for what is to be made of them."""


def never(factor: Product, cotangents: int) -> bool:
    """Where the factors themselves are wanted."""
    del factor, cotangents
    return False


def always(factor: Product, cotangents: int) -> bool:
    """Where the gradients are wanted."""
    del factor, cotangents
    return True


def for_squares(factor: Product, cotangents: int) -> bool:
    """Where squares of entries are: pairs of positions take the more, the fewer the cotangents."""
    return _better_multiplied(*factor.sizes[1:], cotangents)


def _better_multiplied(t: int, rows: int, columns: int, cotangents: int) -> bool:
    pairs = t * (t + 1) // 2 * (rows * columns + columns + rows) + cotangents * t**2 * columns
    return pairs > cotangents * (t + 1) * rows * columns


def for_norms(factor: Product, cotangents: int) -> bool:
    """Where norms are: each pair of positions counts, for both factors."""
    del cotangents
    return ghost_cost([factor]) > explicit_cost([factor])


def spread(
    function: Factored, parts: Sequence[Leaf], done: Evaluated, cotangents: Any, multiplied: Choice = never
) -> list[Factor]:
    """One factor a part of a leaf, of several cotangents (m, …): axes of m in front of rights and gradients."""
    if not parts:  # no leaf is used
        return []
    deltas = jax.vmap(done.pull)(cotangents)
    count = len(jax.tree.leaves(cotangents)[0])

    def of_part(part: Leaf, factors: list[Factor], deltas: Sequence[jax.Array]) -> Factor:
        k = part.sites[0]
        factor = leaf_factor(function, part, factors)
        if len(part.sites) == 1 and isinstance(factor, Product) and multiplied(factor, count):
            # Some gradients, as a convolution's, take less than to make them of factors.
            factors[k] = function.sites[k].multiplied(done.values[k], deltas[k]) or factors[k]
            return leaf_factor(function, part, factors)
        return factor

    def of_one(deltas: Sequence[jax.Array]) -> list[Factor]:
        factors = function.factors(done.values, deltas)
        return [of_part(part, factors, deltas) for part in parts]

    made = jax.eval_shape(of_one, one_of(deltas))
    return jax.vmap(of_one, out_axes=[_axes(factor) for factor in made])(deltas)


def _axes(factor: Factor) -> Any:
    match factor:
        case Product():
            return Product(None, 0)  # pyright: ignore[reportArgumentType]
        case Picked():
            return Picked(None, 0, factor.rows)  # pyright: ignore[reportArgumentType]
        case Whole():
            return Whole(0)  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------- of a batch: an axis of samples before all others


def squares(function: Factored, leaf: Leaf, factor: Factor, weights: jax.Array) -> jax.Array:
    """Σ over samples b and cotangents j of w_bj G_bj², entry by entry, like the leaf."""
    if isinstance(factor, Whole):
        return _squared(_wide(factor.value), weights)
    site = function.sites[leaf.sites[0]]
    return to_leaf(site, _of_product(factor, weights) if isinstance(factor, Product) else _of_picked(factor, weights))


def to_leaf(site: Site, matrix: jax.Array) -> jax.Array:
    """Blocks, rows and columns (N, I, O) of a leaf, as a site has them, moved to where the leaf has them."""
    return site.laid_back(matrix, factored=True) / (site.layout.scale or 1)  # a leaf's factors have its scale already


def _of_product(factor: Product, weights: jax.Array) -> jax.Array:
    left, right = _wide(factor.left), _wide(factor.right)
    t, rows = left.shape[2:]
    if _better_multiplied(t, rows, right.shape[-1], right.shape[1]):
        return _squared(_multiplied(Product(left, right)), weights)
    # Cotangents are added up first, so that a weight is met once a pair of positions, not once a cotangent and position.
    together = jnp.einsum("bjnto,bjnso->bntso", right * jnp.expand_dims(weights, (2, 3, 4)), right)
    if t == 1:
        return jnp.einsum("bnti,bntso->nio", left**2, together)
    first, second = np.triu_indices(t)
    pairs = left[:, :, first] * left[:, :, second] * np.where(first == second, 1, 2)[:, None]
    return jnp.einsum("bnpi,bnpo->nio", pairs, together[:, :, first, second])


def _multiplied(factor: Product | Picked) -> jax.Array:
    """Gradients (B, m, N, I, O)."""
    return jax.vmap(jax.vmap(lambda one: one.gradient(), in_axes=(_axes(factor),)))(factor)


def _squared(gradients: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ_bj w_bj G_bj² of gradients (B, m, …), nothing kept on the way."""
    return jnp.sum(jnp.expand_dims(weights, range(2, gradients.ndim)) * gradients**2, (0, 1))


def _of_picked(factor: Picked, weights: jax.Array) -> jax.Array:
    """Σ over t and t′ that pick the same row: each adds to that row alone."""
    right, index = _wide(factor.right)[:, :, 0], factor.index[:, 0]  # (b, j, t, o), (b, t)
    if index.shape[1] ** 2 > 2 * factor.rows:
        return _squared(_multiplied(Picked(factor.index, right[:, :, None], factor.rows)), weights)
    same = (index[:, :, None] == index[:, None, :]).astype(right.dtype)
    together = jnp.einsum("bts,bjso->bjto", same, right)
    each = jnp.einsum("bj,bjto,bjto->bto", weights, right, together)
    zeros = jnp.zeros((factor.rows, each.shape[-1]), each.dtype)
    return zeros.at[index.reshape(-1)].add(each.reshape(-1, each.shape[-1]), mode="drop")[None]


def norms(factor: Factor, weights: jax.Array) -> jax.Array:
    """Σ over samples and cotangents of w_bj ‖G_bj‖², a number."""

    def of_one(factor: Factor) -> jax.Array:
        return jnp.sum(_wide(factor.value) ** 2) if isinstance(factor, Whole) else squared_norm([factor])

    each = jax.vmap(jax.vmap(of_one, in_axes=(_axes(factor),)))(factor)
    return jnp.sum(weights * each)


def matrices(function: Factored, leaf: Leaf, factor: Factor) -> jax.Array:
    """Gradients of samples and cotangents, flat: (B, m, n)."""

    def of_one(factor: Factor) -> jax.Array:
        if isinstance(factor, Whole):
            return factor.value.reshape(-1)
        site = function.sites[leaf.sites[0]]
        return to_leaf(site, factor.gradient()).reshape(-1)

    return jax.vmap(jax.vmap(of_one, in_axes=(_axes(factor),)))(factor)


def _wide(array: jax.Array) -> jax.Array:
    return array.astype(wide(array.dtype))
