"""Importing, training and sweeping against what one would write with JAX and optax alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import jax
import optax

import jaxchain as jc
from bench.core import Row, in_turns
from jaxchain.cost.measure import flops
from jaxchain.digits import accuracy, adam, cross_entropy, fit_digits, load_digits


def importing(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Import jaxchain and load what its names stand for, or jax with optax, in fresh processes taking turns."""
    ours, used, peer = in_turns(
        {
            statement: lambda s=statement: subprocess.run([sys.executable, "-c", s], check=True) and None
            for statement in ("import jaxchain", "import jaxchain as jc; jc.jacobian, jc.train", "import jax, optax")
        },
        1 if quick else 10,
    ).values()
    yield Row("import jaxchain / jax, optax", ours, peer, "s", at_most=1.15)
    yield Row("import jaxchain and use it / jax, optax", used, peer, "s", at_most=1.15)


def training_step(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Count the operations of a training step, and of one written by hand."""
    net, digits, optimizer = jc.nets.mlp([64, 128, 64, 10]), load_digits(seed), adam(1000)
    loss = cross_entropy(net)
    params = net.init(jax.random.key(seed))
    args = (params, optimizer.init(params), (digits.train[0][:64], digits.train[1][:64]))

    def by_hand(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    # `fit` keeps the first three results, unless it observes.
    ours = flops(lambda *args: jc.train.update(loss, optimizer, *args)[:3], *args)
    yield Row("training step / by hand", ours, flops(by_hand, *args), "FLOP", at_most=1.0)


def digits_fit(seed: int, quick: bool) -> Iterable[Row]:
    """Train on digits: held-out accuracy, and seconds with compilation."""
    net, digits, steps = jc.nets.mlp([64, 128, 64, 10]), load_digits(seed), 150 if quick else 1500
    params = net.init(jax.random.key(seed))
    start = time.perf_counter()
    fit = fit_digits(net, params, digits, steps=steps, seed=seed + 1, progress=False)
    seconds = time.perf_counter() - start
    yield Row("accuracy on a fifth of digits", accuracy(net, fit.params, digits.test), None, "%", at_least=0.97)
    yield Row("time to fit digits", seconds, None, "s", at_most=30)


def suffix_sweep(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Count the operations of all suffix Jacobians, and of jax.jacrev of the whole."""
    net = jc.nets.mlp([256, 256, 256, 256, 256, 32], "tanh", "lecun")
    key_params, key_x = jax.random.split(jax.random.key(seed))
    args = (net.init(key_params), jax.random.normal(key_x, (256,)))
    ours = flops(lambda *args: jc.suffix_jacobians(net, args), *args)
    peer = flops(jax.jacrev(net, argnums=-1), *args)
    yield Row("suffix_jacobians / jax.jacrev", ours, peer, "FLOP", at_most=1.1)


BENCHMARKS = (importing, training_step, digits_fit, suffix_sweep)
