"""A stage through which no position reaches an earlier one, as in causal attention: the upper half of its matrix is zero.

Columns that begin at later positions are pushed through what they reach alone. That is proven on the program of its
JVP, by patterns of zeros (`jaxchain.jacobians.reach`), masks among them; arrays there shrink to the boxes around what
is not zero and matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import pieces
from jaxchain.cost.count import flops
from jaxchain.errors import REFUSALS, refusal
from jaxchain.jacobians.graph import jvp_program
from jaxchain.jacobians.masks import zeros_of
from jaxchain.jacobians.matrix import LEAST, Layout, Triangle, stretches
from jaxchain.jacobians.reach import Box, Labels, enclosing, followed, labels_of, whole
from jaxchain.program.flat import Equation, Program
from jaxchain.program.flow import reach
from jaxchain.program.primitives import JaxprEqn, Var, broadcast_axes, dtype_of, is_var, shape_of, size_of, slice_of
from jaxchain.program.segment import Segment, computing, known_values
from jaxchain.samples.positions import candidates

__all__ = ["Onward", "onward_of"]

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
    boxes: Mapping[Var, Box]
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
        Where the positions lie, before and after; the axes of the state's leaves that count them.
    """

    program: Program
    sides: tuple[int, ...]
    equations: tuple[Equation, ...]
    labels: Mapping[int, Labels | None]
    into: Layout
    out: Layout
    axes: tuple[Sequence[int], Sequence[int]]
    parts: tuple[Stretch, ...]

    @property
    def share(self) -> float:
        """Of the work of all columns pushed through all of it."""
        return sum(part.share * (part.stop - part.start) for part in self.parts) / self.into.count

    def push(self, sides: Sequence[Any], state: Sequence[Any], columns: Triangle) -> Triangle:
        """J · columns."""
        given = [sides[k] for k in self.sides]
        tangents = self.program.invars[: len(state)]
        wanted = [v for v in self._read if v not in self.program.constants]
        at_point = computing(self.program, wanted, self.program.invars[len(tangents) :]).call(*given, *state)
        point = self.program.constants | dict(zip(wanted, at_point, strict=True))
        made = [self._through(part, point, each) for part, each in zip(self.parts, columns.parts, strict=True)]
        return Triangle(tuple(made), columns.into, self.out)

    @cached_property
    def _read(self) -> list[Var]:
        """What the tangent's equations read of the point."""
        made = {v for e in self.equations for v in e.writes} | set(self.program.invars[: len(self.axes[0])])
        outs = list(filter(is_var, self.program.outs))
        read = [v for e in self.equations for v in e.reads] + outs
        return [v for v in dict.fromkeys(read) if v not in made]

    def _through(self, part: Stretch, point: Mapping[Var, Any], columns: jax.Array) -> jax.Array:
        """(P − start, m, L, n), of the same before: one vector a column."""
        ins, outs = self.program.invars[: len(self.axes[0])], self.program.outs
        before, after = (layout.of_positions(self.into.count - part.start) for layout in (self.into, self.out))
        starts, ends = (
            [_from(v, axis, part.start) for v, axis in zip(vs, axes, strict=True)]
            for vs, axes in zip((ins, outs), self.axes, strict=True)
        )

        def one(column: jax.Array) -> jax.Array:
            flat = before.join(column, 0)
            leaves = pieces(flat, [_size(box) for box in starts])
            moving = {
                v: _fit(leaf.reshape(_lengths(box)), box, part.boxes[v])
                for v, leaf, box in zip(ins, leaves, starts, strict=True)
            }
            for k, equation in enumerate(self.equations):
                _evaluate(equation.eqn, self.labels[k], part.boxes, moving, point)
            made = [
                _fit(moving[v], part.boxes[v], box).reshape(-1) if v in moving else jnp.zeros(_size(box), columns.dtype)
                for v, box in zip(outs, ends, strict=True)
            ]
            return after.split(jnp.concatenate(made), 0)

        flat = columns.reshape(*columns.shape[:2], -1)
        made = jax.vmap(one, in_axes=2, out_axes=2)(flat)
        return made.reshape(*made.shape[:2], *columns.shape[2:])


def _from(var: Any, axis: int, start: int) -> Box:
    """The box of an array's later positions."""
    return tuple((start if k == axis else 0, size) for k, size in enumerate(shape_of(var)))


def _lengths(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def _size(box: Box) -> int:
    return math.prod(_lengths(box))


def _fit(value: jax.Array, box: Box, wanted: Box) -> jax.Array:
    """What is zero outside of one box, in another."""
    if box == wanted:
        return value
    inner = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, wanted, strict=True)]
    if any(start >= stop for start, stop in inner):
        return jnp.zeros(_lengths(wanted), value.dtype)
    cut = value[tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(inner, box, strict=True))]
    return jnp.pad(cut, [(lo - c, d - hi) for (lo, hi), (c, d) in zip(inner, wanted, strict=True)])


def _evaluate(
    eqn: JaxprEqn, how: Labels | None, boxes: Mapping[Var, Box], moving: dict[Var, jax.Array], point: Mapping[Var, Any]
) -> None:
    """One equation, in the box of its result; what is zero or does not matter is left out."""
    if not any(var in boxes for var in eqn.outvars):
        return
    if how is None:  # as it is, of whole arrays
        values = [_whole_value(atom, boxes, moving, point) for atom in eqn.invars]
        made = eqn.primitive.bind(*values, **eqn.params)
        for var, value in zip(eqn.outvars, made if eqn.primitive.multiple_results else [made], strict=True):
            if var in boxes:
                moving[var] = _fit(value, whole(var), boxes[var])
        return
    ranges = ranges_of(eqn, how, boxes)
    values = [
        _operand(atom, [ranges.get(label) if label is not None else None for label in own], boxes, moving, point)
        for atom, own in zip(eqn.invars, how.operands, strict=True)
    ]
    held = [_held(how, var, ranges) for var in eqn.outvars]
    made = _applied(eqn, values, held[0])
    for var, value, box in zip(eqn.outvars, made if eqn.primitive.multiple_results else [made], held, strict=True):
        if var in boxes:
            moving[var] = _fit(value, box, boxes[var])


def _held(how: Labels, var: Any, ranges: Mapping[int, tuple[int, int]]) -> Box:
    """The box of a result that is computed."""
    along = zip(how.out, shape_of(var), strict=True)
    return tuple((0, size) if label is None else ranges[label] for label, size in along)


def ranges_of(eqn: JaxprEqn, how: Labels, boxes: Mapping[Var, Box]) -> dict[int, tuple[int, int]]:
    """From where to where each label goes: in the result, or where it is summed, in the tangent that is read."""
    ranges: dict[int, tuple[int, int]] = {}
    for box in (boxes[var] for var in eqn.outvars if var in boxes):
        for label, (start, stop) in zip(how.out, box, strict=True):
            if label is not None:
                first, last = ranges.get(label, (start, stop))
                ranges[label] = min(first, start), max(last, stop)
    summed: dict[int, tuple[int, int]] = {}
    for atom, own in zip(eqn.invars, how.operands, strict=True):
        tangent = is_var(atom) and atom in boxes
        for label, along in zip(own, boxes[atom] if tangent else whole(atom), strict=False):
            if label is not None and label not in ranges and (tangent or label not in summed):
                summed[label] = along
    return ranges | summed


def _whole_value(atom: Any, boxes: Mapping[Var, Box], moving: Mapping[Var, jax.Array], point: Mapping[Var, Any]) -> Any:
    if not is_var(atom):
        return jnp.asarray(atom.val, dtype_of(atom))
    if atom in moving:
        return _fit(moving[atom], boxes[atom], whole(atom))
    return point[atom] if atom in point else jnp.zeros(shape_of(atom), dtype_of(atom))


def _operand(
    atom: Any,
    ranges: Sequence[tuple[int, int] | None],
    boxes: Mapping[Var, Box],
    moving: Mapping[Var, jax.Array],
    point: Mapping[Var, Any],
) -> Any:
    """An operand, in the ranges of its axes."""
    shape = shape_of(atom)
    if len(ranges) != len(shape):  # a number beside arrays
        ranges = [None] * len(shape)
    wanted = tuple((0, size) if along is None else along for along, size in zip(ranges, shape, strict=True))
    if is_var(atom) and atom in moving:
        return _fit(moving[atom], boxes[atom], wanted)
    if is_var(atom) and atom not in point:  # a tangent that is zero
        return jnp.zeros(_lengths(wanted), dtype_of(atom))
    value = point[atom] if is_var(atom) else jnp.asarray(atom.val, dtype_of(atom))
    return value[tuple(slice(*along) for along in wanted)] if wanted != whole(atom) else value


def _applied(eqn: JaxprEqn, values: Sequence[Any], box: Box) -> Any:
    """The operation, of smaller arrays."""
    name = eqn.primitive.name
    if name in ("reshape", "expand_dims", "squeeze"):
        return values[0].reshape(_lengths(box))
    if name == "broadcast_in_dim":
        return jax.lax.broadcast_in_dim(values[0], _lengths(box), broadcast_axes(eqn))
    if name == "slice":
        whole_axis = [
            before == after for before, after in zip(shape_of(eqn.invars[0]), shape_of(eqn.outvars[0]), strict=True)
        ]
        along = [
            (0, size, 1) if is_whole else cut
            for is_whole, size, cut in zip(whole_axis, values[0].shape, slice_of(eqn), strict=True)
        ]
        return values[0][tuple(slice(*cut) for cut in along)]
    return eqn.primitive.bind(*values, **eqn.params)


def onward_of(segment: Segment, carries: Sequence[bool]) -> Onward | None:
    """How columns are pushed through a stage in stretches of positions; ``None``: positions reach earlier ones, or nobody knows."""
    variables = [var for equation in segment.equations for var in equation.writes]
    state = (*segment.inputs, *segment.outputs)
    if (
        len(segment.equations) > MOST_EQUATIONS
        or sum(map(size_of, variables)) > MOST_NUMBERS
        or not all(carries)
        or not all(map(is_var, segment.outputs))
        or len({dtype_of(var) for var in state}) > 1
        or not any(count >= 2 * LEAST for _, count in candidates([shape_of(v) for v in segment.inputs]))
    ):
        return None
    try:
        program, sides = jvp_program(segment, carries)
    except REFUSALS as error:
        refusal(error)
        return None
    return _proven(segment, program, sides) if all(map(is_var, program.outs)) else None


def _proven(segment: Segment, program: Program, sides: tuple[int, ...]) -> Onward | None:
    tangents = program.invars[: len(segment.inputs)]
    moved = reach(program.eqns, tangents)
    equations = tuple(e for e in program.needed() if not moved.isdisjoint(e.writes))
    known = _known(program, equations, moved)
    labels = {k: _labels(e.eqn, moved, known) for k, e in enumerate(equations)}
    for axes, count in candidates([shape_of(v) for v in segment.inputs]):
        bounds = stretches(count)
        if len(bounds) < 2:
            continue
        reached = [_reached(program, equations, labels, known, tangents, axes, start) for start, _ in bounds]
        outs = [
            _axis(v, [(start, found) for (start, _), found in zip(bounds, reached, strict=True)], count)
            for v in program.outs
        ]
        if any(axis is None for axis in outs):
            continue
        parts: list[Stretch] = []
        for (start, stop), found in zip(bounds, reached, strict=True):
            boxes = {var: box for var, pattern in found.items() if (box := enclosing(pattern)) is not None}
            parts.append(Stretch(start, stop, boxes, _share(equations, labels, boxes)))
        into = Layout.of([shape_of(v) for v in tangents], [[axis] for axis in axes])
        out = Layout.of([shape_of(v) for v in program.outs], [[axis] for axis in outs])
        return Onward(program, sides, equations, labels, into, out, (axes, outs), tuple(parts))
    return None


def _known(program: Program, equations: Sequence[Equation], moved: set[Var]) -> dict[Var, np.ndarray]:
    """The values beside tangents that are the same at every call; and of others a pattern, where some are always zero."""
    beside = [v for e in equations for v in e.reads if v not in moved]
    masks = [v for e in program.needed() if e.name == "select_n" for v in e.reads]
    read = dict.fromkeys(v for v in (*beside, *masks) if v not in program.open)
    derived = [v for v in read if v not in program.constants]
    values = dict(zip(derived, known_values(program, derived), strict=True)) if derived else {}
    known = {v: np.asarray(program.constants[v] if v in program.constants else values[v]) for v in read}
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
            np.expand_dims(at, [k for k in range(len(shape_of(var))) if k != axis]), shape_of(var)
        )
    ends = {v: np.ones(shape_of(v), bool) for v in program.outs if is_var(v)}
    return followed(equations, labels, begin, known, ends)


def _axis(out: Any, reached: Sequence[tuple[int, Mapping[Var, np.ndarray]]], count: int) -> int | None:
    """The axis of a result along which nothing before the first position is reached."""
    for axis, size in enumerate(shape_of(out)):
        others = tuple(k for k in range(len(shape_of(out))) if k != axis)
        if size == count and not any(found[out].any(others)[:start].any() for start, found in reached if out in found):
            return axis
    return None


def _share(equations: Sequence[Equation], labels: Mapping[int, Labels | None], boxes: Mapping[Var, Box]) -> float:
    """Of a whole tangent's work, what is left in the boxes."""
    all_of_it = left = 0.0
    for k, equation in enumerate(equations):
        eqn, how = equation.eqn, labels[k]
        work = flops(eqn)
        all_of_it += work
        if not any(var in boxes for var in eqn.outvars):
            continue
        left += work if how is None else work * _part(eqn, how, boxes)
    return left / all_of_it if all_of_it else 1.0


def _part(eqn: JaxprEqn, how: Labels, boxes: Mapping[Var, Box]) -> float:
    ranges, sizes = ranges_of(eqn, how, boxes), dict[int, int]()
    for atom, own in zip((*eqn.invars, eqn.outvars[0]), (*how.operands, how.out), strict=True):
        sizes |= {label: size for label, size in zip(own, shape_of(atom), strict=False) if label is not None}
    return math.prod((ranges[label][1] - ranges[label][0]) / size for label, size in sizes.items() if size)
