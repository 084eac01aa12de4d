"""The evaluation traces of the textbooks, beside the formulae that one writes out by hand.

Question   Does the trace of a program say, line by line, what a textbook's derivation says?
Command    python experiments/textbook_traces.py
Expect     Four programs of which every derivative is known in closed form: the example of Baydin et
           al. (arXiv 1502.05767, tables 2 and 3), Rosenbrock's function, two layers of a network,
           and softmax with cross-entropy. Primals, tangents and cotangents agree to rounding. A
           node's cotangent times its tangent, summed over any cut through the graph, is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.show.values import scalar

ByHand = dict[str, tuple[Any, Any, Any]]
"""A row of the trace → its primal, tangent and cotangent, from formulae written out."""

Example = tuple[jc.Trace, ByHand]

WHICH = ("primal", "tangent", "cotangent")

X1, X2 = 2.0, 5.0


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS) -> None:
    """Compare traces with derivations by hand, and draw Baydin's graph.

    Parameters
    ----------
    seed
        Of the network's weights, the logits and the directions.
    quick
        As other experiments have it; there is nothing to shorten.
    out
        Folder for the figure and the numbers.
    """
    gaps: dict[str, float] = {}
    traces: dict[str, jc.Trace] = {}
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        for example in (baydin, rosenbrock, two_layers, softmax_cross_entropy):
            found, by_hand = example(rng)
            heading(str(example.__doc__).splitlines()[0])
            print(found)
            traces[example.__name__], gaps[example.__name__] = found, gap(found, by_hand)
            print(f"Largest difference from the formulae by hand: {gaps[example.__name__]:.1e}")
        graph = jc.graph(baydins_function, X1, X2, tangent=(1.0, 0.0))
    paths = graph.paths("x1", "y")
    print(paths)
    example, edges = traces["baydin"], edge_gap(graph)
    drawn = jc.plot.graph(graph, paths=paths)
    cuts = [through(example, cut) for cut in (("v-1", "v0"), ("v1", "v2", "v3"), ("v4", "v3"), ("v5",))]
    findings = [
        f"Every primal, tangent and cotangent agrees with the formula by hand; the largest relative difference is {max(gaps.values()):.1e}.",
        f"Baydin's function has the derivative {scalar(example['y'].tangent)} along x1, and the gradient ({scalar(example['v-1'].cotangent)}, {scalar(example['v0'].cotangent)}).",
        f"Cotangent times tangent, summed over a cut, is {' = '.join(map(scalar, cuts))}.",
        f"Every tangent is the sum over the arrows that come in, every cotangent over those that go out, to {edges:.1e}.",
        f"Along x1 there are {paths.number} paths, and the derivative is their sum: {paths.text}.",
    ]
    rows = {
        name: [{"formula": row.formula} | {w: getattr(row, w) for w in WHICH} for row in found.rows]
        for name, found in traces.items()
    }  # fmt: skip
    numbers = {"seed": seed, "quick": quick, "gaps": gaps, "edge_gap": edges, "cuts": cuts, "traces": rows}
    conclude(out / "textbook_traces.json", numbers, findings, [jc.plot.save(drawn, out / "textbook_traces.png")])


def gap(found: jc.Trace, by_hand: ByHand) -> float:
    """The largest difference from what was derived by hand, relative to the largest entry of that array."""
    pairs = [
        (getattr(found[name], w), want) for name, row in by_hand.items() for w, want in zip(WHICH, row, strict=True)
    ]
    return max(float(np.abs(got - want).max() / (np.abs(want).max() or 1.0)) for got, want in pairs)


def edge_gap(graph: jc.Graph) -> float:
    """How far the nodes of a graph of scalars are from the sums over their arrows."""
    gaps: list[float] = []
    for node in graph.rows:
        into = [float(graph[a.start].tangent) * a.partial.item() for a in graph.arrows if a.stop == node.name]
        out = [float(graph[a.stop].cotangent) * a.partial.item() for a in graph.arrows if a.start == node.name]
        gaps += [abs(sum(into) - float(node.tangent))] if into else []
        gaps += [abs(sum(out) - float(node.cotangent))] if out else []
    return max(gaps)


def through(found: jc.Trace, cut: tuple[str, ...]) -> float:
    """Σ c·ṫ over the values that cross a cut."""
    return sum(float(found[name].cotangent) * float(found[name].tangent) for name in cut)


def baydins_function(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """The survey's example, in its order of evaluation."""
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    return v1 + v2 - v3


def baydin(_: np.random.Generator) -> Example:
    """Baydin et al., tables 2 and 3: y = ln x1 + x1 x2 − sin x2 at (2, 5), moved along x1."""
    a, b = X1, X2
    by_hand: ByHand = {
        "v1": (np.log(a), 1 / a, 1.0),
        "v2": (a * b, b, 1.0),
        "v3": (np.sin(b), 0.0, -1.0),
        "v4": (np.log(a) + a * b, 1 / a + b, 1.0),
        "y": (np.log(a) + a * b - np.sin(b), 1 / a + b, 1.0),
        "v-1": (a, 1.0, 1 / a + b),
        "v0": (b, 0.0, a - np.cos(b)),
    }
    return jc.trace(baydins_function, a, b, tangent=(1.0, 0.0)), by_hand


def rosenbrock(_: np.random.Generator) -> Example:
    """Rosenbrock's function, y = (1 − a)² + 100 (b − a²)², at his start (−1.2, 1), moved along both."""
    a, b = -1.2, 1.0
    found = jc.trace(lambda a, b: (1 - a) ** 2 + 100 * (b - a**2) ** 2, a, b, tangent=(1.0, 1.0))
    by_a, by_b = -2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)
    by_hand: ByHand = {
        "v-1": (a, 1.0, by_a),
        "v0": (b, 1.0, by_b),
        "v3": (a**2, 2 * a, -by_b),
        "v4": (b - a**2, 1 - 2 * a, by_b),
        "y": ((1 - a) ** 2 + 100 * (b - a**2) ** 2, by_a + by_b, 1.0),
    }
    return found, by_hand


def two_layers(rng: np.random.Generator) -> Example:
    """Two layers, y = ½‖V tanh(Wx)‖², moved along x.

    With e = V tanh(Wx): V̄ = e tanh(Wx)ᵀ and W̄ = (Vᵀe ∘ tanh′(Wx)) xᵀ.
    """
    w, v, x, direction = (rng.normal(size=shape) for shape in ((4, 3), (2, 4), 3, 3))

    def function(w: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
        e = v @ jnp.tanh(w @ x)
        return 0.5 * (e @ e)

    found = jc.trace(function, w, v, x, tangent=(np.zeros_like(w), np.zeros_like(v), direction))
    h, slope = np.tanh(w @ x), 1 - np.tanh(w @ x) ** 2
    e, h_dot = v @ h, slope * (w @ direction)
    delta = (v.T @ e) * slope
    by_hand: ByHand = {
        "v-2": (w, 0 * w, np.outer(delta, x)),
        "v-1": (v, 0 * v, np.outer(e, h)),
        "v0": (x, direction, w.T @ delta),
        "v1": (w @ x, w @ direction, delta),
        "v2": (h, h_dot, v.T @ e),
        "v3": (e, v @ h_dot, e),
        "y": (e @ e / 2, e @ v @ h_dot, 1.0),
    }
    return found, by_hand


def softmax_cross_entropy(rng: np.random.Generator) -> Example:
    """Softmax with cross-entropy, y = −log softmax(z)_k: the gradient is softmax(z) − e_k."""
    z, direction, label = rng.normal(size=5), rng.normal(size=5), 2
    found = jc.trace(lambda z: -jax.nn.log_softmax(z)[label], z, tangent=direction)
    p = np.exp(z) / np.exp(z).sum()
    gradient = p - np.eye(5)[label]
    by_hand: ByHand = {
        "v0": (z, direction, gradient),
        "y": (-np.log(p[label]), gradient @ direction, 1.0),
        found.tree[1].name: (np.log(p), direction - p @ direction, -np.eye(5)[label]),
    }
    return found, by_hand


if __name__ == "__main__":
    tyro.cli(main)
