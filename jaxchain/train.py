"""The optax loop: compiled, scanned over chunks of steps, watched, reproducible.

Whatever costs time on the host (shuffling, checking, progress, files) happens between chunks of steps. Builds on
`batches`, `steps`, `resume` and optax.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxchain.batches import Chunk, Pick, Source, source
from jaxchain.checks import LARGEST, check_function, flag, integer, shown
from jaxchain.diagnosis import GradientFlow, Nonfinite
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.errors import warn
from jaxchain.fitted import Fit, History, Params, StepInfo, lost_in_words
from jaxchain.meshes import all_parts, on_host, placed, sharding_of
from jaxchain.resume.keeping import Keeper
from jaxchain.resume.state import settled
from jaxchain.resume.way import Point, Record, Way, begin, history
from jaxchain.show.progress import progress_bar
from jaxchain.steps import Loss, Observe, check_scalar, floating, in_groups, lost, observed_update, update

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
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1000,
    keep: int = 3,
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
    checkpoint_dir
        A folder for checkpoints, which Orbax writes whole or not at all: parameters, the optimiser's state, the place in
        the data and the history so far. If there is one of the same call, training goes on from the newest, and all of
        the result is to the bit that of a call that was never interrupted (on GPUs, if XLA is told to be deterministic);
        a run that is done is returned. ``steps`` may be more than before (to the bit where they were a multiple of 100 and
        of ``observe_every``, else to rounding). An iterable of batches has to begin where it began: those that were seen
        are drawn again and passed over. On SIGTERM the chunk of at most 100 steps that is under way is finished and
        written, then the signal does what it did before; what was done before an exception or Ctrl-C is written, too, but
        for the chunk under way. One run at a time a folder. Needs the extra ``jaxchain[checkpoint]``.
    checkpoint_every
        After how many steps one is written, at the end of a chunk; and at the end. No chunk is longer.
    keep
        How many of the newest are kept.
    progress
        Show a progress bar between chunks of steps.

    Returns
    -------
    Fit
        ``.params``, ``.opt_state``, ``.history``, ``.diverged_at``, ``.first_nonfinite``.

    Raises
    ------
    ValueError
        If data hold NaN or infinity (names the array and the sample), sample counts disagree, or
        ``steps``, ``batch_size`` or another number is out of range; if the loss is not finite
        at the very first step; if the run in ``checkpoint_dir`` is of another call: another loss, optimiser, start,
        data, key or observation, or more steps (says which).
    TypeError
        If the loss is not a real scalar, ``key`` is missing, a parameter is not floating point (names
        the leaf), or ``steps``, ``batch_size`` or another number is no integer.
    ImportError
        If ``checkpoint_dir`` is given and Orbax is not installed.

    Warns
    -----
    RuntimeWarning
        If the loss stops being finite, with the step, and the first stage that did; the last good parameters are
        returned. If an iterable of batches ends early. If a checkpoint is damaged, with the reason; the one before is used. If one
        cannot be written (a full disk): training goes on, and the next is tried.

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
    with closing(Keeper.at(checkpoint_dir, checkpoint_every, keep)) as keeper:
        room = partial(_room, steps=steps, every=observe_every, most=min(CHUNK, keeper.longest))
        batches = source(data, batch_size, key, steps=steps, room=room, begun=keeper.begun(steps))
        params = floating(params)
        if (where := sharding_of(sharding)) is not None:
            params, batches = placed(params, where), batches.split(where)
        params = settled(params)
        check_scalar(loss, params, batches.first)
        before = observe.memory(loss, params, batches.first) if isinstance(observe, FlowObserver) else None
        start = Point(0, params, settled(optimizer.init(params)), before)
        way = begin(keeper, start, batches, loss, optimizer, observe, observe_every)
        how = {"loss": loss, "optimizer": optimizer, "observe": observe, "observe_every": observe_every}
        run = partial(_run, **how, pick=batches.pick)
        return _trained(run, way, batches, keeper, steps, observe, observe_every, progress)


def _trained(
    run: partial[tuple[Point, Record]],
    way: Way,
    batches: Source,
    keeper: Keeper,
    steps: int,
    observe: Observe | None,
    every: int,
    progress: bool,
) -> Fit:
    """Run the chunks that are left."""
    recent: deque[tuple[Point, Chunk]] = deque(maxlen=2)
    diverged_at = lost_at = None

    def save(*, end: bool = False) -> None:
        keeper.save(way.here.step, way.kept, lambda: batches.last(way.chunk), end=end)

    with progress_bar(steps, shown=progress) as advance, keeper.watching() as ending:
        if way.records:
            advance(way.here.step, float(way.records[-1].losses[-1]))
        try:
            for chunk in batches.chunks:
                recent.append((way.here, chunk))
                after, record = run(way.here, chunk)
                bad = np.flatnonzero(~np.isfinite(record.losses))
                done = int(bad[0]) if bad.size else len(record.losses)
                last = min(done, len(record.losses) - 1)
                advance(done, float(record.losses[last]), _told(observe, record, last + 1))
                if not bad.size and keeper.due(way.here.step):  # the loss of these parameters is known to be finite
                    save()
                way = Way(after, (*way.records, record), chunk)
                if bad.size:
                    diverged_at = record.start + done
                    break
                if ending.reached():
                    save()
                    ending.hand_on()
        except BaseException:  # an interruption as well: nothing is lost
            save()
            raise
        if diverged_at is None:
            save(end=True)
    here = way.here
    if diverged_at is not None:
        here, lost_at = _last_good(run, recent, diverged_at)
    elif here.step < steps:
        msg = (
            f"The iterable of batches ended after {here.step} of {steps} steps. "
            "Give one that can be iterated again (a list, a loader), or ask for fewer steps."
        )
        warn(msg, RuntimeWarning)
    return Fit(here.params, here.opt_state, history(way.records, every, diverged_at), diverged_at, lost_at)


def _room(done: int, *, steps: int, every: int, most: int) -> int:
    """How many steps the chunk after ``done`` has: chunks begin with observed steps, so that few kinds are compiled."""
    period = every * max(1, most // every)
    left = min(period - done % period, steps - done)
    return min(left - left % every or left, most)


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


def _run(here: Point, chunk: Chunk, *, observe_every: int, **how: Any) -> tuple[Point, Record]:
    ahead = min(-here.step % observe_every, len(jax.tree.leaves(chunk.each)[0]))
    args = jnp.int32(here.step), here.params, here.opt_state, chunk, here.before
    # In a gradient flow NaN is what a stage has not, which is no reason to stop.
    with jax.debug_nans(False) if isinstance(how["observe"], FlowObserver) else nullcontext():
        carry, losses, observed = _scan(*args, observe_every=observe_every, ahead=ahead, **how)
    _, params, opt_state, before = settled(carry)
    record = Record(here.step, on_host(losses).astype(np.float64), jax.device_get(jax.tree.map(all_parts, observed)))
    return Point(here.step + len(record.losses), params, opt_state, before), record


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


def _told(observe: Any, record: Record, done: int) -> str:
    """Write the gradient flow of the first ``done`` steps of a chunk, where one is followed; the worst stage in words."""
    if not isinstance(observe, FlowObserver):
        return ""
    at = range(-record.start % observe.every, done, observe.every)
    if not at:
        return ""
    flows = jax.tree.map(lambda leaf: leaf[: len(at)], record.observed)
    observe.write([record.start + k for k in at], [float(record.losses[k]) for k in at], flows)
    return flows.worst


def _last_good(
    run: partial[tuple[Point, Record]], recent: deque[tuple[Point, Chunk]], step: int
) -> tuple[Point, tuple[int, Nonfinite] | None]:
    """Where the loss was last finite: the step before ``step``, reached again from a chunk's start; and what was lost."""
    if step == 0:
        msg = "The loss is not finite at the very first step, so nothing was trained: look at the initial parameters and at the loss."
        raise ValueError(msg)
    found = next(((point, chunk) for point, chunk in reversed(recent) if point.step < step), None)
    point, chunk = found or recent[0]
    which = f"step {step - 1}, the last with a finite loss" if found else f"step {step}, where training went on"
    again = step - 1 - point.step
    good = run(point, chunk.first(again))[0] if again > 0 else point
    steps = [(one, k - begun.step) for k in (step - 1, step) for begun, one in recent if 0 <= k - begun.step < len(one)]
    batches = [run.keywords["pick"](one.fixed, jax.tree.map(lambda x, k=k: x[k], one.each)) for one, k in steps]
    first = lost(good.step, run.keywords["loss"], run.keywords["optimizer"], good.params, good.opt_state, batches)
    msg = (
        f"Training diverged: the loss is not finite at step {step}. Returning the parameters of {which}. "
        "Lower the learning rate or clip gradients (optax.clip_by_global_norm)."
    )
    warn(msg if first is None else f"{msg} {lost_in_words(*first)}", RuntimeWarning)
    return good, first
