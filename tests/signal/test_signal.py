"""Mean-field theory against closed forms and published numbers; real networks against the theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize

import jaxchain as jc
from jaxchain.signal.meanfield import Layer

LENGTHS = [1e-6, 0.1, 1.0, 30.0, 1e6]
CORRELATIONS = [-1.0, -0.5, 0.0, 0.3, 0.9, 0.999, 1.0]

# ------------------------------------------------------------------------------------------------------- closed forms


def test_any_number_of_layers_traces_an_activation_as_often_as_one():
    traced = []

    def phi(x):
        traced.append(x.shape)
        return x * jax.nn.sigmoid(1.1 * x)

    jc.signal.predict(phi, depth=1, sigma_w=1.6, sigma_b=0.2)
    once = len(traced)
    jc.signal.predict(phi, depth=40, sigma_w=1.6, sigma_b=0.2)
    assert 1 <= once == len(traced)


@pytest.mark.parametrize("q", LENGTHS)
def test_error_function_has_the_moments_of_williams(q):
    """Williams, Computing with infinite networks, 1997."""
    layer = Layer.of(jax.scipy.special.erf, 1.0, 0.0)
    assert layer.length(q) == pytest.approx(2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)), rel=1e-12)
    assert layer.chi(q) == pytest.approx(4 / np.pi / np.sqrt(1 + 4 * q), rel=1e-12)
    slope = 4 / np.pi / (1 + 2 * q) / np.sqrt(1 + 4 * q)
    assert layer.length_slope(q) == pytest.approx(slope, rel=1e-11)
    for c in CORRELATIONS:
        got = layer.correlation(q, c) * layer.length(q)
        assert got == pytest.approx(
            2 / np.pi * np.arcsin(2 * c * q / (1 + 2 * q)), abs=1e-13 if q <= 1 else 1e-8 if q < 100 else 2e-4
        )


@pytest.mark.parametrize("c", CORRELATIONS)
def test_relu_has_the_arc_cosine_kernel(c):
    """Cho and Saul, Kernel methods for deep learning, 2009; the bend at zero costs no accuracy."""
    layer, angle = Layer.of("relu", 2**0.5, 0.0), np.arccos(c)
    assert layer.correlation(1.7, c) == pytest.approx((np.sin(angle) + (np.pi - angle) * c) / np.pi, abs=1e-12)
    assert layer.correlation_slope(1.7, c) == pytest.approx((np.pi - angle) / np.pi, abs=1e-12)


BENT = {"hard_tanh": jax.nn.hard_tanh, "relu6": jax.nn.relu6, "steep": lambda x: jnp.clip(10 * x, -1.0, 1.0)}
"""Activations that bend elsewhere than at zero, and where."""
BENDS = {"hard_tanh": [-1, 1], "relu6": [0, 6], "steep": [-0.1, 0.1]}


@pytest.mark.parametrize("activation", [*sorted(jc.nets.ACTIVATIONS), *BENT])
def test_moments_are_those_of_adaptive_quadrature(activation):
    phi = BENT.get(activation) or jc.nets.ACTIVATIONS[activation]
    q, layer = 1.3, Layer.of(phi, 1.0, 0.0)
    bends = [bend / q**0.5 for bend in BENDS.get(activation, [0])]

    def density(z):
        return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    with jax.enable_x64(True):
        value, slope = jax.jit(phi), jax.jit(jax.grad(phi))
        second = integrate.quad(lambda z: density(z) * float(value(np.sqrt(q) * z)) ** 2, -12, 12, points=bends)[0]
        kept = integrate.quad(lambda z: density(z) * float(slope(np.sqrt(q) * z)) ** 2, -12, 12, points=bends)[0]
    assert (layer.length(q), layer.chi(q)) == pytest.approx((second, kept), rel=1e-8)


# ------------------------------------------------------------------------------------------------- published statements


def test_tanh_without_biases_passes_from_order_to_chaos_at_one():
    """Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232."""
    assert jc.signal.critical_line("tanh", sigma_b=0.0) == pytest.approx(1.0)
    assert jc.signal.fixed_point("tanh", sigma_w=0.9, sigma_b=0.0) == 0.0
    assert jc.signal.fixed_point("tanh", sigma_w=1.0, sigma_b=0.0) == 0.0  # only just, and slowly: q_l = 1/(2l)
    assert jc.signal.chi("tanh", sigma_w=0.9, sigma_b=0.0) == pytest.approx(0.81)
    assert jc.signal.fixed_point("tanh", sigma_w=1.1, sigma_b=0.0) > 0.05
    assert jc.signal.chi("tanh", sigma_w=1.1, sigma_b=0.0) > 1


@pytest.mark.parametrize("sigma_b", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu"])
def test_gradients_keep_their_norm_on_the_critical_line_and_nowhere_beside_it(activation, sigma_b):
    sigma_w = jc.signal.critical_line(activation, sigma_b=sigma_b)
    assert jc.signal.chi(activation, sigma_w=sigma_w, sigma_b=sigma_b) == pytest.approx(1.0)
    assert jc.signal.chi(activation, sigma_w=0.98 * sigma_w, sigma_b=sigma_b) < 1
    assert jc.signal.chi(activation, sigma_w=1.02 * sigma_w, sigma_b=sigma_b) > 1


def test_a_fixed_point_is_one_and_depth_scales_are_slopes_of_the_maps():
    sigma_w, sigma_b = 1.8, 0.2
    q = jc.signal.fixed_point("tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    layer = Layer.of("tanh", sigma_w, sigma_b)
    solved = optimize.brentq(lambda q: layer.length(q) - q, 0.1, 5.0, xtol=1e-14)
    assert q == pytest.approx(solved, rel=1e-12)
    c = jc.signal.fixed_correlation("tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    assert layer.correlation(q, c) == pytest.approx(c, abs=1e-12)
    step = 1e-4
    along_q = (layer.length(q + step) - layer.length(q - step)) / (2 * step)
    along_c = (layer.correlation(q, c + step) - layer.correlation(q, c - step)) / (2 * step)
    scales = jc.signal.depth_scales("tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    assert scales == pytest.approx((-1 / np.log(along_q), -1 / np.log(along_c)), rel=1e-6)


def test_in_the_ordered_phase_correlations_settle_as_gradients_vanish():
    scales = jc.signal.depth_scales("tanh", sigma_w=1.0, sigma_b=0.3)
    assert jc.signal.fixed_correlation("tanh", sigma_w=1.0, sigma_b=0.3) == 1.0
    assert scales.correlation == pytest.approx(-1 / np.log(jc.signal.chi("tanh", sigma_w=1.0, sigma_b=0.3)))


def test_he_initialisation_keeps_everything_and_above_it_lengths_are_infinite():
    """He et al., arXiv 1502.01852."""
    he = {"sigma_w": 2**0.5, "sigma_b": 0.0}
    assert jc.signal.chi("relu", **he) == pytest.approx(1.0, abs=1e-12)
    assert jc.signal.fixed_point("relu", **he) == pytest.approx(1.0)
    assert jc.signal.critical_line("relu", sigma_b=0.4) == pytest.approx(2**0.5)
    assert jc.signal.fixed_point("relu", sigma_w=1.5, sigma_b=0.0) == np.inf
    assert jc.signal.fixed_point("relu", sigma_w=2**0.5, sigma_b=0.1) == np.inf
    assert jc.signal.predict("relu", 200, **he).of("gradient")[0] == pytest.approx(1.0)


def test_gelu_without_biases_has_no_critical_point():
    """Small signals die and large ones grow for all σ_w between √2 and 2."""
    assert np.isnan(jc.signal.critical_line("gelu", sigma_b=0.0))


def test_the_mean_squared_singular_value_is_chi_to_the_depth():
    """Pennington et al., arXiv 1711.04735; at q* itself, and spreads that grow linearly with depth."""
    sigma_w, sigma_b, depth = 1.4, 0.3, 50
    q = jc.signal.fixed_point("tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    start = (q - sigma_b**2) / sigma_w**2
    row = jc.signal.predict("tanh", depth, sigma_w=sigma_w, sigma_b=sigma_b, length=start).rows[-1]
    chi = jc.signal.chi("tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    layer = Layer.of("tanh", sigma_w, sigma_b)
    ratio = layer.slope_moment(q, 4) / layer.slope_moment(q, 2) ** 2
    assert row.jacobian_mean == pytest.approx(chi ** (depth - 1), rel=1e-9)
    assert row.jacobian_variance / row.jacobian_mean**2 == pytest.approx((depth - 1) * ratio, rel=1e-9)


def test_orthogonal_linear_networks_are_isometries_at_any_depth():
    """Saxe et al., arXiv 1312.6120."""
    row = jc.signal.predict("identity", 100, sigma_w=1.0, sigma_b=0.0, orthogonal=True).rows[-1]
    assert (row.jacobian_mean, row.jacobian_variance) == pytest.approx((1.0, 0.0), abs=1e-12)


# --------------------------------------------------------------------------------------------------------- real networks

WIDTH, DRAWS = 100, 64


def nearness(rows, theory, quantity):
    """How many standard errors of the mean, and O(1/width), lie between theory and measurement."""
    for row, want in zip(rows, theory.of(quantity), strict=True):
        got = getattr(row, quantity)
        bound = 5 * got.deviation / DRAWS**0.5 + 10 * max(abs(want), quantity == "correlation") / WIDTH
        assert abs(got.mean - want) <= bound, (row.name, got, want)


NETS = {
    "order": (jc.nets.mlp([WIDTH] * 6, "tanh", "lecun", 0.9, 0.1), "tanh", 0.9, 0.1),
    "chaos": (jc.nets.mlp([WIDTH] * 6, "tanh", "lecun", 1.8, 0.1), "tanh", 1.8, 0.1),
    "he": (jc.nets.mlp([WIDTH] * 6, "relu", "he"), "relu", 2**0.5, 0.0),
    "orthogonal": (jc.nets.mlp([WIDTH] * 6, "gelu", "orthogonal", 1.5, 0.2), "gelu", 1.5, 0.2),
}


@pytest.mark.parametrize("name", NETS)
def test_wide_networks_do_as_theory_says(name):
    net, activation, sigma_w, sigma_b = NETS[name]
    measured = jc.signal.measure(net, jax.random.key(1), draws=DRAWS, correlation=0.4)
    theory = jc.signal.predict(activation, 5, sigma_w=sigma_w, sigma_b=sigma_b, correlation=0.4)
    for quantity in ("length", "correlation", "gradient"):
        nearness(measured.layers, theory, quantity)


def test_residual_networks_do_as_theory_says():
    net = jc.nets.residual_net((WIDTH, WIDTH, WIDTH), 6, "tanh", "lecun", 1.2, 0.1)
    start = {"length": 1.2**2 + 0.1**2, "correlation": 0.1**2 / (1.2**2 + 0.1**2)}
    measured = jc.signal.measure(net, jax.random.key(2), draws=DRAWS)["block_*"]
    theory = jc.signal.predict("tanh", 6, sigma_w=1.2, sigma_b=0.1, residual=6**-0.5, **start)
    nearness(measured, theory, "length")
    nearness(measured, theory, "correlation")
    ratio = measured[0].gradient.mean / measured[-1].gradient.mean
    assert ratio == pytest.approx(theory.of("gradient")[0], rel=0.1)


@pytest.mark.parametrize("init", ["lecun", "orthogonal"])
def test_singular_values_spread_as_theory_says(init):
    width = 100
    net = jc.nets.mlp([width] * 7, "tanh", init, 1.3, 0.1)
    theory = jc.signal.predict("tanh", 6, sigma_w=1.3, sigma_b=0.1, orthogonal=init == "orthogonal").rows[-1]

    @jax.jit
    def jacobian(key):
        params, x = net.init(key), jax.random.normal(key, (width,))
        first = net[:1](params, x * jnp.sqrt(width) / jnp.linalg.norm(x))
        return jax.jacrev(lambda h: net[1:](params, h))(first)

    drawn = np.stack([jacobian(key) for key in jax.random.split(jax.random.key(3), 40)])
    values = np.linalg.svd(drawn.astype(float), compute_uv=False) ** 2
    means, variances = values.mean(axis=1), values.var(axis=1)
    for draws, want in ((means, theory.jacobian_mean), (variances, theory.jacobian_variance)):
        assert draws.mean() == pytest.approx(want, abs=5 * draws.std() / 40**0.5 + 5 * want / width)


# -------------------------------------------------------------------------------------------------------------- bad input


def test_an_input_that_cannot_be_guessed_is_asked_for():
    net = jc.nets.conv_net((6, 6, 1), [2], 3)
    with pytest.raises(TypeError, match=r"Give like: an input"):
        jc.signal.measure(net, jax.random.key(0))
    measured = jc.signal.measure(net, jax.random.key(0), like=jax.ShapeDtypeStruct((6, 6, 1), jnp.float32), draws=2)
    assert measured.rows[0].length.mean == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    "phi",
    [
        *(lambda x: x.sum(), lambda x: x > 0, lambda x: (x, x), lambda x: x * jnp.arange(3.0), lambda x: x * 1j),
        *(jax.nn.softmax, jnp.cumsum, jax.nn.glu, np.tanh),
    ],
)
def test_an_activation_works_entry_by_entry(phi):
    with pytest.raises(ValueError, match="entry by entry"):
        jc.signal.chi(phi, sigma_w=1.0, sigma_b=0.0)


def test_what_is_no_number_somewhere_has_no_moments():
    with pytest.raises(ValueError, match="NaN"):
        jc.signal.chi(jnp.log, sigma_w=1.0, sigma_b=0.0)


def test_nothing_and_very_much_are_said_as_they_are():
    assert jc.signal.depth_scales("tanh", sigma_w=0.0, sigma_b=0.0) == (0.0, 0.0)
    same = jc.signal.predict("identity", 60, sigma_w=0.5, sigma_b=0.0, correlation=0.3)
    assert same.of("correlation") == pytest.approx([0.3] * 60)
    assert jc.signal.predict("relu", 600, sigma_w=2.0, sigma_b=0.0).rows[-1].length == pytest.approx(2.0**601, rel=1e-6)
    saturated = jc.signal.depth_scales("tanh", sigma_w=1e3, sigma_b=0.0)
    assert saturated.correlation == pytest.approx(-1 / np.log(2 / np.pi), rel=1e-2)  # of a sign function
    measured = jc.signal.measure(
        jc.nets.mlp([50] * 3, "identity", "orthogonal", 1.0), jax.random.key(0), draws=2, length=1e20, correlation=0.5
    )
    assert [row.correlation.mean for row in measured.rows] == pytest.approx([0.5] * 4, rel=1e-4)


def test_no_state_of_that_name_tells_the_nearest():
    measured = jc.signal.measure(jc.nets.mlp([4, 4]), jax.random.key(0), draws=2)
    with pytest.raises(KeyError, match="dense_0"):
        measured["dense_7"]


def test_a_picture_wants_as_many_layers_as_were_predicted():
    measured = jc.signal.measure(jc.nets.mlp([4, 4]), jax.random.key(0), draws=2)
    with pytest.raises(ValueError, match="has 1 layers"):
        jc.plot.signal(jc.signal.predict("relu", 2, sigma_w=1.0, sigma_b=0.0), measured)
