"""Which stages of two chains stand beside each other: in order, by the narrowest key that they share.

Longest common runs first, as `difflib` finds them; what lies between two runs is asked again by the next key.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher

__all__ = ["align"]

Keys = Sequence[Hashable]


def align(a: Sequence[Keys], b: Sequence[Keys]) -> list[tuple[int | None, int | None]]:
    """Pairs of places in ``a`` and ``b``, in the order of both; ``None`` where one has no counterpart.

    Parameters
    ----------
    a, b
        For each stage its keys, the narrowest first: equally many for all.

    Examples
    --------
    >>> align([("x", 3), ("y", 2)], [("x", 3), ("new", 5), ("z", 2)])
    [(0, 0), (None, 1), (1, 2)]
    """
    return _between(a, b, range(len(a)), range(len(b)), 0)


def _between(
    a: Sequence[Keys], b: Sequence[Keys], here: range, there: range, level: int
) -> list[tuple[int | None, int | None]]:
    if not here or not there or level == len(a[here[0]]):
        return [*((k, None) for k in here), *((None, k) for k in there)]
    keys = [a[k][level] for k in here], [b[k][level] for k in there]
    pairs: list[tuple[int | None, int | None]] = []
    i = j = 0
    for run in SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():  # the last is empty, at both ends
        pairs += _between(a, b, here[i : run.a], there[j : run.b], level + 1)
        i, j = run.a + run.size, run.b + run.size
        pairs += zip(here[run.a : i], there[run.b : j], strict=True)
    return pairs
