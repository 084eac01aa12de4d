"""What a program adds to what is linear in it: JAX's transposes leave constants out, and would pass x + 1 for linear.

Every value is zero, fixed (whatever else does not depend on the inputs asked about), or linear in those.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxchain.program.primitives import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    branches_of,
    callee,
    is_inexact,
    is_var,
    names_in,
    opened,
    scan_of,
)

__all__ = ["adds_nothing"]


class Kind(IntEnum):
    """What a value is; of two that meet, the greater one."""

    ZERO = 0
    LINEAR = 1
    FIXED = 2


TOGETHER = {"add": 2, "add_any": 2, "concatenate": None, "dynamic_update_slice": 2, "pad": 2, "stack": None, "sub": 2}
"""Primitives whose operands, the first so many, are added or come to lie side by side."""

KEEPS_ZERO = names_in("layout", "reduction", "cumulative") | {"convert_element_type", "copy", "neg", *TOGETHER}
"""Primitives that make zeros of zeros alone."""

PRODUCTS = {"div": 1, "dot_general": 2, "mul": 2}
"""Primitives that make zeros where one operand is zero, and which of their operands may be that: the first so many."""

PASSED = names_in("pass")
"""Primitives whose results are their operands."""


def adds_nothing(program: ClosedJaxpr, linear: Sequence[bool]) -> bool:
    """Whether a program that JAX can transpose with respect to some inputs has only zeros added, and rounds nothing."""
    kinds = _kinds(program, [Kind.LINEAR if marked else Kind.FIXED for marked in linear])
    return kinds is not None and Kind.FIXED not in kinds


def _kinds(program: Jaxpr | ClosedJaxpr, given: Sequence[Kind]) -> list[Kind] | None:
    """The kinds of the results; ``None`` where something is added, or rounded to a whole number, on the way."""
    jaxpr, consts = opened(program)
    known = [*(_constant(value) for value in consts), *given]
    variables = [*jaxpr.constvars, *jaxpr.invars][-len(known) :] if known else []
    env: dict[Any, Kind] = dict(zip(variables, known, strict=True))

    def kind(atom: Any) -> Kind:
        return env[atom] if is_var(atom) else _constant(atom.val)

    for eqn in jaxpr.eqns:
        made = _of_equation(eqn, list(map(kind, eqn.invars)))
        if made is None:
            return None
        env.update(zip(eqn.outvars, made, strict=True))
    return list(map(kind, jaxpr.outvars))


def _constant(value: Any) -> Kind:
    zero = not isinstance(value, Tracer) and np.asarray(value).dtype.kind in "bifuc" and not np.any(np.asarray(value))
    return Kind.ZERO if zero else Kind.FIXED


def _of_equation(eqn: JaxprEqn, kinds: list[Kind]) -> list[Kind] | None:
    name = eqn.primitive.name
    if name == "cond":
        ways = [_kinds(branch, kinds[1:]) for branch in branches_of(eqn)]
        return None if any(way is None for way in ways) else _met([way for way in ways if way is not None])
    if name == "scan":
        return _of_scan(eqn, kinds)
    if (body := callee(eqn)) is not None:
        return _kinds(body, kinds)
    if name in PASSED:
        return kinds
    if name == "select_n":
        together = kinds[1:]
    else:
        together = [kinds[0], kinds[2]] if name.startswith("scatter") else kinds[: TOGETHER.get(name, 0)]
    if Kind.LINEAR in kinds:
        known = all(map(is_inexact, eqn.outvars)) and Kind.FIXED not in together
        return [Kind.LINEAR] * len(eqn.outvars) if known else None
    alone = bool(kinds) and max(together or kinds) == Kind.ZERO and (bool(together) or name in KEEPS_ZERO)
    zero = alone or Kind.ZERO in kinds[: PRODUCTS.get(name, 0)]
    return [Kind.ZERO if zero else Kind.FIXED] * len(eqn.outvars)


def _of_scan(eqn: JaxprEqn, kinds: list[Kind]) -> list[Kind] | None:
    loop = scan_of(eqn)
    consts, rows = kinds[: loop.consts], kinds[loop.consts + loop.carries :]
    carry = kinds[loop.consts : loop.consts + loop.carries]
    while True:
        made = _kinds(loop.body, [*consts, *carry, *rows])
        if made is None:
            return None
        after = [max(pair) for pair in zip(carry, made[: loop.carries], strict=True)]
        if after == carry:
            return [*carry, *made[loop.carries :]]
        if any({was, now} == {Kind.LINEAR, Kind.FIXED} for was, now in zip(carry, after, strict=True)):
            return None
        carry = after


def _met(ways: list[list[Kind]]) -> list[Kind] | None:
    each = [set(results) for results in zip(*ways, strict=True)]
    return None if any({Kind.LINEAR, Kind.FIXED} <= met for met in each) else list(map(max, each))
