"""Large arrays made small without hiding anything large: each block by its entry of largest magnitude.

A picture has fewer cells than a big matrix has entries: what is small may hide, what is large may
not. Builds on NumPy alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Numbers in double precision."""

__all__ = ["Floats", "block_starts", "extreme_of_blocks"]


def block_starts(length: int, most: int) -> NDArray[np.intp]:
    """Where each of at most ``most`` equal blocks begins; the last may be shorter."""
    return np.arange(0, length, -(-length // most)) if length else np.arange(0)


def extreme_of_blocks(values: NDArray[np.float64], *most: int) -> NDArray[np.float64]:
    """Reduce every axis to at most so many blocks: of each, the signed entry of largest magnitude.

    NaN outdoes ∞, which outdoes every number. An array that fits comes back unchanged.
    """
    for axis, cells in enumerate(most):
        length = values.shape[axis]
        if length > cells:
            starts = block_starts(length, cells)
            high = np.maximum.reduceat(values, starts, axis=axis)
            low = np.minimum.reduceat(values, starts, axis=axis)
            values = np.where(high >= -low, high, low)
    return values
