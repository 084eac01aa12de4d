"""Second derivatives: `jaxchain.laplacian` and `hessian` against `jax.hessian`, and folx where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxchain as jc
from bench.core import Row, less, race
from bench.peers import importable
from jaxchain.cost.measure import compiled_of, flops

Case = tuple[Callable[..., Any], tuple[Any, jax.Array]]


def network(seed: int, *sizes: int, particles: int | None = None) -> Case:
    """A network of tanh to one number, summed over particles where there are some: ``fun(weights, x)``."""
    rng = np.random.default_rng(seed)
    weights = [jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(n), jnp.float32) for n, m in pairwise(sizes)]

    def fun(weights: Any, x: jax.Array) -> jax.Array:
        for w in weights[:-1]:
            x = jnp.tanh(x @ w)
        return jnp.sum(x @ weights[-1])

    shape = sizes[:1] if particles is None else (particles, sizes[0])
    return fun, (weights, jnp.asarray(rng.normal(size=shape), jnp.float32))


def of_jax(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The trace of JAX's own Hessian."""

    def trace(weights: Any, x: jax.Array) -> jax.Array:
        return jnp.trace(jax.hessian(fun, 1)(weights, x).reshape(x.size, x.size))

    return trace


def of_folx(folx: Any, fun: Callable[..., Any], sparsity: int = 0) -> Callable[..., Any]:
    """Folx's forward Laplacian."""
    return lambda weights, x: folx.forward_laplacian(lambda x: fun(weights, x), sparsity)(x).laplacian


def laplacians(seed: int, quick: bool) -> Iterable[Row]:
    """The Laplacian of networks of 64 inputs, with and without a waist: work and time."""
    folx = importable("folx")
    cases = {
        "Laplacian, MLP 64, five layers": (network(seed, 64, 64, 64, 64, 64, 1), 0.55, 1.0),
        "Laplacian, MLP 64 with a waist of 4": (network(seed, 64, 64, 4, 64, 64, 1), 0.1, 1 / 3),
    }
    for name, ((fun, args), jaxs, folxs) in cases.items():
        ours = jc.laplacian(fun, 1)
        work = flops(ours, *args)
        yield Row(f"{name}: work / trace of jax.hessian", work, flops(of_jax(fun), *args), "FLOP", at_most=jaxs)
        racing = {"ours": ours, "jax": of_jax(fun)}
        if folx:
            racing["folx"] = of_folx(folx, fun)
            yield Row(f"{name}: work / folx", work, flops(racing["folx"], *args), "FLOP", at_most=folxs)
        seconds = race(racing, *args, repeats=5 if quick else 40)
        for peer in ("jax", "folx")[: len(racing) - 1]:
            yield Row(f"{name}: time / {peer}", seconds["ours"], seconds[peer], "s", at_most=1.0)


def particles(seed: int, quick: bool) -> Iterable[Row]:
    """The Laplacian of a sum over 32 particles: work, and time against folx that is told of the sparsity."""
    folx = importable("folx")
    fun, args = network(seed, 3, 64, 64, 64, 1, particles=32)
    ours = jc.laplacian(fun, 1)
    name = "Laplacian, 32 particles"
    yield less(f"{name}: work / trace of jax.hessian", flops(ours, *args), flops(of_jax(fun), *args), "FLOP", 30)
    if folx:
        seconds = race({"ours": ours, "folx": of_folx(folx, fun, 6)}, *args, repeats=5 if quick else 60)
        yield Row(f"{name}: time / folx, sparse", seconds["ours"], seconds["folx"], "s", at_most=1.1)


def hessians(seed: int, quick: bool) -> Iterable[Row]:
    """The Hessian of a network from 128 numbers to one, through a waist of 8: work and time."""
    fun, args = network(seed, 128, 64, 8, 64, 64, 64, 1)
    racing = {"ours": lambda *args: jc.hessian(fun, args, argnum=1), "jax": jax.hessian(fun, 1)}
    work = {name: flops(way, *args) for name, way in racing.items()}
    yield less("Hessian, MLP 128 with a waist of 8: work", work["ours"], work["jax"], "FLOP", 3)
    seconds = race(racing, *args, repeats=5 if quick else 40)
    yield Row("Hessian, MLP 128 with a waist of 8: time", seconds["ours"], seconds["jax"], "s", at_most=1.0)


def many_inputs(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """The Laplacian by 100,000 inputs, in chunks: temporary memory."""

    def fun(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(jnp.tanh(x) * jnp.roll(jnp.sin(x), 1)) ** 2)

    shape = jax.ShapeDtypeStruct((100_000,), jnp.float32)
    memory = compiled_of(jc.laplacian(fun), shape)[1].memory_analysis()
    yield Row("Laplacian, 100,000 inputs: temporaries", memory.temp_size_in_bytes, None, "B", at_most=2**30)


BENCHMARKS = (laplacians, particles, hessians, many_inputs)
