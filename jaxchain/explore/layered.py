"""Where the nodes of a graph without cycles are drawn: in layers from left to right, with few crossings.

The layout is `fast_sugiyama`'s.

References: Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system structures, IEEE
Transactions on Systems, Man and Cybernetics, 1981.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Layout", "layered"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Places in units of a node's box: x counts layers from the left, y goes up.

    Attributes
    ----------
    places
        Of every node.
    routes
        Of every arrow, the places that it passes on its way, its ends included.
    """

    places: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]

    @property
    def size(self) -> Point:
        """Width and height: the largest x and y."""
        return max((x for x, _ in self.places), default=0.0), max((y for _, y in self.places), default=0.0)


def layered(nodes: int, arrows: Sequence[tuple[int, int]]) -> Layout:
    """Lay a graph out.

    Parameters
    ----------
    nodes
        How many.
    arrows
        Pairs of nodes; there are no cycles.
    """
    from fast_sugiyama import from_edges

    places: dict[int, Point] = {}
    passes: dict[tuple[int, int], tuple[int, ...]] = {}
    below = 0.0
    joined = sorted(
        {node for arrow in arrows for node in arrow}
    )  # the library numbers what it adds from their count on
    number = {node: k for k, node in enumerate(joined)}
    edges = sorted({(number[start], number[stop]) for start, stop in arrows})
    known = {k: node for node, k in number.items()}

    def ours(k: int | str) -> int:
        return known.get(int(k), nodes + int(k))

    for positions, width, height, pieces in from_edges(edges, vertex_spacing=1, dummy_vertices=True) if edges else ():
        left = min(x for _, (x, _) in positions)  # one connected part, beside the one before
        # Its layers go down; ours go to the right.
        places.update({ours(k): (height - y, below + x - left) for k, (x, y) in positions})
        below += width + 1
        passes.update(_passes(nodes, [(ours(start), ours(stop)) for start, stop in pieces or ()]))
    for node in range(nodes):
        if node not in places:
            places[node], below = (0.0, below), below + 1
    routes = tuple(tuple(places[node] for node in passes[arrow]) for arrow in arrows)
    return Layout(tuple(places[node] for node in range(nodes)), routes)


def _passes(nodes: int, pieces: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Which nodes each arrow passes; where it crosses a layer, that is a node from ``nodes`` on, of one piece in and out."""
    onward = {start: stop for start, stop in pieces if start >= nodes}
    routes: dict[tuple[int, int], tuple[int, ...]] = {}
    for start, stop in pieces:
        if start < nodes:
            route = [start, stop]
            while route[-1] >= nodes:
                route.append(onward[route[-1]])
            routes[route[0], route[-1]] = tuple(route)
    return routes
