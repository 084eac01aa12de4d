"""What each stage adds to a Hessian, as bars: how much it bends upwards, how much downwards, and the two together.

Builds on `style`; the numbers are those of `jaxchain.curvature`.
"""

from __future__ import annotations

from matplotlib.axes import Axes

from jaxchain.checks import shown
from jaxchain.plot.style import INK, axes, dress, styled
from jaxchain.second_order.bending import Curvature
from jaxchain.show.table import shorten

UP, DOWN = "#117733", "#AA4499"
"""Neither forward's colour nor reverse's: a second derivative needs both."""

LONGEST = 40
"""Letters of a stage's name at most."""


@styled
def curvature(found: Curvature, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw what every stage adds to the Hessian: a bar up and a bar down, and its trace between them.

    Parameters
    ----------
    found
        From `jaxchain.curvature`.
    ax
        Where to draw; default: a new figure.
    title
        What the picture shows.

    Returns
    -------
    Axes
        Stage k at x = k, the Hessian itself behind them all. Up goes the sum of the positive eigenvalues, down that
        of the negative ones; a dot is the trace. Of more than 1024 inputs there are traces alone.

    Raises
    ------
    TypeError
        If what is given is no `jaxchain.Curvature`.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4.

    Examples
    --------
    >>> ax = jc.plot.curvature(jc.curvature(lambda x: jnp.log(jnp.sum(jnp.exp(x))), jnp.zeros(2)))
    >>> [label.get_text().split("@")[0] for label in ax.get_xticklabels()]
    ['exp', 'reduce_sum', 'log', 'together']
    """
    if not isinstance(found, Curvature):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"plot.curvature draws what jc.curvature found, but {shown(found)} was given."
        raise TypeError(msg)
    ax = axes(ax, (8, 4.2))
    rows = (*found.rows, found.whole)
    places = [*range(len(found.rows)), len(found.rows) + 0.5]
    for place, row in zip(places, rows, strict=True):
        for part, colour in ((row.positive, UP), (row.negative, DOWN)):
            ax.bar(place, part, width=0.62, color=colour, zorder=2)
    ax.plot(places, [row.trace for row in rows], "o", color=INK, markersize=5, zorder=3, label="trace")
    for name, colour in (("upwards", UP), ("downwards", DOWN)):
        ax.bar(0, 0, color=colour, label=name)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.axvline(len(found.rows) - 0.25, color=INK, linewidth=0.5, linestyle=":", zorder=1)
    names = [shorten(row.name, LONGEST) for row in rows]
    crowded = len(names) > 8 or max(map(len, names)) > 12
    ax.set_xticks(places, names, rotation=60 if crowded else 0, ha="right" if crowded else "center")
    ax.legend(frameon=False, loc="best")
    return dress(ax, title, "stage, in order of evaluation", "sum of eigenvalues of what it adds")
