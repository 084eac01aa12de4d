"""States of several values: places that few numbers cross, shown by discovery and used by the planner."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.discovery.cuts import minima

sys.path.append(str(Path(__file__).parents[2] / "experiments"))

from bench.models import over_positions

W = [draw(jnp.zeros(shape), seed) / 4 for seed, shape in enumerate([(32, 60), (4, 32), (4, 32), (32, 4), (60, 32)])]
X = draw(jnp.zeros(60))


def heads(x):
    hidden = jnp.tanh(W[0] @ x)
    return W[1] @ hidden, W[2] @ hidden


def decoded(latent):
    return jax.nn.sigmoid(W[4] @ jnp.tanh(W[3] @ latent))


def variational(x):
    """Reconstruction, mean and log-variance: never one value crosses."""
    mean, log_variance = heads(x)
    return decoded(mean + jnp.exp(log_variance / 2) * 0.3), mean, log_variance


def gaussian(x):
    """Mean and covariance, predicted and updated, as a filter does."""
    mean, spread = W[1] @ jnp.tanh(W[0] @ x), (W[2] @ jnp.tanh(W[0] @ x))[:, None] ** 2 + jnp.eye(4)
    for _ in range(2):
        mean, spread = jnp.sin(mean), spread @ spread.T / 9
        gain = jnp.linalg.solve(spread + jnp.eye(4), spread).T
        mean, spread = mean - gain @ mean, spread - gain @ spread
    return decoded(mean) @ W[4] + spread.sum()


def with_a_narrow_skip(x):
    code = W[1] @ jnp.tanh(W[0] @ x)
    return decoded(code) * code.sum(), decoded(jnp.sin(code))


def with_whole_numbers(x):
    code = W[1] @ jnp.tanh(W[0] @ x)
    return decoded(code) * jnp.argmax(code)


def in_a_tree(tree):
    return variational(tree["a"] + jnp.tile(tree["b"], 2))


FUNCTIONS = {
    "variational": (variational, X),
    "gaussian": (gaussian, X),
    "narrow skip": (with_a_narrow_skip, X),
    "whole numbers": (with_whole_numbers, X),
    "rematerialised": (jax.checkpoint(variational), X),
    "of a tree": (in_a_tree, {"a": X, "b": X[:30]}),
    "a branch": (lambda x: lax.cond(x[0] > 9, variational, lambda x: variational(jnp.sin(x)), x), X),
    "a loop": (lambda x: lax.fori_loop(0, 2, lambda _, xs: variational(xs[0] + 1), variational(x)), X),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_chain_of_bundles_is_the_function_and_its_sweeps_are_jaxs(name):
    fun, x = FUNCTIONS[name]
    x = jax.tree.map(lambda leaf: leaf.astype(float), x)
    chain = jc.discover(fun, x, granularity="bundles")
    assert len(chain) >= len(jc.discover(fun, x))
    tangent = draw(x, seed=1)
    cotangent = draw(jax.eval_shape(fun, x), seed=2)

    @jax.jit
    def by_the_chain(x):
        forward, reverse = jc.forward_sweep(chain, (x,), tangent), jc.reverse_sweep(chain, (x,), cotangent)
        return (chain(x), forward.tangents[-1]), reverse.arg_cotangents

    by_jax = jax.jit(lambda x: (jax.jvp(fun, (x,), (tangent,)), jax.vjp(fun, x)[1](cotangent)))
    assert_close(by_the_chain(x), by_jax(x), tol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", ["auto", "mixed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobians_through_bundles_are_jaxs(name, mode):
    fun, x = FUNCTIONS[name]
    x = jax.tree.map(lambda leaf: leaf.astype(float), x)
    jac, expected = jc.jacobian(fun, mode=mode), jax.jacrev(fun) if name != "a loop" else jax.jacfwd(fun)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), x)
    wanted = jax.jit(jax.vmap(expected))(batch)
    assert_close(jax.jit(jac)(x), jax.tree.map(lambda leaf: leaf[0], wanted), tol=1e-12)
    if mode == "auto":
        assert_close(jax.jit(jax.vmap(jac))(batch), wanted, tol=1e-12)

        def energy(jacobian):
            return jax.jit(jax.grad(lambda x: sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(jacobian(x)))))

        assert_close(energy(jac)(x), energy(jax.jacfwd(fun))(x), tol=1e-10)


def test_a_variational_autoencoder_with_all_its_results_is_cut_at_its_mean_and_log_variance():
    chain = jc.discover(variational, X, granularity="bundles")
    assert [row.in_shape for row in chain.rows].count("(f32[4], f32[4])") == 1
    assert "(f32[4], f32[4])" not in [row.in_shape for row in jc.discover(variational, X).rows]


@pytest.mark.parametrize(("name", "share"), [("variational", 0.35), ("gaussian", 0.6), ("narrow skip", 0.35)])
def test_few_numbers_in_the_middle_save_most_of_the_work(name, share):
    fun, x = FUNCTIONS[name]
    best = min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))
    assert jc.plan(fun, (x,)).mode == "mixed"
    assert flops(jc.jacobian(fun), x) <= share * best


def attention(x):
    query, key, value = (x @ w for w in QUERY_KEY_VALUE)
    return jax.nn.softmax(query @ key.T / 2) @ value @ QUERY_KEY_VALUE[0]


def two_layers(x):
    for _ in range(2):
        x = x + attention(x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5))
    return x


QUERY_KEY_VALUE = [draw(jnp.zeros((8, 8)), seed) / 3 for seed in (11, 12, 13)]
BATCH = draw(jnp.zeros((16, 8)), 14)
OPENED = {
    "attention": (attention, BATCH, 0.8),
    "layers of attention": (two_layers, BATCH, 0.9),
    "a batch of several results": (jax.vmap(variational), draw(jnp.zeros((4, 60)), 15), 0.2),
    "a batch of several values": (lambda xy: (jnp.tanh(xy[0] @ QUERY_KEY_VALUE[0]) + xy[1], xy[0]), (BATCH, BATCH + 1), 0.3),
    "a sum over pairs": (lambda x: ((x[:, None] - x) @ QUERY_KEY_VALUE[1] * jnp.exp(-((x[:, None] - x) ** 2).sum(-1, keepdims=True))).sum(1), BATCH, 1.02),
    "features of each, then mixed": (lambda x: jnp.fft.fft(jnp.tanh(jnp.tanh(x @ QUERY_KEY_VALUE[0]) @ QUERY_KEY_VALUE[1]) * x, axis=0).real, BATCH, 1.02),
}  # fmt: skip


@pytest.mark.parametrize("name", OPENED)
def test_where_positions_mix_only_inside_one_position_serves_all_up_to_there(name):
    fun, x, share = OPENED[name]
    best = min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))
    assert flops(jc.jacobian(fun), x) <= share * best
    got, want = jax.jit(lambda x: (jc.jacobian(fun)(x), jax.jacrev(fun)(x)))(x)
    assert_close(got, want, tol=1e-4)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_minima_are_the_places_between_two_larger_ones(sizes):
    def is_minimum(k):
        if k and sizes[k - 1] == sizes[k]:
            return False
        stop = next((j for j in range(k, len(sizes)) if sizes[j] != sizes[k]), None)
        return k > 0 and stop is not None and sizes[k - 1] > sizes[k] < sizes[stop]

    assert minima(sizes) == list(filter(is_minimum, range(len(sizes))))


def test_a_state_of_several_values_is_a_tuple_in_order_of_evaluation():
    chain = jc.discover(variational, X, granularity="bundles")
    primals = jc.forward_sweep(chain, (X,), X).primals
    (state,) = [p for p in primals if isinstance(p, tuple) and len(p) == 2]
    np.testing.assert_allclose(np.stack(state), np.stack(heads(X)), rtol=1e-5)


# ------------------------------------------------------------------------- what most models are, at a size that counts

MODELS = {
    "causal transformer, 6 blocks, 32 × 64": 0.5,
    "vision transformer, 4 blocks, 16 × 48": 0.55,
    "MLP-mixer, 4 blocks, 16 × 48": 0.5,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_over_positions_take_half_the_work_or_less(name):
    fun, args = over_positions(0)[name]
    best = min(flops(jax.jacfwd(fun), *args), flops(jax.jacrev(fun), *args))
    assert flops(jc.jacobian(fun), *args) <= MODELS[name] * best


def test_eighty_blocks_keep_their_positions():
    def net(params, x):
        for look, up, down in params:
            x = x + jax.nn.softmax(x @ look @ x.T) @ x
            x = x + jnp.tanh(x @ up) @ down
        return x

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    block = shape(2048, 2048), shape(2048, 8192), shape(8192, 2048)
    plan = jc.plan(net, ([block] * 80, shape(512, 2048)), argnum=1)
    assert plan.mode == "mixed"
    assert plan.cost < 0.6 * min(plan.forward_cost, plan.reverse_cost)
