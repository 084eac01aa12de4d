"""Sparse Hessians by star colouring: columns that share no row, directly or by way of a third, in one push of ∇²f.

Detection, colouring and decompression are asdex's (extra ``sparse``). Adjacent columns differ in colour, so that a
push of one colour has the diagonal's entries where its columns are.

References: Gebremedhin, Manne and Pothen, What color is your Jacobian?, SIAM Review 2005, sec. 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.derivative import Pass, jvp, vjp
from jaxchain.jacobians.sparse import LEAST, MOST, PATTERNS, Flat, available, pattern_of
from jaxchain.jacobians.unit import Unit
from jaxchain.program.fingerprint import fingerprint
from jaxchain.program.primitives import any_equation_of, mixes
from jaxchain.second_order.bend import with_gradient

__all__ = ["Star", "may_be_sparse", "star_of"]


@dataclass(frozen=True, eq=False)
class Star:
    """A coloured pattern of the Hessian of a function of one number, given as one unit."""

    pattern: Any
    unit: Unit

    @property
    def colours(self) -> int:
        """Pushes that it takes."""
        return int(self.pattern.num_colors)

    def _of_vector(self, sides: Sequence[Any]) -> Any:
        unit = self.unit
        flat = Flat.of(unit.segment, unit.here, unit.there)
        given = (*sides, *(unit.segment.program.constants[v] for v in flat.numbers))
        return lambda vector: flat.fun(vector, *given)[0]

    def matrix(self, sides: Sequence[Any], state: Sequence[Any], chunk: int | None = None) -> jax.Array:
        """H (n, n), its zeros filled in."""
        import asdex  # pyright: ignore[reportMissingImports]

        fun = asdex.hessian_from_coloring(self._of_vector(sides), self.pattern, "dense", chunk_size=chunk)
        return fun(self.unit.here.flatten(tuple(state)))

    def diagonal(self, sides: Sequence[Any], state: Sequence[Any], chunk: int | None = None) -> jax.Array:
        """The diagonal of H, (n,), of the pushes alone."""
        fun, vector = self._of_vector(sides), self.unit.here.flatten(tuple(state))
        colours = np.asarray(self.pattern.colors)
        every = jnp.asarray(colours[None] == np.arange(self.colours)[:, None], vector.dtype)
        gradient = with_gradient(fun, vector, jnp.ones((1,), vector.dtype))
        pushed = Pass(chunk).map(lambda seed: jvp(gradient, vector, seed)[1][1] * seed, every)
        return jnp.sum(pushed, axis=0)


def may_be_sparse(unit: Unit) -> bool:
    """Whether it is worth looking for a pattern: no equation makes it dense, and its entries can be listed."""
    size = unit.here.size
    return (
        size >= LEAST
        and size**2 <= MOST
        and not any(any_equation_of(e.eqn, mixes) for e in unit.segment.equations)
        and available()
    )


def star_of(unit: Unit) -> Star | None:
    """The coloured pattern of the Hessian of a whole function as one unit; ``None`` where asdex cannot find it."""
    segment = unit.segment
    flat = Flat.of(segment, unit.here, unit.there)
    inputs = (*segment.inputs, *segment.sides, *flat.numbers)
    inside = {var: segment.program.constants[var] for var in flat.inside}
    key = "star", fingerprint([e.eqn for e in segment.equations], inputs, segment.outputs, inside)
    pattern = PATTERNS.get(key, lambda: _detect(unit, flat))
    return None if pattern is None else Star(pattern, unit)


def _detect(unit: Unit, flat: Flat) -> Any:
    """The pattern of the program of ẋ ↦ H ẋ, coloured."""
    import asdex  # pyright: ignore[reportMissingImports]

    def linear(tangent: jax.Array, vector: jax.Array, *given: Any) -> jax.Array:
        def gradient(vector: jax.Array) -> jax.Array:
            out, pull = vjp(lambda v: flat.fun(v, *given), vector)
            return pull(jnp.ones_like(out))[0]

        return jvp(gradient, vector, tangent)[1]

    pattern = pattern_of(linear, unit.segment, flat, unit.here, coloured=False)
    if pattern is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        return asdex.hessian_coloring_from_sparsity(replace(pattern, input_avals=pattern.input_avals[:1]))
