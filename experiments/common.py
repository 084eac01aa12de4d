"""What the experiments share: the digits, their loss, a place for results, and how findings are told."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits as bundled_digits
from sklearn.model_selection import train_test_split

import jaxchain as jc
from jaxchain import LocalJacobian

RESULTS = Path(__file__).parent / "results"

Batch = tuple[jax.Array, jax.Array]
"""Images and their labels."""


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8×8 pixels between 0 and 1 as (N, 64), with labels 0 … 9."""

    train: Batch
    test: Batch


def load_digits(seed: int) -> Digits:
    """scikit-learn's 1797 digits, every class split alike: a fifth is held out for testing."""
    bunch: Any = bundled_digits()
    parts = train_test_split(bunch.data / 16, bunch.target, test_size=0.2, random_state=seed, stratify=bunch.target)
    x_train, x_test, y_train, y_test = map(jnp.asarray, parts)
    return Digits((x_train.astype(jnp.float32), y_train), (x_test.astype(jnp.float32), y_test))


def cross_entropy(net: jc.Chain) -> Callable[[Any, Batch], jax.Array]:
    """``loss(params, (images, labels))``: mean cross-entropy of a network for one image."""

    def loss(params: Any, batch: Batch) -> jax.Array:
        images, labels = batch
        logits = jax.vmap(net, (None, 0))(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def accuracy(net: jc.Chain, params: Any, batch: Batch) -> float:
    """Share of images whose largest logit is that of their label."""
    images, labels = batch
    return float((jax.vmap(net, (None, 0))(params, images).argmax(-1) == labels).mean())


def adam(steps: int) -> optax.GradientTransformation:
    """Adam with a little weight decay, its rate falling from 3e-3 to zero along a cosine."""
    return optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-2)


def norm(state: Any) -> float:
    """Euclidean norm of a state, whatever its structure."""
    return float(optax.tree.norm(state))


def in_short(structure: jc.Structure) -> str:
    """A structure in a few words: ``"diagonal, rank 91 of 128"``."""
    kind = f"identity + {structure.kind}" if structure.identity_plus else structure.kind
    full = min(structure.shape)
    return f"{kind}, " + (f"full rank {full}" if structure.rank == full else f"rank {structure.rank} of {full}")


def verb(before: float, after: float, up: str = "raises", down: str = "lowers") -> str:
    """The word for what happened to a number."""
    return up if after > before else down


def draw_spectra(pair: Mapping[str, Sequence[LocalJacobian]], title: str, path: Path) -> Path:
    """Singular values of every stage, one row of strips above the other, on the same axis."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(len(pair), 1, figsize=(8, 7), sharex=True, sharey=True, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
    for ax, (when, jacobians) in zip(axes, pair.items(), strict=True):
        jc.plot.singular_values(jacobians, ax=ax, title=when)
        ax.set_ylabel("singular values")
        ax.label_outer()
    return jc.plot.save(figure, path)


def heading(text: str) -> None:
    """Print a headline."""
    print(f"\n{text}\n{'─' * len(text)}")


def conclude(path: Path, numbers: Mapping[str, Any], findings: Sequence[str], figures: Sequence[Path]) -> None:
    """Write the numbers as JSON; print what was found and where the files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**numbers, "findings": list(findings), "figures": [figure.name for figure in figures]}
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    heading("Found")
    for finding in findings:
        print(f"• {finding}")
    print(f"\nFiles in {path.parent}:")
    for file in (*figures, path):
        print(f"  {file.name}")


def plain(value: Any) -> Any:
    """Dataclasses, arrays and paths as what JSON knows; NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
