"""Whole Jacobians: the plan, the public call, parts of one, what it costs, and how its modes compare."""

from jaxchain.jacobian.bracket import Bracketing, Step, bracket
from jaxchain.jacobian.compare import Comparison, ModeRow, compare_modes
from jaxchain.jacobian.modes import jacobian
from jaxchain.jacobian.parts import gram_diagonal, jacobian_diagonal, jacobian_rows, partial_jacobian
from jaxchain.jacobian.plan import Plan, plan

__all__ = [
    "Bracketing",
    "Comparison",
    "ModeRow",
    "Plan",
    "Step",
    "bracket",
    "compare_modes",
    "gram_diagonal",
    "jacobian",
    "jacobian_diagonal",
    "jacobian_rows",
    "partial_jacobian",
    "plan",
]
