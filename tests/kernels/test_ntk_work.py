"""What kernels take, as XLA counts it, loops as often as they run: never more than the best way that is written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments"))

from bench.by_hand import NETS, WAYS

import jaxchain as jc
from jaxchain.cost.measure import flops


def shapes(name, samples):
    net = NETS[name]
    like = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in net.shapes.items()}
    return net.fun, like, jax.ShapeDtypeStruct((samples, *net.sample), jnp.float32)


@pytest.mark.parametrize("name", NETS)
def test_a_kernel_takes_no_more_than_the_best_of_three_ways_by_hand(name):
    net, params, xs = shapes(name, 4)
    ours = flops(lambda p, x: jc.ntk(net, p, x), params, xs)
    by_hand = (flops(lambda p, x: way(net, p, x), params, xs) for way in WAYS.values())  # noqa: B023
    assert ours <= 1.05 * min(by_hand)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETS)
def test_the_ways_by_hand_are_kernels(name):
    net = NETS[name]
    xs = jax.random.normal(jax.random.key(1), (2, *net.sample))
    all_of = jax.jit(lambda p, x: [jc.ntk(net.fun, p, x), *(way(net.fun, p, x) for way in WAYS.values())])
    got, *wanted = all_of(net.drawn(), xs)
    for want in wanted:
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())


def test_an_mlps_kernel_takes_250_times_less_work_and_100_times_less_memory_than_contraction():
    net = jc.nets.mlp([784, *[256] * 4, 10])
    params = jax.eval_shape(net.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((64, 784), jnp.float32)
    compiled = [
        jax.jit(kernel).lower(params, xs).compile()
        for kernel in (lambda p, x: jc.ntk(net, p, x), lambda p, x: WAYS["contraction"](net, p, x))
    ]
    ours, peer = (each.cost_analysis()["flops"] for each in compiled)
    assert ours * 250 <= peer
    ours, peer = (each.memory_analysis().temp_size_in_bytes for each in compiled)
    assert ours * 100 <= peer


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("MLP", "full"),
        ("MLP", "diagonal"),
        ("MLP, 96 outputs", "trace"),
        ("transformer", "full"),
        ("RNN by scan", "trace"),
    ],
)
def test_a_plan_predicts_the_work(name, outputs):
    net, params, xs = shapes(name, 4)
    plan = jc.ntk_plan(net, params, xs, outputs=outputs)
    assert flops(lambda p, x: jc.ntk(net, p, x, outputs=outputs), params, xs) == pytest.approx(plan.cost, rel=0.1)


def test_a_plan_takes_the_cheapest_way_of_every_leaf_or_all_pushed_forward():
    for name in NETS:
        net, params, xs = shapes(name, 4)
        plan = jc.ntk_plan(net, params, xs)
        others = [jc.ntk_plan(net, params, xs, mode=mode).cost for mode in ("contraction", "products", "vectors")]
        assert plan.cost <= min(others)
        assert all(row.way == "vectors" for row in plan.rows) == (name == "MLP, narrow, 192 outputs")


def test_biases_share_what_their_weights_need_and_last_layers_share_it_over_samples():
    net = jc.nets.mlp([6, 5, 4])
    params, xs = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((8, 6), jnp.float32)
    rows = {row.leaf: row for row in jc.ntk_plan(net, params, xs, mode="products").rows}
    pairs, m = 8 * 8, 4
    # x · x′ of every pair, δ · δ′ of every pair and both outputs, and their product; of the last layer δ is the identity.
    assert rows["['dense_0']['w']"].products == pairs * (2 * 6 + m * m * (2 * 5 + 1))
    assert rows["['dense_0']['b']"].products == pairs * m * m * (2 * 5 + 1) + 1
    assert rows["['dense_1']['w']"].products == pairs * (2 * 5 + m * m) + m * m * 2 * m
    both = rows["['dense_0']['w']"].products + rows["['dense_1']['w']"].products
    assert both < jc.ntk_plan(net, params, xs, mode="products").cost < both + rows["['dense_0']['b']"].products


def test_an_operators_diagonal_costs_little_more_than_the_backward_passes():
    net = jc.nets.mlp([64, 64, 64, 8])
    params, xs = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((16, 64), jnp.float32)

    def passes(params, xs):
        return jax.vmap(lambda x: jax.jacrev(lambda x: net(params, x))(x))(xs)

    ours = flops(lambda p, x: jc.ntk_operator(net, p, x).diagonal(), params, xs)
    assert ours <= 1.1 * flops(passes, params, xs)


def test_chunks_bound_the_memory():
    net = jc.nets.mlp([16, 64, 64, 8])
    params, xs = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((64, 16), jnp.float32)
    whole, parts = (
        jax.jit(lambda p, x: jc.ntk(net, p, x, outputs="trace", chunk_size=size)).lower(params, xs).compile()  # noqa: B023
        for size in (None, 4)
    )
    assert parts.memory_analysis().temp_size_in_bytes * 4 < whole.memory_analysis().temp_size_in_bytes
