"""How gradients flow through a network that learns the digits, one that does not, and that one, mended.

Question   Two networks of the same depth, one of ReLU and one of sigmoids: what does the backward pass of
           every training step say of why the one learns and the other does not, what does jc.diagnose say
           of it before any training, and does its advice help?
Command    python experiments/gradient_flow.py
Expect     With He's weights a ReLU layer keeps a gradient's norm (He et al., arXiv 1502.01852), at the
           start and while it trains. A sigmoid's derivative is at most ¼ (Glorot and Bengio, AISTATS
           2010), so what reaches the first layer shrinks with every layer, and the loss stays near
           log 10 = 2.303, that of ten equally likely digits. The diagnosis advises tanh or ReLU. The
           numbers come from the passes that train: the losses are those of a run that nobody watches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.diagnosis import GradientFlow
from jaxchain.digits import Digits, accuracy, cross_entropy, fit_digits, load_digits
from jaxchain.show.table import Table

WIDTH = 64

CASES = {"ReLU": ("relu", "he"), "sigmoid": ("sigmoid", "he"), "tanh, as advised": ("tanh", "lecun")}
"""Name → activation and initialiser."""


@dataclass(frozen=True)
class Run:
    """One network, trained.

    Attributes
    ----------
    steps
        Those at which its flow was seen.
    flow
        Stacked over these.
    loss, accuracy
        Of the last step's batch; on the test digits.
    kept
        The first layer's cotangent norm over the last hidden layer's, at each of the steps.
    unwatched_gap
        By how much its losses differ from those of a run without flow.
    diagnosis
        Of its loss at the initial parameters and 64 digits.
    """

    steps: np.ndarray
    flow: GradientFlow
    loss: float
    accuracy: float
    kept: np.ndarray
    unwatched_gap: float
    diagnosis: jc.Diagnosis


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, depth: int = 20, steps: int = 400, every: int = 5
) -> None:
    """Diagnose and train them, follow their gradients, and draw them stage by step.

    Parameters
    ----------
    seed
        Of weights and minibatches.
    quick
        Fewer layers and steps.
    out
        Folder for the figure and the numbers.
    depth
        Hidden layers.
    steps
        Training steps.
    every
        How many of them lie between observations.
    """
    depth, steps = (12, 60) if quick else (depth, steps)
    digits = load_digits(seed)
    runs = {name: trained(*case, digits, seed, depth, steps, every) for name, case in CASES.items()}
    heading("What jc.diagnose says before training")
    for name, run in runs.items():
        print(f"{name}: {run.diagnosis}")
    heading(f"{depth} hidden layers on the digits, {steps} steps")
    rows = [
        (name, f"{run.loss:.4f}", f"{run.accuracy:.1%}", f"{run.kept[0]:.2g}", f"{run.kept[-1]:.2g}")
        for name, run in runs.items()
    ]
    print(Table("", ("network", "loss", "test accuracy", "of a cotangent kept, first step", "last step"), rows))
    good, bad, mended = runs.values()
    findings = [
        f"ReLU: of a cotangent ×{good.kept[0]:.2g} reaches the first layer through {depth - 1} others at the first step "
        f"(theory: 1), and the network learns: {good.accuracy:.1%} of the test digits.",
        f"Sigmoid: ×{bad.kept[0]:.2g}, and the loss is {bad.loss:.3f}, log 10 being {math.log(10):.3f}; {bad.accuracy:.1%} of the test digits.",
        f"Diagnosed before training: {bad.diagnosis.verdict} The advice: {bad.diagnosis.findings[0].advice}"
        if bad.diagnosis.findings
        else "Nothing was diagnosed.",
        f"With tanh and LeCun's weights, as advised: ×{mended.kept[0]:.2g}, {mended.accuracy:.1%} of the test digits; the diagnosis: {mended.diagnosis.verdict}",
        f"Watched and unwatched losses differ by {max(run.unwatched_gap for run in runs.values()):.1g}.",
    ]
    numbers = {
        "seed": seed,
        "depth": depth,
        "steps": steps,
        "runs": {
            name: {
                "loss": run.loss,
                "accuracy": run.accuracy,
                "kept": run.kept,
                "worst": run.flow.worst,
                "unwatched_gap": run.unwatched_gap,
                "diagnosis": run.diagnosis.verdict,
                "healthy": run.diagnosis.healthy,
            }
            for name, run in runs.items()
        },
    }
    conclude(out / "gradient_flow.json", numbers, findings, [draw(runs, out)])


def trained(activation: str, init: str, digits: Digits, seed: int, depth: int, steps: int, every: int) -> Run:
    """Train one network twice, watched and not."""
    net = jc.nets.mlp([WIDTH, *[WIDTH] * depth, 10], activation, init)
    params = net.init(jax.random.key(seed))
    how: dict[str, Any] = {"steps": steps, "seed": seed, "progress": False}
    found = fit_digits(net, params, digits, observe=jc.flow(every), **how)
    alone = fit_digits(net, params, digits, **how)
    flow = found.history.observed
    first, last = flow.names.index("dense_0"), flow.names.index(f"dense_{depth - 1}")
    return Run(
        steps=found.history.observed_steps,
        flow=flow,
        loss=float(found.history.loss[-1]),
        accuracy=accuracy(net, found.params, digits.test),
        kept=flow.cotangent[:, first] / flow.cotangent[:, last],
        unwatched_gap=float(np.abs(found.history.loss - alone.history.loss).max()),
        diagnosis=jc.diagnose(cross_entropy(net), (params, jax.tree.map(lambda leaf: leaf[:64], digits.train))),
    )


def draw(runs: dict[str, Run], out: Path) -> Path:
    """Cotangent norms, stage by step, one network above the other."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(len(runs), 1, figsize=(8.6, 4.2 * len(runs)), layout="constrained")
    titles = {
        "ReLU": "ReLU keeps its gradients at all depths, and learns ({:.0%} of the test digits)",
        "sigmoid": "Sigmoids lose theirs on the way back, and do not learn ({:.0%})",
        "tanh, as advised": "With tanh, as the diagnosis advises, they come through, and it learns ({:.0%})",
    }
    for ax, (name, run) in zip(axes, runs.items(), strict=True):
        history = jc.train.History(np.zeros(0), run.flow, run.steps)
        jc.plot.gradient_flow(history, ax=ax, title=titles[name].format(run.accuracy))
    return jc.plot.save(figure, out / "gradient_flow.png")


if __name__ == "__main__":
    tyro.cli(main)
