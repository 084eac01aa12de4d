"""A progress bar for steps whose loss falls: silent about the loss until there is one.

Knows nothing of training; builds on rich, loaded only where a bar is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(steps: int, *, shown: bool) -> Generator[Callable[[int, float], None]]:
    """Show how many of ``steps`` are done; yields ``advance(done, loss)``, which does nothing where not ``shown``."""
    if not shown:
        yield lambda _done, _loss: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=steps, loss="")  # while the first steps compile, there is no loss
        yield lambda done, loss: bar.update(task, advance=done, loss=f"loss {loss:.4g}")
