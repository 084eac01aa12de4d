"""Look at a function: its evaluation trace, and what each transform makes of its program."""

from jaxchain.explore.nest import TraceRow
from jaxchain.explore.tracing import Trace, trace
from jaxchain.explore.transformed import TransformRow, Transforms, transforms

__all__ = ["Trace", "TraceRow", "TransformRow", "Transforms", "trace", "transforms"]
