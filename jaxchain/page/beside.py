"""Two chains beside each other: their stages aligned, the norms of both, how far their Jacobians are apart.

Each side is surveyed by itself, along the same directions. Stages are aligned in order by name and shapes, then by
shapes and parameters, then by shapes alone. Builds on `survey`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates
from jaxchain.diagnosis.survey import Link, Survey
from jaxchain.page.aligning import align
from jaxchain.page.ways import factors, running
from jaxchain.show.extremes import Floats
from jaxchain.show.table import Table, Tabular, one_line
from jaxchain.show.values import count, norm

__all__ = [
    "WHOLE",
    "Pair",
    "PairRow",
    "Side",
    "SideBySide",
    "StageNorms",
    "labelled",
    "pairs",
    "rows",
    "whole",
    "whole_row",
]

WHOLE = "whole chain"
"""The name of all stages together."""


@dataclass(frozen=True)
class Side:
    """One of the two: its name, its chain at its arguments, and what was found there."""

    name: str
    chain: Chain
    args: tuple[Any, ...]
    surveyed: Survey


@dataclass(frozen=True)
class StageNorms:
    """One stage of one side, in numbers; ``None`` for what does not exist or was not computed.

    Attributes
    ----------
    name
        The stage's; ``"input"`` for the chain input, which has no Jacobian.
    shape
        (m, n) of its Jacobian.
    state, tangent, cotangent
        Norms at the stage's output.
    jacobian
        Frobenius norm of its local Jacobian; of the columns that were computed on both sides where not all were.
    gradient
        Norm of the cotangent of its side inputs, such as parameters.

    Examples
    --------
    >>> found = jc.compare((jnp.sin, (jnp.zeros(4),)), (jnp.sin, (jnp.ones(4),)))
    >>> found.rows[-1].a.shape, found.rows[-1].a.jacobian  # cos 0 = 1, four times
    ((4, 4), 2.0)
    """

    name: str
    shape: tuple[int, int] | None
    state: float
    tangent: float | None
    cotangent: float | None
    jacobian: float | None = None
    gradient: float | None = None


@dataclass(frozen=True)
class PairRow:
    """A stage of ``a`` and the stage of ``b`` that stands beside it.

    Attributes
    ----------
    a, b
        What each is; ``None`` where the other has no counterpart.
    difference
        ‖J_b − J_a‖ / ‖J_a‖, in Frobenius norms; ``None`` where not both Jacobians are known.

    Examples
    --------
    >>> found = jc.compare((jnp.square, (jnp.ones(3),)), (jnp.square, (3 * jnp.ones(3),)))
    >>> found.rows[-1].name, found.rows[-1].difference  # from 2 I to 6 I
    ('square', 2.0)
    """

    a: StageNorms | None
    b: StageNorms | None
    difference: float | None = None

    @property
    def name(self) -> str:
        """The stage's name; both, with a bar between them, where they differ."""
        return " | ".join(dict.fromkeys(side.name for side in (self.a, self.b) if side))


@dataclass(frozen=True)
class SideBySide(Tabular):
    """What `compare` found: ``.rows``, the page that it wrote, and a table for terminals and notebooks.

    Attributes
    ----------
    rows
        One a pair of stages, in order, and one for each stage without a counterpart; the first is the input.
    whole
        Both chains as one stage; ``None`` where they are, where their Jacobians differ in shape or were not multiplied out.
    names
        What the two sides are called.
    headline
        The most important difference, in a sentence.
    sentences
        How the stages were aligned, and what is missing on one side.
    path
        The page.

    Examples
    --------
    >>> found = jc.compare((jnp.sin, (jnp.ones(2),)), (jnp.sin, (jnp.zeros(2),)), names=("at one", "at zero"))
    >>> found, found.path.name
    (SideBySide(at one beside at zero, 1 stage aligned), 'compare.html')
    """

    rows: tuple[PairRow, ...]
    whole: PairRow | None
    names: tuple[str, str]
    headline: str
    sentences: tuple[str, ...]
    path: Path

    def _brief(self) -> str:
        aligned = sum(row.a is not None and row.b is not None for row in self.rows[1:])
        a, b = (one_line(name, 24) for name in self.names)
        return f"{a} beside {b}, {count(aligned, 'stage')} aligned"

    def _table(self) -> Table:
        a, b = self.names
        header = ("stage", "Jacobian", "‖state‖", "‖cotangent‖", "‖Jacobian‖", "difference", "‖gradient‖")
        quantities = ("state", "cotangent", "jacobian", "gradient")
        rows: list[tuple[str, ...]] = []
        for row in (*self.rows, *([self.whole] if self.whole else [])):
            state, cotangent, jacobian, gradient = (_both(row, quantity) for quantity in quantities)
            known = row.a or row.b
            assert known is not None
            shape = "" if known.shape is None else f"{known.shape[0]} × {known.shape[1]}"
            apart = "" if row.difference is None else f"{100 * row.difference:.3g} %"
            rows.append((labelled(row, self.names), shape, state, cotangent, jacobian, apart, gradient))
        return Table(f"{a} → {b}", header, rows, (self.headline, *self.sentences))

    def _records(self) -> Iterable[Mapping[str, Any]]:
        """A column for each number of each side: ``state_a``, ``state_b`` and so on."""
        for row in self.rows:
            record: dict[str, Any] = {"name": row.name}
            for field in (field.name for field in fields(StageNorms)):
                for side in ("a", "b"):
                    value = getattr(getattr(row, side), field, None)
                    record[f"{field}_{side}"] = f"{value[0]} × {value[1]}" if isinstance(value, tuple) else value
            yield {**record, "difference": row.difference}


def _both(row: PairRow, quantity: str) -> str:
    values = [getattr(side, quantity, None) for side in (row.a, row.b)]
    told = ["–" if value is None else f"{value:.3g}" for value in values]
    return "" if values == [None, None] else " → ".join(told)


def labelled(row: PairRow, names: tuple[str, str]) -> str:
    """A row's name; of a stage without a counterpart also whose it is."""
    only = [name for name, side in zip(names, (row.a, row.b), strict=True) if side is not None]
    return row.name if len(only) == 2 else f"{row.name} (only in {only[0]})"


@dataclass(frozen=True)
class Pair:
    """Two stages beside each other: their places, and what is known of both Jacobians.

    Of the ``width`` columns it is these, or all where ``columns`` is ``None``.
    """

    i: int | None
    j: int | None
    width: int
    first: Floats | None
    second: Floats | None
    columns: tuple[int, ...] | None = None

    @property
    def difference(self) -> Floats | None:
        """J_b − J_a."""
        if self.first is None or self.second is None:
            return None
        with np.errstate(all="ignore"):  # what is not finite is meant to be seen
            return self.second - self.first

    @property
    def apart(self) -> float | None:
        """‖J_b − J_a‖ / ‖J_a‖; 0 where they are equal, infinite where only J_a is zero."""
        if self.first is None or self.difference is None:
            return None
        size, apart = norm(self.first), norm(self.difference)
        return apart / size if size else (math.inf if apart else 0.0)


def pairs(a: Side, b: Side) -> list[Pair]:
    """The stages that stand beside each other, and those that stand alone, in the order of both."""
    found: list[Pair] = []
    for i, j in align(_keys(a), _keys(b)):
        links = [None if k is None else side.surveyed.links[k] for side, k in ((a, i), (b, j))]
        width = next(link.shape[1] for link in links if link is not None)
        found.append(Pair(i, j, width, *_common(*links)))
    return found


def _keys(side: Side) -> list[tuple[Any, ...]]:
    """Of each stage: name and shapes, then shapes and parameters, then shapes alone."""
    shapes = [Coordinates.of(state).shape for state in side.surveyed.states]
    ends = zip(side.surveyed.links, shapes, shapes[1:], strict=False)
    return [
        ((link.stage.name, before, after), (link.stage.row.parameters, before, after), (before, after))
        for link, before, after in ends
    ]


def _common(a: Link | None, b: Link | None) -> tuple[Floats | None, Floats | None, tuple[int, ...] | None]:
    """What is known of both Jacobians: where only some columns of one are, these of both."""
    sets = [set(link.columns) for link in (a, b) if link is not None and link.columns is not None]
    if not sets:
        return _columns(a, None), _columns(b, None), None
    columns = tuple(sorted(set.intersection(*sets)))
    return _columns(a, columns), _columns(b, columns), columns


def _columns(link: Link | None, columns: tuple[int, ...] | None) -> Floats | None:
    if link is None or link.matrix is None or columns is None:
        return None if link is None else link.matrix
    known = link.columns or range(link.shape[1])
    return link.matrix[:, [known.index(column) for column in columns]]


def whole(a: Side, b: Side) -> Pair | None:
    """The Jacobians of both chains as a whole, where their shapes agree and all factors are known; of one stage none."""
    if len(a.chain) == len(b.chain) == 1:
        return None
    known = [factors(side.surveyed) for side in (a, b)]
    if not all(known):
        return None
    first, second = (running(matrices)[-1] for matrices in known)
    return Pair(None, None, first.shape[1], first, second) if first.shape == second.shape else None


def rows(a: Side, b: Side, found: Iterable[Pair]) -> tuple[PairRow, ...]:
    """The input's row, and one for each pair."""
    stages = (PairRow(_norms(a, pair.i, pair.first), _norms(b, pair.j, pair.second), pair.apart) for pair in found)
    return (PairRow(_state(a, 0), _state(b, 0)), *stages)


def whole_row(a: Side, b: Side, pair: Pair) -> PairRow:
    """The whole of each chain as one stage."""
    ends = [
        replace(_state(side, -1), name=WHOLE, shape=matrix.shape, jacobian=norm(matrix))
        for side, matrix in ((a, pair.first), (b, pair.second))
        if matrix is not None
    ]
    return PairRow(ends[0], ends[1], pair.apart)


def _state(side: Side, k: int) -> StageNorms:
    surveyed = side.surveyed
    name = side.chain.names_with_input[k]
    return StageNorms(name, None, surveyed.primals[k], surveyed.tangents[k], surveyed.cotangents[k])


def _norms(side: Side, k: int | None, matrix: Floats | None) -> StageNorms | None:
    if k is None:
        return None
    link = side.surveyed.links[k]
    size = None if matrix is None else norm(matrix)
    return replace(_state(side, k + 1), shape=link.shape, jacobian=size, gradient=link.gradient)
