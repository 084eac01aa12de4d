"""What a character transformer is about to say, read off its inner states through their average Jacobians.

Question   Does the Jacobian lens, unembed(J_k x_k) with J_k = E[∂x_q/∂x_k], read a trained transformer's inner states
           better than the logit lens, unembed(x_k), which takes every state for the last one? And the same Jacobian
           about the mean states, unembed(x̄_q + J_k (x_k - x̄_k)), as Taylor's first order has it?
Command    python experiments/jacobian_lens.py
Expect     Early states are written in another basis than the last one, and the average Jacobian carries them over. As
           published (github.com/anthropics/jacobian-lens, 2026, which gives no number for a model like this one) it is
           linear and knows nothing of the mean; about the mean it should be nearer to the model's own prediction than
           the logit lens at every inner state. The text is the Python language reference, which ships with Python;
           lens and readings are of parts never trained on.
"""

from __future__ import annotations

import os
import pydoc_data.topics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Fused reductions of jaxlib 0.10.2 and 0.11.0 are wrong on CPUs where they are large (jax-ml/jax issue 39103).
if version("jaxlib") in ("0.10.2", "0.11.0"):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_experimental_ynn_fusion_type=".strip()

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from common import RESULTS, conclude, heading
from numpy.typing import NDArray

import jaxchain as jc
from jaxchain.show.table import Table

POSITIONS, SKIP = 64, 16
LENSES = {
    "Jacobian lens": ("reverse", "as published: J x"),
    "about the mean": ("planned", "x̄ + J (x - x̄)"),
    "logit lens": ("forward", "x itself"),
}
"""Name → whose colour it has on figures, and what is unembedded."""


@dataclass(frozen=True)
class Text:
    """Windows of POSITIONS + 1 characters, as numbers in ``alphabet``."""

    alphabet: str
    train: NDArray[np.int32]
    fit: NDArray[np.int32]
    test: NDArray[np.int32]

    @classmethod
    def of_python(cls) -> Text:
        """The language reference: nine tenths to train on, of the rest every other window for the lens."""
        topics = pydoc_data.topics.topics
        text = "\n\n".join(topics[name] for name in sorted(topics))
        alphabet = "".join(sorted(set(text)))
        place = {character: number for number, character in enumerate(alphabet)}
        numbers = np.array([place[character] for character in text], np.int32)
        cut = len(numbers) * 9 // 10
        train = np.lib.stride_tricks.sliding_window_view(numbers[:cut], POSITIONS + 1)[::16]
        held = np.lib.stride_tricks.sliding_window_view(numbers[cut:], POSITIONS + 1)[:: POSITIONS + 1]
        return cls(alphabet, train.copy(), held[::2].copy(), held[1::2].copy())


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, width: int = 64, depth: int = 4, steps: int = 1500
) -> None:
    """Train a small transformer on Python's language reference; fit its lens; read it against the logit lens.

    Parameters
    ----------
    seed
        Of weights and minibatches.
    quick
        A narrower network, fewer steps and samples.
    out
        Folder for figures and numbers.
    width, depth
        Of the transformer.
    steps
        Training steps of 32 windows each.
    """
    width, depth, steps, samples = (32, 2, 90, 4) if quick else (width, depth, steps, 64)
    text = Text.of_python()
    net = jc.nets.transformer((len(text.alphabet), width, len(text.alphabet)), depth=depth, heads=4)
    heading(f"A transformer of {depth} blocks, width {width}, on {len(text.alphabet)} characters")
    found = train(net, text, steps, seed)
    params, last = found.params, f"mlp_{depth - 1}"
    print(
        f"Cross-entropy a character: {found.history.loss[0]:.3f} before training, {np.mean(found.history.loss[-50:]):.3f} at its end."
    )

    heading(f"Its Jacobian lens, from {samples} windows that it was not trained on")
    inputs = [(params, one_hot(text, window[:-1])) for window in text.fit[:samples]]
    lens = jc.lens.fit(net, inputs, until=last, stages=["embed", "attention_*", "mlp_*"], skip_first=SKIP)
    print(lens)

    reader = Reader.of(net, lens, inputs)
    rows = scores_of(reader, text, text.test[:samples])
    heading(
        f"Read at {samples} other windows: KL divergence from the model's own prediction, and how often it names the likeliest character"
    )
    print(Table("", ("state", *LENSES), list(map(cells, rows))))
    window = text.test[max(range(samples), key=lambda k: len(set(text.test[k].tolist())))]
    figures = [draw_curves(rows, out), draw_example(reader, text, window, out)]
    numbers = {
        "seed": seed,
        "quick": quick,
        "width": width,
        "depth": depth,
        "steps": steps,
        "samples": lens.count,
        "loss": [float(found.history.loss[0]), float(np.mean(found.history.loss[-50:]))],
        "states": rows,
        "lens": [vars(row) for row in lens.rows],
    }
    conclude(out / "jacobian_lens.json", numbers, findings(rows, lens), figures)


def one_hot(text: Text, tokens: Any) -> jax.Array:
    """What the network takes: (…, positions, characters)."""
    return jax.nn.one_hot(tokens, len(text.alphabet))


def train(net: jc.Chain, text: Text, steps: int, seed: int) -> jc.train.Fit:
    """By Adam with a warm start and a cosine to its end."""

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        logits = jax.vmap(net, (None, 0))(params, one_hot(text, windows[:, :-1]))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]))

    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, max(steps // 20, 1), steps)
    params, key = net.init(jax.random.key(seed)), jax.random.key(seed + 1)
    return jc.train.fit(loss, params, text.train, optax.adam(rate), steps=steps, batch_size=32, key=key, progress=False)


@dataclass(frozen=True)
class Reader:
    """Reads states in three ways; logits of each."""

    net: jc.Chain
    params: Any
    lens: jc.lens.Lens
    means: dict[str, jax.Array]

    @classmethod
    def of(cls, net: jc.Chain, lens: jc.lens.Lens, inputs: Sequence[tuple[Any, jax.Array]]) -> Reader:
        """With the mean states of what the lens was fitted to."""
        states = [lens.states(net, args) for args in inputs]
        means = {name: jnp.mean(jnp.stack([one[name][SKIP:-1] for one in states]), (0, 1)) for name in states[0]}
        return cls(net, inputs[0][0], lens, means)

    def unembed(self, state: jax.Array) -> jax.Array:
        """The model's own last norm and unembedding."""
        return self.net[-2:](self.params, state)

    def read(self, state: jax.Array, name: str) -> dict[str, jax.Array]:
        """Logits by each lens."""
        moved = self.lens.apply(state - self.means[name], name)
        return {
            "Jacobian lens": self.lens.apply(state, name, self.unembed),
            "about the mean": self.unembed(self.means[self.lens.target] + moved),
            "logit lens": jc.lens.logit(state, self.unembed),
        }


def scores_of(reader: Reader, text: Text, windows: NDArray[np.int32]) -> list[dict[str, Any]]:
    """Of every state and lens: how near what it reads is to the model's own prediction, and to the text."""
    names = (*reader.lens.jacobians, reader.lens.target)

    @jax.jit
    def scores(states: dict[str, jax.Array], following: jax.Array) -> dict[str, dict[str, jax.Array]]:
        own = jax.nn.log_softmax(reader.unembed(states[reader.lens.target])[SKIP:-1])

        def score(logits: jax.Array) -> jax.Array:
            log = jax.nn.log_softmax(logits[SKIP:-1])
            kl = jnp.sum(jnp.exp(own) * (own - log), -1)
            agrees = jnp.argmax(log, -1) == jnp.argmax(own, -1)
            entropy = -jnp.take_along_axis(log, following[SKIP:-1, None], -1)
            return jnp.stack([jnp.mean(kl), jnp.mean(agrees), jnp.mean(entropy)])

        return {name: jax.tree.map(score, reader.read(states[name], name)) for name in names}

    each = [
        scores(reader.lens.states(reader.net, (reader.params, one_hot(text, window[:-1]))), window[1:])
        for window in windows
    ]
    means = jax.tree.map(lambda *values: np.mean(values, 0), *each)
    kinds = ("kl", "agrees", "cross_entropy")
    return [
        {"name": name, **{lens: dict(zip(kinds, means[name][lens].tolist(), strict=True)) for lens in LENSES}}
        for name in names
    ]


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the printed table."""
    return (row["name"], *(f"{row[lens]['kl']:.3f}  {row[lens]['agrees']:4.0%}" for lens in LENSES))


def nearer(rows: Sequence[Mapping[str, Any]], lens: str) -> list[str]:
    """The inner states where a lens is nearer to the model's own prediction than the logit lens."""
    return [row["name"] for row in rows[:-1] if row[lens]["kl"] < row["logit lens"]["kl"]]


def findings(rows: Sequence[Mapping[str, Any]], lens: jc.lens.Lens) -> list[str]:
    """In words."""
    inner = rows[:-1]
    error = max(row.error / row.norm for row in lens.rows)

    def told(row: Mapping[str, Any], kind: str, form: str) -> str:
        return ", ".join(f"{row[name][kind]:{form}} ({name})" for name in LENSES)

    return [
        *(
            f"{name} ({LENSES[name][1]}): nearer to the model's own prediction than the logit lens at {len(nearer(rows, name))} of {len(inner)} inner states."
            for name in ("Jacobian lens", "about the mean")
        ),
        *(
            f"At {row['name']} KL divergences in nats are {told(row, 'kl', '.2f')}; the model's likeliest character is named {told(row, 'agrees', '.0%')} of the time."
            for row in (inner[0], inner[len(inner) // 2], inner[-1])
        ),
        f"The standard error of a Jacobian is at most {error:.1%} of its norm, from {lens.count} windows.",
    ]


def draw_curves(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """KL divergence and agreement with the model's own prediction, state by state."""
    names, at = [row["name"] for row in rows], np.arange(len(rows))
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(8, 6.8), sharex=True, layout="constrained")
        for ax, what, shown in ((axes[0], "kl", rows[:-1]), (axes[1], "agrees", rows)):
            for lens, (kind, words) in LENSES.items():
                values = [row[lens][what] for row in shown]
                ax.plot(
                    at[: len(values)], values, color=jc.plot.COLOURS[kind], marker=jc.plot.MARKERS[kind],
                    linestyle=jc.plot.LINESTYLES[kind], label=f"{lens}, {words}",
                )  # fmt: skip
        axes[0].set(ylabel="KL divergence, nats", ylim=(0, None))
        axes[1].set(ylabel="same likeliest character", ylim=(0, 1.03))
        axes[1].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes[0].set_title(title(rows))
        axes[1].set_title("How often it names the character that the model will")
        axes[0].legend(frameon=False)
        axes[1].set_xticks(at, names, rotation=30, ha="right", fontsize=9)
        axes[1].set_xlabel("state that is read, first to last")
    return jc.plot.save(figure, out / "jacobian_lens_curves.png")


def title(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the curves say."""
    inner = len(rows) - 1
    as_published, about = (len(nearer(rows, name)) for name in ("Jacobian lens", "about the mean"))
    return f"About the mean, the average Jacobian reads better than the logit lens\nat {about} of {inner} inner states; as published, at {as_published}"


def draw_example(reader: Reader, text: Text, window: NDArray[np.int32], out: Path) -> Path:
    """The likeliest character that each lens reads at every state and position of one window, and how sure it is."""
    states = reader.lens.states(reader.net, (reader.params, one_hot(text, window[:-1])))
    kept, names = slice(SKIP + 8, SKIP + 40), list(states)
    logits = {name: reader.read(state, name) for name, state in states.items()}
    best = np.asarray(logits[names[-1]]["logit lens"])[kept].argmax(-1)
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(len(LENSES), 1, figsize=(9.6, 9.6), sharex=True, layout="constrained")
        figure.suptitle("What each lens reads comes next, framed where the model says so, too", x=0.01, ha="left")
        for ax, (lens, (_, words)) in zip(axes, LENSES.items(), strict=True):
            sure = np.stack([np.asarray(jax.nn.softmax(logits[name][lens]))[kept] for name in names])
            mesh = ax.imshow(sure.max(-1), vmin=0, vmax=1, cmap="Blues", aspect="auto")
            for (row, column), token in np.ndenumerate(sure.argmax(-1)):
                dark, same = sure[row, column].max() > 0.55, token == best[column]
                frame = {"facecolor": "white", "edgecolor": "#BB5566", "boxstyle": "round,pad=0.15", "linewidth": 0.9}
                ax.text(
                    column, row, visible(text.alphabet[token]), ha="center", va="center", fontsize=8,
                    family="monospace", color="white" if dark and not same else "black", bbox=frame if same else None,
                )  # fmt: skip
            ax.set_yticks(range(len(names)), names, fontsize=8.5)
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
            ax.set_title(f"{lens}, {words}")
        shown = [visible(text.alphabet[token]) for token in window[:-1][kept]]
        axes[-1].set_xticks(range(len(shown)), shown, family="monospace", fontsize=9)
        axes[-1].set_xlabel("the text, character by character")
        figure.colorbar(mesh, ax=axes, label="probability of the likeliest character", shrink=0.4)
    return jc.plot.save(figure, out / "jacobian_lens_example.png")


def visible(character: str) -> str:
    """A character that can be seen."""
    return {" ": "␣", "\n": "↵", "$": r"\$"}.get(character, character)


if __name__ == "__main__":
    tyro.cli(main)
