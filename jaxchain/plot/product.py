"""The chain as an equation of pictures: J_q · … · J_1 = J, each factor drawn to its shape.

The factors are laid out like words, in inches: as long as a line is not full, the next goes
beside the one before. Builds on `heat` for the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from jaxchain.checks import flag, shown
from jaxchain.plot.heat import colour_limit, count_not_finite, paint
from jaxchain.plot.style import NOTE_SIZE, Floats, axes, dress, numbers, styled
from jaxchain.show.extremes import extreme_of_blocks
from jaxchain.show.table import shorten
from jaxchain.swept import LocalJacobian

PAGE = 7.8
"""Width in inches of a figure made here."""

FLOOR, CELL = 0.13, 0.25
"""The least side of a factor, and the most of one entry, in inches."""

SIGN, SPACE, LINE, NOTE = 0.24, 0.12, 0.15, 0.2
"""Room for a sign, between factors, for a line of caption and for the remark below, in inches."""

COMFORT = 0.9
"""The longest side, in inches, that is still pleasant: an equation takes as many lines as this needs."""

LETTER = 0.068
"""About the width of a letter in a caption, in inches."""

DOTS = 150
"""Pixels an inch, when saved: what a factor can show at most."""


@dataclass(frozen=True)
class Factor:
    """One matrix of the equation: the sign after it, the words under it, and its size in inches."""

    sign: str
    values: Floats
    caption: str
    width: float
    height: float

    @cached_property
    def cells(self) -> Floats:
        """What is painted: the matrix, or its blocks' extremes where it is finer than the picture."""
        return extreme_of_blocks(self.values, math.ceil(self.height * DOTS), math.ceil(self.width * DOTS))

    @property
    def slot(self) -> float:
        """The width that it takes on its line, sign aside."""
        return max(self.width, LETTER * max(map(len, self.caption.splitlines()))) + SPACE

    @property
    def depth(self) -> float:
        """From the middle of the factor to the bottom of its caption."""
        return self.height / 2 + 0.05 + LINE * len(self.caption.splitlines())


Row = list[Factor]


@styled
def chain(
    jacobians: Sequence[LocalJacobian], *, ax: Axes | None = None, product: bool = True, title: str | None = None
) -> Axes:
    """Draw the chain rule as a product of matrices: J_q · … · J_1 = J, the output's stage on the left.

    Each factor is drawn to its shape, all to one scale down to a least size, and coloured on its
    own scale, white at zero.

    Parameters
    ----------
    jacobians
        q local Jacobians (m_k, n_k) in order of evaluation, from `jaxchain.local_jacobians`.
    ax
        Where to draw; default: a new figure, as tall as the equation is.
    product
        Draw ``= J``, the product, at the end.
    title
        What the picture shows.

    Returns
    -------
    Axes
        With one image a factor, in the order of the equation, and the product's after them.

    Raises
    ------
    ValueError
        If there is no Jacobian, one is not a matrix or is complex, or neighbours do not fit together.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> ax = jc.plot.chain(jc.local_jacobians(net, (net.init(jax.random.key(0)), jnp.ones(3))))
    >>> [text.get_text().split() for text in ax.texts if "×" in text.get_text()]
    [['dense_1', '1×2'], ['relu_0', '2×2'], ['dense_0', '2×3'], ['J', '1×3']]
    """
    flag("product", product)
    check_jacobians(jacobians)
    named = [(jacobian.name, matrix_of(jacobian)) for jacobian in jacobians]
    _check(named)
    terms = list(reversed(named))
    if product:
        terms.append(("J", whole([values for _, values in named])))
    signs = ["·"] * (len(named) - 1) + (["=", ""] if product else [""])
    width, height = (PAGE, math.inf) if ax is None else _inches(axes(ax, (PAGE, 1)))
    rows = layout(terms, signs, width, height)
    reduced = any(factor.cells.shape != factor.values.shape for row in rows for factor in row)
    total = sum(map(_row_height, rows)) + NOTE * reduced
    ax = axes(ax, (PAGE + 0.2, total + (0.15 if title is None else 0.5)))
    dress(ax, title)
    _draw(ax, rows)
    if reduced:
        remark = (
            "Where a matrix has more entries than its picture has dots, each dot shows the largest |J| of its block."
        )
        ax.text(0, -total, remark, va="bottom", fontsize=NOTE_SIZE - 0.5, color="#555555")
    ax.set(xlim=(0, max(width, *map(_row_width, rows))), ylim=(-total, 0), aspect="equal", anchor="NW")
    ax.axis("off")
    return ax


def check_jacobians(jacobians: Any) -> None:
    """Refuse what is no sequence of local Jacobians."""
    way_out = "Give the result of jc.local_jacobians(chain, args)."
    if not isinstance(jacobians, Sequence) or not all(isinstance(j, LocalJacobian) for j in jacobians):
        msg = f"jacobians are those of a chain's stages, but {shown(jacobians)} was given. {way_out}"
        raise TypeError(msg)
    if not len(jacobians):
        msg = f"jacobians is empty: there is nothing to draw. {way_out}"
        raise ValueError(msg)


def matrix_of(jacobian: LocalJacobian) -> Floats:
    """Read the matrix of one stage as float64.

    Raises
    ------
    ValueError
        If it is not two-dimensional, or is complex; names the stage.
    """
    return numbers(f"In jacobians, the Jacobian of {jacobian.name!r}", jacobian.matrix, ndim=2)


def whole(matrices: Sequence[Floats]) -> Floats:
    """Multiply J = J_q ⋯ J_1, of matrices in order of evaluation, from the side that is cheaper."""
    with np.errstate(all="ignore"):  # what is not finite is meant to be seen, not warned of
        if matrices[-1].shape[0] < matrices[0].shape[1]:
            product = matrices[-1]
            for values in reversed(matrices[:-1]):
                product = product @ values
            return product
        product = matrices[0]
        for values in matrices[1:]:
            product = values @ product
        return product


def _check(named: Sequence[tuple[str, Floats]]) -> None:
    for (before, inner), (after, outer) in pairwise(named):
        if outer.shape[1] != inner.shape[0]:
            msg = (
                f"jacobians do not form a product: {after!r} takes {outer.shape[1]} numbers, but {before!r}, before it, "
                f"gives {inner.shape[0]}. Give them in order of evaluation, none left out."
            )
            raise ValueError(msg)


def layout(terms: Sequence[tuple[str, Floats]], signs: Sequence[str], width: float, height: float) -> list[Row]:
    """Find the largest scale at which the terms, each with the sign after it, fit the page.

    They take no more lines than at a comfortable scale, and no more height than there is, unless
    even the smallest scale needs more.
    """
    longest = max(1, *(side for _, values in terms for side in values.shape))

    def rows_at(side: float) -> list[Row]:
        scale = min(side / longest, CELL)
        return _wrap([_factor(*term, sign, scale) for term, sign in zip(terms, signs, strict=True)], width)

    comfortable, rows = len(rows_at(COMFORT)), list[Row]()
    for side in np.linspace(1.7, 0.3, 29):
        rows = rows_at(side)
        if len(rows) <= comfortable and sum(map(_row_height, rows)) <= height:
            break
    return rows


def _factor(name: str, values: Floats, sign: str, scale: float) -> Factor:
    m, n = values.shape
    height, width = (max(scale * length, FLOOR) for length in (m, n))
    lines = [shorten(name, max(12, int(width / LETTER))), f"{m}×{n}", *filter(None, [count_not_finite(values)])]
    return Factor(sign, values, "\n".join(lines), width, height)


def _wrap(factors: Sequence[Factor], width: float) -> list[Row]:
    rows: list[Row] = [[]]
    for factor in factors:
        if rows[-1] and _row_width([*rows[-1], factor]) > width:
            rows.append([])
        rows[-1].append(factor)
    return rows


def _row_width(row: Row) -> float:
    return sum(factor.slot + SIGN * bool(factor.sign) for factor in row)


def _row_height(row: Row) -> float:
    return max(factor.height for factor in row) / 2 + max(factor.depth for factor in row) + 2 * SPACE


def _draw(ax: Axes, rows: Sequence[Row]) -> None:
    top = 0.0
    for row in rows:
        x, middle = 0.0, top - SPACE - max(factor.height for factor in row) / 2
        for factor in row:
            _draw_factor(ax, factor, x + factor.slot / 2, middle)
            x += factor.slot
            if factor.sign:
                ax.text(x + SIGN / 2, middle, factor.sign, ha="center", va="center", fontsize=17, fontweight="bold")
                x += SIGN
        top -= _row_height(row)


def _draw_factor(ax: Axes, factor: Factor, x: float, y: float) -> None:
    left, bottom = x - factor.width / 2, y - factor.height / 2
    if factor.values.size:
        paint(
            ax,
            factor.cells,
            colour_limit(factor.cells, 99.5),
            extent=(left, left + factor.width, bottom, bottom + factor.height),
        )
    ax.add_patch(Rectangle((left, bottom), factor.width, factor.height, fill=False, edgecolor="#777777", linewidth=0.7))
    ax.text(x, bottom - 0.05, factor.caption, ha="center", va="top", fontsize=NOTE_SIZE - 0.5, linespacing=1.15)


def _inches(ax: Axes) -> tuple[float, float]:
    bounds = ax.get_window_extent()
    return bounds.width / ax.figure.dpi, bounds.height / ax.figure.dpi
