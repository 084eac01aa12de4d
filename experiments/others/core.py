"""What a program of the ecosystem is, and numbers to feed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Built", "Program", "chosen", "normal"]

Built = tuple[Callable[..., Any], tuple[Any, ...], int]
"""A function, its arguments, and which of them is differentiated with respect to."""


@dataclass(frozen=True)
class Program:
    """A small program built on a package that someone else wrote; the package is imported when it is built.

    Attributes
    ----------
    name
        Unique; the package's own word for what it does.
    package
        The module that must be installed.
    build
        Makes the function, its arguments, and the number of the argument looked along.
    slow
        Whether its derivatives compile for long: its tests only look at its chain.
    """

    name: str
    package: str
    build: Callable[[], Built]
    slow: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def installed(self) -> bool:
        """Whether the package is there at all; one that is there and does not import is a failure, not this."""
        return find_spec(self.package) is not None


def chosen(programs: Sequence[Program], only: tuple[str, ...], quick: bool) -> tuple[list[Program], list[str]]:
    """The programs that were asked for and are installed, if quickly three of JAX's own; the packages that are not."""
    asked = [p for p in programs if not only or any(word in p.name for word in only)]
    if not asked:
        msg = f"No program's name holds {' or '.join(only)}. Known: {', '.join(p.name for p in programs)}."
        raise SystemExit(msg)
    missing = sorted({p.package for p in asked if not p.installed})
    for package in missing:
        print(f"{package} is not installed: its programs are passed over (pip install 'jaxchain[ecosystem]').")
    there = [p for p in asked if p.installed]
    return [p for p in there if p.package == "jax"][-3:] if quick else there, missing


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Normal numbers of size about one half."""
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape) / 2, jnp.float32)
