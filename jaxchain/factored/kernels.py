"""`ntk`: the empirical neural tangent kernel Θ(x, x′) = J(x) J(x′)ᵀ, J the derivative by all parameters.

`choosing` says which way each leaf goes, `between` goes it; here are the calls, what they are given and what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp

from jaxchain.checks import word
from jaxchain.factored.basis import Basis
from jaxchain.factored.between import Kernel
from jaxchain.factored.choosing import Block, Mode, Prices, choose
from jaxchain.factored.pairing import Outputs

__all__ = ["ntk"]

def ntk(fun: Callable[[Any, Any], Any], params: Any, xs: Any, ys: Any = None, *, outputs: Outputs = "full", mode: Mode = "auto", chunk_size: int | None = None) -> jax.Array:
    """x"""
    word("mode", mode, get_args(Mode))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), xs)
    count = len(jax.tree.leaves(xs)[0])
    symmetric = ys is None
    ys = xs if symmetric else ys
    basis = Basis.of(fun, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params), one)
    block = Block(count, len(jax.tree.leaves(ys)[0]), chunk_size, symmetric)
    prices = Prices(basis, block, outputs)
    choice = choose(prices, mode)
    return Kernel.of(prices, choice)(params, xs, ys, block)
