"""The axis of samples in a pytree: how many there are, one of them, and what is summed over all, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.checks import check_arrays
from jaxchain.program.reading import abstract
from jaxchain.show.shapes import describe

__all__ = ["one_of", "sample_at", "samples_in", "summed"]


def samples_in(batch: Any, name: str = "The batch") -> int:
    """How many samples a batch has, once its leaves agree; ``name`` is what it is called. Leaves may be shapes."""
    check_arrays(batch, name)
    inside, first = name[0].lower() + name[1:], None
    for path, leaf in tree_flatten_with_path(batch)[0]:
        shape = leaf.shape if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.shape(leaf)
        where = f"{name}{keystr(path)} is {describe(leaf)}"
        if not shape:
            msg = f"{where}, which has no axis of samples. Every leaf of {inside} has its samples along its first axis; close over what all samples share."
            raise ValueError(msg)
        if first is not None and shape[0] != first[0]:
            msg = f"{where}, of {shape[0]} samples along its first axis, but {inside}{first[1]} has {first[0]}. Close over what all samples share."
            raise ValueError(msg)
        first = first or (shape[0], keystr(path))
    if first is None:
        msg = f"{name} holds no array, so there are no samples."
        raise TypeError(msg)
    return first[0]


def sample_at(samples: Any, number: Any) -> Any:
    """One sample, by its number."""
    return jax.tree.map(lambda leaf: leaf[number], samples)


def one_of(samples: Any) -> Any:
    """The shapes of one sample, of several or of their shapes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), abstract(samples))


def summed(of_some: Callable[[Any], tuple[Any, Any]], samples: Any, count: int, size: int | None) -> tuple[Any, Any]:
    """What ``of_some`` sums over samples, ``size`` of them at once, added up; and what it says of each, put together.

    ``samples`` is a pytree with ``count`` samples along leading axes; ``of_some`` returns a pair of the sums and of
    a pytree with an entry for each sample, or ``None``.
    """
    if size is None or size >= count:
        return of_some(samples)
    whole = count // size * size
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), samples)
    made = jax.eval_shape(of_some, sample_at(chunks, 0))[0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)

    def step(sums: Any, chunk: Any) -> tuple[Any, Any]:
        more, each = of_some(chunk)
        return jax.tree.map(jnp.add, sums, more), each

    sums, each = jax.lax.scan(step, zeros, chunks)
    each = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), each)
    if whole < count:
        more, rest = of_some(sample_at(samples, slice(whole, None)))
        sums, each = jax.tree.map(jnp.add, sums, more), jax.tree.map(lambda *part: jnp.concatenate(part), each, rest)
    return sums, each
