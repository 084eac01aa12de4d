"""Which stages or states are meant by patterns of their names, such as ``block_*``."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from jaxchain.checks import shown
from jaxchain.errors import unknown

__all__ = ["check_patterns", "chosen"]


def chosen(names: Sequence[str], patterns: str | Sequence[str] | None, kind: str = "stage") -> tuple[int, ...] | None:
    """The numbers of those whose names match one of some patterns; ``None``: all.

    Raises
    ------
    KeyError
        If a pattern matches none; suggests the nearest names of this ``kind``.
    TypeError
        If patterns are not strings.
    """
    if patterns is None:
        return None
    found: set[int] = set()
    for pattern in check_patterns(patterns):
        matched = {k for k, name in enumerate(names) if _matches(name, pattern)}
        if not matched:
            raise KeyError(unknown(kind, pattern, names) + " In a pattern * stands for any letters.")
        found |= matched
    return tuple(sorted(found))


def _matches(name: str, pattern: str) -> bool:
    """Whether a name, or its end from one of the modules in it on, fits a pattern: ``Net/block_0/dot`` fits ``block_*``."""
    parts = name.split("/")
    return any(fnmatch.fnmatchcase("/".join(parts[k:]), pattern) for k in range(len(parts)))


def check_patterns(patterns: Any) -> Sequence[str]:
    """Patterns of names, one or several, as a list."""
    given = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(given, (list, tuple)) or not given or any(type(one) is not str for one in given):
        msg = f'stages are patterns of the names of stages, such as "block_*", one or a list of some, but {shown(patterns)} was given.'
        raise TypeError(msg)
    return given
