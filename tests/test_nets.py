"""Networks: names, shapes, statistics of the weights, and what each kind of net promises."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, some_params

from jaxchain import nets

NETS = {
    # name: (net, input shape, output shape, stage names)
    "mlp": (nets.mlp([3, 5, 4, 2]), (3,), (2,), ["dense_0", "relu_0", "dense_1", "relu_1", "dense_2"]),
    "linear": (nets.mlp([3, 2]), (3,), (2,), ["dense_0"]),
    "autoencoder": (
        nets.autoencoder([6, 4, 2]),
        (6,),
        (6,),
        ["dense_0", "tanh_0", "dense_1", "tanh_1", "dense_2", "tanh_2", "dense_3"],
    ),
    "conv_net": (
        nets.conv_net((5, 4, 2), [3, 2], 7),
        (5, 4, 2),
        (7,),
        ["conv_0", "relu_0", "conv_1", "relu_1", "flatten", "dense_0"],
    ),
    "strided": (
        nets.conv_net((5, 4, 1), [2, 3], 2, stride=2, kernel_size=2),
        (5, 4, 1),
        (2,),
        ["conv_0", "relu_0", "conv_1", "relu_1", "flatten", "dense_0"],
    ),
    "residual_net": (
        nets.residual_net((3, 4, 2), 3, hidden=5),
        (3,),
        (2,),
        ["dense_in", "block_0", "block_1", "block_2", "dense_out"],
    ),
    "rnn": (nets.rnn([3, 4, 5, 2]), (6, 3), (2,), ["rnn_0", "rnn_1", "last", "dense_0"]),
    "transformer": (
        nets.transformer((3, 4, 5), 2, 2),
        (6, 3),
        (6, 5),
        ["embed", "attention_0", "mlp_0", "attention_1", "mlp_1", "norm", "unembed"],
    ),
}
every_net = pytest.mark.parametrize(("net", "shape", "out_shape", "names"), NETS.values(), ids=NETS)


def init(net):
    return jax.jit(net.init)(jax.random.key(0))


@every_net
def test_a_net_maps_one_sample_through_stages_with_the_promised_names(net, shape, out_shape, names):
    assert list(net.names) == names
    out = jax.eval_shape(net, jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert (out.shape, out.dtype) == (out_shape, jnp.float32)


@every_net
def test_a_batch_is_a_vmap(net, shape, out_shape, names):
    del out_shape, names
    params, xs = some_params(net), draw(jnp.zeros((3, *shape)))
    batch = jax.jit(jax.vmap(net, (None, 0)))(params, xs)
    assert_close(batch[1], jax.jit(net)(params, xs[1]), tol=1e-5)


BUILDERS = {
    "mlp": (lambda **how: nets.mlp([3, 4, 2], **how), (3,)),
    "autoencoder": (lambda **how: nets.autoencoder([3, 2], **how), (3,)),
    "conv_net": (lambda **how: nets.conv_net((4, 4, 1), [2], 2, **how), (4, 4, 1)),
    "residual_net": (lambda **how: nets.residual_net((3, 4, 2), 1, **how), (3,)),
    "rnn": (lambda **how: nets.rnn([3, 4, 2], **how), (4, 3)),
    "transformer": (lambda **how: nets.transformer((3, 4, 2), 1, 2, **how), (4, 3)),
}
every_builder = pytest.mark.parametrize(("build", "shape"), BUILDERS.values(), ids=BUILDERS)


@every_builder
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("scheme", ["he", "orthogonal"])
def test_parameters_and_output_have_the_dtype_asked_for(build, shape, dtype, scheme):
    with jax.enable_x64(True):
        net = build(dtype=dtype, init=scheme)
        params = jax.eval_shape(net.init, jax.random.key(0))
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtype}
        assert str(jax.eval_shape(net, params, jax.ShapeDtypeStruct(shape, dtype)).dtype) == dtype


@every_builder
def test_the_default_dtype_is_jaxs_default_float(build, shape):
    with jax.enable_x64(True):
        net = build()
        params = jax.eval_shape(net.init, jax.random.key(0))
        out = jax.eval_shape(net, params, jax.ShapeDtypeStruct(shape, jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, out))} == {np.dtype("float64")}


@every_builder
def test_a_net_without_weights_gives_its_biases_alone(build, shape):
    net = build(sigma_w=0.0, sigma_b=1.0)
    params = init(net)
    weights = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key in ("w", "recurrent")]
    assert weights
    assert not any(leaf.any() for leaf in weights)
    one, other = (np.asarray(net(params, draw(jnp.zeros(shape), seed))) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------------- statistics


def variance(leaf):
    return float(jnp.var(leaf)), float(jnp.mean(leaf))


@pytest.mark.parametrize(
    ("scheme", "sigma_w", "wanted"),
    [
        ("he", None, 2 / 200),
        ("lecun", None, 1 / 200),
        ("glorot", None, 2 / (200 + 300)),
        ("he", 1.5, 1.5**2 / 200),
        ("lecun", 0.5, 0.5**2 / 200),
        ("glorot", 3.0, 2 * 3.0**2 / (200 + 300)),
    ],
)
def test_dense_weights_have_the_variance_of_their_scheme(scheme, sigma_w, wanted):
    w = init(nets.mlp([200, 300], init=scheme, sigma_w=sigma_w))["dense_0"]["w"]
    assert w.shape == (300, 200)
    assert variance(w) == (pytest.approx(wanted, rel=0.03), pytest.approx(0, abs=0.02 * wanted**0.5))


@pytest.mark.parametrize(
    ("scheme", "wanted"), [("he", 2 / (9 * 32)), ("lecun", 1 / (9 * 32)), ("glorot", 2 / (9 * (32 + 64)))]
)
def test_kernels_count_every_tap_in_their_fan(scheme, wanted):
    w = init(nets.conv_net((4, 4, 32), [64], 2, init=scheme))["conv_0"]["w"]
    assert w.shape == (3, 3, 32, 64)
    assert variance(w)[0] == pytest.approx(wanted, rel=0.04)


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 6), (9, 4), (4, 9)])
@pytest.mark.parametrize("sigma_w", [None, 1.7])
def test_orthogonal_weights_are_sigma_w_times_an_isometry(n_in, n_out, sigma_w):
    w = np.asarray(init(nets.mlp([n_in, n_out], init="orthogonal", sigma_w=sigma_w))["dense_0"]["w"])
    gram = w @ w.T if n_out <= n_in else w.T @ w
    np.testing.assert_allclose(gram, (sigma_w or 1.0) ** 2 * np.eye(min(n_in, n_out)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_orthogonal_weights_come_in_every_dtype(dtype):
    with jax.enable_x64(True):
        w = init(nets.mlp([5, 4], init="orthogonal", dtype=dtype))["dense_0"]["w"]
        assert str(w.dtype) == dtype
        w = np.asarray(w).astype(float)
        np.testing.assert_allclose(w @ w.T, np.eye(4), atol=8 * float(jnp.finfo(dtype).eps))


def test_orthogonal_kernels_are_isometries_onto_their_channels():
    w = np.asarray(init(nets.conv_net((4, 4, 3), [5], 2, init="orthogonal"))["conv_0"]["w"]).reshape(-1, 5)
    np.testing.assert_allclose(w.T @ w, np.eye(5), atol=1e-5)


def test_recurrent_weights_are_orthogonal_by_default():
    w = np.asarray(init(nets.rnn([2, 6, 3]))["rnn_0"]["recurrent"])
    np.testing.assert_allclose(w @ w.T, np.eye(6), atol=1e-5)


@pytest.mark.parametrize("sigma_b", [0.0, 0.3, 2.0])
def test_biases_have_standard_deviation_sigma_b(sigma_b):
    b = init(nets.mlp([2, 4000], sigma_b=sigma_b))["dense_0"]["b"]
    assert float(jnp.std(b)) == pytest.approx(sigma_b, rel=0.05)


def test_the_blocks_of_a_deep_residual_net_share_one_scale():
    shallow, deep = (init(nets.residual_net((2, 100, 2), depth))["block_0"] for depth in (1, 4))
    ratio = variance(shallow["up"]["w"])[0] / variance(deep["up"]["w"])[0]
    assert ratio == pytest.approx(4, rel=0.1)
    assert variance(deep["down"]["w"])[0] == pytest.approx(2 / 100, rel=0.1)


# ------------------------------------------------------------------------------------------------- what each computes


def test_an_mlp_is_its_formula():
    net = nets.mlp([3, 4, 2], "tanh")
    p, x = some_params(net), draw(jnp.zeros(3))
    hidden = np.tanh(p["dense_0"]["w"] @ x + p["dense_0"]["b"])
    np.testing.assert_allclose(net(p, x), p["dense_1"]["w"] @ hidden + p["dense_1"]["b"], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(nets.ACTIVATIONS))
def test_every_named_activation_is_jaxs(name):
    x = jnp.linspace(-3, 3, 13)
    by_jax = {"identity": lambda x: x, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "tanh": jnp.tanh}
    wanted = by_jax.get(name) or getattr(jax.nn, name)
    assert_close(nets.ACTIVATIONS[name](x), wanted(x))
    assert nets.mlp([2, 2, 2], name).names[1] == f"{name}_0"


@pytest.mark.parametrize(
    ("activation", "name"), [(jnp.sin, "sin_0"), (lambda x: x**2, "lambda_0"), (jax.nn.softplus, "softplus_0")]
)
def test_a_callable_activation_names_its_stages(activation, name):
    net = nets.mlp([2, 3, 1], activation)
    assert net.names[1] == name
    x = jnp.array([0.5, 1.0])
    assert_close(net[1:2](x), activation(x))


def test_a_convolution_is_its_sum_over_taps():
    net = nets.conv_net((4, 5, 2), [3], 2)
    params, x = some_params(net), np.asarray(draw(jnp.zeros((4, 5, 2))))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    w, b = (np.asarray(params["conv_0"][name]) for name in ("w", "b"))
    want = sum(padded[i : i + 4, j : j + 5] @ w[i, j] for i in range(3) for j in range(3)) + b
    np.testing.assert_allclose(net[:1](params, x), want, atol=1e-5)


def test_a_residual_block_without_weights_is_the_identity():
    net = nets.residual_net((3, 4, 2), 1)
    params = jax.tree.map(jnp.zeros_like, some_params(net))
    x = draw(jnp.zeros(4))
    assert_close(net["block_0"](params["block_0"], x), x, tol=0)


def test_a_recurrent_layer_is_a_loop():
    net = nets.rnn([2, 4, 3], "tanh")
    params, xs = some_params(net), np.asarray(draw(jnp.zeros((5, 2))))
    p, h, states = jax.tree.map(np.asarray, params["rnn_0"]), np.zeros(4), []
    for x in xs:
        h = np.tanh(p["recurrent"] @ h + p["input"]["w"] @ x + p["input"]["b"])
        states.append(h)
    np.testing.assert_allclose(net["rnn_0"](params["rnn_0"], xs), states, rtol=1e-4, atol=1e-6)
    readout = params["dense_0"]
    np.testing.assert_allclose(net(params, xs), readout["w"] @ states[-1] + readout["b"], rtol=1e-4, atol=1e-6)


def test_later_positions_do_not_change_earlier_outputs_of_a_transformer():
    net = nets.transformer((2, 4, 3), 2, 2)
    run, x = jax.jit(lambda x: net(some_params(net), x)), draw(jnp.zeros((5, 2)))
    before = run(x)
    for position in range(5):
        after = run(x.at[position:].add(1.0))
        np.testing.assert_array_equal(before[:position], after[:position])
        assert not np.allclose(before[position], after[position])


def test_a_transformer_knows_the_order_of_its_positions():
    net = nets.transformer((2, 4, 3), 1, 1)
    x = jnp.ones((4, 2))
    out = net(some_params(net), x)
    assert not np.allclose(out[0], out[1])


def test_attention_is_softmax_of_scaled_products():
    net = nets.transformer((2, 6, 3), 1, 2)
    p, x = jax.tree.map(np.asarray, some_params(net)["attention_0"]), np.asarray(draw(jnp.zeros((4, 6))))
    normed = p["scale"] * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    q, k, v = np.moveaxis((normed @ p["qkv"]["w"].T + p["qkv"]["b"]).reshape(4, 3, 2, 3), 1, 0)
    mixed = []
    for head in range(2):
        scores = np.exp(q[:, head] @ k[:, head].T / np.sqrt(3)) * np.tril(np.ones((4, 4)))
        mixed.append(scores / scores.sum(-1, keepdims=True) @ v[:, head])
    want = x + np.concatenate(mixed, -1) @ p["out"]["w"].T + p["out"]["b"]
    np.testing.assert_allclose(net["attention_0"](p, x), want, atol=1e-5)


@pytest.mark.parametrize("width", [3, 4, 5])
def test_a_transformer_may_have_any_width(width):
    net = nets.transformer((2, width, 3), 1, 1)
    assert jax.eval_shape(net, some_params(net), jnp.ones((4, 2))).shape == (4, 3)


# --------------------------------------------------------------------------------------------------------- bad input


@every_builder
def test_an_unknown_activation_suggests_the_nearest(build, shape):
    del shape
    message = "Unknown activation 'rellu'. Did you mean 'relu'? Known: elu, gelu, identity"
    with pytest.raises(ValueError, match=re.escape(message)):
        build(activation="rellu")


@every_builder
def test_an_unknown_initialiser_suggests_the_nearest(build, shape):
    del shape
    message = "Unknown initialiser 'glorott'. Did you mean 'glorot'? Known: glorot, he, lecun, orthogonal."
    with pytest.raises(ValueError, match=re.escape(message)):
        build(init="glorott")


def test_a_name_like_no_other_lists_the_known():
    with pytest.raises(ValueError, match=re.escape("Unknown activation 'xyzzy'. Known: elu")):
        nets.mlp([2, 2, 2], "xyzzy")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nets.mlp([3]), "sizes must be at least 2 positive integers, but [3] was given"),
        (lambda: nets.mlp([3, 0]), "Each of sizes is a size, an integer from 1 to 2,147,483,647, but 0 was given"),
        (lambda: nets.mlp([3, -1, 2]), "but -1 was given"),
        (lambda: nets.mlp([3, 2.5]), "but 2.5 was given"),
        (lambda: nets.autoencoder([3]), "sizes must be at least 2"),
        (lambda: nets.conv_net((8, 8), [2], 3), "image_shape (height, width, channels) must be 3 positive integers"),
        (lambda: nets.conv_net((8, 8, 1), [], 3), "channels must be at least 1"),
        (lambda: nets.conv_net((8, 8, 1), [2], 0), "classes is the size of the output, an integer from 1"),
        (lambda: nets.residual_net((3, 4), 2), "sizes (in, width, out) must be 3 positive integers"),
        (lambda: nets.residual_net((3, 4, 2), 0), "depth is the number of blocks, an integer from 1"),
        (lambda: nets.residual_net((3, 4, 2), 1, hidden=0), "hidden is the width inside a block, an integer from 1"),
        (lambda: nets.rnn([3, 2]), "sizes must be at least 3"),
        (lambda: nets.transformer((2, 4, 2), 1, 3), "heads must divide the width, but 3 heads do not divide 4"),
        (lambda: nets.transformer((2, 4, 2), 0, 1), "depth is the number of blocks, an integer from 1"),
    ],
)
def test_sizes_that_make_no_net_are_refused(build, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: nets.conv_net((8, 8, 1, 5), [2], 3),
        lambda: nets.residual_net((3, 4, 4, 2), 1),
        lambda: nets.transformer((2, 4, 4, 2), 1, 1),
        lambda: nets.conv_net((8, 8, 1), [2], 3, stride=0),
        lambda: nets.conv_net((8, 8, 1), [2], 3, kernel_size=0),
    ],
)
def test_too_many_sizes_and_impossible_kernels_are_refused_when_the_net_is_built(build):
    with pytest.raises(ValueError, match=r"sizes|image_shape|stride|kernel_size"):
        build()


def test_numpy_integers_are_sizes():
    assert nets.mlp([np.int64(3), np.int32(2)]).names == ("dense_0",)
