"""Vertex elimination: the graph of a small stage's derivative, read off its JVP, eliminated for few multiplications."""

import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.jacobians.elimination import ONE, Edge, eliminate

W = draw(jnp.zeros((3, 4)), 5)

# --------------------------------------------------------------------------------------------- the pure problem


def paths(edges, inputs, outputs, values):
    """Every ∂output/∂input as the sum over paths of the products of edges."""
    after = {}
    for edge in edges:
        value = values[abs(edge.value)] * (1 if edge.value > 0 else -1)
        after.setdefault(edge.tail, []).append((edge.head, value))

    def walk(vertex):
        total = dict.fromkeys(outputs, 0.0)
        if vertex in total:
            total[vertex] += 1.0
        for head, value in after.get(vertex, []):
            for out, further in walk(head).items():
                total[out] += value * further
        return total

    return {(source, out): entry for source in inputs for out, entry in walk(source).items()}


@st.composite
def graphs(draw):
    inputs, inner, outputs = (draw(st.integers(1, most)) for most in (3, 6, 3))
    last = inputs + inner + outputs
    pairs = [(a, b) for a, b in itertools.combinations(range(1, last + 1), 2) if b > inputs and a <= inputs + inner]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=20))
    values = draw(st.lists(st.integers(-9, 9).filter(bool), min_size=len(chosen), max_size=len(chosen)))
    edges = [Edge(a, b, value) for (a, b), value in zip(chosen, values, strict=True)]
    return edges, range(1, inputs + 1), range(inputs + 1, inputs + inner + 1), range(inputs + inner + 1, last + 1)


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_what_is_left_is_the_sum_over_paths(graph):
    edges, inputs, inner, outputs = graph
    numbers = {
        ONE: 1.0,
        **{k: float(v) for k, v in zip(range(2, 10), np.random.default_rng(0).normal(size=8), strict=True)},
    }
    want = paths(edges, inputs, outputs, numbers)
    with mock.patch("jaxchain.jacobians.elimination.EFFORT", 300):
        found = eliminate(edges, inner, 9)
    for number, made in found.made.items():
        numbers[number] = made.of(numbers.__getitem__)
    got = {(e.tail, e.head): numbers[abs(e.value)] * (1 if e.value > 0 else -1) for e in found.entries}
    for pair, entry in want.items():
        np.testing.assert_allclose(got.pop(pair, 0.0), entry, rtol=1e-9, atol=1e-9)
    assert not got


def test_a_waist_is_passed_once():
    # Three inputs, one number, three outputs: nine entries of nine products, and none for the ones.
    edges = [Edge(k, 4, 1 + k) for k in (1, 2, 3)] + [Edge(4, 5, ONE)] + [Edge(5, 5 + k, 4 + k) for k in (1, 2, 3)]
    found = eliminate(edges, [4, 5], 7)
    assert (found.multiplications, found.additions, len(found.entries)) == (9, 0, 9)


# ----------------------------------------------------------------------------- functions of the elimination literature


def euler(density, momentum, energy):
    pressure = 0.4 * (energy - 0.5 * momentum**2 / density)
    return momentum / density, pressure, (energy + pressure) / density


def roe_1d(x):
    """The flux of Roe, Journal of Computational Physics 43, 1981, between two states of a gas in one dimension."""
    left, right = x[:3], x[3:]
    (v_l, p_l, h_l), (v_r, p_r, h_r) = euler(*left), euler(*right)
    w_l, w_r = jnp.sqrt(left[0]), jnp.sqrt(right[0])
    u, h = (w_l * v_l + w_r * v_r) / (w_l + w_r), (w_l * h_l + w_r * h_r) / (w_l + w_r)
    a = jnp.sqrt(0.4 * (h - 0.5 * u**2))
    mean, dp, dv = w_l * w_r, p_r - p_l, v_r - v_l
    still = ((right[0] - left[0]) - dp / a**2) * jnp.abs(u)
    ahead = 0.5 * mean / a * (dv + dp / (a * mean)) * jnp.abs(u + a)
    behind = -0.5 * mean / a * (dv - dp / (a * mean)) * jnp.abs(u - a)
    mass = left[1] + right[1] - still - ahead - behind
    push = p_l + left[1] * v_l + p_r + right[1] * v_r - still * u - ahead * (u + a) - behind * (u - a)
    heat = v_l * (p_l + left[2]) + v_r * (p_r + right[2])
    heat = heat - 0.5 * still * u**2 - ahead * (h + u * a) - behind * (h - u * a)
    return 0.5 * mass, 0.5 * push, 0.5 * heat


def arm(q):
    """Where a robot's arm of six joints ends, and how it is turned there."""
    c, s = jnp.cos(q), jnp.sin(q)
    c23, s23 = jnp.cos(q[1] + q[2]), jnp.sin(q[1] + q[2])
    x = s[4] * (c[0] * c23 * c[3] + s[0] * s[3]) + c[0] * s23 * c[4]
    y = s[4] * (s[0] * c23 * c[3] - c[0] * s[3]) + s[0] * s23 * c[4]
    z = s23 * c[3] * s[4] - c23 * c[4]
    reach = 0.6 * c[1] + 0.1 * c23 + 0.7 * s23
    place = (0.18 * x + c[0] * reach, 0.18 * y + s[0] * reach, 0.18 * z + 0.6 * s[1] + 0.1 * s23 - 0.7 * c23)
    turned = (jnp.arctan2(y, x), jnp.arctan2(jnp.sqrt(1.001 - z**2), z), jnp.arctan2(s23 * s[3] * c[5] + z, x * s[5]))
    return jnp.stack([*place, *turned])


MOST = {"roe_1d": (320, 0.8), "arm": (231, 0.5)}
"""Multiplications that an order takes at most, and work over the better simple mode's, by XLA's count."""

LITERATURE = {
    "roe_1d": (roe_1d, tuple(map(jnp.array, [0.5, 0.2, 2.9, 0.6, 0.3, 2.7]))),
    "arm": (arm, jnp.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])),
}


@pytest.mark.parametrize("name", LITERATURE)
def test_few_multiplications_and_less_work(name):
    fun, x = LITERATURE[name]
    decision = jc.plan(fun, (x,))
    (unit,) = [unit for unit in decision.plan.units if unit.inside is not None]
    multiplications, share = MOST[name]
    assert unit.inside.elimination.multiplications <= multiplications
    assert any("by eliminating its graph of numbers" in decision.describe(step) for step in decision.steps)
    assert flops(jc.jacobian(fun), x) <= share * min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))


@pytest.mark.parametrize("name", LITERATURE)
def test_the_literature_s_functions_under_every_transform(name):
    fun, x = LITERATURE[name]
    with jax.enable_x64(True):
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), x)
        jac, want = jc.jacobian(fun, mode="mixed"), jax.jacrev(fun)
        assert_close(jax.jit(jac)(x), jax.jit(want)(x), 1e-12)
        xs = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), x)
        assert_close(jax.jit(jax.vmap(jac))(xs), jax.jit(jax.vmap(want))(xs), 1e-12)

        def squares(jac, x):
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jac(x)))

        assert_close(
            jax.jit(jax.grad(lambda x: squares(jac, x)))(x), jax.jit(jax.grad(lambda x: squares(want, x)))(x), 1e-11
        )


# ------------------------------------------------------------------------------------------------ what a program may do

AT = jnp.array([2, 0, 0])


@jax.custom_jvp
def reversed_half(x):
    return x[::-1] / 2


reversed_half.defjvp(lambda primals, tangents: (reversed_half(*primals), reversed_half(*tangents)))


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


# The rule's tangent passes through a function with a rule of its own: an equation that holds a program, of tangents.
sine.defjvp(lambda primals, tangents: (sine(*primals), reversed_half(jnp.cos(primals[0]) * tangents[0])))

BUSY = {
    "places": lambda x: (
        jnp.concatenate([x[::-1], x[1:3] * x[:2], jnp.zeros(2), x.reshape(2, 2).T.ravel()]) * jnp.sum(x)
    ),
    "a gather": lambda x: x[AT] * jnp.exp(x[0]) * jnp.roll(x, 1)[:3],
    "a slice at a number": lambda x: lax.dynamic_slice(x, (1,), (2,)) * jnp.sin(x[:2]) * x[3],
    "an update": lambda x: (x * x[::-1]).at[1].set(jnp.sin(x[0]) * x[2]) * x[1],
    "an update that adds": lambda x: (x * x[::-1]).at[AT].add(x[1:] * x[0]),
    "branches of values": lambda x: jnp.where(x > 0, x * x[0], jnp.sin(x) * x[1]) + jnp.maximum(x, x[2]) * x,
    "products": lambda x: (x.reshape(2, 2) @ jnp.sin(x).reshape(2, 2)) * x[0],
    "constants between": lambda x: jnp.cumsum(x) * jnp.tanh(W @ x)[0] * jnp.flip(x),
    "zeros and ones": lambda x: (x * jnp.array([0.0, 1.0, -1.0, 2.0])) * jnp.prod(x),
    "signs": lambda x: -(-x * x[0]) - (x[1] - x) * -x[2],
    "padding": lambda x: jnp.pad(x * x[0], (1, 2)) * jnp.pad(jnp.sin(x), (2, 1)),
    "outputs that are inputs": lambda x: (x, x * x[0] * jnp.sin(x[1]), 0 * x, jnp.float32(3.0)),
    "a pytree": lambda x: {"a": x[0] * x[1] * x, "b": (jnp.sin(x[2]) * x[3], x)},
    "rules of one's own": lambda x: jax.nn.relu(x * x[0]) * jax.nn.silu(x * x[1]) * x,
    "a rule within a rule": lambda x: sine(x * x[0]) * x,
    "division": lambda x: x / (1 + x[0] ** 2) / jnp.exp(x[1]) * x,
}


@pytest.mark.parametrize("name", BUSY)
def test_graphs_of_all_that_a_program_does(name, monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.unit.GRAPH", 100.0)
    monkeypatch.setattr("jaxchain.jacobians.unit.LEAST_INSIDE", 0)
    fun, jac = BUSY[name], jc.jacobian(BUSY[name], mode="mixed")
    units = jac.plan(jnp.ones(4)).plan.units
    assert any(unit.inside is not None for unit in units)
    for seed in range(2):
        x = draw(jnp.zeros(4), seed)
        assert_close(jax.jit(jac)(x), jax.jit(jax.jacrev(fun))(x), 1e-5)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jnp.sort(x) * x[0],
        lambda x: lax.dynamic_slice(x, (jnp.argmax(x) // 2,), (2,)) * x[0] * x[1],
        lambda x: lax.scan(lambda c, _: (jnp.sin(c) * x, None), x, None, length=3)[0] * x,
        lambda x: (x.astype(jnp.bfloat16) * x[0].astype(jnp.bfloat16)).astype(jnp.float32) * x,
    ],
    ids=["sorted", "a place that x decides", "a loop", "other dtypes"],
)
def test_what_is_no_graph_of_numbers_is_accumulated(fun, monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.unit.GRAPH", 100.0)
    x = draw(jnp.zeros(4))
    jac = jc.jacobian(fun, mode="mixed")
    assert all(unit.inside is None for unit in jac.plan(x).plan.units)
    assert_close(jac(x), jax.jit(jax.jacrev(fun))(x), 1e-2)  # of which a half-precision product has two digits


def test_side_values_are_arguments_of_the_graph():
    def fun(w, x):
        return jnp.sin(w @ x)[0] * jnp.cumsum(x) * jnp.exp(x[1]) * x[0] * jnp.tanh(x)

    w, x = draw(jnp.zeros((4, 4)), 1), draw(jnp.zeros(4))
    jac = jax.jit(jc.jacobian(fun, 1, mode="mixed"))
    assert_close(jac(w, x), jax.jit(jax.jacrev(fun, 1))(w, x), 1e-5)
    assert_close(jac(2 * w, x), jax.jit(jax.jacrev(fun, 1))(2 * w, x), 1e-5)
    ours, want = (jax.jit(jax.grad(lambda w, j=j: (j(fun, 1)(w, x) ** 2).sum()))(w) for j in (jc.jacobian, jax.jacrev))
    assert_close(ours, want, 1e-5)


def test_zeros_of_masks_that_are_known_are_no_edges():
    mask = np.tril(np.ones((4, 4), np.float32))
    weights = draw(jnp.zeros((4, 4)), 1)

    def autoregressive(x):
        return x * jnp.exp(jnp.tanh((weights * mask) @ jnp.tanh((weights * mask) @ x)))

    x = draw(jnp.zeros(4))
    jac = jc.jacobian(autoregressive, mode="mixed")
    (graph,) = [unit.inside for unit in jac.plan(x).plan.units if unit.inside is not None]
    assert len(graph.elimination.entries) == 10
    assert_close(jac(x), jax.jit(jax.jacrev(autoregressive))(x), 1e-5)
