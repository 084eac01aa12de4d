"""Signal propagation: what theory predicts as a line, what was measured as dots with their spread. Builds on `curves`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from jaxchain.checks import shown, word
from jaxchain.plot.curves import CASES
from jaxchain.plot.style import axes, dress, label_ends, line_end, log_axis, note, positive, styled
from jaxchain.signal import Measurement, Prediction, StateSignal

Quantity = Literal["length", "correlation", "gradient"]

LABELS = {
    "length": "mean square of the pre-activations",
    "correlation": "correlation of two inputs",
    "gradient": "mean square of the cotangent",
}

Measured = Measurement | Sequence[StateSignal]


@styled
def signal(
    theory: Prediction | Mapping[str, Prediction],
    measured: Measured | Mapping[str, Measured] | None = None,
    *,
    quantity: Quantity = "gradient",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw what theory says of a deep network as a line, and what was measured as dots, layer by layer.

    Parameters
    ----------
    theory
        What `jaxchain.signal.predict` returned, or several by label.
    measured
        What `jaxchain.signal.measure` returned, or some of its rows, as many as theory has layers; by label where
        theory is. Of a measurement, those of stages with parameters are drawn. Bars are one deviation of a draw.
    quantity
        ``"length"``, ``"correlation"`` or ``"gradient"``; the first and the last on a log axis.
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
        If there is nothing to draw, a label is unknown, or a measurement has another number of layers.

    Examples
    --------
    >>> theory = jc.signal.predict("tanh", depth=5, sigma_w=1.5, sigma_b=0.0)
    >>> measured = jc.signal.measure(jc.nets.mlp([60] * 6, "tanh", "lecun", sigma_w=1.5), jax.random.key(0), draws=4)
    >>> ax = jc.plot.signal(theory, measured, quantity="length")
    >>> ax.get_xlabel(), ax.get_yscale()
    ('layer', 'log')
    """
    quantity = word("quantity", quantity, list(LABELS))  # pyright: ignore[reportAssignmentType]
    lines = _labelled("theory", theory)
    dots = {} if measured is None else _labelled("measured", measured)
    if stray := [label for label in dots if label not in lines]:
        msg = f"measured has the label {stray[0]!r}, which theory lacks; those are {list(lines)}."
        raise ValueError(msg)
    ax = axes(ax, (8, 4.2))
    dress(ax, title, "layer", LABELS[quantity])
    log = quantity != "correlation"
    ends, seen = list[Any](), list[Any]()
    for place, (label, prediction) in enumerate(lines.items()):
        colour, marker = CASES[place % len(CASES)]
        x, y = np.asarray(prediction.of("layer"), float), np.asarray(prediction.of(quantity))
        y = positive(y) if log else y
        ax.plot(x, y, color=colour)
        ends.append(line_end(label, x, y, colour))
        seen.append(y)
        if label in dots:
            spreads = [getattr(row, quantity) for row in _rows(label, dots[label], len(x))]
            mean, deviation = (np.array([getattr(s, part) for s in spreads]) for part in ("mean", "deviation"))
            low = (
                np.minimum(deviation, 0.999 * mean) if log else deviation
            )  # a bar that reaches 0 has no end on a log axis
            ax.errorbar(x, mean, (low, deviation), fmt=marker, color=colour, markersize=3.5, elinewidth=0.9)
            seen.append(positive(mean) if log else mean)
    if log:
        log_axis(ax, "y", np.concatenate(seen))
    ax.margins(x=0.02)
    if "" not in lines:
        label_ends(ax, ends)
    if dots:
        note(ax, "line: theory; dots: measured, with one deviation of a draw")
    return ax


def _labelled(name: str, given: Any) -> Mapping[str, Any]:
    """What was given, by label; without one where it is a single thing."""
    wanted = Prediction if name == "theory" else (Measurement, Sequence)
    cases = given if isinstance(given, Mapping) else {"": given}
    if not cases or not all(isinstance(case, wanted) and not isinstance(case, str) for case in cases.values()):
        what = "what jc.signal.predict returned" if name == "theory" else "what jc.signal.measure returned"
        msg = f"{name} is {what}, or a dict of such by label, but {shown(given)} was given."
        raise (ValueError if not cases else TypeError)(msg)
    return cases


def _rows(label: str, measured: Measured, count: int) -> Sequence[StateSignal]:
    rows = measured.layers if isinstance(measured, Measurement) else measured
    if not all(isinstance(row, StateSignal) for row in rows):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"measured holds rows of what jc.signal.measure returned, but {shown(measured)} was given."
        raise TypeError(msg)
    if len(rows) != count:
        which = f" of {label!r}" if label else ""
        msg = f"The measurement{which} has {len(rows)} layers, {', '.join(row.name for row in rows[:3])}, …, but the prediction has {count}. Give the rows that match, such as measured['block_*']."
        raise ValueError(msg)
    return rows
