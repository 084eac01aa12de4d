"""`ntk`: the empirical neural tangent kernel Θ(x, x′) = J(x) J(x′)ᵀ, J the derivative by all parameters.

`choosing` says which way each leaf goes, `between` goes it; here are the call, and what it is told and tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.checks import refuse_huge
from jaxchain.errors import refused_in_words
from jaxchain.factored.batch import WAY_OUT
from jaxchain.kernels.asked import Asked
from jaxchain.kernels.between import Kernel, block_shape
from jaxchain.kernels.choosing import Mode, choose
from jaxchain.kernels.pairing import Outputs
from jaxchain.kernels.planned import KernelPlan, planned
from jaxchain.kernels.pricing import Prices
from jaxchain.meshes import first_axis, laid_out_by_compiler
from jaxchain.program.precision import precisely_as

__all__ = ["ntk", "ntk_plan"]

INSTEAD = (
    'Ask for outputs="trace" or "diagonal", for fewer samples at a time, or for products with vectors (jc.ntk_operator)'
)
"""What there is in place of a whole kernel."""


def ntk(
    fun: Callable[[Any, Any], Any],
    params: Any,
    xs: Any,
    ys: Any = None,
    *,
    outputs: Outputs = "full",
    mode: Mode = "auto",
    chunk_size: int | None = None,
) -> jax.Array:
    """The empirical neural tangent kernel: Θ[b, c] = J(x_b) J(y_c)ᵀ, J = ∂fun/∂params.

    Every leaf of the parameters goes the way that takes the fewest operations, counted before anything runs: its
    derivative multiplied out and contracted; by products of its two thin factors, Σ (x · x′)(δ · δ′), over positions,
    steps and patches too; or as kernel-vector products, J applied to the rows of J′. Leaves that have the same δ, as
    weights and bias of a layer, share its inner products. `ntk_plan` says which way each goes.

    Parameters
    ----------
    fun
        ``fun(params, x)`` of one sample, a function or a chain: real or complex, an array or a pytree.
    params
        A pytree of arrays, all of them floating point or complex.
    xs, ys
        Samples, a pytree of arrays with one leading axis each: (B, …) and (B', …). Without ``ys``, it is ``xs``.
    outputs
        Of each pair's block: ``"full"``, its ``"diagonal"``, or its ``"trace"``, the sum over outputs.
    mode
        ``"auto"``; or ``"contraction"``, ``"products"`` (of the leaves that have factors) or ``"vectors"`` for all leaves.
    chunk_size
        As many samples of either side at once; ``None``: all. Bounds the memory; the second side's derivatives are
        then made again for every chunk of the first.

    Returns
    -------
    jax.Array
        (B, B') where ``fun`` returns one real number; else (B, B', m, m), where m counts the numbers that it returns, the
        leaves of a pytree in order, of complex ones the real parts before the imaginary ones; (B, B', m) for the
        diagonals, (B, B') for the traces. Half precision is added up, and returned, as float32.

    Raises
    ------
    TypeError
        If ``fun`` is no function to arrays that have a derivative, or a leaf of the parameters has none; names it.
    ValueError
        If leaves of ``xs`` disagree in length, ``ys`` does not look like ``xs``, ``chunk_size`` is below 1, or the kernel
        takes more memory than is used unasked.
    ModeError
        A ``TypeError``: there is no reverse mode for ``fun``, or no forward mode and ``mode="vectors"``.

    References
    ----------
    Jacot, Gabriel and Hongler, Neural tangent kernel, NeurIPS 2018, arXiv 1806.07572; Novak, Sohl-Dickstein and
    Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720.

    Examples
    --------
    >>> xs = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> jc.ntk(lambda w, x: jnp.dot(w, x) ** 2, jnp.array([1.0, 2.0]), xs).tolist()  # 2 w·x x, one with the other
    [[4.0, 12.0], [12.0, 72.0]]
    >>> jc.ntk(lambda w, x: w @ x, jnp.ones((3, 2)), xs, outputs="trace").tolist()
    [[3.0, 3.0], [3.0, 6.0]]
    """

    def run(params: Any, xs: Any, ys: Any) -> jax.Array:
        return _kernel(Asked.of("ntk", fun, params, xs, ys, outputs, mode, chunk_size), params, xs, ys)

    return laid_out_by_compiler(run, first_axis(xs), params, xs, ys)


@precisely_as(lambda asked, *_: asked.basis.function.tapping.program)
def _kernel(asked: Asked, params: Any, xs: Any, ys: Any) -> jax.Array:
    """The kernel that is asked for."""
    block, m = asked.block, asked.basis.space.size
    shape = (block.rows, block.columns, *(() if asked.is_scalar else block_shape(asked.basis, asked.outputs)))
    refuse_huge(shape, asked.basis.dtype, what="A kernel", instead=INSTEAD)
    if not (block.rows and block.columns and m):
        return jnp.zeros(shape, asked.basis.dtype)
    with refused_in_words("reverse", "this function", WAY_OUT):
        prices = Prices(asked.basis, block, asked.outputs)
        kernel = Kernel.of(prices, choose(prices, asked.mode))
        params, xs, ys = jax.tree.map(jnp.asarray, (params, xs, xs if ys is None else ys))
        return kernel(params, xs, ys, block).reshape(shape)


def ntk_plan(
    fun: Callable[[Any, Any], Any],
    params: Any,
    xs: Any,
    ys: Any = None,
    *,
    outputs: Outputs = "full",
    mode: Mode = "auto",
    chunk_size: int | None = None,
) -> KernelPlan:
    """Which way each leaf goes in the same call of `ntk`, and what it takes; ``print`` shows it. Nothing is run.

    Parameters
    ----------
    fun, params, xs, ys, outputs, mode, chunk_size
        As for `ntk`; shapes will do.

    Returns
    -------
    KernelPlan
        A row a leaf.

    Raises
    ------
    TypeError, ValueError, ModeError
        As `ntk`.

    Examples
    --------
    >>> net = jc.nets.mlp([784, 256, 10])
    >>> print(jc.ntk_plan(net, net.init(jax.random.key(0)), jax.ShapeDtypeStruct((64, 784), jnp.float32)))
    Neural tangent kernel of 64 × 64 samples, 10 × 10 outputs each: 245 MFLOP
    leaf                  shape   kind       way  contraction    products
    ['dense_0']['b']        256   bias  products    210 MFLOP   210 MFLOP
    ['dense_0']['w']  256 × 784  dense  products    165 GFLOP   217 MFLOP
    ['dense_1']['b']         10   bias  products   8.19 MFLOP   412 kFLOP
    ['dense_1']['w']   10 × 256  dense  products   2.10 GFLOP  2.51 MFLOP
    Each figure is what the leaf takes alone; leaves with the same δ share δ · δ′.
    By kernel-vector products, all leaves together take 17.0 GFLOP.
    """
    asked = Asked.of("ntk_plan", fun, params, xs, ys, outputs, mode, chunk_size)
    with refused_in_words("reverse", "this function", WAY_OUT):
        prices = Prices(asked.basis, asked.block, asked.outputs)
        return planned(prices, choose(prices, asked.mode), asked.is_scalar)
