"""Shapes and dtypes of a state in one line, for tables and errors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.show.table import si

__all__ = ["describe"]

FEW = 4
"""As many arrays have their shapes shown in a table, which a person can take in."""

WIDE = 80
"""The most letters that their shapes may take there: modules of some frameworks name all that they are made of."""


def describe(value: Any, *, short: bool = False) -> str:
    """Shapes and dtypes in one line: ``float32[256]``, ``{'h': float32[8], 'c': float32[8]}``.

    Short: ``f32[256]``, and of many arrays, such as all parameters of a model, how many: ``dict of 28 arrays, 1.2 M
    numbers``.
    """
    leaves = jax.tree.leaves(value)
    if short and len(leaves) > FEW:
        return _counted(value, leaves)

    def one(leaf: Any) -> _Bare:
        try:
            aval = leaf if hasattr(leaf, "str_short") else jax.typeof(leaf)
            return _Bare(aval.str_short(short_dtypes=short))
        except TypeError:
            return _Bare(type(leaf).__name__)

    text = str(jax.tree.map(one, value))
    return _counted(value, leaves) if short and (len(text) > WIDE or "\n" in text) else text


def _counted(value: Any, leaves: list[Any]) -> str:
    size = sum(math.prod(jnp.shape(leaf)) for leaf in leaves)
    return f"{type(value).__name__} of {len(leaves)} array{'s' * (len(leaves) != 1)}, {si(size, '')} numbers"


class _Bare(str):
    """A string that prints without quotes inside a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
