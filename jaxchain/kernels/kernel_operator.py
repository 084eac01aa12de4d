"""The neural tangent kernel as a linear operator that is never formed: Θ v = J(x) (J(y)ᵀ v), a backward and a forward pass.

Its diagonal and trace are squared norms of rows of J, had of their factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Pass, jvp, vjp
from jaxchain.errors import refused_in_words
from jaxchain.factored.axis import one_of, sample_at, summed
from jaxchain.factored.batch import WAY_OUT
from jaxchain.kernels.asked import Asked
from jaxchain.kernels.between import Kernel
from jaxchain.kernels.choosing import choose
from jaxchain.kernels.pricing import Block, Prices
from jaxchain.kernels.tangent import ntk
from jaxchain.meshes import first_axis, laid_out_by_compiler
from jaxchain.program.precision import precisely

__all__ = ["KernelOperator", "ntk_operator"]


@register_dataclass
@dataclass(frozen=True)
class KernelOperator:
    """Θ as a matrix of B·m rows and B'·m columns, sample by sample, that is never formed: `ntk_operator` makes it.

    ``matvec`` is what matfree takes, and `lineax.FunctionLinearOperator` with ``input_structure``. It is a pytree, so that
    it goes through jit.

    Attributes
    ----------
    params, xs, ys
        As given.
    fun
        The function.
    symmetric
        Whether both sides are the same samples: then the operator is symmetric and positive semidefinite.
    chunk_size
        As many samples at once.

    Examples
    --------
    >>> xs = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> theta = jc.ntk_operator(lambda w, x: w @ x, jnp.ones((3, 2)), xs)
    >>> theta.shape, theta.matvec(jnp.arange(6.0)).tolist(), float(theta.trace())
    ((6, 6), [3.0, 5.0, 7.0, 6.0, 9.0, 12.0], 9.0)
    """

    params: Any
    xs: Any
    ys: Any
    fun: Callable[[Any, Any], Any] = field(metadata={"static": True})
    symmetric: bool = field(metadata={"static": True})
    chunk_size: int | None = field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """B·m, B'·m."""
        m = self._space.size
        return _count(self.xs) * m, _count(self.ys) * m

    @property
    def dtype(self) -> Any:
        """Of the numbers that it takes and gives."""
        return self._space.dtype

    @property
    def input_structure(self) -> jax.ShapeDtypeStruct:
        """What ``matvec`` takes."""
        return jax.ShapeDtypeStruct((self.shape[1],), self.dtype)

    @property
    def T(self) -> KernelOperator:  # noqa: N802
        """The transpose: the sides change places."""
        return replace(self, xs=self.ys, ys=self.xs)

    @property
    def _space(self) -> Coordinates:
        return Coordinates.of(jax.eval_shape(self.fun, self.params, one_of(self.xs)))

    def matvec(self, vector: jax.Array) -> jax.Array:
        """Θ v: (B'·m,) to (B·m,).

        Raises
        ------
        ValueError
            If ``vector`` has another shape.
        ModeError
            If there is no reverse or no forward mode for the function.

        Examples
        --------
        >>> theta = jc.ntk_operator(lambda w, x: w * x, jnp.array(2.0), jnp.array([1.0, 3.0]))
        >>> theta.matvec(jnp.array([1.0, 1.0])).tolist()
        [4.0, 12.0]
        """
        if jnp.shape(vector) != (self.shape[1],):
            msg = f"A vector that this operator takes has the shape {(self.shape[1],)}, but {jnp.shape(vector)} was given."
            raise ValueError(msg)
        if not math.prod(self.shape):
            return jnp.zeros(self.shape[:1], self.dtype)
        return laid_out_by_compiler(type(self)._product, first_axis(self.xs), self, jnp.asarray(vector, self.dtype))

    def _product(self, vector: jax.Array) -> jax.Array:
        space, how = self._space, Pass(self.chunk_size)
        rows = vector.reshape(_count(self.ys), space.size)
        with refused_in_words("reverse", "this function", WAY_OUT):
            tangent = jax.tree.map(jnp.conj, self._pulled(rows))

        def pushed(number: jax.Array) -> jax.Array:
            x = sample_at(self.xs, number)
            return space.flatten(jvp(lambda params: self.fun(params, x), self.params, tangent)[1])

        with refused_in_words("forward", "this function", "The kernel itself needs none: jc.ntk."):
            return how.map(pushed, jnp.arange(_count(self.xs))).reshape(-1)

    def _pulled(self, rows: jax.Array) -> Any:
        """J(y)ᵀ v: like the parameters, in chunks of samples whose gradients are added up."""
        space = self._space

        def of_some(some: tuple[Any, jax.Array]) -> tuple[Any, None]:
            samples, rows = some
            back = vjp(lambda params: jax.vmap(self.fun, (None, 0))(params, samples), self.params)[1]
            return back(jax.vmap(space.unflatten_cotangent)(rows))[0], None

        return summed(of_some, (self.ys, rows), len(rows), self.chunk_size)[0]

    def diagonal(self) -> jax.Array:
        """The diagonal (B·m,), squared norms of the rows of J; of a symmetric operator.

        Raises
        ------
        ValueError
            If the kernel is between two sets of samples.

        Examples
        --------
        >>> jc.ntk_operator(lambda w, x: w * x, jnp.array(2.0), jnp.array([1.0, 3.0])).diagonal().tolist()
        [1.0, 9.0]
        """
        if not self.symmetric:
            msg = "This kernel is between two sets of samples, so that it has no diagonal. Leave ys out, or ask jc.ntk for it."
            raise ValueError(msg)
        if not math.prod(self.shape):
            return jnp.zeros(self.shape[:1], self.dtype)
        return laid_out_by_compiler(type(self)._diagonal, first_axis(self.xs), self)

    def _diagonal(self) -> jax.Array:
        asked = Asked.of("ntk_operator", self.fun, self.params, self.xs, None, "diagonal", "auto", self.chunk_size)
        with refused_in_words("reverse", "this function", WAY_OUT), precisely(asked.basis.function.tapping.program):
            # Every sample is a pair with itself, whose derivative is made once.
            prices = Prices(asked.basis, Block(1, 1, None, symmetric=True), "diagonal")
            kernel = Kernel.of(prices, choose(prices, "auto"))
            return kernel.diagonal(self.params, self.xs, Pass(self.chunk_size)).reshape(-1).astype(self.dtype)

    def trace(self) -> jax.Array:
        """The sum of the diagonal, ‖J‖².

        Examples
        --------
        >>> float(jc.ntk_operator(lambda w, x: w * x, jnp.array(2.0), jnp.array([1.0, 3.0])).trace())
        10.0
        """
        return jnp.sum(self.diagonal())

    def dense(self) -> jax.Array:
        """The matrix (B·m, B'·m).

        Examples
        --------
        >>> jc.ntk_operator(lambda w, x: w * x, jnp.array(2.0), jnp.array([1.0, 3.0])).dense().tolist()
        [[1.0, 3.0], [3.0, 9.0]]
        """
        ys = None if self.symmetric else self.ys
        theta = ntk(self.fun, self.params, self.xs, ys, chunk_size=self.chunk_size)
        m, (rows, columns) = self._space.size, self.shape
        blocks = theta.reshape(_count(self.xs), _count(self.ys), m, m)
        return blocks.transpose(0, 2, 1, 3).reshape(rows, columns).astype(self.dtype)


def ntk_operator(
    fun: Callable[[Any, Any], Any], params: Any, xs: Any, ys: Any = None, *, chunk_size: int | None = None
) -> KernelOperator:
    """The neural tangent kernel of `ntk`, all outputs, as an operator that is never formed.

    Parameters
    ----------
    fun, params, xs, ys
        As for `ntk`.
    chunk_size
        As many samples at once in every product; ``None``: all.

    Returns
    -------
    KernelOperator
        ``shape`` (B·m, B'·m), ``matvec``, ``T``, ``diagonal()``, ``trace()``, ``dense()``; for matfree and lineax.

    Raises
    ------
    TypeError, ValueError
        As `ntk`.

    References
    ----------
    Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720.

    Examples
    --------
    >>> net, xs = jc.nets.mlp([3, 8, 2]), jax.random.normal(jax.random.key(0), (5, 3))
    >>> theta = jc.ntk_operator(net, net.init(jax.random.key(1)), xs)
    >>> bool(jnp.allclose(theta.matvec(jnp.ones(10)), theta.dense() @ jnp.ones(10), rtol=1e-4))
    True
    """
    Asked.of("ntk_operator", fun, params, xs, ys, chunk_size=chunk_size)
    given = partial(jax.tree.map, jnp.asarray)
    return KernelOperator(
        given(params), given(xs), given(xs if ys is None else ys), fun, ys is None, Pass(chunk_size).chunk_size
    )


def _count(samples: Any) -> int:
    return jax.tree.leaves(samples)[0].shape[0]
