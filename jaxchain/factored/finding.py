"""Find the places in a program where leaves of the parameters meet the data, loops entered.

Every variable is a leaf that is only laid out, moves with the parameters otherwise, or does not move. Where an
equation has a rule for an operand that is a leaf, and the result depends on the data, its result is tapped; where not,
the operand itself, so that there is an answer for whatever a program does to its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jaxchain.factored.layout import Layout, laid_out
from jaxchain.factored.rules import RULES, Meeting
from jaxchain.program.flat import Equation, Program
from jaxchain.program.flatten import flatten
from jaxchain.program.flow import moved_results, reach
from jaxchain.program.primitives import Atom, Var, is_inexact, is_used, is_var, scan_of

__all__ = ["Found", "Slot", "Tapping", "find_sites"]


@dataclass(frozen=True, eq=False)
class Slot:
    """A value that a program is given (a tap) or hands out, once a step of all loops around it."""

    atom: Atom


@dataclass(frozen=True, eq=False)
class Found:
    """One site, as the program has it.

    Attributes
    ----------
    layout
        Of the operand.
    equation
        Where it meets the data, or is read first in a way without a rule.
    scope
        Named scopes around it.
    meeting
        The rule; ``None``: the operand is tapped itself.
    tap, reads
        Where δ comes from, and the values that the rule needs.
    lengths
        Of the loops around it, the outermost first; in which of them each step has a row of the leaf, its layout says.
    """

    layout: Layout
    equation: Equation | None
    scope: tuple[str, ...]
    meeting: Meeting | None
    tap: Slot
    reads: tuple[Slot, ...]
    lengths: tuple[int, ...]

    def repeats(self, depth: int) -> bool:
        """Whether it is an operand tapped itself, the same in every step of a loop."""
        return self.meeting is None and not self.layout.rows[depth]


@dataclass(eq=False)
class Tapping:
    """A program, and where it is tapped.

    Attributes
    ----------
    results
        Taps on what an equation writes.
    operands
        Taps on what is read, by variable; ``readers`` are the equations, by identity, that read it so; ``None``: the results of the program.
    exports
        Values that are handed out.
    inside
        Loops with sites inside, by the identity of their equation.
    sites
        Those of this program and of the loops in it, in order.
    whiles
        Loops of unknown length over what moves with the leaves, and the scopes around them: no way back leads through.
    """

    program: Program
    equations: list[Equation]
    results: dict[Var, Slot] = field(default_factory=dict)
    operands: dict[Var, Slot] = field(default_factory=dict)
    readers: dict[Var, set[int | None]] = field(default_factory=dict)
    exports: dict[Atom, Slot] = field(default_factory=dict)
    inside: dict[int, Tapping] = field(default_factory=dict)
    sites: list[Found] = field(default_factory=list)
    whiles: list[tuple[Equation, tuple[str, ...]]] = field(default_factory=list)

    def taps(self) -> Iterator[tuple[Slot, tuple[int, ...]]]:
        """Every tap, with the lengths of the loops around it, in the order in which values are given."""
        yield from ((slot, ()) for slot in (*self.results.values(), *self.operands.values()))
        for equation in self.equations:
            if (inner := self.inside.get(id(equation))) is not None:
                length = scan_of(equation.eqn).length
                yield from ((slot, (length, *more)) for slot, more in inner.taps())

    def handed_out(self) -> Iterator[Slot]:
        """Every value handed out, in order."""
        yield from self.exports.values()
        for equation in self.equations:
            if (inner := self.inside.get(id(equation))) is not None:
                yield from inner.handed_out()


@dataclass
class _State:
    """What is known of a program's variables: layouts of leaves, what moves with the leaves, what depends on the data."""

    known: dict[Var, Layout]
    moving: set[Var]
    data: set[Var]


def find_sites(program: Program, leaves: Sequence[Var]) -> Tapping:
    """The sites of a flat program at some of its inputs, of which those that carry a derivative are leaves."""
    moving = set(filter(is_inexact, leaves))
    known = {var: Layout.of(number, program, var) for number, var in enumerate(leaves) if var in moving}
    data = reach(program.eqns, (var for var in program.invars if var not in set(leaves)))
    return _walk(program, _State(known, moving, data), (), ())


def _walk(program: Program, state: _State, scope: tuple[str, ...], lengths: tuple[int, ...]) -> Tapping:
    tapping, varying = Tapping(program, program.needed()), reach(program.eqns, program.invars)
    for equation in tapping.equations:
        eqn = equation.eqn
        marks = [is_var(atom) and atom in state.moving for atom in eqn.invars]
        if not any(marks):
            continue
        for result, (var, moves) in enumerate(zip(eqn.outvars, moved_results(eqn, marks), strict=True)):
            if not (moves and is_used(var) and is_inexact(var)):
                continue
            state.moving.add(var)
            operand = marks.index(True)
            if sum(marks) == 1 and (layout := state.known.get(eqn.invars[operand])) and laid_out(eqn, operand, varying):  # pyright: ignore[reportArgumentType]
                state.known[var] = layout.after(equation, operand, result, program.constants)
        if equation.name == "while" and not state.moving.isdisjoint(equation.writes):
            tapping.whiles.append((equation, _within(scope, equation)))
        if all(var not in state.known for var in equation.writes if var in state.moving):
            held = [k for k, atom in enumerate(eqn.invars) if marks[k] and atom in state.known]
            _meet(tapping, equation, held, marks, state, scope, lengths)
    for out in program.outs:
        if is_var(out) and out in state.known:
            _tap_operand(tapping, state.known[out], None, scope, lengths)
    return tapping


def _meet(
    tapping: Tapping,
    equation: Equation,
    held: Sequence[int],
    marks: Sequence[bool],
    state: _State,
    scope: tuple[str, ...],
    lengths: tuple[int, ...],
) -> None:
    """The sites at one equation, whose operands ``held`` are leaves."""
    eqn, here = equation.eqn, _within(scope, equation)
    if equation.name == "scan" and held:
        held = _enter(tapping, equation, held, marks, state, here, lengths)
    rule, moved = RULES.get(equation.name), any(var in state.moving for var in equation.writes)
    for k in held if moved else ():
        layout = state.known[eqn.invars[k]]  # pyright: ignore[reportArgumentType]
        meeting = rule(eqn, k, layout.axes) if rule and eqn.outvars[0] in state.data else None
        if meeting is None:
            _tap_operand(tapping, layout, equation, here, lengths)
            continue
        tap = tapping.results.setdefault(eqn.outvars[0], Slot(eqn.outvars[0]))
        reads = tuple(tapping.exports.setdefault(eqn.invars[j], Slot(eqn.invars[j])) for j in meeting.reads)
        tapping.sites.append(Found(layout, equation, here, meeting, tap, reads, lengths))


def _within(scope: tuple[str, ...], equation: Equation) -> tuple[str, ...]:
    """The scopes of an equation, those around its loop first."""
    own = equation.scope
    return own if own[: len(scope)] == scope else (*scope, *own)


def _tap_operand(
    tapping: Tapping, layout: Layout, equation: Equation | None, scope: tuple[str, ...], lengths: tuple[int, ...]
) -> None:
    """One site for all that reads an operand in ways without a rule."""
    var = layout.end
    if var not in tapping.operands:
        tapping.operands[var] = Slot(var)
        tapping.sites.append(Found(layout, equation, scope, None, tapping.operands[var], (), lengths))
    tapping.readers.setdefault(var, set()).add(None if equation is None else id(equation))


def _enter(
    tapping: Tapping,
    equation: Equation,
    held: Sequence[int],
    marks: Sequence[bool],
    state: _State,
    scope: tuple[str, ...],
    lengths: tuple[int, ...],
) -> list[int]:
    """Find the sites inside of a scan; return the operands that are to be tapped themselves."""
    eqn, loop = equation.eqn, scan_of(equation.eqn)
    first = loop.consts + loop.carries
    body, depth = flatten(loop.body), len(lengths)
    moves = [*marks[: loop.consts], *list(moved_results(eqn, marks))[: loop.carries], *marks[first:]]
    of_data = [is_var(atom) and atom in state.data for atom in eqn.invars]
    of_data[loop.consts : first] = [any(of_data)] * loop.carries  # whatever enters may end in the carry
    data = reach(body.eqns, _marked(body.invars, of_data))
    entering = [k for k in held if k < loop.consts or k >= first]
    while entering:
        known = {
            body.invars[k]: state.known[eqn.invars[k]].entering(body, body.invars[k], rows=k >= first)  # pyright: ignore[reportArgumentType]
            for k in entering
        }
        inner = _walk(body, _State(known, _marked(body.invars, moves), data), scope, (*lengths, loop.length))
        # What has no rule in there is better tapped out here: once, not in every step.
        whole = {site.layout.parts[depth + 1].start for site in inner.sites if site.repeats(depth)}
        if not whole:
            tapping.inside[id(equation)] = inner
            tapping.sites += inner.sites
            tapping.whiles += inner.whiles
            break
        entering = [k for k in entering if body.invars[k] not in whole]
    return [k for k in held if k not in entering]


def _marked(variables: Sequence[Var], marks: Sequence[bool]) -> set[Var]:
    return {var for var, marked in zip(variables, marks, strict=True) if marked}
