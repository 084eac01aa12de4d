"""How the batch goes through equations that hold programs: calls, branches, loops, solves, own derivative rules.

Each is followed into its body; a loop's carry until it settles. A derivative rule that a user wrote
has to keep samples apart as well as the function does. To teach jaxchain a new one, add it to `BODIES`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax

from jaxchain.program.flat import (
    is_inexact,
    is_used,
    is_var,
    like,
    scan_arity,
)
from jaxchain.program.segment import new_jaxpr
from jaxchain.program.source import Site, is_library
from jaxchain.samples.rules import Place

if TYPE_CHECKING:
    from jaxchain.samples.proof import Batch

__all__ = ["BODIES", "Lost", "State"]


@dataclass(frozen=True)
class Lost:
    """What became of a value's batch: ``eqn`` mixed samples, or where not ``certain`` nobody knows.

    Attributes
    ----------
    eqn, reason
        The equation, and the end of a sentence that begins with its primitive.
    number
        Losses are counted in order of evaluation.
    site
        The user's line.
    """

    eqn: Any
    reason: str
    certain: bool
    number: int
    site: Site


State = Place | Lost | None
"""Where a value holds the batch; ``None``: nowhere, all samples share it."""


def _join(batch: Batch, eqn: Any, one: State, other: State) -> State:
    """The state of a value that is either of two."""
    if one is None or one == other:
        return other
    if other is None or isinstance(one, Lost):
        return one
    if isinstance(other, Lost):
        return other
    return batch.lost(eqn, f"holds the batch now on {one}, now on {other}", certain=False)


def _joined(batch: Batch, eqn: Any, ones: Sequence[State], others: Sequence[State]) -> list[State]:
    return [_join(batch, eqn, one, other) for one, other in zip(ones, others, strict=True)]


Body = Callable[[Any, list[State], "Batch"], list[State]]


def _call(key: str) -> Body:
    return lambda eqn, states, batch: batch.walk(eqn.params[key], states)


def _each(eqn: Any, states: list[State], batch: Batch) -> list[State]:
    """Result k is operand k."""
    del eqn, batch
    return states


def _cond(eqn: Any, states: list[State], batch: Batch) -> list[State]:
    which, *operands = states
    after: list[State] = [which] * len(eqn.outvars)
    for branch in eqn.params["branches"]:
        after = _joined(batch, eqn, after, batch.walk(branch, operands))
    return after


def _while(eqn: Any, states: list[State], batch: Batch) -> list[State]:
    m, n = eqn.params["cond_nconsts"], eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]

    def step(now: list[State]) -> list[State]:
        # A predicate may hold the batch itself: JAX then keeps the carry of the samples that are done.
        (again,) = batch.walk(eqn.params["cond_jaxpr"], [*states[:m], *now])
        after = batch.walk(eqn.params["body_jaxpr"], [*states[m:n], *now])
        return _joined(batch, eqn, [again] * len(now), after)

    return _settled(batch, eqn, states[n:], step)


def _scan(eqn: Any, states: list[State], batch: Batch) -> list[State]:
    """Axis k of a stacked value is axis k - 1 in the body; a loop over the batch has one sample a step."""
    consts, carries = scan_arity(eqn.params)
    inner = replace(batch, loops=batch.loops + 1)
    sample = Place(-inner.loops)

    def row(state: State) -> State:
        if not isinstance(state, Place) or state.axis < 0:
            return state
        if state.axis:
            return state._replace(axis=state.axis - 1)
        whole = state.inner == 1 and eqn.params["length"] == batch.samples
        return sample if whole else batch.lost(eqn, "loops over the batch joined with another axis", certain=False)

    def stacked(state: State) -> State:
        if not isinstance(state, Place) or (state.axis < 0 and state != sample):
            return state
        return Place(0) if state == sample else state._replace(axis=state.axis + 1)

    def body(now: list[State]) -> list[State]:
        return inner.walk(eqn.params["jaxpr"], [*states[:consts], *now, *rows])

    def carried(now: list[State]) -> list[State]:
        passed = batch.lost(eqn, "carries each sample of the batch on to the next", certain=True)
        return [passed if state == sample else state for state in body(now)[:carries]]

    rows = [row(state) for state in states[consts + carries :]]
    carry = _settled(batch, eqn, states[consts : consts + carries], carried)
    return [*carry, *map(stacked, body(carry)[carries:])]


def _settled(batch: Batch, eqn: Any, carry: list[State], body: Callable[[list[State]], list[State]]) -> list[State]:
    """The states of a loop's carry that one more step does not change; each can change twice at most."""
    for _ in range(2 * len(carry)):
        after = _joined(batch, eqn, carry, body(carry))
        if after == carry:
            break
        carry = after
    return carry


def _linear_solve(eqn: Any, states: list[State], batch: Batch) -> list[State]:
    """The solution; applying the matrix to it must give the right-hand side's place, transposed as well."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    starts = [sum(lengths[:k]) for k in range(5)]
    own = dict(zip(lengths._fields, (states[a:b] for a, b in itertools.pairwise(starts)), strict=True))
    solution = states[starts[4] :]
    for name in ("solve", "matvec", "transpose_solve", "vecmat"):
        program = getattr(programs, name)
        if program is not None:
            solution = _joined(batch, eqn, solution, batch.walk(program, [*own[name], *solution]))
    return solution


def _custom(body_of: Callable[[Any], Any], *, forward: bool) -> Body:
    """The body, and where the derivative rule is a user's own that rule: it too must keep samples apart."""

    def inside(eqn: Any, states: list[State], batch: Batch) -> list[State]:
        body = body_of(eqn)
        after = batch.walk(body, states)
        if not batch.derivatives or is_library(body):
            return after
        rule = _derivative(eqn, states, after, replace(batch, derivatives=False), forward)
        return [rule or state if isinstance(state, Place) else state for state in after]

    return inside


def _expanded(eqn: Any) -> Any:
    """The program that a primitive of JAX's newer kind stands for."""
    primitive = eqn.params["_prim"]
    return jax.make_jaxpr(primitive.expand)(*primitive.in_tree.unflatten([like(atom) for atom in eqn.invars]))


def _derivative(eqn: Any, states: list[State], after: list[State], batch: Batch, forward: bool) -> Lost | None:
    """Where the own rule of a call mixes samples: its tangents or cotangents must lie where its values do."""
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # pyright: ignore[reportPrivateImportUsage]

    at = {var: state for var, state in zip(eqn.invars, states, strict=True) if is_var(var)}
    results = [(v, s) for v, s in zip(eqn.outvars, after, strict=True) if is_used(v) and is_inexact(v)]
    moved = [k for k, (var, state) in enumerate(at.items()) if state is not None and is_inexact(var)]
    if not moved or not results:
        return None
    call = jaxpr_as_fun(ClosedJaxpr(new_jaxpr([], [*at], [var for var, _ in results], [eqn]), []))

    def derivative(values: list[Any], directions: list[Any]) -> Any:
        def of_moved(*chosen: Any) -> list[Any]:
            full = [*values]
            for k, value in zip(moved, chosen, strict=True):
                full[k] = value
            return call(*full)

        primals = [values[k] for k in moved]
        return jax.jvp(of_moved, primals, directions)[1] if forward else jax.vjp(of_moved, *primals)[1]([*directions])

    ins = [(var, state) for k, (var, state) in enumerate(at.items()) if k in moved]
    given, wanted = (ins, results) if forward else (results, ins)
    shared = batch.lost(eqn, "has a derivative rule that reads a cotangent of all samples", certain=False)
    directions = [state if forward or state is not None else shared for _, state in given]
    closed = jax.make_jaxpr(derivative)([like(var) for var in at], [like(var) for var, _ in given])
    for got, (_, state) in zip(batch.walk(closed, [*at.values(), *directions]), wanted, strict=True):
        if isinstance(got, Lost):
            reason = f"has a derivative rule of its own in which {got.eqn.primitive.name} {got.reason}"
            return replace(got, eqn=eqn, reason=reason)
        if got is not None and got != state:
            return batch.lost(eqn, f"has a derivative rule of its own that moves the batch to {got}", certain=False)
    return None


BODIES: dict[str, Body] = {
    **dict.fromkeys(["jit", "pjit", "remat2", "remat", "checkpoint", "composite"], _call("jaxpr")),
    **dict.fromkeys(["closed_call", "core_call", "core_closed_call"], _call("call_jaxpr")),
    "custom_vmap_call": _call("call"),
    "custom_jvp_call": _custom(lambda eqn: eqn.params["call_jaxpr"], forward=True),
    "custom_vjp_call": _custom(lambda eqn: eqn.params["call_jaxpr"], forward=False),
    "call_hi_primitive": _custom(_expanded, forward=False),
    "custom_linear_solve": _linear_solve,
    "optimization_barrier": _each,
    "device_put": _each,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
