"""Singular values along a chain, strip by strip: which directions are lengthened or lost.

Builds on `style`; the values are those of `jaxchain.spectrum`, or come from NumPy's SVD of each matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from jaxchain.checks import word
from jaxchain.diagnosis.spectra import Spectrum
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


Part = Literal["stages", "prefixes", "suffixes"]

LABELS = {
    "stages": "singular values of the local Jacobian",
    "prefixes": "singular values of ∂state/∂input",
    "suffixes": "singular values of ∂output/∂state",
}


@styled
def singular_values(
    jacobians: Sequence[LocalJacobian] | Spectrum,
    *,
    part: Part = "stages",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw one strip a stage: its singular values on a log axis, their range and their median.

    Parameters
    ----------
    jacobians
        q local Jacobians in order of evaluation, from `jaxchain.local_jacobians`; or what `jaxchain.spectrum` found.
    part
        Of a spectrum, what is drawn: ``"stages"``, or a strip a state of ``"prefixes"`` or ``"suffixes"``.
    ax
        Where to draw; default: a new figure.
    title
        What the picture shows.

    Returns
    -------
    Axes
        Strip k at x = k. Zero singular values are counted in words above their strip; so are
        matrices that have none because an entry is not finite.

    Raises
    ------
    ValueError
        If there is no Jacobian, or one is not a matrix or is complex; if there is nothing of ``part``.

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
    >>> found = jc.spectrum(net, (net.init(jax.random.key(0)), jnp.ones(3)))
    >>> ax = jc.plot.singular_values(found, part="prefixes")
    """
    kind = word("part", part, list(LABELS))
    strips = _of_spectrum(jacobians, kind) if isinstance(jacobians, Spectrum) else _of_matrices(jacobians, kind)
    ax = axes(ax, (8, 4.2))
    before = len(ax.texts)
    gap = " " if len(strips) <= 12 else "\n"
    for place, strip in enumerate(strips):
        _draw_strip(ax, place, strip, gap)
    lift = 0 if len(ax.texts) == before else 13 if gap == " " else 24  # the title goes above the remarks
    dress(
        ax,
        title,
        "stage, in order of evaluation" if kind == "stages" else "state, from the input on",
        LABELS[kind],
        lift=lift,
    )
    log_axis(ax, "y", np.concatenate([strip.sigma for strip in strips]))
    ax.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    ax.set_xlim(-0.6, len(strips) - 0.4)
    name_stages(ax, [strip.name for strip in strips])
    return ax


class _Strip(NamedTuple):
    """A Jacobian's name, the singular values that are not zero, and how many are; or why there are none."""

    name: str
    sigma: Floats
    zeros: int
    why: str = ""


def _of_matrices(jacobians: Sequence[LocalJacobian], kind: str) -> list[_Strip]:
    check_jacobians(jacobians)
    if kind != "stages":
        msg = f"Local Jacobians are of stages, and part={kind!r} is not. Give what jc.spectrum found."
        raise ValueError(msg)
    return [_of_matrix(jacobian) for jacobian in jacobians]


def _of_matrix(jacobian: LocalJacobian) -> _Strip:
    if not np.isfinite(matrix_of(jacobian)).all():
        return _Strip(jacobian.name, np.zeros(0), 0, "not finite")
    return _Strip(jacobian.name, *nonzero_singular_values(jacobian))


def _of_spectrum(found: Spectrum, kind: str) -> list[_Strip]:
    named: Mapping[str, Floats] = getattr(found, kind)
    if not named:
        msg = f"This spectrum has no {kind}: they were not asked for, or left out. {' '.join(found.notes)}".rstrip()
        raise ValueError(msg)
    single = float(jnp.finfo(jnp.float32).eps)
    kept = {name: sigma[sigma > sigma.max(initial=0) * max(len(sigma), 1) * single] for name, sigma in named.items()}
    return [_Strip(name, kept[name], len(sigma) - len(kept[name])) for name, sigma in named.items()]


def _draw_strip(ax: Axes, place: int, strip: _Strip, gap: str) -> None:
    """Draw one strip; a remark above it is broken at ``gap``."""
    sigma, zeros = strip.sigma, strip.zeros
    if strip.why or zeros or not sigma.size:
        _remark(ax, place, (strip.why or (f"{zeros} zero" if zeros else "empty")).replace(" ", gap))
    if sigma.size:
        low, middle, high = sigma.min(), float(np.median(sigma)), sigma.max()
        ax.fill_between([place - 0.3, place + 0.3], low, high, color=BAND, linewidth=0)
        ax.plot(np.full(sigma.size, place), sigma, "o", markersize=3.2, color=POINT, alpha=0.45, markeredgewidth=0)
        ax.hlines(middle, place - 0.3, place + 0.3, color=INK, linewidth=1.6)


def _remark(ax: Axes, place: int, text: str) -> None:
    ax.text(place, 1.01, text, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=NOTE_SIZE - 1)


def name_stages(ax: Axes, names: Sequence[str]) -> None:
    """Write rotated names; of very many stages only every so manyeth."""
    every = -(-len(names) // 40)
    shown = [shorten(name, LONGEST) for name in names[::every]]
    ax.set_xticks(range(0, len(names), every), shown, rotation=40, ha="right", rotation_mode="anchor")
