"""Numbers and tables for people."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from jaxchain.show.table import Table, si

TABLE = Table(
    "Layers [of a net]",
    ("name", "work"),
    [("dense <0>", "1.2 k"), ("[red]relu & co", "10")],
    ("A note: [bold]x[/bold] < 3.",),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 FLOP"),
        (1, "1 FLOP"),
        (999, "999 FLOP"),
        (1000, "1.00 kFLOP"),
        (999_600, "1.00 MFLOP"),
        (1.704e9, "1.70 GFLOP"),
        (0.0035, "3.50 mFLOP"),
        (1.5, "1.50 FLOP"),
        (12.34, "12.3 FLOP"),
        (-2500, "-2.50 kFLOP"),
        (3e-16, "0.000300 pFLOP"),
        (math.inf, "inf FLOP"),
        (math.nan, "nan FLOP"),
    ],
)
def test_a_number_has_three_digits_and_a_prefix(value, text):
    assert si(value, "FLOP") == text


def test_a_number_without_a_unit_has_no_trailing_space():
    assert si(12, "") == "12"
    assert si(1500, "") == "1.50 k"


FACTORS = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


@settings(deadline=None)
@given(st.floats(1e-12, 1e17))
def test_a_number_reads_back_to_three_digits(value):
    number, prefix = si(value, "s").removesuffix("s").split(" ")
    assert float(number) * FACTORS[prefix] == pytest.approx(value, rel=5.1e-3)


def test_text_is_plain_and_keeps_brackets():
    text = str(TABLE)
    for part in ("Layers [of a net]", "dense <0>", "[red]relu & co", "[bold]x[/bold] < 3."):
        assert part in text
    assert "\x1b" not in text


def test_the_first_column_is_on_the_left_and_the_others_on_the_right():
    rows = [line for line in str(TABLE).splitlines() if "dense" in line or "relu" in line]
    assert rows[0].startswith("dense <0>")
    assert len({len(row.rstrip()) for row in rows}) == 1


def test_html_escapes_what_looks_like_markup():
    html = TABLE._repr_html_()
    for part in ("dense &lt;0&gt;", "[red]relu &amp; co", "x[/bold] &lt; 3."):
        assert part in html
    assert "dense <0>" not in html


def test_showing_a_table_prints_nothing(capsys):
    str(TABLE)
    TABLE._repr_html_()
    assert capsys.readouterr().out == ""


def test_long_cells_are_folded_and_lose_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = str(Table("t", ("name", "value"), [("x" * 150, "1")]))
    assert text.count("x") == 150
    assert max(map(len, text.splitlines())) <= 100


MODES = Table(
    "Jacobian by mode",
    ("mode", "work", "predicted", "temporaries", "compile", "max error"),
    [("forward", "2.23 MFLOP", "2.19 MFLOP", "49.2 kB", "156 ms", "1.8e-07"), ("auto", "376 kFLOP", "", "", "", "0")],
    ("A note of some words.",),
)
CELLS = itertools.chain([MODES.title], MODES.header, *MODES.rows, MODES.notes)
WORDS = {word for cell in CELLS for word in cell.split()}


@pytest.mark.parametrize("width", [200, 80, 72, 60, 55, 50, 40, 20])
def test_a_narrow_table_breaks_lines_between_words_and_loses_nothing(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = str(MODES)
    assert max(map(len, text.splitlines())) <= width
    assert set(text.replace(":", "").split()) == WORDS


def test_without_room_for_columns_a_row_is_a_block(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    text = str(MODES)
    assert "forward\n  work: 2.23 MFLOP\n  predicted: 2.19 MFLOP\n" in text
    assert "auto\n  work: 376 kFLOP\n  max error: 0\nA note" in text


words = st.text(st.sampled_from("ab-é宽"), min_size=1, max_size=12)
texts = st.lists(words, max_size=4).map(" ".join)


@settings(deadline=None)
@example(3, [["", ""], ["宽", ""]])
@given(
    st.integers(2, 90),
    st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(texts, min_size=n, max_size=n), min_size=2)),
)
def test_no_table_is_wider_than_its_terminal_or_loses_a_letter(width, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        text = str(Table("", rows[0], rows[1:]))
    assert max(map(cell_len, text.splitlines()), default=0) <= width
    for letter in "ab-é宽":
        assert text.count(letter) >= sum(cell.count(letter) for row in rows[1:] for cell in row)
