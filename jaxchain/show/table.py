"""Tables and numbers for people: one place that turns rows and results into terminal text and notebook HTML.

Layout and wrapping in a terminal are rich's, HTML is Jinja2's; either is imported when first used.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from jaxchain.show.escape import escaped

__all__ = ["Shown", "Table", "Tabular", "one_line", "shorten", "si", "terminal_width"]

BRIEF = 100
"""How many characters of a result its repr tells at most."""

PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


def si(value: float, unit: str) -> str:
    """Three significant digits with an SI prefix: ``si(1.704e9, "FLOP")`` is ``"1.70 GFLOP"``."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f} {unit}".rstrip()
    power = min(max(3 * math.floor(math.log10(abs(value)) / 3), -12), 15)
    scaled = float(f"{value / 10.0**power:.3g}")
    if abs(scaled) >= 1000 and power < 15:
        scaled, power = scaled / 1000, power + 3
    if power == 0 and float(value).is_integer():
        return f"{value:.0f} {unit}".rstrip()
    digits = max(2 - math.floor(math.log10(abs(scaled))), 0)
    return f"{scaled:.{digits}f} {PREFIXES[power]}{unit}".rstrip()


def terminal_width() -> int:
    """Characters in a line of the terminal; 120 where there is none."""
    return shutil.get_terminal_size(fallback=(120, 24)).columns


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column is left-aligned, the others right-aligned."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        safe = {
            "title": escaped(self.title),
            "header": [escaped(name) for name in self.header],
            "rows": [[escaped(cell) for cell in row] for row in self.rows],
            "notes": [escaped(note) for note in self.notes],
        }
        for name, value in safe.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        room = terminal_width()
        notes = (line for note in self.notes for line in _wrapped(note, room))
        lines = (*_wrapped(self.title, room), *(self._columns(room) or self._blocks(room)), *notes)
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        from jaxchain.show.html import render

        return render("table.html", title=self.title, header=self.header, rows=self.rows, notes=self.notes)

    def _columns(self, room: int) -> list[str]:
        """Lines of columns side by side, or none where there is no room for their words."""
        if not self.header:
            return []
        columns = list(zip(self.header, *self.rows, strict=True))
        whole, words = (_widest(columns, parts) for parts in (str.splitlines, str.split))
        # A name that is folded cannot be copied: the other columns give way first, up to half the width. In less than
        # two cells a wide letter would be lost.
        least = [min(whole[0], max(room // 2, 2)), *words[1:]]
        gap = "  " if sum(whole) + 2 * (len(whole) - 1) <= room else " "
        widths, spare = list[int](), room - sum(least) - len(gap) * (len(least) - 1)
        if spare < 0:
            return []
        for low, high in zip(least, whole, strict=True):
            widths.append(min(max(high, low), low + spare))
            spare -= widths[-1] - low
        return [line for row in (self.header, *self.rows) for line in _side_by_side(row, widths, gap)]

    def _blocks(self, room: int) -> list[str]:
        """Lines of one block a row: its name, below it a line for each cell."""
        cells = (
            ("  " * bool(number) + (f"{name}: {cell}" if number else cell))
            for row in self.rows
            for number, (name, cell) in enumerate(zip(self.header, row, strict=True))
            if cell
        )
        return [line for cell in cells for line in _wrapped(cell, room)]


def _side_by_side(row: Sequence[str], widths: Sequence[int], gap: str) -> list[str]:
    """The lines that a row takes, its cells wrapped to these widths."""
    cells = [
        _wrapped(cell, width, justify="right" if number else "left")
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    height = max(map(len, cells))
    padded = [cell + [" " * width] * (height - len(cell)) for cell, width in zip(cells, widths, strict=True)]
    return [gap.join(line) for line in zip(*padded, strict=True)]


def _wrapped(text: str, width: int, justify: Literal["left", "right"] = "left") -> list[str]:
    """Lines as wide as this, broken between words, and within one where it is wider."""
    if len(text) <= width and text.isascii() and text.isprintable() and text == text.strip():
        return [text.rjust(width) if justify == "right" else text.ljust(width)]  # a table has thousands of such cells
    from rich.console import Console
    from rich.text import Text

    return [line.plain for line in Text(text).wrap(Console(), max(width, 1), justify=justify, overflow="fold")]


def _widest(columns: Sequence[Sequence[str]], parts: Callable[[str], list[str]]) -> list[int]:
    """Of each column, how many characters the widest part of a cell takes in a terminal."""
    from rich.cells import cell_len

    return [max((cell_len(part) for cell in column for part in parts(cell)), default=1) for column in columns]


def shorten(name: str, most: int, head: int | None = None) -> str:
    """A name of at most so many letters, the middle left out: long names differ at their ends.

    ``head`` of them are its first; default: a third.
    """
    if len(name) <= most:
        return name
    head = (most - 1) // 3 if head is None else head
    return f"{name[:head]}…{name[head + 1 - most :]}"


def one_line(text: str, most: int) -> str:
    """Text for a margin or a repr: one line, cut off where it is longer than this."""
    plain = escaped(" ".join(text.splitlines()))
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


class Shown:
    """A result that shows itself: ``str()`` in a terminal, a short line for ``repr()``, a table in a notebook.

    A class says how by its ``_table``; by ``_brief``, what its repr says of it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # @dataclass leaves a repr alone that the class itself has; the one that it would write holds every array.
        cls.__repr__ = cls.__repr__

    def _table(self) -> Table:
        raise NotImplementedError

    def _brief(self) -> str:
        return self._table().title

    def __str__(self) -> str:
        return str(self._table())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({one_line(self._brief(), BRIEF)})"

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()  # pyright: ignore[reportPrivateUsage]


class Tabular(Shown):
    """A result that is ``.rows``, and so can be a data frame."""

    rows: Any

    def to_pandas(self) -> Any:
        """The ``.rows`` as a ``pandas.DataFrame``, in order.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> jc.bracket([3, 1, 3], [3, 3]).to_pandas()
                         kind  start  middle  stop  cost
        0  accumulate adjoint      0     NaN     1     3
        1   eliminate tangent      0     1.0     2     9
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            msg = "A data frame is one of pandas, which is not installed: pip install pandas."
            raise ImportError(msg) from error
        return pd.DataFrame(list(self._records()))

    def _records(self) -> Iterable[Mapping[str, Any]]:
        """What a data frame holds of each row, by column; here, all of its fields."""
        return (
            row._asdict()
            if hasattr(row, "_asdict")
            else {field.name: getattr(row, field.name) for field in fields(row)}
            for row in self.rows
        )
