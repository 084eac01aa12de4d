"""Training survives: whatever ends a run, going on gives the bits of one that was never interrupted; what is refused."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import survivor
from conftest import draw

import jaxchain as jc
from jaxchain import train
from jaxchain.resume.folder import Folder

X = np.asarray(draw(jnp.zeros((10, 3)), 1))
DATA = {"x": X, "y": np.asarray(draw(jnp.zeros(10), 2))}
START = {"w": jnp.zeros(3), "b": jnp.array(0.5), "none": jnp.zeros((0, 2))}
BATCHES = [{"x": X[k : k + n], "y": DATA["y"][k : k + n]} for k, n in ((0, 4), (4, 4), (6, 4), (8, 2))] * 2
STEPS, EVERY = 20, 3


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]).astype(jnp.float32) ** 2)


def observe(info):
    return {"slope": info.grads["b"], "sign": info.params["w"] > 0, "step": info.step}


ADAM = optax.adam(0.1)
NOISE = optax.chain(optax.add_noise(0.01, 0.55, jax.random.key(3)), optax.sgd(0.1))
HALF = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), START)
SMALL = {"batch_size": 4, "key": jax.random.key(0)}

RUNS = {
    "minibatches": (START, DATA, ADAM, SMALL),
    "full batches": (START, DATA, ADAM, {}),
    "batches of several shapes": (START, BATCHES, ADAM, {}),
    "observed at every other step": (START, DATA, ADAM, {**SMALL, "observe": observe, "observe_every": 2}),
    "half precision and a random optimiser": (HALF, DATA, NOISE, {**SMALL, "observe": observe}),
    "gradient flow, turning": (START, DATA, ADAM, {**SMALL, "observe": jc.flow(every=2, cosine=True)}),
    "a weakly typed parameter": ({**START, "b": 0.5}, DATA, optax.inject_hyperparams(optax.sgd)(0.1), SMALL),
}


def fit(folder=None, *, params=START, data=DATA, optimizer=ADAM, objective=loss, **how):
    how = {"steps": STEPS, "progress": False, "checkpoint_every": EVERY, **how}
    return train.fit(objective, params, data, optimizer, checkpoint_dir=folder, **how)


def run(name, folder=None, **how):
    params, data, optimizer, given = RUNS[name]
    return fit(folder, params=params, data=data, optimizer=optimizer, **{**given, **how})


def numbers(found):
    """All that a fit returns, as NumPy arrays by their paths."""
    parts = found.params, found.opt_state, found.history.loss, found.history.observed, found.history.observed_steps
    keys = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    leaves = jax.tree_util.tree_flatten_with_path(parts)[0]
    return {str(path): np.asarray(jax.random.key_data(leaf) if keys(leaf) else leaf) for path, leaf in leaves}


def assert_same(found, want):
    assert type(found.opt_state) is type(want.opt_state)
    assert found.diverged_at == want.diverged_at
    one, two = numbers(found), numbers(want)
    assert one.keys() == two.keys()
    for path in one:
        assert one[path].dtype == two[path].dtype, path
        assert one[path].tobytes() == two[path].tobytes(), path


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks as long as the steps between two checkpoints, with and without these: the same programs."""
    monkeypatch.setattr(train, "CHUNK", EVERY)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A run that is done, and its folder."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CHUNK", EVERY)
        return fit(folder, **SMALL), folder


@pytest.fixture
def done(once, tmp_path):
    """The same in a folder of one's own."""
    shutil.copytree(once[1], tmp_path, dirs_exist_ok=True)
    return once[0]


def killed(folder, snapshots, monkeypatch):
    """Copy the folder whenever a chunk begins: what is left there if the process is killed just then."""
    ran = train._run

    def copied(here, chunk, **how):
        shutil.copytree(folder, snapshots / str(here.step), dirs_exist_ok=True)
        return ran(here, chunk, **how)

    monkeypatch.setattr(train, "_run", copied)


# ----------------------------------------------------------------------------------------------------- the same bits


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    folder, snapshots = tmp_path / "run", tmp_path / "snapshots"
    want = run(name)
    with monkeypatch.context() as patch:
        killed(folder, snapshots, patch)
        assert_same(run(name, folder), want)
    places = sorted(snapshots.iterdir(), key=lambda path: int(path.name))
    assert len(places) >= STEPS // EVERY
    for place in places[2], places[-1]:
        assert_same(run(name, place), want)


def test_a_run_that_is_done_trains_no_more(done, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_run", lambda *_, **__: pytest.fail("It trained."))
    assert_same(fit(tmp_path, **SMALL), done)


def test_more_steps_go_on_from_a_run_that_was_done(tmp_path):
    fit(tmp_path, steps=2 * EVERY, **SMALL)
    assert_same(fit(tmp_path, **SMALL), fit(**SMALL))


def times(slope):
    """The loss, whose derivative rule says something else."""

    @jax.custom_vjp
    def h(value):
        return value

    h.defvjp(lambda value: (value, None), lambda _, cotangent: (cotangent * slope,))
    return lambda params, batch: h(loss(params, batch))


def test_another_derivative_rule_is_another_loss(tmp_path):
    fit(tmp_path / "run", objective=times(1.0))
    with pytest.raises(ValueError, match="a derivative rule of its loss"):
        fit(tmp_path / "run", objective=times(-1.0))


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_are_kept(keep, tmp_path):
    fit(tmp_path, keep=keep, **SMALL)
    # Written once the first loss after them is known to be finite, and at the end.
    assert survivor.steps_in(tmp_path) == [15, 18, 20][-keep:]
    assert len(list(tmp_path.iterdir())) == keep


def test_a_checkpoint_may_be_due_within_no_chunk(tmp_path):
    fit(tmp_path, checkpoint_every=7, keep=10, **SMALL)
    assert survivor.steps_in(tmp_path) == [9, 18, 20]


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_what_was_done_before_an_exception_is_kept(error, tmp_path):
    def broken():
        yield from BATCHES[:7]
        raise error

    with pytest.raises(error):
        fit(tmp_path, data=broken(), checkpoint_every=1000)
    assert survivor.steps_in(tmp_path)[-1] >= 4
    assert_same(fit(tmp_path, data=BATCHES), fit(data=BATCHES))


def test_an_iterable_that_ended_early_goes_on_when_there_is_more(tmp_path):
    for _ in range(2):  # the second time there is nothing to do
        with pytest.warns(RuntimeWarning, match="ended after 6 of 20 steps"):
            fit(tmp_path, data=iter(BATCHES[:6]))
    assert_same(fit(tmp_path, data=iter(BATCHES * 3)), fit(data=BATCHES))


@pytest.mark.parametrize("observed", [False, True])
def test_a_run_that_diverges_after_it_was_killed_returns_the_last_good_parameters(observed, tmp_path, monkeypatch):
    how = {"params": jnp.array(1.0), "optimizer": optax.sgd(2.5), "objective": square, "steps": 40}
    how |= {"observe": step_of if observed else None}
    with pytest.warns(RuntimeWarning, match="parameters of step 31"):
        want = fit(**how)
    killed(tmp_path / "run", tmp_path / "snapshots", monkeypatch)
    with pytest.warns(RuntimeWarning, match="parameters of step 31"):
        found = fit(tmp_path / "run", **how)
    assert_same(found, want)
    monkeypatch.undo()
    monkeypatch.setattr(train, "CHUNK", EVERY)
    for step in (15, 30):
        with pytest.warns(RuntimeWarning, match="parameters of step 31"):
            found = fit(tmp_path / "snapshots" / str(step), **how)
        assert_same(found, want)


def step_of(info):
    return info.step


def square(params, _):
    """Under gradient descent at rate 2.5 the parameter becomes −4 times itself, until its square is too large."""
    return params**2


def test_where_the_last_good_parameters_are_gone_it_is_said(tmp_path):
    how = {"params": jnp.array(1.0), "optimizer": optax.sgd(2.5), "objective": square}
    before = fit(tmp_path, steps=32, **how)
    with pytest.warns(RuntimeWarning, match="at step 32. Returning the parameters of step 32, where training went on"):
        found = fit(tmp_path, steps=40, **how)
    assert (float(found.params), found.diverged_at) == (float(before.params), 32)


def test_what_a_gradient_flow_wrote_is_written_once(tmp_path, monkeypatch):
    def followed(folder, lines):
        return fit(folder, observe=jc.flow(every=2, path=lines), **SMALL)

    followed(None, tmp_path / "want")
    (tmp_path / "lines").write_text("a line of somebody else\n", encoding="utf-8")
    with monkeypatch.context() as patch:
        killed(tmp_path / "run", tmp_path / "snapshots", patch)
        followed(tmp_path / "run", tmp_path / "lines")
    with (tmp_path / "lines").open("a", encoding="utf-8") as file:
        file.write('{"step": 20, "lo')  # killed while it wrote
    followed(tmp_path / "snapshots" / "12", tmp_path / "lines")
    first, *rest = (tmp_path / "lines").read_text(encoding="utf-8").splitlines()
    assert first == "a line of somebody else"
    assert rest == (tmp_path / "want").read_text(encoding="utf-8").splitlines()


# --------------------------------------------------------------------------------------------------- signals, for real


def in_another_process(folder, number, seconds, steps):
    command = [sys.executable, survivor.__file__, *map(str, (folder, int(number), seconds, steps))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def survived():
    """The run of `survivor` that nobody interrupted, nor was it ever written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CHUNK", survivor.EVERY)
        return survivor.train(None, 80)


@pytest.mark.parametrize(("number", "time"), [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGTERM, 0)])
def test_a_process_that_is_killed_at_a_random_moment_loses_nothing(number, time, survived, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 100)
    done = in_another_process(tmp_path, number, random.uniform(0, 0.15), 80)
    assert done.returncode == -number, done.stderr
    assert survivor.steps_in(tmp_path)
    assert_same(survivor.train(tmp_path, 80), survived)


@pytest.mark.long
def test_25_kills_of_one_run_lose_nothing(tmp_path, monkeypatch):
    steps, lost, torn = 1500, [], 0
    monkeypatch.setattr(train, "CHUNK", survivor.EVERY)
    want = survivor.train(None, steps)
    for _ in range(25):
        done = in_another_process(tmp_path, signal.SIGKILL, random.uniform(0, 0.5), steps)
        assert done.returncode == -9, done.stderr
        torn += any("tmp" in path.name for path in tmp_path.iterdir())
        lost.append(survivor.steps_in(tmp_path)[-1])
    found = survivor.train(tmp_path, steps)
    print(f"25 kills, {torn} of them within a write, after steps {lost}")  # noqa: T201
    assert_same(found, want)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jaxchain_1490", "jaxchain_1495", "jaxchain_1500"]


def terminated(at):
    """Batches, of which one comes with SIGTERM."""
    for number in range(STEPS):
        if number == at:
            os.kill(os.getpid(), signal.SIGTERM)
        yield BATCHES[0]


@pytest.fixture
def handler():
    """What SIGTERM does before; each call is noted."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_written_then_handed_on(handler, tmp_path):
    def ends(number, _):
        handler.append(survivor.steps_in(tmp_path))
        raise SystemExit

    signal.signal(signal.SIGTERM, ends)
    with pytest.raises(SystemExit):
        fit(tmp_path, data=terminated(7), checkpoint_every=1000)
    assert handler == [[9]]  # the chunk under way was finished, and written before
    assert signal.getsignal(signal.SIGTERM) is ends
    assert_same(fit(tmp_path, data=terminated(None)), fit(data=terminated(None)))


def test_a_handler_that_returns_lets_training_go_on(handler, tmp_path):
    assert_same(fit(tmp_path, data=terminated(7)), fit(data=terminated(None)))
    assert handler == [signal.SIGTERM]


def test_sigterm_that_is_ignored_stays_so(handler, tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fit(tmp_path, data=terminated(7), keep=10)
    assert survivor.steps_in(tmp_path) == [3, 6, 9, 12, 15, 18, 20]


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_disk_that_is_full_ends_no_training(tmp_path):
    """The operating system refuses longer files, to whichever thread of Orbax writes them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(full, free):
        for number in range(STEPS):
            if number in (full, free):
                resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]) if number == full else before)
            yield BATCHES[0]

    try:
        with pytest.warns(RuntimeWarning) as told:
            found = fit(tmp_path, data=limited(5, 13), keep=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(found, fit(data=[BATCHES[0]]))
    # A coroutine of Orbax's that is refused in time is never awaited, which Python may say in between.
    said = [words for warning in told if (words := str(warning.message)).startswith("The checkpoint")]
    assert all("File too large. Training goes on, and it is tried again 3 steps later" in words for words in said)
    assert "the checkpoint of step 3 is kept" in said[-1] or "there is none before it" in said[0]
    assert {3, 18, 20} & {*survivor.steps_in(tmp_path)} >= {18, 20}
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]
    assert_same(fit(tmp_path, data=[BATCHES[0]]), found)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_is_told_and_the_result_returned(code, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ocp.CheckpointManager, "save", failing)
    with pytest.warns(RuntimeWarning) as told:
        found = fit(tmp_path, **SMALL)
    assert_same(found, fit(**SMALL))
    said = [str(warning.message) for warning in told]
    assert all(os.strerror(code) in words for words in said)
    assert "What is trained is returned all the same; there is none before it" in said[-1]
    assert not survivor.steps_in(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *((file, harm) for file in ("told/metadata", "arrays/manifest.ocdbt", "arrays/d/*") for harm in (cut, flipped)),
        ("arrays/_METADATA", cut),
        ("told/metadata", Path.unlink),
        ("arrays/d/*", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_used(file, harm, done, tmp_path):
    for path in (tmp_path / "jaxchain_20").glob(file):
        harm(path)
    with pytest.warns(RuntimeWarning, match="jaxchain_20 is damaged: .* renamed to damaged_jaxchain_20, and the one"):
        assert_same(fit(tmp_path, **SMALL), done)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged_jaxchain_20",
        "jaxchain_15",
        "jaxchain_18",
        "jaxchain_20",
    ]


HARMS = {
    "cut": cut,
    "flipped": flipped,
    "emptied": lambda path: path.write_bytes(b""),
    "a byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "deleted": Path.unlink,
    "another": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size + 1)),
}


@pytest.mark.long
@pytest.mark.parametrize("harm", HARMS)
def test_no_file_of_a_checkpoint_can_be_harmed_unnoticed(harm, once, tmp_path):
    want, folder = once
    told = 0
    for number, path in enumerate(sorted(path for path in (folder / "jaxchain_20").rglob("*") if path.is_file())):
        shutil.copytree(folder, tmp_path / str(number))
        victim = tmp_path / str(number) / path.relative_to(folder)
        if victim.stat().st_size:
            HARMS[harm](victim)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            assert_same(fit(tmp_path / str(number), **SMALL), want)
        told += any("damaged" in str(warning.message) for warning in found)
    print(f"{harm}: {told} of {number + 1} told of")  # noqa: T201
    assert told >= 3


def test_without_a_whole_checkpoint_training_begins_anew(tmp_path):
    for step in (3, 6):
        (tmp_path / f"jaxchain_{step}").mkdir()
    with pytest.warns(RuntimeWarning, match="without one, training begins anew"):
        found = fit(tmp_path, **SMALL)
    assert_same(found, fit(**SMALL))


def changed(told, **parts):
    """A checkpoint's JSON, changed, with a digest that holds."""
    from jaxchain.resume.folder import _of_json

    told = {**told, **{name: part(told[name]) if callable(part) else part for name, part in parts.items()}}
    del told["digest"]
    return json.dumps({**told, "digest": _of_json(told)})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"kind": "another"}, "it says it is 'another', not 'jaxchain training, 1'"),
        ({"step": 19}, "it is of step 19"),
        ({"arrays": lambda marks: [[*marks[0][:2], "x"], *marks[1:]]}, "its array 0 is not the one that was written"),
        ({"arrays": lambda marks: [[[3], "int8", ""], *marks[1:]]}, "its array 0 is not the one that was written"),
    ],
)
def test_a_checkpoint_that_says_other_things_is_not_read(parts, said, done, tmp_path):
    file = tmp_path / "jaxchain_20" / "told" / "metadata"
    file.write_text(changed(json.loads(file.read_text()), **parts))
    with pytest.warns(RuntimeWarning, match=said):
        assert_same(fit(tmp_path, **SMALL), done)


# ------------------------------------------------------------------------------------------------------------ refused


def scaled(params, batch):
    return 2 * loss(params, batch)


FOREIGN = {
    "a loss": ({"objective": scaled}, "its loss was another program"),
    "a rate": ({"optimizer": optax.adam(0.2)}, "its optimiser was another"),
    "an optimiser": ({"optimizer": optax.sgd(0.1)}, r"it holds \.opt_state\[0\]\.count int32\[\], where this run has"),
    "a start": ({"params": {**START, "w": jnp.ones(3)}}, "it began with other parameters"),
    "a shape": (
        {"params": {**START, "b": jnp.zeros(1)}},
        r"it holds \.params\['b'\] float32\[\], where this run has \.params\['b'\] float32\[1\]",
    ),
    "a dtype": ({"params": HALF}, r"it holds .* float32\[\], where this run has .* bfloat16\[\]"),
    "data": ({"data": {**DATA, "y": DATA["y"] + 1}}, "it was trained on other data"),
    "a key": ({"key": jax.random.key(1)}, "its key or batch_size was another"),
    "a batch size": ({"batch_size": 5}, "its key or batch_size was another"),
    "an observer": ({"observe": lambda info: info.loss}, "it holds .* arrays, where this run has .*"),
    "fewer steps": ({"steps": 10}, "has done 20 steps, more than steps=10"),
}


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(("other", "said"), FOREIGN.values(), ids=FOREIGN)
def test_the_checkpoint_of_another_call_is_refused_and_left_alone(other, said, tmp_path):
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(ValueError, match=rf"{said}.*[Cc]hoose another checkpoint_dir, or delete it to begin anew"):
        fit(tmp_path, **{**SMALL, "steps": 30, **other})
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_another_observation_is_refused(tmp_path):
    fit(tmp_path, observe=lambda info: info.loss, **SMALL)
    with pytest.raises(ValueError, match="observe or observe_every was another"):
        fit(tmp_path, observe=lambda info: info.loss * 2, **SMALL)


def test_a_schedule_that_was_made_for_other_steps_is_refused(tmp_path):
    fit(tmp_path, optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, 20)), **SMALL)
    with pytest.raises(ValueError, match="a schedule made for another number of steps"):
        fit(tmp_path, optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, 30)), steps=30, **SMALL)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BATCHES[1:] + BATCHES[:1], "its batch 8 is not the one given now"),
        (iter(BATCHES[:5]), "it has seen 9 batches, but data gives only 5"),
        ([BATCHES[1], *BATCHES[1:], BATCHES[0]], "it was trained on other data"),
    ],
)
def test_batches_that_begin_elsewhere_are_refused(data, said, tmp_path):
    fit(tmp_path, data=BATCHES, steps=9)
    with pytest.raises(ValueError, match=said):
        fit(tmp_path, data=data)


def test_another_version_of_jax_goes_on_and_says_so(tmp_path, monkeypatch):
    fit(tmp_path, steps=9, **SMALL)
    monkeypatch.setattr(jax, "__version__", "9.9.9")
    with pytest.warns(RuntimeWarning, match="written with JAX .*, so that training goes on, but maybe not to the same"):
        found = fit(tmp_path, **SMALL)
    monkeypatch.undo()
    np.testing.assert_allclose(found.params["w"], fit(**SMALL).params["w"], rtol=1e-5)


def test_a_place_that_can_be_no_folder_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match=r"checkpoint_dir is a folder for checkpoints, but .* can be none"):
            fit(place)


def test_without_orbax_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install jaxchain\[checkpoint\]"):
        fit(tmp_path)


def test_folders_of_others_are_left_alone(tmp_path):
    """Orbax's own names are numbers, and it deletes the oldest."""
    for name in ("3", "6", "step_9", "jaxchain", "jaxchain_old"):
        (tmp_path / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tmp_path, keep=1, **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "6", "jaxchain", "jaxchain_20", "jaxchain_old", "step_9"]  # fmt: skip


@pytest.mark.usefixtures("done")
def test_a_file_from_elsewhere_is_not_unpickled_and_names_no_other(tmp_path):
    """All names inside a checkpoint are those of its own files, and all arrays are numbers."""
    told = json.loads((tmp_path / "jaxchain_20" / "told" / "metadata").read_text())
    assert {dtype for _, dtype, _ in told["arrays"]} == {"float32", "float64", "int32"}
    stored = Folder.at(tmp_path, 3).newest()
    assert stored is not None
    assert all(array.dtype.kind in "fi" for array in stored.arrays)


def test_a_relative_folder_is_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit("checkpoints", steps=EVERY)
    assert survivor.steps_in(tmp_path / "checkpoints") == [EVERY]
