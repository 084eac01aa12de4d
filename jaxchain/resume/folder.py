"""A folder of checkpoints, written by Orbax: numbered arrays and a line of JSON each, whole or not at all, the last kept.

Knows nothing of training. Names of files come from numbers alone, and nothing that is read is run or unpickled: what is
in a checkpoint is arrays whose digests hold, and JSON. Builds on fingerprints.
"""

from __future__ import annotations

import gc
import json
import logging
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices

from jaxchain.checks import integer, path_to_write
from jaxchain.errors import first_line, warn
from jaxchain.program.fingerprint import digest
from jaxchain.show.escape import escaped
from jaxchain.show.table import one_line

__all__ = ["Folder", "Stored"]

PREFIX = "jaxchain"
"""What a checkpoint's name begins with, so that nobody else's folder is taken for one, and deleted as an old one."""

SYSTEM = re.compile(r"([^:\"]+?) \[os_error_code=")
"""What the operating system says, as TensorStore quotes it."""

KIND = "jaxchain training, 1"
"""What a checkpoint says it is; the number changes with the format."""


@dataclass(frozen=True)
class Stored:
    """A checkpoint that was read: what is told of it, and its arrays, on the host."""

    step: int
    told: dict[str, Any]
    arrays: list[np.ndarray[Any, Any]]


@dataclass
class Folder:
    """Checkpoints in a folder, the newest ``keep`` of them."""

    path: Path
    keep: int
    manager: Any = None

    @classmethod
    def at(cls, checkpoint_dir: Any, keep: Any) -> Folder:
        """The folder that a caller named, made where there is none.

        Raises
        ------
        ImportError
            If Orbax is not installed.
        TypeError, ValueError
            If no folder can be there, or ``keep`` is below 1.
        """
        path = path_to_write("checkpoint_dir", checkpoint_dir).absolute()
        keep = integer("keep", keep, "how many checkpoints are kept", least=1)
        _orbax()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"checkpoint_dir is a folder for checkpoints, but {escaped(str(path))} can be none: {error.strerror}. Choose another."
            raise ValueError(msg) from error
        folder = cls(path, keep)
        folder.open()
        return folder

    def open(self) -> None:
        """Begin to use the folder; what a killed or failed write left behind is deleted."""
        ocp = _orbax()
        self.manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                step_prefix=PREFIX,
                preservation_policy=ocp.checkpoint_managers.LatestN(self.keep),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,  # once a save returns, it is on the disk
                save_root_metadata=False,
                lightweight_initialize=True,  # reads names alone: a damaged checkpoint is no reason not to look at others
            ),
        )

    def close(self) -> None:
        """Use the folder no more."""
        self.manager.close()

    def place(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.path / f"{PREFIX}_{step}"

    def write(self, step: int, told: dict[str, Any], arrays: Sequence[Any]) -> str:
        """Write a checkpoint, then delete the oldest; returns why that cannot be, with nothing of it left behind."""
        _, reason = _attempted(lambda: self._write(step, told, arrays))
        if reason:
            self._swept()
        return reason

    def _write(self, step: int, told: dict[str, Any], arrays: Sequence[Any]) -> None:
        ocp = _orbax()
        head = {**told, "kind": KIND, "step": step, "arrays": [_mark(array) for array in arrays]}
        head = {**head, "digest": _of_json(head)}
        filled = {str(number): array for number, array in enumerate(arrays) if array.size}  # Orbax takes no empty ones
        items = ocp.args.Composite(arrays=ocp.args.PyTreeSave(filled), told=ocp.args.JsonSave(head))
        self.manager.save(step, args=items, force=True)

    def _swept(self) -> None:
        """Delete what a failed write left behind, which may be what fills the disk."""

        def again() -> None:
            self.close()
            self.open()

        _, reason = _attempted(again)
        if reason:
            warn(f"What a failed write left in {escaped(str(self.path))} cannot be deleted: {reason}.", RuntimeWarning)

    def newest(self) -> Stored | None:
        """The newest checkpoint that is whole; those that are not are told of and set aside."""
        for step in sorted(self.manager.all_steps(), reverse=True):
            stored, reason = _attempted(lambda step=step: self._read(step))
            if not reason:
                return stored
            self._set_aside(step, reason)
        return None

    def _read(self, step: int) -> Stored:
        ocp = _orbax()
        told = self.manager.restore(step, args=ocp.args.Composite(told=ocp.args.JsonRestore())).told
        if not isinstance(told, dict) or told.get("kind") != KIND:
            kind = told.get("kind") if isinstance(told, dict) else None
            msg = f"it says it is {kind!r}, not {KIND!r}, the format of this version"
            raise ValueError(msg)
        if told.pop("digest", None) != _of_json(told):
            msg = "what it tells of itself is not what was written"
            raise ValueError(msg)
        if told["step"] != step:
            msg = f"it is of step {told['step']}"
            raise ValueError(msg)
        marks = told.pop("arrays")
        filled = [str(number) for number, (shape, _, _) in enumerate(marks) if 0 not in shape]
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in filled}
        items = ocp.args.Composite(arrays=ocp.args.PyTreeRestore(restore_args=as_numpy))
        found = self.manager.restore(step, args=items).arrays
        arrays = [
            np.asarray(found[str(number)]) if str(number) in filled else np.zeros(shape, dtype)
            for number, (shape, dtype, _) in enumerate(marks)
        ]
        for number, (array, mark) in enumerate(zip(arrays, marks, strict=True)):
            if mark != _mark(array) and (mark[2] or mark[:2] != _mark(array)[:2]):
                msg = f"its array {number} is not the one that was written"
                raise ValueError(msg)
        return Stored(step, told, arrays)

    def _set_aside(self, step: int, reason: str) -> None:
        """Tell of a checkpoint that cannot be read, and rename it: Orbax would write none before it."""
        place = self.place(step)
        aside = place.with_name(f"damaged_{place.name}")
        warn(
            f"The checkpoint {escaped(str(place))} is damaged: {reason}. It is renamed to {aside.name}, and the one "
            "before it is used; without one, training begins anew.",
            RuntimeWarning,
        )
        for _ in _once("jaxchain sets a checkpoint aside"):
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
        self.manager.reload()


def _once(name: str) -> Iterator[None]:
    """Once in the first of several processes, between barriers: all read a folder before one changes it."""
    if jax.process_count() == 1:
        yield
        return
    sync_global_devices(f"{name}: before")
    if jax.process_index() == 0:
        yield
    sync_global_devices(f"{name}: after")


def _mark(array: Any) -> list[Any]:
    """Shape, dtype and digest; an array of which other processes hold parts has none."""
    whole = not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated
    return [list(array.shape), str(array.dtype), digest(array) if whole else ""]


def _of_json(told: dict[str, Any]) -> str:
    return digest(json.dumps(told, sort_keys=True).encode())


def _attempted(action: Callable[[], Any]) -> tuple[Any, str]:
    """What an action returns, or why it cannot be done: all that Orbax, TensorStore and JSON raise counts.

    What is raised is said once, by whoever asked: Orbax logs it as well, and TensorStore's threads that nobody waits for
    them any more.
    """
    logs, hook = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    levels = [log.level for log in logs]

    def heard(what: Any) -> None:
        if "Event loop is closed" not in str(what.exc_value):
            hook(what)

    for log in logs:
        log.setLevel(logging.CRITICAL)
    sys.unraisablehook = heard
    try:
        return action(), ""
    except Exception as error:
        reason = _reason(error)
        traceback.clear_frames(error.__traceback__)
        time.sleep(0.2)  # until the threads are done
        gc.collect()  # and what they made is gone, of which asyncio would tell later
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        sys.unraisablehook = hook
    return None, reason


def _reason(error: Exception) -> str:
    """Why, in one line: what the operating system says, where TensorStore tells that at the end of a long story."""
    told = SYSTEM.search(str(error))
    return one_line(escaped(told[1].strip()) if told else first_line(error), 160)


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        msg = "Checkpoints are written by Orbax, which is not installed: pip install jaxchain[checkpoint]."
        raise ImportError(msg) from error
    return ocp
