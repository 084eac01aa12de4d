"""The errors that have names of their own, so that a caller can catch just these; and what counts as JAX's refusal.

Everything else that is wrong with an argument is a plain ``ValueError`` or ``TypeError`` whose
sentence says what was given, what was wanted, and the way out.
"""

import difflib
import inspect
import os
import re
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxchain.show.escape import escaped

__all__ = [
    "REFUSALS",
    "ModeError",
    "ParameterMismatchError",
    "SamplesMixError",
    "StageError",
    "TangentMismatchError",
    "TraceError",
    "first_line",
    "refusal",
    "refused_in_words",
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
    A planned, chunked or spread Jacobian needs real floating-point values, but an output is complex64[]. Cast it, or use ...
    """


class TraceError(TypeError):
    """A function cannot be read, since it asks for numbers where JAX has only abstract values.

    Examples
    --------
    >>> jc.discover(lambda x: np.sin(x), jnp.ones(3))
    Traceback (most recent call last):
    jaxchain.errors.TraceError: The function cannot be traced: ... asks for numbers, ...
    """


REFUSALS = (Exception,)
"""What is caught where a mode may not exist: rules that others wrote raise what they like, so that `refusal` has to
tell by the sentence, and raises a user's bug again."""

SAYINGS = re.compile(
    r"cannot be autodifferentiated|Detected differentiation of a custom_vjp function with respect to a closed-over"
    r"|can't apply forward-mode autodiff \(jvp\) to a custom_vjp|Reverse-mode differentiation does not work for"
    r"|Linearization failed to produce known values|callbacks do not support JVP|FFI call to .* cannot be differentiated"
    r"|^(jacfwd|jacrev|grad|value_and_grad) (with holomorphic=True )?requires "
)
"""What JAX, and Equinox on top of it, say where a mode does not exist."""

MISSING = re.compile(
    r"\brule\b.* not implemented|\bJVP not implemented|^Derivatives |decomposition derivative|^Gradient of "
    r"|(gradients are|transpose is) only implemented"
)
"""The same of a NotImplementedError."""

HERE = f"{Path(__file__).parent}{os.sep}"


def refusal(error: Exception) -> str:
    """Why a mode is refused, in JAX's own first line; raises ``error`` again where it is no refusal but a bug.

    The sentences that say so: forward mode through a custom VJP, reverse mode through a while loop, a
    primitive without a rule, an input that has no derivative; and what a package's own rule asserts: that a
    tangent is a symbolic zero, say.
    """
    text = first_line(error)
    if isinstance(error, AssertionError) and (asserted := _installed(error)):
        return asserted
    told = MISSING if isinstance(error, NotImplementedError) else SAYINGS
    if isinstance(error, ModeError) or (not isinstance(error, StageError) and told.search(str(error))):
        return text
    raise error


@contextmanager
def refused_in_words(mode: str, what: str, way_out: str) -> Generator[None]:
    """Say in jaxchain's words that a mode does not exist for something.

    Raises
    ------
    ModeError
        In place of a refusal; everything else passes through.
    """
    try:
        yield
    except REFUSALS as error:
        if isinstance(error, ModeError):
            raise
        msg = f"There is no {mode} mode for {what}: {refusal(error)}. {way_out}".rstrip()
        raise ModeError(msg) from error


def _installed(error: BaseException) -> str:
    """Where an installed package asserts what does not hold, as a person would look it up; else empty."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(last.filename)
    installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts) and not last.filename.startswith(HERE)
    return f"{path.name}:{last.lineno} asserts {(last.line or '').removeprefix('assert ')}" if installed else ""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without its full stop; its type's name where it says nothing."""
    return escaped(next(iter(str(error).splitlines()), type(error).__name__)).rstrip(".")


def unknown(kind: str, name: object, known: Sequence[str]) -> str:
    """The sentence of a ``KeyError``: ``No stage is named 'sine'. Nearest: sin.``; the first names where none is near."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or list(known[:5])
    return f"No {kind} is named {name!r}. Nearest: {', '.join(map(escaped, near))}."


def warn(message: str, category: type[Warning]) -> None:
    """Warn, pointing at the line outside jaxchain that led here."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
