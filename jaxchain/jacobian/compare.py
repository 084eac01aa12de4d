"""`compare_modes`: every mode of `jacobian` on one function, side by side, in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxchain.jacobian.measure import Measured, measure
from jaxchain.jacobian.modes import Mode, jacobian
from jaxchain.table import Table, si

__all__ = ["Comparison", "ModeRow", "compare_modes"]

MODES: tuple[Mode, ...] = ("forward", "reverse", "mixed", "auto")


@dataclass(frozen=True)
class ModeRow:
    """One mode's cost.

    Attributes
    ----------
    mode
        Its name.
    flops
        Floating-point operations, from XLA; scans counted as often as they run.
    peak_bytes
        Temporary memory in bytes, from XLA.
    compile_seconds, run_seconds
        Time to compile; median time of a call.
    max_error
        Largest absolute difference of an entry from reverse mode's.
    """

    mode: str
    flops: float
    peak_bytes: int
    compile_seconds: float
    run_seconds: float
    max_error: float


@dataclass(frozen=True)
class Comparison:
    """What `compare_modes` found: ``.rows``, and a table for terminals and notebooks."""

    rows: tuple[ModeRow, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, mode: str) -> ModeRow:
        """The row of one mode."""
        return next(row for row in self.rows if row.mode == mode)

    def _table(self) -> Table:
        header = ("mode", "work", "temporaries", "compile", "run", "max error")
        rows = [
            (
                r.mode,
                si(r.flops, "FLOP"),
                si(r.peak_bytes, "B"),
                si(r.compile_seconds, "s"),
                si(r.run_seconds, "s"),
                f"{r.max_error:.1e}",
            )
            for r in self.rows
        ]
        return Table("Jacobian by mode", header, rows, self.notes)

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()  # pyright: ignore[reportPrivateUsage]


def compare_modes(
    fun: Callable[..., Any], *args: Any, argnum: int = -1, chunk_size: int | None = None, repeats: int = 5
) -> Comparison:
    """Compute the Jacobian of ``fun`` at ``args`` in every mode; compare work, memory, time, result.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays or pytrees.
    args
        Its arguments.
    argnum
        Which one to differentiate with respect to; default: the last.
    chunk_size
        As in `jacobian`.
    repeats
        Timed calls a mode; the median is reported.

    Returns
    -------
    Comparison
        ``.rows``, one a mode; ``print`` it. It compiles and runs, so it is no part of a traced
        program.

    Raises
    ------
    TypeError
        If an input or output is not floating point.
    ValueError
        If ``argnum`` or ``chunk_size`` is out of range.
    """
    if not -len(args) <= argnum < len(args):
        msg = f"argnum={argnum} names no argument: {len(args)} were given."
        raise ValueError(msg)
    found: dict[Mode, Measured] = {
        mode: measure(jacobian(fun, argnum % len(args), mode=mode, chunk_size=chunk_size), *args, repeats=repeats)
        for mode in MODES
    }
    reference = found["reverse"].result
    rows = tuple(
        ModeRow(mode, m.flops, m.peak_bytes, m.compile_seconds, m.run_seconds, _difference(m.result, reference))
        for mode, m in found.items()
    )
    open_loops = any(m.open_loops for m in found.values())
    return Comparison(rows, ("The body of a while loop is counted once: work is a lower bound.",) * open_loops)


def _difference(left: Any, right: Any) -> float:
    gaps = jax.tree.map(
        lambda a, b: np.max(np.abs(np.asarray(a, np.complex128) - np.asarray(b, np.complex128)), initial=0.0),
        left,
        right,
    )
    return float(max(jax.tree.leaves(gaps), default=0.0))
