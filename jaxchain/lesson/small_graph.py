"""The graph of y = ln x1 + x1·x2 − sin x2 as the pictures of two chapters have it: `jaxchain.graph`, with places.

The function and the point are those of Baydin, Pearlmutter, Radul and Siskind, JMLR 18 (2018), tables 2 and 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxchain.explore import Arrow, Graph, Node
from jaxchain.explore.computation import Direction

__all__ = ["FUNCTION", "drawn", "steps", "ways"]

FUNCTION = """
def f(x1, x2):
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    v4 = v1 + v2
    return v4 - v3
"""


class Place(NamedTuple):
    """Where a node is drawn, what it computes, and where that stands from the node's middle: no arrow may cross it."""

    x: int
    y: int
    formula: str
    beside: tuple[int, int] = (0, 33)


PLACES = {
    "x1": Place(44, 84, "x1"),
    "x2": Place(44, 252, "x2"),
    "v1": Place(166, 44, "ln x1", (0, -24)),
    "v2": Place(166, 160, "x1·x2", (12, 33)),
    "v3": Place(166, 286, "sin x2"),
    "v4": Place(290, 98, "v1 + v2", (42, -20)),
    "y": Place(400, 196, "v4 − v3"),
}


def drawn(graph: Graph) -> dict[str, Any]:
    """``{"nodes", "arrows"}``, as the script draws them."""
    nodes = [{"id": name, **PLACES[name]._asdict(), "primal": graph[name].primal} for name in map(_called, graph.rows)]
    arrows = [
        {**dict(zip(("from", "to"), _ends(graph, arrow), strict=True)), "partial": _single(arrow.partial)}
        for arrow in graph.arrows
    ]
    return {"nodes": nodes, "arrows": arrows}


def ways(graph: Graph, start: str) -> dict[str, Any]:
    """The paths from an input to ``y``, each with its product written out, and their sum."""
    paths = graph.paths(start, "y")
    rows = [{"nodes": [_called(graph[name]) for name in path.nodes], "text": path.text} for path in paths.rows]
    return {"rows": rows, "text": paths.text, "total": _single(paths.total)}


def steps(graph: Graph, direction: Direction) -> list[dict[str, Any]]:
    """A sweep, node by node: the sum over arrows, written out, and which arrows those are."""
    return [
        {
            "node": _called(graph[step.node]),
            "text": step.text,
            "value": _single(step.value),
            "arrows": [" ".join(_ends(graph, arrow)) for arrow in step.arrows],
            "given": not step.arrows,
        }
        for step in graph.accumulate(direction)
    ]


def _called(node: Node) -> str:
    """As the chapters call it: ``x1`` and ``y``, which a trace counts as ``v-1`` and ``v5``."""
    return node.label or node.name


def _ends(graph: Graph, arrow: Arrow) -> tuple[str, str]:
    return _called(graph[arrow.start]), _called(graph[arrow.stop])


def _single(matrix: Any) -> float:
    """The number that a derivative of one number by another is."""
    return matrix.item()
