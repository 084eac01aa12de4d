"""Networks of dense layers: `mlp`, `autoencoder`, `residual_net`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax

from jaxchain.chain import Chain
from jaxchain.checks import LARGEST, integer
from jaxchain.nets.layers import DEEPEST, Activation, Layers, Params, activation_named, affine, sizes_of
from jaxchain.stage import Stage

__all__ = ["autoencoder", "mlp", "residual_net"]


def mlp(
    sizes: Sequence[int],
    activation: Activation = "relu",
    init: str = "he",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    dtype: Any = None,
) -> Chain:
    """A multilayer perceptron: ``dense_0, relu_0, dense_1, …``; no activation after the last layer.

    Parameters
    ----------
    sizes
        Widths n_0 … n_L, input first.
    activation
        A name in `ACTIVATIONS`, or any function of one array; it also names the stages.
    init
        ``"he"`` (σ_w² = 2), ``"lecun"`` (σ_w² = 1), ``"glorot"`` (σ_w² = 1) or ``"orthogonal"``.
    sigma_w
        σ_w: weights have variance σ_w²/n_in (Glorot: 2σ_w²/(n_in + n_out); orthogonal: σ_w Q).
    sigma_b
        Biases are normal with standard deviation σ_b.
    dtype
        Of the parameters; default: JAX's default float.

    Returns
    -------
    Chain
        ``net(params, x)``: (n_0,) → (n_L,); of a dense layer ``params`` holds ``w`` (n_out, n_in) and ``b`` (n_out,).

    Raises
    ------
    ValueError
        If a size is not positive, a scale is negative or not finite, or a name is unknown.
    TypeError
        If a size is no integer, or a scale no number.

    References
    ----------
    He et al., arXiv 1502.01852; Glorot and Bengio, AISTATS 2010; LeCun et al., Efficient BackProp,
    1998; Saxe et al., arXiv 1312.6120 (orthogonal).

    Examples
    --------
    >>> net = jc.nets.mlp([784, 32, 10])
    >>> net.names
    ('dense_0', 'relu_0', 'dense_1')
    >>> params = net.init(jax.random.key(0))
    >>> params["dense_0"]["w"].shape, net(params, jnp.ones(784)).shape
    ((32, 784), (10,))
    """
    widths = sizes_of(sizes, "sizes")
    layers, (name, act) = Layers(init, sigma_w, sigma_b, dtype), activation_named(activation)
    stages: list[Stage] = []
    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        stages += [layers.dense(f"dense_{k}", n_in, n_out), Stage(f"{name}_{k}", act)]
    return Chain(stages[:-1])


def autoencoder(
    sizes: Sequence[int],
    activation: Activation = "tanh",
    init: str = "glorot",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    dtype: Any = None,
) -> Chain:
    """A dense autoencoder: an MLP down ``sizes`` to the code and back up again.

    ``autoencoder([784, 256, 32])`` is 784-256-32-256-784. Arguments, errors and references as in
    `mlp`.

    Returns
    -------
    Chain
        ``net(params, x)``: (n_0,) → (n_0,).

    References
    ----------
    Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 2006.

    Examples
    --------
    >>> net = jc.nets.autoencoder([8, 4, 2])
    >>> params = jax.eval_shape(net.init, jax.random.key(0))
    >>> [layer["w"].shape for layer in params.values()]  # 8-4-2-4-8
    [(4, 8), (2, 4), (4, 2), (8, 4)]
    """
    widths = sizes_of(sizes, "sizes")
    return mlp([*widths, *widths[-2::-1]], activation, init, sigma_w, sigma_b, dtype=dtype)


def residual_net(
    sizes: tuple[int, int, int],
    depth: int,
    activation: Activation = "relu",
    init: str = "he",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    *,
    hidden: int | None = None,
    dtype: Any = None,
) -> Chain:
    """A residual network: ``dense_in, block_0, …, dense_out``; a block is x + W₂ φ(W₁ x + b₁) + b₂.

    Parameters
    ----------
    sizes
        (n_in, width, n_out).
    depth
        Number of blocks; W₂ is scaled by 1/√depth, so that the sum over blocks keeps its scale.
    hidden
        Width inside a block; default: ``width``.
    activation, init, sigma_w, sigma_b, dtype
        As in `mlp`.

    Returns
    -------
    Chain
        ``net(params, x)``: (n_in,) → (n_out,); of a block ``params`` holds ``down`` (W₁, b₁) and ``up`` (W₂, b₂).

    Raises
    ------
    ValueError
        As `mlp`.

    References
    ----------
    He et al., arXiv 1512.03385.

    Examples
    --------
    >>> net = jc.nets.residual_net([3, 8, 2], depth=2)
    >>> net.names, net(net.init(jax.random.key(0)), jnp.ones(3)).shape
    (('dense_in', 'block_0', 'block_1', 'dense_out'), (2,))
    """
    n_in, width, n_out = sizes_of(sizes, "sizes (in, width, out)", exactly=3)
    depth = integer("depth", depth, "the number of blocks", least=1, most=DEEPEST)
    layers, (_, act) = Layers(init, sigma_w, sigma_b, dtype), activation_named(activation)
    inner = width if hidden is None else integer("hidden", hidden, "the width inside a block", least=1, most=LARGEST)

    def block(p: dict[str, Params], x: jax.Array) -> jax.Array:
        return x + affine(p["up"], act(affine(p["down"], x)))

    def start(key: jax.Array) -> dict[str, Params]:
        key_down, key_up = jax.random.split(key)
        up = jax.tree.map(lambda w: w / math.sqrt(depth), layers.affine(key_up, inner, width))
        return {"down": layers.affine(key_down, width, inner), "up": up}

    blocks = [Stage(f"block_{k}", block, start) for k in range(depth)]
    return Chain([layers.dense("dense_in", n_in, width), *blocks, layers.dense("dense_out", width, n_out)])
