"""How an operand is made of one leaf of the parameters: moved, cast, scaled by constants, and nothing else.

Such a layout is linear up to a constant, the same for every sample, and mostly an isometry: then the norm of a
leaf's gradient is that of the operand's. `program` says what an equation is; here is which of them only lay out.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.derivative import vjp
from jaxchain.program.flat import Equation, Program
from jaxchain.program.primitives import (
    Atom,
    JaxprEqn,
    Var,
    dtype_of,
    is_var,
    like,
    ndim_of,
    permutation_of,
    plain_parameters,
    shape_of,
    size_of,
)
from jaxchain.program.segment import computing

__all__ = ["Layout", "laid_out"]


@dataclass(frozen=True, eq=False)
class Part:
    """What happens to a leaf in one program: from the variable that it enters as to the one that is read."""

    program: Program
    start: Var
    end: Var

    def __call__(self, value: jax.Array) -> jax.Array:
        if self.end is self.start:
            return value
        return computing(self.program, [self.end], [self.start]).call(value)[0]


@dataclass(frozen=True, eq=False)
class Layout:
    """An operand, as made of a leaf.

    Attributes
    ----------
    leaf
        Its number among the leaves of the parameters.
    parts
        One a program that the leaf passes through, the outermost first.
    rows
        For each part but the first: whether it is a loop that is given one row of the leaf a step.
    path, axes
        Equal for operands that hold the same entries of a leaf in the same way, up to the order of axes: axis k of
        the operand is axis ``axes[k]`` of what the path leads to.
    scale
        The factor by which the layout changes norms, with its sign; ``None`` where it is no isometry.
    """

    leaf: int
    parts: tuple[Part, ...]
    rows: tuple[bool, ...] = ()
    path: tuple[str, ...] = ()
    axes: tuple[int, ...] = ()
    scale: float | None = 1.0

    @classmethod
    def of(cls, leaf: int, program: Program, var: Var) -> Layout:
        """A leaf as it is."""
        return cls(leaf, (Part(program, var, var),), axes=tuple(range(ndim_of(var))))

    @property
    def end(self) -> Var:
        """The operand."""
        return self.parts[-1].end

    def entering(self, program: Program, var: Var, *, rows: bool) -> Layout:
        """The same leaf inside of a loop, whole or row by row."""
        parts, path, axes = (*self.parts, Part(program, var, var)), self.path, self.axes
        if rows:
            path, axes = (*path, f"rows of {axes}"), tuple(range(ndim_of(var)))
        return replace(self, parts=parts, rows=(*self.rows, rows), path=path, axes=axes)

    def after(self, equation: Equation, operand: int, result: int, constants: dict[Var, Any]) -> Layout:
        """The layout of one result of an equation that is `laid_out`."""
        eqn, end = equation.eqn, equation.eqn.outvars[result]
        scale, path, axes = _scale(eqn, operand, result, constants), self.path, self.axes
        if equation.name == "transpose":
            axes = tuple(axes[k] for k in permutation_of(eqn))
        elif equation.name not in KEEPS_ENTRIES or shape_of(end) != shape_of(eqn.invars[operand]):
            path, axes = (*path, f"{axes} {_told(eqn, operand, result)}"), tuple(range(ndim_of(end)))
        parts = (*self.parts[:-1], replace(self.parts[-1], end=end))
        known = None if scale is None or self.scale is None else self.scale * scale
        return replace(self, parts=parts, path=path, axes=axes, scale=known)

    def __call__(self, leaf: jax.Array) -> jax.Array:
        """The operand; in loops over rows all steps' at once, the loops' axes in front."""
        return _through(self.parts, self.rows, leaf)

    def pull(self, operand: jax.Array) -> jax.Array:
        """The leaf's gradient, from the operand's."""
        if all(part.end is part.start for part in self.parts):
            return operand
        start = like(self.parts[0].start)
        out, back = vjp(self, jnp.zeros(start.shape, start.dtype))
        return back(operand.astype(out.dtype))[0]


def _through(parts: tuple[Part, ...], rows: tuple[bool, ...], value: jax.Array) -> jax.Array:
    value = parts[0](value)
    if not rows:
        return value

    def rest(row: jax.Array) -> jax.Array:
        return _through(parts[1:], rows[1:], row)

    return (jax.vmap(rest) if rows[0] else rest)(value)


# ------------------------------------------------------------------------------------------------ what lays out, and how

KEEPS_ENTRIES = frozenset(
    """add add_any convert_element_type copy div layout_constraint mul name neg reduce_precision reshard
    sharding_constraint sub with_memory_space_constraint""".split()
)
"""Every entry stays where it is."""

MOVES = KEEPS_ENTRIES | frozenset(
    "broadcast_in_dim expand_dims gather pad dynamic_slice reshape rev slice split squeeze transpose".split()
)
"""Linear in an operand up to a constant, where all others are constants; `ISOMETRIES` never change a norm."""

ISOMETRIES = KEEPS_ENTRIES - {"div", "mul"} | frozenset(
    "dynamic_slice expand_dims reshape rev slice split squeeze transpose".split()
)
"""Their transposes put every entry of a gradient into a place of its own."""

FIRST = frozenset("div dynamic_slice gather pad".split())
"""Linear in their first operand alone; in others they may be written in any."""


def laid_out(eqn: JaxprEqn, operand: int, varying: Set[Var]) -> bool:
    """Whether an equation only lays out one of its operands: the others are ``varying`` with nothing."""
    if eqn.primitive.name not in MOVES or (operand and eqn.primitive.name in FIRST):
        return False
    others = (atom for k, atom in enumerate(eqn.invars) if k != operand)
    real = all(jnp.issubdtype(dtype_of(atom), jnp.floating) for atom in (eqn.invars[operand], *eqn.outvars))
    return real and not any(is_var(atom) and atom in varying for atom in others)


def _scale(eqn: JaxprEqn, operand: int, result: int, constants: dict[Var, Any]) -> float | None:
    name, given = eqn.primitive.name, eqn.invars[operand]
    if name in ("mul", "div"):
        other = _number(eqn.invars[1 - operand], constants)
        return None if other is None or not other else 1 / other if name == "div" else other
    if name == "broadcast_in_dim" or size_of(given) < size_of(eqn.outvars[result]):
        return 1.0 if size_of(given) == size_of(eqn.outvars[result]) else None
    negative = name == "neg" or (name == "sub" and operand == 1)
    return (-1.0 if negative else 1.0) if name in ISOMETRIES else None


def _number(atom: Atom, constants: dict[Var, Any]) -> float | None:
    value = constants.get(atom) if is_var(atom) else atom.val
    known = value is not None and not isinstance(value, Tracer) and np.ndim(value) == 0
    return float(np.asarray(value)) if known else None


def _told(eqn: JaxprEqn, operand: int, result: int) -> str:
    """An equation's text, by which two are known to do the same."""
    others = [str(atom) for k, atom in enumerate(eqn.invars) if k != operand]
    shapes = [shape_of(atom) for atom in (eqn.invars[operand], eqn.outvars[result])]
    return f"{eqn.primitive.name} {result} of {others} {shapes} {plain_parameters(eqn)}"
