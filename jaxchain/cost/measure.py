"""What a function costs once compiled: XLA's own count of operations and memory, and the clock.

XLA counts the body of a loop once, whatever its trip count; here each ``scan`` is counted as often
as it runs, from the length in the program.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from jaxchain.program.primitives import ClosedJaxpr, Jaxpr, JaxprEqn, any_equation, function_of, inner_programs, scan_of

__all__ = ["Measured", "compiled_of", "flops", "measure"]


@dataclass(frozen=True)
class Measured:
    """One function, compiled and run.

    Attributes
    ----------
    flops
        Floating-point operations of one call, loops counted as often as they run.
    peak_bytes
        Temporary memory of one call, in bytes, beside arguments and results.
    compile_seconds, run_seconds
        Time to trace, lower and compile; median time of a call, ``None`` where it was not run.
    result
        What the call returned.
    open_loops
        Whether it holds a ``while`` loop, whose trip count the program does not tell: its body is
        counted once, so ``flops`` is then a lower bound.
    calls
        How many were timed.
    """

    flops: float
    peak_bytes: int
    compile_seconds: float
    run_seconds: float | None
    result: Any
    open_loops: bool
    calls: int


def measure(
    fun: Callable[..., Any], *args: Any, repeats: int = 5, seconds: float = math.inf, most_bytes: float = math.inf
) -> Measured:
    """Compile ``fun`` for ``args``, ask XLA what it costs, and time calls of it.

    Parameters
    ----------
    fun, args
        What is compiled, and called.
    repeats
        How many calls are timed.
    seconds
        How long they may take together; the first call is made whatever it takes.
    most_bytes
        What needs more temporary memory is not run.
    """
    start = time.perf_counter()
    traced, compiled = compiled_of(fun, *args)
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    peak = 0 if memory is None else int(memory.temp_size_in_bytes)
    result, took = _timed(compiled, args, repeats, seconds) if peak <= most_bytes else (None, [])
    return Measured(
        flops=_once(compiled) + _again(traced.jaxpr),
        peak_bytes=peak,
        compile_seconds=compile_seconds,
        run_seconds=statistics.median(took) if took else None,
        result=result,
        open_loops=any_equation(traced.jaxpr.jaxpr, lambda eqn: eqn.primitive.name == "while"),
        calls=len(took),
    )


def _timed(compiled: Any, args: tuple[Any, ...], repeats: int, seconds: float) -> tuple[Any, list[float]]:
    """The result, and the seconds of each call; the first, which is slower, counts only where there is no time for more."""

    def timed() -> tuple[Any, float]:
        start = time.perf_counter()
        return jax.block_until_ready(compiled(*args)), time.perf_counter() - start

    with jax.disable_jit(False):  # as `compiled_of`
        result, first = timed()
        room = max(seconds / first - 1, 0)
        return result, [timed()[1] for _ in range(int(min(repeats, room)))] or [first]


def flops(fun: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one compiled call; ``args`` may be ``ShapeDtypeStruct``."""
    traced, compiled = compiled_of(fun, *args)
    return _once(compiled) + _again(traced.jaxpr)


def compiled_of(fun: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """What JAX traces of a function, and what XLA compiles; ``args`` may be ``ShapeDtypeStruct``."""
    with jax.disable_jit(False):  # XLA is asked what it would make of it, also where nothing is compiled to be run
        traced = jax.jit(fun).trace(*args)
        return traced, traced.lower().compile()


def _once(compiled: Any) -> float:
    return float((compiled.cost_analysis() or {}).get("flops", 0.0))


def _again(closed: ClosedJaxpr) -> float:
    """FLOPs of all iterations of all scans after each one's first, which XLA has counted."""
    return sum(
        _iterations_after_first(eqn) for eqn in _walk(closed.jaxpr, into_scans=False) if eqn.primitive.name == "scan"
    )


def _iterations_after_first(eqn: JaxprEqn) -> float:
    loop = scan_of(eqn)
    body = function_of(loop.body.jaxpr, loop.body.consts)
    once = _once(compiled_of(body, *loop.body.in_avals)[1])
    return max(loop.length - 1, 0) * once + loop.length * _again(loop.body)


def _walk(jaxpr: Jaxpr, *, into_scans: bool = True) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        yield eqn
        if into_scans or eqn.primitive.name != "scan":
            for inner in inner_programs(eqn):
                yield from _walk(inner, into_scans=into_scans)
