"""Programs of probability: densities, flows, filters, Gaussian processes, samplers, off-policy returns."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from others.core import Built, Program, normal

__all__ = ["PROGRAMS"]


def numpyro_density() -> Built:
    """The log density of a regression, in its unconstrained parameters."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer.util import potential_energy

    x, y = normal(6), normal(6, seed=1)

    def model() -> None:
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        scale = numpyro.sample("scale", dist.HalfCauchy(1.0))
        numpyro.sample("y", dist.StudentT(4.0, slope * x, scale), obs=y)

    start = {"slope": jnp.array(0.3), "scale": jnp.array(-0.2)}
    return lambda params: potential_energy(model, (), {}, params), (start,), 0


def numpyro_flow() -> Built:
    """An inverse autoregressive flow."""
    from numpyro.distributions.flows import InverseAutoregressiveTransform
    from numpyro.nn import AutoregressiveNN

    init, apply = AutoregressiveNN(3, [4], param_dims=[1, 1], nonlinearity=_tanh())
    params = init(jax.random.key(0), (3,))[1]
    return lambda x: InverseAutoregressiveTransform(lambda x, **kw: apply(params, x, **kw))(x), (normal(3),), 0


def _tanh() -> tuple[object, object]:
    return lambda rng, shape: (shape, ()), lambda params, x, **_: jnp.tanh(x)  # noqa: ARG005


def flowjax_spline() -> Built:
    """A masked autoregressive flow of rational quadratic splines, one layer."""
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(2)),
        transformer=RationalQuadraticSpline(knots=4, interval=3),
        flow_layers=1,
        nn_width=4,
    )
    return lambda x: flow.log_prob(x), (normal(2),), 0  # a bound method of arrays has no hash


def flowjax_coupling() -> Built:
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow

    flow = coupling_flow(jax.random.key(0), base_dist=Normal(jnp.zeros(3)), flow_layers=2, nn_width=4)
    return lambda x: flow.bijection.transform(x), (normal(3),), 0  # a bound method of arrays has no hash


def flowjax_inverse() -> Built:
    """The inverse of a block neural autoregressive flow, by a search for its root."""
    from flowjax.distributions import Normal
    from flowjax.flows import block_neural_autoregressive_flow

    flow = block_neural_autoregressive_flow(
        jax.random.key(0), base_dist=Normal(jnp.zeros(2)), flow_layers=1, nn_block_dim=3
    )
    return lambda x: flow.log_prob(x), (normal(2),), 0  # a bound method of arrays has no hash


def distrax_coupling() -> Built:
    """A masked coupling of rational quadratic splines."""
    import distrax

    weights = normal(3, 13)

    def conditioner(x: jax.Array) -> jax.Array:
        return jnp.tanh(x[:, None] * weights)

    def transform(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        layer = distrax.MaskedCoupling(
            mask=jnp.array([True, False, True]),
            conditioner=conditioner,
            bijector=lambda params: distrax.RationalQuadraticSpline(params, range_min=-2.0, range_max=2.0),
        )
        return layer.forward_and_log_det(x)

    return transform, (normal(3),), 0


def distrax_mixture() -> Built:
    import distrax

    def density(x: jax.Array) -> jax.Array:
        parts = distrax.MultivariateNormalDiag(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones((2, 2)))
        return distrax.MixtureSameFamily(distrax.Categorical(logits=jnp.array([0.3, -0.2])), parts).log_prob(x)

    return density, (normal(2),), 0


def kalman() -> tuple[object, object]:
    from dynamax.linear_gaussian_ssm.inference import lgssm_filter, make_lgssm_params

    two = jnp.eye(2)
    params = make_lgssm_params(
        jnp.zeros(2), two, jnp.array([[1.0, 0.1], [-0.1, 0.9]]), 0.1 * two, jnp.array([[1.0, 0.5]]), 0.2 * jnp.eye(1)
    )
    return lgssm_filter, params


def dynamax_likelihood() -> Built:
    """The marginal likelihood of a Kalman filter, in its parameters."""
    run, params = kalman()
    data = normal(3, 1)

    def likelihood(weights: jax.Array) -> jax.Array:
        return run(params._replace(dynamics=params.dynamics._replace(weights=weights)), data).marginal_loglik

    return likelihood, (params.dynamics.weights,), 0


def dynamax_means() -> Built:
    """Filtered means, in the data."""
    run, params = kalman()
    return lambda data: run(params, data).filtered_means, (normal(3, 1),), 0


def dynamax_hmm() -> Built:
    """The log likelihood of a hidden Markov model, in what each state says of the data."""
    from dynamax.hidden_markov_model import hmm_filter

    start, moves = jnp.array([0.6, 0.4]), jnp.array([[0.9, 0.1], [0.2, 0.8]])
    return lambda logits: hmm_filter(start, moves, logits).marginal_loglik, (normal(4, 2),), 0


def gpjax_likelihood() -> Built:
    """The marginal likelihood of a Gaussian process, in its lengthscale and noise."""
    import gpjax as gpx

    x = jnp.linspace(0, 1, 5)[:, None]
    data = gpx.Dataset(X=x, y=jnp.sin(3 * x))

    def likelihood(logs: jax.Array) -> jax.Array:
        kernel = gpx.kernels.RBF(lengthscale=jnp.exp(logs[0]), variance=jnp.exp(logs[1]))
        prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Zero(), kernel=kernel)
        noisy = gpx.likelihoods.Gaussian(obs_stddev=jnp.exp(logs[2]))
        return gpx.objectives.conjugate_mll(prior * noisy, data)

    return likelihood, (normal(3),), 0


def tinygp_likelihood() -> Built:
    from tinygp import GaussianProcess, kernels

    x = jnp.linspace(0, 1, 5)
    y = jnp.sin(3 * x)

    def likelihood(logs: jax.Array) -> jax.Array:
        kernel = jnp.exp(logs[0]) * kernels.Matern32(jnp.exp(logs[1]))
        return GaussianProcess(kernel, x, diag=0.1 + jnp.exp(logs[2])).log_probability(y)

    return likelihood, (normal(3),), 0


def tinygp_quasisep() -> Built:
    """The same by a quasiseparable kernel, whose solver is a scan."""
    from tinygp import GaussianProcess
    from tinygp.kernels import quasisep

    x = jnp.linspace(0, 1, 4)

    def likelihood(y: jax.Array) -> jax.Array:
        return GaussianProcess(quasisep.Matern32(scale=0.7), x, diag=0.1).log_probability(y)

    return likelihood, (normal(4),), 0


def blackjax_hmc() -> Built:
    """Where one trajectory of Hamiltonian Monte Carlo ends, accepted or not."""
    import blackjax

    def density(x: jax.Array) -> jax.Array:
        return -jnp.sum(x**2) / 2 - jnp.sum(x**4) / 4

    def step(x: jax.Array) -> jax.Array:
        hmc = blackjax.hmc(density, step_size=0.1, inverse_mass_matrix=jnp.ones(2), num_integration_steps=3)
        return hmc.step(jax.random.key(0), hmc.init(x))[0].position

    return step, (normal(2),), 0


def rlax_vtrace() -> Built:
    """Returns corrected off policy, in the values."""
    import rlax

    rewards, discounts, rhos = normal(4), 0.9 * jnp.ones(4), jnp.exp(normal(4, seed=1))

    def errors(values: jax.Array) -> jax.Array:
        return rlax.vtrace(values[:-1], values[1:], rewards, discounts, rhos, stop_target_gradients=False)

    return errors, (normal(5),), 0


def rlax_policy() -> Built:
    """A policy gradient whose advantages are stopped."""
    import rlax

    actions = jnp.array([0, 2, 1])

    def loss(logits: jax.Array) -> jax.Array:
        advantages = jax.lax.stop_gradient(jnp.tanh(logits[:, 0]))
        return rlax.policy_gradient_loss(logits, actions, advantages, jnp.ones(3))

    return loss, (normal(3, 3),), 0


PROGRAMS = (
    Program("numpyro: log density", "numpyro", numpyro_density),
    Program("numpyro: autoregressive flow", "numpyro", numpyro_flow),
    Program("flowjax: spline flow", "flowjax", flowjax_spline),
    Program("flowjax: coupling flow", "flowjax", flowjax_coupling),
    Program("flowjax: block neural flow", "flowjax", flowjax_inverse),
    Program("distrax: spline coupling", "distrax", distrax_coupling),
    Program("distrax: mixture", "distrax", distrax_mixture),
    Program("dynamax: Kalman likelihood", "dynamax", dynamax_likelihood),
    Program("dynamax: filtered means", "dynamax", dynamax_means),
    Program("dynamax: hidden Markov model", "dynamax", dynamax_hmm),
    Program("gpjax: marginal likelihood", "gpjax", gpjax_likelihood),
    Program("tinygp: marginal likelihood", "tinygp", tinygp_likelihood),
    Program("tinygp: quasiseparable", "tinygp", tinygp_quasisep),
    Program("blackjax: HMC step", "blackjax", blackjax_hmc),
    Program("rlax: V-trace", "rlax", rlax_vtrace),
    Program("rlax: policy gradient", "rlax", rlax_policy),
)
