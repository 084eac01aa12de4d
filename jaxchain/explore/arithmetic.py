"""Sums of products written out: ``5.5 = 1 · 0.5 + 1 · 5``, ``[2; 13] = [2 0; 1 3] · [1; 4]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxchain.show.values import norm

__all__ = ["MOST", "Floats", "number", "product_of", "sum_of_products", "written"]

Floats = NDArray[np.float64]

MOST = 6
"""Up to so many rows and columns a matrix is written with its entries."""


def written(matrix: Floats | None, most: int = MOST) -> str:
    """A matrix in short: its number, its entries by rows, or where it is larger a vector's norm or a matrix's shape."""
    if matrix is None:
        return "?"
    rows, columns = matrix.shape
    if (rows, columns) == (1, 1):
        return number(matrix.item())
    if max(rows, columns) <= most:
        return f"[{'; '.join(' '.join(map(number, row)) for row in matrix)}]"
    return f"‖{norm(matrix):.4g}‖" if min(rows, columns) == 1 else f"({rows} × {columns})"


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, with a minus that is as wide as a plus."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−")  # −0 is 0


def product_of(factors: Sequence[Floats | None]) -> str:
    """``−1 · 0.5``; what is negative stands in brackets, but for the first."""
    first, *others = map(written, factors)
    return " · ".join([first, *map(_bracketed, others)])


def sum_of_products(value: Floats | None, terms: Sequence[Sequence[Floats | None]], given: Floats | None = None) -> str:
    """``value = a · b + c · d``, what was given from outside first."""
    parts = list(map(product_of, terms))
    if given is not None and (given.any() or not parts):
        parts = [f"{written(given)} (given)", *parts]
    whole = written(value)
    if parts in ([], [whole]):
        return whole
    return f"{whole} = {' + '.join([parts[0], *(_bracketed(part, ' ') for part in parts[1:])])}"


def _bracketed(text: str, until: str = "") -> str:
    """A negative number, the first of a text's words, in brackets."""
    if not text.startswith("−"):
        return text
    number, space, rest = text.partition(until) if until else (text, "", "")
    return f"({number}){space}{rest}"
