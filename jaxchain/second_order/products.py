"""Products with the Hessian of a whole function, H v, in each of the orders that JAX's two modes can be put together.

Forward over reverse is the cheapest, and what `jax.hessian` is made of. The others are for what has not both modes: a
loop that ends when it wants has no reverse mode, a custom VJP no forward mode.

References: Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 1994; Griewank and Walther,
Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates
from jaxchain.derivative import ALL_AT_ONCE, Linear, Pass, jvp, vjp, whole
from jaxchain.errors import REFUSALS, ModeError, refusal
from jaxchain.jacobians.blocks import as_blocks
from jaxchain.program.primitives import any_equation, is_forward_of_custom_vjp

__all__ = ["PRODUCTS", "Product", "existing", "hessian_by", "paired_by", "product"]

Product = Literal["forward-over-reverse", "reverse-over-reverse", "reverse-over-forward", "forward-over-forward"]
PRODUCTS: tuple[Product, ...] = get_args(Product)

State = Any
Fn = Callable[[State], Any]


def _gradient(fn: Fn) -> Fn:
    def gradient(state: State) -> State:
        out, pull = vjp(fn, state)
        return pull(jnp.ones_like(out))[0]

    return gradient


def _slope(fn: Fn, tangent: State) -> Fn:
    return lambda state: jvp(fn, state, tangent)[1]


def product(fn: Fn, state: State, mode: Product) -> Callable[[jax.Array], jax.Array]:
    """``times(vector)`` → H · vector, in coordinates of the state."""
    here = Coordinates.of(state)
    match mode:
        case "forward-over-reverse":
            linear = Linear(_gradient(fn), state)
            linear.value("forward")  # linearised here, not where it is mapped
            return linear.push
        case "reverse-over-reverse":
            linear = Linear(_gradient(fn), state)
            linear.value("reverse")
            return linear.pull
        case "reverse-over-forward":
            return lambda vector: here.flatten(_gradient(_slope(fn, here.unflatten(vector)))(state))
        case "forward-over-forward":
            return lambda vector: Linear(_slope(fn, here.unflatten(vector)), state).matrix(mode="forward")[0]


def paired_by(fn: Fn, state: State, mode: Product) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """``of(q, p)`` → qᵀ H p."""
    if mode != "forward-over-forward":
        times = product(fn, state, mode)
        return lambda left, right: jnp.vdot(left, times(right))
    here = Coordinates.of(state)
    return lambda left, right: jvp(_slope(fn, here.unflatten(right)), state, here.unflatten(left))[1]


def hessian_by(fn: Fn, state: State, mode: Product, how: Pass) -> Any:
    """The whole Hessian as JAX shapes it; forward over reverse is `jax.hessian`'s own program."""
    if how == ALL_AT_ONCE and mode in ("forward-over-reverse", "forward-over-forward"):
        inner = "reverse" if mode == "forward-over-reverse" else "forward"
        return whole(lambda state: whole(fn, state, inner), state, "forward")
    here = Coordinates.of(state)
    rows = how.map(product(fn, state, mode), here.identity())
    return as_blocks(rows.T if mode == "forward-over-reverse" else rows, here, here, like="output")


def _tried(fn: Fn, mode: Product, state: State, vector: jax.Array) -> jax.Array:
    return paired_by(fn, state, mode)(vector, vector)


def existing(fn: Fn, state: State) -> Product:
    """The first of these orders that exists for a function.

    Raises
    ------
    ModeError
        If none does; tells why the first does not.
    """
    vector = Coordinates.of(state)
    like = jax.ShapeDtypeStruct((vector.size,), vector.dtype)
    refused: list[str] = []
    for mode in PRODUCTS:
        try:
            program = jax.make_jaxpr(partial(_tried, fn, mode))(state, like)
            if any_equation(program.jaxpr, is_forward_of_custom_vjp):  # JAX says so when it is compiled
                refused.append("a custom VJP has no tangents")
                continue
        except REFUSALS as error:
            refused.append(refusal(error))
            continue
        return mode
    raise ModeError(refused[0])
