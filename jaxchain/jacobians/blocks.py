"""Between JAX's Jacobians and matrices: a call as a function of the chosen arguments alone, a matrix as pytree blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxchain.arguments import argument_in_words, begun
from jaxchain.chain import Chain
from jaxchain.checks import check_function, check_inexact, check_result, integer
from jaxchain.coordinates import Coordinates
from jaxchain.discovery.find import Found, find
from jaxchain.errors import ModeError

__all__ = ["Call", "as_blocks", "named_like", "require_real"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function, seen as a function of the arguments that it is differentiated with respect to.

    Attributes
    ----------
    fun, args, kwargs
        What is called, and how.
    positions
        Of the chosen arguments, counted from the first.
    single
        Whether one argument was named, not a tuple of them: that one alone is then what is chosen.
    has_aux
        Whether ``fun`` returns ``(output, aux)``.
    argument
        What is differentiated with respect to, in words.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    positions: tuple[int, ...]
    single: bool
    has_aux: bool
    argument: str

    @classmethod
    def of(cls, fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, args: Any, kwargs: Any) -> Call:
        """The call, once the arguments that ``argnums`` names are there.

        Raises
        ------
        TypeError, ValueError
            If ``argnums`` is no integer or tuple of some, or names an argument that is not there, or one twice.
        """
        given = argnums if isinstance(argnums, Sequence) and not isinstance(argnums, str) else (argnums,)
        single = given is not argnums
        what = "the position of an argument (or a tuple of some)"
        numbers = tuple(integer("argnums", number, what) for number in given)
        if not numbers:
            msg = (
                "argnums names no argument, so there is nothing to differentiate with respect to. Name one: argnums=0."
            )
            raise ValueError(msg)
        for number in numbers:
            if not -len(args) <= number < len(args):
                msg = f"argnums={argnums} names argument {number}, but {len(args)} positional arguments were given."
                raise ValueError(msg)
        positions = tuple(number % len(args) for number in numbers)
        if len(set(positions)) < len(positions):
            msg = f"argnums={argnums} names an argument twice."
            raise ValueError(msg)
        words = f"arguments {', '.join(map(str, positions))}"
        if len(positions) == 1:
            words = argument_in_words(fun, args, positions[0]) if single or isinstance(fun, Chain) else words
            fun, args, position = begun(fun, args, positions[0])
            positions = (position,)
        for position in positions:
            check_inexact(args[position], f"Argument {position}")
        return cls(fun, args, kwargs, positions, single, has_aux, words)

    @property
    def chosen(self) -> Any:
        """The argument, or the tuple of arguments, to differentiate with respect to."""
        return self.args[self.positions[0]] if self.single else tuple(self.args[p] for p in self.positions)

    @property
    def name(self) -> str:
        """Of the function, in words."""
        return getattr(self.fun, "__name__", type(self.fun).__name__)

    def __call__(self, chosen: Any, given: dict[int, Any] | None = None) -> tuple[Any, Any]:
        """``(output, aux)`` with other values for the chosen arguments, and for those at the positions in ``given``."""
        full = list(self.args)
        for position, value in (given or {}).items():
            full[position] = value
        for position, value in zip(self.positions, (chosen,) if self.single else chosen, strict=True):
            full[position] = value
        out = self.fun(*full, **self.kwargs)
        if self.has_aux and not (isinstance(out, tuple) and len(out) == 2):
            msg = f"has_aux=True wants a function that returns (output, aux), but it returned a {type(out).__name__}."
            raise TypeError(msg)
        out, aux = out if self.has_aux else (out, None)
        check_result(out)
        return out, aux

    def output(self, chosen: Any) -> Any:
        """The output alone."""
        return self(chosen)[0]

    def find(self) -> Found:
        """The chain from the chosen arguments to the output, traced once.

        Other arguments are constants of it: arrays, and Python and NumPy values that the function branches on. Those
        that are mere shapes are traced.
        """
        abstract = {
            position: arg
            for position, arg in enumerate(self.args)
            if position not in self.positions
            and any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arg))
        }
        return find(self, (self.chosen, abstract), 0, has_aux=True)


def named_like(fun: Callable[..., Any], made: Callable[..., Any], what: str) -> Any:
    """``made`` of ``fun``, under its name; the docstring says what it is, then a plain function's own words."""
    check_function(fun, what)
    named: Any = wraps(fun, assigned=("__name__", "__qualname__", "__module__"), updated=())(made)
    own = inspect.getdoc(fun) if inspect.isroutine(fun) else None  # of an object they would be those of its class
    head = f"{what} of {getattr(fun, '__name__', type(fun).__name__)}."
    named.__doc__ = f"{head}\n\n{own}" if own else head
    return named


def require_real(found: Found) -> None:
    """Refuse to plan or chunk what is not real.

    Raises
    ------
    ModeError
        Names the dtype.
    """
    for place, leaves in (("input", found.input), ("output", found.out)):
        for leaf in jax.tree.leaves(leaves):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                msg = (
                    f"A planned, chunked or spread Jacobian needs real floating-point values, but an {place} is {leaf.dtype}{list(leaf.shape)}. "
                    'Cast it, or use mode="forward" or "reverse" without chunk_size, memory_limit and sharding.'
                )
                raise ModeError(msg)


def as_blocks(matrix: jax.Array, here: Coordinates, there: Coordinates, *, like: Literal["input", "output"]) -> Any:
    """A matrix (m, n) as JAX returns it: a pytree like the output, of pytrees like the input."""

    def block(rows: jax.Array, out: Any) -> Any:
        blocks = [
            part.reshape(*out.shape, *into.shape).astype(into.dtype if like == "input" else out.dtype)
            for part, into in zip(here.split(rows, axis=1), here.leaves, strict=True)
        ]
        return here.treedef.unflatten(blocks)

    return there.treedef.unflatten(
        [block(rows, out) for rows, out in zip(there.split(matrix, axis=0), there.leaves, strict=True)]
    )
