"""Units of a plan: the stages that the planner brackets, and what each costs.

A unit is one segment between neighbouring cuts, together with neighbours that change no derivative
(a bias, a reshape). Costs are counted on its linearised program, in floating-point operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from jaxchain.coordinates import Coordinates
from jaxchain.cost.count import flops
from jaxchain.discovery.find import Found
from jaxchain.discovery.group import group
from jaxchain.discovery.name import names, operation
from jaxchain.errors import REFUSALS
from jaxchain.jacobians.local import Local, read_off
from jaxchain.jacobians.sparse import Colouring, available, colouring_of, may_be_sparse
from jaxchain.program.flat import flatten, like, reach
from jaxchain.program.segment import Segment

__all__ = ["Unit", "units_of"]

MOST = 128
"""More units than this are joined: the search is cubic, and a program of so many products compiles long."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One stage, as the planner sees it.

    Attributes
    ----------
    name
        The discovered stage's name, with the operation where the stage has several units.
    segment
        Its equations.
    core
        Of these, the ones that its derivative comes from.
    local
        What its Jacobian is, where that can be read off the program.
    sparse
        Whether to look for a sparse pattern.
    """

    name: str
    segment: Segment
    core: Segment
    local: Local
    sparse: bool = False

    @property
    def kind(self) -> str:
        """``identity``, ``diagonal``, ``linear`` or ``dense``."""
        return self.local.kind

    @cached_property
    def here(self) -> Coordinates:
        """Coordinates of its input."""
        return Coordinates.of(tuple(like(atom) for atom in self.segment.inputs))

    @cached_property
    def there(self) -> Coordinates:
        """Coordinates of its output."""
        return Coordinates.of(tuple(like(atom) for atom in self.segment.outputs))

    @cached_property
    def tangent(self) -> float:
        """Operations of one tangent; infinite where there is no forward mode (a custom VJP)."""
        return self._work(lambda f, x, t: jax.jvp(f, (x,), (t,))[1], self.here)

    @cached_property
    def adjoint(self) -> float:
        """Operations of one cotangent; infinite where there is no reverse mode (a while loop)."""
        return self._work(lambda f, x, c: jax.vjp(f, x)[1](c), self.there)

    @property
    def ready(self) -> float:
        """Operations to get its matrix without a full basis; infinite where that cannot be done."""
        if self.colouring is not None:
            return self.colouring.colours * (self.tangent if self.colouring.forward else self.adjoint)
        return {"identity": 0.0, "linear": 0.0, "diagonal": float(self.here.size)}.get(self.kind, math.inf)

    @cached_property
    def colouring(self) -> Colouring | None:
        """Its coloured pattern, where it has no simpler structure and a colouring saves work."""
        if (
            self.kind != "dense"
            or not self.sparse
            or not may_be_sparse(self.segment, self.here, self.there)
            or not available()
        ):
            return None
        found = colouring_of(self.segment, self.here, self.there)
        return found if found is not None and found.colours < min(self.here.size, self.there.size) else None

    def call(self, sides: Sequence[Any], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Its function, from the leaves of a state to those of the next."""
        return tuple(self.segment.call(*sides, *state))

    def _work(self, push: Callable[..., Any], space: Coordinates) -> float:
        if self.kind == "identity":
            return 0.0
        if self.kind == "diagonal":
            return float(self.here.size)
        if self.kind == "linear":
            return flops(self.core.equations[0].eqn)
        sides, state = [[like(v) for v in atoms] for atoms in (self.segment.sides, self.segment.inputs)]

        def linear(vector: jax.Array, sides: list[Any], state: list[Any]) -> Any:
            return push(lambda x: self.call(sides, x), tuple(state), space.unflatten(vector))

        try:
            closed = jax.make_jaxpr(linear)(jax.ShapeDtypeStruct((space.size,), space.dtype), sides, state)
        except REFUSALS:
            return math.inf
        program = flatten(closed, lambda invars: invars[:1], 0)
        if any(e.name == "custom_lin" for e in program.equations):
            return math.inf  # forward mode through a custom VJP, which only fails once it is run
        moved = reach(program.equations, program.invars[:1])
        return sum(flops(e.eqn) for e in program.needed() if any(v in moved for v in e.reads))


def units_of(found: Found, *, structured: bool = True) -> list[Unit]:
    """The units of a traced function; without ``structured`` nothing is read off but identities."""
    locals_ = [read_off(segment) for segment in found.segments]
    if not structured:
        locals_ = [local if local.kind == "identity" else Local("dense") for local in locals_]
    runs: list[list[int]] = []
    kind = ""  # of the last run: an identity changes nothing, and diagonals are one diagonal
    for number, local in enumerate(locals_):
        if runs and (local.kind == "identity" or kind == "identity" or kind == local.kind == "diagonal"):
            runs[-1].append(number)
            kind = local.kind if kind == "identity" else kind
        else:
            runs.append([number])
            kind = local.kind
    stages = _stage_of_each(found)
    units = [_unit(found, run, locals_) for run in runs]
    labels = _labels([stages[run[-1]] for run in runs], [operation([u.core]) for u in units])
    named = [Unit(label, u.segment, u.core, u.local, structured) for label, u in zip(labels, units, strict=True)]
    return named if len(named) <= MOST else _joined(named, math.ceil(len(named) / MOST))


def _core(run: list[int], locals_: list[Local]) -> int:
    return next((k for k in run if locals_[k].kind != "identity"), run[0])


def _unit(found: Found, run: list[int], locals_: list[Local]) -> Unit:
    core = _core(run, locals_)
    return Unit("", Segment.join([found.segments[k] for k in run]), found.segments[core], locals_[core])


def _stage_of_each(found: Found) -> list[str]:
    """For each segment, the name of the stage that a person would say it belongs to."""
    groups = group(found.segments, "default")
    return [name for name, members in zip(names(groups), groups, strict=True) for _ in members]


def _labels(stages: list[str], operations: list[str]) -> list[str]:
    labels = [s if stages.count(s) == 1 else f"{s}/{o}" for s, o in zip(stages, operations, strict=True)]
    return distinct(labels)


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels that occur more than once, numbered."""
    return [
        label if labels.count(label) == 1 else f"{label}_{labels[:k].count(label)}" for k, label in enumerate(labels)
    ]


def _joined(units: list[Unit], size: int) -> list[Unit]:
    runs = [units[k : k + size] for k in range(0, len(units), size)]
    return [
        run[0]
        if len(run) == 1
        else Unit(
            f"{run[0].name}..{run[-1].name}", whole := Segment.join([u.segment for u in run]), whole, Local("dense")
        )
        for run in runs
    ]
