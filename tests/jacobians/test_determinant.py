"""log |det J|, stage by stage, against the factorisation of the whole Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops

N = 8


def w(*shape, seed=0):
    return draw(jnp.zeros(shape), seed) / 3


MASK = np.tril(np.ones((N, N), np.float32))


def coupling(x):
    kept, moved = jnp.split(x, 2)
    half = len(kept)
    scale, shift = jnp.tanh(w(half, half) @ kept), w(half, half, seed=1) @ kept
    return jnp.flip(jnp.concatenate([kept, moved * jnp.exp(scale) + shift]))


def recurrent(x):
    return lax.scan(lambda c, v: ((c + jnp.tanh(v)) / 2, v + 0.3 * jnp.sin(c + v)), 0 * x[0], x)[1]


SQUARE = {
    "elementwise": lambda x: jnp.sinh(x) + 2 * x,
    "layers": lambda x: (w(N, N) + jnp.eye(N)) @ jnp.tanh((w(N, N, seed=1) + jnp.eye(N)) @ x),
    "couplings": lambda x: coupling(coupling(coupling(x))),
    "an autoregressive function": lambda x: x * jnp.exp(jnp.tanh((MASK * w(N, N)) @ x)) + 3 * x,
    "a recurrence": recurrent,
    "positions": lambda x: jax.nn.softplus(x.reshape(4, 2) @ (w(2, 2) + jnp.eye(2))) @ (w(2, 2, seed=2) + jnp.eye(2)),
    "a wide stage": lambda x: x + w(N, 2 * N) @ jnp.sin(w(2 * N, N, seed=1) @ x),
    "wide between": lambda x: w(N, 2 * N) @ jnp.sin(w(2 * N, N, seed=1) @ jnp.sin(x)),
    "the identity": lambda x: x.reshape(2, -1) + 1,
    "a pytree": lambda x: (x[:3] * x[3], {"rest": jnp.exp(x[3:])}),
    "a permutation": lambda x: jnp.roll(jnp.sin(x), 3),
}


def whole(fun):
    @jax.jit
    def of_x(x):
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(jax.jacrev(lambda v: flat_of(fun(v)))(x))])
        return jnp.linalg.slogdet(flat.reshape(x.size, x.size))[1]

    return of_x


def flat_of(out):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(out)])


@pytest.mark.parametrize("name", SQUARE)
def test_the_log_determinant_is_that_of_the_whole(name):
    with jax.enable_x64(True):
        x = jnp.asarray(draw(jnp.zeros(N)), float)
        ours, want = jc.logdet(SQUARE[name]), whole(SQUARE[name])
        xs = jnp.stack([x, x / 2, -x])
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(want)))(xs)
        assert_close(jax.jit(jax.vmap(ours))(xs), values, 1e-10)
        value, gradient = jax.jit(lambda x: (ours(x), jax.grad(ours)(x)))(x)
        assert_close(value, values[0], 1e-10)
        assert_close(gradient, gradients[0], 1e-9)


@pytest.mark.parametrize("name", ["couplings", "an autoregressive function", "a permutation", "a recurrence"])
def test_what_is_triangular_is_read_off_its_diagonal(name, monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.sparse.LEAST", 2)
    with jax.enable_x64(True):
        x = jnp.asarray(draw(jnp.zeros(N)), float)
        ours, want = jc.logdet(SQUARE[name]), whole(SQUARE[name])
        (value, gradient), wanted = (jax.jit(jax.value_and_grad(f))(x) for f in (ours, want))
        assert_close(value, wanted[0], 1e-10)
        assert_close(gradient, wanted[1], 1e-9)


def test_numbers_that_change_each_other_in_a_circle_are_not_triangular(monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.sparse.LEAST", 2)

    def circle(x):
        return x + 0.5 * jnp.roll(jnp.sin(x), 1)

    x = draw(jnp.zeros(N))
    assert_close(jc.logdet(circle)(x), whole(circle)(x), 1e-5)


def test_a_coupling_takes_two_tangents_not_a_factorisation():
    x = draw(jnp.zeros(64))
    assert_close(jc.logdet(coupling)(x), whole(coupling)(x), 1e-4)
    assert flops(jc.logdet(coupling), x) < 0.1 * flops(jax.jacfwd(coupling), x)


def test_where_fewer_numbers_pass_it_is_minus_infinity():
    assert jc.logdet(lambda x: w(N, 2) @ jnp.sin(w(2, N) @ x))(jnp.ones(N)) == -jnp.inf
    assert jc.logdet(lambda x: jnp.maximum(x, 0))(-jnp.ones(N)) == -jnp.inf


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_it_is_of_the_input_s_dtype(dtype):
    a = (w(3, 3) + jnp.eye(3)).astype(dtype)
    found = jc.logdet(lambda x: a @ jnp.sinh(x))(jnp.ones(3, dtype))
    assert found.dtype == dtype
    want = jnp.linalg.slogdet(a.astype(jnp.float32))[1] + 3 * jnp.log(jnp.cosh(1.0))
    np.testing.assert_allclose(found.astype(jnp.float32), want, rtol=0.05)


def test_other_jacobians_have_none():
    with pytest.raises(ValueError, match="Only a square Jacobian has a determinant; this one is 1 × 3"):
        jc.logdet(jnp.sum)(jnp.ones(3))
    with pytest.raises(TypeError):
        jc.logdet(jnp.sin)(jnp.arange(3))
