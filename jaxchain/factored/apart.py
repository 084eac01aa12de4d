"""Whether a loss is a sum over samples that never meet before it: the proof of `samples`, up to the sums over the batch.

What a sum over the batch makes may only be scaled, moved and added on its way to the loss. Whatever else reads it,
as a normalisation by the batch's mean does, lets every sample depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxchain.errors import SamplesMixError
from jaxchain.factored.sites import root_of, stage_of
from jaxchain.program.flat import Equation
from jaxchain.program.flatten import flatten
from jaxchain.program.primitives import Atom, Var, axes_of, dot_of, is_var, names_in, size_of
from jaxchain.program.reading import trace_program
from jaxchain.samples.place import Lost, Place, Shared, State, Step
from jaxchain.samples.proof import Batch
from jaxchain.samples.uniform import same_along

__all__ = ["prove_apart"]

LINEAR = names_in("layout", "pass") | frozenset(
    """add add_any convert_element_type copy div layout_constraint mul name neg reduce_sum reshard
    sharding_constraint sub""".split()
)
"""What may read a sum over the batch: it is linear where at most one operand of a product is one."""


def prove_apart(loss: Callable[[Any], jax.Array], batch: Any, samples: int, caller: str) -> None:
    """Refuse a loss of a batch (leading axes) that is not proven to be a sum over samples, each by itself.

    Raises
    ------
    SamplesMixError
        Names the stage and the line where samples first meet.
    """
    program = flatten(trace_program(loss, (batch,))[0])
    proof, root, equations = Batch(samples, alike=True).of_values(), root_of(program.equations), program.needed()
    read = {var for equation in equations for var in equation.reads} | set(filter(is_var, program.outs))
    places: dict[Var, State] = {var: Place(0) if size_of(var) else None for var in program.invars}
    places.update(proof.closed_over(program.constants))
    sums: dict[Var, Equation] = {}
    for equation in equations:
        made: list[Equation | None] = _known(equation.eqn.invars, sums)
        states: list[State] = _known(equation.eqn.invars, places)
        if maker := next(filter(None, made), None):
            if not _keeps_a_sum(equation, made, states):
                reason = f"sums over the batch, and {equation.name} at {equation.site} makes more of that than a sum"
                raise _error(maker, root, reason, caller)
            sums.update(dict.fromkeys(equation.writes, maker))
            continue
        after = dict(zip(equation.eqn.outvars, proof.step(equation.eqn, states), strict=True))
        lost = {var: state for var, state in after.items() if var in read and isinstance(state, Lost)}
        if all(state.adds for state in lost.values()) or _sums_samples(equation, states):
            places.update((var, state) for var, state in after.items() if var not in lost)
            sums.update(dict.fromkeys(lost, equation))
        else:
            first = next(state for state in lost.values() if not state.adds)
            raise _error(equation, root, first.reason, caller, certain=first.certain)


def _error(equation: Equation, root: int, reason: str, caller: str, *, certain: bool = True) -> SamplesMixError:
    start = "Samples mix" if certain else "It cannot be proven that samples stay apart"
    stage = stage_of(equation, equation.scope, root)
    msg = (
        f"{start} in stage {stage!r}, at {equation.site}: {equation.name} {reason}. {caller} is for losses that are a "
        "mean or a sum over samples, each of which depends on its own sample alone; divide by a constant, such as "
        "the number of samples, normalise by kept statistics, or pass check=False, which takes the loss of each sample alone, loss(params, batch[b:b+1])."
    )
    return SamplesMixError(msg)


def _keeps_a_sum(equation: Equation, read: Sequence[Equation | None], states: Sequence[State]) -> bool:
    """Whether an equation is linear in what was summed over the batch, and reads of the batch nothing else."""
    if equation.name not in LINEAR or any(isinstance(state, (Place, Step, Lost)) for state in states):
        return False
    if equation.name == "div":
        return read[1] is None
    return equation.name != "mul" or None in read


def _sums_samples(equation: Equation, states: Sequence[State]) -> bool:
    """Whether an equation adds up what belongs to each sample, of two operands at the same time."""
    held = [(k, state) for k, state in enumerate(states) if not isinstance(state, Shared | None)]
    if not all(isinstance(state, Place) for _, state in held):
        return False
    places = [(k, state) for k, state in held if isinstance(state, Place)]
    if equation.name == "reduce_sum":
        return all(place.axis in axes_of(equation.eqn) for _, place in places)
    if equation.name != "dot_general":
        return False
    contracted = dot_of(equation.eqn).contracted
    if any(place.axis not in contracted[k] for k, place in places):
        return False
    for k, place in places:  # weights of samples are a part of what is summed, and the same for all
        beside = contracted[1 - k][list(contracted[k]).index(place.axis)]
        if not same_along(states[1 - k], place._replace(axis=beside)):
            return False
    # Entry p of one is multiplied by entry p of the other: of the same sample, where both count alike.
    return len({(list(contracted[k]).index(place.axis), place.inner) for k, place in places}) == 1


def _known(atoms: Sequence[Atom], known: dict[Var, Any]) -> list[Any]:
    return [known.get(atom) if is_var(atom) else None for atom in atoms]
