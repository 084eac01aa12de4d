"""jaxchain: see the chain rule run through any JAX model, and get its derivatives the cheapest way.

A network is a composition h = f_q ∘ … ∘ f_1 of stages; its derivative is the product J_q ⋯ J_1
of their local Jacobians. Start with `nets` or `discover`, then `forward_sweep`, `reverse_sweep`,
`local_jacobians` and `jacobian`; `report` shows all of it.

The public names are listed once, in ``__init__.pyi``, with the modules that they live in; each is loaded
when it is first used, so that importing jaxchain costs little more than importing JAX.
"""

from typing import Any

import lazy_loader

from jaxchain.collector import uncollected

__version__ = "0.1.0"

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in __all__:
        msg = f"module 'jaxchain' has no attribute {name!r}"
        raise AttributeError(msg)
    with uncollected():
        return _load(name)


def __dir__() -> list[str]:
    return sorted([*_names(), "__version__"])
