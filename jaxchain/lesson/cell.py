"""A cell of the lesson: a few lines of Python, run when the page is made, shown with what they gave.

The lines that a reader copies are the lines that made the numbers, because nothing else is run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxchain.show.values import scalar, sparkline

__all__ = ["PRELUDE", "Cell", "Workbook", "number"]

PRELUDE = "import jax\nimport jax.numpy as jnp\nimport optax\nimport jaxchain as jc\n"
"""What every copied cell begins with."""

FEW = 20
"""The most entries of an array that are written out."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """Lines of Python, what they gave as text, and all that a reader must run: the cells before, too."""

    code: str
    shown: str
    whole: str


@dataclass
class Workbook:
    """The cells of one chapter, which share their names as a notebook's do."""

    cells: dict[str, Cell] = field(default_factory=dict[str, Cell])
    names: dict[str, Any] = field(default_factory=dict[str, Any])

    def run(self, name: str, code: str) -> Any:
        r"""The value of the last line, an expression; the cell is kept under its name.

        Examples
        --------
        >>> book = Workbook()
        >>> book.run("three", "two = 2\ntwo + 1"), book.run("four", "two * two")
        (3, 4)
        >>> book.cells["four"].whole.splitlines()[-2:]
        ['two + 1', 'two * two']
        """
        code = code.strip()
        if not self.names:
            exec(PRELUDE, self.names)
        *statements, last = ast.parse(code).body
        if not isinstance(last, ast.Expr):
            msg = f"The last line of the cell {name!r} must be the expression that it shows."
            raise TypeError(msg)
        exec(compile(ast.Module(statements, []), "lesson", "exec"), self.names)
        value = eval(compile(ast.Expression(last.value), "lesson", "eval"), self.names)
        before = "\n".join(cell.code for cell in self.cells.values())
        whole = "\n".join(filter(None, (PRELUDE, before, code)))
        self.cells[name] = Cell(code, told(value), whole)
        return value


def told(value: Any) -> str:
    """A result as the page prints it under its cell: numbers in full, larger arrays in one line each."""
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {told(part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [told(part) for part in value]
        short = all("\n" not in part and len(part) < 20 for part in parts)
        return f"({', '.join(parts)})" if short else "\n".join(parts)
    if not hasattr(value, "dtype") and not isinstance(value, float):
        return str(value)
    array = np.asarray(value)
    if not array.shape:
        return scalar(array)
    if array.size <= FEW:
        return np.array2string(array, precision=4, suppress_small=True)
    shape = "×".join(map(str, array.shape))
    line = f" {sparkline(array)}" if array.ndim == 1 else ""
    return f"{shape} numbers, {array.min():.4g} to {array.max():.4g}{line}"


def number(value: float, digits: int = 4) -> str:
    """A number as the text says it: four significant digits, powers of ten where it is large or small.

    Examples
    --------
    >>> number(11.652071), number(-0.28366), number(8.4e-13, 2), number(987210), number(0.5)
    ('11.65', '−0.2837', '8.4×10⁻¹³', '987,210', '0.5')
    """
    value = float(value)
    size = abs(value)
    if value == 0 or (size >= 1000 and value.is_integer() and size < 1e9):
        text = f"{value:,.0f}"
    elif 1e-3 <= size < 1e6:
        text = f"{float(f'{value:.{digits}g}'):,.12g}" if size < 10**digits else f"{value:,.0f}"
    else:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{float(mantissa):g}×10{str(int(power)).translate(RAISED)}"
    return text.replace("-", "−")
