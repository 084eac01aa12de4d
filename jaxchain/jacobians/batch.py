"""`batch_jacobian`: the Jacobian of a function over a batch whose samples do not mix, one block a sample.

Every sample's cotangent (or tangent) goes through in the same pass, so the whole costs what one
sample's Jacobian costs, batched: 1/B of ``jax.jacrev``, whose other blocks are zeros. `jaxchain.samples` proves that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.arguments import default_argnum
from jaxchain.checks import flag, integer, refuse_huge, word
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Pass, linearize, vjp
from jaxchain.errors import REFUSALS, SamplesMixError, refusal
from jaxchain.jacobians.blocks import Call, as_blocks, named_like
from jaxchain.meshes import check_divides, laid_out_where_made, sharding_of, spread
from jaxchain.samples.place import Place, Step
from jaxchain.samples.proof import prove
from jaxchain.show.shapes import describe

__all__ = ["batch_jacobian"]

BatchMode = Literal["auto", "forward", "reverse"]


def batch_jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] | None = None,
    *,
    in_axis: int = 0,
    out_axis: int = 0,
    check: bool = True,
    mode: BatchMode = "auto",
    chunk_size: int | None = None,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
) -> Callable[..., Any]:
    """The Jacobian of each sample of a batch: J_b = ∂fun(x)_b/∂x_b, where samples do not mix.

    Parameters
    ----------
    fun
        Maps a batch to a batch, arrays or pytrees of real floating-point numbers: sample b of the
        output depends on sample b of the chosen arguments alone. The other arguments are shared.
    argnums
        Which positional arguments hold the batch and are differentiated with respect to; default: of a chain
        its input, else the first.
    in_axis, out_axis
        The batch axis of every leaf of those arguments, and of the output; negative: from the end.
    check
        Prove from the program that samples do not mix. Without, and if they do, each block is a
        sum of ``jax.jacrev``'s blocks over samples.
    mode
        ``"reverse"``: one VJP of the whole batch for each number in a sample of the output;
        ``"forward"``: one JVP for each number in a sample of the input; ``"auto"``: the fewer, or
        what the function's own derivative rules leave possible.
    chunk_size
        How many of these are computed at once; ``None``: all. Bounds the memory.
    sharding
        Spreads the samples over devices: a `jax.sharding.Mesh`, over its first axis, or a
        `jax.sharding.NamedSharding`, over what its first axis is. Each computes the blocks of its own samples and
        keeps them. Other arguments stay as they are given.

    Returns
    -------
    callable
        Takes the arguments of ``fun``, works under ``jit``, ``vmap`` and ``grad``, and returns the
        structure and dtypes of ``jax.jacrev`` (``jax.jacfwd`` where forward mode ran) with leaves
        (B, *out, *in), where out and in are the shapes of one sample.

    Raises
    ------
    ValueError
        If the mode is unknown or ``chunk_size`` below 1; from the call, if an axis is out of range
        or batch sizes disagree, or the devices do not divide the batch.
    SamplesMixError
        A ``ValueError``, from the call: samples mix, cannot be proven not to, or lie on another
        axis of the output; names the stage and the line.
    TypeError
        From the call, if an input or output is not real floating point, or ``fun`` has side effects.

    References
    ----------
    Agarwal and Ganichev, Auto-vectorizing TensorFlow graphs: Jacobians, auto-batching and beyond,
    arXiv 1903.04243.

    Examples
    --------
    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> jc.batch_jacobian(jnp.square)(x).tolist()  # (B, *out, *in), where jax.jacrev gives (B, *out, B, *in)
    [[[2.0, 0.0], [0.0, 4.0]], [[6.0, 0.0], [0.0, 8.0]]]
    """
    word("mode", mode, get_args(BatchMode))
    flag("check", check)
    in_axis, out_axis = integer("in_axis", in_axis, "an axis"), integer("out_axis", out_axis, "an axis")
    how, where = Pass(chunk_size), sharding_of(sharding)
    argnums = default_argnum(fun) if argnums is None else argnums

    def jac(*args: Any, **kwargs: Any) -> Any:
        return laid_out_where_made(partial(jac_of, kwargs), where, *args)

    def jac_of(kwargs: dict[str, Any], *args: Any) -> Any:
        call = Call.of(fun, argnums, False, args, kwargs)
        chosen, whole = jax.tree.map(jnp.asarray, call.chosen), call.output
        here = Samples.of(chosen, in_axis, "input", "in_axis")
        held = prove(whole, chosen, here.count, here.axes) if check and here.count > 1 else None
        there = Samples.of(jax.eval_shape(whole, chosen), out_axis, "output", "out_axis", here.count)
        if held is not None:
            _check_places(held, there)
        if where is None:  # who spreads it over devices means it
            refuse_huge((here.count, there.one.size, here.one.size), here.one.dtype)
        else:
            chosen = here.placed(chosen, where)
        first, second = (_forward, _reverse) if here.one.size < there.one.size else (_reverse, _forward)
        if mode != "auto":
            first = second = {"forward": _forward, "reverse": _reverse}[mode]
        try:
            blocks = first(whole, chosen, here, there, how)
        except REFUSALS as error:  # a custom VJP has no JVP, a while loop no VJP
            if first is second:
                raise
            refusal(error)
            blocks = second(whole, chosen, here, there, how)
        return jax.tree.map(lambda leaf: spread(leaf, where), blocks)

    return named_like(fun, jac, "The Jacobian for each sample of a batch")


@dataclass(frozen=True)
class Samples:
    """A batch of states: ``count`` of them along ``axis`` of every leaf, each with the coordinates ``one``."""

    count: int
    axis: int
    one: Coordinates

    @classmethod
    def of(cls, batch: Any, axis: int, place: str, name: str, count: int | None = None) -> Samples:
        """The samples of a batch, once its leaves have one batch size: ``count``, where that is known."""
        leaves, treedef = tree_flatten_with_path(batch)
        single: list[jax.ShapeDtypeStruct] = []
        for path, leaf in leaves:
            where, shape = f"{place}{keystr(path)}", list(leaf.shape)
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                msg = f"batch_jacobian needs real floating-point values, but the {where} is {describe(leaf)}. Cast it, or leave it out."
                raise TypeError(msg)
            if not -len(shape) <= axis < len(shape):
                msg = f"{name}={axis} is out of range for the {where}, which is {describe(leaf)}: it holds no batch there."
                raise ValueError(msg)
            size = shape.pop(axis)
            if count is not None and size != count:
                msg = f"Batch sizes disagree: {size} on axis {axis} of the {where}, which is {describe(leaf)}, but {count} before. Is {name}={axis} meant?"
                raise ValueError(msg)
            count = size
            single.append(jax.ShapeDtypeStruct(tuple(shape), leaf.dtype))
        if count is None:
            msg = f"The {place} holds no array, so there is nothing to differentiate."
            raise TypeError(msg)
        return cls(count, axis, Coordinates.of(treedef.unflatten(single)))

    @property
    def axes(self) -> list[int]:
        """The batch axis of every leaf, from 0."""
        return [self.axis % (len(leaf.shape) + 1) for leaf in self.one.leaves]

    def placed(self, batch: Any, sharding: Sharding) -> Any:
        """The batch with its samples over devices.

        Raises
        ------
        ValueError
            If they do not go round.
        """
        check_divides("The batch", self.count, sharding)
        leaves, tree = jax.tree.flatten(batch)
        return tree.unflatten([spread(leaf, sharding, axis) for leaf, axis in zip(leaves, self.axes, strict=True)])

    def everywhere(self, vector: jax.Array) -> Any:
        """The batch in which every sample has these coordinates (n,)."""
        return jax.vmap(self.one.unflatten, in_axes=None, out_axes=self.axis, axis_size=self.count)(vector)

    def flatten(self, batch: Any) -> jax.Array:
        """Every sample's coordinates: (B, n)."""
        return jax.vmap(self.one.flatten, in_axes=self.axis)(batch)


def _reverse(whole: Callable[[Any], Any], batch: Any, here: Samples, there: Samples, how: Pass) -> Any:
    """Row i of all blocks: the VJP of the batch whose every cotangent is e_i."""
    pull = vjp(whole, batch)[1]
    rows = how.map(lambda e: here.flatten(*pull(there.everywhere(e))), there.one.identity())
    return jax.vmap(partial(as_blocks, here=here.one, there=there.one, like="input"))(jnp.moveaxis(rows, 0, 1))


def _forward(whole: Callable[[Any], Any], batch: Any, here: Samples, there: Samples, how: Pass) -> Any:
    """Column j of all blocks: the JVP of the batch whose every tangent is e_j."""
    push = linearize(whole, batch)[1]
    columns = how.map(lambda e: there.flatten(push(here.everywhere(e))), here.one.identity())
    return jax.vmap(partial(as_blocks, here=here.one, there=there.one, like="output"))(jnp.moveaxis(columns, 0, 2))


def _check_places(held: Sequence[Place | Step | None], there: Samples) -> None:
    """Raise unless every output leaf holds the batch along its batch axis, or depends on no sample."""
    paths = [path for path, _ in tree_flatten_with_path(there.one.treedef.unflatten(range(len(held))))[0]]
    for path, place, axis in zip(paths, held, there.axes, strict=True):
        if place is not None and place != Place(axis):
            on = str(place) + (", joined with others" if isinstance(place, Place) and place.inner > 1 else "")
            msg = f"The output{keystr(path)} holds the batch on {on}, not on out_axis={there.axis}. Transpose it, or change out_axis."
            raise SamplesMixError(msg)
