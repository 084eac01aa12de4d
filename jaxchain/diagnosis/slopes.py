"""What an activation is, told by its derivative alone: where it is flat, and by how much, whatever it is called.

An elementwise stage's derivative is one tangent of ones; an activation's, at a range of inputs, says how large it
gets, and whether it vanishes on one side or on both. Builds on the read-off rule for elementwise programs.

References: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.coordinates import is_inexact
from jaxchain.derivative import jvp
from jaxchain.discovery.find import find
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.jacobians.local import read_off
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.interpret import numbers_of
from jaxchain.program.segment import Segment
from jaxchain.stage import Side, Stage, State

__all__ = ["Slopes", "shares", "slopes_of"]

DEAD = 1e-3
"""A unit passes nothing if its derivative is below this share of the largest the activation has."""

FLAT = 0.05
"""An entry is saturated below this share."""

REACH = 8.0
"""Inputs from minus this to this are looked at."""

KNOWN = Kept(1024)
"""Slopes by program."""


class Slopes(NamedTuple):
    """The largest |f′|; below what a unit is dead; below what an entry is saturated, ``None`` if it cannot be."""

    largest: float
    dead: float
    flat: float | None


def slopes_of(stage: Stage, side: Side, state: State) -> Slopes | None:
    """Of a stage that is one elementwise nonlinear function of one array; ``None`` of any other.

    The state may be abstract. A stage with side inputs is none: what they are is not known here.
    """
    leaves = jax.tree.leaves(state)
    if jax.tree.leaves(side) or len(leaves) != 1 or not is_inexact(leaves[0]) or not leaves[0].size:
        return None
    like = jax.ShapeDtypeStruct(leaves[0].shape, leaves[0].dtype)
    segment = _segment(stage, jax.tree.structure(state).unflatten([like]))
    if segment is None or read_off(segment).kind != "diagonal":
        return None
    constants = {var: segment.program.constants[var] for var in segment.constants}
    if any(isinstance(value, Tracer) for value in constants.values()):
        return None
    key = fingerprint([e.eqn for e in segment.equations], segment.inputs, segment.outputs, constants)
    return KNOWN.get(key, partial(_measured, segment, like))


def _segment(stage: Stage, like: State) -> Segment | None:
    """All of a stage, as a part of a program."""
    if isinstance(stage, DiscoveredStage):
        return stage.segment
    try:
        return Segment.join(find(stage, (like,), -1, 0).segments)
    except REFUSALS as error:
        refusal(error)
        return None


def _measured(segment: Segment, like: Any) -> Slopes | None:
    """From the derivative at 65 inputs, spread over the entries of as many arrays as it takes."""
    points = np.linspace(-REACH, REACH, 65)
    copies = -(-len(points) // like.size)
    grid = np.resize(points, (copies, *like.shape)) if copies > 1 else np.resize(points, like.shape)[None]

    def derivative(x: jax.Array) -> jax.Array:
        return jvp(lambda x: segment.call(x)[0], x, jnp.ones_like(x))[1]

    with jax.ensure_compile_time_eval():
        slopes = [numbers_of(derivative, jnp.asarray(one, like.dtype)) for one in grid]
    found = np.abs(np.stack([np.asarray(slope, np.float64) for slope in slopes]).ravel()[: len(points)])
    return _told(points, found)


def _told(points: np.ndarray, slopes: np.ndarray) -> Slopes | None:
    """What slopes at some points say."""
    if not np.isfinite(slopes).all() or np.ptp(slopes) <= 1e-6 * slopes.max():
        return None  # no activation, or a linear one
    largest = float(slopes.max())
    if largest > 1.05 * slopes[np.abs(points) <= REACH / 2].max():
        # It grows on, so no slope is its largest; where it is flat, it is flat exactly.
        return Slopes(largest, 0.0, None) if np.mean(slopes == 0) > 0.25 else None
    flat = max(slopes[0], slopes[-1]) < FLAT * largest
    return Slopes(largest, DEAD * largest, FLAT * largest if flat else None)


def shares(slopes: Slopes, stage: Stage, state: State) -> tuple[jax.Array, jax.Array]:
    """The share of dead units, and of saturated entries, NaN where there can be none."""
    (leaf,) = jax.tree.leaves(state)
    (local,) = jax.tree.leaves(jvp(stage, state, jax.tree.map(jnp.ones_like, state))[1])
    size = jnp.abs(local).astype(jnp.float32)
    # Not above: a derivative that is NaN is not called dead.
    off = jnp.all(size <= slopes.dead, axis=tuple(range(leaf.ndim - 1)))
    saturated = jnp.mean(size < slopes.flat, dtype=jnp.float32) if slopes.flat is not None else jnp.float32(jnp.nan)
    return jnp.mean(off, dtype=jnp.float32), saturated
