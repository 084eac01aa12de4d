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

__all__ = ["Site", "named"]


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
        gradient = factor.gradient()
        if not isinstance(factor, Whole):
            fold = self._folded
            for _ in self.rows:
                fold = jax.vmap(fold)
            gradient = fold(gradient.reshape(*self.rows, -1, *gradient.shape[1:]))
        return self.layout.pull(gradient)


def named(tapping: Tapping) -> tuple[Site, ...]:
    """The sites, in order, with their stages."""
    scopes = [equation.scope for equation in tapping.equations if equation.scope]
    longest = min((len(found.scope) for found in tapping.sites if found.scope), default=1) - 1
    root = min(len(shared_prefix(scopes)), longest)
    return tuple(Site(_stage(found, root), _kind(found), found) for found in tapping.sites)


def _stage(found: Found, root: int) -> str:
    if found.scope:
        return "/".join(found.scope[root:])
    if found.equation is None:
        return "the result"
    return f"{word(found.equation)}@{found.equation.site}"


def _kind(found: Found) -> str:
    if found.meeting is None:
        return "other"
    kind, shared = found.meeting.kind, not all(found.layout.rows)
    return "shared" if kind == "dense" and (shared or found.meeting.positions > 1) else kind
