"""What products with a Jacobian tell of it: its largest singular values, ‖J‖_F² and log-volume, J never formed.

Golub–Kahan–Lanczos from a random start, J V = U B, gives the first; random probes, of what V leaves over, the second;
stochastic Lanczos quadrature the third. All three are matfree's. Builds on `derivative`.

References: Golub and Van Loan, Matrix Computations, 4th ed., sec. 10.4; Ubaru, Chen and Saad, Fast estimation of
tr f(A) via stochastic Lanczos quadrature, 2017; Meyer et al., Hutch++, 2021; Krämer et al., arXiv 2405.17277 (matfree).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jaxchain.derivative import Linear
from jaxchain.meshes import on_host, spread
from jaxchain.show.extremes import Floats

__all__ = [
    "DEPTH",
    "PROBES",
    "RULES",
    "Bidiagonal",
    "Draws",
    "Largest",
    "Operator",
    "Sums",
    "bidiagonal",
    "draws",
    "largest",
    "sums",
    "volume",
]

PROBES = 8
"""Random probes of ‖J‖_F², a push each."""

RULES, DEPTH = 4, 4
"""Random probes of the log-volume, and on each the nodes of a quadrature, a push and a pull each."""

NUDGE = 4.0
"""Roundings by which the operator is disturbed, so that a start vector never lies in an invariant subspace."""

ZERO = 32.0
"""A singular value of so many roundings of the largest cannot be told from zero."""

Product = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True, eq=False)
class Operator:
    """J by its products with vectors of the default float.

    Attributes
    ----------
    push, pull
        J v and Jᵀ u.
    rows, columns
        Lengths of u and v.
    """

    push: Product
    pull: Product
    rows: int
    columns: int

    @classmethod
    def of(cls, linear: Linear) -> Operator:
        """A function at a state; its own products may be of another precision."""
        for mode in ("forward", "reverse"):  # linearised here, not inside of a loop
            linear.value(mode)
        wide = _wide()
        return cls(
            lambda v: linear.push(v.astype(linear.here.dtype)).astype(wide),
            lambda u: linear.pull(u.astype(linear.there.dtype)).astype(wide),
            linear.there.size,
            linear.here.size,
        )

    def over(self, sharding: Sharding | None) -> Operator:
        """The same with vectors' entries over devices, as far as they go round: theirs, and those of Krylov bases."""

        def spread_out(product: Product) -> Product:
            return lambda v: spread(product(spread(v, sharding)), sharding)

        return self if sharding is None else replace(self, push=spread_out(self.push), pull=spread_out(self.pull))

    @property
    def transposed(self) -> Operator:
        """Jᵀ."""
        return Operator(self.pull, self.push, self.columns, self.rows)

    @property
    def tall(self) -> Operator:
        """Whichever of the two has no more columns than rows: its singular values are all of its columns'."""
        return self if self.columns <= self.rows else self.transposed


class Draws(NamedTuple):
    """What is left to chance, the same at every call: drawn by NumPy, since XLA's generators take long to compile."""

    start: Any
    """Random signs, of unit length together (columns,)."""
    noise: Any
    """By how much the first entries of J v are disturbed, over those of v and the scale."""
    probes: Any
    """Normal numbers (PROBES, columns)."""
    rules: Any
    """Random signs (RULES, columns)."""


def draws(rows: int, columns: int, m: int, n: int) -> Draws:
    """Of an operator of such vectors, of which the first m and n entries are coordinates and the others stay zero."""
    rng, wide = np.random.default_rng(0), _wide()
    counts = np.arange(columns) < n
    signs, normal = rng.choice([-1.0, 1.0], (1 + RULES, columns)), rng.normal(size=(PROBES, columns))
    noise = np.zeros(min(rows, columns), wide)
    noise[: min(m, n)] = rng.uniform(-1, 1, min(m, n)) * (NUDGE * jnp.finfo(wide).eps)
    start, probes, rules = ((numbers * counts).astype(wide) for numbers in (signs[0] / math.sqrt(n), normal, signs[1:]))
    return Draws(start, noise, probes, rules)


class Bidiagonal(NamedTuple):
    """J V = scale · U B, with t orthonormal columns in V and U, the first of V random. A pytree."""

    scale: jax.Array
    upper: jax.Array
    """B (t, t)."""
    tail: jax.Array
    """Jᵀ U − V Bᵀ has its last column alone, of this norm (over the scale)."""
    right: jax.Array
    """Vᵀ (t, n)."""


class Sums(NamedTuple):
    """Means over probes and their standard errors, J divided by the scale. A pytree."""

    rest: jax.Array
    """‖J (I − V Vᵀ)‖_F²: what is beside ‖B‖_F²."""
    rest_error: jax.Array
    volume: jax.Array
    """Σ log σ over all n."""
    volume_error: jax.Array


@dataclass(frozen=True)
class Largest:
    """The largest singular values, each from below, and how far at most one of J's own is from it."""

    sigma: Floats
    errors: Floats


def _wide() -> Any:
    return jnp.result_type(float)


def _length(vector: jax.Array) -> jax.Array:
    """A norm whose squares stay within a float: after a hundred saturated layers J is of order 1e-30."""
    most = jnp.max(jnp.abs(vector), initial=0)
    return most * jnp.linalg.norm(vector / jnp.where(most > 0, most, 1))


def scaled(operator: Operator, given: Draws) -> tuple[jax.Array, Operator]:
    """‖J v‖ of a random unit v; and J over that, disturbed by some roundings.

    From an exact invariant subspace (of an identity, of a ReLU's zeros and ones) Lanczos could not go on: the next
    vector would be 0/0. A disturbance E moves no singular value by more than ‖E‖ (Golub and Van Loan, sec. 8.6).
    """
    scale = _length(operator.push(given.start))
    divisor, both = jnp.where(scale > 0, scale, 1), len(given.noise)

    def disturbed(product: Product) -> Product:
        return lambda v: (product(v) / divisor).at[:both].add(given.noise * v[:both])

    return scale, replace(operator, push=disturbed(operator.push), pull=disturbed(operator.pull))


def _transposable(operator: Operator) -> Product:
    """The push, whose own transpose, by which matfree goes back, is the pull: that of the model's own reverse rules."""
    product = jax.custom_vjp(operator.push)
    product.defvjp(lambda v: (operator.push(v), None), lambda _, u: (operator.pull(u),))
    return product


def bidiagonal(operator: Operator, given: Draws, steps: int) -> tuple[Bidiagonal, Operator]:
    """``steps`` steps, one push and one pull each, with full reorthogonalisation; and the scaled operator."""
    from matfree import decomp

    scale, unit = scaled(operator, given)
    found = decomp.bidiag(steps)(_transposable(unit), jnp.asarray(given.start))
    _, right = found.Q_tall
    return Bidiagonal(scale, jnp.asarray(found.J_small), jnp.linalg.norm(found.residual), right), unit


def sums(unit: Operator, given: Draws, right: jax.Array) -> Sums:
    """``PROBES`` pushes, and ``RULES`` quadratures of ``DEPTH`` pushes and pulls.

    What lies in the Krylov space is known, ‖J V‖_F = ‖B‖_F, so only what is orthogonal to it is left to chance.
    """
    from matfree import decomp, funm, stochtrace

    spare = jnp.count_nonzero(given.start) - len(right)

    def beside(v: jax.Array) -> jax.Array:
        rest = v - right.T @ (right @ v)
        # Of the length that it has on average: only its direction is left to chance (Epperly, arXiv 2512.15929).
        return unit.push(rest * jnp.sqrt(spare) / jnp.maximum(_length(rest), jnp.finfo(rest.dtype).tiny))

    floor = (ZERO * jnp.finfo(_wide()).eps) ** 2
    log_sigma = funm.dense_funm_product_svd(lambda square: jnp.log(jnp.maximum(square, floor)) / 2)
    quadrature = funm.monte_carlo_funm_product(log_sigma, decomp.bidiag(DEPTH))
    means: list[jax.Array] = []
    for integrand, product, probes in (
        (stochtrace.monte_carlo_frobeniusnorm_squared(), beside, given.probes),
        (quadrature, _transposable(unit), given.rules),
    ):
        estimate = stochtrace.estimator_monte_carlo_mean_and_sem(integrand, lambda drawn: drawn)
        mean, error = estimate(product, jnp.asarray(probes))
        count = len(probes)
        means += [mean, error * math.sqrt(count / (count - 1))]  # matfree's divides by the count, not by one less
    return Sums(*means)


Found = tuple[Bidiagonal, Sums | None]


def found(operator: Operator, given: Draws, steps: int, *, estimate: bool) -> Found:
    """The bidiagonal form; with ``estimate`` also the sums."""
    form, unit = bidiagonal(operator, given, steps)
    return form, sums(unit, given, form.right) if estimate else None


def _decomposed(found: Bidiagonal) -> tuple[Floats, Floats, Floats]:
    return np.linalg.svd(on_host(found.upper).astype(np.float64))


def largest(found: Bidiagonal, count: int) -> Largest:
    """The ``count`` largest that the steps found."""
    left, sigma, _ = _decomposed(found)
    scale = float(found.scale)
    return Largest(scale * sigma[:count], scale * float(found.tail) * np.abs(left[-1, :count]))


def volume(found: Bidiagonal, estimated: Sums, n: int) -> tuple[float, float]:
    """Σ log σ over n singular values, and its error.

    A quadrature of few nodes sees little of the smallest. What many nodes change on one probe, the start vector, is
    added; and it is counted as an error, too, since it is not known to be all. −∞ where one cannot be told from zero.
    """
    _, sigma, right = _decomposed(found)
    scale, most = float(found.scale), ZERO * float(jnp.finfo(found.upper.dtype).eps)
    if not scale or sigma[-1] <= most * sigma[0]:
        return -math.inf, 0.0
    _, few, across = np.linalg.svd(on_host(found.upper).astype(np.float64)[:DEPTH, :DEPTH])
    more = n * float(right[:, 0] ** 2 @ np.log(sigma) - across[:, 0] ** 2 @ np.log(few))
    return float(estimated.volume) + more + n * math.log(scale), math.hypot(float(estimated.volume_error), more)
