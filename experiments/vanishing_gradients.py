"""What two hundred layers leave of a gradient, by activation and initialiser, and what cures it.

Question   How does a gradient's norm change over 1 to 200 layers, is that what theory says, and do
           residual blocks and layer norm mend it?
Command    python experiments/vanishing_gradients.py
Expect     A sigmoid's derivative is at most ¼, so its stage takes at least three quarters of every
           gradient (Hochreiter, 1991; Glorot and Bengio, AISTATS 2010). A layer multiplies squared
           gradients by χ (Schoenholz et al., arXiv 1611.01232): with He's weights and ReLU by 1 at
           every depth (He et al., arXiv 1502.01852), with LeCun's by ½. Residual blocks pass a
           gradient on beside their branch (He et al., arXiv 1512.03385); layer norm (Ba et al.,
           arXiv 1607.06450) makes the scale of the weights before it irrelevant.
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
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.show.table import Table

Plain = tuple[str, str, float]
"""Activation, initialiser and σ_w."""

Make = Callable[[int], jc.Chain]
"""One layer, of a width."""

PLAIN: dict[str, Plain] = {
    "ReLU, He": ("relu", "he", math.sqrt(2)),
    "GELU, He": ("gelu", "he", math.sqrt(2)),
    "ReLU, LeCun": ("relu", "lecun", 1.0),
    "tanh, LeCun": ("tanh", "lecun", 1.0),
    "tanh, σ_w = 1.5": ("tanh", "lecun", 1.5),
    "sigmoid, LeCun": ("sigmoid", "lecun", 1.0),
}
AILING = ("ReLU, LeCun", "sigmoid, LeCun")
"""Those that cures are tried on."""

NOTHING = 1e-20
"""Norms below it are not drawn."""

DEPTHS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Flow:
    """What passing 0, 1, 2, … layers leaves of a gradient.

    Attributes
    ----------
    measured
        Norm, of 1 at the output: the median network's.
    theory
        The same of an infinitely wide network; ``None`` where there is no such theory here.
    factor
        By what a layer multiplies the norm, on average.
    steepest
        The most that a layer's activation alone passed on.
    """

    measured: np.ndarray
    theory: np.ndarray | None
    factor: float
    steepest: float


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, width: int = 256, draws: int = 8) -> None:
    """Pull gradients back through deep networks, plain and cured.

    Parameters
    ----------
    seed
        Of weights, inputs and cotangents.
    quick
        Narrower networks of a tenth of the depth.
    out
        Folder for the figure and the numbers.
    width
        Units a layer.
    draws
        How many networks each is the median of.
    """
    width, draws, depth = (48, 4, 20) if quick else (width, draws, max(DEPTHS))
    shown = [k for k in DEPTHS if k <= depth]
    plain = {name: pull_back(layer_of(*case), depth, width, draws, seed, case) for name, case in PLAIN.items()}
    heading(f"Norm of a gradient after so many layers of width {width}, of 1 at the output")
    print(Table("", ("network", *map(str, shown), "a layer", "a layer by theory"), rows_of(plain, shown)))

    cured = {
        f"{name.split(',')[0]}, {cure}": pull_back(made, depth, width, draws, seed)
        for name in AILING
        for cure, made in (
            ("residual", residual(PLAIN[name], depth)),
            ("layer norm", normed(PLAIN[name])),
        )
    }
    heading("The two that lose it, cured")
    print(Table("", ("network", *map(str, shown), "a layer", "a layer by theory"), rows_of(cured, shown)))

    sigmoid, he = plain["sigmoid, LeCun"], plain["ReLU, He"]
    findings = [
        f"The sigmoid of a layer passes on at most {sigmoid.steepest:.4f} of a gradient's norm; the bound is 0.25.",
        f"With ReLU and He's weights a layer multiplies the norm by {he.factor:.4f}; He et al. derive 1.",
        *(f"{name}: {flow.measured[-1]:.2g} is left after {depth} layers{_by_theory(flow)}." for name, flow in (plain | cured).items()),
    ]  # fmt: skip
    numbers = {
        "seed": seed,
        "quick": quick,
        "width": width,
        "depth": depth,
        "draws": draws,
        "plain": plain,
        "cured": cured,
    }
    conclude(out / "vanishing_gradients.json", numbers, findings, [draw(plain, cured, out)])


def rows_of(flows: dict[str, Flow], depths: list[int]) -> list[tuple[str, ...]]:
    """A table's rows, one a network."""
    return [
        (
            name,
            *(f"{flow.measured[k]:.2g}" for k in depths),
            f"{flow.factor:.4f}",
            "" if flow.theory is None else f"{(flow.theory[-1] / flow.theory[0]) ** (1 / (len(flow.theory) - 1)):.4f}",
        )
        for name, flow in flows.items()
    ]


def _by_theory(flow: Flow) -> str:
    return "" if flow.theory is None else f" ({flow.theory[-1]:.2g} by theory)"


def layer_of(activation: str, init: str, sigma_w: float) -> Make:
    """One layer of an MLP, weights and then the activation."""
    return lambda width: jc.nets.mlp([width] * 3, activation, init, sigma_w)[:2]


def residual(case: Plain, depth: int) -> Make:
    """Blocks x + W₂ φ(W₁ x)/√depth."""
    return lambda width: jc.nets.residual_net((width,) * 3, depth, *case)[1:2]


def normed(case: Plain) -> Make:
    """Layer norm between weights and activation."""

    def layer(width: int) -> jc.Chain:
        dense, act = layer_of(*case)(width)
        return jc.Chain([dense, jc.Stage("norm", layer_norm), act])

    return layer


def layer_norm(x: jax.Array) -> jax.Array:
    """x, of mean 0 and variance 1."""
    return (x - x.mean()) / jnp.sqrt(x.var() + 1e-6)


def pull_back(make: Make, depth: int, width: int, draws: int, seed: int, case: Plain | None = None) -> Flow:
    """Draw ``depth`` layers, push an input through them and pull a cotangent back, one layer after the other.

    It is brought back to length one after each layer, so that what float32 cannot hold is measured, too: the logarithms
    of the factors are added up.
    """
    layer = make(width)

    def forward(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return layer(layer.init(key), x), x

    def backward(cotangent: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        x, key = at
        swept = jc.reverse_sweep(layer, (layer.init(key), x), cotangent)
        back = [jnp.linalg.norm(c) for c in swept.cotangents]
        return swept.cotangents[0] / back[0], (jnp.log(back[0]), back[-2] / back[-1])

    @jax.jit
    @jax.vmap
    def network(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_x, of_cotangent, of_layers = jax.random.split(key, 3)
        keys = jax.random.split(of_layers, depth)
        x, cotangent = jax.random.normal(of_x, (width,)), jax.random.normal(of_cotangent, (width,))
        states = jax.lax.scan(forward, x, keys)[1]
        start = cotangent / jnp.linalg.norm(cotangent)
        return jax.lax.scan(backward, start, (states, keys), reverse=True)[1]

    logs, passed = (np.asarray(found, np.float64) for found in network(jax.random.split(jax.random.key(seed), draws)))
    norms = np.exp(np.median(np.cumsum(logs[:, ::-1], axis=1), axis=0))
    theory = None if case is None else np.sqrt(expected(case, depth))
    return Flow(np.concatenate([[1.0], norms]), theory, float(np.exp(logs.mean())), float(passed.max()))


def expected(case: Plain, depth: int) -> np.ndarray:
    """Mean squares of a gradient after 0 … depth layers of an infinitely wide network."""
    activation, _, sigma_w = case
    predicted = jc.signal.predict(activation, depth + 1, sigma_w=sigma_w, sigma_b=0.0)
    return np.array(predicted.of("gradient")[::-1])


def draw(plain: dict[str, Flow], cured: dict[str, Flow], out: Path) -> Path:
    """Norms by depth: above the plain networks with their theory, below the cured ones beside what they cure."""
    depth = len(next(iter(plain.values())).measured) - 1
    theory = {name: _visible(flow.theory, flow.measured) for name, flow in plain.items() if flow.theory is not None}
    below = {name: plain[name] for name in AILING} | cured
    kept = plain["ReLU, He"].measured[-1]
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(8.6, 8.4), layout="constrained")
    words = {"xlabel": "layers passed, from the output back", "ylabel": "norm of the gradient"}
    jc.plot.norms_by_depth(
        {name: _visible(flow.measured, flow.measured) for name, flow in plain.items()}, theory=theory, ax=axes[0],
        title=f"ReLU with He's weights keeps a gradient over {depth} layers (×{kept:.2g}); a sigmoid loses it within a few",
        **words,
    )  # fmt: skip
    jc.plot.norms_by_depth(
        {name: _visible(flow.measured, flow.measured) for name, flow in below.items()}, ax=axes[1],
        title="Residual blocks mend both; layer norm mends what too small weights spoil, not a flat activation",
        **words,
    )  # fmt: skip
    return jc.plot.save(figure, out / "vanishing_gradients.png")


def _visible(norms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """As much of a line as is worth ink: no network trains on what is smaller."""
    return norms[: np.count_nonzero(measured >= NOTHING)]


if __name__ == "__main__":
    tyro.cli(main)
