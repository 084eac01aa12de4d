"""What a character transformer is about to say, read off its inner states through their average Jacobians.

Question   Does the Jacobian lens, unembed(E[∂x_q/∂x_k] x_k), read a trained transformer's inner states better than the
           logit lens, unembed(x_k), which takes every state for the last one?
Command    python experiments/jacobian_lens.py
Expect     Early states are written in another basis than the last one. The average Jacobian carries them over, so that
           the lens is nearer to the model's own prediction (KL divergence, agreement of the likeliest character) at
           early states, and both come to the same at the last (github.com/anthropics/jacobian-lens, 2026). The text is
           the Python language reference, which ships with Python; lens and readouts are of parts never trained on.
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
LENSES = {"Jacobian lens": jc.plot.COLOURS["reverse"], "logit lens": jc.plot.COLOURS["forward"]}


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
    width, depth, steps, samples = (32, 2, 120, 6) if quick else (width, depth, steps, 64)
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

    rows = read(net, params, lens, text, text.test[:samples])
    heading(f"Read at {samples} other windows")
    header = (
        "state",
        *(f"{name}: {what}" for what in ("KL", "agrees") for name in LENSES),
        "cross-entropy: J",
        "logit",
    )
    print(Table("", header, list(map(cells, rows))))
    window = text.test[max(range(samples), key=lambda k: len(set(text.test[k].tolist())))]
    figures = [draw_curves(rows, out), draw_example(net, params, lens, text, window, out)]
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


def read(
    net: jc.Chain, params: Any, lens: jc.lens.Lens, text: Text, windows: NDArray[np.int32]
) -> list[dict[str, Any]]:
    """Of every state and both lenses: how near what it reads is to the model's own prediction, and to the text."""
    lens.check(net, (params, one_hot(text, windows[0][:-1])))
    unembed = lambda state: net[-2:](params, state)  # noqa: E731

    @jax.jit
    def scores(window: jax.Array) -> dict[str, dict[str, jax.Array]]:
        states = dict(zip(net.names_with_input, states_of(net, params, one_hot(text, window[:-1])), strict=True))
        kept = slice(SKIP, -1)
        own = jax.nn.log_softmax(unembed(states[lens.target])[kept])
        target = window[1:][kept]

        def score(logits: jax.Array) -> jax.Array:
            log = jax.nn.log_softmax(logits[kept])
            kl = jnp.sum(jnp.exp(own) * (own - log), -1)
            agrees = jnp.argmax(log, -1) == jnp.argmax(own, -1)
            entropy = -jnp.take_along_axis(log, target[:, None], -1)[:, 0]
            return jnp.stack([jnp.mean(kl), jnp.mean(agrees), jnp.mean(entropy)])

        return {
            name: {
                "Jacobian lens": score(lens.apply(states[name], name, unembed)),
                "logit lens": score(jc.lens.logit(states[name], unembed)),
            }
            for name in (*lens.jacobians, lens.target)
        }

    each = [scores(window) for window in windows]
    means = jax.tree.map(lambda *values: np.mean(values, 0), *each)
    return [
        {"name": name, **{lens: dict(zip(("kl", "agrees", "cross_entropy"), map(float, means[name][lens]), strict=True)) for lens in LENSES}}
        for name in (*lens.jacobians, lens.target)
    ]  # fmt: skip


def states_of(net: jc.Chain, params: Any, x: jax.Array) -> Sequence[jax.Array]:
    """x_0 … x_q."""
    return jc.forward_sweep(net, (params, x), x).primals


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the printed table."""
    numbers = [f"{row[lens]['kl']:.3f}" for lens in LENSES] + [f"{row[lens]['agrees']:.1%}" for lens in LENSES]
    return (row["name"], *numbers, *(f"{row[lens]['cross_entropy']:.3f}" for lens in LENSES))


def findings(rows: Sequence[Mapping[str, Any]], lens: jc.lens.Lens) -> list[str]:
    """In words."""
    inner = rows[:-1]
    nearer = [row["name"] for row in inner if row["Jacobian lens"]["kl"] < row["logit lens"]["kl"]]
    first, middle = inner[0], inner[len(inner) // 2]
    error = max(row.error / row.norm for row in lens.rows)
    return [
        f"At {len(nearer)} of {len(inner)} inner states the Jacobian lens is nearer to the model's own prediction than the logit lens.",
        *(
            f"At {row['name']} its KL divergence is {row['Jacobian lens']['kl']:.3f} nats against {row['logit lens']['kl']:.3f}, and it names the model's likeliest character {row['Jacobian lens']['agrees']:.1%} of the time against {row['logit lens']['agrees']:.1%}."
            for row in (first, middle)
        ),
        f"The standard error of a Jacobian is at most {error:.1%} of its norm, from {lens.count} windows.",
    ]


def draw_curves(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """KL divergence and agreement with the model's own prediction, state by state."""
    names, at = [row["name"] for row in rows], np.arange(len(rows))
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
        for ax, what, rows_read in ((axes[0], "kl", rows[:-1]), (axes[1], "agrees", rows)):
            for lens, colour in LENSES.items():
                values = [row[lens][what] for row in rows_read]
                style = {"Jacobian lens": ("o", "-"), "logit lens": ("s", "--")}[lens]
                ax.plot(at[: len(values)], values, color=colour, marker=style[0], linestyle=style[1], label=lens)
        axes[0].set(yscale="log", ylabel="KL divergence, nats")
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
    inner = rows[:-1]
    nearer = sum(row["Jacobian lens"]["kl"] < row["logit lens"]["kl"] for row in inner)
    where = "at every inner state" if nearer == len(inner) else f"at {nearer} of {len(inner)} inner states"
    return f"The Jacobian lens is nearer to what the model will say {where}"


def draw_example(
    net: jc.Chain, params: Any, lens: jc.lens.Lens, text: Text, window: NDArray[np.int32], out: Path
) -> Path:
    """The likeliest character that each lens reads at every state and position of one window, and how sure it is."""
    unembed = lambda state: net[-2:](params, state)  # noqa: E731
    states = lens.states(net, (params, one_hot(text, window[:-1])))
    kept = slice(SKIP + 8, SKIP + 40)
    readers = {
        "Jacobian lens": {name: lens.apply(state, name, unembed) for name, state in states.items()},
        "logit lens": {name: jc.lens.logit(state, unembed) for name, state in states.items()},
    }
    names = list(states)
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(9.6, 7.2), sharex=True, layout="constrained")
        for ax, (reader, logits) in zip(axes, readers.items(), strict=True):
            sure = np.stack([np.asarray(jax.nn.softmax(logits[name]))[kept] for name in names])
            mesh = ax.imshow(sure.max(-1), vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
            best = np.asarray(jax.nn.softmax(logits[names[-1]]))[kept].argmax(-1)
            for (row, column), token in np.ndenumerate(sure.argmax(-1)):
                dark, same = sure[row, column].max() > 0.55, token == best[column]
                ax.text(column, row, visible(text.alphabet[token]), ha="center", va="center", fontsize=9, family="monospace", color="white" if dark else "black", fontweight="bold" if same else "normal")  # fmt: skip
            ax.set_yticks(range(len(names)), names, fontsize=8.5)
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
            ax.set_title(f"{reader}: what it reads comes next, in bold where the model says so, too")
        shown = [visible(text.alphabet[token]) for token in window[:-1][kept]]
        axes[1].set_xticks(range(len(shown)), shown, family="monospace", fontsize=9)
        axes[1].set_xlabel("the text, character by character")
        figure.colorbar(mesh, ax=axes, label="probability of the likeliest character", shrink=0.5)
    return jc.plot.save(figure, out / "jacobian_lens_example.png")


def visible(character: str) -> str:
    """A character that can be seen."""
    return {" ": "␣", "\n": "↵", "$": r"\$"}.get(character, character)


if __name__ == "__main__":
    tyro.cli(main)
