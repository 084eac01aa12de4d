"""Forward mode pays by the column, reverse mode by the row: where do they cross?

Question   A Jacobian has n columns and m rows. Which mode is cheaper, by how much, and what of a
           loss, where m = 1?
Command    python experiments/forward_vs_reverse.py
Theory     One sweep through the chain costs 2|E| operations, |E| being its multiply-adds. Forward
           mode evaluates the chain and sends n tangents through it, (1 + n)·2|E|; reverse mode
           evaluates it and pulls m cotangents back, (1 + m)·2|E|. Activations come on top.
Expect     While n grows and m stays, forward's work grows with slope 1 on log-log axes and
           reverse's with slope 0, as far as 1 + n is n and |E| does not depend on n; the slopes of
           the formulae are printed beside the measured ones. Work crosses where n = m,
           and time near there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import tyro
from common import RESULTS, conclude, heading
from matplotlib.ticker import EngFormatter

import jaxchain as jc
from jaxchain.show.table import Table, si

HIDDEN = (1024, 1024, 1024)
"""Widths between input and output: wide, so that |E| hardly depends on n and m."""


@dataclass(frozen=True)
class Sweep:
    """Costs of chains of growing size: columns of numbers, and what follows from them.

    ``costs``: n, m, and of each mode the measured FLOPs, theory's, and seconds. ``slopes``: of log
    FLOPs over log size. ``crossings``: where both modes take equal FLOPs, equal seconds.
    """

    grows: str
    costs: dict[str, np.ndarray]
    slopes: dict[str, float]
    crossings: dict[str, float | None]

    def told(self, mode: str) -> str:
        """A measured slope beside theory's."""
        return f"{self.slopes[f'{mode}_flops']:.3f} (theory {self.slopes[f'{mode}_theory']:.3f})"

    def crossed(self, kind: str) -> str:
        """A crossing in words."""
        size = self.crossings[kind]
        return f"no {self.grows} here" if size is None else f"{self.grows} = {size:.0f}"

    def saving(self, kind: str) -> float:
        """How many times reverse mode's cost forward mode's is, at the largest size."""
        return float(self.costs[f"forward_{kind}"][-1] / self.costs[f"reverse_{kind}"][-1])


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, fixed: int = 32) -> None:
    """Measure both modes' work and time on dense chains whose input or output grows.

    Parameters
    ----------
    seed
        Of the weights and inputs.
    quick
        Fewer sizes, fewer timed calls.
    out
        Folder for figures and numbers.
    fixed
        The size that stays while the other grows from an eighth to eight times as much.
    """
    sizes = [fixed // 8, fixed, 4 * fixed] if quick else [fixed * 2**k // 8 for k in range(7)]
    repeats = 1 if quick else 30
    heading(f"n inputs grow, m = {fixed} outputs stay")
    inputs = explore([(n, fixed) for n in sizes], "n", seed, repeats)
    heading(f"m outputs grow, n = {fixed} inputs stay")
    outputs = explore([(fixed, m) for m in sizes], "m", seed, repeats)
    heading("A scalar loss: m = 1")
    loss = explore([(n, 1) for n in sizes], "n", seed, repeats)

    equal = "Forward and reverse mode take equal"
    crossed = f"slopes {inputs.slopes['forward_flops']:.2f} and {inputs.slopes['reverse_flops']:.2f}"
    figures = [
        draw(inputs, "flops", f"{equal} work at {inputs.crossed('flops')}, with m = {fixed}: {crossed}", fixed, out / "forward_vs_reverse_inputs_flops.png"),
        draw(inputs, "seconds", f"{equal} time at {inputs.crossed('seconds')}, with m = {fixed}", fixed, out / "forward_vs_reverse_inputs_seconds.png"),
        draw(outputs, "flops", f"{equal} work at {outputs.crossed('flops')}, with n = {fixed}", fixed, out / "forward_vs_reverse_outputs_flops.png"),
        draw(loss, "flops", f"A loss's gradient by {sizes[-1]} inputs: forward mode takes {loss.saving('flops'):.0f} times reverse mode's work", None, out / "forward_vs_reverse_loss.png"),
    ]  # fmt: skip
    findings = [
        f"Inputs growing at m = {fixed}: slope of forward {inputs.told('forward')}, of reverse {inputs.told('reverse')}.",
        f"Outputs growing at n = {fixed}: slope of forward {outputs.told('forward')}, of reverse {outputs.told('reverse')}.",
        f"Where the other size is {fixed}, work crosses at {inputs.crossed('flops')} and {outputs.crossed('flops')}, time at {inputs.crossed('seconds')} and {outputs.crossed('seconds')}.",
        f"The gradient of a loss by {sizes[-1]} inputs takes one reverse sweep; {sizes[-1]} forward ones take {loss.saving('flops'):.0f} times its work and {loss.saving('seconds'):.0f} times its time.",
    ]
    numbers = {
        "seed": seed,
        "quick": quick,
        "hidden": HIDDEN,
        "fixed": fixed,
        "inputs": inputs,
        "outputs": outputs,
        "loss": loss,
    }
    conclude(out / "forward_vs_reverse.json", numbers, findings, figures)


def explore(shapes: Sequence[tuple[int, int]], grows: str, seed: int, repeats: int) -> Sweep:
    """Measure chains with these (n, m), print them, and find slopes and crossings."""
    points = [measure(n, m, seed, repeats) for n, m in shapes]
    shown = [key for key in points[0] if key not in "nm"]
    rows = [(f"{p['n']} → {p['m']}", *(si(p[k], "s" if "seconds" in k else "FLOP") for k in shown)) for p in points]
    print(Table("", ("n → m", "forward", "theory", "time", "reverse", "theory", "time"), rows))
    costs = {key: np.array([point[key] for point in points]) for key in points[0]}
    slopes = {key: slope(costs[grows], costs[key]) for key in shown if not key.endswith("seconds")}
    crossings = {k: crossing(costs[grows], costs[f"forward_{k}"], costs[f"reverse_{k}"]) for k in ("flops", "seconds")}
    return Sweep(grows, costs, slopes, crossings)


def measure(n: int, m: int, seed: int, repeats: int) -> dict[str, float]:
    """Both modes on one chain dense → tanh → … → dense."""
    widths = (n, *HIDDEN, m)
    key_params, key_x = jax.random.split(jax.random.key(seed))
    net = jc.nets.mlp(widths, "tanh", "lecun")
    found = jc.compare_modes(net, net.init(key_params), jax.random.normal(key_x, (n,)), repeats=repeats)
    one_sweep = 2.0 * sum(a * b for a, b in pairwise(widths))
    costs: dict[str, float] = {"n": n, "m": m}
    for mode, vectors in (("forward", n), ("reverse", m)):
        costs[f"{mode}_flops"], costs[f"{mode}_theory"] = found[mode].flops, (1 + vectors) * one_sweep
        costs[f"{mode}_seconds"] = found[mode].run_seconds
    return costs


def slope(sizes: np.ndarray, costs: np.ndarray) -> float:
    """Exponent of a power law, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def crossing(sizes: np.ndarray, forward: np.ndarray, reverse: np.ndarray) -> float | None:
    """The size at which both cost the same, on straight lines between neighbours in logarithms."""
    gap, places = np.log(forward / reverse), np.log(sizes)
    changes = np.flatnonzero(np.sign(gap[:-1]) != np.sign(gap[1:]))
    if not changes.size:
        return None
    k = int(changes[0])
    return float(np.exp(places[k] + (places[k + 1] - places[k]) * gap[k] / (gap[k] - gap[k + 1])))


def draw(sweep: Sweep, kind: str, title: str, equal: float | None, path: Path) -> Path:
    """Both modes' FLOPs or seconds over the size that grows."""
    costs, theory = sweep.costs, kind == "flops"
    axes = jc.plot.cost_curves(
        costs[sweep.grows],
        costs[f"forward_{kind}"],
        costs[f"reverse_{kind}"],
        theory_forward=costs["forward_theory"] if theory else None,
        theory_reverse=costs["reverse_theory"] if theory else None,
        crossing=equal,
        title=title,
        xlabel={"n": "number of inputs n", "m": "number of outputs m"}[sweep.grows],
        ylabel={"flops": "FLOPs for the derivative", "seconds": "time for the derivative"}[kind],
    )
    if kind == "seconds":
        axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
    return jc.plot.save(axes, path)


if __name__ == "__main__":
    tyro.cli(main)
