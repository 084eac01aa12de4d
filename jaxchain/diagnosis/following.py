"""Gradient flow, followed while `jaxchain.train.fit` runs: what a step is to compute, and where the numbers go.

On the steps that are observed the watched loss takes the place of the loss, so there is no second backward pass; what
is written, to a file or for TensorBoard, is written between chunks of steps. Builds on `watched`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.checks import flag, integer, path_to_write
from jaxchain.derivative import jvp
from jaxchain.diagnosis.flow_rows import NUMBERS, OF_PARAMETERS, OFTEN_NONE
from jaxchain.diagnosis.flowing import GradientFlow
from jaxchain.diagnosis.lengths import length
from jaxchain.diagnosis.passing import Wanted
from jaxchain.diagnosis.watched import Watching, chain_of, watched_call
from jaxchain.discovery.find import UNROLL_LIMIT
from jaxchain.discovery.group import Granularity
from jaxchain.errors import first_line, warn
from jaxchain.patterns import check_patterns, chosen
from jaxchain.show.plain import plain
from jaxchain.stage import State

__all__ = ["FlowObserver", "flow"]

Loss = Callable[[Any, Any], jax.Array]


def flow(
    every: int = 1,
    stages: str | Sequence[str] | None = None,
    *,
    along: str | None = None,
    granularity: Granularity = "default",
    unroll_limit: int = UNROLL_LIMIT,
    histogram: bool = False,
    sigma: bool = False,
    cosine: bool = False,
    signal_to_noise: int | None = None,
    path: str | Path | None = None,
    tensorboard: str | Path | None = None,
) -> FlowObserver:
    """Follow the gradient flow of a training run: ``jc.train.fit(..., observe=jc.flow(every=10))``.

    ``history.observed`` is then a `GradientFlow`, stacked over the observed steps, with the norms of the updates. It is
    taken from the backward pass of these steps; a line under the progress bar says the worst stage.

    Parameters
    ----------
    every
        At steps 0, ``every``, 2·``every``, …
    stages, along, granularity, unroll_limit, histogram, sigma, signal_to_noise
        As in `watch`.
    cosine
        Also the cosine between each stage's gradient and that of the observation before; keeps a copy of the gradients.
    path
        A file that gets a line of JSON an observed step, while training runs; what it holds already stays.
    tensorboard
        A folder for TensorBoard, likewise. Needs the extra ``jaxchain[tensorboard]``.

    Returns
    -------
    FlowObserver
        What ``observe`` of `jaxchain.train.fit` takes.

    Raises
    ------
    ValueError
        If ``every`` is below 1. Patterns that match no stage are told of by `jaxchain.train.fit`, as a ``KeyError``.
    TypeError
        If an argument is of another type.
    ImportError
        If ``tensorboard`` is asked for and not installed.

    Warns
    -----
    RuntimeWarning
        If a file cannot be written while training runs, which goes on.

    Examples
    --------
    >>> def loss(params, batch):
    ...     return jnp.mean((jnp.tanh(batch[0] @ params["w"]) @ params["v"] - batch[1]) ** 2)
    >>> params, data = {"w": jnp.ones((2, 3)), "v": jnp.ones(3)}, (jnp.eye(2), jnp.zeros(2))
    >>> found = jc.train.fit(loss, params, data, optax.sgd(0.1), steps=5, observe=jc.flow(every=2), progress=False)
    >>> found.history.observed_steps.tolist(), found.history.observed.update.shape
    ([0, 2, 4], (3, 5))
    """
    every = integer("every", every, "how many steps lie between observations", least=1)
    patterns = None if stages is None else tuple(check_patterns(stages))
    flag("cosine", cosine)
    wanted = Wanted(None, histogram, sigma, gradients=cosine)
    how = Watching(patterns, along, False, granularity, unroll_limit, wanted, signal_to_noise)
    file = None if path is None else path_to_write("path", path)
    folder = None if tensorboard is None else path_to_write("tensorboard", tensorboard)
    if folder is not None:
        _writer_class()
    return FlowObserver(every, how, file, folder)


@dataclass(frozen=True)
class FlowObserver:
    """What `jaxchain.train.fit` follows the gradient flow by; made by `flow`."""

    every: int
    how: Watching
    path: Path | None = None
    tensorboard: Path | None = None

    def watched(self, loss: Loss) -> Callable[[Any, Any], tuple[jax.Array, GradientFlow]]:
        """The loss, its flow beside it."""
        return lambda params, batch: watched_call(loss, (params, batch), {}, self.how)

    def memory(self, loss: Loss, params: Any, batch: Any) -> GradientFlow | None:
        """What the first observation is compared with: zeros, to which there is no angle; ``None`` without cosines."""
        if not self.how.wanted.gradients:
            return None
        like = jax.eval_shape(self.watched(loss), params, batch)[1]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    def reported(self, found: GradientFlow, before: GradientFlow | None) -> GradientFlow:
        """What is kept of a flow: not the gradients, but how they turned since the observation before."""
        turned = found if before is None else found.compared(before)
        return replace(turned, gradients=None)

    def updates(self, loss: Loss, params: Any, batch: Any, updates: Any) -> jax.Array:
        """The norm of what an update adds to each stage's parameters."""
        arrays, chain = chain_of(loss, (params, batch), {}, self.how)
        first = chain.values[: arrays.parameters]

        def sides(values: Sequence[State]) -> Any:
            return chain.chain.split(*chain.args((*values, *chain.values[arrays.parameters :])))[1]

        changes = jvp(sides, first, tuple(jax.tree.leaves(updates)))[1]
        kept = chosen(chain.chain.names, self.how.stages)
        return jnp.stack([length(changes[k]) for k in (range(len(changes)) if kept is None else kept)])

    @cached_property
    def writers(self) -> list[_Lines | _Board]:
        """What writes one step, wherever it is to be written."""
        return [
            *([] if self.path is None else [_Lines(self.path)]),
            *([] if self.tensorboard is None else [_Board(self.tensorboard)]),
        ]

    def resumed(self, step: int) -> None:
        """Training goes on from ``step``: what the run that was cut off wrote of later steps is written again."""
        for number, writer in enumerate(self.writers):
            try:
                self.writers[number] = writer.resumed(step)
            except OSError as error:
                warn(f"The gradient flow may be written twice from step {step} on: {first_line(error)}.", RuntimeWarning)  # fmt: skip

    def write(self, steps: Sequence[int], losses: Sequence[float], flows: GradientFlow) -> None:
        """Write some steps; what cannot be written is said once, and no loss to the training."""
        for number, (step, loss) in enumerate(zip(steps, losses, strict=True)):
            for writer in list(self.writers):
                try:
                    writer(step, loss, jax.tree.map(lambda leaf, number=number: leaf[number], flows))
                except OSError as error:
                    self.writers.remove(writer)
                    warn(
                        f"The gradient flow is written no more: {first_line(error)}. Training goes on.", RuntimeWarning
                    )


def told(flow: GradientFlow) -> dict[str, dict[str, float]]:
    """The numbers that each stage has, by its name; one that is not finite is told, one that there is not, is not."""
    found: dict[str, dict[str, float]] = {}
    for row, size, reached in zip(flow.rows, flow.parameters, flow.reached[1:], strict=True):
        numbers = {name: getattr(row, name) for name in NUMBERS}
        without = {*OF_PARAMETERS} if not size else set[str]()
        without |= set() if reached else {"cotangent", *OF_PARAMETERS[:1]}
        found[row.stage] = {
            name: value
            for name, value in numbers.items()
            if value is not None and name not in without and (name not in OFTEN_NONE or not np.isnan(value))
        }
    return found


@dataclass(frozen=True)
class _Lines:
    """Lines of JSON."""

    path: Path

    def resumed(self, step: int) -> _Lines:
        """The same lines, once those at the end that tell of ``step`` or later, or are torn, are cut off."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = sum(map(len, lines))
        while lines and _is_from(lines[-1], step):
            lines.pop()
        if (kept := sum(map(len, lines))) < whole:
            os.truncate(self.path, kept)
        return self

    def __call__(self, step: int, loss: float, flow: GradientFlow) -> None:
        line = {
            "step": step,
            "loss": loss,
            "first_nonfinite": flow.first_nonfinite,
            "stages": told(flow),
        }
        if flow.histogram is not None:
            line["histogram"] = dict(zip(flow.stages, flow.histogram.tolist(), strict=True))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), allow_nan=False) + "\n")


def _is_from(line: bytes, step: int) -> bool:
    """Whether a line tells of ``step`` or a later one, or was cut off while it was written; another one is not ours."""
    if not line.endswith(b"\n"):
        return True
    try:
        return json.loads(line)["step"] >= step
    except (ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class _Board:
    """Scalars for TensorBoard, ``gradient/dense_0`` and so on; from ``begun`` on they take the place of earlier ones."""

    folder: Path
    begun: int | None = None

    def resumed(self, step: int) -> _Board:
        """A new file, which says what of older ones no longer counts."""
        return _Board(self.folder, step)

    @cached_property
    def _writer(self) -> Any:
        return _writer_class()(str(self.folder), purge_step=self.begun)

    def __call__(self, step: int, loss: float, flow: GradientFlow) -> None:
        self._writer.add_scalar("loss", loss, step)
        for stage, numbers in told(flow).items():
            for name, value in numbers.items():
                self._writer.add_scalar(f"{name}/{stage}", value, step)
        self._writer.flush()


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ImportError as error:
        msg = "For TensorBoard tensorboardX writes, which is not installed: pip install jaxchain[tensorboard]."
        raise ImportError(msg) from error
    return SummaryWriter
