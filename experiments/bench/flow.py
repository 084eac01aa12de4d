"""Gradient flow against the bare training step: the loss watched at every step, and at one of a hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxchain as jc
from bench.core import Row, in_turns
from jaxchain import train
from jaxchain.batches import source
from jaxchain.steps import observed_update, update

OPTIMIZER = optax.adam(1e-3)
FIRST = np.int32(0)
Case = tuple[Callable[..., Any], Callable[..., Any], Any, Any]
"""A loss, the same with its loops written out (XLA counts a loop's body once), parameters, data."""


def mlp(key: jax.Array, quick: bool) -> Case:
    """A dense network of four layers on a classification batch."""
    width, batch = (128, 128) if quick else (512, 128)
    net = jc.nets.mlp([width, width, width, width, 10])

    def loss(params: Any, batch: Any) -> jax.Array:
        out = jax.vmap(net, (None, 0))(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(out, batch[1]).mean()

    data = jax.random.normal(key, (batch, width)), jnp.arange(batch) % 10
    return loss, loss, net.init(key), data


def transformer(key: jax.Array, _: bool) -> Case:
    """Next-token prediction."""
    width, depth, tokens = 128, 4, 65
    net = jc.nets.transformer(sizes=[width, width, 64], depth=depth, heads=4)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        out = jax.vmap(net, (None, 0))(params["net"], params["embed"][tokens[:, :-1]])
        return optax.softmax_cross_entropy_with_integer_labels(out, tokens[:, 1:]).mean()

    params = {"net": net.init(key), "embed": jax.random.normal(key, (64, width))}
    return loss, loss, params, jax.random.randint(key, (8, tokens), 0, 64)


def scan_over_layers(key: jax.Array, _: bool) -> Case:
    """Residual layers whose weights are stacked, applied by `jax.lax.scan`."""
    width, depth, batch = 256, 12, 128

    def layer(h: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return h + jnp.tanh(h @ w), None

    def loss(params: jax.Array, batch: Any) -> jax.Array:
        return jnp.mean((jax.lax.scan(layer, batch[0], params)[0] - batch[1]) ** 2)

    def unrolled(params: jax.Array, batch: Any) -> jax.Array:
        h = batch[0]
        for w in params:
            h, _ = layer(h, w)
        return jnp.mean((h - batch[1]) ** 2)

    data = jax.random.normal(key, (2, batch, width))
    return loss, unrolled, 0.5 * jax.random.normal(key, (depth, width, width)) / width**0.5, (data[0], data[1])


CASES: dict[str, Callable[[jax.Array, bool], Case]] = {
    "MLP": mlp,
    "transformer": transformer,
    "scan over layers": scan_over_layers,
}


def followed(seed: int, quick: bool) -> Iterator[Row]:
    """What following the gradient flow adds to a step: work, and time at every step and at one of a hundred."""
    for name, case in [*CASES.items()][: 1 if quick else None]:
        loss, unrolled, params, batch = case(jax.random.key(seed), quick)
        state = OPTIMIZER.init(params)

        def work(step: Callable[..., Any], params: Any = params, state: Any = state, batch: Any = batch) -> float:
            return jax.jit(step).lower(params, state, batch).compile().cost_analysis()["flops"]

        bare = work(lambda *args, loss=unrolled: update(loss, OPTIMIZER, *args)[:3])
        ours = work(lambda *args, loss=loss: observed_update(loss, OPTIMIZER, jc.flow(), FIRST, *args, None)[:4])
        yield Row(f"{name}: work of a step, its flow followed", ours, bare, "FLOP", at_most=1.05)
        if quick:
            return
        seconds = _seconds(loss, params, batch)
        yield Row(f"{name}: time, at every step", seconds["every step"], seconds["bare"], "s", at_most=1.1)
        yield Row(f"{name}: time, at one of a hundred", seconds["one of 100"], seconds["bare"], "s", at_most=1.01)


def _seconds(loss: Callable[..., Any], params: Any, batch: Any, steps: int = 100, repeats: int = 3) -> dict[str, float]:
    """Median seconds a step of runs of so many steps."""
    batches = source(batch, None, None, steps=steps, room=lambda _: steps)
    chunk, calls = next(batches.chunks), dict[str, Callable[[], Any]]()
    for name, every in {"bare": 0, "every step": 1, "one of 100": 100}.items():
        args = jnp.int32(0), params, OPTIMIZER.init(params), chunk, None
        observe = jc.flow(every) if every else None
        how = {
            "loss": loss,
            "optimizer": OPTIMIZER,
            "observe": observe,
            "observe_every": every or 1,
            "pick": batches.pick,
        }
        run = train._scan.lower(*args, **how, ahead=0).compile()
        calls[name] = lambda run=run, args=args: run(*args)
    in_turns(calls, 1)
    return {name: total / steps for name, total in in_turns(calls, repeats).items()}


BENCHMARKS = (followed,)
