"""Whole Jacobians: the public call, what it costs, and how its modes compare."""

from jaxchain.jacobian.compare import Comparison, ModeRow, compare_modes
from jaxchain.jacobian.modes import jacobian

__all__ = ["Comparison", "ModeRow", "compare_modes", "jacobian"]
