"""What the page shows inside a stage: the heads of its attention, and the terms of its sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates, is_inexact
from jaxchain.diagnose.heads import Mixing, Shares, mixings
from jaxchain.diagnose.survey import Link, Survey
from jaxchain.diagnose.terms import Term, terms
from jaxchain.discovery.whole import as_discovered
from jaxchain.page.picture import picture
from jaxchain.program.interpret import numbers_of
from jaxchain.show.extremes import Floats
from jaxchain.show.values import count, norm
from jaxchain.structure import Structure

__all__ = ["insides"]

WORK = 2e10
"""Floating-point operations that the shares of all heads may take together: some seconds on a small machine."""

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
    told: list[dict[str, Any]] = []
    shapes = [Coordinates.of(state).shape for state in surveyed.states]
    for k, (link, side, state) in enumerate(zip(surveyed.links, sides, surveyed.states, strict=False)):
        if not all(map(is_inexact, jax.tree.leaves(state))):
            told.append({"attention": [], "sum": None})
            continue
        stage, own = as_discovered(link.stage, side, state)
        share = 1 / len(surveyed.links)
        found = mixings(stage, own, state)
        told.append(
            {
                "attention": [_attention(mixing, WORK * share, CELLS * share / len(found)) for mixing in found],
                "sum": _sum(terms(stage, own, state, link), link, shapes[k : k + 2], CELLS * share),
            }
        )
    return told


def _attention(mixing: Mixing, work: float, most: float) -> dict[str, Any]:
    """The heads of one product: each one's share of J, and a picture of the weights of those that matter most."""
    shares, weights = mixing.shares(work), mixing.weights
    sizes = [0.0] * len(weights) if shares is None else shares.heads
    shown = sorted(range(len(weights)), key=lambda k: -sizes[k])[:HEADS]
    side = _side(most, len(shown))
    heads = [
        {
            "name": f"head {k}",
            "share": None if shares is None else shares.heads[k],
            "keys": _keys(own),
            "picture": {**picture(own, side), "weights": True} if k in shown else None,
        }
        for k, own in enumerate(weights)
    ]
    return {"heads": heads, "rest": None if shares is None else shares.rest, "says": _says(mixing, shares, len(shown))}


def _side(most: float, pictures: int) -> int:
    """The most cells along one side of each of some pictures that share so many cells."""
    return int(min(max(math.sqrt(most / pictures), 12), 64))


def _keys(weights: Floats) -> float:
    """How many keys a query looks at: e to the mean entropy of its weights."""
    logs = np.log(np.where(weights > 0, weights, 1.0))
    return float(np.exp(-(weights * logs).sum(axis=-1).mean()))


def _says(mixing: Mixing, shares: Shares | None, shown: int) -> str:
    """Which head carries most, and what the numbers are."""
    heads = len(mixing.weights)
    told = []
    if shares is None:
        told.append("There is no forward mode here, so how much of J passes each head is not known.")
    elif heads > 1:
        most = int(np.argmax(shares.heads))
        told.append(f"Head {most} carries most of J: {shares.heads[most]:.2g} of its norm.")
    if shares is not None:
        alone = "One head carries" if heads == 1 else "What passes no head is"
        told.append(f"{alone} {(shares.heads[0] if heads == 1 else shares.rest):.2g} of it.")
        told.append("These do not add up to one: the parts of J are not orthogonal.")
    if shares is not None and shares.tangents is not None:
        told.append(f"Estimated from {count(shares.tangents, 'random tangent')}.")
    if mixing.samples > 1:
        told.append(f"The weights are those of the first of {mixing.samples:,} samples; the shares are of all.")
    if shown < heads:
        told.append(f"{shown} of {heads:,} heads are pictured, those that carry most.")
    return " ".join(told)


def _sum(found: Sequence[Term], link: Link, shapes: Sequence[tuple[Any, ...]], most: float) -> dict[str, Any] | None:
    """The terms of a sum, each with its norm, a picture and the stages of its own chain."""
    if not found:
        return None
    side = _side(most, min(len(found), TERMS))
    told = [
        {
            "name": term.name,
            "identity": term.is_identity,
            "norm": _norm(term.matrix, link),
            "words": _words(term, link, shapes),
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


def _words(term: Term, link: Link, shapes: Sequence[tuple[Any, ...]]) -> str:
    """What a term's Jacobian is, between states of these shapes."""
    small = link.columns is None and term.matrix is not None and term.matrix.size <= WORDS
    return "identity" if term.is_identity else str(Structure.of(term.matrix, *shapes)) if small else ""
