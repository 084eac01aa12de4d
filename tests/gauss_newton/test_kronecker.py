"""Kronecker factors are E[x xᵀ] and E[δ δᵀ], those of kfac-jax, exact where theory says so; and make an operator."""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from definitions import doubled, gauss_newton
from jax import lax
from jax.flatten_util import ravel_pytree
from losses import LOSSES
from models import MODELS, some

import jaxchain as jc

sys.path.append(str(Path(__file__).parents[1] / "data"))

import kronecker_factors as peer

MADE = json.loads(Path(peer.__file__).with_suffix(".json").read_text())["blocks"]


def factors_of(fun, params, xs, likelihood="gaussian", shared="expand"):
    """Blocks by the path of the weight: leaves, left and right factors, compiled."""
    told = []

    def made(params, xs):
        blocks = jc.fisher(fun, params, (xs, None), likelihood).kronecker(shared).blocks
        told.extend(block.leaves for block in blocks)
        return [(block.left, block.right) for block in blocks]

    return {leaves[0]: (leaves, *pair) for pair, leaves in zip(jax.jit(made)(params, xs), told, strict=False)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("likelihood", peer.LOSSES)
@pytest.mark.parametrize("name", peer.MODELS)
def test_factors_are_those_of_kfac_jax(name, likelihood):
    model, params, xs = peer.MODELS[name]
    found = factors_of(model, jax.tree.map(jnp.asarray, params), jnp.asarray(xs), likelihood)
    assert len(found) == len(MADE[name][likelihood]) == 2
    for path, layer in (("['first']['w']", "first"), ("['second']['w']", "second")):
        leaves, left, right = found[path]
        assert len(leaves) == len(params[layer])  # the bias is a row of the block
        (want,) = (block for block in MADE[name][likelihood] if block["weight"] == list(params[layer]["w"].shape))
        # How a scale is shared out between the two factors is a convention: their product is the curvature.
        np.testing.assert_allclose(np.kron(left[0], right[0]), np.kron(want["left"], want["right"]), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shared", ["expand", "reduce"])
def test_factors_are_second_moments_of_inputs_and_cotangents(shared):
    """Written out: tanh(x U + b) summed over positions after V, whose cotangents are known in closed form."""
    params = {"u": some(3, 4), "b": some(4), "v": some(4, 2)}
    xs, t = some(5, 6, 3), 6

    def model(p, x):
        return jnp.sum(jnp.tanh(x @ p["u"] + p["b"]) @ p["v"], 0)

    hidden = jnp.tanh(xs @ params["u"] + params["b"])
    x = jnp.concatenate([xs, jnp.ones((5, 6, 1))], -1)
    delta = jnp.einsum("btk,kj->bjtk", 1 - hidden**2, params["v"])  # of each output j, as H is the identity
    cotangents = jnp.broadcast_to(jnp.eye(2)[None, :, None], (5, 2, t, 2))
    want = {"['u']": (x, delta), "['v']": (hidden, cotangents)}
    found = factors_of(model, params, xs, shared=shared)
    assert found["['u']"][0] == ("['u']", "['b']")
    for path, (x, delta) in want.items():
        if shared == "expand":
            left, right = jnp.einsum("bti,btk->ik", x, x) / 5 / t, jnp.einsum("bjto,bjtp->op", delta, delta) / 5
        else:
            mean, total = x.mean(1), delta.sum(2)
            left, right = mean.T @ mean / 5, jnp.einsum("bjo,bjp->op", total, total) / 5
        assert_close([side[0] for side in found[path][1:]], [left, right], 1e-10)


def blocks_of(matrix, params):
    """The diagonal blocks of a matrix, leaf by leaf."""
    sizes = np.cumsum([0, *(leaf.size for leaf in jax.tree.leaves(params))])
    return [matrix[a:b, a:b] for a, b in itertools.pairwise(sizes)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shared", "pool"), [("expand", lambda y: y), ("reduce", partial(jnp.mean, axis=0))], ids=["expand", "reduce"]
)
def test_of_a_linear_network_each_convention_is_exact_for_the_outputs_that_it_is_made_for(shared, pool):
    """Eschenhagen et al., propositions 1 and 2: outputs at every position, and their mean."""
    params, xs = {"a": some(3, 4), "b": some(4, 2)}, some(5, 6, 3)

    def model(p, x):
        return pool(x @ p["a"] @ p["b"])

    @jax.jit
    def both(params, xs):
        fisher = jc.fisher(model, params, (xs, None), "gaussian")
        return fisher.kronecker(shared).dense(), fisher.dense()

    got, want = both(params, xs)
    assert_close(blocks_of(got, params), blocks_of(want, params), 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["nnx", "equinox mlp", "haiku"])
def test_of_one_sample_and_one_output_dense_layers_blocks_are_exact(name):
    model, params, xs = MODELS[name]()

    def fun(p, x):
        return jnp.sum(jnp.sin(model(p, x[None])))

    @jax.jit
    def both(params, xs):
        operator = jc.fisher(fun, params, (xs, None), "gaussian")
        kronecker = operator.kronecker()
        told.extend((block.kind, block.leaves[0]) for block in kronecker.blocks)
        return kronecker.dense(), gauss_newton(fun, lambda z, _: z**2 / 2, params, xs, None)

    told = []
    got, want = both(params, xs[:1])
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    dense = {path for kind, path in told if kind == "dense"}
    assert len(dense) >= 2
    pairs = zip(paths, blocks_of(got, params), blocks_of(want, params), strict=True)
    for path, one, other in pairs:
        if path in dense:
            assert_close(one, other, 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linen images", "haiku"])
def test_the_operator_is_its_matrix(name):
    model, params, xs = MODELS[name]()

    @jax.jit
    def asked(params, xs):
        kronecker = jc.fisher(lambda p, x: model(p, x[None])[0], params, (xs, None), "gaussian").kronecker()
        n = kronecker.shape[0]
        vector = jnp.cos(jnp.arange(n))
        matrix = kronecker.dense()
        diagonal, solved = ravel_pytree(kronecker.diagonal())[0], kronecker.solve(vector, 0.3)
        got = kronecker(vector), diagonal, kronecker.trace(), solved
        solution = jnp.linalg.solve(matrix + 0.3 * jnp.eye(n), vector)
        return got, (matrix @ vector, jnp.diag(matrix), jnp.trace(matrix), solution), matrix

    got, want, matrix = asked(params, xs)
    assert_close(got, want, 1e-9)
    assert_close(matrix, matrix.T, 1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in LOSSES if case.name in ("layered", "heads", "shifted")], ids=str)
def test_what_is_not_a_product_of_factors_has_its_exact_diagonal(case):
    params, batch = case.args()

    def fun(p, x):
        return case.fun(p, jax.tree.map(lambda leaf: leaf[None], x))

    @jax.jit
    def both(params, batch):
        operator = jc.fisher(fun, params, (batch, None), "gaussian")
        blocks = operator.kronecker().blocks
        plain = {block.leaves[0]: block.right for block in blocks if block.left is None}
        return plain, operator.diagonal()

    plain, exact = both(params, batch)
    for path, diagonal in plain.items():
        assert_close(diagonal, exact[path[2:-2]], 1e-10)


# ----------------------------------------------------------------------------------------- which leaves are in one block

X = some(4, 3)
W, B = some(3, 4), some(4)


def scanned(p, x):
    return lax.scan(lambda h, row: (jnp.tanh(h @ row["w"] + row["b"]), None), x, p)[0]


STACK = {"w": some(2, 3, 3), "b": some(2, 3)}

TOGETHER = {
    "added": (lambda p, x: x @ p["w"] + p["b"], {"w": W, "b": B}),
    "before": (lambda p, x: p["b"] + x @ p["w"], {"w": W, "b": B}),
    "transposed": (lambda p, x: p["w"] @ x + p["b"], {"w": W.T, "b": B}),
    "as a column": (lambda p, x: (x @ p["w"])[:, None] + p["b"][:, None], {"w": W, "b": B}),
    "a weight scaled": (lambda p, x: x @ (2 * p["w"]) + p["b"], {"w": W, "b": B}),
    "heads": (lambda p, x: jnp.einsum("i,ihk->hk", x, p["w"]) + p["b"], {"w": some(3, 2, 2), "b": some(2, 2)}),
    "blocks": (lambda p, x: jnp.einsum("i,hik->hk", x, p["w"]) + p["b"], {"w": some(2, 3, 4), "b": some(2, 4)}),
    "layers of a scan": (scanned, STACK),
    "a bias as long as positions and columns": (
        lambda p, x: jnp.outer(x, x) @ p["w"] + p["b"],
        {"w": some(3, 3), "b": some(3)},
    ),
}

APART = {
    "a bias scaled": (lambda p, x: x @ p["w"] + 2 * p["b"], {"w": W, "b": B}),
    "subtracted": (lambda p, x: x @ p["w"] - p["b"], {"w": W, "b": B}),
    "reversed": (lambda p, x: x @ p["w"] + p["b"][::-1], {"w": W, "b": B}),
    "used twice": (lambda p, x: jnp.sin(x @ p["w"] + p["b"]) + p["b"], {"w": W, "b": B}),
    "after a slope": (lambda p, x: jnp.tanh(x @ p["w"]) + p["b"], {"w": W, "b": B}),
    "along positions": (lambda p, x: jnp.outer(x, x) @ p["w"] + p["b"][:, None], {"w": some(3, 3), "b": some(3)}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*TOGETHER, *APART])
def test_a_bias_is_in_its_weights_block_where_it_is_a_row_of_it(name):
    fun, params = (TOGETHER | APART)[name]
    params, xs = doubled((params, X))
    kronecker = jc.fisher(fun, params, (xs, None), "gaussian").kronecker()
    together = [block.leaves for block in kronecker.blocks if len(block.leaves) == 2]
    assert together == ([("['w']", "['b']")] if name in TOGETHER else [])
    if name in TOGETHER and name != "a bias as long as positions and columns":
        # Of one sample and one output the block, bias and all, is exact.
        def one(p, x):
            return jnp.sum(jnp.sin(fun(p, x)))

        @jax.jit
        def both(params, xs):
            got = jc.fisher(one, params, (xs, None), "gaussian").kronecker().dense()
            return got, gauss_newton(one, lambda z, _: z**2 / 2, params, xs, None)

        got, want = both(params, xs[:1])
        if name in ("blocks", "layers of a scan"):  # blocks do not know of each other
            want = jnp.where(got == 0, 0, want)
        assert_close(got, want, 1e-10)


def test_marks_are_told_apart_in_half_precision_too():
    wide = {"w": jnp.zeros((2, 600), jnp.bfloat16), "b": jnp.zeros(600, jnp.bfloat16)}
    xs = jnp.ones((1, 2), jnp.bfloat16)
    (block,) = (
        jc.fisher(lambda p, x: jnp.sum(jnp.sin(x @ p["w"] + p["b"])), wide, (xs, None), "gaussian").kronecker().blocks
    )
    assert block.leaves == ("['w']", "['b']")
    assert block.left.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_parts_of_one_leaf_that_share_no_entry_are_blocks_of_their_own():
    params, xs = doubled(({"gates": some(3, 4)}, X))

    def model(p, x):
        first, second = jnp.split(p["gates"], [1], axis=1)
        return jnp.sum(jax.nn.sigmoid(x @ first) * jnp.tanh((x * x) @ second))

    @jax.jit
    def both(params, xs):
        operator = jc.fisher(model, params, (xs, None), "gaussian")
        kronecker = operator.kronecker()
        found.extend(block.left.shape for block in kronecker.blocks)
        solved = kronecker.solve(params, 0.5)["gates"].reshape(-1)
        matrix = kronecker.dense()
        return (solved, operator.dense()), (
            jnp.linalg.solve(matrix + 0.5 * jnp.eye(12), params["gates"].reshape(-1)),
            gauss_newton(model, lambda z, _: z**2 / 2, params, xs, None),
        )

    found = []
    assert_close(*both(params, xs), 1e-10)
    assert found == [(1, 3, 3), (1, 3, 3)]


@pytest.mark.usefixtures("x64")
def test_an_embeddings_factor_is_how_often_each_row_is_read():
    tokens = jnp.array([[0, 1, 1], [3, 1, 0]])
    found = factors_of(lambda p, x: jnp.sum(p["table"][x], 0), {"table": some(5, 2)}, tokens)
    _, left, right = found["['table']"]
    np.testing.assert_allclose(left, [[2 / 6, 3 / 6, 0, 1 / 6, 0]])
    np.testing.assert_allclose(right, [3 * np.eye(2)])


def test_the_table_names_leaves_kinds_and_sizes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    kronecker = jc.fisher(TOGETHER["added"][0], {"w": W, "b": B}, (X, None), "gaussian").kronecker()
    assert repr(kronecker) == "Kronecker(1 block, 16 × 16)"
    assert "['w'] + ['b']" in str(kronecker)
    assert "1 × 4 × 4" in str(kronecker)
    assert "<table" in kronecker._repr_html_()
