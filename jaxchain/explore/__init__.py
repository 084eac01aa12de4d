"""Look at a function: its evaluation trace, its graph, and what each transform makes of its program."""

from jaxchain.explore.computation import Accumulated, Arrow, Graph, Node, Path, Paths
from jaxchain.explore.dependence import graph
from jaxchain.explore.nest import TraceRow
from jaxchain.explore.tracing import Trace, trace
from jaxchain.explore.transformed import TransformRow, Transforms, transforms

__all__ = [
    "Accumulated",
    "Arrow",
    "Graph",
    "Node",
    "Path",
    "Paths",
    "Trace",
    "TraceRow",
    "TransformRow",
    "Transforms",
    "graph",
    "trace",
    "transforms",
]
