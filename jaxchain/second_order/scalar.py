"""A call of a function of one number, traced once: what every second derivative here begins with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.arguments import default_argnum
from jaxchain.checks import check_function
from jaxchain.discovery.find import Found
from jaxchain.errors import ModeError
from jaxchain.jacobians.blocks import Call

__all__ = ["arrays", "check_scalar", "of_input", "read_scalar"]


def read_scalar(
    fun: Callable[..., Any], argnum: int | None, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> tuple[Call, Found]:
    """The call, and what was traced of it.

    Raises
    ------
    ModeError, ValueError, TypeError
        If the function is not one of real numbers, or returns another result than one of them.
    """
    check_function(fun, what)
    call = Call.of(fun, default_argnum(fun) if argnum is None else argnum, False, args, kwargs)
    found = call.find()
    check_scalar(found.input, found.out, what)
    return call, found


def arrays(call: Call) -> Any:
    """The argument that is differentiated with respect to, Python's numbers as arrays."""
    return jax.tree.map(jnp.asarray, call.chosen)


def of_input(found: Found) -> Callable[[Any], Any]:
    """The traced function of the chosen argument alone."""
    return lambda chosen: found.call(chosen, {})


def check_scalar(state: Any, out: Any, what: str) -> None:
    """Refuse a function of something that is not real, or of another result than one real number.

    Raises
    ------
    ModeError, ValueError
        Says what the function takes or returns, and the way out.
    """
    for place, leaves in (("takes", jax.tree.leaves(state)), ("returns", jax.tree.leaves(out))):
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                msg = f"{what} is for functions of real floating-point numbers, but this one {place} {leaf.dtype}{list(leaf.shape)}. Take real and imaginary parts, or cast."
                raise ModeError(msg)
    shapes = [leaf.shape for leaf in jax.tree.leaves(out)]
    if shapes != [()]:
        told = f"an array of shape {list(shapes[0])}" if len(shapes) == 1 else f"{len(shapes)} arrays"
        msg = f"{what} is for functions that return one number, but this one returns {told}. Sum or choose: lambda x: fun(x)[0]."
        raise ValueError(msg)
