"""Which weights keep all lengths through a hundred layers, and what that does for training.

Question   On the critical line gradients neither vanish nor explode on average. Do all directions then pass a deep
           network alike, for which weights and which activation, and does such a network learn faster?
Command    python experiments/dynamical_isometry.py
Expect     The mean squared singular value of ∂h^l/∂h^1 is χ₁^(l-1) = 1 for all four networks. Normal weights spread
           the values: the largest, squared, grows as (L+1)^(L+1)/L^L ≈ e L, and their variance as L. Orthogonal tanh
           layers with q* near 0 keep all values near 1; ReLU cannot (Pennington, Schoenholz and Ganguli,
           arXiv 1711.04735), and what keeps them learns faster at the same depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.digits import cross_entropy, load_digits
from jaxchain.show.table import Table

SIGMA_B = 0.002
"""Of tanh; on the critical line q* is then 1/67, about the paper's 1/64."""

CASES = {
    "tanh, orthogonal": ("tanh", "orthogonal"),
    "tanh, normal": ("tanh", "lecun"),
    "ReLU, orthogonal": ("relu", "orthogonal"),
    "ReLU, normal": ("relu", "he"),
}
"""Name → activation and initialiser; each on its critical line."""

COLOURS = dict(zip(CASES, ("#0B5FA5", "#C2452D", "#2E8B57", "#8A6BBE"), strict=True))

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Layers:
    """∂h^l/∂h^1 of one network: by layer quantiles of its singular values and the share
    that is below a millionth of the largest, and mean and variance of their squares at the last.
    """

    layer: list[int]
    quantiles: list[list[float]]
    lost: list[float]
    mean_square: float
    variance: float
    theory_mean_square: float
    theory_variance: float


@dataclass(frozen=True)
class Learnt:
    """A network trained at several rates: what it lost on the way at the best of them, and at the end at each."""

    rates: list[float]
    final: list[float]
    best_rate: float
    losses: list[float]
    steps_to_half: int | None


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, width: int = 400, depth: int = 100, steps: int = 300
) -> None:
    """Compare orthogonal with normal weights, tanh with ReLU: singular values by depth, and training on digits.

    Parameters
    ----------
    seed
        Of weights, inputs and batches.
    quick
        Narrower and shallower networks, fewer steps.
    out
        Folder for figures and numbers.
    width, depth
        Of the networks whose Jacobians are looked at.
    steps
        Of training, of networks half as deep and an eighth as wide.
    """
    width, depth, steps = (30, 12, 20) if quick else (width, depth, steps)
    heading(f"Singular values of ∂h^{depth}/∂h^1, width {width}")
    spectra = {name: spectrum_of(name, width, depth, seed) for name in CASES}
    print(Table("", ("", "least", "median", "largest", "lost", "mean σ²", "theory", "variance of σ²", "theory"), [
        (name, *(f"{s.quantiles[-1][k]:.3g}" for k in (0, 2, 4)), f"{s.lost[-1]:.0%}", f"{s.mean_square:.3f}",
         f"{s.theory_mean_square:.3f}", f"{s.variance:.3g}", f"{s.theory_variance:.3g}") for name, s in spectra.items()
    ]))  # fmt: skip
    narrow = (4, 16) if quick else (depth // 2, width // 8)
    heading(f"Training on digits: {narrow[0]} layers of {narrow[1]}, {steps} steps")
    rates = [0.003, 0.03] if quick else [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
    learnt = {name: trained(name, *narrow, rates, steps, seed) for name in CASES}
    print(Table("", ("", *(f"rate {rate:g}" for rate in rates)), [
        (name, *(f"{loss:.3f}" for loss in found.final)) for name, found in learnt.items()
    ]))  # fmt: skip
    edge = edge_of_normal(depth - 1)
    figures = [draw_spectra(spectra, edge, depth, out), draw_training(learnt, narrow, out)]
    linear = spectra["tanh, normal"].quantiles[-1][4] ** 2
    numbers = {
        "seed": seed, "quick": quick, "width": width, "depth": depth, "steps": steps,
        "largest_square_of_normal_by_theory": edge,
        "spectra": {name: asdict(found) for name, found in spectra.items()},
        "learnt": {name: asdict(found) for name, found in learnt.items()},
    }  # fmt: skip
    findings = [
        *(
            f"{name}: singular values of median {s.quantiles[-1][2]:.2g}, least {s.quantiles[-1][0]:.2g}, largest {s.quantiles[-1][4]:.3g}, {s.lost[-1]:.0%} below a millionth of the largest; mean square {s.mean_square:.3f} for theory's {s.theory_mean_square:.3f}."
            for name, s in spectra.items()
        ),
        f"The largest squared value of tanh with normal weights is {linear:.0f}; of a wide linear network it is (L+1)^(L+1)/L^L = {edge:.0f}, from which one network of width {width} departs.",
        *(
            f"{name}: at its best rate, {found.best_rate:g}, the loss after {steps} steps is {found.final[found.rates.index(found.best_rate)]:.3f}"
            + (f", halved after {found.steps_to_half}." if found.steps_to_half is not None else ", never halved.")
            for name, found in learnt.items()
        ),
    ]
    conclude(out / "dynamical_isometry.json", numbers, findings, figures)


@cache
def scales(activation: str) -> tuple[float, float, float]:
    """σ_w and σ_b on the critical line, and the length of pre-activations there."""
    if activation == "relu":
        return math.sqrt(2), 0.0, 1.0  # He's; a length stays what it is
    sigma_w = jc.signal.critical_line(activation, sigma_b=SIGMA_B)
    return sigma_w, SIGMA_B, jc.signal.fixed_point(activation, sigma_w=sigma_w, sigma_b=SIGMA_B)


def edge_of_normal(layers: int) -> float:
    """The largest squared singular value of a product of so many wide normal matrices of unit variance."""
    return (layers + 1) ** (layers + 1) / layers**layers


def spectrum_of(name: str, width: int, depth: int, seed: int) -> Layers:
    """One network's ∂h^l/∂h^1 for every l, beside what a wide one's would be."""
    activation, init = CASES[name]
    sigma_w, sigma_b, q = scales(activation)
    net = jc.nets.mlp([width] * (depth + 1), activation, init, sigma_w, sigma_b)
    of_params, of_state = jax.random.split(jax.random.key(seed))
    first = math.sqrt(q) * jax.random.normal(of_state, (width,))
    found = jc.spectrum(net[1:], (net.init(of_params), first), of="prefixes")
    by_layer = [sigma for state, sigma in found.prefixes.items() if state.startswith("dense")]
    squares = np.square(by_layer[-1])
    theory = jc.signal.predict(
        activation, depth, sigma_w=sigma_w, sigma_b=sigma_b, length=(q - sigma_b**2) / sigma_w**2,
        orthogonal=init == "orthogonal",
    ).rows[-1]  # fmt: skip
    return Layers(
        layer=list(range(2, depth + 1)),
        quantiles=[np.quantile(sigma, QUANTILES).tolist() for sigma in by_layer],
        lost=[float((sigma < 1e-6 * sigma[0]).mean()) for sigma in by_layer],
        mean_square=float(squares.mean()),
        variance=float(squares.var()),
        theory_mean_square=theory.jacobian_mean,
        theory_variance=theory.jacobian_variance,
    )


def trained(name: str, depth: int, width: int, rates: Sequence[float], steps: int, seed: int) -> Learnt:
    """One network from one start by plain gradient descent at several rates, all at once."""
    activation, init = CASES[name]
    sigma_w, sigma_b, q = scales(activation)
    net = jc.nets.mlp([64, *[width] * depth, 10], activation, init, sigma_w, sigma_b)
    digits = load_digits(seed)
    images, labels = digits.train
    images = images - images.mean(0)
    images = images * math.sqrt((q - sigma_b**2) / sigma_w**2 / float(jnp.mean(images**2)))
    params = net.init(jax.random.key(seed))
    loss_of, count = cross_entropy(net), len(rates)

    def losses(stack: Any, batch: Any) -> jax.Array:
        return jnp.minimum(jnp.nan_to_num(jax.vmap(loss_of, (0, None))(stack, batch), nan=10.0), 10.0)

    speeds = jnp.asarray(rates)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda g: -speeds.reshape(-1, *[1] * (g.ndim - 1)) * jnp.nan_to_num(g), grads), state

    stack = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), params)
    fit = jc.train.fit(
        lambda stack, batch: losses(stack, batch).sum(),
        stack,
        (images, labels),
        optax.GradientTransformation(lambda _: optax.EmptyState(), update),
        steps=steps,
        batch_size=64,
        key=jax.random.key(seed + 1),
        observe=lambda info: losses(info.params, info.batch),
        progress=False,
    )
    history = np.asarray(fit.history.observed)  # (steps, rates)
    final = history[-max(steps // 15, 1) :].mean(0)
    best = int(final.argmin())
    halved = np.flatnonzero(history[:, best] < math.log(10) / 2)
    return Learnt(
        list(rates), final.tolist(), rates[best], history[:, best].tolist(), int(halved[0]) if halved.size else None
    )


def draw_spectra(spectra: dict[str, Layers], edge: float, depth: int, out: Path) -> Path:
    """Singular values against depth, one panel a network, on one axis."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(11, 4), sharex=True, sharey=True, layout="constrained")
        for ax, (name, found) in zip(axes, spectra.items(), strict=True):
            low, quarter, middle, three, high = np.maximum(np.array(found.quantiles).T, 1e-12)
            ax.fill_between(found.layer, low, high, color=COLOURS[name], alpha=0.18, linewidth=0, label="all")
            ax.fill_between(
                found.layer, quarter, three, color=COLOURS[name], alpha=0.4, linewidth=0, label="half of them"
            )
            ax.plot(found.layer, middle, color=COLOURS[name], label="median")
            ax.axhline(1, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
            ax.set(xscale="log", yscale="log", ylim=(1e-4, 4 * math.sqrt(edge)), xlim=(2, depth), xlabel="layer l")
            ax.set_title(name)
        axes[1].plot(
            found.layer,
            [math.sqrt(edge_of_normal(at - 1)) for at in found.layer],
            color="black",
            linewidth=1,
            linestyle="--",
        )
        axes[1].annotate(
            "√(e·l), normal and wide",
            (found.layer[len(found.layer) // 3], math.sqrt(edge_of_normal(found.layer[len(found.layer) // 3]))),
            (-34, 6),
            textcoords="offset points",
        )
        axes[0].set_ylabel("singular values of ∂h^l/∂h^1")
        axes[0].legend(loc="lower left", frameon=False)
        figure.suptitle(
            "Only orthogonal tanh layers keep nearly every length through a hundred layers; the others keep the mean square alone",
            x=0.01,
            ha="left",
            fontsize=11.5,
        )
    return jc.plot.save(figure, out / "dynamical_isometry_spectra.png")


def draw_training(learnt: dict[str, Learnt], narrow: tuple[int, int], out: Path) -> Path:
    """Losses at each network's best rate, and the last loss at every rate."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained", width_ratios=(1.5, 1))
        for name, found in learnt.items():
            window = max(len(found.losses) // 30, 1)
            smooth = np.convolve(found.losses, np.ones(window) / window, "valid")
            left.plot(
                np.arange(len(smooth)) + window // 2,
                smooth,
                color=COLOURS[name],
                label=f"{name}, rate {found.best_rate:g}",
            )
            right.plot(found.rates, found.final, "o-", color=COLOURS[name], markersize=4)
        for ax in (left, right):
            ax.axhline(math.log(10), color="black", linewidth=0.8, linestyle=(0, (1, 2)))
        left.annotate("guessing", (0, math.log(10)), (2, 3), textcoords="offset points", fontsize=9)
        left.set(xlabel="step", ylabel="cross-entropy", ylim=(0, 3.2))
        left.set_title(f"Orthogonal tanh learns fastest: {narrow[0]} layers of {narrow[1]}, each at its best rate")
        left.legend(loc="upper right", ncols=2, frameon=False)
        right.set(xscale="log", xlabel="learning rate", ylim=(0, 3.2))
        right.set_title("last loss, by rate")
    return jc.plot.save(figure, out / "dynamical_isometry_training.png")


if __name__ == "__main__":
    tyro.cli(main)
