"""Arrays in a few characters: a number in full, anything larger as its shape, its norm and a small picture.

Builds on NumPy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxchain.extremes import extreme_of_blocks

__all__ = ["norm", "scalar", "sparkline", "summary"]

WIDTH = 12
"""The most characters of a sparkline."""

BARS = "▁▂▃▄▅▆▇█"
SHORT = {"float": "f", "bfloat": "bf", "complex": "c", "int": "i", "uint": "u"}


def scalar(value: Any) -> str:
    """One number: seven significant digits, ``-0``, ``nan`` and ``inf`` as such."""
    number = np.asarray(value)
    if number.dtype.kind in "biu":
        return str(number)
    value = _wide(number).item()
    return f"{value.real:.7g}{value.imag:+.7g}j" if isinstance(value, complex) else f"{value:.7g}"


def summary(value: Any) -> str:
    """An array in one line: ``0.5``, or ``f32[784] ‖3.21‖ ▂▁▅█▃``; nothing for what has no value.

    Parameters
    ----------
    value
        An array of any dtype; ``None`` and float0 tangents have no value.
    """
    if value is None:
        return ""
    array = np.asarray(value)
    if array.dtype == np.dtype([("float0", np.void, 0)]):
        return ""
    if not array.shape:
        return scalar(array)
    shape = f"{short_dtype(array.dtype)}[{','.join(map(str, array.shape))}]"
    return f"{shape} ‖{norm(array):.4g}‖ {sparkline(array)}".rstrip()


def short_dtype(dtype: Any) -> str:
    """A dtype in a few letters: ``f32``, ``bf16``, ``c64``, ``bool``."""
    letters = str(dtype).rstrip("0123456789")
    return f"{SHORT[letters]}{str(dtype).removeprefix(letters)}" if letters in SHORT else str(dtype)


def norm(value: Any) -> float:
    """Euclidean norm of an array's entries, in float64."""
    return float(np.linalg.norm(_wide(np.asarray(value)).ravel()))


def sparkline(value: Any) -> str:
    """A picture of at most twelve characters: bars from the least to the largest entry, zero among them.

    The array is read in order, in as many equal blocks, of each the entry of largest magnitude.
    ``×`` is NaN, ``∞`` infinite; a complex entry counts by its magnitude.
    """
    flat = _wide(np.asarray(value)).ravel()
    cells = extreme_of_blocks(np.abs(flat) if np.iscomplexobj(flat) else flat, WIDTH)
    finite = cells[np.isfinite(cells)]
    low, high = min(finite.min(initial=0.0), 0.0), max(finite.max(initial=0.0), 0.0)
    span = (high - low) or 1.0
    return "".join(_bar(cell, low, span) for cell in cells)


def _bar(cell: float, low: float, span: float) -> str:
    if np.isnan(cell):
        return "×"
    if np.isinf(cell):
        return "∞"
    return BARS[round((cell - low) / span * (len(BARS) - 1))]


def _wide(array: np.ndarray) -> np.ndarray:
    """The same numbers in float64 or complex128."""
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
