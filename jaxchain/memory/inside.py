"""Inside a stage: which of its values to keep, so that the others that its derivative needs take least work to make again.

Exact, for a number of bytes: a value that the derivative needs is kept, or the equation that makes it runs again, and
then needs what it reads. An integer programme, which SciPy's HiGHS solves.

Reference: Zhao, Gusak, Devoret and others, Rockmate: an efficient, fast, automatic and generic tool for
re-materialization in PyTorch, ICML 2023; Jain et al., Checkmate, arXiv 1910.02653.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from jaxchain.cost.count import flops
from jaxchain.cost.liveness import bytes_of
from jaxchain.program.primitives import (
    MOVES,
    Atom,
    Jaxpr,
    JaxprEqn,
    Var,
    as_array,
    dtype_of,
    function_of_equation,
    is_used,
    is_var,
    name_given,
)

Floats = NDArray[np.float64]

__all__ = ["Chosen", "Residuals", "known_as", "named"]

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0)
"""How much of what is kept without a limit may be kept, of each solution."""

QUICK = frozenset(
    """
    abs add add_any and convert_element_type copy eq ge gt integer_pow le lt max min mul ne neg not one_minus_square or
    select_n sign square sub
    """.split()
)
"""What XLA rather computes twice than writes to memory."""

MOST = 400
"""The most equations of which the best choice is looked for."""


class Chosen(NamedTuple):
    """Values that are kept, by name; their bytes; the work to make the others; which states that needs."""

    names: tuple[str, ...]
    kept: int
    work: float
    reads_state: bool
    holds_next: bool


@dataclass(frozen=True)
class Residuals:
    """What a stage's VJP needs of its evaluation.

    Attributes
    ----------
    program
        Of its results, then of all that its VJP keeps; its values are named where they can be kept by name.
    results
        How many results it has.
    held
        Which inputs are there anyway; the others are the state before.
    state
        Which results, by their numbers, are a part of the state after.
    """

    program: Jaxpr
    results: int
    held: Container[Var]
    state: Sequence[int]

    @cached_property
    def makers(self) -> dict[Var, JaxprEqn]:
        """The equation that makes each value."""
        return {var: eqn for eqn in self.program.eqns for var in eqn.outvars if is_used(var)}

    @cached_property
    def names(self) -> dict[Var, str]:
        """A value → the name by which it can be kept. What is named is another value than its maker's own result."""
        return {eqn.outvars[0]: name for eqn in self.program.eqns if (name := name_given(eqn)) is not None}

    @cached_property
    def needed(self) -> list[Var]:
        """What the VJP keeps, each once, of what is not there anyway."""
        return self._not_there(self.program.outvars[self.results :])

    @cached_property
    def after(self) -> set[Var]:
        """The values made here that the state after is made of."""
        return {out for k in self.state if is_var(out := self.program.outvars[k])} & self.makers.keys()

    def everything(self) -> Chosen:
        """All of it kept, as JAX does; XLA writes none to memory that is quickly made of others there."""
        own = {var: self._own(var) for var in (*self.needed, *self.after)}
        state, made = {own[var] for var in self.after}, {own[var] for var in self.needed if var in self.makers}
        kept, there = set[Var](), {*made, *state}
        for var in made - state:
            maker = self.makers[var]
            reads = [self._own(read) for read in self._reads(maker)]
            moved = not reads and maker.primitive.name in MOVES
            if moved or (
                maker.primitive.name in QUICK and all(read in there or read not in self.makers for read in reads)
            ):
                made.update(state.intersection(reads))
            else:
                kept.add(var)
        return Chosen((), sum(map(bytes_of, kept)), 0.0, self._needs_state, not made.isdisjoint(state))

    def stacked(self) -> Chosen:
        """All of it kept, of a loop's steps: as it is, since it is stacked."""
        own = {self._own(var) for var in self.needed if var in self.makers}
        return Chosen((), sum(map(bytes_of, own)), 0.0, self._needs_state, holds_next=False)

    @property
    def _needs_state(self) -> bool:
        """Whether some of what the VJP keeps is of the state before."""
        return any(var not in self.makers for var in self.needed)

    def _own(self, var: Var) -> Var:
        """What a named value is."""
        named = self.makers[var].invars[0] if var in self.names else var
        return named if is_var(named) else var

    def choices(self) -> list[Chosen]:
        """What to keep within some numbers of bytes; each takes less than the one before it, and more work."""
        if self.makers.keys().isdisjoint(self.needed) or len(self.program.eqns) > MOST:
            return []
        free = self._best(None)
        found = [free] + [self._best(int(share * free.kept)) for share in SHARES[1:] if free.kept]
        chosen: list[Chosen] = []
        for one in found:
            if not chosen or one.kept < chosen[-1].kept:
                chosen.append(one)
        return chosen

    def _best(self, limit: int | None) -> Chosen:
        """Least work, then fewest bytes, within a limit."""
        eqns, values = self._reached
        at = {id(eqn): k for k, eqn in enumerate(eqns)} | {var: len(eqns) + k for k, var in enumerate(values)}
        needed = [(self._either(var, at), 1.0) for var in self.needed if var in self.makers]
        read = [
            ({**self._either(var, at), at[id(eqn)]: -1.0}, 0.0)
            for eqn in eqns
            for var in self._reads(eqn)
            if var in self.makers
        ]
        sizes = np.array([0.0 if var in self.after else float(bytes_of(var)) for var in values])
        on = _solved([*needed, *read], np.array(list(map(self._work, eqns))), sizes, limit)
        kept = [var for k, var in enumerate(values) if on[len(eqns) + k]]
        again = [eqn for k, eqn in enumerate(eqns) if on[k]]
        reads_state = self._needs_state or any(var not in self.makers for eqn in again for var in self._reads(eqn))
        return Chosen(
            tuple(self.names[var] for var in kept),
            sum(bytes_of(var) for var in kept if var not in self.after),
            float(sum(map(self._work, again))),
            reads_state,
            not self.after.isdisjoint(kept),
        )

    def _work(self, eqn: JaxprEqn) -> float:
        return 0.0 if name_given(eqn) is not None else flops(eqn)

    @cached_property
    def _reached(self) -> tuple[list[JaxprEqn], list[Var]]:
        """The equations that may run again, and the values that may be kept."""
        seen, todo = dict[int, JaxprEqn](), list(self.needed)
        values: dict[Var, None] = {}
        while todo:
            var = todo.pop()
            maker = self.makers.get(var)
            if maker is None:
                continue
            if var in self.names:
                values[var] = None
            if id(maker) not in seen:
                seen[id(maker)] = maker
                todo += self._reads(maker)
        return list(seen.values()), list(values)

    def _either(self, var: Var, at: dict[int | Var, int]) -> dict[int, float]:
        """Its maker runs again, or it is kept."""
        return {at[id(self.makers[var])]: 1.0} | ({at[var]: 1.0} if var in at else {})

    def _reads(self, eqn: JaxprEqn) -> Sequence[Var]:
        """What an equation reads that is not there anyway."""
        return self._not_there(eqn.invars)

    def _not_there(self, atoms: Sequence[Atom]) -> list[Var]:
        """The variables among some atoms, each once, that are neither constants nor held."""
        given = self.program.constvars
        return [var for var in dict.fromkeys(filter(is_var, atoms)) if var not in given and var not in self.held]


def _solved(
    rows: Sequence[tuple[dict[int, float], float]], work: Floats, sizes: Floats, limit: int | None
) -> NDArray[np.bool_]:
    """Which equations run again and which values are kept: least work in a limit, each row at least its bound."""
    matrix = lil_array((len(rows) + 1, len(work) + len(sizes)))
    for k, (row, _) in enumerate(rows):
        for column, value in row.items():
            matrix[k, column] = value
    matrix[len(rows), len(work) :] = -sizes
    bounds: Any = np.array([*(bound for _, bound in rows), -np.inf if limit is None else -limit], float)
    # A byte is worth less than any operation, yet something.
    price = np.concatenate([work, (sizes + 1.0) * (0.5 / max(sizes.sum() + len(sizes), 1.0))])
    limits = LinearConstraint(matrix.tocsr(), bounds, np.inf)
    return milp(price, constraints=limits, integrality=np.ones(len(price)), bounds=Bounds(0, 1)).x > 0.5


def named(jaxpr: Jaxpr, constants: Sequence[Any], values: Sequence[Any], unnamed: int = 0) -> list[Any]:
    """A program's results; each value on the way is named by its number, those of the first few equations aside."""
    given = zip((*jaxpr.constvars, *jaxpr.invars), (*map(as_array, constants), *values), strict=True)
    known: dict[Any, Any] = dict(given)
    number = itertools.count()
    for position, eqn in enumerate(jaxpr.eqns):
        reads, writes, call = function_of_equation(eqn)
        for var, value in zip(writes, call(*(known[var] for var in reads)), strict=True):
            known[var] = value if position < unnamed else known_as(str(next(number)), value)
    return [known[out] if is_var(out) else jnp.asarray(out.val, dtype_of(out)) for out in jaxpr.outvars]


def known_as(name: str, value: Any) -> Any:
    """A value that can be kept by a name; keys cannot."""
    nameless = jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
    # Before JAX 0.12 what is kept is rounded to its precision, and complex numbers cannot be.
    nameless |= jnp.iscomplexobj(value) and jax.__version_info__ < (0, 12)
    return value if nameless else checkpoint_name(value, name)
