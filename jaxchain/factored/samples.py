"""Every sample's gradient, and the norms of all, from one backward pass of the batch and the factors of weights' derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, register_dataclass, tree_flatten_with_path

from jaxchain.derivative import Pass
from jaxchain.factored.batch import per_sample
from jaxchain.factored.factors import Factor, wide
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count

__all__ = ["SampleNorms", "sample_gradient_norms", "sample_gradients"]


def sample_gradients(
    loss: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Any,
    *,
    check: bool = True,
    chunk_size: int | None = None,
) -> Any:
    """Every sample's gradient, g_b = ∇ loss(params, batch[b:b+1]), from one backward pass of the batch.

    Parameters
    ----------
    loss
        Of parameters and a batch, one real number: a mean or sum over samples.
    params
        A pytree of real or complex arrays.
    batch
        A pytree of arrays with the samples along their first axis, B of them; tokens and labels may be among them.
    check
        Prove from the program that samples do not mix in ``loss``. Without, and if they do, the gradients are those
        of each sample alone.
    chunk_size
        How many samples go through at once; ``None``: all. Bounds the memory. Of a batch that is spread over a mesh
        chunks, and so the result, lie whole on every device; without, the result is spread as the batch is.

    Returns
    -------
    pytree
        Like ``params``, its leaves with an axis (B,) in front, of their dtypes. For a loss that is a mean over samples their mean is the
        gradient of the batch.

    Raises
    ------
    SamplesMixError
        A ``ValueError``: samples mix, as in a normalisation by the batch, or cannot be proven not to; names the stage
        and the line.
    TypeError
        If the loss is not one real number, or a leaf of ``params`` has no derivative.
    ValueError
        If leaves of the batch disagree in length, ``chunk_size`` is below 1, or given for a batch that is spread over an
        explicit mesh.
    ModeError
        If the loss has no reverse mode.

    Notes
    -----
    Works under ``jit``, ``vmap`` and ``grad``, and is traced anew by each call: put it under ``jax.jit`` to call it
    often. The proof also refuses what is not of the batch and yet not the same for every sample, such as labels that
    the loss closes over, or numbers drawn for the whole batch from one key: put them, and a key for every sample, into
    the batch. Without ``check``, such an array meets a batch of one.

    References
    ----------
    Goodfellow, Efficient per-example gradient computations, arXiv 1510.01799; Dangel, Kunstner and Hennig, BackPACK:
    packing more into backprop, ICLR 2020, arXiv 1912.10985.

    Examples
    --------
    >>> loss = lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "y": jnp.array([1.0, 1.0])}
    >>> jc.sample_gradients(loss, jnp.array([1.0, 1.0]), batch).tolist()  # 2 (x·w − y) x for each row
    [[4.0, 8.0], [36.0, 48.0]]
    """
    how = Pass(chunk_size)
    samples = per_sample(loss, params, batch, check, "sample_gradients")
    gradients = samples.map(samples.function.gradient, "always", how)
    return jax.tree.map(lambda gradient, leaf: gradient.astype(leaf.dtype), gradients, samples.params)


@register_dataclass
@dataclass(frozen=True)
class SampleNorms(Shown):
    """The norms of samples' gradients.

    Attributes
    ----------
    whole
        ‖g_b‖ (B,), over all parameters.
    leaves
        Like the parameters, each leaf the norms (B,) of its own part.

    Examples
    --------
    >>> norms = jc.sample_gradient_norms(lambda w, x: jnp.sum(x @ w), jnp.ones(2), jnp.array([[3.0, 4.0]]))
    >>> norms.whole, norms.leaves
    (Array([5.], dtype=float32), Array([5.], dtype=float32))
    """

    whole: jax.Array
    leaves: Any

    def _brief(self) -> str:
        return f"norms of {count(len(self.whole), 'gradient')}"

    def _table(self) -> Table:
        parts = [(keystr(path), leaf) for path, leaf in tree_flatten_with_path(self.leaves)[0]]
        rows = [(name, *told(leaf)) for name, leaf in [("all parameters", self.whole), *parts]]
        return Table(f"Norms of the gradients of {count(len(self.whole), 'sample')}", ("leaf", *TOLD), rows)


def sample_gradient_norms(
    loss: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Any,
    *,
    check: bool = True,
    chunk_size: int | None = None,
) -> SampleNorms:
    """The norm of every sample's gradient, ‖∇ loss(params, batch[b:b+1])‖, without multiplying gradients out.

    A weight's derivative is x ⊗ δ, so its norm is ‖x‖ ‖δ‖; of weights that several positions or steps share it is
    Σ_{t,t'} (x_t · x_t')(δ_t · δ_t'), or that of the gradient itself, whichever takes fewer multiply-adds.

    Parameters
    ----------
    loss, params, batch, check, chunk_size
        As in `sample_gradients`.

    Returns
    -------
    SampleNorms
        ``.whole`` (B,) and ``.leaves``, a pytree like ``params`` of such; real, of the leaf's own precision, single at
        least.

    Raises
    ------
    SamplesMixError, TypeError, ValueError, ModeError
        As `sample_gradients`.

    References
    ----------
    Goodfellow, Efficient per-example gradient computations, arXiv 1510.01799; Li, Tramèr, Liang and Hashimoto, Large
    language models can be strong differentially private learners, ICLR 2022, arXiv 2110.05679.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 4, 2])
    >>> params, x = net.init(jax.random.key(0)), jnp.ones((5, 3))
    >>> loss = lambda params, x: jnp.mean(jax.vmap(net, (None, 0))(params, x) ** 2)
    >>> norms = jc.sample_gradient_norms(loss, params, x)
    >>> norms.whole.shape, norms.leaves["dense_1"]["w"].shape
    ((5,), (5,))
    """
    how = Pass(chunk_size)
    samples = per_sample(loss, params, batch, check, "sample_gradient_norms")
    function = samples.function

    def squares(factors: list[Factor]) -> list[jax.Array]:
        # What a loss computes in a wider type is no reason to tell norms in it, of some leaves and not of others.
        return [function.squared_norm(leaf, factors).astype(real_and_wide(leaf.like.dtype)) for leaf in function.leaves]

    found = samples.map(squares, "cheaper", how)
    whole = sum(found[1:], found[0])
    return SampleNorms(jnp.sqrt(whole), function.tree.unflatten([jnp.sqrt(one) for one in found]))


def real_and_wide(dtype: Any) -> Any:
    """The real dtype of a leaf's norms: its own, of single precision at least."""
    return wide(jnp.finfo(dtype).dtype)


TOLD = ("smallest", "median", "largest", "of sample")
"""What a table tells of one number for each sample."""


def told(values: jax.Array) -> tuple[str, ...]:
    """That, as text; nothing while it is traced, or of no sample."""
    if isinstance(values, Tracer) or not values.size:
        return ("",) * len(TOLD)
    known = np.asarray(values, float)
    return (*(f"{number:.3g}" for number in np.quantile(known, [0, 0.5, 1])), str(known.argmax()))
