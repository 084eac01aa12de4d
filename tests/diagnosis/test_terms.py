"""The Jacobian of a stage that is a sum is the sum of its terms', each of which is JAX's own derivative of it."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw

import jaxchain as jc
from jaxchain.diagnosis import survey as surveying
from jaxchain.diagnosis import terms as summing
from jaxchain.diagnosis.survey import survey
from jaxchain.diagnosis.terms import terms
from jaxchain.discovery.whole import as_discovered

W, X = draw(jnp.zeros((4, 4)), 1), draw(jnp.zeros(4), 2)

SUMS = {
    "x + g(x)": [("x", lambda w, x: x), ("dot", lambda w, x: jnp.tanh(w @ x))],
    "k(x) + x + g(x)": [("sin", lambda w, x: jnp.sin(x)), ("x", lambda w, x: x), ("dot", lambda w, x: w @ x)],
}


def terms_of(chain, args):
    (link,) = survey(chain, args).links
    state, (side,) = chain.split(*args)
    return terms(*as_discovered(link.stage, side, state), state, link), link


@pytest.mark.parametrize("entries", [summing.ENTRIES, 0], ids=["small", "large"])
@pytest.mark.parametrize("name", SUMS)
def test_every_term_is_jaxs_own_derivative_of_it(monkeypatch, name, entries):
    monkeypatch.setattr(summing, "ENTRIES", entries)
    chain = jc.discover(lambda w, x: reduce(add, (fun(w, x) for _, fun in SUMS[name])), W, X)
    found, link = terms_of(chain, (W, X))
    assert [term.name for term in found] == [word for word, _ in SUMS[name]]
    for term, (word, fun) in zip(found, SUMS[name], strict=True):
        np.testing.assert_allclose(term.matrix, jax.jacobian(fun, 1)(W, X), rtol=1e-5, atol=1e-6)
        assert term.is_identity == (word == "x")
        assert all((part.matrix is not None) == bool(entries) for part in term.parts)
    np.testing.assert_allclose(sum(term.matrix for term in found), link.matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("entries", [summing.ENTRIES, 0], ids=["small", "large"])
def test_of_a_stage_of_which_some_columns_are_known_so_are_those_of_its_terms(monkeypatch, entries):
    monkeypatch.setattr(surveying, "WORK", 1e2)
    monkeypatch.setattr(summing, "ENTRIES", entries)
    w, x = draw(jnp.zeros((20, 20)), 1), draw(jnp.zeros(20), 2)
    (skip, own), link = terms_of(jc.discover(lambda w, x: x + jnp.tanh(w @ x), w, x), (w, x))
    assert link.whole is None
    np.testing.assert_array_equal(skip.matrix, np.eye(20)[:, link.columns])
    want = jax.jacobian(lambda x: jnp.tanh(w @ x))(x)[:, np.array(link.columns)]
    np.testing.assert_allclose(own.matrix, want, rtol=1e-5, atol=1e-6)


def test_a_stage_that_nobody_discovered_is_opened_too():
    net = jc.Chain([jc.Stage("block", lambda w, x: x + jnp.tanh(w @ x), init=lambda key: W)])
    (skip, own), _ = terms_of(net, ({"block": W}, X))
    assert (skip.name, own.name) == ("x", "block")
    assert [part.name.partition("@")[0] for part in own.parts] == ["dot", "tanh"]
    assert terms_of(jc.Chain([jc.Stage("sine", jnp.sin)]), (X,))[0] == ()
