"""A call of a function of one number, traced once: what every second derivative here begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxchain.arguments import differentiated, one_after_another
from jaxchain.chain import Chain
from jaxchain.checks import check_function, shown
from jaxchain.discovery.find import Found
from jaxchain.errors import ModeError
from jaxchain.jacobians.blocks import Call
from jaxchain.meshes import spread_as
from jaxchain.show.values import count

__all__ = ["arrays", "check_scalar", "layout", "of_input", "read_scalar"]


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
    with one_after_another(partial(fun, **kwargs), args, what):
        call = Call.of(fun, _position(fun, argnum, args), False, args, kwargs)
        found = call.find()
    check_scalar(found.input, found.out, what)
    return call, found


def _position(fun: Callable[..., Any], argnum: int | None, args: tuple[Any, ...]) -> int:
    if isinstance(argnum, Sequence) and not isinstance(argnum, str):
        msg = f"argnum is one argument here, but {shown(argnum)} was given. Put several into one: lambda both: fun(*both)."
        raise TypeError(msg)
    return differentiated(fun, argnum, args)


def layout(fun: Callable[..., Any], argnum: int | None, args: tuple[Any, ...], what: str) -> Any:
    """How the argument that is differentiated is spread, where its type says so: as the result is to be."""
    check_function(fun, what)
    with one_after_another(fun, args, what):
        at = _position(fun, argnum, args)
    if isinstance(fun, Chain) and fun.lead and at == fun.argnum % len(args):
        return PartitionSpec()  # what is differentiated is a state that the argument enters
    return spread_as(args[at])


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
    _require_real(jax.tree.leaves(state), "takes", what)
    leaves = jax.tree.leaves(out)
    if [leaf.shape for leaf in leaves] != [()]:
        msg = f"{what} is for functions that return one number, but this one returns {_several(out, leaves)}"
        raise ValueError(msg)
    _require_real(leaves, "returns", what)


def _require_real(leaves: list[Any], place: str, what: str) -> None:
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            msg = f"{what} is for functions of real floating-point numbers, but this one {place} {leaf.dtype}{list(leaf.shape)}. Take real and imaginary parts, or cast."
            raise ModeError(msg)


def _several(out: Any, leaves: list[Any]) -> str:
    """What is returned in place of one number, and the way out."""
    chosen = "lambda *args: fun(*args)[0]"
    if isinstance(out, (tuple, list)) and len(out) == 2 and leaves and getattr(out[0], "shape", None) == ():  # pyright: ignore[reportUnknownArgumentType]
        return (
            f"{count(len(leaves), 'array')}, which looks like a value and an aux beside it. Leave that away: {chosen}."
        )
    if len(leaves) != 1:
        return (
            f"{count(len(leaves), 'array')}. Choose one number of them, or add some up: {chosen}, if the first is one."
        )
    return (
        f"an array of shape {list(leaves[0].shape)}. Add its entries up, or choose one, whatever the arguments are: "
        "lambda *args: jnp.sum(fun(*args)); a chain takes a stage more: jc.Chain([*chain, jc.Stage('sum', jnp.sum)])."
    )
