"""What the page shows inside a stage: the heads of its attention, and the terms of its sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates, is_inexact
from jaxchain.diagnosis.heads import Mixing, Shares, mixings
from jaxchain.diagnosis.survey import Link, Survey
from jaxchain.diagnosis.terms import Term, terms
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.discovery.whole import as_discovered
from jaxchain.page.picture import picture
from jaxchain.program.interpret import numbers_of
from jaxchain.show.extremes import Floats
from jaxchain.show.values import count, norm
from jaxchain.stage import Side, Stage, State
from jaxchain.structure import Structure

__all__ = ["insides"]

WORK = 1e10
"""Floating-point operations that the shares of all heads may take together: a second or two on a small machine."""

CELLS = 1e5
"""Cells that the pictures of all heads share; those of all terms share as many."""

HEADS = 16
"""The most heads of one product that are pictured."""

TERMS = 8
"""The most terms of one sum that are pictured."""

WORDS = 1 << 16
"""The most entries of a term's Jacobian whose structure is put into words."""


def insides(chain: Chain, args: tuple[Any, ...], surveyed: Survey) -> list[dict[str, Any]]:
    """Of each stage its ``attention``, one entry a product that mixes positions, and its ``sum``, if it is one."""
    _, sides = numbers_of(chain.split, *args)
    before = surveyed.states[:-1]
    opened = list(map(_opened, chain, sides, before))
    found = [mixings(*stage, state) if stage else [] for stage, state in zip(opened, before, strict=True)]
    share = 1 / max(sum(map(len, found)), 1)
    sums = [
        _sum(terms(*stage, state, link), link, (state, after), CELLS / len(chain)) if stage else None
        for stage, link, state, after in zip(opened, surveyed.links, before, surveyed.states[1:], strict=True)
    ]
    return [
        {"attention": [_attention(mixing, k, len(own), share) for k, mixing in enumerate(own)], "sum": total}
        for own, total in zip(found, sums, strict=True)
    ]


def _opened(stage: Stage, side: Side, state: State) -> tuple[DiscoveredStage, Side] | None:
    """A stage with its program in sight; ``None`` where some of its state has no derivative."""
    return as_discovered(stage, side, state) if all(map(is_inexact, jax.tree.leaves(state))) else None


def _attention(mixing: Mixing, number: int, products: int, share: float) -> dict[str, Any]:
    """The heads of one of a stage's products: each one's share of J, and the weights of those that carry most.

    ``share`` is that of this product in all that the page may spend.
    """
    shares, weights = mixing.shares(WORK * share), mixing.weights
    sizes = [0.0] * len(weights) if shares is None else shares.heads
    shown = sorted(range(len(weights)), key=lambda k: -sizes[k])[:HEADS]
    side = _side(CELLS * share, len(shown))
    which = f"product {number}, " if products > 1 else ""
    heads = [
        {
            "name": f"{which}head {k}",
            "share": None if shares is None else shares.heads[k],
            "keys": _keys(own),
            "picture": {**picture(own, side), "weights": True} if k in shown else None,
        }
        for k, own in enumerate(row.astype(np.float64) for row in weights)
    ]
    told = [_carries(which, shares), *_remarks(mixing, shares, len(shown))]
    return {"heads": heads, "rest": None if shares is None else shares.rest, "says": " ".join(told)}


def _side(most: float, pictures: int) -> int:
    """The most cells along one side of each of some pictures that share so many cells."""
    return int(min(max(math.sqrt(most / pictures), 12), 64))


def _keys(weights: Floats) -> float:
    """How many keys a query looks at: e to the mean entropy of its weights."""
    logs = np.log(np.where(weights > 0, weights, 1.0))
    return float(np.exp(-(weights * logs).sum(axis=-1).mean()))


def _carries(which: str, shares: Shares | None) -> str:
    """How much of J passes which head, in a sentence or two."""
    if shares is None:
        return "There is no forward mode here, so how much of J passes each head is not known."
    most = int(np.argmax(shares.heads))
    head = f"{which}head {most}".capitalize()
    if len(shares.heads) == 1:
        first = f"{head}, the only one, carries {shares.heads[most]:.2g} of J’s norm."
    else:
        first = f"{head} carries most of J: {shares.heads[most]:.2g} of its norm."
    return f"{first} What passes no head is {shares.rest:.2g} of it." if shares.rest else first


def _remarks(mixing: Mixing, shares: Shares | None, shown: int) -> Iterator[str]:
    """What else a reader should know of the numbers."""
    heads = len(mixing.weights)
    if shares is not None and (heads > 1 or shares.rest):
        yield "Shares do not add up to one: the parts of J are not orthogonal."
    if shares is not None and shares.tangents is not None:
        yield f"They are estimated from {count(shares.tangents, 'random tangent')}."
    if mixing.samples > 1:
        yield f"The weights are those of the first of {mixing.samples:,} samples; the shares are of all."
    if shown < heads:
        yield f"{shown} of {heads:,} heads are pictured, those that carry most."


def _sum(found: Sequence[Term], link: Link, states: Sequence[State], most: float) -> dict[str, Any] | None:
    """The terms of a sum, each with its norm, a picture and the stages of its own chain."""
    if not found:
        return None
    side = _side(most, min(len(found), TERMS))
    told = [
        {
            "name": term.name,
            "identity": term.is_identity,
            "norm": _norm(term.matrix, link),
            "words": _words(term, link, states),
            "picture": None
            if term.matrix is None
            else picture(term.matrix, side, columns=link.columns, width=link.shape[1]),
            "parts": [
                {"name": part.name, "m": part.shape[0], "n": part.shape[1], "norm": _norm(part.matrix)}
                for part in term.parts
            ],
        }
        for term in found[:TERMS]
    ]
    more = f"{len(found) - TERMS} more terms are not shown." if len(found) > TERMS else ""
    estimated = "" if link.columns is None else "Norms are estimated from the columns that were computed."
    return {"terms": told, "norm": _norm(link.matrix, link), "note": " ".join(filter(None, (more, estimated)))}


def _norm(matrix: Floats | None, link: Link | None = None) -> float | None:
    """The Frobenius norm; of some columns, evenly spread, that of all if the others are like them."""
    if matrix is None:
        return None
    times = 1.0 if link is None or link.columns is None else math.sqrt(link.shape[1] / len(link.columns))
    return norm(matrix) * times


def _words(term: Term, link: Link, states: Sequence[State]) -> str:
    """What a term's Jacobian is, between these states."""
    if term.is_identity:
        return "identity"
    if link.columns is not None or term.matrix is None or term.matrix.size > WORDS:
        return ""
    return str(Structure.of(term.matrix, *(Coordinates.of(state).shape for state in states)))
