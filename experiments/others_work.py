"""What do programs that others wrote gain?

Question   Solvers, networks, flows, filters, physics, each a few lines on a package that someone else
           wrote, most of them small: what do `jc.jacobian`'s work and time come to, beside the
           better of `jax.jacfwd` and `jax.jacrev`?
Command    python experiments/others_work.py        (needs the extra ``ecosystem``)
Expect     Nothing takes more than the better mode. Nothing can be gained where a gradient is the
           whole Jacobian, where a solver keeps a rule of its own, where a loop goes round a state as
           small as the input. What is linear beside known values takes no work at all.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from bench.core import race
from common import RESULTS, conclude, heading
from others import PROGRAMS, Program, chosen

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.errors import refusal
from jaxchain.show.table import Table

LEAST = 0.01
"""What a program that takes no work at all counts as in a geometric mean."""


@dataclass(frozen=True)
class Row:
    """One program: how its Jacobian is computed; work and time over the better simple mode's, in each the better."""

    program: str
    shape: tuple[int, int]
    mode: str
    work: float
    time: float
    why: str


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, only: tuple[str, ...] = (), repeats: int = 20
) -> None:
    """Compile and time every program's Jacobian three ways; print a table.

    Parameters
    ----------
    seed
        Unused: nothing is drawn here.
    quick
        Three programs of JAX's own parts, a few calls each.
    out
        Folder for the numbers.
    only
        Words that a program's name holds; default: all of them.
    repeats
        How often each way is timed, in turns; the median counts.
    """
    del seed
    programs, missing = chosen(PROGRAMS, only, quick)
    repeats = 3 if quick else repeats
    rows: list[Row] = []
    for number, program in enumerate(programs, 1):
        print(f"· {number}/{len(programs)} {program}", flush=True)
        if (row := gained(program, repeats)) is not None:
            rows.append(row)
        jax.clear_caches()
        gc.collect()
    tell(rows, missing, out)


def gained(program: Program, repeats: int) -> Row | None:
    """What one program gains; ``None`` where JAX has neither mode, or counts no work in either."""
    fun, args, argnum = program.build()
    ways = {"ours": jc.jacobian, "forward": jax.jacfwd, "reverse": jax.jacrev}
    counts = {name: counted(make(fun, argnum), args) for name, make in ways.items()}
    exist = {name: ways[name](fun, argnum) for name, count in counts.items() if count is not None}
    simple = [count for name, count in counts.items() if count is not None and name != "ours"]
    if not simple or not min(simple) or counts["ours"] is None:
        return None
    seconds = race(exist, *args, repeats=repeats)
    decision = jc.jacobian(fun, argnum).plan(*args)
    shape = (decision.sizes[-1], decision.sizes[0]) if decision.plan is not None else (0, 0)
    time = seconds.pop("ours") / min(seconds.values())
    return Row(program.name, shape, decision.mode, counts["ours"] / min(simple), time, decision.why)


def counted(jacobian: Callable[..., Any], args: tuple[Any, ...]) -> float | None:
    """One way's work; ``None`` where it does not exist."""
    try:
        return flops(jacobian, *args)
    except Exception as error:  # rules that others wrote refuse in words of their own
        refusal(error)
        return None


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean, of what is at least `LEAST`."""
    return math.exp(sum(math.log(max(ratio, LEAST)) for ratio in ratios) / len(ratios))


def tell(rows: Sequence[Row], missing: Sequence[str], out: Path) -> None:
    """The table, cheapest first; the numbers as JSON."""
    ordered = sorted(rows, key=lambda row: row.work)
    heading(f"Jacobians of {len(rows)} programs, over the better of jax.jacfwd and jax.jacrev")
    table = [
        (r.program, f"{r.shape[0]} × {r.shape[1]}", r.mode, f"{r.work:.2f}", f"{r.time:.2f}", r.why) for r in ordered
    ]
    print(Table("", ("program", "Jacobian", "mode", "work", "time", "why"), table))
    work, time = [r.work for r in rows], [r.time for r in rows]
    count = {
        "programs": len(rows),
        "work": mean(work),
        "worst work": max(work),
        "a fifth less": sum(ratio <= 0.8 for ratio in work),
        "none": sum(ratio == 0 for ratio in work),
        "time": mean(time),
        "worst time": max(time),
    }
    findings = [
        f"Work: {count['work']:.2f} times the better mode's (geometric mean; {count['none']} programs take none, counted "
        f"as {LEAST}), at worst {count['worst work']:.2f}; {count['a fifth less']} of {len(rows)} take a fifth less, or better.",
        f"Time of a call: {count['time']:.2f} times the better mode's, at worst {count['worst time']:.2f}.",
        *(["Not installed: " + ", ".join(missing) + "."] if missing else []),
    ]
    numbers = {"jax": jax.__version__, "count": count, "missing": missing, "programs": [asdict(row) for row in ordered]}
    conclude(out / "others_work.json", numbers, findings, [])


if __name__ == "__main__":
    tyro.cli(main)
