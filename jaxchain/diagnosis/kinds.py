"""Stages of one kind have the same program, and each of its derivatives is traced once for all of them.

The blocks of a network differ in their numbers alone. JAX keeps what it traced by function, so here stages of one
program share their functions. Builds on `fingerprint`, `derivative` and `interpret`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jaxchain.coordinates import Coordinates
from jaxchain.cost.count import total_flops
from jaxchain.derivative import Linear, Pass, jvp, vjp
from jaxchain.diagnosis.krylov import Draws, Found, Operator, draws, found
from jaxchain.errors import REFUSALS, refusal
from jaxchain.meshes import on_host
from jaxchain.program.fingerprint import fingerprint
from jaxchain.program.flatten import flatten
from jaxchain.program.interpret import numbers_of
from jaxchain.stage import Side, Stage, State

__all__ = ["CHUNK", "Kind", "Placed", "placed", "placed_again"]

CHUNK = 64
"""Columns pushed at once."""


@dataclass(frozen=True, eq=False)
class Kind:
    """What stages of one program share: the work of a call, and functions of side inputs and state."""

    work: float
    value: Callable[..., State]
    called: Callable[..., State]
    """The same, traced once however often it is differentiated."""
    push: Callable[[Side, State, State], State]
    pull: Callable[[Side, State, State], tuple[Any, ...]]
    matrix: Callable[[Side, State], jax.Array]
    images: Callable[[Side, State, jax.Array], jax.Array]
    rows: Callable[[Side, State, jax.Array], jax.Array]
    krylov: Callable[[int, bool], Callable[[Draws, Side, State], Found]]
    refused: Callable[[], str]
    """Why a tangent or a cotangent cannot be sent through within a compiled loop; empty where both can."""
    run: Callable[..., Any]
    """How ``matrix``, ``images``, ``rows`` and ``krylov`` are run: interpreted, or compiled where devices share the work."""
    sharding: Sharding | None

    @classmethod
    def of(cls, stage: Stage, side: Side, state: State, work: float, sharding: Sharding | None = None) -> Kind:
        """Those of any one of the stages."""
        compiled, how = (jax.jit if sharding else _as_it_is), Pass(None, sharding)

        def linear(side: Side, state: State) -> Linear:
            return Linear(partial(stage, *side), state, stage.carries)

        def krylov(steps: int, estimate: bool) -> Callable[[Draws, Side, State], Found]:
            def run(given: Draws, side: Side, state: State) -> Found:
                operator = Operator.of(linear(side, state)).over(sharding)
                return found(operator.tall, given, steps, estimate=estimate)

            return compiled(run)

        def refused() -> str:
            for mode in ("forward", "reverse"):
                try:
                    # Lowered: a custom VJP, linearised, refuses no earlier.
                    jax.jit(partial(_pass, linear, mode)).lower(side, state)
                except jax.errors.ConcretizationTypeError:
                    return f"its {mode} mode looks at numbers, so it cannot be compiled"
                except REFUSALS as error:
                    return f"it has no {mode} mode ({refusal(error)})"
            return ""

        return cls(
            work=work,
            value=stage,
            called=jax.jit(lambda *args: stage(*args)),
            push=lambda side, state, tangent: jvp(partial(stage, *side), state, tangent, stage.carries)[1],
            pull=lambda side, state, cotangent: vjp(stage, *side, state, which=stage.carries_back)[1](cotangent),
            matrix=compiled(lambda side, state: linear(side, state).matrix(how)),
            images=compiled(lambda side, state, vectors: linear(side, state).columns(vectors, how)),
            rows=compiled(lambda side, state, matrix: linear(side, state).rows(matrix, how)),
            krylov=cache(krylov),
            refused=cache(refused),
            run=_as_compiled if sharding else numbers_of,
            sharding=sharding,
        )


def _as_it_is(fun: Callable[..., Any]) -> Callable[..., Any]:
    return fun


def _as_compiled(fun: Callable[..., Any], *args: Any) -> Any:
    return fun(*args)


def _pass(linear: Callable[[Side, State], Linear], mode: str, side: Side, state: State) -> jax.Array:
    """One tangent or one cotangent."""
    link = linear(side, state)
    if mode == "forward":
        return link.push(jnp.zeros(link.here.size, link.here.dtype))
    return link.pull(jnp.zeros(link.there.size, link.there.dtype))


@dataclass(frozen=True, eq=False)
class Placed:
    """A stage at a point, with its derivatives there as numbers.

    Attributes
    ----------
    stage
        The stage.
    side, state
        Where it is.
    out
        What it makes of them.
    kind
        What it shares with others.
    """

    stage: Stage
    side: Side
    state: State
    out: State
    kind: Kind

    def push(self, tangent: State) -> State:
        """J ẋ."""
        return numbers_of(self.kind.push, self.side, self.state, tangent)

    def pull(self, cotangent: State) -> tuple[Any, ...]:
        """Ȳ J, of all side inputs and then of the state."""
        return numbers_of(self.kind.pull, self.side, self.state, cotangent)

    def matrix(self) -> np.ndarray:
        """J."""
        return on_host(self.kind.run(self.kind.matrix, self.side, self.state))

    def images(self, vectors: np.ndarray) -> np.ndarray:
        """J times each column of a matrix."""
        chunks = (vectors[:, k : k + CHUNK] for k in range(0, vectors.shape[1], CHUNK))
        images = (self.kind.run(self.kind.images, self.side, self.state, chunk) for chunk in chunks)
        return np.concatenate([on_host(image) for image in images], 1)

    def columns(self, which: Sequence[int]) -> np.ndarray:
        """Some columns of J."""
        here = Coordinates.of(self.state)
        basis = np.zeros((here.size, len(which)), here.dtype)
        basis[list(which), range(len(which))] = 1
        return self.images(basis)

    def rows(self, matrix: jax.Array) -> np.ndarray:
        """A matrix of few rows times J."""
        return on_host(self.kind.run(self.kind.rows, self.side, self.state, matrix))

    def krylov(self, steps: int, *, estimate: bool) -> Found:
        """J's bidiagonal form from so many steps; with estimates, or without."""
        n, m = sorted((Coordinates.of(self.state).size, Coordinates.of(self.out).size))
        return self.kind.run(self.kind.krylov(steps, estimate), draws(m, n, m, n), self.side, self.state)


def placed(
    stages: Sequence[Stage], sides: Sequence[Side], state: State, sharding: Sharding | None = None
) -> list[Placed]:
    """The stages of a chain, each at its side inputs and the state before it; their matrices made by several devices.

    Whatever is wrong with a stage itself is raised here.
    """
    kinds, found = dict[Hashable, Kind](), list[Placed]()
    for stage, side in zip(stages, sides, strict=True):
        found.append(_at(stage, side, state, _kind(stage, side, state, kinds, sharding)))
        state = found[-1].out
    return found


def placed_again(stages: Sequence[Placed], sides: Sequence[Side], state: State) -> list[Placed]:
    """The same stages at another point of the same shapes."""
    found: list[Placed] = []
    for at, side in zip(stages, sides, strict=True):
        found.append(_at(at.stage, side, state, at.kind))
        state = found[-1].out
    return found


def _at(stage: Stage, side: Side, state: State, kind: Kind) -> Placed:
    return Placed(stage, side, state, jax.tree.map(jnp.asarray, numbers_of(kind.value, *side, state)), kind)


def _kind(
    stage: Stage, side: Side, state: State, known: dict[Hashable, Kind], sharding: Sharding | None = None
) -> Kind:
    closed, out = jax.make_jaxpr(stage, return_shape=True)(*side, state)
    program, consts = closed.jaxpr, dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    same = fingerprint(program.eqns, program.invars, program.outvars, consts)
    key = same, stage.carries, stage.carries_back, jax.tree.structure((side, state, out))
    if key not in known:
        known[key] = Kind.of(stage, side, state, total_flops(flatten(closed).eqns), sharding)
    return known[key]
