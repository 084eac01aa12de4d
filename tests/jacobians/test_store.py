"""A Jacobian on disk: what is there is right, what is missing is made again, and nothing of others is touched."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streaming
import zarr
from streaming import arguments, files, fun, stream

import jaxchain as jc
from jaxchain.jacobians import store, streamed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Streamed without interruption."""
    path = tmp_path_factory.mktemp("whole") / "jacobian.zarr"
    stream(path, block=100)
    return path


@pytest.fixture
def copied(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "jacobian.zarr"))


def chunk(path, number):
    return path / "c" / str(number) / "0"


def rows_of(tree, out):
    """A Jacobian as JAX has it, as a matrix."""
    parts = jax.tree.structure(out).flatten_up_to(tree)
    return np.concatenate(
        [
            np.concatenate([np.reshape(block, (leaf.size, -1)) for block in jax.tree.leaves(part)], axis=1)
            for part, leaf in zip(parts, jax.tree.leaves(out), strict=True)
        ]
    )


def sine(slope):
    """A sine whose derivative rule says something else."""

    @jax.custom_jvp
    def h(x):
        return jnp.sin(x)

    h.defjvp(lambda primals, tangents: (jnp.sin(*primals), tangents[0] * slope))
    return h


@pytest.mark.parametrize("slope", [3.0, jnp.array([3.0, 3.0, 3.0])], ids=["number", "array"])
def test_another_derivative_rule_is_another_function(slope, tmp_path):
    path = tmp_path / "jacobian.zarr"
    jc.jacobian_to_zarr(sine(slope - 1.0), (jnp.ones(3),), path, progress=False)
    with pytest.raises(ValueError, match="derivative rule"):
        jc.jacobian_to_zarr(sine(slope), (jnp.ones(3),), path, progress=False)


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "jacobian.zarr"
    with pytest.raises(ValueError, match="there is no number to write"):
        jc.jacobian_to_zarr(lambda x: x[:0], (jnp.ones(3),), path, progress=False)
    with pytest.raises(TypeError, match="closes over traced ones"):
        jax.jit(lambda s: jc.jacobian_to_zarr(lambda x: x * s, (np.ones(3),), path, progress=False)[:])(2.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("argnum", [0, 1])
def test_what_is_stored_is_the_jacobian_of_jax(tmp_path, argnum):
    args = jax.tree.map(lambda leaf: leaf.astype(float), arguments())
    got = jc.jacobian_to_zarr(fun, args, tmp_path / "j", argnum=argnum, block=150, progress=False)
    want = rows_of(jax.jit(jax.jacrev(fun, argnum))(*args), fun(*args))
    assert (got.shape, got.dtype, got.read_only) == (want.shape, want.dtype, True)
    np.testing.assert_allclose(got[:], want, rtol=0, atol=1e-13 * np.abs(want).max())
    told = got.attrs["jaxchain"]
    assert [part["leaf"] for part in told["rows"]] == ["['x']", "['y']"]
    assert [(part["start"], part["stop"]) for part in told["rows"]] == [(0, 40), (40, 400)]
    assert told["columns"][-1]["stop"] == want.shape[1]


def test_a_call_again_computes_nothing(copied, monkeypatch):
    monkeypatch.setattr(streamed.JacobianBlocks, "__getitem__", lambda *_: pytest.fail("a block was computed"))
    before = files(copied)
    assert stream(copied, block=100).shape == (400, 40)
    assert files(copied) == before


def damage(path, how):
    data = path.read_bytes()
    match how:
        case "gone":
            path.unlink()
        case "changed":
            path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
        case int():
            path.write_bytes(data[:how])


@pytest.mark.parametrize("how", ["gone", "changed", 0, 3, 50, -1], ids=str)
def test_what_is_not_whole_is_made_again_and_nothing_else(copied, how):
    before = files(copied)
    damage(chunk(copied, 1), how)
    kept = {number: chunk(copied, number).stat().st_mtime_ns for number in (0, 2, 3)}
    (copied / "c" / "1" / "0.12ab.partial").write_bytes(b"half")
    stream(copied, block=100)
    assert files(copied) == before
    assert kept == {number: chunk(copied, number).stat().st_mtime_ns for number in kept}


def faulty(monkeypatch, at, how):
    """Zarr's own store, whose chunk number ``at`` is written wrongly."""
    put, calls = zarr.storage.LocalStore.set, []

    async def wrong(self, key, value, *args, **kwargs):
        if key.startswith("c/"):
            calls.append(key)
        if not (key.startswith("c/") and len(calls) == at + 1):
            return await put(self, key, value, *args, **kwargs)
        if isinstance(how, int):
            raise OSError(how, "No space left on device" if how == errno.ENOSPC else "Input/output error")
        return await put(self, key, value[: len(value) // 2], *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", wrong)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("how", [errno.ENOSPC, errno.EIO, "short"], ids=["ENOSPC", "EIO", "cut short"])
def test_a_disk_that_fails_is_told_of_and_loses_nothing(whole, tmp_path, monkeypatch, at, how):
    path = tmp_path / "jacobian.zarr"
    with monkeypatch.context() as broken:
        faulty(broken, at, how)
        rows = f"rows {100 * at} to {100 * at + 100} of the Jacobian were not written"
        with pytest.raises(
            OSError, match=rf"{rows}{', and the 2 blocks there are kept' if at else ''}\. Make room"
        ) as told:
            stream(path, block=100)
    assert told.value.errno == (errno.EIO if how == "short" else how)
    assert told.value.filename == str(path)
    written = {number: chunk(path, number).stat().st_mtime_ns for number in range(at)}
    assert np.isnan(zarr.open_array(path, mode="r")[300:]).all()
    stream(path, block=100)
    assert files(path) == files(whole)
    assert written == {number: chunk(path, number).stat().st_mtime_ns for number in range(at)}


def test_a_disk_that_fails_to_keep_what_it_took_is_told_of(tmp_path, monkeypatch):
    def refused(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "sync", refused)
    with pytest.raises(OSError, match="Input/output error: the array was not begun"):
        stream(tmp_path / "j", block=100)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fun": lambda weights, x: jax.tree.map(jnp.cos, fun(weights, x))}, "its function is another one"),
        ({"args": (arguments()[0], arguments(1)[1])}, "the argument has other values"),
        ({"args": (arguments(1)[0], arguments()[1])}, "the arrays that .* or the other arguments, have other values"),
        ({"block": 50}, "its blocks have 100 rows, not 50; block=100 goes on with it"),
        ({"mode": "forward"}, "its blocks are made in another way"),
        ({"argnum": 0}, "its argument has other shapes"),
        ({"fun": lambda weights, x: fun(weights, x)["y"]}, "its output has other shapes"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_the_jacobian_of_another_call_is_refused_with_the_reason(whole, options, reason):
    before = files(whole)
    given = {"fun": fun, "args": arguments(), "argnum": 1, "block": 100, "mode": "reverse", **options}
    with pytest.raises(ValueError, match=rf"is not of this call: {reason}.* Choose another path"):
        jc.jacobian_to_zarr(given.pop("fun"), given.pop("args"), whole, progress=False, **given)
    assert files(whole) == before


def test_a_rule_that_says_something_else_is_another_way(tmp_path):
    def with_rule(factor):
        @jax.custom_jvp
        def same(x):
            return x

        same.defjvp(lambda primals, tangents: (primals[0], factor * tangents[0]))
        return same

    x = jnp.ones(3)
    jc.jacobian_to_zarr(with_rule(2), (x,), tmp_path / "j", mode="reverse", progress=False)
    jc.jacobian_to_zarr(with_rule(2), (x,), tmp_path / "j", mode="reverse", progress=False)
    with pytest.raises(ValueError, match="its blocks are made in another way"):
        jc.jacobian_to_zarr(with_rule(3), (x,), tmp_path / "j", mode="reverse", progress=False)


@pytest.mark.parametrize("what", ["a file", "a folder", "another array", "a group", "a broken array"])
def test_what_others_wrote_is_not_touched(tmp_path, what):
    path = tmp_path / "here"
    match what:
        case "a file":
            path.write_text("mine")
        case "a folder":
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        case "another array":
            zarr.create_array(path, shape=(3,), dtype="f4")[:] = 1
        case "a group":
            zarr.create_group(path)
        case "a broken array":
            path.mkdir()
            (path / "zarr.json").write_text('{"shape": [')
    before = files(tmp_path)
    with pytest.raises((FileExistsError, ValueError), match="Choose another path"):
        stream(path, block=100)
    assert files(tmp_path) == before


def test_a_folder_that_is_empty_or_was_just_begun_is_written_to(tmp_path):
    path = tmp_path / "deep" / "below"
    path.mkdir(parents=True)
    (path / "zarr.12ab.partial").write_text("{")
    stream(path, block=200)
    assert sorted(files(path)) == ["c/0/0", "c/1/0", "zarr.json"]


def test_blocks_of_nan_and_of_zeros_are_blocks(tmp_path, monkeypatch):
    def call(name, wrong):
        path = tmp_path / name
        return jc.jacobian_to_zarr(
            lambda x: wrong(x) * 0, (jnp.zeros(4),), path, mode="reverse", block=2, progress=False
        )

    for name, wrong in (("nan", jnp.sqrt), ("zeros", jnp.square)):
        first = call(name, wrong)[:]
        assert np.isnan(first).any() == (name == "nan")
        with monkeypatch.context() as again:
            again.setattr(streamed.JacobianBlocks, "__getitem__", lambda *_: pytest.fail("a block was computed again"))
            np.testing.assert_array_equal(call(name, wrong)[:], first)


def test_what_zarr_has_no_dtype_for_is_stored_as_float32(tmp_path):
    x = jnp.linspace(0, 1, 5, dtype=jnp.bfloat16)
    got = jc.jacobian_to_zarr(jnp.sin, (x,), tmp_path / "j", progress=False)
    assert (got.dtype, got.attrs["jaxchain"]["dtype"]) == (np.float32, "bfloat16")
    np.testing.assert_array_equal(got[:], np.asarray(jax.jit(jax.jacrev(jnp.sin))(x), np.float32))


def test_a_block_of_many_bytes_is_several_chunks(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGEST", 100 * 4 * 15)  # fifteen columns of a hundred float32
    path = tmp_path / "j"
    got = stream(path, block=100)
    assert got.chunks == (100, 15)
    (path / "c" / "1" / "2").unlink()
    np.testing.assert_array_equal(stream(path, block=100)[:], zarr.open_array(whole, mode="r")[:])


def test_progress_is_told_on_standard_error_or_not_at_all(tmp_path, capsys):
    stream(tmp_path / "j", block=200, progress=True)
    told = capsys.readouterr()
    assert "2/2" in told.err
    assert not told.out
    stream(tmp_path / "k", block=200)
    assert capsys.readouterr() == ("", "")


def test_without_zarr_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(store.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'zarr is not installed: pip install --upgrade "jaxchain\[store\]"'):
        stream(tmp_path / "j")


def test_what_is_traced_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="jacobian_to_zarr writes numbers"):
        jax.jit(lambda x: jc.jacobian_to_zarr(jnp.sin, (x,), tmp_path / "j"))(jnp.ones(2))


def count_of(path):
    """Files in a folder that another process writes to."""
    return sum(1 for file in path.rglob("*") if not file.is_dir()) if path.exists() else 0


def killed_again_and_again(path, block, times, after, seed):
    """Stream in processes that are killed at random moments, ``after`` so many files; how many were killed so."""
    rng, reached = random.Random(seed), 0
    command = [sys.executable, streaming.__file__, str(path), str(block)]
    here = {**os.environ, "PYTHONPATH": str(Path(jc.__file__).parents[1])}
    for _ in range(times):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=here) as process:
            assert process.stdout.readline() == b"begins\n"
            until = count_of(path) + rng.choice(after)
            while process.poll() is None and count_of(path) < until:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.03)
            process.send_signal(signal.SIGKILL)
            reached += process.wait() == -signal.SIGKILL
    return reached


def check_kills(tmp_path, block, times, after, seed):
    path = tmp_path / "killed.zarr"
    reached = killed_again_and_again(path, block, times, after, seed)
    chunks = sum("c/" in name and not name.endswith(".partial") for name in files(path))
    assert 0 < chunks < streaming.ROWS / block
    stream(path, block=block)
    stream(tmp_path / "whole.zarr", block=block)
    assert files(path) == files(tmp_path / "whole.zarr")
    return reached, chunks


def test_killed_at_random_it_goes_on_to_the_same_bits(tmp_path):
    reached, _ = check_kills(tmp_path, 2, 2, range(3, 12), seed=0)
    assert reached == 2


@pytest.mark.long
def test_killed_twenty_five_times_it_goes_on_to_the_same_bits(tmp_path):
    reached, chunks = check_kills(tmp_path, 1, 25, range(8), seed=1)
    told = f"killed {reached} times, {chunks} of {streaming.ROWS} blocks written by then, resumed to the same bits"
    sys.stdout.write(f"{told}\n")
    assert reached == 25
