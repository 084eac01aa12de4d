"""A computational graph as a picture: values in boxes, partial derivatives on arrows, a path's arrows in bold."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from jaxchain.checks import shown, text
from jaxchain.explore import Graph, Paths
from jaxchain.explore.arithmetic import written
from jaxchain.plot.style import COLOURS, FAINT, INK, axes, note, styled
from jaxchain.show.table import shorten
from jaxchain.show.values import summary

__all__ = ["draw", "graph", "size_of"]

ACROSS, UP = 1.45, 1.0
"""From one layer to the next, and from one node to the next in it, in units of the picture."""

WIDTH, HEIGHT = 0.98, 0.74
"""Of a box."""

INCHES = 1.55
"""Of one unit of the picture."""

MOST = 20
"""Letters in a line of a box, of 9 points."""

SAID = """On an arrow: the partial derivative. A tangent is the sum over the arrows that come in, of partial derivative × tangent;
a cotangent is the sum over the arrows that go out, of cotangent × partial derivative."""


def graph(graph: Graph, *, paths: Paths | None = None, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a computational graph: nodes from left to right in the order of evaluation.

    Parameters
    ----------
    graph
        Of `jaxchain.graph`, or one that was opened.
    paths
        Of ``graph.paths(…)``: their arrows are drawn in bold, and the sum over them is told.
    title
        What it shows.
    ax
        Where to draw; default: fresh axes, as large as the graph.

    Raises
    ------
    TypeError
        If ``graph`` is no graph, or ``paths`` are none of one.

    Examples
    --------
    >>> found = jc.graph(lambda a, b: (a + b) * (b + 1), 2.0, 1.0)
    >>> jc.plot.graph(found, paths=found.paths("b", "y")).get_title(loc="left")
    '∂y/∂b is the sum over 2 paths: 5 = 2 + 3'
    """
    if not isinstance(graph, Graph):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"graph is what jaxchain.graph(fun, *args) returns, but {shown(graph)} was given."
        raise TypeError(msg)
    if not isinstance(paths, Paths | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"paths are what graph.paths(start, stop) returns or None, but {shown(paths)} was given."
        raise TypeError(msg)
    text("title", title, optional=True)
    if paths is None:
        return draw(graph, (), title or graph.title, ax)
    number = f"{paths.number:,} path{'s' * (paths.number != 1)}"
    found = f"∂{paths.stop}/∂{paths.start} is the sum over {number}: {paths.text}"
    return draw(graph, {pair for path in paths.rows for pair in pairwise(path.nodes)}, title or found, ax)


@styled
def draw(graph: Graph, bold: Collection[tuple[str, str]], title: str, ax: Axes | None) -> Axes:
    """Draw a graph, some of its arrows in bold."""
    width, height = graph.layout.size
    drawn = axes(ax, size_of(graph))
    for arrow, route in zip(graph.arrows, graph.layout.routes, strict=True):
        marked = (arrow.start, arrow.stop) in bold
        _arrow(drawn, [_place(point) for point in route], written(arrow.partial, 2), marked)
    for node, place in zip(graph.rows, graph.layout.places, strict=True):
        _box(drawn, _place(place), node)
    drawn.set(xlim=(-0.6, width * ACROSS + 0.6), ylim=(-0.5, height * UP + 0.5), aspect="equal")
    drawn.set_axis_off()
    drawn.set_title(title, loc="left")
    note(drawn, SAID, below=6)
    return drawn


def size_of(graph: Graph) -> tuple[float, float]:
    """Inches that a graph takes."""
    width, height = graph.layout.size
    return (width * ACROSS + WIDTH + 0.3) * INCHES, (height * UP + HEIGHT + 0.5) * INCHES


def _place(point: tuple[float, float]) -> tuple[float, float]:
    return point[0] * ACROSS, point[1] * UP


def _box(ax: Axes, place: tuple[float, float], node: Any) -> None:
    x, y = place
    low, left = y - HEIGHT / 2, x - WIDTH / 2
    edge = INK if node.call else FAINT  # a fold, which can be opened
    ax.add_patch(
        FancyBboxPatch(
            (left, low), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.05", facecolor="white", edgecolor=edge,
            linewidth=1.4 if node.call else 0.8, zorder=2,
        )
    )  # fmt: skip
    told = [(shorten(node.title, MOST), INK), (f"= {_value(node.primal)}", INK)]
    told.append(("" if node.tangent is None else f"tangent {_value(node.tangent)} →", COLOURS["forward"]))
    told.append(("" if node.cotangent is None else f"← cotangent {_value(node.cotangent)}", COLOURS["reverse"]))
    for k, (line, colour) in enumerate(told):
        height = y + HEIGHT / 2 - (k + 0.5) * HEIGHT / len(told)
        ax.text(x, height, line, color=colour, ha="center", va="center", fontsize=8, zorder=3)


def _value(value: Any) -> str:
    """A number, or an array's norm."""
    array = np.asarray(value)
    if array.ndim == 0 and not np.iscomplexobj(array):
        return f"{float(array):.4g}".replace("-", "−")
    return summary(value, shape=False, picture=False)


def _arrow(ax: Axes, route: list[tuple[float, float]], label: str, bold: bool) -> None:
    """A smooth line that leaves and enters boxes at their sides, with a label by its start."""
    points = [(route[0][0] + WIDTH / 2, route[0][1]), *route[1:-1], (route[-1][0] - WIDTH / 2 - 0.03, route[-1][1])]
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (x + to_x) / 2
        vertices += [(middle, y), (middle, to_y), (to_x, to_y)]
        codes += [Curve.CURVE4] * 3
    colour, width = (INK, 1.8) if bold else (FAINT, 0.9)
    ax.add_patch(PathPatch(Curve(vertices, codes), facecolor="none", edgecolor=colour, linewidth=width, zorder=1))
    head = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "linewidth": width, "mutation_scale": 9}
    end = points[-1]
    ax.annotate("", (end[0] + 0.03, end[1]), (end[0] - 0.06, end[1]), arrowprops=head, zorder=1)
    x, y = (np.asarray(points[0]) + points[1]) / 2
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    weight = "bold" if bold else "normal"
    ax.text(x, y, label, ha="center", va="center", fontsize=8, bbox=box, color=INK, fontweight=weight, zorder=4)
