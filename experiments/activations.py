"""What four activations do to a cotangent, once and twenty times over.

Question   ReLU, tanh, sigmoid, GELU: what are their derivatives, what do twenty layers make of a
           cotangent, and which units are dead?
Command    python experiments/activations.py
Expect     A layer multiplies a cotangent's squared norm by χ = σ_w² E[φ′(h)²] on average, h being
           what the activation sees. ReLU with He weights has χ = 1 and keeps it for twenty layers;
           tanh with LeCun weights loses some; a sigmoid, whose derivative is at most 1/4, loses all
           of it. A ReLU's Jacobian has a zero column for every unit that is off at this input; a
           unit that is off at every input is dead, and training at a high rate makes many such.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

GAIN = {"he": math.sqrt(2), "lecun": 1.0}
DEPTH = 20


@dataclass(frozen=True)
class Flow:
    """Norm of a cotangent after 0 … 20 layers, in the median network, and what mean-field theory expects."""

    measured: np.ndarray
    theory: np.ndarray


@dataclass(frozen=True)
class Units:
    """Hidden units of a trained network: off at one image, dead at all of them; accuracy, median |φ′|."""

    accuracy: float
    hidden: int
    off_at_one: int
    dead: int
    median_slope: float


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, width: int = 256, rate: float = 0.5) -> None:
    """Compare four activations: derivatives, cotangents through twenty layers, dead units.

    Parameters
    ----------
    seed
        Of weights, inputs and the split of the digits.
    quick
        Narrower networks, fewer training steps.
    out
        Folder for figures and numbers.
    width
        Units a layer in the stack of twenty.
    rate
        Learning rate of the networks whose units are counted; high rates kill ReLUs.
    """
    heading(f"Twenty layers of width {64 if quick else width}: norm of a cotangent, as pulled back")
    flows = {name: pull_back(name, init, 64 if quick else width, seed) for name, init in CASES.items()}
    rows = [
        (f"{name} ({CASES[name]})", *(f"{f.measured[k]:.3g}" for k in (0, 5, 10, 20)), f"{f.theory[-1]:.3g}")
        for name, f in flows.items()
    ]
    print(Table("", ("activation (weights)", "0 layers", "5", "10", "20", "20 by theory"), rows))

    heading(f"Units of a 64-128-64-10 network trained on digits with momentum, rate {rate:g}")
    units = {name: count_units(name, 60 if quick else 400, rate, seed) for name in CASES}
    rows = [
        (name, f"{u.accuracy:.1%}", f"{u.off_at_one} of {u.hidden}", f"{u.dead} of {u.hidden}", f"{u.median_slope:.3g}")
        for name, u in units.items()
    ]
    notes = ("Off: a zero column in the activation's local Jacobian at one image. Dead: at every test image.",)
    print(Table("", ("activation", "accuracy", "off", "dead", "median |φ′|"), rows, notes))

    steepest = {name: float(jnp.abs(slopes(name)[1]).max()) for name in CASES}
    figures = [draw_derivatives(out), draw_flow(flows, out)]
    slope = ", ".join(f"{name} {value:.3g}" for name, value in steepest.items())
    factor = ", ".join(f"{name} {flow.measured[-1]:.2g}" for name, flow in flows.items())
    counts = ", ".join(f"{name} {u.off_at_one} and {u.dead} of {u.hidden}" for name, u in units.items())
    findings = [
        f"Steepest slope: {slope}.",
        f"Twenty layers multiply a cotangent's norm by: {factor}.",
        f"Units off at one image and dead at all: {counts}.",
    ]
    numbers = {"seed": seed, "quick": quick, "depth": DEPTH, "steepest_slope": steepest, "flow": flows, "units": units}
    conclude(out / "activations.json", numbers, findings, figures)


def slopes(name: str) -> tuple[jax.Array, jax.Array]:
    """Places from −4 to 4 and the derivative there."""
    x = jnp.linspace(-4, 4, 801)
    return x, jax.vmap(jax.grad(ACTIVATIONS[name]))(x)


def pull_back(name: str, init: str, width: int, seed: int, samples: int = 32) -> Flow:
    """Pull cotangents back through twenty layers dense → activation, in networks drawn anew for each.

    The median says what a typical network does; a mean would be that of the few luckiest.
    """
    stack = jc.nets.mlp([width] * (DEPTH + 2), name, init)[: 2 * DEPTH]
    key_params, key_x, key_c = jax.random.split(jax.random.key(seed), 3)
    params = jax.jit(jax.vmap(stack.init))(jax.random.split(key_params, samples))
    x, cotangent = jax.random.normal(key_x, (samples, width)), jax.random.normal(key_c, (samples, width))
    cotangent /= jnp.linalg.norm(cotangent, axis=1, keepdims=True)
    sweeps = jax.jit(jax.vmap(lambda p, x, c: jc.reverse_sweep(stack, (p, x), c)))(params, x, cotangent)
    # Every other state lies between layers; backwards, because a cotangent starts at the output.
    squares = np.array([(c**2).sum(axis=1) for c in sweeps.cotangents[::-2]])
    return Flow(np.sqrt(np.median(squares, axis=1)), expected_norms(ACTIVATIONS[name], GAIN[init]))


def expected_norms(phi: Callable[[jax.Array], jax.Array], sigma_w: float) -> np.ndarray:
    """√(χ_L χ_{L-1} ⋯) after 0 … L layers, with χ = σ_w² E[φ′(h)²] and h normal, of variance σ_w² E[x²].

    Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)  # an even number: none at ReLU's kink
    weights = jnp.asarray(weights / weights.sum())
    chis, second_moment = list[float](), 1.0
    for _ in range(DEPTH):
        h = sigma_w * math.sqrt(second_moment) * jnp.asarray(nodes)
        chis.append(float(sigma_w**2 * weights @ jax.vmap(jax.grad(phi))(h) ** 2))
        second_moment = float(weights @ phi(h) ** 2)
    return np.sqrt(np.cumprod([1.0, *reversed(chis)]))


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


def draw_flow(flows: dict[str, Flow], out: Path) -> Path:
    """Norms by depth, with mean-field theory."""
    labels = {name: f"{name} ({CASES[name]})" for name in flows}
    kept = max(flows, key=lambda name: -abs(math.log(flows[name].measured[-1])))
    lost = min(flows, key=lambda name: flows[name].measured[-1])
    title = f"{DEPTH} layers multiply a cotangent's norm by {flows[kept].measured[-1]:.2g} with {kept}, by {flows[lost].measured[-1]:.0e} with {lost}"
    axes = jc.plot.norms_by_depth(
        {labels[name]: flow.measured for name, flow in flows.items()},
        theory={labels[name]: flow.theory for name, flow in flows.items()},
        title=title, xlabel="layers passed, from the output back", ylabel="norm of the cotangent (1 at the output)",
    )  # fmt: skip
    axes.set_xticks(range(0, DEPTH + 1, 5))
    return jc.plot.save(axes, out / "activations_cotangents.png")


if __name__ == "__main__":
    tyro.cli(main)
