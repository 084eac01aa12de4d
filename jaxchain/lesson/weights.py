"""Chapter 4, weights and biases: the gradient of W is the cotangent of the output times the input."""

from __future__ import annotations

from jaxchain.lesson.cell import Workbook
from jaxchain.lesson.chapter import Chapter, Choice, Option
from jaxchain.show.plain import plain

__all__ = ["weights_take_part"]


def weights_take_part() -> Chapter:
    """A layer of three inputs and two outputs with a squared error, by hand and by JAX."""
    book = Workbook()
    output, loss = book.run(
        "layer",
        """
W = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
b = jnp.array([0.5, -0.5])
x, wanted = jnp.array([2.0, 1.0, 4.0]), jnp.array([1.0, 0.5])
y = W @ x + b
y, jnp.sum((y - wanted) ** 2) / 2
""",
    )
    y_bar, w_bar, b_bar, x_bar = book.run("hand", "y_bar = y - wanted\ny_bar, jnp.outer(y_bar, x), y_bar, W.T @ y_bar")
    grads = book.run(
        "jax",
        """
def loss(W, b, x):
    return jnp.sum((W @ x + b - wanted) ** 2) / 2

jax.grad(loss, (0, 1, 2))(W, b, x)
""",
    )
    sweep = book.run(
        "sweep",
        """
layer = lambda p, x: p["W"] @ x + p["b"]
point = {"W": W, "b": b}, x
sweep = jc.reverse_sweep(layer, point, y_bar)
sweep.arg_cotangents[0]
""",
    )
    names = book.names
    values = {
        "W": names["W"], "b": names["b"], "x": names["x"], "wanted": names["wanted"], "y": output, "loss": loss,
        "y_bar": y_bar, "W_bar": w_bar, "b_bar": b_bar, "x_bar": x_bar, "grads": grads, "sweep": sweep,
    }  # fmt: skip
    asks = "A network has numbers of its own, which it learns. How does the chain rule reach them?"
    return Chapter("weights", "Weights and biases", asks, _check(), plain(values), book.cells)


def _check() -> Choice:
    return Choice(
        "A layer takes 5 numbers and gives 3. The cotangent of its output has 3 numbers. What shape has the gradient of its W?",
        (
            Option(
                "3 × 5, like W",
                "Each weight has one slope, so the gradient has the shape of W. Row i, column j holds cotangent i times input j.",
                right=True,
            ),
            Option(
                "5 × 3",
                "The right numbers, but turned: W has a row for each output and a column for each input, and so has its gradient.",
            ),
            Option(
                "3, like the cotangent",
                "That is the gradient of b. Each of the 15 weights has a slope of its own, because each meets another input or output.",
            ),
            Option(
                "3 × 15: a row for each output, a column for each weight",
                "That is the Jacobian of the output with respect to the weights. It is never needed: the cotangent has already been multiplied in.",
            ),
        ),
    )
