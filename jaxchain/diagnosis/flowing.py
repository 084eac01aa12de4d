"""The record of gradient flow: numbers by state and stage from one reverse sweep, as a pytree that stacks over steps.

What is static (names, sizes, bins) is known when a step is traced; the rest are arrays, so a record may be a loop's
result. Builds on `show`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.diagnosis.flow_rows import ALWAYS, HEADINGS, NUMBERS, FlowRow, is_known, text_of
from jaxchain.diagnosis.lengths import cosine
from jaxchain.show.shapes import describe
from jaxchain.show.table import Table, Tabular
from jaxchain.show.values import count

__all__ = ["GradientFlow"]

Numbers = Any
"""An array, of JAX or NumPy, or a tracer."""

LOWEST, HIGHEST = -12, 4
"""Powers of ten between which a histogram has one bin each."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "state",
        "cotangent",
        "reached",
        "gradient",
        "weight",
        "dead",
        "saturated",
        "histogram",
        "sigma",
        "update",
        "cosine",
        "signal_to_noise",
        "gradients",
    ],
    meta_fields=["names", "sizes", "parameters"],
)
@dataclass(frozen=True)
class GradientFlow(Tabular):
    """Gradient flow along a chain at one point, or stacked over steps (a leading axis of every array). A pytree.

    Arrays are of s stages, or of s + 1 states, the chain input first; NaN is what a stage has not. Norms are Euclidean,
    taken in float32 at least, without overflow between 1e-30 and 1e30.

    Attributes
    ----------
    names
        s + 1 of them: ``"input"`` (or what makes it of tokens), then those of the stages reported.
    sizes
        How many numbers each of these states has.
    parameters
        How many numbers each stage reads that carry a derivative: its parameters, or what is made of them.
    state, cotangent
        (s + 1,) norms of the states, and of the cotangents there.
    reached
        (s + 1,) whether there is a cotangent: a training step computes none before its first parameter. Where not, its
        norm is NaN.
    gradient, weight
        (s,) norms of the cotangents of each stage's parameters, and of these. A weight that two stages share counts in
        each with the cotangent that comes from there; their sum is its gradient.
    dead
        (s,) share of units (places on the last axis; of an array of four axes on the second, too, where some libraries
        have channels: the larger share) of the stage's activation, an elementwise nonlinear function, whose
        derivative is less than a thousandth of the largest that it has, at all samples and positions: nothing passes
        them. Of several activations in a stage the worst; one in a residual stage's term is found, too.
    saturated
        (s,) share of entries whose derivative is below 5 % of that largest one, of an activation that flattens on both
        sides, as tanh and sigmoid do. One that keeps its slope on a side, as ReLU and GELU do, does not saturate, nor
        one that is flat near zero already, as ReLU6 is below it.
    histogram
        (s, 19) counts of the magnitudes of the entries of ``gradient``: zeros, less than 1e-12, one bin a power of ten,
        1e4 and more (NaN counts there too); ``None`` if not asked for. See `bins`.
    sigma
        (s,) largest singular value of each stage's Jacobian, from below; ``None`` if not asked for.
    update
        (s,) norms of what the optimiser adds to each stage's parameters; ``None`` where that is not known.
    cosine
        (s,) cosine between a stage's gradient and that of the observation before; ``None`` where that is not known.
    signal_to_noise
        (s,) squared norm of the expected gradient over its variance in batches of this size; ``None`` if not asked for.
    gradients
        The gradients by stage themselves, where they were asked to be kept; else ``None``.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010 (norms of
    cotangents by layer, saturation); Schneider, Dangel and Hennig, Cockpit, NeurIPS 2021; McCandlish et al., An
    empirical model of large-batch training, 2018 (signal to noise).

    Examples
    --------
    >>> flow = jc.gradient_flow(lambda w, x: jnp.sum(jnp.tanh(w @ x)), (jnp.ones((3, 2)), jnp.ones(2)))
    >>> flow
    GradientFlow(3 stages)
    >>> flow.cotangent.shape, [row.stage.split("@")[0] for row in flow.rows]
    ((4,), ['dot', 'tanh', 'reduce_sum'])
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    parameters: tuple[int, ...]
    state: Numbers
    cotangent: Numbers
    reached: Numbers
    gradient: Numbers
    weight: Numbers
    dead: Numbers
    saturated: Numbers
    histogram: Numbers | None = None
    sigma: Numbers | None = None
    update: Numbers | None = None
    cosine: Numbers | None = None
    signal_to_noise: Numbers | None = None
    gradients: Any = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the s stages."""
        return self.names[1:]

    @property
    def bins(self) -> tuple[float, ...]:
        """Lower edges of the histogram's bins but the first, which is of zeros."""
        return (0.0, *(10.0**k for k in range(LOWEST, HIGHEST + 1)))

    @property
    def state_rms(self) -> Numbers:
        """Root mean square of an entry of each state, so that states of different sizes compare."""
        return self.state / np.sqrt(np.maximum(self.sizes, 1)).astype(self.state.dtype)

    @property
    def cotangent_rms(self) -> Numbers:
        """Root mean square of an entry of each cotangent."""
        return self.cotangent / np.sqrt(np.maximum(self.sizes, 1)).astype(self.cotangent.dtype)

    @property
    def gradient_to_weight(self) -> Numbers:
        """``gradient / weight``; NaN where both are zero, infinite where the weights alone are."""
        return self.gradient / self.weight

    @property
    def update_to_weight(self) -> Numbers | None:
        """``update / weight``; about 1e-3 is usual, ``None`` where the update is not known."""
        return None if self.update is None else self.update / self.weight

    def compared(self, before: GradientFlow) -> GradientFlow:
        """The same with ``cosine``: between each stage's gradient and that of another flow, of the step before.

        Both must keep their gradients: ``jc.watch(loss_fn, keep_gradients=True)``. Works under ``jit``.

        Raises
        ------
        ValueError
            If one of them does not, or they are of other stages.

        Examples
        --------
        >>> watched = jc.watch(lambda w, x: jnp.mean((x @ w) ** 2), keep_gradients=True)
        >>> flows = [watched(jnp.array([1.0, step]), jnp.eye(2))[1] for step in (0.0, 1.0)]
        >>> f"{flows[1].compared(flows[0]).cosine[0]:.4f}"  # 45°
        '0.7071'
        """
        if self.gradients is None or before.gradients is None or self.names != before.names:
            msg = "Two flows are compared by the gradients that they keep, of the same stages: watch with keep_gradients=True, and compare flows of one loss."
            raise ValueError(msg)
        pairs = zip(self.gradients, before.gradients, strict=True)
        angles = [cosine(*pair, (self.gradient[k], before.gradient[k])) for k, pair in enumerate(pairs)]
        return replace(self, cosine=jnp.stack(angles))

    @property
    def rows(self) -> tuple[FlowRow, ...]:
        """One a stage; of a stack, one a step and stage. Needs values, so not under ``jit``."""
        columns = {
            name: None if (value := getattr(self, name)) is None else np.asarray(value, np.float64) for name in NUMBERS
        }
        lead = np.asarray(self.gradient).shape[:-1]
        found: list[FlowRow] = []
        for at in np.ndindex(*lead):
            step = int(np.ravel_multi_index(at, lead)) if lead else None
            for k, stage in enumerate(self.stages):
                cells = {
                    name: None if column is None else float(column[(*at, k + (name in ("state", "cotangent")))])
                    for name, column in columns.items()
                }
                found.append(FlowRow(step, stage, **cells))  # pyright: ignore[reportArgumentType]
        return tuple(found)

    @property
    def first_nonfinite(self) -> str | None:
        """The first state that is not finite, else the first met on the way back whose cotangent or gradient is not.

        ``None``: all are, or were not computed at all. Of a stack, at any step. Needs values.
        """
        state, cotangent, gradient, reached = (
            np.asarray(value).reshape(-1, np.shape(value)[-1])
            for value in (self.state, self.cotangent, self.gradient, self.reached)
        )
        ahead = np.flatnonzero((~np.isfinite(state)).any(0))
        if ahead.size:
            return self.names[ahead[0]]
        reads = reached[:, 1:] & (np.asarray(self.parameters) > 0)
        bad = reached & ~np.isfinite(cotangent)
        bad[:, 1:] |= reads & ~np.isfinite(gradient)
        back = np.flatnonzero(bad.any(0))
        return self.names[back[-1]] if back.size else None

    @property
    def worst(self) -> str:
        """One line on the stage to look at first, of a stack at its last step: where it is not finite, dead or changes most.

        That a loss is a mean of many shrinks a cotangent as well, so stages after the last parameters do not count.
        Needs values.
        """
        last = jax.tree.map(lambda leaf: np.asarray(leaf)[(-1,) * len(self._lead)], self)
        if (bad := last.first_nonfinite) is not None:
            return f"{bad} is not finite"
        numbered = list(enumerate(last.rows, start=1))
        dead = max(numbered, key=lambda pair: np.nan_to_num(pair[1].dead, nan=0.0))[1]
        if dead.dead >= 0.5:
            return f"{dead.stage}: {dead.dead:.0%} of its units are dead"
        until = max((k for k, size in enumerate(self.parameters) if size), default=len(numbered) - 1)
        with np.errstate(all="ignore"):
            passed = (last.cotangent[:-1] / last.cotangent[1:])[: until + 1]
            change = np.nan_to_num(np.abs(np.log(passed)), nan=-1.0, posinf=np.inf)
        at = int(np.argmax(change))
        if change[at] < 0:
            return ""
        return f"{self.stages[at]} passes {passed[at]:.3g} times the gradient back"

    def _brief(self) -> str:
        return count(len(self.stages), "stage") + (f", stacked {describe(self.gradient)}" if self._lead else "")

    @property
    def _lead(self) -> tuple[int, ...]:
        return tuple(jnp.shape(self.gradient)[:-1])

    def _table(self) -> Table:
        try:
            rows = self.rows
        except jax.errors.TracerArrayConversionError:
            return Table(f"Gradient flow, {self._brief()}, traced", ("stage",), [(name,) for name in self.stages])
        steps = len(rows) // max(len(self.stages), 1)
        title = "Gradient flow" if not self._lead else f"Gradient flow, the last of {count(steps, 'step')}"
        rows = rows[-len(self.stages) :]
        shown = [name for name in NUMBERS if name in ALWAYS or any(is_known(getattr(row, name)) for row in rows)]
        words = [HEADINGS[name] for name in shown]
        reached = np.asarray(self.reached).reshape(-1, len(self.names))[-1, 1:]
        cells = [
            (
                row.stage,
                *(
                    "" if name == "cotangent" and not known else text_of(name, getattr(row, name), size)
                    for name in shown
                ),
            )
            for row, size, known in zip(rows, self.parameters, reached, strict=True)
        ]
        notes = [] if (bad := self.first_nonfinite) is None else [f"The first that is not finite: {bad}."]
        return Table(title, ("stage", *words), cells, notes)
