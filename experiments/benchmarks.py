"""What jaxchain costs against the peer one would use instead.

Question   Do the speed claims hold? Training and sweeping against JAX and optax alone, discovery
           against its own size, whole Jacobians against jax.jacfwd, jax.jacrev and other libraries,
           the report page against the clock.
Command    python experiments/benchmarks.py                       (everything, some minutes)
           python experiments/benchmarks.py --write               (and into experiments/README.md)
           python experiments/benchmarks.py --only zoo jacobians  (some functions or modules of bench/)
Expect     A row a figure: ours, the peer's, their ratio, the target, and whether it holds. Where we
           lose, the row says so. Another benchmark is one more function in a module of bench/.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import tyro
from bench import (
    basics,
    curvature,
    curvature_in_parameters,
    discovery,
    flow,
    instruments,
    jacobians,
    kernels,
    memory,
    pages,
    peers,
    samples,
)
from bench.core import Row
from bench.markdown import HEADER, here, page
from common import RESULTS, conclude, heading

from jaxchain.show.table import Table

BENCHMARKS: tuple[Callable[[int, bool], Iterable[Row]], ...] = (
    *basics.BENCHMARKS,
    *discovery.BENCHMARKS,
    *jacobians.BENCHMARKS,
    *curvature.BENCHMARKS,
    *curvature_in_parameters.BENCHMARKS,
    *peers.BENCHMARKS,
    *pages.BENCHMARKS,
    *flow.BENCHMARKS,
    *instruments.BENCHMARKS,
    *samples.BENCHMARKS,
    *kernels.BENCHMARKS,
    *memory.BENCHMARKS,
)


PAGE = Path(__file__).parent / "README.md"


def main(
    seed: int = 0, quick: bool = False, out: Path = RESULTS, only: tuple[str, ...] = (), write: bool = False
) -> None:
    """Measure every figure against its peer.

    Parameters
    ----------
    seed
        Of data, weights and minibatches.
    quick
        Fewer processes, steps and cases, so that times and accuracy are rough; work is exact.
    out
        Folder for the numbers.
    only
        Names of benchmarks, or of the modules they are in; default: all of them.
    write
        Write the table into experiments/README.md, too: all benchmarks, measured in full.
    """
    if write and (quick or only):
        msg = "--write is for the whole table, measured in full: leave out --quick and --only, or leave out --write."
        raise SystemExit(msg)
    rows: list[Row] = []
    for benchmark in chosen(only):
        start = time.perf_counter()
        print(f"· {benchmark.__name__}: {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        rows += benchmark(seed, quick)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    place = here()
    heading(f"Against the peer, on {place}")
    print(Table("", HEADER, [row.cells() for row in rows]))
    lost = [row.name for row in rows if not row.holds]
    findings = [
        f"{len(rows) - len(lost)} of {len(rows)} targets hold." + (f" Missed: {'; '.join(lost)}." if lost else ""),
        *(row.verdict() for row in rows),
    ]
    fields = ("name", "ours", "peer", "unit", "judged", "target", "holds")
    numbers = {
        "seed": seed,
        "quick": quick,
        "device": place.device,
        "versions": place.versions,
        "rows": [{field: getattr(row, field) for field in fields} for row in rows],
    }
    conclude(out / "benchmarks.json", numbers, findings, [])
    if write:
        PAGE.write_text(page(rows, place), encoding="utf-8")
        print(f"\nWrote {PAGE}")


def chosen(only: tuple[str, ...]) -> list[Callable[[int, bool], Iterable[Row]]]:
    """The benchmarks of these names, or in the modules of these names."""
    names = {name for f in BENCHMARKS for name in (f.__name__, f.__module__.removeprefix("bench."))}
    if unknown := set(only) - names:
        msg = f"No benchmark is called {', '.join(sorted(unknown))}. Known: {', '.join(sorted(names))}."
        raise SystemExit(msg)
    return [f for f in BENCHMARKS if not only or {f.__name__, f.__module__.removeprefix("bench.")} & set(only)]


if __name__ == "__main__":
    tyro.cli(main)
