"""What one transform makes of a function, and what all make of one stage: data, and how a terminal shows it.

A program is shown with the stages in its margin, a stage with the programs beside each other.
"""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass
from typing import Any

from jaxchain.explore.listing import Line
from jaxchain.show.html import render
from jaxchain.show.table import Shown, one_line, terminal_width
from jaxchain.show.values import count

__all__ = ["StageLines", "TransformRow"]

GUTTER = 20
"""How many characters of a stage's name a margin holds."""

COLUMN = 36
"""How many characters wide one program must at least be beside others in a terminal."""


@dataclass(frozen=True, eq=False)
class TransformRow(Shown):
    """What one transform makes of the function. ``print`` it: the program, with stages in the margin.

    Attributes
    ----------
    name
        ``fun``, ``jvp``, ``linearize``, ``transpose``, ``vjp``, ``grad``, ``vmap`` or ``jit``.
    title
        What it is and how it follows from the row before, in a sentence.
    lines
        The program's lines, each with the number of its stage, or ``None`` where it is of none.
    equations
        How many there are; equations whose result nothing reads are left out.
    flops
        Floating-point operations, counted from shapes; for ``jit`` by XLA, which counts a loop's
        body once. ``None`` where the row is missing.
    residual_bytes
        Bytes kept from the primal pass until the linear part or its transpose runs: of the arrays
        it reads that the primal pass computed. Arguments and constants that it reads are there
        anyway. ``None`` in rows that keep nothing.
    note
        Why the row is missing, if it is: its program is then empty.
    jaxpr
        The program, to run with ``jax.extend.core.jaxpr_as_fun``; ``None`` for ``jit``. It takes the
        leaves of ``args``, then of the tangent or cotangent; for ``linearize`` and ``transpose``
        what the primal pass kept, then the tangent or cotangent.
    primal
        For ``linearize`` and ``transpose``: the primal pass, from the leaves of ``args`` to those of
        the output, then what ``jaxpr`` takes first.
    names
        The stages' names.

    Examples
    --------
    >>> row = jc.transforms(lambda x: jnp.sin(x) * x, 2.0)["fun"]
    >>> row.equations, row.flops
    (2, 2.0)
    >>> print(row.program)
    { lambda ; a:f32[]. let
        b:f32[] = sin a
        c:f32[] = mul b a
      in (c,) }
    """

    name: str
    title: str
    lines: tuple[Line, ...] = ()
    equations: int = 0
    flops: float | None = None
    residual_bytes: int | None = None
    note: str = ""
    jaxpr: Any = None
    primal: Any = None
    names: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The program's text."""
        return "\n".join(text for text, _ in self.lines)

    def __str__(self) -> str:
        width = terminal_width()
        head = textwrap.wrap(f"{self.name}: {self.note or self.title}", width)
        labels = [one_line(name, GUTTER) for name in self.names]
        gutter = max((len(labels[stage]) for _, stage in self.lines if stage is not None), default=0)
        body: list[str] = []
        before: int | None = None
        for text, stage in self.lines:
            label = labels[stage] if stage is not None and stage != before else ""
            before = stage
            for part in _wrapped(text, width - gutter - 3):
                body.append(f"{label:{gutter}} │ {part}".rstrip())
                label = ""
        return "\n".join([*head, *body])

    def _brief(self) -> str:
        return f"{self.name}, {count(self.equations, 'equation') if self.lines else 'which does not exist here'}"

    def _repr_html_(self) -> str:
        return render("text.html", text=self)


@dataclass(frozen=True)
class StageLines(Shown):
    """The lines of one stage in every program; ``print`` it: programs side by side, as many as fit."""

    name: str
    programs: tuple[tuple[str, tuple[str, ...]], ...]
    """(transform, lines), transforms that do not exist left out."""

    def __str__(self) -> str:
        width = terminal_width()
        abreast = max(min((width + 3) // (COLUMN + 3), len(self.programs)), 1)
        column = (width + 3) // abreast - 3
        rows = [f"Stage {one_line(self.name, GUTTER)}"]
        for start in range(0, len(self.programs), abreast):
            cells = [
                [name, *(part for line in lines for part in _wrapped(line, column))]
                for name, lines in self.programs[start : start + abreast]
            ]
            rows.append("")
            rows += [
                " │ ".join(f"{cell:{column}}" for cell in across).rstrip()
                for across in itertools.zip_longest(*cells, fillvalue="")
            ]
        return "\n".join(rows)

    def _brief(self) -> str:
        return f"{self.name}, {count(len(self.programs), 'program')}"

    def _repr_html_(self) -> str:
        return render("text.html", text=self)


def _wrapped(line: str, width: int) -> list[str]:
    """A line of a program in parts that fit, the further ones indented a little more than the first."""
    width = max(width, 20)
    indent = " " * min(len(line) - len(line.lstrip()), width // 2)
    return textwrap.wrap(
        line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    ) or [""]
