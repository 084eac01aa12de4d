"""`plan`: the cheapest way to a whole Jacobian, found before anything is computed.

Counts what each stage costs, notes what can be read off, and solves the bracketing problem on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxchain.cost.budget import fit
from jaxchain.discovery.find import Found, find
from jaxchain.jacobians.bracketing import Costs, Solution, Step, solve
from jaxchain.jacobians.local import Local
from jaxchain.jacobians.sparse import Colouring, available, colouring_of, may_be_sparse, unavailable
from jaxchain.jacobians.unit import Unit, units_of
from jaxchain.program.segment import Segment
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count

__all__ = ["Plan", "make_plan", "plan", "sparse_plan"]


@dataclass(frozen=True, eq=False)
class Plan(Tabular):
    """How a Jacobian will be computed.

    Attributes
    ----------
    units
        The stages, in order of evaluation.
    steps
        What to do, in order; states are numbered 0 … q.
    cost, forward_cost, reverse_cost
        Predicted multiply-adds of the plan, of one tangent a column, of one cotangent a row.
    """

    found: Found
    units: tuple[Unit, ...]
    steps: tuple[Step, ...]
    cost: float
    forward_cost: float
    reverse_cost: float
    solution: Solution
    whole: Colouring | None = None
    """The coloured pattern of the whole function, where that is the cheapest way."""
    chunk_size: int | None = None
    """How many rows or columns at once keep it within a memory limit; ``None``: all."""

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """n_0 … n_q: numbers in each state."""
        return (self.units[0].here.size, *(unit.there.size for unit in self.units))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the states."""
        return ("input", *(unit.name for unit in self.units))

    @property
    def waist(self) -> str:
        """The narrowest state."""
        return self.names[int(np.argmin(self.sizes))]

    def is_diagonal(self, start: int, stop: int) -> bool:
        """Whether the matrix between two states is diagonal."""
        return all(unit.kind in ("identity", "diagonal") for unit in self.units[start:stop])

    def pulled(self) -> Plan | None:
        """Reverse mode from the last unit's ready matrix on, the others as one; ``None`` where none is ready."""
        *others, last = self.units
        if not others or not math.isfinite(last.ready):
            return None
        before = Segment.join([unit.segment for unit in others])
        head, m = Unit(others[-1].name, before, before, Local("dense")), self.sizes[-1]
        ready, pull = last.ready / 2, self.reverse_cost - m * last.adjoint / 2
        steps = Step("accumulate adjoint", 1, None, 2, ready), Step("eliminate adjoint", 0, 1, 2, pull)
        return replace(self, units=(head, last), steps=steps, cost=ready + pull)

    @property
    def rows(self) -> tuple[Step, ...]:
        """The steps."""
        return self.steps

    def describe(self, step: Step) -> str:
        """One step in words."""
        name = self.names
        if step.middle is None:
            unit = self.units[step.start]
            if unit.colouring is not None:
                return f"∂{name[step.stop]}/∂{name[step.start]} by {unit.colouring.colours} colours"
            kind = unit.kind
            read = {
                "identity": "is the identity",
                "diagonal": "is a diagonal, by one tangent of ones",
                "linear": "is its weights, read off",
            }
            how = "tangents" if step.kind.endswith("tangent") else "cotangents"
            number = self.sizes[step.start if how == "tangents" else step.stop]
            return f"∂{name[step.stop]}/∂{name[step.start]} " + read.get(kind, f"by {count(number, how[:-1])}")
        whole = f"∂{name[step.stop]}/∂{name[step.start]}"
        left, right = f"∂{name[step.stop]}/∂{name[step.middle]}", f"∂{name[step.middle]}/∂{name[step.start]}"
        if step.kind == "multiply":
            return f"{whole} = {left} · {right}"
        if step.kind == "eliminate tangent":
            return (
                f"{whole}: push the {count(self.sizes[step.start], 'column')} of {right} through to {name[step.stop]}"
            )
        return f"{whole}: pull the {count(self.sizes[step.stop], 'row')} of {left} back to {name[step.start]}"

    def _table(self) -> Table:
        better = min(self.forward_cost, self.reverse_cost)
        rows = [(self.describe(s), _whole(s.cost)) for s in self.steps if s.cost or s.middle is None]
        if self.whole is not None:
            how = "tangents" if self.whole.forward else "cotangents"
            rows = [
                (
                    f"∂{self.names[-1]}/∂input, a sparse matrix, by {self.whole.colours} {how}, one a colour",
                    _whole(self.cost),
                )
            ]
        notes = [
            f"Forward mode would take {_whole(self.forward_cost)} multiply-adds, reverse mode {_whole(self.reverse_cost)}, "
            f"this plan {_whole(self.cost)}: {_compared(better / self.cost)}."
            if self.cost
            else "Nothing needs to be multiplied.",
            f"The narrowest state is {self.waist}, {count(min(self.sizes), 'number')}.",
            *(
                [f"To keep within the memory limit, {self.chunk_size} rows or columns are computed at once."]
                if self.chunk_size
                else []
            ),
        ]
        return Table(
            f"Plan for a Jacobian of {self.sizes[-1]} × {self.sizes[0]}", ("step", "multiply-adds"), rows, notes
        )


def _whole(cost: float) -> str:
    """Multiply-adds for people: half a one is one."""
    return si(math.ceil(cost) if math.isfinite(cost) else cost, "")


def _compared(ratio: float) -> str:
    better = "the better of the two"
    return f"{ratio:.3g} times less than {better}" if ratio >= 1.005 else f"as much as {better}"


def plan(fun: Callable[..., Any], args: tuple[Any, ...], argnum: int = -1, memory_limit: int | None = None) -> Plan:
    """Plan the Jacobian of ``fun`` with respect to one argument.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    args
        Its arguments, as arrays or ``jax.ShapeDtypeStruct``.
    argnum
        Which one to differentiate with respect to; default: the last.
    memory_limit
        Most temporary memory in bytes: finds the largest ``chunk_size`` with which the plan keeps it,
        at the price of a few compilations.

    Returns
    -------
    Plan
        ``print`` it.

    Raises
    ------
    TypeError, ValueError
        As `jaxchain.discover`; if the limit cannot be met (says the least that can).

    References
    ----------
    Naumann, arXiv 2406.11862.
    """
    if not isinstance(args, tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = (
            f"args is the tuple of the function's positional arguments: (x,) or (params, x), not {type(args).__name__}."
        )
        raise TypeError(msg)
    made = make_plan(find(fun, args, argnum))
    if memory_limit is None:
        return made
    from jaxchain.jacobians.execute import execute  # runs plans, so it builds on this module

    _, chunk_size = fit([lambda chunk: lambda given: execute(made, given, chunk)], args, max(made.sizes), memory_limit)
    return replace(made, chunk_size=chunk_size)


def make_plan(found: Found, *, structured: bool = True) -> Plan:
    """The cheapest plan for a traced function."""
    units = tuple(units_of(found, structured=structured))
    sizes = np.array([units[0].here.size, *(u.there.size for u in units)], float)
    solution = solve(_costs(units, sizes))
    q = len(units)
    work = solution.cost(0, q)
    tangent, adjoint = sum(u.tangent for u in units), sum(u.adjoint for u in units)
    whole = whole_colouring(found) if structured and q > 1 and _may_be_sparse(units) else None
    if whole is not None:
        by_colour = whole.colours * (tangent if whole.forward else adjoint)
        whole, work = (whole, by_colour) if by_colour < work else (None, work)
    halved = tuple(Step(s.kind, s.start, s.middle, s.stop, s.cost / 2) for s in solution.steps(0, q))
    forward, reverse = float(_times(sizes[0], tangent)), float(_times(sizes[-1], adjoint))
    return Plan(found, units, halved, work / 2, forward / 2, reverse / 2, solution, whole)


def sparse_plan(found: Found) -> Plan:
    """The plan that colours the whole function's pattern, whatever that costs.

    Raises
    ------
    ImportError
        If asdex is not installed; says how to install it.
    NotImplementedError
        If asdex finds no pattern.
    """
    if reason := unavailable():
        msg = f'mode="sparse" needs asdex to find and colour patterns, but {reason}: pip install --upgrade "jaxchain[sparse]".'
        raise ImportError(msg)
    if (whole := whole_colouring(found)) is None:
        msg = 'asdex cannot find the sparsity pattern of this function; use mode="auto".'
        raise NotImplementedError(msg)
    return replace(make_plan(found), whole=whole)


def whole_colouring(found: Found) -> Colouring | None:
    """The coloured pattern of a traced function as a whole."""
    whole = Unit("whole", segment := Segment.join(found.segments), segment, Local("dense"))
    return colouring_of(segment, whole.here, whole.there)


def _may_be_sparse(units: tuple[Unit, ...]) -> bool:
    """Whether no unit makes the product dense, as far as one can see without looking for a pattern."""
    return available() and all(
        u.kind in ("identity", "diagonal") or may_be_sparse(u.segment, u.here, u.there) for u in units
    )


def _costs(units: tuple[Unit, ...], n: np.ndarray) -> Costs:
    """Costs in floating-point operations; structure makes products cheaper than dense ones."""
    tangent, adjoint, ready = (np.array([getattr(u, name) for u in units]) for name in ("tangent", "adjoint", "ready"))
    full = np.concatenate([[0], np.cumsum([u.kind not in ("identity", "diagonal") for u in units])])
    pushed, pulled = _running(tangent), _running(adjoint)

    def multiply(i: Any, k: Any, j: Any) -> Any:
        left, right = full[j] > full[k], full[k] > full[i]
        return np.where(left & right, 2 * n[i] * n[k] * n[j], np.where(left | right, n[i] * n[j], n[i]))

    return Costs(
        tangent=np.minimum(_times(n[:-1], tangent), ready),
        adjoint=_times(n[1:], adjoint),
        multiply=multiply,
        push=lambda i, k, j: _times(n[i], pushed(k, j)),
        pull=lambda i, k, j: _times(n[j], pulled(i, k)),
    )


def _times(count: Any, work: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(work), math.inf, count * work)


def _running(work: np.ndarray) -> Callable[[Any, Any], Any]:
    """Sums over ranges, infinite where a member is."""
    never = np.concatenate([[0], np.cumsum(np.isinf(work))])
    total = np.concatenate([[0.0], np.cumsum(np.where(np.isinf(work), 0.0, work))])
    return lambda i, j: np.where(never[j] > never[i], math.inf, total[j] - total[i])
