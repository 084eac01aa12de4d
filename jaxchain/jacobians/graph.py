"""The derivative of a small stage as a graph of single numbers, read off the program of its JVP.

All that a tangent enters there is linear in it: numbers change places, are multiplied by values at the point, and
added. So a number of a tangent is a vertex, or another name of one where it only changed its place; and what it is
multiplied by is an edge. JAX's own rules, and those that others wrote, have said what the derivatives are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.cost.count import flops
from jaxchain.derivative import jvp
from jaxchain.errors import REFUSALS, refusal
from jaxchain.jacobians.elimination import ONE, Edge, Elimination, eliminate
from jaxchain.program.fingerprint import Kept
from jaxchain.program.flat import Equation, Program, needed
from jaxchain.program.flatten import flatten
from jaxchain.program.flow import reach
from jaxchain.program.primitives import (
    Atom,
    JaxprEqn,
    Var,
    axes_of,
    bind,
    broadcast_axes,
    dot_of,
    dtype_of,
    is_inexact,
    is_var,
    like,
    names_in,
    permutation_of,
    reshape_order,
    shape_of,
    size_of,
    slice_of,
)
from jaxchain.program.segment import Segment, computing, known_values
from jaxchain.show.values import count

__all__ = ["DerivativeGraph", "graph_of", "jvp_program"]

MOST_EQUATIONS, MOST_EDGES = 400, 2500
"""A stage or graph of more is not looked at: that takes long, and so does a program of so many numbers."""

MOST_BEFOREHAND = 100
"""Numbers that more equations make are not computed beforehand, to see which of them are zero: that takes long."""

MOST_NUMBERS = 10_000
"""As many numbers the tangents on the way have at most, wherever they only change places."""

MOST_OF_ARRAYS, MOST_OF_AN_ARRAY, WIDE = 100, 200, 3
"""Of a program of arrays, of so many numbers or more on average, or of an array alone at its ends, fewer numbers are
made: a basis is pushed through arrays quickly, and XLA computes a number anew in each loop that reads it."""

FOUND = Kept(256)
"""Eliminations by graph."""


@dataclass(frozen=True, eq=False)
class DerivativeGraph:
    """A stage's derivative as a graph, and the order in which it is eliminated.

    Attributes
    ----------
    program
        Of the JVP: of the tangent, of side values, of the state.
    sides
        Which of the stage's side values it takes; the others are constants of it.
    sources
        Where values come from, in order of their numbers: arrays, or a variable and what is made of it.
    elimination
        What is done.
    shape
        (m, n).
    """

    program: Program
    sides: tuple[int, ...]
    sources: tuple[np.ndarray | tuple[Var, Callable[[Any], Any]], ...]
    elimination: Elimination
    shape: tuple[int, int]
    dtype: Any

    @property
    def cost(self) -> float:
        """Multiply-adds; additions, multiplications count half."""
        return (self.elimination.multiplications + self.elimination.additions) / 2

    @property
    def words(self) -> str:
        """What is done."""
        return f"by eliminating its graph of numbers, {count(self.elimination.multiplications, 'multiplication')}"

    def matrix(self, sides: Sequence[Any], state: Sequence[Any]) -> jax.Array:
        """J (m, n)."""
        return self._compiled([sides[k] for k in self.sides], tuple(state))

    @cached_property
    def _compiled(self) -> Callable[..., jax.Array]:
        return jax.jit(self._matrix)  # a call of its own, so that outside jit it is one operation, not hundreds

    def _matrix(self, sides: Sequence[Any], state: Sequence[Any]) -> jax.Array:
        # Each number a scalar: XLA makes few loops of them, or under vmap of rows for the batch.
        values = self._at_point(sides, state)
        numbers = dict(enumerate((array[k] for array in values for k in range(array.size)), start=ONE))
        for number, one in self.elimination.made.items():
            numbers[number] = one.of(numbers.__getitem__)
        edges = {(edge.head, edge.tail): edge.value for edge in self.elimination.entries}
        found = [edges.get(place, 0) for place in np.ndindex(*self.shape)]
        zero = jnp.zeros((), self.dtype)
        entries = [numbers[n] if n > 0 else -numbers[-n] if n else zero for n in found]
        return jnp.stack(entries).reshape(self.shape) if entries else jnp.zeros(self.shape, self.dtype)

    def _at_point(self, sides: Sequence[Any], state: Sequence[Any]) -> list[jax.Array]:
        """The values that are given, in order of their numbers, of which 1 is the first."""
        wanted = [source[0] for source in self.sources if isinstance(source, tuple)]
        variables = list(dict.fromkeys(wanted))
        call = computing(self.program, variables, self.program.invars[1:]).call
        at = dict(zip(variables, call(*sides, *state), strict=True))
        made = [s[1](at[s[0]]) if isinstance(s, tuple) else jnp.asarray(s) for s in self.sources]
        return [jnp.ones(1, self.dtype), *(value.reshape(-1).astype(self.dtype) for value in made)]


class _RefusedError(Exception):
    """The derivative is no small graph of numbers."""


def graph_of(segment: Segment, carries: Sequence[bool]) -> DerivativeGraph | None:
    """The graph of a small stage's derivative; ``None`` where it is large, or something else than numbers in it.

    Parameters
    ----------
    segment
        Of one mode of differentiation at least: forward mode.
    carries
        Which variables of its state carry a derivative.
    """
    sizes = [size_of(var) for equation in segment.equations for var in equation.writes]
    if (
        len(segment.equations) > MOST_EQUATIONS
        or sum(sizes) > MOST_NUMBERS
        or sum(map(size_of, segment.sides)) > MOST_NUMBERS
        or _products(segment) > MOST_EDGES
    ):
        return None
    if any(equation.name in WHOLE for equation in segment.equations):
        return None
    try:
        here = Coordinates.of(tuple(map(like, segment.inputs)))
        program, sides = jvp_program(segment, carries, here)
        return _Builder(program, here).graph(sides)
    except _RefusedError:
        return None
    except REFUSALS as error:
        refusal(error)
        return None


def _products(segment: Segment) -> float:
    """How many edges the products with matrices have that are unknown: they are all of them, none is known to be zero."""
    unknown = reach((e.eqn for e in segment.equations), segment.inputs) | segment.program.open
    dots = [e.eqn for e in segment.equations if e.name == "dot_general" and unknown.issuperset(e.reads)]
    return sum(map(flops, dots)) / 2


WHOLE = names_in("loop", "matrix", "solve", "opaque", "collective", "sparse", "effect", "fourier", "order", "random")
"""Primitives whose derivative is not looked into."""


def jvp_program(
    segment: Segment, carries: Sequence[bool], here: Coordinates | None = None
) -> tuple[Program, tuple[int, ...]]:
    """The program of a stage's JVP, and which of its side values it takes; the others are constants of it.

    Its arguments are the tangent (a leaf each, or with ``here`` one vector of coordinates), those side values, the state.
    """
    if len(needed(segment.program.equations, set(segment.sides) - (free := _open(segment)))) > MOST_BEFOREHAND:
        free.update(filter(is_inexact, segment.sides))  # places among the side values are still looked up
    sides = tuple(k for k, var in enumerate(segment.sides) if var in free)
    fixed = known_values(segment.program, [var for var in segment.sides if var not in free])

    def linear(tangent: Any, given: list[Any], state: tuple[Any, ...]) -> Any:
        known, own = iter(fixed), iter(given)
        values = [next(own if var in free else known) for var in segment.sides]
        leaves = tangent if here is None else here.unflatten(tangent)
        return jvp(lambda state: tuple(segment.call(*values, *state)), state, leaves, carries)[1]

    given, state = [like(segment.sides[k]) for k in sides], tuple(map(like, segment.inputs))
    tangent = state if here is None else jax.ShapeDtypeStruct((here.size,), here.dtype)
    return flatten(jax.make_jaxpr(linear)(tangent, given, state)), sides


def _open(segment: Segment) -> set[Var]:
    return {var for var in segment.sides if var in segment.program.open}


@dataclass
class _Builder:
    """Goes through a program once, and follows the numbers of its tangent."""

    program: Program
    here: Coordinates
    edges: list[Edge] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    numbers: dict[Any, int] = field(default_factory=dict)
    values: int = ONE
    vertices: int = 0

    def graph(self, sides: tuple[int, ...]) -> DerivativeGraph:
        (vector, *_), program = self.program.invars, self.program
        n = self.vertices = size_of(vector)
        moved = reach(program.eqns, [vector])
        ids: dict[Var, np.ndarray] = {vector: np.arange(1, n + 1)}
        for equation in program.needed():
            if moved.isdisjoint(equation.writes):
                continue
            if any(dtype_of(var) != self.here.dtype for var in equation.writes):
                raise _RefusedError
            operands = [ids.get(atom, atom) if is_var(atom) else atom for atom in equation.eqn.invars]
            ids.update(zip(equation.eqn.outvars, self._of(equation, operands), strict=True))
            if len(self.edges) > MOST_EDGES:
                raise _RefusedError
        most = MOST_OF_AN_ARRAY if _are_wide(self.here.leaves) else MOST_EDGES
        if _are_wide([source[0].aval for source in self.sources if isinstance(source, tuple)]):
            most = MOST_OF_ARRAYS
        outs = [ids[out].ravel() if is_var(out) and out in ids else np.zeros(size_of(out), int) for out in program.outs]
        out = np.concatenate(outs) if outs else np.zeros(0, int)
        first = self.vertices + 1
        for row, vertex in enumerate(out.tolist()):
            if vertex:
                self.edges.append(Edge(abs(vertex), first + row, ONE if vertex > 0 else -ONE))
        inner = range(n + 1, first)
        key = tuple(self.edges), n, self.values
        found = FOUND.get(key, lambda: eliminate(self.edges, inner, self.values, most))
        if len(found.made) > most:
            raise _RefusedError
        entries = [Edge(e.tail - 1, e.head - first, e.value) for e in found.entries]
        elimination = Elimination(tuple(entries), found.made)
        return DerivativeGraph(program, sides, tuple(self.sources), elimination, (len(out), n), self.here.dtype)

    def vertex(self, terms: Sequence[tuple[int, int]]) -> int:
        """The sum of some (value, vertex), each of them or minus it; zeros are left out."""
        terms = [(value, tail) for value, tail in terms if value and tail]
        if not terms:
            return 0
        if len(terms) == 1 and abs(terms[0][0]) == ONE:
            return math.prod(terms[0])
        self.vertices += 1
        self.edges += [Edge(abs(tail), self.vertices, value if tail > 0 else -value) for value, tail in terms]
        return self.vertices

    def at_point(self, atom: Atom, made: Callable[[Any], Any] = lambda value: value, key: Any = None) -> np.ndarray:
        """Numbers of an operand's values, or of what is ``made`` of them; zeros and ones where they are known."""
        known = self.known(atom)
        if known is not None:
            with np.errstate(divide="ignore"):
                values = np.asarray(made(known), float)
            return np.vectorize(self.constant, otypes=[int])(values) if values.size else values.astype(int)
        assert is_var(atom)
        if (atom, key) not in self.numbers:
            self.numbers[atom, key] = self.values + 1
            self.sources.append((atom, made))
            self.values += size_of(atom)
        return self.numbers[atom, key] + np.arange(size_of(atom)).reshape(shape_of(atom))

    def constant(self, value: float) -> int:
        """The number of a value that is known."""
        if value in (0.0, 1.0, -1.0):
            return int(value) * ONE
        if value not in self.numbers:
            self.values += 1
            self.numbers[value] = self.values
            self.sources.append(np.array([value]))
        return self.numbers[value]

    def known(self, atom: Atom) -> np.ndarray | None:
        """The value of an operand, where it has one before any call."""
        if not is_var(atom):
            return np.asarray(atom.val)
        if atom in self.program.open:
            return None
        constants = self.program.constants
        return np.asarray(constants[atom] if atom in constants else self._derived[atom])

    def tails(self, operand: Any) -> np.ndarray:
        """The vertices of an operand: none, where it stands beside tangents, and can be zero alone."""
        if isinstance(operand, np.ndarray):
            return operand
        known = self.known(operand)
        if known is None or known.any():
            raise _RefusedError
        return np.zeros(shape_of(operand), int)

    @cached_property
    def _derived(self) -> dict[Var, jax.Array]:
        """Values of what is computed from constants alone: of all of it at once, since each program is compiled."""
        reads = dict.fromkeys(var for equation in self.program.needed() for var in equation.reads)
        wanted = [var for var in reads if var not in self.program.open and var not in self.program.constants]
        return dict(zip(wanted, known_values(self.program, wanted), strict=True))

    def _of(self, equation: Equation, operands: list[Any]) -> list[np.ndarray]:
        if (rule := RULES.get(equation.name)) is not None:
            made = rule(self, equation.eqn, operands)
        elif equation.name in PLACES:
            made = _moved(self, equation.eqn, operands)
        else:
            made = _constant_map(self, equation.eqn, operands)
        return [np.asarray(array) for array in (made if isinstance(made, list) else [made])]


def _are_wide(arrays: Sequence[Any]) -> bool:
    """Whether arrays have many numbers, on average."""
    return sum(array.size for array in arrays) >= WIDE * len(arrays)


Made = np.ndarray | list[np.ndarray]
each_vertex = np.vectorize(lambda build, value, vertex: build.vertex([(value, vertex)]), otypes=[int])


def _product(build: _Builder, _eqn: JaxprEqn, operands: list[Any]) -> Made:
    one, two = operands
    if isinstance(one, np.ndarray) == isinstance(two, np.ndarray):
        raise _RefusedError
    ids, by = (one, two) if isinstance(one, np.ndarray) else (two, one)
    return each_vertex(build, *np.broadcast_arrays(build.at_point(by), ids))


def _quotient(build: _Builder, _eqn: JaxprEqn, operands: list[Any]) -> Made:
    ids, by = operands
    if not isinstance(ids, np.ndarray) or isinstance(by, np.ndarray):
        raise _RefusedError
    return each_vertex(build, *np.broadcast_arrays(build.at_point(by, lambda value: 1 / value, "1/"), ids))


def _sum(sign: int) -> Callable[..., Made]:
    def rule(build: _Builder, _eqn: JaxprEqn, operands: list[Any]) -> Made:
        one, two = map(build.tails, operands)
        return np.vectorize(lambda a, b: build.vertex([(ONE, a), (sign * ONE, b)]), otypes=[int])(one, two)

    return rule


def _choice(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    which, *cases = operands
    shape = shape_of(eqn.outvars[0])
    flat = [np.broadcast_to(build.tails(case), shape).ravel() for case in cases]
    takes = [build.at_point(which, lambda value, k=k: (value == k) * 1.0, ("is", k)) for k in range(len(cases))]
    takes = [np.broadcast_to(take, shape).ravel() for take in takes]
    made = []
    for entry in range(flat[0].size):
        ids = [int(case[entry]) for case in flat]
        same = len(set(ids)) == 1  # whichever is taken
        made.append(ids[0] if same else build.vertex([(int(t[entry]), i) for t, i in zip(takes, ids, strict=True)]))
    return np.array(made, int).reshape(shape)


def _added_up(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    (ids,), axes = operands, axes_of(eqn)
    kept = [axis for axis in range(ids.ndim) if axis not in axes]
    rows = ids.transpose(*kept, *axes).reshape(*(ids.shape[axis] for axis in kept), -1)
    return np.apply_along_axis(lambda row: build.vertex([(ONE, int(i)) for i in row]), -1, rows).astype(int)


def _dot(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    one, two = operands
    if isinstance(one, np.ndarray) == isinstance(two, np.ndarray):
        raise _RefusedError
    product, out = dot_of(eqn), eqn.outvars[0]
    grids = [op if isinstance(op, np.ndarray) else build.at_point(op) for op in operands]
    parts = []
    for side, grid in enumerate(grids):
        batch, contracted = product.batched[side], product.contracted[side]
        free = product.free(side, grid.ndim)
        sizes = (math.prod(grid.shape[axis] for axis in axes) for axes in (batch, free, contracted))
        parts.append(grid.transpose(*batch, *free, *contracted).reshape(*sizes))
    (ids, by) = parts if isinstance(one, np.ndarray) else parts[::-1]
    if ids.size * by.shape[1] > 4 * MOST_EDGES:
        raise _RefusedError
    made = np.zeros((ids.shape[0], ids.shape[1], by.shape[1]), int)
    for b, i, j in np.ndindex(made.shape):
        made[b, i, j] = build.vertex(list(zip(by[b, j].tolist(), ids[b, i].tolist(), strict=True)))
    made = made if isinstance(one, np.ndarray) else made.transpose(0, 2, 1)
    return made.reshape(shape_of(out))


def _negative(_build: _Builder, _eqn: JaxprEqn, operands: list[Any]) -> Made:
    return -operands[0]


def _same(_build: _Builder, _eqn: JaxprEqn, operands: list[Any]) -> Made:
    return operands[0]


def _reshaped(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    if reshape_order(eqn) is not None:
        return _moved(build, eqn, operands)
    return operands[0].reshape(shape_of(eqn.outvars[0]))


def _transposed(_build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    return operands[0].transpose(permutation_of(eqn))


def _broadcast(_build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    shape, places = shape_of(eqn.outvars[0]), broadcast_axes(eqn)
    spread = [1] * len(shape)
    for axis, place in enumerate(places):
        spread[place] = operands[0].shape[axis]
    return np.broadcast_to(operands[0].reshape(spread), shape)


def _side_by_side(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    return np.concatenate(list(map(build.tails, operands)), axes_of(eqn)[0])


def _cut_out(_build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    return operands[0][tuple(slice(*along) for along in slice_of(eqn))]


def _moved(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    """Numbers that change places: so do the names of their vertices."""
    given = []
    for op in operands:
        value = build.tails(op) if isinstance(op, np.ndarray) or is_inexact(op) else build.known(op)
        if value is None:
            raise _RefusedError  # a place that the point decides
        given.append(value if value.dtype.kind in "bu" else value.astype(np.int32))
    with jax.ensure_compile_time_eval():
        made = bind(eqn, [*map(jnp.asarray, given)])
    arrays = [np.asarray(array).astype(int) for array in (made if isinstance(made, (list, tuple)) else [made])]
    if any((np.abs(array) > build.vertices).any() for array in arrays):
        raise _RefusedError  # filled in from outside
    return arrays


def _constant_map(build: _Builder, eqn: JaxprEqn, operands: list[Any]) -> Made:
    """Any small linear map that is known before any call: its matrix, entry by entry."""
    moved = [k for k, op in enumerate(operands) if isinstance(op, np.ndarray)]
    others = [None if k in moved else build.known(op) for k, op in enumerate(operands)]
    ids, out = np.concatenate([operands[k].ravel() for k in moved]), eqn.outvars[0]
    if len(eqn.outvars) != 1 or sum(other is None for other in others) > len(moved):
        raise _RefusedError
    if ids.size * size_of(out) > 4 * MOST_EDGES:
        raise _RefusedError
    ends = np.cumsum([operands[k].size for k in moved])[:-1]

    def of_one(vector: jax.Array) -> jax.Array:
        parts = iter(jnp.split(vector, ends))
        given = [
            next(parts).reshape(operands[k].shape) if k in moved else jnp.asarray(other)
            for k, other in enumerate(others)
        ]
        return bind(eqn, given)

    with jax.ensure_compile_time_eval():
        basis = jnp.eye(ids.size, dtype=dtype_of(out))
        rows = np.asarray(jax.vmap(of_one)(basis), float).reshape(ids.size, -1).T
    made = [build.vertex([(build.constant(value), int(i)) for value, i in zip(row, ids, strict=True)]) for row in rows]
    return np.array(made, int).reshape(shape_of(out))


PLACES = names_in("layout", "index") - {
    "bitcast_convert_type",
    "scatter-add",
    "scatter-mul",
    "scatter-min",
    "scatter-max",
}
"""Primitives that move numbers, and compute none."""

RULES: dict[str, Callable[[_Builder, JaxprEqn, list[Any]], Made]] = {
    "add": _sum(1),
    "add_any": _sum(1),
    "broadcast_in_dim": _broadcast,
    "concatenate": _side_by_side,
    "convert_element_type": _same,
    "copy": _same,
    "div": _quotient,
    "dot_general": _dot,
    "expand_dims": _reshaped,
    "mul": _product,
    "neg": _negative,
    "reduce_sum": _added_up,
    "reshape": _reshaped,
    "select_n": _choice,
    "slice": _cut_out,
    "squeeze": _reshaped,
    "sub": _sum(-1),
    "transpose": _transposed,
}
"""Primitives by what they are to a tangent."""
