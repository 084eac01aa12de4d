"""What training leaves behind, as data: what is seen of a step, the history of all of them, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxchain.diagnosis import GradientFlow, Nonfinite
from jaxchain.show.shapes import describe
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count, scalar

__all__ = ["Fit", "History", "Params", "StepInfo", "lost_in_words"]

Params = Any
Batch = Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "batch", "loss", "grads", "updates"],
    meta_fields=[],
)
@dataclass(frozen=True)
class StepInfo(Shown):
    """What ``observe`` sees of a step, before its update is applied. A pytree.

    Attributes
    ----------
    step
        int32 scalar, from 0.
    params, batch
        What the loss was called with.
    loss
        The loss, a scalar.
    grads, updates
        Gradients, and what the optimiser makes of them; both like ``params``. Of a complex parameter
        w = a + ib the gradient is ∂loss/∂a + i ∂loss/∂b, which points uphill: JAX's, conjugated.

    Examples
    --------
    >>> data, loss = jnp.array([1.0, 3.0]), lambda mean, x: jnp.mean((mean - x) ** 2)
    >>> found = jc.train.fit(
    ...     loss, jnp.array(0.0), data, optax.sgd(0.1), steps=1, observe=lambda info: info.grads, progress=False
    ... )
    >>> found.history.observed.tolist()  # of the mean of (w - x)², at w = 0: -2 · 2
    [-4.0]
    """

    step: jax.Array
    params: Params
    batch: Batch
    loss: jax.Array
    grads: Params
    updates: Params

    def _brief(self) -> str:
        return f"step {_number(self.step)}, loss {_number(self.loss)}"

    def _table(self) -> Table:
        trees = {name: jax.tree.leaves(getattr(self, name)) for name in ("params", "batch", "grads", "updates")}
        rows = [(name, str(len(leaves)), f"{sum(map(jnp.size, leaves)):,}") for name, leaves in trees.items()]
        return Table(f"Training, {self._brief()}", ("part", "arrays", "numbers"), rows)


@dataclass(frozen=True)
class History(Shown):
    """What happened, as NumPy arrays.

    Attributes
    ----------
    loss
        (steps,) float64, the loss before each step's update; up to the step that diverged.
    observed
        What ``observe`` returned, each leaf with a leading axis over ``observed_steps``; ``None``
        without ``observe``.
    observed_steps
        Step numbers at which it was called, or would have been, int64.

    Examples
    --------
    >>> data, loss = jnp.array([1.0, 3.0]), lambda mean, x: jnp.mean((mean - x) ** 2)
    >>> jc.train.fit(loss, jnp.array(0.0), data, optax.sgd(0.5), steps=2, progress=False).history.loss.tolist()
    [5.0, 1.0]
    """

    loss: np.ndarray
    observed: Any
    observed_steps: np.ndarray

    @property
    def first_nonfinite(self) -> tuple[int, str] | None:
        """The first observed step at which a gradient flow is not finite, and the stage; ``None`` where all are.

        Of what `jaxchain.flow` observed.
        """
        if not isinstance(self.observed, GradientFlow):
            return None
        for number, step in enumerate(self.observed_steps):
            stage = jax.tree.map(lambda leaf, number=number: leaf[number], self.observed).first_nonfinite
            if stage is not None:
                return int(step), stage
        return None

    def _brief(self) -> str:
        ends = " → ".join(f"{loss:.4g}" for loss in self.loss[[0, -1]]) if len(self.loss) else "–"
        return f"{count(len(self.loss), 'step')}, loss {ends}"

    def _table(self) -> Table:
        ends = [f"{loss:.4g}" for loss in self.loss[[0, -1]]] if len(self.loss) else ["–", "–"]
        seen = len(self.observed_steps) if self.observed is not None else 0
        row = (str(len(self.loss)), *ends, str(seen))
        return Table("Training", ("steps", "first loss", "last loss", "observed"), [row])


@dataclass(frozen=True)
class Fit(Shown):
    """The outcome of `fit`.

    Attributes
    ----------
    params
        Trained, with the structure, shapes and dtypes that they started with.
    opt_state
        The optimiser's state after the last update.
    history
        Losses, and what was observed.
    diverged_at
        The first step whose loss was not finite; the parameters are then those of the last step whose
        loss was. ``None``: all went well.
    first_nonfinite
        Of a run that diverged: the step at which the first number was not finite, that step or the one before, and
        where (what `locate_nonfinite` says of that step). ``None`` where that is not known.

    Examples
    --------
    >>> data, loss = jnp.array([1.0, 3.0]), lambda mean, x: jnp.mean((mean - x) ** 2)
    >>> found = jc.train.fit(loss, jnp.array(0.0), data, optax.sgd(0.5), steps=2, progress=False)
    >>> float(found.params), found.diverged_at
    (2.0, None)
    """

    params: Params
    opt_state: optax.OptState
    history: History
    diverged_at: int | None = None
    first_nonfinite: tuple[int, Nonfinite] | None = None

    def _brief(self) -> str:
        diverged = "" if self.diverged_at is None else f", diverged at step {self.diverged_at}"
        return self.history._brief() + diverged  # pyright: ignore[reportPrivateUsage]

    def _table(self) -> Table:
        table = self.history._table()  # pyright: ignore[reportPrivateUsage]
        if self.diverged_at is None:
            return replace(table, notes=("It did not diverge.",))
        note = f"It diverged: the loss is not finite at step {self.diverged_at}; the parameters are of the step before."
        if self.first_nonfinite is None:
            return replace(table, notes=(note,))
        return replace(table, notes=(note, lost_in_words(*self.first_nonfinite)))


def lost_in_words(step: int, located: Nonfinite) -> str:
    """Where a run lost its numbers, as a sentence."""
    return f"First not finite, at step {step}: {located.brief}."


def _number(value: Any) -> str:
    """A number; while it is traced, its type."""
    try:
        return scalar(value)
    except (TypeError, ValueError):
        return describe(value, short=True)
