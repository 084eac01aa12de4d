"""`hvp` and `hessian`: second derivatives of a function of one number as products, and as the whole matrix.

The function is traced once, and what is decided is run on that trace: call them under ``jax.jit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import jax

from jaxchain.arguments import check_args
from jaxchain.checks import refuse_huge, word
from jaxchain.coordinates import Coordinates, check_like
from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.discovery.find import Found
from jaxchain.errors import REFUSALS, refusal, refused_in_words
from jaxchain.jacobians.blocks import as_blocks
from jaxchain.jacobians.execute import state_and_sides
from jaxchain.jacobians.planner import make_plan
from jaxchain.meshes import laid_out_by_compiler
from jaxchain.program.precision import precisely_as
from jaxchain.program.primitives import any_equation_of, is_while
from jaxchain.second_order import gather
from jaxchain.second_order.products import Product, hessian_by, product
from jaxchain.second_order.scalar import arrays, layout, of_input, read_scalar
from jaxchain.second_order.ways import HessianMode, HessianPlan, decide_second, existing_order

__all__ = ["compute_hessian", "decide_hessian", "hessian", "hvp", "refuse_huge_hessian"]

WAY_OUT = 'mode="auto", the default, takes what exists.'


def hvp(fun: Callable[..., Any], args: tuple[Any, ...], v: Any, *, argnum: int | None = None) -> Any:
    """The product of the Hessian with a vector, H v, at the cost of a few evaluations.

    Parameters
    ----------
    fun
        A chain or any JAX function that returns one real number.
    args
        Its positional arguments.
    v
        Like the argument that is differentiated with respect to.
    argnum
        Which one that is; default: of a chain its input, else the first.

    Returns
    -------
    pytree
        Like that argument: forward over reverse where both modes exist, else the next order that does. Works under
        ``jit``, ``vmap`` and ``grad``.

    Raises
    ------
    TangentMismatchError
        If ``v`` does not look like the argument; names the leaf.
    ModeError
        A `TypeError`, if the argument or the result is complex, or an integer one (take real and imaginary parts, each
        as a function of its own, or cast), or there is no second derivative (names the stage).
    TypeError
        If ``args`` is no tuple, ``argnum`` is no integer, or the argument is no floating-point one.
    ValueError
        If the function returns more than one number.

    References
    ----------
    Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 1994.

    Examples
    --------
    >>> jc.hvp(lambda x: jnp.sum(x**3), (jnp.array([1.0, 2.0]),), jnp.array([1.0, 1.0])).tolist()  # 6x · v
    [6.0, 12.0]
    """
    check_args(args)
    return laid_out_by_compiler(lambda args, v: _times(fun, args, v, argnum), layout(fun, argnum, args, "hvp"), args, v)


def _times(fun: Callable[..., Any], args: tuple[Any, ...], v: Any, argnum: int | None) -> Any:
    call, found = read_scalar(fun, argnum, args, {}, "hvp")
    chosen, fn = arrays(call), of_input(found)
    here, v = Coordinates.of(chosen), check_like(v, chosen, "vector", "argument that is differentiated")
    # Forward over reverse needs both modes, which a loop without an end, or a rule that others wrote, may lack; of
    # these JAX says so only once it is compiled.
    way: Product = "forward-over-reverse"
    if found.foreign or any(any_equation_of(eqn, is_while) for eqn in found.program.eqns):
        way = existing_order(found, make_plan(found))
    try:
        return here.unflatten(product(fn, chosen, way)(here.flatten(v)))
    except REFUSALS as error:
        refusal(error)
        return here.unflatten(product(fn, chosen, existing_order(found, make_plan(found)))(here.flatten(v)))


def hessian(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    argnum: int | None = None,
    mode: HessianMode = "auto",
    chunk_size: int | None = None,
) -> Any:
    """The Hessian of a function of one number, as `jax.hessian` shapes it.

    Parameters
    ----------
    fun
        A chain or any JAX function that returns one real number.
    args
        Its positional arguments.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    mode
        ``"forward-over-reverse"``: JAX's own; ``"stages"``: the sum over the stages that bend,
        H = Σ_k P_kᵀ (λ_k · f_k″) P_k, each as cheaply as its structure allows, by way of the narrowest states, and
        custom derivative rules taken at their word;
        ``"sparse"``: star colours of the whole pattern (needs the extra ``sparse``); ``"reverse-over-forward"``,
        ``"reverse-over-reverse"``, ``"forward-over-forward"``: the other orders of JAX's modes; ``"auto"``: the
        cheapest, JAX's own program where the others save little.
    chunk_size
        How many vectors of a basis are pushed at once; ``None``: all. Bounds the memory.

    Returns
    -------
    pytree
        The argument's structure twice over, blocks (*in, *in) in the argument's dtypes, its rows spread over devices
        as the argument is where its type says so. Works under ``jit``, ``vmap`` and ``grad``. At a kink, such as
        ReLU's, the second derivative is zero, as in JAX.

    Raises
    ------
    ValueError
        If the mode is unknown, ``chunk_size`` is below 1, the function returns more than one number, or closes over
        an array whose type says how it is spread, or the result is huge.
    ModeError
        A `TypeError`, if the argument or the result is complex, or an integer one (take real and imaginary parts, each
        as a function of its own, or cast), or a mode does not exist (names the stage).
    TypeError
        If ``args`` is no tuple, ``argnum`` is no integer, or the argument is no floating-point one.
    ImportError
        If ``mode="sparse"`` and the extra is not installed.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4 and ch. 10; Gebremedhin, Manne and
    Pothen, SIAM Review 2005 (star colouring).

    Examples
    --------
    >>> jc.hessian(lambda x: x[0] * x[1] ** 2, (jnp.array([1.0, 2.0]),)).tolist()
    [[0.0, 4.0], [4.0, 2.0]]
    """
    check_args(args)
    word("mode", mode, get_args(HessianMode))
    how = Pass(chunk_size)

    def run(args: tuple[Any, ...]) -> Any:
        call, found = read_scalar(fun, argnum, args, {}, "hessian")
        refuse_huge_hessian(found)
        way = decide_hessian(found, mode, call.argument)
        with refused_in_words(way.mode, "this Hessian", WAY_OUT):
            return compute_hessian(found, way, arrays(call), how)

    return laid_out_by_compiler(run, layout(fun, argnum, args, "hessian"), args)


def refuse_huge_hessian(found: Found) -> None:
    """Refuse a Hessian that is larger than what is made unasked."""
    here = Coordinates.of(found.input)
    try:
        refuse_huge((here.size, here.size), here.dtype)
    except ValueError as error:
        msg = (
            f"A Hessian of {here.size:,} × {here.size:,} numbers is more than is made unasked. jc.hvp, "
            "jc.hessian_diagonal and jc.laplacian do without it; under jax.jit it is made all the same."
        )
        raise ValueError(msg) from error


def decide_hessian(found: Found, mode: HessianMode = "auto", argument: str = "argument 0") -> HessianPlan:
    """How the Hessian of a traced function is computed."""
    return decide_second(found, "matrix", mode, argument)


@precisely_as(lambda found, *_: found.program)
def compute_hessian(found: Found, way: HessianPlan, chosen: Any, how: Pass = ALL_AT_ONCE) -> Any:
    """Run a decision: the Hessian where the argument is ``chosen``, as blocks."""
    here = Coordinates.of(chosen)
    if way.mode not in ("stages", "sparse"):
        return hessian_by(of_input(found), chosen, way.mode, how)
    if way.terms and way.mode == "stages":
        parts = [(sign, compute_hessian(term, plan, chosen, how)) for sign, term, plan in way.terms]
        return jax.tree.map(
            lambda *each: sum(sign * part for (sign, _), part in zip(parts, each, strict=True)),
            *(part for _, part in parts),
        )
    found.report(chosen, {})  # what is printed is in no plan
    if way.mode == "stages":
        assert way.order is not None
        assert way.stretch is not None
        entries = gather.matrix(gather.point(way.order, (chosen, {}), how), way.stretch).dense()
    else:
        assert way.star is not None
        wanted = way.star.unit.segment.sides
        state, values = state_and_sides(found, (chosen, {}), [wanted])
        entries = way.star.matrix([values[v] for v in wanted], state, how.chunk_size)
    return as_blocks(entries, here, here, like="output")
