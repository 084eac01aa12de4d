"""Handwritten digits, and the small training on them that the command's demo and the experiments share.

The pictures come with scikit-learn, so nothing is downloaded. Builds on `train` and optax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxchain.chain import Chain
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.train import Fit, StepInfo, fit

__all__ = ["Batch", "Digits", "accuracy", "adam", "cross_entropy", "fit_digits", "load_digits"]

Batch = tuple[jax.Array, jax.Array]
"""Images and their labels."""


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8×8 pixels between 0 and 1 as (N, 64), with labels 0 … 9."""

    train: Batch
    test: Batch


def load_digits(seed: int) -> Digits:
    """scikit-learn's 1797 digits, every class split alike: a fifth is held out for testing.

    Raises
    ------
    ImportError
        If scikit-learn is not installed; says how to install it.
    """
    try:
        from sklearn.datasets import load_digits as bundled_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        msg = f'The digits come with scikit-learn, which cannot be imported ({error}): pip install "jaxchain[experiments]".'
        raise ImportError(msg) from error
    bunch: Any = bundled_digits()
    parts = train_test_split(bunch.data / 16, bunch.target, test_size=0.2, random_state=seed, stratify=bunch.target)
    x_train, x_test, y_train, y_test = map(jnp.asarray, parts)
    return Digits((x_train.astype(jnp.float32), y_train), (x_test.astype(jnp.float32), y_test))


def cross_entropy(net: Chain) -> Callable[[Any, Batch], jax.Array]:
    """``loss(params, (images, labels))``: mean cross-entropy of a network for one image."""

    def loss(params: Any, batch: Batch) -> jax.Array:
        images, labels = batch
        logits = jax.vmap(net, (None, 0))(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def accuracy(net: Chain, params: Any, batch: Batch) -> float:
    """Share of images whose largest logit is that of their label."""
    images, labels = batch
    return float((jax.vmap(net, (None, 0))(params, images).argmax(-1) == labels).mean())


def adam(steps: int) -> optax.GradientTransformation:
    """Adam with a little weight decay, its rate falling from 3e-3 to zero along a cosine."""
    return optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-2)


def fit_digits(
    net: Chain,
    params: Any,
    digits: Digits,
    *,
    steps: int,
    seed: int,
    observe: Callable[[StepInfo], Any] | FlowObserver | None = None,
    progress: bool = True,
) -> Fit:
    """Fit a classifier with `adam`, 64 images a step; ``observe`` and ``progress`` as in `jaxchain.train.fit`."""
    return fit(
        cross_entropy(net),
        params,
        digits.train,
        adam(steps),
        steps=steps,
        batch_size=64,
        key=jax.random.key(seed),
        observe=observe,
        progress=progress,
    )
