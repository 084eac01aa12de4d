"""Where the batch goes through one primitive: one rule a primitive, in a table.

A rule says on which axis of the results the batch lies, given the axis of one operand, or that
samples meet there. To teach jaxchain a new primitive, add a function to `RULES`. No JAX inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxchain.program.primitives import (
    ELEMENTWISE,
    Dot,
    JaxprEqn,
    Window,
    axes_of,
    broadcast_axes,
    convolution_of,
    dot_of,
    fft_sizes,
    matrix_is_left,
    names_in,
    ndim_of,
    padding_of,
    permutation_of,
    ragged_axes,
    reshape_order,
    shape_of,
    sparse_axes,
    sparse_ndim,
    window_along,
    windows_of,
)
from jaxchain.samples.place import Mixes, Place, Unproven

__all__ = ["RULES", "Rule"]

Rule = Callable[[JaxprEqn, int, Place, int], Place]
"""``rule(eqn, k, place, samples)``: the batch lies at ``place`` of operand k, so where of every result?"""


def elementwise(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Every entry depends on the entries at the same position."""
    del samples
    given, result = shape_of(eqn.invars[k]), shape_of(eqn.outvars[0])
    if len(given) != len(result) or given[place.axis] != result[place.axis]:
        msg = "changes the shape of the batch"
        raise Unproven(msg)
    return place


def along(how: str, *, removed: bool = False, verdict: type[Mixes] | type[Unproven] = Mixes) -> Rule:
    """The rule of what joins entries along some axes, which may be removed, and along no others."""

    def rule(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
        del k, samples
        joined = axes_of(eqn)
        if place.axis in joined:
            msg = f"{how} the batch"
            raise verdict(msg)
        return place._replace(axis=place.axis - removed * sum(axis < place.axis for axis in joined))

    return rule


def trailing(count: Callable[[JaxprEqn, int], int], how: str) -> Rule:
    """The rule of what works on the last axes alone, once for each position along the leading ones."""

    def rule(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
        del samples
        if place.axis >= ndim_of(eqn.invars[k]) - count(eqn, k):
            msg = f"{how} the batch"
            raise Mixes(msg)
        return place

    return rule


def reshape(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Row-major order stays, so sample b holds the flat positions with (position // stride) mod B = b."""
    del k
    old, order = list(shape_of(eqn.invars[0])), reshape_order(eqn)
    axis = place.axis
    if order is not None:
        old, axis = [old[d] for d in order], list(order).index(axis)
    # The stride at which samples follow one another; it must come to lie within one axis of the new shape.
    stride, step = place.inner * math.prod(old[axis + 1 :]), 1
    new = shape_of(eqn.outvars[0])
    for axis in reversed(range(len(new))):
        if stride % step == 0 and (step * new[axis]) % (stride * samples) == 0:
            return Place(axis, stride // step)
        step *= new[axis]
    msg = "splits the batch over several axes"
    raise Unproven(msg)


def transpose(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Axes in another order."""
    del k, samples
    return place._replace(axis=list(permutation_of(eqn)).index(place.axis))


def broadcast_in_dim(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """New axes; the old ones are where the parameter says."""
    del k, samples
    return place._replace(axis=broadcast_axes(eqn)[place.axis])


def tile(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Copies behind one another: the pattern of samples goes on."""
    del eqn, k, samples
    return place


def stack(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """One new axis."""
    del k, samples
    return place._replace(axis=place.axis + (axes_of(eqn)[0] <= place.axis))


def dot_general(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Batched axes come first, then what is left of the first operand, then of the second."""
    del samples
    return _product(dot_of(eqn), k, place, [ndim_of(eqn.invars[j]) for j in (0, 1)])


def _product(product: Dot, k: int, place: Place, ndims: list[int]) -> Place:
    if place.axis in product.contracted[k]:
        msg = "sums over the batch"
        raise Mixes(msg)
    if place.axis in product.batched[k]:
        return place._replace(axis=list(product.batched[k]).index(place.axis))
    free = [product.free(j, ndims[j]) for j in (0, 1)]
    before = len(product.batched[k]) + (len(free[0]) if k == 1 else 0)
    return place._replace(axis=before + free[k].index(place.axis))


def conv_general_dilated(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Images stay apart, and so do groups of channels."""
    layout = convolution_of(eqn)
    image, kernel = (shape_of(eqn.invars[j]) for j in (0, 1))
    (rows, features, *_), (row_out, feature_out, *_) = layout.image, layout.out
    per_group = kernel[layout.kernel[0]] // (layout.feature_groups * layout.batch_groups)
    if k == 1 and place.axis == layout.kernel[0]:
        return place._replace(axis=feature_out)
    if k == 0 and place.axis == rows:
        group = image[rows] // layout.batch_groups
        if group % (place.inner * samples) == 0:
            return place._replace(axis=row_out)
        if place.inner % group == 0:
            return Place(feature_out, place.inner // group * per_group)
    if k == 0 and place.axis == features:
        group = image[features] // layout.feature_groups
        if place.inner % group == 0:
            return Place(feature_out, place.inner // group * per_group)
    if k == 0 and place.axis in layout.image[2:]:
        j = list(layout.image[2:]).index(place.axis)
        window = (kernel[layout.kernel[2 + j]], layout.strides[j], *layout.padding[j])
        if window == (1, 1, 0, 0) and layout.image_dilation[j] == 1:
            return place._replace(axis=layout.out[2 + j])
    msg = "convolves over the batch"
    raise Mixes(msg)


def reduce_window(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Windows of one entry each along the batch."""
    del k, samples
    if window_along(eqn, place.axis) != Window(1, 1, (0, 0), 1):
        msg = "has windows over several entries of the batch"
        raise Mixes(msg)
    return place


def pad(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """No padding along the batch."""
    del k, samples
    if padding_of(eqn)[place.axis] != (0, 0, 0):
        msg = "pads the batch, which moves samples"
        raise Unproven(msg)
    return place


def slice_(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """All of the batch."""
    del samples
    return _whole(place, shape_of(eqn.outvars[0])[place.axis], shape_of(eqn.invars[k])[place.axis])


def dynamic_update_slice(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """A shared block may be written anywhere; one that holds the batch must hold all of it."""
    del samples
    return _whole(place, shape_of(eqn.invars[k])[place.axis], shape_of(eqn.invars[0])[place.axis])


def gather(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Windows over the whole batch, or one batched look-up a sample."""
    del samples
    windows, axis = windows_of(eqn), place.axis
    beside = [axis for axis in range(ndim_of(eqn.outvars[0])) if axis not in windows.axes]
    if k == 0 and axis in windows.kept:
        result = place._replace(axis=windows.axes[windows.kept.index(axis)])
        return _whole(result, windows.sizes[axis], shape_of(eqn.invars[0])[axis])
    if k == 0 and axis in windows.beside:
        axis = windows.beside[axis]
    elif k == 0 or axis == ndim_of(eqn.invars[1]) - 1:
        msg = "looks samples up by index (jnp.take_along_axis and vmap show which is whose)"
        raise Unproven(msg)
    return place._replace(axis=beside[axis])


def scatter(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Windows over the whole batch, or one batched write a sample; shared values may be written anywhere."""
    del samples
    windows, axis = windows_of(eqn), place.axis
    if k == 0:
        return place
    if k == 2 and axis in windows.axes:
        result = place._replace(axis=windows.kept[list(windows.axes).index(axis)])
        return _whole(result, shape_of(eqn.invars[2])[axis], shape_of(eqn.invars[0])[result.axis])
    if k == 2:
        axis = [a for a in range(ndim_of(eqn.invars[2])) if a not in windows.axes].index(axis)
    whose = {indices: operand for operand, indices in windows.beside.items()}
    if axis not in whose:
        msg = "writes samples by index (vmap shows which is whose)"
        raise Unproven(msg)
    return place._replace(axis=whose[axis])


def triangular_solve(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Right-hand sides stay apart: columns, or rows where the matrix stands on the right."""
    free = ndim_of(eqn.invars[1]) - (1 if matrix_is_left(eqn) else 2)
    return place if k == 1 and place.axis == free else MATRIX_RULE(eqn, k, place, samples)


def tridiagonal_solve(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Right-hand sides, the columns of the last operand, stay apart."""
    columns = k == 3 and place.axis == ndim_of(eqn.invars[3]) - 1
    return place if columns else MATRIX_RULE(eqn, k, place, samples)


def ragged_dot_general(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Rows stay apart, each times the matrix of its group."""
    rows_of, groups_of = ragged_axes(eqn)
    product = dot_of(eqn)
    if k == 2 or set(rows_of) & {*product.contracted[0], *product.batched[0]} or (k == 1 and place.axis in groups_of):
        msg = "multiplies by groups of entries along the batch"
        raise Unproven(msg)
    result = dot_general(eqn, k, place, samples)
    before = [axis for axis in groups_of if k == 1 and place.axis not in product.batched[1] and axis < place.axis]
    return result._replace(axis=result.axis - len(before))


def sparse_product(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """The product of the dense array that a sparse one stands for."""
    dense = len(eqn.invars) - 1
    left = place if k == dense else to_dense(eqn, k, place, samples)
    return _product(dot_of(eqn), int(k == dense), left, [sparse_ndim(eqn), ndim_of(eqn.invars[dense])])


def to_dense(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Data have one axis for all that are stored as indices: samples that are sparse arrays of their own stay apart."""
    del samples
    batched, stored = sparse_axes(eqn)
    if k or place.axis == batched:
        msg = "stores samples by index"
        raise Unproven(msg)
    return place._replace(axis=place.axis + (place.axis > batched) * (stored - 1))


def from_dense(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """The other way round."""
    del k, samples
    batched, stored = sparse_axes(eqn)
    if batched <= place.axis < batched + stored:
        msg = "stores samples by index"
        raise Unproven(msg)
    return place._replace(axis=place.axis - (place.axis > batched) * (stored - 1))


def same_data(eqn: JaxprEqn, k: int, place: Place, samples: int) -> Place:
    """Data in another order, or added up where two have one index."""
    to_dense(eqn, k, place, samples)
    return place


def _whole(result: Place, size: int, full: int) -> Place:
    if size != full:
        msg = f"takes {size} of the {full} entries along the batch, which moves or picks samples"
        raise Unproven(msg)
    return result


def _matrix_axes(eqn: JaxprEqn, k: int) -> int:
    vectors = {"tridiagonal_solve": 3, "lu_pivots_to_permutation": 1}.get(eqn.primitive.name, 0)
    return 1 if k < vectors or (eqn.primitive.name == "householder_product" and k == 1) else 2


MATRIX_RULE = trailing(_matrix_axes, "takes as part of a matrix")


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(names_in("reduction"), along("reduces over", removed=True)),
    **dict.fromkeys(["argmax", "argmin"], along("compares over", removed=True)),
    **dict.fromkeys(names_in("cumulative"), along("accumulates along")),
    **dict.fromkeys(names_in("window") - {"select_and_scatter"}, reduce_window),
    "sort": along("sorts along"),
    **dict.fromkeys(["top_k", "approx_top_k"], along("picks the largest along")),
    "rev": along("reverses"),
    "concatenate": along("joins values along", verdict=Unproven),
    "split": along("splits", verdict=Unproven),
    "unstack": along("takes apart", removed=True, verdict=Unproven),
    "stack": stack,
    "squeeze": along("removes", removed=True),
    "bitcast_convert_type": trailing(
        lambda eqn, _: ndim_of(eqn.invars[0]) - ndim_of(eqn.outvars[0]), "joins the bits of"
    ),
    # Arrays of keys: each draws, is split or made for itself, and what comes of it lies behind their axes.
    "random_wrap": trailing(lambda eqn, _: ndim_of(eqn.invars[0]) - ndim_of(eqn.outvars[0]), "takes as parts of a key"),
    "random_fold_in": elementwise,
    **dict.fromkeys(
        ["random_bits", "random_clone", "random_seed", "random_split", "random_unwrap"],
        trailing(lambda *_: 0, "draws from"),
    ),
    "fft": trailing(lambda eqn, _: len(fft_sizes(eqn)), "transforms along"),
    **dict.fromkeys(names_in("matrix"), MATRIX_RULE),
    "triangular_solve": triangular_solve,
    "tridiagonal_solve": tridiagonal_solve,
    "reshape": reshape,
    "transpose": transpose,
    "broadcast_in_dim": broadcast_in_dim,
    "tile": tile,
    "dot_general": dot_general,
    "ragged_dot_general": ragged_dot_general,
    **dict.fromkeys(["bcoo_dot_general", "bcsr_dot_general"], sparse_product),
    "bcoo_todense": to_dense,
    **dict.fromkeys(["bcoo_fromdense", "bcoo_extract"], from_dense),
    **dict.fromkeys(["bcoo_sort_indices", "bcoo_sum_duplicates"], same_data),
    "conv_general_dilated": conv_general_dilated,
    "pad": pad,
    "slice": slice_,
    "dynamic_slice": slice_,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    **dict.fromkeys(["scatter", *(f"scatter-{kind}" for kind in ("add", "sub", "mul", "min", "max"))], scatter),
}
