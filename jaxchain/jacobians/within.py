"""A Jacobian within a memory limit: which way, in which chunks, and run as the very program that XLA measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax

from jaxchain.cost.budget import fit, temporary_bytes
from jaxchain.discovery.find import Found
from jaxchain.jacobians.decision import Decision, Mode, Way
from jaxchain.program.reading import lifted

__all__ = ["SIMPLE", "Run", "compiled", "within"]

SIMPLE: tuple[Way, Way] = ("reverse", "forward")

Run = Callable[..., Any]
"""What computes something of a traced function's arguments."""


def compiled(run: Run, shapes: tuple[Any, ...]) -> Run:
    """The same as one program, which is what XLA measured, also where nobody calls it under ``jax.jit``."""

    @cache
    def made() -> Run:
        of_values, values = lifted(run, shapes)
        return partial(jax.jit(of_values), values)

    return lambda *args: made()(*args)


def within(limit: int, found: Found, decision: Decision, mode: Mode, run: Callable[..., Any]) -> Decision:
    """The decision, or in ``mode="auto"`` a simple mode, and the chunks with which it keeps a memory limit.

    Parameters
    ----------
    limit
        Bytes.
    found, decision, mode
        The traced function, what was decided about it, and what was asked for.
    run
        ``run(found, decision, *args)``, what is then called, to the last operation: it is what is measured.

    Raises
    ------
    ValueError
        If the limit cannot be met; says the least that can.
    """
    ways = [decision]
    if mode == "auto":
        why = "The cheapest way does not keep within the memory limit."
        simple = [replace(decision, mode=way, why=why) for way in SIMPLE if way != decision.mode]
        ways += sorted(simple, key=lambda way: way.cost)

    def needs(way: Decision, chunk: int | None) -> int:
        return temporary_bytes(partial(run, found, replace(way, chunk_size=chunk)), found.shapes)

    number, chunk = fit([partial(needs, way) for way in ways], max(decision.sizes), limit)
    return replace(ways[number], chunk_size=chunk)
