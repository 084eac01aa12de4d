"""States as flat vectors of real numbers: the coordinates in which Jacobians are matrices.

The inexact leaves of a state, raveled and joined in leaf order; a complex leaf counts twice, real
parts before imaginary parts, so that every Jacobian is a real matrix and products of Jacobians
are plain matrix products. Leaves that carry no derivative (integers, keys) have no coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.checks import check_arrays
from jaxchain.errors import TangentMismatchError
from jaxchain.show.shapes import describe
from jaxchain.stage import State

__all__ = [
    "Coordinates",
    "check_like",
    "is_float0",
    "is_inexact",
    "is_real_number",
    "pieces",
    "random_direction",
    "require_inexact",
    "widest",
]


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf carries a derivative: real or complex floating point."""
    return jnp.issubdtype(jax.typeof(leaf).dtype, jnp.inexact)


def is_real_number(out: Any) -> bool:
    """Whether a function's result, or its shape, is one real number, so that the function has a gradient."""
    return getattr(out, "shape", None) == () and jnp.issubdtype(out.dtype, jnp.floating)


def is_float0(leaf: Any) -> bool:
    """Whether a tangent leaf is JAX's zero for values without a derivative."""
    return getattr(leaf, "dtype", None) == jax.dtypes.float0


def widest(*dtypes: Any) -> Any:
    """The dtype that holds numbers of all of these, also where the caller's own code may not promote any."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def pieces(array: jax.Array, sizes: Sequence[int], axis: int = 0) -> list[jax.Array]:
    """An array, cut along an axis into one piece a size."""
    if len(sizes) < 2:
        return [array] * len(sizes)
    return jnp.split(array, np.cumsum(sizes)[:-1].tolist(), axis)


@dataclass(frozen=True)
class Coordinates:
    """The coordinate system of one state: flatten and unflatten its tangents and cotangents.

    JAX pairs a cotangent c with a tangent t as Re Σ c·t, so a complex cotangent's coordinates
    are those of its conjugate. Nothing else differs between the two.
    """

    treedef: Any
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, state: State) -> Coordinates:
        """The coordinates of a state, given as arrays, tracers or ``ShapeDtypeStruct``."""
        leaves, treedef = jax.tree.flatten(state)
        return cls(
            treedef, tuple(leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf) for leaf in leaves)
        )

    @property
    def size(self) -> int:
        """n: how many real numbers the state's derivative has."""
        return sum(_real_size(leaf) for leaf in self.leaves)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The state's shape; for a pytree, a tuple of its leaves' shapes."""
        shapes = tuple(tuple(leaf.shape) for leaf in self.leaves)
        return shapes[0] if jax.tree_util.treedef_is_leaf(self.treedef) else shapes

    @property
    def dtype(self) -> Any:
        """The real dtype that holds every coordinate."""
        parts = [jnp.finfo(leaf.dtype).dtype for leaf in self.leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return widest(*parts) if parts else jnp.result_type(float)

    def identity(self) -> jax.Array:
        """The basis of tangents or cotangents, one a row: (n, n)."""
        return jnp.eye(self.size, dtype=self.dtype)

    def split(self, array: jax.Array, axis: int = 0) -> list[jax.Array]:
        """An array whose ``axis`` counts coordinates, cut into one piece a leaf."""
        return pieces(array, [_real_size(leaf) for leaf in self.leaves], axis)

    def flatten(self, tangent: Any) -> jax.Array:
        """A tangent as a vector (n,)."""
        parts = [
            part.reshape(-1).astype(self.dtype)
            for leaf, like in zip(self.treedef.flatten_up_to(tangent), self.leaves, strict=True)
            if _real_size(like)
            for part in ((leaf.real, leaf.imag) if jnp.issubdtype(like.dtype, jnp.complexfloating) else (leaf,))
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros((0,), self.dtype)

    def unflatten(self, vector: jax.Array) -> Any:
        """The tangent that has these coordinates; ``float0`` where a leaf carries no derivative."""
        leaves: list[Any] = []
        for like, part in zip(self.leaves, self.split(vector), strict=True):
            if not jnp.issubdtype(like.dtype, jnp.inexact):
                leaves.append(np.zeros(like.shape, jax.dtypes.float0))
            elif jnp.issubdtype(like.dtype, jnp.complexfloating):
                real, imag = part.reshape((2, *like.shape))
                leaves.append(jax.lax.complex(real, imag).astype(like.dtype))
            else:
                leaves.append(part.reshape(like.shape).astype(like.dtype))
        return self.treedef.unflatten(leaves)

    def flatten_cotangent(self, cotangent: Any) -> jax.Array:
        """A cotangent as a vector (n,)."""
        return self.flatten(_conjugate(cotangent))

    def unflatten_cotangent(self, vector: jax.Array) -> Any:
        """The cotangent that has these coordinates."""
        return _conjugate(self.unflatten(vector))


def _real_size(leaf: Any) -> int:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return 0
    return math.prod(leaf.shape) * (2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1)


def _conjugate(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.conj(leaf) if jnp.iscomplexobj(leaf) else leaf, tree)


def random_direction(state: State, seed: int) -> Any:
    """A tangent of ``state`` that is random, of length one, the same at every call; a number's only direction is 1.

    Ones would vanish in whatever subtracts a mean or divides by a sum, such as LayerNorm and softmax.

    >>> direction = random_direction(jnp.zeros((3, 4)), seed=0)
    >>> direction.shape, round(float(jnp.sum(direction**2)), 5)
    ((3, 4), 1.0)
    >>> random_direction(2.0, seed=0)
    Array(1., dtype=float32)
    """
    space = Coordinates.of(state)
    vector = np.random.default_rng(seed).normal(size=space.size)
    vector = np.ones(1) if space.size == 1 else vector / max(float(np.linalg.norm(vector)), 1e-30)
    return space.unflatten(jnp.asarray(vector, space.dtype))


def check_like(given: Any, like: Any, kind: str, place: str) -> Any:
    """Return ``given`` as arrays, once it has the structure, shapes and dtypes of ``like``.

    Raises
    ------
    TangentMismatchError
        Naming the leaf that differs, and how.
    """
    got, got_tree = tree_flatten_with_path(given)
    want, want_tree = tree_flatten_with_path(like)
    if got_tree != want_tree:
        msg = f"The {kind} must have the structure of the {place}, {want_tree}, but it has {got_tree}."
        raise TangentMismatchError(msg)
    check_arrays(given, f"The {kind}")
    for (path, leaf), (_, wanted) in zip(got, want, strict=True):
        found, expected = jax.typeof(leaf), jax.typeof(wanted).to_tangent_aval()
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            where = f" at {keystr(path)}" if path else ""
            msg = f"The {kind} must look like the {place}{where}: {describe(expected)} is wanted, but {describe(leaf)} was given."
            raise TangentMismatchError(msg)
    return jax.tree.map(lambda leaf: leaf if is_float0(leaf) else jnp.asarray(leaf), given)


def require_inexact(state: State, place: str) -> State:
    """Return ``state`` as arrays, once every leaf of it can be differentiated.

    Raises
    ------
    TypeError
        If a leaf is not floating point or complex, or there is none.
    """
    leaves = tree_flatten_with_path(state)[0]
    check_arrays(state, f"The {place}")
    if not leaves:
        msg = f"The {place} holds no array, so there is nothing to differentiate."
        raise TypeError(msg)
    for path, leaf in leaves:
        if not is_inexact(leaf):
            where = f" at {keystr(path)}" if path else ""
            msg = (
                f"The {place}{where} is {describe(leaf)}, and only floating-point or complex values have derivatives. "
                "Cast it, or start at the first stage that gives real numbers: chain[1:]."
            )
            raise TypeError(msg)
    return jax.tree.map(jnp.asarray, state)
