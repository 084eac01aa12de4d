"""How many bytes a program holds at once, if its equations run in order and each value is let go once it is read last.

An upper bound of what XLA takes: what one loop over entries can make on its way to the next is not written to memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from jaxchain.program.primitives import (
    ELEMENTWISE,
    FAMILY,
    Atom,
    Jaxpr,
    JaxprEqn,
    Var,
    bodies,
    branches_of,
    dtype_of,
    is_used,
    is_var,
    ndim_of,
    needed_eqns,
    opened,
    size_of,
)

__all__ = ["bytes_of", "indices_of", "most_alive"]


ALIGNED = 64
"""XLA places values at multiples of so many bytes."""


def bytes_of(atom: Atom) -> int:
    """Bytes that one value takes in memory."""
    return -(-size_of(atom) * max(dtype_of(atom).itemsize, 1) // ALIGNED) * ALIGNED


def most_alive(jaxpr: Jaxpr, results: Container[Var] = (), inputs: Sequence[Var] = ()) -> int:
    """The most bytes of a program's values that are alive at once.

    Parameters
    ----------
    jaxpr
        The program.
    results
        Those of its values that are held by others.
    inputs
        Those of its inputs that are let go once they are read last; the others are held by others.
    """
    eqns = needed_eqns(jaxpr, jaxpr.outvars)
    last: dict[Var, int] = {}
    uses = Counter(atom for eqn in eqns for atom in eqn.invars if is_var(atom))
    for number, eqn in enumerate(eqns):
        last.update((atom, number) for atom in eqn.invars if is_var(atom))
    last.update((out, len(eqns)) for out in jaxpr.outvars if is_var(out))
    held = {var: bytes_of(var) for var in inputs}
    alive = most = sum(held.values())
    for number, eqn in enumerate(eqns):
        dying = {atom for atom in eqn.invars if is_var(atom) and last[atom] == number}
        in_place = eqn.primitive.name in ELEMENTWISE
        alive -= sum(held.pop(atom, 0) for atom in dying) if in_place else 0
        made = {
            var: bytes_of(var)
            for var in filter(is_used, eqn.outvars)
            if not (
                (var in results and not _loops(eqn))
                or (uses[var] == 1 and last[var] < len(eqns) and _on_the_way(eqn, eqns[last[var]]))
            )
        }
        held.update(made)
        alive += sum(made.values())
        # A loop's results are what goes from step to step, beside what a step makes; those of a call it makes itself.
        inside = _inside(eqn)
        most = max(most, alive + (inside if _loops(eqn) else max(inside - sum(made.values()), 0)))
        alive -= sum(held.pop(atom, 0) for atom in dying)
    return most


def _on_the_way(maker: JaxprEqn, reader: JaxprEqn) -> bool:
    """Whether a value goes entry by entry to where it is read, so that it is never written to memory."""
    name, entrywise = maker.primitive.name, reader.primitive.name in ELEMENTWISE
    if name in ELEMENTWISE:
        return entrywise
    spread = name == "broadcast_in_dim" or FAMILY.get(name) == "fresh"
    return spread and (entrywise or FAMILY.get(reader.primitive.name) == "reduction")


def _loops(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in ("scan", "while")


def _inside(eqn: JaxprEqn) -> int:
    """The most that one equation's own programs hold."""
    programs = [body for body, _ in bodies(eqn)]
    if eqn.primitive.name == "cond":
        programs = [opened(branch)[0] for branch in branches_of(eqn)]
    if eqn.primitive.name == "conv_general_dilated":  # which is run on copies, laid out anew
        return 2 * sum(map(bytes_of, (*eqn.invars, *eqn.outvars)))
    return max(map(most_alive, programs), default=0)


def indices_of(eqn: JaxprEqn) -> int:
    """Bytes of the places that XLA looks up to tell which entry of a window is the greatest or the least: one an axis.

    They do not depend on the cotangent, and it makes them ahead of it.
    """
    if not eqn.primitive.name.startswith(("select_and_scatter", "select_and_gather")):
        return 0
    most = max((*eqn.invars, *eqn.outvars), key=size_of)
    return (ndim_of(most) + 2) * 4 * size_of(most)
