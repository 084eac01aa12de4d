"""Gradient flow: stage by step as a heat map, or one point as a line over the stages.

Zero, what is not finite and what is not there each look like nothing else. Builds on `style` and on what flow holds.
"""

from __future__ import annotations

from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxchain.checks import shown, word
from jaxchain.diagnosis import GradientFlow
from jaxchain.fitted import Fit, History
from jaxchain.plot.spectra import name_stages
from jaxchain.plot.style import COLOURS, INK, Floats, axes, dress, log_axis, note, numbers, positive, short, styled
from jaxchain.show.table import shorten

What = Literal["cotangent", "gradient", "state", "gradient_to_weight", "update_to_weight", "dead", "saturated"]

LABELS = {
    "cotangent": "‖cotangent‖ of the state",
    "gradient": "‖gradient‖ of the parameters",
    "state": "‖state‖",
    "gradient_to_weight": "‖gradient‖ / ‖weight‖",
    "update_to_weight": "‖update‖ / ‖weight‖",
    "dead": "share of dead units",
    "saturated": "share of saturated entries",
}
OF_STATES = ("cotangent", "state")
OF_PARAMETERS = ("gradient", "gradient_to_weight", "update_to_weight")
SHARES = ("dead", "saturated")

MAP = mpl.colormaps["cividis"]
ZERO, NOT_FINITE, NONE = "#000000", COLOURS["reverse"], "#EFEFEF"
"""What is 0 is darker than the darkest colour; what is not finite is red, as nothing in the map is."""

LONGEST, MOST = 28, 40
"""Letters of a stage's name at most; names beside a heat map at most."""


@styled
def gradient_flow(
    flow: GradientFlow | History | Fit, *, what: What = "cotangent", ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Show gradient flow: stage by step where it was followed, a line over the stages where it is of one point.

    Parameters
    ----------
    flow
        From `jaxchain.gradient_flow` or a watched loss, also stacked over steps; or what `jaxchain.train.fit` returned
        with ``observe=jc.flow()``, or its history.
    what
        ``"cotangent"``, ``"gradient"``, ``"state"``, ``"gradient_to_weight"`` or ``"update_to_weight"``, on a log
        scale; ``"dead"`` or ``"saturated"``, shares from 0 to 1. Stages that have none are left out.
    ax
        Where to draw; default: a new figure.
    title
        What the picture shows.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If ``what`` is unknown or was not observed, no stage has any, or flow has more axes than one of steps.
    TypeError
        If ``flow`` is none.

    Examples
    --------
    >>> net = jc.nets.mlp([4] * 6, activation="sigmoid")
    >>> ax = jc.plot.gradient_flow(jc.gradient_flow(net, (net.init(jax.random.key(0)), jnp.ones(4))))
    >>> [label.get_text() for label in ax.get_xticklabels()][:3], ax.get_yscale()
    (['input', 'dense_0', 'sigmoid_0'], 'log')
    """
    what = word("what", what, list(LABELS))  # pyright: ignore[reportAssignmentType]
    found, steps = _read(flow)
    values, names = _values(found, what)
    if values.ndim == 1:
        return _line(axes(ax, (8, 4.2)), values, names, what, title)
    if values.ndim > 2:
        msg = f"A heat map has one axis of steps, but this flow is stacked {values.shape[:-1]}. Choose one: jax.tree.map(lambda x: x[0], flow)."
        raise ValueError(msg)
    steps = np.arange(len(values)) if steps is None else steps
    return _heat(axes(ax, (8, 1.6 + min(0.24 * len(names), 8))), values.T, names, steps, what, title)


def _read(flow: Any) -> tuple[GradientFlow, Any]:
    """The flow itself, and the steps that it is of."""
    history = flow.history if isinstance(flow, Fit) else flow
    found = history.observed if isinstance(history, History) else history
    if not isinstance(found, GradientFlow):
        msg = f"flow is a GradientFlow, or what jc.train.fit returned with observe=jc.flow(), but {shown(flow)} was given."
        raise TypeError(msg)
    return found, history.observed_steps if isinstance(history, History) else None


def _values(flow: GradientFlow, what: str) -> tuple[Floats, list[str]]:
    """What is drawn of the states or stages that have it, the last axis theirs, and their names."""
    given = getattr(flow, what)
    if given is None:
        msg = f"This flow does not hold {what}: updates are known to jc.train.fit(observe=jc.flow()) alone."
        raise ValueError(msg)
    values = numbers(what, given, ndim=np.ndim(given))
    names = list(flow.names if what in OF_STATES else flow.stages)
    kept: Any = np.ones(len(names), bool)
    if what == "cotangent":
        kept = np.asarray(flow.reached).reshape(-1, len(names)).any(0)
    elif what in OF_PARAMETERS:
        kept = np.asarray(flow.parameters) > 0
    elif what in SHARES:
        kept = ~np.isnan(values).reshape(-1, len(names)).all(0)
    if not kept.any():
        msg = f"No stage of this flow has {LABELS[what]}."
        raise ValueError(msg)
    return values[..., kept], [name for name, keep in zip(names, kept, strict=True) if keep]


def _line(ax: Axes, values: Floats, names: list[str], what: str, title: str | None) -> Axes:
    dress(ax, title, "state, in order of evaluation" if what in OF_STATES else "stage", LABELS[what])
    y = values if what in SHARES else positive(values)
    ax.plot(np.arange(len(names)), y, "o-", color=COLOURS["reverse" if what != "state" else "forward"], markersize=4)
    if what in SHARES:
        ax.set_ylim(-0.03, 1.03)
    else:
        log_axis(ax, "y", y)
    for place, value in enumerate(values):
        if what not in SHARES and not (np.isfinite(value) and value > 0):
            said = "0" if value == 0 else "not finite"
            ax.text(place, 1.01, said, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=7.5)
    name_stages(ax, [shorten(name, LONGEST) for name in names])
    return ax


def _heat(ax: Axes, values: Floats, names: list[str], steps: Any, what: str, title: str | None) -> Axes:
    dress(ax, title, "training step", "")
    seen = values if what in SHARES else positive(values)
    scale = _scale(seen, log=what not in SHARES)
    cells = MAP(scale(np.where(np.isfinite(seen), seen, scale.vmin or 0)))
    special = {"zero": (values == 0) & (what not in SHARES), "not finite": ~np.isfinite(values)}
    for mask, colour in zip(special.values(), (ZERO, NONE if what in SHARES else NOT_FINITE), strict=True):
        cells[mask] = to_rgba(colour)
    half = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) / 2 or 0.5
    place = (steps[0] - half, steps[-1] + half, len(names) - 0.5, -0.5)
    ax.imshow(cells, aspect="auto", interpolation="nearest", extent=place)
    every = -(-len(names) // MOST)
    ax.set_yticks(range(0, len(names), every), [shorten(name, LONGEST) for name in names[::every]])
    ax.tick_params(axis="y", length=0)
    bar = ax.figure.colorbar(ScalarMappable(scale, MAP), ax=ax, pad=0.015, fraction=0.05, aspect=18)
    bar.set_label(LABELS[what], color=INK)
    if isinstance(scale, LogNorm) and scale.vmax and scale.vmin and scale.vmax / scale.vmin < 1000:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if scale.vmax / scale.vmin < 30 else (1, 3)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    words = {"zero": "black: exactly zero", "not finite": "red: not finite"}
    said = [words[name] for name, mask in special.items() if mask.any() and what not in SHARES]
    note(ax, "   ".join(["first stage on top", *said]))
    return ax


def _scale(values: Floats, *, log: bool) -> Normalize:
    """From the least to the largest value; at least one decade, so that noise is no picture."""
    if not log:
        return Normalize(0, 1)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    middle = np.sqrt(low) * np.sqrt(high)
    return LogNorm(min(low, middle / 10**0.5), max(high, middle * 10**0.5))
