"""`jacobian`: a drop-in for ``jax.jacfwd`` and ``jax.jacrev`` that lets one say, or leaves open, which.

Forward mode costs one tangent a column, reverse mode one cotangent a row. Builds on `flat`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxchain.flat import Coordinates, map_basis

__all__ = ["Mode", "jacobian"]

Mode = Literal["auto", "forward", "reverse"]


def jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    mode: Mode = "auto",
    chunk_size: int | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """The Jacobian of ``fun`` as a function, with the result and pytree structure of ``jax.jacrev``.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays or pytrees.
    argnums
        Which positional arguments to differentiate with respect to.
    mode
        ``"forward"``: one tangent a column; ``"reverse"``: one cotangent a row; ``"auto"``: the
        one that needs fewer, reverse where they are equal in number.
    chunk_size
        How many columns or rows are computed at once; ``None``: all. Bounds the memory. Real
        inputs and outputs only.
    has_aux
        Whether ``fun`` returns ``(output, aux)``; the result is then ``(jacobian, aux)``.
    holomorphic
        Whether ``fun`` is promised to be holomorphic.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; works under ``jit``, ``vmap``, ``grad`` and itself.

    Raises
    ------
    ValueError
        If the mode is unknown, or ``chunk_size`` is below 1.
    TypeError
        From the call, if an input or output is not floating point.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3.
    """
    if mode not in get_args(Mode):
        msg = f"Unknown mode {mode!r}. Known: {', '.join(get_args(Mode))}."
        raise ValueError(msg)
    if chunk_size is not None and holomorphic:
        msg = "chunk_size computes real Jacobians; leave it out where holomorphic=True."
        raise ValueError(msg)
    if chunk_size is not None and chunk_size < 1:
        msg = f"chunk_size is how many rows or columns are computed at once, so at least 1; {chunk_size} was given."
        raise ValueError(msg)

    @wraps(fun, updated=())
    def jac(*args: Any, **kwargs: Any) -> Any:
        chosen = _cheaper(fun, argnums, has_aux, args, kwargs) if mode == "auto" else mode
        if chunk_size is None:
            transform = jax.jacfwd if chosen == "forward" else jax.jacrev
            return transform(fun, argnums, has_aux=has_aux, holomorphic=holomorphic)(*args, **kwargs)
        return _chunked(fun, argnums, chosen, chunk_size, has_aux, args, kwargs)

    return jac


def _cheaper(fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, args: Any, kwargs: Any) -> Mode:
    of_chosen, chosen = _partial(fun, argnums, has_aux, args, kwargs)
    out, _ = jax.eval_shape(of_chosen, chosen)
    return "forward" if Coordinates.of(chosen).size < Coordinates.of(out).size else "reverse"


def _partial(
    fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """``fun`` of the differentiated arguments alone, returning ``(output, aux)``, and those arguments."""
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for position in positions:
        if not -len(args) <= position < len(args):
            msg = f"argnums={argnums} names argument {position}, but {len(args)} positional arguments were given."
            raise ValueError(msg)

    def of_chosen(chosen: Any) -> Any:
        full = list(args)
        for position, value in zip(positions, (chosen,) if isinstance(argnums, int) else chosen, strict=True):
            full[position] = value
        out = fun(*full, **kwargs)
        return out if has_aux else (out, None)

    return of_chosen, args[argnums] if isinstance(argnums, int) else tuple(args[p] for p in positions)


def _chunked(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    mode: Mode,
    chunk_size: int,
    has_aux: bool,
    args: Any,
    kwargs: Any,
) -> Any:
    of_chosen, chosen = _partial(fun, argnums, has_aux, args, kwargs)
    chosen = jax.tree.map(jnp.asarray, chosen)
    here = Coordinates.of(chosen)
    if mode == "forward":
        out, push, aux = jax.linearize(of_chosen, chosen, has_aux=True)
    else:
        out, push, aux = jax.vjp(of_chosen, chosen, has_aux=True)
    there = Coordinates.of(out)
    for place, space in (("input", here), ("output", there)):
        for leaf in space.leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                msg = f"A Jacobian in chunks needs real floating-point values, but an {place} is {leaf.str_short()}. Leave chunk_size out, or cast."
                raise TypeError(msg)
    if mode == "forward":
        matrix = map_basis(lambda e: there.flatten(push(here.unflatten(e))), here.identity(), chunk_size).T
    else:
        matrix = map_basis(lambda e: here.flatten(*push(there.unflatten(e))), there.identity(), chunk_size)
    jac = _blocks(matrix, here, there, like="output" if mode == "forward" else "input")
    return (jac, aux) if has_aux else jac


def _blocks(matrix: jax.Array, here: Coordinates, there: Coordinates, *, like: Literal["input", "output"]) -> Any:
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
