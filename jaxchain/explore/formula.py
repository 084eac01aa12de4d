"""One equation of a program as a person would write it: ``v1 × v2``, ``sin(v3)``, ``sum(v4, axis 0)``.

One entry a primitive in `BINARY` or `FORMULAE`; what has none is written as a call of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxchain.discovery.name import word
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import (
    FAMILY,
    JaxprEqn,
    Literal,
    axes_of,
    broadcast_axes,
    dot_of,
    dtype_of,
    exponent_of,
    is_inexact,
    is_var,
    ndim_of,
    permutation_of,
    runs_backwards,
    scan_of,
    shape_of,
    size_of,
    slice_of,
)
from jaxchain.show.values import scalar

__all__ = ["called", "formula", "literal"]

TOLD = 6
"""How many operands a formula names."""

BINARY = {
    "add": "+", "add_any": "+", "and": "&", "div": "/", "eq": "==", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "mul": "×",
    "ne": "!=", "or": "|", "pow": "**", "sub": "-", "xor": "^",
}  # fmt: skip
"""Not the remainder: where a number is negative, JAX's differs from ``%``, as its quotient of integers from ``//``."""

REDUCTIONS = {"reduce_and": "all", "reduce_or": "any"}


def formula(equation: Equation, names: Callable[[Any], str]) -> str:
    """The right-hand side of an equation.

    Parameters
    ----------
    equation
        Of a flat program.
    names
        The name of a variable; literals are written as their values.
    """
    eqn = equation.eqn
    read = [names(atom) if is_var(atom) else literal(atom) for atom in eqn.invars]
    name = eqn.primitive.name
    if name in BINARY and (name != "div" or is_inexact(eqn.outvars[0])):
        left, right = (f"({text})" if text.startswith("-") else text for text in read)
        return f"{left} {BINARY[name]} {right}"
    if name in FORMULAE:
        return FORMULAE[name](eqn, *read)
    if FAMILY.get(name) == "reduction" and len(read) == 1:
        return _reduction(eqn, read[0])
    if FAMILY.get(name) == "cumulative":
        return called(name, [*read, *_axis(eqn), *(["reverse"] if runs_backwards(eqn) else [])])
    return called(word(equation).replace("-", "_"), read)


def called(name: str, read: Sequence[str], most: int = TOLD) -> str:
    """A call: ``name(v1, v2)``, of too many operands the first ones alone."""
    told = read if len(read) <= most else [*read[: most - 1], "…"]
    return f"{name}({', '.join(told)})"


def literal(atom: Literal) -> str:
    """A literal's value in short."""
    value = np.asarray(atom.val)
    if value.shape:
        return f"[{value.size} numbers]"
    return f"({scalar(value)})" if np.iscomplexobj(value) else scalar(value)


def _list(numbers: Sequence[Any]) -> str:
    return ", ".join(map(str, numbers))


def _shape(eqn: JaxprEqn) -> str:
    return "×".join(map(str, shape_of(eqn.outvars[0]))) or "scalar"


def _rank(eqn: JaxprEqn) -> int:
    return len(shape_of(eqn.invars[0]))


def _reduction(eqn: JaxprEqn, x: str) -> str:
    name, axes = str(eqn.primitive.name), axes_of(eqn)
    along = [] if len(axes) == _rank(eqn) else [f"axis {_list(axes)}"]
    return called(REDUCTIONS.get(name, name.removeprefix("reduce_")), [x, *along])


def _axis(eqn: JaxprEqn) -> list[str]:
    """The axis along which something is done, where there are several."""
    return [f"axis {_list(axes_of(eqn))}"] if _rank(eqn) > 1 else []


def _broadcast(eqn: JaxprEqn, x: str, *_: str) -> str:
    """Axes align from the last one, as NumPy's do, where nothing else is said."""
    before, after = eqn.invars[0], eqn.outvars[0]
    if size_of(before) == size_of(after):
        return called("reshape", [x, _shape(eqn)])
    axes = broadcast_axes(eqn)
    trailing = tuple(axes) == tuple(range(ndim_of(after) - len(axes), ndim_of(after)))
    return called("broadcast", [x, _shape(eqn), *([] if trailing else [f"axis {_list(axes)}"])])


def _dot(eqn: JaxprEqn, left: str, right: str) -> str:
    """``@`` where NumPy's product of vectors and matrices means the same."""
    (contracted, with_), (batch, _) = dot_of(eqn)
    ranks = [len(shape_of(atom)) for atom in eqn.invars[:2]]
    plain = not batch and tuple(contracted) == (ranks[0] - 1,) and tuple(with_) == (max(ranks[1] - 2, 0),)
    if plain and max(ranks) <= 2:
        return f"{left} @ {right}"
    along = f"; axes {_list(contracted)} and {_list(with_)}" if contracted else ""
    return f"dot({left}, {right}{along}{f'; batch {_list(batch)}' if batch else ''})"


def _select(_: Any, which: str, *cases: str) -> str:
    """``where`` for two cases, of which JAX names the one for false first."""
    return called("where", [which, *reversed(cases)]) if len(cases) == 2 else called("select", [which, *cases])


def _slice(eqn: JaxprEqn, x: str) -> str:
    parts = zip(slice_of(eqn), shape_of(eqn.invars[0]), strict=True)
    return f"{x}[{', '.join(_part(*along, size) for along, size in parts)}]"


def _part(start: int, stop: int, step: int, size: int) -> str:
    whole = ":" if (start, stop) == (0, size) else f"{start}:{stop}"
    return whole if step == 1 else f"{whole}:{step}"


FORMULAE: dict[str, Callable[..., str]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda eqn, *read: called("concatenate", [*read, *_axis(eqn)]),
    "convert_element_type": lambda eqn, x: f"{dtype_of(eqn.outvars[0])}({x})",
    "copy": lambda _, x: x,
    "dot_general": _dot,
    "integer_pow": lambda eqn, x: f"{x} ** {exponent_of(eqn)}",
    "iota": lambda eqn, *_: f"iota({_shape(eqn)})",
    "neg": lambda _, x: f"-{x}",
    "not": lambda _, x: f"~{x}",
    "reshape": lambda eqn, x, *_: f"reshape({x}, {_shape(eqn)})",
    "scan": lambda eqn, *read: f"{called('scan', read)[:-1]}; {scan_of(eqn).length} steps)",
    "select_n": _select,
    "slice": _slice,
    "split": lambda eqn, x: called("split", [x, *_axis(eqn)]),
    "square": lambda _, x: f"{x} ** 2",
    "squeeze": lambda eqn, x: f"reshape({x}, {_shape(eqn)})",
    "transpose": lambda eqn, x: f"transpose({x}, {_list(permutation_of(eqn))})",
}
