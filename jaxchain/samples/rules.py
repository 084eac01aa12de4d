"""Where the batch goes through one primitive: one rule a primitive, in a table.

A rule says on which axis of the results the batch lies, given the axis of one operand, or that
samples meet there. To teach jaxchain a new primitive, add a function to `RULES`. No JAX inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxchain.jacobians.local import ELEMENTWISE

__all__ = ["RULES", "Mixes", "Place", "Unproven"]


class Place(NamedTuple):
    """Which entries of a value belong to which of B samples: along ``axis``, entry p belongs to sample (p // inner) mod B.

    A plain batch axis has ``inner`` 1 and length B; a reshape may join it with others. A negative
    ``axis`` stands for a loop over the samples: all of the value belongs to the current one.
    """

    axis: int
    inner: int = 1

    def __str__(self) -> str:
        return f"axis {self.axis}" if self.axis >= 0 else "the steps of a loop"


class Mixes(Exception):  # noqa: N818  # a verdict of a rule, never seen by a user
    """Samples meet in this equation; says how."""


class Unproven(Exception):  # noqa: N818
    """No rule can tell whether samples meet in this equation; says why."""


Rule = Callable[[Any, int, Place, int], Place]
"""``rule(eqn, k, place, samples)``: the batch lies at ``place`` of operand k, so where of every result?"""


def elementwise(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Every entry depends on the entries at the same position."""
    del samples
    given, result = eqn.invars[k].aval.shape, eqn.outvars[0].aval.shape
    if len(given) != len(result) or given[place.axis] != result[place.axis]:
        msg = "changes the shape of the batch"
        raise Unproven(msg)
    return place


def along(
    axes_of: Callable[[Any], int | Iterable[int]],
    how: str,
    *,
    removed: bool = False,
    verdict: type[Mixes] | type[Unproven] = Mixes,
) -> Rule:
    """The rule of what joins entries along some axes, which may be removed, and along no others."""

    def rule(eqn: Any, k: int, place: Place, samples: int) -> Place:
        del k, samples
        axes = axes_of(eqn)
        joined = [int(axes)] if not isinstance(axes, Iterable) else [int(axis) for axis in axes]
        if place.axis in joined:
            msg = f"{how} the batch"
            raise verdict(msg)
        return place._replace(axis=place.axis - removed * sum(axis < place.axis for axis in joined))

    return rule


def param(name: str) -> Callable[[Any], Any]:
    """Reads one parameter of an equation."""
    return lambda eqn: eqn.params[name]


def trailing(count: Callable[[Any, int], int], how: str) -> Rule:
    """The rule of what works on the last axes alone, once for each position along the leading ones."""

    def rule(eqn: Any, k: int, place: Place, samples: int) -> Place:
        del samples
        if place.axis >= eqn.invars[k].aval.ndim - count(eqn, k):
            msg = f"{how} the batch"
            raise Mixes(msg)
        return place

    return rule


def reshape(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Row-major order stays, so sample b holds the flat positions with (position // stride) mod B = b."""
    del k
    old, order = list(eqn.invars[0].aval.shape), eqn.params.get("dimensions")
    axis = place.axis
    if order is not None:
        old, axis = [old[d] for d in order], list(order).index(axis)
    stride, step = place.inner * math.prod(old[axis + 1 :]), 1
    new = eqn.outvars[0].aval.shape
    for axis in reversed(range(len(new))):
        if stride % step == 0 and (step * new[axis]) % (stride * samples) == 0:
            return Place(axis, stride // step)
        step *= new[axis]
    msg = "splits the batch over several axes"
    raise Unproven(msg)


def transpose(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Axes in another order."""
    del k, samples
    return place._replace(axis=list(eqn.params["permutation"]).index(place.axis))


def broadcast_in_dim(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """New axes; the old ones are where the parameter says."""
    del k, samples
    return place._replace(axis=eqn.params["broadcast_dimensions"][place.axis])


def tile(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Copies behind one another: the pattern of samples goes on."""
    del eqn, k, samples
    return place


def stack(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """One new axis."""
    del k, samples
    return place._replace(axis=place.axis + (eqn.params["axis"] <= place.axis))


def dot_general(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Batched axes come first, then what is left of the first operand, then of the second."""
    del samples
    contracted, batched = eqn.params["dimension_numbers"]
    if place.axis in contracted[k]:
        msg = "sums over the batch"
        raise Mixes(msg)
    if place.axis in batched[k]:
        return place._replace(axis=list(batched[k]).index(place.axis))
    left = [
        [a for a in range(eqn.invars[j].aval.ndim) if a not in contracted[j] and a not in batched[j]] for j in (0, 1)
    ]
    return place._replace(axis=len(batched[k]) + k * len(left[0]) + left[k].index(place.axis))


def conv_general_dilated(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Images stay apart, and so do groups of channels."""
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    image, kernel = (eqn.invars[j].aval.shape for j in (0, 1))
    per_group = kernel[numbers.rhs_spec[0]] // (params["feature_group_count"] * params["batch_group_count"])
    if k == 1 and place.axis == numbers.rhs_spec[0]:
        return place._replace(axis=numbers.out_spec[1])
    if k == 0 and place.axis == numbers.lhs_spec[0]:
        group = image[place.axis] // params["batch_group_count"]
        if group % (place.inner * samples) == 0:
            return place._replace(axis=numbers.out_spec[0])
        if place.inner % group == 0:
            return Place(numbers.out_spec[1], place.inner // group * per_group)
    if k == 0 and place.axis == numbers.lhs_spec[1]:
        group = image[place.axis] // params["feature_group_count"]
        if place.inner % group == 0:
            return Place(numbers.out_spec[1], place.inner // group * per_group)
    if k == 0 and place.axis in numbers.lhs_spec[2:]:
        j = list(numbers.lhs_spec[2:]).index(place.axis)
        window = (kernel[numbers.rhs_spec[2 + j]], params["window_strides"][j], *params["padding"][j])
        if window == (1, 1, 0, 0) and params["lhs_dilation"][j] == 1:
            return place._replace(axis=numbers.out_spec[2 + j])
    msg = "convolves over the batch"
    raise Mixes(msg)


def reduce_window(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Windows of one entry each along the batch."""
    del k, samples
    params, axis = eqn.params, place.axis
    window = (params["window_dimensions"][axis], params["window_strides"][axis], *params["padding"][axis])
    if window != (1, 1, 0, 0) or (params.get("base_dilation") or (1,) * (axis + 1))[axis] != 1:
        msg = "has windows over several entries of the batch"
        raise Mixes(msg)
    return place


def pad(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """No padding along the batch."""
    del k, samples
    if tuple(eqn.params["padding_config"][place.axis]) != (0, 0, 0):
        msg = "pads the batch, which moves samples"
        raise Unproven(msg)
    return place


def slice_(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """All of the batch."""
    del samples
    return _whole(place, eqn.outvars[0].aval.shape[place.axis], eqn.invars[k].aval.shape[place.axis])


def dynamic_update_slice(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """A shared block may be written anywhere; one that holds the batch must hold all of it."""
    del samples
    return _whole(place, eqn.invars[k].aval.shape[place.axis], eqn.invars[0].aval.shape[place.axis])


def gather(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Windows over the whole batch, or one batched look-up a sample."""
    del samples
    numbers, operand = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    beside = [axis for axis in range(eqn.outvars[0].aval.ndim) if axis not in numbers.offset_dims]
    if k == 0 and place.axis not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims):
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
        kept = [axis for axis in range(len(operand)) if axis not in gone]
        result = place._replace(axis=numbers.offset_dims[kept.index(place.axis)])
        return _whole(result, eqn.params["slice_sizes"][place.axis], operand[place.axis])
    axis = place.axis
    if k == 0 and axis in numbers.operand_batching_dims:
        axis = numbers.start_indices_batching_dims[list(numbers.operand_batching_dims).index(axis)]
    elif k == 0 or axis == eqn.invars[1].aval.ndim - 1:
        msg = "looks samples up by index (jnp.take_along_axis and vmap show which is whose)"
        raise Unproven(msg)
    return place._replace(axis=beside[axis])


def scatter(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Windows over the whole batch, or one batched write a sample; shared values may be written anywhere."""
    del samples
    numbers, operand = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    axis = place.axis
    if k == 0:
        return place
    if k == 2 and axis in numbers.update_window_dims:
        gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        kept = [a for a in range(len(operand)) if a not in gone]
        result = place._replace(axis=kept[list(numbers.update_window_dims).index(axis)])
        return _whole(result, eqn.invars[2].aval.shape[axis], operand[result.axis])
    if k == 2:
        axis = [a for a in range(eqn.invars[2].aval.ndim) if a not in numbers.update_window_dims].index(axis)
    if axis not in numbers.scatter_indices_batching_dims:
        msg = "writes samples by index (vmap shows which is whose)"
        raise Unproven(msg)
    at = list(numbers.scatter_indices_batching_dims).index(axis)
    return place._replace(axis=numbers.operand_batching_dims[at])


def triangular_solve(eqn: Any, k: int, place: Place, samples: int) -> Place:
    """Right-hand sides stay apart: columns, or rows where the matrix stands on the right."""
    free = eqn.invars[1].aval.ndim - (1 if eqn.params["left_side"] else 2)
    return place if k == 1 and place.axis == free else MATRIX_RULE(eqn, k, place, samples)


def _whole(result: Place, size: int, full: int) -> Place:
    if size != full:
        msg = f"takes {size} of the {full} entries along the batch, which moves or picks samples"
        raise Unproven(msg)
    return result


def _matrix_axes(eqn: Any, k: int) -> int:
    vectors = {"tridiagonal_solve": 3, "lu_pivots_to_permutation": 1}.get(eqn.primitive.name, 0)
    return 1 if k < vectors or (eqn.primitive.name == "householder_product" and k == 1) else 2


POINTWISE = ELEMENTWISE | {
    "acosh", "bessel_i0e", "bessel_i1e", "bitcast_convert_type", "ceil", "clz", "complex", "conj", "convert_element_type", "eq_to", "floor",
    "igamma", "igamma_grad_a", "igammac", "imag", "layout_constraint", "le_to", "log2", "lt_to", "mulhi", "name", "one_minus_square", "polygamma",
    "polynomial", "population_count", "random_gamma_grad", "real", "reduce_precision", "regularized_incomplete_beta", "rem",
    "reshard", "round", "sharding_constraint", "shift_left", "shift_right_arithmetic", "shift_right_logical", "zeta",
}  # fmt: skip
MATRIX_RULE = trailing(_matrix_axes, "takes as part of a matrix")
REDUCTIONS = ("sum", "prod", "max", "min", "and", "or", "xor")
WINDOWS = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum", "select_and_gather_add")
MATRICES = (
    "cholesky", "eig", "eigh", "geqrf", "hessenberg", "householder_product", "lu", "lu_pivots_to_permutation", "qr", "schur", "svd",
    "symmetric_product", "tridiagonal", "tridiagonal_solve",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, elementwise),
    **dict.fromkeys([f"reduce_{kind}" for kind in REDUCTIONS], along(param("axes"), "reduces over", removed=True)),
    **dict.fromkeys(["argmax", "argmin"], along(param("axes"), "compares over", removed=True)),
    "reduce": along(param("dimensions"), "reduces over", removed=True),
    **dict.fromkeys(
        ["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], along(param("axis"), "accumulates along")
    ),
    **dict.fromkeys(WINDOWS, reduce_window),
    "select_and_scatter_add": reduce_window,
    "sort": along(param("dimension"), "sorts along"),
    "top_k": along(param("axis"), "picks the largest along"),
    "rev": along(param("dimensions"), "reverses"),
    "concatenate": along(param("dimension"), "joins values along", verdict=Unproven),
    "split": along(param("axis"), "splits", verdict=Unproven),
    "unstack": along(param("axis"), "takes apart", removed=True, verdict=Unproven),
    "stack": stack,
    "squeeze": along(param("dimensions"), "removes", removed=True),
    "fft": trailing(lambda eqn, _: len(eqn.params["fft_lengths"]), "transforms along"),
    **dict.fromkeys(MATRICES, MATRIX_RULE),
    "triangular_solve": triangular_solve,
    "reshape": reshape,
    "transpose": transpose,
    "broadcast_in_dim": broadcast_in_dim,
    "tile": tile,
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "pad": pad,
    "slice": slice_,
    "dynamic_slice": slice_,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    **dict.fromkeys(["scatter", *(f"scatter-{kind}" for kind in ("add", "sub", "mul", "min", "max"))], scatter),
}
