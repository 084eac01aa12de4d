"""What is computed within a memory limit: which way, and how many vectors of a basis at once.

XLA itself is asked what a compiled candidate needs; chunking changes memory, hardly work, so the
candidates are tried from the cheapest on and each with the largest chunk that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxchain.cost.measure import compiled_of
from jaxchain.program.reading import abstract, lifted

__all__ = ["Needs", "fit", "temporary_bytes"]

Needs = Callable[[int | None], int]
"""``needs(chunk_size)`` → the bytes that a candidate takes so; ``None``: all vectors at once."""


def fit(candidates: Sequence[Needs], widest: int, limit: int) -> tuple[int, int | None]:
    """The first candidate that needs at most ``limit`` bytes, and the largest chunk size for it.

    Parameters
    ----------
    candidates
        Cheapest first.
    widest
        The most rows or columns that any step computes at once.
    limit
        Bytes.

    Raises
    ------
    ValueError
        If none fits, with the least that one needs.
    """
    least: list[int] = []
    for number, needs in enumerate(candidates):
        if (whole := needs(None)) <= limit:
            return number, None
        if (smallest := needs(1)) > limit:
            # Of small Jacobians, stacking the chunks may take more than all at once.
            least.append(min(whole, smallest))
            continue
        low, high = 1, max(widest, 2)
        while high > 2 * low:  # within a factor of two of the largest chunk that fits
            middle = int((low * high) ** 0.5)
            low, high = (middle, high) if needs(middle) <= limit else (low, middle)
        return number, low
    msg = f"memory_limit={limit} bytes cannot be met: the least that any mode needs is {min(least)} bytes."
    raise ValueError(msg)


def temporary_bytes(fun: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """Temporary memory of ``fun(*args)`` once compiled, in bytes; values it closed over may be tracers."""
    of_values, values = lifted(fun, args)
    memory = compiled_of(of_values, *abstract((values, *args)))[1].memory_analysis()
    return 0 if memory is None else int(memory.temp_size_in_bytes)
