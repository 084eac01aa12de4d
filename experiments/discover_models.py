"""What chain is a model that someone else wrote?

Question   Five models from three libraries and from no library at all: which stages are they made
           of, what prevents finer ones, and is the chain the same function?
Command    python experiments/discover_models.py        (needs the extra ``models``)
Expect     A table a model, its stages in the library's own words; the chain's value and derivative
           agree with the model's to rounding; compiled, it does the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.cost.measure import flops

Model = tuple[Callable[..., Any], tuple[Any, ...]]


class Block(nn.Module):
    """A pre-norm transformer block of Flax's own parts."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # noqa: D102
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return x + nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Embed, two blocks, mean over positions, read out."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # noqa: D102
        x = nn.Dense(16)(x)
        for _ in range(2):
            x = Block()(x)
        return nn.Dense(10)(nn.LayerNorm()(x).mean(0))


class ConvNet(nn.Module):
    """Convolution, batch normalisation with fixed statistics, ReLU, pooling, twice; a dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # noqa: D102
        for channels in (4, 8):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(channels, (3, 3))(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(-1))


def flax_model(module: nn.Module, shape: tuple[int, ...], key: jax.Array) -> Model:
    """A Flax module as a function of its variables and one sample."""
    x = jax.random.normal(key, shape)
    return module.apply, (module.init(key, x), x)


def equinox_lstm(key: jax.Array) -> Model:
    """An Equinox LSTM scanned over eight inputs; the chain runs along its state (h, c)."""
    cell = eqx.nn.LSTMCell(8, 16, key=key)

    def read(inputs: jax.Array, state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jax.lax.scan(lambda s, x: (cell(x, s), None), state, inputs)[0][0]

    return read, (jax.random.normal(key, (8, 8)), (jnp.zeros(16), jnp.zeros(16)))


def haiku_residual(key: jax.Array) -> Model:
    """A residual tower of Haiku layers."""

    def forward(x: jax.Array) -> jax.Array:
        x = hk.Linear(16)(x)
        for k in range(3):
            x = x + hk.nets.MLP([32, 16], name=f"block_{k}")(x)
        return hk.Linear(10)(x)

    net = hk.without_apply_rng(hk.transform(forward))
    x = jax.random.normal(key, (8,))
    return net.apply, (net.init(key, x), x)


def leapfrog(key: jax.Array) -> Model:
    """A pendulum integrated by leapfrog steps in a ``fori_loop``: physics, no network."""

    def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        angle, speed = state
        speed = speed - 0.05 * jnp.sin(angle)
        angle = angle + 0.1 * speed
        return angle, speed - 0.05 * jnp.sin(angle)

    def swing(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jax.lax.fori_loop(0, 6, step, state)[0]

    return swing, (tuple(jax.random.normal(key, (2, 3))),)


MODELS: dict[str, Callable[[jax.Array], Model]] = {
    "Flax transformer": lambda key: flax_model(Transformer(), (5, 8), key),
    "Flax conv net": lambda key: flax_model(ConvNet(), (8, 8, 1), key),
    "Equinox LSTM": equinox_lstm,
    "Haiku residual net": haiku_residual,
    "leapfrog pendulum": leapfrog,
}


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS) -> None:
    """Discover five models; print their chains; compare each with its model.

    Parameters
    ----------
    seed
        Of weights and inputs.
    quick
        Only the first two models.
    out
        Folder for the numbers.
    """
    numbers: dict[str, Any] = {}
    for name in list(MODELS)[: 1 if quick else None]:
        heading(name)
        fun, args = MODELS[name](jax.random.key(seed))
        chain = jc.discover(fun, *args)
        print(chain)
        numbers[name] = compare(fun, args, chain)
        print(
            "The chain against the model: value {value:.0e}, cotangents {cotangents:.0e}, work {work:.4f}.".format(
                **numbers[name]
            )
        )
    gap = max(max(n["value"], n["cotangents"]) for n in numbers.values())
    work = max(n["work"] for n in numbers.values())
    findings = [
        f"{len(numbers)} models, {sum(n['stages'] for n in numbers.values())} stages; none was changed or rewritten.",
        f"Values and all cotangents agree with the models to {gap:.0e} (largest difference over largest entry).",
        f"Compiled, a chain does at most {work:.4f} times its model's work.",
    ]
    conclude(out / "discover_models.json", {"seed": seed, "quick": quick, "models": numbers}, findings, [])


def compare(fun: Callable[..., Any], args: tuple[Any, ...], chain: jc.Chain) -> dict[str, Any]:
    """How far the chain's value and cotangents are from the model's, and their work once compiled."""

    def vjp(*args: Any) -> tuple[jax.Array, Any]:
        value, pull = jax.vjp(fun, *args)
        return value, pull(jnp.ones_like(value))

    value, cotangents = jax.jit(vjp)(*args)
    sweep = jax.jit(lambda *args: jc.reverse_sweep(chain, args, jnp.ones_like(value)))(*args)
    return {
        "stages": len(chain),
        "names": chain.names,
        "value": difference(jax.jit(chain)(*args), value),
        "cotangents": difference(sweep.arg_cotangents, cotangents),
        "work": flops(chain, *args) / flops(fun, *args),
    }


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of an entry, over the largest entry."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    largest = max(float(np.abs(t).max()) for _, t in pairs)
    return max(float(np.abs(np.asarray(o) - np.asarray(t)).max()) for o, t in pairs) / largest


if __name__ == "__main__":
    tyro.cli(main)
