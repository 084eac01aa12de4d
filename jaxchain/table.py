"""Tables and numbers for people: one place that turns rows into terminal text and notebook HTML.

Layout and wrapping in a terminal are rich's, HTML is Jinja2's; either is imported when first used.
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "Tabular", "si"]

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


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column is left-aligned, the others right-aligned."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        console = self._console()
        return "\n".join(line.rstrip() for line in console.export_text(clear=False).splitlines())

    def _repr_html_(self) -> str:
        from jaxchain.html import render

        return render("table.html", title=self.title, header=self.header, rows=self.rows, notes=self.notes)

    def _console(self):  # noqa: ANN202
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        width = shutil.get_terminal_size(fallback=(120, 24)).columns
        console = Console(file=io.StringIO(), record=True, width=width, color_system=None, highlight=False)
        table = RichTable(title=Text(self.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, name in enumerate(self.header):
            longest = max(len(row[number]) for row in (self.header, *self.rows))
            # A name that is folded cannot be copied: the other columns give way first, up to half the width.
            least = None if number else min(longest, width // 2)
            table.add_column(Text(name), justify="right" if number else "left", overflow="fold", min_width=least)
        for row in self.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        for note in self.notes:
            console.print(Text(note))
        return console


class Tabular:
    """What shows itself as a table: ``str()`` in a terminal, rich display in a notebook."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()  # pyright: ignore[reportPrivateUsage]
