"""From a state to logits: the model's own unembedding, and the logit lens, which is that alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.checks import is_array, shown

__all__ = ["checked_state", "checked_unembed", "logit"]


def logit(state: Any, unembed: Callable[[Any], Any]) -> Any:
    """The logit lens, which reads a state as if it were the chain's last one: unembed(x_k).

    Parameters
    ----------
    state
        (…, width), as wide as the chain's end.
    unembed
        As for `Lens.apply`, whose baseline this is.

    Raises
    ------
    TypeError
        If ``state`` is no array of numbers, or ``unembed`` no function.

    References
    ----------
    nostalgebraist, Interpreting GPT: the logit lens, 2020.

    Examples
    --------
    >>> jc.lens.logit(jnp.array([1.0, 10.0]), lambda x: x[::-1]).tolist()
    [10.0, 1.0]
    """
    if unembed is None:  # pyright: ignore[reportUnnecessaryComparison]
        msg = "unembed is a function from states to logits, but None was given."
        raise TypeError(msg)
    return checked_unembed(unembed)(checked_state(state))


def checked_state(state: Any) -> jax.Array:
    """A state, once it is an array that can be one."""
    if not (is_array(state) and np.ndim(state) and jnp.issubdtype(state.dtype, jnp.floating)):
        msg = f"A state is an array of real numbers whose last axis is its width, but {shown(state)} was given."
        raise TypeError(msg)
    return jnp.asarray(state)


def checked_unembed(unembed: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """What makes logits of states; the identity where nothing is given."""
    if unembed is None:
        return lambda state: state
    if not callable(unembed):
        msg = f"unembed is a function from states to logits, but {shown(unembed)} was given."
        raise TypeError(msg)
    return unembed
