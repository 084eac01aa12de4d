"""What `compare_modes` finds, as data: one row a mode, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxchain.errors import unknown
from jaxchain.show.table import Table, Tabular, si

__all__ = ["Comparison", "ModeRow"]


@dataclass(frozen=True)
class ModeRow:
    """One mode's cost; ``None`` where it was not measured.

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
        Largest absolute difference of an entry from JAX's own (reverse mode, forward over reverse), or from those of the
        cheapest that ran.
    predicted_flops
        What the plan predicted, before anything was compiled; ``None`` where the function is complex.
    note
        Why it was not run, or timed less often than was asked for.

    Examples
    --------
    >>> row = jc.compare_modes(jnp.sin, jnp.ones(4), repeats=1)["forward"]
    >>> row.mode, row.max_error < 1e-6
    ('forward', True)
    """

    mode: str
    flops: float | None = None
    peak_bytes: int | None = None
    compile_seconds: float | None = None
    run_seconds: float | None = None
    max_error: float | None = None
    predicted_flops: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison(Tabular):
    """What `compare_modes` found: ``.rows``, and a table for terminals and notebooks.

    Attributes
    ----------
    rows
        One a mode that exists.
    argument
        Which argument is differentiated with respect to, in words.
    notes
        Which mode ``auto`` runs, and which do not exist or were not run, and why.
    what
        What was computed: ``"Jacobian"`` or ``"Hessian"``.

    Examples
    --------
    >>> modes = jc.compare_modes(jnp.sin, jnp.ones(4), repeats=1)
    >>> modes["auto"].max_error < 1e-6
    True
    """

    rows: tuple[ModeRow, ...]
    argument: str = "argument 0"
    notes: tuple[str, ...] = ()
    what: str = "Jacobian"

    def __getitem__(self, mode: str) -> ModeRow:
        """The row of one mode.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.
        """
        for row in self.rows:
            if row.mode == mode:
                return row
        raise KeyError(unknown("mode", mode, [row.mode for row in self.rows]))

    def _brief(self) -> str:
        return ", ".join(row.mode for row in self.rows)

    def _table(self) -> Table:
        header = ("mode", "work", "predicted", "temporaries", "compile", "run", "max error")
        rows = [
            (
                r.mode,
                _cell(r.flops, "FLOP"),
                _cell(r.predicted_flops, "FLOP"),
                _cell(r.peak_bytes, "B"),
                _cell(r.compile_seconds, "s"),
                "not run" if r.run_seconds is None else si(r.run_seconds, "s"),
                "" if r.max_error is None else f"{r.max_error:.1e}",
            )
            for r in self.rows
        ]
        return Table(f"{self.what} by {self.argument}, in every mode", header, rows, self.notes)


def _cell(value: float | None, unit: str) -> str:
    return "" if value is None else si(value, unit)
