"""Sparse Jacobians by colouring: several structurally independent columns or rows in one JVP or VJP.

Detection, colouring and decompression are asdex's (extra ``sparse``); here it is decided where they
are worth their while. A pattern is found once a program: patterns are kept by the program's text.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.program.segment import Segment, run

__all__ = ["Colouring", "available", "colouring_of", "may_be_sparse", "unavailable"]

LEAST = 32
"""Below this many rows or columns a colouring cannot save enough to look for it."""

MIXING = {
    "cumsum",
    "cumprod",
    "cumlogsumexp",
    "custom_vjp_call",
    "dot_general",
    "eigh",
    "fft",
    "scan",
    "sort",
    "svd",
    "while",
}
"""Primitives that make a pattern dense more often than not; a segment with one is not looked into."""

PATTERNS: dict[Any, Any] = {}
KEPT = 128


@dataclass(frozen=True, eq=False)
class Colouring:
    """A coloured pattern of one segment's Jacobian."""

    pattern: Any
    segment: Segment
    here: Coordinates
    there: Coordinates

    @property
    def colours(self) -> int:
        """JVPs or VJPs that it takes."""
        return int(self.pattern.num_colors)

    @property
    def forward(self) -> bool:
        """Whether by JVPs."""
        return self.pattern.mode == "fwd"

    def jacobian(self, sides: Sequence[Any], state: Sequence[Any], chunk_size: int | None = None) -> jax.Array:
        """The matrix (m, n), its zeros filled in."""
        import asdex  # pyright: ignore[reportMissingImports]

        flat = _Flat.of(self.segment, self.here, self.there)
        given = (*sides, *(self.segment.program.constants[v] for v in flat.numbers))
        # A pattern found with all of them as arguments holds for the vector alone; asdex would push zeros for the rest.
        sparsity = replace(self.pattern.sparsity, input_avals=self.pattern.sparsity.input_avals[:1])
        pattern = replace(self.pattern, sparsity=sparsity)
        fun = asdex.jacobian_from_coloring(lambda v: flat.fun(v, *given), pattern, "dense", chunk_size=chunk_size)
        return fun(self.here.flatten(tuple(state)))


@dataclass(frozen=True, eq=False)
class _Flat:
    """A segment between coordinate vectors: ``fun(vector, *sides, *numbers)``.

    Floating-point constants are arguments (``numbers``), so that a pattern holds whatever their
    values; what else the program closed over (indices, masks) stays inside it.
    """

    fun: Any
    numbers: tuple[Any, ...]
    inside: tuple[Any, ...]

    @classmethod
    def of(cls, segment: Segment, here: Coordinates, there: Coordinates) -> _Flat:
        numbers = tuple(v for v in segment.constants if jnp.issubdtype(v.aval.dtype, jnp.inexact))
        inside = tuple(v for v in segment.constants if v not in numbers)
        call = run(
            segment.program, segment.equations, (*segment.sides, *numbers, *segment.inputs), segment.outputs, inside
        )
        return cls(lambda vector, *given: there.flatten(tuple(call(*given, *here.unflatten(vector)))), numbers, inside)


@cache
def unavailable() -> str:
    """Why asdex cannot be used here; empty if it can."""
    if importlib.util.find_spec("asdex") is None:
        return "asdex is not installed"
    try:
        import asdex  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError as error:
        return f"the installed asdex does not work with JAX {jax.__version__} ({error})"
    return ""


def available() -> bool:
    """Whether asdex can be used."""
    return not unavailable()


def may_be_sparse(segment: Segment, here: Coordinates, there: Coordinates) -> bool:
    """Whether it is worth looking for a pattern."""
    return min(here.size, there.size) >= LEAST and not any(e.name in MIXING for e in segment.equations)


def colouring_of(segment: Segment, here: Coordinates, there: Coordinates) -> Colouring | None:
    """The coloured pattern of a segment's Jacobian; ``None`` where asdex cannot find it."""
    key = _text(segment)
    if key not in PATTERNS:
        if len(PATTERNS) >= KEPT:
            PATTERNS.pop(next(iter(PATTERNS)))
        PATTERNS[key] = _detect(segment, here, there)
    pattern = PATTERNS[key]
    return None if pattern is None else Colouring(pattern, segment, here, there)


def _detect(segment: Segment, here: Coordinates, there: Coordinates) -> Any:
    import asdex  # pyright: ignore[reportMissingImports]

    flat = _Flat.of(segment, here, there)
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        samples = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in (*segment.sides, *flat.numbers)]
        try:
            return asdex.jacobian_coloring(flat.fun, jnp.zeros((here.size,), here.dtype), *samples)
        except (NotImplementedError, TypeError, ValueError):
            return None  # a primitive that asdex does not know: accumulate densely


def _text(segment: Segment) -> tuple[Any, ...]:
    """A segment's program with its variables numbered: equal for equal programs."""
    number: dict[Any, int] = {}

    def mark(atom: Any) -> Any:
        return str(atom.val) if hasattr(atom, "val") else number.setdefault(atom, len(number))

    head = tuple((mark(v), str(v.aval)) for v in (*segment.inputs, *segment.sides, *segment.constants))
    inside = tuple(
        _content(segment.program.constants[v])
        for v in segment.constants
        if not jnp.issubdtype(v.aval.dtype, jnp.inexact)
    )
    body = tuple(
        (
            e.name,
            str(e.eqn.params),
            tuple(map(mark, e.eqn.invars)),
            tuple((mark(v), str(v.aval)) for v in e.eqn.outvars),
        )
        for e in segment.equations
    )
    return head, inside, body, tuple(map(mark, segment.outputs))


def _content(value: Any) -> Any:
    """What tells one constant from another: its bytes, or for a tracer its identity."""
    return id(value) if hasattr(value, "_trace") else np.asarray(value).tobytes()
