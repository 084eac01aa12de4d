"""One step of training: ``jax.value_and_grad``, an optax update, and what is seen of them; all of it compiled.

A step whose gradient flow is followed has it from the same backward pass. Builds on optax and `diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxchain.checks import check_arrays
from jaxchain.diagnosis import GradientFlow
from jaxchain.diagnosis.following import FlowObserver
from jaxchain.fitted import Params, StepInfo

__all__ = ["Loss", "observed", "update", "watched_update"]

Batch = Any
Loss = Callable[[Params, Batch], jax.Array]


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


def observed(observe: Callable[[StepInfo], Any] | None, every: int, info: StepInfo) -> Any:
    """What an observer says of a step; zeros where its turn has not come."""
    if observe is None:
        return None

    def seen(info: StepInfo) -> Any:
        found = observe(info)
        check_arrays(found, "What observe returns")
        return found

    if every == 1:
        return seen(info)
    return jax.lax.cond(info.step % every == 0, seen, lambda _: _zeros(jax.eval_shape(seen, info)), info)


def watched_update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    observe: FlowObserver,
    step: jax.Array,
    params: Params,
    opt_state: optax.OptState,
    batch: Batch,
    before: GradientFlow | None,
) -> tuple[Params, optax.OptState, jax.Array, GradientFlow, GradientFlow | None]:
    """One step, its gradient flow (zeros where its turn has not come), and what the next observation compares with.

    On the steps between, the loss is differentiated as it is.
    """

    def watched(params: Params) -> tuple[jax.Array, Params, GradientFlow]:
        (value, found), grads = jax.value_and_grad(observe.watched(loss), has_aux=True)(params, batch)
        return value, grads, found

    def report(found: GradientFlow, updates: Params) -> tuple[GradientFlow, GradientFlow | None]:
        told = replace(observe.reported(found, before), update=observe.updates(loss, params, batch, updates))
        return told, None if before is None else found

    if observe.every == 1:
        value, grads, found = watched(params)
        new_params, opt_state, value, _, updates = _applied(optimizer, params, opt_state, value, grads)
        return new_params, opt_state, value, *report(found, updates)
    here = step % observe.every == 0
    nothing = _zeros(jax.eval_shape(watched, params)[2])
    value, grads, found = jax.lax.cond(
        here, watched, lambda params: (*jax.value_and_grad(loss)(params, batch), nothing), params
    )
    new_params, opt_state, value, _, updates = _applied(optimizer, params, opt_state, value, grads)
    silent = _zeros(jax.eval_shape(report, found, updates)[0])
    told, before = jax.lax.cond(here, report, lambda _found, _updates: (silent, before), found, updates)
    return new_params, opt_state, value, told, before


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
