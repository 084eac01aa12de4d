"""Names and texts of others, made safe for a terminal: what is not printed is shown as its escape.

A terminal obeys ESC sequences, and marks of direction turn a line around; a name that holds some would
rewrite the table that it stands in.
"""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str, *, lines: bool = False) -> str:
    r"""The same text with ``\x1b`` for ESC, ``\u202e`` for a mark of direction.

    Line breaks, and spaces that do not break, are shown too, unless it is a text of ``lines``, which means them.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or (lines and character in "\n\xa0") else repr(character)[1:-1]
        for character in text
    )
