"""Kronecker factors of curvature: of each weight E[x xᵀ] ⊗ E[δ δᵀ], as blocks and as one linear operator.

A bias that is added to what a weight makes is the weight's last row, whose x is 1. An embedding's x is a row of the
identity, so that its factor is a diagonal. Of what is no product of factors the block is its exact diagonal.

References: Martens and Grosse, ICML 2015, arXiv 1503.05671; Grosse and Martens, ICML 2016, arXiv 1602.01407;
Eschenhagen, Immer, Turner, Schneider and Hennig, NeurIPS 2023, arXiv 2311.00636.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.checks import number, refuse_huge
from jaxchain.derivative import vjp
from jaxchain.factored.factors import wide
from jaxchain.factored.function import Factored, Leaf
from jaxchain.gauss_newton.spread import to_leaf
from jaxchain.gauss_newton.symmetric import Symmetric
from jaxchain.show.table import Shown, Table

__all__ = ["Kronecker", "KroneckerBlock"]


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerBlock:
    """The curvature of one weight, with the bias that belongs to it.

    Attributes
    ----------
    leaves
        Paths: the weight, and the bias, whose row is the last.
    stage, kind
        As in `jc.weight_sites`.
    left
        E[x xᵀ]: (N, I, I), N blocks of a weight that has several; of an embedding its diagonal (1, I); ``None`` where the block is a diagonal.
    right
        E[δ δᵀ]: (N, O, O), summed over the columns of the loss's Hessian; or the exact diagonal, like the leaf. Rows
        and columns are the weight's contracted and other axes, each in order; of a convolution windows and
        input features, and output features.

    Examples
    --------
    >>> F = jc.fisher(lambda w, x: w @ x, jnp.zeros((3, 2)), (jnp.eye(2), None), "gaussian")
    >>> (block,) = F.kronecker().blocks
    >>> block.kind, block.left.tolist(), block.right.shape
    ('dense', [[[0.5, 0.0], [0.0, 0.5]]], (1, 3, 3))
    """

    leaves: tuple[str, ...]
    stage: str
    kind: str
    left: jax.Array | None
    right: jax.Array
    part: Leaf
    numbers: tuple[int, ...]


def _times(block: KroneckerBlock, matrix: jax.Array) -> jax.Array:
    """A M G, of a matrix (N, I, O)."""
    assert block.left is not None
    left = block.left[..., None] * matrix if block.left.ndim == 2 else block.left @ matrix
    return left @ block.right


def _solved(block: KroneckerBlock, matrix: jax.Array, damping: Any) -> jax.Array:
    """(A ⊗ G + λ)⁻¹ M, by eigenvalues of both."""
    assert block.left is not None
    columns, right = jnp.linalg.eigh(block.right)
    if block.left.ndim == 2:
        return ((matrix @ right) / (block.left[..., None] * columns[:, None, :] + damping)) @ right.mT
    rows, left = jnp.linalg.eigh(block.left)
    turned = left.mT @ matrix @ right / (rows[:, :, None] * columns[:, None, :] + damping)
    return left @ turned @ right.mT


def _diagonal(block: KroneckerBlock) -> jax.Array:
    """The diagonal, as a matrix (N, I, O)."""
    assert block.left is not None
    rows = block.left if block.left.ndim == 2 else jnp.diagonal(block.left, axis1=1, axis2=2)
    return rows[:, :, None] * jnp.diagonal(block.right, axis1=1, axis2=2)[:, None, :]


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(Shown, Symmetric):
    """A curvature matrix, approximated block by block, as a symmetric linear operator; printed, a table of its factors.

    It takes and returns a pytree like the parameters, or a flat vector (n,), as `jc.GaussNewton` does; likewise
    ``.shape``, ``.dtype``, ``.T``, ``.like``.

    Attributes
    ----------
    blocks
        One a weight.

    Examples
    --------
    >>> K = jc.fisher(lambda w, x: w @ x, jnp.zeros((3, 2)), (jnp.eye(2), None), "gaussian").kronecker()
    >>> K(jnp.ones((3, 2)))[0].tolist(), K.solve(jnp.ones((3, 2)), damping=0.5)[0].tolist(), float(K.trace())
    ([0.5, 0.5], [1.0, 1.0], 3.0)
    """

    blocks: tuple[KroneckerBlock, ...]
    function: Factored
    params: Any

    def _product(self, tangent: Any) -> Any:
        return self._of_tree(tangent, _times, jnp.multiply)

    def solve(self, vector: Any, damping: Any) -> Any:
        """(A ⊗ G + λ I)⁻¹ v, exactly, block by block.

        Raises
        ------
        TangentMismatchError
            As a product does.
        ValueError, TypeError
            If ``damping`` is no finite number of at least 0.

        Examples
        --------
        >>> K = jc.fisher(lambda w, x: w @ x, jnp.zeros((1, 2)), (jnp.eye(2), None), "gaussian").kronecker()
        >>> K.solve(jnp.array([1.0, 2.0]), damping=0.5).tolist()
        [1.0, 2.0]
        """
        number("damping", damping, "what is added to the diagonal")

        def solved(tree: Any) -> Any:
            return self._of_tree(
                tree,
                lambda block, matrix: _solved(block, matrix, damping),
                lambda diagonal, leaf: leaf / (diagonal + damping),
            )

        return self._of_vector(vector, solved)

    def diagonal(self) -> Any:
        """The diagonal, a pytree like the parameters.

        Examples
        --------
        >>> jc.fisher(lambda w, x: w @ x, jnp.zeros((1, 2)), (jnp.eye(2), None), "gaussian").kronecker().diagonal().tolist()
        [[0.5, 0.5]]
        """
        ones = jax.tree.map(jnp.ones_like, self.params)
        return self._of_tree(ones, lambda block, _: _diagonal(block), lambda diagonal, _: diagonal)

    def trace(self) -> jax.Array:
        """The sum of the diagonal.

        Examples
        --------
        >>> jc.fisher(lambda w, x: w @ x, jnp.zeros((1, 2)), (jnp.eye(2), None), "gaussian").kronecker().trace().item()
        1.0
        """
        return sum(
            (jnp.sum(block.right if block.left is None else _diagonal(block)) for block in self.blocks), jnp.zeros(())
        )

    def dense(self) -> jax.Array:
        """The matrix (n, n) itself.

        Raises
        ------
        ValueError
            Outside ``jit``, if it is larger than matrices are made unasked.

        Examples
        --------
        >>> jc.fisher(lambda w, x: w @ x, jnp.zeros((1, 2)), (jnp.eye(2), None), "gaussian").kronecker().dense().tolist()
        [[0.5, 0.0], [0.0, 0.5]]
        """
        refuse_huge(
            self.shape,
            self.dtype,
            what="A Kronecker approximation",
            instead="Take its products with vectors, or its .blocks",
        )
        return jax.vmap(self)(self._space.identity())

    def _of_tree(
        self,
        tree: Any,
        on_matrix: Callable[[KroneckerBlock, jax.Array], jax.Array],
        on_leaf: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> Any:
        """What each block makes of its part of a pytree; where none is one of factors, what the diagonal makes."""
        leaves = jax.tree.leaves(tree)
        given = [leaf.astype(wide(leaf.dtype)) for leaf in leaves]
        diagonals = [jnp.zeros_like(leaf) for leaf in given]
        for block in self.blocks:
            if block.left is None:
                diagonals[block.numbers[0]] += block.right
        made = [on_leaf(diagonal, leaf) for diagonal, leaf in zip(diagonals, given, strict=True)]
        for block in self.blocks:
            if block.left is not None:
                joined, split = self._matrix(block)
                matrix = joined([given[leaf] for leaf in block.numbers])
                parts, read = split(on_matrix(block, matrix)), split(jnp.ones_like(matrix))
                for leaf, part, mask in zip(block.numbers, parts, read, strict=True):
                    made[leaf] = jnp.where(mask != 0, part, made[leaf])
        return self._space.treedef.unflatten([part.astype(leaf.dtype) for part, leaf in zip(made, leaves, strict=True)])

    def _matrix(
        self, block: KroneckerBlock
    ) -> tuple[Callable[[Any], jax.Array], Callable[[jax.Array], list[jax.Array]]]:
        """A block's leaves as one matrix (N, I, O), a bias's row the last; and back."""
        assert block.left is not None
        site, biased = self.function.sites[block.part.sites[0]], len(block.numbers) == 2
        n, rows, columns = *block.left.shape[:2], block.right.shape[-1]
        back = partial(to_leaf, site)
        zeros = jnp.zeros((n, rows - biased, columns), block.right.dtype)

        def joined(values: Sequence[jax.Array]) -> jax.Array:
            out, pull = vjp(back, zeros)
            matrix = pull(values[0].astype(out.dtype))[0]
            return jnp.concatenate([matrix, values[1].reshape(n, 1, columns)], 1) if biased else matrix

        def split(matrix: jax.Array) -> list[jax.Array]:
            if not biased:
                return [back(matrix)]
            return [back(matrix[:, :-1]), matrix[:, -1].reshape(self.function.leaves[block.numbers[1]].like.shape)]

        return joined, split

    def _brief(self) -> str:
        return f"{len(self.blocks)} block{'s' * (len(self.blocks) != 1)}, {self.shape[0]:,} × {self.shape[1]:,}"

    def _table(self) -> Table:
        rows = [(" + ".join(block.leaves), block.stage, block.kind, *_shapes(block)) for block in self.blocks]
        return Table("Kronecker factors", ("leaf", "stage", "kind", "E[x xᵀ]", "E[δ δᵀ]"), rows)


def _shapes(block: KroneckerBlock) -> tuple[str, str]:
    if block.left is None:
        return "", f"diagonal {' × '.join(map(str, block.right.shape))}"
    left = "diagonal " * (block.left.ndim == 2) + " × ".join(map(str, block.left.shape))
    return left, " × ".join(map(str, block.right.shape))
