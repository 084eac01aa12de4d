"""A trace in a terminal: as much of every row as fits, values before pictures, pictures before sources."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from jaxchain.explore.nest import TraceRow
from jaxchain.show.table import Table, terminal_width
from jaxchain.show.values import count, summary

__all__ = ["trace_text"]

HEADER = ("trace", "source", "primal ↓", "tangent ↓", "cotangent ↑")

LOOKS = ((True, True), (False, True), (False, False))
"""(pictures, source): what a terminal is shown, less where it is narrow."""

Walked = Sequence[tuple[TraceRow, int]]
"""Rows with their depths."""


def trace_text(title: str, walked: Walked, notes: Sequence[str], most: int | None, hints: tuple[str, str]) -> str:
    """The table of a trace: the first and last of ``most`` rows, or all of them; ``hints`` say how to come to the rest."""
    room = terminal_width()
    tables = (_table(title, walked, notes, most, hints, picture=picture, source=source) for picture, source in LOOKS)
    fitting = next((table for table in tables if sum(_widths(table)) <= room), None)
    return str(fitting or _cut(_table(title, walked, notes, most, hints, picture=False, source=False), room))


def _table(
    title: str,
    walked: Walked,
    notes: Sequence[str],
    most: int | None,
    hints: tuple[str, str],
    *,
    picture: bool,
    source: bool,
) -> Table:
    most = len(walked) if most is None else most
    opened = {id(row) for (row, depth), (_, after) in itertools.pairwise(walked) if after > depth}
    left_out, told = max(len(walked) - most, 0), list(notes)
    shown = [*walked[: most // 2], *walked[most // 2 - most :]] if left_out else walked
    cells = [_cells(row, depth, is_open=id(row) in opened, picture=picture) for row, depth in shown]
    if left_out:
        cells.insert(most // 2, (f"… {count(left_out, 'row')} …", "", "", "", ""))
        told.append(f"{count(left_out, 'row')} {'is' if left_out == 1 else 'are'} left out here; {hints[0]}.")
    if any(row.rows and id(row) not in opened for row, _ in walked):
        told.append(f"+ holds more rows: {hints[1]}.")
    kept = [0, 1, 2, 3, 4] if source else [0, 2, 3, 4]
    return Table(title, [HEADER[k] for k in kept], [[row[k] for k in kept] for row in cells], told)


def _cells(row: TraceRow, depth: int, *, is_open: bool, picture: bool) -> tuple[str, ...]:
    """A row as text: indented by its depth, a closed fold marked; its values' shape is told once."""
    mark = "" if not row.rows else "- " if is_open else "+ "
    values = (row.primal, row.tangent, row.cotangent)
    told = (summary(value, shape=not k, picture=picture) for k, value in enumerate(values))
    return "  " * depth + mark + row.formula, row.source, *told


def _widths(table: Table) -> list[int]:
    """Characters that each column takes, the space before it included."""
    columns = zip(table.header, *table.rows, strict=True)
    return [max(map(len, column)) + (2 if number else 0) for number, column in enumerate(columns)]


def _cut(table: Table, room: int) -> Table:
    """The same table with the middle of long formulae left out, so that the values are there."""
    left = max(room - sum(_widths(table)[1:]), 16)

    def short(text: str) -> str:
        return text if len(text) <= left else f"{text[: left // 2]}…{text[-((left - 1) // 2) :]}"

    return replace(table, rows=[(short(text), *rest) for text, *rest in table.rows])
