"""Results: each shows itself in a terminal, in one line and in a notebook, none can be changed, rows are a data frame."""

import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxchain as jc
from jaxchain.show.table import Shown, Tabular

NET = jc.nets.mlp([3, 4, 2], "tanh")
STEP = jc.train.StepInfo(jnp.int32(3), {"w": jnp.ones((2, 5))}, jnp.ones(4), jnp.array(0.5), {"w": 1.0}, {"w": 1.0})


def args():
    return NET.init(jax.random.key(0)), jnp.ones(3)


def fitted(learning_rate=0.1):
    descent = optax.sgd(learning_rate)
    return jc.train.fit(lambda w, x: (w * x).sum() ** 2, jnp.ones(2), jnp.ones(2), descent, steps=3, progress=False)


def compared():
    with tempfile.TemporaryDirectory() as folder:
        return jc.compare((NET, args()), (NET[:1], args()), f"{folder}/page.html")


BUILD = {
    "Chain": lambda: NET,
    "Decision": lambda: jc.plan(NET, args()),
    "Bracketing": lambda: jc.bracket([2, 3, 1], [6, 3]),
    "Comparison": lambda: jc.compare_modes(jnp.sin, jnp.ones(2), repeats=1),
    "SideBySide": lambda: compared(),
    "Trace": lambda: jc.trace(NET, *args()),
    "Transforms": lambda: jc.transforms(NET, *args()),
    "ForwardSweep": lambda: jc.forward_sweep(NET, args(), jnp.ones(3)),
    "ReverseSweep": lambda: jc.reverse_sweep(NET, args(), jnp.ones(2)),
    "LocalJacobian": lambda: jc.local_jacobians(NET, args())[0],
    "Jacobians": lambda: jc.suffix_jacobians(NET, args()),
    "Structure": lambda: jc.Structure.of(np.eye(3)),
    "Fit": fitted,
    "History": lambda: result("Fit").history,
    "StepInfo": lambda: STEP,
    "TraceRow": lambda: result("Trace").rows[-1],
    "TransformRow": lambda: result("Transforms")["vjp"],
    "StageLines": lambda: result("Transforms").stage("tanh_0"),
}
REPR = {
    "Chain": "Chain(dense_0 → tanh_0 → dense_1)",
    "Bracketing": "Bracketing(2 steps, 9 multiply-adds)",
    "SideBySide": "SideBySide(a beside b, 1 stage aligned)",
    "Comparison": "Comparison(forward, reverse, mixed, auto)",
    "Transforms": "Transforms(fun, jvp, linearize, transpose, vjp, grad, vmap, jit)",
    "ForwardSweep": "ForwardSweep(4 states)",
    "ReverseSweep": "ReverseSweep(4 states)",
    "LocalJacobian": "LocalJacobian(dense_0, 4 × 3)",
    "Jacobians": "Jacobians(4, ∂dense_1/∂input … ∂dense_1/∂dense_1)",
    "Structure": "Structure(3 × 3, identity · rank 3 (full))",
    "Fit": "Fit(3 steps, loss 4 → 0.5184)",
    "History": "History(3 steps, loss 4 → 0.5184)",
    "StepInfo": "StepInfo(step 3, loss 0.5)",
}
EACH = pytest.mark.parametrize("name", BUILD)
WITH_ROWS = pytest.mark.parametrize(
    "name", ["Chain", "Decision", "Bracketing", "Comparison", "SideBySide", "Trace", "Transforms"]
)
OF_THE_USER = {"params", "opt_state", "batch", "loss", "grads", "updates", "observed", "primals", "tangents"} | {
    "cotangents",
    "arg_cotangents",
}


@cache
def result(name):
    return BUILD[name]()


# ------------------------------------------------------------------------------------------------ laws of all results


@EACH
def test_a_result_is_what_it_is_called(name):
    assert type(result(name)).__name__ == name
    assert isinstance(result(name), Shown)


@EACH
def test_a_repr_is_one_short_line(name):
    text = repr(result(name))
    assert text.startswith(f"{name}(")
    assert len(text) < 120
    assert text.isprintable()
    assert "array" not in text.lower()
    assert text == REPR.get(name, text)


@EACH
def test_a_text_is_plain_and_fits_the_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = str(result(name))
    assert text != repr(result(name))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


@EACH
def test_every_result_shows_itself_in_notebooks(name):
    page = result(name)._repr_html_()
    assert page.lstrip().startswith(("<div", "<style"))
    assert "object at 0x" not in page


@EACH
def test_results_cannot_be_changed(name):
    for field in dataclasses.fields(result(name)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result(name), field.name, None)


@EACH
def test_nothing_that_a_result_holds_can_be_changed_but_what_the_caller_gave(name):
    for field in dataclasses.fields(result(name)):
        if field.name not in OF_THE_USER:
            assert not isinstance(getattr(result(name), field.name), list | set | Mapping), field.name


@WITH_ROWS
def test_rows_are_records_that_cannot_be_changed(name):
    rows = result(name).rows
    assert isinstance(rows, tuple)
    for row in rows:
        assert isinstance(row, tuple) or type(row).__dataclass_params__.frozen


# -------------------------------------------------------------------------------------------------------- data frames


@WITH_ROWS
def test_rows_become_a_data_frame(name):
    pytest.importorskip("pandas")
    frame = result(name).to_pandas()
    assert isinstance(result(name), Tabular)
    assert len(frame) == len(result(name).rows) > 0
    assert frame.map(np.isscalar, na_action="ignore").all(axis=None)


def test_a_data_frame_of_a_comparison_has_the_fields_of_its_rows():
    pytest.importorskip("pandas")
    found = result("Comparison")
    assert list(found.to_pandas().columns) == [field.name for field in dataclasses.fields(jc.ModeRow)]
    assert list(found.to_pandas()["flops"]) == [row.flops for row in found.rows]


def test_a_data_frame_of_transforms_has_their_numbers_without_their_programs():
    pytest.importorskip("pandas")
    frame = result("Transforms").to_pandas()
    assert list(frame.columns) == ["name", "equations", "flops", "residual_bytes", "note"]
    assert list(frame["name"]) == [row.name for row in result("Transforms").rows]


def test_a_data_frame_of_a_trace_has_a_row_an_equation_with_norms_and_where_it_belongs():
    pytest.importorskip("pandas")
    frame = result("Trace").to_pandas().set_index("name")
    assert list(frame.columns) == [
        *("formula", "source", "call", "shape"),
        *("primal_norm", "tangent_norm", "cotangent_norm"),
    ]
    for row in result("Trace").rows:
        assert frame["formula"][row.name] == row.formula
        assert frame["primal_norm"][row.name] == pytest.approx(np.linalg.norm(row.primal), rel=1e-6)
    assert set(frame["call"]) == {"", "dense_0", "dense_1"}
    assert frame["shape"].iloc[-1] == "f32[2]"


def test_what_has_no_numbers_has_no_norm_in_a_data_frame():
    pytest.importorskip("pandas")
    frame = jc.trace(lambda k, x: jnp.where(k > 2, x, 2 * x), 3, 4.0).to_pandas().set_index("name")
    assert frame["primal_norm"]["v-1"] == 3
    assert frame[["tangent_norm", "cotangent_norm"]].loc["v-1"].isna().all()
    assert np.isnan(frame["primal_norm"][frame["formula"].str.contains(">")].astype(float)).all()


def test_without_pandas_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result("Bracketing").to_pandas()


# ----------------------------------------------------------------------------------------------------- one by one


def test_a_bracketing_tells_its_steps():
    text = str(jc.bracket([4, 1, 4, 4], [4, 4, 16]))
    assert "∂x2/∂x1, by tangents" in text
    assert "∂x3/∂x1: push the columns of ∂x2/∂x1 through to x3" in text
    assert "∂x3/∂x0: pull the rows of ∂x3/∂x1 back to x0" in text
    assert text.endswith("Together 36 multiply-adds.")
    assert str(jc.Step("multiply", 0, 1, 3, 16)) == "∂x3/∂x0 = ∂x3/∂x1 · ∂x1/∂x0"


def test_a_fit_tells_whether_it_diverged():
    assert "It did not diverge." in str(result("Fit"))
    with pytest.warns(RuntimeWarning, match="diverged"):
        found = fitted(1e20)
    assert f"diverged at step {found.diverged_at}" in repr(found)
    assert f"the loss is not finite at step {found.diverged_at}" in str(found)


def test_what_is_traced_shows_its_types():
    told = []

    @jax.jit
    def look(step):
        told.extend([repr(step), str(step)])
        return step

    look(STEP)
    assert told[0] == "StepInfo(step i32[], loss f32[])"
    look(result("LocalJacobian"))
    assert told[2:] == ["LocalJacobian(dense_0, 4 × 3)", "Jacobian of dense_0, 4 × 3"]


def test_a_name_of_many_lines_does_not_break_a_repr():
    chain = jc.Chain([jc.Stage("two\nlines " + "x" * 300, jnp.sin)])
    assert repr(chain).startswith("Chain(two lines xx")
    assert len(repr(chain)) < 120


def test_text_that_looks_like_markup_is_escaped_in_notebooks():
    chain = jc.Chain([jc.Stage("<script>", jnp.sin)])
    found = jc.transforms(chain, 1.0)
    for shown in (chain, found, found["fun"], found.stage("<script>"), jc.trace(chain, 1.0)):
        assert "<script" not in shown._repr_html_()
