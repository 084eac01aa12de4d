"""`checkpoint`: the same function, whose reverse mode keeps within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxchain.checks import check_function, check_limit, check_offload
from jaxchain.jacobians.blocks import named_like
from jaxchain.memory.plan import MemoryPlan, plan_of, traced
from jaxchain.memory.rebuild import Rebuilt
from jaxchain.program.fingerprint import Kept, mark_of

__all__ = ["checkpoint"]


def checkpoint(fun: Callable[..., Any], memory_limit: int, *, offload: float | None = None) -> Callable[..., Any]:
    """The same function; its reverse mode keeps at most so many bytes, for the least extra work.

    States are kept, or stages run again, by `memory_plan`; inside a stage the values whose making is dear are kept and
    the others made of them again; a ``jax.lax.scan`` becomes loops within loops, or is written out if it is short. All of
    it is ``jax.checkpoint``, so that forward mode, ``jit``, ``vmap`` and higher derivatives work as they do there. What is
    predicted is reverse mode with one cotangent, as for a gradient: of a Jacobian whose rows are pulled all at once the
    limit holds for each. Bytes are counted from the program, not asked of XLA: dense, convolutional and attention
    networks and loops keep within the limit; what loops stack for wide layers after them took up to 1.3 times the
    smallest limits. What the function prints is not printed (a warning says so), and modules whose state changes as they
    are called (``nnx``) are to be split first.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays.
    memory_limit
        Most temporary memory of its value and VJP, in bytes; arguments, results and gradients of arguments are none.
    offload
        What a byte sent to the host's memory and back counts as, in FLOPs, about 10⁴ on an accelerator: a loop may then
        keep there what its steps need. ``None``: nothing is sent.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; ``.plan(*args)`` is the `MemoryPlan` of a call.

    Raises
    ------
    TypeError
        If ``fun`` is not callable; from the call, if it cannot be traced to a program, or lies in a ``jax.shard_map``.
    ValueError
        If ``memory_limit`` is below 1, or ``offload`` is negative; from the call, if the limit cannot be met
        (says the least that can).

    References
    ----------
    As `memory_plan`.

    Examples
    --------
    >>> def deep(w, x):
    ...     return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(w @ x), None), x, w)[0])
    >>> w, x = jnp.full((50, 32, 32), 0.03), jnp.ones((32, 64))
    >>> lean = jc.checkpoint(deep, memory_limit=10**6)
    >>> jnp.allclose(jax.grad(lean)(w, x), jax.grad(deep)(w, x), rtol=1e-4).item()
    True
    """
    check_function(fun, "checkpoint")
    check_limit(memory_limit, optional=False)
    offload = check_offload(offload)
    plans = Kept(2)  # few, since a program holds its constants

    def planned(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[MemoryPlan, Any]:
        # Traced at every call, since it may close over what changes; planned where its program is new.
        closed, out = traced(fun, args, kwargs)
        if (mark := mark_of(closed)) is None:
            return plan_of(closed, memory_limit, offload), out
        return plans.get(mark, lambda: plan_of(closed, memory_limit, offload)), out

    def lean(*args: Any, **kwargs: Any) -> Any:
        plan, out = planned(args, kwargs)
        results = Rebuilt(plan.pieces, plan.parts)(*jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(out), results)

    named = named_like(fun, lean, f"A function that keeps within {memory_limit} bytes")
    named.plan = lambda *args, **kwargs: planned(args, kwargs)[0]
    return named
