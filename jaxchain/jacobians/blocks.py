"""Between JAX's Jacobians and matrices: the function of the chosen arguments alone, and a matrix as pytree blocks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates

__all__ = ["as_blocks", "function_of_chosen", "real_spaces"]


def function_of_chosen(
    fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """``fun`` of the differentiated arguments alone, returning ``(output, aux)``, and those arguments."""
    try:
        single = not isinstance(argnums, Sequence)
        positions = tuple(operator.index(number) for number in ((argnums,) if single else argnums))
    except TypeError as error:
        msg = f"argnums must be an integer or a tuple of integers, but {argnums!r} was given."
        raise TypeError(msg) from error
    for position in positions:
        if not -len(args) <= position < len(args):
            msg = f"argnums={argnums} names argument {position}, but {len(args)} positional arguments were given."
            raise ValueError(msg)
    if len({position % len(args) for position in positions}) < len(positions):
        msg = f"argnums={argnums} names an argument twice."
        raise ValueError(msg)

    def of_chosen(chosen: Any) -> Any:
        full = list(args)
        for position, value in zip(positions, (chosen,) if single else chosen, strict=True):
            full[position] = value
        out = fun(*full, **kwargs)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            msg = f"has_aux=True wants a function that returns (output, aux), but it returned a {type(out).__name__}."
            raise TypeError(msg)
        return out if has_aux else (out, None)

    return of_chosen, args[argnums] if single else tuple(args[p] for p in positions)


def real_spaces(of_chosen: Callable[[Any], Any], chosen: Any) -> tuple[Coordinates, Coordinates]:
    """Coordinates of input and output, once both are known to be real."""
    here, there = Coordinates.of(chosen), Coordinates.of(jax.eval_shape(of_chosen, chosen)[0])
    for place, space in (("input", here), ("output", there)):
        for leaf in space.leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                msg = (
                    f"A planned or chunked Jacobian needs real floating-point values, but an {place} is {leaf.dtype}{list(leaf.shape)}. "
                    'Cast it, or use mode="forward" or "reverse" without chunk_size and memory_limit.'
                )
                raise TypeError(msg)
    return here, there


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
