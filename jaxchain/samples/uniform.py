"""Which values that samples share are the same for each of them: the other half of a loss's being one function of every sample.

An array that does not come from the batch may yet have an axis as long as the batch. Where that meets the batch, each sample
meets entries of its own. Followed is where a value is certain to repeat itself; what is not known to may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxchain.program.primitives import (
    FAMILY,
    Atom,
    JaxprEqn,
    axes_of,
    broadcast_axes,
    ndim_of,
    shape_of,
    writes_in_place,
)
from jaxchain.samples.place import Mixes, Place, Shared, State, Step, Unproven
from jaxchain.samples.rules import RULES

__all__ = ["closed_over", "made_of_shared", "meets_apart", "narrowed", "same_along"]


def closed_over(value: Atom, samples: int) -> Shared | None:
    """The state of an array of which nothing is known; ``None`` where it has no axis for so many samples."""
    return narrowed(frozenset(), value, samples)


def narrowed(same: frozenset[Place], value: Atom, samples: int) -> Shared | None:
    """The state of a shared value that is the same for all samples at some places; ``None`` where that is everywhere."""
    return None if same.issuperset(every := frozenset(_every(value, samples))) else Shared(same & every)


def same_along(state: State, place: Place) -> bool:
    """Whether a shared value, were it of the batch at ``place``, would be the same for every sample."""
    return not isinstance(state, Shared) or place in state.same


def made_of_shared(eqn: JaxprEqn, states: Sequence[State], samples: int) -> list[Shared | None]:
    """The states of what an equation makes of shared values alone."""
    return [narrowed(frozenset(_same(eqn, states, samples)), var, samples) for var in eqn.outvars]


def meets_apart(eqn: JaxprEqn, states: Sequence[State], result: Place, samples: int) -> bool:
    """Whether each sample, at ``result``, meets entries of a shared operand that may be no other sample's."""
    of_batch = [isinstance(state, (Place, Step)) for state in states]
    if writes_in_place(eqn) and of_batch[0] and not any(of_batch[1:]) and not _whole_block(eqn, result):
        return True  # a shared block may be written to some samples alone, all the same where its values are
    return not all(_same_at(eqn, k, state, result, samples) for k, state in enumerate(states))


def _whole_block(eqn: JaxprEqn, result: Place) -> bool:
    """Whether what is written has room for every sample."""
    if eqn.primitive.name == "dynamic_update_slice":
        return shape_of(eqn.invars[1])[result.axis] == shape_of(eqn.outvars[0])[result.axis]
    return any(_from(eqn, 2, axis, result) for axis in range(ndim_of(eqn.invars[2])))


def _same(eqn: JaxprEqn, states: Sequence[State], samples: int) -> Iterator[Place]:
    """Places of the results at which they are the same for every sample."""
    name, kind = eqn.primitive.name, FAMILY.get(eqn.primitive.name)
    (result, *_), shape = eqn.outvars, shape_of(eqn.outvars[0])
    if name == "broadcast_in_dim":
        kept = dict(zip(broadcast_axes(eqn), shape_of(eqn.invars[0]), strict=True))
        yield from (place for place in _every(result, samples) if kept.get(place.axis) != shape[place.axis])
    if name == "tile":  # entry p is that of p mod length, so that the same comes again after as many
        period = shape_of(eqn.invars[0])
        repeated = (place for place in _every(result, samples) if period[place.axis] != shape[place.axis])
        yield from (place for place in repeated if place.inner % period[place.axis] == 0)
    if name in ("iota", "zeros_like", "empty", "empty2"):
        yield from (place for place in _every(result, samples) if name != "iota" or place.axis not in axes_of(eqn))
    if name not in RULES or kind in ("cumulative", "order"):
        return
    for k, state in enumerate(states):
        places = state.same if isinstance(state, Shared) else _every(eqn.invars[k], samples)
        for place in places:
            after = _after(eqn, k, place, samples)
            if after is None or (writes_in_place(eqn) and not _whole_block(eqn, after)):
                continue
            if all(_same_at(eqn, j, other, after, samples) for j, other in enumerate(states)):
                yield after


def _same_at(eqn: JaxprEqn, k: int, state: State, result: Place, samples: int) -> bool:
    """Whether operand k gives every sample at ``result`` the same."""
    if not isinstance(state, Shared):
        return True
    met = (place for place in _every(eqn.invars[k], samples) if place not in state.same)
    return not any(_after(eqn, k, place, samples) == result for place in met)


def _after(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place | None:
    try:
        return RULES[eqn.primitive.name](eqn, k, place, samples)
    except (Mixes, Unproven):
        return None


def _from(eqn: JaxprEqn, k: int, axis: int, result: Place) -> bool:
    after = _after(eqn, k, Place(axis), shape_of(eqn.invars[k])[axis])
    return after is not None and after.axis == result.axis


def _every(value: Atom, samples: int) -> Iterator[Place]:
    """All places at which a value has entries for so many samples."""
    for axis, length in enumerate(shape_of(value)):
        each, rest = divmod(length, samples)
        if not rest:
            yield from (Place(axis, inner) for inner in range(1, each + 1) if each % inner == 0)
