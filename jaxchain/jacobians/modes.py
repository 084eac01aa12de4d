"""`jacobian`: a drop-in for ``jax.jacfwd`` and ``jax.jacrev`` that plans the cheapest way.

Forward mode costs one tangent a column, reverse mode one cotangent a row; a plan brackets the
product of the stages' Jacobians in between. The function is traced once, and what is decided is run on
that trace: call it under ``jax.jit``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxchain.arguments import check_args, default_argnum, differentiated
from jaxchain.checks import check_function, check_limit, flag, refuse_huge, shown, word
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import ALL_AT_ONCE, Linear, Pass, whole
from jaxchain.discovery.find import Found
from jaxchain.errors import REFUSALS, first_line, refused_in_words
from jaxchain.jacobians.blocks import Call, as_blocks, named_like, require_real
from jaxchain.jacobians.decision import Decision, Mode, Way, decide
from jaxchain.jacobians.execute import by_colours, execute
from jaxchain.jacobians.within import SIMPLE, Run, compiled, within
from jaxchain.meshes import laid_out_where_made, sharding_of
from jaxchain.program.fingerprint import Kept
from jaxchain.program.precision import precisely

HOLOMORPHIC = "The function is promised to be holomorphic, and JAX's own modes know what that means."

WAY_OUT = 'mode="auto", the default, takes what exists.'

__all__ = ["JacobianFunction", "compute", "jacobian", "plan"]


class JacobianFunction(Protocol):
    """What `jacobian` returns: the Jacobian at some arguments, and the decision that this very call takes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The Jacobian."""
        ...

    def plan(self, *args: Any, **kwargs: Any) -> Decision:
        """How the call with these arguments, or with ones of these shapes, would be computed, and why."""
        ...


def jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] | None = None,
    *,
    mode: Mode = "auto",
    chunk_size: int | None = None,
    memory_limit: int | None = None,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> JacobianFunction:
    """The Jacobian of ``fun`` as a function, with the result and pytree structure of ``jax.jacrev``.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays or pytrees.
    argnums
        Which positional arguments to differentiate with respect to; default: of a chain its input, else the
        first.
    mode
        ``"forward"``: one tangent a column; ``"reverse"``: one cotangent a row; ``"mixed"``: the
        cheapest order of multiplying the stages' Jacobians, those that can be read off the program
        among them, and those of which positions that do not mix need one block each; ``"sparse"``: the whole function's pattern, coloured (needs the extra ``sparse``);
        ``"auto"``: the cheapest of these, a simple mode where the others save little.
    chunk_size
        How many columns or rows are computed at once; ``None``: all. Bounds the memory. Real
        inputs and outputs only.
    memory_limit
        Most temporary memory in bytes, as XLA's ``memory_analysis`` measures it; picks the cheapest
        way and the largest chunks that respect it. Costs a few compilations; what was measured is what runs,
        one program, outside ``jit`` too. A result above 4 GiB is made only where as much is allowed here, or under
        ``jit``; `jaxchain.jacobian_blocks` makes one that is larger than memory.
    sharding
        Spreads the rows of a basis over devices: a `jax.sharding.Mesh`, over its first axis, or a
        `jax.sharding.NamedSharding`, over what its first axis is. Every device evaluates the function, sends its
        share of the vectors through it, and keeps what they give: rows of the result, or in forward mode
        columns; ``chunk_size`` is that of all devices together. Arguments stay as they are given, replicated or
        spread. ``None``: as JAX decides. What is coloured takes few vectors, and is not spread.
    has_aux
        Whether ``fun`` returns ``(output, aux)``; the result is then ``(jacobian, aux)``.
    holomorphic
        Whether ``fun`` is promised to be holomorphic: one of the simple modes is then run.

    Returns
    -------
    JacobianFunction
        Takes the arguments of ``fun``; works under ``jit``, ``vmap``, ``grad`` and itself. Its ``plan``,
        of arguments or of their shapes, is the decision that the call takes. Dtypes are those of
        ``jax.jacrev``, in ``mode="forward"`` those of ``jax.jacfwd``. Where a slope is infinite, entries
        that structure knows to be zero are zero, not NaN. Where a program casts to fewer bits, so are tangents
        and cotangents that pass there, as in JAX: orders of multiplication agree within the coarsest dtype's
        rounding.

    Raises
    ------
    ValueError
        If the mode is unknown, ``chunk_size`` is below 1, or ``memory_limit`` cannot be met (says
        the least that can); from the call, if the result is huge.
    ImportError
        From the call, if ``mode="sparse"`` and the extra is not installed.
    TypeError
        From the call, if an input or output is not floating point.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3.

    Examples
    --------
    >>> jac = jc.jacobian(lambda x: jnp.sum(x**2))
    >>> jac(jnp.array([1.0, 2.0, 3.0])).tolist()  # 2x
    [2.0, 4.0, 6.0]
    >>> jac.plan(jnp.ones(3)).mode
    'reverse'
    """
    flag("has_aux", has_aux)
    _check(fun, mode, chunk_size, memory_limit, sharding, holomorphic)
    how = Pass(chunk_size, sharding_of(sharding))
    argnums = default_argnum(fun) if argnums is None else argnums
    as_it_is = how == ALL_AT_ONCE and memory_limit is None
    way_out = "" if mode == "auto" else WAY_OUT

    def decided(call: Call) -> tuple[Found | None, Decision, Run | None]:
        if holomorphic:
            way = "forward" if mode == "forward" else "reverse"
            return None, Decision(way, None, HOLOMORPHIC, call.argument), None
        read = _read(call, mode, strict=not as_it_is)
        if isinstance(read, Decision):
            return None, read, None
        # The function is traced at every call, since it may close over what changes; planned where its program is new.
        afresh = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(call.chosen))
        mark = None if afresh else read.mark
        return planned(call, read) if mark is None else kept.get(mark, lambda: planned(call, read))

    def planned(call: Call, read: Found) -> tuple[Found | None, Decision, Run | None]:
        found, decision = _decided(call, read, mode, strict=not as_it_is)
        if found is None:
            return None, decision, None
        if memory_limit is None:
            return found, decision, partial(of_found, found, decision)
        decision = within(memory_limit, found, decision, mode, of_found)
        return found, decision, compiled(partial(of_found, found, decision), found.shapes)

    kept = Kept(2)  # few, since a program holds its constants

    def jac(*args: Any, **kwargs: Any) -> Any:
        run = partial(jac_of, kwargs)
        return laid_out_where_made(run, how.sharding, *args, columns=mode == "forward")

    def jac_of(kwargs: dict[str, Any], *args: Any) -> Any:
        call = Call.of(fun, argnums, has_aux, args, kwargs)
        if as_it_is and (mode in ("forward", "reverse") or holomorphic):
            way = "forward" if mode == "forward" else "reverse"
            with refused_in_words(way, named.__name__, way_out):
                return _by_jax(call, way, holomorphic)
        found, decision, run = decided(call)
        if found is not None and sharding is None:  # who spreads it over devices means it
            _refuse_huge(call, found.out, memory_limit)
        with refused_in_words(decision.mode, named.__name__, way_out):
            if found is None or run is None:
                return _by_jax(call, decision.mode, holomorphic)
            try:
                return run(jax.tree.map(jnp.asarray, call.chosen), {})  # 2.0 has no shape, and its Jacobian has one
            except Exception:
                # A rule that keeps something from its forward to its backward pass may be run once a trace.
                if mode != "auto" or not as_it_is or not found.foreign:
                    raise
                return _by_jax(call, _existing(call))

    def of_found(found: Found, decision: Decision, chosen: Any, others: Any) -> Any:
        chunked = how if decision.chunk_size is None else replace(how, chunk_size=decision.chunk_size)
        result = compute(found, decision, (chosen, others), chunked, like_output=mode == "forward")
        return (result, found.aux(chosen, others)) if has_aux else result

    def plan(*args: Any, **kwargs: Any) -> Decision:
        return decided(Call.of(fun, argnums, has_aux, args, kwargs))[1]

    named = named_like(fun, jac, "The Jacobian")
    named.plan = plan
    return named


def _check(fun: Any, mode: Any, chunk_size: Any, memory_limit: Any, sharding: Any, holomorphic: bool) -> None:
    check_function(fun, "jacobian")
    word("mode", mode, get_args(Mode))
    flag("holomorphic", holomorphic)
    check_limit(memory_limit)
    if holomorphic and mode in ("mixed", "sparse"):
        msg = f'mode="{mode}" multiplies real Jacobians; leave it out where holomorphic=True.'
        raise ValueError(msg)
    if holomorphic and (chunk_size is not None or sharding is not None):
        msg = "chunk_size computes real Jacobians; leave it out, and sharding, where holomorphic=True."
        raise ValueError(msg)
    if sharding is not None and mode == "sparse":
        msg = f"sharding spreads the vectors of a basis, of which colours have few, but {shown(sharding)} was given with mode='sparse'. Leave out one of the two."
        raise ValueError(msg)
    if memory_limit is not None and (chunk_size is not None or holomorphic):
        msg = "memory_limit chooses the chunks itself, of real Jacobians: leave chunk_size and holomorphic out."
        raise ValueError(msg)


def plan(
    fun: Callable[..., Any], args: tuple[Any, ...], *, argnum: int | None = None, memory_limit: int | None = None
) -> Decision:
    """How `jacobian` would compute the Jacobian of ``fun`` with respect to one argument, and why.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    args
        Its arguments, as arrays or ``jax.ShapeDtypeStruct``.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    memory_limit
        Most temporary memory in bytes: finds the way and the largest ``chunk_size`` that keep within it,
        at the price of a few compilations.

    Returns
    -------
    Decision
        ``print`` it.

    Raises
    ------
    TypeError, ValueError
        As `jaxchain.discover`; if the limit cannot be met (says the least that can).

    References
    ----------
    Naumann, arXiv 2406.11862.

    Examples
    --------
    >>> net = jc.nets.autoencoder([784, 32])
    >>> shapes = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((784,), jnp.float32)
    >>> jc.plan(net, shapes).mode
    'mixed'
    """
    check_args(args)
    check_function(fun, "plan")
    check_limit(memory_limit)
    call = Call.of(fun, differentiated(fun, argnum, args), False, args, {})
    found = call.find()  # what cannot be read is an error here, where jacobian would do without
    require_real(found)
    decision = decide(found, "auto", call.argument)
    if memory_limit is None:
        return decision

    def run(found: Found, decision: Decision, *given: Any) -> Any:
        return compute(found, decision, given, Pass(decision.chunk_size))

    return within(memory_limit, found, decision, "auto", run)


def _read(call: Call, mode: Mode, *, strict: bool) -> Found | Decision:
    """What was traced; unless ``strict``, the decision where JAX alone knows what to do."""

    def by_jax(way: Any, why: str) -> Decision:
        return Decision(way, None, why, call.argument)

    try:
        found = call.find()
    except TypeError as error:
        # It looks at values, as reverse mode outside jit allows; it has side effects; or it is no function of numbers.
        if mode != "auto" or strict:
            raise
        return by_jax("reverse", f"The function could not be read: {first_line(error)}.")
    leaves = *jax.tree.leaves(found.input), *jax.tree.leaves(found.out)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves) or not jax.tree.leaves(found.out):
        if strict or mode in ("mixed", "sparse"):
            require_real(found)
        if mode in ("forward", "reverse"):
            return by_jax(mode, f'mode="{mode}" was asked for.')
        # Complex values have conventions, and what is no number errors, of JAX's own; a complex output needs forward mode.
        complex_out = any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(found.out))
        return by_jax(
            "forward" if complex_out else "reverse",
            "Not all of the input and output is real, and then JAX knows best which conventions hold.",
        )
    return found


def _decided(call: Call, found: Found, mode: Mode, *, strict: bool) -> tuple[Found | None, Decision]:
    """How to go about what was traced; without it, unless ``strict``, where no plan of it can be made."""
    try:
        decision = decide(found, mode, call.argument)
        if mode == "auto" and decision.mode not in SIMPLE and found.foreign:
            # A rule that others wrote may refuse what a plan asks of it, which only running it tells.
            jax.eval_shape(partial(compute, found, decision), (found.input, {}))
    except Exception as error:
        if mode != "auto" or strict:
            raise
        why = f"No plan could be made: {first_line(error)}."
        return None, Decision(_existing(call), None, why, call.argument)
    return found, decision


def _existing(call: Call) -> Literal["forward", "reverse"]:
    """The simple mode of fewer vectors, or the other where that does not exist; the function is read anew."""
    few = Coordinates.of(call.chosen).size < Coordinates.of(jax.eval_shape(call.output, call.chosen)).size
    first, second = ("forward", "reverse") if few else ("reverse", "forward")
    try:
        jax.eval_shape(lambda chosen: whole(call.output, chosen, first), call.chosen)
    except REFUSALS:
        return second
    return first


def _by_jax(call: Call, mode: Way, holomorphic: bool = False) -> Any:
    """The Jacobian of the function as it is, by one of JAX's own; with aux, where it has some."""

    def output(chosen: Any) -> tuple[Any, Any]:
        out, aux = call(chosen)
        _refuse_huge(call, out)  # in reverse mode before there is a basis
        return out, aux

    if mode == "forward":  # its basis is there before the function is called
        with contextlib.suppress(jax.errors.JAXTypeError):  # it looks at values
            _refuse_huge(call, jax.eval_shape(call.output, call.chosen))
    transform = jax.jacfwd if mode == "forward" else jax.jacrev
    result, aux = transform(output, has_aux=True, holomorphic=holomorphic)(call.chosen)
    return (result, aux) if call.has_aux else result


def _refuse_huge(call: Call, out: Any, asked: int | None = None) -> None:
    here, there = Coordinates.of(call.chosen), Coordinates.of(out)
    refuse_huge((there.size, here.size), here.dtype, asked=asked, limited=True)


def compute(
    found: Found, decision: Decision, args: tuple[Any, ...], how: Pass = ALL_AT_ONCE, *, like_output: bool = False
) -> Any:
    """Run a decision: the Jacobian at ``args``, as blocks in the dtypes of the input (or of the output)."""
    with precisely(found.program):
        return _computed(found, decision, args, how, like_output=like_output)


def _computed(found: Found, decision: Decision, args: tuple[Any, ...], how: Pass, *, like_output: bool) -> Any:
    position = found.argnum % len(args)

    def of_input(x: Any) -> Any:
        return found.call(*args[:position], x, *args[position + 1 :])

    chosen, mode = args[position], decision.mode
    if mode in ("forward", "reverse") and how == ALL_AT_ONCE:
        blocks = whole(of_input, chosen, mode)
        return blocks if mode == "reverse" or like_output else _like_input(blocks, chosen)
    if mode not in SIMPLE:
        found.report(*args)  # what is printed is in no plan
    if mode in ("forward", "reverse"):
        matrix = Linear(of_input, chosen).matrix(how, mode)
    elif decision.plan is not None and mode == "sparse" and decision.plan.whole is not None:
        matrix = by_colours(found, decision.plan.whole, args, how)
    else:
        assert decision.plan is not None
        matrix = execute(decision.plan, args, how)
    here, there = Coordinates.of(chosen), Coordinates.of(found.out)
    return as_blocks(matrix, here, there, like="output" if like_output else "input")


def _like_input(jac: Any, chosen: Any) -> Any:
    """A Jacobian by forward mode in the dtypes of reverse mode: each block in that of its input."""
    # jax.jacfwd gives blocks the output's dtype; which mode was cheaper must not show in the result.
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(chosen)]
    blocks, tree = jax.tree.flatten(jac)
    return tree.unflatten([block.astype(dtypes[k % len(dtypes)]) for k, block in enumerate(blocks)])
