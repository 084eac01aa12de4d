"""The equations of a program as rows with names and values, those of one call or module folded into one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxchain.explore.evaluate import Values
from jaxchain.explore.formula import called, formula, literal
from jaxchain.program.flat import Call, Equation, Program
from jaxchain.program.primitives import dtype_of, is_inexact, is_var
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count, summary

__all__ = ["Names", "TraceRow", "rows_of"]

READ = 4
"""How many inputs the formula of a folded call names, and how many results that of any row."""


MANY = 8
"""More arrays than this of one argument, or more constants, are one row."""


@dataclass(frozen=True, eq=False)
class TraceRow(Shown):
    """One line of a trace.

    Attributes
    ----------
    name
        Of what is computed: ``v1``, ``v2``, … in order; ``v0``, ``v-1``, … for the inputs, ``y`` for
        the output, ``c1``, … for constants. Several, with commas, where several are returned.
    formula
        ``v3 = sin(v1)``.
    source
        The user's line, ``model.py:12``; empty where it is not known.
    primal, tangent, cotangent
        Arrays, where several values are computed a tuple of them; ``None`` where there is none: for
        integers, or where that mode does not exist.
    call
        Of a fold: the library function, module or loop step that its rows belong to.
    rows
        Of a fold: the rows inside.
    scope
        Named scopes around an equation, outermost first.
    reads, writes
        Names of the values that it reads, and of those that it makes and others read.

    Examples
    --------
    >>> row = jc.trace(lambda x: jnp.sin(x) * x, 2.0)["v1"]
    >>> row.formula, f"{row.primal:.4f}", f"{row.tangent:.4f}"  # sin 2, cos 2
    ('v1 = sin(v0)', '0.9093', '-0.4161')
    >>> row.reads, row.writes
    (('v0',), ('v1',))
    """

    name: str
    formula: str
    source: str = ""
    primal: Any = None
    tangent: Any = None
    cotangent: Any = None
    call: str = ""
    rows: tuple[TraceRow, ...] = ()
    scope: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def leaves(self) -> Iterator[TraceRow]:
        """The rows inside, those inside them in their places; the row itself if there is none."""
        if not self.rows:
            yield self
        for row in self.rows:
            yield from row.leaves

    def _brief(self) -> str:
        return self.formula

    def _table(self) -> Table:
        columns = ("primal", "tangent", "cotangent")
        inside = sum(1 for _ in self.leaves)
        notes = [self.source, f"{self.call}: {count(inside, 'row')} inside." if self.rows else ""]
        cells = [(name, summary(getattr(self, name)) or "–") for name in columns]
        return Table(self.formula, ("", "value"), cells, list(filter(None, notes)))


@dataclass(frozen=True, eq=False)
class _Entry:
    """An equation, its place in the program, and its path: the scopes around it and the library call it is part of."""

    number: int
    equation: Equation
    path: tuple[Any, ...]


class Names(dict[Any, str]):
    """Variables by their textbook names: inputs count up to v0, what is computed from v1 on."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        count = len(program.invars)
        self.update({var: f"v{k + 1 - count}" for k, var in enumerate(program.invars)})
        self.update({var: f"c{k}" for k, var in enumerate(program.constants, start=1)})
        written = (var for equation in program.equations for var in equation.writes)
        self.update({var: f"v{k}" for k, var in enumerate(written, start=1)})

    def row(self, written: Sequence[Any]) -> tuple[str, str]:
        """What a row is named that computes these variables, and how its formula begins."""
        names = [self[var] for var in written] or ["_"]
        told = names if len(names) <= READ else [names[0], "…", names[-1]]
        return ", ".join(names), f"{', '.join(told)} = "


def rows_of(
    program: Program, values: Values, arguments: Sequence[str], results: Sequence[str], cotangents: Sequence[Any]
) -> tuple[TraceRow, ...]:
    """Rows for the inputs and constants, for the equations, folded, and for the results with their cotangents."""
    names = Names(program)
    given = [
        *zip(program.invars, arguments, strict=True),
        *((var, "constant") for var in program.constants),
    ]
    first = [
        TraceRow(names[var], f"{names[var]} = {text}", "", *_values(values, [var]), writes=(names[var],))
        for var, text in given
    ]
    entries = [
        _Entry(number, equation, (*equation.origin.scope, *filter(None, [equation.origin.call])))
        for number, equation in enumerate(program.equations)
    ]
    folder = _Folder(program, values, names)
    folded = folder.fold(entries, 0)
    while len(folded) == 1 and folded[0].rows:  # what holds everything folds nothing
        folded = list(folded[0].rows)
    last = [_result(*one, values, names) for one in zip(results, program.outs, cotangents, strict=True)]
    return *_gathered(first), *folded, *last


def _gathered(rows: Sequence[TraceRow]) -> list[TraceRow]:
    """The same rows, those of one argument folded where it holds many arrays: a model's parameters, say."""
    gathered: list[TraceRow] = []
    for word, run in itertools.groupby(rows, key=lambda row: re.split(r"[.\[]", row.formula.partition(" = ")[2])[0]):
        members = tuple(run)
        name = f"{members[0].name} … {members[-1].name}"
        fold = TraceRow(name, f"{name} = {word}, {len(members)} arrays", call=word, rows=members)
        gathered += [fold] if len(members) > MANY else members
    return gathered


def _result(name: str, atom: Any, cotangent: Any, values: Values, names: Names) -> TraceRow:
    """The row of one result; a literal's derivative is zero."""
    seed = cotangent if is_inexact(atom) and values.cotangents else None
    if is_var(atom):
        return TraceRow(name, f"{name} = {names[atom]}", "", *_values(values, [atom])[:2], seed, reads=(names[atom],))
    primal = jnp.asarray(atom.val, dtype_of(atom))
    tangent = jnp.zeros_like(primal) if is_inexact(atom) and values.tangents else None
    return TraceRow(name, f"{name} = {literal(atom)}", "", primal, tangent, seed)


class _Folder:
    """Turns entries into rows; knows which values are read again later."""

    def __init__(self, program: Program, values: Values, names: Names) -> None:
        self.values, self.names = values, names
        self.last_read = {var: n for n, e in enumerate(program.equations) for var in e.reads}
        self.last_read.update({atom: len(program.equations) for atom in program.outs if is_var(atom)})

    def fold(self, entries: Sequence[_Entry], depth: int) -> list[TraceRow]:
        """Rows of neighbouring entries, those that share ``path[depth]`` folded into one."""

        def key(entry: _Entry) -> Any:
            step = entry.path[depth] if len(entry.path) > depth else entry
            return step if isinstance(step, str) else id(step)

        rows: list[TraceRow] = []
        for _, run in itertools.groupby(entries, key=key):
            members = list(run)
            rows.append(self.row(members[0]) if len(members) == 1 else self.call(members, depth))
        return rows

    def row(self, entry: _Entry) -> TraceRow:
        """One equation."""
        equation, written = entry.equation, entry.equation.writes
        name, start = self.names.row(written)
        text = start + formula(equation, self.names.__getitem__)
        site = str(equation.site) if equation.site.file else ""
        return TraceRow(
            name, text, site, *_values(self.values, written), scope=equation.origin.scope,
            reads=self.known(equation.reads), writes=self.known(written),
        )  # fmt: skip

    def known(self, variables: Iterable[Any]) -> tuple[str, ...]:
        """The names of some variables, each once."""
        return tuple(dict.fromkeys(self.names[var] for var in variables))

    def call(self, members: Sequence[_Entry], depth: int) -> TraceRow:
        """Several equations as a call of what they have in common."""
        inner = self.fold(members, depth + 1)
        step = members[0].path[depth]
        label = step if isinstance(step, str) else step.name
        if len(inner) == 1 and inner[0].rows:  # a module that holds one module alone
            label, inner = f"{label}/{inner[0].call}", list(inner[0].rows)
        made = dict.fromkeys(var for entry in members for var in entry.equation.writes)
        returned = [var for var in made if self.last_read.get(var, -1) > members[-1].number]
        outside = dict.fromkeys(var for entry in members for var in entry.equation.reads if var not in made)
        read: Sequence[Any] = list(outside)
        if isinstance(step, Call) and all(atom in self.names for atom in step.eqn.invars if is_var(atom)):
            read = step.eqn.invars  # as the caller wrote them, in order and with literals
        given = [self.names[atom] if is_var(atom) else literal(atom) for atom in read]
        _, start = self.names.row(returned)
        name = start.removesuffix(" = ")
        site = next((str(e.equation.site) for e in members if e.equation.site.file), "")
        text = start + called(label, given, READ)
        return TraceRow(
            name, text, site, *_values(self.values, returned), label, tuple(inner), members[0].path[:depth],
            self.known(outside), self.known(returned),
        )  # fmt: skip


def _values(values: Values, variables: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Primal, tangent and cotangent of one variable; of several, a tuple each."""
    columns = ([of.get(var) for var in variables] for of in (values.primals, values.tangents, values.cotangents))
    primal, tangent, cotangent = (
        None if all(value is None for value in column) else column[0] if len(column) == 1 else tuple(column)
        for column in columns
    )
    return primal, tangent, cotangent
