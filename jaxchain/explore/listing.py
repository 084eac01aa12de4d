"""A program as lines of text, each with the stage that it came from.

JAX prints its own programs, and XLA the compiled ones; here is only told which lines belong to
which equation. Lines of no stage (the head, what joins stages, what is computed once) have ``None``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxchain.explore.mark import stage_of
from jaxchain.program.flat import Equation

__all__ = ["WIDTH", "Line", "compiled_lines", "equation_stage", "program_lines"]

WIDTH = 150
"""Characters of a line, so that a product with its dimension numbers is one line."""

Line = tuple[str, int | None]
"""One line, and the number of its stage."""

# JAX indents equations by four; their further lines by more, but for the bracket that closes their parameters.
EQUATION = re.compile(r" {4}[^\s\])}]")
# Quoted names may hold braces of their own.
METADATA = re.compile(r', metadata=\{(?:"(?:[^"\\]|\\.)*"|[^"}])*\}')
COLOUR = re.compile(r"\x1b\[[\d;]*m")
OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')


def equation_stage(equation: Equation) -> int | None:
    """The stage that an equation of a flattened, marked program came from."""
    return stage_of("/".join(equation.origin.scope))


def program_lines(jaxpr: Any, stages: Sequence[int | None]) -> tuple[Line, ...]:
    """A jaxpr as JAX prints it.

    Parameters
    ----------
    jaxpr
        Without its constants' values.
    stages
        One an equation.

    Returns
    -------
    tuple of Line
        Should JAX lay out its text in a way that does not match the equations, no line has a
        stage: none is better than a wrong one.
    """
    jaxpr = jaxpr.replace(eqns=[_with_plain_text(eqn) for eqn in jaxpr.eqns])
    text = jaxpr.pretty_print(width=WIDTH, use_color=False)
    if "\n" not in text:  # it fits one line; a little less room breaks it into one line an equation
        text = jaxpr.pretty_print(width=len(text) - 1, use_color=False)
    lines = text.splitlines()
    # Jaxprs that several equations share are printed first, each as "let name = { lambda …".
    start = next((k for k, line in enumerate(lines) if line.startswith("{ lambda")), len(lines))
    head = next((k for k in range(start, len(lines)) if lines[k].endswith(". let")), len(lines)) + 1
    last = max((k for k, line in enumerate(lines) if line.startswith("  in ")), default=len(lines))
    first = [k for k in range(head, last) if EQUATION.match(lines[k])]
    if len(first) != len(stages):
        return tuple((line, None) for line in lines)
    owner: dict[int, int | None] = {}
    for stage, (begin, end) in zip(stages, itertools.pairwise([*first, last]), strict=True):
        owner |= dict.fromkeys(range(begin, end), stage)
    return tuple((line, owner.get(k)) for k, line in enumerate(lines))


def _with_plain_text(eqn: Any) -> Any:
    """An equation to be printed: the text of a container among its parameters without colours, and indented.

    On a terminal and in a notebook JAX colours the jaxprs inside a container even where it is asked not to, and
    starts the further lines at the margin. Plain tuples of jaxprs it lays out itself, functions it asks for their
    names.
    """
    plain: dict[str, str] = {}
    for key, value in eqn.params.items():
        laid_out = type(value) is tuple and all(hasattr(member, "eqns") or hasattr(member, "jaxpr") for member in value)
        if isinstance(value, (tuple, list, dict, np.ndarray)) and not laid_out:
            text = COLOUR.sub("", printed := str(value)).replace("\n", "\n" + " " * 6)
            if text != printed:
                plain[key] = text
    return eqn.replace(params=eqn.params | plain) if plain else eqn


def compiled_lines(text: str) -> tuple[tuple[Line, ...], int]:
    """A compiled program as XLA prints it, without its metadata, and how many instructions its entry has.

    Parameters
    ----------
    text
        HLO, from ``compiled.as_text()``.

    Returns
    -------
    lines, instructions
        Parameters of the entry are not counted. XLA forgets where some of its own rewriting came
        from; such a line has no stage.
    """
    raw = text.splitlines()
    start = next((k for k, line in enumerate(raw) if line.endswith("{")), 0)  # before it, tables of source lines
    lines: list[Line] = []
    instructions, in_entry = 0, False
    for line in raw[start:]:
        name = OP_NAME.search(line)
        lines.append((METADATA.sub("", line).rstrip(), None if name is None else stage_of(name[1])))
        in_entry = line.startswith("ENTRY") or (in_entry and not line.startswith("}"))
        instructions += in_entry and " = " in line and " parameter(" not in line
    while lines and not lines[-1][0]:
        lines.pop()
    return tuple(lines), instructions
