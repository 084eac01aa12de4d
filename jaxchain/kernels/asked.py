"""What a call about kernels is given: a function of one sample, parameters, samples on two sides; checked, and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.checks import check_function, check_inexact, check_result, word
from jaxchain.derivative import Pass
from jaxchain.factored.axis import one_of, samples_in
from jaxchain.kernels.basis import Basis
from jaxchain.kernels.choosing import Mode
from jaxchain.kernels.pairing import Outputs
from jaxchain.kernels.pricing import Block
from jaxchain.program.reading import abstract
from jaxchain.show.shapes import describe

__all__ = ["Asked"]


@dataclass(frozen=True, eq=False)
class Asked:
    """A kernel that is asked for.

    Attributes
    ----------
    basis
        The function, read.
    block
        How many samples, and how many at once.
    outputs, mode
        As asked for.
    """

    basis: Basis
    block: Block
    outputs: Outputs
    mode: Mode

    @classmethod
    def of(
        cls,
        caller: str,
        fun: Any,
        params: Any,
        xs: Any,
        ys: Any,
        outputs: Outputs = "full",
        mode: Mode = "auto",
        chunk_size: int | None = None,
    ) -> Asked:
        """A call's arguments, once they are what is wanted."""
        check_function(fun, f"jc.{caller}")
        word("outputs", outputs, get_args(Outputs))
        word("mode", mode, get_args(Mode))
        chunk = Pass(chunk_size).chunk_size
        check_inexact(params, "params")
        if not jax.tree.leaves(params):
            msg = "params holds no array, so there is nothing to differentiate with respect to."
            raise TypeError(msg)
        rows, one = samples_in(xs, "xs"), one_of(xs)
        columns = rows if ys is None else samples_in(ys, "ys")
        _check_alike(one, one if ys is None else one_of(ys))
        basis = Basis.of(fun, abstract(params), one)
        check_result(basis.function.out)
        if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(basis.function.out)):
            msg = f"The function returns {describe(basis.function.out)}, in which there is no number that has a derivative. Cast it."
            raise TypeError(msg)
        return cls(basis, Block(rows, columns, chunk, symmetric=ys is None), outputs, mode)

    @property
    def is_scalar(self) -> bool:
        """Whether the function returns one real number, and no more."""
        return self.basis.space.shape == () and self.basis.space.size == 1


def _check_alike(one: Any, other: Any) -> None:
    """Refuse samples of the second side that do not look like those of the first."""
    wanted, tree = jax.tree.flatten(one)
    if jax.tree.structure(other) != tree:
        msg = f"ys must have the structure of xs, {tree}, but it has {jax.tree.structure(other)}."
        raise ValueError(msg)
    for (path, leaf), want in zip(tree_flatten_with_path(other)[0], wanted, strict=True):
        if (leaf.shape, leaf.dtype) != (want.shape, want.dtype):
            msg = f"A sample of ys{keystr(path)} is {describe(leaf)}, but one of xs{keystr(path)} is {describe(want)}. Both go through the same function: reshape it, or cast it."
            raise ValueError(msg)
