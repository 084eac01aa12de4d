"""How a loss bends at a function's output: its Hessian H there as a sum of columns, Σ_j w_j c_j c_jᵀ, and its product with a tangent.

The columns are the cotangents of as many backward passes, which give all of the Gauss–Newton matrix JᵀHJ. Builds on
`likelihoods` for closed forms; of any other loss the eigenvectors are the columns.

References: Botev, Ritter and Barber, Practical Gauss-Newton optimisation for deep learning, ICML 2017, arXiv 1706.03662;
Dangel, Kunstner and Hennig, BackPACK, ICLR 2020, arXiv 1912.10985.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Linear, jvp, vjp
from jaxchain.errors import refused_in_words
from jaxchain.factored.factors import wide
from jaxchain.gauss_newton.likelihoods import Family

__all__ = ["Bending", "of_draws", "of_family", "of_gradient", "of_loss"]

Columns = tuple[Any, jax.Array]


@dataclass(frozen=True, eq=False)
class Bending:
    """The Hessian of a loss at one sample's output z.

    Attributes
    ----------
    columns
        ``columns(z, y)`` → cotangents like z, stacked in front (m, …), and their weights (m,).
    product
        ``product(z, y, tangent)`` → H ż, like z.
    convex
        Whether no weight can be negative.
    """

    columns: Callable[[Any, Any], Columns]
    product: Callable[[Any, Any, Any], Any]
    convex: bool = True


def _gradient(loss: Callable[[Any], jax.Array]) -> Callable[[Any], Any]:
    def gradient(z: Any) -> Any:
        out, pull = vjp(loss, z)
        return pull(jnp.ones_like(out))[0]

    return gradient


WAY_OUT = "The Gauss–Newton matrix needs a loss that is twice differentiable: give its custom rule a derivative of its own, or leave the rule out."


def of_loss(loss: Callable[[Any, Any], jax.Array]) -> Bending:
    """Of any loss(z, y): eigenvectors and eigenvalues of its Hessian."""

    def columns(z: Any, y: Any) -> Columns:
        space = Coordinates.of(z)
        with refused_in_words("second", "the loss", WAY_OUT):
            hessian = Linear(_gradient(lambda z: loss(z, y)), z).matrix(mode="forward")
        hessian = hessian.astype(wide(hessian.dtype))
        values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2)
        return jax.vmap(space.unflatten)(vectors.T), values

    def product(z: Any, y: Any, tangent: Any) -> Any:
        with refused_in_words("second", "the loss", WAY_OUT):
            return jvp(_gradient(lambda z: loss(z, y)), z, tangent)[1]

    return Bending(columns, product, convex=False)


def of_family(family: Family) -> Bending:
    """Of a likelihood, in expectation over what it says of y."""

    def columns(z: jax.Array, _: Any) -> Columns:
        root = family.root(z)
        return root, jnp.ones(len(root), wide(z.dtype))

    def product(z: jax.Array, _: Any, tangent: jax.Array) -> jax.Array:
        return jvp(_gradient(family.partition), z, tangent)[1]

    return Bending(columns, product)


def of_draws(family: Family, draws: int) -> Bending:
    """The mean over ``draws`` of score times score; the sample's own key is in the place of y."""

    def columns(z: jax.Array, key: jax.Array) -> Columns:
        mean = _gradient(family.partition)(z)
        drawn = jax.vmap(lambda key: family.draw(key, z))(jax.random.split(key, draws))
        return mean - drawn, jnp.full(draws, 1 / draws, wide(z.dtype))

    return Bending(columns, _by_columns(columns))


def of_gradient(loss: Callable[[Any, Any], jax.Array]) -> Bending:
    """The loss's own gradient, times itself."""

    def columns(z: Any, y: Any) -> Columns:
        gradient = _gradient(lambda z: loss(z, y))(z)
        return jax.tree.map(lambda leaf: leaf[None], gradient), jnp.ones(1, wide(Coordinates.of(z).dtype))

    return Bending(columns, _by_columns(columns))


def _by_columns(columns: Callable[[Any, Any], Columns]) -> Callable[[Any, Any, Any], Any]:
    def product(z: Any, y: Any, tangent: Any) -> Any:
        space = Coordinates.of(z)
        cotangents, weights = columns(z, y)
        rows = jax.vmap(space.flatten)(cotangents)
        return space.unflatten(((rows @ space.flatten(tangent)) * weights.astype(rows.dtype)) @ rows)

    return product
