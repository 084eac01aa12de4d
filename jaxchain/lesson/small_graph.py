"""The graph of y = ln x1 + x1·x2 − sin x2 as plain data, for the pictures of two chapters.

Nodes with their places, values, tangents and cotangents; arrows with their partial derivatives; the paths
from every input; and both sweeps, step by step, with the arithmetic written out. The function and the
point are those of Baydin, Pearlmutter, Radul and Siskind, JMLR 18 (2018), tables 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxchain.explore import Trace
from jaxchain.lesson.cell import number

__all__ = ["FUNCTION", "PARTIALS", "drawn", "paths_from", "steps_back", "steps_forward"]

FUNCTION = """
def f(x1, x2):
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    v4 = v1 + v2
    return v4 - v3
"""

PARTIALS = """
made = {"v1": (jnp.log, "x1"), "v2": (jnp.multiply, "x1", "x2"),
        "v3": (jnp.sin, "x2"), "v4": (jnp.add, "v1", "v2"),
        "y": (jnp.subtract, "v4", "v3")}
values, slopes = {"x1": 2.0, "x2": 5.0}, {}
for node, (op, *reads) in made.items():
    given = [values[name] for name in reads]
    values[node] = op(*given)
    for k, name in enumerate(reads):
        slopes[f"{name} → {node}"] = jax.grad(op, k)(*given)
slopes
"""
"""What gives the partial derivative on every arrow."""

BESIDE = {"v1": (0, -24), "v2": (12, 33), "v4": (42, -20)}
"""Where a node's formula stands from its middle; elsewhere right below, at (0, 33). Arrows must not cross it."""

PLACES = {
    "x1": (44, 84, "x1"), "x2": (44, 252, "x2"), "v1": (166, 44, "ln x1"), "v2": (166, 160, "x1·x2"),
    "v3": (166, 286, "sin x2"), "v4": (290, 98, "v1 + v2"), "y": (400, 196, "v4 − v3"),
}  # fmt: skip
"""Where each node is drawn, and what it computes."""

ROWS = {"x1": "v-1", "x2": "v0", "v1": "v1", "v2": "v2", "v3": "v3", "v4": "v4", "y": "y"}
"""Node → its row in a trace, which counts inputs backwards from v0 as the textbooks do."""


def drawn(trace: Trace, partials: Mapping[str, float]) -> dict[str, Any]:
    """``{"nodes", "arrows"}``; ``partials`` is keyed by ``"x1 → v2"``."""
    nodes = [
        {"id": node, "x": x, "y": y, "formula": formula, "beside": BESIDE.get(node, (0, 33)), **_values(trace, node)}
        for node, (x, y, formula) in PLACES.items()
    ]
    arrows = [{**dict(zip(("from", "to"), key.split(" → "), strict=True)), "partial": float(value)} for key, value in partials.items()]  # fmt: skip
    return {"nodes": nodes, "arrows": arrows}


def _values(trace: Trace, node: str) -> dict[str, float]:
    row = trace[ROWS[node]]
    return {kind: float(getattr(row, kind)) for kind in ("primal", "tangent", "cotangent")}


def paths_from(graph: Mapping[str, Any], start: str) -> list[dict[str, Any]]:
    """Every path from a node to ``y``, with its factors and their product."""

    def walk(node: str) -> Iterator[list[dict[str, Any]]]:
        if node == "y":
            yield []
        for arrow in graph["arrows"]:
            if arrow["from"] == node:
                yield from ([arrow, *rest] for rest in walk(arrow["to"]))

    return [
        {
            "nodes": [start, *(arrow["to"] for arrow in path)],
            "text": " · ".join(number(arrow["partial"]) for arrow in path),
            "product": math.prod(arrow["partial"] for arrow in path),
        }
        for path in walk(start)
    ]


def steps_forward(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs' tangents, then every node's: Σ partial · tangent over the arrows that arrive."""
    known = {node["id"]: node["tangent"] for node in graph["nodes"]}
    inputs = [_step(name, f"{name} moves at speed {number(known[name])}: we chose so.", known[name], []) for name in ("x1", "x2")]  # fmt: skip
    return inputs + [
        _summed(node["id"], known, [(arrow["partial"], arrow["from"], arrow) for arrow in arrows])
        for node in graph["nodes"]
        if (arrows := [arrow for arrow in graph["arrows"] if arrow["to"] == node["id"]])
    ]


def steps_back(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The output's cotangent, then every node's: Σ partial · cotangent over the arrows that leave."""
    known = {node["id"]: node["cotangent"] for node in graph["nodes"]}
    first = _step("y", "y changes by 1 for each 1 that y changes: the walk begins with 1.", 1.0, [])
    return [first] + [
        _summed(node["id"], known, [(arrow["partial"], arrow["to"], arrow) for arrow in arrows])
        for node in reversed(graph["nodes"])
        if (arrows := [arrow for arrow in graph["arrows"] if arrow["from"] == node["id"]])
    ]


def _summed(
    node: str, known: Mapping[str, float], parts: Sequence[tuple[float, str, Mapping[str, Any]]]
) -> dict[str, Any]:
    terms = " + ".join(f"{number(partial)} · {_signed(known[other])}" for partial, other, _ in parts)
    return _step(node, f"{node}: {terms} = {number(known[node])}", known[node], [f"{a['from']} {a['to']}" for *_, a in parts])  # fmt: skip


def _signed(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _step(node: str, text: str, value: float, arrows: list[str]) -> dict[str, Any]:
    return {"node": node, "text": text, "value": value, "arrows": arrows}
