"""Curvature in parameters as it is defined, by JAX's own Jacobians and Hessians; and the law that operators obey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import assert_close
from jax.flatten_util import ravel_pytree

import jaxchain as jc


def doubled(tree: Any) -> Any:
    """Arrays in the precision that is on, whatever was on when they were made."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.result_type(float)), tree)


def gauss_newton(fun: Callable[..., Any], loss: Callable[..., Any], params: Any, xs: Any, ys: Any) -> jax.Array:
    """The mean over samples of Jᵀ H J, J by `jax.jacrev`, H by `jax.hessian`."""
    flat, unravel = ravel_pytree(params)

    def one(x: Any, y: Any) -> jax.Array:
        z, unravel_z = ravel_pytree(fun(params, x))
        jacobian = jax.jacrev(lambda v: ravel_pytree(fun(unravel(v), x))[0])(flat)
        return jacobian.T @ jax.hessian(lambda z: loss(unravel_z(z), y))(z) @ jacobian

    return jnp.mean(jax.vmap(one)(xs, ys), 0)


def essentials(operator: Any) -> dict[str, Any]:
    """All that an operator computes, as flat arrays."""
    vector = jnp.cos(jnp.arange(operator.shape[0])).astype(operator.dtype)
    _, unravel = ravel_pytree(operator.params)
    return {
        "diagonal": ravel_pytree(operator.diagonal())[0],
        "trace": operator.trace(),
        "dense": operator.dense(),
        "product": ravel_pytree(operator @ unravel(vector))[0],
    }


def everything(operator: Any) -> dict[str, Any]:
    """The same, and the product with a flat vector, which is that with a tree once more."""
    vector = jnp.cos(jnp.arange(operator.shape[0])).astype(operator.dtype)
    return {**essentials(operator), "flat product": operator(vector)}


def of_matrix(matrix: jax.Array) -> dict[str, Any]:
    """The same of a matrix."""
    product = matrix @ jnp.cos(jnp.arange(len(matrix)))
    return {
        "diagonal": jnp.diag(matrix),
        "trace": jnp.trace(matrix),
        "dense": matrix,
        "flat product": product,
        "product": product,
    }


def assert_gauss_newton(
    fun: Callable[..., Any], loss: Callable[..., Any], params: Any, xs: Any, ys: Any, *, linear: bool = True
) -> None:
    """All that the operator says is so of its definition, to 1e-10; but products, where a rule is not ``linear``."""

    @jax.jit
    def both(params: Any, xs: Any, ys: Any) -> Any:
        got = essentials(jc.ggn(fun, loss, params, (xs, ys)))
        return got, of_matrix(gauss_newton(fun, loss, params, xs, ys))

    got, want = both(params, xs, ys)
    for name in got if linear else ("diagonal", "trace", "dense"):
        assert_close(got[name], want[name], 1e-10)
