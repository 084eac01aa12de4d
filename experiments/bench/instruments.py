"""What looking at a network costs: mean-field theory of deep ones, a verdict on a transformer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

import jaxchain as jc
from bench.core import Row


def theory(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Mean-field theory of 200 layers, for the first time in a process: compiling the activation is a part of it."""
    for name in ("tanh",) if quick else ("tanh", "relu", "gelu"):
        first = _seconds(lambda name=name: jc.signal.predict(name, depth=200, sigma_w=1.4, sigma_b=0.1))
        yield Row(f"mean-field theory of 200 {name} layers: first call", first, None, "s", at_most=1)


def verdict(seed: int, quick: bool) -> Iterable[Row]:
    """A first diagnosis of a transformer against compiling its gradient."""
    width, depth, positions = (32, 2, 16) if quick else (256, 12, 32)
    net = jc.nets.transformer((width, width, width), depth, heads=4)
    params, x = net.init(jax.random.key(seed)), jax.random.normal(jax.random.key(seed + 1), (positions, width))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(net(params, x) ** 2)

    ours = _seconds(lambda: str(jc.diagnose(net, (params, x))))
    peer = _seconds(lambda: jax.jit(jax.grad(loss)).lower(params, x).compile())
    yield Row(f"diagnose {depth} blocks × {width} / compiling the gradient", ours, peer, "s", at_most=3)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


BENCHMARKS = (theory, verdict)
