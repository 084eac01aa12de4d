"""What norms cost, as XLA counts it, loops as often as they run: about a batch's own gradient, never more than gradients."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxchain as jc
from jaxchain.cost.measure import flops

B = 64


def cross_entropy(logits, targets):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1))


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(50, 32)(tokens)
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        x = x + nn.Dense(32)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x))))
        return nn.Dense(50)(nn.LayerNorm()(x))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.RNN(nn.GRUCell(32))(x)[:, -1])


def of_shape(*shape):
    return jax.ShapeDtypeStruct((B, *shape), jnp.float32)


def labels(*shape):
    return jax.ShapeDtypeStruct((B, *shape), jnp.int32)


def linen(module, batch):
    params = jax.eval_shape(module.init, jax.random.key(0), batch[0])
    return lambda p, b: cross_entropy(module.apply(p, b[0]), b[1]), params, batch


def dense():
    net = jc.nets.mlp([784, 256, 256, 256, 256, 10])
    params = jax.eval_shape(net.init, jax.random.key(0))
    return lambda p, b: cross_entropy(jax.vmap(net, (None, 0))(p, b[0]), b[1]), params, (of_shape(784), labels())


CASES = {
    "mlp": (dense, 1.1),
    "conv net": (lambda: linen(Images(), (of_shape(14, 14, 1), labels())), 1.3),
    "transformer, 8 positions": (lambda: linen(Transformer(), (labels(8), labels(8))), 1.3),
    "transformer, 48 positions": (lambda: linen(Transformer(), (labels(48), labels(48))), 1.3),
    "gru, 5 steps": (lambda: linen(Recurrent(), (of_shape(5, 16), labels())), 1.3),
    "gru, 40 steps": (lambda: linen(Recurrent(), (of_shape(40, 16), labels())), 1.3),
}


@pytest.mark.parametrize("name", CASES)
def test_norms_cost_about_a_batchs_gradient_and_no_more_than_samples_gradients(name):
    build, most = CASES[name]
    loss, params, batch = build()

    def accumulated(params, batch):
        each = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda leaf: leaf[:, None], batch))
        return jnp.sqrt(sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in jax.tree.leaves(each)))

    ours = flops(lambda p, b: jc.sample_gradient_norms(loss, p, b).whole, params, batch)
    assert ours <= most * flops(jax.grad(loss), params, batch)
    assert ours <= 1.001 * flops(accumulated, params, batch)
