"""`train.fit` against plain Python loops: same parameters, same history, same work; and what it refuses."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close, draw

import jaxchain as jc
from jaxchain import nets, train
from jaxchain.batches import source
from jaxchain.cost.measure import flops
from jaxchain.show.progress import progress_bar

X = np.asarray(draw(jnp.zeros((10, 3)), 1))
DATA = {"x": X, "y": np.asarray(draw(jnp.zeros(10), 2))}
START = {"w": jnp.zeros(3), "b": jnp.array(0.5)}


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


value_and_grad = jax.jit(jax.value_and_grad(loss))


def square(params, batch):
    """Under gradient descent at rate 2.5 the parameter becomes −4 times itself: every number is exact."""
    del batch
    return params**2


def fit(data=DATA, optimizer=None, *, objective=loss, params=START, **how):
    how = {"steps": 7, "progress": False, **how}
    return train.fit(objective, params, data, optimizer or optax.adam(0.1), **how)


def plain_loop(batches, optimizer, params=START):
    """What `fit` should do, step by step, in Python."""
    opt_state, losses = optimizer.init(params), []
    for batch in batches:
        value, grads = value_and_grad(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    return params, opt_state, losses


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum on a schedule": optax.sgd(optax.cosine_decay_schedule(0.2, 7), momentum=0.9),
    "adam": optax.adam(0.05),
    "adamw, clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1)),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


# ---------------------------------------------------------------------------------------------------------- the result


@every_optimizer
def test_full_batches_are_a_plain_loop(optimizer):
    found = fit(optimizer=optimizer)
    params, opt_state, losses = plain_loop([DATA] * 7, optimizer)
    assert_close((found.params, found.opt_state), (params, opt_state), tol=1e-5)
    np.testing.assert_allclose(found.history.loss, losses, rtol=1e-5)
    assert found.diverged_at is None


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_chunk_size_changes_no_result(chunk, monkeypatch):
    want = fit(batch_size=4, key=jax.random.key(0))
    monkeypatch.setattr(train, "CHUNK", chunk)
    found = fit(batch_size=4, key=jax.random.key(0))
    assert_close((found.params, found.opt_state), (want.params, want.opt_state), tol=1e-6)
    np.testing.assert_allclose(found.history.loss, want.history.loss, rtol=1e-6)


BATCHES = [{"x": X[k : k + 4], "y": DATA["y"][k : k + 4]} for k in (0, 4, 8)]  # the last is smaller


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("stream", ["list", "loader", "generator"])
def test_ready_batches_are_a_plain_loop_over_them_begun_again_where_they_can_be(stream, chunk, monkeypatch):
    class Loader:
        """Can be iterated again, and is no list."""

        def __iter__(self):
            return iter(BATCHES)

    data = {"list": BATCHES, "loader": Loader(), "generator": (batch for batch in BATCHES * 3)}[stream]
    monkeypatch.setattr(train, "CHUNK", chunk)
    found = fit(data)
    params, opt_state, losses = plain_loop((BATCHES * 3)[:7], optax.adam(0.1))
    assert_close((found.params, found.opt_state), (params, opt_state), tol=1e-5)
    np.testing.assert_allclose(found.history.loss, losses, rtol=1e-5)


def test_a_stream_is_not_read_further_than_needed():
    read = []

    def batches():
        for number in range(100):
            read.append(number)
            yield BATCHES[0]

    fit(batches(), steps=5)
    assert len(read) <= 6


@pytest.mark.parametrize("length", [1, 5])
def test_a_generator_that_ends_early_warns_and_keeps_what_it_gave(length):
    with pytest.warns(RuntimeWarning, match=f"batches ended after {length} of 7 steps"):
        found = fit(iter([BATCHES[0]] * length))
    params, _, losses = plain_loop([BATCHES[0]] * length, optax.adam(0.1))
    assert_close(found.params, params, tol=1e-5)
    assert found.history.loss.shape == (length,) == np.shape(losses)


def test_training_does_not_change_what_it_was_given():
    before = jax.tree.map(np.array, (START, DATA))
    fit()
    assert_close(jax.tree.map(np.array, (START, DATA)), before, tol=0)


def test_a_schedule_counts_steps(monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 3)
    rates = np.array([1.0, 0.5, 0.25, 0.0, 2.0, 3.0, 4.0])
    schedule = lambda step: jnp.asarray(rates, jnp.float32)[step]  # noqa: E731
    found = fit(
        objective=lambda p, _: p, params=jnp.array(0.0), optimizer=optax.sgd(schedule), observe=lambda info: info.params
    )
    np.testing.assert_allclose(found.history.observed, -np.cumsum([0, *rates[:-1]]))
    assert float(found.params) == -rates.sum()


@pytest.mark.usefixtures("optimised")
def test_nets_train_on_digits_to_97_percent_of_a_held_out_fifth():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    split = len(labels) * 4 // 5
    net = nets.mlp([64, 128, 10])

    def cross_entropy(params, batch):
        logits = jax.vmap(net, (None, 0))(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    found = fit(
        (images[:split], labels[:split]),
        optax.adam(3e-3),
        objective=cross_entropy,
        params=net.init(jax.random.key(0)),
        steps=400,
        batch_size=64,
        key=jax.random.key(1),
    )
    guesses = jax.jit(jax.vmap(net, (None, 0)))(found.params, images[split:]).argmax(axis=1)
    assert (np.asarray(guesses) == labels[split:]).mean() >= 0.97


# -------------------------------------------------------------------------------------------------- complex parameters

W = np.array([1.0 + 1.0j, -2.0 + 0.5j, 0.25j], np.complex64)


def test_a_complex_parameter_descends():
    found = fit(objective=lambda w, _: jnp.sum(jnp.abs(w) ** 2), params=W, optimizer=optax.sgd(0.25), steps=20)
    np.testing.assert_allclose(found.params, W / 2**20, rtol=1e-5)  # w − ¼·2w, twenty times
    assert (np.diff(found.history.loss) < 0).all()


@pytest.mark.parametrize("name", ["sgd", "momentum on a schedule"])
def test_a_complex_parameter_is_its_real_and_imaginary_parts(name):
    z = jnp.asarray(X[:, :3] + 1j * X[:, ::-1], jnp.complex64)

    def objective(params, batch):
        return jnp.mean(jnp.abs(jnp.tanh(z @ params["w"]) * params["scale"] - batch["y"]) ** 2)

    def of_parts(parts, batch):
        return objective({"w": parts["re"] + 1j * parts["im"], "scale": parts["scale"]}, batch)

    observe = lambda info: info.grads  # noqa: E731
    start = {"w": W / 4, "scale": jnp.array(0.5)}
    found = fit(objective=objective, params=start, optimizer=OPTIMIZERS[name], observe=observe)
    parts, optimizer = {"re": W.real / 4, "im": W.imag / 4, "scale": jnp.array(0.5)}, OPTIMIZERS[name]
    opt_state = optimizer.init(parts)
    for step in range(7):
        grads = jax.jit(jax.grad(of_parts))(parts, DATA)
        gradient = found.history.observed["w"][step]
        np.testing.assert_allclose(gradient, grads["re"] + 1j * grads["im"], rtol=1e-4, atol=1e-5)
        updates, opt_state = optimizer.update(grads, opt_state, parts)
        parts = optax.apply_updates(parts, updates)
    want = {"w": parts["re"] + 1j * parts["im"], "scale": parts["scale"]}
    assert_close(found.params, want, tol=1e-5)


# ------------------------------------------------------------------------------------------------------------- batches


def seen(*, steps=10, batch_size=3, samples=10, key=0):
    """Which samples every step saw."""
    found = fit(
        {"i": np.arange(samples)},
        objective=lambda p, batch: p * 0 + batch["i"].mean(),
        params=jnp.array(1.0),
        steps=steps,
        batch_size=batch_size,
        key=jax.random.key(key),
        observe=lambda info: info.batch["i"],
    )
    return found.history.observed


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
def test_every_epoch_sees_every_sample_exactly_once(batch_size):
    order = seen(steps=30, batch_size=batch_size).ravel()
    for start in range(0, len(order) - 9, 10):
        assert sorted(order[start : start + 10]) == list(range(10))


def test_epochs_are_shuffled_differently():
    order = seen(steps=4, batch_size=5).reshape(2, 10)
    assert not np.array_equal(*order)


def test_the_same_key_gives_the_same_result_and_another_key_other_batches():
    one, same, other = (fit(batch_size=3, key=jax.random.key(key)) for key in (0, 0, 1))
    assert_close(one.params, same.params, tol=0)
    np.testing.assert_array_equal(one.history.loss, same.history.loss)
    assert not np.array_equal(one.history.loss, other.history.loss)
    np.testing.assert_array_equal(seen(key=4), seen(key=4))
    assert not np.array_equal(seen(key=4), seen(key=5))


def test_a_full_batch_needs_no_key_and_keeps_the_order():
    found = fit(
        {"i": np.arange(4)},
        objective=lambda p, batch: p + 0 * batch["i"].sum(),
        params=jnp.array(1.0),
        observe=lambda info: info.batch["i"],
    )
    np.testing.assert_array_equal(found.history.observed, [[0, 1, 2, 3]] * 7)


def test_data_may_be_one_array_a_tuple_or_a_dict():
    mean = lambda p, batch: jnp.mean((p - jax.tree.leaves(batch)[0]) ** 2)  # noqa: E731
    found = [
        fit(data, objective=mean, params=jnp.array(0.0), batch_size=3, key=jax.random.key(0)).params
        for data in (X, (X,), {"x": X}, jnp.asarray(X))
    ]
    assert len({float(params) for params in found}) == 1


# ------------------------------------------------------------------------------------------------------------- history


@pytest.mark.parametrize(("every", "chunk"), [(1, 3), (2, 3), (3, 100), (10, 2)])
def test_observations_are_those_of_every_so_manyth_step(every, chunk, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", chunk)

    def observe(info):
        return {"step": info.step, "w": info.params["w"], "slope": info.grads["b"], "loss": info.loss}

    found = fit(observe=observe, observe_every=every).history
    steps = np.arange(0, 7, every)
    np.testing.assert_array_equal(found.observed_steps, steps)
    np.testing.assert_array_equal(found.observed["step"], steps)
    np.testing.assert_allclose(found.observed["loss"], found.loss[::every], rtol=1e-6)
    params = [plain_loop([DATA] * step, optax.adam(0.1))[0] for step in steps]
    np.testing.assert_allclose(found.observed["w"], [p["w"] for p in params], rtol=1e-4, atol=1e-6)
    slopes = [value_and_grad(p, DATA)[1]["b"] for p in params]
    np.testing.assert_allclose(found.observed["slope"], slopes, rtol=1e-3, atol=1e-5)


def test_observers_see_the_step_before_its_update():
    found = fit(optimizer=optax.sgd(0.1), observe=lambda info: info)
    info = found.history.observed
    assert_close(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), info.params), START)
    for name in ("w", "b"):
        np.testing.assert_allclose(info.updates[name], -0.1 * info.grads[name], rtol=1e-6)
        moved = info.params[name] + info.updates[name]
        np.testing.assert_allclose(moved[:-1], info.params[name][1:], rtol=1e-5)
        np.testing.assert_allclose(moved[-1], found.params[name], rtol=1e-5)


def test_a_sweep_can_be_observed():
    net = nets.mlp([3, 4, 1], "tanh")

    def objective(params, batch):
        return jnp.mean(jax.vmap(net, (None, 0))(params, batch["x"]) ** 2)

    def norms(info):
        sweep = jc.reverse_sweep(net, (info.params, info.batch["x"][0]), jnp.ones(1))
        return [jnp.linalg.norm(cotangent) for cotangent in sweep.cotangents]

    found = fit(objective=objective, params=net.init(jax.random.key(0)), observe=norms)
    assert [leaf.shape for leaf in found.history.observed] == [(7,)] * 4


def test_history_has_one_loss_a_step_and_is_of_numpy():
    history = fit().history
    assert type(history.loss) is np.ndarray
    assert history.loss.shape == (7,)
    assert history.observed is None
    assert history.loss[-1] < history.loss[0]


def test_progress_is_shown_and_changes_nothing(capsys):
    shown = fit(progress=True)
    assert "7/7" in capsys.readouterr().out
    assert_close(shown.params, fit().params, tol=0)
    assert capsys.readouterr().out == ""


def test_progress_says_that_it_compiles_until_there_is_a_loss(capsys):
    with progress_bar(7, shown=True):
        pass  # as while the first steps compile
    out = capsys.readouterr().out
    assert "0/7" in out
    assert "compiling" in out
    assert "loss" not in out
    with progress_bar(7, shown=True) as advance:
        advance(7, 0.25)
    out = capsys.readouterr().out
    assert "loss 0.25" in out
    assert "compiling" not in out.splitlines()[-1]


def test_progress_of_a_fit_that_diverges_at_once_ends_with_the_loss(capsys):
    with pytest.warns(RuntimeWarning, match="diverged"):
        fit(progress=True, optimizer=optax.sgd(1e30))
    assert re.search(r"loss (nan|inf)", capsys.readouterr().out)


# ---------------------------------------------------------------------------------------------------------- divergence


def count(opt_state):
    """How many updates an optimiser with a schedule has seen."""
    return int(optax.tree_utils.tree_get(opt_state, "count"))


@pytest.mark.parametrize("chunk", [1, 5, 16, 31, 32, 33, 100])
def test_a_diverged_fit_returns_exactly_the_parameters_of_the_last_finite_loss(chunk, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", chunk)
    optimizer = optax.sgd(optax.constant_schedule(2.5))
    with pytest.warns(RuntimeWarning, match="not finite at step 32. Returning the parameters of step 31"):
        found = fit(objective=square, params=jnp.array(1.0), optimizer=optimizer, steps=200)
    params, losses = np.float64(1), []
    while params**2 < np.finfo(np.float32).max:
        losses.append(params**2)
        last, params = params, -4 * params
    assert found.diverged_at == len(losses) == 32
    assert float(found.params) == last
    assert count(found.opt_state) == 31
    np.testing.assert_array_equal(found.history.loss, [*losses, np.inf])


def test_observations_of_a_diverged_fit_end_with_it():
    with pytest.warns(RuntimeWarning, match="step 32"):
        found = fit(
            objective=square,
            params=jnp.array(1.0),
            optimizer=optax.sgd(2.5),
            steps=200,
            observe=lambda info: info.step,
            observe_every=5,
        )
    np.testing.assert_array_equal(found.history.observed, [0, 5, 10, 15, 20, 25, 30])
    np.testing.assert_array_equal(found.history.observed_steps, [0, 5, 10, 15, 20, 25, 30])


@pytest.mark.parametrize("data", [DATA, [(X, X)] * 4], ids=["arrays", "batches"])
def test_divergence_at_the_second_step_returns_the_start(data):
    def objective(params, _):
        return jnp.where(params == 1.0, params, jnp.nan)

    with pytest.warns(RuntimeWarning, match="not finite at step 1. Returning the parameters of step 0"):
        found = fit(data, optax.sgd(0.5), objective=objective, params=jnp.array(1.0))
    assert (float(found.params), found.diverged_at) == (1.0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_at_the_first_step_is_an_error(value):
    with pytest.raises(ValueError, match="not finite at the very first step"):
        fit(objective=lambda p, _: p * value, params=jnp.array(1.0))


def test_a_fit_that_goes_well_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit()


# ---------------------------------------------------------------------------------------------------------------- cost

NET = nets.mlp([64, 96, 10], "tanh")
NET_PARAMS = jax.eval_shape(NET.init, jax.random.key(0))
NET_DATA = jax.ShapeDtypeStruct((32, 64), jnp.float32), jax.ShapeDtypeStruct((32, 10), jnp.float32)


def net_loss(params, batch):
    return jnp.mean((jax.vmap(NET, (None, 0))(params, batch[0]) - batch[1]) ** 2)


def by_hand(optimizer):
    def step(params, opt_state, batch):
        value, grads = jax.value_and_grad(net_loss)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return flops(step, NET_PARAMS, jax.eval_shape(optimizer.init, NET_PARAMS), NET_DATA)


@every_optimizer
def test_a_step_costs_what_value_and_grad_and_the_optimiser_cost(optimizer):
    opt_state = jax.eval_shape(optimizer.init, NET_PARAMS)
    got = flops(lambda *args: train.update(net_loss, optimizer, *args)[:3], NET_PARAMS, opt_state, NET_DATA)
    assert got == pytest.approx(by_hand(optimizer), rel=1e-6)


@pytest.mark.parametrize("batch_size", [None, 32])
def test_a_compiled_run_of_steps_costs_no_more_than_as_many_steps(batch_size):
    optimizer, steps = OPTIMIZERS["adam"], 20
    samples = 32 if batch_size is None else 50
    data = np.ones((samples, 64), np.float32), np.ones((samples, 10), np.float32)
    batches = source(data, batch_size, jax.random.key(0), steps=steps, room=lambda _: steps)
    how = {"loss": net_loss, "optimizer": optimizer, "observe": None, "observe_every": 1, "ahead": 0}
    opt_state, chunk = jax.eval_shape(optimizer.init, NET_PARAMS), next(batches.chunks)
    got = flops(lambda *args: train._scan(*args, **how, pick=batches.pick), jnp.int32(0), NET_PARAMS, opt_state, chunk)
    assert got <= 1.01 * steps * by_hand(optimizer)


def test_steps_that_are_not_observed_cost_what_bare_ones_cost():
    optimizer, steps = OPTIMIZERS["adam"], 20
    data = np.ones((32, 64), np.float32), np.ones((32, 10), np.float32)
    batches = source(data, None, None, steps=steps, room=lambda _: steps)
    opt_state, chunk = jax.eval_shape(optimizer.init, NET_PARAMS), next(batches.chunks)

    def work(every):
        how = {"loss": net_loss, "optimizer": optimizer, "observe": jc.flow(every), "observe_every": every}
        return flops(
            lambda *args: train._scan(*args, **how, ahead=0, pick=batches.pick),
            jnp.int32(0),
            NET_PARAMS,
            opt_state,
            chunk,
        )

    assert work(20) - 19 * by_hand(optimizer) == pytest.approx(work(1) / steps, rel=0.02)


@pytest.mark.parametrize("every", [1, 3, 5, 7, 20])
@pytest.mark.parametrize("lengths", [[4] * 12, [4, 4, 5, 5, 5, 4, 4, 4, 4, 6, 6, 4]])
def test_one_step_in_so_many_is_observed_however_steps_fall_into_chunks(every, lengths, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 6)
    batches = [(np.full(length, 1.0 + step), np.full(length, 2.0)) for step, length in enumerate(lengths)]

    def run(every):
        return train.fit(
            lambda slope, batch: jnp.mean((slope * batch[0] - batch[1]) ** 2),
            jnp.array(0.5),
            batches,
            optax.sgd(1e-3),
            steps=12,
            observe=lambda info: (info.step, info.batch[0][0]),
            observe_every=every,
            progress=False,
        )

    found = run(every)
    steps, firsts = found.history.observed
    assert steps.tolist() == found.history.observed_steps.tolist() == [*range(0, 12, every)]
    assert firsts.tolist() == [1.0 + step for step in range(0, 12, every)]
    np.testing.assert_allclose(found.history.loss, run(1).history.loss, rtol=1e-6)


def test_one_program_serves_all_full_chunks(monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 2)
    traces = []

    def counted(params, batch):
        traces.append(1)
        return loss(params, batch)

    optimizer = optax.sgd(0.1)
    fit(objective=counted, optimizer=optimizer, steps=4)
    once = len(traces)
    fit(objective=counted, optimizer=optimizer, steps=20)
    assert len(traces) <= once + 1  # one abstract call, to see that the loss is a scalar


# ----------------------------------------------------------------------------------------------------------- bad input

HOLED = X.copy()
HOLED[[4, 7], 1] = np.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": HOLED, "y": DATA["y"]}, "data at ['x'] holds NaN or infinity in 2 of 10 samples, first in number 4"),
        ((X, HOLED), "data at [1] holds NaN or infinity in 2 of 10 samples"),
        (HOLED, "data holds NaN or infinity in 2 of 10 samples, first in number 4"),
        (np.where(np.isnan(HOLED), -np.inf, HOLED), "data holds NaN or infinity in 2 of 10 samples"),
        (jnp.asarray(HOLED, jnp.bfloat16), "data holds NaN or infinity in 2 of 10 samples"),
        ({"x": X, "y": X[:4]}, "same number of samples on its leading axis, but they have"),
        ({"x": X, "y": np.float32(1)}, "same number of samples on its leading axis"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(data, batch_size=2, key=jax.random.key(0))


@pytest.mark.parametrize("nothing", [{}, (), {"x": ()}], ids=str)
def test_data_without_an_array_are_refused(nothing):
    with pytest.raises(ValueError, match="data holds no array, so there is nothing to train on"):
        fit(nothing)


@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_a_bad_batch_in_a_stream_is_named_by_its_place_in_the_stream(chunk, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", chunk)
    bad = {"x": HOLED[4:8], "y": DATA["y"][4:8]}
    with pytest.raises(ValueError, match=r"data at \['x'\] holds NaN or infinity.*batches.*first in number 6"):
        fit(iter([BATCHES[0]] * 6 + [bad] * 2), steps=8)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_size_out_of_range_is_refused(batch_size):
    message = f"an integer from 1 to 10, but {batch_size} was given"
    with pytest.raises(ValueError, match=message):
        fit(batch_size=batch_size, key=jax.random.key(0))


def test_minibatches_without_a_key_are_refused():
    with pytest.raises(TypeError, match=r"pass key=jax\.random\.key"):
        fit(batch_size=2)


def test_a_batch_size_for_ready_batches_is_refused():
    with pytest.raises(ValueError, match="iterable of ready batches, so batch_size=2 has no meaning"):
        fit(BATCHES, batch_size=2)


def test_a_list_of_arrays_is_ambiguous():
    with pytest.raises(TypeError, match=r"A list of arrays could be samples or batches.*iter\(batches\)"):
        fit([X, X])


@pytest.mark.parametrize("data", [3, 2.5, object()])
def test_data_that_are_neither_arrays_nor_batches_are_refused(data):
    with pytest.raises(TypeError, match=f"but {re.escape(repr(data))} was given"):
        fit(data)


@pytest.mark.parametrize("nothing", [list, lambda: iter(())], ids=["list", "iterator"])
def test_an_iterable_without_a_batch_is_refused(nothing):
    with pytest.raises(ValueError, match=r"data (holds|gave) no batch"):
        fit(nothing())


@pytest.mark.parametrize(
    ("objective", "returned"),
    [
        (lambda p, batch: batch["x"] @ p["w"], r"float32\[10\]|shape=\(10,\)"),
        (lambda p, batch: (loss(p, batch), 1.0), "float32"),
        (lambda p, batch: jnp.argmax(batch["y"]) + 0 * p["b"].astype(int), "int32"),
        (lambda p, batch: loss(p, batch) + 0j, "complex64"),
    ],
    ids=["vector", "pair", "integer", "complex"],
)
def test_a_loss_that_is_no_real_number_is_refused(objective, returned):
    with pytest.raises(TypeError, match=f"must return one real number.*({returned})"):
        fit(objective=objective)


@pytest.mark.parametrize("steps", [np.int64(5), np.uint8(5), jnp.int32(5)], ids=str)
def test_any_integer_is_a_number_of_steps(steps):
    found = fit(steps=steps, batch_size=np.int32(4), key=jax.random.key(0), observe_every=np.int16(2))
    assert_close(found.params, fit(steps=5, batch_size=4, key=jax.random.key(0)).params, tol=0)


@pytest.mark.parametrize("value", [True, np.True_, 5.0, np.float32(5), "5", [5]], ids=repr)
@pytest.mark.parametrize("name", ["steps", "observe_every", "batch_size"])
def test_what_is_no_integer_is_no_number_of_steps_or_samples(name, value):
    with pytest.raises(TypeError, match=f"^{name} is .*, an integer .*, but {re.escape(repr(value))} was given"):
        fit(**{name: value})


@pytest.mark.parametrize("steps", [0, -3])
def test_fewer_than_one_step_is_refused(steps):
    with pytest.raises(
        ValueError, match=f"steps is the number of updates, an integer from 1 .*, but {steps} was given"
    ):
        fit(steps=steps)


def test_observing_every_zeroth_step_is_refused():
    with pytest.raises(ValueError, match=r"observe_every is .* of at least 1, but 0 was given"):
        fit(observe=lambda info: info.loss, observe_every=0)


@pytest.mark.parametrize(
    ("params", "where"),
    [
        (jnp.array(3), "params is int32[]"),
        ({**START, "n": 3}, "params at ['n'] is int32[]"),
        ((START, [jnp.zeros(2, bool)]), "params at [1][0] is bool[2]"),
        ({**START, "key": jax.random.key(0)}, "params at ['key'] is key<fry>[]"),
    ],
    ids=["alone", "in a dict", "nested", "a key"],
)
def test_a_parameter_without_a_gradient_is_named_and_refused(params, where):
    with pytest.raises(TypeError, match=re.escape(where) + ".*let the loss close over what is not trained"):
        fit(params=params)


@pytest.mark.parametrize("optimizer", [None, "adam"])
def test_what_is_no_optimiser_is_refused(optimizer):
    with pytest.raises(TypeError, match=r"optimizer must be an optax optimiser"):
        jc.train.fit(lambda p, b: jnp.sum(p * b), jnp.ones(()), jnp.ones(3), optimizer, steps=1)


def test_data_without_a_sample_is_refused():
    with pytest.raises(ValueError, match="data holds no sample"):
        jc.train.fit(lambda p, b: jnp.sum(p * b), jnp.ones(()), jnp.ones((0, 2)), optax.sgd(0.1), steps=1)
