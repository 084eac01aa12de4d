"""Files that outlive a crash: what was written is on the disk before anything counts on it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync"]


def sync(path: Path) -> None:
    """That the disk has a file, or that it knows what a folder holds, where a system can be asked for it.

    Raises
    ------
    OSError
        If the disk could not take what was written, which some systems say only now.
    """
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
