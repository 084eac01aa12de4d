"""Python's garbage collector, paused where many objects are made that all stay.

It looks through the living again and again while they grow in number, and finds nothing to collect.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Generator[None]:
    """Pause the garbage collector, if it runs, and let it run again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
