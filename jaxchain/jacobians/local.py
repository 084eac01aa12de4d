"""Local Jacobians that need no differentiation: read off the program, one rule a primitive.

A rule looks at a segment and says what its matrix is and where its entries come from. What has no
rule is accumulated. A new linear primitive is a function in `RULES`; elementwise ones and reshapes are known by their kind
(`jaxchain.program.primitives`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.derivative import rule_program
from jaxchain.errors import REFUSALS
from jaxchain.jacobians.matrix import Blocks, Dense, Layout, Matrix, scattered
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import (
    ELEMENTWISE,
    SHIFTS,
    Atom,
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    callee,
    convolution_of,
    custom_rule,
    dot_of,
    dtype_of,
    is_var,
    keeps_order,
    ndim_of,
    needed_eqns,
    opened,
    shape_of,
    size_of,
)
from jaxchain.program.segment import Segment

__all__ = ["Local", "read_off"]

Kind = Literal["identity", "diagonal", "linear", "dense"]


@dataclass(frozen=True)
class Local:
    """What one segment's Jacobian is.

    Attributes
    ----------
    kind
        ``identity``; ``diagonal``, its entries got by one tangent of ones; ``linear``, its matrix
        made of side values by ``matrix``; ``dense``, to be accumulated.
    matrix
        ``matrix(*sides)`` → (m, n), moving numbers without arithmetic. Only for ``linear``.
    layouts
        Of the state before and the state after, where that matrix is `Blocks`; then coarser ones.
    """

    kind: Kind
    matrix: Callable[..., Matrix] | None = None
    layouts: tuple[tuple[Layout, Layout], ...] = ()


def read_off(segment: Segment) -> Local:
    """What a segment's Jacobian is known to be without differentiating it."""
    if len(segment.inputs) != 1 or len(segment.outputs) != 1 or not is_var(segment.outputs[0]):
        return Local("dense")
    (x,), (y,) = segment.inputs, segment.outputs
    if not all(jnp.issubdtype(dtype_of(v), jnp.floating) for v in (x, y)):
        return Local("dense")
    if not segment.equations:  # the output is the input itself, or it does not depend on it
        return Local("identity" if x is y else "dense")
    if all(_keeps(e, segment) for e in segment.equations) and dtype_of(x) == dtype_of(y) and size_of(x) == size_of(y):
        return Local("identity")
    if shape_of(x) == shape_of(y) and _are_elementwise([e.eqn for e in segment.equations], shape_of(x)):
        return Local("diagonal")
    if len(segment.equations) == 1 and (rule := RULES.get(segment.equations[0].name)) is not None:
        return rule(segment.equations[0], segment) or Local("dense")
    return Local("dense")


def _keeps(equation: Equation, segment: Segment) -> bool:
    """Whether an equation passes its input on, shifted or reshaped at most."""
    own = [atom for atom in equation.reads if atom not in segment.sides and atom not in segment.constants]
    if keeps_order(equation.eqn) or (
        equation.name == "broadcast_in_dim" and own and size_of(own[0]) == size_of(equation.eqn.outvars[0])
    ):
        return True
    shifted = equation.name in SHIFTS and len(own) == 1 and shape_of(own[0]) == shape_of(equation.eqn.outvars[0])
    return shifted and not (equation.name == "sub" and equation.eqn.invars[0] is not own[0])


def _is_elementwise(eqn: JaxprEqn, shape: tuple[int, ...], *, derivative: bool = True) -> bool:
    """Whether every output entry (and its derivative) depends only on the input entries at the same place."""
    if (rule := custom_rule(eqn)) is not None and derivative:
        # What differentiates is the rule, not the function that it belongs to: a user may have written one for tanh.
        try:
            return rule.forward and _all_elementwise(rule_program(eqn, forward=True)[0], shape, derivative=False)
        except REFUSALS:  # it wants an operand held still
            return False
    body = callee(eqn) if rule is None else rule.body
    if body is not None:
        return _all_elementwise(body, shape, derivative=derivative)
    if eqn.primitive.name == "broadcast_in_dim":  # of a scalar: a constant laid out beside the state
        return shape_of(eqn.invars[0]) == ()
    return eqn.primitive.name in ELEMENTWISE and all(
        shape_of(atom) in (shape, ()) for atom in (*eqn.invars, *eqn.outvars)
    )


def _all_elementwise(body: Jaxpr | ClosedJaxpr, shape: tuple[int, ...], *, derivative: bool) -> bool:
    jaxpr = opened(body)[0]
    return _are_elementwise(needed_eqns(jaxpr, jaxpr.outvars), shape, derivative=derivative)


def _are_elementwise(eqns: Sequence[JaxprEqn], shape: tuple[int, ...], *, derivative: bool = True) -> bool:
    """The same of equations in order."""
    laid_out: set[Atom] = set()  # numbers, repeated: under vmap a constant is laid out for a sample, then for all
    for eqn in eqns:
        if eqn.primitive.name == "broadcast_in_dim" and (shape_of(eqn.invars[0]) == () or eqn.invars[0] in laid_out):
            laid_out.update(eqn.outvars)
        elif not _is_elementwise(eqn, shape, derivative=derivative):
            return False
    return True


def _state_and_side(equation: Equation, segment: Segment) -> tuple[int, int] | None:
    """Positions of the state and of the side value among two operands; ``None`` if both are the state's."""
    given = set(segment.sides) | set(segment.constants)
    aside = [not is_var(atom) or atom in given for atom in equation.eqn.invars]
    return (aside.index(False), aside.index(True)) if aside.count(True) == 1 else None


def _side_reader(segment: Segment, atom: Atom) -> Callable[..., jax.Array]:
    """``read(*sides)``: the value of a side variable, constant or literal."""
    if not is_var(atom):
        return lambda *_: jnp.asarray(atom.val)
    if atom in segment.program.constants:
        return lambda *_: segment.program.constants[atom]
    position = segment.sides.index(atom)
    return lambda *sides: sides[position]


def dot_general(equation: Equation, segment: Segment) -> Local | None:
    """A product with a side value: its weights, once for every position that the state has beside."""
    if (places := _state_and_side(equation, segment)) is None:
        return None
    eqn, (own, other) = equation.eqn, places
    product = dot_of(eqn)
    x, w = eqn.invars[own], eqn.invars[other]
    if product.batched[0] or dtype_of(x) != dtype_of(eqn.outvars[0]) or not size_of(x) or not size_of(eqn.outvars[0]):
        return None
    dtype = dtype_of(x)
    free, kept = product.free(own, ndim_of(x)), product.free(other, ndim_of(w))
    summed, by = product.contracted[own], product.contracted[other]
    outs, ins = (math.prod(shape_of(w)[k] for k in axes) for axes in (kept, by))
    # The axes that are summed, in the state's order; the result's follow the operands.
    by = [axis for _, axis in sorted(zip(summed, by, strict=True))]
    first = 0 if own == 0 else len(kept)
    places = range(first, first + len(free))
    layouts = Layout.each(([shape_of(x)], [free]), ([shape_of(eqn.outvars[0])], [places]))
    read = _side_reader(segment, w)

    def matrix(*sides: jax.Array) -> Matrix:
        weights = jnp.transpose(read(*sides), (*kept, *by)).reshape(outs, ins).astype(dtype)
        return Blocks(weights[None], *layouts[0]) if layouts else Dense(weights)

    return Local("linear", matrix, layouts)


def conv_general_dilated(equation: Equation, segment: Segment) -> Local | None:
    """A convolution by a side value: every entry is one weight of the kernel, or zero."""
    if _state_and_side(equation, segment) != (0, 1):
        return None
    eqn = equation.eqn
    if convolution_of(eqn).batch_groups != 1 or dtype_of(eqn.invars[0]) != dtype_of(eqn.outvars[0]):
        return None
    rows, columns, weights = conv_entries(eqn)
    x, y = eqn.invars[0], eqn.outvars[0]
    image, out = convolution_of(eqn).image[0], convolution_of(eqn).out[0]
    images = shape_of(x)[image]
    shape = size_of(y) // images, size_of(x) // images
    order = np.lexsort((columns, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    layouts = Layout.each(([shape_of(x)], [(image,)]), ([shape_of(y)], [(out,)]))
    read = _side_reader(segment, eqn.invars[1])

    def matrix(*sides: jax.Array) -> Matrix:
        each = scattered(rows, columns, read(*sides).reshape(-1)[weights], shape)
        return Blocks(each[None], *layouts[0]) if layouts else Dense(each)

    return Local("linear", matrix, layouts)


def conv_entries(eqn: JaxprEqn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat (output, input, kernel) indices of every product that a convolution sums, of one image."""
    layout = convolution_of(eqn)
    lhs_spec, rhs_spec, out_spec, groups = layout.image, layout.kernel, layout.out, layout.feature_groups
    kernel = shape_of(eqn.invars[1])
    lhs, out = (
        tuple(1 if axis == spec[0] else size for axis, size in enumerate(shape_of(v)))
        for v, spec in ((eqn.invars[0], lhs_spec), (eqn.outvars[0], out_spec))
    )
    n_out, n_in = kernel[rhs_spec[0]], kernel[rhs_spec[1]]
    feature, inner = np.arange(n_out), np.arange(n_in)
    spatial = []
    windows = zip(layout.strides, layout.padding, layout.image_dilation, layout.kernel_dilation, strict=True)
    for axis, (stride, (low, _), dilate_in, dilate_kernel) in enumerate(windows):
        o, k = np.meshgrid(np.arange(out[out_spec[2 + axis]]), np.arange(kernel[rhs_spec[2 + axis]]), indexing="ij")
        i = o * stride - low + k * dilate_kernel
        real = (i % dilate_in == 0) & (i >= 0) & (i // dilate_in < lhs[lhs_spec[2 + axis]])
        spatial.append(np.stack([o, i // dilate_in, k], axis=-1)[real])
    grids = np.meshgrid(feature, inner, *(np.arange(len(s)) for s in spatial), indexing="ij")
    f, c, *at = (grid.ravel() for grid in grids)
    places = [s[index].T for s, index in zip(spatial, at, strict=True)]
    image, source = np.zeros_like(f), c + (f // (n_out // groups)) * n_in

    def flat(shape: tuple[int, ...], spec: Any, first: np.ndarray, second: np.ndarray, which: int) -> np.ndarray:
        coordinates = [first, second, *(place[which] for place in places)]
        ordered = [coordinates[list(spec).index(axis)] for axis in range(len(shape))]
        return np.ravel_multi_index(ordered, shape)

    return flat(out, out_spec, image, f, 0), flat(lhs, lhs_spec, image, source, 1), flat(kernel, rhs_spec, f, c, 2)


RULES: dict[str, Callable[[Equation, Segment], Local | None]] = {
    "conv_general_dilated": conv_general_dilated,
    "dot_general": dot_general,
}
"""Primitive → the rule for a segment of that one equation; ``None`` from a rule: it does not apply."""
