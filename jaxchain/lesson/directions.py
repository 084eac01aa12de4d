"""Chapter 3, forward and reverse: the same sum from either end, and why one sweep back serves a million inputs."""

from __future__ import annotations

from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Chapter, Choice, Option
from jaxchain.lesson.small_graph import FUNCTION, drawn, steps
from jaxchain.show.plain import plain

__all__ = ["two_directions"]


def two_directions() -> Chapter:
    """Both sweeps over the small graph, then what they cost for a network with a million numbers."""
    book = Workbook()
    book.run(
        "tangents",
        f"""{FUNCTION}
graph = jc.graph(f, 2.0, 5.0, tangent=(1.0, 0.0))
forth = graph.accumulate("forward")
{{step.node: step.text for step in forth}}
""",
    )
    book.run("other", 'other = jc.graph(f, 2.0, 5.0, tangent=(0.0, 1.0))\nother["y"].tangent')
    book.run("cotangents", 'back = graph.accumulate("reverse")\n{step.node: step.text for step in back}')
    pushed, pulled = book.run(
        "jax",
        "y, speed = jax.jvp(f, (2.0, 5.0), (1.0, 0.0))\ny, pull = jax.vjp(f, 2.0, 5.0)\nspeed, pull(1.0)",
    )
    million, operations = book.run(
        "million",
        """
net = jc.nets.mlp([784, 1000, 200, 10])
params = jax.eval_shape(net.init, jax.random.key(0))
image = jnp.ones(784)
h = lambda params: jnp.sum(net(params, image) ** 2)
programs = jc.transforms(h, params)
inputs = sum(p.size for p in jax.tree.leaves(params))
inputs, {k: programs[k].flops for k in ("fun", "jvp", "vjp")}
""",
    )
    graph, other = book.names["graph"], book.names["other"]
    walks = [steps(graph, "forward"), steps(other, "forward"), steps(graph, "reverse")]
    values = {
        "graph": drawn(graph), "steps": walks, "pushed": pushed, "pulled": pulled, "million": million,
        "operations": operations, "all_forward": million * operations["jvp"],
        "ratio": million * operations["jvp"] / operations["vjp"],
    }  # fmt: skip
    asks = "The sums over all paths: in which order should a computer make them?"
    return Chapter("directions", "Forward and reverse", asks, _check(), plain(values), book.cells)


def _check() -> Choice:
    inputs, outputs = 784, 10
    return Choice(
        f"A function reads the {inputs} pixels of a picture and gives {outputs} scores. You want its whole Jacobian, {outputs} rows by {inputs} columns. What takes the fewest sweeps?",
        (
            Option(
                f"{inputs} forward sweeps, one for each pixel",
                f"They would do: each gives one column. But reverse sweeps give whole rows, and there are only {outputs} of them.",
            ),
            Option(
                f"{outputs} reverse sweeps, one for each score",
                f"Each gives one row: how one score depends on all {inputs} pixels. Forward would take {inputs} sweeps, {number(inputs / outputs)} times as many.",
                right=True,
            ),
            Option(
                "1 reverse sweep",
                f"One sweep back begins at one output. It would do if there were one score only; for {outputs} it takes {outputs}.",
            ),
            Option(
                f"{inputs * outputs:,} sweeps, one for each entry of the table",
                "A sweep gives more than one entry: forward a whole column, reverse a whole row.",
            ),
        ),
    )
