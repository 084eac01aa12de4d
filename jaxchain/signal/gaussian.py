"""Means under Gaussians of what an activation makes of one normal number, or of two correlated ones.

Activations bend at zero (ReLU, ELU, …), where quadrature on the whole line is off by a percent. Here the line is
split at zero, and the plane along the rays on which either number is zero; between them all is smooth, and
Gauss–Legendre quadrature is right to rounding. Computed in float64, whatever JAX's default is. Builds on `derivative`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxchain.derivative import jvp
from jaxchain.nets.layers import Activation, activation_named

__all__ = ["Floats", "Rule", "pair", "single"]

Floats = NDArray[np.float64]

REACH = 12.0
"""Standard deviations beyond which nothing is left: exp(−12²/2) is 5e-32."""

LINE, RADII, ANGLES = 128, 96, 32
"""Nodes on a half line, along a ray, and between two rays."""


@dataclass(frozen=True)
class Rule:
    """An activation φ and its derivative φ′ at many points, in float64."""

    name: str
    both: Callable[[jax.Array], tuple[jax.Array, jax.Array]]

    @classmethod
    def of(cls, activation: Activation) -> Rule:
        """The rule of an activation that is named, or given as a function of one array.

        Raises
        ------
        ValueError
            If the name is unknown, or the function returns another shape than it is given.
        """
        name, phi = activation_named(activation)
        return _rule(name, phi)

    def __call__(self, points: Floats) -> tuple[Floats, Floats]:
        """Values φ and derivatives φ′ at ``points``."""
        with jax.enable_x64(True):
            value, slope = self.both(jnp.asarray(points))
            return np.asarray(value, np.float64), np.asarray(slope, np.float64)


@cache  # compiled once an activation
def _rule(name: str, phi: Callable[[jax.Array], jax.Array]) -> Rule:
    shape = jax.eval_shape(phi, jax.ShapeDtypeStruct((2, 3), np.float32)).shape
    if shape != (2, 3):
        msg = f"An activation works entry by entry, but {name} made shape {shape} of (2, 3)."
        raise ValueError(msg)
    return Rule(name, jax.jit(lambda x: jvp(phi, x, jnp.ones_like(x))))


@cache
def _legendre(nodes: int, stop: float = 1.0) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, stop]."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return stop * (points + 1) / 2, stop * weights / 2


@cache
def _line() -> tuple[Floats, Floats]:
    """Nodes of a standard normal number, and its density times their weights."""
    points, weights = _legendre(LINE, REACH)
    density = weights * np.exp(-np.square(points) / 2)
    density /= 2 * density.sum()  # and so exactly one in all
    return np.concatenate([-points[::-1], points]), np.concatenate([density[::-1], density])


def single(f: Callable[[Floats], Floats], length: float) -> Floats:
    """E f(√q z) for a standard normal z and the length q; f takes nodes along its last axis."""
    nodes, density = _line()
    return f(np.sqrt(length) * nodes) @ density


def pair(f: Callable[[Floats, Floats], Floats], length: float, correlation: float) -> Floats:
    """E f(u, v) for two normal numbers of variance q and correlation c, in polar coordinates.

    With u = √q r cos θ and v = √q r cos(θ − α), cos α = c, either is zero on rays alone.
    """
    alpha = float(np.arccos(np.clip(correlation, -1.0, 1.0)))
    radii, along = _legendre(RADII, REACH)
    steps, across = _legendre(ANGLES)
    rays = np.sort([-np.pi / 2, alpha - np.pi / 2, np.pi / 2, alpha + np.pi / 2, 3 * np.pi / 2])
    spans = np.diff(rays)
    angles = (rays[:-1, None] + spans[:, None] * steps).ravel()
    density = np.outer((spans[:, None] * across).ravel(), along * radii * np.exp(-np.square(radii) / 2))
    density /= density.sum()
    scaled = np.sqrt(length) * radii
    u, v = (np.outer(np.cos(turned), scaled) for turned in (angles, angles - alpha))
    return np.sum(f(u, v) * density, axis=(-2, -1))
