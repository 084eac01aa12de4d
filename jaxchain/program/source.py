"""Where an equation was written: the user's line, the library function called there, the classes around it."""

from __future__ import annotations

import itertools
import linecache
import os
import re
import site
import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxchain.program.primitives import FAMILY, ClosedJaxpr, Jaxpr, JaxprEqn, custom_rule, source_of

__all__ = ["Site", "is_foreign", "is_library"]


def _folder(path: str | Path) -> str:
    """A folder as what the paths of its files begin with: ``jax/`` is not the beginning of ``jaxopt/``."""
    return f"{Path(path)}{os.sep}"


JAX = _folder(Path(jax.__file__).parent)
HERE = _folder(Path(__file__).parents[1])
INSTALLED = tuple(
    {_folder(path) for path in (*map(sysconfig.get_path, ("purelib", "platlib", "stdlib")), *site.getsitepackages())}
)
FUNCTIONS = tuple(_folder(f"{JAX}_src{os.sep}{folder}") for folder in ("nn", "numpy", "scipy", "image", "lax"))


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
        Classes whose ``__call__`` is under way, outermost first: modules without named scopes. Where there are
        none, the function or class of an installed package that the user's own line called.
    """

    file: str = ""
    line: int = 0
    function: str = ""
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, eqn: JaxprEqn) -> Site:
        """The place where an equation was written."""
        written = eqn.source_info.traceback
        frames = [] if written is None else [f for f in written.frames if not f.file_name.startswith(HERE)]
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
        classes = tuple(f.function_name.split(".")[-2] for f in reversed(outer) if _is_module_call(f))
        return cls(own.file_name, own.line_num, called.split(".")[-1].strip("_"), classes or _package(outer, own))

    @property
    def is_users(self) -> bool:
        """Whether it is a known line of no installed package."""
        return bool(self.file) and not self.file.startswith((*INSTALLED, JAX))

    @staticmethod
    def of_error(error: BaseException) -> str:
        """The line that raised an error, as the innermost outside JAX, and the user's own where that is another."""
        outside = (JAX, HERE, _folder(Path(np.__file__).parent))
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(outside)]
        if not frames:
            return "it"
        own = next((f for f in reversed(frames) if not f.filename.startswith(INSTALLED)), frames[-1])
        places = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in (frames[-1], own))
        return f"`{frames[-1].line}` at {', called at '.join(places)}," if frames[-1].line else next(iter(places))

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}" if self.file else "unknown place"


@lru_cache(maxsize=4096)
def _is_jax(file: str) -> bool:
    return file.startswith(JAX)


def _package(outer: Sequence[Any], own: Any) -> tuple[str, ...]:
    """The function or class of an installed package that the user's own line called; wrappers tell a person nothing."""
    inside = [f.function_name.split(".") for f in reversed(outer[: outer.index(own)])]
    written = _words(own.file_name, own.line_num)
    named = [parts for parts in inside if parts[-1] in written]  # a decorator's function is not what the line says
    called = (parts[0].strip("_") for parts in named or inside)
    return tuple(itertools.islice((name for name in called if name.isidentifier() and "wrap" not in name), 1))


@lru_cache(maxsize=4096)
def _words(file: str, line: int) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", linecache.getline(file, line)))


def _is_module_call(frame: Any) -> bool:
    """A ``__call__`` method of a module: in user code, or among a framework's layers."""
    parts = frame.function_name.split(".")
    installed = frame.file_name.startswith(INSTALLED)
    return len(parts) > 1 and parts[-1] == "__call__" and (not installed or "/nn/" in frame.file_name)


def is_foreign(eqn: JaxprEqn) -> bool:
    """Whether an equation is differentiated by a rule that is not JAX's own: a user's or another package's."""
    rule = custom_rule(eqn)
    if rule is None:
        return eqn.primitive.name not in FAMILY
    return rule.body is None or not is_library(rule.body)


def is_library(jaxpr: Jaxpr | ClosedJaxpr) -> bool:
    """Whether a jaxpr was traced from a function of JAX itself, such as ``jax.nn.log_softmax``.

    It says whose words the function is told in, and nothing of its derivative: a user may have given it a rule of
    their own.
    """
    return f" at {JAX}" in source_of(jaxpr)
