"""A Jacobian within a memory limit: which way, and how many rows or columns at once.

XLA itself is asked what a compiled candidate needs; chunking changes memory, hardly work, so the
candidates are tried from the cheapest on and each with the largest chunk that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxchain.cost.measure import compiled_of
from jaxchain.program.primitives import function_of
from jaxchain.program.reading import abstract

__all__ = ["Candidate", "fit", "temporary_bytes"]

Candidate = Callable[[int | None], Callable[..., Any]]
"""``candidate(chunk_size)`` → the function that computes the Jacobian so."""


def fit(candidates: Sequence[Candidate], args: tuple[Any, ...], widest: int, limit: int) -> tuple[int, int | None]:
    """The first candidate that needs at most ``limit`` bytes of temporary memory, and the largest chunk size for it.

    Parameters
    ----------
    candidates
        Cheapest first.
    args
        What they are called with, as arrays or shapes.
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
    for number, candidate in enumerate(candidates):
        if (whole := temporary_bytes(candidate(None), args)) <= limit:
            return number, None
        if (smallest := temporary_bytes(candidate(1), args)) > limit:
            # Of small Jacobians, stacking the chunks may take more than all at once.
            least.append(min(whole, smallest))
            continue
        low, high = 1, max(widest, 2)
        while high > 2 * low:  # within a factor of two of the largest chunk that fits
            middle = int((low * high) ** 0.5)
            fits = temporary_bytes(candidate(middle), args) <= limit
            low, high = (middle, high) if fits else (low, middle)
        return number, low
    msg = f"memory_limit={limit} bytes cannot be met: the least that any mode needs is {min(least)} bytes."
    raise ValueError(msg)


def temporary_bytes(fun: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """Temporary memory of ``fun(*args)`` once compiled, in bytes; values it closed over may be tracers."""
    closed = jax.make_jaxpr(fun)(*args)
    consts = list(closed.consts)

    def lifted(consts: list[Any], leaves: list[Any]) -> Any:
        return function_of(closed.jaxpr, consts)(*leaves)

    shapes = abstract((consts, jax.tree.leaves(args)))
    memory = compiled_of(lifted, *shapes)[1].memory_analysis()
    return 0 if memory is None else int(memory.temp_size_in_bytes)
