"""What every benchmark yields, and how two contenders are measured fairly.

A row is one figure with its target. Work and memory are XLA's; times are medians of calls taken in
turns, so that a machine that slows down slows all contenders alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxchain.jacobians.sparse import PATTERNS
from jaxchain.jacobians.unit import COUNTED
from jaxchain.show.table import si

__all__ = ["Row", "compile_seconds", "in_turns", "less", "quantity", "race"]


@dataclass(frozen=True)
class Row:
    """One figure: ours and the peer's in ``unit``, and the target for one number made of them.

    That number is ours over the peer's, to be ``at_most`` or ``at_least``; or the peer's over ours,
    which is to be ``at_least_less``; or ours itself, where there is no peer.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    at_least_less: float | None = None

    @property
    def judged(self) -> float:
        """The number that the target is about."""
        if self.peer is None:
            return self.ours
        above, below = (self.ours, self.peer) if self.at_least_less is None else (self.peer, self.ours)
        return above / below if below else math.inf if above else 1.0

    @property
    def holds(self) -> bool:
        """Whether it is within the target's bounds."""
        low = max(-math.inf if bound is None else bound for bound in (self.at_least, self.at_least_less))
        return low <= self.judged <= (math.inf if self.at_most is None else self.at_most)

    @property
    def target(self) -> str:
        """The bounds in words."""
        unit = "" if self.peer is not None else self.unit
        bounds = (("≥", self.at_least, ""), ("≤", self.at_most, ""), ("≥", self.at_least_less, "× less"))
        return " and ".join(
            f"{sign} {quantity(bound, unit)}{tail}" for sign, bound, tail in bounds if bound is not None
        )

    def verdict(self) -> str:
        """What was found against the target, in words."""
        return (
            f"{self.name}: {quantity(self.judged, '' if self.peer is not None else self.unit)}, target {self.target}."
        )

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        verdict = "yes" if self.holds else "NO"
        if self.peer is None:
            return self.name, quantity(self.ours, self.unit), "–", "–", self.target, verdict
        ratio = f"{self.judged:.3f}" if self.at_least_less is None else f"{self.judged:.1f}× less"
        return self.name, quantity(self.ours, self.unit), quantity(self.peer, self.unit), ratio, self.target, verdict


def less(name: str, ours: float, peer: float, unit: str, at_least: float) -> Row:
    """A row that claims ours to be so many times less."""
    return Row(name, ours, peer, unit, at_least_less=at_least)


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{value:.1%}" if unit == "%" else si(value, unit) if unit else f"{value:.3g}"


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int, least: float = 0.0) -> dict[str, float]:
    """Median seconds of each call, all of them taking turns, each round beginning with another one.

    A call shorter than ``least`` seconds is repeated so often in its turn that it takes as long.
    """
    often = {name: max(1, round(least / _seconds(call, 1))) if least else 1 for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for k in range(repeats):
        first = k % len(names)
        for name in names[first:] + names[:first]:  # what runs before leaves its mark on the caches
            seconds[name].append(_seconds(calls[name], often[name]))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _seconds(call: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / times


def race(functions: Mapping[str, Callable[..., Any]], *args: Any, repeats: int) -> dict[str, float]:
    """Median seconds of a call of each function, compiled and warm."""
    compiled = {name: jax.jit(fun).lower(*args).compile() for name, fun in functions.items()}
    calls: dict[str, Callable[[], Any]] = {name: lambda f=fun: f(*args) for name, fun in compiled.items()}
    in_turns(calls, 2)
    return in_turns(calls, repeats, least=1e-3)


def compile_seconds(functions: Mapping[str, Callable[..., Any]], *args: Any, repeats: int) -> dict[str, float]:
    """Median seconds to trace, lower and compile each function, as if for the first time."""

    def fresh(fun: Callable[..., Any]) -> Any:
        # A new function each time, and jaxchain's own memory cleared: both would remember what they have seen.
        COUNTED.clear()
        PATTERNS.clear()
        return jax.jit(lambda *given: fun(*given)).lower(*args).compile() and ()

    calls: dict[str, Callable[[], Any]] = {name: lambda f=fun: fresh(f) for name, fun in functions.items()}
    in_turns(calls, 1)
    return in_turns(calls, repeats)
