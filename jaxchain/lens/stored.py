"""A lens in a file: NumPy's own format, arrays and a line of JSON, written whole or not at all, and nothing unpickled."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxchain.errors import first_line
from jaxchain.files import sync
from jaxchain.meshes import on_host
from jaxchain.show.escape import escaped

__all__ = ["read", "write"]

KIND = "jaxchain lens, 1"
"""What a file says it is; the number changes with the format."""


def write(path: Path, arrays: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Write a lens beside its place, and put it there once all of it is on the disk; of several processes the first."""
    arrays = {f"array {name}": on_host(array) for name, array in arrays.items()}
    if jax.process_index():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    head = np.frombuffer(json.dumps({**told, "kind": KIND}).encode(), np.uint8)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, told=head, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def read(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """The arrays of a lens, and what is told of it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, cut short, or no lens.
    """
    place = escaped(str(path))
    if not path.is_file():
        msg = f"There is no lens at {place}. Lens.save writes one."
        raise FileNotFoundError(msg)
    begins = b""
    try:
        with open(path, "rb") as file:
            begins = file.read(2)
            file.seek(0)
            arrays = _arrays(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        what = "is damaged or cut short" if begins in (b"PK", b"") else "is no lens"
        msg = f"{place} {what} ({first_line(error)}). Delete it to begin again, or choose another path."
        raise ValueError(msg) from error
    except ValueError as error:  # of NumPy: no arrays, or such as would have to be unpickled, which it advises
        msg = f"{place} is no lens: it holds no arrays, or such as nobody should load. Choose another path."
        raise ValueError(msg) from error
    if "told" not in arrays or arrays["told"].dtype != np.uint8:
        msg = f"{place} is no lens: another program wrote it. Choose another path."
        raise ValueError(msg)
    try:
        told = json.loads(arrays.pop("told").tobytes())
    except ValueError:
        told = None
    arrays = {name.removeprefix("array "): array for name, array in arrays.items()}
    if not isinstance(told, dict) or _kind(told) != KIND:
        msg = f"{place} is no lens that this version reads: it says it is {_kind(told)!r}, not {KIND!r}. Choose another path."
        raise ValueError(msg)
    return arrays, told


def _arrays(file: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Every array of a file, each once its checksum holds."""
    with np.load(file, allow_pickle=False) as found:
        if not isinstance(found, np.lib.npyio.NpzFile):
            msg = "it holds a single array"
            raise ValueError(msg)
        return {name: found[name] for name in found.files}


def _kind(told: Any) -> str:
    return escaped(str(told.get("kind"))) if isinstance(told, dict) else "nothing"
