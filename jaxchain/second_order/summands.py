"""A result that is a sum, such as a network and an envelope of the same input, as the functions that it is a sum of.

Second derivatives are linear in the function: each term is a chain of its own, where their sum is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxchain.discovery.find import Found, find
from jaxchain.program.primitives import Atom, is_var
from jaxchain.program.segment import computing

__all__ = ["Summand", "summands"]

MOST = 16
"""A sum of more terms, as a loop over particles may write it, is left as it is: each term is traced for itself."""

SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1), "neg": (-1,), "copy": (1,)}
"""Primitive → the sign of each of its operands in its result."""


class Summand(NamedTuple):
    """One term of a sum: its sign, and the function that it is."""

    sign: int
    found: Found


def summands(found: Found) -> list[Summand]:
    """The terms that a function's only result is a sum of; none where it is no sum."""
    terms = list(_terms(found, found.program.outs[0], 1))
    if not 1 < len(terms) <= MOST:
        return []
    return [Summand(sign, find(_function(found, term), found.shapes, 0)) for sign, term in terms]


def _terms(found: Found, atom: Atom, sign: int) -> list[tuple[int, Any]]:
    """Sign and variable of each term; what no input moves has no derivative, and is left out."""
    if not is_var(atom) or atom not in found.active:
        return []
    equation = found.program.makers.get(atom)
    if equation is None or equation.name not in SIGNS:
        return [(sign, atom)]
    operands = zip(equation.eqn.invars, SIGNS[equation.name], strict=True)
    return [term for operand, own in operands for term in _terms(found, operand, sign * own)]


def _function(found: Found, term: Any) -> Callable[..., jax.Array]:
    """The function of all arguments whose result is one variable."""
    call = computing(found.program, [term], found.program.invars).call
    return lambda *args: call(*jax.tree.leaves(args))[0]
