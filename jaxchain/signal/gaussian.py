"""Means under Gaussians of what an activation makes of one normal number, or of two correlated ones.

Activations bend: ReLU at zero, others elsewhere. The line is cut into panels at the bends, finer towards zero, so that
what lies between is smooth on the scale of a panel, and Gauss–Legendre quadrature is right to rounding; panels are
halved until the moments settle. Computed in float64, whatever JAX's default is. Builds on `derivative`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxchain.derivative import jvp
from jaxchain.nets.layers import Activation, activation_named

__all__ = ["Floats", "Nodes", "Rule", "nodes", "pair"]

Floats = NDArray[np.float64]

Which = Literal["value", "slope"]
WHICH: tuple[Which, ...] = ("value", "slope")

REACH = 12.0
"""Standard deviations beyond which nothing is left: exp(−12²/2) is 5e-32."""

PANEL, RADII, ANGLES = 24, 96, 32
"""Nodes of a panel; along a ray, and between two rays."""

HALVINGS, SETTLED = 6, 1e-10
"""How often panels are halved, and the relative change of a moment that ends it."""

PADDED = 1024
"""Points are evaluated in multiples of so many: few shapes are compiled."""

LARGEST_PAIR = 6000
"""The most nodes that are paired with each other."""

FLAT, TERMS = 0.9, 320
"""Up to which correlation a series is used, and its terms: 0.9^320 is 2e-15."""

RIDGE = 0.99
"""The correlation above which the density of two numbers is too narrow a ridge for the panels."""


@dataclass(frozen=True, eq=False)
class Rule:
    """An activation φ and its derivative φ′ at many points, in float64, and where φ bends."""

    name: str
    both: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    bends: Floats

    @classmethod
    def of(cls, activation: Activation) -> Rule:
        """The rule of an activation that is named, or given as a function of one array.

        Raises
        ------
        ValueError
            If the name is unknown, or the function does not work entry by entry on real numbers.
        """
        name, phi = activation_named(activation)
        try:
            hash(phi)
        except TypeError:
            return _rule.__wrapped__(name, phi)
        return _rule(name, phi)

    def __call__(self, points: Floats) -> tuple[Floats, Floats]:
        """Values φ and derivatives φ′ at ``points``, a vector."""
        return _evaluated(self.both, points)


@cache  # compiled once an activation
def _rule(name: str, phi: Callable[[jax.Array], jax.Array]) -> Rule:
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jvp(phi, x, jnp.ones_like(x))

    _check_entrywise(name, phi)
    compiled = jax.jit(both)
    return Rule(name, compiled, _bends(compiled))


def _check_entrywise(name: str, phi: Callable[[jax.Array], Any]) -> None:
    """Refuse what is no real function of single numbers."""
    points = np.array([-1.3, 0.4, 2.1], np.float32)
    try:
        traced = jax.jit(phi)
        whole, *alone = (np.asarray(traced(jnp.asarray(some))) for some in (points, *points.reshape(3, 1)))
        fits = all(one.shape == (1,) for one in alone) and whole.shape == (3,) and whole.dtype == points.dtype
        why = "" if fits else f"it made {whole.dtype}{list(whole.shape)} of float32[3]"
    except Exception as error:  # whatever a function of the caller's raises
        why = str(error).splitlines()[0]
    else:
        if fits and not np.allclose(whole, np.concatenate(alone), rtol=1e-4, equal_nan=True):
            why = "what it makes of a number depends on the others"
    if why:
        msg = f"An activation works entry by entry on real numbers, as JAX's do, but {name} does not: {why}."
        raise ValueError(msg)


def _evaluated(both: Callable[[jax.Array], tuple[jax.Array, jax.Array]], points: Floats) -> tuple[Floats, Floats]:
    padded = np.zeros(-(-len(points) // PADDED) * PADDED)
    padded[: len(points)] = points
    with jax.enable_x64(True):
        value, slope = both(jnp.asarray(padded))
        return np.asarray(value, np.float64)[: len(points)], np.asarray(slope, np.float64)[: len(points)]


def _bends(both: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Floats:
    """Where φ′ jumps between −64 and 64: between neighbours on a grid, then by bisection."""
    grid = np.linspace(-64.03125, 64.03125, 8200)
    slopes = _evaluated(both, grid)[1]
    jumps = np.abs(np.diff(slopes))
    at = np.flatnonzero(jumps > 1e-6 * max(np.abs(slopes).max(initial=0.0), 1e-300))
    low, high, first = grid[at], grid[at + 1], jumps[at]
    below, above = slopes[at], slopes[at + 1]
    for step in range(52):  # a float's digits
        if step == 8:  # where φ′ is smooth, its jump has shrunk with the interval
            kept = np.abs(above - below) > first / 4
            low, high, below, above, first = (ends[kept] for ends in (low, high, below, above, first))
        middle = (low + high) / 2
        between = _evaluated(both, middle)[1]
        left = np.abs(between - below) > np.abs(above - between)
        low, below = np.where(left, low, middle), np.where(left, below, between)
        high, above = np.where(left, middle, high), np.where(left, between, above)
    return ((low + high) / 2)[np.abs(above - below) > first / 4]  # at a bend itself JAX may say the mean


@cache
def _legendre(count: int) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


@dataclass(frozen=True)
class Nodes:
    """Quadrature of a normal number of some length: places, weights that add to one, φ and φ′ there."""

    place: Floats
    weight: Floats
    value: Floats
    slope: Floats

    def mean(self, of: Callable[[Nodes], Floats]) -> float:
        """The mean of what can be said at the nodes; infinity where that is beyond a float."""
        with np.errstate(over="ignore"):
            return float(self.weight @ of(self))

    @property
    def moments(self) -> Floats:
        """E φ² and E φ′²."""
        return np.array([self.mean(lambda n: n.value**2), self.mean(lambda n: n.slope**2)])


@lru_cache(maxsize=64)
def nodes(rule: Rule, length: float) -> Nodes:
    """Nodes for u = √q z, z standard normal.

    Raises
    ------
    ValueError
        If the moments of φ do not settle: it bends too often over the width of the Gaussian.
    """
    scale = np.sqrt(length)
    ladder = REACH * 0.5 ** np.arange(int(np.ceil(np.log2(REACH * max(scale, 1.0)))) + 5)
    bends = rule.bends / scale
    edges = np.unique(np.concatenate([-ladder, [0.0], ladder, bends[np.abs(bends) < REACH]]))
    known, change = _on_panels(rule, scale, edges), np.inf
    for _ in range(HALVINGS):
        moments = known.moments
        if np.isnan(moments).any():
            msg = f"{rule.name} is not a number (NaN) at some real numbers, so a normal number has no moments there."
            raise ValueError(msg)
        if np.isinf(moments).any():  # beyond a float, and so are the panels' halves
            return known
        edges = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
        known = _on_panels(rule, scale, edges)
        change = float(np.max(np.abs(known.moments - moments) / (np.abs(moments) + 1e-300)))
        if change <= SETTLED:
            return known
    if change > 1e-4:
        msg = f"{rule.name} bends too often over a Gaussian of variance {length:.3g} for its moments to be computed."
        raise ValueError(msg)
    return known


def _on_panels(rule: Rule, scale: float, edges: Floats) -> Nodes:
    points, weights = _legendre(PANEL)
    widths = np.diff(edges)
    z = (edges[:-1, None] + widths[:, None] * points).ravel()
    density = (widths[:, None] * weights).ravel() * np.exp(-np.square(z) / 2)
    return Nodes(scale * z, density / density.sum(), *rule(scale * z))


def pair(rule: Rule, length: float, correlation: float, what: Which) -> float:
    """E f(u) f(v) for two normal numbers of variance q and correlation c; ``what`` is f: ``"value"`` or ``"slope"``.

    Mehler's formula, Σ a_k² c^k with the coefficients of f in normalised Hermite polynomials, which serve all c. Where
    that converges slowly, on the nodes of either, with the density of both over the product of theirs; near c = ±1,
    where that is a ridge, in polar coordinates, as a difference from c = ±1, so that errors which both have cancel.
    """
    c = float(np.clip(correlation, -1.0, 1.0))
    if abs(c) <= FLAT:
        return float(np.polynomial.polynomial.polyval(c, _hermite(rule, length, what)))
    known = nodes(rule, length)
    f = getattr(known, what)
    if abs(c) <= RIDGE and len(f) <= LARGEST_PAIR:
        z = known.place / np.sqrt(length)
        # Mehler's kernel: the joint density over the product of the two normal ones.
        exponent = (c * np.multiply.outer(z, z) - c**2 * np.add.outer(z**2, z**2) / 2) / (1 - c**2)
        weighted = known.weight * f
        return float(weighted @ np.exp(exponent) @ weighted / np.sqrt(1 - c**2))
    end = np.sign(c)
    other = f if end > 0 else rule(-known.place)[WHICH.index(what)]
    return known.mean(lambda _: f * other) - (_polar(rule, length, end, what) - _polar(rule, length, c, what))


@lru_cache(maxsize=256)
def _hermite(rule: Rule, length: float, what: Which) -> Floats:
    """a_k² for k < TERMS, a_k = E f(√q z) h_k(z), h_k the Hermite polynomial of E h_k(z)² = 1."""
    known = nodes(rule, length)
    z, weighted = known.place / np.sqrt(length), known.weight * getattr(known, what)
    before, now, found = np.zeros_like(z), np.ones_like(z), np.empty(TERMS)
    for k in range(TERMS):
        found[k] = weighted @ now
        before, now = now, (z * now - np.sqrt(k) * before) / np.sqrt(k + 1)
    return np.square(found)


def _polar(rule: Rule, length: float, correlation: float, what: Which) -> float:
    """The same with u = √q r cos θ and v = √q r cos(θ − α), cos α = c, where either is zero on rays alone."""
    alpha = float(np.arccos(correlation))
    radii, along = _legendre(RADII)
    radii, along = REACH * radii, REACH * along
    steps, across = _legendre(ANGLES)
    rays = np.sort([-np.pi / 2, alpha - np.pi / 2, np.pi / 2, alpha + np.pi / 2, 3 * np.pi / 2])
    spans = np.diff(rays)
    angles = (rays[:-1, None] + spans[:, None] * steps).ravel()
    density = np.outer((spans[:, None] * across).ravel(), along * radii * np.exp(-np.square(radii) / 2))
    scaled = np.sqrt(length) * radii
    u, v = (np.outer(np.cos(turned), scaled).ravel() for turned in (angles, angles - alpha))
    which = WHICH.index(what)
    return float((rule(u)[which] * rule(v)[which]) @ density.ravel() / density.sum())
