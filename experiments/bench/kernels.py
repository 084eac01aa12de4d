"""Neural tangent kernels: `jaxchain.ntk` against contraction of ``jax.jacrev``, and against three ways by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

import jaxchain as jc
from bench.by_hand import NETS, WAYS, contraction
from bench.core import Row, less, race
from jaxchain.cost.measure import flops


def wide_kernel(seed: int, quick: bool) -> Iterable[Row]:
    """The kernel of an MLP on 64 inputs, all outputs, against contraction of jax.jacrev."""
    net = jc.nets.mlp([784, 256, 256, 256, 256, 10])
    args = net.init(jax.random.key(seed)), jax.random.normal(jax.random.key(seed + 1), (64, 784))
    runs = {"ours": ours(net), "peer": lambda params, xs: contraction(net, params, xs)}
    compiled = {name: jax.jit(run).lower(*args).compile() for name, run in runs.items()}
    name = "NTK of MLP 784-256⁴-10, 64 inputs / jacrev's"
    work, memory = (
        {key: float(of(run)) for key, run in compiled.items()}
        for of in (lambda run: run.cost_analysis()["flops"], lambda run: run.memory_analysis().temp_size_in_bytes)
    )
    yield less(f"{name}: work", work["ours"], work["peer"], "FLOP", 250)
    yield less(f"{name}: temporaries", memory["ours"], memory["peer"], "B", 100)
    if quick:
        return
    seconds = race(runs, *args, repeats=5)
    yield less(f"{name}: time", seconds["ours"], seconds["peer"], "s", 100)
    made = {key: np.asarray(run(*args)) for key, run in compiled.items()}
    gap = float(np.abs(made["ours"] - made["peer"]).max() / np.abs(made["peer"]).max())
    yield Row(f"{name}: gap in float32", gap, None, "", at_most=1e-5)


def kernels(seed: int, quick: bool) -> Iterable[Row]:
    """Kernels of small networks of many kinds, against the best of three ways by hand."""
    for name, net in itertools.islice(NETS.items(), 2 if quick else None):
        args = net.drawn(seed), jax.random.normal(jax.random.key(seed + 1), (16, *net.sample))
        by_hand = {key: hand(way, net.fun) for key, way in WAYS.items()}
        work = {key: flops(run, *args) for key, run in {"ours": ours(net.fun), **by_hand}.items()}
        best = min(by_hand, key=lambda key: work[key])
        label = f"NTK of {name} / {best} by hand"
        yield Row(f"{label}: work", work["ours"], work[best], "FLOP", at_most=1.05)
        if not quick:
            seconds = race({"ours": ours(net.fun), "peer": by_hand[best]}, *args, repeats=60)
            yield Row(f"{label}: time", seconds["ours"], seconds["peer"], "s", at_most=1.1)


def ours(net: Callable[..., Any]) -> Callable[..., jax.Array]:
    """By jaxchain."""
    return lambda params, xs: jc.ntk(net, params, xs)


def hand(way: Callable[..., jax.Array], net: Callable[..., Any]) -> Callable[..., jax.Array]:
    """By hand."""
    return lambda params, xs: way(net, params, xs)


BENCHMARKS = (wide_kernel, kernels)
