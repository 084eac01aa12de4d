"""`laplacian` and `hessian_diagonal`: what needs the Hessian column by column, and never the whole of it.

Every column's pᵀ H p is the sum over the stages that bend, for a state of w numbers that all passes by w columns alone:
tr(Bᵀ M B A) = ⟨M, B A Bᵀ⟩, M the Hessian by that state, B the prefix Jacobian up to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import PartitionSpec

from jaxchain.checks import check_function
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Pass
from jaxchain.discovery.find import Found
from jaxchain.errors import refused_in_words
from jaxchain.jacobians.blocks import Call, named_like
from jaxchain.jacobians.execute import state_and_sides
from jaxchain.jacobians.matrix import Identity
from jaxchain.meshes import laid_out_by_compiler, without_layout
from jaxchain.program.fingerprint import Kept
from jaxchain.program.precision import precisely_as
from jaxchain.program.primitives import is_inexact, size_of
from jaxchain.second_order.columnwise import columns, over_columns
from jaxchain.second_order.gather import point
from jaxchain.second_order.products import Product, paired_by, product
from jaxchain.second_order.scalar import arrays, layout, of_input, read_scalar
from jaxchain.second_order.ways import HessianPlan, decide_second
from jaxchain.second_order.weighted import Weights, weights_of

__all__ = ["SecondDerivative", "hessian_diagonal", "laplacian"]

BYTES = 1 << 26
"""Of the widest value, for all columns that are pushed at once where no chunk size is asked for."""


class SecondDerivative(Protocol):
    """What `laplacian` and `hessian_diagonal` return: the value at some arguments, and how that very call finds it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The value."""
        ...

    def plan(self, *args: Any, **kwargs: Any) -> HessianPlan:
        """How the call with these arguments, or with ones of these shapes, would be computed, and why."""
        ...


def laplacian(
    fun: Callable[..., Any], argnum: int | None = None, *, weights: Any = None, chunk_size: int | None = None
) -> SecondDerivative:
    """The trace of the Hessian, Σ_i ∂²f/∂x_i², or tr(A H), as a function.

    Parameters
    ----------
    fun
        A chain or any JAX function that returns one real number.
    argnum
        Which argument to differentiate with respect to; default: of a chain its input, else the first.
    weights
        A, for an argument of n numbers: like the argument, the diagonal of A; a matrix (n, n); or a pair (B, C) of
        (n, r) each, A = B Cᵀ, which takes r columns in place of n. ``None``: the identity.
    chunk_size
        How many columns are pushed at once; ``None``: as many as keep what is pushed to some 64 MiB.

    Returns
    -------
    callable
        Takes the arguments of ``fun``, returns one number in the argument's dtype; its ``plan`` tells how. Works
        under ``jit``, ``vmap`` and ``grad``. At a kink, such as ReLU's, the second derivative is zero, as in JAX.

    Raises
    ------
    ValueError
        If ``chunk_size`` is below 1; from the call, if ``argnum`` names no argument, the function returns more than
        one number, or the weights have another shape.
    ModeError
        A `TypeError`, from the call, if the argument or the result is complex, or an integer one (take real and
        imaginary parts, each as a function of its own, or cast), or there is no second derivative (names the stage).
    TypeError
        From the call, if ``argnum`` is no integer, the argument is no floating-point one, or a tuple of arguments is
        given for them.

    References
    ----------
    Li et al., A computational framework for neural network-based variational Monte Carlo with forward Laplacian,
    Nature Machine Intelligence 2024; Dangel et al., Collapsing Taylor mode automatic differentiation, 2025.

    Examples
    --------
    >>> float(jc.laplacian(lambda x: jnp.sum(x**3))(jnp.array([1.0, 2.0])))  # 6 Σ x
    18.0
    >>> float(jc.laplacian(lambda x: jnp.sum(x**3), weights=jnp.array([1.0, 0.5]))(jnp.array([1.0, 2.0])))
    12.0
    """
    return _by_columns("laplacian", fun, argnum, chunk_size, weights)


def hessian_diagonal(
    fun: Callable[..., Any], argnum: int | None = None, *, chunk_size: int | None = None
) -> SecondDerivative:
    """The diagonal of the Hessian, ∂²f/∂x_i² for every i, as a function.

    Parameters
    ----------
    fun
        A chain or any JAX function that returns one real number.
    argnum
        Which argument to differentiate with respect to; default: of a chain its input, else the first.
    chunk_size
        As in `laplacian`.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns a pytree like that argument. Its ``plan`` tells how.

    Raises
    ------
    ValueError, ModeError, TypeError
        As `laplacian`.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4 and ch. 8.

    Examples
    --------
    >>> jc.hessian_diagonal(lambda x: jnp.sum(x) ** 2 + jnp.sum(x**3))(jnp.array([1.0, 2.0])).tolist()  # 2 + 6x
    [8.0, 14.0]
    """
    return _by_columns("hessian_diagonal", fun, argnum, chunk_size)


def _by_columns(
    name: Literal["laplacian", "hessian_diagonal"],
    fun: Callable[..., Any],
    argnum: int | None,
    chunk_size: int | None,
    weights: Any = None,
) -> SecondDerivative:
    check_function(fun, name)
    asked, kept, traces = Pass(chunk_size), Kept(2), name == "laplacian"

    def decided(call: Call, found: Found, form: Weights) -> tuple[Found, HessianPlan]:
        afresh = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(call.chosen))
        mark = None if afresh else found.mark
        return planned(call, found, form) if mark is None else kept.get(mark, lambda: planned(call, found, form))

    def planned(call: Call, found: Found, form: Weights) -> tuple[Found, HessianPlan]:
        pairs = form.other is not None
        return found, decide_second(found, "columns", "auto", call.argument, form.form, pairs=pairs)

    def of_arguments(*args: Any, **kwargs: Any) -> Any:
        out = PartitionSpec() if traces else layout(fun, argnum, args, name)
        return laid_out_by_compiler(run, out, args, kwargs, weights)

    def run(args: tuple[Any, ...], kwargs: dict[str, Any], weights: Any) -> Any:
        call, found = read_scalar(fun, argnum, args, kwargs, name)
        chosen = arrays(call)
        here = Coordinates.of(chosen)
        form = weights_of(weights, here)
        found, way = decided(call, found, form)
        with refused_in_words(way.mode, named.__name__, ""):
            total = traces and form.each is None
            each = _columns(found, way, chosen, form, _at_once(asked, found, form), total=total)
        if not traces:
            return here.unflatten(each)
        return (each if form.each is None else jnp.vdot(each, form.each)).astype(here.dtype)

    def plan(*args: Any, **kwargs: Any) -> HessianPlan:
        args, kwargs = without_layout((args, kwargs))
        call, found = read_scalar(fun, argnum, args, kwargs, name)
        return decided(call, found, weights_of(weights, Coordinates.of(found.input)))[1]

    named = named_like(fun, of_arguments, "The Laplacian" if traces else "The Hessian's diagonal")
    whose = getattr(fun, "__name__", type(fun).__name__)
    named.__name__, named.__qualname__ = getattr(fun, "__name__", name), f"{name}({whose})"
    head, own = named.__doc__.partition("\n")[::2]
    named.__doc__ = (
        f"{head}\n\nIts ``plan(*args)`` tells how a call with these arguments is computed, and why.\n{own}".rstrip()
    )
    named.plan = plan
    return named


def _at_once(asked: Pass, found: Found, form: Weights) -> Pass:
    """The chunks that were asked for, else such that the widest value of all columns stays within bounds."""
    if asked.chunk_size is not None:
        return asked
    made = (var for equation in found.program.equations for var in equation.writes if is_inexact(var))
    widest = max((size_of(var) * var.aval.dtype.itemsize for var in made), default=1)  # pyright: ignore[reportAttributeAccessIssue]
    chunk = max(BYTES // max(widest, 1), 1)
    return asked if chunk >= form.form.columns else Pass(chunk)


@precisely_as(lambda found, *_: found.program)
def _columns(
    found: Found, way: HessianPlan, chosen: Any, form: Weights, how: Pass, *, total: bool = False
) -> jax.Array:
    """qᵀ H p of every column, or the total of them, in the decided way."""
    if way.mode not in ("stages", "sparse"):
        each = _by_products(of_input(found), chosen, way.mode, form, how)
        return jnp.sum(each) if total else each
    if way.terms and way.mode == "stages":
        parts = [sign * _columns(term, plan, chosen, form, how, total=total) for sign, term, plan in way.terms]
        return jnp.sum(jnp.stack(parts), axis=0)
    found.report(chosen, {})
    if way.mode == "stages":
        assert way.order is not None
        assert way.stretch is not None
        at = point(way.order, (chosen, {}), how)
        return columns(at, way.stretch, form.seed, form.other, how, total=total)
    assert way.star is not None
    wanted = way.star.unit.segment.sides
    state, values = state_and_sides(found, (chosen, {}), [wanted])
    each = way.star.diagonal([values[v] for v in wanted], state, how.chunk_size)
    return jnp.sum(each) if total else each


def _by_products(fn: Callable[[Any], Any], chosen: Any, mode: Product, form: Weights, how: Pass) -> jax.Array:
    """The same of the whole function's own products."""
    if isinstance(form.seed, Identity) and form.other is None and mode != "forward-over-forward":
        times, size, dtype = product(fn, chosen, mode), form.seed.size, form.seed.dtype
        if how.chunk_size is None:
            return jnp.diagonal(how.map(times, form.seed.dense()))
        return how.map(lambda k: times(jax.nn.one_hot(k, size, dtype=dtype))[k], jnp.arange(size))
    of = paired_by(fn, chosen, mode)
    return over_columns(lambda p, q: of(p if q is None else q, p), form.seed, form.other, how)
