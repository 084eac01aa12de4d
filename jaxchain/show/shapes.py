"""Shapes and dtypes of a state in one line, for tables and errors."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["describe"]

FEW = 4
"""As many arrays have their shapes shown in a table, which a person can take in."""


def describe(value: Any, *, short: bool = False) -> str:
    """Shapes and dtypes in one line: ``float32[256]``, ``{'h': float32[8], 'c': float32[8]}``.

    Short: ``f32[256]``, and of many arrays, such as all parameters of a model, how many: ``28 arrays``.
    """
    if short and (number := len(jax.tree.leaves(value))) > FEW:
        return f"{number} arrays"

    def one(leaf: Any) -> _Bare:
        try:
            aval = leaf if hasattr(leaf, "str_short") else jax.typeof(leaf)
            return _Bare(aval.str_short(short_dtypes=short))
        except TypeError:
            return _Bare(type(leaf).__name__)

    return str(jax.tree.map(one, value))


class _Bare(str):
    """A string that prints without quotes inside a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
