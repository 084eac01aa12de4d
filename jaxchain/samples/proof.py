"""The proof that samples of a batch do not mix: the program is followed, with the batch's place in every value.

Each value is shared by all samples (it does not depend on the batch), holds the batch at one place,
or has lost it: some equation has mixed samples, or may have. `rules` says what one primitive
does to the place of the batch, `bodies` what an equation that holds programs does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxchain.derivative import rule_program
from jaxchain.discovery.find import find
from jaxchain.discovery.group import group
from jaxchain.discovery.name import names
from jaxchain.errors import SamplesMixError
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import (
    WITHOUT_DERIVATIVE,
    Atom,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    is_inexact,
    is_var,
    names_in,
    opened,
    size_of,
)
from jaxchain.program.reading import trace_program
from jaxchain.program.source import Site
from jaxchain.samples.bodies import BODIES, without_rule
from jaxchain.samples.place import OTHERS_ROWS, Lost, Mixes, Place, Shared, State, Step, Unproven
from jaxchain.samples.rules import RULES, Rule
from jaxchain.samples.uniform import closed_over, made_of_shared, meets_apart

__all__ = ["Batch", "prove"]


def prove(fun: Callable[[Any], Any], batch: Any, samples: int, axes: Sequence[int]) -> list[Place | Step | None]:
    """Where every output leaf of ``fun`` holds the batch; ``None``: nowhere, it depends on no sample.

    Parameters
    ----------
    fun
        Of the batch alone.
    batch
        Arrays, tracers or ``ShapeDtypeStruct``.
    samples
        B, at least 2: one sample alone never mixes.
    axes
        Batch axis of every leaf of ``batch``, from 0.

    Raises
    ------
    SamplesMixError
        If samples mix or cannot be proven not to; names the first stage and line.
    TypeError
        If ``fun`` has side effects: what it writes to a mutable reference could mix samples unseen.
    """
    closed, _ = trace_program(fun, (batch,))
    states = Batch(samples).walk(closed, _start(closed.jaxpr.invars, axes))
    lost = [state for state in states if isinstance(state, Lost)]
    if lost:
        first = min(lost, key=lambda one: one.number)
        raise _error(first, _stage(fun, batch, samples, axes))
    return [state for state in states if not isinstance(state, (Lost, Shared))]


def _start(invars: Sequence[Any], axes: Sequence[int]) -> list[State]:
    return [Place(axis) if size_of(var) else None for var, axis in zip(invars, axes, strict=True)]


def _stage(fun: Callable[[Any], Any], example: Any, samples: int, axes: Sequence[int]) -> str | None:
    """The stage, in the words of `discover`, in which the batch is first lost for good."""
    found = find(fun, (example,), 0, unroll_limit=0)
    program, batch = found.program, Batch(samples)
    known = dict(zip(program.invars, _start(program.invars, axes), strict=True))
    makers: dict[int, Equation] = {}
    for equation in program.equations:
        states = batch.step(equation.eqn, _read(known, equation.eqn.invars))
        known.update(zip(equation.eqn.outvars, states, strict=True))
        for state in states:
            if isinstance(state, Lost):
                makers.setdefault(state.number, equation)
    first = min((state.number for state in _read(known, program.outs) if isinstance(state, Lost)), default=-1)
    groups = group(found.segments, "default")
    members = ((n, segment) for n, g in zip(names(groups), groups, strict=True) for segment in g)
    return next((name for name, segment in members if makers.get(first) in segment.equations), None)


def _error(lost: Lost, stage: str | None) -> SamplesMixError:
    place = (
        f"{f'stage {stage!r}' if stage else 'the function'}, at {lost.site}: {lost.eqn.primitive.name} {lost.reason}"
    )
    if lost.certain:
        msg = (
            f"Samples mix in {place}. batch_jacobian is for functions in which sample b of the output depends on "
            "sample b of the input alone; use jc.jacobian here, or check=False to skip this proof."
        )
    else:
        msg = (
            f"It cannot be proven that samples stay apart in {place}. "
            "If they do, pass check=False, which skips the proof; if not, use jc.jacobian."
        )
    return SamplesMixError(msg)


def _read(known: dict[Any, State], atoms: Iterable[Any]) -> list[State]:
    return [known.get(atom) if is_var(atom) else None for atom in atoms]


def _located(state: State, eqn: JaxprEqn) -> State:
    """A loss inside a library function happened, for its user, where that was called."""
    return replace(state, site=Site.of(eqn)) if isinstance(state, Lost) and not state.site.file else state


def _told(state: State, var: Atom) -> State:
    """A loss, certain only where it is of what carries a derivative: of an integer it decides, and need not mix."""
    return replace(state, certain=False) if isinstance(state, Lost) and not is_inexact(var) else state


@dataclass(frozen=True)
class Batch:
    """What a proof is about.

    Attributes
    ----------
    samples
        B.
    loops
        How many loops over the samples are under way.
    derivatives
        Whether derivatives are followed, and rules for them that a user wrote; else values.
    alike
        Whether the values that samples share must be the same for each of them, wherever it meets them.
    devices
        The axes of a mesh of devices over which the samples are spread.
    depth
        How many primitives of others are being looked through.
    clock
        Counts losses in order of evaluation.
    rules
        Programs of derivative rules, beside the equations that they belong to.
    """

    samples: int
    loops: int = 0
    derivatives: bool = True
    alike: bool = False
    devices: frozenset[Any] = frozenset()
    depth: int = 0
    clock: Iterator[int] = field(default_factory=itertools.count)
    rules: dict[Any, tuple[JaxprEqn, Any]] = field(default_factory=dict)

    def inside_loop(self) -> Batch:
        """The same, within one more loop over the samples."""
        return replace(self, loops=self.loops + 1)

    def of_values(self) -> Batch:
        """The same, of values, as in a program whose inputs are tangents or cotangents: integers hold samples, too."""
        return replace(self, derivatives=False)

    def of_derivatives(self) -> Batch:
        """The same, of derivatives."""
        return replace(self, derivatives=True, alike=False)

    def deeper(self) -> Batch:
        """The same, within one more primitive of others."""
        return replace(self, depth=self.depth + 1)

    def on_devices(self, devices: Iterable[Any], samples: int) -> Batch:
        """The same, on each of the devices over which the samples are spread; so many are there."""
        return replace(self, devices=self.devices.union(devices), samples=samples)

    def rule(
        self, eqn: JaxprEqn, which: tuple[bool, ...], *, forward: bool
    ) -> tuple[ClosedJaxpr, list[int], list[int]]:
        """`jaxchain.derivative.rule_program`, each made once: a rule may refuse to be run again."""
        key = (id(eqn), which, forward)
        if key not in self.rules:
            self.rules[key] = eqn, rule_program(eqn, forward=forward, which=which)
        return self.rules[key][1]

    def lost(self, eqn: JaxprEqn, reason: str, *, certain: bool) -> Lost:
        """The state of what ``eqn`` makes, where that loses the batch."""
        return Lost(eqn, reason, certain, next(self.clock), Site.of(eqn))

    def walk(self, jaxpr: Jaxpr | ClosedJaxpr, states: Sequence[State]) -> list[State]:
        """The states of a program's results, from those of its arguments."""
        jaxpr, _ = opened(jaxpr)
        if not self.alike:
            states = [None if isinstance(state, Shared) else state for state in states]
        known = self.follow(
            jaxpr.eqns, dict(zip(jaxpr.invars, states, strict=True)) | self.closed_over(jaxpr.constvars)
        )
        return _read(known, jaxpr.outvars)

    def closed_over(self, variables: Iterable[Any]) -> dict[Any, State]:
        """The states of arrays that are not of the batch."""
        return {var: closed_over(var, self.samples) for var in variables} if self.alike else {}

    def follow(self, equations: Iterable[JaxprEqn], states: Mapping[Any, State]) -> dict[Any, State]:
        """The states of what some equations write, beside those of what they read."""
        known = dict(states)
        for eqn in equations:
            after = self.step(eqn, _read(known, eqn.invars))
            known.update(zip(eqn.outvars, [_located(state, eqn) for state in after], strict=True))
        return known

    def step(self, eqn: JaxprEqn, states: list[State]) -> list[State]:
        """The states of one equation's results, from those of its operands."""
        given = {state for state in states if isinstance(state, (Place, Step))}
        lost = [state for state in states if isinstance(state, Lost)]
        follows = [self._follows(eqn, var) for var in eqn.outvars]
        if self.alike and not (given or lost):
            return self._of_shared(eqn, states)
        if not any(follows) or not (given or lost):
            return [None] * len(eqn.outvars)
        after: list[State]
        one = not lost and len(given) == 1 and isinstance(next(iter(given)), Step)
        if one and not self.devices:  # one sample's, whatever is done to it
            after = [*given] * len(eqn.outvars)
        elif (body := BODIES.get(eqn.primitive.name)) is not None:
            after = body(eqn, states, self)
        elif (rule := RULES.get(eqn.primitive.name)) is None:
            after = without_rule(eqn, states, self)
        elif lost:
            after = [min(lost, key=lambda one: one.number)] * len(eqn.outvars)
        else:
            after = [self._place(eqn, states, rule)] * len(eqn.outvars)
        return [
            _told(state, var) if of_interest else None
            for of_interest, state, var in zip(follows, after, eqn.outvars, strict=True)
        ]

    def _of_shared(self, eqn: JaxprEqn, states: list[State]) -> list[State]:
        if eqn.primitive.name not in OPENED:
            return [*made_of_shared(eqn, states, self.samples)]
        after = BODIES[eqn.primitive.name](eqn, states, self)
        unknown = self.closed_over(eqn.outvars)
        return [
            unknown[var] if isinstance(state, Lost) else state for var, state in zip(eqn.outvars, after, strict=True)
        ]

    def _follows(self, eqn: JaxprEqn, var: Atom) -> bool:
        """Whether a result is of interest: it has entries, and where derivatives are followed, it carries one."""
        carries = is_inexact(var) and eqn.primitive.name not in WITHOUT_DERIVATIVE
        return bool(size_of(var)) and (carries or not self.derivatives)

    def _place(self, eqn: JaxprEqn, states: list[State], rule: Rule) -> Place | Step | Lost:
        """Where the results of a primitive hold the batch: all operands that do must agree."""
        given = [(k, place) for k, place in enumerate(states) if isinstance(place, (Place, Step))]
        try:
            places = {place if isinstance(place, Step) else rule(eqn, k, place, self.samples) for k, place in given}
        except (Mixes, Unproven) as verdict:
            return self.lost(eqn, str(verdict), certain=isinstance(verdict, Mixes))
        if len(places) > 1:
            held = " and ".join(sorted({str(place) for _, place in given}))
            return self.lost(eqn, f"combines samples with others: its operands hold the batch on {held}", certain=True)
        place = places.pop()
        if self.alike and isinstance(place, Place) and meets_apart(eqn, states, place, self.samples):
            return self.lost(eqn, OTHERS_ROWS, certain=False)
        return place


OPENED = names_in("call", "remat", "custom", "loop", "pass")
"""What is followed into its program even where that reads nothing of the batch: it may make what meets it."""
