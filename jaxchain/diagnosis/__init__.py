"""What a chain is at one point: a survey of its states, sweeps and local Jacobians; how gradients flow along it."""

from jaxchain.diagnosis.flowing import FlowRow, GradientFlow
from jaxchain.diagnosis.passing import gradient_flow
from jaxchain.diagnosis.watched import watch

__all__ = ["FlowRow", "GradientFlow", "gradient_flow", "watch"]
