"""A survey: one walk along a chain, there and back: what every state and stage is at one point.

Norms of states, tangents and cotangents; each stage's local Jacobian, whole where that is cheap
enough and else some of its columns. What does not exist for a stage (forward mode through a custom
VJP, reverse mode through a while loop) is left out, and a note says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates, check_like, random_direction, require_inexact
from jaxchain.cost.count import total_flops
from jaxchain.derivative import Linear, Pass, jvp, vjp
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.flatten import flatten
from jaxchain.program.interpret import interpret, numbers_of
from jaxchain.show.extremes import Floats
from jaxchain.stage import Side, Stage, State
from jaxchain.structure import Structure
from jaxchain.swept import state_norm

__all__ = ["Link", "Survey", "survey"]

WORK = 4e10
"""Floating-point operations that local Jacobians may take together: some seconds on a small machine."""

DECOMPOSITIONS = 1e10
"""The same for their singular values, m·n·min(m, n) each."""

ENTRIES = 1 << 22
"""The most entries of one matrix that is accumulated whole."""

CHUNK = 64
"""Columns pushed at once."""

STEPS = 8
"""Power steps for the largest singular value of what is not decomposed."""


@dataclass(frozen=True)
class Link:
    """One stage at one point.

    Attributes
    ----------
    stage
        The stage.
    shape
        (m, n) of its local Jacobian.
    work
        Floating-point operations of one call.
    matrix
        The local Jacobian (m, n), or (m, len(columns)), or ``None``.
    columns
        Which columns ``matrix`` holds; ``None``: all.
    structure
        What the matrix is; ``None`` where it is not known whole or too large to decompose.
    sigma
        Its singular values, largest first; ``None`` likewise, or where an entry is not finite.
    largest
        The largest one, where they are not all known: a lower bound by some power steps; ``None`` where that failed.
    gradient
        Norm of the cotangent of its side inputs; ``None`` where it has none or they were not computed.
    refusal
        Why there is no matrix.
    """

    stage: Stage
    shape: tuple[int, int]
    work: float
    matrix: Floats | None = None
    columns: tuple[int, ...] | None = None
    structure: Structure | None = None
    sigma: Floats | None = None
    largest: float | None = None
    gradient: float | None = None
    refusal: str = ""

    @property
    def whole(self) -> Floats | None:
        """The local Jacobian where all of it was accumulated."""
        return self.matrix if self.columns is None else None


@dataclass(frozen=True)
class Survey:
    """A chain at one point: q links between q + 1 states, norms by state, and what was left out.

    ``tangent`` and ``cotangent`` are the directions that were followed, at the input and at the output.
    """

    links: tuple[Link, ...]
    states: tuple[State, ...]
    primals: tuple[float, ...]
    tangents: tuple[float | None, ...]
    cotangents: tuple[float | None, ...]
    tangent: State
    cotangent: State
    notes: tuple[str, ...]


def survey(chain: Chain, args: tuple[Any, ...], tangent: State | None = None, cotangent: State | None = None) -> Survey:
    """Go along ``chain`` at ``args``; arguments as for the sweeps, directions of length one by default."""
    state, sides = numbers_of(chain.split, *args)
    state = require_inexact(state, "chain input")
    tangent = random_direction(state, 0) if tangent is None else check_like(tangent, state, "tangent", "chain input")
    states, pulls, notes, tangents = [state], list[Any](), list[str](), [tangent]
    for stage, side in zip(chain, sides, strict=True):
        tangents.append(_pushed(stage, side, states[-1], tangents[-1], notes))
        out, pull = _linear(stage, side, states[-1], notes)
        states.append(jax.tree.map(jnp.asarray, out))
        pulls.append(pull)
    if not jax.tree.leaves(states[-1]):
        msg = f"The last stage, {chain.names[-1]!r}, returns no array, so there is nothing to differentiate."
        raise TypeError(msg)
    cotangent = (
        random_direction(states[-1], 1)
        if cotangent is None
        else check_like(cotangent, states[-1], "cotangent", "chain output")
    )
    cotangents, gradients = _pulled(chain, pulls, cotangent, notes)
    spaces = [Coordinates.of(state) for state in states]
    work = [_work(stage, side, x) for stage, side, x in zip(chain, sides, states, strict=False)]
    counts = _affordable(work, spaces)
    links = [
        replace(_link(stage, side, x, pair, cost, count, DECOMPOSITIONS / len(chain)), gradient=gradient)
        for stage, side, x, pair, cost, count, gradient in zip(
            chain, sides, states, pairwise(spaces), work, counts, gradients, strict=False
        )
    ]
    return Survey(
        tuple(links),
        tuple(states),
        tuple(map(state_norm, states)),
        _norms(tangents),
        _norms(cotangents),
        tangent,
        cotangent,
        tuple(dict.fromkeys(notes)),
    )


def _norms(states: Sequence[State | None]) -> tuple[float | None, ...]:
    return tuple(None if state is None else state_norm(state) for state in states)


def _pushed(stage: Stage, side: Side, state: State, tangent: State | None, notes: list[str]) -> State | None:
    if tangent is None:
        return None
    try:
        return numbers_of(lambda x, t: jvp(partial(stage, *side), x, t, stage.carries)[1], state, tangent)
    except REFUSALS as error:
        notes.append(f"No tangent passes {stage.name}: {refusal(error)}.")
        return None


def _linear(stage: Stage, side: Side, state: State, notes: list[str]) -> tuple[State, Any]:
    out = numbers_of(stage, *side, state)  # whatever is wrong with the stage itself is raised here

    def pull(cotangent: State) -> tuple[Any, ...]:
        return numbers_of(lambda c, *given: vjp(stage, *given, which=stage.carries_back)[1](c), cotangent, *side, state)

    try:
        jax.eval_shape(lambda *given: vjp(stage, *given, which=stage.carries_back)[0], *side, state)
    except REFUSALS as error:
        notes.append(f"No cotangent passes {stage.name}: {refusal(error)}.")
        return out, None
    return out, pull


def _pulled(
    chain: Chain, pulls: Sequence[Any], cotangent: State, notes: list[str]
) -> tuple[list[State | None], list[float | None]]:
    """Cotangents of all states, and the norm of that of every stage's side inputs."""
    cotangents: list[State | None] = [cotangent]
    gradients: list[float | None] = []
    for stage, pull in zip(reversed(chain.stages), reversed(pulls), strict=True):
        before, gradient = None, None
        if pull is not None and cotangents[-1] is not None:
            try:
                *side, before = pull(cotangents[-1])
                gradient = state_norm(side) if jax.tree.leaves(side) else None
            except REFUSALS as error:
                notes.append(f"No cotangent passes {stage.name}: {refusal(error)}.")
        cotangents.append(before)
        gradients.append(gradient)
    return cotangents[::-1], gradients[::-1]


def _work(stage: Stage, side: Side, state: State) -> float:
    return total_flops(flatten(jax.make_jaxpr(stage)(*side, state)).eqns)


def _affordable(work: Sequence[float], spaces: Sequence[Coordinates]) -> list[int | None]:
    """How many columns of each local Jacobian to compute; ``None``: all of it."""
    sizes = [(there.size, here.size) for here, there in pairwise(spaces)]
    share = WORK / max(sum(2 * cost * min(size) for cost, size in zip(work, sizes, strict=True)), WORK)
    counts: list[int | None] = []
    for m, n in sizes:
        most = min(int(share * n), ENTRIES // max(m, 1))
        counts.append(None if most >= n else max(most, min(n, 8)))
    return counts


def _link(
    stage: Stage,
    side: Side,
    state: State,
    spaces: tuple[Coordinates, Coordinates],
    work: float,
    count: int | None,
    most: float,
) -> Link:
    here, there = spaces
    link = Link(stage, (there.size, here.size), work)
    linear = Linear(partial(stage, *side), state, stage.carries)
    try:
        if count is not None:
            columns = tuple(np.unique(np.linspace(0, here.size - 1, count).astype(int)).tolist())
            some = np.asarray(_some_columns(linear, columns), np.float64)
            return replace(link, matrix=some, columns=columns, largest=_largest(linear))
        matrix = np.zeros(link.shape) if 0 in link.shape else np.asarray(numbers_of(linear.matrix))
    except REFUSALS as error:
        return replace(link, refusal=f"{refusal(error)}.")
    wide = matrix.astype(np.float64)
    if wide.size * min(wide.shape) > most:
        fresh = replace(linear)  # what was kept of the trace above has no place outside it
        return replace(link, matrix=wide, largest=_largest(fresh))
    sigma = np.linalg.svd(wide, compute_uv=False) if wide.size and np.isfinite(wide).all() else None
    return replace(link, matrix=wide, structure=Structure.of(matrix, here.shape, there.shape), sigma=sigma)


def _largest(linear: Linear) -> float | None:
    """σ₁ from below: ‖J v‖ after power steps v ← Jᵀ J v from a random direction (Golub and Van Loan, ch. 8.2)."""
    try:
        for mode in ("forward", "reverse"):  # linearised once, not at every step
            linear.value(mode)
    except REFUSALS as error:  # a stage without one of the modes
        refusal(error)
        return None

    def step(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        pushed = linear.push(vector)
        back = linear.pull(pushed)
        return back / jnp.maximum(jnp.linalg.norm(back), jnp.finfo(back.dtype).tiny), jnp.linalg.norm(pushed)

    vector, length = linear.here.flatten(random_direction(linear.state, 2)), np.nan
    traced = jax.make_jaxpr(step)(vector)
    for _ in range(STEPS):
        vector, length = interpret(traced, [vector])
    return float(length) if np.isfinite(length) else None


def _some_columns(linear: Linear, columns: Sequence[int]) -> jax.Array:
    basis = jax.nn.one_hot(jnp.asarray(columns), linear.here.size, dtype=linear.here.dtype)
    return linear.columns(basis.T, Pass(CHUNK))
