"""What a chain is at one point: a survey of its states, sweeps and local Jacobians; how gradients flow along it, and what is wrong."""

from jaxchain.diagnosis.diagnosed import Diagnosis, Finding
from jaxchain.diagnosis.flow_rows import FlowRow
from jaxchain.diagnosis.flowing import GradientFlow
from jaxchain.diagnosis.following import flow
from jaxchain.diagnosis.located import Nonfinite
from jaxchain.diagnosis.nonfinite import locate_nonfinite
from jaxchain.diagnosis.passing import gradient_flow
from jaxchain.diagnosis.singular import spectrum
from jaxchain.diagnosis.spectra import SingularRow, Spectrum
from jaxchain.diagnosis.verdict import diagnose
from jaxchain.diagnosis.watched import watch

__all__ = [
    "Diagnosis",
    "Finding",
    "FlowRow",
    "GradientFlow",
    "Nonfinite",
    "SingularRow",
    "Spectrum",
    "diagnose",
    "flow",
    "gradient_flow",
    "locate_nonfinite",
    "spectrum",
    "watch",
]
