"""A stretch of the flat program between two cuts, and the pure function that it is.

A segment reads its state, side values (which do not depend on the chain input) and constants. It
runs by handing JAX a jaxpr of just its equations, so custom rules, contexts and named scopes are
JAX's own business.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.program.flat import Equation, Program, needed
from jaxchain.program.primitives import (
    Atom,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Var,
    dtype_of,
    function_of,
    is_used,
    is_var,
    new_jaxpr,
    new_var,
    shape_of,
    with_callee,
)

__all__ = ["Segment", "computing", "known_values", "run"]


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """Equations between two states.

    Attributes
    ----------
    equations
        In order of evaluation; none for the identity.
    inputs
        The state's variables before: one, or a pytree's leaves.
    outputs
        The state's variables after; in the last segment also literals or side values.
    program
        The whole that it is a part of.
    """

    equations: tuple[Equation, ...]
    inputs: tuple[Var, ...]
    outputs: tuple[Atom, ...]
    program: Program

    @cached_property
    def sides(self) -> tuple[Var, ...]:
        """Variables read that are neither the state, nor made here, nor constants."""
        inner = {var for equation in self.equations for var in equation.writes} | set(self.inputs)
        return tuple(var for var in self._outside(inner) if var not in self.program.constants)

    @cached_property
    def constants(self) -> tuple[Var, ...]:
        """Variables of the constants read."""
        return tuple(var for var in self._outside(set()) if var in self.program.constants)

    def _outside(self, inner: set[Var]) -> list[Var]:
        read = itertools.chain.from_iterable((*(e.reads for e in self.equations), filter(is_var, self.outputs)))
        return list(dict.fromkeys(var for var in read if var not in inner))

    @cached_property
    def call(self) -> Callable[..., list[Any]]:
        """``call(*sides, *inputs)`` → the values of ``outputs``, as arrays."""
        return run(self.program, self.equations, (*self.sides, *self.inputs), self.outputs, self.constants)

    @property
    def jaxpr(self) -> ClosedJaxpr:
        """The same as a program of its own, of ``sides`` and ``inputs``; its equations are the flat program's."""
        given = (*self.sides, *self.inputs)
        values = [self.program.constants[var] for var in self.constants]
        return ClosedJaxpr(new_jaxpr(self.constants, given, self.outputs, [e.eqn for e in self.equations]), values)

    @staticmethod
    def join(parts: Sequence[Segment]) -> Segment:
        """Consecutive segments as one."""
        equations = tuple(equation for part in parts for equation in part.equations)
        return Segment(equations, parts[0].inputs, parts[-1].outputs, parts[0].program)


def fits(values: Sequence[Any], variables: Sequence[Var]) -> bool:
    """Whether values have the shapes and dtypes of variables."""
    return len(values) == len(variables) and all(
        (got.shape, got.dtype) == (shape_of(var), dtype_of(var))
        for got, var in zip(map(jax.typeof, values), variables, strict=True)
    )


def run(
    program: Program,
    equations: Sequence[Equation],
    invars: Sequence[Var],
    outvars: Sequence[Atom],
    constants: Sequence[Var],
) -> Callable[..., list[Any]]:
    """The pure function that evaluates some equations of a program."""
    jaxpr = new_jaxpr(constants, invars, outvars, rematerialised(equations, outvars))
    call = function_of(jaxpr, [program.constants[var] for var in constants])
    if all(map(is_var, outvars)):
        return call
    return lambda *args: [jnp.asarray(value, dtype_of(atom)) for value, atom in zip(call(*args), outvars, strict=True)]


def computing(program: Program, variables: Sequence[Var], inputs: Sequence[Var] = ()) -> Segment:
    """What computes some variables from ``inputs`` and constants alone; its call takes the inputs."""
    return Segment(tuple(needed(program.equations, variables)), tuple(inputs), tuple(variables), program)


def known_values(program: Program, variables: Sequence[Var]) -> list[jax.Array]:
    """The values of variables that are not open, now, whatever is being traced."""
    made = [var for var in variables if var not in program.constants]
    with jax.ensure_compile_time_eval():
        # Constants are there already: to compile a program that returns a matrix takes longer than most plans.
        values = dict(zip(made, jax.jit(computing(program, made).call)() if made else (), strict=True))
        return [values[var] if var in values else jnp.asarray(program.constants[var]) for var in variables]


def rematerialised(equations: Sequence[Equation], outvars: Sequence[Atom]) -> list[JaxprEqn]:
    """The equations as JAX's own, with what came from a rematerialised call put back into one."""
    if all(equation.origin.remat is None for equation in equations):
        return [equation.eqn for equation in equations]
    groups = [list(group) for _, group in itertools.groupby(equations, key=lambda e: id(e.origin.remat))]
    eqns: list[JaxprEqn] = []
    for number, group in enumerate(groups):
        inner, call = [equation.eqn for equation in group], group[0].origin.remat
        if call is None:
            eqns += inner
            continue
        later = {var for others in groups[number + 1 :] for equation in others for var in equation.reads} | set(
            filter(is_var, outvars)
        )
        made = [var for equation in group for var in equation.writes]
        reads = list(dict.fromkeys(var for equation in group for var in equation.reads if var not in set(made)))
        writes = [var for var in made if var in later]
        # The body's variables must be its own: a jaxpr may not share them with the one around it.
        eqns.append(with_callee(call, _renamed(reads, writes, inner), reads, writes))
    return eqns


def _renamed(reads: Sequence[Var], writes: Sequence[Var], eqns: Sequence[JaxprEqn]) -> Jaxpr:
    env: dict[Any, Var] = {var: new_var(var.aval) for var in reads}
    body: list[JaxprEqn] = []
    for eqn in eqns:
        env.update({var: new_var(var.aval) for var in eqn.outvars if is_used(var)})
        body.append(
            eqn.replace(
                invars=[env[atom] if is_var(atom) else atom for atom in eqn.invars],
                outvars=[env[var] if is_used(var) else var for var in eqn.outvars],
            )
        )
    return new_jaxpr([], [env[var] for var in reads], [env[var] for var in writes], body)
