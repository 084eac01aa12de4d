"""Kronecker factors by kfac-jax, as numbers that jaxchain's are compared with.

kfac-jax imports on no JAX that jaxchain runs on, so the numbers are made in an environment of their own:

    python3.11 -m venv kfac && kfac/bin/pip install kfac-jax==0.0.8 jax==0.6.2 jaxlib==0.6.2
    kfac/bin/python tests/data/kronecker_factors.py > tests/data/kronecker_factors.json

`MODELS` is imported by the test; nothing here but `main` needs kfac-jax.
"""

from __future__ import annotations

import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LABELS, SAMPLES = np.array([0, 2, 1, 1]), 4


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def dense(params, x):
    return x @ params["w"] + params["b"]


def mlp(params, x):
    return dense(params["second"], jnp.tanh(dense(params["first"], x)))


def without_bias(params, x):
    return jnp.tanh(x @ params["first"]["w"]) @ params["second"]["w"]


def positions(params, x):
    """Weights shared over positions (…, T, 3), then a pool."""
    return dense(params["second"], jnp.mean(jnp.tanh(dense(params["first"], x)), -2))


def convolved(params, x):
    """An image (…, H, W, 2), strided and padded; then a dense layer of all of it."""
    images = x if x.ndim == 4 else x[None]
    y = lax.conv_general_dilated(
        images, params["first"]["w"], (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = jnp.tanh(y + params["first"]["b"])
    y = dense(params["second"], y.reshape(y.shape[0], -1))
    return y if x.ndim == 4 else y[0]


def layers(*shapes, bias=True):
    return {
        name: {"w": drawn(seed, *shape) / 2, **({"b": drawn(seed + 10, shape[-1])} if bias else {})}
        for seed, (name, shape) in enumerate(zip(("first", "second"), shapes, strict=True))
    }


MODELS = {
    "mlp": (mlp, layers((4, 5), (5, 3)), drawn(5, SAMPLES, 4)),
    "mlp without biases": (without_bias, layers((4, 5), (5, 3), bias=False), drawn(5, SAMPLES, 4)),
    "positions": (positions, layers((3, 5), (5, 3)), drawn(6, SAMPLES, 6, 3)),
    "convolution": (convolved, layers((3, 2, 2, 3), (2 * 4 * 3, 3)), drawn(7, SAMPLES, 4, 4, 2)),
}
"""Name → a model of a batch or of one sample, its parameters, the batch."""

LOSSES = ("categorical", "gaussian")


def factors(kfac_jax, model, params, xs, likelihood):
    """Left and right factors of every block, the scale that kfac-jax keeps beside them on the right one."""

    def func(params, batch):
        xs, labels = batch
        out = model(params, xs)
        if likelihood == "categorical":
            kfac_jax.register_softmax_cross_entropy_loss(out, labels)
        else:
            kfac_jax.register_normal_predictive_distribution(out, jnp.zeros_like(out), variance=1.0)
        return jnp.sum(out)

    estimator = kfac_jax.BlockDiagonalCurvature(func, params_index=0, default_estimation_mode="ggn_exact")
    params, batch = jax.tree.map(jnp.asarray, params), (jnp.asarray(xs), jnp.asarray(LABELS))
    args = (params, batch)
    estimator.finalize(args)
    state = estimator.init(
        jax.random.key(0), args, exact_powers_to_cache=set(), approx_powers_to_cache=set(), cache_eigenvalues=False
    )
    state = estimator.update_curvature_matrix_estimate(state, 0.0, 1.0, 0.0, len(xs), jax.random.key(1), args)
    found = []
    for block, of_block in zip(estimator.blocks, state.blocks_states, strict=True):
        left, right = (np.asarray(factor.value) for factor in of_block.factors)
        shape = next(shape for shape in block.parameters_shapes if len(shape) > 1)
        found.append(
            {
                "kind": type(block).__name__,
                "weight": list(shape),
                "left": left.tolist(),
                "right": (right * float(block.scale(of_block, use_cache=False))).tolist(),
            }
        )
    return sorted(found, key=lambda block: math.prod(block["weight"]))


def main():
    import kfac_jax

    jax.config.update("jax_enable_x64", True)
    made = {
        name: {likelihood: factors(kfac_jax, *given, likelihood) for likelihood in LOSSES}
        for name, given in MODELS.items()
    }
    told = {"kfac-jax": kfac_jax.__version__, "jax": jax.__version__, "python": sys.version.split()[0]}
    sys.stdout.write(json.dumps({"made with": told, "blocks": made}) + "\n")


if __name__ == "__main__":
    main()
