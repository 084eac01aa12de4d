"""Rows as a page of Markdown: where they were measured, the whole table, and where we lose.

Carries no date, so that a page changes only where a figure does. Builds on `core`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax

from bench.core import Row

__all__ = ["HEADER", "Place", "here", "page", "table"]

HEADER = ("figure", "ours", "peer", "ratio", "target", "holds")
PEERS = ("optax", "asdex", "sparsejac", "folx", "torch")

COMMAND = "python experiments/benchmarks.py --write"


@dataclass(frozen=True)
class Place:
    """Where figures are measured: on what, and with which versions."""

    device: str
    versions: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.device}, with {', '.join(f'{name} {version}' for name, version in self.versions.items())}"


def page(rows: Sequence[Row], place: Place) -> str:
    """The text of ``experiments/README.md``.

    Parameters
    ----------
    rows
        Every figure, in order.
    place
        Where they were measured; from `here`.
    """
    lost = [row for row in rows if not row.holds]
    losses = "\n".join(f"- {row.verdict()}" for row in lost) or "Nowhere: every target holds."
    return f"""# Benchmarks

What jaxchain costs against the peer that one would use instead. This page is written by

```bash
{COMMAND}
```

On {place}: {len(rows) - len(lost)} of {len(rows)} targets hold. Work and memory are XLA's own
count for the compiled program; times are medians of calls that take turns, all in one run.

{table(row.cells() for row in rows)}

## Where we lose

{losses}
"""


def table(cells: Iterable[Sequence[str]]) -> str:
    """A Markdown table of the cells of rows: words to the left, numbers to the right."""
    rule = ("---", *["---:"] * 4, "---")
    verdicts = ((*words[:-1], "**no**" if words[-1] == "NO" else words[-1]) for words in cells)
    return "\n".join(f"| {' | '.join(words)} |" for words in (HEADER, rule, *verdicts))


def here() -> Place:
    """The accelerator or processor of this machine; the versions of JAX, Python and the installed peers."""
    versions = {"JAX": jax.__version__, "Python": platform.python_version()}
    for name in PEERS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Place(device(), versions)


def device() -> str:
    """The accelerator's kind, or the processor's model and its number of cores."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    return f"{processor(Path('/proc/cpuinfo'))}, {os.cpu_count()} cores"


def processor(cpuinfo: Path) -> str:
    """The processor's model as Linux knows it; elsewhere as Python does."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
