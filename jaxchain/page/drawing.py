"""Computational graphs as the page draws them: places, texts, and the sums over arrows and paths, all computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from jaxchain.explore.arithmetic import MOST, Floats, number, written
from jaxchain.explore.computation import IN_TABLE, Accumulated, Direction, Graph, Node
from jaxchain.show.extremes import extreme_of_blocks
from jaxchain.show.values import norm, summary

__all__ = ["NODES", "drawings", "is_small", "too_many"]

NODES = 40
"""The most nodes of a graph that is drawn."""

ALL_NODES = 240
"""The most nodes of all graphs of a page, those inside folds included."""

BETWEEN = 24
"""The most nodes of a graph whose paths are told between all pairs."""

PATHS = 12
"""The most paths between two nodes that are told."""

SMALL = 64
"""Up to so many rows and columns matrices are multiplied along paths."""

FEW = 2
"""Up to so many numbers of a vector are told in its node."""

THUMB = 8
"""The most cells along one side of an arrow's picture."""


def drawings(graph: Graph, stages: Mapping[str, int | None], formula: Callable[[Node], str]) -> dict[str, Any]:
    """A graph and those inside its folds, the outermost first; or why there is none.

    Parameters
    ----------
    graph
        Of the whole function.
    stages
        The number of the stage that makes each value.
    formula
        How a node's formula is written.
    """
    if len(graph.rows) > NODES:
        return too_many(len(graph.rows))
    if not graph.arrows:
        return {"graphs": [], "notes": ["Nothing depends on the input, so there is no graph to draw."], "small": False}
    graphs, drawn, room = [graph], list[dict[str, Any]](), ALL_NODES - len(graph.rows)
    for one in graphs:  # grows while it is walked through: those inside stand behind
        inside: dict[str, int] = {}
        for name in one.inside:
            inner = one.open(name)
            if len(inner.rows) <= min(NODES, room):
                room -= len(inner.rows)
                inside[name] = len(graphs)
                graphs.append(inner)
        drawn.append(_drawing(one, inside, stages, formula))
    return {"graphs": drawn, "notes": list(graph.notes), "small": is_small(graph)}


def too_many(values: int) -> dict[str, Any]:
    """What stands in a graph's place."""
    note = f"{values} values are too many to be drawn as one graph: jc.graph(stage, x) shows a stage's."
    return {"graphs": [], "notes": [note], "small": False}


def is_small(graph: Graph) -> bool:
    """Whether a person can follow every number of it."""
    return len(graph.rows) <= BETWEEN and all(np.size(node.primal) <= MOST**2 for node in graph.rows)


def _drawing(
    graph: Graph, inside: Mapping[str, int], stages: Mapping[str, int | None], formula: Callable[[Node], str]
) -> dict[str, Any]:
    at = {node.name: k for k, node in enumerate(graph.rows)}
    arrows = {(arrow.start, arrow.stop): k for k, arrow in enumerate(graph.arrows)}
    nodes = [
        {
            "name": node.name,
            "label": node.label,
            "formula": formula(node).partition("(")[0] if node.call else formula(node),
            "kind": node.kind,
            "place": place,
            "stage": stages.get(node.name),
            "inside": inside.get(node.name),
            "source": node.source,
            **{which: _short(getattr(node, which)) for which in ("primal", "tangent", "cotangent")},
        }
        for node, place in zip(graph.rows, graph.layout.places, strict=True)
    ]
    lines = [
        {
            "from": at[arrow.start],
            "to": at[arrow.stop],
            "route": route,
            "text": written(arrow.partial, IN_TABLE),
            **_matrix(arrow.partial),
        }
        for arrow, route in zip(graph.arrows, graph.layout.routes, strict=True)
    ]

    def steps(direction: Direction) -> list[dict[str, Any]]:
        return [_step(step, at, arrows) for step in graph.accumulate(direction)]

    return {
        "title": graph.title,
        "size": graph.layout.size,
        "nodes": nodes,
        "arrows": lines,
        "forward": steps("forward"),
        "reverse": steps("reverse"),
        "between": dict(_between(graph, arrows)) if len(nodes) <= BETWEEN else None,
    }


def _short(value: Any) -> str | None:
    """A number, a few numbers, or an array's norm."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim < 2 and array.size <= FEW and not np.iscomplexobj(array):
        row = " ".join(number(float(value), 4 if array.size == 1 else 3) for value in array.ravel())
        return f"[{row}]" if array.ndim else row
    return summary(value, shape=False, picture=False)


def _matrix(partial: Floats | None) -> dict[str, Any]:
    """An arrow's matrix in words, and in a small picture whose strongest cell is ±100, and ``None`` what is not finite."""
    if partial is None:
        return {"words": "not multiplied out", "cells": None}
    m, n = partial.shape
    words = written(partial) if m * n == 1 else f"{m} × {n}, ‖{norm(partial):.4g}‖, {written(partial)}"
    if m * n == 1:
        return {"words": words, "cells": None}
    cells = extreme_of_blocks(partial, THUMB, THUMB)
    finite = np.isfinite(cells)
    strongest = np.abs(cells[finite]).max(initial=0.0) or 1.0
    shades = np.rint(100 * np.where(finite, cells, 0.0) / strongest).astype(object)
    return {
        "words": words,
        "cells": [
            [int(shade) if known else None for shade, known in zip(*row, strict=True)]
            for row in zip(shades, finite, strict=True)
        ],
    }


def _step(step: Accumulated, at: Mapping[str, int], arrows: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    along = [arrows[arrow.start, arrow.stop] for arrow in step.arrows]
    return {"node": at[step.node], "text": step.text, "arrows": along}


def _between(graph: Graph, arrows: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, Any]]:
    """Of all pairs that a path joins: ``"0 5"`` → the paths, their products and their sum."""
    small = tuple(
        arrow if arrow.partial is None or max(arrow.partial.shape) <= SMALL else arrow._replace(partial=None)
        for arrow in graph.arrows
    )
    light = replace(graph, arrows=small)
    for i, start in enumerate(graph.rows):
        for j in range(i + 1, len(graph.rows)):
            paths = light.paths(start.name, graph.rows[j].name)
            if paths.number:
                told = [
                    {
                        "arrows": [arrows[pair] for pair in pairwise(path.nodes)],
                        "text": path.text,
                    }
                    for path in paths.rows[:PATHS]
                ]
                yield f"{i} {j}", {"number": paths.number, "text": paths.text, "paths": told}
