"""`jacobian`: a drop-in for ``jax.jacfwd`` and ``jax.jacrev`` that plans the cheapest way.

Forward mode costs one tangent a column, reverse mode one cotangent a row; a plan brackets the
product of the stages' Jacobians in between. Planning happens while the function is traced: call it
under ``jax.jit``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates, check_chunk_size, map_basis
from jaxchain.cost.budget import fit
from jaxchain.cost.count import flops
from jaxchain.discovery.find import find
from jaxchain.jacobians.blocks import as_blocks, function_of_chosen, real_spaces
from jaxchain.jacobians.execute import execute
from jaxchain.jacobians.planner import Plan, make_plan, sparse_plan
from jaxchain.program.flat import flatten

__all__ = ["Mode", "jacobian"]

Mode = Literal["auto", "forward", "reverse", "mixed", "sparse"]

SIMPLE: tuple[Mode, ...] = ("reverse", "forward")

WORTH_IT = 0.9
"""A plan is used where it is predicted to cost less than this share of the better simple mode: a smaller
gain in work is easily lost in time."""

CLOSE = 1.02
"""Within this ratio, what predictions are good for, forward and reverse mode are counted on their whole programs,
unless reverse mode from the last layer's weights on is predicted to be no dearer: its rows are the result, where
forward mode's columns are still to be transposed."""


def jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    mode: Mode = "auto",
    chunk_size: int | None = None,
    memory_limit: int | None = None,
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
        ``"forward"``: one tangent a column; ``"reverse"``: one cotangent a row; ``"mixed"``: the
        cheapest bracketing of the stages' Jacobians; ``"auto"``: the same with every local Jacobian
        that can be read off the program, or a simple mode where that is no dearer; ``"sparse"``:
        the whole function's pattern, coloured (needs the extra ``sparse``).
    chunk_size
        How many columns or rows are computed at once; ``None``: all. Bounds the memory. Real
        inputs and outputs only.
    memory_limit
        Most temporary memory in bytes, as XLA's ``memory_analysis`` measures it; picks the cheapest
        way and the largest chunks that respect it. Costs a few compilations.
    has_aux
        Whether ``fun`` returns ``(output, aux)``; the result is then ``(jacobian, aux)``.
    holomorphic
        Whether ``fun`` is promised to be holomorphic.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; works under ``jit``, ``vmap``, ``grad`` and itself. Dtypes are
        those of ``jax.jacrev``, in ``mode="forward"`` those of ``jax.jacfwd``. Where a slope is
        infinite, entries that structure knows to be zero are zero, not NaN.

    Raises
    ------
    ValueError
        If the mode is unknown, ``chunk_size`` is below 1, or ``memory_limit`` cannot be met (says
        the least that can).
    ImportError
        From the call, if ``mode="sparse"`` and the extra is not installed.
    TypeError
        From the call, if an input or output is not floating point.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3.
    """
    if not callable(fun):
        msg = f"jacobian needs a function, but {fun!r} is not callable."
        raise TypeError(msg)
    if mode not in get_args(Mode):
        msg = f"Unknown mode {mode!r}. Known: {', '.join(get_args(Mode))}."
        raise ValueError(msg)
    if chunk_size is not None and holomorphic:
        msg = "chunk_size computes real Jacobians; leave it out where holomorphic=True."
        raise ValueError(msg)
    check_chunk_size(chunk_size)

    if memory_limit is not None and (memory_limit < 1 or chunk_size is not None or holomorphic):
        msg = "memory_limit is a positive number of bytes, and it chooses the chunks itself: leave chunk_size and holomorphic out."
        raise ValueError(msg)

    @wraps(fun, updated=())
    def jac(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = function_of_chosen(fun, argnums, has_aux, args, kwargs)
        way, plan = (mode, None) if mode in ("forward", "reverse") else _choose(of_chosen, chosen, mode)
        if plan is None and chunk_size is None and memory_limit is None:
            transform = jax.jacfwd if way == "forward" else jax.jacrev
            result = transform(fun, argnums, has_aux=has_aux, holomorphic=holomorphic)(*args, **kwargs)
            return (
                _like_input(result, chosen, has_aux)
                if mode == "auto" and way == "forward" and not holomorphic
                else result
            )
        chosen = jax.tree.map(jnp.asarray, chosen)
        here, there = real_spaces(of_chosen, chosen)

        def candidate(way: Mode, plan: Plan | None, chunk: int | None) -> Callable[[Any], Any]:
            def blocks(chosen: Any) -> Any:
                matrix = _by_basis(of_chosen, chosen, way, chunk) if plan is None else execute(plan, (chosen,), chunk)
                return as_blocks(matrix, here, there, like="output" if mode == "forward" else "input")

            return blocks

        if memory_limit is None:
            compute = candidate(way, plan, chunk_size)
        else:
            ways: list[tuple[Mode, Plan | None]] = [(way, plan)]
            if mode == "auto":
                ways.extend((simple, None) for simple in SIMPLE if simple != way)
            widest = max(here.size, there.size)
            number, chunk = fit([partial(candidate, *one) for one in ways], chosen, widest, memory_limit)
            compute = candidate(*ways[number], chunk)
        return (compute(chosen), of_chosen(chosen)[1]) if has_aux else compute(chosen)

    return jac


def _like_input(result: Any, chosen: Any, has_aux: bool) -> Any:
    """A Jacobian by forward mode in the dtypes of reverse mode: each block in that of its input, unless complex."""
    jac, aux = result if has_aux else (result, None)
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(chosen)]
    blocks, tree = jax.tree.flatten(jac)
    cast = [b if jnp.iscomplexobj(b) else b.astype(dtypes[k % len(dtypes)]) for k, b in enumerate(blocks)]
    return (tree.unflatten(cast), aux) if has_aux else tree.unflatten(cast)


def _choose(of_chosen: Callable[[Any], Any], chosen: Any, mode: Mode) -> tuple[Mode, Plan | None]:
    """The mode to use, and the plan where one is to be run."""
    try:
        out = jax.eval_shape(of_chosen, chosen)[0]
    except jax.errors.JAXTypeError:
        if mode != "auto":
            raise
        return "reverse", None  # it looks at values, as reverse mode outside jit allows
    here, there = Coordinates.of(chosen), Coordinates.of(out)
    real = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in (*here.leaves, *there.leaves))
    if not real or not here.leaves or not there.leaves:
        # Complex values have conventions, and what is no number errors, of JAX's own; a complex output needs forward mode.
        complex_out = any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in there.leaves)
        return ("forward" if complex_out else "reverse"), None
    try:
        found = find(lambda x: of_chosen(x)[0], (chosen,), 0)
    except TypeError:
        if mode != "auto":
            raise
        return "reverse", None  # a side effect, say: no pure program to plan, but JAX can differentiate it
    if mode == "sparse":
        return mode, sparse_plan(found)
    plan = make_plan(found, structured=mode == "auto")
    forward, reverse = plan.forward_cost, plan.reverse_cost
    if mode == "mixed" or plan.cost < WORTH_IT * min(forward, reverse):
        return mode, plan
    if max(forward, reverse) < CLOSE * min(forward, reverse):
        pulled = plan.pulled()
        if forward < reverse and pulled is not None and pulled.cost <= forward:
            return mode, pulled
        forward, reverse = (_count(transform, of_chosen, chosen) for transform in (jax.jacfwd, jax.jacrev))
    return ("forward" if forward < reverse else "reverse"), None


def _count(transform: Callable[..., Any], of_chosen: Callable[[Any], Any], chosen: Any) -> float:
    """Floating-point operations of a whole program, counted before it is compiled."""
    closed = jax.make_jaxpr(transform(lambda x: of_chosen(x)[0]))(chosen)
    return sum(flops(equation.eqn) for equation in flatten(closed, lambda _: [], 0).needed())


def _by_basis(of_chosen: Callable[[Any], Any], chosen: Any, way: Mode, chunk_size: int | None) -> jax.Array:
    """The matrix (m, n) in a simple mode, ``chunk_size`` tangents or cotangents at a time."""
    here = Coordinates.of(chosen)
    out, push, _ = (jax.linearize if way == "forward" else jax.vjp)(of_chosen, chosen, has_aux=True)
    there = Coordinates.of(out)
    if way == "forward":
        return map_basis(lambda e: there.flatten(push(here.unflatten(e))), here.identity(), chunk_size).T
    return map_basis(lambda e: here.flatten(*push(there.unflatten(e))), there.identity(), chunk_size)
