"""What the experiments share: a place for results, and how findings are told."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import optax

import jaxchain as jc
from jaxchain import LocalJacobian
from jaxchain.show.plain import plain

RESULTS = Path(__file__).parent / "results"


def norm(state: Any) -> float:
    """Euclidean norm of a state, whatever its structure."""
    return float(optax.tree.norm(state))


def in_short(structure: jc.Structure) -> str:
    """A structure in a few words: ``"diagonal, rank 91 of 128"``."""
    kind = f"identity + {structure.kind}" if structure.identity_plus else structure.kind
    full = min(structure.shape)
    return f"{kind}, " + (f"full rank {full}" if structure.rank == full else f"rank {structure.rank} of {full}")


def verb(before: float, after: float, up: str = "raises", down: str = "lowers") -> str:
    """The word for what happened to a number."""
    return up if after > before else down


def draw_spectra(pair: Mapping[str, Sequence[LocalJacobian]], title: str, path: Path) -> Path:
    """Singular values of every stage, one row of strips above the other, on the same axis."""
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(len(pair), 1, figsize=(8, 7), sharex=True, sharey=True, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
    for ax, (when, jacobians) in zip(axes, pair.items(), strict=True):
        jc.plot.singular_values(jacobians, ax=ax, title=when)
        ax.set_ylabel("singular values")
        ax.label_outer()
    return jc.plot.save(figure, path)


def browser() -> str | None:
    """Where Chromium or Chrome is on this machine; ``None`` where it is not."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def picture_of(page: Path, path: Path, address: str = "", size: tuple[int, int] = (1280, 1360)) -> Path | None:
    """The top of a page as a headless browser draws it; ``None``, and a word about it, where there is no browser."""
    if (chromium := browser()) is None:
        print(f"There is no Chromium on this machine, so there is no picture of {page.name}.")
        return None
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=8000", f"--screenshot={path.resolve()}",
            f"{page.resolve().as_uri()}{address}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


def heading(text: str) -> None:
    """Print a headline."""
    print(f"\n{text}\n{'─' * len(text)}")


def conclude(path: Path, numbers: Mapping[str, Any], findings: Sequence[str], figures: Sequence[Path]) -> None:
    """Write the numbers as JSON; print what was found and where the files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**numbers, "findings": list(findings), "figures": [figure.name for figure in figures]}
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    heading("Found")
    for finding in findings:
        print(f"• {finding}")
    print(f"\nFiles in {path.parent}:")
    for file in (*figures, path):
        print(f"  {file.name}")
