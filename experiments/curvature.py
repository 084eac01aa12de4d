"""Which layer bends the loss, and the energy of an oscillator's ground state by its Laplacian.

Question   A Hessian is a sum over the stages that bend. Which of them bend the loss of a network that reads digits,
           before and after it has learnt? And is the cheap trace of that sum, the Laplacian, good enough to find the
           ground state of coupled oscillators?
Command    python experiments/curvature.py
Expect     Dense layers are linear and add nothing. What the loss adds is never negative (softmax cross-entropy is
           convex in its logits); a tanh bends both ways, and more the further behind it is. The local energy
           E(x) = −½ (∇²f + |∇f|²) + V(x) of a trial function ψ = exp f is the same everywhere once ψ is the ground
           state, and its mean then is ½ tr √K, the exact energy for V = ½ xᵀKx. Training makes its variance small.
"""

from __future__ import annotations

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

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.digits import accuracy, fit_digits, load_digits
from jaxchain.show.table import Table

SIZES = [64, 48, 32, 10]
OSCILLATORS, COUPLING = 6, 0.5
SPREAD = 0.8
"""Standard deviation of the points at which the local energy is made even; that of the ground state is some 0.6."""


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, images: int = 100, steps: int = 3000) -> None:
    """Look at the curvature of a digits network's loss, and train a trial function by local energies.

    Parameters
    ----------
    seed
        Of weights, minibatches and points.
    quick
        Fewer images and steps.
    out
        Folder for the figures and the numbers.
    images
        How many test images are averaged over.
    steps
        Training steps of the trial function.
    """
    images, steps = (4, 300) if quick else (images, steps)
    digits, bent = bent_digits(seed, quick, images, out)
    oscillator, energies = oscillators(seed, steps, out)
    layers = [name for name in bent["trained"] if name.startswith("tanh")]
    trained, first = bent["trained"], bent["initial"]
    most = max(layers, key=lambda name: trained[name]["norm"])
    dense = max(row["norm"] for name, row in trained.items() if name.startswith("dense"))
    both = ", ".join(f"{name} {trained[name]['positive']:+.2g} and {trained[name]['negative']:+.2g}" for name in layers)
    findings = [
        f"Of the trained loss, the last stage adds {trained['loss']['norm']:.2g} to the Hessian (Frobenius norm, mean of {images} images) "
        f"and {most} {trained[most]['norm']:.2g}, the most of any layer; before training {first['loss']['norm']:.2g} and {first[most]['norm']:.2g}. "
        f"Dense layers add {dense:.2g}.",
        f"The loss bends upwards alone: the least eigenvalue of what it adds is {trained['loss']['least']:.1g}. The tanh layers bend both ways: {both}.",
        f"{OSCILLATORS} coupled oscillators: energy {oscillator['energy']:.5f} ± {oscillator['error']:.1g} after {steps} steps, exact {oscillator['exact']:.5f}; "
        f"the local energy's deviation went from {energies[0]:.2g} to {energies[-1]:.2g}.",
        f"The Laplacian takes {oscillator['work'][0] / oscillator['work'][1]:.2f} of the work of the trace of jax.hessian.",
    ]
    numbers = {
        "seed": seed,
        "images": images,
        "accuracy": digits,
        "stages": bent,
        "oscillator": {**oscillator, "steps": steps, "deviation": energies[[0, -1]]},
    }
    conclude(out / "curvature.json", numbers, findings, [out / "curvature_stages.png", out / "curvature_energy.png"])


# --------------------------------------------------------------------------------------------------------------- digits


def bent_digits(seed: int, quick: bool, images: int, out: Path) -> tuple[float, dict[str, Any]]:
    """What each stage adds to the Hessian of the loss by the image, before training and after."""
    digits = load_digits(seed)
    net = jc.nets.mlp(SIZES, "tanh", "lecun")
    params = net.init(jax.random.key(seed))
    fitted = fit_digits(net, params, digits, steps=100 if quick else 800, seed=seed, progress=False)
    pictures, labels = (np.asarray(part[:images]) for part in digits.test)
    # Of the least sure of the right answers: what is sure is flat.
    logits = np.asarray(jax.vmap(net, (None, 0))(fitted.params, digits.test[0]))
    shown = int(np.argmin(np.where(logits.argmax(1) == digits.test[1], logits.max(1), np.inf)))
    numbers: dict[str, Any] = {}
    figure, axes = figure_of(2, (8.6, 8.4))
    heading(f"Curvature of the loss by the image, mean of {images} test images")
    for ax, (when, weights) in zip(axes, {"initial": params, "trained": fitted.params}.items(), strict=True):
        found = [
            jc.curvature(*with_loss(net, weights, image, label)) for image, label in zip(pictures, labels, strict=True)
        ]
        numbers[when] = averaged(found)
        print(f"{when}:\n{table(numbers[when])}")
        one = jc.curvature(*with_loss(net, weights, digits.test[0][shown], digits.test[1][shown]))
        title = {
            "initial": "Before training: loss of one digit",
            "trained": "After: of all that it reads right, it is least sure of this digit",
        }
        jc.plot.curvature(one, ax=ax, title=title[when])
    jc.plot.save(figure, out / "curvature_stages.png")
    return accuracy(net, fitted.params, digits.test), numbers


LOSSES: dict[int, jc.Chain] = {}


def with_loss(net: jc.Chain, params: Any, image: Any, label: Any) -> tuple[Any, ...]:
    """The chain from an image to its loss, and its arguments; one chain a label, compiled once."""
    label = int(label)
    if label not in LOSSES:
        loss = jc.Stage("loss", lambda logits: optax.softmax_cross_entropy_with_integer_labels(logits, label))
        LOSSES[label] = jc.Chain([*net, loss])
    return LOSSES[label], params, jnp.asarray(image)


def averaged(found: list[jc.Curvature]) -> dict[str, dict[str, float]]:
    """By stage: means over images, and the least eigenvalue of all."""
    rows = zip(*((*one.rows, one.whole) for one in found), strict=True)
    fields = ("norm", "trace", "positive", "negative")
    return {
        row[0].name: {field: float(np.mean([getattr(one, field) for one in row])) for field in fields}
        | {"least": float(min(one.eigenvalues[0] for one in row))}
        for row in rows
    }


def table(numbers: dict[str, dict[str, float]]) -> Table:
    """The averages as text."""
    header = ("stage", "norm", "trace", "λ > 0", "λ < 0")
    rows = [
        (name, *(f"{row[field]:.3g}" for field in ("norm", "trace", "positive", "negative")))
        for name, row in numbers.items()
    ]
    return Table("", header, rows)


# ---------------------------------------------------------------------------------------------------------- oscillators


@dataclass(frozen=True)
class Trial:
    """ψ = exp f, f(x) = net(x) − ½ c |x|²."""

    net: jc.Chain

    def log(self, params: Any, x: jax.Array) -> jax.Array:
        """The logarithm f."""
        return self.net(params["net"], x)[0] - jax.nn.softplus(params["c"]) * jnp.sum(x**2) / 2

    def local_energy(self, params: Any, x: jax.Array) -> jax.Array:
        """Hψ/ψ = −½ (∇²f + |∇f|²) + ½ xᵀKx."""
        slope = jax.grad(self.log, 1)(params, x)
        kinetic = -(jc.laplacian(self.log, 1)(params, x) + slope @ slope) / 2
        return kinetic + x @ STIFFNESS @ x / 2


STIFFNESS = np.eye(OSCILLATORS) + COUPLING * (
    2 * np.eye(OSCILLATORS) - np.eye(OSCILLATORS, k=1) - np.eye(OSCILLATORS, k=-1)
)
"""K: each oscillator is tied to its place, and to its neighbours."""


def oscillators(seed: int, steps: int, out: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Train a trial function until its local energy is even, and draw its energy on the way."""
    trial = Trial(jc.nets.mlp([OSCILLATORS, 32, 32, 1], "tanh", "lecun"))
    key, drawn, tested = jax.random.split(jax.random.key(seed), 3)
    params = {"net": trial.net.init(key), "c": jnp.array(0.5)}
    points = SPREAD * jax.random.normal(drawn, (1 << 14, OSCILLATORS))
    energies = jax.vmap(trial.local_energy, (None, 0))

    def unevenness(params: Any, points: jax.Array) -> jax.Array:
        return jnp.var(energies(params, points))

    schedule = optax.cosine_decay_schedule(5e-3, steps)
    fitted = jc.train.fit(
        unevenness, params, points, optax.adam(schedule), steps=steps, batch_size=256, key=key, progress=False
    )
    deviation = np.sqrt(fitted.history.loss)
    at = SPREAD * jax.random.normal(tested, (1 << 15, OSCILLATORS))
    energy, error = mean_energy(trial, fitted.params, at)
    exact = float(np.sqrt(np.linalg.eigvalsh(STIFFNESS)).sum() / 2)

    def traced(params: Any, x: jax.Array) -> jax.Array:
        return jnp.trace(jax.hessian(trial.log, 1)(params, x))

    work = [flops(fun, params, at[0]) for fun in (jc.laplacian(trial.log, 1), traced)]
    local = np.asarray(jax.jit(energies)(fitted.params, at[:4000]))
    draw(np.asarray(jax.jit(energies)(params, at[:4000])), local, exact, deviation, out)
    found = {"energy": energy, "error": error, "exact": exact, "work": work}
    return found, deviation


def mean_energy(trial: Trial, params: Any, at: jax.Array) -> tuple[float, float]:
    """⟨ψ|H|ψ⟩/⟨ψ|ψ⟩ and its standard error, from points of a Gaussian, weighted by ψ² over its density."""
    energies = np.asarray(jax.jit(jax.vmap(trial.local_energy, (None, 0)))(params, at), np.float64)
    logs = 2 * np.asarray(jax.jit(jax.vmap(trial.log, (None, 0)))(params, at), np.float64)
    logs += np.sum(np.asarray(at, np.float64) ** 2, 1) / (2 * SPREAD**2)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    mean = float(weights @ energies)
    return mean, float(np.sqrt(weights**2 @ (energies - mean) ** 2))


def draw(before: np.ndarray, after: np.ndarray, exact: float, deviation: np.ndarray, out: Path) -> None:
    """Local energies before and after training, and how their deviation fell."""
    figure, (left, right) = figure_of((1, 2), (9.6, 4.2))
    low, high = np.quantile(before, [0.01, 0.99])
    bins = np.linspace(min(low, exact - 1), max(high, exact + 1), 80)
    left.hist(before, bins, color="#BBBBBB", label="before training")
    left.hist(after, bins, color="#004488", label="after")
    left.axvline(exact, color="#BB5566", linestyle="--", label="exact ground state")
    left.set_yscale("log")
    left.set_title("Local energies gather at the exact one", loc="left")
    left.set_xlabel("local energy")
    left.set_ylabel("points")
    left.legend(frameon=False)
    right.plot(np.arange(1, len(deviation) + 1), deviation, color="#004488", linewidth=0.8)
    right.set_yscale("log")
    right.set_title("Their deviation falls as the trial function learns", loc="left")
    right.set_xlabel("step")
    right.set_ylabel("standard deviation of the local energy")
    jc.plot.save(figure, out / "curvature_energy.png")


def figure_of(shape: int | tuple[int, int], size: tuple[float, float]) -> Any:
    """A figure in the style of all others."""
    rows, columns = (shape, 1) if isinstance(shape, int) else shape
    with mpl.rc_context(jc.plot.STYLE):
        return plt.subplots(rows, columns, figsize=size, layout="constrained")


if __name__ == "__main__":
    tyro.cli(main)
