"""`compare_modes`, and the measure of work behind it."""

from dataclasses import FrozenInstanceError, fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw, some_params

import jaxchain as jc
from jaxchain.cost.measure import flops, measure
from jaxchain.jacobians.compare import SPEED, predictions

SQUARE = draw(jnp.zeros((24, 24)))


# ------------------------------------------------------------------------------------------------- counting operations


def looped(x, *lengths):
    """tanh(x @ W) as often as the product of ``lengths``, by nested scans."""
    if not lengths:
        return jnp.tanh(x @ SQUARE)
    return jax.lax.scan(lambda x, _: (looped(x, *lengths[1:]), None), x, None, length=lengths[0])[0]


def unrolled(x, times):
    for _ in range(times):
        x = jnp.tanh(x @ SQUARE)
    return x


@pytest.mark.parametrize("lengths", [(1,), (2,), (8,), (2, 3), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("wrap", [lambda fun: fun, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_a_scan_counts_as_its_unrolled_loop(lengths, wrap):
    want = flops(lambda x: unrolled(x, int(np.prod(lengths))), SQUARE)
    assert flops(wrap(lambda x: looped(x, *lengths)), SQUARE) == pytest.approx(want, rel=0.02)


def test_a_derivative_of_a_scan_counts_as_that_of_its_unrolled_loop():
    one = flops(jax.grad(lambda x: jnp.sum(looped(x, 6))), SQUARE)
    other = flops(jax.grad(lambda x: jnp.sum(unrolled(x, 6))), SQUARE)
    assert one == pytest.approx(other, rel=0.03)


def test_a_map_in_batches_counts_as_a_vmap():
    xs = draw(jnp.zeros((10, 24)))
    want = flops(jax.vmap(lambda x: unrolled(x, 2)), xs)
    for batch_size in (1, 3, 5, 10):
        got = flops(lambda xs, size=batch_size: jax.lax.map(lambda x: unrolled(x, 2), xs, batch_size=size), xs)
        assert got == pytest.approx(want, rel=0.05)


def test_a_scan_that_never_runs_costs_nothing():
    assert flops(lambda x: looped(x, 0), SQUARE) == 0


def test_a_matrix_product_costs_two_operations_an_entry_of_its_sum():
    left, right = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((10, 20), (20, 30)))
    assert flops(jnp.dot, left, right) == 2 * 10 * 20 * 30


@pytest.mark.parametrize(
    ("fun", "opened"),
    [
        (lambda x: looped(x, 3), False),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, x: x * 2, x), False),
        (lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), True),
        (jax.jit(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x)), True),
    ],
    ids=["scan", "counted loop", "while", "while in jit"],
)
def test_a_while_loop_is_said_to_be_open(fun, opened):
    assert measure(fun, jnp.ones((24, 24)), repeats=1).open_loops is opened


def test_measure_returns_result_time_and_memory():
    found = measure(lambda x: x @ x, SQUARE, repeats=3)
    np.testing.assert_allclose(found.result, SQUARE @ SQUARE, atol=1e-4)
    assert found.flops == flops(lambda x: x @ x, SQUARE) == 2 * 24**3
    assert min(found.compile_seconds, found.run_seconds) > 0
    assert found.peak_bytes >= 0


# ------------------------------------------------------------------------------------------------------ compare_modes


def compare(n, m):
    net = jc.nets.mlp([n, 16, m], "tanh")
    return jc.compare_modes(net, some_params(net), jnp.ones(n), repeats=1)


@pytest.fixture(scope="module")
def wide():
    return compare(40, 3)


@pytest.fixture(scope="module")
def tall():
    return compare(3, 40)


def test_a_row_a_mode_with_the_promised_fields(wide):
    assert isinstance(wide, jc.Comparison)
    assert [row.mode for row in wide.rows] == ["forward", "reverse", "mixed", "auto"]
    names = ["mode", "flops", "peak_bytes", "compile_seconds", "run_seconds", "max_error", "predicted_flops", "note"]
    assert [field.name for field in fields(jc.ModeRow)] == names
    for row in wide.rows:
        assert isinstance(row, jc.ModeRow)
        assert wide[row.mode] is row
        assert min(row.flops, row.compile_seconds, row.run_seconds) > 0
        assert isinstance(row.peak_bytes, int)
        with pytest.raises(FrozenInstanceError):
            row.flops = 0


def test_the_modes_agree(wide, tall):
    for found in (wide, tall):
        assert found["reverse"].max_error == 0
        assert max(row.max_error for row in found.rows) < 1e-5


def test_forward_is_cheaper_where_inputs_are_fewer_and_reverse_where_outputs_are(wide, tall):
    assert tall["forward"].flops < tall["reverse"].flops / 3
    assert wide["reverse"].flops < wide["forward"].flops / 3


def test_a_row_is_what_measure_says_of_the_mode(tall):
    net = jc.nets.mlp([3, 16, 40], "tanh")
    args = some_params(net), jnp.ones(3)
    for row in tall.rows:
        assert row.flops == flops(jc.jacobian(net, 1, mode=row.mode), *args)


def test_the_text_is_a_plain_table_that_fits_a_terminal(wide, monkeypatch):
    for columns in (None, "300"):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        text = str(wide)
        assert max(map(len, text.splitlines())) <= 100
        assert text.isprintable() or "\x1b" not in text
        for word in ("forward", "reverse", "FLOP", "max error"):
            assert word in text


def test_a_notebook_shows_the_same_table(wide):
    html = wide._repr_html_()
    assert "<table" in html
    assert "forward" in html
    assert "<script" not in html


def test_an_unknown_mode_is_answered_with_the_nearest(wide):
    with pytest.raises(KeyError, match=r"No mode is named 'foreward'\. Nearest: forward"):
        wide["foreward"]


def test_an_argument_other_than_the_last_can_be_chosen():
    fun = lambda x, y: jnp.outer(x, y)  # noqa: E731
    found = jc.compare_modes(fun, jnp.ones(2), jnp.ones(5), argnum=0, repeats=1)
    assert found["forward"].flops < found["reverse"].flops


def test_chunks_need_less_memory_and_give_the_same():
    net = jc.nets.mlp([64, 256, 64], "tanh")
    args = some_params(net), jnp.ones(64)
    whole, chunked = (jc.compare_modes(net, *args, chunk_size=size, repeats=1) for size in (None, 4))
    for mode in ("forward", "reverse"):
        assert chunked[mode].peak_bytes < whole[mode].peak_bytes
        assert chunked[mode].max_error < 1e-5


def test_pytrees_and_complex_values_can_be_compared():
    found = jc.compare_modes(lambda x: {"a": jnp.fft.rfft(x["b"]).real, "c": x["d"] * 2}, {"b": SQUARE[0], "d": 1.0})
    assert found["forward"].max_error < 1e-5


def test_work_under_an_open_loop_is_called_a_lower_bound():
    def fun(n, x):
        scale = jax.lax.while_loop(lambda c: c < n, lambda c: c * 2, jnp.ones(()))
        return jnp.sin(x) * scale

    found = jc.compare_modes(fun, jnp.array(5.0), jnp.ones(3), repeats=1)
    assert found.notes[-1:] == ("The body of a while loop is counted once: work is a lower bound.",)
    assert "lower bound" in str(found)


@pytest.mark.parametrize("argnum", [1, -2])
def test_an_argument_that_is_not_there_is_refused(argnum):
    with pytest.raises(ValueError, match=f"argnum={argnum} names no argument: 1 were given"):
        jc.compare_modes(jnp.sin, jnp.ones(3), argnum=argnum)


def test_an_integer_input_is_refused():
    with pytest.raises(TypeError, match="int32"):
        jc.compare_modes(jnp.sin, jnp.arange(3))


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.fixture
def steady(monkeypatch):
    """However busy the machine is, what has run changes no guess."""
    monkeypatch.setattr("jaxchain.jacobians.compare.TELLING", float("inf"))


def limited(**limits):
    net = jc.nets.mlp([40, 16, 3], "tanh")
    return jc.compare_modes(net, some_params(net), jnp.ones(40), repeats=2, **limits)


@pytest.mark.usefixtures("steady")
def test_what_is_predicted_to_run_too_long_is_not_run_and_its_row_says_so(wide):
    between = (wide["forward"].predicted_flops + wide["reverse"].predicted_flops) / 2 / SPEED
    found = limited(time_limit=between)
    assert [row.mode for row in found.rows] == ["forward", "reverse", "mixed", "auto"]
    forward, reverse = found["forward"], found["reverse"]
    assert forward.predicted_flops == wide["forward"].predicted_flops
    assert [forward.flops, forward.peak_bytes, forward.compile_seconds, forward.run_seconds, forward.max_error] == [
        None
    ] * 5
    assert forward.note.startswith("forward mode was not run: its ")
    assert forward.note.endswith("time_limit=None runs it.")
    assert forward.note in found.notes
    assert "not run" in str(found)
    assert reverse.flops == wide["reverse"].flops
    assert found["auto"].max_error < 1e-5


def test_nothing_is_compiled_where_every_mode_would_run_too_long(monkeypatch):
    monkeypatch.setattr("jaxchain.jacobians.compare.measure", None)
    found = limited(time_limit=0)
    assert [row.run_seconds for row in found.rows] == [None] * 4
    assert all(row.predicted_flops > 0 for row in found.rows)


@pytest.mark.usefixtures("steady")
def test_without_reverse_mode_errors_are_differences_from_the_cheapest_that_ran(tall):
    net = jc.nets.mlp([3, 16, 40], "tanh")
    between = (tall["forward"].predicted_flops + tall["reverse"].predicted_flops) / 2 / SPEED
    found = jc.compare_modes(net, some_params(net), jnp.ones(3), repeats=1, time_limit=between)
    (said,) = [note for note in found.notes if note.startswith("Errors are differences from ")]
    assert found[said.split()[-2]].max_error == 0
    assert found["reverse"].max_error is None


def test_what_needs_too_much_memory_is_compiled_and_not_run(monkeypatch, wide):
    monkeypatch.setattr("jaxchain.second_order.compared.UNASKED", 0)
    found, asked = limited(), limited(memory_limit=10**9)
    assert found["forward"].peak_bytes == wide["forward"].peak_bytes > 0
    assert found["forward"].flops == wide["forward"].flops
    assert found["forward"].run_seconds is None
    assert f"memory_limit={found['forward'].peak_bytes} runs it." in found["forward"].note
    assert asked["forward"].note == ""
    assert asked["forward"].run_seconds > 0


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1), (1e9, 3)])
def test_a_function_is_timed_as_often_as_there_is_time_and_once_at_least(seconds, calls):
    found = measure(lambda x: x @ x, SQUARE, repeats=3, seconds=seconds)
    assert found.calls == calls
    assert found.run_seconds > 0


def test_no_limit_is_no_limit(wide):
    assert all(row.run_seconds is not None and not row.note for row in limited(time_limit=None).rows)


def cross_entropy(net):
    return lambda params, x: -jnp.mean(jax.nn.log_softmax(net(params, x))[..., 1])


def over_a_batch(net):
    return cross_entropy(lambda params, xs: jax.vmap(lambda x: net(params, x))(xs))


LOSSES = {
    "a network's at one sample": (cross_entropy, jc.nets.mlp([32, 64, 4], "tanh"), (32,)),
    "a network's over a batch": (over_a_batch, jc.nets.mlp([32, 64, 4], "tanh"), (16, 32)),
    "a transformer's": (cross_entropy, jc.nets.transformer((8, 32, 11), 2, 2), (16, 8)),
}


@pytest.mark.parametrize("argnum", [0, 1], ids=["by parameters", "by data"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_work_of_a_losss_gradient_is_predicted_with_its_evaluation(name, argnum):
    loss, net, shape = LOSSES[name]
    fun, args = loss(net), (some_params(net), draw(jnp.zeros(shape)))
    predicted = predictions(jc.plan(fun, args, argnum=argnum))
    for mode in ("reverse", "auto"):
        assert predicted[mode] == pytest.approx(flops(jc.jacobian(fun, argnum, mode=mode), *args), rel=0.05)
