"""Stepping as a film for slides: the product of a chain as it is multiplied, or a sweep over a graph, node by node.

The files are matplotlib's: GIF by Pillow, which comes with it, MP4 by ffmpeg where that is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, writers
from matplotlib.axes import Axes

from jaxchain.checks import number, path_to_write, word
from jaxchain.explore import Graph
from jaxchain.explore.computation import Direction
from jaxchain.plot.nodes import draw as draw_graph
from jaxchain.plot.nodes import size_of
from jaxchain.plot.product import PAGE, chain, check_jacobians
from jaxchain.plot.style import styled
from jaxchain.swept import LocalJacobian

__all__ = ["animate"]

WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}

DOTS = 120
"""Pixels an inch."""

ROOM = 1.2
"""Inches for title and note."""

SHORTEST = 0.02
"""Seconds: what viewers of GIF can do."""

Frame = Callable[[Axes], object]


@styled
def animate(
    what: Graph | Sequence[LocalJacobian],
    path: str | os.PathLike[str],
    *,
    direction: Direction = "forward",
    seconds: float = 1.2,
) -> Path:
    """Write a film of forward or reverse accumulation, a step a frame.

    Parameters
    ----------
    what
        A graph, of `jaxchain.graph`: a node a step, its sum in the title. Or a chain's local Jacobians, of
        `jaxchain.local_jacobians`: a factor a step, what is multiplied already as one matrix.
    path
        Where to write, ``.gif`` or ``.mp4``.
    direction
        ``"forward"``: from the input on. ``"reverse"``: from the output back.
    seconds
        How long a step is shown, at least 0.02; the last twice as long.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If ``path`` is neither, ``direction`` is unknown, or neighbours do not fit together.
    TypeError
        If ``what`` is neither.
    RuntimeError
        If ffmpeg is needed and not installed.

    Examples
    --------
    >>> graph = jc.graph(lambda x: jnp.sin(x) * x, 2.0)
    >>> jc.plot.animate(graph, "sine.gif", direction="reverse").name
    'sine.gif'
    """
    target = path_to_write("path", path)
    word("direction", direction, get_args(Direction))
    seconds = number("seconds", seconds, "how long a step is shown")
    writer = WRITERS.get(target.suffix.lower())
    if writer is None:
        msg = f"path ends in {' or '.join(WRITERS)}, but {target.name} was given."
        raise ValueError(msg)
    if not writers.is_available(writer):
        msg = f"{target.name} needs {writer}, which is not installed. Install it, or choose a .gif."
        raise RuntimeError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    size, frames = _of_graph(what, direction) if isinstance(what, Graph) else _of_chain(what, direction)
    width, height = max(size[0], PAGE), size[1] + ROOM
    figure, ax = plt.subplots(figsize=(width, height))  # laid out once: in every frame, all has its place
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - ROOM / height / 2, bottom=ROOM / height / 2)
    frames = [*frames, frames[-1]]

    def draw(frame: Frame) -> list[Any]:
        ax.clear()
        frame(ax)
        return []

    try:
        film = FuncAnimation(figure, draw, frames=frames, init_func=list, interval=1000 * max(seconds, SHORTEST))
        film.save(target, writer=writers[writer](fps=1 / max(seconds, SHORTEST)), dpi=DOTS)  # pyright: ignore[reportArgumentType]
    finally:
        plt.close(figure)
    return target


def _of_graph(graph: Graph, direction: Direction) -> tuple[tuple[float, float], list[Frame]]:
    """A frame a node; what is not known yet is not told."""
    steps = graph.accumulate(direction)
    which = {"forward": "tangent", "reverse": "cotangent"}[direction]

    def frame(k: int) -> Frame:
        known = {step.node for step in steps[: k + 1]}
        blank = {"tangent": None, "cotangent": None}
        rows = tuple(replace(n, **{**blank, which: getattr(n, which) if n.name in known else None}) for n in graph.rows)
        so_far = replace(graph, rows=rows)
        title = f"{k + 1} of {len(steps)}: the {which} of {steps[k].node}, {steps[k].text}"
        into = {(arrow.start, arrow.stop) for arrow in steps[k].arrows}
        return lambda ax: draw_graph(so_far, into, title, ax)

    return size_of(graph), [frame(k) for k in range(len(steps))]


def _of_chain(jacobians: Sequence[LocalJacobian], direction: Direction) -> tuple[tuple[float, float], list[Frame]]:
    """A frame a factor; the last is the product alone."""
    check_jacobians(jacobians)
    left = list(jacobians)
    products = [list(left)]
    while len(left) > 1:
        pair = left[:2] if direction == "forward" else left[-2:]
        product = replace(
            pair[0],
            name=f"∂{pair[1].name}/∂{'input' if direction == 'forward' else pair[0].name}",
            matrix=jnp.asarray(pair[1].matrix) @ jnp.asarray(pair[0].matrix),
            out_shape=pair[1].out_shape,
        )
        left = [product, *left[2:]] if direction == "forward" else [*left[:-2], product]
        products.append(list(left))

    def frame(k: int) -> Frame:
        title = f"{direction} mode, {k} of {len(products) - 1} products"
        return lambda ax: chain(products[k], product=False, title=title, ax=ax)

    return (PAGE, 2.6), [frame(k) for k in range(len(products))]
