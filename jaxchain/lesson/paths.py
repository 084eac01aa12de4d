"""Chapter 2, sums over paths: where there are several ways from an input to an output, their products add."""

from __future__ import annotations

from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Amount, Chapter
from jaxchain.lesson.small_graph import FUNCTION, drawn, ways
from jaxchain.show.plain import plain

__all__ = ["paths_add"]


def paths_add() -> Chapter:
    """Y = ln x1 + x1·x2 − sin x2 at (2, 5), as a graph; then two outputs, and two such functions in a row."""
    book = Workbook()
    book.run("function", f"{FUNCTION}\nf(2.0, 5.0)")
    book.run("values", "graph = jc.graph(f, 2.0, 5.0)\n{node.title: node.primal for node in graph.rows}")
    one = book.run("one", "times = lambda x1, x2: x1 * x2\njax.grad(times, 0)(2.0, 5.0), jax.grad(times, 1)(2.0, 5.0)")
    book.run("arrows", '{f"{a.start} → {a.stop}": a.partial.item() for a in graph.arrows}')
    book.run("listed", 'graph.paths("x1", "y")')
    both = book.run("both", "jax.grad(f, 0)(2.0, 5.0), jax.grad(f, 1)(2.0, 5.0)")
    table = book.run(
        "table",
        """
two = lambda x: jnp.stack([f(x[0], x[1]), x[0] * x[1]])
x = jnp.array([2.0, 5.0])
J = jc.jacobian(two)(x)
J
""",
    )
    outer, product, whole = book.run(
        "product",
        """
g = lambda v: jnp.stack([v[0] * v[1], v[0] - v[1]])
K = jc.jacobian(g)(two(x))
K, K @ J, jc.jacobian(lambda x: g(two(x)))(x)
""",
    )
    (answer,) = book.run("check", "jax.grad(f, (0,))(4.0, 3.0)")
    graph = book.names["graph"]
    values = {
        "graph": drawn(graph), "paths": {start: ways(graph, start) for start in ("x1", "x2")}, "both": both, "one": one,
        "table": table, "outer": outer, "product": product, "whole": whole, "answer": answer,
    }  # fmt: skip
    asks = "What if a change can reach the end in more than one way?"
    return Chapter("paths", "Paths add", asks, _check(answer, both[0]), plain(values), book.cells)


def _check(answer: float, elsewhere: float) -> Amount:
    return Amount(
        "Take the same function at x1 = 4, x2 = 3. What is ∂y/∂x1 there? (The slope of ln x1 is 1/x1.)",
        float(answer),
        f"Two paths leave x1. The one through v1 has the product 1 · 1 · 1/4 = 0.25, the one through v2 has 1 · 1 · x2 = 3. Their sum is {number(answer)}.",
        "Find the paths from x1 to y: one goes through v1, one through v2. Write a product for each, with the numbers of this point, and add.",
        (
            (0.75, "That is 0.25 · 3: the two paths multiplied. Along one path slopes multiply, but different paths add."),
            (3.0, "That is the path through v2. There is another one, through v1 = ln x1: add it."),
            (0.25, "That is the path through v1. There is another one, through v2 = x1·x2: add it."),
            (float(elsewhere), "That is the slope at (2, 5). The numbers on the arrows depend on where one is: take them anew at (4, 3)."),
            (4.25, "The arrow from x1 to v2 = x1·x2 carries x2, not x1: when x1 moves, the product moves x2 = 3 times as far."),
        ),
    )  # fmt: skip
