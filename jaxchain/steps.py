"""One step of training: ``jax.value_and_grad``, an optax update, and what is seen of them; and many of them, compiled.

A step whose gradient flow is followed has it from the same backward pass. Builds on optax and `diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_leaves_with_path

from jaxchain.checks import check_arrays
from jaxchain.coordinates import is_inexact
from jaxchain.diagnosis import GradientFlow, Nonfinite
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.diagnosis.nonfinite import lost_in_loss
from jaxchain.errors import REFUSALS
from jaxchain.fitted import Params, StepInfo
from jaxchain.show.shapes import describe

__all__ = ["Loss", "Observe", "check_scalar", "floating", "in_groups", "joined", "lost", "observed_update", "update"]

Batch = Any
Loss = Callable[[Params, Batch], jax.Array]
Observe = Callable[[StepInfo], Any] | FlowObserver
Step = Callable[[Any, Any], tuple[Any, Any]]


def update(
    loss: Loss, optimizer: optax.GradientTransformation, params: Params, opt_state: optax.OptState, batch: Batch
) -> tuple[Params, optax.OptState, jax.Array, Params, Params]:
    """One step: new parameters and optimiser state, and the loss, gradients and updates behind them."""
    value, grads = jax.value_and_grad(loss)(params, batch)
    return _applied(optimizer, params, opt_state, value, grads)


def _applied(
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    value: jax.Array,
    grads: Params,
) -> tuple[Params, optax.OptState, jax.Array, Params, Params]:
    grads = jax.tree.map(jnp.conj, grads)  # of real ones themselves; JAX's of complex ones point uphill mirrored
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value, grads, updates


def observed_update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    observe: Observe,
    step: jax.Array,
    params: Params,
    opt_state: optax.OptState,
    batch: Batch,
    before: GradientFlow | None,
) -> tuple[Params, optax.OptState, jax.Array, Any, GradientFlow | None]:
    """One step, what is observed of it, and what the next observation of a gradient flow compares with."""
    if isinstance(observe, FlowObserver):
        (value, found), grads = jax.value_and_grad(observe.watched(loss), has_aux=True)(params, batch)
        after, opt_state, value, _, updates = _applied(optimizer, params, opt_state, value, grads)
        seen = replace(observe.reported(found, before), update=observe.updates(loss, params, batch, updates))
        return after, opt_state, value, seen, None if before is None else found
    after, opt_state, value, grads, updates = update(loss, optimizer, params, opt_state, batch)
    seen = observe(StepInfo(step, params, batch, value, grads, updates))
    check_arrays(seen, "What observe returns")
    return after, opt_state, value, seen, before


def lost(
    step: int,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    batches: Sequence[Batch],
) -> tuple[int, Nonfinite] | None:
    """At which step, from ``step`` and the first batch on, numbers stop being finite, and where; ``None`` if unknown."""
    for number, batch in enumerate(batches, step):
        try:
            found = lost_in_loss(loss, params, batch)
        except REFUSALS:  # a loss that is no chain of its data; a result of training is not lost for that
            return None
        if not found.finite:
            return number, found
        params, opt_state, *_ = jax.jit(partial(update, loss, optimizer))(params, opt_state, batch)
    return None


def in_groups(bare: Step, seen: Step, carry: Any, each: Any, *, every: int, ahead: int) -> tuple[Any, Any, Any]:
    """Scan steps of which one in ``every`` is observed, the first after ``ahead`` others.

    Loops inside a loop instead of a condition in each step: what is done between observations is the bare training
    step's own program. ``bare`` returns the carry and a loss, ``seen`` a pair of a loss and an observation.

    Returns
    -------
    carry, losses, observations
        One loss a step, one observation an observed step; ``None`` where none is.
    """

    def part(start: int, stop: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[start:stop], each)

    def group(carry: Any, each: Any) -> tuple[Any, Any]:
        carry, (value, found) = seen(carry, jax.tree.map(lambda leaf: leaf[0], each))
        rest = jax.tree.map(lambda leaf: leaf[1:], each)
        if not len(jax.tree.leaves(rest)[0]):  # an empty loop is traced and compiled, too
            return carry, (value[None], found)
        carry, values = jax.lax.scan(bare, carry, rest)
        return carry, (jnp.concatenate([value[None], values]), found)

    count = len(jax.tree.leaves(each)[0])
    groups = (count - ahead) // every
    full = ahead + groups * every
    losses, observations = [], []
    if ahead:
        carry, values = jax.lax.scan(bare, carry, part(0, ahead))
        losses.append(values)
    if groups:
        grouped = jax.tree.map(lambda leaf: leaf.reshape(groups, every, *leaf.shape[1:]), part(ahead, full))
        carry, (values, found) = jax.lax.scan(group, carry, grouped)
        losses.append(values.ravel())
        observations.append(found)
    if full < count:
        carry, (values, found) = group(carry, part(full, count))
        losses.append(values)
        observations.append(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], found))
    return carry, jnp.concatenate(losses), joined(observations, jnp.concatenate)


def joined(observations: Sequence[Any], concatenate: Callable[[Sequence[Any]], Any]) -> Any:
    """What was observed in several parts of a run, as one; ``None`` where nothing was."""
    return jax.tree.map(lambda *leaves: concatenate(leaves), *observations) if observations else None


def floating(params: Params) -> Params:
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


def check_scalar(loss: Loss, params: Params, batch: Batch) -> None:
    """Refuse a loss that is not one real number."""

    def checked(params: Params, batch: Batch) -> Any:
        value = loss(params, batch)
        check_arrays(value, "The loss")
        return value

    value = jax.eval_shape(checked, params, batch)
    if not hasattr(value, "shape") or value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        advice = " Take its mean over the batch." if hasattr(value, "shape") and value.shape else ""
        msg = f"The loss must return one real number, but loss(params, batch) returns {describe(value)}.{advice}"
        raise TypeError(msg)
