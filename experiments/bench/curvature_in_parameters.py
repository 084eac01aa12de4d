"""Curvature in parameters: the Gauss–Newton matrix's diagonal against the explicit loop over outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxchain as jc
from bench.core import Row, less, race
from bench.samples import ConvNet, Recurrent, Transformer
from jaxchain.cost.measure import flops, measure

SAMPLES, CLASSES = 16, 10

Model = Callable[[Any, jax.Array], jax.Array]


class Pooled(nn.Module):
    """A transformer's logits, averaged over positions."""

    blocks: int = 2

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of a batch."""
        return nn.Dense(CLASSES)(Transformer(self.blocks)(tokens).mean(-2))


def cases(seed: int, quick: bool) -> Iterator[tuple[str, Model, Any, jax.Array]]:
    """Each network as a function of one sample, its parameters, a batch; quickly, two of them, and four samples."""
    key, samples = jax.random.key(seed), 4 if quick else SAMPLES

    def linen(module: nn.Module, xs: jax.Array) -> tuple[Model, Any, jax.Array]:
        return lambda params, x: jnp.asarray(module.apply(params, x[None]))[0], module.init(key, xs), xs

    net = jc.nets.mlp([784, 256, 256, 256, 256, CLASSES])
    yield "MLP 784-256⁴-10", net, net.init(key), jax.random.normal(key, (samples, 784))
    if not quick:
        yield "conv net 28×28", *linen(ConvNet(), jax.random.normal(key, (SAMPLES, 28, 28, 1)))
    yield "transformer, 16 × 64", *linen(Pooled(1 if quick else 2), jax.random.randint(key, (samples, 16), 0, 100))
    if not quick:
        yield "GRU, 16 steps of 64", *linen(Recurrent(), jax.random.normal(key, (SAMPLES, 16, 32)))


def cross_entropy(z: jax.Array, y: jax.Array) -> jax.Array:
    """Of one sample."""
    return jax.nn.logsumexp(z) - z[y]


def explicit(fun: Model) -> Callable[..., Any]:
    """The diagonal by a gradient of every sample and column of the loss's Hessian, squared."""

    def run(params: Any, xs: jax.Array, ys: jax.Array) -> Any:
        def one(x: jax.Array, y: jax.Array) -> Any:
            z, pull = jax.vjp(lambda p: fun(p, x), params)
            values, vectors = jnp.linalg.eigh(jax.hessian(cross_entropy)(z, y))
            each = jax.vmap(lambda column: pull(column)[0])(vectors.T)
            return jax.tree.map(lambda leaf: jnp.tensordot(values, leaf**2, 1), each)

        return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), jax.vmap(one)(xs, ys))

    return run


def gauss_newton_diagonal(seed: int, quick: bool) -> Iterable[Row]:
    """The exact diagonal, against the explicit loop over outputs and as many backward passes."""
    for name, fun, params, xs in cases(seed, quick):
        ys = jnp.arange(len(xs)) % CLASSES
        label = f"GGN diagonal, {name}"

        def ours(params: Any, xs: jax.Array, ys: jax.Array, fun: Model = fun) -> Any:
            return jc.ggn(fun, cross_entropy, params, (xs, ys)).diagonal()

        def backward(params: Any, xs: jax.Array, ys: jax.Array, fun: Model = fun) -> Any:
            return jax.grad(lambda p: jnp.mean(jax.vmap(lambda x, y: cross_entropy(fun(p, x), y))(xs, ys)))(params)

        given = (params, xs, ys)
        work = flops(ours, *given)
        yield Row(f"{label} / {CLASSES} backward passes: FLOPs", work, CLASSES * flops(backward, *given), "FLOP", 1.0)
        yield Row(f"{label} / explicit loop: FLOPs", work, flops(explicit(fun), *given), "FLOP", 1.0)
        if "MLP" in name:
            bytes_of = [measure(run, *given, repeats=1).peak_bytes for run in (ours, explicit(fun))]
            yield less(f"{label} / explicit loop: memory", *bytes_of, "B", 50)
            times = race({"ours": ours, "explicit": explicit(fun)}, *given, repeats=1 if quick else 20)
            yield less(f"{label} / explicit loop: time", times["ours"], times["explicit"], "s", 10)


BENCHMARKS = (gauss_newton_diagonal,)
