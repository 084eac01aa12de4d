"""Units of a plan: the stages that the planner brackets, and what each costs.

A unit is one segment between neighbouring cuts, together with neighbours that change no derivative
(a bias, a reshape). Costs are counted on the programs of its derivative, in multiply-adds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax

from jaxchain.coordinates import Coordinates
from jaxchain.cost.count import flops, total_flops
from jaxchain.cost.linear import Work, linear_work
from jaxchain.derivative import jvp, pulls_linearly, vjp
from jaxchain.discovery.find import Found
from jaxchain.discovery.group import group
from jaxchain.discovery.name import names, operation
from jaxchain.errors import REFUSALS, refusal
from jaxchain.jacobians.graph import DerivativeGraph, graph_of
from jaxchain.jacobians.local import Local, read_off
from jaxchain.jacobians.matrix import Layout
from jaxchain.jacobians.onward import Onward, onward_of
from jaxchain.jacobians.recurrence import Recurrence, recurrence_of
from jaxchain.jacobians.sparse import LEAST, Colouring, available, colouring_of, may_be_sparse
from jaxchain.program.fingerprint import Kept, fingerprint
from jaxchain.program.flat import Equation
from jaxchain.program.flatten import flatten
from jaxchain.program.flow import dependent
from jaxchain.program.primitives import (
    Atom,
    Jaxpr,
    JaxprEqn,
    Var,
    any_equation_of,
    is_new,
    is_remat,
    is_var,
    like,
    new_jaxpr,
)
from jaxchain.program.segment import Segment
from jaxchain.samples.positions import position_axes

__all__ = ["Unit", "distinct", "joined", "known_together", "units_of"]

COUNTED = Kept(4096)
"""What is counted of a derivative's program, by program: equal blocks of a network are counted once."""

MOST_KNOWN = 1 << 20
"""A matrix of more entries is not computed beforehand: it would be a constant of every program that it is in."""

MOST_IN_BLOCKS = 1 << 20
"""Above this many entries in the blocks of all positions no pattern is looked for inside them."""

LEAST_INSIDE, MOST_IN_GRAPH = 100, 4096
"""What a matrix could be eliminated from is looked for where a basis takes so many multiply-adds at least; a graph of
numbers where the matrix has so many entries at most."""

GRAPH = 0.7
"""A graph is used where it takes less than this share of a basis: XLA computes some of its numbers more than once."""

LEAST_FOR_LOOP, LOOP = 50_000, 0.6
"""A loop is gone through step by step where a basis takes so many multiply-adds at least, and the steps less than this
share of them: else the loops that this takes are slower than the one that it saves."""

LEAST_ONWARD, SHARE = 40_000_000, 0.8
"""Columns are pushed in stretches of positions where all of them take so many multiply-adds at least, and the stretches
less than this share: each is one more program to compile, as long as a hundred calls save."""

LEAST_OPENED, OPENED = 500, 0.7
"""The same where short loops are opened for it: a loop in a program is slow, but so are many small steps."""

MOST, MOST_OF_MUCH, MUCH = 128, 384, 1e12
"""More units than this are joined: a program of so many products is traced and compiled long. Where the better simple
mode takes many multiply-adds there may be more of them: that is nothing beside running it."""


class Counted(NamedTuple):
    """What a vector takes of a stage's derivative, what its value and all that the derivative reads; if it bends.

    It does where the state enters it.
    """

    work: Work
    value: float
    bends: bool


class Program(NamedTuple):
    """The program of a stage's value and of one tangent or cotangent, and the variables that hold that.

    And those of its results that come after the value; whether the state enters these, or something is done beside, such
    as naming a mapped axis; whether what is computed again is to count once.
    """

    jaxpr: Jaxpr
    vector: Sequence[Var]
    outs: Sequence[Atom]
    bends: bool
    exact: bool

    def counted(self) -> Counted:
        """What it says."""
        work = linear_work(self.jaxpr, self.vector, self.outs, exact=self.exact)
        return Counted(work, linear_work(self.jaxpr, self.vector).once, self.bends)


@dataclass(frozen=True, eq=False)
class Unit:
    """One stage, as the planner sees it.

    Attributes
    ----------
    label
        Says its name when asked: a call that prints no plan does without, and looks no source lines up.
    segment
        Its equations.
    core
        Of these, the ones that its derivative comes from.
    local
        What its Jacobian is, where that can be read off the program.
    carries
        Which variables of its state carry a derivative from the chain input.
    sparse
        Whether to look for a sparse pattern.
    exact
        Whether a cotangent's price is read off its own program, beside a tangent's off which it is estimated else.
    alone
        Whether no neighbour is known before any call: weights that are read off are then not copied before it.
    """

    label: Callable[[], str]
    segment: Segment
    core: Segment
    local: Local
    carries: tuple[bool, ...]
    sparse: bool = False
    exact: bool = False
    alone: bool = False

    @property
    def name(self) -> str:
        """The discovered stage's name, with the operation where the stage has several units."""
        return self.label()

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

    @property
    def tangent(self) -> float:
        """Multiply-adds of one tangent; infinite where there is no forward mode (a custom VJP)."""
        return self.work.tangent

    @property
    def adjoint(self) -> float:
        """Multiply-adds of one cotangent; infinite where there is no reverse mode (a while loop)."""
        return self.work.cotangent

    @property
    def ready(self) -> float:
        """Multiply-adds to get its matrix without a full basis; infinite where that cannot be done."""
        if self.known:
            return 0.0
        if self.colouring is not None:
            return self.colouring.colours * (self.tangent if self.colouring.forward else self.adjoint)
        if self.inside is not None:
            return self.inside.cost
        return {"identity": 0.0, "linear": 0.0, "diagonal": self.here.size / 2}.get(self.kind, math.inf)

    @cached_property
    def known(self) -> bool:
        """Whether its matrix is the same at every state, and is computed before any call."""
        if not self.constant or self.alone:
            return False
        into, out = self.vectors
        entries = self.here.size if self.kind == "diagonal" else min(into * self.there.size, self.here.size * out)
        return self.kind == "identity" or entries <= MOST_KNOWN

    @cached_property
    def constant(self) -> bool:
        """Whether its matrix is the same at every state and in every call, however large it is."""
        if self.kind == "identity":
            return True
        if not self.segment.program.open.isdisjoint((*self.segment.sides, *self.segment.constants)):
            return False
        # Where neither mode exists JAX says why when it is called.
        return self.kind == "linear" or not (self._counted.bends or math.isinf(min(self.tangent, self.adjoint)))

    @property
    def needs_state(self) -> bool:
        """Whether its matrix depends on where its function is evaluated."""
        return self.kind != "linear" and not self.known

    @property
    def checkpointed(self) -> bool:
        """Whether a rematerialised call is in it, or in a loop of it."""
        equations = self.segment.equations
        called = any(each.origin.remat is not None or any_equation_of(each.eqn, is_remat) for each in equations)
        # JAX 0.12 has no JVP of its new primitives inside a call that was taken apart and put together again.
        return called and not any(any_equation_of(each.eqn, is_new) for each in equations)

    @cached_property
    def beforehand(self) -> Kept:
        """What was computed before any call: its matrix, and products that begin with it, by where they end."""
        return Kept(MOST)

    @cached_property
    def layouts(self) -> tuple[tuple[Layout, Layout], ...]:
        """How its input and output lie in positions that do not mix, the finest first; empty: nothing is known to stay apart."""
        if self.kind != "dense" or not self.sparse:
            return self.local.layouts
        if (axes := position_axes(self.segment)) is None:
            return ()
        into, out = ([leaf.shape for leaf in side.leaves] for side in (self.here, self.there))
        return Layout.each((into, axes.into), (out, axes.out))

    @property
    def positions(self) -> tuple[Layout, Layout] | None:
        """The finest of them."""
        return self.layouts[0] if self.layouts else None

    @property
    def vectors(self) -> tuple[int, int]:
        """How many tangents, and how many cotangents, accumulate its matrix: one serves all positions at once."""
        into, out = self.positions or (None, None)
        return into.width if into else self.here.size, out.width if out else self.there.size

    @cached_property
    def colouring(self) -> Colouring | None:
        """Its coloured pattern, where it has no simpler structure and a colouring saves work."""
        if (
            self.kind != "dense"
            or not self.sparse
            or self.known
            or not may_be_sparse(self.segment, self.here, self.there)
        ):
            return None
        few = min(self.vectors)
        # Blocks are there for the asking; within them a pattern is looked for where it may save much and is found soon.
        in_blocks = few * max(self.here.size, self.there.size)
        if (self.positions and (few < LEAST or in_blocks > MOST_IN_BLOCKS)) or not available():
            return None
        found = colouring_of(self.segment, self.here, self.there)
        return found if found is not None and found.colours < few else None

    @cached_property
    def inside(self) -> DerivativeGraph | Recurrence | None:
        """What is inside of it, where to eliminate that takes far less than a basis: a graph of numbers, or a loop."""
        if self.kind != "dense" or not self.sparse or self.known or self.positions or self.colouring is not None:
            return None
        columns, rows = self.vectors
        basis = min(columns * self.tangent, rows * self.adjoint)
        if not LEAST_INSIDE <= basis < math.inf or math.isinf(self.tangent):
            return None
        if all(self.carries) and (loop := recurrence_of(self.segment, self.core, self.work)) is not None:
            return loop if basis >= LEAST_FOR_LOOP and loop.cost < LOOP * basis else None
        graph = graph_of(self.segment, self.carries) if columns * rows <= MOST_IN_GRAPH else None
        return graph if graph is not None and graph.cost < GRAPH * basis else None

    @cached_property
    def onward(self) -> Onward | None:
        """How columns are pushed through it in stretches of positions, where none reaches an earlier one and that saves much."""
        if self.kind not in ("dense", "linear") or not self.sparse or self.known or self.colouring or self.inside:
            return None
        loops = any(equation.name == "scan" for equation in self.segment.equations)
        # A loop in a program is slow, whatever it does: opened into a few steps, these need not be large.
        if not (LEAST_OPENED if loops else LEAST_ONWARD) <= self.here.size * self.tangent < math.inf:
            return None
        found = onward_of(self.segment, self.carries)
        if found is None or found.share >= (OPENED if loops else SHARE) or (loops and not found.is_followed):
            return None
        return found

    def call(self, sides: Sequence[Any], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Its function, from the leaves of a state to those of the next."""
        return tuple(self.segment.call(*sides, *state))

    @cached_property
    def work(self) -> Work:
        """Multiply-adds of one tangent, of one cotangent, and of what these read at the point."""
        segment = self.segment
        if self.kind != "dense":
            evaluated = total_flops(equation.eqn for equation in segment.equations) / 2
            if self.kind == "diagonal":  # an elementwise function's slope takes about what its value does
                return Work(self.here.size / 2, self.here.size / 2, 2 * evaluated)
            vector = flops(self.core.equations[0].eqn) / 2 if self.kind == "linear" else 0.0
            return Work(vector, vector, evaluated)
        return self._counted.work.times(0.5)

    @property
    def evaluation(self) -> float:
        """Multiply-adds of its value and of what its derivative reads."""
        return self._counted.value / 2 if self.kind == "dense" else self.work.once

    @cached_property
    def _counted(self) -> Counted:
        """What its derivative's program says; work in floating-point operations."""
        # Constants are inputs here: what a tangent costs depends on their shapes alone.
        segment = self.segment
        inputs = (*segment.inputs, *segment.sides, *segment.constants)
        key = fingerprint([e.eqn for e in segment.equations], inputs, segment.outputs, {})
        return COUNTED.get((key, self.carries, self.exact), self._count)

    def _count(self) -> Counted:
        try:
            pushed = self._program(forward=True).counted()
        except REFUSALS as error:
            refusal(error)
            pushed = Counted(Work(math.inf, math.inf), 0.0, True)
        work = pushed.work
        if math.isfinite(work.tangent) and not (self.exact and math.isfinite(work.cotangent)):
            return pushed
        try:  # the rule of a custom VJP is seen in reverse mode's own program alone
            pulled = self._program(forward=False).counted()
        except REFUSALS as error:
            refusal(error)
            return pushed._replace(work=work._replace(cotangent=math.inf))
        # What both modes have must be constant in both: a rule may say different things of them.
        bends = pulled.bends or (math.isfinite(work.tangent) and pushed.bends)
        back = pulled.work
        return Counted(Work(work.tangent, back.tangent, back.once), pulled.value, bends)

    def _program(self, *, forward: bool) -> Program:
        sides, state = [[like(v) for v in atoms] for atoms in (self.segment.sides, self.segment.inputs)]
        space = self.here if forward else self.there

        def linear(vector: jax.Array, sides: list[Any], state: list[Any]) -> tuple[Any, Any]:
            def of_state(state: tuple[Any, ...]) -> tuple[Any, ...]:
                return self.call(sides, state)

            if forward:
                return jvp(of_state, tuple(state), space.unflatten(vector), self.carries)
            value, pull = vjp(of_state, tuple(state), which=self.carries)
            return value, pull(space.unflatten_cotangent(vector))

        closed = jax.make_jaxpr(linear)(jax.ShapeDtypeStruct((space.size,), space.dtype), sides, state)
        jaxpr = closed.jaxpr
        entered = dependent(jaxpr.eqns, jaxpr.invars[1 + len(sides) :])
        bends = bool(jaxpr.effects) or any(
            is_var(out) and out in entered for out in jaxpr.outvars[len(self.segment.outputs) :]
        )
        if self.exact:  # calls looked through, as XLA does: what two of them compute alike is computed once
            flat = flatten(closed)
            jaxpr = new_jaxpr(list(flat.constants), flat.invars, flat.outs, flat.eqns)
        outs = jaxpr.outvars[len(self.segment.outputs) :]
        return Program(jaxpr, jaxpr.invars[:1], outs, bends, self.exact)


def units_of(found: Found) -> list[Unit]:
    """The units of a traced function."""
    locals_ = [read_off(segment) for segment in found.segments]
    runs: list[list[int]] = []
    kind = ""  # of the last run: an identity changes nothing, and diagonals are one diagonal
    for number, local in enumerate(locals_):
        if runs and (local.kind == "identity" or kind == "identity" or kind == local.kind == "diagonal"):
            runs[-1].append(number)
            kind = local.kind if kind == "identity" else kind
        else:
            runs.append([number])
            kind = local.kind
    cores = [next((k for k in run if locals_[k].kind != "identity"), run[0]) for run in runs]

    @cache
    def labels() -> list[str]:
        stages = _stage_of_each(found)
        operations = [operation([found.segments[core]]) for core in cores]
        return _labels([stages[run[-1]] for run in runs], operations)

    units = [
        Unit(
            lambda number=number: labels()[number],
            Segment.join(parts := [found.segments[k] for k in run]),
            found.segments[core],
            locals_[core],
            carries(found, parts[0]),
            sparse=True,
        )
        for number, (run, core) in enumerate(zip(runs, cores, strict=True))
    ]
    units = _known_together(found, _until_bent(found, units))
    if len(units) <= MOST:
        return units
    basis = min(
        units[0].here.size * sum(u.tangent for u in units), units[-1].there.size * sum(u.adjoint for u in units)
    )
    most = MOST_OF_MUCH if basis > MUCH else MOST
    return units if len(units) <= most else _in_runs(found, units, math.ceil(len(units) / most))


def _until_bent(found: Found, units: list[Unit]) -> list[Unit]:
    """The units, those from the first whose backward rule is not linear joined to one, of which nothing else is known.

    A rule that clips the cotangent says one thing of a product's row, and another of the rows of its factors, or of a
    row for all positions at once. JAX pulls rows of the whole, so that is what is meant.
    """
    pulls = partial(_pulls_linearly, found)
    bent = (k for k, unit in enumerate(units) if not all(map(pulls, unit.segment.equations)))
    first = next(bent, len(units))
    if first == len(units):
        return units
    return [*units[:first], joined(found, units[-1].label, units[first:])]


def _known_together(found: Found, units: list[Unit]) -> list[Unit]:
    """The units, neighbours that are known before any call joined: but where few numbers pass, which products may use."""
    kept: list[Unit] = []
    for constant, run in itertools.groupby(units, key=lambda unit: unit.constant):
        members = list(run)
        if not constant or len(members) == 1:
            kept += map(_alone, members)
            continue
        for part in _between_waists(members):
            # What lies between may be larger than its ends: the real and imaginary parts of a spectrum.
            if (whole := _as_one(found, part)).known:
                kept.append(whole)
                continue
            for known, few in itertools.groupby(part, key=lambda unit: unit.known):
                several = list(few)
                if not known or len(several) == 1:
                    kept += map(_alone, several)
                    continue
                one = _as_one(found, several)
                kept += [one] if one.known else several
    return kept


def _alone(unit: Unit) -> Unit:
    """Weights that no neighbour is multiplied with before any call are read off in it."""
    return replace(unit, alone=True) if unit.kind == "linear" else unit


def _between_waists(units: list[Unit]) -> list[list[Unit]]:
    """Units, divided where fewer numbers pass than at either end."""
    ends = min(units[0].here.size, units[-1].there.size)
    waists = [k for k, unit in enumerate(units[:-1], start=1) if unit.there.size < ends]
    return [units[start:stop] for start, stop in itertools.pairwise([0, *waists, len(units)])]


def _as_one(found: Found, units: list[Unit]) -> Unit:
    if len(units) == 1:
        return units[0]
    return replace(joined(found, units[-1].label, units), sparse=all(unit.sparse for unit in units))


def known_together(units: Sequence[Unit]) -> bool:
    """Whether the product of neighbouring units' matrices is computed before any call."""
    return units[0].here.size * units[-1].there.size <= MOST_KNOWN and all(unit.known for unit in units)


def _pulls_linearly(found: Found, equation: Equation) -> bool:
    def bends(eqn: JaxprEqn) -> bool:
        return not pulls_linearly(eqn, found.active if eqn is equation.eqn else None)

    return not any_equation_of(equation.eqn, bends)


def joined(found: Found, label: Callable[[], str], units: Sequence[Unit]) -> Unit:
    """Neighbouring units as one, of which nothing is known but its program."""
    whole = Segment.join([unit.segment for unit in units])
    return Unit(label, whole, whole, Local("dense"), carries(found, whole))


def carries(found: Found, segment: Segment) -> tuple[bool, ...]:
    """Which variables of a segment's state carry a derivative from the chain input."""
    return tuple(var in found.active for var in segment.inputs)


def _stage_of_each(found: Found) -> list[str]:
    """For each segment, the name of the stage that a person would say it belongs to."""
    groups = group(found.segments, "default")
    return [name for name, members in zip(names(groups), groups, strict=True) for _ in members]


def _labels(stages: list[str], operations: list[str]) -> list[str]:
    """What a chain calls the state after each segment: of a stage's last the stage, of those within the operation too."""
    following = [*stages[1:], None]
    labels = [s if s != after else f"{s}/{o}" for s, o, after in zip(stages, operations, following, strict=True)]
    return distinct(labels)


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels that occur more than once, numbered."""
    return [
        label if labels.count(label) == 1 else f"{label}_{labels[:k].count(label)}" for k, label in enumerate(labels)
    ]


def _in_runs(found: Found, units: list[Unit], size: int) -> list[Unit]:
    runs = [units[k : k + size] for k in range(0, len(units), size)]
    return [run[0] if len(run) == 1 else joined(found, run[-1].label, run) for run in runs]
