"""Colourings where asdex works, a clear word where it does not; memory limits that are kept."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw

import jaxchain as jc
from jaxchain import nets
from jaxchain.cost.measure import flops, measure
from jaxchain.jacobians import planner, sparse


def stencil(x):
    """Two steps of diffusion on a ring, with a nonlinearity."""
    for _ in range(2):
        x = jnp.tanh(jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))
    return x


X = draw(jnp.zeros(64))


def test_sparse_mode_is_jacrev_or_says_how_to_get_it():
    if sparse.unavailable():
        with pytest.raises(ImportError, match=r"jaxchain\[sparse\]"):
            jc.jacobian(stencil, mode="sparse")(X)
    else:
        np.testing.assert_allclose(
            jc.jacobian(stencil, mode="sparse")(X), jax.jit(jax.jacrev(stencil))(X), rtol=1e-5, atol=1e-6
        )


@pytest.mark.skipif(hasattr(jax._src.core, "ClosedJaxpr"), reason="before JAX 0.12 asdex finds what it looks for")
def test_asdex_still_looks_where_jax_has_moved_a_name():
    """Once this fails, ``sparse._moved_names`` can go, and this test with it."""
    alone = subprocess.run([sys.executable, "-c", "import asdex"], capture_output=True, text=True, check=False)
    assert "ClosedJaxpr" in alone.stderr
    assert sparse.available()
    assert not hasattr(jax._src.core, "ClosedJaxpr")


def test_without_asdex_sparse_mode_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sparse.importlib.util, "find_spec", lambda _: None)
    sparse.unavailable.cache_clear()
    try:
        with pytest.raises(ImportError, match=r'asdex is not installed: pip install --upgrade "jaxchain\[sparse\]"'):
            jc.jacobian(stencil, mode="sparse")(X)
        np.testing.assert_allclose(jc.jacobian(stencil)(X), jax.jit(jax.jacrev(stencil))(X), rtol=1e-5, atol=1e-6)
    finally:
        sparse.unavailable.cache_clear()


def test_auto_takes_a_colouring_where_there_is_one():
    np.testing.assert_allclose(jc.jacobian(stencil)(X), jax.jit(jax.jacrev(stencil))(X), rtol=1e-5, atol=1e-6)
    plan = jc.plan(stencil, (X,))
    assert (plan.plan.whole is not None) == sparse.available()
    if sparse.available():
        assert plan.plan.whole.colours <= 12
        assert 2 * flops(jc.jacobian(stencil), X) < min(flops(jax.jacfwd(stencil), X), flops(jax.jacrev(stencil), X))


def test_no_pattern_is_looked_for_where_that_of_the_factors_product_is_as_good_as_dense(monkeypatch):
    asked = []
    monkeypatch.setattr(planner, "whole_colouring", lambda *_: asked.append(True))

    def repeated(steps):
        return lambda x: jax.lax.fori_loop(0, steps, lambda _, x: jnp.tanh(x + jnp.roll(x, 1) * jnp.roll(x, -1)), x)

    jc.plan(repeated(50), (X,))
    assert not asked
    jc.plan(repeated(3), (X,))
    assert bool(asked) == sparse.available()


def test_a_memory_limit_is_kept_and_changes_nothing_else():
    net = nets.mlp([120, 100, 100, 110], "tanh")
    args = net.init(jax.random.key(0)), draw(jnp.zeros(120))
    free = measure(jc.jacobian(net, 1, mode="forward"), *args, repeats=1)
    limit = int(0.8 * free.peak_bytes)
    bound = measure(jc.jacobian(net, 1, memory_limit=limit), *args, repeats=1)
    assert bound.peak_bytes <= limit
    np.testing.assert_allclose(bound.result, free.result, rtol=1e-4, atol=1e-5)


def test_chunks_meet_a_limit_that_the_whole_basis_does_not():
    net = nets.transformer((6, 16, 12), 1, 2)
    args = draw(jax.eval_shape(net.init, jax.random.key(0))), draw(jnp.zeros((8, 6)))
    free = measure(jc.jacobian(net, 1, mode="reverse"), *args, repeats=1)
    limit = free.peak_bytes // 2
    bound = measure(jc.jacobian(net, 1, mode="reverse", memory_limit=limit), *args, repeats=1)
    assert bound.peak_bytes <= limit
    np.testing.assert_allclose(bound.result, free.result, rtol=1e-4, atol=1e-4)


def test_a_limit_that_cannot_be_met_says_the_least_that_can():
    with pytest.raises(ValueError, match=r"memory_limit=1 bytes cannot be met: the least .* is \d+ bytes"):
        jc.jacobian(lambda x: jnp.outer(x, x).cumsum(0), memory_limit=1)(X)


@pytest.mark.parametrize(
    "options", [{"memory_limit": 0}, {"memory_limit": 9, "chunk_size": 2}, {"memory_limit": 9, "holomorphic": True}]
)
def test_a_limit_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"memory_limit (is a number of bytes|chooses the chunks itself)"):
        jc.jacobian(stencil, **options)


def test_a_plan_within_a_limit_says_how_many_at_once():
    net = nets.transformer((6, 16, 12), 1, 2)
    args = draw(jax.eval_shape(net.init, jax.random.key(0))), draw(jnp.zeros((8, 6)))
    free = jc.plan(net, args, memory_limit=10**9)
    assert free.chunk_size is None
    tight = jc.plan(net, args, memory_limit=100_000)
    assert tight.chunk_size is not None
    assert f"room for {tight.chunk_size} vectors of a basis at a time" in str(tight)
    with pytest.raises(ValueError, match="cannot be met"):
        jc.plan(net, args, memory_limit=1)


@pytest.mark.parametrize("mode", ["auto", "mixed"])
def test_side_values_of_other_dtypes_do_not_hinder_a_colouring(mode):
    def upwind(u, v):
        return jnp.where(v > 0, u - jnp.roll(u, 1), jnp.roll(u, -1) - u) * v[jnp.arange(64)[::-1]]

    args = X, draw(jnp.zeros(64), 1)
    np.testing.assert_allclose(
        jc.jacobian(upwind, mode=mode)(*args), jax.jit(jax.jacrev(upwind))(*args), rtol=1e-5, atol=1e-6
    )
