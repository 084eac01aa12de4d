"""The optax loop: compiled, scanned over chunks of steps, watched, reproducible.

Whatever costs time on the host (shuffling, checking, progress, files) happens between chunks of steps. Builds on
`batches`, `steps` and optax.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import keystr, tree_leaves_with_path

from jaxchain.batches import Chunk, Pick, Split, source
from jaxchain.checks import LARGEST, check_arrays, check_function, flag, integer, shown
from jaxchain.coordinates import is_inexact
from jaxchain.diagnosis import GradientFlow
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.errors import warn
from jaxchain.fitted import Fit, History, Params, StepInfo
from jaxchain.meshes import all_parts, on_host, placed, sharding_of
from jaxchain.show.progress import progress_bar
from jaxchain.show.shapes import describe
from jaxchain.steps import Loss, Observe, in_groups, joined, observed_update, update

__all__ = ["Fit", "History", "StepInfo", "fit"]

Batch = Any

CHUNK = 100
"""Steps a compiled scan: long enough to hide the host, short enough to show progress."""


def fit(
    loss: Loss,
    params: Params,
    data: Any,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    observe: Observe | None = None,
    observe_every: int = 1,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
    progress: bool = True,
) -> Fit:
    """Minimise ``loss(params, batch)`` with any optax optimiser.

    Parameters
    ----------
    loss
        ``loss(params, batch) -> scalar``, pure.
    params
        Where to start; a pytree of floating-point arrays, real or complex. Complex ones descend as
        their real and imaginary parts would: optimisers are given conjugates of JAX's gradients.
    data
        A pytree of arrays whose leading axis is the samples, or an iterable of batches. An
        iterable that can be iterated again is, until ``steps`` are done.
    optimizer
        An optax optimiser; its schedule counts steps.
    steps
        Number of updates.
    batch_size
        Samples a step, drawn without replacement epoch after epoch; ``None``: all of them.
    key
        Shuffles the minibatches; the same key gives the same result.
    observe
        ``observe(info) -> pytree``, compiled into the step; see `StepInfo`. Or ``jc.flow(every=n)``, which follows
        the gradient flow without a backward pass of its own.
    observe_every
        Call it at steps 0, ``observe_every``, 2·``observe_every``, … Of a `jaxchain.flow` its own ``every`` is meant.
    sharding
        Splits every batch over devices by its samples, which these must divide: a `jax.sharding.Mesh`, over its
        first axis, or a `jax.sharding.NamedSharding`, over what its first axis is. Parameters that lie on these
        devices stay as they are given, others are put on each whole; so are data.
    progress
        Show a progress bar between chunks of steps.

    Returns
    -------
    Fit
        ``.params``, ``.opt_state``, ``.history``, ``.diverged_at``.

    Raises
    ------
    ValueError
        If data hold NaN or infinity (names the array and the sample), sample counts disagree, or
        ``steps``, ``batch_size`` or ``observe_every`` is out of range; if the loss is not finite
        at the very first step.
    TypeError
        If the loss is not a real scalar, ``key`` is missing, a parameter is not floating point (names
        the leaf), or ``steps``, ``batch_size`` or ``observe_every`` is no integer.

    Warns
    -----
    RuntimeWarning
        If the loss stops being finite, with the step; the last good parameters are returned. If
        an iterable of batches ends early.

    References
    ----------
    Robbins and Monro, A stochastic approximation method, 1951; the update rules are optax's.

    Examples
    --------
    A line through three points, y = 2x:

    >>> data = (jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 6.0]))
    >>> def loss(slope, batch):
    ...     x, y = batch
    ...     return jnp.mean((slope * x - y) ** 2)
    >>> found = jc.train.fit(loss, jnp.array(0.0), data, optax.sgd(0.1), steps=20, progress=False)
    >>> print(f"{found.params:.4f}", found.history.loss.shape)
    2.0000 (20,)
    """
    check_function(loss, "fit")
    steps = integer("steps", steps, "the number of updates", least=1, most=LARGEST)
    observe_every = integer("observe_every", observe_every, "how many steps lie between observations", least=1)
    observe_every = _every(observe, observe_every)
    flag("progress", progress)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        msg = f"optimizer must be an optax optimiser, such as optax.adam(1e-3), but {shown(optimizer)} was given."
        raise TypeError(msg)
    pick, chunks = source(data, batch_size, key, steps=steps, room=partial(_room, steps=steps, every=observe_every))
    params = _floating(params)
    if (where := sharding_of(sharding)) is not None:
        pick = Split(pick, where)
        params, chunks = placed(params, where), pick.placed(chunks)
    run = partial(_run, loss=loss, optimizer=optimizer, observe=observe, observe_every=observe_every, pick=pick)
    here = _Point(0, params, optimizer.init(params), None)
    recent: deque[tuple[_Point, Chunk]] = deque(maxlen=2)
    records: list[_Record] = []
    diverged_at = None
    with progress_bar(steps, shown=progress) as advance:
        for chunk in chunks:
            if not records:
                first = pick(chunk.fixed, jax.tree.map(lambda x: x[0], chunk.each))
                _check_scalar(loss, params, first)
                if isinstance(observe, FlowObserver):
                    here = replace(here, before=observe.memory(loss, params, first))
            recent.append((here, chunk))
            here, record = run(here, chunk)
            records.append(record)
            bad = np.flatnonzero(~np.isfinite(record.losses))
            done = int(bad[0]) if bad.size else len(record.losses)
            last = min(done, len(record.losses) - 1)
            advance(done, float(record.losses[last]), _told(observe, record, last + 1))
            if bad.size:
                diverged_at = record.start + done
                break
    if diverged_at is not None:
        here = _last_good(run, recent, diverged_at)
    elif here.step < steps:
        msg = (
            f"The iterable of batches ended after {here.step} of {steps} steps. "
            "Give one that can be iterated again (a list, a loader), or ask for fewer steps."
        )
        warn(msg, RuntimeWarning)
    return Fit(here.params, here.opt_state, _history(records, observe_every, diverged_at), diverged_at)


@dataclass(frozen=True)
class _Point:
    """A place in training to go on from, or to come back to."""

    step: int
    params: Params
    opt_state: optax.OptState
    before: GradientFlow | None
    """The last gradient flow that was observed, where one is followed."""


@dataclass(frozen=True)
class _Record:
    """What one chunk of steps left behind, on the host: a loss a step, an observation an observed step."""

    start: int
    losses: np.ndarray
    observed: Any


def _room(done: int, *, steps: int, every: int) -> int:
    """How many steps the chunk after ``done`` has: chunks begin with observed steps, so that few kinds are compiled."""
    period = every * max(1, CHUNK // every)
    left = min(period - done % period, steps - done)
    return min(left - left % every or left, CHUNK)


@partial(jax.jit, static_argnames=("loss", "optimizer", "observe", "observe_every", "ahead", "pick"))
def _scan(
    start: jax.Array,
    params: Params,
    opt_state: optax.OptState,
    chunk: Chunk,
    before: GradientFlow | None = None,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    observe: Observe | None,
    observe_every: int,
    ahead: int,
    pick: Pick,
) -> Any:
    def bare(carry: Any, each: Any) -> Any:
        step, params, opt_state, before = carry
        params, opt_state, value, *_ = update(loss, optimizer, params, opt_state, pick(chunk.fixed, each))
        return (step + 1, params, opt_state, before), value

    if observe is None:
        return *jax.lax.scan(bare, (start, params, opt_state, before), chunk.each), None

    def seen(carry: Any, each: Any) -> Any:
        step, params, opt_state, before = carry
        taken = observed_update(loss, optimizer, observe, step, params, opt_state, pick(chunk.fixed, each), before)
        params, opt_state, value, found, before = taken
        return (step + 1, params, opt_state, before), (value, found)

    return in_groups(bare, seen, (start, params, opt_state, before), chunk.each, every=observe_every, ahead=ahead)


def _run(here: _Point, chunk: Chunk, *, observe_every: int, **how: Any) -> tuple[_Point, _Record]:
    ahead = min(-here.step % observe_every, len(jax.tree.leaves(chunk.each)[0]))
    args = jnp.int32(here.step), here.params, here.opt_state, chunk, here.before
    (_, params, opt_state, before), losses, observed = _scan(*args, observe_every=observe_every, ahead=ahead, **how)
    record = _Record(here.step, on_host(losses).astype(np.float64), jax.device_get(jax.tree.map(all_parts, observed)))
    return _Point(here.step + len(record.losses), params, opt_state, before), record


def _every(observe: Any, every: int) -> int:
    """How many steps lie between observations, once ``observe`` can be one."""
    if not isinstance(observe, FlowObserver):
        if observe is not None:
            check_function(observe, "observe")
        return every
    if every not in (1, observe.every):
        msg = f"observe=jc.flow(every={observe.every}) says itself at which steps it observes, but observe_every={every} was given, too. Leave that out."
        raise ValueError(msg)
    return observe.every


def _told(observe: Any, record: _Record, done: int) -> str:
    """Write the gradient flow of the first ``done`` steps of a chunk, where one is followed; the worst stage in words."""
    if not isinstance(observe, FlowObserver):
        return ""
    at = range(-record.start % observe.every, done, observe.every)
    if not at:
        return ""
    flows = jax.tree.map(lambda leaf: leaf[: len(at)], record.observed)
    observe.write([record.start + k for k in at], [float(record.losses[k]) for k in at], flows)
    return flows.worst


def _last_good(run: Callable[..., tuple[_Point, _Record]], recent: deque[tuple[_Point, Chunk]], step: int) -> _Point:
    """Where the loss was last finite: the step before ``step``, reached again from a chunk's start."""
    if step == 0:
        msg = "The loss is not finite at the very first step, so nothing was trained: look at the initial parameters and at the loss."
        raise ValueError(msg)
    msg = (
        f"Training diverged: the loss is not finite at step {step}. Returning the parameters of step {step - 1}, "
        "the last with a finite loss. Lower the learning rate or clip gradients (optax.clip_by_global_norm)."
    )
    warn(msg, RuntimeWarning)
    point, chunk = next((point, chunk) for point, chunk in reversed(recent) if point.step < step)
    again = step - 1 - point.step
    return run(point, chunk.first(again))[0] if again else point


def _history(records: list[_Record], every: int, diverged_at: int | None) -> History:
    loss = np.concatenate([record.losses for record in records])[: None if diverged_at is None else diverged_at + 1]
    steps = np.arange(0, len(loss), every)
    observed = joined([record.observed for record in records if record.observed is not None], np.concatenate)
    return History(loss, jax.tree.map(lambda leaf: leaf[: len(steps)], observed), steps)


def _floating(params: Params) -> Params:
    """The parameters as arrays, once all of them have derivatives."""
    check_arrays(params, "params")
    params = jax.tree.map(jnp.asarray, params)
    for path, leaf in tree_leaves_with_path(params):
        if not is_inexact(leaf):
            msg = (
                f"params{f' at {keystr(path)}' if path else ''} is {describe(leaf)}, but a parameter is floating point, real or complex: "
                "nothing else has a gradient. Give it a float dtype, or let the loss close over what is not trained."
            )
            raise TypeError(msg)
    return params


def _check_scalar(loss: Loss, params: Params, batch: Batch) -> None:
    def checked(params: Params, batch: Batch) -> Any:
        value = loss(params, batch)
        check_arrays(value, "The loss")
        return value

    value = jax.eval_shape(checked, params, batch)
    if not hasattr(value, "shape") or value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        advice = " Take its mean over the batch." if hasattr(value, "shape") and value.shape else ""
        msg = f"The loss must return one real number, but loss(params, batch) returns {describe(value)}.{advice}"
        raise TypeError(msg)
