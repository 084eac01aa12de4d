"""How the batch goes through equations that hold programs: calls, branches, loops, solves, own derivative rules.

Each is followed into its body; a loop's carry until it settles. A derivative rule that a user wrote
has to keep samples apart as well as the function does. To teach jaxchain a new one, add it to `BODIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxchain.derivative import is_linear
from jaxchain.errors import first_line
from jaxchain.program.primitives import (
    Atom,
    JaxprEqn,
    adds_up,
    branches_of,
    callee,
    carries_of,
    custom_rule,
    devices_of,
    gathering_of,
    is_inexact,
    is_used,
    is_var,
    linear_call_of,
    linear_solve_of,
    names_in,
    only_raises,
    opened,
    own_evaluation,
    scan_of,
    shape_of,
    sharded_of,
    while_of,
)
from jaxchain.samples.place import OTHERS_ROWS, Lost, Place, Prover, Shared, State, Step, joined
from jaxchain.samples.uniform import closed_over

__all__ = ["BODIES", "without_rule"]

Body = Callable[[JaxprEqn, list[State], Prover], list[State]]


def _call(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    body = callee(eqn)
    if body is None:
        return [batch.lost(eqn, "is a call whose program is not known", certain=False)] * len(eqn.outvars)
    return batch.walk(body, states)


def _each(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """Result k is operand k."""
    del batch
    return states[: len(eqn.outvars)]


def _cond(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    which, *operands = states
    branches = [branch for branch in branches_of(eqn) if not only_raises(branch)]
    if len(branches) == 1:  # the others raise an error, so that where there is a result it is this one's
        return batch.walk(branches[0], operands)
    after: list[State] = [which] * len(eqn.outvars)
    for branch in branches:
        after = joined(batch, eqn, after, batch.walk(branch, operands))
    return after


def _while(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    loop = while_of(eqn)
    m, n = loop.predicate_consts, loop.predicate_consts + loop.body_consts

    def step(now: list[State]) -> list[State]:
        # A predicate may hold the batch itself: JAX then keeps the carry of the samples that are done.
        (again,) = batch.walk(loop.predicate, [*states[:m], *now])
        after = batch.walk(loop.body, [*states[m:n], *now])
        return joined(batch, eqn, [again] * len(now), after)

    return _settled(batch, eqn, states[n:], step)


def _scan(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """Axis k of a stacked value is axis k - 1 in the body; a loop over the batch has one sample a step."""
    loop, inner = scan_of(eqn), batch.inside_loop()
    sample, first = Step(inner.loops), loop.consts + loop.carries
    over_samples = Place(0) in states[first:] and loop.length == batch.samples

    def row(state: State) -> State:
        if isinstance(state, Shared):
            if over_samples and Place(0) not in state.same:
                return batch.lost(eqn, OTHERS_ROWS, certain=False)
            return Shared(frozenset(place._replace(axis=place.axis - 1) for place in state.same if place.axis))
        if not isinstance(state, Place):
            return state
        if state.axis:
            return state._replace(axis=state.axis - 1)
        whole = state.inner == 1 and loop.length == batch.samples
        return sample if whole else batch.lost(eqn, "loops over the batch joined with another axis", certain=False)

    def stacked(state: State, var: Atom) -> State:
        if isinstance(state, Place):
            return state._replace(axis=state.axis + 1)
        if batch.alike and shared(state):  # each step may make another
            return closed_over(var, batch.samples)
        return Place(0) if state == sample else state

    def body(now: list[State]) -> list[State]:
        return inner.walk(loop.body, [*states[: loop.consts], *now, *rows])

    def carried(now: list[State]) -> list[State]:
        passed = batch.lost(eqn, "carries each sample of the batch on to the next", certain=True)
        counted = batch.alike and over_samples
        # Nothing but its own addition reads a sum, so that what it holds is no matter to a step.
        return [
            replace(passed, adds=adds) if state == sample else passed if counted and not kept else state
            for state, kept, adds in zip(body(now)[: loop.carries], unchanged, sums, strict=True)
        ]

    unchanged = [made is given for made, given in carries_of(loop)]
    sums = [counts and shared(s) for counts, s in zip(adds_up(loop), states[loop.consts : first], strict=True)]
    rows = [row(state) for state in states[first:]]
    carry = _settled(batch, eqn, states[loop.consts : first], carried)
    if any(isinstance(state, Lost) and not state.adds for state in carry):  # another carry may enter what is added
        carry = [replace(state, adds=False) if isinstance(state, Lost) else state for state in carry]
    return [*carry, *map(stacked, body(carry)[loop.carries :], eqn.outvars[loop.carries :])]


def _settled(
    batch: Prover, eqn: JaxprEqn, carry: list[State], body: Callable[[list[State]], list[State]]
) -> list[State]:
    """The states of a loop's carry that one more step does not change; each can only lose what is known of it."""
    while (after := joined(batch, eqn, carry, body(carry))) != carry:
        carry = after
    return carry


def _linear_solve(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The solution; applying the matrix to it must give the right-hand side's place, transposed as well."""
    layout = linear_solve_of(eqn)
    solution = states[layout.consts :]
    programs = {name: (program, states[start:stop]) for name, program, start, stop in layout.programs}
    for name in ("solve", "matvec", "transpose_solve", "vecmat"):
        if name in programs:
            program, own = programs[name]
            # A solver is run on tangents and cotangents: what it decides by them is a part of the derivative.
            solution = joined(batch, eqn, solution, batch.of_values().walk(program, [*own, *solution]))
    return solution


def _linear_call(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The program, and where derivatives are followed its author's transpose."""
    after = batch.walk(linear_call_of(eqn), states)
    if not batch.derivatives or any(isinstance(state, Lost) for state in after):
        return after
    return joined(batch, eqn, after, _of_rule(eqn, states, after, batch, forward=False))


def _custom(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The derivative rule, whatever the value is; where values are followed, the body.

    Whoever wrote the rule, it is its own program that is read. A rule of VJPs has to bring the cotangent of a result,
    which lies where the body says, to the place of the operand. What a value ignores its derivative may mix: where
    the rule moves a batch that the value does not hold, the result is taken to hold it.
    """
    rule = custom_rule(eqn)
    if rule is None or rule.body is None:
        return [batch.lost(eqn, "has a derivative rule of its own and no program", certain=False)] * len(eqn.outvars)
    if not batch.derivatives:
        return batch.walk(rule.body, states)
    if rule.forward:
        return _of_rule(eqn, states, [None] * len(eqn.outvars), batch, forward=True)
    after = batch.walk(rule.body, states)
    if None in after:  # such as what was rounded: the rule may say otherwise, and its place is that of its value
        of_value = batch.of_values().walk(rule.body, states)
        after = [of_value[k] if state is None else state for k, state in enumerate(after)]
    if any(isinstance(state, Lost) for state in after):
        return after
    return joined(batch, eqn, after, _of_rule(eqn, states, after, batch, forward=False))


def without_rule(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """A primitive that is not in our tables: by the derivative rule that JAX has for it; of values, as it is evaluated."""
    if lost := [state for state in states if isinstance(state, Lost)]:
        return [min(lost, key=lambda one: one.number)] * len(eqn.outvars)
    after: list[State] = []
    if batch.depth < DEEPEST and batch.derivatives:
        after = _of_rule(eqn, states, [None] * len(eqn.outvars), batch.deeper(), forward=True)
    elif batch.depth < DEEPEST:
        after = _evaluated(eqn, states, batch.deeper())
    return after or [batch.lost(eqn, NO_RULE, certain=False)] * len(eqn.outvars)


def _evaluated(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The results of the program that a primitive of others is evaluated by; nothing where that cannot be read."""
    try:
        program = own_evaluation(eqn)
    except Exception:  # whatever goes wrong in code of others, nothing is proven
        return []
    if program is None:
        return []
    after = batch.walk(program, states)
    if not is_linear(eqn):
        return after
    # A linear function is its own derivative: what a solver decides on the way, such as when to stop, has no say in it.
    linear = batch.of_derivatives().walk(program, states)
    return [linear[k] if is_inexact(var) else after[k] for k, var in enumerate(eqn.outvars)]


def _of_rule(eqn: JaxprEqn, states: list[State], after: list[State], batch: Prover, *, forward: bool) -> list[State]:
    """Where each result's derivative holds the batch, as far as the rule has a say: tangents lie where values do."""
    reads = dict(
        zip(filter(is_var, eqn.invars), (s for a, s in zip(eqn.invars, states, strict=True) if is_var(a)), strict=True)
    )
    used = [k for k, var in enumerate(eqn.outvars) if is_used(var)]
    held = list(reads.values())
    try:
        program, moved, results = batch.rule(eqn, tuple(state is not None for state in held), forward=forward)
    except Exception as error:  # whatever goes wrong in code of others, nothing is proven
        own = f"has a derivative rule that cannot be read ({type(error).__name__}: {first_line(error)})"
        reason = own if custom_rule(eqn) else NO_RULE
        return [batch.lost(eqn, reason, certain=False)] * len(eqn.outvars)
    batch = batch.of_values()
    fixed: list[State] = [None] * len(held)  # at one point: what the rule makes of the values is a number to it
    sources = [held[k] for k in moved]
    targets = [used[k] for k in results]
    nothing: list[State] = [None] * len(after)
    if not sources or not targets:
        return nothing
    if forward:
        got = batch.walk(program, [*fixed, *sources])
        for k, state in zip(targets, got, strict=True):
            nothing[k] = _told(eqn, state, sources)
        return nothing
    # A cotangent of a value that all samples share is their sum: to read it is to mix them.
    shared = batch.lost(eqn, "has a derivative rule that reads a cotangent of all samples", certain=False)
    given = [shared if after[k] is None else after[k] for k in targets]
    got = batch.walk(program, [*fixed, *given])
    for state, source in zip(got, sources, strict=True):
        wrong = _moved(eqn, _told(eqn, state, given), source, batch)
        if wrong is not None:
            return [wrong if is_inexact(var) else None for var in eqn.outvars]
    return nothing


def _moved(eqn: JaxprEqn, told: State, source: State, batch: Prover) -> Lost | None:
    """What is wrong with a cotangent that should lie where its operand does."""
    if isinstance(told, Lost):
        return told
    if told is not None and told != source:
        return batch.lost(eqn, f"has a derivative rule of its own that moves the batch to {told}", certain=False)
    return None


def _told(eqn: JaxprEqn, state: State, before: Sequence[State]) -> State:
    """A loss inside a rule, as one of the equation that brings the rule along; unless it happened before."""
    earlier = {one.number for one in before if isinstance(one, Lost)}
    if not isinstance(state, Lost) or state.eqn is eqn or state.number in earlier:
        return state
    reason = f"has a derivative rule of its own in which {state.eqn.primitive.name} {state.reason}"
    return replace(state, eqn=eqn, reason=reason)


def _sharded(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The program on every device: where the batch is spread over some, each has samples of its own, in order."""
    layout, size = sharded_of(eqn), len(eqn.outvars)
    if lost := [state for state in states if isinstance(state, Lost)]:
        return [min(lost, key=lambda one: one.number)] * size
    ways = {
        spread_of(over, state)
        for over, state in zip(layout.operands, states, strict=True)
        if isinstance(state, (Place, Step))
    }
    split = [
        (state, atom) for state, atom in zip(states, eqn.invars, strict=True) if isinstance(state, Place) and any(ways)
    ]
    over = next(iter(ways))
    local, rest = divmod(batch.samples, math.prod(layout.sizes[name] for name in over))
    odd = any(shape_of(atom)[state.axis] != state.inner * batch.samples for state, atom in split)
    if len(ways) > 1 or rest or odd:
        return [batch.lost(eqn, "spreads the batch over devices in several ways", certain=False)] * size
    inner, alone = batch.on_devices(over, local), Step(batch.loops + 1)
    if batch.alike:
        if over and any(over in spread for spread, s in zip(layout.operands, states, strict=True) if shared(s)):
            return [batch.lost(eqn, OTHERS_ROWS, certain=False)] * size
        local_values = opened(layout.body)[0].invars  # where they are the same for B samples says little of fewer
        states = [closed_over(v, local) if shared(s) else s for v, s in zip(local_values, states, strict=True)]
    if over and local == 1:  # as in a loop over the samples
        inner, states = inner.inside_loop(), list[State](alone if isinstance(s, Place) else s for s in states)

    def gathered(state: State, spread: Sequence[tuple[str, ...]], var: Atom) -> State:
        if batch.alike and shared(state):
            return closed_over(var, batch.samples)
        if state == alone and over in spread:
            return Place(axis := list(spread).index(over), shape_of(var)[axis] // batch.samples)
        if state == alone or (isinstance(state, Place) and spread_of(spread, state) != over and over):
            return batch.lost(eqn, "gathers the batch from devices in another way than it was spread", certain=False)
        return state

    after = inner.walk(layout.body, states)
    return [gathered(*one) for one in zip(after, layout.results, eqn.outvars, strict=True)]


def shared(state: State) -> bool:
    """Whether a value does not depend on the batch."""
    return state is None or isinstance(state, Shared)


def spread_of(spread: Sequence[tuple[str, ...]], state: State) -> tuple[str, ...]:
    """The axes of a mesh over which the batch's own axis is spread."""
    return spread[state.axis] if isinstance(state, Place) and state.axis < len(spread) else ()


def _collective(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """Devices that hold the same samples may talk of them; what was mapped by ``vmap`` is an axis of the value itself."""
    name, over = eqn.primitive.name, devices_of(eqn)
    mapped = [axis for axis in over if isinstance(axis, int)]
    if name not in CASTS and not batch.devices.isdisjoint(over):
        return [batch.lost(eqn, "combines the samples of several devices", certain=True)] * len(eqn.outvars)
    if name == "all_gather" and not mapped:
        axis, tiled = gathering_of(eqn)
        return [s._replace(axis=s.axis + (axis <= s.axis)) if isinstance(s, Place) and not tiled else s for s in states]
    if name not in CASTS | TALKS:
        return without_rule(eqn, states, batch)

    def reduced(state: State) -> State:
        if not isinstance(state, Place):
            return state
        if state.axis in mapped:
            return batch.lost(eqn, "reduces over the batch", certain=True)
        return state._replace(axis=state.axis - sum(axis < state.axis for axis in mapped))

    return list(map(reduced, states))


CASTS = frozenset("pvary reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p".split())
"""Says of which devices a value is, and moves nothing."""

TALKS = frozenset("pbroadcast pmax pmin ppermute psum psum_invariant unreduced_psum".split())
"""Every entry of a result is made from the entries at its place on other devices."""

NO_RULE = "is a primitive without a rule"

DEEPEST = 4
"""How many primitives of others, one within another, are looked through: mapped twice, differentiated once."""

BODIES: dict[str, Body] = {
    **dict.fromkeys(names_in("call", "remat"), _call),
    **dict.fromkeys(names_in("custom"), _custom),
    **dict.fromkeys(names_in("pass"), _each),
    **dict.fromkeys(names_in("collective"), _collective),
    "custom_linear_solve": _linear_solve,
    "linear_call": _linear_call,
    "shard_map": _sharded,
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
