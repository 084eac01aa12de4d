"""Networks whose tangent kernels are written by hand in three ways: contraction, kernel-vector products, structured derivatives.

A network is ``net(params, x, meet)``: every weight meets the data in ``meet(name, apply, w, x)``, which is
``apply(w, x)``; by hand a tap is added there, and x is kept.

Reference: Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, jax.Array]
Apply = Callable[[jax.Array, jax.Array], jax.Array]
Meet = Callable[[str, Apply, jax.Array, jax.Array], jax.Array]

NHWC = ("NHWC", "HWIO", "NHWC")


def plainly(name: str, apply: Apply, w: jax.Array, x: jax.Array) -> jax.Array:  # noqa: ARG001
    """Nothing but the layer."""
    return apply(w, x)


def dense(w: jax.Array, x: jax.Array) -> jax.Array:
    """At every position."""
    return x @ w


def convolve(w: jax.Array, x: jax.Array) -> jax.Array:
    """An image."""
    return lax.conv_general_dilated(x[None], w, (1, 1), "SAME", dimension_numbers=NHWC)[0]


# ---------------------------------------------------------------------------------------------------------- networks


def mlp(params: Params, x: jax.Array, meet: Meet = plainly) -> jax.Array:
    """Layers of tanh."""
    *hidden, last = range(len(params) // 2)
    for k in hidden:
        x = jnp.tanh(meet(f"w{k}", dense, params[f"w{k}"], x) + params[f"b{k}"])
    return meet(f"w{last}", dense, params[f"w{last}"], x) + params[f"b{last}"]


def conv_net(params: Params, x: jax.Array, meet: Meet = plainly) -> jax.Array:
    """Two convolutions, each pooled, and a layer."""
    for k in range(2):
        x = jnp.tanh(meet(f"w{k}", convolve, params[f"w{k}"], x) + params[f"b{k}"])
        x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))
    return meet("w2", dense, params["w2"], x.reshape(-1)) + params["b2"]


def resnet(params: Params, x: jax.Array, meet: Meet = plainly) -> jax.Array:
    """Two residual blocks of two convolutions, and a layer on their mean."""
    x = meet("w0", convolve, params["w0"], x)
    for k in range(1, 5, 2):
        y = jnp.tanh(meet(f"w{k}", convolve, params[f"w{k}"], x) + params[f"b{k}"])
        x = x + meet(f"w{k + 1}", convolve, params[f"w{k + 1}"], y) + params[f"b{k + 1}"]
    return meet("w5", dense, params["w5"], x.mean((0, 1))) + params["b5"]


def normalised(x: jax.Array) -> jax.Array:
    """Every position to mean 0 and variance 1."""
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def transformer(params: Params, x: jax.Array, meet: Meet = plainly) -> jax.Array:
    """A block of attention and a perceptron, and a layer on their mean."""
    x = meet("embed", dense, params["embed"], x)
    y = normalised(x) * params["scale"]
    q, keys, v = (meet(n, dense, params[n], y) for n in "qkv")
    y = jax.nn.softmax(q @ keys.T / jnp.sqrt(q.shape[-1])) @ v
    x = x + meet("o", dense, params["o"], y)
    y = jnp.tanh(meet("up", dense, params["up"], normalised(x)) + params["b"])
    x = x + meet("down", dense, params["down"], y)
    return meet("head", dense, params["head"], x.mean(0))


def rnn(params: Params, xs: jax.Array, meet: Meet = plainly) -> jax.Array:
    """A cell by scan; by hand a tap is added in every step, which both of its weights share, and its states are kept."""
    w = params["w"]
    taps = meet("steps", lambda w, x: jnp.zeros((len(x), w.shape[1])), w, xs)

    def step(h: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, tap = given
        return jnp.tanh(h @ w + x @ params["u"] + params["b"] + tap), h

    last, before = lax.scan(step, jnp.zeros(w.shape[0]), (xs, taps))
    meet("before", lambda _, x: x, w, before)
    return meet("out", dense, params["out"], last) + params["c"]


@dataclass(frozen=True)
class Net:
    """A network, the shapes of its parameters and of a sample."""

    fun: Callable[..., jax.Array]
    shapes: dict[str, tuple[int, ...]]
    sample: tuple[int, ...]

    def drawn(self, seed: int = 0) -> Params:
        """Parameters, normal, over the root of what each layer sums."""
        keys = jax.random.split(jax.random.key(seed), len(self.shapes))
        return {
            name: jax.random.normal(key, shape) / jnp.sqrt(max(jnp.size(jnp.zeros(shape[:-1])), 1))
            for key, (name, shape) in zip(keys, self.shapes.items(), strict=True)
        }


def layers(*sizes: int) -> dict[str, tuple[int, ...]]:
    """Weights and biases."""
    return {f"{n}{k}": (i, o) if n == "w" else (o,) for k, (i, o) in enumerate(pairwise(sizes)) for n in "wb"}


CONV = {"w0": (3, 3, 3, 8), "b0": (8,), "w1": (3, 3, 8, 16), "b1": (16,), "w2": (144, 10), "b2": (10,)}
RESNET = {"w0": (3, 3, 3, 8), "w5": (8, 10), "b5": (10,)} | {
    f"{n}{k}": (3, 3, 8, 8) if n == "w" else (8,) for k in range(1, 5) for n in "wb"
}
BLOCK = dict.fromkeys("qkvo", (32, 32)) | {"scale": (32,), "up": (32, 64), "b": (64,), "down": (64, 32)}
TRANSFORMER = {"embed": (8, 32), "head": (32, 10)} | BLOCK
RNN = {"w": (32, 32), "u": (8, 32), "b": (32,), "out": (32, 5), "c": (5,)}

NETS = {
    "MLP": Net(mlp, layers(64, 128, 128, 10), (64,)),
    "conv net": Net(conv_net, CONV, (12, 12, 3)),
    "transformer": Net(transformer, TRANSFORMER, (16, 8)),
    "RNN by scan": Net(rnn, RNN, (20, 8)),
    "ResNet": Net(resnet, RESNET, (8, 8, 3)),
    "MLP, 96 outputs": Net(mlp, layers(8, 8, 96), (8,)),
    "MLP, narrow, 192 outputs": Net(mlp, layers(64, 4, 4, 192), (64,)),
}

# ------------------------------------------------------------------------------------------------------ three ways


def contraction(net: Callable[..., jax.Array], params: Params, xs: jax.Array) -> jax.Array:
    """`jax.jacrev` of every sample, contracted leaf by leaf."""
    made = jax.vmap(lambda x: jax.jacrev(net)(params, x))(xs)
    rows = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(made)]
    return sum((jnp.einsum("bpk,cqk->bcpq", one, one) for one in rows), jnp.zeros(()))


def vectors(net: Callable[..., jax.Array], params: Params, xs: jax.Array) -> jax.Array:
    """J (J′ᵀ e_q), one backward and one forward pass each."""

    def pulled(x: jax.Array) -> Params:
        out, back = jax.vjp(lambda p: net(p, x), params)
        return jax.vmap(lambda e: back(e)[0])(jnp.eye(out.size, dtype=out.dtype))

    def pushed(x: jax.Array, tangents: Params) -> jax.Array:
        push = jax.linearize(lambda p: net(p, x), params)[1]
        return jax.vmap(jax.vmap(push, out_axes=1))(tangents)

    return jax.vmap(pushed, (0, None))(xs, jax.vmap(pulled)(xs))


def structured(net: Callable[..., jax.Array], params: Params, xs: jax.Array) -> jax.Array:
    """Inner products of inputs times those of cotangents, in the best order; what is no weight, by contraction."""
    taps, applied = tapped_at(net, params, xs[0])
    recurrent = "steps" in taps
    weights = [name for name in params if name in taps] + (["w", "u"] if recurrent else [])
    rest = {name: leaf for name, leaf in params.items() if name not in weights}

    def of_sample(x: jax.Array) -> tuple[list[tuple[jax.Array, jax.Array]], list[jax.Array]]:
        def tapped(rest: Params, taps: Params) -> tuple[jax.Array, Params]:
            seen: Params = {}

            def meet(name: str, apply: Apply, w: jax.Array, x: jax.Array) -> jax.Array:
                seen[name] = x
                return apply(w, x) + taps[name]

            return net({**params, **rest}, x, meet), seen

        out, back, inputs = jax.vjp(tapped, rest, taps, has_aux=True)
        cotangents, deltas = jax.vmap(back)(jnp.eye(out.size, dtype=out.dtype))
        factors = [
            (inputs["before" if name == "w" else "steps"], deltas["steps"])
            if recurrent and name in ("w", "u")
            else flat(applied[name], inputs[name], params[name], deltas[name])
            for name in weights
        ]
        return factors, [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(cotangents)]

    factors, others = jax.vmap(of_sample)(xs)
    total = sum((jnp.einsum("bpk,cqk->bcpq", one, one) for one in others), jnp.zeros(()))
    for x, delta in factors:
        total += jnp.einsum("bti,csi,bpto,cqso->bcpq", x, x, delta, delta, optimize="optimal")
    return total


def tapped_at(net: Callable[..., jax.Array], params: Params, x: jax.Array) -> tuple[Params, dict[str, Apply]]:
    """Zeros to add wherever a weight meets the data, and what is applied there."""
    found: dict[str, tuple[Any, Apply]] = {}

    def run(params: Params, x: jax.Array) -> jax.Array:
        def meet(name: str, apply: Apply, w: jax.Array, x: jax.Array) -> jax.Array:
            out = apply(w, x)
            found[name] = jax.ShapeDtypeStruct(out.shape, out.dtype), apply
            return out

        return net(params, x, meet)

    jax.eval_shape(run, params, x)
    taps = {name: jnp.zeros(out.shape, out.dtype) for name, (out, _) in found.items()}
    return taps, {name: apply for name, (_, apply) in found.items()}


def flat(apply: Apply, x: jax.Array, w: jax.Array, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(T, I) and (m, T, O); of an image, its patches."""
    if apply is convolve:
        x = lax.conv_general_dilated_patches(x[None], w.shape[:2], (1, 1), "SAME", dimension_numbers=NHWC)
    return x.reshape(-1, x.shape[-1]), delta.reshape(delta.shape[0], -1, delta.shape[-1])


WAYS = {"contraction": contraction, "vectors": vectors, "structured": structured}
"""Name → the kernel of a network, (B, B, m, m)."""
