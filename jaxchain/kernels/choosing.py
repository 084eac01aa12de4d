"""Which way each leaf's part of a kernel is computed: the cheapest by `pricing`.

References: Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxchain.kernels.pairing import Order
from jaxchain.kernels.pricing import Prices, Term

__all__ = ["Choice", "Group", "Mode", "Way", "choose", "groups_of"]

Way = Literal["contraction", "products", "vectors"]
"""Derivatives multiplied out, then contracted; products of their factors; rows pushed forward."""

Mode = Literal["auto", "contraction", "products", "vectors"]


@dataclass(frozen=True)
class Group:
    """Terms that share their δ and δ′, so that their inner products of x are added up first."""

    terms: tuple[Term, ...]
    order: Order


@dataclass(frozen=True)
class Choice:
    """The way of every leaf, and the operations of all together, evaluation and backward passes aside."""

    ways: Mapping[int, Way]
    cost: float

    def of(self, way: Way) -> tuple[int, ...]:
        """The leaves that go this way."""
        return tuple(leaf for leaf, taken in self.ways.items() if taken == way)


def choose(prices: Prices, mode: Mode) -> Choice:
    """The cheapest way of every leaf, or the one that was asked for wherever there is it."""
    chosen = _chosen(prices, mode)
    return Choice({leaf: chosen.ways[leaf] for leaf in prices.used}, chosen.cost)


def _chosen(prices: Prices, mode: Mode) -> Choice:
    used = prices.used
    if mode == "vectors":
        every: dict[int, Way] = dict.fromkeys(used, "vectors")
        return Choice(every, prices.vectors(used))
    if mode != "auto":
        return _together([_as_asked(prices, leaves, mode) for leaves in prices.sharing(used)])
    best = _of_two(prices, used)
    order = sorted(used, key=lambda leaf: prices.basis.function.leaves[leaf].sites)
    for start in range(len(order)):  # one tangent serves all leaves from some place on to the program's end
        rest, leaves = _of_two(prices, order[:start]), order[start:]
        least = prices.tangents * sum(map(prices.site_tangent, leaves)) - prices.saved(leaves)
        if rest.cost + least < best.cost and (cost := rest.cost + prices.vectors(leaves)) < best.cost:
            pushed: dict[int, Way] = dict.fromkeys(leaves, "vectors")
            best = Choice({**rest.ways, **pushed}, cost)
    return best


def _of_two(prices: Prices, leaves: Sequence[int]) -> Choice:
    """The best of contraction and products."""
    return _together([_shared(prices, sharing) for sharing in prices.sharing(leaves)])


def _together(choices: Sequence[Choice]) -> Choice:
    ways: dict[int, Way] = {leaf: way for choice in choices for leaf, way in choice.ways.items()}
    return Choice(ways, sum(choice.cost for choice in choices))


def _shared(prices: Prices, leaves: Sequence[int]) -> Choice:
    """The best of leaves that share their δ · δ′: all that gain from it, if together they gain more than it takes."""
    gains = [leaf for leaf in leaves if leaf in prices.overlaps and prices.overlaps[leaf] < prices.contractions[leaf]]
    some, none = (_mixed(prices, leaves, chosen) for chosen in (gains, ()))
    return some if some.cost < none.cost else none


def _as_asked(prices: Prices, leaves: Sequence[int], mode: Mode) -> Choice:
    return _mixed(prices, leaves, [leaf for leaf in leaves if leaf in prices.overlaps] if mode == "products" else ())


def _mixed(prices: Prices, leaves: Sequence[int], products: Sequence[int]) -> Choice:
    """Leaves that share their δ · δ′, some of them by products, the others multiplied out."""
    keys = {prices.key(term) for leaf in products for term in prices.terms(leaf)}
    cost = sum(prices.overlaps[leaf] for leaf in products) + sum(prices.orders[key].cost for key in keys)
    cost += sum(prices.contractions[leaf] for leaf in leaves if leaf not in products)
    ways: dict[int, Way] = {leaf: "products" if leaf in products else "contraction" for leaf in leaves}
    return Choice(ways, cost)


def groups_of(prices: Prices, leaves: Sequence[int]) -> list[Group]:
    """The terms of some leaves, those together that share their δ and δ′."""
    found: dict[Any, list[Term]] = {}
    for term in (term for leaf in leaves for term in prices.terms(leaf)):
        found.setdefault(prices.key(term), []).append(term)
    return [Group(tuple(terms), prices.orders[key]) for key, terms in found.items()]
