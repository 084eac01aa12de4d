"""A zoo of real models, each with the stages and names that its definition says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from agreement import some
from conftest import draw
from flax import nnx
from jax import lax

import jaxchain as jc


@dataclass(frozen=True)
class Model:
    """A function, its arguments, and what its definition says about it as a chain.

    ``stages``: names at the default granularity. ``modules``: at ``granularity="module"``, where it differs.
    """

    name: str
    build: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
    stages: tuple[str, ...]
    modules: tuple[str, ...] | None = None
    forward: bool = True

    def __str__(self) -> str:
        return self.name

    @cached_property
    def built(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.build()

    @cached_property
    def chain(self) -> jc.Chain:
        fun, args = self.built
        return jc.discover(fun, *args)


def drawn(like: Any, seed: int = 1) -> Any:
    """Parameters drawn by NumPy, so that no bias is zero and nothing is compiled; positive where a variance is."""
    return jax.tree.map(lambda leaf: jnp.abs(leaf) / 2 + 0.1, draw(like, seed))


# --------------------------------------------------------------------------------------------------------- Flax linen


def of_linen(module: nn.Module, *shape: int) -> Callable[[], Any]:
    def build() -> Any:
        x = some(*shape)
        return module.apply, (drawn(jax.eval_shape(module.init, jax.random.key(0), x)), x)

    return build


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6)(x))
        x = nn.gelu(nn.Dense(5)(x))
        return nn.log_softmax(nn.Dense(3)(x))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (3, 4):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(features, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(-1))


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm()(nn.Conv(3, (3, 3))(x)))
        return nn.relu(x + norm()(nn.Conv(3, (3, 3))(y)))


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3), name="stem")(x))
        for number in range(2):
            x = Residual(name=f"block_{number}")(x)
        return nn.Dense(3, name="head")(x.mean((0, 1)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        y = nn.Dense(12, name="up")(nn.LayerNorm()(x))
        return x + nn.Dense(6, name="down")(nn.gelu(y))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="embed")(x)
        for number in range(2):
            x = Block(name=f"block_{number}")(x)
        return nn.Dense(3, name="head")(nn.LayerNorm(name="norm")(x).mean(0))


# ---------------------------------------------------------------------------------------------------------- Flax nnx


class NnxMLP(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.second = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def nnx_mlp() -> Any:
    graph, state = nnx.split(NnxMLP(nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graph, state)(x), (drawn(state), some(5))


# ----------------------------------------------------------------------------------------------------------- Equinox


def of_equinox(make: Callable[[jax.Array], Any], *shape: int) -> Callable[[], Any]:
    def build() -> Any:
        params, rest = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)
        return lambda params, x: eqx.combine(params, rest)(x), (drawn(params), some(*shape))

    return build


def equinox_cnn(key: jax.Array) -> Any:
    one, two = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(2, 3, 3, key=one),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.AvgPool2d(2, 2),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(12, 3, key=two),
        ]
    )


class UNet(eqx.Module):
    down: eqx.nn.Conv2d
    middle: eqx.nn.Conv2d
    up: eqx.nn.ConvTranspose2d
    head: eqx.nn.Conv2d

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.down = eqx.nn.Conv2d(1, 2, 3, padding=1, key=keys[0])
        self.middle = eqx.nn.Conv2d(2, 3, 2, stride=2, key=keys[1])
        self.up = eqx.nn.ConvTranspose2d(3, 2, 2, stride=2, key=keys[2])
        self.head = eqx.nn.Conv2d(4, 1, 1, key=keys[3])

    def __call__(self, x):
        with jax.named_scope("down"):
            skip = jax.nn.relu(self.down(x))
        with jax.named_scope("bottom"):
            y = jnp.concatenate([skip, self.up(jax.nn.relu(self.middle(skip)))])
        with jax.named_scope("head"):
            return self.head(y)


WIDTH = 16  # wide enough that products outweigh the bookkeeping of a loop, which XLA counts as well


class Recurrent(eqx.Module):
    cell: Any
    head: eqx.nn.Linear

    def __call__(self, xs, state):
        state, _ = lax.scan(lambda state, x: (self.cell(x, state), None), state, xs)
        return self.head(state[0] if isinstance(state, tuple) else state)


def recurrent(cell: Any, state: Any) -> Callable[[], Any]:
    """Along the hidden state: the chain over time."""

    def build() -> Any:
        one, two = jax.random.split(jax.random.key(0))
        model = Recurrent(cell(2, WIDTH, key=one), eqx.nn.Linear(WIDTH, 3, key=two))
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        return lambda params, xs, state: eqx.combine(params, rest)(xs, state), (drawn(params), some(5, 2), state)

    return build


# ------------------------------------------------------------------------------------------------------------- Haiku


def of_haiku(fun: Callable[[jax.Array, bool], jax.Array], *shape: int) -> Callable[[], Any]:
    """``fun(x, is_training)``: Haiku makes the statistics in training, and uses them in inference."""

    def build() -> Any:
        pair, x = hk.without_apply_rng(hk.transform_with_state(fun)), some(*shape)
        params, state = drawn(jax.eval_shape(lambda x: pair.init(jax.random.key(0), x, True), x))
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, state))
        return lambda params, state, x: pair.apply(params, state, x, False)[0], (params, state, x)

    return build


class HaikuBlock(hk.Module):
    def __call__(self, x, is_training):
        y = x
        for number in range(2):
            y = hk.Conv2D(3, 3, name=f"conv_{number}")(y)
            y = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(y, is_training)
            y = jax.nn.relu(y) if number == 0 else x + y
        return jax.nn.relu(y)


def haiku_resnet(x: jax.Array, is_training: bool) -> jax.Array:
    x = jnp.tanh(hk.Conv2D(3, 3, name="stem")(x))
    x = HaikuBlock(name="block")(x, is_training)
    return hk.Linear(3, name="head")(x.mean((1, 2)))


# ---------------------------------------------------------------------------------------------------- plain functions


def mixture_of_experts() -> Any:
    """A dense gate: every expert runs, weighted by a softmax of the same input."""

    def fun(params, x):
        with jax.named_scope("embed"):
            x = jnp.tanh(params["embed"] @ x)
        with jax.named_scope("experts"):
            weights = jax.nn.softmax(params["gate"] @ x)
            x = jnp.einsum("e,ef->f", weights, jnp.tanh(jnp.einsum("efd,d->ef", params["experts"], x)))
        with jax.named_scope("head"):
            return params["head"] @ x

    shapes = {"embed": (4, 3), "gate": (3, 4), "experts": (3, 5, 4), "head": (2, 5)}
    return fun, ({name: some(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}, some(3, seed=9))


def leapfrog() -> Any:
    """A pendulum: kick, drift, kick; the state is positions and momenta."""

    def fun(parameters, state):
        step, stiffness = parameters["step"], parameters["stiffness"]

        def body(_, s):
            half = s["p"] - step / 2 * stiffness * jnp.sin(s["q"])
            q = s["q"] + step * half
            return {"p": half - step / 2 * stiffness * jnp.sin(q), "q": q}

        return lax.fori_loop(0, 6, body, state)

    return fun, ({"step": jnp.asarray(0.1), "stiffness": some(3)}, {"p": some(3, seed=1), "q": some(3, seed=2)})


def runge_kutta() -> Any:
    """The classical method on a linear oscillator with a nonlinear force, then its energy."""

    def fun(matrix, x):
        def slope(y):
            return jnp.sin(matrix @ y)

        def body(_, y):
            k1 = slope(y)
            k2 = slope(y + 0.05 * k1)
            k3 = slope(y + 0.05 * k2)
            k4 = slope(y + 0.1 * k3)
            return y + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

        with jax.named_scope("flow"):
            x = lax.fori_loop(0, 4, body, x)
        with jax.named_scope("energy"):
            return jnp.sum(x**2)

    return fun, (some(4, 4), some(4, seed=1))


@jax.custom_vjp
def equilibrium(w: jax.Array, x: jax.Array) -> jax.Array:
    """z = tanh(w z + x), found by iteration; the implicit function theorem is its rule."""
    return lax.fori_loop(0, 30, lambda _, z: jnp.tanh(w @ z + x), jnp.zeros_like(x))


def _equilibrium_fwd(w: jax.Array, x: jax.Array) -> Any:
    z = equilibrium(w, x)
    return z, (w, z)


def _equilibrium_bwd(kept: Any, cotangent: jax.Array) -> Any:
    w, z = kept
    slope = 1 - z**2
    u = jnp.linalg.solve(jnp.eye(z.size) - (slope[:, None] * w).T, cotangent) * slope
    return jnp.outer(u, z), u


equilibrium.defvjp(_equilibrium_fwd, _equilibrium_bwd)


def implicit() -> Any:
    def fun(params, x):
        x = params["in"] @ x
        x = equilibrium(params["w"], x)
        return params["out"] @ x

    return fun, ({"in": some(4, 3), "w": some(4, 4, seed=1) / 4, "out": some(2, 4, seed=2)}, some(3, seed=3))


def fourier_layer() -> Any:
    """One layer of a Fourier neural operator between a lift and a projection; complex inside."""

    def fun(params, x):
        with jax.named_scope("lift"):
            x = x[:, None] * params["lift"]
        with jax.named_scope("fourier"):
            modes = jnp.einsum("kc,kcd->kd", jnp.fft.rfft(x, axis=0)[:3], params["modes"])
            x = jnp.fft.irfft(modes, n=8, axis=0) + x @ params["skip"]
        with jax.named_scope("activation"):
            x = jax.nn.gelu(x)
        with jax.named_scope("project"):
            return x @ params["project"]

    params = {
        "lift": some(2),
        "modes": some(3, 2, 2, seed=1, dtype=jnp.complex64),
        "skip": some(2, 2, seed=2),
        "project": some(2, seed=3),
    }
    return fun, (params, some(8, seed=4))


def spectral_filter() -> Any:
    """There and back: the states between are complex."""

    def fun(response, x):
        with jax.named_scope("analysis"):
            z = jnp.fft.fft(x)
        with jax.named_scope("filter"):
            z = z * response
        with jax.named_scope("synthesis"):
            z = jnp.fft.ifft(z)
        with jax.named_scope("power"):
            return jnp.abs(z) ** 2

    return fun, (some(6, dtype=jnp.complex64), some(6, seed=1))


# ------------------------------------------------------------------------------------------------------------ the zoo

MODELS = (
    Model("linen mlp", of_linen(MLP(), 5), ("Dense_0", "relu", "Dense_1", "gelu", "Dense_2", "log_softmax")),
    Model(
        "linen cnn",
        of_linen(CNN(), 8, 8, 2),
        (
            *("Conv_0", "BatchNorm_0", "relu_0", "reduce_window_max_0"),
            *("Conv_1", "BatchNorm_1", "relu_1", "reduce_window_max_1", "Dense_0"),
        ),
    ),
    Model(
        "linen resnet",
        of_linen(ResNet(), 5, 5, 2),
        (
            *("stem", "relu"),
            *("block_0/Conv", "block_0/relu", "block_1/Conv", "block_1/relu"),
            *("mean", "head"),
        ),
        ("stem", "relu", "block_0", "block_1", "mean", "head"),
    ),
    Model(
        "linen transformer",
        of_linen(Transformer(), 4, 3),
        (
            "embed",
            *("block_0/attention", "block_0/up..down", "block_1/attention", "block_1/up..down"),
            *("norm", "mean", "head"),
        ),
        ("embed", "block_0", "block_1", "norm", "mean", "head"),
    ),
    Model("nnx mlp", nnx_mlp, ("first", "tanh", "second")),
    Model(
        "equinox mlp",
        of_equinox(lambda key: eqx.nn.MLP(5, 3, 6, 2, key=key), 5),
        ("Linear_0", "relu_0", "Linear_1", "relu_1", "Linear_2"),
    ),
    Model("equinox cnn", of_equinox(equinox_cnn, 2, 6, 6), ("Conv", "tanh", "AvgPool2d/Pool", "Linear")),
    Model(
        "equinox u-net",
        of_equinox(UNet, 1, 4, 4),
        ("down/Conv", "down/relu", "bottom", "head/Conv"),
        ("down", "bottom", "head/Conv"),
    ),
    Model(
        "equinox lstm",
        recurrent(eqx.nn.LSTMCell, (some(WIDTH), some(WIDTH, seed=1))),
        (*(f"step_{k}/LSTMCell" for k in range(5)), "Linear"),
    ),
    Model("equinox gru", recurrent(eqx.nn.GRUCell, some(WIDTH)), (*(f"step_{k}/GRUCell" for k in range(5)), "Linear")),
    Model(
        "haiku mlp",
        of_haiku(lambda x, _: hk.nets.MLP([6, 5, 3])(x), 5),
        ("linear_0", "relu_0", "linear_1", "relu_1", "linear_2"),
    ),
    Model(
        "haiku resnet",
        of_haiku(haiku_resnet, 1, 5, 5, 2),
        ("stem", "tanh", "block/conv", "block/relu", "mean", "head"),
        ("stem", "tanh", "block", "mean", "head"),
    ),
    Model(
        "mixture of experts",
        mixture_of_experts,
        ("embed/dot", "embed/tanh", "experts", "head"),
        ("embed", "experts", "head"),
    ),
    Model("leapfrog", leapfrog, tuple(f"step_{k}" for k in range(6))),
    Model(
        "runge-kutta",
        runge_kutta,
        (*(f"flow/step_{k}" for k in range(4)), "energy/integer_pow", "energy/reduce_sum"),
        (*(f"flow/step_{k}" for k in range(4)), "energy"),
    ),
    Model("implicit layer", implicit, ("dot", "equilibrium", "dot"), forward=False),
    Model("fourier layer", fourier_layer, ("lift", "fourier", "activation", "project")),
    Model(
        "spectral filter",
        spectral_filter,
        ("analysis", "filter", "synthesis", "power/abs", "power/integer_pow"),
        ("analysis", "filter", "synthesis", "power"),
    ),
)
