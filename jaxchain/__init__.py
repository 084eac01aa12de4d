"""jaxchain: see the chain rule run through any JAX model, and get its derivatives the cheapest way.

A network is a composition h = f_q ∘ … ∘ f_1 of stages; its derivative is the product J_q ⋯ J_1
of their local Jacobians. Start with `nets` or `discover`, then `forward_sweep`, `reverse_sweep`,
`local_jacobians` and `jacobian`; `report` shows all of it. Every name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxchain.collector import uncollected

if TYPE_CHECKING:
    from jaxchain import nets, plot, train
    from jaxchain.chain import Chain
    from jaxchain.discovery import discover
    from jaxchain.errors import ParameterMismatchError, StageError, TangentMismatchError
    from jaxchain.explore import Trace, TraceRow, TransformRow, Transforms, report, trace, transforms
    from jaxchain.jacobians import (
        Bracketing,
        Comparison,
        ModeRow,
        Plan,
        SamplesMixError,
        Step,
        batch_jacobian,
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
    "SamplesMixError",
    "Stage",
    "StageError",
    "Step",
    "Structure",
    "TangentMismatchError",
    "Trace",
    "TraceRow",
    "TransformRow",
    "Transforms",
    "batch_jacobian",
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
    "report",
    "reverse_sweep",
    "suffix_jacobians",
    "trace",
    "train",
    "transforms",
]

_HOMES = ("chain", "discovery", "errors", "jacobians", "stage", "structure", "sweep", "explore")
_MODULES = ("nets", "plot", "train")


def __getattr__(name: str) -> Any:
    """Find a public name where it lives, and keep it (PEP 562)."""
    if name in _MODULES:
        with uncollected():
            return importlib.import_module(f"jaxchain.{name}")
    if name in __all__:
        for home in _HOMES:
            with uncollected():
                module = importlib.import_module(f"jaxchain.{home}")
            if name in module.__all__:
                globals()[name] = getattr(module, name)
                return globals()[name]
    msg = f"module 'jaxchain' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
