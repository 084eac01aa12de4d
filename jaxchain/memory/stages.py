"""The stages of a function, and what each takes: its state, its evaluation, its derivative, the ways to keep it.

Builds on `cutting`, `inside` and `loops`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax

from jaxchain.cost.count import total_flops
from jaxchain.cost.liveness import bytes_of, indices_of, most_alive
from jaxchain.derivative import residual_program
from jaxchain.discovery.name import names
from jaxchain.errors import REFUSALS, refusal
from jaxchain.memory.apart import COPIES
from jaxchain.memory.cutting import Cutting, cut, cut_in_steps
from jaxchain.memory.inside import Chosen, Residuals, named
from jaxchain.memory.loops import Loop
from jaxchain.memory.rounds import LoopPart
from jaxchain.memory.schedule import Links, Way
from jaxchain.program.fingerprint import fingerprint
from jaxchain.program.flat import Equation, Program
from jaxchain.program.primitives import (
    Atom,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Var,
    any_equation_of,
    function_of,
    is_inexact,
    is_var,
    like,
    needed_eqns,
    new_jaxpr,
    scan_of,
)
from jaxchain.program.segment import Segment
from jaxchain.show.values import count

Make = Callable[[Segment, int], Callable[..., list[Any]]]

__all__ = ["HOSTED", "LOOPED", "Piece", "Pieces", "pieces_in_steps", "pieces_of"]

EVERYTHING, NOTHING, AGAIN = "everything kept", "nothing to keep", "made again"
LOOPED = "a loop by a schedule of its own"
HOSTED = "a loop through the host's memory"


@dataclass(frozen=True, eq=False)
class Piece:
    """One stage.

    Attributes
    ----------
    name
        As `jaxchain.discover` would call it.
    segment
        Its equations: from all they read of what was made before, to all that is read of them later.
    free
        What makes, without work, values that they read: not kept, made where they are read.
    state
        Bytes that cross before it.
    running
        Bytes that it takes to run for its result alone, the result included.
    waiting
        Bytes of cotangents of parts of an argument, which stay until those of all parts are there.
    ahead
        Bytes of what XLA makes for its derivative ahead of it, whatever is kept.
    refused
        Why JAX does not differentiate it in reverse mode.
    reverse
        FLOPs of its evaluation and of one cotangent.
    ways
        How what its derivative needs can be kept; the first is JAX's own.
    words
        Of each way, what it is.
    makes
        Of each way, what makes the function of the stage's program: of it, and how many of its first equations are free.
    """

    name: str
    segment: Segment
    free: tuple[Equation, ...]
    state: int
    running: int = 0
    waiting: int = 0
    ahead: int = 0
    refused: Exception | None = None
    reverse: float = 0.0
    ways: tuple[Way, ...] = ()
    words: tuple[str, ...] = ()
    makes: tuple[Make, ...] = ()

    @property
    def reads(self) -> tuple[Var, ...]:
        """What it reads of arguments and of what was made before."""
        return self._whole.sides

    @cached_property
    def _whole(self) -> Segment:
        return replace(self.segment, equations=(*self.free, *self.segment.equations))

    @property
    def writes(self) -> tuple[Var, ...]:
        """What is read of it later."""
        return tuple(filter(is_var, self.segment.outputs))

    @cached_property
    def work(self) -> float:
        """FLOPs of one evaluation."""
        return total_flops(equation.eqn for equation in self.segment.equations)

    @cached_property
    def loops(self) -> bool:
        """Whether loops are a part of it."""
        return any(
            any_equation_of(equation.eqn, lambda eqn: eqn.primitive.name == "scan")
            for equation in self.segment.equations
        )

    def function(self, way: int) -> Callable[..., list[Any]]:
        """From the values that it reads to those that it writes, so that its VJP keeps what this way says."""
        return self.makes[way](self._whole, len(self.free))


@dataclass(frozen=True, eq=False)
class Pieces:
    """A function's program, cut.

    Attributes
    ----------
    program
        The whole.
    pieces
        In order of evaluation.
    held
        Bytes of what is held throughout.
    sums
        Bytes of the cotangents of what many stages read.
    """

    program: Program
    pieces: tuple[Piece, ...]
    held: int
    sums: int

    @property
    def refused(self) -> Exception | None:
        """Why JAX does not differentiate a stage in reverse mode; ``None`` where it does."""
        return next((piece.refused for piece in self.pieces if piece.refused is not None), None)

    @property
    def links(self) -> Links:
        """What a schedule is made of."""
        return Links(
            tuple(piece.state for piece in self.pieces),
            tuple(piece.work for piece in self.pieces),
            tuple(piece.running for piece in self.pieces),
            tuple(piece.waiting for piece in self.pieces),
            tuple(piece.ways for piece in self.pieces),
            # What runs again apart is given copies here, weights included; and what goes to the host goes from the outside.
            tuple(piece.loops if COPIES else HOSTED in piece.words for piece in self.pieces),
            self.sums,
        )


def pieces_of(closed: ClosedJaxpr, offload: float | None = None) -> Pieces:
    """The stages of a function's program, each with what it takes; ``offload`` as of `memory_plan`."""
    return _pieces(cut(closed), offload)


def pieces_in_steps(program: Program) -> Pieces | None:
    """The same, loops of few steps written out; ``None`` where there are none, or the program would be long."""
    cutting = cut_in_steps(program)
    return None if cutting is None else _pieces(cutting, None)


def _pieces(cutting: Cutting, offload: float | None) -> Pieces:
    labels = names([[segment] for segment in cutting.segments])
    sizes = [sum(map(bytes_of, state)) for state in cutting.states]
    known: dict[Any, Piece] = {}
    pieces = [
        _measured(
            Piece(label, segment, cutting.making(segment), size, waiting=cutting.waiting(segment)),
            cutting.there,
            after,
            cutting.cotangents(before & after),
            known,
            offload,
        )
        for label, segment, size, (before, after) in zip(
            labels, cutting.segments, sizes, itertools.pairwise(cutting.states), strict=False
        )
    ]
    held = cutting.held_bytes + sum(piece.ahead for piece in pieces)
    return Pieces(cutting.program, tuple(pieces), held, cutting.sums)


def _measured(
    piece: Piece,
    there: Container[Var],
    after: Container[Var],
    passing: int,
    known: dict[Any, Piece],
    offload: float | None,
) -> Piece:
    """A stage with what it takes; those of the same program are measured once.

    ``passing`` are the bytes of the cotangents that wait meanwhile, of what is read before and after it.
    """
    segment = piece.segment
    pattern = tuple((var in there, var in segment.program.carrying) for var in segment.sides)
    given = [*segment.constants, *segment.sides]
    mark = (
        fingerprint([e.eqn for e in segment.equations], given, segment.outputs, {}, rules=False),
        pattern,
        tuple(var in after for var in piece.writes),
    )
    if mark not in known:
        known[mark] = _measure(piece, there, after, offload)
    like_it = known[mark]
    return replace(
        piece,
        running=like_it.running,
        ahead=like_it.ahead,
        refused=like_it.refused,
        reverse=like_it.reverse,
        ways=tuple(way._replace(peak=way.peak + passing) for way in like_it.ways),
        words=like_it.words,
        makes=like_it.makes,
    )


def _measure(piece: Piece, there: Container[Var], after: Container[Var], offload: float | None) -> Piece:
    segment, reads = piece.segment, piece.segment.sides
    shapes = list(map(like, reads))
    which = [var in segment.program.carrying and is_inexact(var) for var in reads]
    running = most_alive(jax.make_jaxpr(segment.call)(*shapes).jaxpr)
    nothing = Way(0, 0.0, running, reads_state=False)
    alone = replace(piece, running=running, ways=(nothing,), words=(NOTHING,), makes=(_plain,))
    if not any(which) or not any(map(is_inexact, piece.writes)):
        return replace(alone, reverse=piece.work)
    # What its author made run again already is left so.
    whole = any(equation.origin.remat is not None for equation in segment.equations)
    tagged = partial(named, *_program(segment))
    try:
        program, pulled = residual_program(
            segment.call if whole else lambda *values: tagged(values), *shapes, which=which
        )
    except REFUSALS as error:  # a while loop: it may still be evaluated, and pushed through
        refusal(error)
        return replace(alone, refused=error)
    held = {var for var, read in zip(program.jaxpr.invars, reads, strict=True) if read in there}
    moved = [read for read, moves in zip(reads, which, strict=True) if moves]
    gradients = {out for out, read in zip(pulled.jaxpr.outvars, moved, strict=True) if is_var(out) and read in there}
    peak = most_alive(pulled.jaxpr, gradients, pulled.jaxpr.invars[len(reads) :])
    state = [k for k, var in enumerate(piece.writes) if var in after]
    residuals = Residuals(program.jaxpr, len(piece.writes), held, state)
    everything = residuals.everything()
    ways, words, makes = [_way(everything, peak, running)], [EVERYTHING], [_plain]
    if (eqn := _loop_of(segment)) is not None:
        loop = Loop.of(eqn, [is_var(atom) and atom in segment.program.carrying for atom in eqn.invars], offload)
        # What the loop is given and gives back beside what its steps take, and its cotangents; stacks are put together of
        # parts, which stay.
        crossing = [var for var in (*moved, *piece.writes) if var not in there and is_inexact(var)]
        stacked = sum(map(bytes_of, loop.stacks.intersection(crossing)))
        beside = 2 * sum(map(bytes_of, crossing)) + 2 * stacked
        ways[0] = ways[0]._replace(peak=ways[0].peak + stacked)
        for way, parts in loop.plans()[1:]:
            ways.append(way._replace(kept=way.kept + stacked, peak=max(way.peak + beside, running)))
            words.append(HOSTED if way.hosted else LOOPED)
            makes.append(partial(_looped, loop, parts))
    elif not whole:
        for chosen in residuals.choices():
            ways.append(_way(chosen, peak, running))
            words.append(f"{count(len(chosen.names), 'value')} kept" if chosen.names else AGAIN)
            makes.append(partial(_keeping, chosen.names))
    reverse = total_flops(needed_eqns(pulled.jaxpr, pulled.jaxpr.outvars))
    ahead = sum(map(indices_of, pulled.jaxpr.eqns))
    return replace(
        piece, running=running, ahead=ahead, reverse=reverse, ways=tuple(ways), words=tuple(words), makes=tuple(makes)
    )


def _loop_of(segment: Segment) -> JaxprEqn | None:
    """The loop that a segment is, unless it has no steps."""
    (first, *others) = segment.equations
    return first.eqn if first.name == "scan" and not others and scan_of(first.eqn).length else None


def _way(chosen: Chosen, peak: int, running: int) -> Way:
    return Way(chosen.kept, chosen.work, max(peak, running), chosen.reads_state, chosen.holds_next)


def _plain(segment: Segment, free: int) -> Callable[..., list[Any]]:
    """JAX's own way."""
    del free
    return segment.call


def _keeping(names: tuple[str, ...], segment: Segment, free: int) -> Callable[..., list[Any]]:
    """Values of some names kept."""
    if not names:
        return jax.checkpoint(segment.call)
    tagged, policy = partial(named, *_program(segment)), jax.checkpoint_policies.save_only_these_names(*names)
    return jax.checkpoint(lambda *values: tagged(values, free), policy=policy)


def _looped(loop: Loop, parts: Sequence[LoopPart], segment: Segment, free: int) -> Callable[..., list[Any]]:
    """A loop by a schedule of its own."""
    equation = segment.equations[free]
    operands = function_of(*_program(segment, free, equation.eqn.invars))
    written = {var: k for k, var in enumerate(equation.eqn.outvars)}

    # Of loops of the same program only the first was measured; derivative rules are each one's own.
    run = replace(loop, eqn=equation.eqn).function(parts)

    def call(*values: Any) -> list[Any]:
        made = run(*operands(*values))
        return [made[written[out]] for out in segment.outputs if is_var(out)]

    return call


def _program(
    segment: Segment, before: int | None = None, outs: Sequence[Atom] | None = None
) -> tuple[Jaxpr, list[Any]]:
    """The program of a segment, or of its first equations to some values of theirs; and its constants."""
    eqns = [equation.eqn for equation in segment.equations[:before]]
    jaxpr = new_jaxpr(segment.constants, segment.sides, segment.outputs if outs is None else outs, eqns)
    return jaxpr, [segment.program.constants[var] for var in segment.constants]
