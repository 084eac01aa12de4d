"""Memory against work: what running stages again saves, from everything kept to the least that is possible.

Builds on `style`; the numbers are those of `jaxchain.memory_plan`.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter

from jaxchain.checks import shown
from jaxchain.memory.plan import MemoryPlan
from jaxchain.plot.style import COLOURS, INK, axes, dress, log_axis, styled
from jaxchain.show.table import si

__all__ = ["memory_tradeoff"]


@styled
def memory_tradeoff(plan: MemoryPlan, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw the least work of reverse mode for every number of bytes; the plan's own place and limit are marked.

    Parameters
    ----------
    plan
        From `jaxchain.memory_plan`, or the ``.plan(*args)`` of a `jaxchain.checkpoint`.
    ax
        Where to draw; default: a new figure.
    title
        What the picture shows.

    Returns
    -------
    Axes
        x: temporary memory in bytes, on a log axis; y: FLOPs as a multiple of what they are where everything is kept.

    Raises
    ------
    TypeError
        If what is given is no `jaxchain.MemoryPlan`.

    References
    ----------
    Herrmann et al., arXiv 1911.13214; Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 12.

    Examples
    --------
    >>> net = jc.nets.mlp([16] * 9, activation="tanh")
    >>> ax = jc.plot.memory_tradeoff(jc.memory_plan(net, (net.init(jax.random.key(0)), jnp.ones(16))))
    >>> ax.get_xscale(), ax.get_ylabel()
    ('log', 'work, times that of keeping all')
    """
    if not isinstance(plan, MemoryPlan):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"plot.memory_tradeoff draws what jc.memory_plan found, but {shown(plan)} was given."
        raise TypeError(msg)
    ax = axes(ax, (6.4, 4.2))
    sizes = [size for size, _ in plan.curve]
    work = [plan.times(extra) for _, extra in plan.curve]
    # Between two steps of the curve more memory saves nothing: the better schedule does not fit yet.
    ax.step(sizes, work, where="pre", color=COLOURS["reverse"], zorder=2)
    ax.plot(sizes[0], work[0], "o", color=COLOURS["reverse"], zorder=3, label=f"everything kept: {si(sizes[0], 'B')}")
    if plan.memory_limit is not None:
        here = plan.times(plan.extra_flops)
        limit = f"the limit: {si(plan.memory_limit, 'B')}"
        ax.axvline(plan.memory_limit, color=INK, linewidth=0.8, linestyle=":", zorder=1, label=limit)
        words = f"the plan: {si(plan.peak_bytes, 'B')}, {here:.2f} times the work"
        ax.plot(plan.peak_bytes, here, "D", color=COLOURS["planned"], zorder=4, label=words)
    ax.legend(facecolor="white", edgecolor="none", framealpha=1, loc="upper right")
    dress(ax, title, "temporary memory of reverse mode", "work, times that of keeping all")
    log_axis(ax, "x", np.asarray(sizes, float))
    ax.xaxis.set_major_formatter(EngFormatter("B", places=0))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    return ax
