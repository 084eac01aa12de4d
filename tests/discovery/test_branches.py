"""A stage that is a sum knows its terms: J is the sum of the branches' Jacobians."""

import jax
import jax.numpy as jnp
import pytest
from agreement import plain, some
from conftest import assert_close, draw

import jaxchain as jc

X = some(4)
W = some(4, 4, seed=1)
V = some(4, 4, seed=2)

SUMS = {
    "x + g(x)": (lambda w, x: x + jnp.tanh(w @ x), [("identity",), ("dot", "tanh")]),
    "g(x) + x": (lambda w, x: jnp.tanh(w @ x) + x, [("dot", "tanh"), ("identity",)]),
    "g(x) + k(x)": (lambda w, x: jnp.sin(w @ x) + jnp.cos(x), [("dot", "sin"), ("cos",)]),
    "x + x": (lambda _, x: x + x, [("identity",), ("identity",)]),
    "(x + g) + k": (lambda w, x: x + jnp.sin(x) + w @ x, [("identity",), ("sin",), ("dot",)]),
    "x + (g + k)": (lambda w, x: x + (jnp.sin(x) + w @ x), [("identity",), ("sin",), ("dot",)]),
    "x + g(x) * k(x)": (lambda w, x: x + jnp.sin(x) * (w @ x), [("identity",), ("dot",)]),
}

of_sums = pytest.mark.parametrize("name", SUMS)


def only_stage(fun):
    chain = jc.discover(fun, W, X)
    assert len(chain) == 1
    return chain[0], chain.split(W, X)[1][0]


@of_sums
def test_a_sum_has_one_branch_a_term_in_order(name):
    fun, want = SUMS[name]
    stage, _ = only_stage(fun)
    assert [plain(n.split("_")[0] for n in plain(branch.names)) for branch in stage.branches] == want


@of_sums
def test_the_branches_add_up_to_the_stage(name):
    stage, side = only_stage(SUMS[name][0])
    assert_close(sum(branch(*side, X) for branch in stage.branches), stage(*side, X))


@of_sums
def test_the_stages_jacobian_is_the_sum_of_its_branches_jacobians(name):
    fun, _ = SUMS[name]
    stage, side = only_stage(fun)
    total = 0
    for branch in stage.branches:
        product = jnp.eye(4)
        for local in jc.local_jacobians(branch, (*side, X)):
            product = local.matrix @ product
        total = total + product
    assert_close(total, jax.jit(jax.jacfwd(fun, argnums=1))(W, X))


@of_sums
def test_sweeps_of_branches_add_up_to_the_sweep_of_the_stage(name):
    fun, _ = SUMS[name]
    stage, side = only_stage(fun)
    cotangents = [jc.reverse_sweep(branch, (*side, X), X).cotangents[0] for branch in stage.branches]
    tangents = [jc.forward_sweep(branch, (*side, X), X).tangents[-1] for branch in stage.branches]
    assert_close(sum(cotangents), jax.vjp(lambda x: fun(W, x), X)[1](X)[0])
    assert_close(sum(tangents), jax.jvp(lambda x: fun(W, x), (X,), (X,))[1])


def test_the_jacobian_of_a_residual_stage_is_the_identity_and_its_branchs():
    stage, side = only_stage(SUMS["x + g(x)"][0])
    skip, branch = stage.branches
    (eye,) = jc.local_jacobians(skip, (*side, X))
    assert_close(eye.matrix, jnp.eye(4))
    assert_close(jc.suffix_jacobians(branch, (*side, X))[0], jax.jit(jax.jacfwd(lambda x: jnp.tanh(W @ x)))(X))


def test_a_branch_takes_the_side_inputs_of_its_stage_all_of_them():
    stage, side = only_stage(lambda w, x: jnp.sin(w @ x) + w[0] * jnp.cos(x))
    assert len(side) >= 2
    for branch in stage.branches:
        assert branch(*side, X).shape == X.shape


@pytest.mark.parametrize(
    "fun",
    [
        lambda w, x: jnp.sin(w @ x) * x,
        lambda w, x: jnp.sin(x + w @ x) * x,
        lambda w, x: jnp.maximum(x, w @ x),
        lambda w, x: jnp.sin(x) + w[0],
        lambda _, x: jnp.sum(x) + x,
        lambda _, x: (x + jnp.sin(x), x),
        lambda _, x: x,
    ],
    ids=["product", "sum inside", "maximum", "sum with a side value", "broadcast", "two outputs", "identity"],
)
def test_a_stage_that_is_no_sum_of_functions_of_its_state_has_no_branches(fun):
    for stage in jc.discover(fun, W, X):
        assert stage.branches == ()


def test_a_sum_that_is_read_elsewhere_too_is_one_term():
    # s = x + sin x is an inner sum with two readers: opening it would count it apart from itself.
    def fun(w, x):
        s = x + jnp.sin(x)
        return s + (w @ s) * x

    stage, side = only_stage(fun)
    assert_close(sum(branch(*side, X) for branch in stage.branches), fun(W, X))


def test_every_residual_step_of_a_transformer_has_an_identity_branch():
    net = jc.nets.transformer((3, 4, 2), 1, 2)
    params, x = draw(jax.eval_shape(net.init, jax.random.key(0))), some(3, 3)
    chain = jc.discover(net, params, x)
    branches = {stage.name: stage.branches for stage in chain if stage.branches}
    assert list(branches) == ["attention_0", "mlp_0"]
    assert all(skip.names == ("identity",) for skip, _ in branches.values())
    state, sides = chain.split(params, x)
    for stage, side in zip(chain, sides, strict=True):
        if stage.branches:
            assert_close(sum(branch(*side, state) for branch in stage.branches), stage(*side, state))
        state = stage(*side, state)


def test_ready_made_stages_have_no_branches():
    assert jc.Stage("double", lambda x: x + x).branches == ()


def test_a_branch_of_a_residual_block_has_stages_with_names_of_their_own():
    def fun(w, x):
        with jax.named_scope("block"):
            with jax.named_scope("linear"):
                y = w @ x
            with jax.named_scope("activation"):
                y = jnp.tanh(y)
            return x + y

    stage, _ = only_stage(fun)
    assert [branch.names for branch in stage.branches] == [("identity",), ("linear", "activation")]


def test_a_pytree_state_that_is_summed_leaf_by_leaf_has_no_branches_yet_works():
    def fun(s):
        return {"a": s["a"] + jnp.sin(s["b"]), "b": s["b"] + jnp.cos(s["a"])}

    chain = jc.discover(fun, {"a": X, "b": X})
    assert [stage.branches for stage in chain] == [()]


def test_a_sum_of_a_pytree_states_leaves_has_a_branch_a_leaf():
    chain = jc.discover(lambda s: jnp.sin(s["a"]) + jnp.cos(s["b"]), {"a": X, "b": 2 * X})
    state = {"a": X, "b": 2 * X}
    branches = chain[0].branches
    assert len(branches) == 2
    assert_close(sum(branch(state) for branch in branches), chain(state))
