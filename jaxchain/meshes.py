"""Arrays spread over devices as a part of their types: what is between is laid out by the compiler, the result as asked.

Types that say where every axis lies would have to be told of every product, basis and reshaping of a derivative; in
JAX's automatic mode the compiler finds out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

from jaxchain.errors import first_line

__all__ = [
    "closures_in_words",
    "explicit_mesh",
    "first_axis",
    "gathered",
    "laid_out_by_compiler",
    "mesh_of",
    "spread_as",
    "without_layout",
]

MISFITS = re.compile(r"should match the aval mesh|should have the same sharding|could not be resolved unambiguously")
TANGENTS = re.compile(r"inconsistent with the original primal values|unexpected JAX type")
"""What JAX says of types that do not fit together; of tangents also where shapes do not."""


def laid_out_by_compiler(run: Callable[..., Any], out: Any, *args: Any) -> Any:
    """``run(*args)``, where a type says how an argument is spread; its result spread as ``out``, specs as a prefix of it.

    Raises
    ------
    ValueError
        If the function closes over an array of such a type.
    """
    leaves, tree = jax.tree.flatten(args)
    spread = [number for number, leaf in enumerate(leaves) if mesh_of(leaf) is not None]
    if not spread:
        with closures_in_words():
            return run(*args)
    mesh = mesh_of(leaves[spread[0]])

    def of_spread(*given: Any) -> Any:  # the rest stays what it is, so that a function may branch on it
        full = list(leaves)
        for number, leaf in zip(spread, given, strict=True):
            full[number] = leaf
        return run(*tree.unflatten(full))

    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), out)  # pyright: ignore[reportArgumentType]
    with closures_in_words():
        return jax.jit(auto_axes(of_spread, out_sharding=shardings))(*(leaves[number] for number in spread))


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
