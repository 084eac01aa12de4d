"""What the networks share: activations, initialisers, and layers drawn with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxchain.checks import LARGEST, integers, number, shown, word
from jaxchain.coordinates import widest
from jaxchain.stage import Stage

__all__ = [
    "ACTIVATIONS",
    "DEEPEST",
    "INITIALISERS",
    "Activation",
    "Layers",
    "Params",
    "activation_named",
    "affine",
    "biased",
    "float_dtype",
    "sizes_of",
]

DEEPEST = 10_000
"""The most blocks of one net."""

Activation = str | Callable[[jax.Array], jax.Array]
Params = dict[str, jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """The activation of a linear network."""
    return x


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "elu": jax.nn.elu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "identity": identity,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}

INITIALISERS: Mapping[str, tuple[str, float]] = {
    "glorot": ("fan_avg", 1.0),
    "he": ("fan_in", math.sqrt(2.0)),
    "lecun": ("fan_in", 1.0),
    "orthogonal": ("orthogonal", 1.0),
}
"""Name → what the variance is divided by, and the default σ_w."""


def activation_named(activation: Activation) -> tuple[str, Callable[[jax.Array], jax.Array]]:
    """An activation's name and function."""
    if not callable(activation):
        return activation, ACTIVATIONS[word("activation", activation, list(ACTIVATIONS))]
    return getattr(activation, "__name__", "activation").strip("<>"), activation


def weights(init: str, sigma_w: float | None, *, in_axis: Any = -1, out_axis: int = -2) -> Callable[..., jax.Array]:
    """``w(key, shape, dtype)``: variance σ_w²/fan, or σ_w times an orthogonal matrix."""
    fan, default = cast("tuple[Any, float]", INITIALISERS[word("initialiser", init, list(INITIALISERS))])
    scale = default if sigma_w is None else sigma_w
    if fan == "orthogonal":
        draw = jax.nn.initializers.orthogonal(scale, column_axis=out_axis)
        # QR knows no half precision: draw wider, then round.
        return lambda key, shape, dtype: draw(key, shape, widest(dtype, jnp.float32)).astype(dtype)
    # variance_scaling refuses a scale of zero, which theory asks for; scaling the draw does not.
    draw = jax.nn.initializers.variance_scaling(1.0, fan, "normal", in_axis=in_axis, out_axis=out_axis)
    return lambda key, shape, dtype: scale * draw(key, shape, dtype)


def _floating(dtype: Any) -> Any:
    """``dtype``, once it is a floating-point one or ``None``."""
    try:
        fits = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.inexact)
    except TypeError:
        fits = False
    if not fits:
        msg = f"dtype is that of the parameters, floating point such as jnp.float32, or None, but {shown(dtype)} was given."
        raise TypeError(msg)
    return dtype


def float_dtype(dtype: Any) -> Any:
    """``dtype``, or JAX's default float."""
    return jnp.result_type(float) if dtype is None else dtype


def sizes_of(sizes: Sequence[int], what: str, least: int = 2, exactly: int = 0) -> list[int]:
    """``sizes`` as a list, once they are positive integers, ``exactly`` so many or at least ``least``."""
    widths = integers(what, sizes, "a size", least=1, most=LARGEST)
    if len(widths) != exactly if exactly else len(widths) < least:
        count = f"{exactly}" if exactly else f"at least {least}"
        msg = f"{what} must be {count} positive integers, but {shown(sizes)} was given."
        raise ValueError(msg)
    return widths


class Layers:
    """The choices that every layer of one network shares, and the layers made with them."""

    def __init__(self, init: str, sigma_w: float | None, sigma_b: float, dtype: Any) -> None:
        number("sigma_w", sigma_w, "the scale of the weights", optional=True)
        self.weights = partial(weights, init, sigma_w)
        self.weights()  # an unknown initialiser is refused when the network is built
        self.sigma_b, self.dtype = number("sigma_b", sigma_b, "the scale of the biases"), _floating(dtype)

    def affine(self, key: jax.Array, n_in: int, n_out: int) -> Params:
        """W (n_out, n_in) and b (n_out,), so that the local Jacobian of Wx + b is W itself."""
        return self.draw(key, (n_out, n_in), n_out, in_axis=-1, out_axis=-2)

    def kernel(self, key: jax.Array, side: int, n_in: int, n_out: int) -> Params:
        """A convolution kernel (side, side, n_in, n_out) and bias (n_out,)."""
        return self.draw(key, (side, side, n_in, n_out), n_out, in_axis=-2, out_axis=-1)

    def draw(self, key: jax.Array, shape: tuple[int, ...], n_out: int, *, in_axis: int, out_axis: int) -> Params:
        """Weights of a shape, and a bias (n_out,)."""
        dtype, (key_w, key_b) = float_dtype(self.dtype), jax.random.split(key)
        return {
            "w": self.weights(in_axis=in_axis, out_axis=out_axis)(key_w, shape, dtype),
            "b": self.sigma_b * jax.random.normal(key_b, (n_out,), dtype),
        }

    def dense(self, name: str, n_in: int, n_out: int, fn: Callable[..., jax.Array] | None = None) -> Stage:
        """Stage Wx + b."""
        return Stage(name, fn or affine, lambda key: self.affine(key, n_in, n_out))


def affine(p: Params, x: jax.Array) -> jax.Array:
    """Wx + b over the last axis of x: (…, n_in) → (…, n_out)."""
    if x.ndim == 1:
        return p["w"] @ x + p["b"]
    return biased(x @ p["w"].T, p["b"])


def biased(y: jax.Array, b: jax.Array) -> jax.Array:
    """The sum y + b over the last axis, also where JAX is told not to promote ranks."""
    return y + jnp.expand_dims(b, tuple(range(y.ndim - 1)))
