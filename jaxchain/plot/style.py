"""What all figures share: colours, type, fresh axes, labels at the ends of lines, and saving.

Nothing here knows what a Jacobian is. Builds on matplotlib alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from jaxchain.checks import path_to_write, shown, text

Floats = NDArray[np.float64]

COLOURS = {"forward": "#004488", "reverse": "#BB5566", "planned": "#DDAA33"}
"""One colour a mode, the same on every picture: Paul Tol's high-contrast set, told apart in greyscale."""

MARKERS = {"forward": "o", "reverse": "s", "planned": "^"}
LINESTYLES = {"forward": "-", "reverse": "--", "planned": "-."}

INK, FAINT = "#222222", "#8A8A8A"
NOTE_SIZE = 8.5
"""Points; 12 pixels in a README that is 800 wide."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.usetex": False,
    "figure.facecolor": "white",
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
}
"""The settings under which every figure is drawn, by `matplotlib.rc_context`: the caller's stay as they are."""

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under `STYLE`."""

    @wraps(draw)
    def under_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return under_style


def axes(ax: Any, size: tuple[float, float]) -> Axes:
    """The caller's axes, or one on a new figure of so many inches; 8 wide is 800 pixels in a README."""
    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        msg = f"ax is a matplotlib Axes to draw on or None, but {shown(ax)} was given."
        raise TypeError(msg)
    return plt.subplots(figsize=size, layout="constrained")[1]


def dress(ax: Axes, title: str | None = None, xlabel: str = "", ylabel: str = "", *, lift: float = 0) -> Axes:
    """Set words and spines, on the axes themselves, since they may be the caller's own."""
    text("title", title, optional=True)
    text("A label", xlabel)
    text("A label", ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9, color="#555555", labelcolor=INK)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if title is not None:
        ax.set_title(title, loc="left", pad=9 + lift)
    return ax


def note(ax: Axes, text: str, *, below: float = 38) -> None:
    """Write a small line under the axes, so many points below them."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    ax.annotate(text, (0, 0), (0, -below), va="top", ha="left", fontsize=NOTE_SIZE, color="#555555", **place)


def numbers(name: str, values: ArrayLike, *, ndim: int) -> Floats:
    """Read an array of any float dtype, bfloat16 too, as float64 of so many dimensions.

    Raises
    ------
    ValueError
        If it has another number of dimensions, or is complex; names the argument.
    """
    array = np.asarray(values)
    if array.dtype.kind in "OUSMm":
        msg = f"{name} is an array of numbers, but {shown(values)} was given."
        raise TypeError(msg)
    if np.iscomplexobj(array):  # a cast would drop the imaginary parts
        msg = f"{name} is {array.dtype}, but what is drawn is real. Give its real part, .real, its imaginary part, .imag, or its abs()."
        raise ValueError(msg)
    array = array.astype(np.float64)
    if array.ndim != ndim:
        want, way_out = {1: ("one-dimensional", ""), 2: ("two-dimensional, a matrix", " Flatten the states first.")}[
            ndim
        ]
        msg = f"{name} must be {want}, but it has shape {array.shape}.{way_out}"
        raise ValueError(msg)
    return array


def positive(values: Floats) -> Floats:
    """Keep what a log axis can show; elsewhere put NaN, which leaves a gap in a line."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def log_axis(ax: Axes, which: str, values: Floats) -> None:
    """Make an axis logarithmic, with ticks that can be read where the values span few decades, and its label say so."""
    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]
    if label := axis.get_label_text():
        axis.set_label_text(f"{label} (log scale)")
    shown = values[np.isfinite(values)]
    if shown.size and np.log10(shown.max()) - np.log10(shown.min()) > 200:
        ax.margins(y=0)  # matplotlib's margin would reach beyond the range of a float
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_minor_formatter(NullFormatter())
    if shown.size and shown.max() / 1000 < shown.min():
        ratio = shown.max() / shown.min()
        subs = (1, 2, 5) if ratio < 30 else (1, 3)
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if ratio < 5 else LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """Write a number with three digits, and a power of ten where it is large or small."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}".replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g}\times"
    return f"${factor}10^{{{int(exponent)}}}$"


class End(NamedTuple):
    """The end of a line, in data coordinates, and what to write there. NaN: the line has no point."""

    text: str
    x: float
    y: float
    colour: Any


def line_end(text: str, x: Floats, y: Floats, colour: Any) -> End:
    """Find the last point of a line that a log axis shows."""
    shown = np.flatnonzero(np.isfinite(y))
    if not shown.size:
        return End(f"{text}: nothing above 0", np.nan, np.nan, colour)
    return End(text, float(x[shown[-1]]), float(y[shown[-1]]), colour)


def spread(targets: Sequence[float], gap: float) -> Floats:
    """Choose places in [0, 1], each at least ``gap`` from the next, as near the targets as can be.

    With u_i = p_i − i·gap in order of targets, the gaps ask only that u does not decrease: least
    squares under that is isotonic regression, here by pooling neighbours that are out of order.
    """
    order = np.argsort(targets, kind="stable")
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([targets[index] - rank * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    free = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    places = np.empty(len(order))
    places[order] = np.clip(free, 0, max(0.0, 1 - (len(order) - 1) * gap)) + gap * np.arange(len(order))
    return places


def label_ends(ax: Axes, ends: Sequence[End]) -> None:
    """Write each line's name at its end, nudged apart; evenly chosen ones where not all fit."""
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    height = 72 * ax.get_window_extent().height / ax.figure.dpi
    gap = 1.3 * NOTE_SIZE / max(height, 1)
    room = max(2, int(1 / gap) + 1)
    if len(ends) > room:
        ends = [ends[i] for i in np.linspace(0, len(ends) - 1, room).round().astype(int)]
    to_axes = ax.transData + ax.transAxes.inverted()
    tips = [to_axes.transform((end.x, end.y)) if np.isfinite(end.y) else (1.0, 0.0) for end in ends]
    for end, tip, place in zip(ends, tips, spread([y for _, y in tips], gap), strict=True):
        leader = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1}
        how: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "axes fraction", "annotation_clip": False}
        how["arrowprops"] = leader if np.isfinite(end.y) else None
        how["fontsize"] = NOTE_SIZE
        ax.annotate(end.text, tuple(tip), (1.03, place), ha="left", va="center", color=INK, **how)


def save(figure: Figure | Axes, path: str | Path) -> Path:
    """Write a figure as PNG, 150 dots an inch on white, and close it.

    Parameters
    ----------
    figure
        A figure, or any axes of it.
    path
        Where to; missing folders are made.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the axes have been removed from their figure.

    Examples
    --------
    >>> jc.plot.save(jc.plot.matrix(np.eye(3)), "pictures/identity.png").name
    'identity.png'
    """
    path = path_to_write("path", path)
    if not isinstance(figure, (Figure, Axes)):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"figure is a matplotlib Figure, or Axes of one, but {shown(figure)} was given."
        raise TypeError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = figure if isinstance(figure, Figure) else figure.get_figure(root=True)
    if whole is None:
        msg = "These axes have been removed from their figure, so there is nothing to save."
        raise ValueError(msg)
    whole.savefig(path, format="png", dpi=150, facecolor="white", bbox_inches="tight")
    plt.close(whole)
    return path
