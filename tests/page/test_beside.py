"""Laws of two chains beside each other: every number is JAX's own, and the page shows it, in a real browser."""

import base64
import gzip
import json
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw, some_params
from hypothesis import given
from hypothesis import strategies as st
from pages import HOSTILE, axe, browser, by_jax, driver, folder, norm, violations  # noqa: F401
from selenium.webdriver.common.keys import Keys

import jaxchain as jc
from jaxchain.page.aligning import align


@dataclass(frozen=True)
class Made:
    """Two sides, the directions that they follow, and what was found."""

    net: jc.Chain
    a: tuple
    b: tuple
    tangent: jax.Array
    cotangent: jax.Array
    found: jc.SideBySide


@pytest.fixture(scope="module")
def trained(folder):
    """One net, two parameters."""
    net = jc.nets.mlp([6, 5, 3], "tanh")
    before, x = some_params(net), draw(jnp.zeros(6), 2)
    after = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, before)
    tangent, cotangent = draw(x, 5), draw(jnp.zeros(3), 6)
    found = jc.compare(
        (net, (before, x)), (net, (after, x)), folder / "trained.html",
        names=("before", "after"), title="before and after", tangent=tangent, cotangent=cotangent,
    )  # fmt: skip
    return Made(net, (before, x), (after, x), tangent, cotangent, found)


@pytest.fixture(scope="module")
def deeper(folder):
    """A net and one with more layers."""
    nets = [jc.nets.mlp(sizes, "tanh") for sizes in ([6, 5, 3], [6, 5, 5, 3])]
    sides = [(net, (some_params(net), jnp.ones(6))) for net in nets]
    return jc.compare(*sides, folder / "deeper.html", names=("two", "three"))


@pytest.fixture(scope="module")
def hostile(folder):
    """Names that would like to be markup, and numbers that are not finite on one side."""
    functions = (jnp.log, lambda x: x[::-1] * 2, jnp.square, lambda x: x / x.sum())
    chain = jc.Chain([jc.Stage(name, fn) for name, fn in zip(HOSTILE, functions, strict=True)])
    sides = [(chain, (jnp.array(x),)) for x in ([0.0, 1.0, -1.0], [2.0, 1.0, 3.0])]
    return jc.compare(*sides, folder / "hostile2.html", names=HOSTILE[:2], title=HOSTILE[3])


def data_of(found):
    block = re.search(r'<script[^>]*id="data"[^>]*>([^<]*)</script>', found.path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress(base64.b64decode(block[1])))


# ------------------------------------------------------------------------------------------------------- the numbers


def test_every_number_is_jaxs_own(trained):
    first, second = (by_jax(trained.net, args, trained.tangent, trained.cotangent) for args in (trained.a, trained.b))
    rows = trained.found.rows
    assert [row.name for row in rows] == list(trained.net.names_with_input)
    for row, a, b in zip(rows, first, second, strict=True):
        for side, (state, tangent, cotangent, jacobian, gradient) in ((row.a, a), (row.b, b)):
            assert (side.state, side.tangent, side.cotangent) == pytest.approx((state, tangent, cotangent), rel=1e-4)
            assert side.gradient == (None if gradient is None else pytest.approx(gradient, rel=1e-4))
            assert side.jacobian == (None if jacobian is None else pytest.approx(norm(jacobian), rel=1e-4))
        if row.difference is not None:
            assert row.difference == pytest.approx(norm(b[3] - a[3]) / norm(a[3]), rel=1e-4, abs=1e-6)


def test_the_whole_is_the_jacobian_of_the_function(trained):
    a, b = (jax.jit(jax.jacrev(trained.net, 1))(*args) for args in (trained.a, trained.b))
    whole = trained.found.whole
    assert (whole.a.jacobian, whole.b.jacobian) == pytest.approx((norm(a), norm(b)), rel=1e-4)
    assert whole.difference == pytest.approx(norm(b - a) / norm(a), rel=1e-4)


def test_a_chain_beside_itself_does_not_differ(tmp_path):
    side = (jc.nets.mlp([3, 2, 2]), (some_params(jc.nets.mlp([3, 2, 2])), jnp.ones(3)))
    found = jc.compare(side, side, tmp_path / "same.html")
    assert [row.difference for row in found.rows] == [None, 0, 0, 0]
    assert all(row.a == row.b for row in found.rows)
    assert "no more than rounding" in found.headline


def test_sides_swapped_are_the_same_numbers_swapped(deeper, tmp_path):
    nets = [jc.nets.mlp(sizes, "tanh") for sizes in ([6, 5, 5, 3], [6, 5, 3])]
    sides = [(net, (some_params(net), jnp.ones(6))) for net in nets]
    swapped = jc.compare(*sides, tmp_path / "swapped.html", names=("three", "two"))
    pairs = {(row.a, row.b) for row in deeper.rows}
    assert {(row.b, row.a) for row in swapped.rows} == pairs


def test_where_some_columns_are_computed_numbers_are_those_of_columns_known_on_both_sides(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxchain.diagnosis.survey.WORK", 1e4)
    net = jc.nets.mlp([40, 60, 50], "tanh")
    a, b = ((some_params(net), draw(jnp.zeros(40), seed)) for seed in (2, 3))
    found = jc.compare((net, a), (net, b), tmp_path / "large.html")
    stages = data_of(found)["rows"][1:]
    assert any("columns were computed" in stage["pictures"][0]["note"] for stage in stages)
    for row, stage, *local in zip(
        found.rows[1:], stages, jc.local_jacobians(net, a), jc.local_jacobians(net, b), strict=True
    ):
        columns = stage["pictures"][0]["columns"]
        first, second = (np.asarray(jacobian.matrix)[:, columns] for jacobian in local)
        assert row.a.jacobian == pytest.approx(np.linalg.norm(first), rel=1e-4)
        wanted = np.linalg.norm(second - first) / np.linalg.norm(first)
        assert row.difference == pytest.approx(wanted, rel=1e-3, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ the alignment

KEYS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), max_size=8)


@given(KEYS, KEYS)
def test_an_alignment_keeps_the_order_of_both_and_holds_every_stage_once(a, b):
    pairs = align(a, b)
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    for i, j in pairs:
        assert i is None or j is None or a[i][0] == b[j][0] or a[i][1] == b[j][1]


@given(KEYS)
def test_a_chain_is_aligned_with_itself_stage_by_stage(a):
    assert align(a, a) == [(k, k) for k in range(len(a))]


def test_stages_of_other_names_are_aligned_by_shape_and_what_stands_alone_is_said(deeper):
    names = [(row.a and row.a.name, row.b and row.b.name) for row in deeper.rows[1:]]
    assert names == [
        ("dense_0", "dense_0"), ("tanh_0", "tanh_0"), (None, "dense_1"), (None, "tanh_1"), ("dense_1", "dense_2"),
    ]  # fmt: skip
    assert "By shape, not by name: dense_1 | dense_2." in deeper.sentences
    assert "Only in three: dense_1, tanh_1." in deeper.sentences


def test_a_layer_with_parameters_is_not_aligned_with_an_activation_of_its_shape(tmp_path):
    def named(prefix):
        def dense(w, x):
            return w @ x

        stages = [jc.Stage(f"{prefix}{k}", f, init) for k, (f, init) in enumerate(
            [(jnp.tanh, None), (dense, lambda _: jnp.eye(3))] if prefix == "a" else [(dense, lambda _: jnp.eye(3)), (jnp.tanh, None)]
        )]  # fmt: skip
        chain = jc.Chain(stages)
        return chain, (chain.init(jax.random.key(0)), jnp.ones(3))

    found = jc.compare(named("a"), named("b"), tmp_path / "shapes.html")
    aligned = {row.name for row in found.rows[1:] if row.a and row.b}
    assert aligned in ({"a0 | b1"}, {"a1 | b0"})


def test_with_nothing_aligned_there_is_a_page_that_says_so(tmp_path):
    sides = [(fn, (jnp.ones(n),)) for fn, n in ((lambda x: jnp.sin(x).sum(), 3), (lambda x: jnp.outer(x, x), 2))]
    found = jc.compare(*sides, tmp_path / "nothing.html")
    assert found.headline.startswith("Nothing stands beside each other")
    assert found.headline in found.path.read_text(encoding="utf-8")
    assert not [row for row in found.rows[1:] if row.a and row.b]


# ------------------------------------------------------------------------------------------------------- the headline


def scaled(*factors):
    """A product of factors, one a stage, with parameters."""
    stages = [jc.Stage(f"times_{k}", lambda w, x: w * x, lambda _: jnp.ones(())) for k in range(len(factors))]
    return jc.Chain(stages), ({f"times_{k}": jnp.float32(f) for k, f in enumerate(factors)}, jnp.ones(2))


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ((1.0, 13.0, 1.0), "13 times larger than that of a; the largest part of that arises in times_1 (×13)"),
        ((0.5, 1.0, 0.1), "20 times smaller than that of a; the largest part of that arises in times_2 (×0.1)"),
        ((1.0, 1.2, 1.0), "the Jacobian that differs most is that of times_1, by 20 %"),
        ((1.0, float("nan"), 1.0), "At times_1 the state of a is 1.41, that of b not finite."),
        ((1.0, 0.0, 1.0), "At times_1 the state of a is 1.41, that of b 0."),
        ((2.0, 0.5, 1.0), "the gradient of the parameters of times_0 is 2 times smaller than that of a."),
        ((1.0, 1.0, 1.0), "differ by no more than rounding"),
    ],
)
def test_the_headline_names_the_most_important_difference(b, words, tmp_path):
    found = jc.compare(scaled(1.0, 1.0, 1.0), scaled(*b), tmp_path / "page.html")
    assert words in found.headline


def test_the_finding_of_a_curve_names_its_extremes(trained):
    findings = {quantity["key"]: quantity["finding"] for quantity in data_of(trained.found)["quantities"]}
    assert set(findings) == {"state", "cotangent", "tangent", "jacobian", "difference", "gradient"}
    ratios = {row.name: row.b.cotangent / row.a.cotangent for row in trained.found.rows}
    for extreme in (min, max):
        place = extreme(ratios, key=ratios.get)
        assert place.replace("input", "the input") in findings["cotangent"]
        assert f"{ratios[place]:.3g}" in findings["cotangent"]


# ------------------------------------------------------------------------------------------------- what is refused

GOOD = (jnp.sin, (jnp.ones(2),))


@pytest.mark.parametrize("label", ["a", "b"])
@pytest.mark.parametrize(
    ("side", "words"),
    [
        ((jnp.sin, jnp.ones(2)), "^{} is a function or chain with the tuple of its arguments"),
        ((jnp.sin, (jnp.ones(2),), 1), "^{} is a function or chain with the tuple of its arguments"),
        ((jnp.sin, ("x",)), "not an array of numbers(.|\n)*this of side {}"),
        ((jnp.sin, (jax.ShapeDtypeStruct((2,), float),)), "argument 0 has only shapes(.|\n)*this of side {}"),
        ((lambda x: None, (jnp.ones(2),)), "holds no array(.|\n)*this of side {}"),
        ((jnp.sin, (jnp.arange(2),)), "no derivative(.|\n)*this of side {}"),
    ],
)
def test_what_is_wrong_with_a_side_is_said_of_that_side(label, side, words, tmp_path):
    sides = (side, GOOD) if label == "a" else (GOOD, side)
    with pytest.raises(TypeError, match=words.format(label)):
        jc.compare(*sides, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_direction_that_fits_one_side_alone_is_refused_for_the_other(tmp_path):
    with pytest.raises(jc.TangentMismatchError, match="this of side b"):
        jc.compare(GOOD, (jnp.sin, (jnp.ones(3),)), tmp_path / "page.html", tangent=jnp.ones(2))


@pytest.mark.parametrize("names", ["ab", ("a", "a"), ("a",), ("a", ""), ("a", 3), None])
def test_names_are_two_different_strings(names, tmp_path):
    with pytest.raises(ValueError, match="two different strings"):
        jc.compare(GOOD, GOOD, tmp_path / "page.html", names=names)


def test_a_file_that_is_not_ours_is_kept(tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(FileExistsError, match="force"):
        jc.compare(GOOD, GOOD, tmp_path / "mine.html")
    jc.compare(GOOD, GOOD, tmp_path / "mine.html", force=True)
    jc.compare(GOOD, GOOD, tmp_path / "mine.html")
    with pytest.raises(FileNotFoundError, match="for the comparison does not exist"):
        jc.compare(GOOD, GOOD, tmp_path / "no" / "page.html")


# -------------------------------------------------------------------------------------------------------- the browser

PAGES = ("trained", "deeper", "hostile")


@pytest.fixture(params=PAGES)
def found(request):
    made = request.getfixturevalue(request.param)
    return getattr(made, "found", made)


def shown(browser, quantity):
    """The numbers in a row of the selected stage's table, in full."""
    cells = browser.all(f"#values tr[data-quantity='{quantity}'] td:not(:last-child) .number")
    return [float(cell.get_attribute("title").replace("–", "nan").replace("∞", "inf")) for cell in cells]


def test_the_page_says_nothing_in_the_console_and_asks_for_nothing(browser, found):
    browser.open(found.path)
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.HOME, Keys.END):
        browser.press(key)
    said, asked = browser.logs()
    assert said == []
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} <= {found.path.as_uri(), "about:blank"}


def test_the_norms_shown_are_jaxs_own(browser, trained):
    first, second = (by_jax(trained.net, args, trained.tangent, trained.cotangent) for args in (trained.a, trained.b))
    browser.open(trained.found.path)
    browser.press(Keys.HOME)
    for a, b, name in zip(first, second, trained.net.names_with_input, strict=True):
        assert browser.text("#stage-name") == name
        for k, quantity in enumerate(("state", "tangent", "cotangent")):
            assert shown(browser, quantity) == pytest.approx([a[k], b[k]], rel=1e-4)
        browser.press(Keys.ARROW_RIGHT)


@pytest.mark.parametrize("place", ["jacobians", "whole"])
def test_every_entry_is_read_on_both_sides_at_once(browser, trained, place):
    browser.open(trained.found.path, "#stage=dense_1")
    if place == "whole":
        a, b = (jax.jit(jax.jacrev(trained.net, 1))(*args) for args in (trained.a, trained.b))
    else:
        a, b = (jc.local_jacobians(trained.net, args)[2].matrix for args in (trained.a, trained.b))
    m, n = a.shape
    for number, (i, j) in enumerate(((0, 0), (m - 1, n - 1), (1, 2))):
        browser.point(f"#{place} figure:nth-child({number + 1}) canvas", (j + 0.5) / n, (i + 0.5) / m)
        said = browser.script("return {...document.getElementById(arguments[0]).dataset}", f"{place}-reading")
        assert (int(said["row"]), int(said["column"])) == (i, j)
        entries = [float(said[key]) for key in ("a", "b", "difference")]
        np.testing.assert_allclose(entries, [a[i, j], b[i, j], b[i, j] - a[i, j]], rtol=1e-4, atol=1e-6)
        assert f"∂ output {i} / ∂ input {j}: before" in browser.text(f"#{place}-reading")


def test_both_sides_share_one_colour_scale_and_the_arrow_keys_move_over_all(browser, trained):
    browser.open(trained.found.path, "#stage=dense_1")
    scales = [scale.text.replace("◂", "").replace("▸", "").split() for scale in browser.all("#jacobians .scale")]
    assert scales[0] == scales[1] != scales[2]
    browser.script("document.querySelector('#jacobians figure:nth-child(2) canvas').focus()")
    browser.press(Keys.ARROW_RIGHT, into="#jacobians figure:nth-child(2) canvas")
    browser.press(Keys.ARROW_DOWN, into="#jacobians figure:nth-child(2) canvas")
    assert browser.text("#jacobians-reading").startswith("∂ output 1 / ∂ input")


def test_a_stage_picked_anywhere_is_marked_and_in_the_address(browser, deeper):
    browser.open(deeper.path, "#stage=tanh_0")
    assert browser.text("#stage-name") == "tanh_0"
    browser.click(".stages tr[data-stage='3'] a")
    assert browser.text("#stage-name") == "dense_1 (only in three)"
    assert browser.text("#sentence") == "two has no stage that stands beside this one."
    assert browser.find(".stages tr[data-stage='3']").get_attribute("aria-current") == "true"
    browser.click("#next")
    assert browser.script("return decodeURIComponent(location.hash)") == "#stage=tanh_1 (only in three)"
    browser.open(deeper.path, "#stage=nowhere")
    assert "nowhere" in browser.text("#message")


def test_the_first_stage_shown_is_the_one_that_differs_most(browser, trained):
    browser.open(trained.found.path)
    most = max((row for row in trained.found.rows if row.difference is not None), key=lambda row: row.difference)
    assert browser.text("#stage-name") == most.name


def test_every_curve_has_both_sides_told_apart_without_colour(browser, trained):
    browser.open(trained.found.path)
    for quantity in ("state", "cotangent", "tangent", "jacobian", "gradient"):
        plot = f".plot[data-quantity='{quantity}']"
        assert [end.text for end in browser.all(f"{plot} .end")] == ["before", "after"]
        assert browser.all(f"{plot} circle.mark.a")
        assert browser.all(f"{plot} rect.mark.b")
        dashes = [browser.script("return getComputedStyle(arguments[0]).strokeDasharray", line)
                  for line in browser.all(f"{plot} path.line")]  # fmt: skip
        assert dashes[0] != dashes[1]


def test_hostile_names_stay_text(browser, hostile):
    browser.open(hostile.path)
    browser.press(Keys.HOME)
    for name in HOSTILE:
        browser.press(Keys.ARROW_RIGHT)
        assert browser.text("#stage-name") == name
    assert browser.text("h1") == HOSTILE[3]
    assert browser.all("img") == []
    assert browser.script("return window.hacked") is None


@pytest.mark.parametrize("size", [(400, 800), (900, 900), (1400, 900)], ids=str)
def test_no_window_is_too_narrow(browser, found, size):
    browser.open(found.path, size=size)
    assert browser.overflow() <= 0


@pytest.mark.parametrize(("size", "dark"), [((400, 800), False), ((1280, 900), True)], ids=["narrow", "wide and dark"])
def test_axe_finds_no_violation(browser, axe, found, size, dark):
    browser.open(found.path, size=size, dark=dark)
    browser.press(Keys.ARROW_RIGHT)
    assert violations(browser, axe) == []


def test_the_keyboard_alone_reaches_every_control(browser, trained):
    assert browser.open(trained.found.path).unreached() == []


def test_without_scripts_the_tables_are_there(browser, deeper):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(deeper.path.as_uri())
        rows = [row.text for row in browser.all(".stages tbody tr")]
        text = browser.find("body").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(rows) == len(deeper.rows) + 1
    for row, said in zip(deeper.rows, rows, strict=False):
        assert said.startswith(row.name)
    for sentence in (deeper.headline, *deeper.sentences, "Scripts are off"):
        assert sentence in text
