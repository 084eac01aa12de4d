"""Where a random network passes from order to chaos, and how deep a signal gets on either side.

Question   For which scales of weights and biases does a deep tanh network keep gradients, and do real
           networks of finite width do what mean-field theory says of infinitely wide ones?
Command    python experiments/order_to_chaos.py
Expect     χ₁ = σ_w² E φ′(√q* z)² is 1 on one line through (σ_b, σ_w) = (0, 1): below it gradients
           vanish and all inputs come to look alike, above it gradients explode and near inputs part
           (Poole et al., arXiv 1606.05340). Away from the line a signal is lost over ξ_c layers
           (Schoenholz et al., arXiv 1611.01232), which grows without bound on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from common import RESULTS, conclude, heading
from matplotlib.colors import LogNorm

import jaxchain as jc
from jaxchain.show.table import Table
from jaxchain.signal import Measurement, Prediction

ACTIVATION = "tanh"
PHASES = {"order": 0.8, "the critical line": None, "chaos": 2.0}
"""Name → σ_w; ``None``: where χ₁ is 1."""


@dataclass(frozen=True)
class Point:
    """χ₁ at one pair of scales: by theory, and as real networks multiply a layer's squared gradient."""

    sigma_w: float
    sigma_b: float
    theory: float
    measured: float
    deviation: float


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, width: int = 300, depth: int = 40, sigma_b: float = 0.1
) -> None:
    """Compare mean-field theory with real networks of tanh, over the plane of scales and layer by layer.

    Parameters
    ----------
    seed
        Of weights and inputs.
    quick
        Narrower and fewer networks, a coarser plane.
    out
        Folder for figures and numbers.
    width
        Units a layer.
    depth
        Layers of the networks that are followed layer by layer.
    sigma_b
        Scale of their biases.
    """
    width, depth, draws = (60, 10, 8) if quick else (width, depth, 32)
    scales = np.linspace(0.5, 2.5, 3 if quick else 9)
    heading(f"χ₁ by theory, and measured on {draws} networks of width {width}")
    points = [
        measured_at(float(w), float(b), width, draws, seed)
        for b in ((sigma_b,) if quick else (0.05, sigma_b, 0.3))
        for w in scales
    ]
    rows = [
        (f"{p.sigma_w:.3g}", f"{p.sigma_b:.3g}", f"{p.theory:.4f}", f"{p.measured:.4f} ± {p.deviation:.4f}")
        for p in points
    ]
    print(Table("", ("σ_w", "σ_b", "theory", "measured, with its standard error"), rows))

    critical = jc.signal.critical_line(ACTIVATION, sigma_b=sigma_b)
    followed = {
        f"{name}, σ_w = {critical if scale is None else scale:.3g}": follow(
            critical if scale is None else scale, sigma_b, width, depth, draws, seed
        )
        for name, scale in PHASES.items()
    }
    heading(f"How deep a signal gets, σ_b = {sigma_b:g}")
    depths = {
        name: jc.signal.depth_scales(ACTIVATION, sigma_w=critical if scale is None else scale, sigma_b=sigma_b)
        for name, scale in PHASES.items()
    }
    print(
        Table(
            "",
            ("", "ξ_q of lengths", "ξ_c of correlations"),
            [(n, f"{d.length:.2f}", f"{d.correlation:.2f}") for n, d in depths.items()],
        )
    )

    figures = [draw_plane(points, quick, out), draw_layers(followed, out)]
    worst = max(points, key=lambda p: abs(p.measured / p.theory - 1))
    origin = jc.signal.critical_line(ACTIVATION, sigma_b=0.0)
    findings = [
        f"Without biases the critical σ_w is {origin:.6f}; the papers' is 1.",
        f"Of {len(points)} points measured, the farthest from theory is {worst.measured:.3f} for {worst.theory:.3f} (σ_w = {worst.sigma_w:.3g}, σ_b = {worst.sigma_b:.3g}).",
        *(
            f"In {name}, a gradient at the first of {depth} layers has {t.of('gradient')[0]:.3g} times the mean square of the last's by theory, {m.layers[0].gradient.mean:.3g} measured."
            for name, (t, m) in followed.items()
        ),
    ]
    numbers = {
        "seed": seed,
        "quick": quick,
        "width": width,
        "depth": depth,
        "critical_without_biases": origin,
        "critical": critical,
        "points": [vars(p) for p in points],
        "depth_scales": {name: scales._asdict() for name, scales in depths.items()},
        "gradients": {
            name: {"theory": t.of("gradient"), "measured": [row.gradient.mean for row in m.layers], "deviation": [row.gradient.deviation for row in m.layers]}
            for name, (t, m) in followed.items()
        },
    }  # fmt: skip
    conclude(out / "order_to_chaos.json", numbers, findings, figures)


def measured_at(sigma_w: float, sigma_b: float, width: int, draws: int, seed: int) -> Point:
    """By what the squared gradient shrinks over one layer at q*, against χ₁ there."""
    q = jc.signal.fixed_point(ACTIVATION, sigma_w=sigma_w, sigma_b=sigma_b)
    net = jc.nets.mlp([width] * 3, ACTIVATION, "lecun", sigma_w, sigma_b)
    start = (q - sigma_b**2) / sigma_w**2  # so that the first layer's length is q* itself
    first, _ = jc.signal.measure(net, jax.random.key(seed), draws=draws, length=start).layers
    theory = jc.signal.chi(ACTIVATION, sigma_w=sigma_w, sigma_b=sigma_b)
    return Point(sigma_w, sigma_b, theory, first.gradient.mean, first.gradient.deviation / draws**0.5)


def follow(
    sigma_w: float, sigma_b: float, width: int, depth: int, draws: int, seed: int
) -> tuple[Prediction, Measurement]:
    """A deep network's signals, layer by layer."""
    net = jc.nets.mlp([width] * (depth + 1), ACTIVATION, "lecun", sigma_w, sigma_b)
    return (
        jc.signal.predict(ACTIVATION, depth, sigma_w=sigma_w, sigma_b=sigma_b, correlation=0.6),
        jc.signal.measure(net, jax.random.key(seed), draws=draws, correlation=0.6),
    )


def draw_plane(points: Sequence[Point], quick: bool, out: Path) -> Path:
    """χ₁ over the plane of scales, the critical line, and the points measured in the same colours."""
    side = 3 if quick else 41
    weights, biases = np.linspace(0.4, 2.6, side), np.linspace(0.0, 0.4, side)
    chi = [[jc.signal.chi(ACTIVATION, sigma_w=float(w), sigma_b=float(b)) for w in weights] for b in biases]
    line = [jc.signal.critical_line(ACTIVATION, sigma_b=float(b)) for b in biases]
    with mpl.rc_context(jc.plot.STYLE):
        figure, ax = plt.subplots(figsize=(8.6, 4.4), layout="constrained")
        norm = LogNorm(0.25, 4)
        mesh = ax.pcolormesh(weights, biases, chi, norm=norm, cmap="RdBu_r", shading="gouraud", rasterized=True)
        ax.plot(line, biases, color="black")
        ax.annotate("χ₁ = 1", (line[-1], biases[-1]), (4, -14), textcoords="offset points")
        ax.scatter(
            [p.sigma_w for p in points], [p.sigma_b for p in points], c=[p.measured for p in points],
            norm=norm, cmap="RdBu_r", edgecolors="black", s=46, zorder=3,
        )  # fmt: skip
        ax.text(0.44, 0.37, "order:\ngradients vanish", va="top", color="white")
        ax.text(2.55, 0.37, "chaos:\ngradients explode", va="top", ha="right")
        ax.set(xlabel="σ_w, the scale of the weights", ylabel="σ_b, the scale of the biases")
        ax.set_title("One line parts networks whose gradients vanish from those whose gradients explode")
        bar = figure.colorbar(mesh, ticks=[0.25, 0.5, 1, 2, 4], label="χ₁: plane theory, dots measured")
        bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
        bar.ax.minorticks_off()
    return jc.plot.save(figure, out / "order_to_chaos_plane.png")


def draw_layers(followed: dict[str, tuple[Prediction, Measurement]], out: Path) -> Path:
    """Gradients and correlations by layer, theory as lines and measurement as dots."""
    theory = {name: pair[0] for name, pair in followed.items()}
    measured = {name: pair[1] for name, pair in followed.items()}
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(8, 7.4), layout="constrained")
    jc.plot.signal(
        theory, measured, quantity="gradient", ax=axes[0], title="Gradients vanish in order, explode in chaos"
    )
    jc.plot.signal(
        theory,
        measured,
        quantity="correlation",
        ax=axes[1],
        title="Two inputs come to look alike in order, and part in chaos",
    )
    return jc.plot.save(figure, out / "order_to_chaos_layers.png")


if __name__ == "__main__":
    tyro.cli(main)
