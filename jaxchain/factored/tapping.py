"""Run a program with its sites tapped: zeros added where δ is wanted, and the values handed out that the factors need.

One backward pass with respect to the taps gives every δ, and nothing else is computed on the way back: no weight's
gradient, and nothing below the first site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxchain.factored.finding import Slot, Tapping
from jaxchain.program.flat import Equation, Origin, Program
from jaxchain.program.flatten import append
from jaxchain.program.primitives import Atom, Var, dtype_of, is_var, like, new_var, scan_of, shape_of
from jaxchain.program.segment import run

__all__ = ["tapped", "zeros"]


def zeros(tapping: Tapping) -> list[jax.Array]:
    """What is added at every tap; loops' axes in front."""
    return [jnp.zeros((*loops, *shape_of(slot.atom)), dtype_of(slot.atom)) for slot, loops in tapping.taps()]


def tapped(tapping: Tapping) -> Callable[..., list[Any]]:
    """``call(*inputs, *taps)`` → the results of the program, then the values that are handed out."""
    old = tapping.program
    given = {slot: _variable(slot, loops) for slot, loops in tapping.taps()}
    new = Program([*old.invars, *given.values()], constants=dict(old.constants))
    now = _Tapper(tapping, new, given)
    for equation in tapping.equations:
        now.add(equation)
    outs = [now.read(out, None, Origin()) for out in old.outs]
    exports = [now.handed[slot] for slot in tapping.handed_out()]
    return run(new, new.equations, new.invars, [*outs, *exports], list(new.constants))


def _variable(slot: Slot, loops: tuple[int, ...]) -> Var:
    shape, dtype = (*loops, *shape_of(slot.atom)), dtype_of(slot.atom)
    return new_var(jax.make_jaxpr(lambda: jnp.zeros(shape, dtype))().out_avals[0])


class _Tapper:
    """Appends a program's equations to another, each reading what has been tapped before."""

    def __init__(self, tapping: Tapping, program: Program, given: dict[Slot, Var]) -> None:
        self.tapping, self.program, self.given = tapping, program, given
        self.renamed: dict[Var, Atom] = {}  # results, by what they are once tapped
        self.operands: dict[Var, Atom] = {}  # the same of operands, for some of their readers
        self.handed: dict[Slot, Atom] = {}

    def read(self, atom: Atom, reader: Equation | None, origin: Origin) -> Atom:
        """An atom, as one equation, or the program's result, reads it."""
        if not is_var(atom):
            return atom
        key = None if reader is None else id(reader)
        if key not in self.tapping.readers.get(atom, ()):
            return self.renamed.get(atom, atom)
        if atom not in self.operands:
            self.operands[atom] = self.plus(atom, self.tapping.operands[atom], origin)
        return self.operands[atom]

    def plus(self, var: Var, slot: Slot, origin: Origin) -> Atom:
        """A variable, once its tap is added."""
        tap = self.given[slot]
        (total,) = append(self.program, jax.make_jaxpr(lax.add)(like(var), like(tap)), [var, tap], origin)
        return total

    def add(self, equation: Equation) -> None:
        """Append one equation."""
        origin, eqn = equation.origin, equation.eqn
        for atom in filter(is_var, eqn.invars):
            if (slot := self.tapping.exports.get(atom)) is not None:
                self.handed.setdefault(slot, self.renamed.get(atom, atom))
        reads = [self.read(atom, equation, origin) for atom in eqn.invars]
        if (inner := self.tapping.inside.get(id(equation))) is not None:
            self.renamed.update(zip(eqn.outvars, self.loop(equation, inner, reads), strict=False))
            return
        self.program.equations.append(Equation(eqn.replace(invars=reads), origin))
        for var in equation.writes:
            if (slot := self.tapping.results.get(var)) is not None:
                self.renamed[var] = self.plus(var, slot, origin)

    def loop(self, equation: Equation, inner: Tapping, reads: Sequence[Atom]) -> list[Atom]:
        """Append a loop whose body is tapped: taps are rows that it is given, values handed out rows that it makes."""
        loop, body = scan_of(equation.eqn), tapped(inner)
        first = loop.consts + loop.carries
        taps = [self.given[slot] for slot, _ in inner.taps()]

        def whole(*operands: Any) -> list[Any]:
            consts, carry, rows = operands[: loop.consts], operands[loop.consts : first], operands[first:]

            def step(carry: Sequence[Any], rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
                made = body(*consts, *carry, *rows)
                return made[: loop.carries], made[loop.carries :]

            last, stacked = lax.scan(step, list(carry), list(rows), loop.length, loop.reverse, loop.unroll)
            return [*last, *stacked]

        atoms = [*reads, *taps]
        made = append(self.program, jax.make_jaxpr(whole)(*map(like, atoms)), atoms, equation.origin)
        count = len(equation.eqn.outvars)
        self.handed.update(zip(inner.handed_out(), made[count:], strict=True))
        return made[:count]
