"""How the batch goes through equations that hold programs: calls, branches, loops, solves, own derivative rules.

Each is followed into its body; a loop's carry until it settles. A derivative rule that a user wrote
has to keep samples apart as well as the function does. To teach jaxchain a new one, add it to `BODIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jaxchain.derivative import rule_program
from jaxchain.program.primitives import (
    JaxprEqn,
    branches_of,
    callee,
    custom_rule,
    is_inexact,
    is_used,
    is_var,
    linear_solve_of,
    names_in,
    scan_of,
    while_of,
)
from jaxchain.samples.place import Lost, Place, Prover, State, Step, joined

__all__ = ["BODIES"]

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
    after: list[State] = [which] * len(eqn.outvars)
    for branch in branches_of(eqn):
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
    sample = Step(inner.loops)

    def row(state: State) -> State:
        if not isinstance(state, Place):
            return state
        if state.axis:
            return state._replace(axis=state.axis - 1)
        whole = state.inner == 1 and loop.length == batch.samples
        return sample if whole else batch.lost(eqn, "loops over the batch joined with another axis", certain=False)

    def stacked(state: State) -> State:
        if isinstance(state, Place):
            return state._replace(axis=state.axis + 1)
        return Place(0) if state == sample else state

    def body(now: list[State]) -> list[State]:
        return inner.walk(loop.body, [*states[: loop.consts], *now, *rows])

    def carried(now: list[State]) -> list[State]:
        passed = batch.lost(eqn, "carries each sample of the batch on to the next", certain=True)
        return [passed if state == sample else state for state in body(now)[: loop.carries]]

    first = loop.consts + loop.carries
    rows = [row(state) for state in states[first:]]
    carry = _settled(batch, eqn, states[loop.consts : first], carried)
    return [*carry, *map(stacked, body(carry)[loop.carries :])]


def _settled(
    batch: Prover, eqn: JaxprEqn, carry: list[State], body: Callable[[list[State]], list[State]]
) -> list[State]:
    """The states of a loop's carry that one more step does not change; each can change twice at most."""
    for _ in range(2 * len(carry)):
        after = joined(batch, eqn, carry, body(carry))
        if after == carry:
            break
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
            solution = joined(batch, eqn, solution, batch.walk(program, [*own, *solution]))
    return solution


def _custom(eqn: JaxprEqn, states: list[State], batch: Prover) -> list[State]:
    """The body, and the derivative rule beside it: values and derivatives must lie at the same places.

    Whoever wrote the rule, it is its own program that is read. What a value ignores its derivative may mix: where
    the rule moves a batch that the value does not hold, the result is taken to hold it.
    """
    rule = custom_rule(eqn)
    if rule is None or rule.body is None:
        return [batch.lost(eqn, "has a derivative rule of its own and no program", certain=False)] * len(eqn.outvars)
    after = batch.walk(rule.body, states)
    if not batch.derivatives or any(isinstance(state, Lost) for state in after):
        return after
    derivative = _of_rule(eqn, states, after, batch.of_values(), forward=rule.forward)
    return joined(batch, eqn, after, derivative)


def _of_rule(eqn: JaxprEqn, states: list[State], after: list[State], batch: Prover, *, forward: bool) -> list[State]:
    """Where each result's derivative holds the batch, as far as the rule has a say: tangents lie where values do."""
    reads = dict(
        zip(filter(is_var, eqn.invars), (s for a, s in zip(eqn.invars, states, strict=True) if is_var(a)), strict=True)
    )
    used = [k for k, var in enumerate(eqn.outvars) if is_used(var)]
    program, moved, results = rule_program(eqn, forward=forward)
    sources = [list(reads.values())[k] for k in moved]
    targets = [used[k] for k in results]
    nothing: list[State] = [None] * len(after)
    if all(source is None for source in sources) or not targets:
        return nothing
    if forward:
        got = batch.walk(program, [*reads.values(), *sources])
        for k, state in zip(targets, got, strict=True):
            nothing[k] = _told(eqn, state)
        return nothing
    # A cotangent of a value that all samples share is their sum: to read it is to mix them.
    shared = batch.lost(eqn, "has a derivative rule that reads a cotangent of all samples", certain=False)
    given = [shared if after[k] is None else after[k] for k in targets]
    got = batch.walk(program, [*reads.values(), *given])
    for state, source in zip(got, sources, strict=True):
        wrong = _moved(eqn, state, source, batch)
        if wrong is not None:
            return [wrong if is_inexact(var) else None for var in eqn.outvars]
    return nothing


def _moved(eqn: JaxprEqn, got: State, source: State, batch: Prover) -> Lost | None:
    """What is wrong with a cotangent that should lie where its operand does."""
    told = _told(eqn, got)
    if isinstance(told, Lost):
        return told
    if told is not None and told != source:
        return batch.lost(eqn, f"has a derivative rule of its own that moves the batch to {told}", certain=False)
    return None


def _told(eqn: JaxprEqn, state: State) -> State:
    """A loss inside a rule, as one of the equation that brings the rule along."""
    if not isinstance(state, Lost) or state.eqn is eqn:
        return state
    reason = f"has a derivative rule of its own in which {state.eqn.primitive.name} {state.reason}"
    return replace(state, eqn=eqn, reason=reason)


BODIES: dict[str, Body] = {
    **dict.fromkeys(names_in("call", "remat"), _call),
    **dict.fromkeys(names_in("custom"), _custom),
    **dict.fromkeys(names_in("pass"), _each),
    "custom_linear_solve": _linear_solve,
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
