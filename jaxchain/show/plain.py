"""Values as what JSON knows: for the command's ``--json``, the report and the experiments' numbers.

JSON has no number that is not finite: NaN and the infinities become the strings that JavaScript's
``Number`` reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """What `json.dumps` takes, with ``allow_nan=False``, in place of a value and all that it holds.

    Parameters
    ----------
    value
        Dataclasses and named tuples become objects of their public fields, mappings objects with
        string keys, other iterables and arrays lists, scalar arrays numbers, random keys their words
        (`jax.random.key_data`), paths strings. NaN and infinities become ``"NaN"``, ``"Infinity"``,
        ``"-Infinity"``, complex numbers ``{"re", "im"}``; what has no value, such as a float0 tangent,
        null.

    Returns
    -------
    Any
        Dicts, lists, strings, numbers, booleans and ``None``. Arrays are written in full.

    Raises
    ------
    TypeError
        If something in it, such as a function, has no form in JSON.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _not_finite(value)
        case complex():
            return {"re": plain(value.real), "im": plain(value.imag)}
        case Path():
            return str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case type():
            pass
        case _ if dataclasses.is_dataclass(value):
            public = (field.name for field in dataclasses.fields(value) if not field.name.startswith("_"))
            return {name: plain(getattr(value, name)) for name in public}
        case _ if hasattr(value, "_asdict"):
            return plain(value._asdict())
        case _ if str(getattr(value, "dtype", "")).startswith("key<"):
            import jax  # what has keys has it already

            return plain(jax.random.key_data(value))
        case _ if hasattr(value, "__array__"):
            return _array(np.asarray(value))
        case Iterable():
            return [plain(item) for item in value]
        case _:
            pass
    msg = f"JSON has no form for {value!r}, a {type(value).__name__}: give numbers, strings, arrays, and dataclasses or containers of them."
    raise TypeError(msg)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _array(value: np.ndarray) -> Any:
    if value.dtype.names is not None:
        return None
    listed = value.tolist()
    # Most arrays are ready as they are, and looking at every entry in turn takes ten times as long.
    return (
        listed if value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all()) else plain(listed)
    )
