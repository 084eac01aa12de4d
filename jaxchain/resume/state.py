"""Where a run is, as a list of arrays, and back: the structure is always that of the run under way, never of a file.

Builds on JAX alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.show.escape import escaped

__all__ = ["again", "arrays_of", "marks", "room_for", "settled", "unfit"]


def room_for(like: Any, count: int) -> Any:
    """So many observations like one, on the host; they take no memory."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (count, *leaf.shape)), like)


def settled(tree: Any) -> Any:
    """Arrays whose types are their own. A weak one gives way to others in sums, and no file can tell that it does."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jax.typeof(leaf).dtype) if jax.typeof(leaf).weak_type else leaf, tree
    )


def arrays_of(tree: Any) -> list[Any]:
    """The leaves; of random keys, their numbers."""
    return [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]


def marks(tree: Any) -> list[list[Any]]:
    """Where each leaf is, its dtype and shape, for JSON."""
    return [[keystr(path), str(leaf.dtype), list(leaf.shape)] for path, leaf in tree_flatten_with_path(tree)[0]]


def unfit(kept: Any, ours: list[list[Any]]) -> str | None:
    """Why arrays with some marks are not those of this run; ``None`` where they are."""
    if kept == ours:
        return None
    for its, own in zip(kept, ours, strict=False):
        if its != own:
            return f"it holds {_told(its)}, where this run has {_told(own)}"
    return f"it holds {len(kept)} arrays, where this run has {len(ours)}"


def _told(mark: Sequence[Any]) -> str:
    path, dtype, shape = mark
    return escaped(f"{path} {dtype}[{','.join(map(str, shape))}]")


def again(arrays: Sequence[np.ndarray[Any, Any]], like: Any) -> Any:
    """The inverse of `arrays_of`: like another tree, each array where its counterpart is."""
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten([_placed(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)])


def _placed(array: np.ndarray[Any, Any], like: Any) -> Any:
    if not isinstance(like, jax.Array):
        return array
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jax.device_put(array, like.sharding) if like.committed else jnp.asarray(array)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
