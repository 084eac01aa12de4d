"""Random programs that use a few weights over and over, in loops, transposed, tied, masked: norms and moments are accumulation's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from losses import assert_samples

WIDTH = 3
MASK = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])

LAYERS = {
    "dense": lambda h, w, b, _: h @ w,
    "transposed": lambda h, w, b, _: h @ w.T,
    "left": lambda h, w, b, _: jnp.einsum("ij,bti->btj", w, h),
    "over positions": lambda h, w, b, _: jnp.einsum("ts,bsi->bti", w, h),
    "masked": lambda h, w, b, _: h @ (w * MASK) / 2,
    "half": lambda h, w, b, _: jnp.concatenate([h @ w[:, :2], h[..., :1] * w[0, 0]], -1),
    "bias": lambda h, w, b, _: b[None] - h,
    "scale": lambda h, w, b, _: h * (1 + b),
    "row as a bias": lambda h, w, b, _: h + w[1],
    "exp": lambda h, w, b, _: h * jnp.exp(b / 4),
    "embedding": lambda h, w, b, tokens: h + w[tokens],
    "embedding of columns": lambda h, w, b, tokens: h * jnp.take(w, tokens, axis=1).transpose(1, 2, 0),
    "tanh": lambda h, w, b, _: jnp.tanh(h),
    "mean": lambda h, w, b, _: h - h.mean(1, keepdims=True),
    "attention": lambda h, w, b, _: jax.nn.softmax(h @ w @ h.mT) @ h,
    "low precision": lambda h, w, b, _: h @ w.astype(jnp.float64).astype(w.dtype),
}
"""Of a state (samples, 3, 3), a weight (3, 3), a shift (3,) and tokens (samples, 3)."""


def once(layers):
    """The layers one after the other, each with its own of two weights."""

    def run(h, weights, shifts, tokens):
        for name, which in layers:
            h = LAYERS[name](h, weights[which], shifts[which], tokens)
        return jnp.sin(h)

    return run


def repeated(layers):
    """The same three times, in a scan whose steps share weights."""
    return lambda h, *rest: lax.scan(lambda h, _: (once(layers)(h, *rest), None), h, None, length=3)[0]


def stacked(layers):
    """The same twice, in a scan whose steps each have a weight of their own; computed again on the way back."""

    def run(h, weights, shifts, tokens):
        @jax.checkpoint
        def step(h, rows):
            return once(layers)(h, [rows[0]] * 2, [rows[1]] * 2, tokens), None

        return lax.scan(step, h, (weights, shifts))[0]

    return run


blocks = st.tuples(
    st.sampled_from([once, once, repeated, stacked]),
    st.lists(st.tuples(st.sampled_from(list(LAYERS)), st.integers(0, 1)), min_size=1, max_size=3),
)


@pytest.mark.usefixtures("x64")
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.lists(blocks, min_size=1, max_size=3))
def test_norms_and_moments_of_random_programs_are_accumulations(program):
    def loss(params, batch):
        x, tokens = batch
        h = x
        for wrap, layers in program:
            h = wrap(layers)(h, params["w"], params["b"], tokens)
        return jnp.mean(h**2)

    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(2, WIDTH, WIDTH))), "b": jnp.asarray(rng.normal(size=(2, WIDTH)))}
    batch = jnp.asarray(rng.normal(size=(3, WIDTH, WIDTH))), jnp.asarray(rng.integers(0, 3, (3, WIDTH)))
    assert_samples(loss, params | {"b": 0.5 * params["b"]}, batch)
