"""Matrices kept as what they are: an identity vanishes, a diagonal scales, the rest is multiplied."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

__all__ = ["Dense", "Diagonal", "Identity", "Matrix", "multiply"]


@dataclass(frozen=True)
class Identity:
    """I, (n, n)."""

    size: int
    dtype: jax.typing.DTypeLike

    def dense(self) -> jax.Array:
        """All its entries."""
        return jnp.eye(self.size, dtype=self.dtype)


@dataclass(frozen=True)
class Diagonal:
    """diag(entries), (n, n)."""

    entries: jax.Array

    def dense(self) -> jax.Array:
        """All its entries: scattered, not multiplied out."""
        n = len(self.entries)
        at = jnp.arange(n)
        return (
            jnp.zeros((n, n), self.entries.dtype)
            .at[at, at]
            .set(self.entries, unique_indices=True, indices_are_sorted=True)
        )


@dataclass(frozen=True)
class Dense:
    """Any (m, n) matrix."""

    entries: jax.Array

    def dense(self) -> jax.Array:
        """All its entries."""
        return self.entries


Matrix = Identity | Diagonal | Dense


def multiply(left: Matrix, right: Matrix) -> Matrix:
    """The product, as cheaply as the factors' structure allows."""
    if isinstance(left, Identity):
        return right
    if isinstance(right, Identity):
        return left
    if isinstance(left, Diagonal):
        scaled = left.entries * right.entries if isinstance(right, Diagonal) else left.entries[:, None] * right.entries
        return Diagonal(scaled) if isinstance(right, Diagonal) else Dense(scaled)
    return Dense(left.entries * right.entries if isinstance(right, Diagonal) else left.entries @ right.entries)
