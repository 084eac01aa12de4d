"""Where training data come from: samples in arrays, shuffled into batches, or ready batches.

Either way a chunk is a part that stays (``fixed``) and one entry a step (``each``), and a ``pick``
makes the step's batch of the two inside the compiled scan. Builds on JAX alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.tree_util import keystr, tree_leaves_with_path

from jaxchain.checks import check_arrays, integer, random_key, shown
from jaxchain.meshes import check_divides, on_host, placed, spread

__all__ = ["Chunk", "Pick", "Split", "source"]

Pick = Callable[[Any, Any], Any]


@partial(jax.tree_util.register_dataclass, data_fields=["fixed", "each"], meta_fields=[])
@dataclass(frozen=True)
class Chunk:
    """Data of some consecutive steps: what they share, and what each adds (leading axis the steps)."""

    fixed: Any
    each: Any

    def first(self, count: int) -> Chunk:
        """The data of the first ``count`` steps."""
        return Chunk(self.fixed, jax.tree.map(lambda leaf: leaf[:count], self.each))


def whole(data: Any, _: Any) -> Any:
    """Full batch."""
    return data


def take(data: Any, index: jax.Array) -> Any:
    """A minibatch of the samples at ``index``."""
    return jax.tree.map(lambda leaf: leaf[index], data)


def ready(_: Any, batch: Any) -> Any:
    """A batch that came ready-made."""
    return batch


def source(
    data: Any, batch_size: int | None, key: jax.Array | None, *, steps: int, room: Callable[[int], int]
) -> tuple[Pick, Iterator[Chunk]]:
    """How to pick a batch, and the chunks to pick it from; after n steps ``room(n)`` fit into the next one.

    Raises
    ------
    ValueError, TypeError
        As `jaxchain.train.fit`, whose arguments these are.
    """
    if _is_stream(data):
        if batch_size is not None:
            msg = f"data is an iterable of ready batches, so batch_size={batch_size} has no meaning; leave it out."
            raise ValueError(msg)
        return ready, _stream(data, steps, room)
    data, samples = _table(data)
    lengths = _lengths(steps, room)
    if batch_size is None:
        return whole, (Chunk(data, np.zeros((length, 0))) for length in lengths)
    size: int = integer("batch_size", batch_size, "how many of the samples a step takes", least=1, most=samples)
    if key is None:
        msg = "Minibatches are shuffled by an explicit key: pass key=jax.random.key(0), or leave batch_size out for full batches."
        raise TypeError(msg)
    order = _shuffled(random_key(key), samples)
    return take, (
        Chunk(data, np.fromiter(itertools.islice(order, length * size), np.int32).reshape(length, size))
        for length in lengths
    )


@dataclass(frozen=True)
class Split:
    """A pick whose batch lies on devices split by its samples; as a static argument known by its value."""

    pick: Pick
    sharding: Sharding

    def __call__(self, fixed: Any, each: Any) -> Any:
        """A step's batch."""
        return jax.tree.map(self._leaf, self.pick(fixed, each))

    def _leaf(self, leaf: Any) -> Any:
        if not np.ndim(leaf):  # a random key, a weight of the whole batch
            return leaf
        check_divides("A batch", len(leaf), self.sharding)
        return spread(leaf, self.sharding)

    def placed(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks with every step's samples, or where steps share them all of them, on the devices."""
        fixed = None
        for chunk in chunks:
            if not jax.tree.leaves(chunk.fixed):  # a step brings its own
                yield Chunk(chunk.fixed, placed(chunk.each, self.sharding, 1))
                continue
            fixed = placed(chunk.fixed, self.sharding, 0) if fixed is None else fixed
            yield Chunk(fixed, chunk.each)


def _lengths(steps: int, room: Callable[[int], int]) -> Iterator[int]:
    done = 0
    while done < steps:
        length = min(room(done), steps - done)
        done += length
        yield length


def _shuffled(key: jax.Array, samples: int) -> Iterator[int]:
    """Sample numbers, without replacement within an epoch, epoch after epoch, without end."""
    for epoch in itertools.count():
        yield from np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), samples)).tolist()


def _is_stream(data: Any) -> bool:
    if isinstance(data, list):
        if any(hasattr(item, "shape") for item in data):
            msg = (
                "A list of arrays could be samples or batches. Put arrays whose leading axis is the samples in a tuple or dict; "
                "pass ready batches as an iterator: iter(batches)."
            )
            raise TypeError(msg)
        return True
    if isinstance(data, Iterator):
        return True
    if not jax.tree_util.all_leaves([data]) or hasattr(data, "shape"):
        return False
    if not isinstance(data, Iterable):
        msg = f"data must be a pytree of arrays or an iterable of batches, but {shown(data)} was given."
        raise TypeError(msg)
    return True


def _table(data: Any) -> tuple[Any, int]:
    leaves = tree_leaves_with_path(data)
    if not leaves:
        msg = "data holds no array, so there is nothing to train on."
        raise ValueError(msg)
    check_arrays(data, "data")
    counts = {keystr(path) or "data": np.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(counts.values())) != 1 or () in counts.values():
        msg = f"Every array in data needs the same number of samples on its leading axis, but they have {counts}."
        raise ValueError(msg)
    if next(iter(counts.values())) == (0,):
        msg = "data holds no sample, so there is nothing to train on."
        raise ValueError(msg)
    _refuse_nonfinite(data, "samples")
    return jax.tree.map(jnp.asarray, data), next(iter(counts.values()))[0]


def _stream(data: Iterable[Any], steps: int, room: Callable[[int], int]) -> Iterator[Chunk]:
    """Ready batches, stacked as long as their shapes agree; begun again while they can be."""
    batches = itertools.islice(_again(data), steps)
    done = 0
    for _, alike in itertools.groupby(batches, key=_signature):
        while stack := list(itertools.islice(alike, room(done))):
            each = jax.tree.map(_stacked, *stack)
            _refuse_nonfinite(each, "batches", first=done)
            done += len(stack)
            yield Chunk((), each)
    if not done:
        msg = "data gave no batch, so there is nothing to train on."
        raise ValueError(msg)


def _stacked(*leaves: Any) -> Any:
    """Of several steps one array, on the host unless other processes hold parts of it."""
    return (np.stack if all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves) else jnp.stack)(leaves)


def _signature(batch: Any) -> str:
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), np.result_type(leaf)), batch))


def _again(data: Iterable[Any]) -> Iterator[Any]:
    while True:
        count = 0
        for batch in data:
            count += 1
            yield batch
        if not count:
            return


def _refuse_nonfinite(data: Any, unit: str, first: int = 0) -> None:
    for path, leaf in tree_leaves_with_path(data):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        finite = on_host(jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1))
        if not finite.all():
            where = f" at {keystr(path)}" if path else ""
            bad = np.flatnonzero(~finite)
            msg = f"data{where} holds NaN or infinity in {bad.size} of {finite.size} {unit}, first in number {first + bad[0]}. Drop or fill them."
            raise ValueError(msg)
