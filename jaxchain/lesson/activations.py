"""Chapter 6, activations: why networks bend, and what twenty bends do to a cotangent."""

from __future__ import annotations

from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Chapter, Choice, Option
from jaxchain.show.plain import plain

__all__ = ["activations_decide"]


def activations_decide() -> Chapter:
    """Two layers without a bend; three activations and their slopes; cotangents through twenty layers."""
    book = Workbook()
    flat = book.run(
        "flat",
        """
first, second = jax.random.normal(jax.random.key(0), (2, 3, 3))
x = jnp.array([1.0, -2.0, 0.5])
second @ (first @ x), (second @ first) @ x
""",
    )
    curves = book.run(
        "curves",
        """
h = jnp.arange(-60, 61) / 20
bends = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh,
         "ReLU": jax.nn.relu}
slopes = {name: jax.vmap(jax.grad(f))(h)
          for name, f in bends.items()}
{name: (f(h), slopes[name]) for name, f in bends.items()}
""",
    )
    steepest = book.run("steepest", "{name: slope.max() for name, slope in slopes.items()}")
    twenty = book.run(
        "twenty",
        """
def norms(bend, init, **scale):
    net = jc.nets.mlp([128] * 21 + [1], bend, init, **scale)[:-1]
    params = net.init(jax.random.key(2))
    x, c = jax.random.normal(jax.random.key(3), (2, 128))
    c = c / jnp.linalg.norm(c)
    sweep = jc.reverse_sweep(net, (params, x), c)
    every_layer = sweep.cotangents[::-2]
    return jnp.stack([jnp.linalg.norm(c) for c in every_layer])

{"sigmoid": norms("sigmoid", "lecun"),
 "tanh": norms("tanh", "lecun"),
 "ReLU": norms("relu", "he"),
 "ReLU, larger weights": norms("relu", "he", sigma_w=2.0)}
""",
    )
    (most,) = book.run("check", "0.25 ** 20,")
    values = {
        "flat": flat, "h": book.names["h"], "curves": curves, "steepest": steepest, "twenty": twenty, "most": most,
        "ends": {name: norms[-1] for name, norms in twenty.items()},
    }  # fmt: skip
    asks = "Why is there a bend after every layer, and why is it so often ReLU?"
    return Chapter("activations", "Activations", asks, _check(most), plain(values), book.cells)


def _check(most: float) -> Choice:
    return Choice(
        "The slope of a sigmoid is 0.25 at most. Leave the weights aside: by what factor can twenty sigmoids in a row multiply a cotangent, at most?",
        (
            Option(
                "0.25 · 20 = 5",
                "Twenty slopes along one path are multiplied, not added. And no product of numbers below 1 is above 1.",
            ),
            Option(
                "0.25, because that is the largest slope",
                "That is one sigmoid. The next multiplies what is left by 0.25 again, and so do the eighteen after it.",
            ),
            Option(
                f"0.25²⁰, about {number(most, 2)}",
                f"0.25 is multiplied by itself twenty times: {number(most, 3)}. Weights would have to be four times as large to make up for it, and even then only where every sigmoid is at its steepest.",
                right=True,
            ),
            Option("0.25 / 20 = 0.0125", "The number of layers does not divide: each layer multiplies, by 0.25 again."),
        ),
    )
