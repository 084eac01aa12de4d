"""What the derivative of a program costs, a tangent or a cotangent, read off the program of one JVP.

In that program everything that reads the tangent is linear in it. A tangent runs just these equations; a cotangent
runs their transposes, in reverse; the others are evaluated once, however many vectors follow, in a loop once a step. So
one trace prices both modes, and neither is compiled, nor reverse mode traced.

References: Radul et al., You only linearize once, POPL 2023, arXiv 2204.10923.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaxchain.cost.count import flops, summed
from jaxchain.program.fingerprint import repeated
from jaxchain.program.flow import moved_results
from jaxchain.program.primitives import (
    ELEMENTWISE,
    Atom,
    Jaxpr,
    JaxprEqn,
    Var,
    branches_of,
    callee,
    dot_of,
    is_inexact,
    is_used,
    is_var,
    needed_eqns,
    opened,
    scan_of,
    shape_of,
    size_of,
    while_of,
)

__all__ = ["Work", "linear_work"]


class Work(NamedTuple):
    """Floating-point operations of one tangent, and of one cotangent; infinite where there is no such mode.

    And what is evaluated ``once``, before the first of them.
    """

    tangent: float
    cotangent: float
    once: float = 0.0

    def times(self, count: float) -> Work:
        """As often."""
        return Work(*(part * count for part in self))

    def plus(self, other: Work) -> Work:
        """Both."""
        return Work(*(one + two for one, two in zip(self, other, strict=True)))


def linear_work(jaxpr: Jaxpr, moved: Iterable[Var], outs: Sequence[Atom] | None = None, *, exact: bool = False) -> Work:
    """What a program takes, of what is needed for its results: the part that is linear in some of its inputs, the rest.

    Parameters
    ----------
    jaxpr
        The program of a JVP.
    moved
        The tangents among its inputs.
    outs
        Those of its results that are asked for; default: all.
    exact
        Whether what is computed again counts once, which takes some time to find.
    """
    outs = jaxpr.outvars if outs is None else outs
    moving, uses, work = set(moved), Counter[Var](), Work(0.0, 0.0)
    eqns = needed_eqns(jaxpr, outs)
    for eqn, again in zip(eqns, repeated(eqns) if exact else [False] * len(eqns), strict=True):
        marks = [is_var(atom) and atom in moving for atom in eqn.invars]
        if not any(marks):
            work = work.plus(Work(0.0, 0.0, 0.0 if again else flops(eqn)))
            continue
        for var, moves in zip(eqn.outvars, moved_results(eqn, marks), strict=True):
            if moves and is_used(var) and is_inexact(var):
                moving.add(var)
        uses.update(atom for atom, moves in zip(eqn.invars, marks, strict=True) if moves and is_var(atom))
        vector = _of(eqn, marks).plus(Work(0.0, _stretched(eqn, marks)))
        # The same product of a tangent twice is one; on the way back there are two cotangents for it.
        work = work.plus(vector._replace(tangent=0.0, once=0.0) if again and math.isfinite(vector.tangent) else vector)
    uses.update(out for out in outs if is_var(out) and out in moving)
    # What is read in several places gets a cotangent from each, and they are added.
    joined = sum((times - 1) * size_of(var) for var, times in uses.items())
    return work.plus(Work(0.0, joined))


def _of(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    if (rule := RULES.get(eqn.primitive.name)) is not None:
        return rule(eqn, marks)
    if (body := callee(eqn)) is not None:
        return _inside(opened(body)[0], marks)
    work = flops(eqn)
    return Work(work, work)


def _stretched(eqn: JaxprEqn, marks: Sequence[bool]) -> float:
    """What the cotangents take of operands that an elementwise equation stretches: they are summed over the copies."""
    if eqn.primitive.name not in ELEMENTWISE:
        return 0.0
    out = size_of(eqn.outvars[0])
    return float(sum(out for atom, moves in zip(eqn.invars, marks, strict=True) if moves and 1 <= size_of(atom) < out))


def _inside(body: Jaxpr, marks: Sequence[bool]) -> Work:
    return linear_work(body, (var for var, moves in zip(body.invars, marks, strict=True) if moves))


def _scan(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    loop = scan_of(eqn)
    carried = moved_results(eqn, marks)[: loop.carries]  # what moves once moves in every later step
    inner = [*marks[: loop.consts], *carried, *marks[loop.consts + loop.carries :]]
    # What every step reads gets a cotangent from each, and they are added.
    read = sum(size_of(atom) for atom, moves in zip(eqn.invars, marks[: loop.consts], strict=False) if moves)
    return _inside(loop.body.jaxpr, inner).plus(Work(0.0, read)).times(loop.length)


def _while(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    loop = while_of(eqn)
    first = loop.predicate_consts + loop.body_consts
    inner = [*marks[loop.predicate_consts : first], *moved_results(eqn, marks)]
    return _inside(loop.body.jaxpr, inner)._replace(cotangent=math.inf)  # its body counts once: nobody knows the trips


def _cond(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    each = [_inside(branch.jaxpr, marks[1:]) for branch in branches_of(eqn)]
    return Work(*map(max, zip(*each, strict=True)))


def _broadcast(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    """Its transpose sums over the copies."""
    del marks
    before, after = size_of(eqn.invars[0]), size_of(eqn.outvars[0])
    return Work(0.0, float(after) if after > before else 0.0)


def _dot(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    """Its transpose sums along what the operand that stays has for itself: nothing, where its products are outer ones."""
    moving, still = sorted(range(2), key=marks.__getitem__, reverse=True)
    shape = shape_of(eqn.invars[still])
    own = math.prod(shape[axis] for axis in dot_of(eqn).free(still, len(shape)))
    return Work(flops(eqn), summed(size_of(eqn.invars[moving]), own))


def _gather(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    """Its transpose adds what was looked up in several places."""
    del marks
    return Work(0.0, float(size_of(eqn.outvars[0])))


def _sum(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    """Its transpose copies."""
    del marks
    return Work(flops(eqn), 0.0)


def _difference(eqn: JaxprEqn, marks: Sequence[bool]) -> Work:
    """Of two operands that move, only the second is negated on the way back."""
    return Work(flops(eqn), float(size_of(eqn.outvars[0])) if marks[1] else 0.0)


RULES: dict[str, Callable[[JaxprEqn, Sequence[bool]], Work]] = {
    **dict.fromkeys(["add", "add_any", "reduce_sum"], _sum),
    "broadcast_in_dim": _broadcast,
    "cond": _cond,
    "custom_lin": lambda *_: Work(math.inf, math.inf),  # forward mode through a custom VJP
    "dot_general": _dot,
    "gather": _gather,
    "scan": _scan,
    "sub": _difference,
    "while": _while,
}
"""Primitive → work of an equation, given which operands move. Without a rule a transpose takes as much as the equation."""
