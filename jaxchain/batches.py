"""Where training data come from: samples in arrays, shuffled into batches, or ready batches.

Either way a chunk is a part that stays (``fixed``) and one entry a step (``each``), and a ``pick``
makes the step's batch of the two inside the compiled scan. A source can begin in the middle, where a run that was
killed left it. Builds on JAX and fingerprints.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.tree_util import keystr, tree_leaves_with_path

from jaxchain.checks import check_arrays, integer, random_key, shown
from jaxchain.meshes import check_divides, on_host, placed, spread
from jaxchain.program.fingerprint import tree_digest

__all__ = ["Begun", "Chunk", "Pick", "Source", "Split", "source"]

Pick = Callable[[Any, Any], Any]


@partial(jax.tree_util.register_dataclass, data_fields=["fixed", "each"], meta_fields=[])
@dataclass(frozen=True)
class Chunk:
    """Data of some consecutive steps: what they share, and what each adds (leading axis the steps)."""

    fixed: Any
    each: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.each)[0])

    def first(self, count: int) -> Chunk:
        """The data of the first ``count`` steps."""
        return Chunk(self.fixed, jax.tree.map(lambda leaf: leaf[:count], self.each))


@dataclass(frozen=True)
class Begun:
    """Where a run is that is gone on with: the steps it has done, and the digest of their last batch, if it came ready."""

    step: int = 0
    last: str = ""


@dataclass(frozen=True)
class Source:
    """Where batches come from.

    Attributes
    ----------
    pick
        Makes a step's batch of a chunk's two parts.
    first
        The batch of step 0, for its shapes.
    chunks
        The data of the steps from where the source begins.
    told
        What tells it from other sources: the samples, or the first batch.
    order
        What its order follows from: the key and how many samples a batch has.
    ready
        Whether batches come ready-made.
    """

    pick: Pick
    first: Any
    chunks: Iterator[Chunk]
    told: Any
    order: Any = ()
    ready: bool = False

    def last(self, chunk: Chunk | None) -> str:
        """The digest of a chunk's last batch, where batches come ready."""
        if chunk is None or not self.ready:
            return ""
        return tree_digest(jax.tree.map(lambda leaf: leaf[-1], chunk.each))

    def split(self, sharding: Sharding) -> Source:
        """The same, every batch split over devices by its samples."""
        pick = Split(self.pick, sharding)
        return replace(self, pick=pick, first=pick.split(self.first), chunks=pick.placed(self.chunks))


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
    data: Any,
    batch_size: int | None,
    key: jax.Array | None,
    *,
    steps: int,
    room: Callable[[int], int],
    begun: Begun = Begun(),  # frozen
) -> Source:
    """Batches for all ``steps`` but those before ``begun``; after n steps ``room(n)`` fit into the next chunk.

    Raises
    ------
    ValueError, TypeError
        As `jaxchain.train.fit`, whose arguments these are.
    """
    if _is_stream(data):
        if batch_size is not None:
            msg = f"data is an iterable of ready batches, so batch_size={batch_size} has no meaning; leave it out."
            raise ValueError(msg)
        return _stream(data, steps, room, begun)
    data, samples = _table(data)
    lengths = _lengths(begun.step, steps, room)
    if batch_size is None:
        return Source(whole, data, (Chunk(data, np.zeros((length, 0))) for length in lengths), data)
    size: int = integer("batch_size", batch_size, "how many of the samples a step takes", least=1, most=samples)
    if key is None:
        msg = "Minibatches are shuffled by an explicit key: pass key=jax.random.key(0), or leave batch_size out for full batches."
        raise TypeError(msg)
    order = _shuffled(random_key(key), samples, begun.step * size)
    chunks = (
        Chunk(data, np.fromiter(itertools.islice(order, length * size), np.int32).reshape(length, size))
        for length in lengths
    )
    return Source(take, take(data, jnp.zeros(size, jnp.int32)), chunks, data, (key, np.int64(size)))


@dataclass(frozen=True)
class Split:
    """A pick whose batch lies on devices split by its samples; as a static argument known by its value."""

    pick: Pick
    sharding: Sharding

    def __call__(self, fixed: Any, each: Any) -> Any:
        """A step's batch."""
        return self.split(self.pick(fixed, each))

    def split(self, batch: Any) -> Any:
        """A batch, split."""
        return jax.tree.map(self._leaf, batch)

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


def _lengths(done: int, steps: int, room: Callable[[int], int]) -> Iterator[int]:
    while done < steps:
        length = min(room(done), steps - done)
        done += length
        yield length


def _shuffled(key: jax.Array, samples: int, start: int = 0) -> Iterator[int]:
    """Sample numbers, without replacement within an epoch, epoch after epoch, without end; all but the first ``start``."""
    done, rest = divmod(start, samples)
    for epoch in itertools.count(done):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), samples))
        yield from order[rest if epoch == done else 0 :].tolist()


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


def _stream(data: Iterable[Any], steps: int, room: Callable[[int], int], begun: Begun) -> Source:
    batches = _again(data)
    first = next(batches, None)
    if first is None:
        msg = "data gave no batch, so there is nothing to train on."
        raise ValueError(msg)
    batches = _passed(itertools.islice(itertools.chain([first], batches), steps), begun)
    return Source(ready, first, _in_chunks(batches, room, begun.step), first, ready=True)


def _in_chunks(batches: Iterator[Any], room: Callable[[int], int], done: int) -> Iterator[Chunk]:
    """Ready batches, stacked as long as their shapes agree."""
    for _, alike in itertools.groupby(batches, key=_signature):
        while stack := list(itertools.islice(alike, room(done))):
            each = jax.tree.map(_stacked, *stack)
            _refuse_nonfinite(each, "batches", first=done)
            done += len(stack)
            yield Chunk((), each)


def _passed(batches: Iterator[Any], begun: Begun) -> Iterator[Any]:
    """The batches that come after those that a run had seen, once these are the same."""
    for number in range(begun.step):
        batch = next(batches, None)
        if batch is None:
            reason = f"it has seen {begun.step} batches, but data gives only {number}"
        elif number == begun.step - 1 and begun.last != tree_digest(batch):
            reason = f"its batch {number} is not the one given now"
        else:
            continue
        msg = (
            f"The run in checkpoint_dir is not of this call: {reason}. An iterable of batches has to begin again where "
            "it began: those that were seen are drawn again and passed over. Mend that, choose another checkpoint_dir, "
            "or delete it to begin anew."
        )
        raise ValueError(msg)
    return batches


def _stacked(*leaves: Any) -> Any:
    """Of several steps one array, on the host unless other processes hold parts of it."""
    return (np.stack if all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves) else jnp.stack)(leaves)


def _signature(batch: Any) -> str:
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), jnp.result_type(leaf)), batch))


def _again(data: Iterable[Any]) -> Iterator[Any]:
    """Batches, begun again while they can be."""
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
