"""A structure as a row of small drawings that the page holds once each: what a matrix looks like, at a glance."""

from __future__ import annotations

from jaxchain.structure import Structure

__all__ = ["ruled", "signs"]


def signs(structure: Structure | None) -> list[str]:
    """Names of drawings of ``report/signs.html``, and the operators between them.

    >>> signs(Structure.of([[1.0, 0.0], [2.0, 3.0]]))
    ['lower-triangular']
    """
    if structure is None:
        return []
    kind = structure.kind
    if structure.factors is not None:
        # They are the whole's, whatever it stands on; between its blocks the whole looks as A does.
        between = kind.removeprefix("block").lstrip(" -") if kind.startswith("block") else "dense"
        drawn = {"A": between, "B": "dense"} | dict.fromkeys(structure.identity_factor, "identity")
        return [drawn["A"], "⊗", drawn["B"]]
    own = "Toeplitz" if structure.shifts and kind == "dense" else kind.replace(" ", "-")
    return ["identity", "+", own] if structure.identity_plus else [own]


def ruled(structure: Structure | None) -> tuple[int, int] | None:
    """How many rows and columns of blocks there are, where the structure is one of blocks."""
    if structure is None or not (structure.kind.startswith("block") or structure.factors):
        return None
    return structure.blocks
