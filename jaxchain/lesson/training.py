"""The network that learns to read digits: trained once, looked at in two chapters."""

from __future__ import annotations

from functools import cache

from jaxchain.lesson.cell import Workbook

__all__ = ["trained"]

TRAIN = """
from jaxchain.digits import cross_entropy, load_digits

digits = load_digits(0)
net = jc.nets.mlp([64, 32, 16, 10])
loss, start = cross_entropy(net), net.init(jax.random.key(0))
fit = jc.train.fit(
    loss, start, digits.train, optax.sgd(0.4), steps=300,
    batch_size=64, key=jax.random.key(1), progress=False,
    observe=lambda step: step.params, observe_every=10)
fit.history.loss[[0, -1]]
"""


def trained() -> Workbook:
    """A workbook of its own for each who asks, with the training already in it.

    Raises
    ------
    ImportError
        If scikit-learn, which brings the digits, is not installed; says how to install it.
    """
    book = _once()
    return Workbook(dict(book.cells), dict(book.names))


@cache
def _once() -> Workbook:
    book = Workbook()
    book.run("train", TRAIN)
    return book
