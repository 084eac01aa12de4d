"""Where an equation was written: the user's line, the library function called there, the classes around it."""

from __future__ import annotations

import site
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax

__all__ = ["Site", "is_library"]

JAX = str(Path(jax.__file__).parent)
HERE = str(Path(__file__).parents[1])
INSTALLED = tuple(
    {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        sysconfig.get_path("stdlib"),
        *site.getsitepackages(),
    }
)
FUNCTIONS = tuple(f"{JAX}/_src/{folder}" for folder in ("nn/", "numpy/", "scipy/", "image/", "lax/"))


@dataclass(frozen=True)
class Site:
    """One place in the source.

    Attributes
    ----------
    file, line
        The user's own line: the innermost frame in a file that is no installed package; the
        innermost outside JAX where there is none. Empty and 0 where the equation has no traceback.
    function
        The library function that the user called there, such as ``gelu``; empty if none is known.
    classes
        Classes whose ``__call__`` is under way, outermost first: modules without named scopes.
    """

    file: str = ""
    line: int = 0
    function: str = ""
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, eqn: Any) -> Site:
        """The place where an equation was written."""
        traceback = eqn.source_info.traceback
        frames = [] if traceback is None else [f for f in traceback.frames if not f.file_name.startswith(HERE)]
        inner = [f for f in frames if _is_jax(f.file_name)]
        outer = [f for f in frames if not _is_jax(f.file_name)]
        if not outer:
            return cls()
        own = next((f for f in outer if not f.file_name.startswith(INSTALLED)), outer[0])
        called = next(
            (
                f.function_name
                for f in reversed(inner)
                if f.file_name.startswith(FUNCTIONS) and "<" not in f.function_name
            ),
            "",
        )
        classes = [f.function_name.split(".")[-2] for f in reversed(outer) if _is_module_call(f)]
        return cls(own.file_name, own.line_num, called.split(".")[-1].strip("_"), tuple(classes))

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}" if self.file else "unknown place"


@cache
def _is_jax(file: str) -> bool:
    return file.startswith(JAX)


def _is_module_call(frame: Any) -> bool:
    """A ``__call__`` method of a module: in user code, or among a framework's layers."""
    parts = frame.function_name.split(".")
    installed = frame.file_name.startswith(INSTALLED)
    return len(parts) > 1 and parts[-1] == "__call__" and (not installed or "/nn/" in frame.file_name)


def is_library(jaxpr: Any) -> bool:
    """Whether a jaxpr was traced from a function of JAX itself, such as ``jax.nn.log_softmax``."""
    info = getattr(getattr(jaxpr, "jaxpr", jaxpr), "debug_info", None)
    return f" at {JAX}" in str(getattr(info, "func_src_info", ""))
