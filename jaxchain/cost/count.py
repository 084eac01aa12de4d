"""How many floating-point operations one equation takes, counted from its shapes.

A multiply-add counts two, any other element of arithmetic one, moving data nothing: XLA's own
convention, so that counts and compiled programs can be compared. A transcendental counts one.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["flops"]

FREE = {
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "iota", "optimization_barrier", "pad", "real", "imag",
    "reshape", "rev", "sharding_constraint", "slice", "split", "squeeze", "stop_gradient", "transpose",
}  # fmt: skip


def flops(eqn: Any) -> float:
    """Floating-point operations of one equation; a loop's body as often as it runs, where that is known."""
    name, params = eqn.primitive.name, eqn.params
    out = sum(math.prod(var.aval.shape) for var in eqn.outvars)
    if name in FREE:
        return 0.0
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * out * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return 2.0 * out * math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
    if name.startswith(("reduce_", "cum", "arg")):
        return float(math.prod(eqn.invars[0].aval.shape))
    if name == "fft":
        size = math.prod(params["fft_lengths"])
        return 5.0 * out * max(math.log2(size), 1.0)
    if name == "cond":
        return max(_body(branch) for branch in params["branches"])
    inner = [_body(value) for key, value in params.items() if key in ("jaxpr", "call_jaxpr", "body_jaxpr", "fun_jaxpr")]
    return sum(inner) * params.get("length", 1) if inner else float(out)


def _body(jaxpr: Any) -> float:
    return sum(flops(eqn) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns)
