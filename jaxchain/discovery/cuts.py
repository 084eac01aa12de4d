"""The cut rule: where a program falls apart into stages. One linear scan, no JAX.

Keep the operations on a path from the chain input to the output, in order of evaluation, and hold
the set of live values: computed (or given) already, still to be read. Where the set has exactly
one member, everything after depends on the input through that value alone: a cut. The values so
found are exactly the single-vertex separators, that is the dominators of the output that are
dominated by the input, of the dependency graph (Lengauer and Tarjan, TOPLAS 1979, solve the
general problem; evaluation order makes this one linear).

Where more than one value is live, but few numbers, they are a state too: a bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Cut", "cuts", "live_sets", "minima"]

V = TypeVar("V", bound=Hashable)


class Cut(NamedTuple):
    """After ``position`` operations, only ``values`` are live."""

    position: int
    values: frozenset[Hashable]


def live_sets(
    reads: Sequence[Collection[V]], writes: Sequence[Collection[V]], inputs: Iterable[V], outputs: Iterable[V]
) -> Iterator[set[V]]:
    """The set of live values after each operation, one set updated in place."""
    last: dict[V, int] = {}
    for number, values in enumerate(reads):
        last.update(dict.fromkeys(values, number))
    last.update(dict.fromkeys(outputs, len(reads)))
    live = {value for value in inputs if value in last}
    for number, (read, written) in enumerate(zip(reads, writes, strict=True)):
        # First what dies here, then what is born: an equation may read its last and write its first at once.
        live.difference_update(value for value in read if last[value] == number)
        live.update(value for value in written if last.get(value, -1) > number)
        yield live


def cuts(
    reads: Sequence[Collection[V]],
    writes: Sequence[Collection[V]],
    inputs: Iterable[V],
    outputs: Iterable[V],
    *,
    may_cut: Callable[[V], bool] = lambda _: True,
    bundles: Mapping[int, frozenset[V]] | None = None,
) -> list[Cut]:
    """Every cut strictly inside a program, in order of evaluation.

    Parameters
    ----------
    reads, writes
        Per operation, the values it reads and writes, among those that depend on the input.
    inputs, outputs
        The values that are given, and those that are wanted.
    may_cut
        Whether a value can be a state.
    bundles
        Position → values that count as one there: the carry of a loop between two of its steps.
    """
    found: list[Cut] = []
    bundles = bundles or {}
    for number, live in enumerate(live_sets(reads, writes, inputs, outputs), start=1):
        if number == len(reads):
            break
        single = len(live) == 1 and all(map(may_cut, live))
        if single or (live and live == set(bundles.get(number, ()))):
            found.append(Cut(number, frozenset(live)))
    return found


def minima(sizes: Sequence[int]) -> list[int]:
    """Where a sequence is least between two larger neighbours, the first of those that are equal; never at its ends."""
    starts = [k for k, size in enumerate(sizes) if k == 0 or size != sizes[k - 1]]
    around = zip(starts, starts[1:], starts[2:], strict=False)
    return [here for before, here, after in around if sizes[before] > sizes[here] < sizes[after]]
