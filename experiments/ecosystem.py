"""Does everything hold on programs that others wrote?

Question   Solvers, neural networks, flows, filters, Gaussian processes, physics, circuits, each a few
           lines on a package that someone else wrote: is every view and mode right there?
Command    python experiments/ecosystem.py        (needs the extra ``ecosystem``)
Expect     A table, a program a row, a view a column, and no failure: each agrees with JAX, or JAX has
           no such mode either, or a proof names the primitive that it has no rule for.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import tyro
from common import RESULTS, conclude, heading
from others import PROGRAMS, Program, chosen
from others.views import CHEAP, NO_MODE, VIEWS, Outcome, views

from jaxchain.show.table import Table

Looked = dict[str, dict[str, Outcome]]
"""Of each program, of each view, how it went."""


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, only: tuple[str, ...] = (), limit: int = 300) -> None:
    """Run every view on every program, each against JAX; print a table.

    Parameters
    ----------
    seed
        Of tangents and cotangents.
    quick
        Three programs of JAX's own parts, and the views that tests run.
    out
        Folder for the numbers.
    only
        Words that a program's name holds; default: all of them.
    limit
        Seconds that a view may take before it counts as failed.
    """
    jax.config.update("jax_disable_most_optimizations", True)  # programs here are compiled once and run once
    programs, missing = chosen(PROGRAMS, only, quick)
    looked: Looked = {}
    with interruptible() as stopped:
        for number, program in enumerate(programs, 1):
            print(f"· {number}/{len(programs)} {program}", end="", flush=True)
            looked[program.name] = found = {}
            start = time.perf_counter()
            for view, outcome in each_within(limit, views(program, CHEAP if quick else VIEWS, seed)):
                found[view] = outcome  # noqa: PERF403  # an interrupt keeps what is there
            failed = sum(outcome.failed for outcome in found.values())
            print(f": {time.perf_counter() - start:.0f} s" + f", {failed} failed" * bool(failed), flush=True)
            jax.clear_caches()
            gc.collect()
    tell(looked, programs, missing, {"seed": seed, "quick": quick, "interrupted": bool(stopped)}, out)


@contextlib.contextmanager
def interruptible() -> Generator[list[str]]:
    """Ends its block at an interrupt or a polite kill, so that what was found until then is told; yields whether."""
    stopped: list[str] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield stopped
    except KeyboardInterrupt:
        stopped.append("interrupted")
        print("\nInterrupted: the table is of the programs until here.")
    finally:
        signal.signal(signal.SIGTERM, before)


def each_within(seconds: int, outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[tuple[str, Outcome]]:
    """The same, but a view that takes longer meets a ``TimeoutError``, once the compiler lets go of it."""

    def late(*_: object) -> None:
        msg = f"took more than {seconds} s"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, late)
    try:
        signal.alarm(seconds)
        for outcome in outcomes:
            signal.alarm(0)
            yield outcome
            signal.alarm(seconds)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tell(
    looked: Looked, programs: Sequence[Program], missing: Sequence[str], about: Mapping[str, Any], out: Path
) -> None:
    """The table, each failure in a line, the numbers as JSON."""
    columns = [view for view in ("build", *VIEWS) if any(view in found for found in looked.values())]
    rows = [(name, *(mark(found.get(view)) for view in columns)) for name, found in looked.items()]
    heading(f"{len(looked)} programs on {len({p.package for p in programs if p.name in looked})} packages")
    print(Table("", ("program", *columns), rows))
    print(
        "✓ agrees with JAX; – JAX has no such mode, or nothing to compare with; ? a proof names a primitive; ✗ failed."
    )
    failures = [
        f"{name}, {view}: {outcome.words}"
        for name, found in looked.items()
        for view, outcome in found.items()
        if outcome.failed
    ]
    outcomes = [outcome for found in looked.values() for outcome in found.values()]
    count = {
        "programs": len(looked),
        "failing": sum(any(outcome.failed for outcome in found.values()) for found in looked.values()),
        "views": len(outcomes),
        "failures": len(failures),
        "no such mode": sum(outcome.words == NO_MODE for outcome in outcomes),
        "refused": sum(outcome.words.startswith("refused") for outcome in outcomes),
    }
    findings = [
        f"{count['programs']} programs in {count['views']} views: {count['failures']} failures, in {count['failing']} programs.",
        f"{count['no such mode']} modes that JAX does not have either; {count['refused']} proofs that name a primitive.",
        *(["Not installed: " + ", ".join(missing) + "."] if missing else []),
        *(["Interrupted before the last program."] if about["interrupted"] else []),
        *failures,
    ]
    told = {name: {view: asdict(outcome) for view, outcome in found.items()} for name, found in looked.items()}
    numbers = {**about, "jax": jax.__version__, "count": count, "missing": missing, "programs": told}
    conclude(out / "ecosystem.json", numbers, findings, [])


def mark(outcome: Outcome | None) -> str:
    """An outcome in a character."""
    if outcome is None:
        return ""
    if outcome.failed:
        return "✗"
    return {"ok": "✓", NO_MODE: "–"}.get(outcome.words, "?" if outcome.words.startswith("refused") else "–")


if __name__ == "__main__":
    tyro.cli(main)
