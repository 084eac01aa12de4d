"""Networks whose kernels are written by hand in three ways: contraction, kernel-vector products, structured derivatives.

A network is ``net(params, x, meet)``: every weight meets the data in ``meet(name, apply, w, x)``, which is
``apply(w, x)``; by hand it adds a tap there, and keeps x. Reference: Novak et al., arXiv 2206.08720.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import lax


def plainly(name, apply, w, x):
    return apply(w, x)


def dense(w, x):
    return x @ w


def convolve(w, x):
    return lax.conv_general_dilated(x[None], w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def mlp(params, x, meet=plainly):
    *hidden, last = range(len(params) // 2)
    for k in hidden:
        x = jnp.tanh(meet(f"w{k}", dense, params[f"w{k}"], x) + params[f"b{k}"])
    return meet(f"w{last}", dense, params[f"w{last}"], x) + params[f"b{last}"]


def conv_net(params, x, meet=plainly):
    for k in range(2):
        x = jnp.tanh(meet(f"w{k}", convolve, params[f"w{k}"], x) + params[f"b{k}"])
        x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))
    return meet("w2", dense, params["w2"], x.reshape(-1)) + params["b2"]


def resnet(params, x, meet=plainly):
    x = meet("w0", convolve, params["w0"], x)
    for k in range(1, 5, 2):
        y = jnp.tanh(meet(f"w{k}", convolve, params[f"w{k}"], x) + params[f"b{k}"])
        x = x + meet(f"w{k + 1}", convolve, params[f"w{k + 1}"], y) + params[f"b{k + 1}"]
    return meet("w5", dense, params["w5"], x.mean((0, 1))) + params["b5"]


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def transformer(params, x, meet=plainly):
    x = meet("embed", dense, params["embed"], x)
    for k in range(2):
        y = normalised(x) * params[f"scale{k}"]
        q, keys, v = (meet(f"{n}{k}", dense, params[f"{n}{k}"], y) for n in "qkv")
        y = jax.nn.softmax(q @ keys.T / jnp.sqrt(q.shape[-1])) @ v
        x = x + meet(f"o{k}", dense, params[f"o{k}"], y)
        y = jnp.tanh(meet(f"up{k}", dense, params[f"up{k}"], normalised(x)) + params[f"b{k}"])
        x = x + meet(f"down{k}", dense, params[f"down{k}"], y)
    return meet("head", dense, params["head"], x.mean(0))


def rnn(params, xs, meet=plainly):
    """The scan of a cell; tapped by hand, one tap a step."""
    taps = meet("steps", lambda w, x: jnp.zeros((len(x), w.shape[1])), params["w"], xs)

    def step(h, given):
        x, tap = given
        return jnp.tanh(h @ params["w"] + x @ params["u"] + params["b"] + tap), h

    last, before = lax.scan(step, jnp.zeros(params["w"].shape[0]), (xs, taps))
    meet("before", lambda _, x: x, None, before)
    return meet("out", dense, params["out"], last) + params["c"]


def drawn(shapes, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape) / (jnp.prod(jnp.array(shape[:-1])) ** 0.5 if len(shape) > 1 else 1)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def layers(*sizes):
    pairs = pairwise(sizes)
    return {f"{n}{k}": (i, o) if n == "w" else (o,) for k, (i, o) in enumerate(pairs) for n in "wb"}


CONV = {"w0": (3, 3, 3, 8), "b0": (8,), "w1": (3, 3, 8, 16), "b1": (16,), "w2": (144, 10), "b2": (10,)}
RESNET = {"w0": (3, 3, 3, 8), "w5": (8, 10), "b5": (10,)} | {
    f"{n}{k}": (3, 3, 8, 8) if n == "w" else (8,) for k in range(1, 5) for n in "wb"
}
TRANSFORMER = {"embed": (8, 32), "head": (32, 10)} | {
    f"{n}{k}": shape
    for k in range(2)
    for n, shape in {
        **dict.fromkeys("qkvo", (32, 32)), "scale": (32,), "up": (32, 64), "b": (64,), "down": (64, 32),
    }.items()
}  # fmt: skip
RNN = {"w": (32, 32), "u": (8, 32), "b": (32,), "out": (32, 5), "c": (5,)}

NETS = {
    "mlp": (mlp, layers(64, 128, 128, 10), (64,)),
    "conv net": (conv_net, CONV, (12, 12, 3)),
    "transformer": (transformer, TRANSFORMER, (16, 8)),
    "rnn": (rnn, RNN, (20, 8)),
    "resnet": (resnet, RESNET, (8, 8, 3)),
    "wide output": (mlp, layers(8, 8, 96), (8,)),
    "narrow, then wide": (mlp, layers(64, 4, 4, 192), (64,)),
}
"""Name → network, shapes of its parameters, shape of a sample."""


def rows(net, params, xs):
    """J of every sample, leaf by leaf: (B, m, P)."""
    made = jax.vmap(lambda x: jax.jacrev(net)(params, x))(xs)
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(made)]


def contraction(net, params, xs):
    return sum(jnp.einsum("bpk,cqk->bcpq", one, one) for one in rows(net, params, xs))


def vectors(net, params, xs):
    """J (J′ᵀ e_q), one backward and one forward pass each."""

    def pulled(x):
        out, back = jax.vjp(lambda p: net(p, x), params)
        return jax.vmap(lambda e: back(e)[0])(jnp.eye(out.size, dtype=out.dtype))

    def pushed(x, tangents):
        push = jax.linearize(lambda p: net(p, x), params)[1]
        return jax.vmap(jax.vmap(push, out_axes=1))(tangents)

    tangents = jax.vmap(pulled)(xs)
    return jax.vmap(pushed, (0, None))(xs, tangents)


def structured(net, params, xs):
    """Inner products of inputs times those of cotangents, position by position; what is no weight, by contraction."""
    kept = {}

    def shapes(params, x):
        def note(name, apply, w, x):
            out = apply(w, x)
            kept[name] = (w, out, apply)
            return out

        return net(params, x, note)

    jax.eval_shape(shapes, params, xs[0])
    taps = {name: jnp.zeros(out.shape, out.dtype) for name, (_, out, _) in kept.items()}
    weights = [name for name in params if name in kept] + (["w", "u"] if "steps" in kept else [])
    rest = {name: leaf for name, leaf in params.items() if name not in weights}

    def of_sample(x):
        seen = {}

        def tapped(rest, taps):
            def meet(name, apply, w, x):
                seen[name] = x
                return apply(w, x) + taps[name]

            out = net({**params, **rest}, x, meet)
            return out, dict(seen)

        out, back, inputs = jax.vjp(tapped, rest, taps, has_aux=True)
        cotangents, deltas = jax.vmap(back)(jnp.eye(out.size, dtype=out.dtype))
        factors = []
        for name in weights:
            if name in ("w", "u") and "steps" in kept:
                factors.append((inputs["before" if name == "w" else "steps"], deltas["steps"]))
            else:
                factors.append(flat(kept[name][2], inputs[name], params[name], deltas[name]))
        return factors, [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(cotangents)]

    factors, others = jax.vmap(of_sample)(xs)
    total = sum(jnp.einsum("bpk,cqk->bcpq", one, one) for one in others)
    for x, delta in factors:
        total += jnp.einsum("bti,csi,bpto,cqso->bcpq", x, x, delta, delta, optimize="optimal")
    return total


def flat(apply, x, w, delta):
    """(T, I) and (m, T, O)."""
    if apply is convolve:
        x = lax.conv_general_dilated_patches(
            x[None], w.shape[:2], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape(-1, x.shape[-1]), delta.reshape(delta.shape[0], -1, delta.shape[-1])
    return x.reshape(-1, x.shape[-1]), delta.reshape(delta.shape[0], -1, delta.shape[-1])


PEERS = {"contraction": contraction, "vectors": vectors, "structured": structured}
