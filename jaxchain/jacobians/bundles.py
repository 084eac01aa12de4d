"""Which places that more than one value crosses are worth a cut to a plan: the states there are bundles of values."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from jaxchain.cost.count import total_flops
from jaxchain.discovery.find import Found
from jaxchain.discovery.stage import bundles, split_after
from jaxchain.jacobians.recurrence import reads_rows
from jaxchain.jacobians.unit import Unit
from jaxchain.program.flow import reach
from jaxchain.program.primitives import is_var
from jaxchain.program.segment import Segment
from jaxchain.samples.positions import position_axes

__all__ = ["opened_at_bundles"]

MOST = 1000
"""Of a stage with more equations nobody looks how far it begins, or ends, position by position."""

LEAST = 0.1
"""What takes less than this share of its stage's work is left in it."""


def opened_at_bundles(found: Found, units: Sequence[Unit]) -> Found:
    """A traced function, cut also where bundles may save work.

    Where few numbers cross: to go through a state of more numbers than an end of the chain has takes more than a vector
    for each number of that end. Around a loop that reads rows of its input: its Jacobian is found step by step. And next
    to an end, around what mixes positions: there a basis of one position serves all, while further inside a matrix that
    is ready takes as much to push through as without a cut.
    """
    few = min(units[0].here.size, units[-1].there.size)
    if few < 2:  # one vector is all that a simple mode takes
        return found
    places = {id(segment): [*bundles(segment, few), *_loops(segment)] for segment in found.segments}
    mixing = [u.core for u in units if u.kind == "dense" and u.positions is None and u.inside is None]
    if mixing:
        for segment, at in (mixing[0], _beginning(mixing[0])), (mixing[-1], _ending(mixing[-1])):
            if id(segment) in places:  # else it is several, joined
                places[id(segment)].append(at)
    return found.cut(places[id(segment)] for segment in found.segments)


def _loops(segment: Segment) -> list[int]:
    """After how many equations a loop begins, and ends, that reads rows which depend on the segment's input."""
    dependent = reach((e.eqn for e in segment.equations), segment.inputs)
    places: list[int] = []
    for k, equation in enumerate(segment.equations):
        if equation.name == "scan":
            reads = [is_var(atom) and atom in dependent for atom in equation.eqn.invars]
            if reads_rows(equation.eqn, reads):
                places += [k, k + 1]
    return places


def _beginning(segment: Segment) -> int:
    """After how many equations positions mix first; 0 where little work comes before."""
    places = _places(segment)
    mixes = bisect.bisect_left(places, True, key=lambda k: not _by_position(segment, k, 0))
    at = places[mixes - 1] if mixes else 0
    return at if _share(segment, 0, at) > LEAST else 0


def _ending(segment: Segment) -> int:
    """After how many equations positions mix no more; 0 where little work comes after."""
    places = _places(segment)
    apart = bisect.bisect_left(places, True, key=lambda k: _by_position(segment, k, -1))
    at = places[apart] if apart < len(places) else len(segment.equations)
    return at if _share(segment, at, None) > LEAST else 0


def _places(segment: Segment) -> range:
    return range(1, len(segment.equations)) if len(segment.equations) <= MOST else range(0)


def _by_position(segment: Segment, at: int, side: int) -> bool:
    """Whether one side of a place works position by position."""
    pieces = split_after(segment, [at])
    return len(pieces) > 1 and position_axes(pieces[side]) is not None


def _share(segment: Segment, start: int, stop: int | None) -> float:
    """Of a segment's work, that of some of its equations."""
    part, whole = (total_flops(e.eqn for e in some) for some in (segment.equations[start:stop], segment.equations))
    return part / whole if whole else 0.0
