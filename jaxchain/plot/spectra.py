"""Singular values of the local Jacobians, stage by stage: which directions a stage lengthens or loses.

Builds on `style`; the values come from NumPy's SVD of each matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from jaxchain.plot.product import check_jacobians, matrix_of
from jaxchain.plot.style import FAINT, INK, NOTE_SIZE, Floats, axes, dress, log_axis, styled
from jaxchain.show.table import shorten
from jaxchain.swept import LocalJacobian

BAND, POINT = "#D5DCE4", "#5B6B7B"
"""Neither forward's colour nor reverse's: a spectrum has no direction."""


LONGEST = 60
"""Letters of a stage's name at most: a saved picture grows with them."""


def nonzero_singular_values(jacobian: LocalJacobian) -> tuple[Floats, int]:
    """Compute the singular values of one stage, and count those that are zero.

    Zero is what rounding cannot tell from it: σ ≤ σ₁·max(m, n)·ε, with ε of the matrix's dtype
    or of float32, whichever is finer (a coarser dtype holds structural zeros exactly).
    """
    values = matrix_of(jacobian)
    if not values.size:
        return np.zeros(0), 0
    sigma: Floats = np.linalg.svd(values, compute_uv=False).astype(np.float64)
    epsilon = min(float(jnp.finfo(dtype).eps) for dtype in (jnp.float32, _dtype(jacobian)))
    kept = sigma[sigma > sigma[0] * max(values.shape) * epsilon]
    return kept, sigma.size - kept.size


def _dtype(jacobian: LocalJacobian) -> np.dtype:
    dtype = jnp.asarray(jacobian.matrix).dtype
    return dtype if jnp.issubdtype(dtype, jnp.floating) else np.dtype(np.float32)


@styled
def singular_values(jacobians: Sequence[LocalJacobian], *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw one strip a stage: its singular values on a log axis, their range and their median.

    Parameters
    ----------
    jacobians
        q local Jacobians in order of evaluation, from `jaxchain.local_jacobians`.
    ax
        Where to draw; default: a new figure.
    title
        What the picture shows.

    Returns
    -------
    Axes
        Stage k of q at x = k. Zero singular values are counted in words above their stage; so are
        matrices that have none because an entry is not finite.

    Raises
    ------
    ValueError
        If there is no Jacobian, or one is not a matrix or is complex.

    References
    ----------
    Pennington, Schoenholz and Ganguli, Resurrecting the sigmoid in deep learning through dynamical
    isometry, arXiv 1711.04735.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> ax = jc.plot.singular_values(jc.local_jacobians(net, (net.init(jax.random.key(0)), jnp.ones(3))))
    >>> [label.get_text() for label in ax.get_xticklabels()], ax.get_yscale()
    (['dense_0', 'relu_0', 'dense_1'], 'log')
    """
    check_jacobians(jacobians)
    ax = axes(ax, (8, 4.2))
    before = len(ax.texts)
    gap = " " if len(jacobians) <= 12 else "\n"
    every = [_draw_stage(ax, place, jacobian, gap) for place, jacobian in enumerate(jacobians)]
    lift = 0 if len(ax.texts) == before else 13 if gap == " " else 24  # the title goes above the remarks
    dress(ax, title, "stage, in order of evaluation", "singular values of the local Jacobian", lift=lift)
    log_axis(ax, "y", np.concatenate(every))
    ax.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    ax.set_xlim(-0.6, len(jacobians) - 0.4)
    name_stages(ax, [jacobian.name for jacobian in jacobians])
    return ax


def _draw_stage(ax: Axes, place: int, jacobian: LocalJacobian, gap: str) -> Floats:
    """Draw one strip; returns the values drawn. Remarks above it are broken at ``gap``."""
    if not np.isfinite(matrix_of(jacobian)).all():
        _remark(ax, place, f"not{gap}finite")
        return np.zeros(0)
    sigma, zeros = nonzero_singular_values(jacobian)
    if zeros or not sigma.size:
        _remark(ax, place, f"{zeros}{gap}zero" if zeros else "empty")
    if sigma.size:
        low, middle, high = sigma.min(), float(np.median(sigma)), sigma.max()
        ax.fill_between([place - 0.3, place + 0.3], low, high, color=BAND, linewidth=0)
        ax.plot(np.full(sigma.size, place), sigma, "o", markersize=3.2, color=POINT, alpha=0.45, markeredgewidth=0)
        ax.hlines(middle, place - 0.3, place + 0.3, color=INK, linewidth=1.6)
    return sigma


def _remark(ax: Axes, place: int, text: str) -> None:
    ax.text(place, 1.01, text, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=NOTE_SIZE - 1)


def name_stages(ax: Axes, names: Sequence[str]) -> None:
    """Write rotated names; of very many stages only every so manyeth."""
    every = -(-len(names) // 40)
    shown = [shorten(name, LONGEST) for name in names[::every]]
    ax.set_xticks(range(0, len(names), every), shown, rotation=40, ha="right", rotation_mode="anchor")
