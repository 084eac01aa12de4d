"""One equation of a program as a person would write it: ``v1 × v2``, ``sin(v3)``, ``sum(v4, axis 0)``.

One entry a primitive in `FORMULAE`; what has none is written as a call of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxchain.discovery.name import word
from jaxchain.discovery.program import Equation, is_var
from jaxchain.values import scalar

__all__ = ["formula"]

Written = Callable[..., str]

BINARY = {
    "add": "+", "add_any": "+", "and": "&", "div": "/", "eq": "==", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "mul": "×",
    "ne": "!=", "or": "|", "pow": "**", "rem": "%", "sub": "-",
}  # fmt: skip


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
    read = [names(atom) if is_var(atom) else _literal(atom) for atom in eqn.invars]
    name = eqn.primitive.name
    if name in BINARY:
        return f"{read[0]} {BINARY[name]} {read[1]}"
    if name in FORMULAE:
        return FORMULAE[name](eqn, *read)
    if name.startswith(("reduce_", "cum", "arg")) and read:
        axes = eqn.params.get("axes", (eqn.params.get("axis"),))
        whole = len(axes) == len(eqn.invars[0].aval.shape)
        return f"{name.removeprefix('reduce_')}({read[0]}{'' if whole else f', axis {_list(axes)}'})"
    return f"{word(equation)}({', '.join(read)})"


def _literal(atom: Any) -> str:
    value = np.asarray(atom.val)
    return scalar(value) if not value.shape else f"[{value.size} numbers]"


def _list(numbers: Sequence[Any]) -> str:
    return ", ".join(map(str, numbers))


def _shape(eqn: Any) -> str:
    return "×".join(map(str, eqn.outvars[0].aval.shape)) or "scalar"


def _dot(eqn: Any, left: str, right: str) -> str:
    """``@`` where NumPy's product of vectors and matrices means the same."""
    (contracted, with_), (batch, _) = eqn.params["dimension_numbers"]
    ranks = [len(atom.aval.shape) for atom in eqn.invars[:2]]
    plain = not batch and tuple(contracted) == (ranks[0] - 1,) and tuple(with_) == (max(ranks[1] - 2, 0),)
    if plain and max(ranks) <= 2:
        return f"{left} @ {right}"
    return f"dot({left}, {right}; axes {_list(contracted)} and {_list(with_)})"


FORMULAE: dict[str, Written] = {
    "broadcast_in_dim": lambda eqn, x, *_: f"broadcast({x}, {_shape(eqn)})",
    "convert_element_type": lambda eqn, x: f"{eqn.params['new_dtype']}({x})",
    "copy": lambda _, x: x,
    "dot_general": _dot,
    "integer_pow": lambda eqn, x: f"{x} ** {eqn.params['y']}",
    "neg": lambda _, x: f"-{x}",
    "not": lambda _, x: f"~{x}",
    "reshape": lambda eqn, x, *_: f"reshape({x}, {_shape(eqn)})",
    "scan": lambda eqn, *read: f"scan({', '.join(read)}; {eqn.params['length']} steps)",
    "select_n": lambda _, which, *cases: f"where({which}, {', '.join(reversed(cases))})",
    "slice": lambda eqn, x: f"{x}[{_slices(eqn.params)}]",
    "square": lambda _, x: f"{x} ** 2",
    "squeeze": lambda eqn, x: f"reshape({x}, {_shape(eqn)})",
    "transpose": lambda eqn, x: f"transpose({x}, {_list(eqn.params['permutation'])})",
}


def _slices(params: Any) -> str:
    strides = params["strides"] or (1,) * len(params["start_indices"])
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return ", ".join(f"{start}:{stop}" + (f":{step}" if step != 1 else "") for start, stop, step in parts)
