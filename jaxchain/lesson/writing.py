"""`write_lesson`: one self-contained page that answers what the chain rule is and how deep learning uses it.

Every number and picture on it is computed here, when the page is made. Builds on the report's
templates, styles and way of writing a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxchain.lesson.activations import activations_decide
from jaxchain.lesson.cell import number
from jaxchain.lesson.chapter import Chapter
from jaxchain.lesson.descent import walking_downhill
from jaxchain.lesson.directions import two_directions
from jaxchain.lesson.layers import through_hidden_layers
from jaxchain.lesson.order import cheapest_order
from jaxchain.lesson.paths import paths_add
from jaxchain.lesson.slopes import slopes_multiply
from jaxchain.lesson.terms import TERMS
from jaxchain.lesson.weights import weights_take_part
from jaxchain.page.writing import check_target, write
from jaxchain.show.html import render
from jaxchain.show.plain import plain
from jaxchain.show.progress import telling

__all__ = ["CHAPTERS", "lesson_html", "write_lesson"]

CHAPTERS: tuple[Callable[[], Chapter], ...] = (
    slopes_multiply,
    paths_add,
    two_directions,
    weights_take_part,
    through_hidden_layers,
    activations_decide,
    walking_downhill,
    cheapest_order,
)
"""What makes each chapter, in reading order."""


def write_lesson(path: str | os.PathLike[str] = "learn.html", *, force: bool = False, progress: bool = False) -> Path:
    """Write the lesson as one HTML page.

    Parameters
    ----------
    path
        The file to write. One that jaxchain wrote earlier is replaced.
    force
        Replace a file that is not ours, too.
    progress
        Show on standard error what is under way.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        If there is a file that jaxchain did not write, unless ``force``.
    FileNotFoundError, IsADirectoryError, PermissionError
        If the folder does not exist, ``path`` is one, or the folder cannot be written to.

    Notes
    -----
    The chapters that train on digits need scikit-learn, which brings them; without it they say so, and
    the rest is there.
    """
    target = check_target(path, force=force, progress=progress, kind="lesson")
    with telling(progress) as say:
        chapters: list[Chapter] = []
        for make in CHAPTERS:
            say(f"Chapter {len(chapters) + 1} of {len(CHAPTERS)}")
            chapters.append(make())
        write(target, lesson_html(chapters))
    return target


def lesson_html(chapters: list[Chapter]) -> str:
    """The page of these chapters."""
    from jaxchain import __version__

    data = {chapter.name: _for_script(chapter) for chapter in chapters}
    own = [f"lesson/{chapter.name}" for chapter in chapters]
    given = {"chapters": chapters, "data": data, "own": own, "terms": TERMS, "number": number}
    return render("lesson/page.html", **given, version=__version__)


def _for_script(chapter: Chapter) -> dict[str, Any]:
    copied = {name: cell.whole for name, cell in chapter.cells.items()}
    return {**chapter.values, "check": plain(chapter.check), "copied": copied}
