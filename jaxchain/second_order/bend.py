"""One stage's second derivative: with the cotangent λ of its output held, one push gives J ẋ and (λ · f″) ẋ at once.

Forward over reverse on that stage alone. What a push takes, and whether there is a second derivative at all, is read
off the program of one.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates
from jaxchain.cost.linear import Work, linear_work
from jaxchain.derivative import ALL_AT_ONCE, Carries, Linear, Pass, jvp, vjp
from jaxchain.errors import REFUSALS, ModeError, refusal
from jaxchain.jacobians.execute import Linearised
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Matrix
from jaxchain.jacobians.unit import Unit
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.flow import dependent
from jaxchain.program.primitives import any_equation, is_forward_of_custom_vjp, is_var, like

__all__ = ["Bend", "Bent", "along", "bend_of", "with_gradient"]

COUNTED = Kept(4096)
"""What is counted of a stage's second derivative, by program."""

NO_TANGENTS = "a custom VJP inside of it has no tangents"

State = Any


def with_gradient(fn: Callable[[State], State], like: State, cotangent: jax.Array, carries: Carries = None) -> Any:
    """``fn`` that returns beside its value the cotangent of its state, λ J, whose derivative is λ · f″."""
    here, there = Coordinates.of(like), Coordinates.of(jax.eval_shape(fn, like))

    def both(state: State) -> tuple[State, jax.Array]:
        out, pull = vjp(fn, state, which=carries)
        return out, here.flatten_cotangent(*pull(there.unflatten_cotangent(cotangent)))

    return both


class Bend(NamedTuple):
    """What one push of J ẋ and (λ · f″) ẋ takes, in floating-point operations; whether f″ is other than zero."""

    work: Work
    curved: bool
    refused: Exception | None = None


def bend_of(unit: Unit) -> Bend:
    """What is counted of a unit's second derivative; infinite where JAX refuses one."""
    if unit.kind in ("identity", "linear"):
        return Bend(Work(0.0, 0.0), curved=False)
    segment = unit.segment
    inputs = (*segment.inputs, *segment.sides, *segment.constants)  # what a push takes depends on shapes alone
    key = fingerprint([e.eqn for e in segment.equations], inputs, segment.outputs, {})
    return COUNTED.get((key, unit.carries), lambda: _count(unit))


def _count(unit: Unit) -> Bend:
    sides, state = [[like(v) for v in atoms] for atoms in (unit.segment.sides, unit.segment.inputs)]

    def pushed(vector: jax.Array, cotangent: jax.Array, sides: list[Any], state: list[Any]) -> Any:
        given = tuple(state)
        both = with_gradient(lambda state: unit.call(sides, state), given, cotangent, unit.carries)
        _, (moved, bent) = jvp(both, given, unit.here.unflatten(vector), unit.carries)
        return unit.there.flatten(moved), bent

    vectors = [jax.ShapeDtypeStruct((space.size,), space.dtype) for space in (unit.here, unit.there)]
    try:
        jaxpr = jax.make_jaxpr(pushed)(*vectors, sides, state).jaxpr
    except REFUSALS as error:
        refusal(error)
        return Bend(Work(math.inf, math.inf), curved=True, refused=error)
    if any_equation(jaxpr, is_forward_of_custom_vjp):
        return Bend(Work(math.inf, math.inf), curved=True, refused=ModeError(NO_TANGENTS))
    bent = jaxpr.outvars[-1]
    return Bend(linear_work(jaxpr, jaxpr.invars[:1]), is_var(bent) and bent in dependent(jaxpr.eqns, jaxpr.invars[:1]))


@dataclass(frozen=True, eq=False)
class Bent:
    """One unit at a point, with the cotangent of its output where that is known.

    Attributes
    ----------
    at
        The unit at its state.
    cotangent
        λ, (m,); ``None`` where nothing asks for the second derivative.
    """

    at: Linearised
    cotangent: jax.Array | None = None

    @property
    def unit(self) -> Unit:
        """Its unit."""
        return self.at.unit

    @cached_property
    def both(self) -> Linear:
        """Its function with λ J beside the value, linearised."""
        assert self.cotangent is not None
        unit, state = self.unit, self.at.state
        fn = with_gradient(lambda state: unit.call(self.at.sides, state), state, self.cotangent, unit.carries)
        return Linear(fn, state, unit.carries)

    def linearised(self, *, bends: bool) -> None:
        """Linearise here what is pushed through later, where it may be mapped."""
        if self.unit.kind == "diagonal":
            _ = self.diagonals if bends else self.at.diagonal
        elif self.unit.kind != "identity":
            (self.both if bends else self.at.linear).value("forward")

    def moved(self, vector: jax.Array) -> jax.Array:
        """J ẋ alone."""
        match self.unit.kind:
            case "identity":
                return vector
            case "diagonal":
                return (self.diagonals[0] if "diagonals" in vars(self) else self.at.diagonal) * vector
            case _:
                return self.at.linear.push(vector)

    def pulled(self) -> jax.Array:
        """λ J, the cotangent of the state before."""
        assert self.cotangent is not None
        return self.at.linear.pull(self.cotangent)

    def push(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """J ẋ and (λ · f″) ẋ."""
        unit = self.unit
        if unit.kind == "diagonal":
            slope, second = self.diagonals
            return slope * vector, second * vector
        pushed = self.both.push(vector)
        return pushed[: unit.there.size], pushed[unit.there.size :]

    def columns(self, matrix: jax.Array, how: Pass = ALL_AT_ONCE) -> tuple[jax.Array, jax.Array]:
        """The same of every column of a matrix."""
        pushed = self.both.columns(matrix, how)
        return pushed[: self.unit.there.size], pushed[self.unit.there.size :]

    @cached_property
    def diagonals(self) -> tuple[jax.Array, jax.Array]:
        """f′ and λ f″ of an elementwise unit, by one tangent of ones."""
        size = self.unit.here.size
        pushed = self.both.push(jnp.ones((size,), self.unit.here.dtype))
        return pushed[:size], pushed[size:]

    @cached_property
    def matrices(self) -> tuple[Matrix, Matrix]:
        """J and λ · f″ of the unit alone: diagonals, or by a basis, of one position where they do not mix."""
        unit = self.unit
        if unit.kind == "diagonal":
            slope, second = self.diagonals
            return Diagonal(slope), Diagonal(second)
        if self.at.layouts is None:
            slope, second = self.columns(unit.here.identity(), self.at.how)
            return Dense(slope), Dense(second)
        into, out = self.at.layouts
        slope, second = self.columns(Blocks.identity(into, unit.here.dtype).at_once, self.at.how)
        return Blocks(out.split(slope, 0), into, out), Blocks(into.split(second, 0), into, into)


def along(units: Sequence[Linearised], first: int) -> list[Bent]:
    """Units at their states with the cotangents of their outputs, as far back as the unit ``first``: one reverse sweep."""
    links: list[Bent] = []
    cotangent: jax.Array | None = jnp.ones((1,), units[-1].unit.there.dtype)
    for number in reversed(range(len(units))):
        links.append(Bent(units[number], cotangent))
        cotangent = links[-1].pulled() if number > first else None
    return links[::-1]
