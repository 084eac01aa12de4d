"""Likelihoods of outputs that are natural parameters: −log p(y | z) = A(z) − ⟨s(y), z⟩, up to what no output changes.

The second derivative of A alone is then the curvature of the loss and Fisher's information, whatever y is; each family
gives it as S Sᵀ with as few columns as it has rank.

References: Amari, Information Geometry and its Applications, 2016, ch. 2; Tanabe and Sagae, An exact Cholesky
decomposition of the variance-covariance matrix of the multinomial distribution, J. R. Stat. Soc. B 54 (1), 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

__all__ = ["LIKELIHOODS", "Family"]


@dataclass(frozen=True)
class Family:
    """An exponential family, as functions of one sample's output z, an array of any shape.

    Attributes
    ----------
    partition
        A(z), a number.
    root
        S, its columns along the first axis: (m, *z.shape), with A″ = S Sᵀ.
    draw
        ``draw(key, z)``: s(y) of a drawn y, like z.
    statistic
        ``statistic(y, z)``: s(y), like z.
    shape
        Of the y that belongs to an output of some shape.
    """

    partition: Callable[[jax.Array], jax.Array]
    root: Callable[[jax.Array], jax.Array]
    draw: Callable[[jax.Array, jax.Array], jax.Array]
    statistic: Callable[[jax.Array, jax.Array], jax.Array] = lambda y, z: y.astype(z.dtype)
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] = lambda shape: shape


def _one_hot(y: jax.Array, z: jax.Array) -> jax.Array:
    return jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)


def _categorical_root(z: jax.Array) -> jax.Array:
    """Columns of the Cholesky factor of diag(p) − p pᵀ, whose last is zero and left out; of each position by itself."""
    p = jax.nn.softmax(z)
    rest = jnp.flip(jnp.cumsum(jnp.flip(p, -1), -1), -1)  # of each class and all after it
    # Rounded, the rest after a class may vanish before the classes do, and so do then their columns.
    before, after = rest[..., :-1], rest[..., 1:]
    known = (before > 0) & (after > 0)
    safe = [jnp.where(known, part, 1) for part in (before, after)]
    share = jnp.where(known, p[..., :-1] / safe[0], 0)  # (..., C − 1)
    diagonal = _root(share * after)
    below = -_root(share / safe[1])[..., None] * p[..., None, :]  # (..., column, row)
    column, row = jnp.arange(z.shape[-1] - 1)[:, None], jnp.arange(z.shape[-1])[None, :]
    columns = jnp.where(row == column, diagonal[..., None], jnp.where(row > column, below, 0))
    return _apart(columns, z.shape)


def _root(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 is 0, for there is nothing to move."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _apart(columns: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Columns (*positions, m, C) of each position, as those of all: (positions · m, *positions, C)."""
    count, classes = columns.shape[-2:]
    flat = columns.reshape(-1, count, classes)
    spread = jnp.einsum("tmc,ts->tmsc", flat, jnp.eye(len(flat), dtype=columns.dtype))
    return spread.reshape(-1, *shape)


def _entrywise_root(second: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """S of a family whose entries are independent: a diagonal."""
    return lambda z: jnp.diag(_root(second(z)).reshape(-1)).reshape(-1, *z.shape)


def _bernoulli_variance(z: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)


def _drawn_class(key: jax.Array, z: jax.Array) -> jax.Array:
    return _one_hot(jax.random.categorical(key, z), z)


LIKELIHOODS: dict[str, Family] = {
    "categorical": Family(
        lambda z: jnp.sum(jax.nn.logsumexp(z, axis=-1)),
        _categorical_root,
        _drawn_class,
        _one_hot,
        lambda shape: shape[:-1],
    ),
    "gaussian": Family(
        lambda z: jnp.sum(z**2) / 2,
        _entrywise_root(jnp.ones_like),
        lambda key, z: z + jax.random.normal(key, z.shape, z.dtype),
    ),
    "bernoulli": Family(
        lambda z: jnp.sum(jax.nn.softplus(z)),
        _entrywise_root(_bernoulli_variance),
        lambda key, z: jax.random.bernoulli(key, jax.nn.sigmoid(z)).astype(z.dtype),
    ),
    "poisson": Family(
        lambda z: jnp.sum(jnp.exp(z)),
        _entrywise_root(jnp.exp),
        lambda key, z: jax.random.poisson(key, jnp.exp(z)).astype(z.dtype),
    ),
}
"""Name → its family: logits of classes along the last axis, means of variance one, log-odds, logarithms of rates."""
