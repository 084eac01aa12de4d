"""The two programs of a Jacobian in blocks, what they take and need: one runs once, the other for every block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.cost.budget import temporary_bytes
from jaxchain.derivative import Pass
from jaxchain.jacobians.planner import Plan
from jaxchain.jacobians.rowwise import Kept, RowWay, each_of, kept_of

__all__ = ["RowPrograms"]


@dataclass(frozen=True, eq=False)
class RowPrograms:
    """What runs once, and what runs for every block.

    Attributes
    ----------
    plan, way
        The order of multiplication, and what is kept of it.
    rows
        Of a block.
    how
        How many rows, or columns, at once.
    """

    plan: Plan
    way: RowWay
    rows: int
    how: Pass

    def once(self, *args: Any) -> Kept:
        """What is kept from block to block."""
        return kept_of(self.plan, self.way, self.how, args)

    def each(self, kept: Kept, first: Any, *args: Any) -> Any:
        """The block that begins with a row, a pytree like the argument."""
        matrix = each_of(self.plan, self.way, self.rows, self.how, kept, first, args)
        here = Coordinates.of(args[self.plan.found.argnum % len(args)])
        parts = [
            part.reshape(self.rows, *leaf.shape).astype(leaf.dtype)
            for part, leaf in zip(here.split(matrix, axis=1), here.leaves, strict=True)
        ]
        return here.treedef.unflatten(parts)

    @cached_property
    def given(self) -> tuple[Any, ...]:
        """What a block is made of, as shapes."""
        shapes = self.plan.found.shapes
        return jax.eval_shape(self.once, *shapes), jax.ShapeDtypeStruct((), np.int32), *shapes

    @property
    def held(self) -> int:
        """Bytes of what is kept, and of a block."""
        parts = jax.tree.leaves((self.given[0], jax.eval_shape(self.each, *self.given)))
        return sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)

    @property
    def needs(self) -> int:
        """Bytes of that and of temporaries, as XLA measures them."""
        once = temporary_bytes(self.once, self.plan.found.shapes) if self.way.kept else 0
        return self.held + max(once, temporary_bytes(self.each, self.given))
