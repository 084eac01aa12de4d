"""How much of a gradient is signal: by stage, from the gradients of parts of the batch.

With g_p the gradients of P equal parts, of which the batch's is the mean ḡ, the variance of ḡ is Σ_p ‖g_p − ḡ‖² / (P (P−1)),
and ‖ḡ‖² less that is the squared norm of what is expected. Builds on `loss_chain`.

References: McCandlish, Kaplan, Amodei et al., An empirical model of large-batch training, 2018, app. A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.diagnosis.lengths import length, unit

__all__ = ["batched", "ratio", "split_batch"]


APART = 1e-3
"""By what share of its norm a mean of parts may miss the whole by rounding."""


def batched(values: Sequence[Any], parameters: int, along: int, parts: int) -> list[int]:
    """Which arrays are of samples: data with as many entries on the first axis as what the loss is watched along.

    Raises
    ------
    ValueError
        If these cannot be split into so many equal parts.
    """
    shape = jnp.shape(values[along])
    if not shape or shape[0] % parts or shape[0] < parts:
        msg = f"signal_to_noise={parts} splits the batch into {parts} equal parts, but what the loss is watched along has shape {shape}."
        raise ValueError(msg)
    return [k for k in range(parameters, len(values)) if jnp.shape(values[k])[:1] == shape[:1]]


def split_batch(value: Any, parts: int) -> Any:
    """An array of samples as parts, on a new first axis."""
    return jnp.reshape(value, (parts, -1, *jnp.shape(value)[1:]))


def ratio(gradients: Callable[..., Sequence[Any]], batches: Sequence[Any], norms: jax.Array) -> jax.Array:
    """Signal to noise by stage; ``gradients`` of a part's arrays are by stage, ``norms`` are of the whole batch's.

    Zero where noise hides whatever signal there is; NaN where a stage has no gradient, and where the mean of the parts'
    gradients is not that of the batch: the loss is then no mean over samples, or an array was split that is not of them.
    """
    return jnp.stack([_of_stage(each, norms[k]) for k, each in enumerate(jax.vmap(gradients)(*batches))])


def _of_stage(each: Any, norm: jax.Array) -> jax.Array:
    leaves = jax.tree.leaves(each)
    if not leaves:
        return jnp.full((), jnp.nan, norm.dtype)
    scale = 1 / unit(norm)  # so that squares of small gradients do not vanish
    scaled = [leaf * scale.astype(leaf.real.dtype) for leaf in leaves]
    means = [leaf.mean(0) for leaf in scaled]
    parts = len(leaves[0])
    spread = length([leaf - mean for leaf, mean in zip(scaled, means, strict=True)])
    noise = jnp.square(spread) / (parts * (parts - 1))
    mean = length(means)
    near = max(APART, 16 * max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves))
    return jnp.where(
        jnp.abs(mean - norm * scale) <= near * norm * scale,
        jnp.maximum(jnp.square(mean) - noise, 0) / noise,
        jnp.nan,
    )
