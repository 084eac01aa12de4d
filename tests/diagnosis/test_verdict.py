"""A diagnosis names what was broken on purpose, the right stage first, and finds nothing in what is healthy."""

from __future__ import annotations

import re
from functools import partial

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxchain as jc

WIDTH = 48


def key(seed):
    return jax.random.key(seed)


def mlp(activation="relu", sigma_w=2**0.5, layers=8, orthogonal=False):
    """A net and parameters, drawn by NumPy: nothing is compiled for it."""
    drawn, params = np.random.default_rng(0), {}
    for k in range(layers):
        w = drawn.normal(size=(WIDTH, WIDTH))
        w = np.linalg.qr(w)[0] if orthogonal else w / WIDTH**0.5
        params[f"dense_{k}"] = {"w": np.float32(sigma_w * w), "b": np.zeros(WIDTH, np.float32)}
    return jc.nets.mlp([WIDTH] * (layers + 1), activation), params


def batched(net):
    return lambda params, x: jax.vmap(net, (None, 0))(params, x)


def changed(params, stage, **change):
    """Parameters with one stage's weights or biases put through a function."""
    own = {name: change.get(name, lambda leaf: leaf)(leaf) for name, leaf in params[stage].items()}
    return {**params, stage: own}


XS = np.random.default_rng(1).normal(size=(32, WIDTH)).astype(np.float32)
X = XS[0]


class Block(nn.Module):
    """A transformer's block, with or without what keeps its signals."""

    skip: bool = True
    norm: bool = True

    @nn.compact
    def __call__(self, x):
        keep = (lambda x: x) if self.skip else jnp.zeros_like
        prepared = nn.LayerNorm()(x) if self.norm else x
        x = keep(x) + nn.MultiHeadDotProductAttention(4)(prepared)
        if not self.skip:
            return x
        return x + nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Blocks one after the other."""

    depth: int
    skip: bool = True
    norm: bool = True

    @nn.compact
    def __call__(self, x):
        for k in range(self.depth):
            x = Block(self.skip, self.norm, name=f"block_{k}")(x)
        return x


def flax(model, x, seed=0):
    return model.apply, (jax.jit(model.init)(key(seed), x), x)


def residual(depth, scale):
    """Blocks x + s · W₂ φ(W₁ x) with He's weights in both."""
    drawn, params = np.random.default_rng(0), {}
    layer = lambda factor: {"w": np.float32(factor * drawn.normal(size=(WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5), "b": np.zeros(WIDTH, np.float32)}  # noqa: E731 # fmt: skip
    params["dense_in"], params["dense_out"] = layer(1.0), layer(1.0)
    params |= {f"block_{k}": {"down": layer(1.0), "up": layer(scale)} for k in range(depth)}
    return jc.nets.residual_net((WIDTH, WIDTH, WIDTH), depth), (params, X)


def rank_one(w):
    return np.outer(w[0], w[:, 0]) / np.linalg.norm(w[0])


def loss_of(net):
    def loss(params, batch):
        x, labels = batch
        logits = jax.vmap(net, (None, 0))(params, x)[:, :10]
        return -jax.nn.log_softmax(logits)[jnp.arange(32), labels].mean()

    return loss


def at(net_and_params, x=X, change=None, fun=lambda net: net):
    net, params = net_and_params
    return fun(net), (params if change is None else changed(params, *change[:1], **change[1]), x)


TOKENS = np.random.default_rng(5).normal(size=(12, 32)).astype(np.float32)
TANH = partial(mlp, "tanh", 1.0)

BROKEN = {
    "deep sigmoid": (lambda: at(mlp("sigmoid", 1.0, 20)), "vanishing", ""),
    "tanh in order": (lambda: at(mlp("tanh", 0.4, 12)), "vanishing", ""),
    "ReLU, weights too large": (lambda: at(mlp("relu", 4.0, 12)), "exploding", ""),
    "ReLU, weights too small": (lambda: at(mlp("relu", 0.3)), "vanishing", ""),
    "one layer's weights tiny": (lambda: at(TANH(), change=("dense_4", {"w": lambda w: 1e-5 * w})), "vanishing", "dense_4"),
    "one layer saturated": (lambda: at(TANH(), change=("dense_4", {"w": lambda w: 20 * w})), "saturated", "tanh_4"),
    "one layer dead": (lambda: at(mlp(), XS, ("dense_3", {"b": lambda b: b - 20}), batched), "dead", "relu_3"),
    "one layer of rank one": (lambda: at(mlp(), XS, ("dense_4", {"w": rank_one}), batched), "collapsed", "dense_4"),
    "raw pixels into tanh": (lambda: at(TANH(), np.abs(100 * XS), fun=batched), "saturated", "tanh_0"),
    "residual blocks not scaled": (lambda: residual(30, 1.0), "exploding", ""),
    "attention without skips": (lambda: flax(Transformer(6, skip=False, norm=False), TOKENS), "collapsed", "block_"),
    "logarithm of a negative number": (lambda: (lambda x: jnp.log(jnp.tanh(x)).sum(), (np.array([1.0, -1.0], np.float32),)), "not finite", "log"),
    "norm at zero": (lambda: (lambda x: jnp.sqrt(jnp.sum(jnp.tanh(x) ** 2)), (np.zeros(5, np.float32),)), "not finite", "sqrt"),
    "float16 overflow": (lambda: (jc.Chain([jc.Stage(f"ten_{k}", lambda x: 10 * x) for k in range(7)]), (np.ones(8, np.float16),)), "not finite", "ten_4"),
}  # fmt: skip
"""Name → function and args, the kind of the first finding, what its stage's name begins with (empty: any)."""


class Convolutional(nn.Module):
    """A small conv net of images."""

    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), strides=(2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Perceptron(nnx.Module):
    """Two layers of nnx."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(WIDTH, 32, rngs=rngs), nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.gelu(self.first(x)))


def initialised(net, x):
    return net, (jax.jit(net.init)(key(0)), x)


def of_nnx():
    graph, state = nnx.split(Perceptron(nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graph, state)(x), (state, XS)


def of_equinox():
    model = eqx.nn.MLP(WIDTH, 3, 32, 2, key=key(4))
    return lambda x: jax.vmap(model)(x), (XS,)


def feature():
    """A net of one number a row, as of time in a differential equation."""
    drawn = np.random.default_rng(0)
    weights = [np.float32(drawn.normal(size=(a, b)) / a**0.5) for a, b in ((1, 32), (32, 32), (32, 1))]
    return lambda w, t: jnp.tanh(jnp.tanh(t @ w[0]) @ w[1]) @ w[2], (
        weights,
        np.linspace(-1, 1, 20, dtype=np.float32)[:, None],
    )


def weighted():
    net, params = mlp()

    def loss(params, scale, x, key):
        return scale * jnp.mean(batched(net)(params, x + jax.random.normal(key, x.shape)) ** 2)

    return loss, (params, np.float32(1e-4), XS, key(1))


HEALTHY = {
    "ReLU, He, 24 layers": lambda: at(mlp(layers=24)),
    "tanh, LeCun": lambda: at(mlp("tanh", 1.0, 12)),
    "tanh, orthogonal, 24 layers": lambda: at(mlp("tanh", 1.0, 24, orthogonal=True)),
    "shallow sigmoid": lambda: at(mlp("sigmoid", 1.0, 3)),
    "a batch": lambda: at(mlp(), XS, fun=batched),
    "a loss of images and labels": lambda: at(mlp(), (XS, np.arange(32) % 10), fun=loss_of),
    "all inputs the same": lambda: at(mlp(), np.ones_like(XS), fun=batched),
    "residual": lambda: residual(20, 20**-0.5),
    "autoencoder with a code of 2": lambda: initialised(jc.nets.autoencoder([WIDTH, 16, 2]), X),
    "recurrent": lambda: initialised(jc.nets.rnn([4, 16, 3]), np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)),
    "Flax conv net": lambda: flax(Convolutional(), np.random.default_rng(7).normal(size=(4, 16, 16, 1)).astype(np.float32)),
    "Flax transformer": lambda: flax(Transformer(4), TOKENS),
    "nnx": of_nnx,
    "Equinox": of_equinox,
    "one feature a row": lambda: feature(),
    "ReLU6, whose off half is no saturation": lambda: at((jc.nets.mlp([WIDTH] * 9, jax.nn.relu6), mlp()[1]), XS, fun=batched),
    "raw data, normalised": lambda: at(mlp(), 1e5 * XS, fun=lambda net: lambda params, x: jax.vmap(net, (None, 0))(params, x / 1e5)),
    "masked scores": lambda: at(mlp(), XS, fun=lambda net: lambda params, x: jax.nn.softmax(jnp.where(np.arange(WIDTH) < 9, batched(net)(params, x), -jnp.inf))),
    "a hinge that is met": lambda: at(mlp(), XS, fun=lambda net: lambda params, x: jax.nn.relu(batched(net)(params, x)[:, 0] - 100).mean()),
    "a small weight of the loss, and a key": lambda: weighted(),
    "physics": lambda: (lambda x: jnp.stack([x[1], -jnp.sin(x[0])]).sum(), (np.array([0.3, 0.1], np.float32),)),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_was_broken_on_purpose_is_named_the_right_stage_first(name):
    make, kind, stage = BROKEN[name]
    found = jc.diagnose(*make())
    assert not found.healthy
    assert found.findings[0].kind == kind, str(found)
    assert found.findings[0].stage.startswith(stage), str(found)
    assert found.findings[0].stage in found.verdict
    assert all(finding.advice and finding.evidence for finding in found.findings)


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_cried_of_what_is_healthy(name):
    found = jc.diagnose(*HEALTHY[name]())
    assert found.healthy, str(found)
    assert found.verdict.startswith("Nothing is wrong")


@pytest.mark.parametrize(("activation", "sigma_w"), [("tanh", 0.4), ("relu", 4.0)])
def test_once_the_weights_are_scaled_as_advised_nothing_is_wrong(activation, sigma_w):
    net, params = mlp(activation, sigma_w, 12)
    (finding,) = jc.diagnose(net, (params, X)).findings
    assert "√χ₁" in finding.evidence
    factor = float(re.search(r"Multiply the weights by ([0-9.]+),", finding.advice)[1])
    assert factor == pytest.approx({"tanh": 1.0, "relu": 2**0.5}[activation] / sigma_w, rel=0.1)
    scaled = {name: {**own, "w": np.float32(factor) * own["w"]} for name, own in params.items()}
    assert jc.diagnose(net, (scaled, X)).healthy


def test_the_rate_of_a_layer_is_that_of_theory():
    net, params = mlp("sigmoid", 1.0, 20)
    (finding,) = jc.diagnose(net, (params, X)).findings
    found = re.search(r"by ([0-9.]+) a layer \(√χ₁ of sigmoid at σ_w = ([0-9.]+) is ([0-9.]+)\)", finding.evidence)
    measured, sigma_w, theory = map(float, found.groups())
    assert sigma_w == pytest.approx(1, rel=0.1)  # 18 layers of 48² weights
    assert theory == pytest.approx(
        jc.signal.chi("sigmoid", sigma_w=sigma_w, sigma_b=0.0) ** 0.5, rel=0.03
    )  # two digits
    assert measured == pytest.approx(theory, rel=0.05)


def test_missing_data_are_told_from_a_stage_that_breaks():
    net, params = mlp(layers=2)
    found = jc.diagnose(net, (params, np.where(np.arange(WIDTH) == 3, np.float32(np.nan), X)))
    assert (found.findings[0].stage, found.findings[0].kind) == ("input", "not finite")
    assert "1 of 48 entries" in found.verdict


def test_parameters_that_are_lost_are_told_from_a_stage_that_divides_by_zero():
    net, params = mlp(layers=3)
    (finding,) = jc.diagnose(net, (changed(params, "dense_1", w=lambda w: w * np.float32(np.nan)), X)).findings
    assert (finding.stage, finding.kind) == ("dense_1", "not finite")
    assert "of the parameters of dense_1" in finding.evidence


def test_channels_are_units_where_they_come_second_too():
    def net(layers, x):
        for w, b in layers:
            y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
            x = jax.nn.relu(y + b[:, None, None])
        return x.mean((2, 3))

    drawn = np.random.default_rng(0)
    layers = [(np.float32(drawn.normal(size=(8, n, 3, 3)) / (9 * n) ** 0.5), np.zeros(8, np.float32)) for n in (2, 8)]
    x = np.float32(drawn.normal(size=(3, 2, 6, 6)))
    assert jc.diagnose(net, (layers, x)).healthy
    layers[0][1][:7] = -99
    found = jc.diagnose(net, (layers, x))
    assert (found.findings[0].kind, found.findings[0].evidence[:3]) == ("dead", "88%")


def test_a_loop_over_time_is_said_not_to_be_looked_into():
    def last(w, xs):
        return jax.lax.scan(lambda h, x: (jnp.tanh(w @ h + x), None), jnp.zeros(8), xs)[0]

    found = jc.diagnose(last, (np.eye(8, dtype=np.float32) / 9, XS[:, :8]))
    assert any("loop" in note for note in found.notes)


def test_what_has_no_reverse_mode_is_said():
    def fun(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x * 2))[1]

    found = jc.diagnose(fun, (X,))
    assert found.notes
    assert "No cotangent passes" in found.notes[0]


def test_other_dtypes_are_diagnosed_as_float32_is():
    net, params = TANH()
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    assert jc.diagnose(net, (half, jnp.asarray(X, jnp.bfloat16))).healthy
    half = changed(half, "dense_4", w=lambda w: 1e-5 * w)
    assert jc.diagnose(net, (half, jnp.asarray(X, jnp.bfloat16))).findings[0].stage == "dense_4"


def test_a_diagnosis_prints_its_verdict_and_its_advice():
    found = jc.diagnose(*BROKEN["one layer's weights tiny"][0]())
    text = " ".join(str(found).split())
    assert found.verdict in text
    assert found.findings[0].advice in text
    assert "dense_4" in repr(found)
    assert len(repr(found)) < 150
    assert list(found.to_pandas().columns) == ["stage", "kind", "evidence", "advice"]
