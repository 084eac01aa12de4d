"""jaxchain: see the chain rule run through any JAX model, and get its derivatives the cheapest way.

A network is a composition h = f_q ∘ … ∘ f_1 of stages; its derivative is the product J_q ⋯ J_1
of their local Jacobians. Start with `nets`, `forward_sweep`, `reverse_sweep` and
`local_jacobians`; `plot` is loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxchain import nets, train
from jaxchain.chain import Chain
from jaxchain.discover import discover
from jaxchain.errors import ParameterMismatchError, StageError, TangentMismatchError
from jaxchain.jacobian import (
    Bracketing,
    Comparison,
    ModeRow,
    Plan,
    Step,
    bracket,
    compare_modes,
    gram_diagonal,
    jacobian,
    jacobian_diagonal,
    jacobian_rows,
    partial_jacobian,
    plan,
)
from jaxchain.stage import Stage
from jaxchain.structure import Structure
from jaxchain.sweep import (
    ForwardSweep,
    LocalJacobian,
    ReverseSweep,
    forward_sweep,
    local_jacobians,
    prefix_jacobians,
    reverse_sweep,
    suffix_jacobians,
)

if TYPE_CHECKING:
    from jaxchain import plot

__version__ = "0.1.0"

__all__ = [
    "Bracketing",
    "Chain",
    "Comparison",
    "ForwardSweep",
    "LocalJacobian",
    "ModeRow",
    "ParameterMismatchError",
    "Plan",
    "ReverseSweep",
    "Stage",
    "StageError",
    "Step",
    "Structure",
    "TangentMismatchError",
    "bracket",
    "compare_modes",
    "discover",
    "forward_sweep",
    "gram_diagonal",
    "jacobian",
    "jacobian_diagonal",
    "jacobian_rows",
    "local_jacobians",
    "nets",
    "partial_jacobian",
    "plan",
    "plot",
    "prefix_jacobians",
    "reverse_sweep",
    "suffix_jacobians",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a module that costs much, such as `plot`, when it is first used (PEP 562)."""
    if name == "plot":
        return importlib.import_module("jaxchain.plot")
    msg = f"module 'jaxchain' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
