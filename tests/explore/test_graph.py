"""`graph`: derivatives are sums over paths; sweeps over the graph are JAX's own."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain.coordinates import Coordinates
from jaxchain.explore.arithmetic import sum_of_products, written
from jaxchain.explore.layered import layered

KEY = jax.random.key(0)
W = jax.random.normal(KEY, (4, 3))


def baydin(x1, x2):
    return jnp.log(x1) + x1 * x2 - jnp.sin(x2)


def branches(x):
    """Paths of three lengths, one value read twice, one that reaches no result."""
    h = jnp.tanh(W @ x)
    jnp.sum(h)
    return {"a": h * h[0] + jnp.exp(h), "b": jax.nn.softmax(h) @ h}


def complex_inside(x):
    return jnp.abs(jnp.fft.fft(x)[1]) + jnp.sum(x)


def loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y) + x, x)


def by_rule(x):
    return jax.nn.relu(x - 0.5) + jax.nn.silu(x)


def a_while(x):
    return jax.lax.while_loop(lambda y: jnp.sum(y) < 10.0, lambda y: 2 * y, jnp.abs(x) + 0.1)


X = jnp.array([0.3, -1.2, 0.9])

PROGRAMS = {
    "scalars": (baydin, (2.0, 5.0)),
    "branches": (branches, (X,)),
    "complex inside": (complex_inside, (X,)),
    "a loop": (loop, (X,)),
    "rules of their own": (by_rule, (X,)),
    "several arguments": (lambda w, b, x: jnp.tanh(w @ x + b), (W, jnp.ones(4), X)),
    "a network": (jc.nets.mlp([3, 5, 2], init="he"), (jc.nets.mlp([3, 5, 2], init="he").init(KEY), X)),
}


def of(name):
    fun, args = PROGRAMS[name]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), args)
        return fun, wide, jc.graph(fun, *wide)


def flat(node, which):
    coordinates = Coordinates.of(node.primal)
    flatten = coordinates.flatten if which == "tangent" else coordinates.flatten_cotangent
    return np.asarray(flatten(getattr(node, which)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_tangent_is_the_sum_over_the_arrows_that_come_in_and_a_cotangent_over_those_that_go_out(name):
    with jax.enable_x64(True):
        _, _, graph = of(name)
        for node in graph.rows:
            into = [a for a in graph.arrows if a.stop == node.name]
            if into:
                pushed = sum(a.partial @ flat(graph[a.start], "tangent") for a in into)
                np.testing.assert_allclose(pushed, flat(node, "tangent"), rtol=1e-11, atol=1e-12)
            out = [a for a in graph.arrows if a.start == node.name]
            if out and node.kind != "output":
                pulled = sum(flat(graph[a.stop], "cotangent") @ a.partial for a in out)
                np.testing.assert_allclose(pulled, flat(node, "cotangent"), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_sum_over_all_paths_is_the_jacobian_of_jax(name):
    with jax.enable_x64(True):
        fun, args, graph = of(name)
        last = len(args) - 1
        want = jax.tree.leaves(jax.jit(jax.jacrev(fun, argnums=last))(*args))
        start = next(node for node in reversed(graph.rows) if node.kind == "input")
        results = [node for node in graph.rows if node.kind == "output"]
        assert len(results) == len(want)
        for node in results:
            n = np.size(args[last])
            blocks = [np.reshape(block, (-1, n)) for block in want]
            total = graph.paths(start.name, node.name).total
            assert any(block.shape == total.shape and np.allclose(block, total, 1e-11, 1e-12) for block in blocks)


def test_without_reverse_mode_the_graph_has_tangents_and_partial_derivatives():
    graph = jc.graph(a_while, X)
    assert all(node.cotangent is None for node in graph.rows)
    want = jax.jit(jax.jacfwd(a_while))(X)
    np.testing.assert_allclose(graph.paths("x", "y").total, want, rtol=1e-6)
    assert any("No cotangents" in note for note in graph.notes)


def test_baydins_table_of_the_survey():
    """Baydin et al., arXiv 1502.05767, tables 2 and 3."""
    graph = jc.graph(baydin, 2.0, 5.0, tangent=(1.0, 0.0))
    partials = {(a.start, a.stop): a.partial.item() for a in graph.arrows}
    want = {("v-1", "v1"): 0.5, ("v-1", "v2"): 5, ("v0", "v2"): 2, ("v0", "v4"): np.cos(5), ("v1", "v3"): 1}
    want |= {("v2", "v3"): 1, ("v3", "v5"): 1, ("v4", "v5"): -1}
    assert partials == pytest.approx(want, rel=1e-6)
    told = {step.node: step.text for step in graph.accumulate("forward")}
    assert told["v3"] == "5.5 = 1 · 0.5 + 1 · 5"
    told = {step.node: step.text for step in graph.accumulate("reverse")}
    assert told["v-1"] == "5.5 = 1 · 0.5 + 1 · 5"
    assert told["v5"] == "1 = 1 (given)"
    paths = graph.paths("x2", "y")
    assert [path.text for path in paths.rows] == ["1 · 1 · 2 = 2", "−1 · 0.2837 = −0.2837"]
    assert paths.text == "1.716 = 2 + (−0.2837)"


def test_an_outputs_cotangent_is_what_was_given_and_what_its_readers_send():
    def twice(x):
        square = x**2
        return square, 3 * square

    graph = jc.graph(twice, 2.0, cotangent=(1.0, 1.0))
    first = {step.node: step for step in graph.accumulate("reverse")}[graph["y1"].name]
    assert first.text == "4 = 1 (given) + 1 · 3"


def test_more_paths_than_can_be_listed_are_counted_and_summed():
    def ladder(x):
        for _ in range(40):
            x = x + 0.01 * jnp.sin(x)
        return x

    paths = jc.graph(ladder, 1.0).paths("x", "y")
    assert paths.number == 2**40
    assert len(paths.rows) == 1000
    assert paths.total.item() == pytest.approx(float(jax.jit(jax.grad(ladder))(1.0)), rel=1e-4)
    assert len(paths.rows) == 1000
    assert "The first 50 are listed." in str(paths)


def test_a_path_that_does_not_exist_is_a_derivative_of_zero():
    paths = jc.graph(baydin, 2.0, 5.0).paths("v4", "v1")
    assert paths.number == 0
    assert paths.total.item() == 0


def test_a_fold_opens_into_a_graph_whose_paths_sum_to_its_arrows():
    with jax.enable_x64(True):
        _, _, graph = of("a network")
        assert graph.inside
        for name in graph.inside:
            inner = graph.open(name)
            for arrow in (a for a in graph.arrows if a.stop == name):
                np.testing.assert_allclose(inner.paths(arrow.start, name).total, arrow.partial, rtol=1e-12, atol=1e-13)
            alone = {a.start: flat(graph[name], "cotangent") @ a.partial for a in graph.arrows if a.stop == name}
            for start, pulled in alone.items():
                np.testing.assert_allclose(flat(inner[start], "cotangent"), pulled, rtol=1e-12, atol=1e-13)


def test_parameters_of_a_model_are_held_fixed_unless_moved():
    net = jc.nets.mlp([3, 4, 4, 4, 4, 2])
    params = net.init(KEY)
    graph = jc.graph(net, params, X)
    assert [node.label for node in graph.rows if node.kind == "input"] == ["x"]
    assert "10 arrays of the other arguments are held fixed." in graph.notes
    moved = jc.graph(net, params, X, tangent=(jax.tree.map(jnp.ones_like, params), jnp.zeros(3)))
    assert sum(node.kind == "input" for node in moved.rows) == 11


def test_what_is_asked_wrongly_is_told():
    graph = jc.graph(baydin, 2.0, 5.0)
    with pytest.raises(KeyError, match="v10"):
        graph.paths("v10", "y")
    with pytest.raises(KeyError, match="Nothing is folded in v1"):
        graph.open("v1")
    with pytest.raises(ValueError, match="direction"):
        graph.accumulate("backward")
    with pytest.raises(TypeError, match="A graph shows numbers"):
        jc.graph(baydin, jax.ShapeDtypeStruct((), jnp.float32), 5.0)


def test_partial_derivatives_too_large_are_left_out_and_said():
    graph = jc.graph(lambda x: jnp.sin(x) * 2, jnp.ones(2000))
    assert all(arrow.partial is None for arrow in graph.arrows)
    assert graph.paths("x", "y").total is None
    assert "2 partial derivatives of too many entries to be multiplied out." in graph.notes


def test_half_precision_and_integers():
    graph = jc.graph(lambda n, x: x * n.astype(x.dtype), jnp.int32(3), jnp.bfloat16(2))
    assert [node.label for node in graph.rows if node.kind == "input"] == ["x"]
    assert graph.paths("x", "y").total.item() == 3
    assert not jc.graph(lambda n: n + 1, 2).arrows


@pytest.mark.parametrize(
    ("nodes", "arrows"),
    [
        (1, []),
        (3, []),
        (4, [(0, 3)]),
        (7, [(0, 2), (0, 3), (1, 3), (1, 4), (2, 5), (3, 5), (5, 6), (4, 6)]),
        (12, [(i, j) for i in range(12) for j in range(i + 1, 12) if (i * j) % 3 == 1 or j == i + 1]),
    ],
)
def test_arrows_go_right_and_no_two_nodes_share_a_place(nodes, arrows):
    layout = layered(nodes, arrows)
    assert len(set(layout.places)) == nodes
    for (start, stop), route in zip(arrows, layout.routes, strict=True):
        assert (route[0], route[-1]) == (layout.places[start], layout.places[stop])
        assert all(before[0] < after[0] for before, after in pairwise(route))
        assert not set(route[1:-1]) & set(layout.places)
    assert layout == layered(nodes, arrows)


def test_arithmetic_is_written_as_one_would():
    assert written(np.array([[2.0, 0.0], [1.0, -3.5]])) == "[2 0; 1 −3.5]"
    assert written(np.ones((9, 1))) == "‖3‖"
    assert written(np.ones((9, 9))) == "(9 × 9)"
    assert written(None) == "?"
    column, matrix = np.array([[1.0], [4.0]]), np.array([[2.0, 0.0], [1.0, 3.0]])
    assert sum_of_products(matrix @ column, [(matrix, column)]) == "[2; 13] = [2 0; 1 3] · [1; 4]"


def test_a_node_leads_to_itself_by_no_arrow():
    paths = jc.graph(lambda x: jnp.sin(x), 1.0).paths("x", "x")
    assert (paths.number, paths.total.item(), paths.text) == (1, 1.0, "1")
    assert paths.rows[0].nodes == (paths.rows[0].nodes[0],)
