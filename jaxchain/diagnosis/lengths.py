"""Euclidean norms inside a compiled step, without overflow on the way.

Squares leave float32 beyond 1e±19, where gradients that vanish are found, though no states. So a cotangent is taken in
units of about its largest entry; a gradient, which has many more entries, in units of the cotangent that it comes from: that
is no further pass over it. (In units of one another, down the chain, XLA would compute every unit anew in each later
norm's loop: compiling took ten times as long.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import is_float0, is_inexact, widest

__all__ = ["cosine", "counts", "inexact", "length", "peak", "unit"]

SPAN = 40
"""Units are within 2^±40, so that what is within a factor of 1e±7 of one is squared in float32 even at the ends."""


SMALL = 4096
"""Up to so many entries an array is not worth a loop of its own: such are put together first."""

LOOKED_AT = 1024
"""Entries among which the largest is looked for: a unit is right within many powers of ten."""


def inexact(tree: Any) -> list[Any]:
    """The leaves that carry a derivative, as arrays."""
    leaves = jax.tree.leaves(tree)
    return [
        leaf if hasattr(leaf, "size") else jnp.asarray(leaf)
        for leaf in leaves
        if not is_float0(leaf) and is_inexact(leaf)
    ]


def real_dtype(tree: Any) -> Any:
    """Of the norm of a tree: float32, or float64 where a leaf is."""
    return widest(jnp.float32, *(jnp.finfo(jax.typeof(leaf).dtype).dtype for leaf in inexact(tree)))


def unit(norm: jax.Array | None) -> jax.Array:
    """A power of two near a norm, so that dividing by it rounds nothing; 1 of what is zero or not finite."""
    if norm is None:
        return jnp.ones(())
    exponent = 11 if norm.dtype == jnp.float64 else 8
    known = jnp.where(jnp.isfinite(norm) & (norm > 0), norm, 1)
    return jax.lax.reduce_precision(jnp.clip(known, 2.0**-SPAN, 2.0**SPAN), exponent, 0)


def peak(tree: Any) -> jax.Array:
    """About the largest magnitude of an entry, of some rows where there are many entries; 0 of nothing."""
    found = jnp.zeros((), real_dtype(tree))
    for leaf in inexact(tree):
        if leaf.size:
            some = leaf[:: max(1, min(leaf.size // LOOKED_AT, len(leaf)))] if leaf.ndim else leaf
            found = jnp.maximum(found, jnp.max(jnp.abs(some)).astype(found.dtype))
    return found


def length(tree: Any, near: jax.Array | None = None) -> jax.Array:
    """Euclidean norm of all entries, a scalar; ``near`` is a norm of about that size. NaN stays NaN; of nothing it is 0."""
    dtype, one = real_dtype(tree), unit(near)
    inverse = (1 / one).astype(dtype)  # exact: it is a power of two
    total = jnp.zeros((), dtype)
    leaves = [(jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf).astype(dtype) for leaf in inexact(tree)]
    small, large = (
        [leaf.ravel() for leaf in leaves if leaf.size <= SMALL],
        [leaf for leaf in leaves if leaf.size > SMALL],
    )
    for leaf in [*large, *([jnp.concatenate(small)] if small else [])]:
        total = total + jnp.sum(jnp.square(leaf * inverse))
    return (jnp.sqrt(total) * one).astype(dtype)


def cosine(a: Any, b: Any, norms: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Of the angle between two trees of arrays with these norms; NaN where one is zero."""
    units = [1 / unit(norm) for norm in norms]
    product = jnp.zeros((), real_dtype([a, b]))
    for x, y in zip(inexact(a), inexact(b), strict=True):
        wide = [leaf if jnp.iscomplexobj(leaf) else leaf.astype(product.dtype) for leaf in (x, y)]
        product = product + jnp.real(jnp.vdot(wide[0] * units[0], wide[1] * units[1]))
    return product / (norms[0] * units[0]) / (norms[1] * units[1])


def counts(tree: Any, edges: tuple[float, ...]) -> jax.Array:
    """How many magnitudes are zero, then how many lie from each edge up to the next, and from the last on; float32."""
    zero, total = jnp.zeros(()), jnp.zeros((len(edges),))
    for leaf in inexact(tree):
        size = jnp.abs(leaf).astype(real_dtype(leaf))
        zero = zero + jnp.sum(size == 0, dtype=jnp.float32)
        # Not below rather than above: NaN is then counted with the largest.
        above = jnp.stack([jnp.sum(~(size < edge), dtype=jnp.float32) for edge in edges])
        total = total + above.at[0].add(-jnp.sum(size == 0, dtype=jnp.float32))
    return jnp.concatenate([zero[None], total[:-1] - total[1:], total[-1:]])
