"""How many floating-point operations one equation takes, counted from its shapes.

A multiply-add counts two, any other element of arithmetic one, moving data nothing: XLA's own
convention, so that counts and compiled programs can be compared. A transcendental counts one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from jaxchain.program.primitives import (
    FAMILY,
    MOVES,
    Jaxpr,
    JaxprEqn,
    bodies,
    branches_of,
    convolution_of,
    dot_of,
    fft_sizes,
    opened,
    shape_of,
    size_of,
)

__all__ = ["flops", "total_flops"]


def flops(eqn: JaxprEqn) -> float:
    """Floating-point operations of one equation; a loop's body as often as it runs, where that is known."""
    name = eqn.primitive.name
    if name in MOVES:
        return 0.0
    out = float(sum(map(size_of, eqn.outvars)))
    if name in RULES:
        return RULES[name](eqn, out)
    if FAMILY.get(name) in ("reduction", "cumulative", "window"):
        return float(size_of(eqn.invars[0]))
    inner = bodies(eqn)
    return sum(_body(body) * times for body, times in inner) if inner else out


def total_flops(equations: Iterable[JaxprEqn]) -> float:
    """Floating-point operations of several equations."""
    return sum(map(flops, equations), 0.0)


def _body(jaxpr: Jaxpr) -> float:
    return total_flops(jaxpr.eqns)


def _dot(eqn: JaxprEqn, out: float) -> float:
    shape = shape_of(eqn.invars[0])
    return 2.0 * out * math.prod(shape[axis] for axis in dot_of(eqn).contracted[0])


def _convolution(eqn: JaxprEqn, out: float) -> float:
    kernel = shape_of(eqn.invars[1])
    return 2.0 * out * math.prod(kernel) / kernel[convolution_of(eqn).kernel[0]]


def _fft(eqn: JaxprEqn, out: float) -> float:
    return 5.0 * out * max(math.log2(math.prod(fft_sizes(eqn))), 1.0)


RULES: dict[str, Callable[[JaxprEqn, float], float]] = {
    "cond": lambda eqn, _: max(_body(opened(branch)[0]) for branch in branches_of(eqn)),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "fft": _fft,
}
"""Primitive → operations of an equation with so many entries in its results."""
