"""A JAX function as one flat list of equations, as data; `flatten` makes it.

Every variable is unique in the whole, and every equation remembers where it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jax.core import Tracer

from jaxchain.program.flow import active, reach
from jaxchain.program.primitives import Atom, JaxprEqn, Var, is_used, is_var
from jaxchain.program.source import Site

__all__ = ["Call", "Equation", "Origin", "Program", "needed"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function from a library, looked through: its name, and the equation that it was.

    The equation reads variables of the flat program, as it was before loops were unrolled.
    """

    name: str
    eqn: JaxprEqn


@dataclass(frozen=True)
class Origin:
    """Where an equation came from.

    Attributes
    ----------
    scope
        Named scopes around it, outermost first: modules, ``jax.named_scope``, jitted functions.
    call
        The library function that it is a part of.
    within
        The outermost other call that it is a part of.
    remat
        The equation of the rematerialised call that it is a part of.
    steps
        (number of the loop, iteration) of every unrolled loop around it, outermost first.
    """

    scope: tuple[str, ...] = ()
    call: Call | None = None
    within: JaxprEqn | None = None
    remat: JaxprEqn | None = None
    steps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Equation:
    """One equation of the flat program; its variables are unique in the whole."""

    eqn: JaxprEqn
    origin: Origin

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.eqn.primitive.name

    @cached_property
    def site(self) -> Site:
        """Where in the source it was written; for a part of a library function, where that was called."""
        site = Site.of(self.eqn if self.origin.call is None else self.origin.call.eqn)
        if site.is_users or self.origin.within is None:
            return site
        # What a package has jitted knows its caller no more, but the call itself does.
        around = Site.of(self.origin.within)
        return replace(site, file=around.file, line=around.line) if around.is_users else site

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """Its named scopes, or where there are none the classes whose ``__call__`` it was written in."""
        return self.origin.scope or self.site.classes

    @property
    def reads(self) -> list[Var]:
        """Variables read, literals left out."""
        return [atom for atom in self.eqn.invars if is_var(atom)]

    @property
    def writes(self) -> list[Var]:
        """Variables written, dropped ones left out."""
        return [var for var in self.eqn.outvars if is_used(var)]


@dataclass(repr=False)
class Program:
    """A flat program.

    Attributes
    ----------
    equations
        In order of evaluation.
    invars
        One variable an array among the arguments.
    outs
        One variable or literal an array among the results.
    constants
        Arrays that the function closed over, by the variable that stands for them.
    carries
        Position in ``equations`` → variables of a loop's carry there, between two steps.
    notes
        What was left as it was although one might expect otherwise, by variable written.
    """

    invars: list[Var]
    outs: list[Atom] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    constants: dict[Var, Any] = field(default_factory=dict)
    carries: dict[int, list[Var]] = field(default_factory=dict)
    notes: dict[Var, str] = field(default_factory=dict)

    @property
    def eqns(self) -> list[JaxprEqn]:
        """The equations as JAX's own."""
        return [equation.eqn for equation in self.equations]

    @cached_property
    def makers(self) -> dict[Var, Equation]:
        """The equation that writes each variable."""
        return {var: equation for equation in self.equations for var in equation.writes}

    @cached_property
    def open(self) -> set[Var]:
        """The variables whose values are known in a call alone: the arguments, traced constants, what they enter."""
        traced = (var for var, value in self.constants.items() if isinstance(value, Tracer))
        return reach(self.eqns, [*self.invars, *traced])

    @cached_property
    def given(self) -> set[Var]:
        """The arguments and constants, and all that is computed from them: not mere numbers of the program."""
        return reach(self.eqns, [*self.invars, *self.constants])

    @cached_property
    def carrying(self) -> set[Var]:
        """The values that carry a derivative from any of the arguments."""
        return active(self.eqns, self.invars)

    def needed(self) -> list[Equation]:
        """The equations that the results depend on, in order."""
        return needed(self.equations, filter(is_var, self.outs))


def needed(equations: Sequence[Equation], wanted: Iterable[Var]) -> list[Equation]:
    """Those of the equations that some variables depend on, in order."""
    read = set(wanted)
    kept: list[Equation] = []
    for equation in reversed(equations):
        if not read.isdisjoint(equation.writes):
            read.update(equation.reads)
            kept.append(equation)
    return kept[::-1]
