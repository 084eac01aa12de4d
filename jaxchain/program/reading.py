"""Read a function: trace it once, with abstract values, to the program that JAX makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxchain.errors import TraceError, first_line
from jaxchain.program.modules import scoped_by_attribute
from jaxchain.program.primitives import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    equation_count,
    function_of,
    has_side_effect,
    inner_programs,
)
from jaxchain.program.source import Site

__all__ = ["abstract", "lifted", "trace_program"]

MOST = 200_000
"""The most equations of a program that is looked at: each is an object, and takes a fifth of a millisecond or more."""

EMBEDDED = 1 << 16
"""A constant of more real numbers is handed to a program, not written into it, where it would be copied and compiled."""

CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a number is asked for and none is there."""

WAY_OUT = "Use jax.numpy in place of NumPy there, jnp.where or jax.lax.cond in place of if; or close over what is no number to differentiate."


def trace_program(fun: Callable[..., Any], args: tuple[Any, ...]) -> tuple[ClosedJaxpr, Any]:
    """The program of a pure function at ``args``, and its result as shapes.

    Raises
    ------
    TraceError
        If it asks for numbers where there are abstract values; names the line.
    TypeError
        If it has side effects, or more equations than can be looked at.
    """
    try:
        closed, out = jax.make_jaxpr(scoped_by_attribute(fun), return_shape=True)(*args)
    except CONCRETE as error:
        msg = f"The function cannot be traced: {Site.of_error(error)} asks for numbers, but jaxchain reads a function with abstract values, as jax.jit does. {WAY_OUT} JAX says: {first_line(error)}."
        raise TraceError(msg) from error
    except TypeError as error:
        if "returned a value of type" in str(error):
            msg = f"A function that has a derivative returns arrays, but this one does not. JAX says: {first_line(error)}."
            raise TypeError(msg) from error
        error.add_note(
            "jaxchain traces the function with abstract values, as jax.jit does; it must be a pure JAX function that returns arrays."
        )
        raise
    if (size := equation_count(closed.jaxpr)) > MOST:
        msg = f"The function's program has {size:,} equations, more than the {MOST:,} that jaxchain looks at one by one. Write what it repeats as jax.lax.scan or fori_loop, or look at a part of it."
        raise TypeError(msg)
    if (guilty := side_effect(closed.jaxpr)) is not None:
        msg = (
            "The function has side effects, and a chain of pure stages would lose them: "
            f"{guilty.primitive.name} at {Site.of(guilty)}. Take them out before discovering."
        )
        raise TypeError(msg)
    for value in (*closed.in_avals, *closed.out_avals):
        if not all(isinstance(size, int) for size in getattr(value, "shape", ())):
            msg = f"A chain has fixed shapes, but an argument or result is {value.str_short()}, a symbolic shape. Discover it for numbers."
            raise TypeError(msg)
    return closed, out


def side_effect(jaxpr: Jaxpr) -> JaxprEqn | None:
    """The innermost equation that has a side effect, or ``None``; naming a mapped axis is none."""
    for eqn in jaxpr.eqns:
        if has_side_effect(eqn):
            inner = (side_effect(body) for body in inner_programs(eqn))
            return next((found for found in inner if found is not None), eqn)
    return None


def abstract(tree: Any) -> Any:
    """A pytree of arrays as shapes, at which a function can be traced; shapes stay what they are."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        aval = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype)

    return jax.tree.map(one, tree)


def lifted(fun: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], list[Any]]:
    """``fun`` as a function of the values that it closed over, then of its arguments; and these values.

    They are tracers and large weights. Small arrays, and indices, stay constants of the program, as they are under
    `jax.jit`: what reads them is computed when it is compiled.
    """
    closed, out = jax.make_jaxpr(fun, return_shape=True)(*args)
    tree, consts = jax.tree.structure(out), list(closed.consts)
    given = [k for k, value in enumerate(consts) if isinstance(value, Tracer) or _is_large(value)]

    def of_values(values: list[Any], *args: Any) -> Any:
        known = [*consts]
        for k, value in zip(given, values, strict=True):
            known[k] = value
        return tree.unflatten(function_of(closed.jaxpr, known)(*jax.tree.leaves(args)))

    return of_values, [consts[k] for k in given]


def _is_large(constant: Any) -> bool:
    return getattr(constant, "size", 0) > EMBEDDED and jnp.issubdtype(constant.dtype, jnp.inexact)
