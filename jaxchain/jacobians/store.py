"""`jacobian_to_zarr`: blocks of a Jacobian to a Zarr array on disk, that can be killed at any time and goes on.

A block counts once it reads back as it was written; its chunks carry a checksum. Builds on `streamed`.
"""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxchain.arguments import check_args, check_numbers
from jaxchain.checks import flag, path_to_write
from jaxchain.files import sync
from jaxchain.jacobians.marks import Marks
from jaxchain.jacobians.rowwise import RowMode
from jaxchain.jacobians.streamed import JacobianBlocks, jacobian_blocks
from jaxchain.show.escape import escaped
from jaxchain.show.progress import counting, telling
from jaxchain.show.values import count

__all__ = ["jacobian_to_zarr"]

LARGEST = 2**29
"""Bytes of a chunk: what compresses it takes fewer than 2 GiB."""

NUMPYS = ("float16", "float32", "float64")
"""Dtypes that Zarr has a name for; what is coarser than float16 is stored as float32, which holds it exactly."""

ANOTHER = "Choose another path"

DAMAGED = (ValueError, RuntimeError, EOFError, OSError)
"""What Zarr and its codecs raise where a chunk is cut short, changed or cannot be read."""


def jacobian_to_zarr(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    path: str | Path,
    *,
    argnum: int | None = None,
    block: int | None = None,
    memory_limit: int | None = None,
    mode: RowMode = "auto",
    progress: bool = True,
) -> Any:
    """The Jacobian of ``fun`` at ``args`` as a Zarr array on disk, for one that is larger than memory.

    Made in blocks of rows, as `jaxchain.jacobian_blocks` has them. Killed at any time, or stopped by a full disk, the same
    call goes on where it was: blocks that are whole on the disk are kept, and the numbers are to the bit those of a
    call that was never interrupted, on the same machine with the same versions (on a GPU, where XLA chooses among
    algorithms by the clock, up to rounding).

    Parameters
    ----------
    fun, args, argnum, block, memory_limit, mode
        As for `jaxchain.jacobian_blocks`; arrays, not under ``jit``.
    path
        Of the array, a folder; made if there is none. One call writes it at a time.
    progress
        Show a bar of blocks on standard error.

    Returns
    -------
    zarr.Array
        (m, n), read-only: rows of the flattened output, columns of the flattened argument. Its attribute ``jaxchain``
        tells which rows and columns belong to which leaf, and its shape. Of bfloat16 it holds float32. While
        it is being made, rows that are not there read as NaN.

    Raises
    ------
    ImportError
        If the extra ``store`` is not installed.
    FileExistsError
        If there is something else at ``path``.
    ValueError
        If there is a Jacobian of another call (another function, arguments, blocks, versions: says which); as
        `jaxchain.jacobian_blocks`.
    OSError
        If a block cannot be written, or does not read back as it was; those before it are kept.
    TypeError, ModeError
        As `jaxchain.jacobian_blocks`.

    References
    ----------
    Zarr core specification, version 3, zarr-specs.readthedocs.io.

    Examples
    --------
    >>> stored = jc.jacobian_to_zarr(jnp.sin, (jnp.zeros(3),), "jacobian.zarr", block=2, progress=False)
    >>> stored.shape, stored.chunks, stored[:].tolist()
    ((3, 3), (2, 3), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    if importlib.util.find_spec("zarr") is None:
        msg = 'jacobian_to_zarr writes with zarr, but zarr is not installed: pip install --upgrade "jaxchain[store]".'
        raise ImportError(msg)
    flag("progress", progress)
    place = path_to_write("path", path)
    check_args(args)
    check_numbers(args, "jacobian_to_zarr", "writes")
    blocks = jacobian_blocks(fun, args, argnum=argnum, block=block, memory_limit=memory_limit, mode=mode)
    if 0 in blocks.shape:
        msg = f"The Jacobian has {blocks.shape[0]:,} rows and {blocks.shape[1]:,} columns: there is no number to write."
        raise ValueError(msg)
    if any(isinstance(value, Tracer) for value in blocks.plan.found.closed.consts):
        msg = "jacobian_to_zarr writes numbers, but the function closes over traced ones. Call it outside jit, vmap and grad."
        raise TypeError(msg)
    store = _Store(place, blocks, Marks.of(blocks))
    with telling(progress, f"looking for blocks in {escaped(str(place))}"):
        array = store.opened()
        missing = [number for number in range(len(blocks)) if not store.whole(array, number)]
    done = len(blocks) - len(missing)
    with counting("Jacobian", len(blocks), done=done, shown=progress) as advance:
        for already, number in enumerate(missing, start=done):
            store.write(array, number, already)
            advance()
    return store.finished()


@dataclass(frozen=True, eq=False)
class _Store:
    """A folder that holds, or will hold, the blocks."""

    place: Path
    blocks: JacobianBlocks
    marks: Marks

    def opened(self) -> Any:
        """The array to write to: the one that is there, if it is of this call, or a new one."""
        import zarr

        head = self.place / "zarr.json"
        if not head.is_file():
            return self._created()
        try:
            array = zarr.open_array(self.place, mode="r+", config={"write_empty_chunks": True})
        except OSError as error:
            raise self._refused(error, "the array cannot be opened") from error
        except (ValueError, TypeError, KeyError) as error:
            raise self._others() from error
        told: Any = array.attrs.get("jaxchain")
        if (reason := self.marks.unlike(told)) is not None:
            msg = f"The array at {escaped(str(self.place))} is not of this call: {reason}. {ANOTHER}, or delete it to begin again."
            raise ValueError(msg)
        self._clear()
        return array

    def _created(self) -> Any:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        if self.place.exists() and not (self.place.is_dir() and all(map(_is_left, self.place.iterdir()))):
            raise self._others()
        (m, n), dtype = self.blocks.shape, self._dtype
        columns = max(min(n, LARGEST // (self.blocks.block * dtype.itemsize)), 1)
        self._clear()
        try:
            array = zarr.create_array(
                self.place,
                shape=(m, n),
                chunks=(self.blocks.block, columns),
                dtype=dtype,
                fill_value=float("nan"),
                compressors=(ZstdCodec(level=0), Crc32cCodec()),
                chunk_key_encoding={"name": "default", "separator": "/"},
                dimension_names=("output", "input"),
                attributes={"jaxchain": self.marks.plain()},
                config={"write_empty_chunks": True},  # a block of NaN is there, too
            )
            sync(self.place / "zarr.json")
            sync(self.place)
        except OSError as error:
            raise self._refused(error, "the array was not begun") from error
        return array

    def _clear(self) -> None:
        """Remove what a call that was killed had half written."""
        for part in self.place.rglob("*.partial"):
            part.unlink(missing_ok=True)

    @property
    def _dtype(self) -> np.dtype[Any]:
        dtype = np.dtype(self.blocks.plan.units[0].here.dtype)
        return dtype if dtype.name in NUMPYS else np.dtype(np.float32)

    def _chunks(self, array: Any, number: int) -> list[Path]:
        """The files that hold a block."""
        across = range(-(-array.shape[1] // array.chunks[1]))
        return [self.place / "c" / str(number) / str(column) for column in across]

    def whole(self, array: Any, number: int) -> bool:
        """Whether a block is on the disk, its checksum with it."""
        if not all(map(Path.is_file, self._chunks(array, number))):
            return False
        try:
            array[self.blocks.rows(number)]
        except DAMAGED:
            return False
        return True

    def write(self, array: Any, number: int, already: int) -> None:
        """Compute a block, and write it to the disk."""
        rows, part = self.blocks[number]
        block = self._matrix(part)
        try:
            array[rows] = block
            for chunk in self._chunks(array, number):
                sync(chunk)
            sync(self.place / "c" / str(number))
            read = self._read(array, rows)
            if read is None or not np.array_equal(read.view(np.uint8), block.view(np.uint8)):
                raise OSError(errno.EIO, "It does not read back as it was written")
        except OSError as error:
            kept = f", and the {count(already, 'block')} there are kept" if already else ""
            what = f"rows {rows.start:,} to {rows.stop:,} of the Jacobian were not written{kept}"
            raise self._refused(error, what) from error

    def _matrix(self, part: Any) -> np.ndarray[Any, Any]:
        """A block as it is stored, row by row."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(part)]
        return np.ascontiguousarray(
            np.concatenate([leaf.reshape(len(leaf), -1).astype(self._dtype) for leaf in leaves], axis=1)
        )

    def _read(self, array: Any, rows: slice) -> np.ndarray[Any, Any] | None:
        try:
            return np.ascontiguousarray(array[rows])
        except (ValueError, RuntimeError, EOFError):
            return None

    def _refused(self, error: OSError, what: str) -> OSError:
        reason = error.strerror or str(error)
        words = (
            f"{reason}: {what}. Make room, or see what is wrong with the disk; the same call then goes on where it was"
        )
        return OSError(error.errno or errno.EIO, words, str(self.place))

    def _others(self) -> OSError:
        return FileExistsError(
            errno.EEXIST, f"There is something here that is no Jacobian of jaxchain's. {ANOTHER}", str(self.place)
        )

    def finished(self) -> Any:
        """The array, to be read."""
        import zarr

        return zarr.open_array(self.place, mode="r")


def _is_left(path: Path) -> bool:
    """Whether a file is what a call that was killed left before the array was there."""
    return path.name.endswith(".partial")
