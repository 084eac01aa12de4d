"""What is under way, for a person who waits: a line of words, a bar, or one for steps whose loss falls.

Knows nothing of training; builds on rich, loaded only where something is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["counting", "progress_bar", "telling"]


@contextmanager
def telling(shown: bool, words: str = "") -> Generator[Callable[[str], None]]:
    """A line on standard error that says what is under way; yields ``say(words)``, which does nothing where not ``shown``."""
    if not shown:
        yield lambda _words: None
        return
    from rich.console import Console
    from rich.text import Text

    def line(words: str) -> Text:
        return Text(f"{words} …" if words else "")

    with Console(stderr=True).status(line(words)) as status:
        yield lambda words: status.update(line(words))


@contextmanager
def counting(what: str, total: int, *, done: int = 0, shown: bool) -> Generator[Callable[[], None]]:
    """A bar on standard error of how many of ``total`` things are done; yields what says that one more is."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console

    bar, task = _bar(what, total, "", console=Console(stderr=True))
    bar.update(task, advance=done)
    with bar:
        yield lambda: bar.update(task, advance=1)


@contextmanager
def progress_bar(steps: int, *, shown: bool) -> Generator[Callable[..., None]]:
    """Show how many of ``steps`` are done; yields ``advance(done, loss, words="")``, which does nothing where not ``shown``.

    The words are a line of their own under the bar.
    """
    if not shown:
        yield lambda _done, _loss, _words="": None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    bar, task = _bar("training", steps, "compiling")  # there is no loss yet
    with Live(bar, refresh_per_second=10) as live:

        def advance(done: int, loss: float, words: str = "") -> None:
            bar.update(task, advance=done, note=f"loss {loss:.4g}")
            if words:
                live.update(Group(bar, Text(words)))

        yield advance


def _bar(what: str, total: int, note: str, **options: Any) -> tuple[Any, Any]:
    """A bar of rich's with words beside it, and its one task."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bar = Progress(*columns, **options)
    return bar, bar.add_task(what, total=total, note=note)
