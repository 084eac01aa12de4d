"""The evaluation trace: Baydin's printed numbers, JAX's own derivatives, and a table that hides nothing."""

import functools
import json
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ZOO, assert_close, draw, named, of_net, straight_through, tolerance
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

import jaxchain as jc
from jaxchain import derivative
from jaxchain.diagnosis.survey import survey
from jaxchain.errors import TangentMismatchError
from jaxchain.explore import Trace, TraceRow, trace
from jaxchain.program.segment import new_jaxpr

BAYDIN = json.loads((Path(__file__).parents[1] / "data" / "baydin.json").read_text(encoding="utf-8"))
COLUMNS = ("primal", "tangent", "cotangent")
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """No text depends on the terminal that the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")


def baydin(x1, x2):
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    return v1 + v2 - v3


def of_baydin() -> Trace:
    return trace(baydin, *map(float, BAYDIN["point"]), tangent=tuple(map(float, BAYDIN["tangent"])))


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


@cache
def of(name: str) -> Trace:
    """A case of the zoo, all its arguments moved, every loop left whole."""
    case = named(name)
    return trace(case.chain, *case.args, tangent=draw(case.args, 7), cotangent=draw(case.states[-1], 8), unroll_limit=0)


def inputs(found: Trace) -> list[TraceRow]:
    return [row for row in found.rows if re.fullmatch(r"v(0|-\d+)", row.name)]


def outputs(found: Trace) -> list[TraceRow]:
    return [row for row in found.rows if row.name.startswith("y")]


def computed(found: Trace) -> list[TraceRow]:
    return [row for row in found.rows if re.match(r"v[1-9]|_", row.name)]


def column(rows, which):
    """The arrays of one column, those of rows that write several one after another."""
    values = [getattr(row, which) for row in rows]
    return [one for value in values for one in (value if isinstance(value, tuple) else (value,))]


def assert_same(got, want):
    """Entry for entry, the sign of zero too."""
    got, want = np.asarray(got), np.asarray(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


# ---------------------------------------------------------------------------------------------------- published numbers


@pytest.mark.parametrize("which", COLUMNS)
def test_baydins_tables_number_for_number(which):
    found = {row.name: round(float(getattr(row, which)), 3) for row in of_baydin().rows}
    assert found == {row["name"]: row[which] for row in BAYDIN["rows"]}


def test_baydins_formulae_line_for_line():
    assert [row.formula for row in of_baydin().rows] == [row["formula"] for row in BAYDIN["rows"]]


def test_baydins_function_evaluated_by_hand(x64):
    x1, x2 = 2.0, 5.0
    found = of_baydin()
    by_hand = {
        "v1": (np.log(x1), 1 / x1, 1.0),
        "v2": (x1 * x2, x2, 1.0),
        "v3": (np.sin(x2), 0.0, -1.0),
        "v4": (np.log(x1) + x1 * x2, 1 / x1 + x2, 1.0),
        "v5": (np.log(x1) + x1 * x2 - np.sin(x2), 1 / x1 + x2, 1.0),
        "v-1": (x1, 1.0, 1 / x1 + x2),
        "v0": (x2, 0.0, x1 - np.cos(x2)),
    }
    for name, want in by_hand.items():
        row = found[name]
        np.testing.assert_allclose([row.primal, row.tangent, row.cotangent], want, rtol=1e-15)


def test_baydins_partial_cotangents_add_up_to_the_inputs():
    found = of_baydin()
    through_v2 = found["v2"].cotangent * found["v0"].primal
    through_v3 = found["v3"].cotangent * jnp.cos(found["v0"].primal)
    assert (float(through_v2), round(float(through_v3), 3)) == (5, -0.284)  # table 3, before their sums
    assert_close(through_v2 + found["v1"].cotangent / found["v-1"].primal, found["v-1"].cotangent)
    assert_close(through_v3 + found["v2"].cotangent * found["v-1"].primal, found["v0"].cotangent)


# -------------------------------------------------------------------------------------------- what JAX itself would say


def test_the_outputs_rows_are_jax_jvp(forward_case):
    case, rows = forward_case, outputs(of(forward_case.name))
    out, moved = jax.jit(lambda args, tangents: jax.jvp(case.chain, args, tangents))(case.args, draw(case.args, 7))
    assert_close(column(rows, "primal"), jax.tree.leaves(out))
    assert_close(column(rows, "tangent"), jax.tree.leaves(moved))


def test_the_inputs_cotangents_are_jax_vjp(reverse_case):
    case = reverse_case
    pull = jax.jit(lambda args, cotangent: jax.vjp(case.chain, *args)[1](cotangent))
    want = pull(case.args, draw(case.states[-1], 8))
    assert_close(column(inputs(of(case.name)), "cotangent"), jax.tree.leaves(want))


def test_the_given_directions_stand_at_the_ends(forward_case):
    case, found = forward_case, of(forward_case.name)
    assert_close(column(inputs(found), "primal"), jax.tree.leaves(case.args))
    assert_close(column(inputs(found), "tangent"), jax.tree.leaves(draw(case.args, 7)))
    if case.reverse:
        assert_close(column(outputs(found), "cotangent"), jax.tree.leaves(draw(case.states[-1], 8)))


def every_value(jaxpr, consts, args):
    """All that a program and those it calls compute, in order: JAX runs it with every variable as a result."""
    made = [var for eqn in jaxpr.eqns for var in eqn.outvars if type(var).__name__ != "DropVar"]
    program = new_jaxpr(jaxpr.constvars, jaxpr.invars, made, jaxpr.eqns)
    env = dict(zip(made, jax.jit(jaxpr_as_fun(ClosedJaxpr(program, consts)))(*args), strict=True))
    env.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in CALLS:
            callee = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
            read = [atom.val if hasattr(atom, "val") else env[atom] for atom in eqn.invars]
            yield from every_value(getattr(callee, "jaxpr", callee), getattr(callee, "consts", ()), read)
        else:
            yield from (env[var] for var in eqn.outvars if var in env)


def test_every_row_has_the_value_that_jax_computes(case):
    closed = jax.make_jaxpr(case.chain)(*case.args)
    want = list(every_value(closed.jaxpr, closed.consts, jax.tree.leaves(case.args)))
    got = [value for value in column(computed(of(case.name)), "primal") if value is not None]
    assert [(one.shape, one.dtype) for one in got] == [(one.shape, one.dtype) for one in want]
    for one, other in zip(got, want, strict=True):
        one, other = np.asarray(one, complex), np.asarray(other, complex)
        largest = np.abs(other[np.isfinite(other)]).max(initial=1e-30)
        np.testing.assert_allclose(one, other, rtol=0, atol=largest * tolerance(case.args))


@pytest.mark.parametrize("name", [case.name for case in ZOO if case.forward and case.reverse])
def test_what_flows_in_at_the_inputs_flows_out_at_the_outputs(name):
    found = of(name)
    entering, leaving = (pairing(rows) for rows in (inputs(found), outputs(found)))
    size = sum(np.abs(pairing([row])) for row in (*inputs(found), *outputs(found)))
    assert entering == pytest.approx(leaving, abs=1e-2 * size if name == "mixed dtypes" else 1e-4 * size)


def pairing(rows) -> float:
    """Σ Re c·t over some rows."""
    pairs = zip(column(rows, "cotangent"), column(rows, "tangent"), strict=True)
    wide = [(np.asarray(c, np.complex128), np.asarray(t, np.complex128)) for c, t in pairs if t is not None]
    return float(sum((c * t).sum().real for c, t in wide))


def log_sum_exp_of_a_net(w, v, x):
    return jnp.log(jnp.sum(jnp.exp(v @ jnp.tanh(w @ x))))


PROGRAMS = {
    "baydin": (baydin, (2.0, 5.0)),
    "rosenbrock": (rosenbrock, (jnp.array([-1.2, 1.0]),)),
    "log-sum-exp": (log_sum_exp_of_a_net, (draw(jnp.zeros((4, 3)), 1), draw(jnp.zeros((2, 4)), 2), jnp.arange(3.0))),
    "softmax": (lambda x: -jax.nn.log_softmax(x)[1], (jnp.arange(4.0),)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_cotangent_times_tangent_is_the_same_at_every_cut(name, x64):
    fun, args = PROGRAMS[name]
    args = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), args)
    found = trace(fun, *args, tangent=draw(args, 4))
    want = pairing(outputs(found))
    cuts = [rows for rows in frontiers(found) if rows]
    assert len(cuts) >= 3
    for rows in cuts:
        assert pairing(rows) == pytest.approx(want, rel=1e-10)


def frontiers(found: Trace):
    """After each row, the values still to be read; none where one of them has been read before."""
    rows = found.rows
    reads = [set(re.findall(r"v-?\d+|c\d+", row.formula.split(" = ", 1)[1])) for row in rows]
    for k in range(len(inputs(found)), len(rows) + 1):
        before, after = set().union(*reads[:k]), set().union(*reads[k:])
        if after and not before & after:
            yield [row for row in rows[:k] if row.name in after]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_both_derivatives_are_jaxs_in_other_precisions(dtype, x64):
    def net(w, x):
        return jax.nn.softmax(jnp.tanh(w @ x))

    args = jax.tree.map(lambda leaf: draw(leaf.astype(dtype), 1), (jnp.zeros((3, 4)), jnp.zeros(4)))
    tangent, cotangent = draw(args, 2), draw(net(*args), 3)
    found = trace(net, *args, tangent=tangent, cotangent=cotangent)
    out, moved = jax.jvp(net, args, tangent)
    assert_close(column(outputs(found), "primal"), [out])
    assert_close(column(outputs(found), "tangent"), [moved])
    assert_close(column(inputs(found), "cotangent"), list(jax.vjp(net, *args)[1](cotangent)))
    ends = [*inputs(found), *outputs(found)]
    assert {str(value.dtype) for which in COLUMNS for value in column(ends, which)} == {dtype}


NORMALISED = {"layer norm": lambda x: (x - x.mean()) / x.std(), "softmax": jax.nn.softmax}


@pytest.mark.parametrize("name", NORMALISED)
def test_unless_told_a_trace_follows_the_reports_direction_which_normalising_does_not_kill(name):
    fun, x = NORMALISED[name], jnp.arange(5.0)
    found = trace(fun, x)
    (start,), (end,) = (column(rows, "tangent") for rows in (inputs(found), outputs(found)))
    assert_close(start, survey(jc.discover(fun, x), (x,)).tangent)
    assert np.linalg.norm(start) == pytest.approx(1)
    assert_close(end, jax.jvp(fun, (x,), (start,))[1])
    assert np.linalg.norm(end) > 0.01
    assert "The tangent of argument 0 is random, of length one." in str(found)


def test_a_number_moves_by_one_and_what_is_not_looked_along_stays():
    found = trace(lambda w, x: w * x, jnp.ones(3), 2.0)
    assert [np.asarray(value).tolist() for value in column(inputs(found), "tangent")] == [[0, 0, 0], 1]
    assert "random" not in str(found)


def test_one_jvp_and_a_vjp_a_kind_of_equation_give_all_of_it(monkeypatch):
    calls = []

    def counted(mode, original):
        return lambda *args, **how: calls.append(mode) or original(*args, **how)

    for mode in ("jvp", "vjp"):
        monkeypatch.setattr(derivative.jax, mode, counted(mode, getattr(jax, mode)))
    trace(lambda x: functools.reduce(lambda x, _: jnp.sin(x), range(9), x) * x, 2.0)
    assert sorted(calls) == ["jvp", "vjp", "vjp"]  # of all sines one, of the product one


# ------------------------------------------------------------------------------------------------- where there is no value


def test_without_a_jvp_there_are_no_tangents_and_a_note_says_why():
    found = of("custom vjp")
    assert column(found.rows, "tangent") == [None] * len(found.rows)
    assert all(value is not None for value in column(found.rows, "cotangent"))
    (told,) = found.notes
    assert told.startswith("No tangents: ")
    assert "custom_vjp" in told
    assert straight_through.__name__ in told
    assert told in str(found)


def test_without_a_vjp_there_are_no_cotangents_and_a_note_says_why():
    found = of("while")
    assert column(found.rows, "cotangent") == [None] * len(found.rows)
    assert all(value is not None for value in column(outputs(found), "tangent"))
    (told,) = found.notes
    assert told.startswith("No cotangents: ")
    assert "while" in told


def test_what_nothing_reads_has_cotangent_zero():
    def fun(x, unused):
        jnp.log(x)  # infinite slope at zero: 0·∞ must not come about
        jax.lax.stop_gradient(jnp.exp(x))
        return 2 * x

    found = trace(fun, 0.0, 1.0)
    assert [float(found[name].cotangent) for name in ("v-1", "v0", "v1", "v2")] == [2, 0, 0, 0]


SPECIAL = np.array([-0.0, 0.0, np.nan, np.inf, -np.inf, 1e-38, -1.5], np.float32)


def test_minus_zero_nan_and_infinity_come_through_bit_for_bit():
    def fun(x):
        return jax.lax.rev(-x, (0,))

    found = trace(fun, SPECIAL, tangent=SPECIAL, cotangent=SPECIAL)
    for which in ("primal", "tangent"):
        assert_same(getattr(found["v0"], which), SPECIAL)
        assert_same(getattr(found["v1"], which), -SPECIAL)
        assert_same(getattr(found["y"], which), -SPECIAL[::-1])
    assert_same(found["y"].cotangent, SPECIAL)
    assert_same(found["v1"].cotangent, SPECIAL[::-1])
    assert_same(found["v0"].cotangent, -SPECIAL[::-1])


def test_reverse_mode_sees_the_same_zero_as_the_function():
    slope = trace(jnp.sqrt, np.float32(-0.0))["v0"].cotangent
    assert_same(slope, jax.jit(jax.grad(jnp.sqrt))(jnp.float32(-0.0)))
    assert float(slope) == -np.inf  # of 0.0 it would be ∞


def test_integers_have_values_and_no_derivative():
    found = trace(lambda n, x: (x**n, n + 1), 3, 2.0, tangent=(0, 1.0))
    assert (found["v-1"].tangent, found["v-1"].cotangent) == (None, None)
    assert (int(found["y2"].primal), found["y2"].tangent, found["y2"].cotangent) == (4, None, None)
    assert (float(found["y1"].tangent), float(found["v0"].cotangent)) == (12, 12)


def test_integers_alone_are_told_that_they_have_no_derivative():
    found = trace(lambda n: n * 2, 3)
    assert int(found["y"].primal) == 6
    assert any("2.0 instead of 2" in note for note in found.notes)


@pytest.mark.parametrize("x", [np.zeros((0, 3), np.float32), np.array([1 + 2j, -1j], np.complex64)], ids=str)
def test_empty_and_complex_arrays_have_jaxs_derivatives(x):
    def fun(z):
        return jnp.sum(z * z, axis=0)

    found = trace(fun, x, tangent=draw(x, 1), cotangent=draw(fun(x), 2))
    out, moved = jax.jvp(fun, (x,), (draw(x, 1),))
    assert_close([found["y"].primal, found["y"].tangent], [out, moved])
    assert_close(found["v0"].cotangent, jax.vjp(fun, x)[1](draw(fun(x), 2))[0])
    assert "v1 = v0 × v0" in str(found)


def test_booleans_choose_and_have_no_derivative():
    found = trace(lambda which, x: jnp.where(which, x, -x), np.array([True, False]), np.ones(2, np.float32))
    assert found["v-1"].tangent is None
    assert found["y"].primal.tolist() == [1, -1]
    assert found["v0"].cotangent.tolist() == [1, -1]


def test_random_keys_are_shown_by_their_shape():
    found = trace(lambda key, x: x * jax.random.uniform(key), jax.random.key(0), 1.0)
    assert "key<fry>[]" in str(found)
    assert "key&lt;fry&gt;[]" in found._repr_html_()


# -------------------------------------------------------------------------------------------------- arguments and results


def test_pytrees_go_in_and_out_under_their_paths():
    def cell(params, x):
        return {"sum": params["w"] @ x, "parts": [x, params["b"][0]]}

    found = trace(cell, {"w": jnp.ones((2, 3)), "b": (jnp.array(4.0),)}, jnp.arange(3.0))
    assert [row.formula for row in inputs(found)] == ["v-2 = params['b'][0]", "v-1 = params['w']", "v0 = x"]
    assert [row.name for row in outputs(found)] == ["y['parts'][0]", "y['parts'][1]", "y['sum']"]
    assert found["y['sum']"].primal.tolist() == [3, 3]


def test_a_chains_arguments_are_its_parameters_and_x():
    case = named("mlp")
    assert [row.formula for row in inputs(of("mlp"))][-1] == "v0 = x"
    assert inputs(of("mlp"))[0].formula == f"v{1 - len(jax.tree.leaves(case.args))} = params['dense_0']['b']"


def test_outputs_that_are_literals_inputs_or_constants_have_jaxs_derivatives():
    table = np.arange(3.0, dtype=np.float32)

    def fun(x):
        return 1.0, x, 3, jnp.asarray(table), x * table

    found = trace(fun, 2.0)
    out, moved = jax.jvp(fun, (2.0,), (1.0,))
    assert_close(column(outputs(found), "primal"), list(map(jnp.asarray, out)))
    assert found["y3"].tangent is None  # an integer
    for row, tangent in zip(outputs(found), moved, strict=True):
        if row.name != "y3":
            assert_close(row.tangent, jnp.asarray(tangent))
    assert (found["y1"].formula, found["y2"].formula, found["y3"].formula) == ("y1 = 1", "y2 = v0", "y3 = 3")


def test_a_constant_is_a_row_with_its_own_cotangent():
    table = np.arange(3.0, dtype=np.float32)
    found = trace(lambda x: jnp.sum(x * table), 2.0)
    assert found["c1"].formula == "c1 = constant"
    assert_close(found["c1"].primal, jnp.asarray(table))
    assert found["c1"].cotangent.tolist() == [2, 2, 2]


def test_the_tangent_alone_will_do_for_one_argument():
    x, tangent = jnp.array([0.5, 2.0]), jnp.array([3.0, -1.0])
    alone, in_a_tuple = (trace(rosenbrock, x, tangent=given) for given in (tangent, (tangent,)))
    assert_close(alone["y"].tangent, in_a_tuple["y"].tangent)
    assert_close(alone["y"].tangent, jax.jvp(rosenbrock, (x,), (tangent,))[1])


def test_without_directions_the_last_argument_moves_and_the_outputs_count_one_each():
    found = trace(lambda x, y: (x * y, x + y), 2.0, 5.0)
    assert [float(row.tangent) for row in inputs(found)] == [0, 1]
    assert [float(row.cotangent) for row in outputs(found)] == [1, 1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tangent": {"a": 1.0, "b": np.ones(3, np.float32)}}, r"tangent.*\['b'\].*float32\[2\].*float32\[3\]"),
        ({"tangent": {"a": 1.0}}, "tangent must have the structure"),
        ({"cotangent": np.ones(3, np.float32)}, r"cotangent.*float32\[2\].*float32\[3\]"),
        ({"cotangent": (1.0, 2.0)}, "cotangent must have the structure"),
    ],
)
def test_a_direction_that_does_not_fit_is_told_with_its_leaf(given, told):
    with pytest.raises(TangentMismatchError, match=told):
        trace(lambda x: x["a"] * x["b"], {"a": 2.0, "b": np.ones(2, np.float32)}, **given)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: trace(lambda: 1.0), "no array was given"),
        (lambda: trace(3, 1.0), "trace needs a function, but 3 is not callable"),
        (lambda: trace(jnp.sin, "1"), "Argument 0 is '1', which is not an array"),
        (lambda: trace(jnp.sin, jax.ShapeDtypeStruct((2,), "float32")), "argument 0 has only shapes"),
        (lambda: jax.jit(lambda x: trace(jnp.sin, x)["y"].primal)(1.0), "outside jit, vmap and grad"),
    ],
)
def test_what_cannot_be_traced_is_told_in_a_sentence(call, told):
    with pytest.raises(TypeError, match=told):
        call()


def test_an_error_of_the_function_itself_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        trace(lambda x: x * (1 / 0), 1.0)


# ---------------------------------------------------------------------------------------------------------------- folding


def test_folding_keeps_every_row_in_order(case):
    found = of(case.name)
    numbers = [int(name) for row in computed(found) for name in re.findall(r"v(\d+)", row.name)]
    assert numbers == list(range(1, len(numbers) + 1))
    walked = [row for row, _ in found.walk(everything=True) if not row.rows]
    assert walked == list(found.rows)
    assert all(row in {r for r, _ in found.unfold().walk()} for row in found.rows)


def test_a_fold_has_the_values_of_what_it_returns():
    found = of("mlp")
    folds = [row for row in found.tree if row.rows]
    assert [fold.call for fold in folds] == ["dense_0", "dense_1"]
    for fold, state in zip(folds, (named("mlp").states[1], named("mlp").states[3]), strict=True):
        assert fold.primal is fold.rows[-1].primal
        assert fold.cotangent is fold.rows[-1].cotangent
        assert_close(fold.primal, state)


def test_a_fold_names_what_it_reads_and_what_it_returns():
    found = trace(lambda x: jax.nn.log_softmax(x) * x, jnp.arange(3.0))
    (fold,) = [row for row in found.tree if row.rows]
    assert fold.formula == f"{fold.name} = log_softmax(v0)"
    assert fold.name == fold.rows[-1].name
    assert f"+ {fold.formula}" in str(found)


def test_unfold_opens_all_or_those_of_one_name():
    found = of("mlp")
    closed, one, everything = (len(list(t.walk())) for t in (found, found.unfold("dense_0"), found.unfold()))
    inside = {row.call: len(row.rows) for row in found.tree if row.rows}
    assert one == closed + inside["dense_0"]
    assert everything == closed + sum(inside.values()) == len(found.rows) + len(inside)
    assert one < len(list(found.unfold("dense_0").unfold("dense_1").walk())) == everything
    assert "- " in str(found.unfold("dense_0"))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"'conv_9' is folded\. Folded: dense_0, dense_1"):
        of("mlp").unfold("conv_9")
    with pytest.raises(KeyError, match=r"No row is named 'v99'\. Nearest: v"):
        of_baydin()["v99"]


def test_a_scope_that_holds_everything_does_not_hide_the_program():
    @jax.jit
    def model(x):
        return jnp.sin(x) * x

    found = trace(lambda x: jax.named_scope("outermost")(model)(x), 2.0)
    assert [row.formula for row in found.tree] == ["v0 = x", "v1 = sin(v0)", "v2 = v1 × v0", "y = v2"]
    assert found["v1"].scope[0] == "outermost"


def test_scopes_within_scopes_are_one_group_with_both_names():
    def fun(x):
        with jax.named_scope("outer"), jax.named_scope("inner"):
            y = jnp.sin(x) * 2
        return y + 1

    found = trace(fun, 0.5)
    (group,) = [row for row in found.tree if row.rows]
    assert (group.call, group.formula) == ("outer/inner", "v2 = outer/inner(v0)")
    assert len(list(found.unfold("outer/inner").walk())) == len(found.rows) + 1


def test_a_rematerialised_call_is_looked_through():
    def fun(x):
        return jnp.sin(jnp.cos(x))

    plain, again = (trace(f, 0.5) for f in (fun, jax.checkpoint(fun)))
    assert [row.formula for row in again.rows] == [row.formula for row in plain.rows]
    for which in COLUMNS:
        assert_close(column(again.rows, which), column(plain.rows, which))


def test_several_results_of_one_equation_are_one_row_found_by_either_name():
    def fun(x):
        return jax.lax.scan(lambda c, t: (c * t, c + t), x, jnp.arange(1.0, 4.0))

    found = trace(fun, 2.0, unroll_limit=0)
    row = computed(found)[-1]
    one, other = row.name.split(", ")
    assert found[one] is found[other] is row
    carry, stacked = fun(2.0)
    assert float(row.primal[0]) == float(carry)
    assert_close(row.primal[1], stacked)


# ------------------------------------------------------------------------------------------------------------------ loops


def test_a_loop_is_a_group_of_rows_a_step():
    found = trace(lambda x: jax.lax.fori_loop(0, 3, lambda _, v: jnp.sin(v) * v, x), 2.0)
    steps = [row for row in found.tree if row.call]
    assert [step.call for step in steps] == ["step_0", "step_1", "step_2"]
    value = tangent = None
    for step in steps:
        value = np.sin(value or 2.0) * (value or 2.0)
        last = step.rows[-1]
        assert float(last.primal) == pytest.approx(value, rel=1e-5)
        tangent = last.tangent
    assert float(tangent) == pytest.approx(float(found["v0"].cotangent), rel=1e-4)
    assert len(list(found.unfold("step_1").walk())) == len(list(found.walk())) + len(steps[1].rows)


def test_a_loop_longer_than_the_limit_stays_one_row():
    loop = trace(lambda x: jax.lax.fori_loop(0, 5, lambda _, v: jnp.sin(v), x), 2.0, unroll_limit=4)
    assert not any(row.call for row in loop.tree)
    (row,) = computed(loop)
    assert "; 5 steps)" in row.formula
    assert_close(loop["y"].primal, jax.lax.fori_loop(0, 5, lambda _, v: jnp.sin(v), 2.0))


# ------------------------------------------------------------------------------------------------------- text and notebooks


def test_a_line_a_row_fits_a_narrow_terminal(monkeypatch):
    net, args = of_net(lambda: jc.nets.mlp([5, 7, 3], "tanh", sigma_b=0.1), (5,))()
    monkeypatch.setenv("COLUMNS", "80")
    for found in (trace(net, *args), of_baydin(), trace(net, *args).unfold()):
        lines = str(found).splitlines()
        assert max(map(len, lines)) <= 80
        shown = [row.formula for row, _ in found.walk()]
        starts = [re.sub(r"^[ +-]+(?=v|y)", "", line) for line in lines]
        assert [formula for formula in shown if not any(line.startswith(formula) for line in starts)] == []


def test_a_wide_terminal_is_given_the_source_and_the_pictures():
    text = str(trace(lambda x: jnp.sin(x), jnp.arange(3.0)))
    assert re.search(r"test_trace\.py:\d+", text)
    assert re.search(r"f32\[3\] ‖2\.236‖ ▁▅█", text)


def test_too_many_rows_are_left_out_and_the_table_says_how_many(monkeypatch):
    monkeypatch.setattr(sys.modules[Trace.__module__], "SHOWN", 4)

    def fun(x):
        for _ in range(50):
            x = jnp.sin(x)
        return x

    found = trace(fun, 1.0)
    assert len(found.rows) == 52
    text, html = str(found), found._repr_html_()
    assert "… 48 rows …" in text
    assert "48 rows are left out here; all are in .rows." in text
    assert [name in text for name in ("v0 = x", "v1 = ", "v2 = ", "v49 = ", "v50 = ", "y = v50")] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
    assert "12 rows are left out here; all are in .rows." in html
    assert html.count("sin(") < 2 * 50


HOSTILE = "<script>alert('1')</script>\"&<img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser would make of some HTML: its tags with the names of their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data


def with_names(name) -> Trace:
    """A dict's key, a named scope, a jitted function and the function itself, all called so."""

    def inner(x):
        return jnp.tanh(x) + 1

    def fun(tree):
        with jax.named_scope(name.replace("/", "|")):
            scoped = jnp.sin(tree[name]) * 2
        return {name: scoped * jax.jit(inner)(tree[name]) * custom(tree[name])}

    inner.__name__ = inner.__qualname__ = fun.__name__ = fun.__qualname__ = name
    custom = jax.custom_jvp(inner)
    custom.defjvp(lambda primals, tangents: (inner(*primals), tangents[0]))
    return trace(fun, {name: 1.0}).unfold()


def test_hostile_names_stay_text():
    page, harmless = Page(with_names(HOSTILE)._repr_html_()), Page(with_names("harmless")._repr_html_())
    assert set(page.tags) == set(harmless.tags)
    for part in ("<script>alert(", "<img src=x onerror=alert(2)>"):
        assert part in page.text


def test_html_opens_what_is_unfolded_and_needs_no_script():
    found = of("mlp")
    closed, one, everything = (t._repr_html_() for t in (found, found.unfold("dense_0"), found.unfold()))
    opened = [len(re.findall(r"<details[^>]* open", html)) for html in (closed, one, everything)]
    assert opened == [0, 1, 2]
    assert all(html.count("<details") == 2 and "<script" not in html for html in (closed, one, everything))
    for row in found.rows:  # what is folded is there all the same
        assert row.formula.split(" = ")[0] in closed


def test_dead_code_behind_a_loop_that_is_unrolled_is_left_out():
    def fun(x):
        x, stacked = jax.lax.scan(lambda c, _: (jnp.sin(c), 2 * c), x, None, length=2)
        jnp.sum(stacked) * 3  # nothing reads it
        return x

    found = jc.trace(fun, 1.0)
    assert_close(found["y"].tangent, jax.jit(jax.grad(fun))(1.0))
    assert len([row for row in found.rows if "sin" in row.formula]) == 2
