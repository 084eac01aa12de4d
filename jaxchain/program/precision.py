"""How precisely a program multiplies matrices, and so how precisely what is made of its derivatives is multiplied.

On accelerators a product of float32 is one of fewer bits unless its author says otherwise; a Jacobian is no better than
the worst product in it. Builds on `flat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import jax

from jaxchain.program.flat import Program
from jaxchain.program.primitives import Jaxpr, JaxprEqn, inner_programs, precision_of

__all__ = ["asked_precision", "precisely", "precisely_as"]

ORDER = ("default", "high", "highest")
"""JAX's precisions, the coarsest first."""

SAME = {
    "bfloat16": "default",
    "fastest": "default",
    "tensorfloat32": "high",
    "bfloat16_3x": "high",
    "float32": "highest",
}
"""Other words for them, as `jax.default_matmul_precision` takes."""


def asked_precision(equations: Iterable[JaxprEqn]) -> str:
    """The highest precision that products among some equations, and in their programs, ask for; else ``"default"``."""
    found, seen = set[str](), dict[int, Jaxpr]()  # held, so that their identities are theirs

    def look(eqns: Iterable[JaxprEqn]) -> None:
        for eqn in eqns:
            found.update(precision_of(eqn))
            for inner in inner_programs(eqn):
                if id(inner) not in seen:
                    seen[id(inner)] = inner
                    look(inner.eqns)

    look(equations)
    return max(found & {*ORDER}, key=ORDER.index, default="default")


def precisely(program: Program) -> AbstractContextManager[Any]:
    """While this lasts, products are no coarser than the program's own, nor than what holds around it."""
    around = str(jax.config.jax_default_matmul_precision or "default")  # pyright: ignore[reportAttributeAccessIssue]
    around = SAME.get(around, around)
    finer = around in ORDER and ORDER.index(asked_precision(program.eqns)) > ORDER.index(around)
    return jax.default_matmul_precision(asked_precision(program.eqns)) if finer else nullcontext()


def precisely_as(program_of: Callable[..., Program]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same while a function runs, of whose arguments ``program_of`` makes the program."""

    def decorated(fun: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fun)
        def precise(*args: Any, **kwargs: Any) -> Any:
            with precisely(program_of(*args)):
                return fun(*args, **kwargs)

        return precise

    return decorated
