"""What runs again by itself, and in its turn: where XLA would else run it, or make room for it, ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

__all__ = ["COPIES", "apart", "in_turn"]

T = TypeVar("T")

COPIES = jax.__version_info__ < (0, 12)
"""Whether a conditional gives back copies of what its derivative reads."""


def apart(run: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.checkpoint(run)``, in a conditional.

    XLA plans the order and the room of a whole computation at once, with what loops stack before all else, so that nothing
    is saved where loops run again outside of loops. A conditional it plans by itself; behind a barrier it does not know
    which side is taken.
    """
    again = jax.checkpoint(run)
    if jax.default_backend() == "tpu":  # whose compiler lets loops wait
        return again

    def call(*values: Any) -> Any:
        results = jax.eval_shape(run, *values)
        always = jax.lax.optimization_barrier(jnp.array(True))
        return jax.lax.cond(always, again, lambda *_: jax.tree.map(_zeros, results), *values)

    return call


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.lax.full(like.shape, 0, like.dtype, sharding=like.sharding)  # of keys, too


def in_turn(made: T, shared: Any) -> tuple[T, Any]:
    """The same values: those ``made`` are all made here, and of those of ``shared`` cotangents are summed here.

    XLA would hold what a small value is made of until that is read, and add all cotangents up at the very end.
    """
    return jax.lax.optimization_barrier((made, shared))
