"""Chapter 7, gradient descent: walking down a surface of two weights, then of a network's."""

from __future__ import annotations

from typing import Any

import jax

from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Amount, Chapter
from jaxchain.lesson.training import trained
from jaxchain.show.plain import plain

__all__ = ["walking_downhill"]

LEVELS = "0.02, 0.1, 0.5, 1.5, 4.0, 9.0, 18.0"
"""How far above the lowest loss the contour lines are."""


def walking_downhill() -> Chapter:
    """A line through five points by four walks; then a network that learns to read, in snapshots."""
    book = Workbook()
    first = book.run(
        "step",
        """
xs = jnp.array([0.5, 1.0, 1.5, 2.0, 2.5])
ys = jnp.array([0.1, 0.8, 2.1, 3.0, 3.9])
loss = lambda w: jnp.mean((w[0] * xs + w[1] - ys) ** 2)
w = jnp.array([-1.0, 2.5])
slope = jax.grad(loss)(w)
w, slope, w - 0.1 * slope, loss(w), loss(w - 0.1 * slope)
""",
    )
    walks = book.run(
        "walks",
        """
def walk(optimizer):
    watch = lambda step: (step.params, step.loss)
    fit = jc.train.fit(lambda w, _: loss(w), w, jnp.zeros(1),
        optimizer, steps=61, observe=watch, progress=False)
    return fit.history.observed

{"plain": walk(optax.sgd(0.1)),
 "too fast": walk(optax.sgd(0.285)),
 "momentum": walk(optax.sgd(0.05, momentum=0.8)),
 "Adam": walk(optax.adam(0.3))}
""",
    )
    best, contours = book.run(
        "surface",
        f"""
table = jnp.stack([xs, jnp.ones(5)], 1)
best = jnp.linalg.lstsq(table, ys)[0]
turn = jnp.linspace(0, 2 * jnp.pi, 121)
rays = jnp.stack([jnp.cos(turn), jnp.sin(turn)], 1)
rise = jax.vmap(loss)(best + rays) - loss(best)
levels = jnp.array([{LEVELS}])
far = jnp.sqrt(levels[:, None] / rise)[..., None]
best, best + rays * far
""",
    )
    answer, uphill = book.run(
        "check",
        """
slope = jax.grad(lambda w: (w + 1) ** 2)(2.0)
2.0 - 0.1 * slope, 2.0 + 0.1 * slope
""",
    )
    reading, values, missing = _reading()
    values = {
        "first": first, "walks": walks, "best": best, "contours": contours, "answer": answer, "reading": values,
    }  # fmt: skip
    asks = "All the slopes are known. What does one do with them?"
    cells = book.cells | reading.cells
    return Chapter("descent", "Gradient descent", asks, _check(answer, uphill), plain(values), cells, missing)


def _reading() -> tuple[Workbook, dict[str, Any] | None, str]:
    """The same walk in the weights and biases of a network that reads digits, looked at every ten steps."""
    try:
        book = trained()
    except ImportError as error:
        return Workbook(), None, str(error)
    right, chances = book.run(
        "snapshots",
        """
images, labels = digits.test
def look(params):
    scores = jax.vmap(net, (None, 0))(params, images)
    right = (scores.argmax(1) == labels).mean()
    return right, jax.nn.softmax(scores[0])

right, chances = jax.vmap(look)(fit.history.observed)
right, chances
""",
    )
    names = book.names
    values = {
        "every": 10, "count": sum(leaf.size for leaf in jax.tree.leaves(names["start"])),
        "right": right, "chances": chances, "losses": names["fit"].history.loss,
        "image": names["images"][0], "label": names["labels"][0], "unseen": len(names["labels"]),
    }  # fmt: skip
    return book, values, ""


def _check(answer: float, uphill: float) -> Amount:
    return Amount(
        "A weight is w = 2, and the loss is (w + 1)², whose slope there is 6. The learning rate is 0.1. What is w after one step of gradient descent?",
        float(answer),
        f"The step is −0.1 · 6 = −0.6, against the slope, so w = {number(answer)}. The loss falls from 9 to {number((answer + 1) ** 2)}.",
        "The step is the learning rate times the slope. Which way does it go, if the loss rises with w?",
        (
            (float(uphill), "That is a step uphill. The slope is positive: the loss grows with w, so w must shrink."),
            (-4.0, "That is a step of the whole slope, 6. The learning rate makes it a tenth of that."),
            (0.6, "That is how far the step goes. From w = 2 it goes down by as much."),
            (-0.6, "That is the step. It is added to w = 2."),
            (-1.0, "That is where the loss is lowest. One step does not get there: it goes 0.1 · 6 = 0.6 of the way of 3."),
        ),
    )  # fmt: skip
