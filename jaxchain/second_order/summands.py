"""A result that is a sum, such as a network and an envelope of the same input, as the functions that it is a sum of.

Second derivatives are linear in the function: each term is a chain of its own, where their sum is none. What a sum goes
through before it is the result, a mean or a factor, each of its terms goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxchain.discovery.find import Found, find
from jaxchain.program.primitives import Atom, Var, is_var, shape_of
from jaxchain.program.segment import Segment, computing

__all__ = ["Summand", "summands"]

MOST = 16
"""A sum of more terms, as a loop over particles may write it, is left as it is: each term is traced for itself."""

SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1), "neg": (-1,), "copy": (1,)}
"""Primitive → the sign of each of its operands in its result."""


STRAIGHT = frozenset(
    ["broadcast_in_dim", "convert_element_type", "div", "mul", "reduce_sum", "reshape", "squeeze", "transpose", *SIGNS]
)
"""Primitives that are straight in an operand, if no input moves another; of a quotient it is the first."""


class Summand(NamedTuple):
    """One term of a sum: its sign, and the function that it is."""

    sign: int
    found: Found


def summands(found: Found) -> list[Summand]:
    """The terms that a function's only result is a sum of, or a factor or a mean of one; none where it is no sum."""
    total, after = _down_to_a_sum(found)
    terms = list(islice(_terms(found, total, 1), MOST + 1))
    if not 1 < len(terms) <= MOST:
        return []
    return [Summand(sign, find(_function(found, term, total, after), found.shapes, 0)) for sign, term in terms]


def _down_to_a_sum(found: Found) -> tuple[Atom, list[Segment]]:
    """The last value that is no straight function of one other; what comes after."""
    atom, after = found.program.outs[0], list[Segment]()
    while is_var(atom) and (equation := found.program.makers.get(atom)) is not None:
        moving = [operand for operand in equation.eqn.invars if is_var(operand) and operand in found.active]
        divides = equation.name == "div" and moving[:1] != equation.eqn.invars[:1]
        if equation.name not in STRAIGHT or len(moving) != 1 or divides:
            break
        after.append(Segment((equation,), (moving[0],), (atom,), found.program))
        atom = moving[0]
    return atom, after[::-1]


def _terms(found: Found, atom: Atom, sign: int) -> Iterator[tuple[int, Var]]:
    """Sign and variable of each term; what no input moves has no derivative, and is left out."""
    if not is_var(atom) or atom not in found.active:
        return
    equation = found.program.makers.get(atom)
    if equation is None or equation.name not in SIGNS:
        yield sign, atom
        return
    for operand, own in zip(equation.eqn.invars, SIGNS[equation.name], strict=True):
        yield from _terms(found, operand, sign * own)


def _function(found: Found, term: Var, total: Atom, after: list[Segment]) -> Callable[..., jax.Array]:
    """The function of all arguments whose result is what one variable adds to it."""
    sides = list(dict.fromkeys(var for segment in after for var in segment.sides))
    call = computing(found.program, [term, *sides], found.program.invars).call

    def fun(*args: Any) -> jax.Array:
        value, *others = call(*jax.tree.leaves(args))
        known = dict(zip(sides, others, strict=True))
        value = jnp.broadcast_to(value, shape_of(total))  # a number may be added to an array
        for segment in after:
            (value,) = segment.call(*(known[var] for var in segment.sides), value)
        return value

    return fun
