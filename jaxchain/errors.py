"""The errors that have names of their own, so that a caller can catch just these.

Everything else that is wrong with an argument is a plain ``ValueError`` or ``TypeError`` whose
sentence says what was given, what was wanted, and the way out.
"""

import inspect
import warnings
from pathlib import Path

__all__ = ["ParameterMismatchError", "StageError", "TangentMismatchError", "warn"]

HERE = str(Path(__file__).parent)


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
