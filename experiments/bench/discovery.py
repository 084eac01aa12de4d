"""Discovery: how fast a chain is found, and what the chain costs once compiled."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import jaxchain as jc
from bench.core import Row
from jaxchain.cost.measure import flops

LAYER = 10
"""Equations of one layer of `deep`."""


def discovery_speed(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Discover chains of a thousand to a hundred thousand equations, tracing included."""
    repeats = {1000: 2, 10_000: 1} if quick else {1000: 5, 10_000: 5, 100_000: 2}
    found = {count: least_seconds(deep(count), times) for count, times in repeats.items()}
    yield Row("discover 10,000 equations", found[10_000].wall, None, "s", at_most=2)
    for count in list(found)[1:]:
        ours, peer = (found[n].processor / n for n in (count, 1000))
        yield Row(f"time an equation, {count:,} / 1,000 equations", ours, peer, "s", at_most=2)


class Seconds(NamedTuple):
    """By the clock on the wall, and of the processor for this process alone."""

    wall: float
    processor: float


def deep(equations: int) -> tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]:
    """A residual network of so many equations: x + b tanh(Wx + b), with a norm, layer upon layer."""

    def fun(w: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(equations // LAYER):
            inner = lax.mul(lax.tanh(lax.add(lax.dot(w, x), b)), b)
            x = lax.add(x, inner)
            x = lax.mul(x, lax.rsqrt(lax.add(lax.mul(x, x), b)))
            x = lax.sin(x)
        return x

    return fun, (jnp.eye(4), jnp.ones(4), jnp.ones(4))


def least_seconds(model: tuple[Callable[..., Any], tuple[Any, ...]], repeats: int) -> Seconds:
    """The shortest of several discoveries, each of a function never seen before.

    Tracing, and collecting garbage meanwhile, are counted: they belong to what a user waits for.
    """
    fun, args = model
    taken: list[Seconds] = []
    for _ in range(repeats):
        gc.collect()  # what earlier ones left behind
        wall, processor = time.perf_counter(), time.process_time()
        jc.discover(lambda *given: fun(*given), *args)
        taken.append(Seconds(time.perf_counter() - wall, time.process_time() - processor))
    return Seconds(*map(min, zip(*taken, strict=True)))


def discovered_work(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Count the operations of a transformer and of its chain, and of their reverse sweeps."""
    net = jc.nets.transformer((8, 32, 10), depth=2, heads=2)
    params, x = net.init(jax.random.key(seed)), jax.random.normal(jax.random.key(seed), (16, 8))

    def fun(params: Any, x: jax.Array) -> jax.Array:
        return net(params, x)

    chain, cotangent = jc.discover(fun, params, x), jnp.ones((16, 10))
    yield Row("discovered transformer / itself", flops(chain, params, x), flops(fun, params, x), "FLOP", at_most=1.01)
    ours = flops(lambda p, x, c: jc.reverse_sweep(chain, (p, x), c), params, x, cotangent)
    peer = flops(lambda p, x, c: jax.vjp(fun, p, x)[1](c), params, x, cotangent)
    yield Row("its reverse_sweep / jax.vjp", ours, peer, "FLOP", at_most=1.05)


BENCHMARKS = (discovery_speed, discovered_work)
