"""Programs that are networks: Equinox, Flax linen and nnx, Haiku, Penzai."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from others.core import Built, Program, normal

__all__ = ["PROGRAMS"]


def of_equinox(make: Callable[[Any, jax.Array], Any], *shape: int) -> Callable[[], Built]:
    """An Equinox module, its arrays an argument; ``make(equinox, key)``."""

    def build() -> Built:
        import equinox as eqx

        params, static = eqx.partition(make(eqx, jax.random.key(0)), eqx.is_inexact_array)
        return lambda params, x: eqx.combine(params, static)(x), (params, normal(*shape)), 1

    return build


def eqx_cnn(eqx: Any, key: jax.Array) -> Any:
    one, two = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 2, 3, key=one),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(8, 3, key=two),
        ]
    )


def eqx_normed(eqx: Any, key: jax.Array) -> Any:
    return eqx.nn.Sequential([eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 8, key=key), eqx.nn.GroupNorm(2, 8)])


def eqx_recurrent(cell: str) -> Callable[[], Built]:
    """A cell scanned over its inputs."""

    def build() -> Built:
        import equinox as eqx

        made = getattr(eqx.nn, cell)(2, 3, key=jax.random.key(0))

        def run(xs: jax.Array) -> Any:
            start = (jnp.zeros(3), jnp.zeros(3)) if cell == "LSTMCell" else jnp.zeros(3)
            return lax.scan(lambda h, x: (made(x, h), None), start, xs)[0]

        return run, (normal(3, 2),), 0

    return build


def eqx_attention() -> Built:
    import equinox as eqx

    attend = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    return lambda x: x + attend(x, x, x), (normal(3, 4),), 0


def eqx_error_if() -> Built:
    """A check in the middle of the program."""
    import equinox as eqx

    def checked(x: jax.Array) -> jax.Array:
        y = eqx.error_if(jnp.sin(x), jnp.any(x > 100), "too large")
        return jnp.tanh(y) * y[0]

    return checked, (normal(3),), 0


def eqx_custom_vjp() -> Built:
    """A gradient halved on its way back, by Equinox' own kind of rule."""
    import equinox as eqx

    @eqx.filter_custom_vjp
    def halved(x: jax.Array) -> jax.Array:
        return x

    halved.def_fwd(lambda perturbed, x: (x, None))  # noqa: ARG005
    halved.def_bwd(lambda residuals, g, perturbed, x: g / 2)  # noqa: ARG005
    return lambda x: jnp.sum(jnp.sin(halved(x**2))), (normal(3),), 0


def eqx_checkpoint() -> Built:
    import equinox as eqx

    mlp = eqx.nn.MLP(3, 3, 4, 2, activation=jax.nn.gelu, key=jax.random.key(0))
    return lambda x: eqx.filter_checkpoint(mlp)(x) + eqx.filter_jit(mlp)(jnp.sin(x)), (normal(3),), 0


def of_linen(make: Callable[[Any], Any], *shape: int) -> Callable[[], Built]:
    """A Flax linen module, its variables an argument; ``make(linen)``."""

    def build() -> Built:
        import flax.linen as nn

        module, x = make(nn), normal(*shape)
        return module.apply, (module.init(jax.random.key(0), x), x), 1

    return build


def linen_block(nn: Any) -> Any:
    """GPT-2's block, pre-norm and causal, twice."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            mask = nn.make_causal_mask(x[:, 0])
            x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="attn")(nn.LayerNorm(name="ln_1")(x), mask=mask)
            h = nn.gelu(nn.Dense(8, name="c_fc")(nn.LayerNorm(name="ln_2")(x)))
            return x + nn.Dense(4, name="c_proj")(h)

    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for n in range(2):
                x = Block(name=f"h_{n}")(x)
            return nn.LayerNorm(name="ln_f")(x)

    return Blocks()


def linen_cnn(nn: Any) -> Any:
    return nn.Sequential(
        [
            nn.Conv(2, (3, 3)),
            nn.BatchNorm(use_running_average=True),
            nn.relu,
            lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
            jnp.ravel,
            nn.Dense(3),
        ]
    )


def linen_scanned(nn: Any) -> Any:
    """Layers whose parameters are stacked, run by ``nn.scan`` over ``nn.remat``."""

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + nn.tanh(nn.Dense(4)(nn.LayerNorm()(x))), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            layers = nn.scan(nn.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return nn.Dense(2)(layers()(x, None)[0])

    return Stack()


def linen_vae(nn: Any) -> Any:
    """Returns the reconstruction, mean and log-variance; its noise is fixed."""

    class VAE(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            h = nn.tanh(nn.Dense(4)(x))
            mean, logvar = nn.Dense(2, name="mean")(h), nn.Dense(2, name="logvar")(h)
            z = mean + jnp.exp(logvar / 2) * jax.random.normal(jax.random.key(1), mean.shape)
            return nn.sigmoid(nn.Dense(5, name="out")(nn.tanh(nn.Dense(4)(z)))), mean, logvar

    return VAE()


def linen_recurrent(nn: Any) -> Any:
    return nn.RNN(nn.OptimizedLSTMCell(3))


def nnx_mlp() -> Built:
    """A model with a list of layers, split into its graph and its state."""
    from flax import nnx

    class MLP(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = getattr(nnx, "List", list)([nnx.Linear(4, 4, rngs=rngs) for _ in range(3)])
            self.norm = nnx.LayerNorm(4, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = nnx.gelu(layer(x))
            return self.norm(x)

    graph, state = nnx.split(MLP(nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graph, state)(x), (state, normal(4)), 1


def haiku_net() -> Built:
    import haiku as hk

    def forward(x: jax.Array) -> jax.Array:
        x = hk.Linear(4)(x)
        x = x + hk.nets.MLP([5, 4], name="block")(hk.LayerNorm(-1, True, True)(x))
        return hk.Linear(2)(jax.nn.swish(x))

    net = hk.without_apply_rng(hk.transform(forward))
    x = normal(3)
    return net.apply, (net.init(jax.random.key(0), x), x), 1


def haiku_recurrent() -> Built:
    import haiku as hk

    def forward(xs: jax.Array) -> jax.Array:
        core = hk.GRU(3)
        return hk.dynamic_unroll(core, xs, core.initial_state(None))[0]

    net = hk.without_apply_rng(hk.transform(forward))
    xs = normal(3, 2)
    return net.apply, (net.init(jax.random.key(0), xs), xs), 1


def penzai_mlp() -> Built:
    from penzai import pz
    from penzai.models import simple_mlp

    mlp = simple_mlp.MLP.from_config(
        name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[3, 4, 2], activation_fn=jax.nn.tanh
    )
    return lambda x: mlp(pz.nx.wrap(x).tag("features")).unwrap("features"), (normal(3),), 0


PROGRAMS = (
    Program("equinox: MLP", "equinox", of_equinox(lambda eqx, key: eqx.nn.MLP(3, 2, 4, 2, key=key), 3)),
    Program("equinox: CNN", "equinox", of_equinox(eqx_cnn, 1, 6, 6)),
    Program("equinox: LayerNorm and GroupNorm", "equinox", of_equinox(eqx_normed, 4)),
    Program("equinox: GRU by scan", "equinox", eqx_recurrent("GRUCell")),
    Program("equinox: LSTM by scan", "equinox", eqx_recurrent("LSTMCell")),
    Program("equinox: MultiheadAttention", "equinox", eqx_attention),
    Program("equinox: error_if", "equinox", eqx_error_if),
    Program("equinox: filter_custom_vjp", "equinox", eqx_custom_vjp),
    Program("equinox: filter_checkpoint, filter_jit", "equinox", eqx_checkpoint),
    Program("flax linen: GPT-2 blocks", "flax", of_linen(linen_block, 3, 4)),
    Program("flax linen: CNN", "flax", of_linen(linen_cnn, 6, 6, 1)),
    Program("flax linen: layers by nn.scan", "flax", of_linen(linen_scanned, 4)),
    Program("flax linen: VAE", "flax", of_linen(linen_vae, 5)),
    Program("flax linen: LSTM", "flax", of_linen(linen_recurrent, 3, 2)),
    Program("flax nnx: list of layers", "flax", nnx_mlp),
    Program("haiku: residual MLP", "haiku", haiku_net),
    Program("haiku: GRU", "haiku", haiku_recurrent),
    Program("penzai: MLP", "penzai", penzai_mlp),
)
