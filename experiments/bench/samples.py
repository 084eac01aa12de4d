"""Samples' gradients: `jaxchain.factored` against the batch's own gradient, and against ``vmap(grad)``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxchain as jc
from bench.core import Row, in_turns, less, race
from jaxchain.cost.measure import flops

SAMPLES = 64

Loss = Callable[[Any, Any], jax.Array]


class ConvNet(nn.Module):
    """Two convolutions with pooling, and a layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of a batch."""
        for features in (16, 32):
            x = nn.avg_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Transformer(nn.Module):
    """Blocks of attention and a perceptron, each behind a LayerNorm."""

    blocks: int = 2

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of a batch."""
        x = nn.Embed(100, 64)(tokens)
        for _ in range(self.blocks):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x))))
        return nn.Dense(100)(nn.LayerNorm()(x))


class Recurrent(nn.Module):
    """A GRU by scan, and a layer on its last state."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of a batch."""
        return nn.Dense(10)(nn.RNN(nn.GRUCell(64))(x)[:, -1])


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over samples and positions."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1))


def cases(seed: int) -> Iterator[tuple[str, tuple[Loss, Any, Any]]]:
    """Loss, parameters and batch of each network."""
    key = jax.random.key(seed)
    labels, tokens = jnp.arange(SAMPLES) % 10, jax.random.randint(key, (SAMPLES, 32), 0, 100)
    net = jc.nets.mlp([784, 256, 256, 256, 256, 10])

    def dense(params: Any, batch: Any) -> jax.Array:
        return cross_entropy(jax.vmap(net, (None, 0))(params, batch[0]), batch[1])

    def linen(module: nn.Module, x: jax.Array, y: jax.Array) -> tuple[Loss, Any, Any]:
        def loss(params: Any, batch: Any) -> jax.Array:
            return cross_entropy(jnp.asarray(module.apply(params, batch[0])), batch[1])

        return loss, module.init(key, x), (x, y)

    yield "MLP 784-256⁴-10", (dense, net.init(key), (jax.random.normal(key, (SAMPLES, 784)), labels))
    yield "GRU, 32 steps of 64", linen(Recurrent(), jax.random.normal(key, (SAMPLES, 32, 32)), labels)
    yield "conv net 28×28", linen(ConvNet(), jax.random.normal(key, (SAMPLES, 28, 28, 1)), labels)
    yield "transformer, 32 × 64", linen(Transformer(), tokens, tokens)


def sample_norms(seed: int, quick: bool) -> Iterable[Row]:
    """Norms of 64 samples' gradients: from factors, against one gradient of the batch, and 64 gradients."""
    for name, (loss, params, batch) in itertools.islice(cases(seed), 2 if quick else None):
        runs = {"ours": norms(loss), "gradient": jax.grad(loss), "gradients": one_by_one(loss)}
        ours, gradient, gradients = (flops(run, params, batch) for run in runs.values())
        label = f"norms of {SAMPLES} gradients, {name}"
        yield Row(
            f"{label} / the batch's gradient: work", ours, gradient, "FLOP", at_most=1.1 if "MLP" in name else 1.3
        )
        yield Row(f"{label} / vmap(grad): work", ours, gradients, "FLOP", at_most=1.001)
        if quick:
            continue
        seconds = race(runs, params, batch, repeats=20)
        yield Row(f"{label} / vmap(grad): time", seconds["ours"], seconds["gradients"], "s", at_most=1.1)
        if "MLP" in name:  # XLA fuses the norm with the gradients, so that they are never made, unless they are results
            apart = in_turns(
                {"ours": called(runs["ours"], params, batch), "apart": in_two_calls(loss, params, batch)}, 20
            )
            yield less(f"{label} / vmap(grad), then a norm: time", apart["ours"], apart["apart"], "s", 10)


def norms(loss: Loss) -> Loss:
    """Ours."""
    return lambda params, batch: jc.sample_gradient_norms(loss, params, batch).whole


def gradients(loss: Loss) -> Callable[[Any, Any], Any]:
    """Every sample's, by JAX."""

    def run(params: Any, batch: Any) -> Any:
        return jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda leaf: leaf[:, None], batch))

    return run


def lengths(each: Any) -> jax.Array:
    """The norms of gradients with an axis of samples."""
    return jnp.sqrt(sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in jax.tree.leaves(each)))


def one_by_one(loss: Loss) -> Loss:
    """All gradients and their norms, in one program."""
    return lambda params, batch: lengths(gradients(loss)(params, batch))


def called(run: Loss, params: Any, batch: Any) -> Callable[[], jax.Array]:
    """A compiled call."""
    compiled = jax.jit(run)
    return lambda: compiled(params, batch)


def in_two_calls(loss: Loss, params: Any, batch: Any) -> Callable[[], jax.Array]:
    """All gradients, and then their norms."""
    first, then = jax.jit(gradients(loss)), jax.jit(lengths)
    return lambda: then(first(params, batch))


BENCHMARKS = (sample_norms,)
