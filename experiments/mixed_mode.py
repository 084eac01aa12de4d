"""How much cheaper is a Jacobian that is multiplied out from a waist in the middle?

Question   An autoencoder squeezes its input through a code of b numbers. Its Jacobian is a product
           of two matrices that meet there: how much does it save to multiply it so, as b grows?
Command    python experiments/mixed_mode.py
Theory     64-256-b-256-64 has |E| = 2(64·256 + 256 b) multiply-adds. Forward and reverse mode cost
           64 |E|. From the waist outwards the halves cost at most b |E| together, their product
           64² b; weights that are read off need no sweep at all.
Expect     A gain that falls as b grows, as predicted before anything was compiled; some is left
           without a waist, from what is read off. Time follows where there is work enough to
           be worth the while of a processor: in the big network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import optax
import tyro
from bench.core import race
from bench.models import AUTOENCODER, Case, of_net
from common import RESULTS, conclude, heading
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

import jaxchain as jc
from jaxchain.cost.measure import measure
from jaxchain.digits import adam, load_digits
from jaxchain.jacobians.compare import predictions
from jaxchain.show.table import Table, si
from jaxchain.show.values import times_less

HIDDEN = 256


@dataclass(frozen=True)
class Gain:
    """One network: work, temporaries and time of ours and of the better simple mode; error of reconstruction.

    ``predicted`` is the gain in work that the plan expects.
    """

    predicted: float
    flops: tuple[float, float]
    bytes: tuple[float, float]
    seconds: tuple[float, float]
    error: float | None = None

    @property
    def work(self) -> float:
        """Measured gain in work."""
        return self.flops[1] / self.flops[0]

    @property
    def memory(self) -> float:
        """Measured gain in temporary memory."""
        return self.bytes[1] / max(self.bytes[0], 1)

    @property
    def time(self) -> float:
        """Measured gain in time."""
        return self.seconds[1] / self.seconds[0]

    def numbers(self) -> dict[str, float | tuple[float, float] | None]:
        """Everything, for the file."""
        return {**vars(self), "work_gain": self.work, "memory_gain": self.memory, "time_gain": self.time}


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, steps: int = 300) -> None:
    """Sweep the waist of autoencoders trained on digits; look at a big one at its start.

    Parameters
    ----------
    seed
        Of data, weights and minibatches.
    quick
        Three widths, a tenth of the training steps, and no big one.
    out
        Folder for the figure and the numbers.
    steps
        Training steps an autoencoder.
    """
    codes = (2, 16, 64) if quick else (2, 4, 8, 16, 32, 64)
    heading(f"Autoencoders 64-{HIDDEN}-b-{HIDDEN}-64 trained on digits")
    gains: dict[str, Gain] = {}
    for code in codes:
        case, error = trained(code, steps // 10 if quick else steps, seed)
        gains[f"b = {code}"] = gain(case, 10 if quick else 40, error)
    if not quick:
        case = of_net(jc.nets.autoencoder(AUTOENCODER), (AUTOENCODER[0],), seed)
        gains["-".join(map(str, (*AUTOENCODER, *AUTOENCODER[-2::-1])))] = gain(case, 20)
    print(Table("", HEADER, [cells(name, one) for name, one in gains.items()]))
    print(f"\n{jc.plan(*trained(8, 1, seed)[0])}")

    sweep = dict(zip(codes, gains.values(), strict=False))
    first, last = gains[f"b = {codes[0]}"], gains[f"b = {codes[-1]}"]
    furthest = max(abs(one.predicted / one.work - 1) for one in gains.values())
    findings = [
        f"A waist of {codes[0]} takes {times_less(first.work, 'work')} and {times_less(first.time, 'time')}; of {codes[-1]}, which is none, {times_less(last.work, 'work')} and {times_less(last.time, 'time')}.",
        f"Predictions of the gain in work are off by at most {furthest:.0%}.",
        *(
            f"{name}: {times_less(one.work, 'work')}, {times_less(one.memory, 'temporary memory')}, {times_less(one.time, 'time')}."
            for name, one in list(gains.items())[len(codes) :]
        ),
    ]
    title = f"A waist of {codes[0]} numbers saves {first.work:.0f} times the work; no waist at all, still {last.work:.1f} times"
    figure = draw(sweep, title, out / "mixed_mode.png")
    numbers = {"seed": seed, "quick": quick, "gains": {name: one.numbers() for name, one in gains.items()}}
    conclude(out / "mixed_mode.json", numbers, findings, [figure])


def trained(code: int, steps: int, seed: int) -> tuple[Case, float]:
    """An autoencoder after training, at a test image, and its mean squared error on unseen digits."""
    digits = load_digits(seed)
    net = jc.nets.autoencoder([64, HIDDEN, code])

    def loss(params: object, images: jax.Array) -> jax.Array:
        return optax.l2_loss(jax.vmap(net, (None, 0))(params, images), images).mean()

    start, key = net.init(jax.random.key(seed)), jax.random.key(seed + 1)
    fit = jc.train.fit(loss, start, digits.train[0], adam(steps), steps=steps, batch_size=64, key=key, progress=False)
    images = digits.test[0]
    return (net, (fit.params, images[0])), 2 * float(loss(fit.params, images))


def gain(case: Case, repeats: int, error: float | None = None) -> Gain:
    """Ours against the better of JAX's two, predicted and measured in one run."""
    net, args = case
    predicted = predictions(jc.plan(net, args))
    ways = {"auto": jc.jacobian(net, 1), "forward": jax.jacfwd(net, 1), "reverse": jax.jacrev(net, 1)}
    ours, *theirs = (measure(fun, *args, repeats=1) for fun in ways.values())
    assert jnp.allclose(ours.result, theirs[1].result, atol=1e-4)
    seconds = race(ways, *args, repeats=repeats)
    return Gain(
        predicted=min(predicted["forward"], predicted["reverse"]) / predicted["auto"],
        flops=(ours.flops, min(one.flops for one in theirs)),
        bytes=(ours.peak_bytes, min(one.peak_bytes for one in theirs)),
        seconds=(seconds["auto"], min(seconds["forward"], seconds["reverse"])),
        error=error,
    )


HEADER = ("network", "error", "work", "better of two", "gain", "predicted", "temporaries", "gain", "time", "gain")


def cells(name: str, one: Gain) -> tuple[str, ...]:
    """One network as a row of text."""
    error = "at init" if one.error is None else f"{one.error:.4f}"
    work, memory, seconds = si(one.flops[0], "FLOP"), si(one.bytes[0], "B"), si(one.seconds[0], "s")
    peer, predicted = si(one.flops[1], "FLOP"), f"{one.predicted:.2f}×"
    gains = [f"{value:.2f}×" for value in (one.work, one.memory, one.time)]
    return name, error, work, peer, gains[0], predicted, memory, gains[1], seconds, gains[2]


def draw(sweep: Mapping[int, Gain], title: str, path: Path) -> Path:
    """The gain over the width of the waist: predicted as a line, measured as points."""
    codes, colour = list(sweep), jc.plot.COLOURS["planned"]
    with mpl.rc_context(jc.plot.STYLE):
        figure, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
        ax.axhline(1, color="#555555", linewidth=0.9)
        ax.annotate("better of forward and reverse", (codes[0], 1), (0, 4), textcoords="offset points", fontsize=8.5)
        ax.plot(codes, [one.predicted for one in sweep.values()], color=colour, linestyle="-.", label="work, predicted")
        for key, label, marker, fill in (("work", "work", "^", colour), ("time", "time", "o", "white")):
            values = [getattr(one, key) for one in sweep.values()]
            ax.plot(
                codes,
                values,
                color="#7A5A00",
                marker=marker,
                markerfacecolor=fill,
                linestyle="",
                markersize=7,
                label=f"{label}, measured",
            )
        ax.set(
            xscale="log",
            yscale="log",
            title=title,
            xlabel="numbers b in the code",
            ylabel="times less than forward or reverse mode",
        )
        ax.xaxis.set_major_locator(FixedLocator(codes))
        ax.yaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20, 50, 100]))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
        ax.legend(frameon=False)
    return jc.plot.save(figure, path)


if __name__ == "__main__":
    tyro.cli(main)
