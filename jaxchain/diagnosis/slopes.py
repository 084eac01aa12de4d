"""What an activation is, told by its derivative alone: where it is flat, and by how much, whatever it is called.

An elementwise function's derivative is one tangent of ones; taken at a range of inputs it says how large it gets, and
whether it vanishes on one side or on both. Builds on the read-off rule for elementwise programs.

References: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.derivative import jvp
from jaxchain.diagnosis.tapped import parts_inside
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.jacobians.local import read_off
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.flat import needed
from jaxchain.program.interpret import numbers_of
from jaxchain.program.primitives import dtype_of, shape_of, size_of
from jaxchain.program.segment import Segment

__all__ = ["Activation", "Slopes", "activations", "slopes_at"]

DEAD = 1e-3
"""A unit passes nothing if its derivative is below this share of the largest the activation has."""

FLAT = 0.05
"""An entry is saturated below this share."""

REACH = 8.0
"""Inputs from minus this to this are looked at."""

NEAR = 0.5
"""Inputs of this size saturate nothing."""

KNOWN = Kept(1024)
"""Slopes by program."""


class Slopes(NamedTuple):
    """The largest |f′|; below what a unit is dead; below what an entry is saturated, ``None`` if it cannot be."""

    largest: float
    dead: float
    flat: float | None


class Activation(NamedTuple):
    """An elementwise nonlinear function of one array inside of a stage: its program and its slopes."""

    segment: Segment
    slopes: Slopes

    def shares(self, value: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The share of dead units, and of saturated entries, where ``value`` enters; NaN where none can be."""
        local = jnp.abs(_derivative(self.segment, value)).astype(jnp.float32)
        # A derivative that is NaN is not below anything, so not called dead.
        off = local <= self.slopes.dead
        # Channels of images come last or, in some libraries, second.
        units = [axis for axis in ((1, 3) if value.ndim == 4 else (value.ndim - 1,)) if axis >= 0]
        shares = [jnp.mean(jnp.all(off, axis=_others(value, axis)), dtype=jnp.float32) for axis in units]
        flat = self.slopes.flat
        saturated = jnp.float32(jnp.nan) if flat is None else jnp.mean(local < flat, dtype=jnp.float32)
        return reduce(jnp.maximum, shares or [jnp.mean(off, dtype=jnp.float32)]), saturated


def _others(value: jax.Array, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(value.ndim) if k != axis)


def activations(stage: DiscoveredStage) -> list[Activation]:
    """Those of a stage, the terms of sums looked into; a value that passes beside one hides it.

    One that reads side inputs is left out: what they are is not known here.
    """
    found: list[Activation] = []
    for part in map(_with_numbers, parts_inside(stage)):
        if part.sides or not all(map(size_of, part.inputs)) or read_off(part).kind != "diagonal":
            continue
        constants = {var: part.program.constants[var] for var in part.constants}
        if any(isinstance(value, Tracer) for value in constants.values()):
            continue
        key = fingerprint([e.eqn for e in part.equations], part.inputs, part.outputs, constants)
        slopes = KNOWN.get(key, partial(_measured, part))
        found += [] if slopes is None else [Activation(part, slopes)]
    return found


def _with_numbers(part: Segment) -> Segment:
    """A part that itself makes what it reads aside, where that is mere numbers: zeros laid out, for a comparison."""
    program = part.program
    if not part.sides or not program.given.isdisjoint(part.sides):
        return part
    equations = (*needed(program.equations, part.sides), *part.equations)
    return Segment(equations, part.inputs, part.outputs, program)


def _derivative(segment: Segment, value: jax.Array) -> jax.Array:
    """f′ at every entry."""
    return jvp(lambda x: segment.call(x)[0], value, jnp.ones_like(value))[1]


def slopes_at(segment: Segment, points: np.ndarray) -> np.ndarray:
    """f′ at some inputs, spread over the entries of as many arrays as it takes."""
    given = segment.inputs[0]
    copies = -(-len(points) // size_of(given))
    grid = np.resize(points, (copies, *shape_of(given)))
    with jax.ensure_compile_time_eval():
        slopes = [numbers_of(partial(_derivative, segment), jnp.asarray(one, dtype_of(given))) for one in grid]
    return np.stack([np.asarray(slope, np.float64) for slope in slopes]).ravel()[: len(points)]


def _measured(segment: Segment) -> Slopes | None:
    """From the derivative at 65 inputs."""
    points = np.linspace(-REACH, REACH, 65)
    return _told(points, np.abs(slopes_at(segment, points)))


def _told(points: np.ndarray, slopes: np.ndarray) -> Slopes | None:
    """What slopes at some points say."""
    if not np.isfinite(slopes).all() or np.ptp(slopes) <= 1e-6 * slopes.max():
        return None  # no activation, or a linear one
    largest = float(slopes.max())
    if largest > 1.05 * slopes[np.abs(points) <= REACH / 2].max():
        # It grows on, so no slope is its largest; where it is flat, it is flat exactly.
        return Slopes(largest, 0.0, None) if np.mean(slopes == 0) > 0.25 else None
    # What is flat near zero already (ReLU6 below it) has its off side there, as ReLU has.
    flat = max(slopes[0], slopes[-1]) < FLAT * largest < slopes[np.abs(points) == NEAR].min()
    return Slopes(largest, DEAD * largest, FLAT * largest if flat else None)
