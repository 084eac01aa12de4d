"""A loss over a batch, sample by sample: what all functions about samples' gradients are given, checked, and made of.

The loss of sample b is loss(params, batch[b:b+1]), its leading axis kept, so that whatever mean or sum a loss takes over
samples need not be known; ``vmap`` over samples with shared weights is one backward pass of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import use_abstract_mesh
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.checks import check_arrays, check_function, flag
from jaxchain.coordinates import is_real_number
from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.errors import refused_in_words
from jaxchain.factored.apart import prove_apart
from jaxchain.factored.axis import sample_at, samples_in
from jaxchain.factored.factors import Factor
from jaxchain.factored.function import Factored
from jaxchain.meshes import mesh_of
from jaxchain.program.precision import precisely
from jaxchain.program.reading import abstract
from jaxchain.show.shapes import describe

__all__ = ["WAY_OUT", "PerSample", "check_params", "per_sample"]


@dataclass(frozen=True, eq=False)
class PerSample:
    """A loss of one sample, read, and the batch, an axis of one sample behind the leading one.

    Attributes
    ----------
    function
        The loss of one sample, with its weight sites.
    params
        As given, as arrays.
    batch
        Leaves (B, 1, …).
    count
        B.
    """

    function: Factored
    params: Any
    batch: Any
    count: int

    def factors(self, sample: Any, multiplied: Literal["never", "cheaper", "always"]) -> list[Factor]:
        """The factors of one sample's gradient, a sample as a batch of one."""
        done = self.function.evaluate(self.params, sample)
        return self.function.factors(done.values, done.pull(jnp.ones_like(done.out)), multiplied)

    @property
    def explicit_mesh(self) -> Any:
        """The mesh that the batch is spread over as a part of its type; ``None`` where there is none such."""
        meshes = map(mesh_of, jax.tree.leaves(self.batch))
        return next((mesh for mesh in meshes if mesh is not None), None)

    @property
    def _what(self) -> str:
        """The loss, and its first stage that there is no way back through, as far as the program tells."""
        stages = self.function.whiles
        return f"this loss, whose stage {stages[0]!r} loops for as long as a condition holds" if stages else "this loss"

    def _check_chunks(self, chunk_size: int) -> None:
        for leaf in jax.tree.leaves(self.batch):
            if axes := jax.typeof(leaf).sharding.spec[0]:
                msg = (
                    f"chunk_size={chunk_size} takes samples from a batch whose first axis is spread over {axes!r} of an "
                    "explicit mesh, and JAX does not guess where chunks are to lie. Leave chunk_size out, or spread the "
                    "batch over a mesh with axis_types=Auto."
                )
                raise ValueError(msg)

    def map(
        self,
        run: Callable[[list[Factor]], Any],
        multiplied: Literal["never", "cheaper", "always"],
        how: Pass = ALL_AT_ONCE,
    ) -> Any:
        """``run`` on the factors of every sample; results stacked in front."""
        mesh = self.explicit_mesh
        with (
            nullcontext() if mesh is None else use_abstract_mesh(mesh),
            refused_in_words("reverse", self._what, WAY_OUT),
            precisely(self.function.tapping.program),
        ):
            if how.chunk_size is None or not self.count:
                return jax.vmap(lambda sample: run(self.factors(sample, multiplied)))(self.batch)
            self._check_chunks(how.chunk_size)

            def of_sample(number: jax.Array) -> Any:
                return run(self.factors(sample_at(self.batch, number), multiplied))

            return how.map(of_sample, jnp.arange(self.count))


WAY_OUT = (
    "Write a while loop as jax.lax.scan, or fori_loop over a fixed number of steps; give a custom rule its derivative."
)


def per_sample(loss: Any, params: Any, batch: Any, check: Any, caller: str) -> PerSample:
    """A loss over a batch, once it is one.

    Raises
    ------
    TypeError
        If the loss is no function to a real number, a leaf of the parameters has no derivative, or one of the batch is no array.
    ValueError
        If leaves of the batch disagree in length. `SamplesMixError` where samples mix.
    """
    check_function(loss, caller)
    check_params(params)
    count = samples_in(batch)
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), batch)
    # Arrays of numbers are given, not their shapes: what a loss closes over may be traced with them.
    function = Factored.of(loss, (abstract(params), one))
    _check_loss(function.out, caller)
    if flag("check", check) and count > 1:
        prove_apart(lambda batch: loss(params, batch), abstract(batch), count, caller)
    return PerSample(function, params, jax.tree.map(lambda leaf: leaf[:, None], batch), count)


def check_params(params: Any) -> None:
    """Refuse parameters that carry no derivative."""
    check_arrays(params, "params")
    leaves = tree_flatten_with_path(params)[0]
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact):
            msg = f"params{keystr(path)} is {describe(leaf)}, which has no derivative. Split it off (eqx.partition, nnx.split), and close over it."
            raise TypeError(msg)
    if not leaves:
        msg = "params holds no array, so there is nothing to differentiate."
        raise TypeError(msg)


def _check_loss(out: Any, caller: str) -> None:
    leaves = jax.tree.leaves(out)
    if not is_real_number(out):
        more = " Of a loss with more results, pass the first alone: lambda params, batch: loss(params, batch)[0]."
        msg = f"{caller} needs a loss that is one real number, but loss(params, batch) returns {describe(out) if leaves else repr(out)}.{more if len(leaves) > 1 else ' Take its mean or sum over samples.'}"
        raise TypeError(msg)
