"""Where a leaf meets the data: one rule a primitive, in a table.

A rule says of an equation that is linear in one operand, out = B(w, x), which other operands its derivative needs
and how these and δ, the cotangent of the result, are the factors of the operand's gradient. To teach jaxchain a new
one, add a function to `RULES`; a test holds every entry against accumulation. What has no rule is differentiated
by the general way, from the leaf on.

References: Grosse and Martens, A Kronecker-factored approximate Fisher matrix for convolution layers, ICML 2016, arXiv 1602.01407.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxchain.derivative import vjp
from jaxchain.factored.factors import Factor, Picked, Product, Whole
from jaxchain.program.primitives import (
    Convolution,
    JaxprEqn,
    clips_indices,
    convolution_of,
    dot_of,
    dtype_of,
    function_of_equation,
    ndim_of,
    shape_of,
    windows_of,
)

__all__ = ["KINDS", "RULES", "Meeting"]

KINDS = ("dense", "shared", "convolution", "scale", "bias", "embedding", "other")
"""Weights of one position, of several or of all steps of a loop; the rest as they are called."""


@dataclass(frozen=True)
class Meeting:
    """How one equation is linear in one operand.

    Attributes
    ----------
    kind
        One of `KINDS`.
    reads
        The operands that the factors are made of, beside δ.
    factors
        ``factors(values, delta)``: those of one sample's gradient, in one step of every loop.
    fold
        A factored gradient (N, I, O) as one of the operand.
    sides
        The operand's axes that count blocks (N), rows (I) and columns (O), so that sites of the same leaf can be told to be
        alike; ``None`` where axes do not tell.
    positions
        T, in one step.
    multiplied
        ``multiplied(values, delta)``: the operand's gradient, where that takes less than from factors.
    """

    kind: str
    reads: tuple[int, ...]
    factors: Callable[[Sequence[jax.Array], jax.Array], Factor]
    fold: Callable[[jax.Array], jax.Array] = lambda gradient: gradient
    sides: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None
    positions: int = 1
    multiplied: Callable[[Sequence[jax.Array], jax.Array], jax.Array] | None = None


Rule = Callable[[JaxprEqn, int, Sequence[int]], Meeting | None]
"""``rule(eqn, k, order)``: how the equation meets its operand k, whose axes are put into this order; ``None``: in no known way."""


def _dot(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting:
    """G = Σ over the data's own axes of x ⊗ δ, a block for each batched entry."""
    dot, other = dot_of(eqn), 1 - k
    shapes = [shape_of(eqn.invars[j]) for j in (0, 1)]

    def ordered(axes: Sequence[int]) -> list[int]:
        return sorted(range(len(axes)), key=lambda j: order[axes[j]])

    def picked(axes: Sequence[int], which: Sequence[int]) -> list[int]:
        return [axes[j] for j in which]

    own, theirs = dot.free(k, len(shapes[k])), dot.free(other, len(shapes[other]))
    blocks, rows, columns = map(ordered, (dot.batched[k], dot.contracted[k], own))
    batch = len(blocks)
    # The result: batched axes, those of the left operand, those of the right.
    at_own, at_theirs = (batch + len(theirs) * k, batch + len(own) * other)
    n, i = (
        math.prod(picked(shapes[k], picked(axes[k], js)))
        for axes, js in ((dot.batched, blocks), (dot.contracted, rows))
    )
    t, o = math.prod(picked(shapes[other], theirs)), math.prod(picked(shapes[k], own))
    from_x = [*picked(dot.batched[other], blocks), *theirs, *picked(dot.contracted[other], rows)]
    from_delta = [*blocks, *range(at_theirs, at_theirs + len(theirs)), *(at_own + j for j in columns)]

    def factors(values: Sequence[jax.Array], delta: jax.Array) -> Factor:
        (x,) = values
        return Product(x.transpose(from_x).reshape(n, t, i), delta.transpose(from_delta).reshape(n, t, o))

    sides = tuple(
        picked(axes, js) for axes, js in ((dot.batched[k], blocks), (dot.contracted[k], rows), (own, columns))
    )
    return Meeting("dense", (other,), factors, _folding(shapes[k], sides), tuple(map(tuple, sides)), t)  # pyright: ignore[reportArgumentType]


def _folding(shape: Sequence[int], sides: Sequence[Sequence[int]]) -> Callable[[jax.Array], jax.Array]:
    """Blocks, rows and columns back to the operand's axes."""
    axes = [axis for side in sides for axis in side]
    back = [axes.index(axis) for axis in range(len(shape))]
    return lambda gradient: gradient.reshape([shape[axis] for axis in axes]).transpose(back)


def _convolution(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting | None:
    """A product of patches and kernel, a block for each group of features."""
    del order
    layout = convolution_of(eqn)
    if k != 1 or layout.batch_groups != 1:
        return None
    kernel, groups = shape_of(eqn.invars[1]), layout.feature_groups
    out_axis, in_axis, *space = layout.kernel
    windows, features = [kernel[axis] for axis in space], kernel[out_axis] // groups

    def factors(values: Sequence[jax.Array], delta: jax.Array) -> Factor:
        x = patches(values[0], windows, layout, delta.shape)
        left = x.reshape(-1, math.prod(windows), groups, x.shape[-1] // groups).transpose(2, 0, 1, 3)
        right = delta.transpose(layout.out[0], *layout.out[2:], layout.out[1]).reshape(-1, groups, features)
        return Product(left.reshape(groups, left.shape[1], -1), right.swapaxes(0, 1))

    axes = [out_axis, *space, in_axis]  # as the kernel comes out of the product
    back = [axes.index(axis) for axis in range(len(axes))]

    def fold(gradient: jax.Array) -> jax.Array:
        return gradient.mT.reshape([kernel[axis] for axis in axes]).transpose(back)

    def multiplied(values: Sequence[jax.Array], delta: jax.Array) -> jax.Array:
        reads, _, call = function_of_equation(eqn)
        at = reads.index(eqn.invars[0])  # pyright: ignore[reportArgumentType]
        image, zero = values[0], jnp.zeros(kernel, dtype_of(eqn.invars[1]))
        return vjp(lambda w: call(*((image, w) if at == 0 else (w, image)))[0], zero)[1](delta)[0]

    return Meeting("convolution", (0,), factors, fold, positions=2, multiplied=multiplied)


def patches(image: jax.Array, windows: Sequence[int], layout: Convolution, out: Sequence[int]) -> jax.Array:
    """What the kernel sees at each position: (samples, positions …, windows …, features). Nothing is computed."""
    x = image.transpose(layout.image[0], *layout.image[2:], layout.image[1])
    dilated = [(low, high, by - 1) for (low, high), by in zip(layout.padding, layout.image_dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *dilated, (0, 0, 0)])
    for j, size in enumerate(windows):
        # One axis after the other: so many slices as all windows are long together.
        apart, stride, last = layout.kernel_dilation[j], layout.strides[j], out[layout.out[2 + j]] - 1
        starts = range(0, apart * size, apart)
        parts = [lax.slice_in_dim(x, start, start + stride * last + 1, stride, 1 + j) for start in starts]
        x = jnp.stack(parts, axis=-2)
    return x


def _embedding(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting | None:
    """Whole rows, looked up along one axis."""
    windows, table = windows_of(eqn), shape_of(eqn.invars[0])
    if k or len(windows.places) != 1 or windows.beside:
        return None
    (axis,) = windows.places
    if axis in windows.kept or any(size != table[a] for a, size in enumerate(windows.sizes) if a != axis):
        return None
    rest = sorted(windows.kept, key=lambda a: order[a])
    at = {a: windows.axes[list(windows.kept).index(a)] for a in rest}
    positions = [a for a in range(ndim_of(eqn.outvars[0])) if a not in windows.axes]
    clips, rows, width = clips_indices(eqn), table[axis], math.prod(table[a] for a in rest)

    def factors(values: Sequence[jax.Array], delta: jax.Array) -> Factor:
        index = values[0].reshape(1, -1).astype(jnp.int32)
        right = delta.transpose(*positions, *(at[a] for a in rest)).reshape(1, -1, width)
        inside = jnp.clip(index, 0, rows - 1)
        if not clips:
            right = jnp.where((index == inside)[..., None], right, 0)
        return Picked(inside, right, rows)

    sides = ((), (axis,), tuple(rest))
    return Meeting("embedding", (1,), factors, _folding(table, sides), sides)


def _scale(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting:
    """Entry by entry: x · δ."""
    del order
    shape = shape_of(eqn.invars[k])
    return Meeting("scale", (1 - k,), lambda values, delta: Whole(_as(values[0] * delta, shape)))


def _quotient(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting | None:
    """Linear in the numerator."""
    del order
    shape = shape_of(eqn.invars[0])
    return None if k else Meeting("scale", (1,), lambda values, delta: Whole(_as(delta / values[0], shape)))


def _shift(eqn: JaxprEqn, k: int, order: Sequence[int]) -> Meeting:
    """Δ itself."""
    del order
    negative, shape = k == 1 and eqn.primitive.name == "sub", shape_of(eqn.invars[k])
    return Meeting("bias", (), lambda _, delta: Whole(_as(-delta if negative else delta, shape)))


def _as(gradient: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Of an operand that was stretched to the result's shape, the sum over the copies."""
    if len(shape) < gradient.ndim:  # one number
        return jnp.sum(gradient).reshape(shape)
    stretched = [axis for axis, size in enumerate(shape) if size != gradient.shape[axis]]
    return jnp.sum(gradient, stretched, keepdims=True) if stretched else gradient


RULES: dict[str, Rule] = {
    "add": _shift,
    "add_any": _shift,
    "conv_general_dilated": _convolution,
    "div": _quotient,
    "dot_general": _dot,
    "gather": _embedding,
    "mul": _scale,
    "sub": _shift,
}
"""Primitive → how it meets a leaf."""
