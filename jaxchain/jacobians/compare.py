"""`compare_modes`: every mode of `jacobian` on one function, side by side, in one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxchain.arguments import differentiated
from jaxchain.checks import integer, refuse_huge
from jaxchain.coordinates import Coordinates
from jaxchain.cost.measure import Measured, measure
from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.discovery.find import Found, find
from jaxchain.errors import REFUSALS, ModeError, first_line, refusal, unknown
from jaxchain.jacobians.blocks import require_real
from jaxchain.jacobians.decision import Decision, Way, decide
from jaxchain.jacobians.modes import compute, jacobian
from jaxchain.show.table import Table, Tabular, si

__all__ = ["Comparison", "ModeRow", "compare_modes"]


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

    Examples
    --------
    >>> row = jc.compare_modes(jnp.sin, jnp.ones(4), repeats=1)["forward"]
    >>> row.mode, row.max_error < 1e-6
    ('forward', True)
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
    """What `compare_modes` found: ``.rows``, and a table for terminals and notebooks.

    Attributes
    ----------
    rows
        One a mode that exists.
    argument
        Which argument is differentiated with respect to, in words.
    notes
        Which mode ``auto`` runs, and which do not exist and why.

    Examples
    --------
    >>> modes = jc.compare_modes(jnp.sin, jnp.ones(4), repeats=1)
    >>> modes["auto"].max_error < 1e-6
    True
    """

    rows: tuple[ModeRow, ...]
    argument: str = "argument 0"
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
        return Table(f"Jacobian by {self.argument}, in every mode", header, rows, self.notes)


def compare_modes(
    fun: Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    chunk_size: int | None = None,
    repeats: int = 5,
    memory_limit: int | None = None,
) -> Comparison:
    """Compute the Jacobian of ``fun`` at ``args`` in every mode; compare work, memory, time, result.

    Parameters
    ----------
    fun
        A chain or any JAX function of arrays or pytrees.
    args
        Its arguments.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    chunk_size
        As in `jacobian`.
    repeats
        Timed calls a mode; the median is reported.
    memory_limit
        Most bytes of one of the results, where 4 GiB are not enough.

    Returns
    -------
    Comparison
        ``.rows``, one a mode; ``print`` it. It compiles and runs, so it is no part of a traced
        program.

    Raises
    ------
    ValueError
        If ``argnum``, ``chunk_size`` or ``repeats`` is out of range, or the Jacobian is huge.
    TypeError
        If no mode exists, as for an input that is not floating point.

    Notes
    -----
    ``auto`` runs what `jacobian` decides. A mode that does not exist for a function (forward mode through a custom
    VJP, reverse mode through a while loop) has no row, and a note says why.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3 and 4 (what the modes cost).

    Examples
    --------
    >>> modes = jc.compare_modes(lambda x: jnp.tanh(x), jnp.ones(64), repeats=1)
    >>> [row.mode for row in modes.rows]
    ['forward', 'reverse', 'mixed', 'auto']
    """
    repeats = integer("repeats", repeats, "the number of timed calls a mode", least=1)
    at, how = differentiated(fun, argnum, args), Pass(chunk_size)
    integer("memory_limit", memory_limit, "a number of bytes, such as 2**33", least=1, optional=True)
    found = find(fun, args, at)
    here, there = Coordinates.of(found.input), Coordinates.of(found.out)
    refuse_huge((there.size, here.size), here.dtype, asked=memory_limit, limited=True)
    words = f"argument {at}"
    try:
        require_real(found)
    except ModeError as error:  # JAX may still have its own
        refused: dict[str, ModeError] = {"mixed": error, "auto": error}
        return compare(simple_modes(fun, at, how), args, None, words, refused, repeats)
    return compare_decided(fun, found, decide(found, "auto", words), args, how, repeats)


def compare_decided(
    fun: Callable[..., Any],
    found: Found,
    decision: Decision,
    args: tuple[Any, ...],
    how: Pass = ALL_AT_ONCE,
    repeats: int = 5,
) -> Comparison:
    """The same, of a real function that was traced already, and of the decision about it."""
    require_real(found)
    assert decision.plan is not None
    ways = {"mixed": replace(decision, mode="mixed"), "auto": decision}
    if decision.plan.whole is not None:
        ways["sparse"] = replace(decision, mode="sparse")

    def computing(way: Decision) -> Callable[..., Any]:
        return lambda *given: compute(found, way, given, how)

    runs = {**simple_modes(fun, found.argnum, how), **{name: computing(way) for name, way in ways.items()}}
    return compare(runs, args, decision, decision.argument, {}, repeats)


def simple_modes(fun: Callable[..., Any], argnum: int, how: Pass) -> dict[str, Callable[..., Any]]:
    """JAX's own two modes."""
    modes: tuple[Way, Way] = ("forward", "reverse")
    return {mode: jacobian(fun, argnum, mode=mode, chunk_size=how.chunk_size) for mode in modes}


def compare(
    runs: Mapping[str, Callable[..., Any]],
    args: tuple[Any, ...],
    decision: Decision | None,
    argument: str,
    refused: Mapping[str, ModeError],
    repeats: int,
) -> Comparison:
    """Measure every run; ``refused`` are those that do not exist, and why."""
    notes = [f"{mode} mode does not exist here: {first_line(error)}." for mode, error in refused.items()]
    found: dict[str, Measured] = {}
    last: Exception | None = None
    for mode, run in runs.items():
        try:
            found[mode] = measure(run, *args, repeats=repeats)
        except REFUSALS as error:
            notes.append(f"{mode} mode does not exist here: {refusal(error)}.")
            last = error
    if not found and last is not None:
        raise last
    reference = found.get("reverse", next(iter(found.values()))).result
    predicted = predictions(decision)
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
    if decision is not None:
        notes.append(f"auto runs {decision.mode} mode; jc.plan says why.")
    if any(m.open_loops for m in found.values()):
        notes.append("The body of a while loop is counted once: work is a lower bound.")
    return Comparison(rows, argument, tuple(notes))


def predictions(decision: Decision | None) -> dict[str, float]:
    """Floating-point operations of each mode that exists, as the decision's plan counts them before anything runs.

    The evaluation at the point is among them, as it is among what XLA counts.
    """
    if decision is None or decision.plan is None:
        return {}
    plan = decision.plan
    costs = {"forward": plan.forward_cost, "reverse": plan.reverse_cost, "auto": decision.cost}
    costs |= {"mixed": plan.cost, "sparse": plan.whole_cost}
    return {mode: 2 * (plan.once + cost) for mode, cost in costs.items() if math.isfinite(cost)}


def _difference(left: Any, right: Any) -> float:
    def gap(a: Any, b: Any) -> Any:
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, and is to be seen as such
            return np.max(np.abs(np.asarray(a, np.complex128) - np.asarray(b, np.complex128)), initial=0.0)

    gaps = jax.tree.map(gap, left, right)
    return float(max(jax.tree.leaves(gaps), default=0.0))
