"""What do the local Jacobians of two networks look like, and what does training make of them?

Question   Which matrices does the chain rule multiply in a multilayer perceptron and in a
           convolutional network, and which of their properties change when both learn digits?
Command    python experiments/jacobian_structure.py
Expect     A dense layer's Jacobian is dense, an activation's diagonal, a convolution's sparse in
           bands of blocks, a reshape's the identity: training keeps each kind. It changes ranks and
           singular values: how many units an image switches on, and how strongly it is felt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import RESULTS, conclude, draw_spectra, heading, verb

import jaxchain as jc
from jaxchain import LocalJacobian
from jaxchain.digits import Batch, Digits, accuracy, fit_digits, load_digits
from jaxchain.show.table import Table

Jacobians = tuple[LocalJacobian, ...]


@dataclass(frozen=True)
class StageRow:
    """One stage's Jacobian before and after training: its structure and largest singular value."""

    name: str
    before: jc.Structure
    after: jc.Structure
    top_before: float
    top_after: float


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, steps: int = 600) -> None:
    """Look at every local Jacobian of an MLP and of a conv net before and after training on digits.

    Parameters
    ----------
    seed
        Of the split, the initial weights and the minibatches.
    quick
        Train for a tenth of the steps.
    out
        Folder for figures and numbers.
    steps
        Training steps of 64 images each.
    """
    digits = load_digits(seed)
    cases = {
        "mlp": (jc.nets.mlp([64, 48, 32, 10]), digits),
        "conv_net": (jc.nets.conv_net((8, 8, 1), [4, 4], 10), as_pictures(digits)),
    }
    numbers: dict[str, Any] = {"seed": seed, "quick": quick}
    findings, figures = list[str](), list[Path]()
    for name, (net, data) in cases.items():
        heading(f"{name}: {' → '.join(net.names)}")
        before, after, score = train(net, data, steps // 10 if quick else steps, seed)
        pair = {
            when: jc.local_jacobians(net, (p, data.test[0][0])) for when, p in (("before", before), ("after", after))
        }
        rows = compare(pair["before"], pair["after"])
        show(rows, int(data.test[1][0]))
        findings.append(tell(name, rows, score))
        numbers[name] = {"accuracy": score, "stages": rows}
        figures += [draw_chain(name, when, jacobians, rows, out) for when, jacobians in pair.items()]
        spectra = {f"{when} training": jacobians for when, jacobians in pair.items()}
        figures.append(draw_spectra(spectra, raised(name, rows), out / f"structure_{name}_singular_values.png"))
    conclude(out / "jacobian_structure.json", numbers, findings, figures)


def as_pictures(digits: Digits) -> Digits:
    """The same digits as (8, 8, 1)."""

    def reshape(batch: Batch) -> Batch:
        return batch[0].reshape(-1, 8, 8, 1), batch[1]

    return Digits(reshape(digits.train), reshape(digits.test))


def train(net: jc.Chain, digits: Digits, steps: int, seed: int) -> tuple[Any, Any, float]:
    """Parameters before and after training, and the test accuracy."""
    before = net.init(jax.random.key(seed))
    fit = fit_digits(net, before, digits, steps=steps, seed=seed + 1)
    return before, fit.params, accuracy(net, fit.params, digits.test)


def compare(before: Jacobians, after: Jacobians) -> list[StageRow]:
    """One row a stage."""
    return [
        StageRow(old.name, old.structure, new.structure, largest(old), largest(new))
        for old, new in zip(before, after, strict=True)
    ]


def largest(jacobian: LocalJacobian) -> float:
    """The largest singular value."""
    return float(np.linalg.norm(np.asarray(jacobian.matrix), 2))


def show(rows: list[StageRow], label: int) -> None:
    """The table of structures."""
    header = ("stage", "shape", "non-zero", "kind", "rank before", "after", "σ₁ before", "after")
    table = [
        (r.name, "×".join(map(str, r.after.shape)), f"{r.after.nonzero_share:.1%}", kind(r), f"{r.before.rank}", f"{r.after.rank}", f"{r.top_before:.2f}", f"{r.top_after:.2f}")
        for r in rows
    ]  # fmt: skip
    print(Table(f"Local Jacobians at one picture of a {label}", header, table))


def kind(row: StageRow) -> str:
    """The kind of matrix, and what training made of it where it changed."""
    return row.before.kind if row.before.kind == row.after.kind else f"{row.before.kind} → {row.after.kind}"


def tell(name: str, rows: list[StageRow], score: float) -> str:
    """What training kept and what it changed, in a sentence."""
    kept = [row for row in rows if row.before.kind == row.after.kind]
    most = max(
        rows, key=lambda row: abs(np.log(row.top_after / row.top_before)) if row.top_before * row.top_after else 0.0
    )
    return (
        f"{name}, {score:.1%} test accuracy: training keeps the kind of {len(kept)} of {len(rows)} local Jacobians; "
        f"most of all it {verb(most.top_before, most.top_after)} the largest singular value of {most.name}, "
        f"from {most.top_before:.2f} to {most.top_after:.2f}."
    )


def draw_chain(name: str, when: str, jacobians: Jacobians, rows: list[StageRow], out: Path) -> Path:
    """The chain as a product of pictures."""
    structures = {row.name: row.before if when == "before" else row.after for row in rows}
    active = [f"{s.rank} of {s.shape[1]}" for stage, s in structures.items() if stage.startswith("relu")]
    title = f"{name} {when} training: this image switches on {' and '.join(active)} ReLUs"
    return jc.plot.save(jc.plot.chain(jacobians, title=title), out / f"structure_{name}_{when}.png")


def raised(name: str, rows: list[StageRow]) -> str:
    """Which stages' largest singular values training raised."""
    grown = [row.name for row in rows if row.top_after > 1.05 * row.top_before]
    return f"{name}: training raises the largest singular value of {', '.join(grown) or 'no stage'}"


if __name__ == "__main__":
    tyro.cli(main)
