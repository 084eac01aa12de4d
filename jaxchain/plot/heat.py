"""One matrix as a heat map: white is zero, red and blue are the signs, NaN and ∞ look like neither.

A picture has fewer cells than a big matrix has entries, so each cell then shows the entry of
largest magnitude in its block, sign kept: what is small may hide, what is large may not.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import ArrayLike

from jaxchain.checks import flag, number, text
from jaxchain.plot.style import INK, Floats, axes, dress, note, numbers, short, styled
from jaxchain.show.extremes import extreme_of_blocks

NOT_FINITE = "#555555"
COLOUR_MAP = mpl.colormaps["RdBu_r"].with_extremes(bad=NOT_FINITE)

SIDE = 512
"""The most cells that one side of a heat map gets."""

ELONGATED = 20
"""Beyond this ratio of sides, square cells would leave a hairline: they are stretched instead."""


def colour_limit(values: Floats, clip: float = 100) -> float:
    """Take the ``clip``-th percentile of those |values| that are finite and not zero; 1 if there is none.

    Zeros have no say: an identity of 300 rows is 99.7 % zeros, and its percentile would be zero.
    """
    strengths = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(strengths, clip)) if strengths.size else 1.0


def paint(ax: Axes, values: Floats, limit: float, **place: Any) -> AxesImage:
    """Add the image itself: nearest cell, symmetric limits, what is not finite masked."""
    shown = np.ma.masked_invalid(values)
    return ax.imshow(shown, cmap=COLOUR_MAP, vmin=-limit, vmax=limit, interpolation="nearest", **place)


def round_below(value: float) -> float:
    """The largest number of few digits that is no larger.

    >>> round_below(2.72), round_below(0.5), round_below(1e-7)
    (2.5, 0.5, 1e-07)
    """
    power = 10.0 ** np.floor(np.log10(value * (1 + 1e-9)))
    return float(f"{max(d for d in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if d * power <= value * (1 + 1e-9)) * power:.3g}")


def count_not_finite(values: Floats) -> str:
    """Count in words, ``"3 NaN, 1 infinite"``; nothing where all are finite."""
    counts = {"NaN": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


@styled
def matrix(
    matrix: ArrayLike,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    in_label: str = "input",
    out_label: str = "output",
    clip: float = 99.5,
    colorbar: bool = True,
) -> Axes:
    """Draw a Jacobian as a heat map: column j is input number j, row i output number i.

    Parameters
    ----------
    matrix
        (m, n), of any float dtype. Sides above 512 are drawn by blocks, with a note that says so.
    ax
        Where to draw; default: a new figure made to the matrix's proportions.
    title, in_label, out_label
        Words; the sizes are appended to the labels: ``"input of dense_2 (256)"``.
    clip
        Percentile of the non-zero |entries| at which the colours saturate.
    colorbar
        Draw the scale; its ends are arrows if some entries lie beyond them.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If ``matrix`` is not two-dimensional or is complex, or ``clip`` is no percentile.

    Examples
    --------
    >>> ax = jc.plot.matrix(jax.jacobian(jnp.square)(jnp.arange(3.0)), title="∂x²/∂x")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('input (3)', 'output (3)')
    """
    values = numbers("matrix", matrix, ndim=2)
    if not 0 < number("clip", clip, "a percentile") <= 100:
        msg = f"clip is a percentile, above 0 and at most 100, but {clip} was given."
        raise ValueError(msg)
    flag("colorbar", colorbar)
    text("in_label", in_label)
    text("out_label", out_label)
    m, n = values.shape
    flat = n > 2 * m
    ax = axes(ax, _figure_size(m, n))
    dress(ax, title, f"{in_label} ({n})", f"{out_label} ({m})")
    if not values.size:
        ax.text(0.5, 0.5, f"empty: {m}×{n}", ha="center", va="center", transform=ax.transAxes, color=INK)
        ax.set(xticks=[], yticks=[])
        return ax
    cells = extreme_of_blocks(values, SIDE, SIDE)
    limit = colour_limit(cells, clip)
    image = paint(ax, cells, limit, extent=(-0.5, n - 0.5, m - 0.5, -0.5), aspect=_aspect(m, n))
    ax.spines[:].set_visible(True)
    ax.apply_aspect()  # now, so that what follows knows how large the axes are
    bounds = ax.get_window_extent()
    ax.set_xticks(_ticks(n, bounds.width / ax.figure.dpi))
    ax.set_yticks(_ticks(m, bounds.height / ax.figure.dpi))
    _mark_not_finite(ax, cells, m, n)
    remarks = _remarks(values, cells)
    note(ax, "\n".join(remarks))
    if colorbar:
        _scale_bar(
            ax, image, clipped=bool(np.any(np.abs(cells[np.isfinite(cells)]) > limit)), flat=flat, lines=len(remarks)
        )
    return ax


def _aspect(m: int, n: int) -> float:
    """Choose the height of a cell over its width: 1, unless the matrix is a hairline."""
    return max(n / m / ELONGATED, 1.0) if n > m else min(ELONGATED * n / m, 1.0)


def _figure_size(m: int, n: int) -> tuple[float, float]:
    """Choose inches, so that the axes of a wide matrix are wide and those of a tall one tall."""
    if not m * n:
        return 5.0, 4.0
    ratio = m * _aspect(m, n) / n
    width = min(6.4, 5.2 / ratio, 1.2 + 0.45 * n)  # a matrix of few entries stays small
    return max(width + 1.6, 4.0), max(width * ratio + 1.2 + 0.5 * (n > 2 * m), 2.0)


def _remarks(values: Floats, cells: Floats) -> list[str]:
    """Say what a reader could not see from the picture alone."""
    (m, n), remarks = values.shape, []
    if cells.shape != values.shape:
        a, b = (-(-long // SIDE) for long in values.shape)
        remarks.append(f"each cell shows the entry of largest |J| in a block of {a}×{b}")
    if _aspect(m, n) != 1:
        remarks.append("cells are stretched, to be seen")
    if not_finite := count_not_finite(values):
        remarks.append(f"{not_finite} (grey; NaN marked ×, infinite +)")
    elif not values.any():
        remarks.append("all entries are zero")
    return remarks


def _mark_not_finite(ax: Axes, cells: Floats, m: int, n: int) -> None:
    """White signs on the grey, so that it cannot be taken for a strong red or blue in print."""
    bounds = ax.get_window_extent()
    cell = min(bounds.width / cells.shape[1], bounds.height / cells.shape[0]) * 72 / ax.figure.dpi
    size = float(np.clip(0.5 * cell, 1.5, 9)) ** 2
    for found, marker in ((np.isnan(cells), "x"), (np.isinf(cells), "+")):
        rows, columns = np.nonzero(found)
        if rows.size:
            x, y = (columns + 0.5) * n / cells.shape[1] - 0.5, (rows + 0.5) * m / cells.shape[0] - 0.5
            ax.scatter(x, y, s=size, marker=marker, color="white", linewidths=min(1.4, 0.15 * cell + 0.2))


def _ticks(length: int, inches: float) -> list[int]:
    """Choose a few places among 0 … length − 1, as many as there is room for."""
    most = int(np.clip(inches / 0.4, 1, 5))
    if length <= most:
        return list(range(length))
    places = MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]).tick_values(0, length - 1)
    return [int(place) for place in places if 0 <= place < length]


def _scale_bar(ax: Axes, image: AxesImage, *, clipped: bool, flat: bool, lines: int) -> None:
    """Put the scale below a flat matrix, past so many lines of remarks, and beside any other.

    Its thickness and distance are in inches from a corner of the axes, its length in axes
    fractions: so it follows the cells, whatever the figure's layout makes of the axes.
    """
    inches = ax.figure.dpi_scale_trans + ScaledTranslation(*((0, 0) if flat else (1, 0)), ax.transAxes)  # pyright: ignore[reportArgumentType]
    if flat:
        place, across = (0.25, -0.75 - 0.15 * lines, 0.5, 0.13), blended_transform_factory(ax.transAxes, inches)
    else:
        place, across = (0.15, 0, 0.15, 1), blended_transform_factory(inches, ax.transAxes)
    roomy = not flat or ax.get_window_extent().width > 4 * ax.figure.dpi
    limit, steps = image.get_clim()[1] or 1.0, 2 if roomy else 1
    bar = ax.figure.colorbar(
        image,
        cax=ax.inset_axes(place, transform=across),
        orientation="horizontal" if flat else "vertical",
        extend="both" if clipped else "neither",
        extendfrac=0.04,
        ticks=[step * round_below(limit / steps) for step in range(-steps, steps + 1)],
        format=FuncFormatter(lambda value, _: short(value)),
    )
    bar.ax.tick_params(labelsize=8.5, color="#555555")
    bar.set_label("∂ output / ∂ input", fontsize=9)
    bar.outline.set_linewidth(0.6)
