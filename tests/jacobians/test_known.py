"""A stage that is linear, in what is known before any call, has one Jacobian: computed once, multiplied for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops

X = draw(jnp.zeros(12))
A = draw(jnp.zeros((12, 12)), 1) / 4 + jnp.eye(12)
AT = jnp.array([3, 1, 1, 5])


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))

CONSTANT = {
    "a Fourier transform": lambda x: jnp.fft.rfft(x).real,
    "interpolation": lambda x: jnp.interp(jnp.linspace(0, 11, 30), jnp.arange(12.0), x),
    "a gather": lambda x: 2 * x[AT],
    "a solve": lambda x: jnp.linalg.solve(A, x),
    "conjugate gradients": lambda x: jax.scipy.sparse.linalg.cg(lambda v: A @ (A.T @ v), x, tol=1e-9, maxiter=99)[0],
    "a loop": lambda x: lax.scan(lambda c, b: (A @ c + b, c), x, jnp.ones((3, 12)))[0],
    "a loop that ends": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, A @ c[1]), (0, x))[1],
    "layers": lambda x: A @ (A.T @ x + 1) - 3,
    "a rule for reverse mode": lambda x: jnp.fft.rfft(doubled(x)).imag,
    "a stepwise constant beside": lambda x: A @ x + (x > 0),
    "a function of pytrees": lambda x: {"sum": jnp.cumsum(x), "rest": (jnp.flip(x), x[:3] @ A[:3])},
    "positions": lambda x: (x.reshape(4, 3) @ A[:3, :5]) @ A[:5, :2],
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_jacobian_takes_no_work_in_a_call(name):
    jac = jc.jacobian(CONSTANT[name])
    want = (jax.jacfwd if "ends" in name else jax.jacrev)(CONSTANT[name])(X)
    assert_close(jac(X), want, 1e-4 if "gradients" in name else None)
    assert flops(jac, X) == 0
    assert jac.plan(X).cost == 0


MOVING = {
    "a branch": lambda x: jnp.where(x > 0, A @ x, A.T @ x),
    "an order": lambda x: A @ jnp.sort(x),
    "a place": lambda x: A @ lax.dynamic_slice(x, (jnp.argmax(x) // 2,), (12 // 2,)).repeat(2),
    "a loop that x ends": lambda x: lax.while_loop(lambda c: c[0] < x[0] + 2, lambda c: (c[0] + 1, A @ c[1]), (0, x))[
        1
    ],
    "a loop's counter": lambda x: lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, A @ c[1] * c[2], jnp.abs(c[2])), (0, x, jnp.sign(x[0]) * 2)
    )[1],
    "a branch taken": lambda x: lax.cond(x[0] > 0, lambda v: A @ v, lambda v: 3 * v, x),
    "a product": lambda x: x * (A @ x),
    "a value stopped": lambda x: lax.stop_gradient(x) * (A @ x),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_the_input_moves_is_not_taken_for_constant(name):
    jac = jax.jit(jc.jacobian(MOVING[name], mode="mixed"))
    for x in (X, -2 * X):
        assert_close(jac(x), jax.jit(jax.jacfwd(MOVING[name]))(x))


def test_weights_that_are_traced_are_known_in_the_call_alone():
    def squares(w):
        return jc.jacobian(lambda x: w @ (w @ x))(X)

    assert_close(jax.jit(jax.grad(lambda w: squares(w).sum()))(A), jax.jit(jax.grad(lambda w: (w @ w).sum()))(A), 1e-5)
    assert_close(jax.jit(jax.vmap(squares))(jnp.stack([A, A.T])), jnp.stack([A @ A, A.T @ A.T]), 1e-5)


def test_constants_of_another_call_are_not_kept():
    weights = [A]
    jac = jc.jacobian(lambda x: jnp.fft.rfft(weights[0] @ x).real)
    first = jac(X)
    weights[0] = 2 * A
    assert_close(jac(X), 2 * first)
    host = np.array(A)
    jac = jc.jacobian(lambda x: jnp.cumsum(host @ x))
    first = jac(X)
    host *= 3  # in place
    assert_close(jac(X), 3 * first, 1e-5)


def test_what_is_between_is_multiplied_alone_and_waists_are_kept():
    down, up = A[:3], A[:, :3]

    def f(x):
        return jnp.tanh(A @ (up @ (down @ (A @ jnp.sin(x)))))

    decision = jc.plan(f, (X,))
    assert [unit.kind for unit in decision.plan.units] == ["diagonal", "dense", "dense", "diagonal"]
    assert min(decision.sizes) == 3
    words = [decision.describe(step).partition(" ")[2] for step in decision.steps]
    assert words[:2] == ["is the same at every input, computed once"] * 2
    assert words[2].endswith(", computed once")
    want = jax.jacrev(f)
    assert_close(jc.jacobian(f)(X), want(X), 1e-5)
    assert_close(
        jax.jit(jax.vmap(jc.jacobian(f)))(jnp.stack([X, -X])), jax.jit(jax.vmap(want))(jnp.stack([X, -X])), 1e-5
    )
    total, other = (lambda x, j=j: (j(f)(x) ** 3).sum() for j in (jc.jacobian, jax.jacrev))
    assert_close(jax.jit(jax.grad(total))(X), jax.jit(jax.grad(other))(X), 1e-5)


def test_inside_a_mapped_axis_its_name_is_known_in_the_call_alone():
    def f(x):
        return jnp.cumsum(lax.psum(x, "i"))

    xs = jnp.stack([X, 2 * X])
    assert_close(
        jax.jit(jax.vmap(jc.jacobian(f), axis_name="i"))(xs), jax.jit(jax.vmap(jax.jacrev(f), axis_name="i"))(xs)
    )


def test_a_matrix_too_large_for_a_program_is_not_computed_beforehand(monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.unit.MOST_KNOWN", 100)
    assert not jc.plan(CONSTANT["a loop"], (X,)).plan.units[-1].known
