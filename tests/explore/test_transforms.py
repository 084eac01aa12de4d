"""`transforms`: every program is what JAX's transform computes, and every line knows its stage."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from conftest import ZOO, Case, assert_close, draw, named, straight_through
from jax.extend.core import jaxpr_as_fun

import jaxchain as jc
from jaxchain.explore.listing import WIDTH
from jaxchain.explore.transformed import TransformRow, Transforms, transforms

NAMES = ("fun", "jvp", "linearize", "transpose", "vjp", "grad", "vmap", "jit")
SHARED = ("linearize", "transpose")


@cache
def of(name: str) -> Transforms:
    case = named(name)
    return transforms(case.chain, *case.args)


def along(case: Case) -> Any:
    return lambda x: case.chain(*case.others, x)


def run(row: TransformRow, *given: Any) -> list[jax.Array]:
    return jax.jit(jaxpr_as_fun(row.jaxpr))(*jax.tree.leaves(given))


def residuals(row: TransformRow, case: Case) -> list[jax.Array]:
    out = jax.tree.leaves(case.states[-1])
    values = jax.jit(jaxpr_as_fun(row.primal))(*jax.tree.leaves(case.args))
    assert_close(values[: len(out)], out)
    return values[len(out) :]


def assert_leaves_close(got: list[Any], want: Any) -> None:
    assert_close(list(got), jax.tree.leaves(want))


def equation_lines(row: TransformRow) -> list[tuple[str, int | None]]:
    """(primitive, stage) of the line that each equation begins with; jaxprs that are printed ahead left out."""
    lines = list(row.lines)
    start = next((k for k, (text, _) in enumerate(lines) if text.startswith("{ lambda")), 0)
    found = ((re.match(r" {4}\w[^=]*= (\w+)", text), stage) for text, stage in lines[start:])
    return [(match[1], stage) for match, stage in found if match]


# ------------------------------------------------------------------------------- programs compute what JAX's transform does


def test_the_program_of_fun_is_the_function(case: Case):
    assert_leaves_close(run(of(case.name)["fun"], case.args), case.states[-1])


def test_the_program_of_jvp_is_jax_jvp(forward_case: Case):
    case, tangent = forward_case, draw(forward_case.x, 7)
    want = jax.jit(lambda x, t: jax.jvp(along(case), (x,), (t,)))(case.x, tangent)
    assert_leaves_close(run(of(case.name)["jvp"], case.args, tangent), want)


def test_the_linear_part_on_the_residuals_is_the_tangent(forward_case: Case):
    case, tangent = forward_case, draw(forward_case.x, 7)
    row = of(case.name)["linearize"]
    _, want = jax.jit(lambda x, t: jax.jvp(along(case), (x,), (t,)))(case.x, tangent)
    assert_leaves_close(run(row, residuals(row, case), tangent), want)


def test_its_transpose_on_the_residuals_is_jax_vjp(reverse_case: Case):
    case, cotangent = reverse_case, draw(reverse_case.states[-1], 8)
    row = of(case.name)["transpose"]
    (want,) = jax.jit(lambda x, c: jax.vjp(along(case), x)[1](c))(case.x, cotangent)
    assert_leaves_close(run(row, residuals(row, case), cotangent), want)
    assert_leaves_close(run(of(case.name)["vjp"], case.args, cotangent), (case.states[-1], want))


def test_transpose_is_jax_linear_transpose_of_the_linear_part(mlp: Case):
    linear, back = of("mlp")["linearize"], of("mlp")["transpose"]
    kept = residuals(linear, mlp)
    cotangent = draw(mlp.states[-1], 8)
    fn = jaxpr_as_fun(linear.jaxpr)
    (want,) = jax.linear_transpose(lambda t: fn(*kept, t), mlp.x)([cotangent])
    assert_leaves_close(run(back, residuals(back, mlp), cotangent), want)


def test_the_program_of_grad_is_the_gradient_of_the_sum(reverse_case: Case):
    case = reverse_case

    def total(x: Any) -> jax.Array:
        return sum((jnp.sum(leaf.real) for leaf in jax.tree.leaves(along(case)(x))), jnp.zeros(()))

    row = of(case.name)["grad"]
    assert_leaves_close(run(row, case.args), jax.jit(jax.grad(total))(case.x))
    assert ("sum" in row.title) == (case.name not in ("scalar", "loss"))


def test_the_program_of_vmap_is_jax_vmap_on_eight_samples(case: Case):
    batch = jax.tree.map(lambda leaf: draw(jnp.zeros((8, *leaf.shape), leaf.dtype), 9), case.x)
    want = jax.jit(jax.vmap(along(case)))(batch)
    assert_leaves_close(run(of(case.name)["vmap"], case.others, batch), want)


def test_any_argument_may_be_chosen(mlp: Case):
    found = transforms(lambda p, x: mlp.chain(p, x), *mlp.args, argnum=0)
    tangent = draw(mlp.args[0], 3)
    want = jax.jvp(lambda p: mlp.chain(p, mlp.x), (mlp.args[0],), (tangent,))
    assert_leaves_close(run(found["jvp"], mlp.args, tangent), want)


# -------------------------------------------------------------------------------------------------- what is linear


def test_the_linear_part_is_linear_and_every_equation_of_it_reads_a_tangent(forward_case: Case):
    row = of(forward_case.name)["linearize"]
    kept = residuals(row, forward_case)
    t, u = draw(forward_case.x, 4), draw(forward_case.x, 5)
    both = jax.tree.map(lambda a, b: 2 * a - b, t, u)
    pushed = [run(row, kept, v) for v in (t, u)]
    assert_close(run(row, kept, both), [2 * a - b for a, b in zip(*pushed, strict=True)], 1e-2 if mixed(both) else 3e-5)
    reached = set(row.jaxpr.jaxpr.invars[len(kept) :])
    for eqn in row.jaxpr.jaxpr.eqns:
        read = [atom for atom in eqn.invars if not hasattr(atom, "val")]
        assert not reached.isdisjoint(read) or not read  # zeros, where a loop's carry begins without a tangent
        reached.update(eqn.outvars)


def mixed(tree: Any) -> bool:
    return any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(tree))


# -------------------------------------------------------------------------------------------------- stages of lines


@pytest.mark.parametrize("name", [case.name for case in ZOO])
def test_lines_belong_to_the_stage_that_discovery_put_the_equation_in(name: str):
    case = named(name)
    chain = jc.discover(lambda *args: case.chain(*args), *case.args)
    row = transforms(chain, *case.args)["fun"]
    for number, stage in enumerate(chain):
        written = Counter(name for name, of_stage in equation_lines(row) if of_stage == number)
        assert written == Counter(equation.name for equation in stage.segment.equations)


def test_every_equation_of_every_program_has_a_stage(case: Case):
    for row in of(case.name).rows:
        if row.jaxpr is not None and row.name != "grad":  # the gradient of a sum has an equation that is of no stage
            assert None not in [stage for _, stage in equation_lines(row)]
            assert len(equation_lines(row)) == row.equations == len(row.jaxpr.jaxpr.eqns)


def test_tangents_visit_the_stages_in_order_and_cotangents_backwards(reverse_case: Case):
    order = {name: [s for _, s in of(reverse_case.name)[name].lines if s is not None] for name in SHARED}
    assert order["linearize"] == sorted(order["linearize"])
    assert order["transpose"] == sorted(order["transpose"], reverse=True)


def test_lines_are_all_of_the_program_as_jax_prints_it(case: Case):
    row = of(case.name)["fun"]
    assert [name for name, _ in equation_lines(row)] == [eqn.primitive.name for eqn in row.jaxpr.jaxpr.eqns]
    assert row.program == "\n".join(text for text, _ in row.lines)
    printed = row.jaxpr.jaxpr.pretty_print(width=WIDTH, use_color=False)
    if "\n" in printed:  # one line would not be one line an equation
        assert row.program == printed


ON_A_TERMINAL = """
import sys
import jax, jax.numpy as jnp
import jaxchain as jc

def solve(x):  # its jaxprs are in a container, which JAX colours whatever it is asked
    return jax.lax.custom_linear_solve(lambda v: 2 * v, x, lambda _, b: b / 2, lambda _, b: b / 2)

if "\\x1b" not in str(jax.make_jaxpr(jnp.sin)(1.0)):
    sys.exit("JAX does not colour what it prints here")
found = jc.transforms(jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("solve", solve)]), jnp.ones(2))
for row in found.rows:
    if "\\x1b" in row.program or not {0, 1} <= {stage for _, stage in row.lines}:
        sys.exit(f"{row.name}: {row.lines}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_lines_have_no_colours_and_keep_their_stages():
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        command = [sys.executable, "-c", ON_A_TERMINAL]
        done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True)
    assert not done.returncode, done.stderr


def test_further_lines_of_an_equation_have_its_stage():
    row = of("rnn")["fun"]
    assert [stage for text, stage in row.lines if text.strip().startswith("jaxpr={ lambda")] == [0, 1]
    assert [stage for _, stage in (row.lines[0], row.lines[-1])] == [None, None]


def test_a_program_of_one_equation_has_a_line_for_it():
    row = transforms(jc.Chain([jc.Stage("sin", jnp.sin)]), 1.0)["fun"]
    assert [stage for _, stage in row.lines] == [None, 0, None]


def test_what_equations_share_belongs_to_none():
    shared = jax.jit(lambda x: jnp.maximum(jnp.sin(x), 0.0))

    @jax.custom_jvp
    def twice_shared(x):
        return shared(shared(x))

    twice_shared.defjvp(lambda primals, tangents: (twice_shared(*primals), tangents[0]))
    chain = jc.Chain([jc.Stage("a", twice_shared), jc.Stage("b", jnp.cos), jc.Stage("c", twice_shared)])
    row = transforms(chain, jnp.ones(3))["fun"]
    assert [stage for text, stage in row.lines if re.match(r" {4}\w:f32\[3\] = c", text)] == [0, 1, 2]
    if row.lines[0][0].startswith("let"):
        assert row.lines[0][1] is None


def test_a_parameter_of_many_lines_does_not_hide_the_equations():
    def solve(x):
        w = jnp.eye(3) + jnp.outer(x, x)
        return jnp.linalg.solve(w, jnp.sin(x))  # its parameters hold programs that JAX prints as mere text

    found = transforms(jc.Chain([jc.Stage("solve", solve), jc.Stage("cos", jnp.cos)]), jnp.ones(3))
    for name in ("fun", "jvp", "transpose", "vjp"):
        row = found[name]
        assert [name for name, _ in equation_lines(row)] == [eqn.primitive.name for eqn in row.jaxpr.jaxpr.eqns]
        assert {stage for _, stage in equation_lines(row)} == {0, 1}


def test_compiled_instructions_belong_to_stages():
    chain = jc.Chain([jc.Stage("first", jnp.sin), jc.Stage("second", jnp.cos)])
    row = transforms(chain, jnp.ones(3))["jit"]
    assert {stage for text, stage in row.lines if " sine(" in text} == {0}
    assert {stage for text, stage in row.lines if " cosine(" in text} == {1}
    assert row.equations >= 1


def test_what_does_not_depend_on_the_chosen_argument_is_of_no_stage():
    def fun(p, x):
        return jnp.sin(x * jnp.exp(p))

    row = transforms(fun, 2.0, 3.0)["fun"]
    assert {stage for text, stage in row.lines if "= exp" in text} == {None}


def test_the_lines_of_a_stage_are_beside_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    stage = of("scalar").stage("si")
    assert stage.name == "sin"
    assert [name for name, _ in stage.programs] == list(NAMES)
    assert "linearize                              │ transpose" in str(stage)
    linear, back = (dict(stage.programs)[name] for name in SHARED)
    assert [line.split(" = ")[1].split()[0] for line in (*linear, *back)] == ["mul", "mul"]


# ------------------------------------------------------------------------------------------------------ counts


def test_jvp_is_the_function_and_its_tangent(forward_case: Case):
    found = of(forward_case.name)
    assert found["fun"].flops <= found["jvp"].flops
    assert found["fun"].equations <= found["jvp"].equations


@pytest.mark.parametrize("name", ["mlp", "residual_net", "loss", "scalar", "fft", "complex ends", "conv_net"])
def test_the_primal_pass_and_the_linear_part_are_the_jvp_split_in_two(name: str):
    found = of(name)
    primal = transforms_flops(found["linearize"].primal)
    assert primal + found["linearize"].flops == found["jvp"].flops
    assert transforms_flops(found["transpose"].primal) + found["transpose"].flops == found["vjp"].flops


def transforms_flops(closed: Any) -> float:
    from jaxchain.cost.count import flops

    return sum(map(flops, closed.jaxpr.eqns))


def test_counts_are_those_of_a_hand():
    w = jnp.ones((3, 4))
    found = transforms(lambda x: jnp.sin(w @ x), jnp.ones(4))
    products, sines = 2 * 3 * 4, 3
    assert [found[name].flops for name in ("fun", "jvp", "linearize", "transpose")] == [
        products + sines,
        2 * products + 3 * sines,
        products + sines,
        products + sines,
    ]
    assert [found[name].equations for name in ("fun", "jvp", "linearize", "transpose")] == [2, 5, 2, 2]
    assert found["vmap"].flops == 8 * (products + sines)


def test_residuals_are_what_the_primal_pass_computed_and_arguments_cost_nothing():
    def mlp(params, x):
        for w in params:
            x = jnp.sin(w @ x)
        return x

    params = [jnp.ones((5, 4), jnp.float32), jnp.ones((3, 5), jnp.float32)]
    found = transforms(mlp, params, jnp.ones(4))
    cosines = 4 * (5 + 3)
    assert [found[name].residual_bytes for name in NAMES] == [None, None, cosines, cosines, cosines, None, None, None]
    closed_over = transforms(lambda x: mlp(params, x), jnp.ones(4))
    assert closed_over["transpose"].residual_bytes == cosines
    by_params = transforms(mlp, params, jnp.ones(4), argnum=0)
    assert by_params["transpose"].residual_bytes == cosines + 4 * 5  # the hidden state, beside the second weights


def test_a_value_kept_twice_counts_once():
    found = transforms(lambda x: jnp.exp(x) * 3.0 + jnp.exp(x) * 0.0, jnp.ones(4))
    chain = jc.Chain([jc.Stage("exp", jnp.exp), jc.Stage("square", lambda y: y * y)])
    assert found["transpose"].residual_bytes == 2 * 4 * 4
    assert transforms(chain, jnp.ones(4))["transpose"].residual_bytes == 4 * 4


def test_equations_that_nothing_reads_are_left_out():
    def fun(x):
        jnp.exp(x)
        return jnp.sin(x)

    found = transforms(fun, 1.0)
    assert [found[name].equations for name in ("fun", "jvp", "grad")] == [1, 3, 2]


def test_shapes_do_as_well_as_arrays(mlp: Case):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), mlp.args)
    got, want = transforms(mlp.chain, *shapes), of("mlp")
    assert [row.lines for row in got.rows] == [row.lines for row in want.rows]
    assert [row.flops for row in got.rows] == [row.flops for row in want.rows]


# -------------------------------------------------------------------------------------------- what does not exist


def missing(found: Transforms) -> set[str]:
    for row in found.rows:
        assert bool(row.note) == (not row.lines)
        if row.note:
            assert (row.program, row.equations, row.flops, row.jaxpr) == ("", 0, None, None)
    return {row.name for row in found.rows if not row.lines}


def test_every_transform_has_a_row(case: Case):
    assert tuple(row.name for row in of(case.name).rows) == NAMES
    want = (set() if case.forward else {"jvp", "linearize"}) | (set() if case.reverse else {"transpose", "vjp", "grad"})
    assert missing(of(case.name)) == want


def test_a_missing_row_says_why():
    assert "custom VJP" in of("custom vjp")["jvp"].note
    assert "custom VJP" in str(of("custom vjp")["linearize"])
    assert "while_loop" in of("while")["grad"].note


def test_a_custom_vjp_within_a_loop_is_seen_too():
    def fun(x):
        return jax.lax.scan(lambda c, _: (straight_through(c), None), x, None, length=3)[0]

    chain = jc.Chain([jc.Stage("loop", fun)])
    assert missing(transforms(chain, jnp.ones(2))) == {"jvp", "linearize"}


def test_integers_have_no_gradient():
    chain = jc.Chain([jc.Stage("largest", jnp.argmax)])
    found = transforms(chain, jnp.ones(3))
    assert missing(found) == {"grad"}
    assert "integers" in found["grad"].note


def test_what_discover_refuses_is_refused_in_its_words(mlp: Case):
    with pytest.raises(TypeError, match="discover needs a function"):
        transforms(3, jnp.ones(2))
    with pytest.raises(ValueError, match="argnum=4 names no argument"):
        transforms(mlp.chain, *mlp.args, argnum=4)
    with pytest.raises(TypeError, match="int32, which has no derivative"):
        transforms(jc.Chain([jc.Stage("twice", lambda x: 2 * x)]), jnp.arange(3))
    with pytest.raises(jc.StageError, match="'dense_0'"):
        transforms(mlp.chain, mlp.args[0], jnp.ones(9))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"No transform is named 'linearise'\. Nearest: linearize"):
        of("mlp")["linearise"]
    with pytest.raises(KeyError, match="Nearest: dense_0"):
        of("mlp").stage("dence_0")


# ----------------------------------------------------------------------------------------------------- showing it

HOSTILE = ("<script>alert(1)</script>", "a/b", 'jvp("§1")', "jaxchain-stage-0.", "{{ 7 * 7 }}", "x" * 60, "two\nlines")


def hostile() -> Transforms:
    stages = [jc.Stage(name, jnp.sin if k % 2 else jnp.cos) for k, name in enumerate(HOSTILE)]
    return transforms(jc.Chain(stages), jnp.ones(3))


def test_hostile_names_stay_text_and_confuse_no_line():
    found = hostile()
    assert [stage for text, stage in found["fun"].lines if "=" in text] == list(range(len(HOSTILE)))
    page = found._repr_html_()
    assert "<script" not in page
    assert all(html.escape(name, quote=False)[:8] in page for name in ("<script>alert(1)</script>", "{{ 7 * 7 }}"))
    assert "49" not in page


def test_no_program_shows_marks_or_metadata(case: Case):
    found = of(case.name)
    for text in (*(row.program for row in found.rows), str(found), found._repr_html_()):
        assert not re.search("jaxchain-stage|op_name|metadata=", text)


@pytest.mark.parametrize("columns", [80, 200])
def test_text_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for found in (of("transformer"), hostile()):
        shown = [str(found), *map(str, found.rows), *(str(found.stage(name)) for name in found.chain.names)]
        assert max(len(line) for text in shown for line in text.splitlines()) <= columns


def test_the_table_has_a_row_and_a_sentence_a_transform():
    text = str(of("while"))
    for name in NAMES:
        assert len(re.findall(rf"^{name}\b", text, re.M)) == 2
    assert "Does not exist here." in text


def test_the_margin_names_each_stage_where_it_begins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    margin = [line.split("│")[0].strip() for line in str(of("mlp")["fun"]).splitlines() if "│" in line]
    assert [name for name in margin if name] == ["dense_0", "tanh_0", "dense_1"]


def test_html_chooses_stages_without_scripts():
    found = of("mlp")
    page = found._repr_html_()
    for number, name in enumerate(found.chain.names):
        assert f'value="{number}">{name}' in page
        assert f':has(input[value="{number}"]:checked) .stage-{number}' in page
        lines = sum(stage == number for row in found.rows for _, stage in row.lines)
        assert page.count(f'<code class="stage-{number}">') == lines
    assert not re.search(r"<script|\bon\w+=|javascript:|https?://", page)


def test_html_of_a_big_program_says_how_many_lines_it_left_out():
    chain = jc.Chain([jc.Stage(f"s{k}", jnp.sin) for k in range(450)])
    found = transforms(chain, 1.0)
    page = found._repr_html_()
    left_out = len(found["jvp"].lines) - 400
    assert f"{left_out} further lines are left out." in page
    assert page.count("<code") <= 8 * 400
    assert page.count('type="radio"') <= 451


def test_a_scope_of_the_users_that_is_spelt_like_a_mark_names_no_stage():
    def fun(w, x):
        with jax.named_scope("jaxchain-stage-99."):
            w = jnp.sin(w)
        return jnp.tanh(x * 2) * w

    found = transforms(fun, jnp.ones(3), jnp.ones(3))
    stages = {stage for row in found.rows for _, stage in row.lines}
    assert stages <= {None, *range(len(found.chain))}
    assert "tanh" in found._repr_html_()
