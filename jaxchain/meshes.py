"""Arrays spread over devices: as the caller asks (``sharding=``), or as a part of their types.

Types that say where every axis lies would have to be told of every product, basis and reshaping of a derivative; in
JAX's automatic mode the compiler finds out. So what is between is laid out by the compiler, the result as asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
    auto_axes,
)

from jaxchain.checks import shown
from jaxchain.errors import first_line

__all__ = [
    "all_parts",
    "check_divides",
    "closures_in_words",
    "devices_along",
    "explicit_mesh",
    "first_axis",
    "gathered",
    "laid_out_by_compiler",
    "laid_out_where_made",
    "mesh_of",
    "on_host",
    "placed",
    "sharding_of",
    "spread",
    "spread_as",
    "untyped",
    "without_layout",
]

MISFITS = re.compile(r"should match the aval mesh|should have the same sharding|could not be resolved unambiguously")
TANGENTS = re.compile(r"inconsistent with the original primal values|unexpected JAX type")
"""What JAX says of types that do not fit together; of tangents also where shapes do not."""


def sharding_of(sharding: Any) -> NamedSharding | SingleDeviceSharding | None:
    """What ``sharding=`` asks for: a mesh means that its first axis is what rows or samples are spread over.

    Raises
    ------
    TypeError
        If it is neither a mesh nor a sharding; says how to make one.
    """
    if isinstance(sharding, Mesh):
        return NamedSharding(sharding, PartitionSpec(*sharding.axis_names[:1]))
    if sharding is not None and not isinstance(sharding, (NamedSharding, SingleDeviceSharding)):
        msg = (
            "sharding is a jax.sharding.Mesh, whose first axis is then meant, a jax.sharding.NamedSharding, whose first "
            f"axis is that of rows or samples, or None, but {shown(sharding)} was given. "
            'All devices: jax.make_mesh((jax.device_count(),), ("devices",)).'
        )
        raise TypeError(msg)
    return sharding


def devices_along(sharding: Sharding | None) -> int:
    """Over how many devices a sharding spreads its first axis."""
    names = _first(sharding)
    shape = sharding.mesh.shape if isinstance(sharding, NamedSharding) else {}
    return math.prod(shape[name] for name in ((names,) if isinstance(names, str) else names or ()))


def _first(sharding: Any) -> Any:
    """The mesh's axis or axes that a sharding spreads its first axis over."""
    spec: Any = getattr(sharding, "spec", None)
    return spec[0] if spec else None


def check_divides(what: str, count: int, sharding: Sharding) -> None:
    """Refuse samples that the devices do not divide: an array has as many of them on each.

    Raises
    ------
    ValueError
        Says both numbers, and the way out.
    """
    devices = devices_along(sharding)
    if count % devices:
        msg = f"{what} has {count} samples, which do not go round the {devices} devices of sharding={_first(sharding)!r}. Make it a multiple of {devices}, or spread it over fewer: jax.make_mesh((n,), ..., devices=jax.devices()[:n])."
        raise ValueError(msg)


def spread(array: jax.Array, sharding: Sharding | None, axis: int = 0) -> jax.Array:
    """An array with one of its axes over the devices of a sharding's first; all else as the compiler likes.

    Left as it is where its numbers do not go round.
    """
    if sharding is None or (isinstance(sharding, NamedSharding) and array.shape[axis] % devices_along(sharding)):
        return array
    if not isinstance(sharding, NamedSharding):
        return jax.lax.with_sharding_constraint(array, sharding)
    free = [PartitionSpec.UNCONSTRAINED] * array.ndim
    free[axis] = _first(sharding)
    return jax.lax.with_sharding_constraint(array, _wish(sharding, PartitionSpec(*free)))


def _wish(sharding: NamedSharding, spec: PartitionSpec) -> Any:
    """Where the compiler is to lay an array out: of explicit axes within `auto_axes`, or as if they were none."""
    if explicit_mesh(sharding) is None:
        return NamedSharding(sharding.mesh, spec)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        if explicit_mesh(NamedSharding(mesh, PartitionSpec())) is not None:
            msg = (
                "The mesh that is set has axes that are a part of arrays' types (AxisType.Explicit), where this call cannot "
                "ask the compiler to spread its work. Make the mesh with axis_types=AxisType.Auto, or call it without "
                "jax.set_mesh, arrays and sharding as they are."
            )
            raise ValueError(msg)
        return spec
    # Where no mesh is set, JAX refuses axes that are a part of arrays' types.
    return NamedSharding(Mesh(np.asarray(sharding.mesh.devices), sharding.mesh.axis_names), spec)


def placed(tree: Any, sharding: Sharding, axis: int | None = None) -> Any:
    """Arrays put on a sharding's devices, split along one axis where they go round; what is spread already stays.

    ``axis`` ``None``, or none of an array's: whole on each.
    """
    if not isinstance(sharding, NamedSharding):
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set:
            return untyped(leaf)
        round_ = axis is not None and np.ndim(leaf) > axis and np.shape(leaf)[axis] % devices_along(sharding) == 0
        spec = PartitionSpec(*[None] * (axis or 0), _first(sharding)) if round_ else PartitionSpec()
        return jax.device_put(leaf, _wish(sharding, spec))

    return jax.tree.map(put, tree)


def untyped(tree: Any) -> Any:
    """The same arrays on the same devices, where they lie no part of their types: for calls that ask the compiler."""

    def plain(leaf: Any) -> Any:
        if mesh_of(leaf) is None or isinstance(leaf, Tracer):
            return leaf
        return jax.device_put(leaf, _wish(leaf.sharding, leaf.sharding.spec))

    return jax.tree.map(plain, tree)


def on_host(array: Any) -> np.ndarray[Any, Any]:
    """All numbers of an array as NumPy's, also of one of which this process holds a part: every process has to ask."""
    return np.asarray(all_parts(array))


def all_parts(array: Any) -> Any:
    """An array of which this process holds all; one that it does already stays as it is."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return array
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(array, tiled=True)


def laid_out_where_made(run: Callable[..., Any], sharding: Sharding | None, *args: Any, columns: bool = False) -> Any:
    """``run(*args)``, also where a mesh with explicit axes is set: its results spread by rows, or if asked by columns.

    Those are the first axis, or the last, that the sharding's devices divide.

    Raises
    ------
    ValueError
        As `laid_out_by_compiler`.
    """
    unset = jax.sharding.get_abstract_mesh().empty and not any(map(mesh_of, jax.tree.leaves(args)))
    if explicit_mesh(sharding) is None or unset:
        return run(*args)
    devices = devices_along(sharding)

    def by_part(leaf: Any) -> PartitionSpec:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % devices == 0]
        if not axes:
            return PartitionSpec()
        axis = axes[-1 if columns else 0]
        return PartitionSpec(*[None] * axis, _first(sharding))

    return laid_out_by_compiler(run, lambda out: jax.tree.map(by_part, out), *args, mesh=explicit_mesh(sharding))


def laid_out_by_compiler(run: Callable[..., Any], out: Any, *args: Any, mesh: Any = None) -> Any:
    """``run(*args)``, where a type says how an argument is spread; its result spread as ``out``, specs as a prefix of it.

    ``out`` may be a function of the result's shapes; ``mesh`` is that of the result where no argument names one.

    Raises
    ------
    ValueError
        If the function closes over an array of such a type.
    """
    leaves, tree = jax.tree.flatten(args)
    spread = [number for number, leaf in enumerate(leaves) if mesh_of(leaf) is not None]
    if not spread and mesh is None:
        with closures_in_words():
            return run(*args)
    mesh = mesh_of(leaves[spread[0]]) if spread else mesh

    def of_spread(*given: Any) -> Any:  # the rest stays what it is, so that a function may branch on it
        full = list(leaves)
        for number, leaf in zip(spread, given, strict=True):
            full[number] = leaf
        return run(*tree.unflatten(full))

    def spread_out(specs: Any) -> Any:
        shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)  # pyright: ignore[reportArgumentType]
        return jax.jit(auto_axes(of_spread, out_sharding=shardings))

    given = [leaves[number] for number in spread]
    with closures_in_words():
        specs = out(jax.eval_shape(spread_out(PartitionSpec()), *given)) if callable(out) else out
        return spread_out(specs)(*given)


@contextmanager
def closures_in_words() -> Generator[None]:
    """Say what JAX's errors about types of spread arrays come from, where no argument accounts for them.

    Raises
    ------
    ValueError
        In place of such an error; everything else passes through.
    """
    try:
        yield
    except Exception as error:
        if not (MISFITS.search(str(error)) or (TANGENTS.search(str(error)) and "@" in str(error))):
            raise
        msg = (
            "The function closes over an array that is spread over devices as a part of its type (AxisType.Explicit), "
            "which has to be an argument here: fun(params, x) in place of fun(x); or make the mesh with AxisType.Auto. "
            f"JAX says: {first_line(error).rstrip(':')}."
        )
        raise ValueError(msg) from error


def explicit_mesh(sharding: Any) -> Any:
    """The mesh of a sharding that is a part of arrays' types; ``None`` where it is a wish, or there is none."""
    mesh = getattr(sharding, "mesh", None)
    return mesh if mesh is not None and AxisType.Explicit in mesh.axis_types else None


def mesh_of(leaf: Any) -> Any:
    """The mesh that a leaf's type names; ``None`` where its axes are not explicit, or the leaf is no array."""
    return explicit_mesh(jax.typeof(leaf).sharding) if isinstance(leaf, jax.Array) else None


def spread_as(tree: Any) -> Any:
    """How each leaf's type says that it is spread."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec if mesh_of(leaf) else PartitionSpec(), tree)


def first_axis(tree: Any) -> PartitionSpec:
    """How the first axis of a tree of samples is spread."""
    specs = (spec for spec in jax.tree.leaves(spread_as(tree)) if spec and spec[0])
    return next((PartitionSpec(spec[0]) for spec in specs), PartitionSpec())


def without_layout(tree: Any) -> Any:
    """The same as shapes alone, where types say how arrays are spread: what is counted is the same."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if mesh_of(leaf) else leaf, tree)


def gathered(tree: Any) -> Any:
    """The same on one device, where types say how arrays are spread: for what looks at numbers one after another."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(np.asarray(leaf)) if mesh_of(leaf) else leaf, tree)
