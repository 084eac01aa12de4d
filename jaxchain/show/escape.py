"""Names and texts of others, made safe for a terminal: what is not printed is shown as its escape.

A terminal obeys ESC sequences, and marks of direction turn a line around; a name that holds some would
rewrite the table that it stands in.
"""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str, *, lines: bool = False) -> str:
    r"""The same text with ``\x1b`` for ESC, ``\u202e`` for a mark of direction; line breaks too, unless ``lines``."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or (lines and character == "\n") else repr(character)[1:-1]
        for character in text
    )
