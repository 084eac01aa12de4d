"""Where a program is cut for memory's sake: at any place that few bytes cross.

What crosses there, arguments and constants aside, is the state. What many stages read, a mask or an encoder's result, is
held throughout and belongs to none; what takes no work to make of the arguments is made where it is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxchain.cost.count import flops
from jaxchain.cost.liveness import bytes_of
from jaxchain.discovery.cuts import live_sets
from jaxchain.program.flat import Equation, Program, needed
from jaxchain.program.flatten import flatten, written_out
from jaxchain.program.primitives import HEAVY, ClosedJaxpr, Var, is_var
from jaxchain.program.segment import Segment

__all__ = ["Cutting", "cut", "cut_in_steps"]

MOST = 128
"""The most stages that a schedule is made of: of more, those with the widest states between them are joined."""

MANY = 3
"""What is read across more than so many cuts is held throughout."""

RESULTS = 8
"""How many results an equation has at most that is evaluated where it is read."""

LONGEST, WRITTEN = 64, 1024
"""How many steps a loop that is written out has at most, and how many equations all those add."""


@dataclass(frozen=True, eq=False)
class Cutting:
    """A program, cut.

    Attributes
    ----------
    program
        The whole.
    segments
        In order: from all they read of what was made before, to all that is read of them later.
    states
        What crosses before each segment, and after the last; none before the first.
    held
        What is held throughout.
    free
        What is made where it is read.
    """

    program: Program
    segments: tuple[Segment, ...]
    states: tuple[frozenset[Var], ...]
    held: frozenset[Var]
    free: frozenset[Var]

    @cached_property
    def there(self) -> frozenset[Var]:
        """What takes no room of a state's."""
        return frozenset([*self.program.invars, *self.program.constants, *self.held, *self.free])

    @cached_property
    def _makers(self) -> list[Equation]:
        return [equation for equation in self.program.equations if not self.free.isdisjoint(equation.writes)]

    def making(self, segment: Segment) -> tuple[Equation, ...]:
        """What makes the free values that a segment reads."""
        return tuple(needed(self._makers, segment.sides))

    def waiting(self, segment: Segment) -> int:
        """Bytes of the cotangents of parts of an argument, which stay until those of all parts are there."""
        return self.cotangents(self.free.intersection(segment.sides))

    def cotangents(self, values: Iterable[Var]) -> int:
        """Bytes of the cotangents of some values."""
        return sum(bytes_of(var) for var in values if var in self.program.carrying)

    @property
    def sums(self) -> int:
        """Bytes of the cotangents of what stages far from one another read, to be added."""
        far = [var for var, places in self._readers.items() if 3 * (places[-1] - places[0]) > len(self.segments)]
        return self.cotangents(var for var in far if len(self._readers[var]) > MANY and var not in self.free)

    @cached_property
    def _readers(self) -> dict[Var, list[int]]:
        """The segments that read each value."""
        found: dict[Var, list[int]] = {}
        for number, segment in enumerate(self.segments):
            for var in segment.sides:
                found.setdefault(var, []).append(number)
        return found

    @property
    def held_bytes(self) -> int:
        """Of what is held throughout and its cotangents, and of those of arguments that several stages read, to be added."""
        added = 2 * self.cotangents(var for var in self.program.invars if len(self._readers.get(var, ())) > 1)
        return sum(map(bytes_of, self.held)) + self.cotangents(self.held) + added


def cut(closed: ClosedJaxpr) -> Cutting:
    """A function's program, cut."""
    return _cut(flatten(closed))


def cut_in_steps(program: Program) -> Cutting | None:
    """The same, loops of few steps written out; ``None`` where there are none, or the program would be long."""
    written = written_out(program, LONGEST, WRITTEN)
    return None if written is None else _cut(written)


def _cut(program: Program) -> Cutting:
    equations = program.needed()
    free = _free(program, equations)
    equations = [equation for equation in equations if free.isdisjoint(equation.writes)]
    alive = _alive(program, equations)
    sizes = [sum(map(bytes_of, live)) for live in alive]
    positions = _thinned(_cuts(equations, sizes), sizes)
    crossings = Counter(var for position in positions for var in alive[position])
    held = frozenset(var for var, times in crossings.items() if times > MANY)
    bounds = [0, *positions, len(equations)]
    segments = [_segment(program, equations[first:stop], alive[stop]) for first, stop in itertools.pairwise(bounds)]
    return Cutting(program, tuple(segments), tuple(frozenset(alive[k] - held) for k in bounds), held, frozenset(free))


def _alive(program: Program, equations: Sequence[Equation]) -> list[set[Var]]:
    """What of the equations' own is alive before each, and after the last."""
    made = {var for equation in equations for var in equation.writes}
    reads = [[var for var in equation.reads if var in made] for equation in equations]
    wanted = [var for var in program.outs if is_var(var) and var in made]
    return [set(), *(set(live) for live in live_sets(reads, [e.writes for e in equations], [], wanted))]


def _free(program: Program, equations: Sequence[Equation]) -> set[Var]:
    """What takes no work to make of the arguments, such as a layer's weights of all; or is made of nothing, as a mask."""
    there, free = {*program.invars, *program.constants}, set[Var]()
    wanted = set(filter(is_var, program.outs))
    for equation in equations:
        known = all(var in there or var in free for var in equation.reads) and wanted.isdisjoint(equation.writes)
        # Of many results each reader would make all, and cotangents of all.
        moves = equation.name != "scan" and len(equation.writes) <= RESULTS
        if known and moves and (not flops(equation.eqn) or program.open.isdisjoint(equation.writes)):
            free.update(equation.writes)
    return free


def _cuts(equations: Sequence[Equation], sizes: Sequence[int]) -> list[int]:
    """The narrowest place between two equations that take work, unless both next to it are narrower; and around loops."""
    runs: list[list[int]] = [[]]
    for k in range(1, len(equations)):
        if equations[k - 1].name in HEAVY:
            runs.append([])
        runs[-1].append(k)
    narrow = [min(reversed(run), key=sizes.__getitem__) for run in runs if run]
    widths = [0, *(sizes[k] for k in narrow), 0]
    kept = {
        k
        for k, before, after in zip(narrow, widths, widths[2:], strict=False)
        if sizes[k] <= max(before, after) or len(narrow) == 1
    }
    loops = {k + after for k, equation in enumerate(equations) if equation.name == "scan" for after in (0, 1)}
    return sorted({*kept, *loops} - {0, len(equations)})


def _thinned(positions: list[int], sizes: Sequence[int]) -> list[int]:
    """At most so many, the narrowest; of equals, evenly."""
    if len(positions) < MOST:
        return positions
    widths = sorted({sizes[position] for position in positions})
    for width in reversed(widths):
        fewer = [position for position in positions if sizes[position] < width]
        if len(fewer) < MOST // 2:
            break
        positions = fewer
    return positions[:: -(-len(positions) // (MOST - 1))]


def _segment(program: Program, equations: Sequence[Equation], after: Container[Var]) -> Segment:
    """Equations as a function of all that they read; what is made and not read after stays inside."""
    outputs = [var for equation in equations for var in equation.writes if var in after]
    return Segment(tuple(equations), (), tuple(outputs), program)
