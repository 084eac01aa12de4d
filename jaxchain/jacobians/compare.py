"""`compare_modes`: every mode of `jacobian` on one function, side by side, in one run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.cost.measure import Measured, measure
from jaxchain.discovery.find import find
from jaxchain.errors import REFUSALS, first_line, unknown
from jaxchain.jacobians.modes import Mode, jacobian
from jaxchain.jacobians.planner import make_plan
from jaxchain.show.table import Table, Tabular, si

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
    predicted_flops
        What the plan predicted, before anything was compiled; ``None`` where the function is complex.
    """

    mode: str
    flops: float
    peak_bytes: int
    compile_seconds: float
    run_seconds: float
    max_error: float
    predicted_flops: float | None = None


@dataclass(frozen=True)
class Comparison(Tabular):
    """What `compare_modes` found: ``.rows``, and a table for terminals and notebooks."""

    rows: tuple[ModeRow, ...]
    notes: tuple[str, ...] = ()

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
                si(r.flops, "FLOP"),
                "" if r.predicted_flops is None else si(r.predicted_flops, "FLOP"),
                si(r.peak_bytes, "B"),
                si(r.compile_seconds, "s"),
                si(r.run_seconds, "s"),
                f"{r.max_error:.1e}",
            )
            for r in self.rows
        ]
        return Table("Jacobian by mode", header, rows, self.notes)


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
    ValueError
        If ``argnum`` or ``chunk_size`` is out of range.
    TypeError
        If no mode exists, as for an input that is not floating point.

    Notes
    -----
    A mode that does not exist for a function (forward mode through a custom VJP, reverse mode
    through a while loop) has no row, and a note says why.
    """
    if not -len(args) <= argnum < len(args):
        msg = f"argnum={argnum} names no argument: {len(args)} were given."
        raise ValueError(msg)
    for name, value in (("repeats", repeats), ("chunk_size", chunk_size)):
        if value is not None and value < 1:
            msg = f"{name} must be at least 1, but {value} was given."
            raise ValueError(msg)
    argnum %= len(args)
    predicted = _predictions(fun, args, argnum)
    found: dict[Mode, Measured] = {}
    notes: list[str] = []
    refused: Exception | None = None
    for mode in MODES if "sparse" not in predicted else (*MODES, "sparse"):
        try:
            found[mode] = measure(jacobian(fun, argnum, mode=mode, chunk_size=chunk_size), *args, repeats=repeats)
        except REFUSALS as error:
            notes.append(f"{mode} mode does not exist here: {first_line(error)}.")
            refused = error
    if not found and refused is not None:
        raise refused
    reference = found.get("reverse", next(iter(found.values()))).result
    rows = tuple(
        ModeRow(
            mode,
            m.flops,
            m.peak_bytes,
            m.compile_seconds,
            m.run_seconds,
            _difference(m.result, reference),
            predicted.get(mode),
        )
        for mode, m in found.items()
    )
    if any(m.open_loops for m in found.values()):
        notes.append("The body of a while loop is counted once: work is a lower bound.")
    return Comparison(rows, tuple(notes))


def _predictions(fun: Callable[..., Any], args: tuple[Any, ...], argnum: int) -> dict[str, float]:
    """Floating-point operations of each mode by the plan; ``sparse`` only where its pattern was worth colouring."""
    leaves = jax.tree.leaves((args[argnum], jax.eval_shape(fun, *args)))
    if not all(
        jnp.issubdtype(jax.typeof(leaf).dtype if not hasattr(leaf, "dtype") else leaf.dtype, jnp.floating)
        for leaf in leaves
    ):
        return {}
    found = find(fun, args, argnum)
    plan, mixed = make_plan(found), make_plan(found, structured=False)
    costs = {"forward": plan.forward_cost, "reverse": plan.reverse_cost, "mixed": mixed.cost}
    costs["auto"] = min(plan.cost, plan.forward_cost, plan.reverse_cost)
    if plan.whole is not None:
        costs["sparse"] = plan.cost
    return {mode: 2 * cost for mode, cost in costs.items() if math.isfinite(cost)}


def _difference(left: Any, right: Any) -> float:
    def gap(a: Any, b: Any) -> Any:
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, and is to be seen as such
            return np.max(np.abs(np.asarray(a, np.complex128) - np.asarray(b, np.complex128)), initial=0.0)

    gaps = jax.tree.map(gap, left, right)
    return float(max(jax.tree.leaves(gaps), default=0.0))
