"""A JAX function as one flat list of equations: calls looked through, loops over the chain unrolled.

Calls to ``jit`` and ``closed_call`` vanish; a rematerialised call leaves a mark on its equations,
so that it can be put back; a call with a custom derivative rule stays one equation, so that its
own rule is the one used. Every equation remembers where it came from.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxchain.program.source import Site, is_library

__all__ = ["Call", "Equation", "Origin", "Program", "flatten"]

INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "core_closed_call": "call_jaxpr",
}
REMAT = {"remat2", "remat", "checkpoint"}


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function from a library, looked through: its name, and the equation that it was.

    The equation reads variables of the flat program, as it was before loops were unrolled.
    """

    name: str
    eqn: Any


@dataclass(frozen=True)
class Origin:
    """Where an equation came from.

    Attributes
    ----------
    scope
        Named scopes around it, outermost first: modules, ``jax.named_scope``, jitted functions.
    call
        The library function that it is a part of.
    remat
        The equation of the rematerialised call that it is a part of.
    steps
        (number of the loop, iteration) of every unrolled loop around it, outermost first.
    """

    scope: tuple[str, ...] = ()
    call: Call | None = None
    remat: Any = None
    steps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Equation:
    """One equation of the flat program; its variables are unique in the whole."""

    eqn: Any
    origin: Origin

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.eqn.primitive.name

    @cached_property
    def site(self) -> Site:
        """Where in the source it was written; for a part of a library function, where that was called."""
        return Site.of(self.eqn if self.origin.call is None else self.origin.call.eqn)

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """Its named scopes, or where there are none the classes whose ``__call__`` it was written in."""
        return self.origin.scope or self.site.classes

    @property
    def reads(self) -> list[Any]:
        """Variables read, literals left out."""
        return [atom for atom in self.eqn.invars if is_var(atom)]

    @property
    def writes(self) -> list[Any]:
        """Variables written, dropped ones left out."""
        return [var for var in self.eqn.outvars if is_used(var)]


@dataclass(repr=False)
class Program:
    """A flat program.

    Attributes
    ----------
    equations
        In order of evaluation.
    invars
        One variable an array among the arguments.
    outs
        One variable or literal an array among the results.
    constants
        Arrays that the function closed over, by the variable that stands for them.
    carries
        Position in ``equations`` → variables of a loop's carry there, between two steps.
    notes
        What was left as it was although one might expect otherwise, by variable written.
    """

    invars: list[Any]
    outs: list[Any] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    constants: dict[Any, Any] = field(default_factory=dict)
    carries: dict[int, list[Any]] = field(default_factory=dict)
    notes: dict[Any, str] = field(default_factory=dict)

    def dependent(self, inputs: Iterable[Any]) -> set[Any]:
        """Every variable whose value depends on ``inputs``."""
        return reach(self.equations, inputs)

    @cached_property
    def makers(self) -> dict[Any, Equation]:
        """The equation that writes each variable."""
        return {var: equation for equation in self.equations for var in equation.writes}

    @cached_property
    def given(self) -> set[Any]:
        """The arguments and constants, and all that is computed from them: not mere numbers of the program."""
        return self.dependent([*self.invars, *self.constants])

    def needed(self) -> list[Equation]:
        """The equations that the results depend on, in order."""
        wanted = set(filter(is_var, self.outs))
        kept: list[Equation] = []
        for equation in reversed(self.equations):
            if not wanted.isdisjoint(equation.writes):
                wanted.update(equation.reads)
                kept.append(equation)
        return kept[::-1]


def is_var(atom: Any) -> bool:
    """Whether an atom is a variable, not a literal."""
    return not hasattr(atom, "val")


def is_used(var: Any) -> bool:
    """Whether a written variable has a name, so that something may read it."""
    return type(var).__name__ != "DropVar"


def is_inexact(var: Any) -> bool:
    """Whether a variable carries a derivative: real or complex floating point."""
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)


def like(var: Any) -> jax.ShapeDtypeStruct:
    """A variable's shape and dtype."""
    return jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype)


def reach(equations: Iterable[Equation], inputs: Iterable[Any]) -> set[Any]:
    """``inputs`` and everything computed from them."""
    reached = set(inputs)
    for equation in equations:
        if any(atom in reached for atom in equation.reads):
            reached.update(equation.writes)
    return reached


def active(equations: Iterable[Equation], inputs: Iterable[Any]) -> set[Any]:
    """Those of ``inputs`` that carry a derivative, and everything computed from them that does."""
    carrying = set(filter(is_inexact, inputs))
    for equation in equations:
        if equation.name != "stop_gradient" and any(var in carrying for var in equation.reads):
            carrying.update(filter(is_inexact, equation.writes))
    return carrying


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr without its constants, and its constants."""
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ()))


def flatten(closed: Any, chain_invars: Callable[[list[Any]], list[Any]], unroll_limit: int) -> Program:
    """The flat program of a closed jaxpr; loops whose carry is the chain value are unrolled.

    Parameters
    ----------
    closed
        From ``jax.make_jaxpr``.
    chain_invars
        Picks the chain input's variables from all of the program's.
    unroll_limit
        Longest loop to unroll.
    """
    jaxpr, consts = opened(closed)
    flat = _Flattener(Program(list(jaxpr.invars)))
    flat.program.outs = flat.inline(jaxpr, [*flat.constants(consts), *jaxpr.invars], Origin())
    inputs = set(chain_invars(list(jaxpr.invars)))
    while True:
        loops = [id(e.eqn.params["jaxpr"]) for e in flat.program.equations if e.name == "scan"]
        flat = _unroll(flat, inputs, unroll_limit)  # a step may hold a loop over the chain value itself
        if loops == [id(e.eqn.params["jaxpr"]) for e in flat.program.equations if e.name == "scan"]:
            break
    return flat.program


class _Flattener:
    """Appends equations to a program, giving every variable a name of its own."""

    def __init__(self, program: Program, numbers: Iterator[int] | None = None) -> None:
        self.program = program
        self.numbers = numbers or itertools.count()
        self.known: dict[int, Any] = {id(value): var for var, value in program.constants.items()}

    def constants(self, values: Iterable[Any]) -> list[Any]:
        """One variable a distinct array."""
        return [self._constant(value) for value in values]

    def _constant(self, value: Any) -> Any:
        if id(value) not in self.known:
            self.known[id(value)] = new_var(jax.typeof(value))
            self.program.constants[self.known[id(value)]] = value
        return self.known[id(value)]

    def inline(self, jaxpr: Any, inputs: Sequence[Any], origin: Origin) -> list[Any]:
        """Append the equations of ``jaxpr`` (constants first among ``inputs``); return its results."""
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
        for eqn in jaxpr.eqns:
            read = [env[atom] if is_var(atom) else atom for atom in eqn.invars]
            here = replace(origin, scope=origin.scope + scope_of(eqn))
            callee, inside = self._callee(eqn, read, here)
            if callee is None:
                written = [new_var(var.aval) if is_used(var) else var for var in eqn.outvars]
                self.program.equations.append(Equation(eqn.replace(invars=read, outvars=written), here))
            else:
                body, consts = opened(callee)
                written = self.inline(body, [*self.constants(consts), *read], inside)
            env.update(zip(eqn.outvars, written, strict=True))
        return [env[atom] if is_var(atom) else atom for atom in jaxpr.outvars]

    def _callee(self, eqn: Any, read: Sequence[Any], here: Origin) -> tuple[Any, Origin]:
        name = eqn.primitive.name
        if name in REMAT and here.remat is None:
            return eqn.params["jaxpr"], replace(here, remat=eqn)
        if name not in INLINED or _is_sharded(eqn):
            return None, here
        callee = eqn.params[INLINED[name]]
        label = str(eqn.params.get("name", "")).strip("<>")
        if is_library(callee):
            return callee, replace(here, call=here.call or Call(label.strip("_"), eqn.replace(invars=list(read))))
        return callee, replace(here, scope=(*here.scope, label)) if label.isidentifier() and label != "lambda" else here


def new_var(aval: Any) -> Any:
    """A fresh variable."""
    from jax.extend.core import Var

    return Var(aval)


def _is_sharded(eqn: Any) -> bool:
    """Whether a jitted call asks for shardings: such a call stays one equation, and keeps them."""
    asked = (*eqn.params.get("in_shardings", ()), *eqn.params.get("out_shardings", ()))
    return any(type(sharding).__name__ != "UnspecifiedValue" for sharding in asked)


def scope_of(eqn: Any) -> tuple[str, ...]:
    """The named scopes of one equation, in the framework's words and without a transform's marks."""
    text = str(eqn.source_info.name_stack)
    if not text:
        return ()
    names = [_unmarked(part).removeprefix("eqx.nn.") for part in text.split("/")]
    return tuple(name for name in names if name and name != "~" and "->" not in name)


def _unmarked(name: str) -> str:
    """A scope's name without the marks of transforms: ``transpose(jvp(MLP))`` is ``MLP``."""
    while (inner := re.fullmatch(r"\w+\((.*)\)", name)) is not None:
        name = inner[1]
    return name


def _unroll(flat: _Flattener, inputs: set[Any], limit: int) -> _Flattener:
    old = flat.program
    dependent, used = (
        old.dependent(inputs),
        {var for equation in old.needed() for var in equation.reads} | set(filter(is_var, old.outs)),
    )
    new = Program(old.invars, constants=old.constants, notes=old.notes)
    again = _Flattener(new, flat.numbers)
    renamed: dict[Any, Any] = {}

    def now(atom: Any) -> Any:
        return renamed.get(atom, atom) if is_var(atom) else atom

    for number, equation in enumerate(old.equations):
        if number in old.carries:
            new.carries[len(new.equations)] = [now(var) for var in old.carries[number]]
        eqn = equation.eqn.replace(invars=[now(atom) for atom in equation.eqn.invars])
        if equation.name == "scan" and _carries_the_chain(equation.eqn, dependent, used):
            if eqn.params["length"] <= limit:
                renamed.update(zip(eqn.outvars, _steps(again, eqn, equation.origin), strict=False))
                continue
            new.notes[eqn.outvars[0]] = (
                f"a loop of {eqn.params['length']} steps, more than unroll_limit={limit}, so it stays one stage"
            )
        new.equations.append(Equation(eqn, equation.origin))
    if len(old.equations) in old.carries:
        new.carries[len(new.equations)] = [now(var) for var in old.carries[len(old.equations)]]
    new.outs = [now(atom) for atom in old.outs]
    return again


def scan_arity(params: dict[str, Any]) -> tuple[int, int]:
    """(constants, carries) of a scan; JAX 0.12 keeps them as trees."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _carries_the_chain(eqn: Any, dependent: set[Any], used: set[Any]) -> bool:
    consts, carries = scan_arity(eqn.params)
    of_chain = [is_var(atom) and atom in dependent for atom in eqn.invars]
    carried, aside = of_chain[consts : consts + carries], of_chain[:consts] + of_chain[consts + carries :]
    return any(carried) and not any(aside) and used.isdisjoint(eqn.outvars[carries:]) and eqn.params["length"] > 0


def _steps(flat: _Flattener, eqn: Any, origin: Origin) -> list[Any]:
    """Append every step of a scan; return its final carry."""
    consts, carries = scan_arity(eqn.params)
    body, body_consts = opened(eqn.params["jaxpr"])
    length, loop = eqn.params["length"], next(flat.numbers)
    fixed, carry = list(eqn.invars[:consts]), list(eqn.invars[consts : consts + carries])
    rows = [_rows(flat, atom, length, origin) for atom in eqn.invars[consts + carries :]]
    order = reversed(range(length)) if eqn.params["reverse"] else range(length)
    for step, index in enumerate(order):
        here = replace(origin, scope=(*origin.scope, f"step_{step}"), steps=(*origin.steps, (loop, step)))
        inputs = [*flat.constants(body_consts), *fixed, *carry, *(row[index] for row in rows)]
        carry = flat.inline(body, inputs, here)[:carries]
        flat.program.carries[len(flat.program.equations)] = list(filter(is_var, carry))
    return carry


def _rows(flat: _Flattener, atom: Any, length: int, origin: Origin) -> list[Any]:
    """The entries of an array along its leading axis, all at once, so that transposing it is one concatenation."""

    def split(x: jax.Array) -> list[jax.Array]:
        return [lax.squeeze(part, (0,)) for part in lax.split(x, (1,) * length)]

    body, consts = opened(jax.make_jaxpr(split)(like(atom)))
    return flat.inline(body, [*flat.constants(consts), atom], origin)
