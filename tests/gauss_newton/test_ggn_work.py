"""What the diagonal of the Gauss–Newton matrix costs, as XLA counts it, loops as often as they run."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxchain as jc
from jaxchain.cost.measure import flops

B, CLASSES = 8, 10


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(CLASSES)(x.reshape(-1))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(32)(x)
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        x = x + nn.Dense(32)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x))))
        return nn.Dense(CLASSES)(nn.LayerNorm()(x).mean(0))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.RNN(nn.GRUCell(32))(x)[-1])


def linen(module, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return module.apply, jax.eval_shape(module.init, jax.random.key(0), x), shape


def dense():
    net = jc.nets.mlp([784, 256, 256, 256, 256, CLASSES])
    return net, jax.eval_shape(net.init, jax.random.key(0)), (784,)


CASES = {
    "mlp": (dense, 0.5),
    "conv net": (lambda: linen(Images(), 14, 14, 1), 1.05),
    "transformer": (lambda: linen(Transformer(), 16, 8), 1.05),
    "gru": (lambda: linen(Recurrent(), 16, 8), 1.05),
}
"""Name → a model, and its share of a forward pass and as many pulls as there are outputs; 0.05 are the squares."""


@pytest.mark.parametrize("name", CASES)
def test_the_diagonal_takes_no_more_than_a_backward_pass_an_output_and_less_than_the_explicit_loop(name):
    build, most = CASES[name]
    fun, params, shape = build()
    xs, ys = jax.ShapeDtypeStruct((B, *shape), jnp.float32), jax.ShapeDtypeStruct((B,), jnp.int32)

    def loss(z, y):
        return jax.nn.logsumexp(z) - z[y]

    def mean_loss(p, xs, ys):
        return jnp.mean(jax.vmap(lambda x, y: loss(fun(p, x), y))(xs, ys))

    def explicit(p, xs, ys):
        def one(x, y):
            z, pull = jax.vjp(lambda p: fun(p, x), p)
            values, vectors = jnp.linalg.eigh(jax.hessian(loss)(z, y))
            each = jax.vmap(lambda c: pull(c)[0])(vectors.T)
            return jax.tree.map(lambda leaf: jnp.tensordot(values, leaf**2, 1), each)

        return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), jax.vmap(one)(xs, ys))

    ours = flops(lambda p, xs, ys: jc.ggn(fun, loss, p, (xs, ys)).diagonal(), params, xs, ys)
    there = flops(mean_loss, params, xs, ys)
    back = flops(jax.grad(mean_loss), params, xs, ys)
    assert ours <= CLASSES * back
    assert ours <= most * (there + CLASSES * (back - there))
    assert ours <= flops(explicit, params, xs, ys)
    # Closed form: the categorical likelihood has a column less.
    fisher = flops(lambda p, xs: jc.fisher(fun, p, (xs, None)).diagonal(), params, xs)
    assert fisher < 0.95 * ours


def test_the_trace_multiplies_nothing_out():
    net = jc.nets.mlp([64, 64, 64, CLASSES])
    params = jax.eval_shape(net.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((B, 64), jnp.float32)
    trace = flops(lambda p, xs: jc.fisher(net, p, (xs, None)).trace(), params, xs)
    diagonal = flops(lambda p, xs: jc.fisher(net, p, (xs, None)).diagonal(), params, xs)
    assert trace < 0.85 * diagonal


def test_memory_is_bounded_by_chunks():
    net = jc.nets.mlp([32, 64, CLASSES])
    params = jax.eval_shape(net.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((4096, 32), jnp.float32)

    def peak(size):
        ask = jax.jit(lambda p, xs: jc.fisher(net, p, (xs, None), chunk_size=size).diagonal())
        return ask.lower(params, xs).compile().memory_analysis().temp_size_in_bytes

    assert peak(32) < peak(None) / 20
