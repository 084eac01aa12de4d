"""How many floating-point operations one equation takes, counted from its shapes.

A multiply-add counts two, any other element of arithmetic one, such as a product that is not summed, moving data
nothing: XLA's own convention, so that counts and compiled programs can be compared. A transcendental counts one, or
what XLA makes of it where that is a polynomial. Factorisations, which XLA hands to a library and counts as nothing on
some devices, take what the textbook says.

Reference: Golub and Van Loan, Matrix Computations, 4th ed., 2013, ch. 3-5, 7, 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from jaxchain.program.primitives import (
    FAMILY,
    MOVES,
    Jaxpr,
    JaxprEqn,
    axes_of,
    bodies,
    branches_of,
    convolution_of,
    dot_of,
    fft_sizes,
    names_in,
    ndim_of,
    opened,
    shape_of,
    size_of,
    window_along,
)

__all__ = ["flops", "summed", "total_flops"]


def flops(eqn: JaxprEqn) -> float:
    """Floating-point operations of one equation; a loop's body as often as it runs, where that is known."""
    name = eqn.primitive.name
    if name in MOVES:
        return 0.0
    out = float(sum(map(size_of, eqn.outvars)))
    if name in RULES:
        return RULES[name](eqn, out)
    if FAMILY.get(name) in ("reduction", "window"):
        return float(size_of(eqn.invars[0]))
    inner = bodies(eqn)
    return sum(_body(body) * times for body, times in inner) if inner else out


def total_flops(equations: Iterable[JaxprEqn]) -> float:
    """Floating-point operations of several equations."""
    return sum(map(flops, equations), 0.0)


def _body(jaxpr: Jaxpr) -> float:
    return total_flops(jaxpr.eqns)


def summed(sums: float, terms: float) -> float:
    """Operations of so many sums of so many products each: where it is one product, nothing is added."""
    return sums * terms * (2.0 if terms > 1 else 1.0)


def _dot(eqn: JaxprEqn, out: float) -> float:
    shape = shape_of(eqn.invars[0])
    return summed(out, math.prod(shape[axis] for axis in dot_of(eqn).contracted[0]))


def _convolution(eqn: JaxprEqn, out: float) -> float:
    kernel = shape_of(eqn.invars[1])
    return 2.0 * out * math.prod(kernel) / kernel[convolution_of(eqn).kernel[0]]


def _cumulative(eqn: JaxprEqn, out: float) -> float:
    each = 8.0 if eqn.primitive.name == "cumlogsumexp" else 1.0
    (axis,) = axes_of(eqn)
    return each * out * (min(shape_of(eqn.outvars[0])[axis], BLOCK) - 1)


def _window(each: float) -> Callable[[JaxprEqn, float], float]:
    """So many operations for an entry that joins those of a window."""

    def rule(eqn: JaxprEqn, out: float) -> float:
        axes = range(ndim_of(eqn.invars[0]))
        return each * out * (math.prod(window_along(eqn, axis).size for axis in axes) - 1)

    return rule


def _fft(eqn: JaxprEqn, out: float) -> float:
    return 5.0 * out * max(math.log2(math.prod(fft_sizes(eqn))), 1.0)


def _oblong(each: Callable[[int, int], float]) -> Callable[[JaxprEqn, float], float]:
    """A factorisation of matrices, each in so many operations of its longer and its shorter side."""

    def rule(eqn: JaxprEqn, _: float) -> float:
        *batch, m, n = shape_of(eqn.invars[0])
        return math.prod(batch) * each(max(m, n), min(m, n))

    return rule


def _reflections(long: int, short: int) -> float:
    """Householder's; Gaussian elimination takes half of it."""
    return 2 * long * short**2 - 2 * short**3 / 3


def _cubic(share: float) -> Callable[[JaxprEqn, float], float]:
    """A factorisation of n × n matrices in ``share`` · n³ operations."""
    return _oblong(lambda n, _: share * n**3)


def _triangular_solve(eqn: JaxprEqn, out: float) -> float:
    return out * shape_of(eqn.invars[0])[-1]


BLOCK = 16
"""XLA sums the entries before each one anew, in blocks of so many, and then the blocks."""

POLYNOMIALS = {
    "asinh": 11, "bessel_i0e": 83, "bessel_i1e": 83, "digamma": 73, "erf_inv": 37, "erfc": 60, "lgamma": 52, "sinh": 10,
}  # fmt: skip
"""Operations an entry of the functions that XLA expands."""

RULES: dict[str, Callable[[JaxprEqn, float], float]] = {
    **{name: lambda _, out, each=each: each * out for name, each in POLYNOMIALS.items()},
    **dict.fromkeys(names_in("cumulative"), _cumulative),
    "cholesky": _cubic(1 / 3),
    "cond": lambda eqn, _: max(_body(opened(branch)[0]) for branch in branches_of(eqn)),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "eig": _cubic(25),
    "eigh": _cubic(9),
    "fft": _fft,
    "geqrf": _oblong(_reflections),
    "hessenberg": _cubic(10 / 3),
    "householder_product": _oblong(_reflections),
    "lu": _oblong(lambda long, short: _reflections(long, short) / 2),
    "qr": _oblong(_reflections),
    "reduce_window_max": _window(1),
    "reduce_window_min": _window(1),
    "reduce_window_sum": _window(1),
    "schur": _cubic(25),
    "select_and_gather_add": _window(2),
    "svd": _oblong(lambda long, short: 4.0 * long**2 * short + 22.0 * short**3),
    "triangular_solve": _triangular_solve,
    "tridiagonal": _cubic(4 / 3),
    "tridiagonal_solve": lambda _, out: 8 * out,
}
"""Primitive → operations of an equation with so many entries in its results."""
