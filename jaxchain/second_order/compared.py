"""`compare_modes`: every mode of `jacobian` or `hessian` on one function, side by side, in one run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxchain.arguments import one_after_another
from jaxchain.checks import UNASKED, check_limit, flag, integer, number, word
from jaxchain.derivative import Pass
from jaxchain.jacobians.compare import Limits, Told, compare, compare_jacobians
from jaxchain.jacobians.comparison import Comparison
from jaxchain.meshes import gathered
from jaxchain.second_order.hessians import compute_hessian, decide_hessian, refuse_huge_hessian
from jaxchain.second_order.products import PRODUCTS
from jaxchain.second_order.scalar import read_scalar
from jaxchain.second_order.ways import HessianPlan

__all__ = ["compare_modes"]

TIME_LIMIT = 30.0
"""Seconds that one mode may run unasked."""

Compared = Literal["jacobian", "hessian"]


def compare_modes(
    fun: Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    of: Compared = "jacobian",
    chunk_size: int | None = None,
    repeats: int = 5,
    memory_limit: int | None = None,
    time_limit: float | None = TIME_LIMIT,
    progress: bool = True,
) -> Comparison:
    """Compute the Jacobian, or the Hessian, of ``fun`` at ``args`` in every mode; compare work, memory, time, result.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays or pytrees.
    args
        Its arguments.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    of
        ``"jacobian"``: every mode of `jaxchain.jacobian`; ``"hessian"``: every mode of `jaxchain.hessian`, of a function
        of one number.
    chunk_size
        As there.
    repeats
        Timed calls a mode; the median is reported.
    memory_limit
        Most bytes of one of the results, and of the temporary memory of a mode that is run, where 4 GiB are not
        enough.
    time_limit
        Seconds that one mode may run. What is predicted to take longer is not run: its row holds the prediction,
        and a note says so. What turns out to be slow is timed less often. ``None``: no limit.
    progress
        On a terminal, show which mode is under way.

    Returns
    -------
    Comparison
        ``.rows``, one a mode; ``print`` it. It compiles and runs, so it is no part of a traced
        program.

    Raises
    ------
    ValueError
        If ``argnum``, ``chunk_size``, ``repeats`` or ``time_limit`` is out of range, or the result is huge.
    TypeError
        If no mode exists, as for an input that is not floating point.

    Notes
    -----
    ``auto`` runs what `jacobian`, or `hessian`, decides. A mode that does not exist for a function (forward mode through a custom
    VJP, reverse mode through a while loop) has no row, and a note says why.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3 and 4 (what the modes cost).

    Examples
    --------
    >>> modes = jc.compare_modes(lambda x: jnp.tanh(x), jnp.ones(64), repeats=1)
    >>> [row.mode for row in modes.rows]
    ['forward', 'reverse', 'mixed', 'auto']
    >>> modes = jc.compare_modes(lambda x: jnp.sum(jnp.tanh(x)), jnp.ones(64), of="hessian", repeats=1)
    >>> modes["auto"].flops < modes["forward-over-reverse"].flops / 10
    True
    """
    repeats = integer("repeats", repeats, "the number of timed calls a mode", least=1)
    word("of", of, get_args(Compared))
    how = Pass(chunk_size)
    check_limit(memory_limit)
    number("time_limit", time_limit, "a number of seconds", optional=True)
    limits = Limits(repeats, math.inf if time_limit is None else time_limit, max(UNASKED, memory_limit or 0))
    shown = flag("progress", progress) and sys.stderr.isatty()
    with one_after_another(fun, args, "compare_modes"):
        if of == "hessian":
            return _hessians(fun, args, argnum, how, limits, shown)
        return compare_jacobians(fun, args, argnum, how, limits, memory_limit, shown)


def _hessians(
    fun: Callable[..., Any], args: tuple[Any, ...], argnum: int | None, how: Pass, limits: Limits, shown: bool
) -> Comparison:
    """Every mode of `jaxchain.hessian`, side by side."""
    call, found = read_scalar(fun, argnum, gathered(args), {}, "compare_modes")
    refuse_huge_hessian(found)
    auto = decide_hessian(found, "auto", call.argument)
    ways: dict[str, HessianPlan] = {mode: replace(auto, mode=mode) for mode in PRODUCTS}
    ways |= {mode: replace(auto, mode=mode) for mode in ("stages", "sparse") if mode in auto.costs}
    ways["auto"] = auto

    def computing(way: HessianPlan) -> Callable[..., Any]:
        return lambda chosen: compute_hessian(found, way, jax.tree.map(jnp.asarray, chosen), how)

    predicted = {mode: cost for mode, cost in auto.costs.items() if math.isfinite(cost)}
    if auto.mode in predicted:
        predicted["auto"] = predicted[auto.mode]
    told = Told(predicted, (f"auto runs {auto.mode.replace('-', ' ')}: {auto.why}",), "Hessian", PRODUCTS[0])
    return compare(
        {mode: computing(way) for mode, way in ways.items()}, (call.chosen,), told, call.argument, {}, limits, shown
    )
