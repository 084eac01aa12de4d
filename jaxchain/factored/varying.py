"""Map a function over rows, and leave alone what no row enters.

`jax.vmap` would repeat for every row what is the same for all of them, such as the cotangents of a last layer. What is
the same is read off the function's program, so that it stays one array, and is known when work is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxchain.program.flow import reach
from jaxchain.program.primitives import is_var

__all__ = ["Rows", "rows_of"]


@dataclass(frozen=True)
class Rows:
    """What a function of some still values and of one row gives.

    Attributes
    ----------
    tree, shapes
        Of its result for one row, and the shapes of the leaves.
    axes
        Of every leaf: 0 where it depends on the row, ``None`` where it is the same for all.
    same
        Of every leaf: which number the leaf has that is the very same value, the first if there is none before it.
    """

    tree: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    axes: tuple[int | None, ...]
    same: tuple[int, ...]

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """One row's result."""
        return self.tree.unflatten(leaves)

    def map(self, fn: Callable[[Any, Any], Any], still: Any, rows: Any) -> list[jax.Array]:
        """The leaves of all rows' results, those that depend on the row with an axis of rows in front."""

        def leaves(still: Any, row: Any) -> list[jax.Array]:
            return jax.tree.leaves(fn(still, row))

        return jax.vmap(leaves, (None, 0), list(self.axes))(still, rows)


def rows_of(fn: Callable[[Any, Any], Any], still: Any, row: Any) -> Rows:
    """Read ``fn(still, row)`` at arrays or shapes."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(still, row)
    jaxpr, first = closed.jaxpr, len(jax.tree.leaves(still))
    reached = reach(jaxpr.eqns, jaxpr.invars[first:])
    leaves, tree = jax.tree.flatten(shapes)
    axes = tuple(0 if is_var(out) and out in reached else None for out in jaxpr.outvars)
    same = tuple(jaxpr.outvars.index(out) if is_var(out) else k for k, out in enumerate(jaxpr.outvars))
    return Rows(tree, tuple(leaves), axes, same)
