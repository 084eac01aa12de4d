"""The least work of a program's stages for every number of bytes, as `schedule` finds it, in bytes as XLA takes them."""

from __future__ import annotations

import math

import jax
import numpy as np

from jaxchain.memory.schedule import Part, Tables
from jaxchain.memory.stages import Pieces

__all__ = ["Curve", "Schedules", "front", "saves_unrolled"]

RESERVE = 0.12
"""The share of a limit that is left for what XLA aligns and copies."""

OWN = 512
"""Bytes that XLA takes for itself."""

SAVES_UNROLLED = (0, 11, 2)
"""Before this JAX the compiler for CPUs runs at once what was to be run again, outside loops, so that nothing is saved."""

Curve = tuple[tuple[int, float], ...]
"""(bytes, extra FLOPs), from the most bytes to the fewest."""


class Schedules:
    """The least extra work of some stages, for every number of bytes."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces, self.links, self.held = pieces, pieces.links, pieces.held + OWN
        self.coarse = Tables(self.links, max(_enough(pieces), 1))
        costs = self.coarse.work()
        steps = np.flatnonzero(costs < np.concatenate([[np.inf], costs[:-1]]))
        self.curve = tuple(
            (math.ceil(step * self.coarse.unit * (1 + RESERVE)) + self.held, float(costs[step])) for step in steps[::-1]
        )

    def extra(self, limit: int) -> float:
        """About the least extra FLOPs within a limit; infinite where it cannot be met."""
        return min((extra for size, extra in self.curve if size <= limit), default=math.inf)

    def enough(self, extra: float) -> int:
        """The fewest bytes that so much extra work is enough for."""
        return min((size for size, least in self.curve if least <= extra), default=self.curve[0][0])

    def best(self, limit: int | None) -> tuple[float, tuple[Part, ...]]:
        """The least extra FLOPs within a limit, and the schedule."""
        room = self.coarse.limit if limit is None else min(_room(limit - self.held), self.coarse.limit)
        # Near a limit memory is divided more finely; what is rounded up may then, once, be the more.
        divided = [self.coarse] if room == self.coarse.limit else [Tables(self.links, max(room, 1)), self.coarse]
        tables = min(divided, key=lambda t: t.within(room))
        return tables.within(room), tables.parts(room)


def front(*curves: Curve) -> Curve:
    """Of several curves the places than which no other takes fewer bytes and no more work; and where all is kept."""
    places, found = sorted(place for curve in curves for place in curve), list[tuple[int, float]]()
    for size, extra in places:
        if not found or extra < found[-1][1]:
            found.append((size, extra))
    most = curves[0][0]
    return (*([most] if found[-1] != most else []), *found[::-1])


def saves_unrolled() -> bool:
    """Whether the compiler runs again, outside loops, what is to be run again."""
    return jax.default_backend() != "cpu" or jax.__version_info__ >= SAVES_UNROLLED


def _room(size: int) -> int:
    """What is left of a number of bytes for what is counted."""
    return int(size / (1 + RESERVE)) + 1


def _enough(pieces: Pieces) -> int:
    """Bytes in which everything can be kept."""
    links = pieces.links
    kept = sum(ways[0].kept for ways in links.ways) + sum(links.states) + sum(links.waiting)
    return kept + max(
        (max(ways[0].peak, running) for ways, running in zip(links.ways, links.running, strict=True)), default=0
    )
