"""What is the chain rule, and how is it applied in deep learning?

Question   Can one page answer that for someone who knows what a slope is, but not what a Jacobian is?
Command    python experiments/lesson.py
Expect     A page of eight chapters that opens from disk: slopes that multiply, paths that add, forward and
           reverse, weights, hidden layers, activations, gradient descent, the cheapest order. Every number
           on it is computed while it is made. `jaxchain learn` writes the same page.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import tyro
from common import RESULTS, conclude, heading, picture_of

from jaxchain.lesson import write_lesson
from jaxchain.show.values import count


def main(quick: bool = False, out: Path = RESULTS) -> None:
    """Write the lesson, and say what it found.

    Parameters
    ----------
    quick
        Take no picture; the page is always the whole one.
    out
        Folder for the page and the numbers.
    """
    heading("A lesson of eight chapters")
    out.mkdir(parents=True, exist_ok=True)
    path = write_lesson(out / "lesson.html", progress=not quick)
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.findall(r'id="lesson-data">(.*?)</script>', text, re.DOTALL)[0])
    ends, costs = data["activations"]["ends"], data["order"]["costs"]
    cells = sum(len(chapter["copied"]) for chapter in data.values())
    findings = [
        f"One page of {len(text.encode()) / 1e3:.0f} kB: {count(len(data), 'chapter')}, {count(cells, 'cell')} of Python.",
        f"One cotangent tells what {data['directions']['million']:,} tangents tell.",
        f"Twenty layers leave of a cotangent's norm: sigmoid {ends['sigmoid']:.1e}, tanh {ends['tanh']:.2f}, ReLU {ends['ReLU']:.2f}.",
        f"From the waist, an hourglass's Jacobian takes {costs['forward'] / costs['planned']:.1f} times less work than in forward mode.",
    ]
    numbers = {"bytes": len(text.encode()), "chapters": list(data), "ends": ends, "costs": costs, "pages": [path.name]}
    shot = None if quick else picture_of(path, out / "lesson.png", size=(1280, 1300))
    conclude(out / "lesson.json", numbers, findings, [] if shot is None else [shot])


if __name__ == "__main__":
    tyro.cli(main)
