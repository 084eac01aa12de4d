"""The errors that have names of their own, so that a caller can catch just these; and what counts as JAX's refusal.

Everything else that is wrong with an argument is a plain ``ValueError`` or ``TypeError`` whose
sentence says what was given, what was wanted, and the way out.
"""

import difflib
import inspect
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "REFUSALS",
    "ModeError",
    "ParameterMismatchError",
    "SamplesMixError",
    "StageError",
    "TangentMismatchError",
    "first_line",
    "refusal",
    "unknown",
    "warn",
]


class StageError(ValueError):
    """A stage could not be applied to the state that it was given.

    Examples
    --------
    >>> jc.Chain([jc.Stage("dense", lambda x: jnp.ones((2, 3)) @ x)])(jnp.ones(4))
    Traceback (most recent call last):
    jaxchain.errors.StageError: Stage 'dense' cannot be applied to the state that it was given, ...
    """


class TangentMismatchError(ValueError):
    """A tangent or cotangent does not look like the state that it belongs to.

    Examples
    --------
    >>> jc.forward_sweep(jnp.sin, (jnp.ones(3),), jnp.ones(2))
    Traceback (most recent call last):
    jaxchain.errors.TangentMismatchError: ...
    """


class ParameterMismatchError(ValueError):
    """Parameters do not belong to the chain that they were passed to.

    Examples
    --------
    >>> jc.nets.mlp([3, 2, 1])({"dense_0": {}}, jnp.ones(3))
    Traceback (most recent call last):
    jaxchain.errors.ParameterMismatchError: ...
    """


class SamplesMixError(ValueError):
    """Samples of a batch mix, or cannot be proven not to.

    Examples
    --------
    >>> jc.batch_jacobian(lambda x: x - jnp.mean(x, axis=0))(jnp.ones((4, 3)))
    Traceback (most recent call last):
    jaxchain.errors.SamplesMixError: ...
    """


class ModeError(TypeError):
    """A mode of differentiation does not exist for a function.

    Examples
    --------
    >>> try:
    ...     jc.plan(lambda x: x + 1j, (1.0,))
    ... except jc.ModeError as error:
    ...     print(error)
    A planned or chunked Jacobian needs real floating-point values, but an output is complex64[]. Cast it, or use ...
    """


REFUSALS = (TypeError, ValueError, NotImplementedError)
"""The classes of what JAX raises where a mode does not exist; `refusal` tells those errors from a user's bug."""

SAYINGS = re.compile(
    r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp|Reverse-mode differentiation does not work for"
    r"|Linearization failed to produce known values|callbacks do not support JVP|FFI call to .* cannot be differentiated"
    r"|^(jacfwd|jacrev|grad|value_and_grad) (with holomorphic=True )?requires "
)
"""What JAX says, of a TypeError or ValueError, where a mode does not exist."""

MISSING = re.compile(r"\brule\b.* not implemented|\bJVP not implemented|^Derivatives |decomposition derivative")
"""The same of a NotImplementedError."""


def refusal(error: Exception) -> str:
    """Why JAX refuses a mode, in its own first line; raises ``error`` again where it is no refusal but a bug.

    The sentences of `jax` that say so: forward mode through a custom VJP, reverse mode through a while loop, a
    primitive without a rule, an input that has no derivative.
    """
    text = first_line(error)
    told = MISSING if isinstance(error, NotImplementedError) else SAYINGS
    if isinstance(error, ModeError) or (not isinstance(error, StageError) and told.search(str(error))):
        return text
    raise error


HERE = f"{Path(__file__).parent}{os.sep}"


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
