"""What mean-field theory says of the layers that a chain has: which activation, at which scale, and the critical one.

An activation is told by its slopes, not by its name; the scale of the weights between two of them by what they do to a
cotangent. Builds on `jaxchain.signal`.

References: Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain import signal
from jaxchain.derivative import jvp
from jaxchain.diagnosis.slopes import Activation, slopes_at
from jaxchain.diagnosis.vitals import StageVitals, Vitals
from jaxchain.nets.layers import ACTIVATIONS
from jaxchain.program.interpret import numbers_of
from jaxchain.show.extremes import Floats

__all__ = ["Layers", "layers_of", "recognised"]

POINTS = np.linspace(-4.1, 4.1, 42)
"""Where slopes are compared; not at zero, where some bend."""

NEAR = 0.02
"""How far slopes of one activation may differ: an approximation of GELU is one."""


@dataclass(frozen=True)
class Layers:
    """Like layers of a chain, weights and then an activation, and what is known of them.

    Attributes
    ----------
    activation
        Its name among `jaxchain.nets.ACTIVATIONS`.
    sigma_w
        The scale of their weights, as it acts on cotangents: σ_w.
    measured
        By what one multiplies a cotangent's norm, on average.
    theory
        √χ₁, what a wide one would.
    critical
        The σ_w at which gradients neither vanish nor explode; NaN where there is none.
    """

    activation: str
    sigma_w: float
    measured: float
    theory: float
    critical: float


def recognised(activation: Activation) -> str | None:
    """The name of an activation in `jaxchain.nets.ACTIVATIONS`, told by its slopes; ``None`` of another."""
    ours = slopes_at(activation.segment, POINTS)
    apart = {name: float(np.abs(theirs - ours).max()) for name, theirs in _known_slopes().items()}
    nearest = min(apart, key=lambda name: apart[name])
    return nearest if apart[nearest] < NEAR else None


@cache
def _known_slopes() -> Mapping[str, Floats]:
    points = jnp.asarray(POINTS, jnp.float32)
    return {
        name: np.asarray(numbers_of(partial(_slopes, phi), points), np.float64) for name, phi in ACTIVATIONS.items()
    }


def _slopes(phi: object, points: jax.Array) -> jax.Array:
    return jvp(phi, points, jnp.ones_like(points))[1]  # pyright: ignore[reportArgumentType]


def layers_of(found: Vitals) -> Layers | None:
    """The plain layers of a chain: weights alone between two activations that are stages by themselves.

    ``None`` where there are fewer than two, they are not of one activation, or it is none that is known.
    """
    alone = [k for k, stage in enumerate(found.stages) if _is_activation(stage)]
    pairs = [(a, b) for a, b in itertools.pairwise(alone) if _has_weights(found.stages[a + 1 : b])]
    if len(pairs) < 2:
        return None
    names = Counter(name for _, b in pairs if (name := recognised(found.stages[b].entered[0].activation)) is not None)
    if not names or names.most_common(1)[0][1] < len(pairs):
        return None
    activation = names.most_common(1)[0][0]
    sigma_w = _mean(_gain(found, range(a + 1, b)) for a, b in pairs)
    measured = _mean(_gain(found, range(a + 1, b + 1)) for a, b in pairs)
    if not sigma_w or not measured:
        return None
    return Layers(
        activation,
        sigma_w,
        measured,
        math.sqrt(signal.chi(activation, sigma_w=sigma_w, sigma_b=0.0)),
        signal.critical_line(activation, sigma_b=0.0),
    )


def _is_activation(stage: StageVitals) -> bool:
    """Whether a stage is an activation and has no parameters."""
    return len(stage.entered) == 1 and not stage.parameters


def _has_weights(stages: Sequence[StageVitals]) -> bool:
    """Whether exactly one of these stages has parameters, and none an activation of its own or anything else."""
    weighted = [stage for stage in stages if stage.parameters]
    return len(stages) == len(weighted) == 1 and not weighted[0].entered


def _gain(found: Vitals, stages: range) -> float:
    """By what some stages together multiply a cotangent's norm; 0 where that is not known."""
    return math.prod(found.factor(k) or 0.0 for k in stages)


def _mean(factors: Iterable[float]) -> float | None:
    """The geometric mean; ``None`` where there is none."""
    known = list(factors)
    return math.exp(sum(map(math.log, known)) / len(known)) if all(0 < factor < math.inf for factor in known) else None
