"""Symmetric linear operators of all parameters: what is given to one, a pytree or a flat vector, it returns.

A flat vector has the order of `jax.flatten_util.ravel_pytree`. So an operator is the ``matvec`` of matfree, and the function of
``lineax.FunctionLinearOperator(operator, operator.like, lineax.positive_semidefinite_tag)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax.numpy as jnp

from jaxchain.coordinates import Coordinates, check_like
from jaxchain.program.reading import abstract

__all__ = ["Symmetric"]


class Symmetric:
    """An operator from parameters to parameters; a class of its own says what its product is, by ``_product``.

    Attributes
    ----------
    params
        A pytree of arrays, n numbers together.
    """

    params: Any

    @property
    def _space(self) -> Coordinates:
        return Coordinates.of(self.params)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self._space.size, self._space.size

    @property
    def dtype(self) -> Any:
        """Of flat vectors."""
        return self._space.dtype

    @property
    def like(self) -> Any:
        """The parameters, as shapes."""
        return abstract(self.params)

    @property
    def T(self) -> Self:  # noqa: N802
        """Itself."""
        return self

    def transpose(self) -> Self:
        """Itself.

        Examples
        --------
        >>> F = jc.fisher(lambda w, x: w @ x, jnp.zeros((1, 2)), (jnp.eye(2), None), "gaussian")
        >>> F.transpose() is F
        True
        """
        return self

    def __call__(self, vector: Any) -> Any:
        """The product with a vector: a pytree like the parameters, or a flat vector (n,).

        Raises
        ------
        TangentMismatchError
            If ``vector`` is neither; names the leaf.
        """
        return self._of_vector(vector, self._product)

    def __matmul__(self, vector: Any) -> Any:
        """As called."""
        return self(vector)

    def _product(self, tangent: Any) -> Any:
        raise NotImplementedError

    def _of_vector(self, vector: Any, call: Callable[[Any], Any]) -> Any:
        """``call`` of a pytree like the parameters, whichever of the two was given."""
        space = self._space
        if getattr(vector, "shape", None) == (space.size,):
            return space.flatten(call(space.unflatten(jnp.asarray(vector, space.dtype))))
        return call(check_like(vector, self.params, "vector", "parameters, or be flat"))
