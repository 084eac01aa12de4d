"""Arrays in a few characters: a number in full, anything larger as its shape, its norm and a small picture.

Builds on NumPy alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxchain.show.extremes import extreme_of_blocks

__all__ = ["count", "facts", "large", "norm", "ratio_text", "scalar", "sparkline", "summary", "times_less"]

WIDTH = 12
"""The most characters of a sparkline."""

TOLD = 3
"""How many of several arrays are told in one line."""

FLOAT0 = np.dtype([("float0", np.void, 0)])
"""The dtype of JAX's tangents of what has none."""

EXTREMES = {"min": np.min, "max": np.max, "mean": np.mean}

BARS = "▁▂▃▄▅▆▇█"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SHORT = {"float": "f", "bfloat": "bf", "complex": "c", "int": "i", "uint": "u"}


def count(number: int, word: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def times_less(ratio: float, of: str) -> str:
    """``15.6 times less work``; where the ratio is below one, how many times more.

    >>> times_less(15.64, "work"), times_less(0.436, "time"), times_less(1.001, "work")
    ('15.6 times less work', '2.29 times more time', 'as much work')
    """
    if 0.995 < ratio < 1.005:
        return f"as much {of}"
    more = 1 / ratio if ratio else math.inf
    return f"{ratio_text(ratio)} times less {of}" if ratio > 1 else f"{ratio_text(more)} times more {of}"


def ratio_text(ratio: float) -> str:
    """Three significant digits, without powers of ten.

    >>> ratio_text(2.25), ratio_text(8192.0)
    ('2.25', '8,190')
    """
    return f"{float(f'{ratio:.3g}'):,.0f}" if 1000 <= ratio < math.inf else f"{ratio:.3g}"


def scalar(value: Any) -> str:
    """One number: seven significant digits, integers in full, ``-0``, ``nan`` and ``inf`` as such."""
    number = np.asarray(value)
    if number.dtype.kind in "biu":
        return str(number)
    value = _wide(number).item()
    return f"{value.real:.7g}{value.imag:+.7g}j" if isinstance(value, complex) else f"{value:.7g}"


def summary(value: Any, *, shape: bool = True, picture: bool = True) -> str:
    """An array in one line: ``0.5``, or ``f32[784] ‖3.21‖ ▂▁▅█▃``; nothing for what has no value.

    Parameters
    ----------
    value
        An array of any dtype, or a tuple of some; ``None`` and float0 tangents have no value, and of
        random keys only the shape is told.
    shape, picture
        Whether to tell an array's dtype and shape, and to draw it.
    """
    if isinstance(value, tuple):
        return _several(value, shape=shape)
    dtype = getattr(value, "dtype", None)
    if value is None or dtype == FLOAT0:
        return ""
    if str(dtype).startswith("key<"):
        return _shape_text(value)
    array = np.asarray(value)
    if not array.shape:
        return scalar(array)
    size = "" if array.dtype == bool else f"‖{norm(array):.4g}‖"
    parts = (_shape_text(array) if shape else "", size, sparkline(array) if picture else "")
    return " ".join(filter(None, parts))


def facts(value: Any) -> Any:
    """What a program is told of an array in place of all its entries; what is no array, or is one number, stays.

    Parameters
    ----------
    value
        As for `summary`.

    Returns
    -------
    Any
        ``shape``, ``dtype``, ``norm``, and of the finite entries ``min``, ``max`` and ``mean``, ``None`` where there
        are none; how many are ``not_finite``. Of complex entries these are of the magnitudes, of booleans there is
        no norm, of random keys there are shape and dtype alone. Of a tuple a list of such.

    Examples
    --------
    >>> facts(np.array([3.0, -4.0, 5.0, np.inf]))["min"], facts(np.array([3.0, -4.0]))["norm"]
    (-4.0, 5.0)
    """
    if isinstance(value, tuple):
        return [facts(part) for part in value]
    if not getattr(value, "shape", ()) or value.dtype == FLOAT0:
        return value
    told = {"shape": list(value.shape), "dtype": str(value.dtype)}
    if str(value.dtype).startswith("key<"):
        return told
    array = np.asarray(value)
    flat = _wide(array).ravel()
    flat = np.abs(flat) if np.iscomplexobj(flat) else flat
    finite = flat[np.isfinite(flat)]
    extremes = {name: float(get(finite)) if finite.size else None for name, get in EXTREMES.items()}
    size = {} if array.dtype == bool else {"norm": norm(array)}
    return {**told, **size, **extremes, "not_finite": flat.size - finite.size}


def _several(values: tuple[Any, ...], *, shape: bool) -> str:
    told = [summary(value, shape=shape, picture=False) or "–" for value in values[:TOLD]]
    return ", ".join(told) + (f", … {len(values)} in all" if len(values) > TOLD else "")


def _shape_text(array: Any) -> str:
    """Dtype and shape in a few letters: ``f32[3,4]``, ``bf16[2]``, ``key<fry>[]``."""
    dtype = str(array.dtype)
    letters = dtype.rstrip("0123456789")
    short = f"{SHORT[letters]}{dtype.removeprefix(letters)}" if letters in SHORT else dtype
    return f"{short}[{','.join(map(str, array.shape))}]"


def norm(value: Any) -> float:
    """Euclidean norm of an array's entries, in float64; it neither overflows nor underflows before they do."""
    sizes = np.abs(_wide(np.asarray(value)))
    largest = float(sizes.max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    # Not `np.linalg.norm`: the threads of its dot product wait for each other longer than this sum takes.
    return math.sqrt(np.square(sizes / largest).sum()) * largest


def sparkline(value: Any) -> str:
    """A picture of at most twelve characters: bars from the least to the largest entry, zero among them.

    The array is read in order, in as many equal blocks, of each the entry of largest magnitude.
    ``×`` is NaN, ``∞`` infinite; a complex entry counts by its magnitude.
    """
    flat = _wide(np.asarray(value)).ravel()
    cells = extreme_of_blocks(np.abs(flat) if np.iscomplexobj(flat) else flat, WIDTH)
    finite = cells[np.isfinite(cells)]
    # Halved, so that even the span from the least to the largest number is one.
    low, high = min(finite.min(initial=0.0), 0.0) / 2, max(finite.max(initial=0.0), 0.0) / 2
    span = (high - low) or 1.0
    return "".join(_bar(cell / 2, low, span) for cell in cells)


def _bar(cell: float, low: float, span: float) -> str:
    if np.isnan(cell):
        return "×"
    if np.isinf(cell):
        return "∞"
    return BARS[round((cell - low) / span * (len(BARS) - 1))]


def _wide(array: np.ndarray) -> np.ndarray:
    """The same numbers in float64 or complex128."""
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def large(value: float) -> str:
    """Three digits; powers of ten as mathematics writes them."""
    mantissa, _, power = f"{value:.3g}".partition("e")
    return f"{mantissa}×10{str(int(power)).translate(SUPERSCRIPTS)}" if power else mantissa
