"""What tells one run of training from another: the programs of its step, where it began, its data and their order.

How many steps are asked for is no part of it, unless a schedule is made of them. Builds on fingerprints and `steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxchain.meshes import mesh_of
from jaxchain.program.fingerprint import digest, digests, tree_digest
from jaxchain.program.reading import abstract
from jaxchain.show.escape import escaped
from jaxchain.steps import Loss, Observe, observed_update, update

__all__ = ["identity", "other_jax", "unlike"]

PROGRAMS = ("loss", "optimizer", "step", "observe")
"""The parts that another version of JAX writes differently."""

REASONS = {
    "start": "it began with other parameters",
    "data": "it was trained on other data",
    "order": "its key or batch_size was another",
    "loss": "its loss was another program",
    "state": "its optimiser began in another state (another kind, or other numbers)",
    "optimizer": "its optimiser was another (a learning rate, or a schedule made for another number of steps)",
    "step": "a step of it was another program: a derivative rule of its loss, say",
    "observe": "observe or observe_every was another",
}
"""What is said where a part is another one; the first that is, from top to bottom."""


def identity(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    observe: Observe | None,
    every: int,
    here: tuple[Any, Any, Any],
    first: Any,
    data: Any,
    order: Any,
) -> tuple[dict[str, str], Any]:
    """Digests by the names of `REASONS`; and what is observed of a step, as shapes.

    Parameters
    ----------
    loss, optimizer, observe, every
        What is trained, how, and what is seen of it.
    here
        Parameters, the optimiser's state and the last gradient flow, as training begins.
    first
        The first batch, for its shapes.
    data, order
        What tells the data and their order from others.
    """
    params, opt_state, before = here

    def seen(step: jax.Array, params: Any, opt_state: Any, batch: Any, before: Any) -> Any:
        assert observe is not None
        return observed_update(loss, optimizer, observe, step, params, opt_state, batch, before)[3]

    program, like = ("", None) if observe is None else _program(seen, jnp.int32(0), params, opt_state, first, before)
    found = {
        "start": tree_digest(params),
        "data": tree_digest(data),
        "order": tree_digest(order),
        "loss": _program(loss, params, first)[0],
        "state": tree_digest(opt_state),
        "optimizer": _program(optimizer.update, params, opt_state, params)[0],
        "step": _program(partial(update, loss, optimizer), params, opt_state, first)[0],
        "observe": digest((program, every)),
    }
    return {**found, "jax": jax.__version__}, like


def unlike(kept: Any, ours: dict[str, str]) -> str | None:
    """Why a checkpoint is of another run; ``None`` where it is of this one. Programs compare within a version of JAX."""
    if not isinstance(kept, dict) or kept.keys() != ours.keys():
        return "another version of jaxchain wrote it"
    same = kept["jax"] == ours["jax"]
    different = (part for part in REASONS if kept[part] != ours[part] and (same or part not in PROGRAMS))
    return next((REASONS[part] for part in different), None)


def other_jax(kept: dict[str, str]) -> str | None:
    """The version of JAX that wrote a checkpoint, where it is not this one."""
    return None if kept["jax"] == jax.__version__ else escaped(str(kept["jax"]))


def _program(fun: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """The digest of a function's program, with what it closed over; and its result as shapes."""
    closed, out = jax.make_jaxpr(fun, return_shape=True)(*jax.tree.map(_anywhere, args))
    return digest((digests(closed)[0], *closed.consts)), out


def _anywhere(leaf: Any) -> Any:
    """The shape of an array, wherever it lies, unless its type says where: a run may go on over other devices."""
    return abstract(leaf) if mesh_of(leaf) is None else leaf
