"""Matrices kept as what they are: an identity vanishes, a diagonal scales, the rest is multiplied."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import widest

__all__ = ["Dense", "Diagonal", "Identity", "Matrix", "multiply", "scattered"]


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
        at = np.arange(len(self.entries))
        return scattered(at, at, self.entries, (len(at), len(at)))


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
    dtype = widest(left.entries.dtype, right.entries.dtype)
    a, b = left.entries.astype(dtype), right.entries.astype(dtype)
    if isinstance(left, Diagonal):
        return Diagonal(a * b) if isinstance(right, Diagonal) else Dense(a[:, None] * b)
    return Dense(a * b[None, :] if isinstance(right, Diagonal) else a @ b)


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
