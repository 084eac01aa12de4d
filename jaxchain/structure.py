"""What a Jacobian is, in words and in numbers: computed from its entries, never guessed from names.

A zero is an entry that is exactly zero: derivatives of stages that do not touch each other are.
Builds on NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxchain.show.table import Shown, Table

__all__ = ["Structure"]

Factors = tuple[tuple[int, int], tuple[int, int]]

ROUNDINGS = 4
"""Entries are equal where they differ by no more than so many roundings of the largest."""

SPARSE = 0.25
"""Below this share of non-zeros a matrix without a narrower description is called sparse."""


@dataclass(frozen=True)
class Structure(Shown):
    """What an (m, n) matrix is, and the numbers behind it; ``str()`` says it in one line.

    Attributes
    ----------
    kind
        The narrowest true word of: ``zero``, ``identity``, ``diagonal``, ``block-diagonal``,
        ``lower-triangular``, ``upper-triangular``, ``block lower-triangular``, ``block upper-triangular``,
        ``banded``, ``block-banded``, ``sparse``, ``dense``; or ``not finite``. Where ``identity_plus`` holds it speaks of J − I.
    identity_plus
        Whether the matrix is the identity plus something else: square, not diagonal, its diagonal
        near one on average and six standard errors above what its other entries would give by
        chance.
    shape
        (m, n).
    nonzero_share
        Non-zero entries over m·n.
    bandwidth
        (lower, upper): how far non-zeros reach below and above the diagonal; in a matrix that is
        not square, the line between opposite corners, in columns.
    rank
        Singular values above σ₁·max(m, n)·ε, NumPy's rule, ε of the matrix's own dtype.
    zero_rows, zero_columns
        How many are entirely zero: outputs that nothing moves, inputs that move nothing (dead
        units of a ReLU).
    blocks
        (block rows, block columns) over the states' leading axes; ``None`` where a state has less
        than two axes.
    block_nonzero_share
        Blocks that are not entirely zero, over all blocks.
    shifts
        ``circulant``: each row is the one above, shifted by one place around; ``Toeplitz``: equal along each
        diagonal; else empty. Not said of what is zero or diagonal.
    factors
        Shapes of A and B where the matrix is a Kronecker product A ⊗ B, A over the states' leading axes: the same
        function of each position has A = I, one that only mixes positions B = I. ``None`` where it is not.
    identity_factor
        ``A`` or ``B``, where that is the identity up to a scale; else empty.

    References
    ----------
    Golub and Van Loan, Matrix Computations, 4th ed., sec. 4.7 (Toeplitz), 4.8 (circulant), 5.4 (numerical rank),
    12.3 (Kronecker).

    Examples
    --------
    >>> structure = jc.Structure.of(np.diag([1.0, 2.0, 0.0]))
    >>> structure.kind, structure.rank, structure.zero_rows
    ('diagonal', 2, 1)
    """

    kind: str
    identity_plus: bool
    shape: tuple[int, int]
    nonzero_share: float
    bandwidth: tuple[int, int]
    rank: int
    zero_rows: int
    zero_columns: int
    blocks: tuple[int, int] | None
    block_nonzero_share: float
    shifts: Literal["", "Toeplitz", "circulant"] = ""
    factors: Factors | None = None
    identity_factor: Literal["", "A", "B"] = ""

    @classmethod
    def of(cls, matrix: Any, in_shape: tuple[Any, ...] = (), out_shape: tuple[Any, ...] = ()) -> Structure:
        """Analyse an (m, n) matrix, with the shapes of the states that it maps between.

        Raises
        ------
        ValueError
            If it is not a matrix.
        jax.errors.TracerArrayConversionError
            Under ``jit``: the words depend on values.

        Examples
        --------
        >>> print(jc.Structure.of(np.tril(np.ones((3, 3)))))
        lower-triangular · Toeplitz · rank 3 (full)
        """
        own = np.asarray(matrix)
        if own.ndim != 2:
            msg = f"A structure is that of a matrix with two axes; this array has shape {own.shape}."
            raise ValueError(msg)
        dense = own.astype(np.float64)
        blocks = _block_pattern(dense, in_shape, out_shape)
        if not np.isfinite(dense).all():
            kind, identity_plus, rank = "not finite", False, 0
        else:
            kind, identity_plus = _words(dense, in_shape, out_shape)
            rank = _rank(dense, _epsilon(own.dtype))
        nonzero = dense != 0
        near = ROUNDINGS * _epsilon(own.dtype) * np.abs(dense).max(initial=0.0)
        plain = kind in ("zero", "identity", "diagonal", "not finite")
        factors, identity = (None, "") if plain or blocks is None else _factors(dense, blocks.shape, near)
        return cls(
            kind=kind,
            identity_plus=identity_plus,
            shape=(dense.shape[0], dense.shape[1]),
            nonzero_share=float(nonzero.mean()) if nonzero.size else 0.0,
            bandwidth=_bandwidth(nonzero),
            rank=rank,
            zero_rows=int((~nonzero.any(axis=1)).sum()),
            zero_columns=int((~nonzero.any(axis=0)).sum()),
            blocks=None if blocks is None else (blocks.shape[0], blocks.shape[1]),
            block_nonzero_share=1.0 if blocks is None else float(blocks.mean()),
            shifts="" if plain else _shifts(dense, near),
            factors=factors,
            identity_factor=identity,
        )

    def __str__(self) -> str:
        m, n = self.shape
        parts = [f"identity + {self.kind}" if self.identity_plus else self.kind]
        if self.kind in ("banded", "sparse", "block-banded"):
            parts.append(f"{self.nonzero_share:.2g} of entries non-zero")
        if self.kind.startswith("block") and self.blocks:
            parts.append(f"{self.blocks[0]} × {self.blocks[1]} blocks")
        if self.factors is not None:
            left, right = ("I" if self.identity_factor == name else name for name in "AB")
            told = [f"{n} {a} × {b}" for n, (a, b) in zip("AB", self.factors, strict=True) if n != self.identity_factor]
            parts.append(f"{left} ⊗ {right}, {', '.join(told)}")
        if self.shifts:
            parts.append(self.shifts)
        if self.zero_columns:
            parts.append(f"{self.zero_columns} of {n} columns zero")
        if self.kind != "not finite":
            parts.append(f"rank {self.rank}" + (" (full)" if self.rank == min(m, n) else f" of {min(m, n)}"))
        return " · ".join(parts)

    def _brief(self) -> str:
        return f"{self.shape[0]} × {self.shape[1]}, {self}"

    def _table(self) -> Table:
        told = (
            ("shape", "{} × {}".format(*self.shape)),
            ("non-zero entries", f"{self.nonzero_share:.2%}"),
            ("bandwidth", "{} below, {} above the diagonal".format(*self.bandwidth)),
            ("rank", str(self.rank)),
            ("zero rows", str(self.zero_rows)),
            ("zero columns", str(self.zero_columns)),
            ("blocks", "{} × {}".format(*self.blocks) if self.blocks else "–"),
            ("non-zero blocks", f"{self.block_nonzero_share:.2%}" if self.blocks else "–"),
        )
        return Table(str(self), ("", "number"), told)


def _words(dense: np.ndarray, in_shape: tuple[Any, ...], out_shape: tuple[Any, ...]) -> tuple[str, bool]:
    kind = _kind(dense, in_shape, out_shape)
    if kind in ("zero", "identity", "diagonal") or not _stands_on_identity(dense):
        return kind, False
    return _kind(dense - np.eye(len(dense)), in_shape, out_shape), True


def _kind(dense: np.ndarray, in_shape: tuple[Any, ...], out_shape: tuple[Any, ...]) -> str:
    nonzero = dense != 0
    if not nonzero.any():
        return "zero"
    square = dense.shape[0] == dense.shape[1]
    lower, upper = _bandwidth(nonzero)
    if square and lower == upper == 0:
        return "identity" if np.array_equal(dense, np.eye(len(dense))) else "diagonal"
    if (blocks := _block_pattern(dense, in_shape, out_shape)) is not None and (word := _block_kind(blocks)):
        return word
    if square and 0 in (lower, upper):
        return "lower-triangular" if upper == 0 else "upper-triangular"
    if lower + upper + 1 <= dense.shape[1] / 2:
        return "banded"
    return "sparse" if nonzero.mean() < SPARSE else "dense"


def _block_kind(blocks: np.ndarray) -> str | None:
    lower, upper = _bandwidth(blocks)
    square = blocks.shape[0] == blocks.shape[1]
    if blocks.shape[1] < 2 or blocks.shape[0] < 2:
        return None
    if square and lower == upper == 0:
        return "block-diagonal"
    if lower + upper + 1 <= blocks.shape[1] / 2:
        return "block-banded"
    if square and 0 in (lower, upper):
        return "block lower-triangular" if upper == 0 else "block upper-triangular"
    return None


def _block_pattern(dense: np.ndarray, in_shape: tuple[Any, ...], out_shape: tuple[Any, ...]) -> np.ndarray | None:
    """Which blocks are not zero, the leading axes of the states counting blocks; bool (p_out, p_in)."""
    for shape, size in ((in_shape, dense.shape[1]), (out_shape, dense.shape[0])):
        if len(shape) < 2 or not all(isinstance(axis, int) for axis in shape) or np.prod(shape) != size or not size:
            return None
    blocks = dense.reshape(out_shape[0], -1, in_shape[0], dense.shape[1] // in_shape[0])
    return (blocks != 0).any(axis=(1, 3))


def _factors(dense: np.ndarray, blocks: tuple[int, ...], near: float) -> tuple[Factors | None, Literal["", "A", "B"]]:
    """Shapes of A and B in A ⊗ B, and which of them is the identity, up to a scale; ``None``: it is none."""
    p, q = blocks
    m, n = dense.shape[0] // p, dense.shape[1] // q
    if min(p, q) < 2 or max(m, n) < 2:
        return None, ""
    # With a block a row, the matrix is a Kronecker product where this one is an outer product (Van Loan and Pitsianis).
    rows = dense.reshape(p, m, q, n).transpose(0, 2, 1, 3).reshape(p * q, m * n)
    at = np.unravel_index(np.abs(rows).argmax(), rows.shape)
    a, b = rows[:, at[1]] / rows[at], rows[at[0]]
    if np.abs(rows - np.outer(a, b)).max() > near:
        return None, ""
    identity = "A" if _is_scaled_identity(a.reshape(p, q)) else "B" if _is_scaled_identity(b.reshape(m, n)) else ""
    return ((p, q), (m, n)), identity


def _is_scaled_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, matrix[0, 0] * np.eye(len(matrix)), 1e-6, 0)


def _shifts(dense: np.ndarray, near: float) -> Literal["", "Toeplitz", "circulant"]:
    """Whether equal entries lie along the diagonals, and go on around the edges."""
    if min(dense.shape) < 3 or np.abs(dense[1:, 1:] - dense[:-1, :-1]).max() > near:
        return ""
    around = dense.shape[0] == dense.shape[1] and np.abs(dense[1:, 0] - dense[:-1, -1]).max() <= near
    return "circulant" if around else "Toeplitz"


def _bandwidth(nonzero: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(nonzero)
    if not rows.size:
        return 0, 0
    # A row's place on the line from corner to corner; the row's own number where the matrix is square.
    slope = nonzero.shape[1] / nonzero.shape[0]
    along = rows if slope == 1 else np.floor((rows + 0.5) * slope).astype(int)
    return max(int((along - columns).max()), 0), max(int((columns - along).max()), 0)


def _stands_on_identity(dense: np.ndarray) -> bool:
    n = len(dense)
    if dense.shape[1] != n or n < 4:
        return False
    mean = np.trace(dense) / n
    spread = np.sqrt((dense[~np.eye(n, dtype=bool)] ** 2).mean())
    return bool(abs(mean - 1) < 0.5 and mean * np.sqrt(n) > 6 * spread)


def _rank(dense: np.ndarray, epsilon: float) -> int:
    if not dense.size:
        return 0
    values = np.linalg.svd(dense, compute_uv=False)
    return int((values > values[0] * max(dense.shape) * epsilon).sum())


def _epsilon(dtype: Any) -> float:
    # bfloat16 is no NumPy float; its ε comes from ml_dtypes, which JAX brings.
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps) if dtype.kind in "fV" else float(np.finfo(np.float64).eps)
