"""A function of what stays still and of one row, read: which of its results depend on the row, and which are the same value.

`jax.vmap` over rows would repeat for every row what is the same for all of them, such as the cotangents of a last layer.
Read off the program, it stays one array, and is known when work is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxchain.cost.count import total_flops
from jaxchain.program.flow import reach
from jaxchain.program.primitives import ClosedJaxpr, function_of, is_var

__all__ = ["Rows", "rows_of"]


@dataclass(frozen=True)
class Rows:
    """A function, as it was read.

    Attributes
    ----------
    closed
        Its program.
    tree, shapes
        Of its result for one row, and the shapes of the leaves.
    axes
        Of every leaf: 0 where it depends on the row, ``None`` where it is the same for all.
    still
        How many leaves stay still among the program's inputs.
    """

    closed: ClosedJaxpr
    tree: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    axes: tuple[int | None, ...]
    still: int

    @property
    def work(self) -> tuple[float, float]:
        """Floating-point operations: of what depends on the row, and of what is done once for all rows."""
        jaxpr = self.closed.jaxpr
        reached = reach(jaxpr.eqns, jaxpr.invars[self.still :])
        each = [eqn for eqn in jaxpr.eqns if any(out in reached for out in eqn.outvars)]
        own = total_flops(each)
        return own, total_flops(jaxpr.eqns) - own

    @property
    def same(self) -> tuple[int, ...]:
        """Of every leaf, the first that is the very same value: itself, or one before it."""
        outs = self.closed.jaxpr.outvars
        return tuple(outs.index(out) if is_var(out) else k for k, out in enumerate(outs))

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """A result."""
        return self.tree.unflatten(leaves)

    def __call__(self, still: Any, row: Any) -> Any:
        """The function again, its program run as it is."""
        leaves = [*jax.tree.leaves(still), *jax.tree.leaves(row)]
        return self.unflatten(function_of(self.closed.jaxpr, self.closed.consts)(*leaves))

    def then(self, fn: Callable[[Any], Any]) -> Rows:
        """What is made of the result, read: of the same rows."""
        moving = [k for k, axis in enumerate(self.axes) if axis is not None]

        def of_both(still: Sequence[Any], row: Sequence[Any]) -> Any:
            leaves, given = [*still], iter(row)
            for k in moving:
                leaves[k] = next(given)
            return fn(self.unflatten(leaves))

        still = [None if k in moving else shape for k, shape in enumerate(self.shapes)]
        return rows_of(of_both, still, [self.shapes[k] for k in moving])

    def map(self, fn: Callable[[Any, Any], Any], still: Any, rows: Any) -> list[jax.Array]:
        """The leaves of all rows' results of ``fn``, read as this; those that depend on the row with their axis in front."""

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
    return Rows(closed, tree, tuple(leaves), axes, first)
