"""Sparse Jacobians by colouring: several structurally independent columns or rows in one JVP or VJP.

Detection, colouring and decompression are asdex's (extra ``sparse``); here it is decided where they
are worth their while. A pattern is found once a program, and kept by the program's fingerprint.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.derivative import jvp
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.flat import Program
from jaxchain.program.flatten import flatten
from jaxchain.program.flow import reach
from jaxchain.program.primitives import (
    ClosedJaxpr,
    Var,
    any_equation,
    any_equation_of,
    dtype_of,
    is_forward_of_custom_vjp,
    is_inexact,
    mixes,
    shape_of,
)
from jaxchain.program.segment import Segment, run

__all__ = [
    "LEAST", "MOST", "PATTERNS", "Colouring", "Flat", "available", "colouring_of", "linear_part", "may_be_sparse",
    "may_have_pattern", "pattern_of", "unavailable",
]  # fmt: skip

LEAST = 32
"""Below this many rows or columns a colouring cannot save enough to look for it."""

MOST = 1 << 26
"""Above this many entries none is looked for: of a dense function it would list them all, in gigabytes."""

PATTERNS = Kept(128)
"""Coloured patterns by program; ``None`` where asdex finds none."""


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

    @property
    def entries(self) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Rows and columns of what may be another number than zero, and the shape (m, n)."""
        pattern = self.pattern.sparsity
        return pattern.rows, pattern.cols, pattern.shape

    def jacobian(self, sides: Sequence[Any], state: Sequence[Any], chunk_size: int | None = None) -> jax.Array:
        """The matrix (m, n), its zeros filled in."""
        import asdex  # pyright: ignore[reportMissingImports]

        flat = Flat.of(self.segment, self.here, self.there)
        given = (*sides, *(self.segment.program.constants[v] for v in flat.numbers))
        # A pattern found with all of them as arguments holds for the vector alone; asdex would push zeros for the rest.
        sparsity = replace(self.pattern.sparsity, input_avals=self.pattern.sparsity.input_avals[:1])
        pattern = replace(self.pattern, sparsity=sparsity)
        fun = asdex.jacobian_from_coloring(lambda v: flat.fun(v, *given), pattern, "dense", chunk_size=chunk_size)
        return fun(self.here.flatten(tuple(state)))


def linear_part(program: Program) -> Segment:
    """Of the program of one JVP what the tangent enters, and what nothing enters: indices, say, whose values count.

    What the point alone enters is a side of it, so that asdex need not know the primitives that made it.
    """
    tangent, *point = program.invars
    moved, evaluated = reach(program.eqns, [tangent]), reach(program.eqns, point)
    kept = [e for e in program.needed() if not moved.isdisjoint(e.writes) or evaluated.isdisjoint(e.writes)]
    return Segment(tuple(kept), (tangent,), tuple(program.outs), program)


@dataclass(frozen=True, eq=False)
class Flat:
    """A segment between coordinate vectors: ``fun(vector, *sides, *numbers)``.

    Floating-point constants are arguments (``numbers``), so that a pattern holds whatever their
    values; what else the program closed over (indices, masks) stays inside it.
    """

    fun: Any
    numbers: tuple[Var, ...]
    inside: tuple[Var, ...]

    @classmethod
    def of(cls, segment: Segment, here: Coordinates, there: Coordinates) -> Flat:
        """A segment, between the coordinates of its ends."""
        numbers = tuple(filter(is_inexact, segment.constants))
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
        with _moved_names():
            import asdex  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError as error:
        return f"the installed asdex does not work with JAX {jax.__version__} ({error})"
    return ""


@contextmanager
def _moved_names() -> Generator[None]:
    """What asdex 0.5 imports from where JAX 0.12 no longer keeps it; a test says when this is no longer needed."""
    names = vars(importlib.import_module("jax._src.core"))
    if "ClosedJaxpr" in names:
        yield
        return
    names["ClosedJaxpr"] = ClosedJaxpr
    try:
        yield
    finally:
        del names["ClosedJaxpr"]


def available() -> bool:
    """Whether asdex can be used."""
    return not unavailable()


def may_have_pattern(here: Coordinates, there: Coordinates) -> bool:
    """Whether a Jacobian is neither too small for a pattern to matter, nor too large to list its entries."""
    return min(here.size, there.size) >= LEAST and here.size * there.size <= MOST


def may_be_sparse(segment: Segment, here: Coordinates, there: Coordinates) -> bool:
    """Whether it is worth looking for a pattern that saves vectors."""
    given = {*segment.sides, *segment.constants}
    return may_have_pattern(here, there) and not any(
        any_equation_of(e.eqn, lambda eqn: mixes(eqn, given)) for e in segment.equations
    )


def colouring_of(segment: Segment, here: Coordinates, there: Coordinates) -> Colouring | None:
    """The coloured pattern of a segment's Jacobian; ``None`` where asdex cannot find it."""
    flat = Flat.of(segment, here, there)
    inputs = (*segment.inputs, *segment.sides, *flat.numbers)
    inside = {var: segment.program.constants[var] for var in flat.inside}
    key = fingerprint([e.eqn for e in segment.equations], inputs, segment.outputs, inside)
    pattern = PATTERNS.get(key, lambda: _detect(segment, flat, here))
    return None if pattern is None else Colouring(pattern, segment, here, there)


def _detect(segment: Segment, flat: Flat, here: Coordinates) -> Any:
    """The pattern of J, coloured, read off the program of ẋ ↦ J ẋ.

    The function's own program may hide what its derivative does: a straight-through estimator rounds, and is
    constant, and differentiates as the identity.
    """

    def linear(tangent: jax.Array, vector: jax.Array, *given: Any) -> jax.Array:
        return jvp(lambda v: flat.fun(v, *given), vector, tangent)[1]

    return pattern_of(linear, segment, flat, here, coloured=True)


def pattern_of(linear: Any, segment: Segment, flat: Flat, here: Coordinates, *, coloured: bool) -> Any:
    """Asdex's pattern of ``linear(tangent, vector, *given)``, coloured or as it is; ``None`` where it finds none."""
    import asdex  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        samples = [jnp.zeros(shape_of(v), dtype_of(v)) for v in (*segment.sides, *flat.numbers)]
        vector = jnp.zeros((here.size,), here.dtype)
        try:
            program = jax.make_jaxpr(linear)(vector, vector, *samples)
            if any_equation(program.jaxpr, is_forward_of_custom_vjp):
                return None  # how a custom VJP mixes is not to be seen before it runs
            part = linear_part(flatten(program))
            at_point = [jnp.zeros(shape_of(v), dtype_of(v)) for v in part.sides]
            find = asdex.jacobian_coloring if coloured else asdex.jacobian_sparsity
            return find(lambda t, *sides: part.call(*sides, t)[0], vector, *at_point)
        except (NotImplementedError, TypeError, ValueError):
            return None  # a primitive that asdex does not know: accumulate densely
