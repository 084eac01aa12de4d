"""Laws of the report's page, in a real browser: what it says is what the sweeps and matrices are."""

import base64
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import axe, browser, by_jax, driver, folder, hostile, long, transformer, violations, waist  # noqa: F401
from selenium.webdriver.common.keys import Keys

import jaxchain as jc
from jaxchain.cost.measure import flops

PAGES = ("waist", "hostile", "long", "transformer")


@pytest.fixture(params=PAGES)
def made(request):
    return request.getfixturevalue(request.param)


def norms(made):
    """‖x_k‖, ‖ẋ_k‖, ‖x̄_k‖ of every state, by the sweeps."""
    forward = jc.forward_sweep(made.chain, made.args, made.tangent)
    reverse = jc.reverse_sweep(made.chain, made.args, made.cotangent)
    columns = forward.primals, forward.tangents, reverse.cotangents
    return [[float(jnp.linalg.norm(jnp.ravel(value))) for value in state] for state in zip(*columns, strict=True)]


def shown_norms(browser):
    values = browser.script("return {...document.getElementById('stage-values').dataset}")
    return [float(values[word]) for word in ("primal", "tangent", "cotangent")]


def walk_over(browser, canvas, output):
    """Every entry of a heat map, read with the arrow keys, row by row and back: {(row, column): value}."""
    read = """
        const canvas = document.querySelector(arguments[0]), output = document.querySelector(arguments[1]);
        const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
        const found = {};
        for (const key of ["ArrowUp", "ArrowLeft"]) for (let k = 0; k < 600; k += 1) press(key);
        for (let i = 0, before = ""; i < 600; i += 1) {
          for (let j = 0, place = ""; j < 600; j += 1) {
            const {row, column, value} = output.dataset;
            if (place === `${row} ${column}`) break;
            place = `${row} ${column}`;
            found[place] = [value, output.textContent];
            press("ArrowRight");
          }
          const {row} = output.dataset;
          if (row === before) break;
          before = row;
          press("ArrowDown");
          for (let j = 0; j < 600; j += 1) press("ArrowLeft");
        }
        return found;
    """
    browser.script("document.querySelector(arguments[0]).focus()", canvas)
    browser.press(Keys.ARROW_RIGHT, into=canvas)
    found = browser.script(read, canvas, output)
    return {tuple(map(int, place.split())): said for place, said in found.items()}


def check_entries(found, matrix):
    matrix = np.asarray(matrix)
    assert set(found) == {(i, j) for i in range(matrix.shape[0]) for j in range(matrix.shape[1])}
    for (i, j), (value, text) in found.items():
        np.testing.assert_allclose(float(value), matrix[i, j], rtol=1e-4, atol=1e-6)
        assert f"output {i} / ∂ input {j} =" in text


# ---------------------------------------------------------------------------------------------------- quiet and safe


def test_the_page_says_nothing_in_the_console_and_asks_for_nothing(browser, made):
    browser.open(made.path)
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.END, Keys.HOME):
        browser.press(key)
    said, asked = browser.logs()
    assert said == []
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} <= {made.path.as_uri(), "about:blank"}


def test_hostile_names_stay_text(browser, hostile):
    browser.open(hostile.path)
    names = hostile.chain.names
    for k, name in enumerate(names):
        browser.click(f".factor[data-stage='{k}']")
        assert browser.text("#stage-name") == name
    assert browser.text("h1") == '<b>title</b> & "co" </script>'
    assert browser.all("img") == []
    assert browser.script("return window.hacked") is None
    browser.press(Keys.END)
    assert browser.script("return window.hacked") is None


def test_a_stage_with_a_hostile_name_can_be_linked_to(browser, hostile):
    for k, name in enumerate(hostile.chain.names):
        browser.open(hostile.path)
        browser.click(f".factor[data-stage='{k}']")
        address = browser.script("return location.hash")
        browser.open(hostile.path, address)
        assert browser.text("#stage-name") == name


# ------------------------------------------------------------------------------------------------------------ the lesson


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_stepping_there_and_back_shows_the_sweeps_own_numbers(browser, waist, mode):
    browser.open(waist.path, f"#mode={mode}&step=0")
    wanted, q = norms(waist), len(waist.chain)
    order = range(q) if mode == "forward" else reversed(range(q))
    there = []
    for step, k in enumerate(order, start=1):
        browser.press(Keys.ARROW_RIGHT)
        assert browser.text("#stage-name") == waist.chain.names[k]
        assert browser.text("#sentence").startswith(f"{step} of {q}:")
        assert shown_norms(browser) == pytest.approx(wanted[k + 1], rel=1e-4)
        there.append(browser.text("#sentence"))
    for step in reversed(range(1, q)):
        browser.click("#previous")
        assert browser.text("#sentence") == there[step - 1]


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_every_step_shows_the_jacobian_known_by_then(browser, waist, mode):
    matrices = (
        jc.prefix_jacobians(waist.chain, waist.args)[1:]
        if mode == "forward"
        else jc.suffix_jacobians(waist.chain, waist.args)[-2::-1]
    )
    browser.open(waist.path, f"#mode={mode}&step=0")
    for matrix in matrices:
        browser.click("#next")
        check_entries(walk_over(browser, "#step-heat", "#step-hover"), matrix)


def test_the_plan_ends_with_the_whole_jacobian(browser, waist):
    browser.open(waist.path, "#mode=planned&step=0")
    browser.press(Keys.END)
    check_entries(walk_over(browser, "#step-heat", "#step-hover"), jc.suffix_jacobians(waist.chain, waist.args)[0])


def test_the_sentences_add_up_to_the_plans_cost(browser, waist):
    plan = jc.plan(waist.chain, waist.args)
    for mode, cost in (("forward", plan.forward_cost), ("reverse", plan.reverse_cost), ("planned", plan.cost)):
        browser.open(waist.path, f"#mode={mode}&step=0")
        browser.press(Keys.END)
        total = re.search(r"([\d.,]+)\s*(k?)\s*so far", browser.text("#sentence"))
        assert float(total[1].replace(",", "")) * (1000 if total[2] else 1) == pytest.approx(cost, rel=6e-3)


@pytest.mark.parametrize("mode", ["forward", "reverse", "planned"])
def test_a_mode_chosen_begins_at_its_beginning(browser, waist, mode):
    for before in ("forward", "reverse", "planned"):
        browser.open(waist.path, f"#mode={before}&step=2")
        browser.click(f"#mode-{mode}")
        assert browser.text("#sentence").startswith("0 of")
        browser.open(waist.path, f"#mode={before}&step=2")
        browser.script("location.hash = arguments[0]", f"mode={mode}")
        begins = "2 of" if mode == before else "0 of"
        browser.wait(lambda begins=begins: browser.text("#sentence").startswith(begins))


def test_keys_jump_to_the_ends_and_buttons_know_them(browser, waist):
    browser.open(waist.path, "#mode=reverse&step=1")
    browser.press(Keys.END)
    assert browser.text("#sentence").startswith(f"{len(waist.chain)} of")
    assert not browser.find("#next").is_enabled()
    browser.press(Keys.HOME)
    assert browser.text("#sentence").startswith("0 of")
    assert not browser.find("#previous").is_enabled()


def test_playing_walks_to_the_end(browser, waist):
    browser.open(waist.path, "#mode=forward&step=0")
    browser.press(Keys.SPACE)
    browser.wait(lambda: browser.text("#sentence").startswith(f"{len(waist.chain)} of"))
    assert browser.text("#play") == "play"


# ---------------------------------------------------------------------------------------------------------- the numbers


def told(cell):
    """A number of a table, in three digits; NaN for a dash."""
    return float(cell.text.replace("−", "-").replace("–", "nan"))


def test_the_tables_numbers_are_jaxs_own(browser, waist):
    params, _ = waist.args
    wanted = by_jax(waist.chain, waist.args, waist.tangent, waist.cotangent)
    browser.open(waist.path)
    rows = [row.find_elements("css selector", "td") for row in browser.all(".stages tbody tr")]
    for k, (cells, (state, tangent, cotangent, jacobian, gradient)) in enumerate(zip(rows, wanted, strict=True)):
        assert list(map(told, cells[2:5])) == pytest.approx([state, tangent, cotangent], rel=6e-3)
        if k:
            assert cells[1].text == "{} × {}".format(*jacobian.shape)
            assert told(cells[5]) == pytest.approx(wanted[k - 1][2] / cotangent, rel=6e-3)
            assert told(cells[6]) == pytest.approx(gradient or np.nan, rel=6e-3, nan_ok=True)
            assert cells[7].text == str(
                sum(leaf.size for leaf in jax.tree.leaves(params.get(waist.chain.names[k - 1], ())))
            )
    for mode, row in zip(("forward", "reverse"), browser.all(".modes tbody tr"), strict=False):
        work = flops(jc.jacobian(waist.chain, mode=mode), *waist.args)
        assert row.text.startswith(mode)
        assert row.find_element("css selector", "td .value [title]").get_attribute("title") == f"{work} FLOP"


# ---------------------------------------------------------------------------------------------------------- the matrices


def test_hover_says_what_the_matrix_holds(browser, waist):
    browser.open(waist.path)
    for k, local in enumerate(jc.local_jacobians(waist.chain, waist.args)):
        browser.click(f".factor[data-stage='{k}']")
        check_entries(walk_over(browser, "#heat", "#hover"), local.matrix)


def test_the_pointer_reads_the_entry_under_it(browser, waist):
    browser.open(waist.path, "#stage=dense_0")
    matrix = np.asarray(jc.local_jacobians(waist.chain, waist.args)[0].matrix)
    m, n = matrix.shape
    for i, j in ((0, 0), (m - 1, n - 1), (1, 3)):
        browser.point("#heat", (j + 0.5) / n, (i + 0.5) / m)
        said = browser.script("return {...document.getElementById('hover').dataset}")
        assert (int(said["row"]), int(said["column"])) == (i, j)
        np.testing.assert_allclose(float(said["value"]), matrix[i, j], rtol=1e-5)


def test_what_is_not_finite_is_said_and_not_drawn_as_a_number(browser, hostile):
    browser.open(hostile.path)
    browser.click(".factor[data-stage='0']")
    found = walk_over(browser, "#heat", "#hover")
    matrix = np.asarray(jc.local_jacobians(hostile.chain, hostile.args)[0].matrix)
    for place, (value, text) in found.items():
        want = matrix[place]
        assert np.isnan(float(value)) if np.isnan(want) else float(value) == want
        assert ("∞" in text) == bool(np.isinf(want))
        assert ("NaN" in text) == bool(np.isnan(want))
    assert "not finite" in browser.text("#stage-figure")
    ink = browser.script(
        "const c = document.getElementById('heat'); const g = c.getContext('2d');"
        "return [...g.getImageData(4, 4, 1, 1).data].slice(0, 3)"
    )
    assert max(ink) - min(ink) < 40  # ∞ is grey, neither red nor blue


# ------------------------------------------------------------------------------------------------------ inside a stage


def heads_by_hand(p, x, count):
    """What each head of `jaxchain.nets.transformer` adds to x, and its weights."""
    y = p["scale"] * x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    q, k, v = jnp.split(y @ p["qkv"]["w"].T + p["qkv"]["b"], 3, axis=-1)
    added, weights = [], []
    for columns in jnp.split(jnp.arange(x.shape[1]), count):
        scores = q[:, columns] @ k[:, columns].T / jnp.sqrt(len(columns))
        raised = jnp.where(jnp.tri(len(x), dtype=bool), jnp.exp(scores), 0)
        weights.append(raised / raised.sum(-1, keepdims=True))
        added.append(weights[-1] @ v[:, columns] @ p["out"]["w"][:, columns].T)
    return added, weights


def test_attention_shows_every_heads_weights_and_its_share_of_the_jacobian(browser, transformer):
    p, state = transformer.args[0]["attention_0"], transformer.chain[:1](*transformer.args)
    _, weights = heads_by_hand(p, state, 2)
    parts = jax.jacobian(lambda x: [x, *heads_by_hand(p, x, 2)[0]])(state)
    shares = [float(jnp.linalg.norm(part.ravel()) / jnp.linalg.norm(sum(parts).ravel())) for part in parts[1:]]
    browser.open(transformer.path, "#stage=attention_0")
    buttons = browser.all("#attention .heads button")
    assert len(buttons) == 2
    for button, share, wanted in zip(buttons, shares, weights, strict=True):
        button.send_keys(Keys.ENTER)
        assert button.get_attribute("aria-pressed") == "true"
        assert float(button.find_element("css selector", ".number").text) == pytest.approx(share, rel=6e-3)
        found = walk_over(browser, "#weights-heat", "#weights-hover")
        assert len(found) == wanted.size
        for (query, key), (value, text) in found.items():
            np.testing.assert_allclose(float(value), wanted[query, key], rtol=1e-4, atol=1e-7)
            assert f"query {query} on key {key} =" in text
    most = int(np.argmax(shares))
    assert browser.text("#attention .note").startswith(
        f"Head {most} carries most of J: {shares[most]:.2g} of its norm."
    )
    told = [row.text.split() for row in browser.all("[aria-labelledby='heads-title'] tbody tr")]
    assert [row[:3] for row in told[:2]] == [["attention_0", "head", f"{h}"] for h in range(2)]
    assert [float(row[3]) for row in told[:2]] == pytest.approx(shares, rel=6e-3)
    entropies = [-jnp.sum(w * jnp.log(jnp.where(w > 0, w, 1)), -1).mean() for w in weights]
    assert [float(row[4]) for row in told[:2]] == pytest.approx(np.exp(entropies), rel=6e-3)
    browser.open(transformer.path, "#stage=embed")
    assert not browser.find("#attention").is_displayed()
    assert not browser.find("#sum").is_displayed()


def test_a_residual_stage_is_a_sum_whose_terms_open_into_chains(browser, transformer):
    browser.open(transformer.path, "#stage=mlp_0")
    assert browser.text("#sum h3") == "A sum: J = I + Jmlp_0"
    state = transformer.chain[:2](*transformer.args)
    jacobian = jax.jacobian(lambda x: transformer.chain[2:3](transformer.args[0], x))(state)
    matrix = np.asarray(jacobian).reshape(state.size, state.size)
    skip, own = browser.all("#sum .terms > li")
    shown = [float(term.find_element("css selector", ".number").get_attribute("title")) for term in (skip, own)]
    np.testing.assert_allclose(shown, [np.sqrt(len(matrix)), np.linalg.norm(matrix - np.eye(len(matrix)))], rtol=1e-4)
    browser.click("#sum details summary")
    assert len(own.find_elements("css selector", ".parts li")) > 2
    assert not browser.find("#attention").is_displayed()


# ------------------------------------------------------------------------------------------------------- one selection


def test_a_stage_picked_anywhere_is_marked_everywhere(browser, waist):
    browser.open(waist.path)
    browser.click(".factor[data-stage='2']")
    assert browser.script("return location.hash").startswith("#stage=dense_1")
    assert browser.find(".factor[data-stage='2']").get_attribute("aria-pressed") == "true"
    assert browser.find(".stages tr[data-stage='2']").get_attribute("aria-current") == "true"
    for place in ("#programs", "#trace"):
        marked = browser.all(f"{place} .selected")
        assert marked
        assert {line.get_attribute("data-stage") for line in marked} == {"2"}


def test_a_line_of_a_program_selects_its_stage(browser, waist):
    browser.open(waist.path, "#stage=dense_0")
    browser.click("#programs .line[data-stage='4']")
    assert browser.text("#stage-name") == waist.chain.names[4]


@pytest.mark.parametrize("name", ["fun", "jvp", "linearize", "transpose", "vjp", "grad", "vmap", "jit"])
def test_every_program_is_there_with_the_stages_lines_marked(browser, waist, name):
    row = jc.transforms(waist.chain, *waist.args)[name]
    browser.open(waist.path, "#stage=dense_1")
    tab = next(tab for tab in browser.all("#programs .pane:first-child .tab") if tab.text == name)
    browser.script("arguments[0].click()", tab)
    shown = browser.all("#programs .pane:first-child .line")
    lines = [(line.find_element("css selector", "code").get_attribute("textContent"), line) for line in shown]
    assert lines
    known = dict(row.lines)
    for text, line in lines:
        assert text in known
        assert ("selected" in line.get_attribute("class")) == (line.get_attribute("data-stage") == "2")


def test_an_address_is_followed_and_a_wrong_one_is_told(browser, waist):
    browser.open(waist.path, "#stage=tanh_0&mode=planned&step=2")
    assert browser.text("#stage-name") == "tanh_0"
    assert browser.text("#sentence").startswith("2 of")
    assert not browser.find("#message").is_displayed()
    browser.open(waist.path, "#stage=nowhere&mode=sideways&step=999")
    message = browser.text("#message")
    for word in ("nowhere", "sideways", "999"):
        assert word in message


# ------------------------------------------------------------------------------------------------------------- long ones


def test_a_long_chain_is_folded_opens_and_can_be_stepped(browser, long):
    browser.open(long.path)
    folded = browser.all("#factors [data-group]")
    assert 1 < len(browser.all("#factors li")) <= 41
    assert all(
        "stages folded" in group.get_attribute("aria-label")
        for group in folded
        if group.get_attribute("aria-expanded") == "false"
    )
    browser.script("arguments[0].click()", folded[0])
    assert browser.all("#factors .factor[data-stage='149']")
    last = long.chain.names[-1]
    browser.open(long.path, f"#stage={last.replace('/', '%2F')}&mode=forward&step=0")
    assert browser.text("#stage-name") == last
    wanted = norms(long)
    browser.press(*[Keys.ARROW_RIGHT] * 5)
    assert shown_norms(browser) == pytest.approx(wanted[5], rel=1e-4)


@pytest.mark.parametrize("size", [(400, 800), (1280, 900)], ids=str)
def test_the_factor_of_the_step_stays_in_sight(browser, long, size):
    browser.open(long.path, "#stage=block_0%2Fsin_0&mode=forward&step=0", size=size)
    browser.script("document.querySelectorAll('[data-group][aria-expanded=false]')[0].click()")
    box = browser.script("return document.getElementById('factors').getBoundingClientRect().toJSON()")
    assert box["height"] < size[1] / 2
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.END, Keys.HOME, Keys.ARROW_RIGHT):
        browser.press(key)
        for item in browser.all("#factors .current"):
            assert box["top"] - 1 <= item.rect["y"] - browser.script("return scrollY") < box["bottom"]


# --------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("page", ["waist", "long", "transformer"])
def test_the_words_name_where_norms_are_largest_and_least(browser, request, page):
    made = request.getfixturevalue(page)
    browser.open(made.path)
    words = browser.text("#growth")
    names = ("the input", *made.chain.names)
    for column in list(zip(*norms(made), strict=True))[1:]:
        ends = column[0], column[-1]
        assert names[-1] in words
        for extreme, outside in (
            (min(column), min(column) < min(ends) / 1.5),
            (max(column), max(column) > 1.5 * max(ends)),
        ):
            assert not outside or names[column.index(extreme)] in words


def test_names_under_factors_are_short_and_tell_them_apart(browser, made):
    browser.open(made.path)
    shown = browser.script(
        "return [...document.querySelectorAll('#factors .name')].map(n => n.dataset.cut ?? n.textContent)"
    )
    assert len(set(shown)) == len(shown)
    assert max(len(line) for name in shown for line in name.split("\n")) <= 16


# --------------------------------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize("size", [(400, 800), (768, 1000), (1280, 900)], ids=str)
def test_no_window_is_too_narrow(browser, made, size):
    browser.open(made.path, size=size)
    assert browser.overflow() <= 0
    browser.press(Keys.END)
    assert browser.overflow() <= 0


@pytest.mark.parametrize(
    ("size", "dark"), [((400, 800), True), ((1280, 900), False)], ids=["narrow, dark", "wide, light"]
)
def test_axe_finds_no_violation(browser, axe, made, size, dark):
    inside = next((f"#stage={name}" for name in made.chain.names if name == "attention_0"), "")
    browser.open(made.path, inside, size=size, dark=dark)
    browser.press(Keys.ARROW_RIGHT)
    browser.script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert violations(browser, axe) == []


def test_the_keyboard_alone_reaches_every_control(browser, waist):
    browser.open(waist.path)
    browser.script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert browser.unreached() == []


def test_dark_is_dark_and_light_is_light(browser, waist):
    def ground():
        rgb = browser.script("return getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(float, re.findall(r"[\d.]+", rgb)[:3]))

    browser.open(waist.path, dark=False)
    light = ground()
    browser.open(waist.path, dark=True)
    assert light > 600
    assert ground() < 200


def test_without_scripts_the_tables_are_there(browser, waist):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(waist.path.as_uri())
        rows = browser.all(".stages tbody tr")
        assert len(rows) == len(waist.chain) + 1
        text = browser.find("body").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for word in (*waist.chain.names, "forward", "reverse", "auto", "Scripts are off"):
        assert word in text


def test_it_prints_black_on_white(browser, waist):
    browser.open(waist.path, dark=True)
    printed = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    colour = browser.script("return getComputedStyle(document.body).color")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert sum(map(float, re.findall(r"[\d.]+", colour)[:3])) < 200
