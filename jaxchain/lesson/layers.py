"""Chapter 5, hidden layers: a network that reads digits, and its cotangent travelling back to the picture."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxchain.lesson.chapter import Amount, Chapter
from jaxchain.lesson.training import trained
from jaxchain.show.plain import plain

__all__ = ["through_hidden_layers"]


def through_hidden_layers() -> Chapter:
    """A trained network 64-32-16-10; at a misread one and three others, every state and every cotangent."""
    title, asks = "Hidden layers", "How does the blame for a wrong answer find its way back to the first layer?"
    try:
        book = trained()
    except ImportError as error:
        return Chapter("layers", title, asks, missing=str(error))
    read = book.run(
        "read",
        """
images, labels = digits.test
scores = jax.vmap(net, (None, 0))(fit.params, images)
(scores.argmax(1) == labels).mean()
""",
    )
    misread, takes_for = book.run(
        "misread",
        "misread = jnp.flatnonzero(scores.argmax(1) != labels)\nlabels[misread], scores.argmax(1)[misread]",
    )
    norms = book.run(
        "back",
        """
def back(k):
    chances = jax.nn.softmax(scores[k])
    off = chances - jax.nn.one_hot(labels[k], 10)
    point = fit.params, images[k]
    return chances, jc.reverse_sweep(net, point, off)

chances, sweep = back(misread[0])
norms = [jnp.linalg.norm(c) for c in sweep.cotangents]
dict(zip(sweep.names, norms))
""",
    )
    gap = book.run(
        "gradients",
        """
around = zip(net.names, sweep.primals, sweep.cotangents[1:])
by_hand = {name: jnp.outer(after, before)
           for name, before, after in around
           if name in fit.params}
one = images[misread[:1]], labels[misread[:1]]
by_jax = jax.grad(loss)(fit.params, one)
max(jnp.abs(by_hand[k] - by_jax[k]["w"]).max()
    for k in by_hand)
""",
    )
    names = book.names
    right = [int(jnp.flatnonzero((names["labels"] == digit) & (names["scores"].argmax(1) == digit))[0]) for digit in (3, 7, 0)]  # fmt: skip
    shown = [_looked_at(names, k) for k in (int(names["misread"][0]), *right)]
    values = {
        "accuracy": read,
        "steps": len(names["fit"].history.loss), "unseen": len(names["labels"]), "misread": misread, "takes_for": takes_for,
        "norms": norms, "gap": gap, "names": ["picture", *names["net"].names], "digits": shown,
    }  # fmt: skip
    return Chapter("layers", title, asks, _check(), plain(values), book.cells)


def _looked_at(names: dict[str, Any], k: int) -> dict[str, Any]:
    """One unseen digit: what every stage makes of it, and how the loss would move with each number there."""
    chances, sweep = names["back"](k)
    label = int(names["labels"][k])
    return {
        "label": label,
        "read": int(chances.argmax()),
        "chances": chances,
        "loss": -jnp.log(chances[label]),
        "states": sweep.primals,
        "cotangents": sweep.cotangents,
        "norms": [jnp.linalg.norm(c) for c in sweep.cotangents],
    }


def _check() -> Amount:
    return Amount(
        "The layer dense_1 takes 32 numbers and gives 16. On the way back it receives a cotangent of 16 numbers. How many numbers does it hand on to the stage before it?",
        32,
        "A cotangent has one number for each number of the state that it belongs to. Before dense_1 there are 32, so 32 slopes go on: each the sum over the 16 outputs, weight times cotangent.",
        "Ask what the numbers that go on are: how the loss moves with each number that dense_1 was given.",
        (
            (16, "That is what it receives. It hands on a slope for each of its inputs, and there are 32."),
            (512, "That is the number of its weights, 16 · 32. Their gradient stays with the layer. What goes on is a slope for each of its inputs."),
            (10, "That is how many scores there are. The cotangent begins there with 10 numbers, and then has as many as each state has."),
            (1, "The loss is one number, but it is asked how it moves with each of the inputs of dense_1."),
        ),
        within=1e-3,
    )  # fmt: skip
