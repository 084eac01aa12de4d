"""Weight sites as data: their stage and kind in words, their factors from what a tapped program hands out.

Builds on what `finding` found in the program, and on the rules by which a site's factors are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxchain.discovery.group import shared_prefix
from jaxchain.discovery.name import word
from jaxchain.factored.factors import Factor, Picked, Product, Whole
from jaxchain.factored.finding import Found, Tapping
from jaxchain.factored.layout import Layout
from jaxchain.program.flat import Equation

__all__ = ["Site", "named", "root_of", "stage_of"]


@dataclass(frozen=True, eq=False)
class Site:
    """A place where a leaf meets the data.

    Attributes
    ----------
    stage, kind
        In words; the kind is one of `jaxchain.factored.rules.KINDS`.
    found
        As the program has it.
    """

    stage: str
    kind: str
    found: Found

    @property
    def layout(self) -> Layout:
        """How the operand is made of the leaf."""
        return self.found.layout

    @property
    def leaf(self) -> int:
        """The leaf's number."""
        return self.layout.leaf

    @property
    def rows(self) -> tuple[int, ...]:
        """The lengths of the loops in which each step has a row of the leaf."""
        return tuple(length for length, by_row in zip(self.found.lengths, self.layout.rows, strict=True) if by_row)

    def multiplied(self, values: Sequence[jax.Array], delta: jax.Array) -> Whole | None:
        """The operand's gradient multiplied out, where that takes less than to make it of factors; else ``None``."""
        meeting = self.found.meeting
        if meeting is None or meeting.multiplied is None or not all(self.layout.rows):
            return None
        made = meeting.multiplied
        for _ in self.rows:
            made = jax.vmap(made)
        return Whole(made(tuple(values), delta))

    def factors(self, values: Sequence[jax.Array], delta: jax.Array) -> Factor:
        """The factors of the operand's gradient, from the values that its rule reads, and δ; loops' axes in front."""
        made, depth = self._of_step, len(self.found.lengths)
        for _ in range(depth):
            made = jax.vmap(made)
        factor = made(tuple(values), delta)
        if not depth:
            return factor
        by_row = [axis for axis in range(depth) if self.layout.rows[axis]]
        shared = [axis for axis in range(depth) if axis not in by_row]

        def merged(y: jax.Array) -> jax.Array:
            # Steps that share the leaf are positions, rows of it are blocks.
            ahead = y.transpose(*by_row, depth, *shared, *range(depth + 1, y.ndim))
            n = math.prod(ahead.shape[: len(by_row) + 1])
            return ahead.reshape(n, math.prod(ahead.shape[len(by_row) + 1 : depth + 2]), *y.shape[depth + 2 :])

        match factor:
            case Product():
                return Product(merged(factor.left), merged(factor.right))
            case Picked():
                return Picked(merged(factor.index), merged(factor.right), factor.rows)
            case Whole():
                return Whole(jnp.sum(factor.value, tuple(shared)))

    def _of_step(self, values: tuple[jax.Array, ...], delta: jax.Array) -> Factor:
        meeting = self.found.meeting
        factor = Whole(delta) if meeting is None else meeting.factors(values, delta)
        if isinstance(factor, Picked) and self.rows:  # each step has a table of its own
            return Whole(self._folded(factor.gradient()))
        return factor

    def _folded(self, gradient: jax.Array) -> jax.Array:
        return gradient if self.found.meeting is None else self.found.meeting.fold(gradient)

    def gradient(self, factor: Factor) -> jax.Array:
        """What the site adds to the leaf's gradient."""
        return self.laid_back(factor.gradient(), factored=not isinstance(factor, Whole))

    def laid_back(self, gradient: jax.Array, *, factored: bool) -> jax.Array:
        """The leaf's gradient, from the operand's; ``factored``: as factors make it, blocks of rows and columns."""
        if factored:
            fold = self._folded
            for _ in self.rows:
                fold = jax.vmap(fold)
            gradient = fold(gradient.reshape(*self.rows, -1, *gradient.shape[1:]))
        return self.layout.pull(gradient)


def named(tapping: Tapping) -> tuple[Site, ...]:
    """The sites, in order, with their stages."""
    root = root_of(tapping.equations)
    return tuple(Site(stage_of(found.equation, found.scope, root), _kind(found), found) for found in tapping.sites)


def root_of(equations: Sequence[Equation]) -> int:
    """How many scopes all modules of a program lie in: they tell none from another."""
    # What lies in one scope alone may be a library's function, such as the loss.
    nested = [equation.scope for equation in equations if len(equation.scope) > 1]
    return min(len(shared_prefix(nested)), min(map(len, nested)) - 1) if nested else 0


def stage_of(equation: Equation | None, scope: tuple[str, ...], root: int) -> str:
    """The stage of an equation (``None``: the result) within scopes: the module's name, or operation and line."""
    if scope:
        return "/".join(scope[root:] or scope)
    return "the result" if equation is None else f"{word(equation)}@{equation.site}"


def _kind(found: Found) -> str:
    if found.meeting is None:
        return "other"
    kind, shared = found.meeting.kind, not all(found.layout.rows)
    return "shared" if kind == "dense" and (shared or found.meeting.positions > 1) else kind
