"""Whole Jacobians: the plan, the public call, parts of one, what it costs, and how its modes compare."""

from jaxchain.jacobians.batch import batch_jacobian
from jaxchain.jacobians.bracketing import Bracketing, Step, bracket
from jaxchain.jacobians.comparison import Comparison, ModeRow
from jaxchain.jacobians.decision import Decision
from jaxchain.jacobians.determinant import logdet
from jaxchain.jacobians.modes import jacobian, plan
from jaxchain.jacobians.parts import gram_diagonal, jacobian_diagonal, jacobian_rows, partial_jacobian
from jaxchain.jacobians.store import jacobian_to_zarr
from jaxchain.jacobians.streamed import JacobianBlocks, jacobian_blocks

__all__ = [
    "Bracketing",
    "Comparison",
    "Decision",
    "JacobianBlocks",
    "ModeRow",
    "Step",
    "batch_jacobian",
    "bracket",
    "gram_diagonal",
    "jacobian",
    "jacobian_blocks",
    "jacobian_diagonal",
    "jacobian_rows",
    "jacobian_to_zarr",
    "logdet",
    "partial_jacobian",
    "plan",
]
