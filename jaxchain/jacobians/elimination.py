"""Vertex elimination alone: the derivatives of single numbers by each other, as a graph. Integers, no JAX.

An edge u → v holds ∂v/∂u. To eliminate a vertex is to add, to the edge from each predecessor to each successor, the
product of the two edges between them; when inputs and outputs alone are left, the edges are the Jacobian's entries.
The order decides how many multiplications that takes; the best is hard to find, and greedy rules come near it.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 9 and 10; Naumann, Mathematical Programming 99,
2004; Lohoff and Neftci, arXiv 2406.05027.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["ONE", "Edge", "Elimination", "eliminate"]

ONE = 1
"""The value 1. Values are numbered from it on; a negative number is minus that value, and nothing is multiplied by ±1."""

EFFORT = 40_000
"""How many pairs of edges may be met in search of a better order: a fraction of a second, the same on every machine."""


class Edge(NamedTuple):
    """∂head/∂tail: the number of a value, or minus it."""

    tail: int
    head: int
    value: int


class Product(NamedTuple):
    """Of two values, by their numbers."""

    left: int
    right: int

    def of(self, value: Callable[[int], Any]) -> Any:
        """The product, given what each number stands for."""
        return value(self.left) * value(self.right)


class Sum(NamedTuple):
    """Of the values ``plus`` without those of ``minus``, by their numbers."""

    plus: tuple[int, ...]
    minus: tuple[int, ...]

    @property
    def additions(self) -> int:
        """How many it takes."""
        return len(self.plus) + len(self.minus) - 1

    def of(self, value: Callable[[int], Any]) -> Any:
        """The sum, given what each number stands for."""
        total = None
        for number in self.plus:
            total = value(number) if total is None else total + value(number)
        for number in self.minus:
            total = -value(number) if total is None else total - value(number)
        return total


@dataclass(frozen=True)
class Elimination:
    """What is left of a graph, and the straight-line program that computes it.

    Attributes
    ----------
    entries
        Edges from inputs to outputs, one a pair.
    made
        The numbers of the values that are made, in order, and of what.
    """

    entries: tuple[Edge, ...]
    made: dict[int, Product | Sum]

    @property
    def multiplications(self) -> int:
        """How many numbers are multiplied."""
        return sum(isinstance(one, Product) for one in self.made.values())

    @property
    def additions(self) -> int:
        """How many numbers are added."""
        return sum(one.additions for one in self.made.values() if isinstance(one, Sum))


class _Graph:
    """A graph in the course of its elimination. Terms of an edge are added when it is first a factor."""

    def __init__(self, edges: Iterable[Edge], values: int) -> None:
        self.after: dict[int, dict[int, list[int]]] = {}
        self.before: dict[int, set[int]] = {}
        self.values, self.made, self.met = values, dict[int, Product | Sum](), 0
        self.work: tuple[int, int] = 0, 0  # operations, and multiplications among them
        for tail, head, value in edges:
            self._add(tail, head, value)

    def _add(self, tail: int, head: int, value: int) -> None:
        self.after.setdefault(tail, {}).setdefault(head, []).append(value)
        self.before.setdefault(head, set()).add(tail)

    def _new(self, made: Product | Sum) -> int:
        self.values += 1
        self.made[self.values] = made
        total, multiplied = self.work
        self.work = (total + made.additions, multiplied) if isinstance(made, Sum) else (total + 1, multiplied + 1)
        return self.values

    def value(self, tail: int, head: int) -> int:
        """The value of an edge, its terms added."""
        terms = self.after[tail][head]
        if len(terms) > 1:
            plus, minus = (tuple(sign * term for term in terms if term * sign > 0) for sign in (1, -1))
            self.after[tail][head] = terms = [self._new(Sum(plus, minus))]
        return terms[0]

    def price(self, vertex: int) -> tuple[int, int]:
        """Multiplications that its elimination takes, and edges that it meets."""
        before, after = self.before.get(vertex, ()), self.after.get(vertex, {})
        into = sum(_is_factor(self.after[tail][vertex]) for tail in before)
        return into * sum(map(_is_factor, after.values())), len(before) * len(after)

    def eliminate(self, vertex: int) -> set[int]:
        """Take a vertex out; returns its neighbours."""
        before, after = self.before.pop(vertex, set()), self.after.get(vertex, {})
        heads = [(head, self.value(vertex, head)) for head in list(after)]
        for tail in sorted(before):
            left = self.value(tail, vertex)
            del self.after[tail][vertex]
            for head, right in heads:
                self._add(tail, head, self._product(left, right))
        for head, _ in heads:
            self.before[head].discard(vertex)
        self.after.pop(vertex, None)
        self.met += len(before) * len(heads)
        return before.union(head for head, _ in heads)

    def left(self) -> Elimination:
        """What is left."""
        pairs = [(tail, head) for tail, heads in self.after.items() for head in heads]
        return Elimination(tuple(Edge(tail, head, self.value(tail, head)) for tail, head in pairs), self.made)

    def _product(self, left: int, right: int) -> int:
        if abs(left) == ONE or abs(right) == ONE:
            return left * right  # one of them is ±1
        value = self._new(Product(abs(left), abs(right)))
        return value if (left < 0) == (right < 0) else -value


def _is_factor(terms: list[int]) -> bool:
    return len(terms) > 1 or abs(terms[0]) != ONE


def eliminate(edges: Sequence[Edge], inner: Sequence[int], values: int, most: float = math.inf) -> Elimination:
    """Eliminate all inner vertices, in the cheapest order that is found soon.

    Parameters
    ----------
    edges
        Of a graph without cycles.
    inner
        What is neither an input nor an output, in order of evaluation.
    values
        The greatest number of a value.
    most
        Where far more values are made than this, no better order is looked for.
    """
    best, order, effort = None, list(inner), 0
    for rule in RULES:
        found, taken = _greedily(edges, inner, values, rule)
        effort += found.met
        if best is None or found.work < best.work:
            best, order = found, taken
    assert best is not None
    shuffled = random.Random(0)
    while len(order) > 2 and effort < EFFORT and len(best.made) < 2 * most:
        moved = list(order)
        moved.insert(shuffled.randrange(len(order)), moved.pop(shuffled.randrange(len(order))))
        found = _in_order(edges, moved, values, best.work)
        effort += found.met + len(edges)
        if found.work <= best.work:
            best, order = found, moved
    return best.left()


Rule = Callable[[int, int, int], tuple[int, ...]]

RULES: tuple[Rule, ...] = (
    lambda factors, edges, number: (factors, edges, -number),
    lambda factors, edges, number: (edges, factors, -number),  # Markowitz'
    lambda factors, edges, number: (factors, edges, number),
    lambda _factors, _edges, number: (-number,),  # reverse mode
    lambda _factors, _edges, number: (number,),  # forward mode
)
"""What is eliminated next: the least, of multiplications, pairs of edges, and the place in order of evaluation."""


def _greedily(edges: Sequence[Edge], inner: Sequence[int], values: int, rule: Rule) -> tuple[_Graph, list[int]]:
    graph, number = _Graph(edges, values), {vertex: k for k, vertex in enumerate(inner)}
    keys = {vertex: rule(*graph.price(vertex), number[vertex]) for vertex in inner}
    order: list[int] = []
    while keys:
        vertex = min(keys, key=keys.__getitem__)
        del keys[vertex]
        order.append(vertex)
        for near in graph.eliminate(vertex):
            if near in keys:
                keys[near] = rule(*graph.price(near), number[near])
    graph.left()
    return graph, order


def _in_order(edges: Sequence[Edge], order: Sequence[int], values: int, best: tuple[int, int]) -> _Graph:
    """The graph with its vertices eliminated; it is left as it is once that takes more than the best."""
    graph = _Graph(edges, values)
    for vertex in order:
        graph.eliminate(vertex)
        if graph.work > best:
            return graph
    graph.left()
    return graph
