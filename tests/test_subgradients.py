"""Where there is no derivative, JAX chooses one, and every mode of jaxchain chooses the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc

TIES = jnp.array([1.0, 2.0, 2.0, -1.0])
ZEROS = jnp.array([0.0, 1.0, -1.0, 0.0])

W = jnp.array([[1.0, 2.0, 0.5, -1.0], [0.0, 1.0, -3.0, 2.0], [2.0, 2.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]])

KINKS = {
    "relu at 0": (jax.nn.relu, ZEROS, 0.0),
    "maximum with 0 at 0": (lambda x: jnp.maximum(x, 0.0), ZEROS, 0.5),
    "minimum with 0 at 0": (lambda x: jnp.minimum(x, 0.0), ZEROS, 0.5),
    "clip at an end": (lambda x: jnp.clip(x, 0.0, 2.0), ZEROS, None),
    "leaky relu at 0": (jax.nn.leaky_relu, ZEROS, None),
    "relu6 at 0": (jax.nn.relu6, ZEROS, 0.0),
    "abs at 0": (jnp.abs, ZEROS, 1.0),
    "sign at 0": (lambda x: jnp.sign(x) * x, ZEROS, 0.0),
    "round at a half": (lambda x: jnp.round(x + 0.5) * x, ZEROS, None),
    "largest of ties": (lambda x: jnp.max(x) * jnp.ones(4), TIES, None),
    "smallest of ties": (lambda x: jnp.min(jnp.abs(x)) * x, TIES, None),
    "running maximum of ties": (jax.lax.cummax, TIES, None),
    "pooling of ties": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID")[jnp.array([0, 1, 2, 0])],
        TIES,
        None,
    ),
    "sorted ties": (jnp.sort, TIES, None),
    "largest two of ties": (lambda x: jnp.repeat(jax.lax.top_k(x, 2)[0], 2), TIES, None),
    "median of ties": (lambda x: jnp.median(x) * x, TIES, None),
    "where at the edge": (lambda x: jnp.where(x > 0, x, 2 * x), ZEROS, 2.0),
    "Euclidean norm at 0": (lambda x: jnp.linalg.norm(x) * jnp.ones(4), jnp.zeros(4), None),
    "power 0 at 0": (lambda x: x**0.0 + x, ZEROS, None),
    "hypot at 0": (lambda x: jnp.hypot(x, x), ZEROS, None),
}


def between_layers(kink):
    """The same behind and before a product of matrices, so that its closed form is multiplied by others."""
    return lambda x: W @ kink(x)


@pytest.mark.parametrize("name", KINKS)
def test_every_mode_takes_the_derivative_that_jax_takes(name):
    kink, x, at_zero = KINKS[name]

    @jax.jit
    def both(x):
        fun = between_layers(kink)
        ways = [jc.jacobian(fun, mode=mode)(x) for mode in ("auto", "mixed", "forward", "reverse")]
        chain = jc.discover(fun, x)
        ways += [jc.prefix_jacobians(chain, (x,))[-1], jc.suffix_jacobians(chain, (x,))[0]]
        return jax.jacrev(fun)(x), ways, jax.jacrev(kink)(x)

    want, ways, own = both(x)
    for got in ways:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)  # NaN where JAX says NaN
    if at_zero is not None:
        assert own[0, 0] == at_zero


@pytest.mark.parametrize("kink", [jax.nn.relu, lambda x: jnp.maximum(x, 0.0)], ids=["relu", "maximum"])
def test_samples_and_factors_take_it_too(kink):
    def loss(w, xs):
        return jnp.mean(kink(xs @ w) ** 2 + kink(xs @ w))

    xs, w = jnp.stack([ZEROS, TIES]), jnp.array([0.0, 1.0, -1.0, 1.0])[:, None] * jnp.array([[1.0, 0.0]])
    want = jax.vmap(jax.grad(loss), (None, 0))(w, xs[:, None])
    np.testing.assert_allclose(jc.sample_gradients(loss, w, xs), want, rtol=1e-6)
    batched = jc.batch_jacobian(lambda xs: kink(xs))(xs)
    np.testing.assert_array_equal(batched, jax.vmap(jax.jacrev(kink))(xs))
    np.testing.assert_array_equal(
        jc.hessian(lambda x: jnp.sum(kink(x) ** 2), (ZEROS,)), jax.hessian(lambda x: jnp.sum(kink(x) ** 2))(ZEROS)
    )
