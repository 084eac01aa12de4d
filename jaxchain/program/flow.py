"""What depends on what in a program: values that depend on some inputs, and values that carry a derivative from them.

Where JAX would keep a symbolic zero (integers, what `jax.lax.stop_gradient` stopped, a loop's counter or time that
no input moves) nothing carries a derivative; loops, branches and calls are followed inside, one result at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxchain.program.primitives import (
    FAMILY,
    WITHOUT_DERIVATIVE,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Var,
    branches_of,
    callee,
    custom_rule,
    function_of_equation,
    is_inexact,
    is_used,
    is_var,
    like,
    names_in,
    needed_eqns,
    of_some,
    opened,
    scan_of,
    while_of,
)

__all__ = ["active", "dependent", "fixed_draw", "moved_results", "reach"]

DRAWS = names_in("random") - frozenset(
    "from_edtype random_clone random_fold_in random_seed random_split random_unwrap random_wrap to_edtype".split()
)
"""What makes random numbers of a key; the others make, split and pack keys."""


def reach(equations: Iterable[JaxprEqn], inputs: Iterable[Var]) -> set[Var]:
    """``inputs`` and everything computed from them: all that an equation writes, where it reads one of them."""
    reached = set(inputs)
    # An equation runs as a whole: even a result that no input enters comes to be after all that the equation reads.
    for eqn in equations:
        if any(is_var(atom) and atom in reached for atom in eqn.invars):
            reached.update(filter(is_used, eqn.outvars))
    return reached


def active(equations: Iterable[JaxprEqn], inputs: Iterable[Var]) -> set[Var]:
    """Those of ``inputs`` that carry a derivative, and everything computed from them that does."""
    carrying = set(filter(is_inexact, inputs))
    for eqn in equations:
        marks = [is_var(atom) and atom in carrying for atom in eqn.invars]
        if any(marks):
            moved = zip(eqn.outvars, moved_results(eqn, marks), strict=True)
            carrying.update(var for var, moves in moved if moves and is_used(var) and is_inexact(var))
    return carrying


def dependent(equations: Iterable[JaxprEqn], inputs: Iterable[Var]) -> set[Var]:
    """``inputs`` and everything whose value they enter, one result of an equation at a time."""
    entered = set(inputs)
    for eqn in equations:
        marks = [is_var(atom) and atom in entered for atom in eqn.invars]
        if any(marks):
            follow = INSIDE.get(eqn.primitive.name, _call)
            changed = zip(eqn.outvars, follow(eqn, marks, dependent) or [True] * len(eqn.outvars), strict=True)
            entered.update(var for var, changes in changed if changes and is_used(var))
    return entered


def fixed_draw(program: ClosedJaxpr) -> JaxprEqn | None:
    """The first equation on the way to the results that draws random numbers from a key which no input enters."""
    found: list[JaxprEqn] = []

    def entered(equations: Iterable[JaxprEqn], inputs: Iterable[Var]) -> set[Var]:
        known = set(inputs)
        for eqn in equations:
            marks = [is_var(atom) and atom in known for atom in eqn.invars]
            if eqn.primitive.name in DRAWS and not any(marks):
                found.append(eqn)
            rule = custom_rule(eqn)
            if rule is not None and rule.body is not None:
                changed = _through(rule.body, marks, entered)
            else:
                changed = INSIDE.get(eqn.primitive.name, _call)(eqn, marks, entered) or [any(marks)] * len(eqn.outvars)
            known.update(var for var, changes in zip(eqn.outvars, changed, strict=True) if changes and is_used(var))
        return known

    jaxpr, _ = opened(program)
    entered(needed_eqns(jaxpr, jaxpr.outvars), jaxpr.invars)
    return found[0] if found else None


Marks = Sequence[bool]
Follow = Callable[[Iterable[JaxprEqn], Iterable[Var]], set[Var]]
"""`active`, `dependent`, or what `fixed_draw` follows by."""


def moved_results(eqn: JaxprEqn, marks: Marks) -> Marks:
    """Which results of an equation carry a derivative, given which operands do."""
    if eqn.primitive.name in WITHOUT_DERIVATIVE:
        return [False] * len(eqn.outvars)
    if (inside := INSIDE.get(eqn.primitive.name, _call)(eqn, marks, active)) is not None:
        return inside
    several = sum(map(is_inexact, eqn.outvars)) > 1
    if several and (eqn.primitive.name not in FAMILY or eqn.primitive.name == "custom_jvp_call"):
        return _by_rule(eqn, marks)
    return [True] * len(eqn.outvars)


def _by_rule(eqn: JaxprEqn, marks: Marks) -> Marks:
    """The same of a rule that JAX alone can read: its author may say that a result does not move, so JAX is asked."""
    reads, writes, call = function_of_equation(eqn)
    moving = {atom for atom, moves in zip(eqn.invars, marks, strict=True) if moves}
    moved = [k for k, var in enumerate(reads) if var in moving and is_inexact(var)]
    seen: list[bool] = []

    # The second operand always moves, so that the rule is always run.
    @jax.custom_jvp
    def look(value: Any, moves: Any) -> Any:
        del value
        return moves

    def rule(primals: Any, tangents: Any) -> Any:
        seen.append(not isinstance(tangents[0], SymbolicZero))
        return primals[1], tangents[1]

    look.defjvp(rule, symbolic_zeros=True)

    def pushed(values: list[Any]) -> Any:
        def of_moved(one: Any, *chosen: Any) -> Any:
            results = of_some(call, values, moved)(*chosen)
            return [look(out, one) for out in results if jnp.issubdtype(out.dtype, jnp.inexact)]

        primals = (1.0, *(values[k] for k in moved))
        return jax.jvp(of_moved, primals, jax.tree.map(jnp.ones_like, primals))

    try:
        jax.eval_shape(pushed, list(map(like, reads)))
    except Exception:  # a rule may refuse in any words; then whoever differentiates hears them
        return [True] * len(eqn.outvars)
    told = dict(zip(filter(is_inexact, writes), seen, strict=True))
    return [told.get(var, True) for var in eqn.outvars]


def _through(body: Jaxpr | ClosedJaxpr, marks: Marks, follow: Follow) -> Marks:
    jaxpr, _ = opened(body)
    carrying = follow(jaxpr.eqns, (var for var, moves in zip(jaxpr.invars, marks, strict=True) if moves))
    return [is_var(out) and out in carrying for out in jaxpr.outvars]


def _call(eqn: JaxprEqn, marks: Marks, follow: Follow) -> Marks | None:
    if FAMILY.get(eqn.primitive.name) == "pass":
        return marks
    body = callee(eqn)
    return None if body is None else _through(body, marks, follow)


def _cond(eqn: JaxprEqn, marks: Marks, follow: Follow) -> Marks:
    if marks[0] and follow is dependent:
        return [True] * len(eqn.outvars)
    each = [_through(branch, marks[1:], follow) for branch in branches_of(eqn)]  # which one carries no derivative
    return [any(ways) for ways in zip(*each, strict=True)]


def _scan(eqn: JaxprEqn, marks: Marks, follow: Follow) -> Marks:
    loop = scan_of(eqn)
    consts, rows = marks[: loop.consts], marks[loop.consts + loop.carries :]

    def step(carry: Marks) -> Marks:
        return _through(loop.body, [*consts, *carry, *rows], follow)

    carry = _settled(marks[loop.consts : loop.consts + loop.carries], step)
    return [*carry, *step(carry)[loop.carries :]]


def _while(eqn: JaxprEqn, marks: Marks, follow: Follow) -> Marks:
    loop = while_of(eqn)
    first = loop.predicate_consts + loop.body_consts
    consts = marks[loop.predicate_consts : first]
    carry = _settled(marks[first:], lambda carry: _through(loop.body, [*consts, *carry], follow))
    ends = follow is dependent and any(_through(loop.predicate, [*marks[: loop.predicate_consts], *carry], follow))
    return [True] * len(carry) if ends else carry


def _settled(carry: Marks, step: Callable[[Marks], Marks]) -> Marks:
    """A loop's carry, once one more step marks nothing new: each step but the last marks at least one."""
    while True:
        after = [was or moves for was, moves in zip(carry, step(carry), strict=False)]
        if after == list(carry):
            return after
        carry = after


INSIDE: dict[str, Callable[[JaxprEqn, Marks, Follow], Marks | None]] = {"cond": _cond, "scan": _scan, "while": _while}
"""Primitives that are followed inside, otherwise than a call is."""
