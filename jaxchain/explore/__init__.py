"""Look at a chain: the evaluation trace, what each transform makes of the program, and a page with all of it."""

from jaxchain.explore.nest import TraceRow
from jaxchain.explore.report import report
from jaxchain.explore.trace import Trace, trace
from jaxchain.explore.transforms import TransformRow, Transforms, transforms

__all__ = ["Trace", "TraceRow", "TransformRow", "Transforms", "report", "trace", "transforms"]
