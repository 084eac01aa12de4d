"""The errors that have names of their own, so that a caller can catch just these.

Everything else that is wrong with an argument is a plain ``ValueError`` or ``TypeError`` whose
sentence says what was given, what was wanted, and the way out.
"""

__all__ = ["ParameterMismatchError", "StageError", "TangentMismatchError"]


class StageError(ValueError):
    """A stage could not be applied to the state that it was given."""


class TangentMismatchError(ValueError):
    """A tangent or cotangent does not look like the state that it belongs to."""


class ParameterMismatchError(ValueError):
    """Parameters do not belong to the chain that they were passed to."""
