"""The graph on the page, in a real browser: what it says is what the graph's sums and paths are."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import some_params
from pages import axe, browser, driver, folder, violations  # noqa: F401
from selenium.webdriver.common.keys import Keys

import jaxchain as jc


def baydin(x1, x2):
    return jnp.log(x1) + x1 * x2 - jnp.sin(x2)


def values(x1, x2, shift=(0.0,) * 7):
    """All that it computes on the way, each moved by its shift: the derivatives by these are the cotangents."""
    x1, x2 = x1 + shift[0], x2 + shift[1]
    v1 = jnp.log(x1) + shift[2]
    v2 = x1 * x2 + shift[3]
    v3 = v1 + v2 + shift[4]
    v4 = jnp.sin(x2) + shift[5]
    return x1, x2, v1, v2, v3, v4, v3 - v4 + shift[6]


def scalars(x):
    u = x**2
    return 1 / (1 + u)


@pytest.fixture(scope="module")
def textbook(folder):
    return jc.report(baydin, 2.0, 5.0, path=folder / "baydin.html"), jc.graph(baydin, 2.0, 5.0)


@pytest.fixture(scope="module")
def network(folder):
    net = jc.nets.mlp([3, 13, 2], "tanh")
    args = some_params(net), jnp.array([0.5, -1.0, 2.0])
    return jc.report(net, *args, path=folder / "network.html"), jc.graph(net, *args)


def node(graph, name):
    return f"#graph [data-node='{[one.name for one in graph.rows].index(graph[name].name)}']"


def test_the_graph_of_a_small_function_is_the_first_section_with_nothing_folded(browser, textbook):
    path, graph = textbook
    browser.open(path)
    assert browser.script("return document.querySelector('main section').id") == "graph-part"
    assert len(browser.all("#graph .node")) == len(graph.rows) == 7
    assert len(browser.all("#graph .arrow")) == len(graph.arrows) == 8
    assert browser.all("#graph .opener") == []


def test_the_numbers_in_the_nodes_and_on_the_arrows_are_jaxs(browser, textbook):
    path, _ = textbook
    browser.open(path)
    told = [browser.script("return [...arguments[0].querySelectorAll('text')].map((t) => t.textContent)", one)
            for one in browser.all("#graph .node")]  # fmt: skip
    numbers = np.array([[float(re.search(r"[−\d.]+(?:e[−\d]+)?(?= →|$)", line)[0].replace("−", "-")) for line in lines[1:]]
                        for lines in told])  # fmt: skip
    primals, tangents = jax.jvp(values, (2.0, 5.0), (numbers[0, 1], numbers[1, 1]))
    cotangents = jax.grad(lambda shift: values(2.0, 5.0, shift)[-1])((0.0,) * 7)
    np.testing.assert_allclose(numbers, np.transpose([primals, tangents, cotangents]), rtol=1e-3, atol=1e-6)
    partials = sorted(float(text.text.replace("−", "-")) for text in browser.all("#graph .arrow text"))
    np.testing.assert_allclose(partials, sorted([1 / 2, 5, 2, np.cos(5), 1, 1, 1, -1]), rtol=1e-3)


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_stepping_over_the_graph_writes_out_the_sums(browser, textbook, way):
    path, graph = textbook
    browser.open(path)
    browser.click(f"#graph-{way}")
    steps = graph.accumulate(way)
    for k, step in enumerate(steps, start=1):
        said = browser.text("#graph-says")
        assert said.startswith(f"{k} of {len(steps)}: the ")
        assert said.endswith(step.text)
        colour = "reverse" if way == "reverse" else "forward"
        assert len(browser.all(f"#graph .node text.{colour}")) == k
        if k < len(steps):
            browser.click("#graph-next")
    assert browser.find("#graph-next").get_attribute("disabled")


def test_two_nodes_show_the_paths_between_them_and_their_sum(browser, textbook):
    path, graph = textbook
    browser.open(path)
    browser.press(Keys.ENTER, into=node(graph, "x1"))
    browser.press(Keys.ENTER, into=node(graph, "y"))
    assert browser.text("#graph-says") == "∂y/∂x1 is the sum over 2 paths: 5.5 = 0.5 + 5"
    told = [line.get_attribute("textContent") for line in browser.all("#graph-paths li")]
    assert told == ["v-1 → v1 → v3 → v5: 1 · 1 · 0.5 = 0.5", "v-1 → v2 → v3 → v5: 1 · 1 · 5 = 5"]
    assert len(browser.all("#graph .arrow.marked")) == 5
    browser.press(Keys.ENTER, into=node(graph, "v1"))
    browser.press(Keys.ENTER, into=node(graph, "v4"))
    assert browser.text("#graph-says") == "No path leads from v1 to v4: ∂v4/∂v1 = 0."


def test_a_stage_opens_into_its_own_graph_and_back(browser, network):
    path, graph = network
    browser.open(path)
    assert browser.script("return document.querySelector('main section').id") != "graph-part"
    assert len(browser.all("#graph .opener")) == len(graph.inside) == 2
    inner = graph.open(next(iter(graph.inside)))
    browser.press(Keys.ENTER, into="#graph .opener")
    assert len(browser.all("#graph .node")) == len(inner.rows)
    assert len(browser.all("#graph .arrow")) == len(inner.arrows)
    browser.press(Keys.ENTER, into="#graph-out")
    assert len(browser.all("#graph .node")) == len(graph.rows)


def test_choosing_a_node_chooses_its_stage(browser, network):
    path, graph = network
    browser.open(path)
    browser.press(Keys.ENTER, into=node(graph, "y"))
    assert browser.text("#stage-name") == "dense_1"


def test_small_steps_are_written_as_arithmetic(browser, folder):
    path = jc.report(scalars, 2.0, path=folder / "scalars.html")
    browser.open(path, "#mode=forward&step=2")
    assert "−0.04 · 4 = −0.16" in browser.text("#sentence") or "1 · 4 = 4" in browser.text("#sentence")
    matrix = jnp.array([[2.0, 0.0], [1.0, 3.0]])
    chain = jc.Chain([jc.Stage("line", lambda x: matrix @ x), jc.Stage("sum", lambda y: y[:1] * y[1:])])
    x = jnp.array([1.0, 4.0])
    path = jc.report(chain, x, path=folder / "matrices.html")
    browser.open(path, "#mode=forward&step=2")
    np.testing.assert_allclose(jnp.array([[13.0, 2.0]]) @ matrix, [[28, 6]])
    assert "[13 2] · [2 0; 1 3] = [28 6]" in browser.text("#sentence")
    browser.open(path, "#mode=reverse&step=2")
    assert "[13 2] · [2 0; 1 3] = [28 6]" in browser.text("#sentence")


def test_the_keyboard_alone_reaches_every_node_and_button(browser, textbook):
    path, _ = textbook
    assert browser.open(path).unreached() == []


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (900, True), (400, True)])
def test_the_graph_scrolls_in_its_own_frame_and_axe_finds_no_violation(browser, axe, textbook, width, dark):
    path, graph = textbook
    browser.open(path, size=(width, 900), dark=dark)
    assert browser.overflow() <= 0
    browser.click("#graph-reverse")
    assert violations(browser, axe) == []
    browser.press(Keys.ENTER, into=node(graph, "x1"))
    browser.press(Keys.ENTER, into=node(graph, "y"))
    assert violations(browser, axe) == []
    said, asked = browser.logs()
    assert said == []
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} <= {path.as_uri(), "about:blank"}


def test_every_picture_can_be_saved_as_svg_and_png(browser, network):
    """What the button hands to the browser to keep, read before it is kept."""
    path, graph = network
    browser.open(path)
    browser.script("""
        HTMLAnchorElement.prototype.click = function () { window.named = this.download; };
        URL.createObjectURL = (blob) => { window.saved = blob; return "blob:none"; };
    """)
    parts = [button.get_attribute("aria-label") for button in browser.all(".save button") if button.is_displayed()]
    assert len(parts) == 14  # seven pictures
    for place, ending, kind in (("#graph", "svg", "image/svg+xml"), ("#factors", "png", "image/png")):
        browser.script("window.saved = null; document.querySelector(arguments[0]).focus()", f"{place} + .save button")
        number = 1 if ending == "svg" else 2
        browser.press(Keys.ENTER, into=f"{place} + .save button:nth-of-type({number})")
        browser.wait(lambda: browser.script("return window.saved !== null"))
        assert browser.script("return window.saved.type") == kind
        assert browser.script("return window.named").endswith(ending)
    browser.press(Keys.ENTER, into="#graph + .save button")
    text = browser.driver.execute_async_script("window.saved.text().then(arguments[0])")
    for one in graph.rows:
        norm = f"‖{np.linalg.norm(one.primal):.4g}‖"
        assert one.name in text
        assert norm in text or one.primal.size <= 2  # a few numbers stand themselves
    browser.press(Keys.ENTER, into="#factors + .save button")
    text = browser.driver.execute_async_script("window.saved.text().then(arguments[0])")
    assert text.count("<image") == 3
    assert "2×13" in text
    said, _ = browser.logs()
    assert said == []


def test_a_page_shows_itself_in_a_notebook(browser, folder):
    page = jc.report(scalars, 2.0, path=folder / "inline.html", inline=True)
    assert page.path.read_text(encoding="utf-8") == page.html
    notebook = folder / "notebook.html"
    notebook.write_text(f"<!doctype html><html lang=en data-ready><body>{page._repr_html_()}")
    browser.driver.get(notebook.as_uri())
    browser.driver.switch_to.frame(0)
    browser.wait(lambda: browser.script("return document.documentElement.dataset.ready"))
    assert browser.text("h1") == "scalars"
    browser.driver.switch_to.default_content()
