"""Figures of the chain rule, by matplotlib: one function a picture.

Every function draws on the axes it is given, or on fresh ones, and returns them; none shows a
window or changes matplotlib's settings. Heat maps are in `heat` and `product`, strips of singular
values in `spectra`, lines in `curves`, graphs in `nodes`, films in
`moving`, signal propagation in `propagation`, gradient flow in `flowing`, curvature in `bent`, memory in `fitting`; what all of them share is in `style`.
"""

from jaxchain.plot.bent import curvature
from jaxchain.plot.curves import cost_curves, gradient_norms, norms_by_depth
from jaxchain.plot.fitting import memory_tradeoff
from jaxchain.plot.flowing import gradient_flow
from jaxchain.plot.heat import matrix
from jaxchain.plot.moving import animate
from jaxchain.plot.nodes import graph
from jaxchain.plot.product import chain
from jaxchain.plot.propagation import signal
from jaxchain.plot.spectra import singular_values
from jaxchain.plot.style import COLOURS, LINESTYLES, MARKERS, STYLE, save

__all__ = [
    "COLOURS",
    "LINESTYLES",
    "MARKERS",
    "STYLE",
    "animate",
    "chain",
    "cost_curves",
    "curvature",
    "gradient_flow",
    "gradient_norms",
    "graph",
    "matrix",
    "memory_tradeoff",
    "norms_by_depth",
    "save",
    "signal",
    "singular_values",
]
