"""Signal propagation: what a wide random network does to lengths, correlations and gradients, in theory and measured.

`fixed_point`, `chi`, `fixed_correlation`, `depth_scales` and `critical_line` are mean-field theory of one layer;
`predict` follows it through a network, and `measure` runs a real one. `jaxchain.plot.signal` draws both.
"""

from jaxchain.signal.meanfield import (
    DepthScales,
    chi,
    critical_line,
    depth_scales,
    fixed_correlation,
    fixed_point,
)
from jaxchain.signal.measured import Measurement, Spread, StateSignal, measure
from jaxchain.signal.predicted import LayerSignal, Prediction, predict

__all__ = [
    "DepthScales",
    "LayerSignal",
    "Measurement",
    "Prediction",
    "Spread",
    "StateSignal",
    "chi",
    "critical_line",
    "depth_scales",
    "fixed_correlation",
    "fixed_point",
    "measure",
    "predict",
]
