"""Laws of the report's file and of the numbers in it; what a browser makes of them is tested in tests/page."""

import base64
import errno
import gzip
import json
import os
import re
import stat
import sys
from dataclasses import replace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, real_function, some_params

import jaxchain as jc
from jaxchain.diagnosis.heads import Mixing, Shares
from jaxchain.diagnosis.survey import survey
from jaxchain.page import inside
from jaxchain.page.content import page
from jaxchain.page.folding import MOST, fold
from jaxchain.page.headline import growth
from jaxchain.page.picture import picture
from jaxchain.page.writing import lock, to_html


def quiet(_):
    pass


def decoded(html):
    block = re.search(r'<script[^>]*id="data"[^>]*>([^<]*)</script>', html)
    return json.loads(gzip.decompress(base64.b64decode(block[1])))


def cells(image):
    return np.frombuffer(base64.b64decode(image["values"]), "<f4").reshape(image["cells"])


@pytest.fixture(scope="module")
def digits():
    net = jc.nets.mlp([6, 8, 5, 3], "tanh")
    return net, (some_params(net), draw(jnp.zeros(6), 2))


@pytest.fixture(scope="module")
def data(digits):
    net, args = digits
    return page(net, args, "small", say=quiet)


# ------------------------------------------------------------------------------------------------- the numbers


def test_the_states_are_those_of_the_sweeps(digits):
    net, (params, x) = digits
    tangent, cotangent = draw(x, 5), draw(jnp.zeros(3), 6)
    states = page(net, (params, x), "", tangent=tangent, cotangent=cotangent, say=quiet)["states"]
    forward, reverse = jc.forward_sweep(net, (params, x), tangent), jc.reverse_sweep(net, (params, x), cotangent)
    for k, state in enumerate(states):
        assert state["name"] == forward.names[k]
        for word, value in (
            ("primal", forward.primals[k]),
            ("tangent", forward.tangents[k]),
            ("cotangent", reverse.cotangents[k]),
        ):
            assert state[word] == pytest.approx(float(jnp.linalg.norm(value)), rel=1e-5)


def test_a_picture_that_fits_is_the_matrix(digits, data):
    net, args = digits
    for stage, local in zip(data["stages"], jc.local_jacobians(net, args), strict=True):
        np.testing.assert_allclose(cells(stage["picture"]), local.matrix, rtol=1e-6)
        assert stage["words"] == str(local.structure)
        np.testing.assert_allclose(stage["sigma"], np.linalg.svd(local.matrix, compute_uv=False), rtol=1e-4, atol=1e-6)


def test_the_steps_show_the_prefix_and_suffix_jacobians(digits, data):
    net, args = digits
    for way, whole in (
        ("forward", jc.prefix_jacobians(net, args)[1:]),
        ("reverse", jc.suffix_jacobians(net, args)[-2::-1]),
    ):
        for step, matrix in zip(data["ways"][way]["steps"], whole, strict=True):
            assert tuple(step["shape"]) == matrix.shape
            np.testing.assert_allclose(cells(step["picture"]), matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [[6, 8, 5, 3], [9, 5, 2, 5, 9], [3, 4]])
def test_the_plan_ends_with_the_whole_jacobian_and_costs_what_it_says(widths):
    net = jc.nets.mlp(widths, "tanh")
    args = some_params(net), draw(jnp.zeros(widths[0]), 2)
    way = page(net, args, "", say=quiet)["ways"]["planned"]
    last = way["steps"][-1]
    assert (last["from"], last["to"]) == (0, len(net))
    np.testing.assert_allclose(cells(last["picture"]), jax.jit(jax.jacrev(net, 1))(*args), rtol=1e-4, atol=1e-5)
    assert last["total"] == pytest.approx(sum(step["cost"] for step in way["steps"]))
    assert last["total"] == pytest.approx(jc.plan(net, args).plan.cost)


def test_every_step_of_a_plan_shows_the_jacobian_that_it_names():
    net = jc.nets.mlp([9, 5, 2, 5, 9], "tanh")
    args = some_params(net), draw(jnp.zeros(9), 2)
    states = net.names_with_input
    for step in page(net, args, "", say=quiet)["ways"]["planned"]["steps"]:
        if step["from"] + 1 == step["to"]:
            want = jc.local_jacobians(net, args)[step["from"]].matrix
        else:
            want = jc.partial_jacobian(net, args, states[step["from"]], states[step["to"]])
        np.testing.assert_allclose(cells(step["picture"]), want, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_stage_is_the_norm_of_its_parameters_cotangent(digits, data):
    net, (params, x) = digits
    surveyed = survey(net, (params, x))
    grads = jc.reverse_sweep(net, (params, x), surveyed.cotangent).arg_cotangents[0]
    for stage in data["stages"]:
        leaves = jax.tree.leaves(grads.get(stage["name"], ()))
        want = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))) if leaves else None
        assert stage["gradient"] == (want if want is None else pytest.approx(want, rel=1e-5))


@pytest.mark.parametrize(("m", "n", "side"), [(5, 7, 3), (8, 8, 4), (3, 3, 8), (1, 9, 2), (0, 4, 2)])
def test_a_cell_is_the_entry_of_largest_magnitude_of_its_block(m, n, side):
    matrix = np.random.default_rng(0).normal(size=(m, n))
    image = picture(matrix, side)
    rows, columns = [*image["rows"], m], [*image["columns"], n]
    shown = cells(image)
    assert max(shown.shape, default=0) <= side
    for i, row in enumerate(shown):
        for j, value in enumerate(row):
            block = matrix[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert value == np.float32(block.flat[np.abs(block).argmax()])


def test_what_is_too_much_work_is_sampled_and_said(monkeypatch):
    monkeypatch.setattr("jaxchain.diagnosis.survey.WORK", 1e4)
    net = jc.nets.mlp([40, 60, 50], "tanh")
    args = some_params(net), draw(jnp.zeros(40), 2)
    stages = page(net, args, "", say=quiet)["stages"]
    sampled = [s for s in stages if "columns were computed" in s["picture"]["note"]]
    assert sampled
    for stage, local in zip(stages, jc.local_jacobians(net, args), strict=True):
        image = stage["picture"]
        np.testing.assert_allclose(cells(image), np.asarray(local.matrix)[:, image["columns"]], rtol=1e-4, atol=1e-6)
        assert (stage["sigma"] is None) == (stage in sampled)


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_not_finite_is_shown_as_such():
    chain = jc.Chain([jc.Stage("log", jnp.log), jc.Stage("square", jnp.square)])
    data = page(chain, (jnp.array([0.0, 1.0, -1.0]),), "", say=quiet)
    assert data["states"][1]["primal"] == "NaN"
    assert data["stages"][0]["picture"]["not_finite"] > 0
    assert np.isinf(cells(data["stages"][0]["picture"])).any()
    assert data["headline"].startswith("Numbers are lost: 2 of 3 entries that log makes")
    assert len(data["advice"]) == 1
    json.dumps(data, allow_nan=False)


def test_a_mode_that_does_not_exist_is_left_out_and_named():
    loop = lambda x: jax.lax.while_loop(lambda v: jnp.sum(v * v) > 1.0, lambda v: jnp.sin(v) * 0.5, x)  # noqa: E731
    data = page(jc.Chain([jc.Stage("exp", jnp.exp), jc.Stage("loop", loop)]), (jnp.ones(2),), "", say=quiet)
    assert data["ways"]["reverse"]["steps"] == []
    assert data["states"][0]["cotangent"] is None
    assert any("loop" in note for note in data["notes"])
    assert data["headline"].startswith("Only forward mode exists here.")


@pytest.mark.parametrize("count", [1, 3, MOST, MOST + 1, 300, 2000])
@pytest.mark.parametrize("name", ["sin_{}", "block_{0}/layer", "net/block_{0}/attention"])
def test_folding_keeps_every_stage_once_and_few_side_by_side(count, name):
    names = [name.format(k) + f"/{k}" * ("/" in name) for k in range(count)]

    def leaves(groups):
        assert len(groups) <= MOST
        for group in groups:
            inner = list(leaves(group["groups"])) if group["groups"] else [group["first"]]
            assert (inner[0], inner[-1]) == (group["first"], group["last"])
            yield from inner

    assert list(leaves(fold(names))) == list(range(count))


def test_a_step_costs_its_vectors_times_the_stages_own_multiply_adds(digits, data):
    widths = [6, 8, 5, 3]
    for way, vectors in (("forward", widths[0]), ("reverse", widths[-1])):
        costs = {step["stage"]: step["cost"] for step in data["ways"][way]["steps"]}
        for layer in range(3):
            assert costs[2 * layer] == vectors * widths[layer] * widths[layer + 1]
    plan = jc.plan(*digits)
    assert data["ways"]["forward"]["cost"] == plan.forward_cost
    assert data["ways"]["reverse"]["cost"] == plan.reverse_cost


@pytest.mark.parametrize("scale", [1e60, 1e-60])
def test_what_a_float_cannot_hold_is_shown_as_a_double(x64, scale):
    stage = page(jc.discover(lambda x: x * scale, jnp.ones(2)), (jnp.ones(2),), "", say=quiet)["stages"][0]
    assert stage["picture"]["double"]
    values = np.frombuffer(base64.b64decode(stage["picture"]["values"]), "<f8").reshape(2, 2)
    np.testing.assert_array_equal(values, np.diag([scale, scale]))


def test_the_trace_on_the_page_has_the_callers_names_and_numbers():
    def fun(w, rate, x):
        return jnp.tanh(w @ x) * rate

    args = jnp.ones((2, 3)), jnp.array(0.5), jnp.ones(3)
    rows = page(jc.discover(fun, *args), args, "", fun=fun, say=quiet)["trace"]["rows"]
    assert [row["formula"] for row in rows[:3]] == ["v-2 = w", "v-1 = rate", "v0 = x"]
    assert {row["stage"] for row in rows if "tanh" in row["formula"]} == {1}


def test_random_keys_among_the_arguments_are_no_obstacle():
    args = jax.random.key(0), jnp.ones(3)
    data = page(jc.discover(lambda key, x: x * jax.random.normal(key, x.shape), *args), args, "", say=quiet)
    assert data["trace"]["rows"]
    assert not any("parameter" in fact for fact in data["facts"])


@pytest.mark.parametrize(
    ("cotangents", "words"),
    [
        ((1.0, 1.0, 1.0), "about keeps its size"),
        ((0.01, 0.1, 1.0), "shrinks 100-fold"),
        ((30.0, 5.0, 1.0), "grows 30-fold"),
        ((0.9, 0.001, 1.0), "shrinks 1×10³-fold until a and arrives with 0.9 times"),
        ((0.0, 0.0, 1.0), "nothing flows back"),
        ((1.0, float("inf"), 1.0), "not finite"),
    ],
)
def test_the_headline_says_where_a_cotangent_grows_or_dies(cotangents, words):
    chain = jc.Chain([jc.Stage("a", jnp.sin), jc.Stage("b", jnp.sin)])
    surveyed = replace(survey(chain, (jnp.ones(2),)), cotangents=cotangents)
    assert words in growth(("the input", *chain.names), surveyed)


@pytest.mark.parametrize("argnum", [0, 1], ids=["parameters", "data"])
def test_a_loss_shows_its_gradient_as_the_one_row_that_it_is_however_large_its_parameters_are(monkeypatch, argnum):
    net = jc.nets.mlp([6, 5, 3])
    args = net.init(jax.random.key(0)), jnp.linspace(-1, 1, 6)

    def loss(params, x):
        return jnp.sum(net(params, x) ** 2)

    monkeypatch.setattr("jaxchain.diagnosis.survey.ENTRIES", 10)  # so that local Jacobians are not computed whole
    data = page(jc.discover(loss, *args, argnum=argnum), args, "loss", fun=loss, say=quiet)
    (gradient, _) = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(loss, argnum))(*args))
    assert argnum or data["stages"][0]["picture"]["sampled"]
    for way in ("reverse", "planned"):
        last = data["ways"][way]["steps"][-1]["picture"]
        assert last["shape"] == [1, gradient.size]
        shown = np.frombuffer(base64.b64decode(last["values"]), "<f8" if last["double"] else "<f4")
        if last["cells"] == last["shape"]:
            assert_close(jnp.asarray(shown), gradient, 1e-5)
    assert all(step["picture"] for step in data["ways"]["reverse"]["steps"])


def test_a_residual_stage_is_shown_as_the_sum_of_the_identity_and_the_rest():
    w, x = draw(jnp.zeros((4, 4)), 1), draw(jnp.zeros(4), 2)

    def residual(w, x):
        return x + jnp.tanh(w @ x)

    (stage,) = page(jc.discover(residual, w, x), (w, x), "", fun=residual, say=quiet)["stages"]
    whole, rest = jax.jacobian(residual, 1)(w, x), jax.jacobian(lambda x: jnp.tanh(w @ x))(x)
    skip, own = stage["sum"]["terms"]
    assert (skip["name"], skip["words"], skip["parts"]) == ("x", "identity", [])
    np.testing.assert_array_equal(cells(skip["picture"]), np.eye(4))
    np.testing.assert_allclose(cells(own["picture"]), rest, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cells(stage["picture"]), whole, rtol=1e-5, atol=1e-6)
    norms = [stage["sum"]["norm"], skip["norm"], own["norm"]]
    np.testing.assert_allclose(norms, [jnp.linalg.norm(matrix) for matrix in (whole, jnp.eye(4), rest)], rtol=1e-5)
    assert [part["name"].partition("@")[0] for part in own["parts"]] == ["dot", "tanh"]
    assert stage["attention"] == []


def test_of_many_heads_those_that_carry_most_are_pictured(monkeypatch):
    monkeypatch.setattr(inside, "HEADS", 2)
    monkeypatch.setattr(Mixing, "shares", lambda *_: Shares((0.1, 0.5, 0.2), 0.9, 4))
    uniform = np.full((3, 4, 5), 0.2)
    mixing = Mixing(uniform, samples=7, owner=np.zeros(0, int), into=None, out=None, past=None, work=1.0)
    told = inside._attention(mixing, 0, 1, 1.0)
    assert [bool(head["picture"]) for head in told["heads"]] == [False, True, True]
    assert [head["keys"] for head in told["heads"]] == pytest.approx([5.0] * 3)
    for words in (
        "Head 1 carries most of J: 0.5 of its norm.",
        "What passes no head is 0.9 of it.",
        "estimated from 4 random tangents.",
        "those of the first of 7 samples",
        "2 of 3 heads are pictured",
    ):
        assert words in told["says"]


def test_where_products_are_not_drawn_the_page_says_why(monkeypatch):
    monkeypatch.setattr("jaxchain.diagnosis.survey.ENTRIES", 10)
    monkeypatch.setattr("jaxchain.page.ways.ENTRIES", 10)
    net = jc.nets.mlp([6, 5, 3])
    data = page(net, (net.init(jax.random.key(0)), jnp.ones(6)), "net", say=quiet)
    for way in data["ways"].values():
        if not all(step["picture"] for step in way["steps"]):
            assert "of dense_0 only some columns of the Jacobian were computed" in way["start"]
    assert not any(step["picture"] for step in data["ways"]["forward"]["steps"])


def test_a_page_along_tokens_begins_at_their_embedding():
    table = jnp.linspace(-1, 1, 14).reshape(7, 2)
    args = ({"embed": table, "w": table[:2]}, jnp.array([3, 1, 4]))

    def model(params, tokens):
        return jnp.where((tokens != 0)[:, None], jnp.tanh(params["embed"][tokens] @ params["w"]), 0.0).sum(0)

    chain = jc.discover(model, *args)
    data = page(chain, args, "tokens", fun=model, say=quiet)
    name = chain.names_with_input[0]
    assert data["states"][0]["name"] == name
    assert f"from {name} on, which argument 1 enters" in data["facts"]
    assert data["ways"]["forward"]["steps"][-1]["shape"] == [2, 6]
    assert {"forward", "reverse", "auto"} <= {row["mode"] for row in data["modes"]["rows"]}


# ------------------------------------------------------------------------------------------------ the kinds of chain


def test_every_chain_of_the_zoo_has_a_page(case, monkeypatch):
    monkeypatch.setattr("jaxchain.page.content.MEASURED_STAGES", 0)  # compiling every mode is tested elsewhere
    data = page(case.chain, case.args, case.name, say=quiet)
    assert len(data["stages"]) == len(case.chain)
    json.dumps(data, allow_nan=False)
    if case.forward and case.reverse:
        last = data["ways"]["planned"]["steps"][-1]
        fun, x = real_function(lambda x: case.chain(*case.others, x), case.x)
        assert tuple(last["shape"]) == (jax.eval_shape(fun, x).size, x.size)


def test_modes_of_a_long_program_are_predicted_and_not_compiled():
    def repeated(x):
        return jax.lax.fori_loop(0, 50, lambda _, x: x + 0.1 * x * jnp.tanh(jnp.roll(x, 1) - jnp.roll(x, -1)), x)

    chain = jc.discover(repeated, jnp.ones(6))
    modes = page(chain, (jnp.ones(6),), "long", say=quiet)["modes"]
    assert not modes["measured"]
    assert "so long a program" in modes["notes"][0]
    assert all(row["predicted_flops"] > 0 for row in modes["rows"])


# ----------------------------------------------------------------------------------------------------------- the file


@pytest.fixture
def page_of(tmp_path):
    def write(name="report.html", **options):
        return jc.report(jnp.sin, jnp.ones(2), path=tmp_path / name, **options)

    return write


def test_the_file_holds_the_page(page_of, tmp_path):
    path = page_of(title='<script>alert(1)</script> & "co"')
    assert path == tmp_path / "report.html"
    html = path.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in html
    assert decoded(html)["title"].startswith("<script>")
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert os.listdir(tmp_path) == ["report.html"]


def test_our_own_page_is_replaced_and_nothing_else_is(page_of, tmp_path):
    page_of()
    page_of()
    other = tmp_path / "mine.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(FileExistsError, match="force"):
        page_of("mine.html")
    assert other.read_text() == "<p>mine</p>"
    page_of("mine.html", force=True)
    assert "jaxchain" in other.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_refused_before_any_work(page_of, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["jaxchain.page.writing"], "page", lambda *_, **__: pytest.fail("worked before it looked")
    )
    with pytest.raises(FileNotFoundError, match="missing"):
        page_of("missing/report.html")
    with pytest.raises(IsADirectoryError, match="folder"):
        jc.report(jnp.sin, jnp.ones(2), path=tmp_path)
    with pytest.raises(TypeError, match="argument 0 has only shapes"):
        jc.report(jnp.sin, jax.ShapeDtypeStruct((2,), jnp.float32), path=tmp_path / "a.html")


def test_a_function_of_no_result_is_refused(tmp_path):
    with pytest.raises(TypeError, match="which holds no array"):
        jc.report(lambda x: None, jnp.ones(2), path=tmp_path / "a.html")


def test_what_a_killed_report_left_is_removed_but_not_what_another_writes(page_of, tmp_path):
    left, under_way = tmp_path / ".jaxchain-left.part", tmp_path / ".jaxchain-under-way.part"
    left.write_text("half a p")
    with under_way.open("w") as file:
        lock(file)
        page_of("page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [under_way.name, "page.html"]


def test_a_link_is_written_through_and_a_pipe_is_not_opened(page_of, tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    page_of("link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").is_file()
    os.mkfifo(tmp_path / "pipe.html")
    with pytest.raises(FileExistsError):
        page_of("pipe.html")


def test_a_full_disk_leaves_the_old_page_and_no_rest(page_of, tmp_path, monkeypatch):
    path = page_of()
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match=r"No space.*report.html"):
        page_of(title="new")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_page_asks_for_nothing_from_elsewhere(data):
    html = to_html(data)
    visible = re.sub(r'<script[^>]*id="data".*?</script>', "", html, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", visible)
    assert "Content-Security-Policy" in html
