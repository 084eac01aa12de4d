"""Losses over a batch, for tests: each meets its parameters in ways of its own; and the law that all of them obey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import assert_close
from jax import lax
from jax.flatten_util import ravel_pytree

import jaxchain as jc

NHWC = ("NHWC", "HWIO", "NHWC")


@dataclass(frozen=True)
class Loss:
    """A loss of a dict of parameters and a batch, both given by their shapes; the batch's integers are below ``most``.

    ``kinds``: what its definition says of each leaf's sites, in order.
    """

    name: str
    fun: Callable[[Any, Any], jax.Array]
    params: dict[str, tuple[int, ...]]
    batch: tuple[tuple[int, ...], ...]
    kinds: dict[str, str]
    integers: tuple[int, ...] = ()
    most: int = 3
    check: bool = True

    def __str__(self) -> str:
        return self.name

    def args(self) -> tuple[Any, Any]:
        """Drawn, in the precision that is on."""
        rng = np.random.default_rng(0)
        params = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in self.params.items()}
        drawn = [
            jnp.asarray(rng.integers(0, self.most, shape) if k in self.integers else rng.normal(size=shape))
            for k, shape in enumerate(self.batch)
        ]
        return params, tuple(drawn)


def accumulated(loss: Callable[[Any, Any], jax.Array], params: Any, batch: Any) -> Any:
    """Every sample's gradient as JAX makes it, one after the other in one program."""
    return jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda leaf: leaf[:, None], batch))


def assert_samples(loss: Callable[[Any, Any], jax.Array], params: Any, batch: Any, *, check: bool = True) -> None:
    """Gradients, norms and moments are those of `accumulated` gradients, to 1e-10."""

    @jax.jit
    def ours(params: Any, batch: Any) -> Any:
        norms = jc.sample_gradient_norms(loss, params, batch, check=check)
        moments = jc.gradient_moments(loss, params, batch, check=False)
        gradients = jc.sample_gradients(loss, params, batch, check=False)
        return gradients, norms.whole, norms.leaves, moments.mean, moments.variance, moments.norms, moments.cosines

    @jax.jit
    def theirs(params: Any, batch: Any) -> Any:
        each = accumulated(loss, params, batch)
        flat = jax.vmap(lambda one: ravel_pytree(one)[0])(each)
        mean, norms = flat.mean(0), jnp.linalg.norm(flat, axis=1)
        leaves = jax.tree.map(lambda leaf: jnp.sqrt(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1)), each)
        cosines = flat @ mean / norms / jnp.linalg.norm(mean)
        means, variances = (jax.tree.map(partial(of, axis=0), each) for of in (jnp.mean, jnp.var))
        return each, norms, leaves, means, variances, norms, cosines

    assert_close(ours(params, batch), theirs(params, batch), 1e-10)


# -------------------------------------------------------------------------------------------------------- dense, shared


def unrolled(p: Any, batch: Any) -> jax.Array:
    """A recurrent net written as a Python loop, whose weight is used transposed at the end."""
    x, y = batch
    h = x
    for _ in range(3):
        h = jnp.tanh(h @ p["w"] + p["b"])
    return jnp.mean((h @ p["w"].T * 0.5 - y) ** 2)


def heads(p: Any, batch: Any) -> jax.Array:
    """Products over heads, over pieces of a weight, scaled and masked ones."""
    (x,) = batch
    mask = jnp.asarray(np.arange(36).reshape(6, 6) % 3 > 0, x.dtype)
    q = jnp.einsum("bti,ihd->bthd", x, p["into"])
    q = jnp.einsum("bthd,hde->bthe", q, p["each"]).reshape(*x.shape[:2], -1)
    key, value = jnp.split(p["pieces"], 2, axis=1)
    q = jnp.tanh(q @ key) * (q @ value)
    return jnp.mean(jnp.sin(q @ (p["masked"] * mask) @ (jnp.sqrt(2.0) * p["scaled"] / 3)))


def shifted(p: Any, batch: Any) -> jax.Array:
    """Entry by entry: scales, quotients, shifts of either sign, single numbers."""
    (x,) = batch
    h = p["scale"] * x / (1 + x**2) - p["bias"][None]
    h = jnp.tanh(p["up"] / (2 + jnp.cos(h))) * (1 + p["gain"]) + (p["one"] - h) * p["number"]
    return jnp.sum(jnp.sin(h)) / 3


def tied(p: Any, batch: Any) -> jax.Array:
    """Tokens and next tokens, the table of embeddings used again for the logits."""
    tokens, targets = batch
    logits = jnp.tanh(p["table"][tokens] @ p["w"]) @ p["table"].T
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1))


def embedded(p: Any, batch: Any) -> jax.Array:
    """Look-ups that end at a table's ends, and outside where there is nothing; positions' own."""
    tokens, _ = batch
    clipped = jnp.take(p["clipped"], tokens * 2, axis=0, mode="clip")
    dropped = p["dropped"].at[tokens + 1].get(mode="fill", fill_value=0.0)
    across = p["across"][:, tokens].transpose(1, 2, 0)
    return jnp.mean(
        jnp.sin(clipped * dropped + across) * (p["positions"] + jnp.take(p["some"], jnp.array([2, 0, 2]), 0))
    )


# --------------------------------------------------------------------------------------------------------- convolutions


def convolved(p: Any, batch: Any) -> jax.Array:
    """Strides, dilations, groups, transposed convolutions, negative padding, another order of axes."""
    (x,) = batch
    conv = lax.conv_general_dilated
    h = conv(x, p["dilated"], (2, 1), [(1, 2), (0, 1)], rhs_dilation=(1, 2), dimension_numbers=NHWC) + p["bias"]
    h = conv(jnp.tanh(h), p["groups"], (1, 1), "SAME", feature_group_count=2, dimension_numbers=NHWC)
    h = lax.conv_transpose(jnp.tanh(h), p["up"], (2, 2), "SAME", dimension_numbers=NHWC)
    h = conv(h.transpose(0, 3, 1, 2), p["first"], (2, 2), [(-1, 1), (0, 0)])
    return jnp.mean(jnp.sin(conv(h, p["last"], (1, 1), "VALID")))  # so few positions that a ghost is cheaper


# ---------------------------------------------------------------------------------------------------------------- loops


def layered(p: Any, batch: Any) -> jax.Array:
    """A scan over layers that are computed again on the way back; a leaf that all share."""
    x, y = batch

    @jax.checkpoint
    def layer(h: jax.Array, w: Any) -> tuple[jax.Array, None]:
        return jnp.tanh(h @ w[0] + w[1]) * p["gain"], None

    h, _ = lax.scan(layer, x, (p["w"], p["b"]))
    return jnp.mean((h @ p["out"] - y) ** 2)


def nested(p: Any, batch: Any) -> jax.Array:
    """A scan over time, backwards, of a scan over layers; a leaf of every step without a rule, and one the loop begins with."""
    x, y = batch

    def step(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        def layer(c: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jnp.tanh(c @ w + p["bias"]), c

        h, inside = lax.scan(layer, h + row @ p["in"], p["stack"])
        return h * jnp.exp(p["rate"]), inside.sum(0)

    begin = jnp.broadcast_to(p["begin"], (len(x), 4))
    h, all_of_them = lax.scan(step, begin, x.swapaxes(0, 1), reverse=True)
    return jnp.mean((h @ p["out"] - y) ** 2) + jnp.mean(all_of_them)


def stepped(p: Any, batch: Any) -> jax.Array:
    """A counter that says which row of a leaf is used; a table and a kernel for each step; a branch."""
    x, tokens = batch

    def step(k: Any, h: jax.Array) -> jax.Array:
        return jnp.tanh(h @ p["stack"][k])

    def look(h: jax.Array, rows: Any) -> tuple[jax.Array, None]:
        return jnp.sin(h + rows[0][tokens] * h + jax.vmap(lambda y: jnp.convolve(y, rows[1], "same"))(h)), None

    h, _ = lax.scan(look, lax.fori_loop(0, 3, step, x), (p["tables"], p["kernels"]))
    return jnp.mean(lax.cond(jnp.sum(p["w"]) > 0, lambda h: h @ p["w"], lambda h: h, h))


# ------------------------------------------------------------------------------------------------------- without a rule


@jax.custom_vjp
def clipped(x: jax.Array) -> jax.Array:
    """Its rule is no derivative, and not linear."""
    return jnp.sin(x)


clipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, c: (2 * jnp.clip(c * jnp.cos(x), -0.01, 0.01),))


@jax.custom_vjp
def thrice(w: jax.Array, x: jax.Array) -> jax.Array:
    """A product by whose rule the weight's derivative is three times what it is."""
    return x @ w


thrice.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, c: (3 * kept[1].T @ c, c @ kept[0].T))


def ruled(p: Any, batch: Any) -> jax.Array:
    """Derivative rules of others, a loop over samples, a linear solve, and weights for each of several experts."""
    (x,) = batch
    h = thrice(p["thrice"], clipped(x @ p["w"]))
    h = lax.map(lambda row: jnp.tanh(row @ p["mapped"]), h)
    experts = jax.vmap(lambda w, b: jnp.tanh(h @ w + b))(p["experts"], p["shifts"])
    gates = jax.nn.softmax(h @ p["gates"])
    return jnp.sum(jnp.einsum("be,ebi->bi", gates, experts) @ jnp.linalg.inv(p["solved"]))


def odd(p: Any, batch: Any) -> jax.Array:
    """Normalised weights, a sum of a weight and two thin ones, a token put in front, a penalty, a rule of JAX's own."""
    (x,) = batch
    h = x @ (p["v"] / jnp.linalg.norm(p["v"], axis=0) * p["g"])
    h = h @ (p["big"] + p["down"] @ p["up"]) * jax.nn.silu(p["gate"])
    h = jnp.concatenate([jnp.broadcast_to(p["token"], (len(x), 2)), h], 1)
    return jnp.mean(jnp.sin(h)) + 0.1 * jnp.sum(p["v"] ** 2) + p["plain"]


LOSSES = [
    Loss(
        "ruled",
        ruled,
        {
            "w": (3, 4),
            "thrice": (4, 4),
            "mapped": (4, 3),
            "experts": (2, 3, 2),
            "shifts": (2, 2),
            "gates": (3, 2),
            "solved": (2, 2),
        },
        ((3, 3),),
        {
            "w": "dense",
            "thrice": "other",
            "mapped": "shared",
            "experts": "dense",
            "shifts": "bias",
            "gates": "dense",
            "solved": "other",
        },
    ),
    Loss("unrolled", unrolled, {"w": (3, 3), "b": (3,)}, ((4, 3), (4, 3)), {"w": "dense " * 4, "b": "bias " * 3}),
    Loss(
        "heads",
        heads,
        {"into": (5, 2, 3), "each": (2, 3, 3), "pieces": (6, 12), "masked": (6, 6), "scaled": (6, 2)},
        ((3, 4, 5),),
        {"into": "shared", "each": "shared", "pieces": "shared shared", "masked": "shared", "scaled": "shared"},
    ),
    Loss(
        "shifted",
        shifted,
        {"scale": (3,), "bias": (3,), "up": (2, 3), "gain": (3,), "one": (), "number": ()},
        ((4, 2, 3),),
        {"scale": "scale", "bias": "bias", "up": "scale", "gain": "scale", "one": "bias", "number": "scale"},
    ),
    Loss(
        "tied",
        tied,
        {"table": (7, 4), "w": (4, 4)},
        ((3, 5), (3, 5)),
        {"table": "embedding shared", "w": "shared"},
        (0, 1),
        7,
    ),
    Loss(
        "embedded",
        embedded,
        {"clipped": (6, 2), "dropped": (4, 2), "across": (2, 4), "positions": (3, 2), "some": (4, 2)},
        ((3, 3), (3,)),
        {"clipped": "embedding", "dropped": "embedding", "across": "embedding", "positions": "other", "some": "other"},
        (0,),
        4,
    ),
    Loss(
        "convolved",
        convolved,
        {
            "dilated": (3, 2, 2, 4),
            "bias": (4,),
            "groups": (3, 3, 2, 6),
            "up": (3, 3, 6, 2),
            "first": (3, 2, 2, 2),
            "last": (6, 3, 3, 4),
        },
        ((3, 7, 6, 2),),
        dict.fromkeys(["dilated", "groups", "up", "first", "last"], "convolution") | {"bias": "bias"},
    ),
    Loss(
        "layered",
        layered,
        {"w": (3, 4, 4), "b": (3, 4), "gain": (4,), "out": (4, 2), "unused": (2,)},
        ((4, 4), (4, 2)),
        {"w": "dense", "b": "bias", "gain": "scale", "out": "dense"},
    ),
    Loss(
        "nested",
        nested,
        {"in": (3, 4), "stack": (2, 4, 4), "bias": (4,), "rate": (), "begin": (4,), "out": (4, 2)},
        ((3, 5, 3), (3, 2)),
        {"in": "shared", "stack": "shared", "bias": "bias", "rate": "other", "begin": "other", "out": "dense"},
    ),
    Loss(
        "stepped",
        stepped,
        {"stack": (3, 4, 4), "tables": (2, 3, 4), "kernels": (2, 3), "w": (4, 4)},
        ((3, 4), (3,)),
        {"stack": "other", "tables": "embedding", "w": "other"},
        (1,),
    ),
    Loss(
        "odd",
        odd,
        {"v": (3, 4), "g": (4,), "big": (4, 3), "down": (4, 1), "up": (1, 3), "gate": (3,), "token": (2,), "plain": ()},
        ((4, 3),),
        {
            "v": "other",
            "g": "other",
            "big": "other",
            "down": "other",
            "up": "other",
            "gate": "other",
            "token": "other",
            "plain": "bias",
        },
    ),
]
