"""Lines on log axes: gradient norms over training, norms by depth, and what a Jacobian costs.

Each line has its name at its end. What a log axis cannot show, zeros and what is not finite,
leaves a gap. Builds on `style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from jaxchain.checks import number, shown
from jaxchain.plot.style import (
    COLOURS,
    FAINT,
    LINESTYLES,
    MARKERS,
    NOTE_SIZE,
    Floats,
    axes,
    dress,
    label_ends,
    line_end,
    log_axis,
    note,
    numbers,
    positive,
    styled,
)

DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
CASES: Sequence[tuple[str, str]] = (
    ("#332288", "o"),
    ("#117733", "s"),
    ("#882255", "^"),
    ("#999933", "D"),
    ("#44AA99", "v"),
    ("#AA4499", "P"),
    ("#661100", "X"),
    ("#6699CC", "*"),
)
"""Paul Tol's muted set, apart from the colours of the modes, each with a marker."""


def line_of(name: str, values: ArrayLike, length: int | None = None) -> Floats:
    """Read one line, (length,), as what a log axis can show of it.

    Raises
    ------
    ValueError
        If it has another shape, or is complex; names the argument.
    """
    line = numbers(name, values, ndim=1)
    if length is not None and len(line) != length:
        msg = f"{name} has {len(line)} values, but {length} were expected, one for each place on the x axis."
        raise ValueError(msg)
    return positive(line)


def lines_given(name: str, lines: Any) -> Mapping[str, ArrayLike]:
    """Refuse what is no mapping from names to values."""
    if not isinstance(lines, Mapping):
        msg = f"{name} is a dict from a line's name to its values, but {shown(lines)} was given."
        raise TypeError(msg)
    return lines


def lines_of(name: str, lines: Mapping[str, ArrayLike], length: int | None = None) -> dict[str, Floats]:
    """Read named lines; there must be one."""
    if not lines_given(name, lines):
        msg = f"{name} is empty: there is no line to draw."
        raise ValueError(msg)
    return {key: line_of(f"{name}[{key!r}]", values, length) for key, values in lines.items()}


@styled
def gradient_norms(
    steps: ArrayLike,
    norms: Mapping[str, ArrayLike],
    *,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "training step",
    ylabel: str = "gradient norm",
) -> Axes:
    """Show how the gradient norm of every stage moves: one line a stage, dark for early, light for late.

    Parameters
    ----------
    steps
        (T,) places on the x axis.
    norms
        Stage name → (T,) norms, the stages in order of evaluation.
    ax
        Where to draw; default: a new figure.
    title, xlabel, ylabel
        Words.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no line, or one has another length than ``steps`` or is complex.

    Examples
    --------
    >>> ax = jc.plot.gradient_norms([0, 1, 2], {"dense_0": [4.0, 2.0, 1.0], "dense_1": [1.0, 1.0, 1.0]})
    >>> len(ax.lines), ax.get_yscale()
    (2, 'log')
    """
    x = numbers("steps", steps, ndim=1)
    lines = lines_of("norms", norms, len(x))
    ax = axes(ax, (8, 4.2))
    dress(ax, title, xlabel, ylabel)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.86, len(lines)))
    dot = "o" if len(x) == 1 else ""
    for place, (y, shade) in enumerate(zip(lines.values(), shades, strict=True)):
        ax.plot(x, y, color=shade, linestyle=DASHES[place % len(DASHES)], marker=dot)
    log_axis(ax, "y", np.concatenate([*lines.values()]))
    ax.margins(x=0.01)
    label_ends(ax, [line_end(name, x, y, shade) for (name, y), shade in zip(lines.items(), shades, strict=True)])
    return ax


@styled
def norms_by_depth(
    cases: Mapping[str, ArrayLike],
    *,
    theory: Mapping[str, ArrayLike] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "depth",
    ylabel: str = "norm",
) -> Axes:
    """Show how a norm grows or dies with depth: one line a case, its theory dashed in the same colour.

    Parameters
    ----------
    cases
        Label → (L,) norms; place k on the x axis is entry k.
    theory
        Label → what is expected, as long as the case of that label.
    ax
        Where to draw; default: a new figure.
    title, xlabel, ylabel
        Words.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no case, one is complex, or ``theory`` has a label that ``cases`` lacks or another length.

    Examples
    --------
    >>> ax = jc.plot.norms_by_depth({"σ_w = 2": [1.0, 2.1, 3.9]}, theory={"σ_w = 2": [1.0, 2.0, 4.0]})
    >>> ax.get_xlabel(), ax.get_yscale()
    ('depth', 'log')
    """
    measured = lines_of("cases", cases)
    expected: dict[str, Floats] = {}
    for label, values in lines_given("theory", {} if theory is None else theory).items():
        if label not in measured:
            msg = f"theory has the label {label!r}, which cases lacks; those are {list(measured)}."
            raise ValueError(msg)
        expected[label] = line_of(f"theory[{label!r}]", values, len(measured[label]))
    ax = axes(ax, (8, 4.2))
    dress(ax, title, xlabel, ylabel)
    ends: list[Any] = []
    for place, (label, y) in enumerate(measured.items()):
        colour, marker = CASES[place % len(CASES)]
        x = np.arange(len(y), dtype=float)
        wide: dict[str, Any] = {"linewidth": 3.5, "alpha": 0.4} if label in expected else {}
        ax.plot(x, y, color=colour, **wide)
        # The markers start at different places, so that they are not all in one column.
        spacing = (max(1, len(y) // 40) * (place % 4), max(1, len(y) // 10))
        ax.plot(x, y, color=colour, marker=marker, linestyle="", markevery=spacing)
        if label in expected:
            ax.plot(x, expected[label], color=colour, linestyle="--", linewidth=1.3)
        ends.append(line_end(label, x, y, colour))
    log_axis(ax, "y", np.concatenate([*measured.values(), *expected.values()]))
    ax.margins(x=0.01)
    label_ends(ax, ends)
    if expected:
        note(ax, "wide line: measured; dashed: theory")
    return ax


@styled
def cost_curves(
    sizes: ArrayLike,
    forward: ArrayLike,
    reverse: ArrayLike,
    *,
    theory_forward: ArrayLike | None = None,
    theory_reverse: ArrayLike | None = None,
    crossing: float | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "number of inputs n",
    ylabel: str = "FLOPs",
) -> Axes:
    """Show what a whole Jacobian costs in forward and in reverse mode, by the size of the input.

    Parameters
    ----------
    sizes
        (S,) sizes n.
    forward, reverse
        (S,) measured costs, drawn as points.
    theory_forward, theory_reverse
        (S,) expected costs, drawn as lines; where not given the points themselves are joined.
    crossing
        The size at which n = m, marked.
    ax
        Where to draw; default: a new figure.
    title, xlabel, ylabel
        Words.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a curve has another length than ``sizes`` or is complex.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3 and 4 (what the modes cost).

    Examples
    --------
    >>> n, m = np.array([4, 16, 64]), 16
    >>> ax = jc.plot.cost_curves(n, forward=n * 100, reverse=[m * 100] * 3, crossing=m)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('number of inputs n (log scale)', 'FLOPs (log scale)')
    """
    x = numbers("sizes", sizes, ndim=1)
    theory = {"forward": theory_forward, "reverse": theory_reverse}
    measured = {"forward": line_of("forward", forward, len(x)), "reverse": line_of("reverse", reverse, len(x))}
    ax = axes(ax, (8, 4.4))
    dress(ax, title, xlabel, ylabel)
    ends: list[Any] = []
    drawn: list[Floats] = []
    for name, points in measured.items():
        given = theory[name]
        line = points if given is None else line_of(f"theory_{name}", given, len(x))
        ax.plot(x, line, color=COLOURS[name], linestyle=LINESTYLES[name], linewidth=1.3)
        ax.plot(x, points, color=COLOURS[name], marker=MARKERS[name], linestyle="", markersize=6)
        ends.append(line_end(name, x, line, COLOURS[name]))
        drawn += [line, points]
    log_axis(ax, "y", np.concatenate(drawn))
    ax.yaxis.set_major_formatter(EngFormatter(sep=" "))
    _size_axis(ax, x)
    number("crossing", crossing, "a size", optional=True)
    if crossing is not None:
        ax.axvline(crossing, color=FAINT, linewidth=0.9, zorder=0)
        ax.annotate(
            "n = m",
            (crossing, 1),
            (4, -2),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            ha="left",
            fontsize=NOTE_SIZE + 0.5,
        )
    label_ends(ax, ends)
    if any(curve is not None for curve in theory.values()):
        note(ax, "points: measured; lines: theory")
    return ax


def _size_axis(ax: Axes, x: Floats) -> None:
    """Put a tick at each size, where they are few enough to be read."""
    shown = positive(x)
    log_axis(ax, "x", shown)
    if np.isfinite(shown).any():
        ax.set_xlim(np.nanmin(shown) / 1.2, np.nanmax(shown) * 1.2)
    if len(x) <= 10:
        ax.xaxis.set_major_locator(FixedLocator(list(x)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
