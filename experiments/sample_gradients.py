"""Which images pull hardest at a network's weights, and do the norms of their gradients find wrong labels?

Question   How strongly does each image pull while digits are learnt; which pull hardest in the end;
           and if one label in a hundred is wrong, how many images must be looked at to find them?
Command    python experiments/sample_gradients.py
Expect     What all images have in common is learnt first, and contradicts a wrong label: until it is
           learnt by heart, such an image's gradient stays long (Arpit et al., arXiv 1706.05394).
           Paul, Ganguli and Dziugaite (arXiv 2107.07075) rank examples by norms early in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from common import RESULTS, conclude, heading
from matplotlib.axes import Axes

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.digits import Batch, accuracy, adam, cross_entropy, load_digits
from jaxchain.fitted import StepInfo
from jaxchain.show.table import Table

WIDTHS = (64, 128, 64, 10)
SHARE = 100
"""One label in so many is wrong."""

TIMES = 50
"""How often norms of all images' gradients are taken in a training."""

SHOWN = 12
"""How many images of each kind are drawn."""


@dataclass(frozen=True)
class Trained:
    """What was seen of a network while it learnt.

    Attributes
    ----------
    steps
        When norms were taken.
    norms
        Of every training image's gradient (times, images).
    cosines
        With the mean gradient, the median over images (times,).
    accuracy
        On unseen images, in the end.
    """

    steps: np.ndarray
    norms: np.ndarray
    cosines: np.ndarray
    accuracy: float


@dataclass(frozen=True)
class Search:
    """How well a ranking finds what is wrong, each a share.

    Attributes
    ----------
    precision
        Of the first images, as many as are wrong: those that are.
    nine_in_ten, all
        Of all images: what has to be looked at to find so many of the wrong ones.
    curve
        Of the wrong ones: those found among the first 1, 2, 3, … images.
    """

    precision: float
    nine_in_ten: float
    all: float
    curve: np.ndarray

    @classmethod
    def of(cls, norms: np.ndarray, is_wrong: np.ndarray) -> Search:
        """The ranking by norm, the longest first."""
        curve = np.cumsum(is_wrong[np.argsort(-norms)]) / is_wrong.sum()

        def looked_at(share: float) -> float:
            return float((np.argmax(curve >= share - 1e-9) + 1) / len(curve))

        return cls(float(curve[is_wrong.sum() - 1]), looked_at(0.9), looked_at(1.0), curve)


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS) -> None:
    """Train on digits, with the right labels and with one in a hundred wrong; rank images by how hard they pull.

    Parameters
    ----------
    seed
        Of weights, minibatches, and which labels are wrong.
    quick
        A fifth of the steps.
    out
        Folder for the figure and the numbers.
    """
    steps = 200 if quick else 1000
    digits, net = load_digits(seed), jc.nets.mlp(WIDTHS, "relu", "he")
    images, labels = map(np.asarray, digits.train)
    wrong, given = mislabelled(labels, seed)
    right, spoilt = (train(net, (digits.train[0], jnp.asarray(y)), digits.test, steps, seed) for y in (labels, given))

    hardest = np.argsort(-right.norms[-1])[:SHOWN]
    relative = right.norms[-1] / np.median(right.norms[-1])
    heading("Images that pull hardest in the end, all labels right")
    print(
        Table(
            "", ("image", "label", "norm / median"), [(f"{k}", f"{labels[k]}", f"{relative[k]:.3g}") for k in hardest]
        )
    )

    searches = [Search.of(norms, np.isin(np.arange(len(labels)), wrong)) for norms in spoilt.norms]
    best = min(range(len(searches)), key=lambda k: (searches[k].all, searches[k].nine_in_ten))
    heading(f"{len(wrong)} of {len(labels)} labels wrong: what the norms find after so many steps")
    header = ("steps", f"wrong among the first {len(wrong)}", "looked at for 9 in 10", "for all")
    told = sorted({0, 1, best, len(searches) // 2, len(searches) - 1})
    print(Table("", header, [_row(int(spoilt.steps[k]), searches[k]) for k in told]))

    squares = np.sort(right.norms[-1] ** 2)[::-1]
    top, work = float(squares[: len(squares) // SHARE].sum() / squares.sum()), work_of(net, digits.train)
    found, last, when = searches[best], searches[-1], int(spoilt.steps[best])
    findings = [
        f"With all labels right, one image in a hundred holds {top:.0%} of all squared norms in the end.",
        f"At best, after {when} steps, {found.precision:.0%} of {len(wrong)} wrong labels are among the {len(wrong)} longest "
        f"gradients of {len(labels)}; {found.nine_in_ten:.1%} of the images are looked at to find nine in ten, {found.all:.1%} to find all.",
        f"In the end, after {int(spoilt.steps[-1])} steps, {last.precision:.0%} are, and {last.all:.1%} are looked at to find all.",
        f"Norms of {len(labels)} gradients take {work['of the gradient']:.2f} times the work of the batch's own gradient, "
        f"{work['of vmap(grad)']:.2f} times that of vmap(grad).",
    ]  # fmt: skip
    numbers = {
        "seed": seed, "quick": quick, "images": len(labels), "wrong": wrong, "steps": spoilt.steps, "best": when,
        "searches": [{name: getattr(one, name) for name in ("precision", "nine_in_ten", "all")} for one in searches],
        "top_hundredth_of_squares": top, "work": work, "hardest": hardest,
        "accuracy": {"right": right.accuracy, "one in a hundred wrong": spoilt.accuracy},
        "median_cosine": {"right": right.cosines, "one in a hundred wrong": spoilt.cosines},
    }  # fmt: skip
    first = np.argsort(-spoilt.norms[best])[:SHOWN]
    figure = draw(spoilt, searches, best, wrong, out, images, {
        "Longest in the end, all labels right": [(k, str(labels[k]), False) for k in hardest],
        f"Longest after {when} steps, one label in {SHARE} wrong": [(k, str(given[k]), k in wrong) for k in first],
    })  # fmt: skip
    conclude(out / "sample_gradients.json", numbers, findings, [figure])


def _row(step: int, found: Search) -> tuple[str, ...]:
    return str(step), f"{found.precision:.0%}", f"{found.nine_in_ten:.1%}", f"{found.all:.1%}"


def mislabelled(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One label in a hundred replaced by another, drawn evenly: which, and all labels as they are then."""
    rng = np.random.default_rng(seed)
    wrong = np.sort(rng.choice(len(labels), len(labels) // SHARE, replace=False))
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return wrong, given


def train(net: jc.Chain, data: Batch, test: Batch, steps: int, seed: int) -> Trained:
    """Fit a network, and take all training images' gradients' norms on the way: a part of the compiled training."""
    loss = cross_entropy(net)

    def observe(info: StepInfo) -> tuple[jax.Array, jax.Array]:
        moments = jc.gradient_moments(loss, info.params, data, check=False)
        return moments.norms, jnp.median(moments.cosines)

    every = steps // TIMES
    fitted = jc.train.fit(
        loss, net.init(jax.random.key(seed)), data, adam(steps), steps=steps, batch_size=64,
        key=jax.random.key(seed), observe=observe, observe_every=every, progress=False,
    )  # fmt: skip
    norms, cosines = map(np.asarray, fitted.history.observed)
    return Trained(every * np.arange(len(norms)), norms, cosines, accuracy(net, fitted.params, test))


def work_of(net: jc.Chain, data: Batch) -> dict[str, float]:
    """Floating-point operations of all norms, over those of the batch's gradient, and of every image's by JAX alone."""
    loss, params = cross_entropy(net), jax.eval_shape(net.init, jax.random.key(0))

    def one_by_one(params: jc.GradientMoments, data: Batch) -> jax.Array:
        rows = jax.tree.map(lambda leaf: leaf[:, None], data)
        each = jax.vmap(jax.grad(loss), (None, 0))(params, rows)
        return jnp.sqrt(sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in jax.tree.leaves(each)))

    ours = flops(lambda params, data: jc.sample_gradient_norms(loss, params, data).whole, params, data)
    peers = {"of the gradient": jax.grad(loss), "of vmap(grad)": one_by_one}
    return {name: ours / flops(peer, params, data) for name, peer in peers.items()}


# --------------------------------------------------------------------------------------------------------------- figure


def draw(
    spoilt: Trained,
    searches: Sequence[Search],
    best: int,
    wrong: np.ndarray,
    out: Path,
    images: np.ndarray,
    rows: dict[str, list[tuple[int, str, bool]]],
) -> Path:
    """Norms over training, what they find, and the images that pull hardest."""
    with mpl.rc_context(jc.plot.STYLE):
        figure = plt.figure(figsize=(9, 6.2), layout="constrained")
        above, *below = figure.subfigures(1 + len(rows), 1, height_ratios=[3.2, *[1] * len(rows)])
        left, right = above.subplots(1, 2)
        draw_norms(left, spoilt, np.isin(np.arange(spoilt.norms.shape[1]), wrong), best)
        draw_searches(right, searches, spoilt.steps, best)
        for part, (title, shown) in zip(below, rows.items(), strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=11.5)
            for ax, (number, label, is_wrong) in zip(part.subplots(1, SHOWN), shown, strict=True):
                ax.imshow(images[number].reshape(8, 8), cmap="Greys", vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set(
                    visible=True, color=WRONG if is_wrong else "#BBBBBB", linewidth=2.2 if is_wrong else 0.8
                )
                ax.set_xlabel(f"“{label}” ✗" if is_wrong else f"“{label}”", color=WRONG if is_wrong else INK)
    return jc.plot.save(figure, out / "sample_gradients.png")


WRONG, RIGHT, INK = "#BB5566", "#004488", "#222222"


def draw_norms(ax: Axes, spoilt: Trained, is_wrong: np.ndarray, best: int) -> None:
    """Medians and the middle half, of images with wrong labels and of the others."""
    for name, which, colour, style in (("wrong", is_wrong, WRONG, "--"), ("right", ~is_wrong, RIGHT, "-")):
        low, middle, high = np.quantile(np.maximum(spoilt.norms[:, which], 1e-12), [0.25, 0.5, 0.75], axis=1)
        ax.fill_between(spoilt.steps, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(spoilt.steps, middle, style, color=colour)
        ax.annotate(
            f"label {name}",
            (spoilt.steps[-1], middle[-1]),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    ax.axvline(spoilt.steps[best], color="#8A8A8A", linewidth=0.8)
    ax.set(yscale="log", xlabel="training steps", title=f"Norm of an image's gradient, one label in {SHARE} wrong")
    ax.set_xlim(0, spoilt.steps[-1] * 1.27)
    ax.set_xticks(np.linspace(0, spoilt.steps[-1] + spoilt.steps[1], 6).round().astype(int))


def draw_searches(ax: Axes, searches: Sequence[Search], steps: np.ndarray, best: int) -> None:
    """How many of the wrong labels are found, by how many images are looked at."""
    looked_at = np.arange(1, len(searches[0].curve) + 1) / len(searches[0].curve)
    for k, colour, style in ((best, WRONG, "-"), (len(searches) - 1, RIGHT, "--"), (0, "#DDAA33", "-.")):
        ax.plot(
            looked_at, searches[k].curve, style, color=colour, label=f"after {steps[k]} steps", drawstyle="steps-post"
        )
    ax.plot(looked_at, looked_at, ":", color="#8A8A8A", label="by chance")
    ax.set(xscale="log", xlabel="images looked at, the longest gradients first", title="Wrong labels found")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    ax.legend(frameon=False, fontsize=9, loc="upper left")


if __name__ == "__main__":
    tyro.cli(main)
