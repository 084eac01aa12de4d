"""What the page tells of sequences, and of stages that are too large to be decomposed."""

from __future__ import annotations

import base64
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw, some_params

import jaxchain as jc
from jaxchain.diagnosis import kinds
from jaxchain.diagnosis import survey as surveying
from jaxchain.page import content
from jaxchain.page.content import page


def quiet(text):
    del text


def test_the_blocks_between_positions_are_those_of_the_jacobian():
    net = jc.nets.transformer((4, 8, 5), 2, 1, hidden=12)
    args = some_params(net), draw(jnp.zeros((3, 4)), 2)
    found, told = surveying.survey(net, args), list[object]()
    jacobians = jc.local_jacobians(net, args)
    for k, jacobian in enumerate(jacobians):
        shapes = jacobian.in_shape, jacobian.out_shape
        positions = content._positions(found.links[k], *found.states[k : k + 2])
        told.append(positions)
        if min(map(len, shapes)) < 2:
            assert positions is None
            continue
        (t, d), (_, e) = shapes
        blocks = np.asarray(jacobian.matrix).reshape(t, e, t, d)
        want = [[np.linalg.norm(blocks[i, :, j]) for j in range(t)] for i in range(t)]
        shown = np.frombuffer(base64.b64decode(positions["values"]), "<f4").reshape(t, t)
        np.testing.assert_allclose(shown, want, rtol=1e-5, atol=1e-7)
    assert any(told)


@pytest.mark.parametrize("limit", ["WORK", "DECOMPOSITIONS"])
def test_of_a_stage_that_is_not_decomposed_the_largest_singular_value_is_estimated_from_below(monkeypatch, limit):
    monkeypatch.setattr(surveying, limit, 1e3)
    net = jc.nets.mlp([30, 40, 20])
    args = some_params(net), draw(jnp.zeros(30), 2)
    found = surveying.survey(net, args)
    for link, jacobian in zip(found.links, jc.local_jacobians(net, args), strict=True):
        if link.sigma is None:
            exact = float(np.linalg.norm(np.asarray(jacobian.matrix), 2))
            assert 0.8 * exact < link.largest[0] <= exact * (1 + 1e-5)
    assert any(link.sigma is None for link in found.links)


def test_only_stages_of_the_same_program_share_their_derivatives():
    def scaled(factor):
        @jax.custom_jvp
        def same(x):
            return x

        same.defjvp(lambda primals, tangents: (primals[0], factor * tangents[0]))
        return same

    scales = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    stages = [jc.Stage(f"w_{k}", jnp.multiply, init=lambda _: jnp.ones(2)) for k in range(2)]
    stages += [jc.Stage(f"scale_{k}", lambda x, scale=scale: x * scale) for k, scale in enumerate(scales)]
    stages += [jc.Stage(f"rule_{k}", scaled(k)) for k in (5, 6)]
    params = {"w_0": jnp.array([7.0, 8.0]), "w_1": jnp.array([9.0, 10.0])}
    placed = kinds.placed(stages, [(params["w_0"],), (params["w_1"],), (), (), (), ()], jnp.ones(2))
    diagonals = [np.diag(at.matrix()).tolist() for at in placed]
    assert diagonals == [[7, 8], [9, 10], [1, 2], [3, 4], [5, 5], [6, 6]]
    assert [at.kind is placed[0].kind for at in placed] == [True, True, False, False, False, False]


def test_each_stages_factor_and_each_leafs_gradient_are_jaxs():
    net = jc.nets.mlp([6, 5, 3], "tanh")
    args = some_params(net), draw(jnp.zeros(6), 2)
    cotangent = draw(jnp.zeros(3), 6)
    data = page(net, args, "net", cotangent=cotangent, say=quiet)
    sweep = jc.reverse_sweep(net, args, cotangent)
    lengths = [float(jnp.linalg.norm(c)) for c in sweep.cotangents]
    want = [before / after for before, after in pairwise(lengths)]
    np.testing.assert_allclose([stage["times"] for stage in data["stages"]], want, rtol=1e-5)
    gradient = jax.vjp(net, *args)[1](cotangent)[0]
    by_path = {
        "params" + jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    }
    assert {leaf["name"] for leaf in data["leaves"]} == set(by_path)
    for leaf in data["leaves"]:
        np.testing.assert_allclose(leaf["gradient"], jnp.linalg.norm(by_path[leaf["name"]]), rtol=1e-5)
        np.testing.assert_allclose(leaf["ratio"], leaf["gradient"] / leaf["weight"], rtol=1e-6)
    assert [state["bytes"] for state in data["states"]] == [24, 20, 20, 12]
