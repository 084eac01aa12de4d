"""Mean-field theory of signal propagation: how lengths, correlations and gradients pass one wide random layer.

A layer is h ↦ W φ(h) + b with independent weights of variance σ_w²/n and biases of variance σ_b². In the limit of
wide layers every pre-activation is normal, of variance q (the *length*), and two inputs' have a correlation c; a layer
maps both, and where these maps rest says whether a deep network passes anything on. A convolution is such a layer, its
n being that of one kernel. Builds on `gaussian`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxchain.checks import number
from jaxchain.nets.layers import Activation
from jaxchain.signal.gaussian import Rule, nodes, pair

__all__ = ["DepthScales", "Layer", "chi", "critical_line", "depth_scales", "fixed_correlation", "fixed_point"]

SMALL, LARGE = 1e-20, 1e20
"""What stands for the lengths 0 and ∞, at which an activation's limits are read off."""

SETTLING, NEWTON = 200, 100
"""Layers that are walked through before the fixed point is solved for, and the most steps of that."""

CLOSE, ROUNDED = 1e-14, 1e-6
"""What counts as the same length; and how far from a double zero of V(q) − q rounding may leave its root."""


@dataclass(frozen=True)
class Layer:
    """One wide layer W φ(h) + b: what it makes of lengths and correlations."""

    rule: Rule
    weight: float
    bias: float

    @classmethod
    def of(cls, activation: Activation, sigma_w: float, sigma_b: float) -> Layer:
        """The layer of an activation, σ_w and σ_b, once these are numbers that are not negative."""
        weight = number("sigma_w", sigma_w, "the scale of the weights")
        bias = number("sigma_b", sigma_b, "the scale of the biases")
        return cls(Rule.of(activation), weight * weight, bias * bias)

    def length(self, q: float) -> float:
        """The length map, q ↦ σ_w² E φ(√q z)² + σ_b²."""
        return self.weight * nodes(self.rule, _within(q)).mean(lambda n: n.value**2) + self.bias

    def length_slope(self, q: float) -> float:
        """Its derivative; by Stein's lemma σ_w² E [φ′² + φ φ″], here without φ″, which ReLU has not."""
        q = _within(q)
        return self.weight * nodes(self.rule, q).mean(lambda n: n.value * n.slope * n.place) / q

    def chi(self, q: float) -> float:
        """χ = σ_w² E φ′(√q z)²: by what a layer multiplies squared norms of gradients, and of small tangents."""
        return self.weight * self.slope_moment(q, 2)

    def slope_moment(self, q: float, power: int) -> float:
        """E φ′(√q z)^power."""
        return nodes(self.rule, _within(q)).mean(lambda n: n.slope**power)

    def correlation(self, q: float, c: float) -> float:
        """The correlation map at equal lengths, c ↦ (σ_w² E φ(u) φ(v) + σ_b²) / V(q); c itself where nothing is left."""
        q = _within(q)
        length = self.length(q)
        return (self.weight * pair(self.rule, q, c, "value") + self.bias) / length if length else c

    def correlation_slope(self, q: float, c: float) -> float:
        """Its derivative, σ_w² E φ′(u) φ′(v) · q / V(q)."""
        q = _within(q)
        length = self.length(q)
        return self.weight * pair(self.rule, q, c, "slope") * q / length if length else 0.0

    def rest(self, start: float = 1.0) -> float:
        """Where the length map leads from a length: its fixed point there, or infinity."""
        q = start
        for _ in range(SETTLING):  # into the basin of one fixed point
            q, before = self.length(q), q
            if q > LARGE:
                return math.inf
            if abs(q - before) <= CLOSE * q:
                return q
        for _ in range(NEWTON):  # and to it, however slowly the map itself gets there: Steffensen's method
            first = self.length(q)
            if abs(first - q) <= CLOSE * max(q, first):
                break
            bend = self.length(first) - 2 * first + q
            if first > q and bend >= 0:  # growing, and no slower than before
                return math.inf
            q, grows = (q - (first - q) ** 2 / bend if bend else first), first > q
            if q <= SMALL:
                return math.inf if grows else 0.0
        # Where the origin only just attracts, what rounding leaves of a length is not one.
        return 0.0 if q < ROUNDED and self.length(0.0) <= ROUNDED and self.length_slope(0.0) <= 1 + ROUNDED else q


def _root(f: Callable[[float], float], start: float, stop: float) -> float:
    # Loaded here: whoever trains or diagnoses would wait for it, and few need a root.
    from scipy.optimize import root_scalar

    return float(root_scalar(f, bracket=(start, stop), xtol=1e-13).root)


def _within(q: float) -> float:
    """A length at which an activation can be evaluated."""
    return SMALL if q == 0 else LARGE if math.isinf(q) else min(max(q, 1e-250), 1e250)


class DepthScales(NamedTuple):
    """Over how many layers a length, and a correlation, comes nearer to its fixed point by a factor of e.

    Examples
    --------
    >>> jc.signal.depth_scales("identity", sigma_w=1.0, sigma_b=0.0)  # nothing ever changes
    DepthScales(length=inf, correlation=inf)
    """

    length: float
    correlation: float


def fixed_point(activation: Activation, *, sigma_w: float, sigma_b: float) -> float:
    """The length q* that pre-activations settle at: q* = σ_w² E φ(√q* z)² + σ_b².

    Parameters
    ----------
    activation
        A name in `jaxchain.nets.ACTIVATIONS`, or any function of one array that works entry by entry.
    sigma_w, sigma_b
        Weights have variance σ_w²/n_in, biases σ_b².

    Returns
    -------
    float
        The limit of the lengths from q = 1; 0 where signals die, infinity where they grow without bound (ReLU above
        σ_w² = 2). Where every length stays as it is (ReLU at σ_w² = 2, σ_b = 0) it is 1.
        A number of the host, computed in float64; not for use under ``jit``.

    Raises
    ------
    ValueError
        If a scale is negative or not finite, or the activation is unknown or not elementwise.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos, arXiv 1606.05340.

    Examples
    --------
    >>> f"{jc.signal.fixed_point('tanh', sigma_w=1.5, sigma_b=0.0):.4f}"
    '0.7934'
    >>> jc.signal.fixed_point("relu", sigma_w=2.0, sigma_b=0.0)
    inf
    """
    return Layer.of(activation, sigma_w, sigma_b).rest()


def chi(activation: Activation, *, sigma_w: float, sigma_b: float) -> float:
    """By what a deep layer multiplies the mean squared norm of gradients: χ₁ = σ_w² E φ′(√q* z)².

    Parameters
    ----------
    activation, sigma_w, sigma_b
        As in `fixed_point`.

    Returns
    -------
    float
        Below 1 gradients vanish (the ordered phase), above 1 they explode (the chaotic phase).
        A number of the host, computed in float64; not for use under ``jit``.

    Raises
    ------
    ValueError
        As `fixed_point`.

    References
    ----------
    Poole et al., arXiv 1606.05340; Schoenholz et al., Deep information propagation, arXiv 1611.01232.

    Examples
    --------
    >>> round(jc.signal.chi("relu", sigma_w=2**0.5, sigma_b=0.0), 12)  # He's initialisation
    1.0
    """
    layer = Layer.of(activation, sigma_w, sigma_b)
    return layer.chi(layer.rest())


def fixed_correlation(activation: Activation, *, sigma_w: float, sigma_b: float) -> float:
    """The correlation c* that the pre-activations of two inputs settle at.

    Parameters
    ----------
    activation, sigma_w, sigma_b
        As in `fixed_point`.

    Returns
    -------
    float
        1 in the ordered phase, where all inputs come to look alike; below 1 in the chaotic one.
        A number of the host, computed in float64; not for use under ``jit``.

    Raises
    ------
    ValueError
        As `fixed_point`.

    References
    ----------
    Poole et al., arXiv 1606.05340.

    Examples
    --------
    >>> jc.signal.fixed_correlation("tanh", sigma_w=0.9, sigma_b=0.1)
    1.0
    """
    layer = Layer.of(activation, sigma_w, sigma_b)
    return _settled(layer, layer.rest())


def _settled(layer: Layer, q: float) -> float:
    """Where correlations rest at length q.

    The map is a power series in c without negative terms (Mehler's formula), so it is convex on [0, 1]. It passes
    through (1, 1); another fixed point lies below that exactly where its slope there is above 1.
    """
    if layer.correlation_slope(q, 1.0) <= 1 + 1e-9:
        return 1.0

    def above(c: float) -> float:
        return layer.correlation(q, c) - c

    return 0.0 if above(0.0) <= CLOSE else _root(above, 0.0, _below_one(above))


def _below_one(above: Callable[[float], float]) -> float:
    """A correlation near 1 at which the map is already below the diagonal."""
    gap = 0.5
    while above(1 - gap) >= 0 and gap > 1e-12:
        gap /= 2
    return 1 - gap


def depth_scales(activation: Activation, *, sigma_w: float, sigma_b: float) -> DepthScales:
    """Over how many layers signals settle: ξ_q = −1/ln V′(q*) and ξ_c = −1/ln C′(c*).

    Networks train up to a few ξ_c deep. In the ordered phase ξ_c is −1/ln χ₁, which is also how gradients vanish.

    Parameters
    ----------
    activation, sigma_w, sigma_b
        As in `fixed_point`.

    Returns
    -------
    DepthScales
        ``.length`` (ξ_q) and ``.correlation`` (ξ_c), in layers; infinity where a map never settles.
        Numbers of the host, computed in float64; not for use under ``jit``.

    Raises
    ------
    ValueError
        As `fixed_point`.

    References
    ----------
    Schoenholz et al., arXiv 1611.01232, equations 7 and 9.

    Examples
    --------
    >>> scales = jc.signal.depth_scales("tanh", sigma_w=1.1, sigma_b=0.2)
    >>> f"{scales.length:.2f} {scales.correlation:.2f}"
    '1.98 7.07'
    """
    layer = Layer.of(activation, sigma_w, sigma_b)
    q = layer.rest()
    if math.isinf(q):
        return DepthScales(math.inf, _scale(layer.correlation_slope(q, _settled(layer, q))))
    return DepthScales(_scale(layer.length_slope(q)), _scale(layer.correlation_slope(q, _settled(layer, q))))


def _scale(slope: float) -> float:
    """The depth over which slope^l falls by e."""
    if slope >= 1 - 1e-12:
        return math.inf
    return -1 / math.log(slope) if slope > 0 else 0.0


def critical_line(activation: Activation, *, sigma_b: float) -> float:
    """The σ_w at which gradients neither vanish nor explode: χ₁(σ_w, σ_b) = 1.

    Along the line, a length q fixes both: σ_w² = 1 / E φ′(√q z)² and σ_b² = q − σ_w² E φ(√q z)². The q that gives the
    asked-for σ_b is looked for.

    Parameters
    ----------
    activation
        As in `fixed_point`.
    sigma_b
        The scale of the biases.

    Returns
    -------
    float
        σ_w; where no finite length has that σ_b (ReLU, which keeps lengths at σ_w² = 2, and its like), the one at
        which gradients keep their norm while lengths grow; NaN where there is none.
        A number of the host, computed in float64; not for use under ``jit``.

    Raises
    ------
    ValueError
        As `fixed_point`.

    References
    ----------
    Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232.

    Examples
    --------
    >>> round(jc.signal.critical_line("tanh", sigma_b=0.0), 6)
    1.0
    """
    bias = number("sigma_b", sigma_b, "the scale of the biases")
    unit = Layer.of(activation, 1.0, 0.0)

    def missing(exponent: float) -> float:
        q = math.exp(exponent)
        kept = unit.chi(q)
        return q - unit.length(q) / kept - bias**2 if kept else math.inf

    def is_critical(sigma_w: float) -> bool:
        layer = Layer(unit.rule, sigma_w**2, bias**2)
        return abs(layer.chi(layer.rest()) - 1) < ROUNDED

    grid = np.linspace(math.log(1e-12), math.log(1e8), 81)
    values = [missing(at) for at in grid]
    lengths = [0.0, math.inf]  # the line's ends, and where it crosses the bias asked for
    for k in range(len(grid) - 1):
        if values[k] < 0 <= values[k + 1] < math.inf:
            lengths.insert(-1, math.exp(_root(missing, grid[k], grid[k + 1])))
    scales = [kept**-0.5 for kept in map(unit.chi, lengths) if kept > 0]
    return next(filter(is_critical, scales), math.nan)
