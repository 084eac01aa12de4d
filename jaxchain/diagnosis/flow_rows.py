"""One stage's gradient flow as a row of numbers, and as cells of a table."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

__all__ = ["FlowRow"]


@dataclass(frozen=True)
class FlowRow:
    """One stage, at one step; ``None`` where a number was not asked for, NaN where the stage has none.

    Fields are those of `GradientFlow`; ``state`` and ``cotangent`` are of the state that the stage makes.

    Examples
    --------
    >>> row = jc.gradient_flow(lambda w, x: w * jnp.tanh(x), (2.0, 1.0)).rows[-1]
    >>> row.step, row.weight, round(row.gradient, 4)  # no step: it is of one point; tanh(1)
    (None, 2.0, 0.7616)
    """

    step: int | None
    stage: str
    state: float
    cotangent: float
    gradient: float
    weight: float
    gradient_to_weight: float
    update_to_weight: float | None
    dead: float
    saturated: float
    sigma: float | None
    cosine: float | None
    signal_to_noise: float | None


NUMBERS = tuple(field.name for field in fields(FlowRow))[2:]
"""What a row tells beside the step and the stage."""

ALWAYS = NUMBERS[:4]
"""The columns that a table has whatever they hold."""
OF_PARAMETERS = ("gradient", "weight", "gradient_to_weight", "update_to_weight", "cosine", "signal_to_noise")
"""What only a stage with parameters has."""

OFTEN_NONE = ("dead", "saturated", "cosine", "signal_to_noise")
"""What may not be there, NaN, without anything being wrong."""

HEADINGS = {
    "state": "‖state‖",
    "cotangent": "‖cotangent‖",
    "gradient": "‖gradient‖",
    "weight": "‖weight‖",
    "gradient_to_weight": "gradient/weight",
    "update_to_weight": "update/weight",
    "dead": "dead",
    "saturated": "saturated",
    "sigma": "σ₁",
    "cosine": "cosine",
    "signal_to_noise": "signal/noise",
}


def is_known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and not np.isnan(value)


def text_of(name: str, value: float | None, parameters: int) -> str:
    """A cell; empty where a stage has no such number."""
    if value is None or (name in ("gradient", "weight") and not parameters) or (np.isnan(value) and name not in ALWAYS):
        return ""
    return f"{value:.1%}" if name in ("dead", "saturated") else f"{value:.4g}"
