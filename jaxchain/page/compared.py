"""What the comparison's page says: numbers, pictures and sentences, as one tree that JSON can hold.

The page's script reads this tree and nothing else, as that of the report; its tables are there without a script.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.page.beside import Pair, PairRow, Side, SideBySide, labelled
from jaxchain.page.content import CELLS, facts
from jaxchain.page.contrast import finding
from jaxchain.page.picture import picture
from jaxchain.show.extremes import Floats
from jaxchain.show.plain import plain

__all__ = ["page"]

QUANTITIES = {
    "state": "State",
    "cotangent": "Cotangent",
    "tangent": "Tangent",
    "jacobian": "Jacobian of the stage",
    "difference": "Difference of the Jacobians, %",
    "gradient": "Gradient of the parameters",
}
"""What is drawn over the stages, and under which title."""

LEAST, MOST = 8, 256
"""Cells along a picture's side, however many or few stages there are."""


def page(
    found: SideBySide, sides: tuple[Side, Side], pairs: list[Pair], whole: Pair | None, title: str, directions: str
) -> dict[str, Any]:
    """Everything on the page: of each row its numbers and three pictures, J_a, J_b and J_b − J_a."""
    side = int(min(max(math.sqrt(CELLS / (3 * (len(pairs) + 1))), LEAST), MOST))
    rows = [
        {**_row(row, found.names), **_stage(sides, pair), "pictures": _pictures(pair, side)}
        for row, pair in zip(found.rows[1:], pairs, strict=True)
    ]
    entire = None
    if found.whole is not None and whole is not None:
        states = sides[0].surveyed.states
        about = {"words": ["", ""], "why": ["", ""], "complex": [_complex(states[0]), _complex(states[-1])]}
        entire = {**_row(found.whole, found.names), **about, "pictures": _pictures(whole, MOST)}
    return plain(
        {
            "title": title,
            "names": found.names,
            "headline": found.headline,
            "sentences": found.sentences,
            "facts": [{"name": s.name, "facts": facts(s.chain, s.args, s.surveyed)} for s in sides],
            "notes": [f"{s.name}: {note}" for s in sides for note in s.surveyed.notes],
            "directions": directions,
            "quantities": [
                {"key": key, "title": words, "finding": finding(found.rows, key, found.names)}
                for key, words in QUANTITIES.items()
            ],
            "rows": [{**_row(found.rows[0], found.names), "pictures": None}, *rows],
            "whole": entire,
        }
    )


def _row(row: PairRow, names: tuple[str, str]) -> dict[str, Any]:
    return {"name": labelled(row, names), "a": row.a, "b": row.b, "difference": row.difference}


def _stage(sides: tuple[Side, Side], pair: Pair) -> dict[str, Any]:
    """What each side's Jacobian is in words, or why there is none; and whether its columns and rows are complex."""
    places = list(zip(sides, (pair.i, pair.j), strict=True))
    links = [None if k is None else s.surveyed.links[k] for s, k in places]
    states = next(s.surveyed.states[k : k + 2] for s, k in places if k is not None)
    return {
        "words": ["" if link is None or link.structure is None else str(link.structure) for link in links],
        "why": ["There is no such stage here." if link is None else link.refusal for link in links],
        "complex": [_complex(state) for state in states],
    }


def _complex(state: Any) -> bool:
    return any(map(jnp.iscomplexobj, jax.tree.leaves(state)))


def _pictures(pair: Pair, side: int) -> list[dict[str, Any] | None]:
    def drawn(matrix: Floats | None) -> dict[str, Any] | None:
        return None if matrix is None else picture(matrix, side, columns=pair.columns, width=pair.width)

    return [drawn(pair.first), drawn(pair.second), drawn(pair.difference)]
