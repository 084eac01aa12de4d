"""Laplacians by folx, and what XLA counts of them: the numbers in folx_laplacians.json.

folx 0.2.30 imports on JAX 0.4.38 to 0.10. Made by

    python -m venv folx && folx/bin/pip install folx==0.2.30 jax==0.4.38 jaxlib==0.4.38
    folx/bin/python tests/data/folx_laplacians.py
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COMMAND = "folx/bin/python tests/data/folx_laplacians.py"


def drawn(rng: Any, *shape: int) -> Any:
    """Weights of a layer."""
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]))


def mlp(*sizes: int) -> Any:
    """A network of tanh, from so many numbers to one; its weights and an input."""
    rng = np.random.default_rng(0)
    weights = [drawn(rng, *pair) for pair in pairwise(sizes)]

    def fun(weights: Any, x: Any) -> Any:
        for w in weights[:-1]:
            x = jnp.tanh(x @ w)
        return jnp.sum(x @ weights[-1])

    return fun, (weights, jnp.asarray(rng.normal(size=sizes[0])))


def particles(count: int, *sizes: int) -> Any:
    """The same network of every particle, summed."""
    fun, (weights, _) = mlp(*sizes)
    return fun, (weights, jnp.asarray(np.random.default_rng(1).normal(size=(count, sizes[0]))))


def attention() -> Any:
    """Six tokens that attend to one another."""
    rng = np.random.default_rng(2)
    weights = {name: drawn(rng, 4, 4) for name in ("q", "k", "v")}

    def fun(weights: Any, x: Any) -> Any:
        scores = (x @ weights["q"]) @ (x @ weights["k"]).T
        return jnp.sum(jnp.tanh(jax.nn.softmax(scores) @ (x @ weights["v"])))

    return fun, (weights, jnp.asarray(rng.normal(size=(6, 4))))


CASES = {
    "MLP 64, five layers": lambda: mlp(64, 64, 64, 64, 64, 1),
    "MLP 64 with a waist of 4": lambda: mlp(64, 64, 4, 64, 64, 1),
    "32 particles": lambda: particles(32, 3, 16, 16, 1),
    "attention": attention,
}

if __name__ == "__main__":
    import folx

    jax.config.update("jax_enable_x64", True)
    found = {}
    for name, build in CASES.items():
        fun, (weights, x) = build()
        # Its own choice of sparsity for particles, whole Jacobians else.
        threshold = 6 if "particles" in name else 0

        def laplacian(weights, x, fun=fun, threshold=threshold):
            return folx.forward_laplacian(lambda x: fun(weights, x), sparsity_threshold=threshold)(x).laplacian

        compiled = jax.jit(laplacian).lower(weights, x).compile()
        costs = compiled.cost_analysis()
        costs = costs[0] if isinstance(costs, list) else costs
        found[name] = {"laplacian": float(compiled(weights, x)), "flops": costs["flops"]}
    versions = {package: version(package) for package in ("folx", "jax", "jaxlib", "numpy")}
    text = json.dumps({"command": COMMAND, "versions": versions, "cases": found}, indent=1) + "\n"
    Path(__file__).with_suffix(".json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
