"""A long chain folded into groups that a person can take in: by module first, then by tens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["fold"]

MOST, FEW = 60, 24
"""As many neighbours are shown side by side; more are folded, to so few."""


def fold(names: Sequence[str]) -> list[dict[str, Any]]:
    """Groups of neighbouring stages: ``{"name", "first", "last", "groups"}``, a leaf having no groups.

    A name's parts between slashes are modules, outermost first.
    """
    leaves = [_group(name, k, k) for k, name in enumerate(names)]
    return leaves if len(leaves) <= MOST else _few(_by_module(leaves, 0))


def _group(name: str, first: int, last: int, groups: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"name": name, "first": first, "last": last, "groups": list(groups)}


def _by_module(leaves: list[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
    """Join neighbours whose names share their first ``depth + 1`` modules."""
    groups: list[dict[str, Any]] = []
    for module, run in itertools.groupby(leaves, key=lambda leaf: leaf["name"].split("/")[: depth + 1]):
        members = list(run)
        if len(members) == 1:
            groups += members
            continue
        inner = _by_module(members, depth + 1) if len({leaf["name"] for leaf in members}) > 1 else members
        groups.append(_group("/".join(module), members[0]["first"], members[-1]["last"], _few(inner)))
    while len(groups) == 1 and groups[0]["groups"]:  # what holds everything folds nothing
        groups = groups[0]["groups"]
    return groups


def _few(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, with runs of equal length joined until there are few enough."""
    while len(groups) > MOST:
        period = _period([group["name"] for group in groups])
        size = min(-(-len(groups) // (FEW * period)) * period, MOST // period * period)
        runs = [groups[k : k + size] for k in range(0, len(groups), size)]
        groups = [run[0] if len(run) == 1 else _run(run) for run in runs]
    return groups


def _run(run: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, last = run[0]["first"], run[-1]["last"]
    modules = all(group["groups"] for group in run)
    name = f"{run[0]['name']} … {run[-1]['name']}" if modules else f"{first + 1}–{last + 1}"
    return _group(name, first, last, run)


def _period(names: Sequence[str]) -> int:
    """After how many neighbours the names repeat, numbers aside, so that runs begin alike; 1 where they do not."""
    kinds = [re.sub(r"\d+", "", name) for name in names]
    return next((p for p in range(1, 13) if kinds[p:] == kinds[:-p]), 1)
