"""Programs that others' packages make easy to write, one module a field, and what jaxchain shows of them."""

from others import networks, physics, plain, probability, solvers
from others.core import Program, chosen

__all__ = ["PROGRAMS", "Program", "chosen"]

PROGRAMS: tuple[Program, ...] = (
    *solvers.PROGRAMS,
    *networks.PROGRAMS,
    *probability.PROGRAMS,
    *physics.PROGRAMS,
    *plain.PROGRAMS,
)
