"""A function, read once, with its weight sites; run once, the factors of its derivative.

`Factored.of` reads; `Factored.evaluate` gives the value, and a pull that makes every site's δ of a cotangent; from the
factors come leaves' gradients, their norms, and whatever else needs no gradient multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.derivative import vjp
from jaxchain.factored.factors import Factor, Product, Thin, Whole, explicit_cost, ghost_cost, squared, squared_norm
from jaxchain.factored.finding import Slot, Tapping, find_sites
from jaxchain.factored.sites import Site, named, root_of, stage_of
from jaxchain.factored.tapping import tapped, zeros
from jaxchain.program.flatten import flatten
from jaxchain.program.primitives import like
from jaxchain.program.reading import trace_program

__all__ = ["Evaluated", "Factored", "Leaf"]


@dataclass(frozen=True)
class Leaf:
    """A leaf of the parameters, and the numbers of its sites."""

    path: str
    like: jax.ShapeDtypeStruct
    sites: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A function's value, and the factors of its derivative.

    Attributes
    ----------
    out
        What the function returns.
    values
        For each site, what its rule reads.
    pull
        For a cotangent like ``out``: δ of each site.
    """

    out: Any
    values: tuple[tuple[jax.Array, ...], ...]
    pull: Callable[[Any], tuple[jax.Array, ...]]


@dataclass(frozen=True, eq=False)
class Factored:
    """A function, read once, with its weight sites.

    Attributes
    ----------
    sites, leaves
        Of the argument that holds the parameters.
    out
        What the function returns, as shapes.
    """

    tapping: Tapping
    sites: tuple[Site, ...]
    leaves: tuple[Leaf, ...]
    tree: Any
    out: Any

    @classmethod
    def of(cls, fun: Callable[..., Any], args: tuple[Any, ...], argnum: int = 0) -> Factored:
        """Read ``fun`` at arguments, arrays or shapes, of which ``argnum`` holds the parameters."""
        closed, out = trace_program(fun, args)
        program = flatten(closed)
        start = sum(len(jax.tree.leaves(arg)) for arg in args[:argnum])
        paths = tree_flatten_with_path(args[argnum])[0]
        variables = program.invars[start : start + len(paths)]
        tapping = find_sites(program, variables)
        sites = named(tapping)
        leaves = tuple(
            Leaf(keystr(path), like(var), tuple(k for k, site in enumerate(sites) if site.leaf == number))
            for number, ((path, _), var) in enumerate(zip(paths, variables, strict=True))
        )
        return cls(tapping, sites, leaves, jax.tree.structure(args[argnum]), out)

    @property
    def whiles(self) -> list[str]:
        """The stages that are loops of unknown length over what the parameters move: reverse mode refuses them."""
        root = root_of(self.tapping.equations)
        return [stage_of(equation, scope, root) for equation, scope in self.tapping.whiles]

    @cached_property
    def _call(self) -> Callable[..., list[Any]]:
        return tapped(self.tapping)

    def evaluate(self, *args: Any) -> Evaluated:
        """The function at ``args``: its value, what the sites' rules read, and the pull to every δ."""
        tree, given = jax.tree.structure(self.out), jax.tree.leaves(args)

        def call(taps: list[jax.Array]) -> tuple[Any, list[jax.Array]]:
            made = self._call(*given, *taps)
            return tree.unflatten(made[: tree.num_leaves]), made[tree.num_leaves :]

        (out, handed), back = vjp(call, zeros(self.tapping), has_aux=True)
        return Evaluated(out, self._values(handed), lambda cotangent: self._deltas(*back(cotangent)))

    def _values(self, handed: Sequence[jax.Array]) -> tuple[tuple[jax.Array, ...], ...]:
        values: dict[Slot, jax.Array] = dict(zip(self.tapping.handed_out(), handed, strict=True))
        return tuple(tuple(values[slot] for slot in site.found.reads) for site in self.sites)

    def _deltas(self, taps: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        number = {slot: k for k, (slot, _) in enumerate(self.tapping.taps())}
        return tuple(taps[number[site.found.tap]] for site in self.sites)

    def shapes(self, *args: Any) -> list[Factor]:
        """The factors of one cotangent, as shapes."""

        def made(*given: Any) -> list[Factor]:
            none, out = zeros(self.tapping), jax.tree.structure(self.out)
            handed = self._call(*jax.tree.leaves(given), *none)[out.num_leaves :]
            return self.factors(self._values(handed), self._deltas(none))

        return jax.eval_shape(made, *args)

    def factors(
        self,
        values: Sequence[Sequence[jax.Array]],
        deltas: Sequence[jax.Array],
        multiplied: Literal["never", "cheaper", "always"] = "never",
    ) -> list[Factor]:
        """Those of every site.

        Parameters
        ----------
        values, deltas
            From `evaluate`.
        multiplied
            Where a gradient takes less than to make it of its factors: the gradient itself always, or if its norm
            takes more from the factors.
        """
        return [_settled(site, x, delta, multiplied) for site, x, delta in zip(self.sites, values, deltas, strict=True)]

    def gradient(self, factors: Sequence[Factor]) -> Any:
        """All leaves' gradients, as a pytree like the parameters, whose leaves all carry a derivative."""
        return self.tree.unflatten([self.leaf_gradient(leaf, factors) for leaf in self.leaves])

    def leaf_gradient(self, leaf: Leaf, factors: Sequence[Factor]) -> jax.Array:
        """One leaf's gradient: what all of its sites add."""
        parts = [self.sites[k].gradient(factors[k]) for k in leaf.sites]
        return sum(parts[1:], parts[0]) if parts else jnp.zeros(leaf.like.shape, leaf.like.dtype)

    def squared_norm(self, leaf: Leaf, factors: Sequence[Factor]) -> jax.Array:
        """The squared norm of one leaf's gradient."""
        if (thin := self.alike(leaf, factors)) is not None:
            return squared_norm(thin)
        if len(leaf.sites) == 1 and self.sites[leaf.sites[0]].layout.scale is not None:
            (k,) = leaf.sites
            scale = self.sites[k].layout.scale
            assert scale is not None
            return scale**2 * squared(factors[k].gradient())
        return squared(self.leaf_gradient(leaf, factors))

    def alike(self, leaf: Leaf, factors: Sequence[Factor]) -> list[Thin] | None:
        """The factors of all of a leaf's sites, with the same rows and columns; ``None`` where there are none such."""
        made: list[Thin] = []
        first: tuple[Any, ...] | None = None
        for k in leaf.sites:
            factor, layout, meeting = factors[k], self.sites[k].layout, self.sites[k].found.meeting
            if isinstance(factor, Whole) or layout.scale is None or meeting is None:
                return None
            if meeting.sides is None:  # a convolution's kernel is a matrix as long as it is alone
                return [factor.scaled(layout.scale)] if len(leaf.sites) == 1 else None
            blocks, rows, columns = (tuple(sorted(layout.axes[axis] for axis in side)) for side in meeting.sides)
            first = first or (layout.path, blocks, rows, columns)
            if first == (layout.path, blocks, rows, columns):
                made.append(factor.scaled(layout.scale))
            elif first == (layout.path, blocks, columns, rows) and isinstance(factor, Product):
                made.append(factor.scaled(layout.scale).transposed)
            else:
                return None
        return made or None


def _settled(
    site: Site, values: Sequence[jax.Array], delta: jax.Array, multiplied: Literal["never", "cheaper", "always"]
) -> Factor:
    """One site's factors, or in place of them the gradient that they make."""
    factor = site.factors(values, delta)
    if multiplied == "never" or isinstance(factor, Whole):
        return factor
    if multiplied == "cheaper" and ghost_cost([factor]) <= explicit_cost([factor]):
        return factor
    return site.multiplied(values, delta) or factor
