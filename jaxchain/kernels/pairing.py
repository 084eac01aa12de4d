"""What the kernel between two samples is made of, and what that takes: Θ = J J′ᵀ, from factors or multiplied out.

Of factors, Θ_pq = Σ_{t,t′} (x_t · x′_t′)(δ_pt · δ′_qt′), the inner products of x first; then those of δ, or the one
factor δ after the other, whichever takes fewer operations. Everything is written for one pair of samples and mapped
over both; work is counted for all pairs, of letters that name the axes, those of samples (b, c) among them.

References: Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxchain.factored.factors import wide
from jaxchain.kernels.basis import Piece

__all__ = ["Order", "Outputs", "contract", "order_of", "overlap", "overlap_cost", "product"]

Outputs = Literal["full", "diagonal", "trace"]
"""Of the (m, m) block of a pair of samples: all, its diagonal (m,), its trace."""

Sizes = Mapping[str, int]
"""Letter → length of its axis."""

OUTPUTS: dict[Outputs, tuple[str, str]] = {"full": ("q", "pq"), "diagonal": ("p", "p"), "trace": ("p", "")}
"""The letter of the other sample's outputs, and those of the result."""

CLOSE = 1.02
"""Within this ratio, the order whose first result is smaller is taken."""


def work(inputs: str, out: str, sizes: Sizes) -> float:
    """Operations of a product of two arrays, summed over the letters that are not in the result."""
    letters = {letter for letter in inputs if letter in sizes and sizes[letter] > 1}
    summed = letters - set(out)
    return float(math.prod(sizes[letter] for letter in letters)) * (2 if summed else 1)


def product(one: tuple[str, jax.Array], other: tuple[str, jax.Array], out: str) -> tuple[str, jax.Array]:
    """An einsum of two arrays with lettered axes, those of length 1 dropped."""
    (first, a), (second, b) = map(_squeezed, (one, other))
    kept = "".join(letter for letter in out if letter in first + second)
    dtype = wide(a.dtype, b.dtype)
    return kept, jnp.einsum(f"{first},{second}->{kept}", a, b, preferred_element_type=dtype)


def _squeezed(array: tuple[str, jax.Array]) -> tuple[str, jax.Array]:
    letters, values = array
    kept = [k for k, size in enumerate(values.shape) if size != 1]
    return "".join(letters[k] for k in kept), values.reshape([values.shape[k] for k in kept])


# ------------------------------------------------------------------------------------------------------- inner products


def lettered(piece: Piece, *, own: bool, outputs: Outputs) -> tuple[str, str]:
    """The letters of a piece's two factors, as the first or the second of a pair."""
    output = "p" if own else OUTPUTS[outputs][0]
    t = "t" if own else "s"
    first, second = ((output if has else "") for has in piece.by_output)
    return f"{first}n{t}i" if piece.rows is None else f"n{t}", f"{second}n{t}o"


def overlap(one: Piece, other: Piece, outputs: Outputs) -> tuple[str, jax.Array]:
    """x_t · x′_t′ of a pair of samples."""
    a, b = lettered(one, own=True, outputs=outputs)[0], lettered(other, own=False, outputs=outputs)[0]
    if one.rows is None and other.rows is None:
        return product((a, one.left), (b, other.left.conj()), _unique(a + b).replace("i", ""))
    if one.rows is None:  # the rows of the one's that are looked up by the other
        return a.replace("i", "s"), jnp.take(one.left, other.left[0], axis=-1, mode="clip")
    if other.rows is None:
        return b.replace("i", "t"), jnp.take(other.left, one.left[0], axis=-1, mode="clip").conj()
    return "nts", (one.left[:, :, None] == other.left[:, None, :]).astype(jnp.result_type(one.right))


def _unique(letters: str) -> str:
    return "".join(dict.fromkeys(letters))


def overlap_cost(one: Piece, other: Piece, outputs: Outputs, sizes: Sizes, b: str, c: str) -> float:
    """Operations of `overlap` of all pairs, where ``b`` and ``c`` are the samples that the two left factors depend on."""
    if one.rows is not None or other.rows is not None:
        return 0.0
    x, y = lettered(one, own=True, outputs=outputs)[0], lettered(other, own=False, outputs=outputs)[0]
    return work(x + y + b + c, _unique(x + y).replace("i", "") + b + c, sizes)


# ---------------------------------------------------------------------------------------- and what they are multiplied by


@dataclass(frozen=True)
class Order:
    """In which order three arrays are multiplied, and how many operations that takes for all pairs of samples."""

    first: Literal["both", "one", "other"]
    cost: float


def order_of(overlap: str, right: str, other: str, outputs: Outputs, sizes: Sizes) -> Order:
    """The cheapest order of overlap · δ · δ′, from their letters, those of samples among them."""
    out = OUTPUTS[outputs][1] + "bc"
    found: list[tuple[float, float, Order]] = []
    for name, (a, b, c) in {
        "both": (right, other, overlap),
        "one": (right, overlap, other),
        "other": (other, overlap, right),
    }.items():
        between = _between(a, b, c + out)
        cost = work(a + b, between, sizes) + work(between + c, out, sizes)
        found.append((cost, float(math.prod(sizes.get(letter, 1) for letter in between)), Order(name, cost)))  # pyright: ignore[reportArgumentType]
    least = min(cost for cost, *_ in found)
    return min((one for one in found if one[0] <= CLOSE * least), key=lambda one: one[1])[2]


def _between(a: str, b: str, later: str) -> str:
    """The letters of a product that are still wanted."""
    return "".join(letter for letter in _unique(a + b) if letter in later)


def contract(
    overlap: tuple[str, jax.Array],
    right: tuple[str, jax.Array],
    other: tuple[str, jax.Array],
    order: Order,
    outputs: Outputs,
) -> jax.Array:
    """The product of x · x′, δ and δ′ of a pair of samples, in an order."""
    out = OUTPUTS[outputs][1]
    conjugate = other[0], other[1].conj()
    a, b, c = {
        "both": (right, conjugate, overlap),
        "one": (right, overlap, conjugate),
        "other": (conjugate, overlap, right),
    }[order.first]
    return product(product(a, b, _between(a[0], b[0], c[0] + out)), c, out)[1]
