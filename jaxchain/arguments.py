"""With respect to what: which of a function's arguments is looked along, and which is differentiated.

A chain knows its input. Of a plain function, what computes or prices a derivative takes the first argument, as JAX
does, and what looks along a chain takes the last, where models keep their data.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jax
from jax.core import Tracer

from jaxchain.chain import Chain
from jaxchain.checks import integer, shown
from jaxchain.program.interpret import numbers_of
from jaxchain.sides import GivenSides

__all__ = [
    "argument_in_words",
    "begun",
    "check_args",
    "check_numbers",
    "default_argnum",
    "differentiated",
    "from_start",
    "looked_along",
    "one_after_another",
    "position_among",
]


def check_args(args: Any) -> None:
    """Refuse arguments that are not given as a tuple.

    Raises
    ------
    TypeError
        Says what the tuple is.
    """
    if not isinstance(args, tuple):
        msg = f"args is the tuple of the function's positional arguments, as in jax.jvp: (x,) or (params, x), but {shown(args)} was given."
        raise TypeError(msg)


@contextmanager
def one_after_another(fun: Callable[..., Any], args: tuple[Any, ...], what: str) -> Generator[None]:
    """Where a call fails since a tuple of the function's arguments was given for one of them, say so.

    Raises
    ------
    TypeError
        In place of what the function says of the tuple.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        # A function of a tuple has errors of its own.
        if len(args) == 1 and type(args[0]) is tuple and not _takes(fun, args) and _takes(fun, args[0]):
            msg = f"{what} takes the function's arguments one after another, but one tuple was given, which the function fails on and whose members it takes. Take it apart: *args in place of args."
            raise TypeError(msg) from error
        raise


def _takes(fun: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        jax.eval_shape(fun, *args)
    except Exception:
        return False
    return True


def check_numbers(args: tuple[Any, ...], shower: str, does: str = "shows") -> None:
    """Refuse arguments that are mere shapes, or traced.

    Raises
    ------
    TypeError
        Names the argument.
    """
    for number, arg in enumerate(args):
        if any(isinstance(leaf, jax.ShapeDtypeStruct | Tracer) for leaf in jax.tree.leaves(arg)):
            msg = f"{shower} {does} numbers, but argument {number} has only shapes. Give arrays, and call it outside jit, vmap and grad."
            raise TypeError(msg)


def looked_along(fun: Callable[..., Any], argnum: int | None, args: tuple[Any, ...]) -> int:
    """Which argument, counted from the first, is looked along: a chain's own input, else ``argnum``, else the last.

    Raises
    ------
    ValueError
        If there is no such argument, or it is not the one that a chain was found along.
    TypeError
        If ``argnum`` is no integer.
    """
    at = position_among(args, -1 if argnum is None else argnum)
    if not isinstance(fun, Chain):
        return at
    own = position_among(args, fun.argnum)
    if argnum is not None and at != own:
        msg = f"This chain runs along argument {own}, so argnum={argnum} cannot be looked along. Leave argnum out, or discover the function with it."
        raise ValueError(msg)
    return own


def differentiated(fun: Callable[..., Any], argnum: int | None, args: tuple[Any, ...]) -> int:
    """Which argument, counted from the first, is differentiated: ``argnum``, else a chain's own input, else the first.

    Raises
    ------
    ValueError, TypeError
        As `looked_along`.
    """
    return position_among(args, default_argnum(fun) if argnum is None else argnum)


def default_argnum(fun: Callable[..., Any]) -> int:
    """What is differentiated with respect to where nothing is said: a chain's own input, else JAX's 0."""
    return fun.argnum if isinstance(fun, Chain) else 0


def position_among(args: tuple[Any, ...], argnum: int) -> int:
    """The position of an argument, counted from the first.

    Raises
    ------
    ValueError
        If there is no such argument.
    TypeError
        If ``argnum`` is no integer.
    """
    at = integer("argnum", argnum, "the position of an argument")
    if not -len(args) <= at < len(args):
        msg = f"argnum={argnum} names no argument: {len(args)} were given."
        raise ValueError(msg)
    return at % len(args)


def from_start(chain: Chain, args: tuple[Any, ...]) -> tuple[Chain, tuple[Any, ...], int]:
    """A chain, its arguments (shapes will do) and which of them is its input.

    A chain along tokens begins at a state that no argument is: as a chain of ``(sides, state)`` it has it as one.
    Every other chain stays as it is.
    """
    at = position_among(args, chain.argnum)
    if not chain.lead:
        return chain, args, at
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args))
    state, sides = (jax.eval_shape if abstract else numbers_of)(chain.split, *args)
    return Chain(chain.stages, sides=GivenSides(range(len(chain)))), (sides, state), 1


def begun(fun: Callable[..., Any], args: tuple[Any, ...], at: int) -> tuple[Callable[..., Any], tuple[Any, ...], int]:
    """A function, its arguments and which of them is differentiated: of a chain's input, as `from_start`."""
    if isinstance(fun, Chain) and position_among(args, fun.argnum) == at:
        return from_start(fun, args)
    return fun, args, at


def argument_in_words(fun: Callable[..., Any], args: tuple[Any, ...], at: int) -> str:
    """What is differentiated with respect to, where it is argument ``at``."""
    if not isinstance(fun, Chain) or position_among(args, fun.argnum) != at:
        return f"argument {at}"
    return f"{fun.names_with_input[0]}, which argument {at} enters" if fun.lead else f"the chain input, argument {at}"
