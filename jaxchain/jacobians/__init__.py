"""Whole Jacobians: the plan, the public call, parts of one, what it costs, and how its modes compare."""

from jaxchain.jacobians.batch import batch_jacobian
from jaxchain.jacobians.bracketing import Bracketing, Step, bracket
from jaxchain.jacobians.comparison import Comparison, ModeRow
from jaxchain.jacobians.decision import Decision
from jaxchain.jacobians.determinant import logdet
from jaxchain.jacobians.modes import jacobian, plan
from jaxchain.jacobians.parts import gram_diagonal, jacobian_diagonal, jacobian_rows, partial_jacobian

__all__ = [
    "Bracketing",
    "Comparison",
    "Decision",
    "ModeRow",
    "Step",
    "batch_jacobian",
    "bracket",
    "gram_diagonal",
    "jacobian",
    "jacobian_diagonal",
    "jacobian_rows",
    "logdet",
    "partial_jacobian",
    "plan",
]
