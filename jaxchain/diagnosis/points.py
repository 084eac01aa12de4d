"""A batch of points as single ones: each the arguments of one call, along the axes that `jax.vmap` would map over."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.checks import integer, shown

__all__ = ["points_of"]


def points_of(args: tuple[Any, ...], in_axes: Any) -> list[tuple[Any, ...]]:
    """The arguments of each point of a batch."""
    if in_axes is None:
        return [args]
    axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(args)
    if len(axes) != len(args):
        msg = f"in_axes has an entry for each of the {len(args)} arguments, but {shown(in_axes)} was given."
        raise ValueError(msg)
    axes = [
        integer("Each of in_axes", axis, "the axis of an argument that counts points", optional=True) for axis in axes
    ]
    lengths = dict[int, str]()
    for number, (arg, axis) in enumerate(zip(args, axes, strict=True)):
        if axis is not None:
            for shape in map(jnp.shape, jax.tree.leaves(arg)):
                lengths[_length(shape, axis, number)] = f"argument {number}"
    if len(lengths) != 1 or 0 in lengths:
        told = " and ".join(f"{size} in {where}" for size, where in lengths.items()) or "none"
        msg = f"in_axes={shown(in_axes)} must name axes that count the same points, at least one, but there are {told}."
        raise ValueError(msg)
    (size,) = lengths
    return [tuple(map(_at, args, axes, [place] * len(args))) for place in range(size)]


def _at(arg: Any, axis: int | None, place: int) -> Any:
    return arg if axis is None else jax.tree.map(lambda leaf: jnp.take(jnp.asarray(leaf), place, axis), arg)


def _length(shape: tuple[int, ...], axis: int, number: int) -> int:
    if not -len(shape) <= axis < len(shape):
        msg = f"in_axes says that axis {axis} of argument {number} counts points, but an array in it has shape {shape}."
        raise ValueError(msg)
    return shape[axis]
