"""Modes of one function side by side, in one run: what `jaxchain.compare_modes` shows of `jacobian`, and measures of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxchain.arguments import argument_in_words, begun, differentiated
from jaxchain.checks import refuse_huge
from jaxchain.coordinates import Coordinates
from jaxchain.cost.measure import Measured, measure
from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.discovery.find import Found, find
from jaxchain.errors import REFUSALS, ModeError, refusal
from jaxchain.jacobians.blocks import require_real
from jaxchain.jacobians.comparison import Comparison, ModeRow
from jaxchain.jacobians.decision import Decision, Way, decide
from jaxchain.jacobians.modes import compute, jacobian
from jaxchain.show.progress import telling
from jaxchain.show.table import si

__all__ = ["Limits", "Told", "compare", "compare_decided", "compare_jacobians", "predictions"]


SPEED = 1e10
"""Floating-point operations a second that are counted on before anything has run: a few cores manage them."""

TELLING = 0.01
"""Seconds; the speed of a shorter run is that of its start."""


@dataclass(frozen=True)
class Limits:
    """Of each mode: how often it is timed, how many seconds it may run, and with how much temporary memory."""

    repeats: int = 5
    seconds: float = math.inf
    most_bytes: float = math.inf


@dataclass(frozen=True)
class Told:
    """What is known of the modes before any of them runs.

    Attributes
    ----------
    predicted
        Floating-point operations, by mode.
    notes
        What else there is to say.
    what
        What they compute.
    reference
        The mode that errors are differences from.
    """

    predicted: Mapping[str, float]
    notes: tuple[str, ...] = ()
    what: str = "Jacobian"
    reference: str = "reverse"


def compare_jacobians(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    argnum: int | None,
    how: Pass,
    limits: Limits,
    memory_limit: int | None,
    shown: bool,
) -> Comparison:
    """Every mode of `jaxchain.jacobian`, side by side."""
    at = differentiated(fun, argnum, args)
    words = argument_in_words(fun, args, at)
    fun, args, at = begun(fun, args, at)
    found = find(fun, args, at)
    here, there = Coordinates.of(found.input), Coordinates.of(found.out)
    refuse_huge((there.size, here.size), here.dtype, asked=memory_limit, limited=True)
    try:
        require_real(found)
    except ModeError as error:  # JAX may still have its own
        refused: dict[str, ModeError] = {"mixed": error, "auto": error}
        return compare(simple_modes(fun, at, how), args, Told({}), words, refused, limits, shown)
    return compare_decided(fun, found, decide(found, "auto", words), args, how, limits, shown)


def compare_decided(
    fun: Callable[..., Any],
    found: Found,
    decision: Decision,
    args: tuple[Any, ...],
    how: Pass = ALL_AT_ONCE,
    limits: Limits = Limits(),
    shown: bool = False,
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
    told = Told(predictions(decision), (f"auto runs {decision.mode} mode; jc.plan says why.",))
    return compare(runs, args, told, decision.argument, {}, limits, shown)


def simple_modes(fun: Callable[..., Any], argnum: int, how: Pass) -> dict[str, Callable[..., Any]]:
    """JAX's own two modes."""
    modes: tuple[Way, Way] = ("forward", "reverse")
    return {mode: jacobian(fun, argnum, mode=mode, chunk_size=how.chunk_size) for mode in modes}


def compare(
    runs: Mapping[str, Callable[..., Any]],
    args: tuple[Any, ...],
    told: Told,
    argument: str,
    refused: Mapping[str, Exception],
    limits: Limits = Limits(),
    shown: bool = False,
) -> Comparison:
    """Measure every run; ``refused`` are those that do not exist, and why."""
    predicted = told.predicted
    found, remarks, more = _measured(runs, args, predicted, limits, shown)
    if not found and not remarks and more:
        raise next(reversed(more.values()))
    notes = [f"{mode} mode does not exist here: {refusal(error)}." for mode, error in {**refused, **more}.items()]
    notes += [remarks[mode] for mode in runs if mode in remarks]
    ran = {mode: one.result for mode, one in found.items() if one.run_seconds is not None}
    reference = next((mode for mode in (told.reference, *ran) if mode in ran), told.reference)
    if reference != told.reference and told.reference in remarks:
        notes.append(f"Errors are differences from {reference} mode.")
    notes += told.notes
    if any(m.open_loops for m in found.values()):
        notes.append("The body of a while loop is counted once: work is a lower bound.")

    def row(mode: str) -> ModeRow:
        known = ModeRow(mode, predicted_flops=predicted.get(mode), note=remarks.get(mode, ""))
        if (one := found.get(mode)) is None:
            return known
        error = _difference(ran[mode], ran[reference]) if mode in ran else None
        costs = one.flops, one.peak_bytes, one.compile_seconds, one.run_seconds, error
        return ModeRow(mode, *costs, known.predicted_flops, known.note)

    rows = tuple(row(mode) for mode in runs if mode in found or mode in remarks)
    return Comparison(rows, argument, tuple(notes), told.what)


def _measured(
    runs: Mapping[str, Callable[..., Any]],
    args: tuple[Any, ...],
    predicted: Mapping[str, float],
    limits: Limits,
    shown: bool,
) -> tuple[dict[str, Measured], dict[str, str], dict[str, Exception]]:
    """By mode, the cheapest first: what was measured, remarks on what was cut short, and why it does not exist."""
    found, remarks, refused = dict[str, Measured](), dict[str, str](), dict[str, Exception]()
    speed = SPEED
    with telling(shown) as say:
        for mode in sorted(runs, key=lambda mode: predicted.get(mode, 0.0)):
            work = predicted.get(mode, 0.0)
            if work > speed * limits.seconds:
                remarks[mode] = _too_long(mode, work, speed, limits)
                continue
            say(f"Compiling and running every mode: {mode}" + (f", {si(work, 'FLOP')} predicted" if work else ""))
            try:
                found[mode] = one = measure(runs[mode], *args, **vars(limits))
            except REFUSALS as error:
                refusal(error)  # raises what is no refusal but a failure
                refused[mode] = error
                continue
            if work and one.run_seconds is not None and one.run_seconds > TELLING:
                speed = work / one.run_seconds
            if remark := _remark(mode, one, limits):
                remarks[mode] = remark
    return found, remarks, refused


def _too_long(mode: str, work: float, speed: float, limits: Limits) -> str:
    """Why a mode was not compiled."""
    return (
        f"{mode} mode was not run: its {si(work, 'FLOP')} would take about {_duration(work / speed)}, "
        f"and {limits.seconds:g} seconds are the limit; time_limit=None runs it."
    )


def _remark(mode: str, one: Measured, limits: Limits) -> str:
    """Why a mode that was compiled was not run, or was timed less often than was asked for."""
    if one.run_seconds is None:
        return f"{mode} mode was not run: it needs {si(one.peak_bytes, 'B')} of temporary memory; memory_limit={one.peak_bytes} runs it."
    if one.calls < limits.repeats:
        times = "once" if one.calls == 1 else f"{one.calls} times"
        return f"{mode} mode was timed {times}, since a call takes {_duration(one.run_seconds)}."
    return ""


def _duration(seconds: float) -> str:
    """``43.0 s``, ``21 minutes``."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return si(seconds, "s")


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
