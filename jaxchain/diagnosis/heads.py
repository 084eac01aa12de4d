"""Heads of attention: the products of a stage that mix positions, found by value, and how much of J passes each.

A product mixes where one operand is computed from the state, is nowhere negative and sums to one along the axis that
is contracted: it holds the weights of every query on all keys, whoever wrote the attention. With o the product's
result, B = ∂o/∂x and A = ∂y/∂o, the stage's Jacobian is J = J_rest + Σ_h A_h B_h, where A_h are the columns and B_h the
rows that belong to head h: all that passes it. Builds on a stage's segment and on `derivative`.

References: Vaswani et al., Attention is all you need, 2017; Hutchinson, A stochastic estimator of the trace, 1990.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxchain.cost.count import total_flops
from jaxchain.derivative import Linear
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.flat import Equation, needed
from jaxchain.program.flow import active
from jaxchain.program.interpret import interpret, numbers_of
from jaxchain.program.primitives import Atom, Var, dot_of, dtype_of, is_var, ndim_of, shape_of, size_of
from jaxchain.program.segment import Segment
from jaxchain.samples.positions import position_axes
from jaxchain.show.extremes import Floats
from jaxchain.stage import Side, State

__all__ = ["Mixing", "Shares", "mixings"]

CHUNK = 64
"""Tangents pushed at once, and the most random ones that a norm is estimated from."""

FEWEST = 2
"""The fewest random tangents that a norm is estimated from, whatever they cost: where they do, n is large, and few tell."""


@dataclass(frozen=True)
class Shares:
    """How much of a stage's Jacobian passes each head: Frobenius norms over that of J.

    They do not add up to one, since the parts of a sum are not orthogonal to each other.

    Attributes
    ----------
    heads
        ‖A_h B_h‖ / ‖J‖.
    rest
        ‖J_rest‖ / ‖J‖: what passes no head.
    tangents
        From how many random tangents they are estimated; ``None``: computed from a whole basis.
    """

    heads: tuple[float, ...]
    rest: float
    tangents: int | None


@dataclass(frozen=True, eq=False)
class Mixing:
    """A product whose one operand is weights.

    Attributes
    ----------
    weights
        (heads, queries, keys); rows sum to one. Of several samples those of the first.
    samples
        How many samples there are.
    owner
        The head that each coordinate of the product's result belongs to.
    into, out, past
        x ↦ o; o ↦ y, where o enters as it does in the stage; x ↦ y, o held fixed.
    work
        Floating-point operations of pushing one tangent through all of them, once a head through ``out``.
    """

    weights: NDArray[np.float32]
    samples: int
    owner: NDArray[np.intp]
    into: Linear
    out: Linear
    past: Linear
    work: float

    def shares(self, work: float) -> Shares | None:
        """Each head's share of J, for about so many operations; ``None`` where forward mode does not exist."""
        n, count = self.into.here.size, len(self.weights)
        whole = n * self.work <= work
        tangents = n if whole else int(np.clip(work // self.work, FEWEST, CHUNK))
        owned = jnp.asarray(self.owner[:, None] == np.arange(count), self.out.here.dtype)

        def squares(basis: jax.Array) -> jax.Array:
            """Sums of squares of each A_h B_h, J_rest and J, times the columns of a basis."""
            mixed = self.into.columns(basis).astype(owned.dtype)
            each = self.out.columns((owned[:, :, None] * mixed[:, None, :]).reshape(len(owned), -1))
            rest = self.past.columns(basis)
            parts = jnp.concatenate([each.reshape(len(rest), count, -1), rest[:, None]], 1).astype(float)
            return jnp.square(jnp.concatenate([parts, parts.sum(1, keepdims=True)], 1)).sum((0, 2))

        directions = np.eye(n) if whole else np.random.default_rng(3).normal(size=(n, tangents))
        chunks = [_padded(directions[:, k : k + CHUNK], min(CHUNK, tangents)) for k in range(0, tangents, CHUNK)]
        columns = [jnp.asarray(chunk, self.into.here.dtype) for chunk in chunks]
        try:
            for linear in (self.into, self.out, self.past):  # linearised here, not within the trace
                linear.value("forward")
            traced = jax.make_jaxpr(squares)(columns[0])
        except REFUSALS as error:
            refusal(error)
            return None
        norms = np.sqrt(sum(np.asarray(interpret(traced, [chunk])[0], np.float64) for chunk in columns))
        with np.errstate(all="ignore"):
            *heads, rest = (norms[:-1] / norms[-1]).tolist()
        return Shares(tuple(heads), rest, None if whole else tangents)


def _padded(columns: Floats, width: int) -> Floats:
    """As many columns as all other chunks have, so that one program does for all."""
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def mixings(stage: DiscoveredStage, side: Side, state: State) -> list[Mixing]:
    """The products of a stage that mix positions, at its side inputs and state, in order of evaluation.

    What a fused primitive, a loop or a call with its own derivative rule does inside is not looked at.
    """
    segment, leaves = stage.segment, jax.tree.leaves(state)
    moved = active((e.eqn for e in segment.equations), itertools.compress(segment.inputs, stage.carries))
    candidates = [(e, k) for e in segment.equations for k in _candidates(e) if e.eqn.invars[k] in moved]
    if not candidates:
        return []
    operands = _part(segment, segment.inputs, [e.eqn.invars[k] for e, k in candidates])
    values = numbers_of(partial(_call, segment, side, operands), *leaves)
    return [
        _mixing(stage, side, state, equation, layout, np.asarray(value, np.float32))
        for (equation, k), value in zip(candidates, values, strict=True)
        if _are_weights(value, dot_of(equation.eqn).contracted[k][0])
        and (layout := _layout(segment, equation, k)) is not None
    ]


def _candidates(equation: Equation) -> list[int]:
    """The operands of a product that may be weights: summed over one axis of several keys, and others stay."""
    if equation.name != "dot_general" or not jnp.issubdtype(dtype_of(equation.eqn.outvars[0]), jnp.floating):
        return []
    dot, atoms = dot_of(equation.eqn), equation.eqn.invars
    return [
        k
        for k, (atom, axes) in enumerate(zip(atoms, dot.contracted, strict=True))
        if is_var(atom)
        and jnp.issubdtype(dtype_of(atom), jnp.floating)
        and size_of(atom)
        and len(axes) == 1
        and shape_of(atom)[axes[0]] > 1
        and dot.free(k, ndim_of(atom))
    ]


def _are_weights(value: Any, axis: int) -> bool:
    """Whether an operand is nowhere negative and sums to one along an axis, within the rounding of its dtype."""
    wide = np.asarray(value, np.float64)
    near = max(1e-5, 4 * float(jnp.finfo(value.dtype).eps))
    return bool((wide >= 0).all() and (np.abs(wide.sum(axis) - 1) <= near).all())


class _Layout(NamedTuple):
    """Which axes of weights are what, and which of the product's result the heads lie along."""

    samples: list[int]
    heads: list[int]
    queries: int
    keys: int
    heads_out: list[int]


def _layout(segment: Segment, equation: Equation, k: int) -> _Layout | None:
    """The layout of the weights that are operand ``k`` of a product; ``None`` where each sample has but one query."""
    dot, atoms = dot_of(equation.eqn), equation.eqn.invars
    free = dot.free(k, ndim_of(atoms[k]))
    first = len(dot.batched[k]) + (len(dot.free(0, ndim_of(atoms[0]))) if k else 0)
    # In the result the batched axes come first, then the left's free ones, then the right's.
    out = dict(zip(dot.batched[k], itertools.count())) | dict(zip(free, itertools.count(first)))
    samples = [axis for axis in _sample_axes(segment, atoms[k]) if axis in out]
    queries = [axis for axis in free if axis not in samples]
    if not queries:
        return None
    heads = sorted(out.keys() - {*samples, queries[-1]}, key=out.__getitem__)
    return _Layout(samples, heads, queries[-1], dot.contracted[k][0], [out[axis] for axis in heads])


def _mixing(
    stage: DiscoveredStage, side: Side, state: State, equation: Equation, layout: _Layout, weights: NDArray[np.float32]
) -> Mixing:
    """The product that ``equation`` is, its weights laid out like that."""
    segment, leaves = stage.segment, jax.tree.leaves(state)
    samples, heads, queries, keys, heads_out = layout
    rows = weights.transpose(*samples, *heads, queries, keys)
    count, several = (math.prod(weights.shape[axis] for axis in axes) for axes in (heads, samples))
    (o,) = equation.writes
    numbers = np.arange(count).reshape([n if axis in heads_out else 1 for axis, n in enumerate(shape_of(o))])
    into = _part(segment, segment.inputs, [o])
    past = _part(segment, [*segment.inputs, o], segment.outputs, without=equation)
    mixed = numbers_of(partial(_call, segment, side, into), *leaves)[0]
    work = [total_flops(e.eqn for e in part.equations) for part in (into, past)]
    return Mixing(
        weights=rows.reshape(several, count, *rows.shape[-2:])[0],
        samples=several,
        owner=np.broadcast_to(numbers, shape_of(o)).ravel(),
        into=Linear(lambda x: _call(segment, side, into, *jax.tree.leaves(x))[0], state, stage.carries),
        out=Linear(lambda value: _call(segment, side, past, *leaves, value), mixed),
        past=Linear(lambda x: _call(segment, side, past, *jax.tree.leaves(x), mixed), state, stage.carries),
        work=2 * (work[0] + (1 + count) * work[1]),
    )


def _sample_axes(segment: Segment, weights: Atom) -> tuple[int, ...]:
    """The axes of weights along which samples lie: those of the state that never mix on the way to them."""
    proven = position_axes(_part(segment, segment.inputs, [weights]))
    return () if proven is None else proven.out[0]


def _part(segment: Segment, inputs: Sequence[Var], outputs: Sequence[Atom], without: Equation | None = None) -> Segment:
    """What of a segment computes ``outputs`` from ``inputs``; with ``without`` one of these is what that writes."""
    kept = needed([e for e in segment.equations if e is not without], filter(is_var, outputs))
    return Segment(tuple(kept), tuple(inputs), tuple(outputs), segment.program)


def _call(segment: Segment, side: Side, part: Segment, *given: Any) -> list[Any]:
    """The outputs of a part of a segment, of its inputs and the side inputs of the whole."""
    known = dict(zip(segment.sides, side, strict=True))
    return part.call(*(known[var] for var in part.sides), *given)
