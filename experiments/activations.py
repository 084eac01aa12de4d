"""The slopes of four activations, and the units that training leaves without one.

Question   ReLU, tanh, sigmoid, GELU: what are their derivatives, and which units are dead after training?
           (What hundreds of them do to a gradient: vanishing_gradients.py.)
Command    python experiments/activations.py
Expect     A sigmoid's derivative is at most ¼, tanh's at most 1. A ReLU's Jacobian has a zero column for
           every unit that is off at this input; a unit that is off at every input is dead, and training
           at a high rate makes many such.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.digits import accuracy, cross_entropy, load_digits
from jaxchain.nets import ACTIVATIONS
from jaxchain.show.table import Table

CASES = {"relu": "he", "tanh": "lecun", "sigmoid": "lecun", "gelu": "he"}
"""Activation → the initialiser that goes with it."""


@dataclass(frozen=True)
class Units:
    """Hidden units of a trained network: off at one image, dead at all of them; accuracy, median |φ′|."""

    accuracy: float
    hidden: int
    off_at_one: int
    dead: int
    median_slope: float


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, rate: float = 0.5) -> None:
    """Compare four activations: derivatives and dead units.

    Parameters
    ----------
    seed
        Of weights, inputs and the split of the digits.
    quick
        Fewer training steps.
    out
        Folder for figures and numbers.
    rate
        Learning rate of the networks whose units are counted; high rates kill ReLUs.
    """
    heading(f"Units of a 64-128-64-10 network trained on digits with momentum, rate {rate:g}")
    units = {name: count_units(name, 60 if quick else 400, rate, seed) for name in CASES}
    rows = [
        (name, f"{u.accuracy:.1%}", f"{u.off_at_one} of {u.hidden}", f"{u.dead} of {u.hidden}", f"{u.median_slope:.3g}")
        for name, u in units.items()
    ]
    notes = ("Off: a zero column in the activation's local Jacobian at one image. Dead: at every test image.",)
    print(Table("", ("activation", "accuracy", "off", "dead", "median |φ′|"), rows, notes))

    steepest = {name: float(jnp.abs(slopes(name)[1]).max()) for name in CASES}
    figures = [draw_derivatives(out)]
    slope = ", ".join(f"{name} {value:.3g}" for name, value in steepest.items())
    counts = ", ".join(f"{name} {u.off_at_one} and {u.dead} of {u.hidden}" for name, u in units.items())
    findings = [
        f"Steepest slope: {slope}.",
        f"Units off at one image and dead at all: {counts}.",
    ]
    numbers = {"seed": seed, "quick": quick, "steepest_slope": steepest, "units": units}
    conclude(out / "activations.json", numbers, findings, figures)


def slopes(name: str) -> tuple[jax.Array, jax.Array]:
    """Places from −4 to 4 and the derivative there."""
    x = jnp.linspace(-4, 4, 801)
    return x, jax.vmap(jax.grad(ACTIVATIONS[name]))(x)


def count_units(name: str, steps: int, rate: float, seed: int) -> Units:
    """Train with momentum, then look for zero columns in the activations' local Jacobians."""
    digits = load_digits(seed)
    net = jc.nets.mlp([64, 128, 64, 10], name, CASES[name])
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9))
    params = net.init(jax.random.key(seed))
    key, loss = jax.random.key(seed + 1), cross_entropy(net)
    fit = jc.train.fit(loss, params, digits.train, optimizer, steps=steps, batch_size=64, key=key)
    jacobians = jax.jit(jax.vmap(lambda image: jc.local_jacobians(net, (fit.params, image))))(digits.test[0])
    matrices = [np.asarray(j.matrix) for j in jacobians if j.name.startswith(name)]
    diagonals = np.concatenate([np.diagonal(matrix, axis1=1, axis2=2) for matrix in matrices], axis=1)
    off = sum(jc.Structure.of(matrix[0]).zero_columns for matrix in matrices)
    dead = sum(jc.Structure.of(np.abs(matrix).sum(0)).zero_columns for matrix in matrices)
    median = float(np.median(np.abs(diagonals)))
    return Units(accuracy(net, fit.params, digits.test), diagonals.shape[1], off, dead, median)


def draw_derivatives(out: Path) -> Path:
    """φ and φ′ of each activation, side by side."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(1, len(CASES), figsize=(8, 2.9), sharex=True, sharey=True, layout="constrained")
        for ax, name in zip(axes, CASES, strict=True):
            x, slope = slopes(name)
            ax.axhline(0, color="#8A8A8A", linewidth=0.7)
            ax.plot(x, ACTIVATIONS[name](x), color="#8A8A8A", linestyle="--", linewidth=1.4, label="φ(h)")
            ax.plot(x, slope, color=jc.plot.COLOURS["reverse"], linewidth=2, label="φ′(h)")
            ax.set(title=f"{name}: max φ′ {slope.max():.3g}", xlabel="h", xticks=(-4, 0, 4), ylim=(-1.1, 2.1))
        axes[0].set_ylabel("φ (dashed), φ′ (solid)")
        axes[0].legend(frameon=False, loc="upper left")
        flattest = min(CASES, key=lambda name: float(jnp.abs(slopes(name)[1]).max()))
        figure.suptitle(
            f"A cotangent passes an activation multiplied by φ′: {flattest} lets the least through",
            x=0.01,
            ha="left",
            fontsize=11.5,
        )
    return jc.plot.save(figure, out / "activations_derivatives.png")


if __name__ == "__main__":
    tyro.cli(main)
