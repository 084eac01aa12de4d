"""A watched loss: the loss and gradients that it had, from one pass, in loops that others write; and its flow."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import jaxchain as jc

KEY = jax.random.key(0)
NET = jc.nets.mlp([12, 16, 16, 5], activation="tanh")
PARAMS = NET.init(KEY)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 12)), jnp.float32)
LABELS = jnp.arange(8) % 5
TARGETS = jax.nn.one_hot(LABELS, 5)


def classified(params, batch):
    x, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(NET, (None, 0))(params, x), labels).mean()


def squared(params, batch):
    x, targets = batch
    return jnp.mean((jax.vmap(NET, (None, 0))(params, x) - targets) ** 2)


def with_aux(params, batch):
    x, targets = batch
    out = jax.vmap(NET, (None, 0))(params, x)
    return jnp.mean((out - targets) ** 2), {"out": out, "hits": jnp.sum(out.argmax(-1) == targets.argmax(-1))}


BLOCKS = jc.nets.transformer(sizes=[16, 16, 11], depth=2, heads=2)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 11, (4, 9)))
TEXT_PARAMS = {"net": BLOCKS.init(KEY), "embed": jax.random.normal(KEY, (11, 16))}


def next_token(params, tokens):
    out = jax.vmap(BLOCKS, (None, 0))(params["net"], params["embed"][tokens[:, :-1]])
    return optax.softmax_cross_entropy_with_integer_labels(out, tokens[:, 1:]).mean()


LAYERS = {
    "first": 0.3 * jax.random.normal(KEY, (12, 16)),
    "w": 0.2 * jax.random.normal(KEY, (6, 16, 16)),
    "b": jnp.zeros((6, 16)),
}


def scanned(params, batch, remat=False):
    def layer(h, weights):
        w, b = weights
        return h + jnp.tanh(h @ w + b), None

    h, _ = jax.lax.scan(
        jax.checkpoint(layer) if remat else layer, batch[0] @ params["first"], (params["w"], params["b"])
    )
    return jnp.mean((h[:, :5] - batch[1]) ** 2)


def unrolled(params, batch):
    """The same by hand, whose FLOPs XLA counts whole."""
    h = batch[0] @ params["first"]
    for w, b in zip(params["w"], params["b"], strict=True):
        h = h + jnp.tanh(h @ w + b)
    return jnp.mean((h[:, :5] - batch[1]) ** 2)


CASES = {
    "labels": (classified, PARAMS, (X, LABELS)),
    "targets": (squared, PARAMS, (X, TARGETS)),
    "tokens": (next_token, TEXT_PARAMS, TOKENS),
    "scan": (scanned, LAYERS, (X, TARGETS)),
    "remat": (partial(scanned, remat=True), LAYERS, (X, TARGETS)),
}


def compiled(fun, *args):
    return jax.jit(fun).lower(*args).compile()


def assert_trees_close(a, b, rtol=1e-5, atol=1e-7):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_what_they_were(name):
    loss, params, batch = CASES[name]
    (value, _), gradients = jax.jit(jax.value_and_grad(jc.watch(loss), has_aux=True))(params, batch)
    assert_trees_close((value, gradients), jax.jit(jax.value_and_grad(loss))(params, batch))


WIDE = jc.nets.mlp([128, 128, 128, 10])
WIDE_BLOCKS = jc.nets.transformer(sizes=[64, 64, 32], depth=2, heads=2)
WIDE_LAYERS = {"first": jnp.zeros((128, 128)), "w": jnp.zeros((4, 128, 128)), "b": jnp.zeros((4, 128))}


def wide(params, batch):
    return jnp.mean((jax.vmap(WIDE, (None, 0))(params, batch[0]) - batch[1]) ** 2)


def wide_with_aux(params, batch):
    out = jax.vmap(WIDE, (None, 0))(params, batch[0])
    return jnp.mean((out - batch[1]) ** 2), {"out": out, "least": out.min()}


def wide_next_token(params, tokens):
    out = jax.vmap(WIDE_BLOCKS, (None, 0))(params["net"], params["embed"][tokens[:, :-1]])
    return optax.softmax_cross_entropy_with_integer_labels(out, tokens[:, 1:]).mean()


@pytest.mark.parametrize(
    ("loss", "by_hand", "params", "batch"),
    [
        (wide, wide, WIDE.init(KEY), (jnp.ones((64, 128)), jnp.ones((64, 10)))),
        (wide_with_aux, wide_with_aux, WIDE.init(KEY), (jnp.ones((64, 128)), jnp.ones((64, 10)))),
        (
            wide_next_token,
            wide_next_token,
            {"net": WIDE_BLOCKS.init(KEY), "embed": jnp.ones((32, 64))},
            jnp.ones((8, 33), int),
        ),
        # XLA counts a loop's body once, so the loop is written out.
        (scanned, unrolled, WIDE_LAYERS, (jnp.ones((64, 128)), jnp.ones((64, 5)))),
    ],
    ids=["mlp", "aux", "transformer", "scan"],
)
def test_there_is_no_second_backward_pass(loss, by_hand, params, batch):
    aux = loss is wide_with_aux
    bare = compiled(jax.value_and_grad(by_hand, has_aux=aux), params, batch)
    watched = compiled(jax.value_and_grad(jc.watch(loss, has_aux=aux), has_aux=True), params, batch)
    assert watched.cost_analysis()["flops"] <= 1.05 * bare.cost_analysis()["flops"]


def test_flow_is_that_of_an_explicit_second_pass():
    def perturbed(noise, params, batch):
        h = batch[0]
        for k in range(3):
            h = h @ params[f"dense_{k}"]["w"].T + params[f"dense_{k}"]["b"] + noise[2 * k]
            h = jnp.tanh(h) + noise[2 * k + 1] if k < 2 else h
        return jnp.mean((h - batch[1]) ** 2)

    noise = [jnp.zeros((8, width)) for width in (16, 16, 16, 16, 5)]
    cotangents, gradients = jax.jit(jax.grad(perturbed, (0, 1)))(noise, PARAMS, (X, TARGETS))
    flow = jax.jit(jc.watch(squared))(PARAMS, (X, TARGETS))[1]
    np.testing.assert_allclose(flow.cotangent[1:6], [np.linalg.norm(c) for c in cotangents], rtol=1e-5)
    norms = [np.hypot(*(np.linalg.norm(leaf) for leaf in gradients[f"dense_{k}"].values())) for k in range(3)]
    np.testing.assert_allclose(flow.gradient[jnp.array([0, 2, 4])], norms, rtol=1e-5)
    assert flow.names[1:6] == ("dense_0", "tanh_0", "dense_1", "tanh_1", "dense_2")


def test_no_cotangent_is_made_that_training_does_not_need():
    flow = jax.jit(jax.value_and_grad(jc.watch(squared), has_aux=True))(PARAMS, (X, TARGETS))[0][1]
    assert not flow.reached[0]
    assert flow.reached[1:].all()
    assert np.isnan(flow.cotangent[0])
    assert flow.first_nonfinite is None
    frozen = jax.jit(
        lambda last: jax.grad(lambda last: jc.watch(squared)({**PARAMS, "dense_2": last}, (X, TARGETS)), has_aux=True)(
            last
        )
    )(PARAMS["dense_2"])
    assert np.isfinite(frozen[1].cotangent).tolist() == [k >= 5 for k in range(len(flow.names))]
    assert frozen[1].first_nonfinite is None
    np.testing.assert_allclose(frozen[1].cotangent[5:], flow.cotangent[5:], rtol=1e-6)


def test_gradients_of_data_are_there_when_asked_for():
    watched = jc.watch(squared)
    wanted = jax.jit(jax.grad(squared, (0, 1)))(PARAMS, (X, TARGETS))
    given, flow = jax.jit(jax.grad(watched, (0, 1), has_aux=True))(PARAMS, (X, TARGETS))
    assert_trees_close(given, wanted)
    np.testing.assert_allclose(flow.cotangent[0], np.linalg.norm(wanted[1][0]), rtol=1e-5)


@pytest.mark.parametrize("batch", [(X, TARGETS), {"y": TARGETS, "x": X}], ids=["tuple", "dict"])
def test_the_network_is_found_among_the_data_whatever_they_are_in(batch):
    def loss(params, batch):
        return squared(params, (batch["x"], batch["y"]) if isinstance(batch, dict) else batch)

    flow = jax.eval_shape(jc.watch(loss), PARAMS, batch)[1]
    assert flow.names[1:6] == ("dense_0", "tanh_0", "dense_1", "tanh_1", "dense_2")


def test_what_it_is_watched_along_can_be_said():
    batch = {"x": X, "y": TARGETS}

    def loss(params, batch, *, scale):
        return scale * squared(params, (batch["x"], batch["y"]))

    named = {"scale": jnp.float32(2)}
    whole = jax.eval_shape(jc.watch(loss, along="1/x"), PARAMS, batch, **named)[1]
    assert whole.names == jax.eval_shape(jc.watch(loss, along="x"), PARAMS, batch, **named)[1].names
    assert len(jax.eval_shape(jc.watch(loss, along="y"), PARAMS, batch, **named)[1].names) < len(whole.names)
    with pytest.raises(KeyError, match=r"No array of data is named 'z'. Nearest: .*1/x"):
        jc.watch(loss, along="z")(PARAMS, batch, **named)


def test_what_the_loss_returns_beside_its_value_is_returned():
    bare = jax.jit(jax.value_and_grad(with_aux, has_aux=True))
    watched = jax.jit(jax.value_and_grad(jc.watch(with_aux, has_aux=True), has_aux=True))
    (value, aux), gradients = bare(PARAMS, (X, TARGETS))
    (same_value, (same_aux, flow)), same_gradients = watched(PARAMS, (X, TARGETS))
    assert_trees_close((same_value, same_aux, same_gradients), (value, aux, gradients))
    assert len(flow.stages) == 7


def test_it_works_in_scan_vmap_remat_and_under_a_scaled_loss():
    loss, batch = squared, (X, TARGETS)
    watched = jax.value_and_grad(jc.watch(loss), has_aux=True)

    def step(params, _):
        (value, flow), gradients = watched(params, batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), (value, flow)

    trained, (values, flows) = jax.jit(lambda p: jax.lax.scan(step, p, None, 3))(PARAMS)
    params = PARAMS
    for k in range(3):
        value, gradients = jax.value_and_grad(loss)(params, batch)
        np.testing.assert_allclose(values[k], value, rtol=1e-5)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
    assert_trees_close(trained, params, rtol=1e-4, atol=1e-6)
    assert flows.gradient.shape == (3, len(flows.stages))
    per_sample = jax.jit(jax.vmap(jax.grad(jc.watch(loss), has_aux=True), (None, 0)))
    wanted = jax.vmap(jax.grad(loss), (None, 0))(PARAMS, (X[:, None], TARGETS[:, None]))
    assert_trees_close(per_sample(PARAMS, (X[:, None], TARGETS[:, None]))[0], wanted, rtol=1e-4, atol=1e-6)
    scaled = jax.jit(jax.grad(lambda p: 3 * jax.checkpoint(jc.watch(loss))(p, batch)[0]))(PARAMS)
    assert_trees_close(scaled, jax.tree.map(lambda g: 3 * g, jax.grad(loss)(PARAMS, batch)), rtol=1e-4, atol=1e-6)


def test_second_derivatives_pass_through():
    def product(loss):
        direction = jax.tree.map(jnp.ones_like, PARAMS)
        return jax.jit(jax.grad(lambda p: optax.tree.vdot(jax.grad(lambda p: loss(p, (X, TARGETS)))(p), direction)))(
            PARAMS
        )

    assert_trees_close(product(lambda *args: jc.watch(squared)(*args)[0]), product(squared), rtol=1e-4, atol=1e-6)


def test_what_the_loss_closes_over_may_be_traced_and_differentiated():
    def outer(scale, watch):
        def loss(params, batch):
            return scale * squared(params, batch)

        return jc.watch(loss)(PARAMS, (X, TARGETS))[0] if watch else loss(PARAMS, (X, TARGETS))

    assert float(jax.jit(jax.grad(lambda s: outer(s, True)))(2.0)) == pytest.approx(
        float(squared(PARAMS, (X, TARGETS)))
    )


def test_cosines_between_steps_are_those_of_the_gradients():
    watched = jax.jit(jc.watch(squared, stages="dense_*", keep_gradients=True))
    other = jax.tree.map(lambda p: 1.5 * p, PARAMS)
    flows = [watched(p, (X, TARGETS))[1] for p in (PARAMS, other)]
    gradients = [jax.grad(squared)(p, (X, TARGETS)) for p in (PARAMS, other)]
    a, b = (
        [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g[f"dense_{k}"])]) for k in range(3)]
        for g in gradients
    )
    wanted = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(flows[1].compared(flows[0]).cosine, wanted, rtol=1e-4)
    with pytest.raises(ValueError, match="keep_gradients=True"):
        flows[1].compared(jc.watch(squared)(PARAMS, (X, TARGETS))[1])


def test_signal_to_noise_is_that_of_the_parts_own_gradients():
    watched = jax.jit(jax.value_and_grad(jc.watch(squared, "dense_*", signal_to_noise=4), has_aux=True))
    (_, flow), gradients = watched(PARAMS, (X, TARGETS))
    assert_trees_close(gradients, jax.jit(jax.grad(squared))(PARAMS, (X, TARGETS)))
    parts = X.reshape(4, 2, -1), TARGETS.reshape(4, 2, -1)
    each = jax.vmap(jax.grad(squared), (None, 0))(PARAMS, parts)
    for k, found in enumerate(flow.signal_to_noise):
        rows = np.concatenate([leaf.reshape(4, -1) for leaf in jax.tree.leaves(each[f"dense_{k}"])], axis=1)
        noise = np.sum(np.var(rows, axis=0, ddof=1)) / 4
        assert found == pytest.approx(max(np.sum(rows.mean(0) ** 2) / noise - 1, 0), rel=1e-3)
    with pytest.raises(ValueError, match="splits the batch into 3 equal parts"):
        jc.watch(squared, signal_to_noise=3)(PARAMS, (X, TARGETS))


def test_bfloat16_parameters_have_float32_norms():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    (_, flow), gradients = jax.jit(jax.value_and_grad(jc.watch(squared), has_aux=True))(params, (X, TARGETS))
    assert flow.gradient.dtype == jnp.float32
    assert jax.tree.leaves(gradients)[0].dtype == jnp.bfloat16
    assert_trees_close(gradients, jax.jit(jax.grad(squared))(params, (X, TARGETS)), rtol=0.05, atol=1e-3)


# ------------------------------------------------------------------------------------------------- loops of others


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        for _ in range(2):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
            x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(5)(x)


def test_a_flax_train_state_with_batch_statistics_and_dropout():
    model = Linen()
    variables = model.init({"params": KEY, "dropout": KEY}, X)
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=optax.sgd(0.1))

    def loss_fn(params, stats, batch, key):
        x, labels = batch
        out, new = model.apply(
            {"params": params, "batch_stats": stats}, x, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean(), new["batch_stats"]

    @jax.jit
    def train_step(state, stats, batch, key):
        watched = jax.value_and_grad(jc.watch(loss_fn, "Dense_*", has_aux=True), has_aux=True)
        (loss, (stats, flow)), grads = watched(state.params, stats, batch, key)
        return state.apply_gradients(grads=grads), stats, loss, flow, grads

    _, stats, loss, flow, grads = train_step(state, variables["batch_stats"], (X, LABELS), KEY)
    (wanted, aux), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        state.params, variables["batch_stats"], (X, LABELS), KEY
    )
    assert_trees_close((loss, stats, grads), (wanted, aux, gradients), atol=1e-6)
    assert [name.split("/")[-1] for name in flow.stages] == ["Dense_0", "Dense_1", "Dense_2"]
    norms = [np.hypot(*map(np.linalg.norm, gradients[f"Dense_{k}"].values())) for k in range(3)]
    np.testing.assert_allclose(flow.gradient, norms, rtol=1e-4)


def test_an_equinox_model_in_its_own_loop():
    model = eqx.nn.MLP(12, 5, 16, 2, activation=jax.nn.gelu, key=KEY)

    def loss_fn(model, x, y):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    @eqx.filter_jit
    def step(model, x, y):
        return eqx.filter_value_and_grad(jc.watch(loss_fn), has_aux=True)(model, x, y)

    (loss, flow), grads = step(model, X, TARGETS)
    wanted, gradients = eqx.filter_jit(eqx.filter_value_and_grad(loss_fn))(model, X, TARGETS)
    assert_trees_close(
        (loss, jax.tree.leaves(eqx.filter(grads, eqx.is_array))),
        (wanted, jax.tree.leaves(eqx.filter(gradients, eqx.is_array))),
        atol=1e-6,
    )
    norms = [np.hypot(np.linalg.norm(one.weight), np.linalg.norm(one.bias)) for one in gradients.layers]
    np.testing.assert_allclose([g for g in flow.gradient if not np.isnan(g)], norms, rtol=1e-4)
    assert sum(not np.isnan(d) for d in flow.dead) == 2


def test_an_nnx_model_by_its_state():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(12, 16, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)))

    graph, state = nnx.split(Model(nnx.Rngs(0)))

    def loss_fn(state, batch):
        return jnp.mean((nnx.merge(graph, state)(batch[0]) - batch[1]) ** 2)

    (loss, flow), grads = jax.jit(jax.value_and_grad(jc.watch(loss_fn), has_aux=True))(state, (X, TARGETS))
    assert_trees_close((loss, grads), jax.jit(jax.value_and_grad(loss_fn))(state, (X, TARGETS)), atol=1e-6)
    assert sum(n > 0 for n in flow.parameters) == 2


def test_a_haiku_model():
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([16, 5])(x)))
    params = model.init(KEY, X)

    def loss_fn(params, batch):
        return jnp.mean((model.apply(params, batch[0]) - batch[1]) ** 2)

    (loss, flow), grads = jax.jit(jax.value_and_grad(jc.watch(loss_fn), has_aux=True))(params, (X, TARGETS))
    assert_trees_close((loss, grads), jax.jit(jax.value_and_grad(loss_fn))(params, (X, TARGETS)), atol=1e-6)
    assert sum(n > 0 for n in flow.parameters) == 2


# --------------------------------------------------------------------------------------------------------- bad input


def test_losses_without_data_are_refused():
    with pytest.raises(TypeError, match="parameters first"):
        jc.watch(lambda params: squared(params, (X, TARGETS)))(PARAMS)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="one real number"):
        jc.watch(lambda params, x: jax.vmap(NET, (None, 0))(params, x))(PARAMS, X)


def test_patterns_that_match_nothing_are_told_the_nearest():
    with pytest.raises(KeyError, match=r"No stage is named 'dens_1'. Nearest: dense_1"):
        jc.watch(squared, "dens_1")(PARAMS, (X, TARGETS))


def test_a_derivative_of_what_is_returned_beside_the_loss_is_refused():
    def loss(w, x):
        return jnp.mean((x @ w) ** 2), jnp.sum(w**2)

    def with_penalty(w):
        value, (penalty, _) = jc.watch(loss, has_aux=True)(w, jnp.ones((2, 3)))
        return value + penalty

    with pytest.raises(TypeError, match="beside it has no derivative here"):
        jax.grad(with_penalty)(jnp.ones((3, 4)))


def test_a_loss_is_watched_along_what_meets_its_parameters_not_behind_a_stopped_gradient():
    def net(p, s):
        return jnp.tanh(s @ p["a"]) @ p["b"]

    def temporal_difference(p, target, batch):
        wanted = batch["reward"] + jax.lax.stop_gradient(net(target, batch["next"]).max(-1))
        return jnp.mean((net(p, batch["now"])[:, 0] - wanted) ** 2)

    p = {"a": jnp.eye(4, 8), "b": jnp.ones((8, 3))}
    batch = {"now": jnp.ones((5, 4)), "next": jnp.ones((5, 4)), "reward": jnp.ones(5)}
    (_, flow), gradients = jax.value_and_grad(jc.watch(temporal_difference), has_aux=True)(p, p, batch)
    known = flow.gradient[np.isfinite(flow.gradient) & (np.asarray(flow.parameters) > 0)]
    np.testing.assert_allclose(known, [jnp.linalg.norm(gradients[name]) for name in "ab"], rtol=1e-5)


def test_a_signal_to_noise_of_parts_that_are_no_samples_is_not_told():
    def weighted(p, x, labels, scales):
        return jnp.mean(-jax.nn.log_softmax(x @ p)[jnp.arange(len(x)), labels] * scales[labels])

    p, x = jnp.eye(6, 8), jnp.linspace(-1, 1, 48).reshape(8, 6)
    args = p, x, jnp.arange(8), jnp.linspace(0.1, 2, 8)  # as many classes as samples
    assert np.isnan(jc.watch(weighted, signal_to_noise=4)(*args)[1].signal_to_noise[0])
