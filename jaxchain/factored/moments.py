"""Mean and variance of samples' gradients, and how well each agrees with the mean, from the factors.

Where each sample meets a weight once, Σ_b x_b² ⊗ δ_b² is the sum of the squares; the inner product with the mean
is that of δ_b with what the mean makes of x_b. Else samples' gradients are multiplied out, a leaf at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxchain.derivative import vjp
from jaxchain.factored.axis import one_of
from jaxchain.factored.batch import per_sample
from jaxchain.factored.factors import Factor, Picked, Product, Whole, squared, wide
from jaxchain.factored.function import Factored, Leaf
from jaxchain.factored.samples import TOLD, told
from jaxchain.factored.sites import Site
from jaxchain.program.precision import precisely_as
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count

__all__ = ["GradientMoments", "gradient_moments"]


@register_dataclass
@dataclass(frozen=True)
class GradientMoments(Shown):
    """What the gradients g_b of B samples are like, taken together.

    Attributes
    ----------
    mean, variance
        Like the parameters: Σ_b g_b / B, and Σ_b (g_b − mean)² / B of each entry.
    norms
        ‖g_b‖ (B,).
    cosines
        ⟨g_b, mean⟩ / (‖g_b‖ ‖mean‖) (B,); 0 where one of them vanishes.

    Examples
    --------
    >>> moments = jc.gradient_moments(lambda w, x: jnp.sum(x @ w), jnp.ones(2), jnp.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> moments.mean.tolist(), moments.variance.tolist(), moments.signal_to_noise.tolist()
    ([2.0, 0.0], [1.0, 0.0], [2.0, 0.0])
    """

    mean: Any
    variance: Any
    norms: jax.Array
    cosines: jax.Array

    def _brief(self) -> str:
        return f"moments of {count(len(self.norms), 'gradient')}"

    def _table(self) -> Table:
        rows = [("norm", *told(self.norms)), ("cosine with the mean", *told(self.cosines))]
        return Table(f"Gradients of {count(len(self.norms), 'sample')}", ("", *TOLD), rows)

    @property
    def signal_to_noise(self) -> Any:
        """|mean| / √variance of each entry: ∞ where all samples agree, 0 where the mean vanishes."""

        def ratio(mean: jax.Array, variance: jax.Array) -> jax.Array:
            size = jnp.abs(mean)
            return jnp.where(size == 0, 0, size / jnp.sqrt(variance))

        return jax.tree.map(ratio, self.mean, self.variance)


def gradient_moments(
    loss: Callable[[Any, Any], jax.Array], params: Any, batch: Any, *, check: bool = True
) -> GradientMoments:
    """Mean, variance and agreement of samples' gradients, g_b = ∇ loss(params, batch[b:b+1]).

    Parameters
    ----------
    loss, params, batch, check
        As in `sample_gradients`; at least one sample.

    Returns
    -------
    GradientMoments
        ``.mean``, ``.variance``, ``.signal_to_noise`` like ``params``, ``.norms`` and ``.cosines`` (B,).

    Raises
    ------
    SamplesMixError, TypeError, ValueError, ModeError
        As `sample_gradients`; a ``ValueError``, too, of no samples, and of a batch over a mesh with explicit axes.

    Notes
    -----
    The variance of an entry is E[g²] − E[g]², wherever that saves to multiply out all samples' gradients: where the
    mean outweighs its deviations by far, it has fewer exact digits than they.

    References
    ----------
    Dangel, Kunstner and Hennig, BackPACK: packing more into backprop, ICLR 2020, arXiv 1912.10985; McCandlish, Kaplan, Amodei et
    al., An empirical model of large-batch training, arXiv 1812.06162.

    Examples
    --------
    >>> loss = lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2)
    >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 1.0])
    >>> moments = jc.gradient_moments(loss, jnp.array([1.0, 1.0]), (x, y))
    >>> moments.mean.tolist(), moments.variance.tolist()
    ([20.0, 28.0], [256.0, 400.0])
    """
    samples = per_sample(loss, params, batch, check, "gradient_moments")
    if not samples.count:
        msg = "gradient_moments needs at least one sample, but the batch holds none."
        raise ValueError(msg)
    if samples.explicit_mesh is not None:
        msg = (
            "gradient_moments adds up what belongs to several samples, and of a batch that is spread over devices as a "
            "part of its type JAX does not guess where sums are to lie. Spread it over a mesh with axis_types=Auto."
        )
        raise ValueError(msg)
    return _moments(samples.function, samples.map(lambda factors: factors, "always"), samples.count)


@precisely_as(lambda function, *_: function.tapping.program)
def _moments(function: Factored, factors: Sequence[Factor], samples: int) -> GradientMoments:
    """Of factors with samples in front."""
    means, variances, squares, products = list[Any](), list[Any](), list[Any](), list[Any]()
    for leaf in function.leaves:
        mean, variance = _mean_and_variance(function, leaf, factors, samples)
        means.append(mean.astype(leaf.like.dtype))
        variances.append(variance)
        squares.append(jax.vmap(partial(function.squared_norm, leaf))(factors))
        products += [_along(function.sites[k], factors[k], mean) for k in leaf.sites]
    norms = jnp.sqrt(sum(squares[1:], squares[0]))
    length = jnp.sqrt(sum(squared(mean) for mean in means))
    scale = norms * length
    cosines = jnp.where(scale > 0, sum(products, jnp.zeros_like(norms)) / jnp.where(scale > 0, scale, 1), 0)
    tree = function.tree
    return GradientMoments(tree.unflatten(means), tree.unflatten(variances), norms, cosines)


def _mean_and_variance(
    function: Factored, leaf: Leaf, factors: Sequence[Factor], samples: int
) -> tuple[jax.Array, jax.Array]:
    """Of one leaf; factors with samples in front."""
    precise = wide(leaf.like.dtype)
    if precise == leaf.like.dtype and len(leaf.sites) == 1:  # of half the precision, squares are no good difference
        factor, site = factors[leaf.sites[0]], function.sites[leaf.sites[0]]
        squares, scale = _squared(factor), site.layout.scale
        if squares is not None and scale is not None:
            mean = site.gradient(_summed(factor)) / samples
            second = scale * site.gradient(_summed(squares)) / samples
            return mean, jnp.maximum(second.real - jnp.abs(mean) ** 2, 0)
    each = jax.vmap(lambda one: function.leaf_gradient(leaf, one))(factors).astype(precise)
    mean = jnp.mean(each, 0)
    return mean, jnp.mean(jnp.abs(each - mean) ** 2, 0)


def _squared(factor: Factor) -> Factor | None:
    """Factors of the squares of the gradient's entries, samples in front; ``None`` where these are squares of sums."""

    def square(x: jax.Array) -> jax.Array:
        return jnp.abs(x) ** 2

    match factor:
        case Whole():
            return Whole(square(factor.value))
        case Product() if factor.left.shape[2] == 1:
            return Product(square(factor.left), square(factor.right))
        case Picked() if factor.index.shape[2] == 1:
            return Picked(factor.index, square(factor.right), factor.rows)
        case _:
            return None


def _summed(factor: Factor) -> Factor:
    """The factors of the sum over samples, whose positions are those of all samples."""

    def joined(x: jax.Array) -> jax.Array:
        ahead = jnp.moveaxis(x, 0, 1)
        return ahead.reshape(len(ahead), -1, *ahead.shape[3:])

    match factor:
        case Product():
            return Product(joined(factor.left), joined(factor.right))
        case Picked():
            return Picked(joined(factor.index), joined(factor.right), factor.rows)
        case Whole():
            return Whole(jnp.sum(factor.value, 0))


def _along(site: Site, factor: Factor, mean: jax.Array) -> jax.Array:
    """⟨g_b, mean⟩ (B,), of what one site adds to each sample's gradient."""
    like = jax.eval_shape(lambda one: one.gradient(), one_of(factor))
    # ⟨A G, m⟩ = ⟨G, Aᵀ m⟩, with A what makes a leaf's gradient of one that is multiplied out.
    pull = vjp(
        lambda gradient: site.laid_back(gradient, factored=not isinstance(factor, Whole)),
        jnp.zeros(like.shape, like.dtype),
    )
    (direction,) = pull[1](mean.conj().astype(pull[0].dtype))

    def of_sample(one: Factor) -> jax.Array:
        match one:
            case Product():
                return jnp.einsum("nto,nto->", jnp.einsum("nti,nio->nto", one.left, direction), one.right)
            case Picked():
                return jnp.sum(direction[0][one.index[0]] * one.right[0])
            case Whole():
                return jnp.sum(one.value * direction)

    return jax.vmap(of_sample)(factor).real
