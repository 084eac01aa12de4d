"""Gradient flow along a chain: every number against a second, explicit backward pass."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain.diagnosis.lengths import length

WIDTHS = (5, 7, 6, 3)


def parameters(seed=0, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return [
        {"w": jnp.asarray(scale * rng.normal(size=(m, n)), dtype), "b": jnp.asarray(rng.normal(size=n), dtype)}
        for m, n in itertools.pairwise(WIDTHS)
    ]


def batch(seed=1, count=4, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, WIDTHS[0])), dtype)


def model(params, x, activation=jnp.tanh, noise=None):
    """Three dense layers, two activations, a sum of squares: 6 states after the input, each with something added."""
    noise = iter([0.0] * 6 if noise is None else noise)
    for number, layer in enumerate(params):
        x = x @ layer["w"] + layer["b"] + next(noise)
        if number < len(params) - 1:
            x = activation(x) + next(noise)
    return jnp.sum(jnp.square(x))


@jax.jit
def explicit(params, x):
    """States and cotangents by perturbing every state, gradients by `jax.grad`."""
    states, value = [x], x
    for number, layer in enumerate(params):
        value = value @ layer["w"] + layer["b"]
        states.append(value)
        if number < len(params) - 1:
            value = jnp.tanh(value)
            states.append(value)
    noise = [jnp.zeros_like(state) for state in states[1:]]
    at_input, *others = jax.grad(lambda x, *noise: model(params, x, noise=noise), tuple(range(6)))(x, *noise)
    gradients = jax.grad(model)(params, x)
    norms = [jnp.linalg.norm(jnp.concatenate([layer["w"].ravel(), layer["b"]])) for layer in gradients]
    return [jnp.linalg.norm(s) for s in states], [jnp.linalg.norm(c) for c in (at_input, *others)], norms


def flow_of(params, x, **how):
    return jc.gradient_flow(model, (params, x), **how)


def dense(flow):
    """Which of the stages have parameters."""
    return np.flatnonzero(np.asarray(flow.parameters))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_norms_are_those_of_an_explicit_backward_pass(scale):
    params, x = parameters(scale=scale), batch()
    flow = jax.jit(flow_of)(params, x)
    states, cotangents, gradients = explicit(params, x)
    np.testing.assert_allclose(flow.state[:6], states, rtol=1e-5)
    np.testing.assert_allclose(flow.cotangent[:6], cotangents, rtol=1e-4)
    np.testing.assert_allclose(flow.gradient[dense(flow)], gradients, rtol=1e-4)
    weights = [np.sqrt(sum(np.sum(np.square(leaf)) for leaf in layer.values())) for layer in params]
    np.testing.assert_allclose(flow.weight[dense(flow)], weights, rtol=1e-5)


def test_a_bias_counts_once_however_large_the_batch_is():
    flow = flow_of(parameters(), batch(count=64))
    assert [n for n in flow.parameters if n] == [m * n + n for m, n in itertools.pairwise(WIDTHS)]


def test_stages_without_parameters_have_no_gradient():
    flow = flow_of(parameters(), batch())
    bare = [k for k, n in enumerate(flow.parameters) if not n]
    assert bare
    assert np.isnan(flow.gradient[jnp.asarray(bare)]).all()


def test_steps_of_a_scan_stack_and_vmap_batches():
    params, x = parameters(), batch()
    scales = jnp.array([1.0, 0.5, 2.0])
    each = [flow_of(params, scale * x) for scale in scales]
    scanned = jax.jit(lambda: jax.lax.scan(lambda _, scale: (None, flow_of(params, scale * x)), None, scales)[1])()
    mapped = jax.jit(jax.vmap(lambda scale: flow_of(params, scale * x)))(scales)
    for flow in (scanned, mapped):
        assert flow.names == each[0].names
        np.testing.assert_allclose(flow.cotangent, np.stack([one.cotangent for one in each]), rtol=1e-5)
        assert [row.step for row in flow.rows] == [k for k in range(3) for _ in flow.stages]


@pytest.mark.parametrize(
    ("activation", "shift", "dead", "saturated"),
    [
        (jax.nn.relu, -50.0, 1.0, None),
        (jax.nn.relu, 50.0, 0.0, None),
        (jax.nn.gelu, -50.0, 1.0, None),
        (jax.nn.silu, 50.0, 0.0, None),
        (jax.nn.softplus, -50.0, 1.0, None),
        (jax.nn.leaky_relu, -50.0, 0.0, None),
        (jnp.tanh, 3.5, 0.0, 1.0),
        (jnp.tanh, 20.0, 1.0, 1.0),
        (jnp.tanh, 0.0, 0.0, 0.0),
        (jax.nn.sigmoid, 5.0, 0.0, 1.0),
        (jax.nn.sigmoid, 0.0, 0.0, 0.0),
        (jax.scipy.special.erf, 0.0, 0.0, 0.0),
        (lambda x: jnp.square(jax.nn.relu(x)), -50.0, 1.0, None),
    ],
)
def test_dead_and_saturated_are_told_by_the_slope_alone(activation, shift, dead, saturated):
    x = shift + 0.01 * batch()
    flow = jc.gradient_flow(lambda w, x: jnp.sum(activation(x) @ w), (jnp.ones(WIDTHS[0]), x))
    found = [(row.dead, row.saturated) for row in flow.rows if not np.isnan(row.dead)]
    assert found == [(dead, pytest.approx(saturated if saturated is not None else np.nan, nan_ok=True))]


@pytest.mark.parametrize("function", [jnp.exp, jnp.square, lambda x: 3 * x, jnp.sqrt, jax.nn.softmax, jnp.log])
def test_what_is_no_activation_has_no_dead_units(function):
    flow = jc.gradient_flow(lambda w, x: jnp.sum(w * function(x)), (jnp.ones(5), jnp.abs(batch())))
    assert np.isnan(flow.dead).all()
    assert np.isnan(flow.saturated).all()


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "elu", "selu", "silu", "gelu", "softplus", "leaky_relu", "tanh", "sigmoid"]
)
def test_activations_are_known_under_vmap_too(name):
    activation = getattr(jax.nn, name)
    flow = jc.gradient_flow(lambda w, x: jnp.sum(jax.vmap(activation)(x) @ w), (jnp.ones(WIDTHS[0]), batch()))
    assert flow.dead[0] == 0


def test_a_unit_is_dead_if_it_is_off_at_every_sample():
    x = jnp.array([[1.0, -1.0, -1.0, 2.0], [-1.0, -1.0, -1.0, 3.0]])
    (dead,) = [row.dead for row in jc.gradient_flow(lambda x: jnp.sum(jax.nn.relu(x)), (x,)).rows if row.dead >= 0]
    assert dead == 0.5


def test_histograms_count_every_entry_of_the_gradient():
    params, x = parameters(), batch()
    flow = jax.jit(lambda p, x: flow_of(p, x, histogram=True))(params, x)
    gradients = jax.grad(model)(params, x)
    for k, layer in zip(dense(flow), gradients, strict=True):
        entries = np.abs(np.concatenate([np.ravel(leaf) for leaf in layer.values()]))
        wanted = np.histogram(entries[entries > 0], [*flow.bins, np.inf])[0]
        np.testing.assert_array_equal(flow.histogram[k], [np.sum(entries == 0), *wanted])


def test_the_largest_singular_value_is_the_weights_own():
    params = parameters()
    flow = flow_of(params, batch(count=1), sigma=True)
    exact = [np.linalg.norm(layer["w"], 2) for layer in params]
    np.testing.assert_allclose(flow.sigma[dense(flow)], exact, rtol=0.05)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("size", [1e-4, 1.0, 3e4])
def test_lengths_of_narrow_numbers_are_taken_in_float32(dtype, size):
    x = jnp.full((500,), size, dtype)
    wanted = np.linalg.norm(np.asarray(x, np.float64))
    assert float(length(x)) == pytest.approx(wanted, rel=1e-5)
    assert length(x).dtype == jnp.float32


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_lengths_beyond_the_squares_of_float32_are_right_near_one_another(size):
    x = jnp.full((10,), size)
    assert float(length(x, near=jnp.asarray(size))) == pytest.approx(np.sqrt(10) * size, rel=1e-5)


def test_a_vanishing_gradient_is_not_taken_for_zero():
    def deep(w, x):
        for _ in range(50):
            x = w * x
        return jnp.sum(x)

    flow = jax.jit(lambda *args: jc.gradient_flow(deep, args, granularity="finest"))(jnp.float32(0.3), jnp.ones(4))
    np.testing.assert_allclose(flow.cotangent[:51], 2 * 0.3 ** np.arange(50, -1, -1.0), rtol=1e-4)
    assert flow.first_nonfinite is None


def test_the_first_state_that_is_not_finite_is_named():
    def fun(w, x):
        return jnp.sum(jnp.log(jnp.tanh(w * x)))

    flow = jc.gradient_flow(fun, (1.0, jnp.array([-1.0, 1.0])))
    assert flow.first_nonfinite.startswith("log")
    assert "not finite: log" in str(flow)


def test_where_the_backward_pass_alone_breaks_the_stage_it_breaks_in_is_named():
    def fun(w, x):
        return jnp.sum(jnp.sin(jnp.sqrt(jnp.tanh(w * x))))

    flow = jc.gradient_flow(fun, (1.0, jnp.array([0.0, 1.0])))
    assert np.isfinite(flow.state).all()
    assert flow.first_nonfinite.startswith("tanh")  # the state whose cotangent is infinite: sqrt has it so


def test_patterns_choose_stages_and_keep_the_input():
    net = jc.nets.mlp([3, 4, 4, 2], activation="relu")
    args = net.init(jax.random.key(0)), jnp.ones(3)
    whole, some = jc.gradient_flow(net, args), jc.gradient_flow(net, args, stages=["relu_*", "dense_2"])
    assert some.names == ("input", "relu_0", "relu_1", "dense_2")
    at = jnp.asarray([whole.names.index(name) for name in some.names])
    np.testing.assert_array_equal(some.cotangent, whole.cotangent[at])
    with pytest.raises(KeyError, match=r"No stage is named 'rleu_\*'. Nearest: relu_"):
        jc.gradient_flow(net, args, stages="rleu_*")


def test_along_tokens_it_begins_at_the_embedding():
    embed, w = jnp.ones((9, 2)), jnp.ones((2, 3))
    tokens = jnp.array([[3, 1], [4, 4]])

    def fun(params, tokens):
        return jnp.sum(jnp.tanh(params[0][tokens] @ params[1]))

    flow = jc.gradient_flow(fun, ((embed, w), tokens))
    grads = jax.grad(lambda e, w: jnp.sum(jnp.tanh(e @ w)), (0, 1))(embed[tokens], w)
    assert flow.names[0].startswith("getitem")
    np.testing.assert_allclose(flow.cotangent[0], np.linalg.norm(grads[0]), rtol=1e-5)
    np.testing.assert_allclose(flow.gradient[0], np.linalg.norm(grads[1]), rtol=1e-5)


def test_cotangents_of_another_shape_are_refused():
    net = jc.nets.mlp([3, 2])
    with pytest.raises(jc.TangentMismatchError, match="cotangent"):
        jc.gradient_flow(net, (net.init(jax.random.key(0)), jnp.ones(3)), jnp.ones(5))


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        params, x = parameters(dtype=jnp.float64), batch(dtype=jnp.float64)
        flow = flow_of(params, x)
        assert flow.cotangent.dtype == flow.gradient.dtype == jnp.float64
        norm = np.linalg.norm(jax.grad(model, 1)(params, x))
        np.testing.assert_allclose(flow.cotangent[0], norm, rtol=1e-12)
