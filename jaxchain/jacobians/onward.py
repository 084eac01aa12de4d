"""A stage through which no position reaches an earlier one, as in causal attention: the upper half of its matrix is zero.

Columns that begin at later positions are pushed through what they reach alone. That is proven on the program of its
JVP, by patterns of zeros (`jaxchain.jacobians.reach`), masks among them; arrays there shrink to the boxes around what
is not zero and matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import pieces
from jaxchain.cost.count import flops
from jaxchain.errors import REFUSALS, refusal
from jaxchain.jacobians.boxed import Boxes, Held, evaluated, fit_columns, lengths, part_of, size
from jaxchain.jacobians.graph import jvp_program
from jaxchain.jacobians.labels import Labels, labels_of
from jaxchain.jacobians.masks import zeros_of
from jaxchain.jacobians.matrix import Dense, Layout, Triangle, stretches
from jaxchain.jacobians.reach import Box, enclosing, followed, whole
from jaxchain.program.flat import Equation, Program
from jaxchain.program.flatten import in_steps
from jaxchain.program.flow import reach
from jaxchain.program.primitives import JaxprEqn, Var, dtype_of, inner_programs, is_var, shape_of, size_of
from jaxchain.program.segment import Segment, computing, known_values
from jaxchain.samples.positions import candidates

__all__ = ["Onward", "onward_of"]

LONGEST = 8
"""Loops of so many steps at most are opened."""

MOST_EQUATIONS, MOST_NUMBERS = 400, 1 << 22
"""A stage of more equations, or with more numbers in its arrays, is not looked at: that takes long."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """What the columns of one stretch of positions go through.

    Attributes
    ----------
    start, stop
        The first of its positions, and the first after them.
    boxes
        Of each tangent on the way what is not zero and matters; nothing of what does not.
    share
        Of a whole tangent's work.
    """

    start: int
    stop: int
    boxes: Boxes
    share: float


@dataclass(frozen=True, eq=False)
class Onward:
    """A stage's derivative, pushed in stretches of positions.

    Attributes
    ----------
    program
        Of the JVP: of the tangent's leaves, of side values that are open, of the state.
    sides
        Which of the stage's side values those are.
    equations
        Those that the tangent enters.
    labels
        How each reads its operands.
    into, out
        Where the positions lie, before and after; ``None``: after it there are none.
    axes
        Of the leaves of the state before, and after, those that count them.
    parts
        The stretches.
    """

    program: Program
    sides: tuple[int, ...]
    equations: tuple[Equation, ...]
    labels: Mapping[int, Labels | None]
    into: Layout
    out: Layout | None
    axes: tuple[Sequence[int], Sequence[int | None]]
    parts: tuple[Stretch, ...]

    @property
    def share(self) -> float:
        """Of the work of all columns pushed through all of it."""
        return sum(part.share * (part.stop - part.start) for part in self.parts) / self.into.count

    @property
    def is_followed(self) -> bool:
        """Whether all of its program is: what is not works on whole arrays, for each stretch again."""
        return None not in self.labels.values()

    def push(self, sides: Sequence[Any], state: Sequence[Any], columns: Triangle) -> Triangle | Dense:
        """J · columns."""
        at_point = computing(self.program, self._read, self.program.invars[len(self.axes[0]) :])
        values = at_point.call(*(sides[k] for k in self.sides), *state)
        point = self.program.constants | dict(zip(self._read, values, strict=True))
        made = self._through(point, columns)
        if self.out is not None:
            return Triangle(tuple(made), columns.into, self.out)
        return Dense(columns.into.join(jnp.concatenate(made, 1), 1))

    @cached_property
    def _read(self) -> list[Var]:
        """What the tangent's equations read of the point."""
        made = {v for e in self.equations for v in e.writes} | set(self.program.invars[: len(self.axes[0])])
        outs = list(filter(is_var, self.program.outs))
        read = [v for e in self.equations for v in e.reads] + outs
        return [v for v in dict.fromkeys(read) if v not in made and v not in self.program.constants]

    def _through(self, point: Mapping[Var, Any], columns: Triangle) -> list[jax.Array]:
        """(P − start, m, L, n) of each stretch, of the same before; where no positions are after it (m, L, n)."""
        held = Held([part.shape[2] * part.shape[3] for part in columns.parts])
        for number, (part, given) in enumerate(zip(self.parts, columns.parts, strict=True)):
            layout = self.into.of_positions(self.into.count - part.start)
            flat = layout.join(given.reshape(*given.shape[:2], -1), 0)
            begin = [_from(v, axis, part.start) for v, axis in zip(self._tangents, self.axes[0], strict=True)]
            for var, leaf, box in zip(self._tangents, pieces(flat, list(map(size, begin))), begin, strict=True):
                if var in part.boxes:
                    held.put(
                        var,
                        (number,),
                        fit_columns(leaf.reshape(*lengths(box), -1).astype(dtype_of(var)), box, part.boxes[var]),
                    )
        for k, equation in enumerate(self.equations):
            for numbers in self._alike(equation.eqn):
                boxes = self.parts[numbers[0]].boxes
                read = [v for v in equation.reads if v in boxes]
                every = jax.vmap(
                    lambda *values, k=k, eqn=equation.eqn, boxes=boxes, read=read: evaluated(
                        eqn, self.labels[k], boxes, dict(zip(read, values, strict=True)), point
                    ),
                    in_axes=-1,
                    out_axes=-1,
                )(*(held.get(v, numbers) for v in read))
                for var, value in zip((v for v in equation.writes if v in boxes), every, strict=True):
                    held.put(var, numbers, value)
        return [self._end(number, held, given) for number, given in enumerate(columns.parts)]

    def _alike(self, eqn: JaxprEqn) -> list[tuple[int, ...]]:
        """The stretches that an equation is evaluated for, those together whose boxes there are the same."""
        together: dict[Any, list[int]] = {}
        variables = dict.fromkeys(v for v in (*eqn.invars, *eqn.outvars) if is_var(v))
        for number, part in enumerate(self.parts):
            if any(v in part.boxes for v in eqn.outvars):
                together.setdefault(tuple(part.boxes.get(v) for v in variables), []).append(number)
        return [tuple(numbers) for numbers in together.values()]

    def _end(self, number: int, held: Held, given: jax.Array) -> jax.Array:
        """What has come out for the columns of one stretch."""
        part, outs = self.parts[number], self.program.outs
        made: list[jax.Array] = []
        for var, axis in zip(filter(is_var, outs), self.axes[1], strict=True):
            box = whole(var) if self.out is None else _from(var, axis, part.start)
            if var in part.boxes:
                value = fit_columns(held.get(var, (number,)), part.boxes[var], box)
            else:
                value = jnp.zeros((*lengths(box), held.widths[number]), dtype_of(var))
            made.append(value.reshape(size(box), -1))
        flat = jnp.concatenate(made)
        if self.out is not None:
            flat = self.out.of_positions(self.into.count - part.start).split(flat, 0)
        return flat.reshape(*flat.shape[:-1], *given.shape[2:])

    @property
    def _tangents(self) -> Sequence[Var]:
        return self.program.invars[: len(self.axes[0])]


def _from(var: Any, axis: int | None, start: int) -> Box:
    """The box of an array's later positions."""
    return tuple((start if k == axis else 0, length) for k, length in enumerate(shape_of(var)))


def onward_of(segment: Segment, carries: Sequence[bool]) -> Onward | None:
    """How columns are pushed through a stage in stretches of positions; ``None``: positions reach earlier ones, or nobody knows."""
    segment = _opened(segment)
    variables = [var for equation in segment.equations for var in equation.writes]
    state = (*segment.inputs, *segment.outputs)
    if (
        len(segment.equations) > MOST_EQUATIONS
        or sum(map(size_of, variables)) > MOST_NUMBERS
        or not all(carries)
        or any(equation.eqn.effects for equation in segment.program.equations)
        or not all(map(is_var, segment.outputs))
        or len({dtype_of(var) for var in state}) > 1
    ):
        return None
    try:
        program, sides = jvp_program(segment, carries)
    except REFUSALS as error:
        refusal(error)
        return None
    return _proven(segment, program, sides) if all(map(is_var, program.outs)) else None


def _opened(segment: Segment) -> Segment:
    """A stage, its short loops opened into steps."""
    if not any(equation.name == "scan" for equation in segment.equations):
        return segment
    program = replace(segment.program, constants=dict(segment.program.constants))
    equations, renamed = in_steps(program, segment.equations, LONGEST)
    outputs = tuple(renamed.get(atom, atom) if is_var(atom) else atom for atom in segment.outputs)
    return Segment(tuple(equations), segment.inputs, outputs, program)


def _proven(segment: Segment, program: Program, sides: tuple[int, ...]) -> Onward | None:
    tangents = program.invars[: len(segment.inputs)]
    moved = reach(program.eqns, tangents)
    equations = tuple(e for e in program.needed() if not moved.isdisjoint(e.writes))
    known = _known(program, equations, moved)
    labels = {k: _labels(e.eqn, moved, known) for k, e in enumerate(equations)}
    # A loop or a branch may compute values beside tangents, which are no zeros where these are.
    if any(how is None and _may_hold_values(equations[k].eqn) for k, how in labels.items()):
        return None
    best: Onward | None = None
    for axes, count in candidates([shape_of(v) for v in segment.inputs]):
        bounds = stretches(count)
        reached = [_reached(program, equations, labels, known, tangents, axes, start) for start, _ in bounds]
        outs = [
            _axis(v, [(start, found) for (start, _), found in zip(bounds, reached, strict=True)], count)
            for v in program.outs
        ]
        parts: list[Stretch] = []
        for (start, stop), found in zip(bounds, reached, strict=True):
            boxes = {var: box for var, pattern in found.items() if (box := enclosing(pattern)) is not None}
            parts.append(Stretch(start, stop, boxes, _share(equations, labels, boxes)))
        into = Layout.of([shape_of(v) for v in tangents], [[axis] for axis in axes])
        marked = [[axis] for axis in outs if axis is not None]
        out = Layout.of([shape_of(v) for v in program.outs], marked) if len(marked) == len(outs) else None
        found = Onward(program, sides, equations, labels, into, out, (axes, outs), tuple(parts))
        best = found if best is None or found.share < best.share else best
    return best


def _may_hold_values(eqn: JaxprEqn) -> bool:
    """Whether not all results of an equation that reads a tangent need be tangents."""
    return len(eqn.outvars) > 1 or any(True for _ in inner_programs(eqn))


def _known(program: Program, equations: Sequence[Equation], moved: set[Var]) -> dict[Var, np.ndarray]:
    """The values beside tangents that are the same at every call; and of others a pattern, where some are always zero."""
    beside = [v for e in equations for v in e.reads if v not in moved]
    masks = [v for e in program.needed() if e.name == "select_n" for v in e.reads]
    read = list(dict.fromkeys(v for v in (*beside, *masks) if v not in program.open))
    known = dict(zip(read, map(np.asarray, known_values(program, read)), strict=True))
    zeros = zeros_of(program, lambda atom: known.get(atom) if is_var(atom) else np.asarray(atom.val))
    return known | {v: ~pattern for v, pattern in zeros.items()}


def _labels(eqn: JaxprEqn, moved: set[Var], known: Mapping[Var, np.ndarray]) -> Labels | None:
    moves = [is_var(atom) and atom in moved for atom in eqn.invars]
    zero = [
        not (known[atom].any() if is_var(atom) and atom in known else is_var(atom) or np.asarray(atom.val).any())
        for atom in eqn.invars
    ]
    return labels_of(eqn, moves, zero)


def _reached(
    program: Program,
    equations: Sequence[Equation],
    labels: Mapping[int, Labels | None],
    known: Mapping[Var, np.ndarray],
    tangents: Sequence[Var],
    axes: Sequence[int],
    start: int,
) -> dict[Var, np.ndarray]:
    begin: dict[Var, np.ndarray] = {}
    for var, axis in zip(tangents, axes, strict=True):
        at = np.arange(shape_of(var)[axis]) >= start
        begin[var] = np.broadcast_to(
            np.expand_dims(at, tuple(k for k in range(len(shape_of(var))) if k != axis)), shape_of(var)
        )
    ends = {v: np.ones(shape_of(v), bool) for v in program.outs if is_var(v)}
    return followed(equations, labels, begin, known, ends)


def _axis(out: Any, reached: Sequence[tuple[int, Mapping[Var, np.ndarray]]], count: int) -> int | None:
    """The axis of a result along which nothing before the first position is reached."""
    for axis, length in enumerate(shape_of(out)):
        others = tuple(k for k in range(len(shape_of(out))) if k != axis)
        if length == count and not any(
            np.logical_or.reduce(found[out], others)[:start].any() for start, found in reached if out in found
        ):
            return axis
    return None


def _share(equations: Sequence[Equation], labels: Mapping[int, Labels | None], boxes: Boxes) -> float:
    """Of a whole tangent's work, what is left in the boxes."""
    work = [flops(equation.eqn) for equation in equations]
    left = (each * part_of(e.eqn, labels[k], boxes) for k, (e, each) in enumerate(zip(equations, work, strict=True)))
    return sum(left) / sum(work) if sum(work) else 1.0
