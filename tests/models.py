"""Small models of other people's frameworks, as a function of arrays and one batch of inputs, and those arrays."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def drawn(like: Any) -> Any:
    """Arrays drawn by NumPy, in the precision that is on: nothing is compiled, and no bias is zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape)), like)


class Block(nn.Module):
    """Attention and a perceptron, each normalised."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(6)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Tokens; two blocks, computed again on the way back, as one scan; the table of embeddings gives the logits."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(5, 4)
        block = nn.scan(
            nn.remat(lambda module, x, _: (module(x), None)),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = block(Block(), embed(tokens), None)
        return embed.attend(nn.LayerNorm()(x))


class Recurrent(nn.Module):
    """A GRU over time, and an LSTM whose kernels are joined in each step."""

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.GRUCell(4, param_dtype=float))(x)
        return nn.Dense(2)(nn.RNN(nn.OptimizedLSTMCell(3, param_dtype=float))(x)[:, -1])


class Images(nn.Module):
    """Convolutions, one for each channel, normalisation by groups."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))
        x = nn.avg_pool(nn.Conv(4, (2, 2), feature_group_count=4)(x), (2, 2), (2, 2))
        return nn.DenseGeneral(2, axis=(-3, -2, -1))(x)


def of_linen(module: nn.Module, example: Any) -> Any:
    shapes = jax.eval_shape(module.init, jax.random.key(0), example)
    return lambda params, x: module.apply(params, x), drawn(shapes)


class Nnx(nnx.Module):
    """A perceptron with dropout that is off, normalised."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.norm, self.second = (
            nnx.Linear(3, 4, rngs=rngs),
            nnx.LayerNorm(4, rngs=rngs),
            nnx.Linear(4, 2, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.norm(jnp.tanh(self.first(x))))


def of_nnx() -> Any:
    graph, params = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param)
    return lambda params, x: nnx.merge(graph, params)(x), drawn(params)


def of_equinox(model: eqx.Module) -> Any:
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    return lambda params, x: jax.vmap(eqx.combine(params, static))(x), drawn(arrays)


class Images3(eqx.Module):
    """Channels first: a convolution, a normalisation, a layer."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        self.conv, self.norm = eqx.nn.Conv2d(2, 3, 3, padding=1, key=key), eqx.nn.LayerNorm((3, 4, 4))
        self.out = eqx.nn.Linear(48, 2, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jnp.ravel(jax.nn.silu(self.norm(self.conv(x)))))


def of_haiku(forward: Any, example: Any) -> Any:
    model = hk.without_apply_rng(hk.transform(forward))
    return model.apply, drawn(jax.eval_shape(model.init, jax.random.key(0), example))


def haiku_gru(x: jax.Array) -> jax.Array:
    core = hk.GRU(4)
    out, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
    return hk.nets.MLP([3, 2])(out[:, -1])


def some(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


TOKENS = np.random.default_rng(3).integers(0, 5, (3, 4))

MODELS = {
    "linen transformer": lambda: (*of_linen(Transformer(), TOKENS), jnp.asarray(TOKENS)),
    "linen recurrent": lambda: (*of_linen(Recurrent(), some(3, 4, 2)), some(3, 4, 2)),
    "linen images": lambda: (*of_linen(Images(), some(3, 5, 5, 1)), some(3, 5, 5, 1)),
    "nnx": lambda: (*of_nnx(), some(4, 3)),
    "equinox images": lambda: (*of_equinox(Images3(jax.random.key(0))), some(3, 2, 4, 4)),
    "equinox mlp": lambda: (*of_equinox(eqx.nn.MLP(3, 2, 4, 2, key=jax.random.key(0))), some(4, 3)),
    "haiku": lambda: (*of_haiku(haiku_gru, some(3, 4, 2)), some(3, 4, 2)),
}
