"""Make the flat program of a jaxpr: calls are looked through, loops over the chain value unrolled.

Calls to ``jit`` and ``closed_call`` vanish; a rematerialised call leaves a mark on its equations,
so that it can be put back; a call with a custom derivative rule stays one equation, so that its
own rule is the one used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxchain.program.flat import Call, Equation, Origin, Program
from jaxchain.program.flow import reach
from jaxchain.program.primitives import (
    Atom,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Var,
    as_array,
    call_name,
    callee,
    equation_count,
    is_inlined,
    is_remat,
    is_used,
    is_var,
    like,
    new_var,
    opened,
    scan_of,
)
from jaxchain.program.source import is_library
from jaxchain.show.table import shorten

__all__ = ["append", "flatten", "in_steps", "unrolled", "written_out"]

MOST = 2048
"""The most equations that unrolling adds to a program: XLA compiles each, where a loop's body is compiled once."""

LONGEST = 120
"""How many letters a scope's name keeps."""

LOOP = 16
"""How many equations a loop is worth that stays in an unrolled step: it takes that long to compile."""


def flatten(
    closed: ClosedJaxpr, chain_invars: Callable[[list[Var]], list[Var]] = lambda _: [], unroll_limit: int = 0
) -> Program:
    """The flat program of a closed jaxpr; loops whose carry is the chain value are unrolled.

    Parameters
    ----------
    closed
        From ``jax.make_jaxpr``.
    chain_invars
        Picks the chain input's variables from all of the program's; default: none, so that no loop is unrolled.
    unroll_limit
        Longest loop to unroll. Beside it all loops together are bounded, by `MOST` equations: outer ones come first.
    """
    jaxpr, consts = opened(closed)
    flat = _Flattener(Program(list(jaxpr.invars)))
    flat.program.outs = flat.inline(jaxpr, [*flat.constants(consts), *jaxpr.invars], Origin())
    return unrolled(flat.program, chain_invars(list(jaxpr.invars)), unroll_limit)


def unrolled(program: Program, inputs: Iterable[Var], unroll_limit: int) -> Program:
    """A flat program, loops unrolled whose carry is the chain value, which is made of ``inputs``; see `flatten`."""
    flat, inputs, again = _Flattener(program), set(inputs), True
    while again and inputs:  # a step may hold a loop over the chain value itself
        flat, again = _unroll(flat, inputs, unroll_limit)
    return flat.program


def in_steps(program: Program, equations: Iterable[Equation], longest: int) -> tuple[list[Equation], dict[Var, Atom]]:
    """Some equations of a program, those loops opened that have so many steps at most; what stands for their results.

    Constants of a loop's body become constants of the program.
    """
    flat = _Flattener(Program(program.invars, constants=program.constants))
    renamed: dict[Var, Atom] = {}
    for equation in equations:
        read = [renamed.get(atom, atom) if is_var(atom) else atom for atom in equation.eqn.invars]
        eqn = equation.eqn.replace(invars=read)
        if equation.name == "scan" and _is_short(eqn, longest):
            carry, rows = _steps(flat, eqn, equation.origin)
            stacked = [flat.stack(row, scan_of(eqn).reverse, equation.origin) for row in rows]
            renamed.update(zip(eqn.outvars, [*carry, *stacked], strict=True))
        else:
            flat.program.equations.append(Equation(eqn, equation.origin))
    return flat.program.equations, renamed


def written_out(program: Program, longest: int, most: int) -> Program | None:
    """A program, its loops of so many steps at most written out, and those in their steps, while so few equations are added.

    ``None``: there is no such loop.
    """
    found, added = program, 0
    while short := [e.eqn for e in found.equations if e.name == "scan" and _is_short(e.eqn, longest)]:
        added += sum(map(_unrolled_size, short))
        if added > most:
            break
        written = Program(found.invars, constants=dict(found.constants))  # bodies add theirs
        written.equations, renamed = in_steps(written, found.equations, longest)
        written.outs = [renamed.get(out, out) if is_var(out) else out for out in found.outs]
        found = written
    return None if found is program else found


def append(program: Program, call: ClosedJaxpr, inputs: Sequence[Atom], origin: Origin) -> list[Atom]:
    """Append to a flat program what another does to ``inputs``; its results."""
    return _Flattener(program).call(call, inputs, origin)


class _Flattener:
    """Appends equations to a program, giving every variable a name of its own."""

    def __init__(self, program: Program, loops: Iterator[int] | None = None) -> None:
        self.program = program
        self.loops = loops or itertools.count()
        self.added = 0  # equations, by the unrolling of loops
        # By identity: an array that several calls close over is one constant, and arrays cannot be hashed.
        self.known: dict[int, Var] = {id(value): var for var, value in program.constants.items()}

    def constants(self, values: Iterable[Any]) -> list[Var]:
        """One variable a distinct array."""
        return [self._constant(value) for value in values]

    def _constant(self, value: Any) -> Var:
        if id(value) not in self.known:
            self.known[id(value)] = new_var(getattr(value, "aval", None) or jax.typeof(value))
            self.program.constants[self.known[id(value)]] = as_array(value)
        return self.known[id(value)]

    def call(self, program: Jaxpr | ClosedJaxpr, inputs: Sequence[Atom], origin: Origin) -> list[Atom]:
        """Append what a program does to ``inputs``; return its results."""
        jaxpr, consts = opened(program)
        return self.inline(jaxpr, [*self.constants(consts), *inputs], origin)

    def stack(self, parts: Sequence[Any], backwards: bool, origin: Origin) -> Atom:
        """Append what stacks the results of steps."""
        ordered = parts[::-1] if backwards else parts
        (stacked,) = self.call(jax.make_jaxpr(lambda *each: jnp.stack(each))(*map(like, ordered)), ordered, origin)
        return stacked

    def inline(self, jaxpr: Jaxpr, inputs: Sequence[Atom], origin: Origin) -> list[Atom]:
        """Append the equations of ``jaxpr`` (constants first among ``inputs``); return its results."""
        env: dict[Any, Atom] = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
        for eqn in jaxpr.eqns:
            read = [env[atom] if is_var(atom) else atom for atom in eqn.invars]
            here = replace(origin, scope=origin.scope + scope_of(eqn))
            callee, inside = _looked_through(eqn, read, here)
            if callee is None:
                written: list[Any] = [new_var(var.aval) if is_used(var) else var for var in eqn.outvars]
                self.program.equations.append(Equation(eqn.replace(invars=read, outvars=written), here))
            else:
                written = self.call(callee, read, inside)
            env.update(zip(eqn.outvars, written, strict=True))
        return [env[atom] if is_var(atom) else atom for atom in jaxpr.outvars]


def _looked_through(eqn: JaxprEqn, read: Sequence[Atom], here: Origin) -> tuple[Jaxpr | ClosedJaxpr | None, Origin]:
    """The program to append in place of a call, and where its equations come from; ``None``: the equation stays."""
    body = callee(eqn)
    if body is not None and is_remat(eqn) and here.remat is None:
        return body, replace(here, remat=eqn)
    if body is None or not is_inlined(eqn):
        return None, here
    label = call_name(eqn)
    if is_library(body):
        return body, replace(here, call=here.call or Call(label.strip("_"), eqn.replace(invars=list(read))))
    scope = (*here.scope, label) if label.isidentifier() and label != "lambda" else here.scope
    return body, replace(here, scope=scope, within=here.within or eqn)


def scope_of(eqn: JaxprEqn) -> tuple[str, ...]:
    """The named scopes of one equation, in the framework's words and without a transform's marks."""
    text = str(eqn.source_info.name_stack)
    if not text:
        return ()
    names = [_unmarked(part).removeprefix("eqx.nn.") for part in text.split("/")]
    # A name is to be printed, and half of a surrogate pair is no text.
    printable = (name.encode("utf-8", "backslashreplace").decode() for name in names)
    kept = (name for name in printable if name.strip() and name != "~" and "->" not in name)
    return tuple(shorten(name, LONGEST, head=LONGEST // 2) for name in kept)


def _unmarked(name: str) -> str:
    """A scope's name without the marks of transforms: ``transpose(jvp(MLP))`` is ``MLP``."""
    while (inner := re.fullmatch(r"\w+\((.*)\)", name)) is not None:
        name = inner[1]
    return name


def _unroll(flat: _Flattener, inputs: set[Var], limit: int) -> tuple[_Flattener, bool]:
    """The same program with its outermost loops over the chain value unrolled, and whether there was one."""
    old = flat.program
    dependent = reach(old.eqns, inputs)
    used = {var for equation in old.needed() for var in equation.reads} | set(filter(is_var, old.outs))
    new = Program(old.invars, constants=old.constants, notes=old.notes)
    again = _Flattener(new, flat.loops)
    chosen = [e.eqn for e in old.equations if e.name == "scan" and _carries_the_chain(e.eqn, dependent, used)]
    affordable, again.added = _affordable([eqn for eqn in chosen if scan_of(eqn).length <= limit], flat.added)
    carrying = set(map(id, chosen))
    renamed: dict[Any, Atom] = {}
    gone, unrolled = set[Var](), False

    def now(atom: Any) -> Any:
        return renamed.get(atom, atom) if is_var(atom) else atom

    for number, equation in enumerate(old.equations):
        if number in old.carries:  # positions move as loops before them are unrolled
            new.carries[len(new.equations)] = [now(var) for var in old.carries[number]]
        if not gone.isdisjoint(equation.reads):  # of what a loop stacked nothing but dead code is made, or it is kept
            gone.update(equation.writes)
            continue
        eqn = equation.eqn.replace(invars=[now(atom) for atom in equation.eqn.invars])
        if id(equation.eqn) in affordable:
            steps, _ = _steps(again, eqn, equation.origin)
            renamed.update(zip(eqn.outvars, steps, strict=False))
            gone.update(filter(is_used, eqn.outvars[len(steps) :]))
            unrolled = True
            continue
        if id(equation.eqn) in carrying:
            new.notes[eqn.outvars[0]] = _why_whole(eqn, limit)
        new.equations.append(Equation(eqn, equation.origin))
    if len(old.equations) in old.carries:
        new.carries[len(new.equations)] = [now(var) for var in old.carries[len(old.equations)]]
    new.outs = [now(atom) for atom in old.outs]
    return again, unrolled


def _affordable(loops: Sequence[JaxprEqn], added: int) -> tuple[set[int], int]:
    """The loops that are unrolled, by identity, and how many equations have been added then."""
    # Those of one body, copies in the steps of a loop around them, all or none; the cheapest first.
    alike: dict[int, list[JaxprEqn]] = {}
    for eqn in loops:
        alike.setdefault(id(scan_of(eqn).body), []).append(eqn)
    affordable = set[int]()
    for cost, copies in sorted(((sum(map(_unrolled_size, c)), c) for c in alike.values()), key=lambda pair: pair[0]):
        if added + cost <= MOST:
            affordable.update(map(id, copies))
            added += cost
    return affordable, added


def _unrolled_size(eqn: JaxprEqn) -> int:
    loop = scan_of(eqn)
    return loop.length * equation_count(loop.body, loop=LOOP)


def _is_short(eqn: JaxprEqn, longest: int) -> bool:
    return 0 < scan_of(eqn).length <= longest and not eqn.effects


def _why_whole(eqn: JaxprEqn, limit: int) -> str:
    length = scan_of(eqn).length
    if length > limit:
        return f"a loop of {length} steps, more than unroll_limit={limit}, so it stays one stage"
    return (
        f"a loop of {length} steps, and unrolling all loops would add more than {MOST:,} equations, so it stays whole"
    )


def _carries_the_chain(eqn: JaxprEqn, dependent: set[Var], used: set[Var]) -> bool:
    """Whether the chain value enters a loop by its carry alone, and leaves it so."""
    loop = scan_of(eqn)
    # Where every step reads the chain value, as a constant or a row, two values cross between any two steps: no cut.
    of_chain = [is_var(atom) and atom in dependent for atom in eqn.invars]
    carried = of_chain[loop.consts : loop.consts + loop.carries]
    aside = of_chain[: loop.consts] + of_chain[loop.consts + loop.carries :]
    return any(carried) and not any(aside) and used.isdisjoint(eqn.outvars[loop.carries :]) and loop.length > 0


def _steps(flat: _Flattener, eqn: JaxprEqn, origin: Origin) -> tuple[list[Atom], list[list[Atom]]]:
    """Append every step of a scan; its final carry, and of each row that it stacks the steps' results in order."""
    loop, number = scan_of(eqn), next(flat.loops)
    first = loop.consts + loop.carries
    fixed, carry = list(eqn.invars[: loop.consts]), list(eqn.invars[loop.consts : first])
    rows = [_rows(flat, atom, loop.length, origin) for atom in eqn.invars[first:]]
    made: list[list[Atom]] = []
    order = reversed(range(loop.length)) if loop.reverse else range(loop.length)
    for step, index in enumerate(order):
        here = replace(origin, scope=(*origin.scope, f"step_{step}"), steps=(*origin.steps, (number, step)))
        inputs = [*fixed, *carry, *(row[index] for row in rows)]
        results = flat.call(loop.body, inputs, here)
        carry = results[: loop.carries]
        made.append(results[loop.carries :])
        flat.program.carries[len(flat.program.equations)] = list(filter(is_var, carry))
    return carry, [list(row) for row in zip(*made, strict=True)]


def _rows(flat: _Flattener, atom: Any, length: int, origin: Origin) -> list[Atom]:
    """The entries of an array along its leading axis, all at once, so that transposing it is one concatenation."""

    def split(x: jax.Array) -> list[jax.Array]:
        return [lax.squeeze(part, (0,)) for part in lax.split(x, (1,) * length)]

    return flat.call(jax.make_jaxpr(split)(like(atom)), [atom], origin)
