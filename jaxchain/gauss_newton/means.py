"""Means over samples, chunk by chunk: each chunk is summed, and the sums are added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["mean"]


def mean(
    of_some: Callable[[Any], tuple[Any, jax.Array]], samples: Any, count: int, size: int | None
) -> tuple[Any, jax.Array]:
    """The mean over samples of what ``of_some`` sums over some of them, ``size`` at once; beside it, an entry for each.

    ``samples`` is a pytree with ``count`` samples along leading axes; ``of_some`` returns a pair of the sums and of
    what it says of each sample.
    """
    if size is None or size >= count:
        sums, each = of_some(samples)
        return _over(sums, count), each
    whole = count // size * size
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), samples)
    first = jax.tree.map(lambda leaf: leaf[0], chunks)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_some, first)[0])

    def step(sums: Any, chunk: Any) -> tuple[Any, jax.Array]:
        more, each = of_some(chunk)
        return jax.tree.map(jnp.add, sums, more), each

    sums, each = jax.lax.scan(step, zeros, chunks)
    each = each.reshape(-1)
    if whole < count:
        more, rest = of_some(jax.tree.map(lambda leaf: leaf[whole:], samples))
        sums, each = jax.tree.map(jnp.add, sums, more), jnp.concatenate([each, rest])
    return _over(sums, count), each


def _over(sums: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: leaf / count, sums)
