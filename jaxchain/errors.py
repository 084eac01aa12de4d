"""The errors that have names of their own, so that a caller can catch just these.

Everything else that is wrong with an argument is a plain ``ValueError`` or ``TypeError`` whose
sentence says what was given, what was wanted, and the way out.
"""

import difflib
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "REFUSALS",
    "ParameterMismatchError",
    "SamplesMixError",
    "StageError",
    "TangentMismatchError",
    "first_line",
    "unknown",
    "warn",
]

REFUSALS = (TypeError, ValueError, NotImplementedError)
"""What JAX raises where a mode does not exist: forward through a custom VJP, reverse through a while loop."""

HERE = str(Path(__file__).parent)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without its full stop; its type's name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def unknown(kind: str, name: object, known: Sequence[str]) -> str:
    """The sentence of a ``KeyError``: ``No stage is named 'sine'. Nearest: sin.``; the first names where none is near."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or list(known[:5])
    return f"No {kind} is named {name!r}. Nearest: {', '.join(near)}."


def warn(message: str, category: type[Warning]) -> None:
    """Warn, pointing at the line outside jaxchain that led here."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class StageError(ValueError):
    """A stage could not be applied to the state that it was given."""


class TangentMismatchError(ValueError):
    """A tangent or cotangent does not look like the state that it belongs to."""


class ParameterMismatchError(ValueError):
    """Parameters do not belong to the chain that they were passed to."""


class SamplesMixError(ValueError):
    """Samples of a batch mix, or cannot be proven not to."""
