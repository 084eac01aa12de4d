"""SIGTERM, as machines that are taken away send it: noticed, answered when a chunk of steps is done, then handed on.

Builds on Python's signals; where several processes train together, on JAX's agreement between them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

__all__ = ["Ending", "ending"]


class Ending:
    """Whether the process was asked to end, and what the signal did before."""

    def __init__(self, before: Any = signal.SIG_DFL) -> None:
        self.asked, self.before, self.chunk = False, before, 0

    def notice(self, *_: Any) -> None:
        """Handle the signal. A second one is not waited with."""
        if self.asked:
            self.hand_on()
        self.asked = True

    def reached(self) -> bool:
        """Whether this is the chunk after which to save: the same one in all processes."""
        self.chunk += 1
        if not jax.distributed.is_initialized():
            return self.asked
        try:
            return reached_preemption_sync_point(self.chunk)
        except RuntimeError:  # JAX was told not to listen for it
            return False

    def hand_on(self) -> None:
        """Let the signal do what it did before; nothing, where none came to this handler."""
        if not self.asked:
            return
        self.asked = False
        signal.signal(signal.SIGTERM, self.before)
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self.notice)  # a handler that returns lets training go on


@contextmanager
def ending() -> Generator[Ending]:
    """Notice SIGTERM meanwhile. Only a main thread can, and where it is ignored, or JAX itself handles it, it stays so."""
    before = signal.getsignal(signal.SIGTERM)
    found = Ending(before)
    here = threading.current_thread() is threading.main_thread() and not jax.distributed.is_initialized()
    if not here or before in (signal.SIG_IGN, None):
        yield found
        return
    signal.signal(signal.SIGTERM, found.notice)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, before)
        if found.asked:  # after the last chunk
            signal.raise_signal(signal.SIGTERM)
