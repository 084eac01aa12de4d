"""Where a chain begins whose argument is integers, such as tokens: at the first floating-point value that all depends on it through.

Integers have no derivative. What an array of numbers is looked up by them, though, has one, and where everything after
depends on them through one such value alone, it is the state x_0. What is made of integers without any array of
numbers (a mask of padding) has none either, and is a side value. Builds on the cut rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxchain.discovery.cuts import cuts, live_sets
from jaxchain.discovery.name import word
from jaxchain.program.flat import Equation, Program, needed
from jaxchain.program.flow import active, reach
from jaxchain.program.primitives import RESHAPING, Var, is_inexact, is_var
from jaxchain.program.segment import Segment
from jaxchain.show.shapes import describe

__all__ = ["all_integers", "first_state", "way_to"]

INTEGERS = object()
"""Stands for all that is not floating point, where values are counted: read by what makes the first floating-point ones."""


class _Flow(NamedTuple):
    """Equations that make floating-point values of integers, or of other such values; their reads, writes, results."""

    equations: list[Equation]
    reads: list[list[Any]]
    writes: list[list[Any]]
    outs: list[Any]


def all_integers(tree: Any) -> bool:
    """Whether a pytree is of integers and booleans alone."""
    dtypes = [
        leaf.dtype if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf).dtype
        for leaf in jax.tree.leaves(tree)
    ]
    return bool(dtypes) and all(jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_ for dtype in dtypes)


def first_state(program: Program, integers: Sequence[Var]) -> Var:
    """The first floating-point value that everything after depends on ``integers`` through.

    Raises
    ------
    TypeError
        If there is none; says what crosses.
    """
    entered = reach(program.eqns, integers)
    numbers = filter(is_inexact, (*program.invars, *program.constants))
    # Where arrays that the function closed over count, such as a model's parameters, an array of a mask's numbers does,
    # too: it may stand in the way, so both are tried.
    flows = [_flow(program, entered & set(carrying)) for carrying in (program.carrying, active(program.eqns, numbers))]
    found = list(filter(None, map(_first_cut, flows)))
    if not found:
        raise TypeError(_refusal(describe([var.aval for var in integers]), flows))
    made = {var: number for number, equation in enumerate(program.equations) for var in equation.writes}
    return min(found, key=made.__getitem__)


def _first_cut(flow: _Flow) -> Any:
    """The first value that cuts, in the shape that it is first computed with; ``None`` if there is none."""
    found = cuts(*flow[1:3], [INTEGERS], flow.outs, may_cut=lambda value: value is not INTEGERS)
    if not found:
        return None
    positions = [found[0].position, *(cut.position for cut in found)]
    shaped = itertools.takewhile(
        lambda k: all(e.name in RESHAPING for e in flow.equations[positions[k] : positions[k + 1]]), range(len(found))
    )
    (state,) = found[max(shaped)].values
    return state


def way_to(program: Program, integers: Sequence[Var], state: Var) -> Segment:
    """What makes the start state of integers."""
    entered = reach(program.eqns, integers)
    made = [e for e in needed(program.equations, [state]) if any(var in entered for var in e.reads)]
    return Segment(tuple(made), tuple(integers), (state,), program)


def _flow(program: Program, moving: Collection[Var]) -> _Flow:
    equations = [e for e in program.needed() if any(var in moving for var in e.writes)]
    reads: list[list[Any]] = [[var for var in e.reads if var in moving] or [INTEGERS] for e in equations]
    writes: list[list[Any]] = [[var for var in e.writes if var in moving] for e in equations]
    return _Flow(equations, reads, writes, [out for out in program.outs if is_var(out) and out in moving])


def _refusal(given: str, flows: Sequence[_Flow]) -> str:
    way_out = "Choose another argnum, or make the value that is to be differentiated an argument of its own."
    flow = next((flow for flow in flows if flow.outs), None)
    if flow is None:
        return (
            f"The chain input is {given[1:-1]}, which has no derivative, and no array of numbers is looked up by it on "
            f"the way to the result. {way_out} Are floating-point numbers meant, such as 2.0 instead of 2?"
        )
    crossing = [set(live) for live in live_sets(*flow[1:3], [INTEGERS], flow.outs)][:-1]
    if not crossing:
        what = "the result itself is the first floating-point value that depends on it, so nothing comes after"
    else:
        place = min(
            range(len(crossing)), key=lambda k: (INTEGERS in crossing[k], len(crossing[k]), abs(k - len(crossing) / 2))
        )
        makers = {var: word(e) for e in flow.equations for var in e.writes}
        values = [
            "the integers themselves" if v is INTEGERS else f"{makers[v]} {v.aval.str_short(short_dtypes=True)}"
            for v in crossing[place]
        ]
        what = f"no single floating-point value cuts its way to the result: even at the narrowest place there cross {' and '.join(sorted(values))}"
    return f"The chain input is {given[1:-1]}, which has no derivative, and {what}. {way_out}"
