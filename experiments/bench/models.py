"""The functions that Jacobians are measured on, with their arguments; the last one is differentiated.

`AUTOENCODER`, `CONVOLUTIONAL` and the like are the cases of the speed targets; `ZOO` is everything
else that ought never to be worse off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxchain as jc
from jaxchain.nets.layers import Layers, Params

Case = tuple[Callable[..., Any], tuple[Any, ...]]

AUTOENCODER = (784, 512, 256, 32)
"""Widths down to the code; back up the same way."""


def of_net(net: jc.Chain, shape: tuple[int, ...], seed: int) -> Case:
    """A network with drawn parameters, at a drawn input."""
    key_params, key_x = jax.random.split(jax.random.key(seed))
    return net, (net.init(key_params), jax.random.normal(key_x, shape))


def convolutional_autoencoder(channels: tuple[int, int] = (16, 32), code: int = 16, side: int = 28) -> jc.Chain:
    """Two strided convolutions down, a dense code, two transposed convolutions up, tanh between."""
    layers, dims, few = Layers("glorot", None, 0.0, None), ("NHWC", "HWIO", "NHWC"), (side // 4, side // 4, channels[1])

    def down(p: Params, x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x[None], p["w"], (2, 2), "SAME", dimension_numbers=dims)[0] + p["b"]

    def up(p: Params, x: jax.Array) -> jax.Array:
        return lax.conv_transpose(x[None], p["w"], (2, 2), "SAME", dimension_numbers=dims)[0] + p["b"]

    def stage(name: str, fn: Callable[..., jax.Array], n_in: int, n_out: int) -> jc.Stage:
        return jc.Stage(name, fn, lambda key: layers.kernel(key, 3, n_in, n_out))

    wide, deep = channels
    return jc.Chain(
        [
            stage("conv_0", down, 1, wide),
            jc.Stage("tanh_0", jnp.tanh),
            stage("conv_1", down, wide, deep),
            jc.Stage("tanh_1", jnp.tanh),
            jc.Stage("flatten", jnp.ravel),
            layers.dense("code", int(np.prod(few)), code),
            jc.Stage("tanh_2", jnp.tanh),
            layers.dense("dense", code, int(np.prod(few))),
            jc.Stage("tanh_3", jnp.tanh),
            jc.Stage("unflatten", lambda x: x.reshape(few)),
            stage("up_0", up, deep, wide),
            jc.Stage("tanh_4", jnp.tanh),
            stage("up_1", up, wide, 1),
        ]
    )


def with_tanh_at_end(net: jc.Chain) -> jc.Chain:
    """The same network, its output through tanh."""
    return jc.Chain([*net, jc.Stage("tanh_end", jnp.tanh)])


def elementwise(x: jax.Array) -> jax.Array:
    """Ten stages, each entry by itself."""
    for _ in range(5):
        x = jnp.tanh(x)
        x = 1.1 * x
    return x


def stencil(u: jax.Array) -> jax.Array:
    """Reaction and diffusion on a grid: the five-point Laplacian of u, and u − u³."""
    padded = jnp.pad(u, 1)
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * u
    return laplacian + u - u**3


def convolution(kernel: jax.Array, image: jax.Array) -> jax.Array:
    """Tanh of a same-padded convolution by one 3×3 kernel."""
    return jnp.tanh(lax.conv_general_dilated(image[None, None], kernel[None, None], (1, 1), "SAME")[0, 0])


def sparse_cases(seed: int, side: int) -> dict[str, tuple[Callable[[jax.Array], jax.Array], jax.Array]]:
    """Functions with sparse Jacobians, and where they are taken; ``side`` is that of the stencil's grid."""
    key_k, key_x = jax.random.split(jax.random.key(seed))
    kernel = jax.random.normal(key_k, (3, 3))
    return {
        f"{side}×{side} stencil": (stencil, jax.random.normal(key_x, (side, side))),
        "32×32 convolution": (lambda image: convolution(kernel, image), jax.random.normal(key_x, (32, 32))),
    }


def batched_mlp(seed: int) -> Case:
    """Sixty-four samples through an MLP of 32 outputs at once.

    With m outputs jax.jacrev costs 1 + 64 m sweeps of a batch and its blocks alone 1 + m, the one
    being the evaluation: at best (1 + 64 m)/(1 + m) times less, 62 here, 58 with ten outputs.
    """
    net, (params, _) = of_net(jc.nets.mlp([64, 128, 64, 32], "tanh"), (64,), seed)
    return lambda params, x: jax.vmap(net, (None, 0))(params, x), (
        params,
        jax.random.normal(jax.random.key(seed), (64, 64)),
    )


def random_mlp(rng: np.random.Generator) -> tuple[jc.Chain, list[int]]:
    """Two to eight dense layers with tanh between, of widths 4 … 512, uniform in their logarithm; and its widths."""
    widths = np.exp(rng.uniform(np.log(4), np.log(512), rng.integers(3, 10))).round().astype(int).tolist()
    return jc.nets.mlp(widths, "tanh", "lecun"), widths


ZOO: Mapping[str, tuple[jc.Chain, tuple[int, ...]]] = {
    "classifier": (jc.nets.mlp([64, 128, 64, 10]), (64,)),
    "decoder": (jc.nets.mlp([10, 64, 256], "tanh", "lecun"), (10,)),
    "residual net": (jc.nets.residual_net((32, 48, 10), depth=4), (32,)),
    "conv net": (jc.nets.conv_net((12, 12, 1), [4, 8], 10), (12, 12, 1)),
    "transformer": (jc.nets.transformer((8, 16, 8), depth=2, heads=2), (12, 8)),
    "rnn": (jc.nets.rnn([8, 32, 10]), (20, 8)),
    "wide GELU net": (jc.nets.mlp([128, 256, 128], "gelu", "he"), (128,)),
}
"""Every kind of network in `jaxchain.nets`, with the shape of its input."""


def over_positions(seed: int) -> dict[str, Case]:
    """What most models are, positions or steps of a width, from all of them to all of them: transformers and their like."""
    keys = iter(jax.random.split(jax.random.key(seed), 99))

    def weights(m: int, n: int) -> jax.Array:
        return jax.random.normal(next(keys), (m, n)) / math.sqrt(m)

    def normalised(x: jax.Array) -> jax.Array:
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def perceptron(x: jax.Array, layers: Sequence[jax.Array]) -> jax.Array:
        return jax.nn.gelu(x @ layers[0]) @ layers[1]

    def attention(x: jax.Array, layers: Sequence[jax.Array], *, causal: bool, heads: int = 4) -> jax.Array:
        q, k, v = ((x @ w).reshape(len(x), heads, -1).swapaxes(0, 1) for w in layers[:3])
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        seen = jnp.tril(jnp.ones(scores.shape[1:], bool)) if causal else True
        mixed = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)) @ v
        return mixed.swapaxes(0, 1).reshape(x.shape) @ layers[3]

    def transformer(positions: int, width: int, depth: int, *, causal: bool) -> Case:
        blocks = [
            (
                [weights(width, width) for _ in range(4)],
                [weights(width, 4 * width), weights(4 * width, width)],
            )
            for _ in range(depth)
        ]

        def net(x: jax.Array) -> jax.Array:
            for looking, own in blocks:
                x = x + attention(normalised(x), looking, causal=causal)
                x = x + perceptron(normalised(x), own)
            return normalised(x)

        return net, (jax.random.normal(next(keys), (positions, width)),)

    def mixer(positions: int, width: int, depth: int) -> Case:
        def two(n: int) -> list[jax.Array]:
            return [weights(n, 2 * n), weights(2 * n, n)]

        blocks = [(two(positions), two(width)) for _ in range(depth)]

        def net(x: jax.Array) -> jax.Array:
            for across, own in blocks:
                x = x + perceptron(normalised(x).T, across).T
                x = x + perceptron(normalised(x), own)
            return normalised(x)

        return net, (jax.random.normal(next(keys), (positions, width)),)

    def gated(steps: int, width: int) -> Case:
        layers = [weights(2 * width, width) for _ in range(3)]

        def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            update, reset = (jax.nn.sigmoid(jnp.concatenate([x, carry]) @ w) for w in layers[:2])
            carry = (1 - update) * carry + update * jnp.tanh(jnp.concatenate([x, reset * carry]) @ layers[2])
            return carry, carry

        return lambda x: jax.lax.scan(step, jnp.zeros(width), x)[1], (jax.random.normal(next(keys), (steps, width)),)

    return {
        "causal transformer, 6 blocks, 32 × 64": transformer(32, 64, 6, causal=True),
        "vision transformer, 4 blocks, 16 × 48": transformer(16, 48, 4, causal=False),
        "MLP-mixer, 4 blocks, 16 × 48": mixer(16, 48, 4),
        "GRU, 64 steps of 16": gated(64, 16),
    }


BODIES = 3
ARM, INERTIA = np.array([0.5, 0.1, 0.1], np.float32), np.array([0.02, 0.26, 0.26], np.float32)
"""Half the sides of a box, and its moments of inertia for unit mass."""

FEET = [ARM * np.array(signs, np.float32) for signs in ((1, 1, -1), (1, -1, -1), (-1, 1, -1), (-1, -1, -1))]
"""The corners that may touch the ground."""


def physics(seed: int) -> Case:
    """Three boxes in a row on the ground, neighbours tied by damped springs from corner to corner: one step of time.

    The state holds 13 numbers a body (position, orientation as a quaternion, velocity, angular
    velocity): 39 in, 39 out. Written as physics is written in Python, one short vector after the
    other, with loops over bodies and corners unrolled: jax.make_jaxpr of JAX 0.10 counts 1,903
    equations, half of them taking an entry out of a vector.
    """
    rest = np.concatenate([[1.1 * k, 0, 0.1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0] for k in range(BODIES)])
    return physics_step, (jnp.asarray(rest) + 0.02 * jax.random.normal(jax.random.key(seed), (13 * BODIES,)),)


def physics_step(x: jax.Array, dt: float = 1e-3) -> jax.Array:
    """Semi-implicit Euler: forces at the old state, velocities from forces, positions from the new velocities."""
    bodies = [tuple(jnp.split(x[13 * k : 13 * (k + 1)], (3, 7, 10))) for k in range(BODIES)]
    turns = [rotation(q) for _, q, _, _ in bodies]
    forces, torques = [jnp.array([0.0, 0.0, -9.81])] * BODIES, [jnp.zeros(3)] * BODIES

    def push(k: int, arm: jax.Array, force: jax.Array) -> None:
        forces[k] = forces[k] + force
        torques[k] = torques[k] + cross(arm, force)

    def end(k: int, corner: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
        """A point of a body: its arm from the centre, where it is, how fast it moves."""
        p, _, v, w = bodies[k]
        arm = turns[k] @ corner
        return arm, p + arm, v + cross(turns[k] @ w, arm)

    for k in range(BODIES):
        for corner in FEET:
            arm, place, speed = end(k, corner)
            push(k, arm, contact(place, speed))
    for k in range(BODIES - 1):
        (arm, place, speed), (other_arm, other_place, other_speed) = end(k, ARM), end(k + 1, -ARM)
        pull = 200 * (other_place - place) + 5 * (other_speed - speed)
        push(k, arm, pull)
        push(k + 1, other_arm, -pull)
    after: list[jax.Array] = []
    for (p, q, v, w), turn, force, torque in zip(bodies, turns, forces, torques, strict=True):
        v = v + dt * force
        w = w + dt * (turn.T @ torque - cross(w, INERTIA * w)) / INERTIA
        q = q + 0.5 * dt * times(q, w)
        after += [p + dt * v, q / jnp.sqrt(q @ q), v, w]
    return jnp.concatenate(after)


def contact(place: jax.Array, speed: jax.Array) -> jax.Array:
    """A stiff damped ground at z = 0 that pushes but does not pull, with friction that is smooth at rest."""
    depth = jnp.maximum(-place[2], 0.0)
    normal = jnp.maximum(5e3 * depth - 50 * jnp.tanh(1e3 * depth) * speed[2], 0.0)
    slip = speed[:2]
    friction = -0.6 * normal * slip / jnp.sqrt(slip @ slip + 1e-4)
    return jnp.concatenate([friction, normal[None]])


def cross(a: Any, b: Any) -> jax.Array:
    """The cross product a × b."""
    return jnp.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def times(q: jax.Array, w: jax.Array) -> jax.Array:
    """The quaternion product q (0, w)."""
    return jnp.concatenate([-(q[1:] @ w)[None], q[0] * w + cross(q[1:], w)])


def rotation(q: jax.Array) -> jax.Array:
    """The rotation matrix of a unit quaternion."""
    a, b, c, d = q
    rows = [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])
