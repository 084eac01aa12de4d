"""What a trace of a Hessian is weighted by, tr(A H): nothing, a number an entry, a matrix, or two thin factors of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.checks import shown
from jaxchain.coordinates import Coordinates
from jaxchain.jacobians.matrix import Dense, Identity, Matrix
from jaxchain.second_order.order import Form

__all__ = ["Weights", "weights_of"]


@dataclass(frozen=True, eq=False)
class Weights:
    """tr(A H) = Σ_j a_j q_jᵀ H p_j, with p_j and q_j the columns of ``seed`` and ``other``.

    Attributes
    ----------
    seed
        (n, c).
    other
        (n, c); ``None``: the same.
    each
        a, (c,); ``None``: ones.
    """

    seed: Matrix
    other: jax.Array | None = None
    each: jax.Array | None = None

    @property
    def form(self) -> Form:
        """What the planner is told of the columns."""
        if isinstance(self.seed, Identity):
            return Form("identity" if self.other is None else "dense", self.seed.size)
        assert isinstance(self.seed, Dense)
        return Form("dense", self.seed.entries.shape[1])


def weights_of(weights: Any, here: Coordinates) -> Weights:
    """The weights that were given, for an argument of these coordinates.

    Raises
    ------
    ValueError, TypeError
        Says what shapes would do.
    """
    size, basis = here.size, Identity(here.size, here.dtype)
    if weights is None:
        return Weights(basis)
    leaves, tree = jax.tree.flatten(weights)
    if not all(_is_real(leaf) for leaf in leaves):
        msg = f"weights are real numbers, but {shown(weights)} was given."
        raise TypeError(msg)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if tree == here.treedef and shapes == [leaf.shape for leaf in here.leaves]:
        return Weights(basis, each=here.flatten(jax.tree.map(jnp.asarray, weights)))
    if shapes == [(size, size)]:
        return Weights(basis, jnp.asarray(leaves[0], here.dtype).T)
    if len(leaves) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 2 and shapes[0][0] == size:
        left, right = (jnp.asarray(leaf, here.dtype) for leaf in leaves)
        return Weights(Dense(left), None if leaves[0] is leaves[1] else right)
    told = ", ".join(f"an array of shape {list(shape)}" for shape in shapes)
    msg = f"weights are like the argument (a number an entry), a matrix A of {size} × {size}, or a pair (B, C) of {size} × r each, A = B Cᵀ; {told or 'nothing'} was given."
    raise ValueError(msg)


def _is_real(leaf: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.result_type(leaf), jnp.floating) or jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
    except (TypeError, OverflowError):
        return False
