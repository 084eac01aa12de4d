"""Where numbers stop being finite: the equation of a program that made the first NaN or infinity of a result.

It is looked for from that result backwards, along operands that are not finite either, into calls, branches and the
steps of loops. An infinity that somebody wrote, as a mask's -∞ is, is nobody's fault; the NaN that is made of it is.
Builds on `interpret`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.program.interpret import values_of
from jaxchain.program.primitives import (
    ELEMENTWISE,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    branches_of,
    callee,
    custom_rule,
    dtype_of,
    function_of,
    is_used,
    is_var,
    opened,
    scan_of,
    while_of,
)
from jaxchain.program.source import Site

__all__ = ["Birth", "Trail", "broken", "trail"]


@dataclass(frozen=True, eq=False)
class Birth:
    """An equation that makes what is not finite of what is.

    Attributes
    ----------
    name
        Its primitive.
    site
        Where it was written.
    value
        Its result.
    operands
        What it read.
    nan
        Whether it made NaN; else infinities.
    steps
        Of the loops around it, outermost first, the step (from 0).
    after
        Of an infinity that became NaN: the primitive that made that of it.
    around
        The equation of the whole program that it lies in.
    """

    name: str
    site: Site
    value: Any
    operands: tuple[Any, ...]
    nan: bool
    steps: tuple[int, ...] = ()
    after: str = ""
    around: JaxprEqn | None = None


class Trail(NamedTuple):
    """Where a result's broken numbers come from.

    Attributes
    ----------
    birth
        The equation that made them; ``None``: they were there already.
    operand
        Which argument brought them in; of a NaN that was made here of infinities, which brought these in. ``None`` where
        that is a constant, or none did.
    """

    birth: Birth | None
    operand: int | None


def broken(value: Any, *, nan: bool = False) -> np.ndarray:
    """Which entries are NaN or infinite; with ``nan``, which are NaN alone."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        return np.zeros(np.shape(value), bool)
    array = np.asarray(value)
    return np.isnan(array) if nan else ~np.isfinite(array)


def trail(program: Jaxpr | ClosedJaxpr, args: Sequence[Any], result: int) -> Trail:
    """Where the broken numbers of one of a program's results at ``args`` come from."""
    with jax.debug_nans(False), jax.debug_infs(False):  # which would raise before the first is found
        return _trail(program, args, result, nan=None)


def _trail(program: Jaxpr | ClosedJaxpr, args: Sequence[Any], result: int, *, nan: bool | None) -> Trail:
    jaxpr = opened(program)[0]
    level = _Level(jaxpr, values_of(program, args))
    atom = jaxpr.outvars[result]
    return level.back(atom, bool(broken(level.read(atom), nan=True).any()) if nan is None else nan)


class _Level:
    """One program at its values."""

    def __init__(self, jaxpr: Jaxpr, values: Mapping[Any, Any]) -> None:
        self.values = values
        self.makers = {var: (eqn, k) for eqn in jaxpr.eqns for k, var in enumerate(eqn.outvars) if is_used(var)}
        self.places = {var: k for k, var in enumerate(jaxpr.invars)}

    def read(self, atom: Any) -> Any:
        return self.values[atom] if is_var(atom) else np.asarray(atom.val, dtype_of(atom))

    def back(self, atom: Any, nan: bool) -> Trail:
        """From a value to what broke it."""
        if atom not in self.makers if is_var(atom) else True:
            return Trail(None, self.places.get(atom) if is_var(atom) else None)
        eqn, place = self.makers[atom]
        values = [self.read(operand) for operand in eqn.invars]
        inside = _inside(eqn, values, place, nan=nan)
        if inside is None:
            return self._of_one(eqn, self.values[atom], values, nan)
        found = None if inside.birth is None else self._placed(inside.birth, eqn)
        if inside.operand is None:
            return Trail(found, None)
        return self._further(found, eqn.invars[inside.operand], nan and found is None)

    def _of_one(self, eqn: JaxprEqn, value: Any, values: Sequence[Any], nan: bool) -> Trail:
        """The same of an equation that holds no other."""
        brought, before = _brought(eqn, value, values, nan=nan), None
        if brought is not None:
            return self.back(eqn.invars[brought], nan)
        found = Birth(eqn.primitive.name, Site.of(eqn), value, tuple(values), nan, around=eqn)
        if nan:
            before = next((k for k, operand in enumerate(values) if broken(operand).any()), None)
        return Trail(found, None) if before is None else self._further(found, eqn.invars[before], nan=False)

    def _further(self, found: Birth | None, atom: Any, nan: bool) -> Trail:
        """On from an operand; of a NaN made of infinities, to what made these, if that is not a constant's business."""
        birth, operand = self.back(atom, nan)
        if found is None or birth is None:
            return Trail(birth or found, operand)
        return Trail(replace(birth, after=birth.after or found.name), operand)

    @staticmethod
    def _placed(birth: Birth, around: JaxprEqn) -> Birth:
        """What a package wrote is told where it was called."""
        site = Site.of(around)
        better = not birth.site.is_users and site.file and (site.is_users or not birth.site.file)
        return replace(birth, site=site if better else birth.site, around=around)


def _brought(eqn: JaxprEqn, value: Any, values: Sequence[Any], *, nan: bool) -> int | None:
    """The first operand that a result's broken entries were broken in already; ``None`` where some are new."""
    marks = [broken(operand, nan=nan) for operand in values]
    guilty = [k for k, mark in enumerate(marks) if mark.any()]
    if not guilty or eqn.primitive.name not in ELEMENTWISE:
        return guilty[0] if guilty else None
    own = broken(value, nan=nan)  # entry by entry: an infinity elsewhere in an operand explains nothing here
    if (own & ~np.logical_or.reduce(np.broadcast_arrays(*marks))).any():
        return None
    return next(k for k in guilty if (own & marks[k]).any())


# ------------------------------------------------------------------------------------------------------ calls and loops


def _inside(eqn: JaxprEqn, values: Sequence[Any], result: int, *, nan: bool) -> Trail | None:
    """The trail within a call, a branch or a loop, its operand one of the equation's; ``None`` of anything else."""
    name = eqn.primitive.name
    if name == "scan":
        return _in_scan(eqn, values, result, nan=nan)
    if name == "while":
        return _in_while(eqn, values, result, nan=nan)
    if name == "cond":
        branches = branches_of(eqn)
        chosen = branches[int(np.clip(int(values[0]), 0, len(branches) - 1))]
        birth, operand = _trail(chosen, values[1:], result, nan=nan)
        return Trail(birth, None if operand is None else operand + 1)
    rule = custom_rule(eqn)
    body = callee(eqn) if rule is None else rule.body
    return None if body is None else _trail(body, values, result, nan=nan)


def _in_scan(eqn: JaxprEqn, values: Sequence[Any], result: int, *, nan: bool) -> Trail:
    loop = scan_of(eqn)
    first = loop.consts + loop.carries
    consts, rows = values[: loop.consts], values[first:]

    def given(step: Any, carry: Sequence[Any]) -> list[Any]:
        at = loop.length - 1 - step if loop.reverse else step
        return [*consts, *carry, *(row[at] for row in map(jnp.asarray, rows))]

    return _in_loop(
        _Loop(loop.body, given, values[loop.consts : first], lambda step, _: step < loop.length, loop.consts),
        result,
        nan=nan,
        number=lambda step: loop.length - 1 - step if loop.reverse else step,
    )


def _in_while(eqn: JaxprEqn, values: Sequence[Any], result: int, *, nan: bool) -> Trail:
    loop = while_of(eqn)
    of_body = loop.predicate_consts + loop.body_consts
    asked, consts = values[: loop.predicate_consts], values[loop.predicate_consts : of_body]
    predicate = function_of(*opened(loop.predicate))
    found = _in_loop(
        _Loop(
            loop.body,
            lambda _, carry: [*consts, *carry],
            values[of_body:],
            lambda _, carry: predicate(*asked, *carry)[0],
            loop.body_consts,
        ),
        result,
        nan=nan,
    )
    return Trail(found.birth, None if found.operand is None else found.operand + loop.predicate_consts)


@dataclass(frozen=True, eq=False)
class _Loop:
    """A loop's body, what a step is given, where it starts, whether it goes on; its carry comes after ``consts``."""

    body: ClosedJaxpr
    given: Callable[[Any, Sequence[Any]], list[Any]]
    start: Sequence[Any]
    goes_on: Callable[[Any, Sequence[Any]], Any]
    consts: int

    def first(self, result: int, *, nan: bool) -> tuple[int, list[Any]] | None:
        """The first step that makes a result of the body which is broken, and the carry before it."""
        call, lost = function_of(*opened(self.body)), jnp.isnan if nan else lambda x: ~jnp.isfinite(x)

        def run(state: Any) -> Any:
            step, carry, _ = state
            outs = call(*self.given(step, carry))
            return jax.lax.cond(
                lost(outs[result]).any(),
                lambda: (step, carry, True),
                lambda: (step + 1, list(outs[: len(carry)]), False),
            )

        start = (jnp.int32(0), list(map(jnp.asarray, self.start)), jnp.bool_(False))
        step, carry, found = jax.jit(
            lambda state: jax.lax.while_loop(lambda s: ~s[2] & self.goes_on(s[0], s[1]), run, state)
        )(start)
        return (int(step), carry) if found else None


def _in_loop(loop: _Loop, result: int, *, nan: bool, number: Callable[[int], int] = lambda step: step) -> Trail:
    """The trail in the first step that breaks a result; where what broke it was carried in, in an earlier step."""
    found: Birth | None = None
    while True:
        carried = result < len(loop.start)
        at = None if carried and broken(loop.start[result], nan=nan).any() else loop.first(result, nan=nan)
        if at is None:  # it came in with the carry
            return Trail(found, loop.consts + result if carried else None)
        step, carry = at
        birth, operand = _trail(loop.body, loop.given(step, carry), result, nan=nan)
        if birth is not None:
            birth = replace(birth, steps=(number(step), *birth.steps))
            found = birth if found is None else replace(birth, after=found.name)
        if operand is None or not loop.consts <= operand < loop.consts + len(loop.start):
            return Trail(found, operand)
        nan, result = nan and birth is None, operand - loop.consts
