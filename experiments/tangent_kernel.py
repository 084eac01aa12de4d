"""The neural tangent kernel of networks that read digits: before and after training, narrow and wide.

Question   What does training do to a network's tangent kernel, and how wide must a network be for its kernel to be
           that of an infinitely wide one, before training and through it?
Command    python experiments/tangent_kernel.py
Expect     At width n the kernel of random weights is off its limit, the arc-cosine kernel of ReLU (Cho and Saul,
           NeurIPS 2009; Jacot et al., arXiv 1806.07572), by some 1/√n. Wide networks train as their linearisation at
           the start does, and their kernel hardly moves: by 1/√n at most (Lee et al., NeurIPS 2019, arXiv 1902.06720).
           A network as one would train it learns features: its kernel grows, and aligns with the labels (Baratin et
           al., AISTATS 2021, arXiv 2008.00938). Kernels are jc.ntk's, the trace over outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from matplotlib.axes import Axes

import jaxchain as jc
from jaxchain.digits import Digits, accuracy, fit_digits, load_digits
from jaxchain.show.table import Table

HIDDEN = 3
"""Layers of ReLU in the networks of different widths."""

OUTPUTS = 10


@dataclass(frozen=True)
class Trained:
    """One network's kernel on some digits, before and after training.

    Attributes
    ----------
    spectra
        Eigenvalues, the largest first, before and after.
    alignment
        ⟨K, YYᵀ⟩ over the product of norms, both centred: 1 where the kernel is the labels'.
    effective
        How many directions it has: (Σλ)²/Σλ².
    accuracy
        On the test digits, after.
    """

    spectra: tuple[np.ndarray, np.ndarray]
    alignment: tuple[float, float]
    effective: tuple[float, float]
    accuracy: float


@dataclass(frozen=True)
class Width:
    """Networks of one width, several drawn at random.

    Attributes
    ----------
    width
        Units in each hidden layer.
    error
        ‖Θ − Θ∞‖/‖Θ∞‖ of each.
    moved
        ‖Θ_trained − Θ‖/‖Θ‖ of each.
    loss
        The loss after training over that before, of each.
    """

    width: int
    error: tuple[float, ...]
    moved: tuple[float, ...]
    loss: tuple[float, ...]


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, images: int = 300, steps: int = 1000, draws: int = 8
) -> None:
    """Train one network and look at its kernel; then compare widths with theory.

    Parameters
    ----------
    seed
        Of weights and minibatches.
    quick
        Fewer images, steps, widths and draws.
    out
        Folder for the figure and the numbers.
    images
        Digits between which the trained network's kernel is taken.
    steps
        Training steps of that network.
    draws
        Networks of each width.
    """
    if quick:
        images, steps, draws = 100, 300, 4
    digits = load_digits(seed)
    trained = train(digits, images, steps, seed)
    few = digits.train[0][: 32 if quick else 64], digits.train[1][: 32 if quick else 64]
    widths = [16, 64, 256] if quick else [16, 32, 64, 128, 256, 512, 1024]
    rows = [at_width(width, few, draws, seed, 30 if quick else 100) for width in widths]
    slopes = {name: slope(widths, [np.median(getattr(row, name)) for row in rows]) for name in ("error", "moved")}
    heading(f"{HIDDEN} layers of ReLU, {len(few[0])} digits, medians of {draws} networks")
    cells = [(str(row.width), *(f"{np.median(part):.3g}" for part in (row.error, row.moved, row.loss))) for row in rows]
    print(Table("", ("width", "off the limit", "moved by training", "loss left"), cells))
    before, after = trained.spectra
    findings = [
        f"Off its infinite-width limit by {np.median(rows[0].error):.1%} at width {widths[0]}, by {np.median(rows[-1].error):.1%} at {widths[-1]}; it falls as n^{slopes['error']:.2f} (theory: −½).",
        f"Trained alike, a kernel moves by {np.median(rows[0].moved):.1%} at width {widths[0]}, by {np.median(rows[-1].moved):.1%} at {widths[-1]}, as n^{slopes['moved']:.2f} (bound: −½).",
        f"A network of usual width that learns ({trained.accuracy:.1%} of the test digits): its kernel's largest eigenvalue grows {after[0] / before[0]:.2g}-fold, "
        f"its trace {after.sum() / before.sum():.2g}-fold, its alignment with the labels goes from {trained.alignment[0]:.2f} to {trained.alignment[1]:.2f}, "
        f"the directions that it has from {trained.effective[0]:.1f} to {trained.effective[1]:.1f}.",
    ]
    numbers = {
        "seed": seed,
        "images": images,
        "steps": steps,
        "trained": vars(trained),
        "widths": [vars(row) for row in rows],
        "slopes": slopes,
    }
    conclude(out / "tangent_kernel.json", numbers, findings, [draw(trained, rows, slopes, out)])


# --------------------------------------------------------------------------------------------- one network that learns


def train(digits: Digits, images: int, steps: int, seed: int) -> Trained:
    """Fit a network of two hidden layers, and take its kernel before and after."""
    net = jc.nets.mlp([64, 128, 128, OUTPUTS], "relu", "he")
    params = net.init(jax.random.key(seed))
    fitted = fit_digits(net, params, digits, steps=steps, seed=seed, progress=False)
    xs, labels = digits.train[0][:images], digits.train[1][:images]
    kernel = jax.jit(lambda params: jc.ntk(net, params, xs, outputs="trace"))
    both = [np.asarray(kernel(p), np.float64) for p in (params, fitted.params)]
    spectra = [np.linalg.eigvalsh(theta)[::-1] for theta in both]
    same = np.asarray(labels)[:, None] == np.asarray(labels)
    first, second = (alignment(theta, same.astype(float)) for theta in both)
    before, after = (float(s.sum() ** 2 / (s**2).sum()) for s in spectra)
    return Trained(
        (spectra[0], spectra[1]), (first, second), (before, after), accuracy(net, fitted.params, digits.test)
    )


def alignment(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two kernels, both centred."""
    a, b = (k - k.mean(0) - k.mean(1)[:, None] + k.mean() for k in (one, other))
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


# ------------------------------------------------------------------------------------------------- narrow and wide ones


def network(params: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """ReLU layers whose scale is in the network, not in the weights, so that widths can be compared."""
    *hidden, last = params
    for w in hidden:
        x = jax.nn.relu(w @ x / jnp.sqrt(w.shape[1])) * jnp.sqrt(2.0)
    return last @ x / jnp.sqrt(last.shape[1])


def arc_cosine(xs: np.ndarray) -> np.ndarray:
    """The infinite-width limit of one output's kernel.

    K₁ = x·x′/d and Θ₁ = K₁; then K_{l+1} = √(K K′) (sin φ + (π − φ) cos φ)/π, with φ the angle by K_l, and
    Θ_{l+1} = K_{l+1} + Θ_l (π − φ)/π.
    """
    k = np.asarray(xs, np.float64) @ np.asarray(xs, np.float64).T / xs.shape[1]
    theta = k.copy()
    for _ in range(HIDDEN):
        lengths = np.sqrt(np.outer(np.diag(k), np.diag(k)))
        cosine = np.clip(k / lengths, -1, 1)
        angle = np.arccos(cosine)
        k = lengths * (np.sin(angle) + (np.pi - angle) * cosine) / np.pi
        theta = k + theta * (np.pi - angle) / np.pi
    return theta


def at_width(width: int, few: tuple[jax.Array, jax.Array], draws: int, seed: int, steps: int) -> Width:
    """Draw networks, compare their kernels with the limit, train them, and see how far the kernels moved."""
    xs, labels = few
    targets = jax.nn.one_hot(labels, OUTPUTS) - 1 / OUTPUTS
    limit = arc_cosine(np.asarray(xs))
    sizes = [xs.shape[1], *[width] * HIDDEN, OUTPUTS]
    descent = optax.sgd(1 / float(np.linalg.eigvalsh(limit)[-1]))  # the same for all widths
    kernel = jax.jit(lambda params: jc.ntk(network, params, xs, outputs="trace") / OUTPUTS)

    def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.sum((jax.vmap(network, (None, 0))(params, batch[0]) - batch[1]) ** 2) / 2

    found: list[tuple[float, float, float]] = []
    for key in jax.random.split(jax.random.key(seed), draws):
        keys = jax.random.split(key, len(sizes) - 1)
        params = [jax.random.normal(k, (o, i)) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        fitted = jc.train.fit(loss, params, (xs, targets), descent, steps=steps, progress=False)
        before, after = (np.asarray(kernel(p), np.float64) for p in (params, fitted.params))
        losses = fitted.history.loss
        found.append((off(before, limit), off(after, before), float(losses[-1] / losses[0])))
    error, moved, left = zip(*found, strict=True)
    return Width(width, error, moved, left)


def off(one: np.ndarray, other: np.ndarray) -> float:
    """Relative distance."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def slope(widths: Sequence[int], values: Sequence[Any]) -> float:
    """The power of n by which something falls."""
    return float(np.polyfit(np.log(widths), np.log(np.asarray(values, float)), 1)[0])


# ----------------------------------------------------------------------------------------------------------- the figure


def draw(trained: Trained, rows: Sequence[Width], slopes: dict[str, float], out: Path) -> Path:
    """The spectrum of the one network above; distances by width below."""
    with mpl.rc_context(jc.plot.STYLE):
        figure = plt.figure(figsize=(8.6, 8.0), layout="constrained")
        grid = figure.add_gridspec(2, 2)
        top, left, right = (figure.add_subplot(place) for place in (grid[0, :], grid[1, 0], grid[1, 1]))
        spectra(top, trained)
        by_width(left, rows, "error", f"Off its limit, by $n^{{{slopes['error']:.2f}}}$", "‖Θ − Θ∞‖ / ‖Θ∞‖")
        by_width(right, rows, "moved", f"Moved by training, by $n^{{{slopes['moved']:.2f}}}$", "‖Θ trained − Θ‖ / ‖Θ‖")
    return jc.plot.save(figure, out / "tangent_kernel.png")


def spectra(ax: Axes, trained: Trained) -> None:
    """Eigenvalues before and after training."""
    for values, when, colour, share in zip(
        trained.spectra, ("before training", "after training"), ("#004488", "#BB5566"), trained.alignment, strict=True
    ):
        ax.plot(
            np.arange(1, len(values) + 1), values, color=colour, label=f"{when}: alignment with the labels {share:.2f}"
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of the eigenvalue, the largest first",
        ylabel="eigenvalue of the kernel",
    )
    grown = trained.spectra[1].sum() / trained.spectra[0].sum()
    ax.set_title(f"Training makes the kernel {grown:.0f} times as large, and aligns it with the labels")
    ax.legend(frameon=False)


def by_width(ax: Axes, rows: Sequence[Width], name: str, title: str, label: str) -> None:
    """A distance by width, each network a dot, beside 1/√n through the median at the first width."""
    widths = np.array([row.width for row in rows])
    values = np.array([getattr(row, name) for row in rows])
    medians = np.median(values, axis=1)
    ax.plot(widths, medians[0] * np.sqrt(widths[0] / widths), color="black", linestyle=":", label="1/√n")
    ax.plot(widths, medians, color="#004488", label="median")
    ax.plot(np.repeat(widths, values.shape[1]), values.ravel(), ".", color="#004488", alpha=0.4)
    ax.set(xscale="log", yscale="log", xlabel="width n", ylabel=label, xticks=widths)
    ax.set_xticklabels([str(width) for width in widths])
    ax.minorticks_off()
    ax.set_title(title)
    ax.legend(frameon=False)


if __name__ == "__main__":
    tyro.cli(main)
