"""Heads are found by value, and what passes each is JAX's own derivative of that head alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw

import jaxchain as jc
from jaxchain.diagnosis import heads
from jaxchain.diagnosis.heads import mixings

POSITIONS, WIDTH = 5, 6
X = draw(jnp.zeros((POSITIONS, WIDTH)), 2)


def params_of(count):
    shapes = {"q": (count, WIDTH, 3), "k": (count, WIDTH, 3), "v": (count, WIDTH, 3), "out": (count, 3, WIDTH)}
    return draw({name: jnp.zeros(shape) for name, shape in shapes.items()}, 1)


def softmax(scores):
    raised = jnp.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def weights_of(p, x, h):
    return softmax((x @ p["q"][h]) @ (x @ p["k"][h]).T)


def head(p, x, h):
    return weights_of(p, x, h) @ (x @ p["v"][h]) @ p["out"][h]


def by_hand(p, x, kept=None):
    """x + tanh(Σ_h head_h(x)); with ``kept`` only what passes that head has a derivative, ``"rest"``: nothing of them."""
    each = [head(p, x, h) for h in range(len(p["q"]))]
    stopped = [e if kept in (None, h) else jax.lax.stop_gradient(e) for h, e in enumerate(each)]
    return (x if kept in (None, "rest") else jax.lax.stop_gradient(x)) + jnp.tanh(sum(stopped))


def written(p, x):
    """The same, all heads at once, the weights on the left."""
    q, k, v = (jnp.einsum("td,hde->hte", x, p[name]) for name in "qkv")
    mixed = jnp.einsum("hqk,hke->qhe", jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k)), v)
    return x + jnp.tanh(jnp.einsum("qhe,hed->qd", mixed, p["out"]))


def mapped(p, x):
    """The same, one head mapped over, the weights on the right."""

    def one(q, k, v, out):
        return (x @ v).T @ softmax((x @ q) @ (x @ k).T).T, out

    mixed, out = jax.vmap(one)(p["q"], p["k"], p["v"], p["out"])
    return x + jnp.tanh(jnp.einsum("heq,hed->qd", mixed, out))


def found_in(fun, *args):
    chain = jc.discover(fun, *args)
    state, sides = chain.split(*args)
    for stage, side in zip(chain, sides, strict=True):
        yield from mixings(stage, side, state)
        state = stage(*side, state)


def squares(p, x, kept=None):
    """Of the Jacobian's entries, their sum."""
    return float(jnp.sum(jnp.square(jax.jacobian(by_hand, 1)(p, x, kept))))


def share(p, kept, *xs):
    return np.sqrt(sum(squares(p, x, kept) for x in xs) / sum(squares(p, x) for x in xs))


@pytest.mark.parametrize(("fun", "count"), [(written, 2), (mapped, 2), (mapped, 1)])
def test_weights_and_shares_are_those_of_each_head_alone(fun, count):
    p = params_of(count)
    (mixing,) = found_in(fun, p, X)
    assert mixing.samples == 1
    np.testing.assert_allclose(mixing.weights, [weights_of(p, X, h) for h in range(count)], rtol=1e-4, atol=1e-7)
    shares = mixing.shares(np.inf)
    assert shares.tangents is None
    np.testing.assert_allclose(shares.heads, [share(p, h, X) for h in range(count)], rtol=1e-4)
    np.testing.assert_allclose(shares.rest, share(p, "rest", X), rtol=1e-4)


def test_where_a_basis_costs_too_much_shares_are_estimated(monkeypatch):
    monkeypatch.setattr(heads, "FEWEST", 500)
    monkeypatch.setattr(heads, "CHUNK", 500)
    (mixing,) = found_in(written, params_of(2), X)
    exact, estimated = mixing.shares(np.inf), mixing.shares(0)
    assert estimated.tangents == 500
    np.testing.assert_allclose(estimated.heads, exact.heads, rtol=0.1)
    np.testing.assert_allclose(estimated.rest, exact.rest, rtol=0.1)


def test_of_several_samples_the_weights_are_the_firsts_and_the_shares_all_samples():
    p, xs = params_of(2), draw(jnp.zeros((3, POSITIONS, WIDTH)), 4)
    (mixing,) = found_in(lambda p, xs: jax.vmap(lambda x: written(p, x))(xs), p, xs)
    assert mixing.samples == 3
    np.testing.assert_allclose(mixing.weights, [weights_of(p, xs[0], h) for h in range(2)], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(mixing.shares(np.inf).heads, [share(p, h, *xs) for h in range(2)], rtol=1e-4)


def test_in_bfloat16_rows_sum_to_one_within_its_rounding():
    p, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params_of(2), X))
    (mixing,) = found_in(written, p, x)
    want = [weights_of(params_of(2), X, h) for h in range(2)]
    np.testing.assert_allclose(mixing.weights, want, atol=0.1)


def test_the_weights_of_a_flax_module_are_those_that_it_sows():
    module = nn.MultiHeadDotProductAttention(2)
    p = draw(jax.eval_shape(module.init, jax.random.key(0), X), 3)
    (mixing,) = found_in(lambda p, x: x + module.apply(p, x), p, X)
    _, sown = module.apply(p, X, sow_weights=True, mutable=["intermediates"])
    np.testing.assert_allclose(mixing.weights, sown["intermediates"]["attention_weights"][0], rtol=1e-4, atol=1e-7)


W = draw(jnp.zeros((WIDTH, WIDTH)), 5)


@pytest.mark.parametrize(
    "fun",
    [
        lambda w, x: jax.nn.softmax(jnp.tanh(x @ w)),
        lambda w, x: jax.nn.softmax(x @ w) @ w,
        lambda w, x: jax.nn.softmax(x[0] @ w) @ w,
        lambda w, x: x + (jax.nn.softmax(w) @ x.T).T,
        lambda w, x: x + jax.nn.relu(x @ w) @ w,
    ],
    ids=["softmax at the end", "classes mixed", "one query's", "weights not of the state", "layers"],
)
def test_what_mixes_no_positions_by_weights_of_the_state_is_no_attention(fun):
    assert list(found_in(fun, W, X)) == []


@jax.custom_vjp
def clipped(x):
    """x, whose cotangent is clipped: no tangent passes."""
    return x


clipped.defvjp(lambda x: (x, None), lambda _, cotangent: (jnp.clip(cotangent, -1, 1),))


def test_where_no_tangent_passes_the_weights_are_there_and_the_shares_are_not():
    p = params_of(2)
    (mixing,) = found_in(lambda p, x: x + written(p, clipped(jnp.sin(x))), p, X)
    np.testing.assert_allclose(mixing.weights[1], weights_of(p, jnp.sin(X), 1), rtol=1e-4, atol=1e-7)
    assert mixing.shares(np.inf) is None
