"""Convolutional networks: `conv_net`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.chain import Chain
from jaxchain.checks import LARGEST, integer
from jaxchain.nets.layers import Activation, Layers, Params, activation_named, biased, sizes_of
from jaxchain.stage import Stage

__all__ = ["conv_net"]


def conv_net(
    image_shape: tuple[int, int, int],
    channels: Sequence[int],
    classes: int,
    activation: Activation = "relu",
    init: str = "he",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    dtype: Any = None,
) -> Chain:
    """A convolutional classifier: ``conv_0, relu_0, …, flatten, dense``.

    Parameters
    ----------
    image_shape
        (height, width, channels) of one image.
    channels
        Output channels of each convolution.
    classes
        Size of the output.
    kernel_size, stride
        Of every convolution; padding keeps the size at stride 1.
    activation, init, sigma_w, sigma_b, dtype
        As in `mlp`; fan_in is kernel_size² · n_in.

    Returns
    -------
    Chain
        ``net(params, x)``: (height, width, channels) → (classes,); of a convolution ``params`` holds ``w``
        (kernel_size, kernel_size, n_in, n_out) and ``b`` (n_out,).

    Raises
    ------
    ValueError
        As `mlp`.

    References
    ----------
    LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the IEEE 1998.

    Examples
    --------
    >>> net = jc.nets.conv_net((8, 8, 1), [4], classes=10, stride=2)
    >>> params = jax.eval_shape(net.init, jax.random.key(0))
    >>> net.names, params["conv_0"]["w"].shape, jax.eval_shape(net, params, jnp.ones((8, 8, 1))).shape
    (('conv_0', 'relu_0', 'flatten', 'dense_0'), (3, 3, 1, 4), (10,))
    """
    height, width, n_in = sizes_of(image_shape, "image_shape (height, width, channels)", exactly=3)
    classes = integer("classes", classes, "the size of the output", least=1, most=LARGEST)
    kernel_size = integer("kernel_size", kernel_size, "the side of a kernel", least=1, most=LARGEST)
    stride = integer("stride", stride, "the step of a kernel", least=1, most=LARGEST)
    layers, (name, act) = Layers(init, sigma_w, sigma_b, dtype), activation_named(activation)
    stages: list[Stage] = []
    for k, n_out in enumerate(sizes_of(channels, "channels", 1)):
        start = partial(layers.kernel, side=kernel_size, n_in=n_in, n_out=n_out)
        stages += [Stage(f"conv_{k}", partial(convolve, stride), start), Stage(f"{name}_{k}", act)]
        height, width, n_in = -(-height // stride), -(-width // stride), n_out
    return Chain([*stages, Stage("flatten", jnp.ravel), layers.dense("dense_0", height * width * n_in, classes)])


def convolve(stride: int, p: Params, x: jax.Array) -> jax.Array:
    """A same-padded convolution of one image: (H, W, n_in) → (⌈H/stride⌉, ⌈W/stride⌉, n_out)."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x[None], p["w"], (stride, stride), "SAME", dimension_numbers=dimensions)[0]
    return biased(y, p["b"])
