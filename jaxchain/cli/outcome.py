"""How a command ends: the answer on standard output, everything else on standard error, an exit code.

Codes: 0; 1 where the function that was given fails; 2 where the command line, TARGET or its arguments
are wrong, or the file to write is in the way; 130 after Ctrl-C; 141 where the reader of a pipe has gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff

from jaxchain.errors import HERE
from jaxchain.show.escape import escaped
from jaxchain.show.plain import plain
from jaxchain.show.progress import telling

__all__ = ["Answer", "Common", "finish", "in_colours_as_wished", "place", "reader_gone", "said", "write"]

Answer = tuple[object, object]
"""What a person reads, by its `str`; what a program reads, by `jaxchain.show.plain`."""

WRONG = (ValueError, TypeError, KeyError, OSError, ImportError, NotImplementedError)
"""What jaxchain raises itself, with a sentence, where something that it was given is wrong."""


@dataclass(frozen=True)
class Common:
    """What every command can be told."""

    json: Annotated[bool, FlagCreatePairsOff] = False
    """Write one JSON document on standard output, for programs."""

    quiet: Annotated[bool, FlagCreatePairsOff] = False
    """Do not show what is under way."""

    traceback: Annotated[bool, FlagCreatePairsOff] = False
    """After a failure show all of Python's traceback."""

    @property
    def progress(self) -> bool:
        """Whether a person watches standard error."""
        return not self.quiet and sys.stderr.isatty()

    def working(self, text: str) -> AbstractContextManager[object]:
        """Show what is under way while the block runs."""
        return telling(self.progress, text)


@contextlib.contextmanager
def in_colours_as_wished() -> Generator[None]:
    """Without colours where ``NO_COLOR`` is set, as no-color.org asks: tyro only knows terminals that have none."""
    if not os.environ.get("NO_COLOR"):
        yield
        return
    before = os.environ.get("TERM")
    os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TERM"]
        else:
            os.environ["TERM"] = before


def finish(common: Common, command: Callable[[], Answer]) -> int:
    """Run a command, write its answer or why there is none; the exit code."""
    try:
        # What the function prints while it is traced is no part of the answer.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _tell(f"warning: {message}")
            text, data = command()
            written = json.dumps(plain(data), allow_nan=False) if common.json else str(text)
    except KeyboardInterrupt:
        return 130
    except (Exception, SystemExit) as error:
        return _fail(error, common)
    return write(written)


def write(text: str) -> int:
    """Print, whatever characters the terminal knows and whether or not someone still reads; the exit code."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(escaped(text, lines=True).encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        return reader_gone()
    return 0


def reader_gone() -> int:
    """Let standard output go nowhere, because Python flushes it once more when it exits; the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _fail(error: BaseException, common: Common) -> int:
    if common.traceback:
        traceback.print_exception(error)
    frames = _frames(error)
    if isinstance(error, WRONG) and (not frames or _is_ours(frames[-1])):
        _tell(_in_shell(said(error)))
        return 2
    way_out = "" if common.traceback else " (--traceback shows all.)"
    _tell(f"{type(error).__name__}: {said(error)}{place(error)}{way_out}")
    return 1


def said(error: BaseException) -> str:
    """An exception's first paragraph and what jaxchain noted on it, on one line."""
    match error:
        case KeyError(args=(sentence, *_)):  # its str() is the repr of the sentence
            text = str(sentence)
        case SyntaxError():  # its str() tells the place, as `place` does
            text = str(error.msg)
        case OSError(filename=str(file), strerror=str(reason)):  # its str() begins with a number
            text = f"{_relative(file)}: {reason}"
        case _:
            text = str(error)
    first = " ".join(text.strip().partition("\n\n")[0].split()) or "it says nothing more"
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("jaxchain")]  # JAX adds some, too
    return ". ".join([first.rstrip("."), *notes]) if notes else first


def place(error: BaseException) -> str:
    """`` (model.py, line 12, in loss)`` for the user's innermost line; empty if none is known."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" ({_relative(error.filename)}, line {error.lineno})"
    own = [frame for frame in _frames(error) if not _is_ours(frame)]
    return f" ({_relative(own[-1].filename)}, line {own[-1].lineno}, in {own[-1].name})" if own else ""


def _in_shell(text: str) -> str:
    """The library's sentence with options as the command spells them: ``argnum=4`` is ``--argnum 4``."""

    def spelled(found: re.Match[str]) -> str:
        name, value = found.groups()
        return f"--{name.replace('_', '-')}" + (f" {value}" if value != "True" else "")

    return re.sub(r"\b(argnum|force|memory_limit)=(-?\w+)", spelled, text)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames that are jaxchain's or the user's, not JAX's or another library's; innermost last."""
    from jaxchain.program.source import INSTALLED

    frames = traceback.extract_tb(error.__traceback__)
    return [f for f in frames if _is_ours(f) or not f.filename.startswith((*INSTALLED, "<"))]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(HERE)


def _relative(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _tell(text: str) -> None:
    print(f"jaxchain: {escaped(text, lines=True)}", file=sys.stderr)  # noqa: T201
