"""A computational graph as data: nodes, arrows with partial derivatives, sums over arrows, products along paths.

Nothing here traces or differentiates: `dependence` makes graphs. Derivatives are matrices between flattened values.

References: Bauer, Computational graphs and rounding error, SIAM Journal on Numerical Analysis, 1974; Griewank and
Walther, Evaluating Derivatives, 2nd ed., ch. 2 and 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxchain.checks import text, word
from jaxchain.coordinates import Coordinates
from jaxchain.errors import unknown
from jaxchain.explore.arithmetic import Floats, product_of, sum_of_products, written
from jaxchain.explore.layered import Layout, layered
from jaxchain.show.table import Shown, Table, Tabular
from jaxchain.show.values import count, summary

__all__ = [
    "ENTRIES",
    "IN_TABLE",
    "Accumulated",
    "Arrow",
    "Direction",
    "Graph",
    "Node",
    "Path",
    "Paths",
    "flat",
    "times",
    "total_of",
]

ENTRIES = 1 << 18
"""The most entries of an arrow's matrix."""

ROUNDING = 1e-5
"""A share of a cotangent that is not told from float32's rounding."""

LISTED = 1000
"""The most paths that are listed; their sum is of all of them."""

PRINTED = 50
"""The most of these that a table prints."""

IN_TABLE = 2
"""Up to so many rows and columns a partial derivative is told in a table with its entries."""

Direction = Literal["forward", "reverse"]


@dataclass(frozen=True, eq=False)
class Node(Shown):
    """One value of a graph.

    Attributes
    ----------
    name
        ``v1``, as in `trace`.
    label
        What the caller calls it: an argument's name, ``y`` of a result; else empty.
    formula
        What computes it: ``log(v-1)``.
    kind
        ``"input"``, ``"value"`` or ``"output"``.
    primal, tangent, cotangent
        Arrays; ``None`` where that mode does not exist.
    source
        The user's line.
    call
        Of a fold, the call, module or loop step that it is; see `Graph.open`.

    Examples
    --------
    >>> node = jc.graph(lambda x: jnp.sin(x) * x, 2.0)["v1"]
    >>> node.formula, f"{node.primal:.4f}", f"{node.tangent:.4f}"  # sin 2, cos 2
    ('sin(v0)', '0.9093', '-0.4161')
    """

    name: str
    label: str
    formula: str
    kind: Literal["input", "value", "output"]
    primal: Any
    tangent: Any
    cotangent: Any
    source: str = ""
    call: str = ""

    @property
    def title(self) -> str:
        """Formula and names: ``v1 = log(v-1)``, ``x1 = v-1``."""
        return " = ".join(filter(None, (self.label, self.name, self.formula)))

    def _brief(self) -> str:
        return self.title

    def _table(self) -> Table:
        columns = ("primal", "tangent", "cotangent")
        cells = [(name, summary(getattr(self, name)) or "–") for name in columns]
        return Table(self.title, ("", "value"), cells, list(filter(None, [self.source])))


class Arrow(NamedTuple):
    """That one value is computed from another.

    Attributes
    ----------
    start, stop
        Names of the node that is read and of the one that reads it.
    partial
        ∂stop/∂start, a matrix (m, n) of the flattened values, in float64; ``None`` where it is too large, or has no mode.

    Examples
    --------
    >>> jc.graph(lambda x: 3 * x, 2.0).arrows
    (Arrow(v0 → v1, 3),)
    """

    start: str
    stop: str
    partial: Floats | None

    def __repr__(self) -> str:
        return f"Arrow({self.start} → {self.stop}, {written(self.partial)})"


@dataclass(frozen=True, eq=False)
class Accumulated(Shown):
    """One step of a sweep over a graph: how a node's derivative is the sum over its arrows.

    Attributes
    ----------
    node
        Whose it is.
    value
        Its tangent, or cotangent, flattened; ``None`` where a factor is not known.
    arrows
        What the sum is over: those that come in (forward), or that go out (reverse).
    given
        What was given from outside and not along an arrow: the input's tangent, the output's cotangent; else ``None``.
    text
        The arithmetic, ``5.5 = 1 · 0.5 + 1 · 5``.

    Examples
    --------
    >>> jc.graph(lambda x: x + 3 * x, 2.0).accumulate("forward")[-1]
    Accumulated(v2: 4 = 1 · 1 + 1 · 3)
    """

    node: str
    value: Floats | None
    arrows: tuple[Arrow, ...]
    given: Floats | None
    text: str

    def _brief(self) -> str:
        return f"{self.node}: {self.text}"

    def _table(self) -> Table:
        return Table(self._brief(), (), [])


@dataclass(frozen=True, eq=False)
class Path(Shown):
    """One path through a graph.

    Attributes
    ----------
    nodes
        Names, from the first to the last.
    partials
        Of its arrows, from the first to the last.
    product
        Of the partial derivatives, the last arrow's on the left, a matrix (m, n); ``None`` where one is not known.
    text
        The arithmetic, ``1 · 1 · 0.5 = 0.5``.

    Examples
    --------
    >>> print(jc.graph(lambda x: x + 3 * x, 2.0).paths("x", "y").rows[1])
    v0 → v1 → v2: 1 · 3 = 3
    """

    nodes: tuple[str, ...]
    partials: tuple[Floats | None, ...]
    product: Floats | None
    text: str

    def _brief(self) -> str:
        return " → ".join(self.nodes)

    def _table(self) -> Table:
        return Table(f"{self._brief()}: {self.text}", (), [])


@dataclass(frozen=True, eq=False)
class Paths(Tabular):
    """All paths between two nodes: the derivative of one by the other is the sum of their products.

    Attributes
    ----------
    start, stop
        The two, as they were asked for.
    rows
        The paths; the first thousand where there are more.
    number
        How many there are.
    total
        ∂stop/∂start, a matrix (m, n); ``None`` where an arrow's is not known.
    text
        The sum, ``5.5 = 0.5 + 5``.

    Examples
    --------
    >>> paths = jc.graph(lambda x: x + 3 * x, 2.0).paths("x", "y")
    >>> paths.number, paths.total, paths.text
    (2, array([[4.]]), '4 = 1 + 3')
    """

    start: str
    stop: str
    rows: tuple[Path, ...]
    number: int
    total: Floats | None
    text: str

    def _table(self) -> Table:
        title = f"∂{self.stop}/∂{self.start}: {count(self.number, 'path')}"
        rows = [(" → ".join(path.nodes), path.text) for path in self.rows[:PRINTED]]
        notes = [f"The first {len(rows):,} are listed."] if self.number > len(rows) else []
        return Table(title, ("path", "product of its arrows"), rows, [*notes, f"Their sum: {self.text}"])


@dataclass(frozen=True, eq=False)
class Graph(Tabular):
    """The computational graph of a function at a point; `graph` makes it.

    Attributes
    ----------
    rows
        Its nodes, in the order of evaluation.
    arrows
        Its dependences, in the order of evaluation of the nodes that read.
    notes
        What is missing, and why.
    title
        What is shown above it.
    inside
        Of the nodes that can be opened, what makes the graph inside; see `open`.

    Examples
    --------
    Baydin's example; his y is the last value:

    >>> graph = jc.graph(lambda x1, x2: jnp.log(x1) + x1 * x2 - jnp.sin(x2), 2.0, 5.0, tangent=(1.0, 0.0))
    >>> graph.arrows[0]
    Arrow(v-1 → v1, 0.5)
    >>> print(graph.paths("x1", "y"))
    ∂y/∂x1: 2 paths
    path                 product of its arrows
    v-1 → v1 → v3 → v5     1 · 1 · 0.5 = 0.5
    v-1 → v2 → v3 → v5         1 · 1 · 5 = 5
    Their sum: 5.5 = 0.5 + 5
    >>> [step.text for step in graph.accumulate("reverse") if step.node == "v-1"]
    ['5.5 = 1 · 0.5 + 1 · 5']
    """

    rows: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    notes: tuple[str, ...] = ()
    title: str = "Computational graph"
    inside: Mapping[str, Callable[[], Graph]] = field(default_factory=dict[str, Callable[[], "Graph"]])

    @cached_property
    def layout(self) -> Layout:
        """Where nodes and arrows are drawn, in their order."""
        number = {node.name: k for k, node in enumerate(self.rows)}
        return layered(len(self.rows), [(number[arrow.start], number[arrow.stop]) for arrow in self.arrows])

    def __getitem__(self, name: str) -> Node:
        """The node of this name or label.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.
        """
        text("name", name)
        for node in self.rows:
            if name in (node.name, *node.label.split(", ")):
                return node
        raise KeyError(unknown("node", name, [word for node in self.rows for word in (node.name, node.label) if word]))

    def open(self, name: str) -> Graph:
        """The graph inside a fold: a call, a module or a loop's step. Its inputs are what it reads from outside.

        Raises
        ------
        KeyError
            If there is no such node, or nothing is folded in it.

        Examples
        --------
        >>> graph = jc.graph(jax.nn.softmax, jnp.array([0.0, 1.0]))
        >>> chain = jc.Chain([jc.Stage("line", lambda x: 2 * x + 1), jc.Stage("sine", jnp.sin)])
        >>> graph = jc.graph(chain, 1.0)
        >>> [node.title for node in graph.rows]
        ['x = v0', 'v2 = line(v0)', 'y = v3 = sin(v2)']
        >>> [node.title for node in graph.open("v2").rows]
        ['x = v0', 'v1 = 2 × v0', 'v2 = v1 + 1']
        """
        node = self[name]
        if node.name not in self.inside:
            folded = ", ".join(self.inside) or "nothing"
            msg = f"Nothing is folded in {node.name}. Folded: {folded}."
            raise KeyError(msg)
        return self.inside[node.name]()

    @cached_property
    def _into(self) -> dict[str, list[Arrow]]:
        found: dict[str, list[Arrow]] = {node.name: [] for node in self.rows}
        for arrow in self.arrows:
            found[arrow.stop].append(arrow)
        return found

    @cached_property
    def _out_of(self) -> dict[str, list[Arrow]]:
        found: dict[str, list[Arrow]] = {node.name: [] for node in self.rows}
        for arrow in self.arrows:
            found[arrow.start].append(arrow)
        return found

    def accumulate(self, direction: Direction) -> tuple[Accumulated, ...]:
        """Forward or reverse accumulation over the graph, a node a step, in the order in which they are done.

        Parameters
        ----------
        direction
            ``"forward"``: a tangent is the sum over the arrows that come in, of partial derivative times tangent.
            ``"reverse"``: a cotangent is the sum over the arrows that go out, of cotangent times partial derivative.

        Examples
        --------
        >>> [step.text for step in jc.graph(lambda x: x + 3 * x, 2.0).accumulate("reverse")]
        ['1 = 1 (given)', '1 = 1 · 1', '4 = 1 · 3 + 1 · 1']
        """
        word("direction", direction, get_args(Direction))
        forward = direction == "forward"
        nodes, arrows = (self.rows, self._into) if forward else (self.rows[::-1], self._out_of)
        known = {node.name: flat(node, "tangent" if forward else "cotangent") for node in self.rows}
        return tuple(self._step(node, arrows[node.name], known, forward=forward) for node in nodes)

    def _step(
        self, node: Node, arrows: Sequence[Arrow], known: Mapping[str, Floats | None], *, forward: bool
    ) -> Accumulated:
        value = known[node.name]
        factors = [(a.partial, known[a.start]) if forward else (known[a.stop], a.partial) for a in arrows]
        given = value
        if arrows:
            along = total_of([times(left, right) for left, right in factors])
            from_outside = not forward and node.kind == "output"
            given = _rest(value, along) if from_outside and value is not None and along is not None else None
        return Accumulated(node.name, value, tuple(arrows), given, sum_of_products(value, factors, given))

    def paths(self, start: str, stop: str) -> Paths:
        """The paths from one node to another, and the derivative that is the sum over them.

        Parameters
        ----------
        start, stop
            Names or labels: ``"v-1"``, ``"x1"``, ``"y"``.

        Raises
        ------
        KeyError
            If there is no such node.

        Examples
        --------
        >>> jc.graph(lambda x: x + 3 * x, 2.0).paths("x", "y").text
        '4 = 1 + 3'
        """
        first, last = self[start].name, self[stop].name
        numbers, totals = {first: 1}, dict[str, Floats | None]({first: _identity(self[first])})
        for node in self.rows:
            arrows = [arrow for arrow in self._into[node.name] if numbers.get(arrow.start)]
            if arrows and node.name != first:
                numbers[node.name] = sum(numbers[arrow.start] for arrow in arrows)
                totals[node.name] = total_of([times(arrow.partial, totals[arrow.start]) for arrow in arrows])
        number = numbers.get(last, 0)
        total = totals[last] if number else _nothing(self[first], self[last])
        found = tuple(
            self._path(first, arrows)
            for arrows, _ in zip(self._walks(first, last, numbers), range(LISTED), strict=False)
        )
        told = [path.product for path in found]
        words = sum_of_products(total, [(part,) for part in told]) if number <= len(told) else written(total)
        return Paths(start, stop, found, number, total, words)

    def _walks(self, first: str, last: str, numbers: Mapping[str, int]) -> Iterator[tuple[Arrow, ...]]:
        """Every path, as its arrows, found from its end."""
        if first == last:
            yield ()
            return
        waiting: list[tuple[Arrow, ...]] = [(arrow,) for arrow in reversed(self._into[last])]
        while waiting:
            arrows = waiting.pop()
            if arrows[0].start == first:
                yield arrows
            elif numbers.get(arrows[0].start):
                waiting += [(arrow, *arrows) for arrow in reversed(self._into[arrows[0].start])]

    def _path(self, first: str, arrows: Sequence[Arrow]) -> Path:
        partials = tuple(arrow.partial for arrow in arrows)
        product = partials[0] if partials else _identity(self[first])  # of no arrow at all
        for factor in partials[1:]:
            product = times(factor, product)
        nodes = (first, *(arrow.stop for arrow in arrows))
        text = f"{product_of(partials[::-1])} = {written(product)}" if len(partials) > 1 else written(product)
        return Path(nodes, partials, product, text)

    def _brief(self) -> str:
        return f"{count(len(self.rows), 'node')}, {count(len(self.arrows), 'arrow')}"

    def _table(self) -> Table:
        rows = [
            (
                node.title,
                *(summary(value) or "–" for value in (node.primal, node.tangent, node.cotangent)),
                ", ".join(f"∂/∂{arrow.start} {written(arrow.partial, IN_TABLE)}" for arrow in self._into[node.name]),
            )
            for node in self.rows
        ]
        return Table(self.title, ("node", "primal", "tangent →", "← cotangent", "arrows in"), rows, self.notes)


def flat(node: Node, which: str) -> Floats | None:
    """A node's tangent as a column, its cotangent as a row, in coordinates."""
    value = getattr(node, which)
    if value is None:
        return None
    coordinates = Coordinates.of(node.primal)
    if which == "tangent":
        return np.asarray(coordinates.flatten(value), np.float64)[:, None]
    return np.asarray(coordinates.flatten_cotangent(value), np.float64)[None, :]


def _identity(node: Node) -> Floats | None:
    size = Coordinates.of(node.primal).size
    return np.eye(size) if size * size <= ENTRIES else None


def _nothing(start: Node, stop: Node) -> Floats | None:
    m, n = Coordinates.of(stop.primal).size, Coordinates.of(start.primal).size
    return np.zeros((m, n)) if m * n <= ENTRIES else None


def _rest(value: Floats, along: Floats) -> Floats:
    """What of a cotangent did not come along arrows: rounding aside, what was given from outside."""
    rest = value - along
    return np.where(np.abs(rest) > ROUNDING * np.abs(value).max(initial=0.0), rest, 0.0)


def total_of(parts: Sequence[Floats | None]) -> Floats | None:
    """Of at least one; ``None`` where one is not known."""
    known = [part for part in parts if part is not None]
    return None if len(known) < len(parts) or not known else sum(known[1:], known[0])


def times(left: Floats | None, right: Floats | None) -> Floats | None:
    """Of two matrices; ``None`` where one is not known."""
    if left is None or right is None:
        return None
    with np.errstate(all="ignore"):  # what is not finite is meant to be seen
        return left @ right
