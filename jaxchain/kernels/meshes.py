"""Samples spread over devices as a part of their types: what is between is laid out by the compiler, the result as they are.

Kernels pair samples that lie on different devices, so that types which say where every axis lies would have to be told
of every product; in JAX's automatic mode the compiler finds out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

__all__ = ["laid_out_by_compiler"]


def laid_out_by_compiler(run: Callable[..., jax.Array], samples: Any, *args: Any) -> jax.Array:
    """``run(*args)``, its result's first axis spread as that of ``samples``, where their types say that they are."""
    arrays = (jax.typeof(leaf) for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array))
    meshes = (array.sharding.mesh for array in arrays)
    mesh = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    if mesh is None:
        return run(*args)
    specs = (jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(samples) if isinstance(leaf, jax.Array))
    spec = next((PartitionSpec(spec[0]) for spec in specs if spec and spec[0]), PartitionSpec())
    return jax.jit(auto_axes(run, out_sharding=NamedSharding(mesh, spec)))(*args)  # pyright: ignore[reportArgumentType]
