"""What a chapter of the lesson is: numbers as plain data, the cells that made them, and one question.

Its prose is a template of the same name; its pictures are drawn by a script of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxchain.lesson.cell import Cell

__all__ = ["Amount", "Chapter", "Choice", "Option"]


@dataclass(frozen=True)
class Option:
    """One answer to choose, and why it is right or wrong."""

    text: str
    because: str
    right: bool = False


@dataclass(frozen=True)
class Choice:
    """A question with answers to choose from."""

    ask: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Amount:
    """A question whose answer is a number: why it is right, what known mistakes come to, a hint for all others."""

    ask: str
    answer: float
    right: str
    hint: str
    mistakes: tuple[tuple[float, str], ...] = ()
    within: float = 0.01
    """How far off, as a share of the answer, still counts as right."""


@dataclass(frozen=True)
class Chapter:
    """One chapter, ready to be written: ``values`` go to the template and, as JSON, to the script."""

    name: str
    title: str
    asks: str
    check: Choice | Amount | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cells: Mapping[str, Cell] = field(default_factory=dict[str, Cell])
    missing: str = ""
    """Why the chapter could not be made, and what to install; empty where it was."""
