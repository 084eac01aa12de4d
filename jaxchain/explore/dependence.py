"""`graph`: the computational graph of a function at a point, where derivatives are sums over paths.

Every value that carries a derivative is a node, every dependence an arrow with its partial derivative. Builds on the
rows of a trace, folds included: a fold is one node, and a graph of its own when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxchain.checks import check_function
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Linear
from jaxchain.discovery.find import UNROLL_LIMIT
from jaxchain.errors import REFUSALS, refusal
from jaxchain.explore.arithmetic import Floats
from jaxchain.explore.computation import ENTRIES, Arrow, Graph, Node, flat, times, total_of
from jaxchain.explore.nest import Names, TraceRow
from jaxchain.explore.tracing import Trace, drawn, flattened, tangents_of, trace_of
from jaxchain.program.fingerprint import fingerprint
from jaxchain.program.flat import Program
from jaxchain.program.flow import active
from jaxchain.program.interpret import numbers_of
from jaxchain.program.primitives import Var, is_inexact
from jaxchain.program.segment import Segment
from jaxchain.show.values import count

__all__ = ["graph", "graph_of"]

ALL_ENTRIES = 1 << 23
"""The most entries that the arrows of one graph hold together."""

FEW = 8
"""With more arrays among the arguments than this, those of the other arguments are held fixed: a model's parameters."""


def graph(
    fun: Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    unroll_limit: int = UNROLL_LIMIT,
) -> Graph:
    """The computational graph of a function at a point: values are nodes, dependences arrows with partial derivatives.

    Parameters
    ----------
    fun
        Any pure JAX function, or a chain.
    args
        Its positional arguments, as arrays. Where they hold more than eight arrays, those that are not looked along,
        a model's parameters, are held fixed and are no nodes.
    argnum, tangent, cotangent, unroll_limit
        As in `jaxchain.trace`.

    Returns
    -------
    Graph
        ``.rows``, its nodes, and ``.arrows``; ``print`` it, draw it with `jaxchain.plot.graph`.

    Raises
    ------
    TypeError, TangentMismatchError
        As `jaxchain.trace`.

    Notes
    -----
    It computes with numbers, so it is no part of a traced program. What a library function, a named module or a loop's
    step computes is folded into one node, see `Graph.open`. A complex value counts as two real numbers.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 2 and 9; Olah, Calculus on Computational Graphs, 2015.

    Examples
    --------
    >>> graph = jc.graph(lambda a, b: (a + b) * (b + 1), 2.0, 1.0)  # Olah's example
    >>> print(graph.paths("b", "y"))
    ∂y/∂b: 2 paths
    path          product of its arrows
    v0 → v1 → v3              2 · 1 = 2
    v0 → v2 → v3              3 · 1 = 3
    Their sum: 5 = 2 + 3
    """
    check_function(fun, "graph", args)
    flat = flattened(fun, args, argnum, "A graph", unroll_limit, inside=tangent is None)
    trace = trace_of(
        flat.program, flat.out, args, flat.names, tangents_of(args, flat.at, tangent), cotangent, flat.begin
    )
    own = [*flat.begin] or flat.program.invars[flat.own]
    found = graph_of(flat.program, trace, own if tangent is None else None)
    return found if tangent is not None else replace(found, notes=(*drawn(trace, args, flat.at), *found.notes))


def graph_of(
    program: Program,
    trace: Trace,
    own: Sequence[Var] | None = None,
    *,
    folded: bool = True,
    entries: int = ENTRIES,
) -> Graph:
    """The graph of a program whose trace is known; where it has many inputs, of what depends on its ``own`` alone.

    ``folded``: calls and modules are one node; ``entries``: the most of an arrow's matrix.
    """
    names = Names(program)
    inputs = program.invars if own is None or len(program.invars) <= FEW else own
    moving = {names[var] for var in active(program.eqns, [var for var in inputs if is_inexact(var)])}
    builder = _Builder(program, trace.rows, names, moving, entries)
    fixed = sum(1 for var in program.invars if is_inexact(var) and names[var] not in moving)
    held = [f"{count(fixed, 'array')} of the other arguments are held fixed."] if fixed else []
    rows = trace.tree if folded else trace.rows
    found = builder.graph(rows, [names[var] for var in inputs], builder.results, "Computational graph")
    return replace(found, notes=(*found.notes, *held, *trace.notes))


class _Builder:
    """Makes graphs, folds' included, from the rows of one trace."""

    def __init__(
        self, program: Program, rows: Sequence[TraceRow], names: Names, moving: set[str], entries: int
    ) -> None:
        self.program, self.names, self.moving, self.entries = program, names, moving, entries
        self.variables = {name: var for var, name in names.items()}
        self.values: dict[str, tuple[Any, Any, Any]] = {}
        self.labels: dict[str, list[str]] = {}
        for row in rows:
            text = row.formula.partition(" = ")[2]
            if not row.writes:  # a result
                for name in row.reads:
                    self.labels.setdefault(name, []).append(row.name)
            elif not row.reads and row.name in self.moving:
                self.labels[row.name] = [text]
            columns = (row.primal, row.tangent, row.cotangent)
            several = len(row.writes) > 1
            for k, name in enumerate(row.writes):
                self.values[name] = tuple(c[k] if several and c is not None else c for c in columns)  # pyright: ignore[reportArgumentType]
        self.matrices: dict[Hashable, Callable[..., Any]] = {}
        self.results = {name for row in rows if not row.writes for name in row.reads}

    def graph(self, rows: Sequence[TraceRow], inputs: Sequence[str], outputs: Iterable[str], title: str) -> Graph:
        """Of neighbouring rows, which read ``inputs`` from before them."""
        made = [row for row in rows if self.moves(row.reads) and self.moves(row.writes)]
        arrows, notes = self.arrows(made)
        ends = set(outputs)
        nodes = [
            self.node(name, "", "output" if name in ends else "input") for name in self.moves(inputs)
        ] + [
            self.node(name, row.formula.partition(" = ")[2], "output" if name in ends else "value", row)
            for row in made
            for name in self.moves(row.writes)
        ]  # fmt: skip
        folds = {name: partial(self.fold, row) for row in made if row.rows for name in self.moves(row.writes)}
        return Graph(tuple(nodes), tuple(arrows), tuple(notes), title, folds)

    def fold(self, row: TraceRow) -> Graph:
        """What is inside a fold; its inputs have the cotangents that come of it alone."""
        found = self.graph(row.rows, row.reads, row.writes, f"Computational graph of {row.call}")
        return replace(found, rows=tuple(_of_this_alone(node, found) for node in found.rows))

    def moves(self, names: Iterable[str]) -> list[str]:
        """Those that depend on the inputs."""
        return [name for name in names if name in self.moving]

    def node(self, name: str, formula: str, kind: Any, row: TraceRow | None = None) -> Node:
        """One value."""
        label = ", ".join(self.labels.get(name, ()))
        source, call = ("", "") if row is None else (row.source, row.call)
        return Node(name, label, formula, kind, *self.values[name], source, call)

    def arrows(self, rows: Sequence[TraceRow]) -> tuple[list[Arrow], list[str]]:
        """From what each row reads to what it makes, each with its block of the row's Jacobian."""
        arrows: list[Arrow] = []
        large, refused, left = 0, dict[str, None](), ALL_ENTRIES
        for row in rows:
            segment = self.segment(row)
            state = tuple(self.values[name][0] for name in self.moves(row.reads))
            sizes = [Coordinates.of(value).size for value in state]
            heights = [Coordinates.of(self.values[name][0]).size for name in self.moves(row.writes)]
            matrix: Floats | None = None
            if sum(sizes) * sum(heights) > min(self.entries, left):
                large += 1
            else:
                left -= sum(sizes) * sum(heights)
                try:
                    matrix = self.jacobian(segment, state)
                except REFUSALS as error:
                    refused[f"{row.formula}: {refusal(error)}."] = None
            rows_of, columns_of = (np.cumsum([0, *of]) for of in (heights, sizes))
            for i, start in enumerate(self.moves(row.reads)):
                reached = active([equation.eqn for equation in segment.equations], [segment.inputs[i]])
                for j, stop in enumerate(self.moves(row.writes)):
                    block = None
                    if matrix is not None:
                        block = matrix[rows_of[j] : rows_of[j + 1], columns_of[i] : columns_of[i + 1]]
                    if self.variables[stop] in reached:
                        arrows.append(Arrow(start, stop, block))
        notes = [f"{count(large, 'partial derivative')} of too many entries to be multiplied out."] if large else []
        return arrows, [*notes, *refused]

    def segment(self, row: TraceRow) -> Segment:
        """The equations of a row, from what it reads to what it makes, of what depends on the inputs."""
        made = (self.program.makers[self.variables[name]] for leaf in row.leaves for name in leaf.writes)
        equations = tuple({id(equation): equation for equation in made}.values())
        reads, writes = (tuple(self.variables[n] for n in self.moves(names)) for names in (row.reads, row.writes))
        return Segment(equations, reads, writes, self.program)

    def jacobian(self, segment: Segment, state: tuple[Any, ...]) -> Floats:
        """All of a row's partial derivatives as one matrix."""

        def matrix(sides: Sequence[Any], state: tuple[Any, ...]) -> Any:
            return Linear(lambda x: tuple(segment.call(*sides, *x)), state).matrix()

        sides = [self.values[self.names[var]][0] for var in segment.sides]
        constants = {var: self.program.constants[var] for var in segment.constants}
        eqns = [equation.eqn for equation in segment.equations]
        kind = fingerprint(eqns, [*segment.inputs, *segment.sides], segment.outputs, constants)
        # One function for all rows of the same program: JAX traces it once.
        return np.asarray(numbers_of(self.matrices.setdefault(kind, matrix), sides, state), np.float64)


def _of_this_alone(node: Node, graph: Graph) -> Node:
    """A fold's input with the cotangent that comes of the fold alone: others may read it, too."""
    if node.kind != "input":
        return node
    arrows = [arrow for arrow in graph.arrows if arrow.start == node.name]
    total = total_of([times(flat(graph[arrow.stop], "cotangent"), arrow.partial) for arrow in arrows])
    back = None if total is None else Coordinates.of(node.primal).unflatten_cotangent(jnp.asarray(total[0]))
    return replace(node, cotangent=back)
