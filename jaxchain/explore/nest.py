"""The equations of a program as rows with names and values, those of one call or module folded into one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxchain.discovery.program import Equation, Program, is_var
from jaxchain.explore.evaluate import Values
from jaxchain.explore.formula import formula

__all__ = ["TraceRow", "rows_of"]

READ = 4
"""How many inputs the formula of a folded call names."""


@dataclass(frozen=True, eq=False)
class TraceRow:
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
        Arrays; ``None`` where there is none: for integers, or where that mode does not exist.
    call
        Of a fold: the library function, module or loop step that its rows belong to.
    rows
        Of a fold: the rows inside.
    scope
        Named scopes around an equation, outermost first.
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

    @property
    def leaves(self) -> Iterator[TraceRow]:
        """The rows inside, those inside them in their places; the row itself if there is none."""
        if not self.rows:
            yield self
        for row in self.rows:
            yield from row.leaves


@dataclass(frozen=True, eq=False)
class _Entry:
    """An equation, its place in the program, and its path: the scopes around it and the library call it is part of."""

    number: int
    equation: Equation
    path: tuple[Any, ...]


class _Names(dict[Any, str]):
    """Variables by their textbook names: inputs count up to v0, what is computed from v1 on."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        count = len(program.invars)
        self.update({var: f"v{k + 1 - count}" for k, var in enumerate(program.invars)})
        self.update({var: f"c{k}" for k, var in enumerate(program.constants, start=1)})
        written = (var for equation in program.equations for var in equation.writes)
        self.update({var: f"v{k}" for k, var in enumerate(written, start=1)})

    def of(self, atoms: Sequence[Any]) -> str:
        """Several names, with commas."""
        return ", ".join(self[var] for var in atoms)


def rows_of(
    program: Program, values: Values, arguments: Sequence[str], results: Sequence[str], cotangents: Sequence[Any]
) -> tuple[TraceRow, ...]:
    """Rows for the inputs and constants, for the equations, folded, and for the results with their cotangents."""
    names = _Names(program)
    given = [
        *zip(program.invars, arguments, strict=True),
        *((var, "constant") for var in program.constants),
    ]
    first = [TraceRow(names[var], f"{names[var]} = {text}", "", *_values(values, [var])) for var, text in given]
    entries = [
        _Entry(number, equation, (*equation.origin.scope, *filter(None, [equation.origin.call])))
        for number, equation in enumerate(program.equations)
    ]
    folder = _Folder(program, values, names)
    folded = folder.fold(entries, 0)
    while len(folded) == 1 and folded[0].rows:  # what holds everything folds nothing
        folded = list(folded[0].rows)
    last = [
        TraceRow(result, f"{result} = {names[atom]}", "", *_values(values, [atom])[:2], cotangent)
        if is_var(atom)
        else TraceRow(result, f"{result} = {atom.val}", "", atom.val, None, cotangent)
        for result, atom, cotangent in zip(results, program.outs, cotangents, strict=True)
    ]
    return *first, *folded, *last


class _Folder:
    """Turns entries into rows; knows which values are read again later."""

    def __init__(self, program: Program, values: Values, names: _Names) -> None:
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
        name = self.names.of(written) or "_"
        text = f"{name} = {formula(equation, self.names.__getitem__)}"
        site = str(equation.site) if equation.site.file else ""
        return TraceRow(name, text, site, *_values(self.values, written), scope=equation.origin.scope)

    def call(self, members: Sequence[_Entry], depth: int) -> TraceRow:
        """Several equations as a call of what they have in common."""
        inner = self.fold(members, depth + 1)
        step = members[0].path[depth]
        label = step if isinstance(step, str) else step.name
        if len(inner) == 1 and inner[0].rows:  # a module that holds one module alone
            label, inner = f"{label}/{inner[0].call}", list(inner[0].rows)
        made = [var for entry in members for var in entry.equation.writes]
        returned = [var for var in made if self.last_read.get(var, -1) > members[-1].number]
        read = dict.fromkeys(var for entry in members for var in entry.equation.reads)
        given = [self.names[var] for var in read if var not in set(made)]
        shown = given if len(given) <= READ else [*given[: READ - 1], "…"]
        name = self.names.of(returned) or "_"
        site = next((str(e.equation.site) for e in members if e.equation.site.file), "")
        text = f"{name} = {label}({', '.join(shown)})"
        return TraceRow(name, text, site, *_values(self.values, returned), label, tuple(inner), members[0].path[:depth])


def _values(values: Values, variables: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Primal, tangent and cotangent of one variable; nothing of several."""
    if len(variables) != 1:
        return None, None, None
    return tuple(of.get(variables[0]) for of in (values.primals, values.tangents, values.cotangents))  # pyright: ignore[reportReturnType]
