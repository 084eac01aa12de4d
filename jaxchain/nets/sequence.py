"""Networks over sequences: `rnn` and `transformer`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.chain import Chain
from jaxchain.checks import LARGEST, integer
from jaxchain.nets.layers import DEEPEST, Activation, Layers, Params, activation_named, affine, float_dtype, sizes_of
from jaxchain.stage import Stage

__all__ = ["rnn", "transformer"]


def rnn(
    sizes: Sequence[int],
    activation: Activation = "tanh",
    init: str = "orthogonal",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    dtype: Any = None,
) -> Chain:
    """A stack of recurrent layers over a sequence, read out at its last position.

    ``rnn([8, 32, 32, 10])`` is ``rnn_0`` (8 → 32), ``rnn_1`` (32 → 32), ``last``, ``dense_0``
    (32 → 10). A layer computes h_t = φ(W h_{t-1} + U x_t + b) by ``lax.scan``.

    Parameters
    ----------
    sizes
        Input width, the recurrent layers' widths, output size: at least three.
    activation, init, sigma_w, sigma_b, dtype
        As in `mlp`.

    Returns
    -------
    Chain
        ``net(params, x)``: (steps, n_0) → (n_L,); of a recurrent layer ``params`` holds ``input`` (U, b) and
        ``recurrent``, W.

    Raises
    ------
    ValueError
        As `mlp`.

    References
    ----------
    Elman, Finding structure in time, 1990.

    Examples
    --------
    >>> net = jc.nets.rnn([3, 8, 2])
    >>> params = jax.eval_shape(net.init, jax.random.key(0))
    >>> net.names, jax.eval_shape(net, params, jnp.ones((5, 3))).shape  # five steps
    (('rnn_0', 'last', 'dense_0'), (2,))
    """
    *widths, classes = sizes_of(sizes, "sizes", 3)
    layers, (_, act) = Layers(init, sigma_w, sigma_b, dtype), activation_named(activation)

    def layer(p: dict[str, Any], xs: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = act(p["recurrent"] @ h + x)
            return h, h

        inputs = affine(p["input"], xs)
        return jax.lax.scan(step, jnp.zeros_like(inputs[0]), inputs)[1]

    def start(key: jax.Array, n_in: int, n_out: int) -> dict[str, Any]:
        key_in, key_loop = jax.random.split(key)
        return {"input": layers.affine(key_in, n_in, n_out), "recurrent": layers.affine(key_loop, n_out, n_out)["w"]}

    stages = [
        Stage(f"rnn_{k}", layer, partial(start, n_in=n_in, n_out=n_out))
        for k, (n_in, n_out) in enumerate(pairwise(widths))
    ]
    return Chain([*stages, Stage("last", lambda hs: hs[-1]), layers.dense("dense_0", widths[-1], classes)])


def transformer(
    sizes: tuple[int, int, int],
    depth: int,
    heads: int,
    activation: Activation = "gelu",
    init: str = "lecun",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    hidden: int | None = None,
    dtype: Any = None,
) -> Chain:
    """A small causal, pre-norm transformer: ``embed, attention_0, mlp_0, …, norm, unembed``.

    Each block is one stage and adds to the residual stream: x + attention(norm(x)), then
    x + mlp(norm(x)). Positions are told apart by fixed sinusoids, added by ``embed``.

    Parameters
    ----------
    sizes
        (n_in, width, n_out); ``width`` a multiple of ``heads``.
    depth
        Pairs of attention and MLP blocks.
    heads
        Attention heads a block.
    hidden
        Width inside an MLP block; default: 4 · ``width``.
    activation, init, sigma_w, sigma_b, dtype
        As in `mlp`.

    Returns
    -------
    Chain
        ``net(params, x)``: (positions, n_in) → (positions, n_out).

    Raises
    ------
    ValueError
        As `mlp`, and if ``heads`` does not divide ``width``.

    References
    ----------
    Vaswani et al., arXiv 1706.03762; Xiong et al., arXiv 2002.04745 (pre-norm).

    Examples
    --------
    >>> net = jc.nets.transformer((3, 8, 2), depth=1, heads=2)
    >>> net.names
    ('embed', 'attention_0', 'mlp_0', 'norm', 'unembed')
    >>> params = jax.eval_shape(net.init, jax.random.key(0))
    >>> jax.eval_shape(net, params, jnp.ones((5, 3))).shape  # five positions
    (5, 2)
    """
    n_in, width, n_out = sizes_of(sizes, "sizes (in, width, out)", exactly=3)
    depth = integer("depth", depth, "the number of blocks", least=1, most=DEEPEST)
    heads = integer("heads", heads, "the number of attention heads", least=1, most=LARGEST)
    if width % heads:
        msg = f"heads must divide the width, but {heads} heads do not divide {width}."
        raise ValueError(msg)
    layers, (_, act) = Layers(init, sigma_w, sigma_b, dtype), activation_named(activation)
    inner = (
        4 * width if hidden is None else integer("hidden", hidden, "the width inside a block", least=1, most=LARGEST)
    )

    def scale(_: jax.Array) -> jax.Array:
        return jnp.ones((width,), float_dtype(dtype))

    def embed(p: Params, x: jax.Array) -> jax.Array:
        return affine(p, x) + _sinusoids(x.shape[0], width).astype(p["w"].dtype)

    def attention(p: dict[str, Any], x: jax.Array) -> jax.Array:
        positions = x.shape[0]
        qkv = affine(p["qkv"], _norm(p["scale"], x)).reshape(positions, 3, heads, width // heads)
        mixed = _causal_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + affine(p["out"], mixed.reshape(positions, width))

    def start_attention(key: jax.Array) -> dict[str, Any]:
        key_qkv, key_out = jax.random.split(key)
        return {
            "scale": scale(key),
            "qkv": layers.affine(key_qkv, width, 3 * width),
            "out": layers.affine(key_out, width, width),
        }

    def feed_forward(p: dict[str, Any], x: jax.Array) -> jax.Array:
        return x + affine(p["down"], act(affine(p["up"], _norm(p["scale"], x))))

    def start_feed_forward(key: jax.Array) -> dict[str, Any]:
        key_up, key_down = jax.random.split(key)
        return {
            "scale": scale(key),
            "up": layers.affine(key_up, width, inner),
            "down": layers.affine(key_down, inner, width),
        }

    blocks = [
        stage
        for k in range(depth)
        for stage in (
            Stage(f"attention_{k}", attention, start_attention),
            Stage(f"mlp_{k}", feed_forward, start_feed_forward),
        )
    ]
    return Chain(
        [
            layers.dense("embed", n_in, width, embed),
            *blocks,
            Stage("norm", _norm, scale),
            layers.dense("unembed", width, n_out),
        ]
    )


def _causal_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q·k/√d) v over earlier positions, all (positions, heads, d); in the inputs' own precision."""
    scores = jnp.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf), axis=-1)
    return jnp.einsum("hqk,khd->qhd", weights, v)


def _norm(scale: jax.Array, x: jax.Array) -> jax.Array:
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich, arXiv 1910.07467)."""
    return scale[None, :] * x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _sinusoids(positions: int, width: int) -> jax.Array:
    """Position codes (positions, width): sines and cosines of wavelengths 2π … 10⁴·2π."""
    rates = jnp.exp(-math.log(1e4) * jnp.arange(0.0, width, 2) / width)
    angles = jnp.arange(float(positions))[:, None] * rates[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(positions, -1)[:, :width]
