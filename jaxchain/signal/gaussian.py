"""Means under Gaussians of what an activation makes of one normal number, or of two correlated ones.

Activations bend: ReLU at zero, others elsewhere. The line is cut into panels at the bends, finer towards zero, so that
what lies between is smooth on the scale of a panel, and Gauss–Legendre quadrature is right to rounding; panels are
halved until the moments settle. Computed in float64, whatever JAX's default is. Builds on `derivative`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxchain.derivative import jvp
from jaxchain.nets.layers import Activation, activation_named

__all__ = ["Floats", "Nodes", "Rule", "nodes", "pair"]

Floats = NDArray[np.float64]

Both = Callable[[jax.Array | Floats], tuple[jax.Array, jax.Array]]
"""φ and φ′ at points."""

Which = Literal["value", "slope"]
WHICH: tuple[Which, ...] = ("value", "slope")

REACH = 12.0
"""Standard deviations beyond which nothing is left: exp(−12²/2) is 5e-32."""

PANEL, RADII, ANGLES = 24, 96, 32
"""Nodes of a panel; along a ray, and between two rays."""

HALVINGS, SETTLED = 6, 1e-10
"""How often panels are halved, and the relative change of a moment that ends it."""

BLOCK = 4096
"""Points are evaluated so many at once: one shape is compiled."""

LARGEST_PAIR = 6000
"""The most nodes that are paired with each other."""

FLAT, TERMS, LEFT = 0.9, 320, 1e-14
"""Up to which correlation a series is used, and its terms: 0.9^320 is 2e-15. Where no more than ``LEFT`` of the mean
square lies beyond them, as for smooth activations, it is used up to 1."""

RIDGE = 0.99
"""The correlation above which the density of two numbers is too narrow a ridge for the panels."""


@dataclass(frozen=True, eq=False)
class Rule:
    """An activation φ and its derivative φ′ at many points, in float64, and where φ bends."""

    name: str
    both: Both
    bends: Floats
    scales: bool
    """Whether φ(s x) = s φ(x) for s > 0, as for ReLU: one length then stands for all."""

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


@lru_cache(maxsize=64)  # compiled once an activation
def _rule(name: str, phi: Callable[[jax.Array], jax.Array]) -> Rule:
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jvp(phi, x, jnp.ones_like(x))

    compiled = jax.jit(both)
    _check_entrywise(name, phi, compiled)
    return Rule(name, compiled, _bends(compiled), _scales(compiled))


def _check_entrywise(name: str, phi: Callable[[jax.Array], Any], both: Both) -> None:
    """Refuse what is no real function of single numbers."""
    why = ""
    try:
        for given in (jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)):
            made = jax.eval_shape(phi, given)
            if (made.shape, made.dtype) != (given.shape, given.dtype):
                why = f"it made {made.dtype}{list(made.shape)} of float32{list(given.shape)}"
                break
        else:
            points = np.linspace(-2.0, 2.0, BLOCK)
            among, other = (_evaluated(both, some)[0] for some in (points, np.where(points > 1, 3.0, points)[::-1]))
            if not np.allclose(among[points <= 1], other[::-1][points <= 1], rtol=1e-4, equal_nan=True):
                why = "what it makes of a number depends on the others"
    except Exception as error:  # whatever a function of the caller's raises
        why = str(error).splitlines()[0]
    if why:
        msg = f"An activation works entry by entry on real numbers, as JAX's do, but {name} does not: {why}."
        raise ValueError(msg)


def _evaluated(both: Both, points: Floats) -> tuple[Floats, Floats]:
    padded = np.zeros((max(1, -(-len(points) // BLOCK)), BLOCK))
    padded.flat[: len(points)] = points
    with jax.enable_x64(True):
        blocks = [both(block) for block in padded]
    values, slopes = (np.concatenate([np.asarray(of, np.float64) for of in some]) for some in zip(*blocks, strict=True))
    return values[: len(points)], slopes[: len(points)]


def _scales(both: Both) -> bool:
    """Whether φ(s x) = s φ(x), to the last bit where s is a power of two."""
    points = np.linspace(-3.0, 3.0, BLOCK // 8)
    powers = 2.0 ** np.arange(-60, 61, 17.0)[:, None]
    values, slopes = (of.reshape(-1, len(points)) for of in _evaluated(both, (powers * points).ravel()))
    return bool((values == powers * values[:1] / powers[0]).all() and (slopes == slopes[:1]).all())


def _bends(both: Both) -> Floats:
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


@lru_cache(maxsize=64)
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
    if rule.scales and length != 1:
        unit = nodes(rule, 1.0)
        return Nodes(scale * unit.place, unit.weight, scale * unit.value, unit.slope)
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


@lru_cache(maxsize=256)
def pair(rule: Rule, length: float, correlation: float, what: Which) -> float:
    """E f(u) f(v) for two normal numbers of variance q and correlation c; ``what`` is f: ``"value"`` or ``"slope"``.

    Mehler's formula, Σ a_k² c^k with the coefficients of f in normalised Hermite polynomials, which serve all c. Where
    that converges slowly, on the nodes of either, with the density of both over the product of theirs; near c = ±1,
    where that is a ridge, in polar coordinates. There both are differences from c = ±1, so that errors which either
    side has cancel.
    """
    c = float(np.clip(correlation, -1.0, 1.0))
    if rule.scales and length != 1:
        return pair(rule, 1.0, c, what) * (length if what == "value" else 1.0)
    known, squares = nodes(rule, length), _hermite(rule, length, what)
    if abs(c) <= FLAT:
        return float(np.polynomial.polynomial.polyval(c, squares))
    f, end = getattr(known, what), np.sign(c)
    whole = known.mean(lambda _: np.square(f))
    if whole - squares.sum() <= LEFT * whole:
        order = np.arange(TERMS)
        other = whole if end > 0 else float((-1.0) ** order @ squares)
        return other + float(end**order * np.expm1(order * np.log(abs(c))) @ squares)
    if abs(c) <= RIDGE and len(f) <= LARGEST_PAIR:
        z = known.place / np.sqrt(length)
        # Mehler's kernel: the joint density over the product of the two normal ones.
        exponent = (c * np.multiply.outer(z, z) - c**2 * np.add.outer(z**2, z**2) / 2) / (1 - c**2)
        weighted = known.weight * f
        return float(weighted @ np.exp(exponent) @ weighted / np.sqrt(1 - c**2))
    at_end = whole if end > 0 else known.mean(lambda n: f * rule(-n.place)[WHICH.index(what)])
    return at_end if abs(c) == 1 else at_end - (_polar(rule, length, end, what) - _polar(rule, length, c, what))


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


@lru_cache(maxsize=64)
def _polar(rule: Rule, length: float, correlation: float, what: Which) -> float:
    """The same with u = √q r cos θ and v = √q r cos(θ − α), cos α = c, where either is zero on rays alone."""
    alpha, radii, radial = float(np.arccos(correlation)), *_along_rays(rule, length, what)
    steps, across = _legendre(ANGLES)
    rays = np.sort([-np.pi / 2, alpha - np.pi / 2, np.pi / 2, alpha + np.pi / 2, 3 * np.pi / 2])
    spans = np.diff(rays)
    angles = (rays[:-1, None] + spans[:, None] * steps).ravel()
    density = np.outer((spans[:, None] * across).ravel() / (2 * np.pi), radial).ravel()
    u, v = (np.outer(np.cos(turned), radii).ravel() for turned in (angles, angles - alpha))
    which = WHICH.index(what)
    return float((rule(u)[which] * rule(v)[which]) @ density)


def _along_rays(rule: Rule, length: float, what: Which) -> tuple[Floats, Floats]:
    """Places √q r along a ray and their weights; of what scales one, as ∫ r³ exp(−r²/2) dr = 2 and ∫ r exp(−r²/2) dr = 1."""
    if rule.scales:
        return np.sqrt([length]), np.array([2.0 if what == "value" else 1.0])
    points, along = _legendre(RADII)
    radii = REACH * points
    density = along * radii * np.exp(-np.square(radii) / 2)
    return np.sqrt(length) * radii, density / density.sum()
