"""The Gauss–Newton matrix as a linear operator: (1/B) Σ_b J_bᵀ H_b J_b, J_b of a function and H_b of a loss at its output.

Products with vectors are one push, H, one pull of the whole batch. Diagonal, trace, matrix and Kronecker factors come
from the columns of H (`bending`), one backward pass with respect to the taps each, and the factors of weights' derivatives.

References: Schraudolph, Fast curvature matrix-vector products, Neural Computation 14 (7), 2002; Martens, New insights and
perspectives on the natural gradient method, JMLR 21, 2020, arXiv 1412.1193.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.checks import number, refuse_huge
from jaxchain.derivative import jvp, vjp
from jaxchain.factored.axis import one_of, summed
from jaxchain.factored.factors import wide
from jaxchain.factored.function import Evaluated, Factored, Leaf
from jaxchain.gauss_newton.bending import Bending
from jaxchain.gauss_newton.kronecker import Kronecker
from jaxchain.gauss_newton.kronecker_making import making
from jaxchain.gauss_newton.parts import number_of
from jaxchain.gauss_newton.spread import Choice, always, for_norms, for_squares, matrices, norms, spread, squares
from jaxchain.gauss_newton.symmetric import Symmetric
from jaxchain.program.flat import Program
from jaxchain.program.precision import precisely
from jaxchain.program.primitives import JaxprEqn, any_equation_of, custom_rule

__all__ = ["GaussNewton"]


@dataclass(frozen=True, eq=False, repr=False)
class GaussNewton(Symmetric):
    """A curvature matrix of all parameters, as a linear operator: `jc.ggn` and `jc.fisher` make it.

    It takes a pytree like the parameters and returns one, or a flat vector (n,), in the order of
    `jax.flatten_util.ravel_pytree`; so it is the ``matvec`` of matfree, and the function of
    ``lineax.FunctionLinearOperator(operator, operator.like, lineax.positive_semidefinite_tag)``. Everything works
    under ``jit``, ``vmap`` and ``grad``; nothing is said there about a loss that is not convex.

    Attributes
    ----------
    name
        What it is, in words.
    shape, dtype, T
        (n, n), that of a flat vector, and itself.
    like
        The parameters, as shapes.
    count
        B, the number of samples that it is the mean of.

    Examples
    --------
    >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.eye(2), jnp.ones(2)))
    >>> G.shape, (G @ jnp.array([1.0, 2.0])).tolist(), G.solve(jnp.array([1.0, 2.0]), damping=0.5).tolist()
    ((2, 2), [0.5, 1.0], [1.0, 2.0])
    """

    name: str
    fun: Callable[..., Any]
    function: Factored
    params: Any
    xs: Any
    ys: Any
    count: int
    parts: tuple[Leaf, ...]
    bending: Bending
    convex: bool
    chunk_size: int | None

    def __repr__(self) -> str:
        n = self.shape[0]
        return f"<{self.name} of {n:,} × {n:,}, the mean over {self.count} sample{'s' * (self.count != 1)}>"

    def solve(
        self,
        vector: Any,
        damping: Any = 0.0,
        *,
        tol: float = 1e-5,
        maxiter: int | None = None,
        precondition: Callable[[Any], Any] | None = None,
    ) -> Any:
        """(G + λ I)⁻¹ v by conjugate gradients, JAX's own.

        Parameters
        ----------
        vector
            A pytree like the parameters, or a flat vector (n,).
        damping
            λ; without any, v has to lie in the range of the matrix.
        tol, maxiter
            Of `jax.scipy.sparse.linalg.cg`.
        precondition
            A product with something near the inverse, of a pytree like the parameters: ``partial(operator.kronecker().solve,
            damping=λ)``.

        Examples
        --------
        >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.array([[2.0, 1.0]]), jnp.ones(1)))
        >>> G.solve(jnp.array([2.0, 1.0]), damping=5.0).round(3).tolist() == jnp.array([0.2, 0.1]).tolist()
        True
        """
        number("damping", damping, "what is added to the diagonal")

        def solved(tree: Any) -> Any:
            def damped(v: Any) -> Any:
                return jax.tree.map(lambda product, leaf: product + damping * leaf, self._product(v), v)

            return jax.scipy.sparse.linalg.cg(damped, tree, tol=tol, maxiter=maxiter, M=precondition)[0]

        return self._of_vector(vector, solved)

    def _product(self, tangent: Any) -> Any:
        forward = _has_forward_mode(self.function.tapping.program)

        def of_some(samples: tuple[Any, Any]) -> tuple[Any, None]:
            xs, ys = samples

            def outputs(params: Any) -> Any:
                return jax.vmap(self.fun, (None, 0))(params, xs)

            out, pushed = _push(outputs, self.params, tangent, forward=forward)
            bent = jax.vmap(self.bending.product)(out, ys, pushed)
            return vjp(outputs, self.params)[1](bent)[0], None

        return self._mean(of_some)[0]

    # ------------------------------------------------------------------------------------- what is made of H's columns

    def diagonal(self) -> Any:
        """The exact diagonal, a pytree like the parameters: as many backward passes as the loss's Hessian has columns.

        Raises
        ------
        ValueError
            If the loss is not convex, as everything but products with vectors does.

        Examples
        --------
        >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.array([[2.0, 1.0]]), jnp.ones(1)))
        >>> G.diagonal().tolist()
        [4.0, 1.0]
        """

        def total(made: Sequence[Any], weights: jax.Array) -> list[jax.Array]:
            def zeros(leaf: Leaf) -> jax.Array:
                return jnp.zeros(leaf.like.shape, wide(leaf.like.dtype))

            return self._by_leaf(made, lambda part, factor: squares(self.function, part, factor, weights), zeros)

        leaves, tree = jax.tree.flatten(self.params)
        found = zip(self._of_columns(self._spread(for_squares), total), leaves, strict=True)
        return tree.unflatten([leaf.astype(like.dtype) for leaf, like in found])

    def trace(self) -> jax.Array:
        """The exact trace, from the norms of the columns' gradients, which need not be multiplied out.

        Examples
        --------
        >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.array([[2.0, 1.0]]), jnp.ones(1)))
        >>> G.trace().item()
        5.0
        """

        def total(made: Sequence[Any], weights: jax.Array) -> jax.Array:
            return sum((norms(factor, weights) for factor in made), jnp.zeros((), weights.dtype))

        return self._of_columns(self._spread(for_norms), total)

    def dense(self) -> jax.Array:
        """The matrix (n, n) itself.

        Raises
        ------
        ValueError
            Outside ``jit``, if it is larger than matrices are made unasked.

        Examples
        --------
        >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.array([[2.0, 1.0]]), jnp.ones(1)))
        >>> G.dense().tolist()
        [[4.0, 2.0], [2.0, 1.0]]
        """
        refuse_huge(
            self.shape,
            self.dtype,
            what=f"A {self.name}",
            instead="Take its products with vectors, .diagonal() or .kronecker()",
        )

        def total(made: Sequence[Any], weights: jax.Array) -> jax.Array:
            def zeros(leaf: Leaf) -> jax.Array:
                return jnp.zeros((*weights.shape, leaf.like.size), weights.dtype)

            rows = self._by_leaf(made, lambda part, factor: matrices(self.function, part, factor), zeros)
            rows = jnp.concatenate(rows, -1)
            return jnp.einsum("bj,bjn,bjk->nk", weights, rows, rows)

        return self._of_columns(self._spread(always), total).astype(self.dtype)

    def kronecker(self, shared: str = "expand") -> Kronecker:
        """The Kronecker approximation of each weight's block, E[x xᵀ] ⊗ E[δ δᵀ], as an operator.

        Parameters
        ----------
        shared
            What positions that share a weight are: ``"expand"``, samples of their own (as for language models, and
            KFC for convolutions); ``"reduce"``, parts of one sample, whose x are averaged and whose δ are added up
            (as where a pool follows).

        Returns
        -------
        Kronecker
            With ``.blocks``, products with vectors, ``.solve``, ``.diagonal``, ``.trace`` and ``.dense``.

        References
        ----------
        Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, ICML 2015,
        arXiv 1503.05671; Grosse and Martens, ICML 2016, arXiv 1602.01407; Eschenhagen, Immer, Turner, Schneider and
        Hennig, Kronecker-factored approximate curvature for modern neural network architectures, NeurIPS 2023, arXiv 2311.00636.

        Examples
        --------
        >>> G = jc.ggn(lambda w, x: x @ w, lambda z, y: (z - y) ** 2 / 2, jnp.zeros(2), (jnp.array([[2.0, 1.0]]), jnp.ones(1)))
        >>> G.kronecker().blocks[0].left.tolist()
        [[[4.0, 2.0], [2.0, 1.0]]]
        """
        what = making(self.function, self.parts, self.params, one_of(self.xs), shared)
        return what.finish(self._of_columns(what.make, what.total))

    def _spread(self, multiplied: Choice) -> Callable[[Evaluated, Any], Any]:
        return lambda done, cotangents: spread(self.function, self.parts, done, cotangents, multiplied)

    def _by_leaf(
        self, made: Sequence[Any], call: Callable[[Leaf, Any], jax.Array], zeros: Callable[[Leaf], jax.Array]
    ) -> list[jax.Array]:
        """What is made of each leaf's parts, added up; zeros where a leaf has none."""
        found = [zeros(leaf) for leaf in self.function.leaves]
        for part, factor in zip(self.parts, made, strict=True):
            leaf = number_of(self.function, part)
            found[leaf] = found[leaf] + call(part, factor)
        return found

    def _mean(self, of_some: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
        """The mean over samples of what ``of_some`` sums over some of them, and what it says of each."""
        with precisely(self.function.tapping.program):
            sums, each = summed(of_some, (self.xs, self.ys), self.count, self.chunk_size)
        return jax.tree.map(lambda leaf: leaf / self.count, sums), each

    def _of_columns(self, make: Callable[[Evaluated, Any], Any], total: Callable[[Any, jax.Array], Any]) -> Any:
        """The mean over samples of ``total(made, weights)``, of what is made of each sample's columns."""

        def of_sample(x: Any, y: Any) -> tuple[Any, jax.Array]:
            done = self.function.evaluate(self.params, x)
            cotangents, weights = self.bending.columns(done.out, y)
            return make(done, cotangents), weights

        def of_some(samples: tuple[Any, Any]) -> tuple[Any, jax.Array]:
            made, weights = jax.vmap(of_sample)(*samples)
            largest = jnp.max(jnp.abs(weights), 1, initial=0)
            return total(made, weights), jnp.min(weights, 1, initial=0) / jnp.where(largest > 0, largest, 1)

        found, least = self._mean(of_some)
        if self.convex and not self.bending.convex:
            _check_convex(least)
        return found


def _has_forward_mode(program: Program) -> bool:
    """Whether no equation is a custom VJP, which JAX pushes no tangent through; under ``jit`` it says so too late."""

    def refuses(eqn: JaxprEqn) -> bool:
        rule = custom_rule(eqn)
        return rule is not None and not rule.forward

    return not any(any_equation_of(eqn, refuses) for eqn in program.eqns)


def _push(fn: Callable[[Any], Any], state: Any, tangent: Any, *, forward: bool) -> tuple[Any, Any]:
    """f(x) and J ẋ; without forward mode by the derivative of the pull, which is linear."""
    if forward:
        return jvp(fn, state, tangent)
    out, pull = vjp(fn, state)
    zero = jax.tree.map(jnp.zeros_like, out)
    return out, vjp(lambda cotangent: pull(cotangent)[0], zero)[1](tangent)[0]


def _check_convex(least: jax.Array) -> None:
    """Refuse a loss that is seen to bend down: of each sample the least eigenvalue, as a part of the largest in size."""
    if isinstance(least, Tracer) or not least.size:
        return
    shares = np.asarray(least)
    if shares.min() < -np.sqrt(np.finfo(shares.dtype).eps):
        msg = (
            f"The loss is not convex in the outputs of fun: at sample {shares.argmin()} its Hessian there has a negative eigenvalue, "
            f"{-shares.min():.2g} of the largest in size, so that JᵀHJ is not positive semidefinite. Let fun return what the loss is "
            "convex in, such as logits in place of probabilities; or pass convex=False to have this indefinite matrix."
        )
        raise ValueError(msg)
