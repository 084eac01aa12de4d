"""Gradient flow followed while a network trains: the same training, the numbers of an explicit pass, and where they go."""

from __future__ import annotations

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxchain as jc
from jaxchain import train
from jaxchain.steps import observed_update, update

KEY = jax.random.key(0)
NET = jc.nets.mlp([6, 8, 8, 3], activation="tanh")
PARAMS = NET.init(KEY)
RNG = np.random.default_rng(0)
DATA = jnp.asarray(RNG.normal(size=(40, 6)), jnp.float32), jnp.asarray(RNG.integers(0, 3, 40))
ADAM = optax.adam(1e-2)


def loss(params, batch):
    out = jax.vmap(NET, (None, 0))(params, batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(out, batch[1]).mean()


def fit(observe=None, steps=7, optimizer=ADAM, objective=loss, **how):
    return train.fit(
        objective,
        PARAMS,
        DATA,
        optimizer,
        steps=steps,
        batch_size=8,
        key=KEY,
        observe=observe,
        **{"progress": False, **how},
    )


def dense(flow):
    return np.flatnonzero(flow.parameters)


def norms(tree):
    """By dense layer."""
    return jnp.stack([optax.tree.norm(tree[f"dense_{k}"]) for k in range(3)])


@pytest.fixture(scope="module")
def plain():
    return fit(lambda info: (norms(info.grads), norms(info.updates), norms(info.params), info.grads))


@pytest.mark.parametrize("every", [1, 3])
def test_training_is_the_same_and_the_numbers_those_of_its_own_gradients_and_updates(plain, every, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 4)
    found = fit(jc.flow(every=every, cosine=True))
    np.testing.assert_allclose(found.history.loss, plain.history.loss, rtol=1e-5)
    np.testing.assert_array_equal(found.history.observed_steps, np.arange(0, 7, every))
    flow, (gradients, updates, weights, trees) = found.history.observed, plain.history.observed
    at = dense(flow)
    np.testing.assert_allclose(flow.gradient[:, at], gradients[::every], rtol=1e-4)
    np.testing.assert_allclose(flow.update[:, at], updates[::every], rtol=1e-4)
    np.testing.assert_allclose(flow.update_to_weight[:, at], (updates / weights)[::every], rtol=1e-4)
    assert np.isnan(flow.cosine[0]).all()  # there is nothing before the first
    rows = [[np.concatenate([leaf[step].ravel() for leaf in jax.tree.leaves(trees[f"dense_{k}"])]) for k in range(3)] for step in range(0, 7, every)]  # fmt: skip
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*pair, strict=True)] for pair in zip(rows, rows[1:], strict=False)]  # fmt: skip  # noqa: RUF007
    np.testing.assert_allclose(flow.cosine[1:, at], cosines, rtol=1e-3, atol=1e-4)
    assert flow.gradients is None


def test_a_followed_run_costs_a_twentieth_more_at_most():
    wide = jc.nets.mlp([64, 128, 128, 10])
    # What is added is some operations a weight and an entry of a state: less, the larger batch and widths are.
    params, batch = wide.init(KEY), (jnp.ones((128, 64)), jnp.ones((128, 10)))

    def squared(params, batch):
        return jnp.mean((jax.vmap(wide, (None, 0))(params, batch[0]) - batch[1]) ** 2)

    def flops(step):
        return jax.jit(step).lower(params, ADAM.init(params), batch).compile().cost_analysis()["flops"]

    bare = flops(lambda *args: update(squared, ADAM, *args)[:3])
    followed = flops(lambda *args: observed_update(squared, ADAM, jc.flow(), jnp.int32(0), *args, None)[:4])
    assert followed <= 1.05 * bare


def test_patterns_choose_what_is_kept():
    flow = fit(jc.flow(2, "tanh_*"), steps=3).history.observed
    assert flow.stages == ("tanh_0", "tanh_1")
    assert flow.dead.shape == (2, 2)
    with pytest.raises(KeyError, match=r"No stage is named 'block_\*'"):
        fit(jc.flow(stages="block_*"))


@pytest.mark.parametrize("every", [0, -3])
def test_every_below_one_is_refused(every):
    with pytest.raises(ValueError, match="every is how many steps"):
        jc.flow(every)


def test_two_rhythms_contradict_each_other():
    with pytest.raises(ValueError, match=r"jc.flow\(every=2\) says itself"):
        fit(jc.flow(2), observe_every=3)
    assert len(fit(jc.flow(2), steps=3, observe_every=2).history.observed_steps) == 2


def test_lines_of_json_are_written_while_training_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 2)
    path = tmp_path / "flow.jsonl"
    path.write_text("before\n")
    history = fit(jc.flow(every=3, path=path, histogram=True)).history
    before, *lines = path.read_text().splitlines()
    assert before == "before"
    told = [json.loads(line) for line in lines]
    assert [line["step"] for line in told] == [0, 3, 6]
    np.testing.assert_allclose([line["loss"] for line in told], history.loss[::3], rtol=1e-6)
    flow = history.observed
    for line, gradient in zip(told, flow.gradient, strict=True):
        assert line["stages"]["dense_1"]["gradient"] == pytest.approx(gradient[flow.stages.index("dense_1")])
        assert "gradient" not in line["stages"]["tanh_0"]
        assert "cotangent" in line["stages"]["tanh_0"]
        assert sum(line["histogram"]["dense_1"]) == 8 * 8 + 8


def test_a_file_that_cannot_be_written_stops_no_training(tmp_path, plain):
    with pytest.warns(RuntimeWarning, match="written no more: .*Training goes on"):
        found = fit(jc.flow(path=tmp_path / "missing" / "flow.jsonl"))
    np.testing.assert_allclose(found.history.loss, plain.history.loss, rtol=1e-5)
    assert found.history.observed.gradient.shape[0] == 7


def test_tensorboard_reads_what_is_written(tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    flow = fit(jc.flow(every=2, tensorboard=tmp_path / "run"), steps=3).history.observed
    (path,) = (tmp_path / "run").iterdir()
    scalars = {}
    for record in records(path.read_bytes()):
        event = event_pb2.Event.FromString(record)
        scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    at = flow.stages.index("dense_1")
    assert scalars["gradient/dense_1", 2] == pytest.approx(float(flow.gradient[1, at]))
    assert scalars["cotangent/tanh_0", 0] == pytest.approx(float(flow.cotangent[0, 2]))
    assert ("loss", 2) in scalars


def records(data):
    """TensorBoard's file format: length, its checksum, data, its checksum."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def test_a_line_under_the_bar_says_the_worst_stage(capsys):
    fit(jc.flow(), progress=True)
    assert "times the gradient back" in capsys.readouterr().out


def test_the_worst_stage_is_the_one_that_is_broken():
    bent = jc.nets.mlp([6, 8, 8, 3], activation=lambda x: jax.nn.sigmoid(x - 12))

    def objective(params, batch):
        return jnp.mean((jax.vmap(bent, (None, 0))(params, batch[0])) ** 2)

    flow = jc.watch(objective)(bent.init(KEY), DATA)[1]
    assert "dead" in flow.worst
    healthy = jc.watch(loss)(PARAMS, DATA)[1]
    assert "times the gradient back" in healthy.worst
    broken = jc.watch(loss)({**PARAMS, "dense_1": jax.tree.map(lambda p: p * jnp.inf, PARAMS["dense_1"])}, DATA)[1]
    assert broken.worst == "dense_1 is not finite"


def test_a_run_that_diverges_has_its_flow_up_to_there():
    with pytest.warns(RuntimeWarning, match="diverged"):
        found = fit(jc.flow(), optimizer=optax.sgd(3e38), steps=20)
    flow = found.history.observed
    assert len(flow.gradient) == found.diverged_at + 1
    assert flow.first_nonfinite is not None


def test_complex_parameters_are_followed_too():
    def objective(w, x):
        return jnp.mean(jnp.abs(x @ w) ** 2)

    data = jnp.eye(4)
    start = jnp.array([1 + 1j, 2, 3j, 1], jnp.complex64)
    found = train.fit(
        objective, start, data, optax.sgd(0.1), steps=2, observe=jc.flow(), progress=False
    ).history.observed
    bare = train.fit(objective, start, data, optax.sgd(0.1), steps=2, observe=lambda i: i.grads, progress=False)
    np.testing.assert_allclose(found.gradient[:, 0], np.linalg.norm(bare.history.observed, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.update[:, 0], 0.1 * found.gradient[:, 0], rtol=1e-5)
