"""Laws of the lesson: its numbers are JAX's, its words come after what they name, and everyone can use it."""

import fcntl
import html
import importlib
import itertools
import json
import os
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chromium import axe, browser, driver, violations  # noqa: F401
from selenium.webdriver.common.keys import Keys

from jaxchain.lesson import descent, layers, training
from jaxchain.lesson.cell import Workbook, told
from jaxchain.lesson.cell import number as in_words
from jaxchain.lesson.terms import TERMS
from jaxchain.lesson.writing import lesson_html
from jaxchain.show.html import TEMPLATES

pytest.importorskip("sklearn")

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NAMES = ("slopes", "paths", "directions", "weights", "layers", "activations", "descent", "order")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Made by the experiment, which so is run, too; once for all workers, of whom the first does it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent / "lesson" if "PYTEST_XDIST_WORKER" in os.environ else folder / "lesson"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "lesson.json").exists():  # written last
            made_in(folder)
    assert json.loads((folder / "lesson.json").read_text(encoding="utf-8"))["pages"] == ["lesson.html"]
    return folder / "lesson.html"


def made_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        importlib.import_module("lesson").main(quick=True, out=folder)
    for name in ("lesson", "common"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def text(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(text):
    return json.loads(re.search(r'<script type="application/json" id="lesson-data">(.*?)</script>', text, re.DOTALL)[1])


# ------------------------------------------------------------------------------------------------------------- numbers


def baydin(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


def test_slopes_multiply_at_every_stored_x(data):
    found = data["slopes"]
    xs = np.array(found["xs"])
    np.testing.assert_allclose(found["f_slopes"], 2 * xs, rtol=1e-5)
    np.testing.assert_allclose(found["g_slopes"], np.cos(xs**2), atol=1e-5)
    np.testing.assert_allclose(found["slopes"], np.multiply(found["f_slopes"], found["g_slopes"]), atol=1e-5)
    np.testing.assert_allclose(found["moved_ys"], np.sin((xs + found["width"]) ** 2), atol=1e-5)
    *three, product, whole = found["three"]
    assert product == pytest.approx(np.prod(three), rel=1e-6)
    assert whole == pytest.approx(product, rel=1e-6)


def test_products_along_paths_add_up_to_the_partial_derivatives(data):
    found = data["paths"]
    expected = {"x1": 1 / 2 + 5, "x2": 2 - np.cos(5)}
    assert found["both"] == pytest.approx([*expected.values()], rel=1e-6)
    for start, paths in found["paths"].items():
        assert paths["total"] == pytest.approx(expected[start], rel=1e-6)
        for text in (paths["text"], *(path["text"] for path in paths["rows"])):
            assert_sides_are_equal(text)
    values = {node["id"]: node["primal"] for node in found["graph"]["nodes"]}
    assert values["y"] == pytest.approx(baydin(2, 5), rel=1e-6)
    np.testing.assert_allclose(found["product"], np.array(found["outer"]) @ np.array(found["table"]), rtol=1e-6)
    np.testing.assert_allclose(found["whole"], found["product"], rtol=1e-5)


def assert_sides_are_equal(text):
    """What is written out adds up."""
    left, right = map(eval, text.replace("−", "-").replace("·", "*").replace("(given)", "").split(" = "))
    assert left == pytest.approx(right, rel=2e-3, abs=2e-3)


def test_every_step_of_a_sweep_is_the_sum_that_it_writes_out(data):
    found = data["directions"]
    for steps, end in zip(found["steps"], (5.5, 2 - np.cos(5), 5.5), strict=True):
        assert steps[-1]["value"] == pytest.approx(end, rel=1e-6)
        for step in steps:
            assert_sides_are_equal(step["text"])
    assert found["pulled"] == pytest.approx([5.5, 2 - np.cos(5)], rel=1e-6)
    assert found["million"] == 784 * 1000 + 1000 + 1000 * 200 + 200 + 200 * 10 + 10


def test_the_gradient_of_weights_is_cotangent_times_input(data):
    found = {
        name: np.array(value)
        for name, value in data["weights"].items()
        if name not in ("check", "copied", "sweep", "grads")
    }
    W, b, x, wanted = (found[name] for name in ("W", "b", "x", "wanted"))

    def loss(W, b, x):
        return jnp.sum((W @ x + b - wanted) ** 2) / 2

    for name, gradient in zip(("W_bar", "b_bar", "x_bar"), jax.jit(jax.grad(loss, (0, 1, 2)))(W, b, x), strict=True):
        np.testing.assert_allclose(found[name], gradient, rtol=1e-6)


def test_a_cotangent_begins_at_the_scores_and_loses_what_relus_switched_off(data):
    found = data["layers"]
    assert found["accuracy"] > 0.9
    assert found["gap"] < 1e-5
    assert found["digits"][0]["read"] != found["digits"][0]["label"]
    for digit in found["digits"]:
        states, cotangents = (list(map(np.array, digit[key])) for key in ("states", "cotangents"))
        chances = np.array(jax.nn.softmax(states[-1]))
        np.testing.assert_allclose(cotangents[-1], chances - np.eye(10)[digit["label"]], atol=1e-6)
        assert digit["loss"] == pytest.approx(-np.log(chances[digit["label"]]), rel=1e-4)
        np.testing.assert_allclose(digit["norms"], [np.linalg.norm(c) for c in cotangents], rtol=1e-5)
        for before in (1, 3):
            np.testing.assert_allclose(cotangents[before], cotangents[before + 1] * (states[before] > 0), atol=1e-7)


def test_slopes_of_activations_and_what_twenty_of_them_leave(data):
    found = data["activations"]
    h = np.array(found["h"])
    sigmoid = 1 / (1 + np.exp(-h))
    np.testing.assert_allclose(found["curves"]["sigmoid"], [sigmoid, sigmoid * (1 - sigmoid)], atol=1e-5)
    np.testing.assert_allclose(found["curves"]["tanh"], [np.tanh(h), 1 - np.tanh(h) ** 2], atol=1e-5)
    np.testing.assert_allclose(found["curves"]["ReLU"], [np.maximum(h, 0), h > 0], atol=1e-6)
    ends = found["ends"]
    assert ends["sigmoid"] < 1e-10 < ends["tanh"] < ends["ReLU"] < ends["ReLU, larger weights"]
    assert 0.3 < ends["ReLU"] < 3
    assert ends["ReLU, larger weights"] == pytest.approx(ends["ReLU"] * 2**10, rel=1e-3)


def test_walks_are_those_of_the_formulae(data):
    found = data["descent"]
    xs, ys = np.array([0.5, 1, 1.5, 2, 2.5]), np.array([0.1, 0.8, 2.1, 3, 3.9])

    def loss(w):
        return np.mean((w[0] * xs + w[1] - ys) ** 2)

    def slope(w):
        off = w[0] * xs + w[1] - ys
        return 2 * np.array([np.mean(off * xs), np.mean(off)])

    for name, rate, kept in (("plain", 0.1, 0), ("momentum", 0.05, 0.8)):
        w, speed = np.array([-1, 2.5]), np.zeros(2)
        for walked, value in zip(*found["walks"][name], strict=True):
            np.testing.assert_allclose(walked, w, atol=1e-3)
            assert value == pytest.approx(loss(w), abs=1e-3)
            speed = kept * speed - rate * slope(w)
            w = w + speed
    assert slope(np.array(found["best"])) == pytest.approx(0, abs=1e-5)
    for line in found["contours"]:
        values = [loss(np.array(point)) for point in line]
        assert max(values) == pytest.approx(min(values), rel=1e-3)
    assert found["reading"]["right"][0] < 0.3 < 0.9 < found["reading"]["right"][-1]


def test_the_steps_of_every_order_cost_what_the_plan_says(data):
    found = data["order"]
    for mode, steps in found["ways"].items():
        assert sum(step["cost"] for step in steps) == pytest.approx(found["costs"][mode])
        assert steps[-1]["shape"] == [100, 100]
    assert found["costs"]["planned"] < found["costs"]["forward"] / 10
    assert found["gap"] < 1e-5
    assert found["check_costs"] == [500 * 500 * 6 + 200 * 500 * 6, 200 * 500 * 500 + 200 * 500 * 6]


def test_the_answers_are_right(data):
    step = 1e-6
    assert data["slopes"]["check"]["answer"] == pytest.approx(2 * 4 * 3)
    slope = (baydin(4 + step, 3) - baydin(4 - step, 3)) / (2 * step)
    assert data["paths"]["check"]["answer"] == pytest.approx(slope, rel=1e-6)
    assert data["descent"]["check"]["answer"] == pytest.approx(2 - 0.1 * 6)
    for name in NAMES:
        check = data[name]["check"]
        if "options" in check:
            assert sum(option["right"] for option in check["options"]) == 1
            assert all(option["because"] for option in check["options"])
        else:
            known = [check["answer"], *(wrong for wrong, _ in check["mistakes"])]
            apart = (abs(a - b) / max(abs(a), abs(b)) for a, b in itertools.combinations(known, 2))
            assert min(apart) > 2 * check["within"]


# ---------------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("name", ["slopes", "paths", "weights"])
def test_what_is_copied_runs_alone_and_gives_what_is_shown(data, text, name):
    shown = re.findall(rf'aria-label="Result: {name}, (\w+)"><samp>(.*?)</samp>', text, re.DOTALL)
    assert [cell for cell, _ in shown] != []
    cell, result = shown[-1]
    assert told(Workbook().run("alone", data[name]["copied"][cell])) == html.unescape(result)


def test_every_cell_is_on_the_page(data, text):
    for name in NAMES:
        for cell in data[name]["copied"]:
            if cell != "check":
                assert f'aria-label="Python: {name}, {cell}"' in text


def test_a_cell_ends_with_what_it_shows():
    with pytest.raises(TypeError, match="must be the expression"):
        Workbook().run("bad", "x = 1")


def test_numbers_read_alike_in_text_and_pictures(browser, path):
    browser.open(path)
    script = (TEMPLATES / "lesson/numbers.js").read_text(encoding="utf-8")
    values = [0, 1, -0.28366, 11.652071, 0.1082, 963.4, 1000, 987210, 4.3e12, 2.06e-13, 72240, 0.00123456]
    for value, count in itertools.product([*values, 2345678.4, 1234.56, 12345.6], (2, 3, 4)):
        said = browser.script(f"{script}\nreturn digits(...arguments)", value, count)
        assert said == in_words(value, count)


def test_without_scikit_learn_two_chapters_say_what_to_install_and_the_rest_is_there(browser, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    training._once.cache_clear()
    chapters = [layers.through_hidden_layers(), descent.walking_downhill()]
    page = tmp_path / "page.html"
    page.write_text(lesson_html(chapters), encoding="utf-8")
    browser.open(page)
    assert browser.logs()[0] == []
    for name, forms in (("layers", 0), ("descent", 1)):
        assert 'pip install "jaxchain[experiments]"' in browser.text(f"#{name} .missing")
        assert len(browser.all(f"#{name} form")) == forms


# ---------------------------------------------------------------------------------------------------------------- words


def visible(text):
    """Chapter → its text, with what is explained when marked as ``«term»``; what answers say comes last."""
    body = text.partition("<main>")[2].partition('<section id="own"')[0]
    found = {}
    for name, section in re.findall(r'<section id="(\w+)"(.*?)</section>', body, re.DOTALL):
        marked = re.sub(
            r"<dfn>(.*?)</dfn>", r"«\1»", re.sub(r"<h2.*?</h2>", "", section)
        )  # a title names what is to come
        found[name] = html.unescape(re.sub(r"<[^>]*>", " ", marked.partition(">")[2]))
    return found


def test_no_word_is_used_before_it_is_explained(text, data):
    chapters = visible(text)
    assert tuple(chapters) == NAMES
    for name in NAMES:  # answers are read in their chapter, at its end
        chapters[name] += json.dumps(data[name]["check"], ensure_ascii=False)
    everything = "".join(chapters.values())
    start = dict(zip(NAMES, itertools.accumulate((len(chapters[name]) for name in NAMES), initial=0), strict=False))
    for term in TERMS:
        word = re.compile(rf"\b{term.word}", re.IGNORECASE)
        first = word.search(everything)
        assert first, term
        assert everything[first.start() - 1] == "«", (
            f"{term.word}: …{everything[first.start() - 60 : first.end() + 20]}…"
        )
        assert start[term.chapter] <= first.start() < start[term.chapter] + len(chapters[term.chapter]), term


def test_every_word_that_is_explained_is_listed(text):
    explained = re.findall(r"<dfn>(.*?)</dfn>", text)
    listed = [term.word.lower() for term in TERMS]
    assert [word.lower().removesuffix("s") if word.endswith("layers") else word.lower() for word in explained] == listed


# ----------------------------------------------------------------------------------------------------------------- page


def test_the_page_is_one_small_file_that_asks_for_nothing(text, browser, path):
    assert len(text.encode()) < 3e6
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    browser.open(path)
    said, asked = browser.logs()
    assert said == []
    assert [address for address in asked if not address.startswith(("file:", "data:", "about:"))] == []


def answer(browser, name, value):
    form = f'form[data-chapter="{name}"]'
    if browser.all(f"{form} fieldset"):
        browser.click(f'{form} input[value="{value}"]')
    else:
        browser.script("arguments[0].value = ''", browser.find(f"{form} input"))
        browser.press(str(value), into=f"{form} input")
    browser.click(f"{form} button")
    return browser.text(f"{form} .verdict")


def right_and_wrong(check):
    if "options" in check:
        places = {option["right"]: k for k, option in enumerate(check["options"], 1)}
        return places[True], places[False], [option["because"] for option in check["options"]]
    return (
        check["answer"],
        check["mistakes"][0][0],
        [check["right"], check["hint"], *(why for _, why in check["mistakes"])],
    )


def test_right_and_wrong_answers_are_told_so_and_survive_a_reload(browser, path, data):
    browser.open(path)
    for name in NAMES:
        right, wrong, reasons = right_and_wrong(data[name]["check"])
        for value, verdict in ((wrong, "✗ Not yet. "), (right, "✓ Right. ")):
            said = answer(browser, name, value)
            assert said.startswith(verdict)
            assert said.removeprefix(verdict) in reasons
    assert len(browser.all(".chapters .done:not([hidden])")) == len(NAMES)
    address = browser.script("return location.hash")
    browser.open(path, address)
    assert len(browser.all(".chapters .done:not([hidden])")) == len(NAMES)
    assert browser.text('form[data-chapter="slopes"] .verdict').startswith("✓ Right.")
    assert browser.script("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


@pytest.mark.parametrize(
    "address", ["#at=nowhere", "#slopes=%E0%A4%A", "#directions=99&paths=abc", "#weights=__proto__", "#constructor=1"]
)
def test_an_address_that_makes_no_sense_does_no_harm(browser, path, address):
    browser.open(path, address)
    assert browser.logs()[0] == []
    assert browser.all(".chapters .done:not([hidden])") == []


def test_an_answer_that_is_none_is_asked_for(browser, path):
    browser.open(path)
    assert "Write a number" in answer(browser, "slopes", "six")
    browser.click('form[data-chapter="weights"] button')
    assert "Choose one" in browser.text('form[data-chapter="weights"] .verdict')
    assert "Right" in answer(browser, "descent", "1,4")


def test_the_keyboard_alone_reaches_every_control(browser, path):
    assert browser.open(path).unreached() == []


def test_sliders_and_steps_tell_in_words_what_the_picture_shows(browser, path, data):
    browser.open(path)
    browser.press(Keys.HOME, into="#slopes-lines input")
    assert "x = 0: f has slope 0" in browser.find("#slopes-lines input").get_attribute("aria-valuetext")
    for way, steps in enumerate(data["directions"]["steps"]):
        browser.click(f"#directions-graph .tab:nth-child({way + 1})")
        for step in steps:
            browser.click("#directions-graph .controls button:nth-child(2)")
            said = browser.text("#directions-graph .said")
            assert said.startswith(f"{step['node']} moves" if step["given"] else f"{step['node']}: {step['text']}.")
    assert "both ∂y/∂x1 and ∂y/∂x2" in browser.text("#directions-graph .said")
    assert browser.logs()[0] == []


@pytest.mark.parametrize("size", [(1400, 900), (400, 800)], ids=["desk", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_violation(browser, axe, path, size, dark):
    browser.open(path, size=size, dark=dark)
    assert browser.overflow() <= 0
    assert violations(browser, axe) == []


def test_every_picture_has_a_name_and_a_finding(browser, path):
    browser.open(path)
    assert (
        browser.script(
            "return [...document.querySelectorAll('figure.picture')].filter((f) => !f.querySelector('figcaption').textContent.trim()).length"
        )
        == 0
    )
    assert (
        browser.script(
            "return [...document.querySelectorAll('svg:not([aria-hidden])')].filter((s) => !s.getAttribute('aria-label')).length"
        )
        == 0
    )
