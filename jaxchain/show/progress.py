"""What is under way, for a person who waits: a line of words, or a bar for steps whose loss falls.

Knows nothing of training; builds on rich, loaded only where something is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["progress_bar", "telling"]


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
def progress_bar(steps: int, *, shown: bool) -> Generator[Callable[..., None]]:
    """Show how many of ``steps`` are done; yields ``advance(done, loss, words="")``, which does nothing where not ``shown``.

    The words are a line of their own under the bar.
    """
    if not shown:
        yield lambda _done, _loss, _words="": None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    bar = Progress(*columns)
    task = bar.add_task("training", total=steps, loss="compiling")  # there is no loss yet
    with Live(bar, refresh_per_second=10) as live:

        def advance(done: int, loss: float, words: str = "") -> None:
            bar.update(task, advance=done, loss=f"loss {loss:.4g}")
            if words:
                live.update(Group(bar, Text(words)))

        yield advance
