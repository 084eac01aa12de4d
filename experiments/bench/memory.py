"""Reverse mode in less memory: `jaxchain.checkpoint` against keeping all, and against `jax.checkpoint` of every block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxchain as jc
from bench.core import Row
from jaxchain.cost.measure import compiled_of, flops
from jaxchain.memory.search import saves_unrolled

QUARTER = 4
"""A quarter of the memory that it takes to keep everything."""


def checkpointing(seed: int, quick: bool) -> Iterable[Row]:
    """Gradients of deep networks in a quarter of the memory: bytes, work, and the time to plan."""
    cases = {"residual net, 64 blocks": partial(residual_net, seed, 16 if quick else 64)}
    cases |= {} if quick else {"Flax transformer, 12 blocks": partial(transformer, seed, 12)}
    for name, make in cases.items():
        loss, blocks, args = make()
        start = time.perf_counter()
        keeping = work_and_bytes(loss, args)
        compiling = time.perf_counter() - start
        limit = int(keeping[1] / QUARTER)
        start = time.perf_counter()
        full = jc.memory_plan(loss, args, limit)
        planning = time.perf_counter() - start
        ours = work_and_bytes(jc.checkpoint(loss, limit), args)
        if saves_unrolled():
            yield Row(f"{name}, limit of a quarter: bytes / the limit", ours[1], float(limit), "B", at_most=1.0)
        else:
            print("  Before JAX 0.11.2 XLA saves nothing here on the CPU, as the plan says: bytes are not compared.")
        yield Row(f"{name}, limit of a quarter: work / keeping all", ours[0], keeping[0], "FLOP", at_most=1.35)
        if quick:
            return
        peer = work_and_bytes(blocks, args)
        yield Row(f"{name}, limit of a quarter: work / jax.checkpoint of blocks", ours[0], peer[0], "FLOP", at_most=1.0)
        least = full.curve[-1][0]
        if least <= peer[1]:
            same = work_and_bytes(jc.checkpoint(loss, int(peer[1])), args)
            yield Row(f"{name}, in the bytes of jax.checkpoint of blocks: work", same[0], peer[0], "FLOP", at_most=1.05)
        else:  # XLA keeps states in the buffers of gradients that are not there yet, on which a plan does not count
            yield Row(
                f"{name}: the least that is promised / jax.checkpoint of blocks", least, peer[1], "B", at_most=1.0
            )
        yield Row(f"{name}: planning / compiling", planning, compiling, "s", at_most=1.0)


def loops(seed: int, quick: bool) -> Iterable[Row]:
    """The same for a scan over layers, whose states alone are kept by `jax.checkpoint` of its step."""
    depth = 16 if quick else 64

    def layers(step: Callable[..., Any]) -> Callable[..., jax.Array]:
        return lambda weights, x: jnp.sum(jax.lax.scan(lambda x, w: (step(w, x), None), x, weights)[0] ** 2)

    def step(w: jax.Array, x: jax.Array) -> jax.Array:
        return x + jnp.tanh(x @ w) @ w.T

    weights = 0.05 * jax.random.normal(jax.random.key(seed), (depth, 64, 64))
    args = weights, jnp.ones((512, 64))
    keeping = work_and_bytes(layers(step), args)
    peer = work_and_bytes(layers(jax.checkpoint(step)), args)
    limit = max(int(peer[1] / 2), jc.memory_plan(layers(step), args).curve[-1][0])
    ours = work_and_bytes(jc.checkpoint(layers(step), limit), args)
    name = f"scan over {depth} layers"
    yield Row(
        f"{name}, half of what jax.checkpoint of its step takes: bytes / the limit",
        ours[1],
        float(limit),
        "B",
        at_most=1.0,
    )
    yield Row(f"{name}: bytes / keeping all", ours[1], keeping[1], "B", at_most=0.25)


def work_and_bytes(loss: Callable[..., Any], args: tuple[Any, ...]) -> tuple[float, float]:
    """FLOPs and temporary bytes of a value and gradient, by XLA."""
    grad = jax.value_and_grad(loss)
    memory = compiled_of(grad, *args)[1].memory_analysis()
    return flops(grad, *args), float(memory.temp_size_in_bytes)


def residual_net(seed: int, depth: int) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """A deep perceptron with skips: as it is, each block by `jax.checkpoint`, and its arguments."""

    def block(w: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
        return x + jax.nn.gelu(x @ w[0]) @ w[1]

    def net(block: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def loss(weights: list[Any], x: jax.Array) -> jax.Array:
            for w in weights:
                x = block(w, x)
            return jnp.mean(x**2)

        return loss

    keys = jax.random.split(jax.random.key(seed), 2 * depth)
    weights = [
        (0.1 * jax.random.normal(one, (64, 256)), 0.1 * jax.random.normal(two, (256, 64)))
        for one, two in zip(keys[::2], keys[1::2], strict=True)
    ]
    return net(block), net(jax.checkpoint(block)), (weights, jnp.ones((256, 64)))


class Block(nn.Module):
    """Attention and a perceptron, each normalised."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The stream after it."""
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(4)(y, mask=nn.make_causal_mask(x[..., 0]))
        return x + nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """A decoder of tokens."""

    depth: int
    block: Any = Block

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits at every position."""
        x = nn.Embed(100, 64)(tokens)
        for k in range(self.depth):
            x = self.block(name=f"block_{k}")(x)
        return nn.Dense(100)(nn.LayerNorm()(x))


def transformer(seed: int, depth: int) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """The loss of a Flax transformer: as it is, each block by ``nn.remat``, and its arguments."""
    tokens = jax.random.randint(jax.random.key(seed), (4, 64), 0, 100)
    plain, again = Transformer(depth), Transformer(depth, nn.remat(Block))
    params = plain.init(jax.random.key(seed), tokens)

    def loss(model: nn.Module) -> Callable[..., jax.Array]:
        return lambda params, tokens: -jnp.mean(jax.nn.log_softmax(model.apply(params, tokens))[..., 0])

    return loss(plain), loss(again), (params, tokens)


BENCHMARKS = (checkpointing, loops)
