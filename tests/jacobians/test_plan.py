"""Plans: never dearer than the better simple mode, as cheap as predicted, and equal to JAX's Jacobian."""

import random
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxchain as jc
from jaxchain import nets
from jaxchain.cost.measure import flops


def with_tanh(net):
    return jc.Chain([*net, jc.Stage("tanh_out", jnp.tanh)])


CASES = {
    "autoencoder": (nets.autoencoder([784, 512, 256, 32]), (784,), 15.0),
    "two waists": (nets.mlp([1000, 200, 4, 200, 1000], "tanh"), (1000,), 65.0),
    "no waist": (nets.mlp([64] * 8, "tanh"), (64,), 1.14),
    "one layer": (with_tanh(nets.mlp([300, 10])), (300,), 7.0),
    "transformer": (nets.transformer((8, 16, 10), 2, 2), (6, 8), 1 / 1.02),
    "residual net": (nets.residual_net((8, 32, 10), 3), (8,), 1 / 1.02),
    "conv net": (nets.conv_net((8, 8, 1), [4, 8], 10), (8, 8, 1), 1 / 1.02),
    "rnn": (nets.rnn([3, 16, 16, 5]), (6, 3), 1 / 1.02),
}


def better_flops(fun, *args, argnum=-1):
    return min(flops(jax.jacfwd(fun, argnum), *args), flops(jax.jacrev(fun, argnum), *args))


@pytest.mark.parametrize("name", CASES)
def test_auto_saves_at_least_what_was_promised(name):
    net, shape, factor = CASES[name]
    params = jax.eval_shape(net.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    ours = flops(jc.jacobian(net, -1), params, x)
    assert better_flops(net, params, x) >= factor * ours


def test_a_waist_saves_memory_too():
    net = nets.autoencoder([784, 512, 256, 32])
    args = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((784,), jnp.float32)

    def temporaries(jac):
        return jax.jit(jac(net, -1)).lower(*args).compile().memory_analysis().temp_size_in_bytes

    assert 5 * temporaries(jc.jacobian) <= min(map(temporaries, (jax.jacfwd, jax.jacrev)))


def test_ten_elementwise_stages_cost_a_hundredth():
    def fun(x):
        for _ in range(5):
            x = jnp.sin(x) * 1.5
        return x

    x = jax.ShapeDtypeStruct((512,), jnp.float32)
    assert better_flops(fun, x) >= 100 * flops(jc.jacobian(fun), x)


def test_random_chains_cost_at_most_1_2_times_the_optimum():
    rng = random.Random(0)
    for _ in range(12):
        sizes = [2 ** rng.randint(2, 7) + rng.randint(0, 3) for _ in range(rng.randint(2, 6))]
        net = nets.mlp(sizes, "tanh")
        params = jax.eval_shape(net.init, jax.random.key(0))
        ours = flops(jc.jacobian(net, -1), params, jax.ShapeDtypeStruct(sizes[:1], jnp.float32))
        states = [sizes[0], *(n for n in sizes[1:] for _ in range(2))][:-1]
        edges = [n * m if k % 2 == 0 else n for k, (n, m) in enumerate(pairwise(states))]
        assert ours <= 1.2 * 2 * jc.bracket(states, edges).cost + 64 * sum(sizes)


@pytest.mark.parametrize("sizes", [[64, 32, 64], [100, 10, 100, 10, 100], [30, 200, 20], [64] * 5])
def test_a_plan_costs_within_10_percent_of_what_it_predicts(sizes):
    net = nets.mlp(sizes, "tanh")
    params, x = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct(sizes[:1], jnp.float32)
    decision = jc.plan(net, (params, x))
    for mode, predicted in (("auto", decision.cost), ("reverse", decision.reverse_cost)):
        predicted += decision.plan.once
        assert flops(jc.jacobian(net, -1, mode=mode), params, x) == pytest.approx(2 * predicted, rel=0.1)


UNARY = [jnp.tanh, jnp.sin, jax.nn.relu, lambda x: x * 2.0, lambda x: jnp.exp(-x * x), jax.nn.softmax]


@st.composite
def functions(draw_from):
    """Random programs of all shapes: products, activations, skips, reshapes, slices, reductions."""
    size = draw_from(st.integers(1, 6))
    steps = draw_from(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=6))
    out = draw_from(st.sampled_from(["vector", "scalar", "dict"]))

    def fun(x):
        for number, (kind, width) in enumerate(steps):
            if kind < len(UNARY):
                x = UNARY[kind](x)
            elif kind in (6, 7):
                x = draw(jnp.zeros((width, x.size)), number) @ x / 2
            elif kind == 8:
                x = x + jnp.tanh(draw(jnp.zeros((x.size, x.size)), number) @ x)
            else:
                x = jnp.concatenate([x[: 1 + x.size // 2], x[::-1]])
        return {"vector": x, "scalar": x.sum(), "dict": {"a": x, "b": (jnp.sin(x[0]), x[-1:] * 2)}}[out]

    return fun, draw(jnp.zeros(size), len(steps))


@settings(deadline=None, max_examples=8, derandomize=True)
@given(functions(), st.sampled_from(["auto", "mixed"]))
def test_a_planned_jacobian_of_a_random_program_is_jacrevs(case, mode):
    fun, x = case
    assert_close(*jax.jit(lambda x: (jc.jacobian(fun, mode=mode)(x), jax.jacrev(fun)(x)))(x), 2e-5)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(functions())
def test_a_plan_of_a_random_program_is_never_dearer_than_the_better_mode(case):
    fun, x = case
    plan = jc.plan(fun, (x,))
    assert min(plan.cost, plan.forward_cost, plan.reverse_cost) <= min(plan.forward_cost, plan.reverse_cost)
    assert sum(step.cost for step in plan.steps) == pytest.approx(plan.cost)


def test_float64_results_agree_to_1e_12():
    with jax.enable_x64(True):
        net = nets.autoencoder([40, 20, 4])
        params, x = net.init(jax.random.key(0)), draw(jnp.zeros(40))
        ours, theirs = jc.jacobian(net, 1)(params, x), jax.jit(jax.jacrev(net, 1))(params, x)
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_float32_errors_are_at_most_three_times_those_of_jacrev():
    with jax.enable_x64(True):
        net = nets.mlp([50, 40, 5, 40, 50], "tanh")
        wide = net.init(jax.random.key(0)), draw(jnp.zeros(50))
        exact = jax.jit(jax.jacrev(net, 1))(*wide)
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), wide)
        errors = [np.linalg.norm(f(net, 1)(*narrow) - exact) for f in (jc.jacobian, jax.jacrev)]
        assert errors[0] <= 3 * errors[1]


def test_a_printed_plan_says_what_what_costs_and_where_the_waist_is():
    net = nets.autoencoder([64, 32, 4])
    text = str(jc.plan(net, (jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((64,), jnp.float32))))
    assert "narrowest state is dense_1, 4 numbers" in text
    assert "Multiply-adds: forward mode 281 k, reverse mode 281 k, the cheapest order 33.0" in text
    assert "times less" in text


def test_a_plan_takes_what_exists_of_forward_and_reverse_mode():
    @jax.custom_vjp
    def only_reverse(x):
        return jnp.sin(x)

    only_reverse.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))

    def only_forward(x):
        return jax.lax.while_loop(lambda s: jnp.sum(s) < 9, lambda s: s * 2, x)

    x = jnp.ones(3)
    for fun, reference in ((only_reverse, jax.jacrev), (only_forward, jax.jacfwd)):
        wrapped = lambda x, fun=fun: jnp.concatenate([fun(jnp.tanh(x)), x])  # noqa: E731
        assert_close(jc.jacobian(wrapped)(x), reference(wrapped)(x))


def test_long_chains_are_planned_in_joined_units():
    def fun(x):
        for k in range(700):
            x = jnp.cumsum(jnp.sin(x)) if k % 2 else x[::-1] * 0.5
        return x

    plan = jc.plan(fun, (jnp.ones(3),))
    assert len(plan.plan.units) <= 300


def test_a_plan_calls_the_state_after_a_stage_as_the_chain_does():
    net = jc.nets.mlp([6, 5, 4])

    def loss(params, xs):
        return -jnp.mean(jax.nn.log_softmax(jax.vmap(lambda x: net(params, x))(xs)))

    args = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((3, 6), jnp.float32)
    stages, states = jc.discover(loss, *args).names, jc.plan(loss, args, argnum=1).names
    assert states[-1] == stages[-1]
    assert [name for name in states if name in stages] == [name for name in stages if name in states]
    assert {"dense_0", "relu_0", "dense_1"} <= set(states)
    assert {name.partition("/")[0] for name in states} <= {"input", *stages}
