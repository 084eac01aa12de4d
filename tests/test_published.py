"""Published numbers and facts: `shared/ground_truth/README.md`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain import nets

# Baydin et al., JMLR 18 (2018), tables 2 and 3: y = ln x1 + x1·x2 − sin x2 at (2, 5), one line of the trace a stage.
BAYDIN = jc.Chain(
    [
        jc.Stage("v1", lambda x: {**x, "v1": jnp.log(x["x1"])}),
        jc.Stage("v2", lambda v: {**v, "v2": v["x1"] * v["x2"]}),
        jc.Stage("v3", lambda v: {**v, "v3": jnp.sin(v["x2"])}),
        jc.Stage("v4", lambda v: {**v, "v4": v["v1"] + v["v2"]}),
        jc.Stage("v5", lambda v: v["v4"] - v["v3"]),
    ]
)
AT = ({"x1": jnp.array(2.0), "x2": jnp.array(5.0)},)


def test_baydins_forward_primal_trace():
    *states, y = jc.forward_sweep(BAYDIN, AT, {"x1": jnp.array(1.0), "x2": jnp.array(0.0)}).primals
    found = [float(states[-1][name]) for name in ("v1", "v2", "v3", "v4")]
    np.testing.assert_allclose([*found, float(y)], [0.693, 10.0, -0.959, 10.693, 11.652], atol=5e-4)


def test_baydins_forward_tangent_trace():
    tangents = jc.forward_sweep(BAYDIN, AT, {"x1": jnp.array(1.0), "x2": jnp.array(0.0)}).tangents
    found = [float(tangents[-2][name]) for name in ("v1", "v2", "v3", "v4")]
    np.testing.assert_allclose([*found, float(tangents[-1])], [0.5, 5.0, 0.0, 5.5, 5.5], atol=1e-6)


def test_baydins_reverse_adjoint_trace():
    sweep = jc.reverse_sweep(BAYDIN, AT, jnp.array(1.0))
    (adjoint,) = sweep.arg_cotangents
    np.testing.assert_allclose([adjoint["x1"], adjoint["x2"]], [5.5, 1.716], atol=5e-4)
    assert {name: float(value) for name, value in sweep.cotangents[-2].items()} == {
        "x1": 0.0,
        "x2": 0.0,
        "v1": 0.0,
        "v2": 0.0,
        "v3": -1.0,
        "v4": 1.0,
    }


def test_the_elementwise_chain_has_its_derivative_by_hand():
    chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("exp", jnp.exp), jc.Stage("sin", jnp.sin)])
    with jax.enable_x64(True):
        x = jnp.array(0.3)
        forward = jc.forward_sweep(chain, (x,), jnp.ones(()))
        (slope,) = jc.reverse_sweep(chain, (x,), jnp.ones(())).arg_cotangents
        locals_ = [float(jacobian.matrix[0, 0]) for jacobian in jc.local_jacobians(chain, (x,))]
    assert float(forward.primals[-1]) == pytest.approx(np.sin(np.exp(0.09)), rel=1e-14)
    by_hand = np.cos(np.exp(0.09)) * np.exp(0.09) * 0.6
    assert float(forward.tangents[-1]) == pytest.approx(by_hand, rel=1e-14)
    assert float(slope) == pytest.approx(by_hand, rel=1e-14)
    assert locals_ == pytest.approx([0.6, np.exp(0.09), np.cos(np.exp(0.09))], rel=1e-14)


def test_orthogonal_weights_keep_every_singular_value_of_a_linear_chain_at_one():
    """Saxe et al., arXiv 1312.6120."""
    with jax.enable_x64(True):
        net = nets.mlp([12] * 51, "identity", "orthogonal")
        args = (net.init(jax.random.key(0)), jnp.ones(12))
        found = jax.jit(lambda args: jc.suffix_jacobians(net, args))(args)
        for matrix in found:
            np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), 1, atol=1e-12)


@pytest.mark.usefixtures("optimised")
def test_he_weights_keep_squared_norms_of_relu_nets_on_average():
    """He et al., arXiv 1502.01852: χ₁ = 1 at σ_w² = 2, σ_b = 0, forward and backward."""
    width, depth, seeds = 256, 10, 32
    net = nets.mlp([width] * (depth + 1), "relu", "he")

    def squared_norms(key):
        key_params, key_x, key_y = jax.random.split(key, 3)
        x, y = jax.random.normal(key_x, (width,)), jax.random.normal(key_y, (width,))
        sweep = jc.reverse_sweep(net, (net.init(key_params), x), y)
        dense = slice(1, None, 2)  # the states after the dense layers
        return tuple(
            jnp.stack([jnp.sum(state**2) for state in states[dense]]) for states in (sweep.primals, sweep.cotangents)
        )

    primals, cotangents = jax.jit(lambda keys: jax.lax.map(squared_norms, keys))(
        jax.random.split(jax.random.key(0), seeds)
    )
    for norms in (primals, cotangents):
        mean = np.asarray(norms).mean(axis=0) / width
        np.testing.assert_allclose(mean / mean.mean(), 1, atol=0.3)


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(101)


def gaussian_mean(fn, variance):
    """∫Dz fn(√variance·z) by Gauss–Hermite quadrature."""
    return float(WEIGHTS @ fn(np.sqrt(variance) * NODES) / np.sqrt(2 * np.pi))


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("sigma_w", "sigma_b"), [(0.9, 0.2), (1.3, 0.3), (2.0, 0.5)], ids=["ordered", "near", "chaotic"]
)
def test_the_mean_squared_singular_value_of_a_tanh_net_is_chi_to_the_depth(sigma_w, sigma_b):
    """Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232."""
    width, depth, seeds, q = 400, 5, 8, 1.0
    for _ in range(500):
        q = sigma_w**2 * gaussian_mean(lambda h: np.tanh(h) ** 2, q) + sigma_b**2
    chi = sigma_w**2 * gaussian_mean(lambda h: np.cosh(h) ** -4.0, q)
    net = nets.mlp([width] * (depth + 1) + [1], "tanh", "lecun", sigma_w, sigma_b)[:-1]

    def mean_squares(key):
        key_params, key_x = jax.random.split(key)
        x = jax.random.normal(key_x, (width,))
        x *= jnp.sqrt(
            (q - sigma_b**2) / sigma_w**2 / jnp.mean(x**2)
        )  # the first pre-activation has variance q* already
        suffix = jc.suffix_jacobians(net, (net.init(key_params), x))
        return jnp.stack([jnp.sum(suffix[2 * (depth - k)] ** 2) / width for k in range(1, depth + 1)])

    found = jax.jit(lambda keys: jax.lax.map(mean_squares, keys))(jax.random.split(jax.random.key(0), seeds))
    np.testing.assert_allclose(np.mean(found, axis=0), chi ** np.arange(1, depth + 1), rtol=0.05)
