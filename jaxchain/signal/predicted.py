"""What mean-field theory predicts of a network layer by layer. Builds on `meanfield`."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

from jaxchain.checks import flag, integer, number, word
from jaxchain.nets.layers import DEEPEST, Activation
from jaxchain.show.table import Table, Tabular
from jaxchain.signal.meanfield import Layer

__all__ = ["LayerSignal", "Prediction", "predict"]

HEADER = ("layer", "length", "correlation", "gradient", "mean σ²", "variance of σ²")


@dataclass(frozen=True)
class LayerSignal:
    """What arrives at one layer's pre-activations h^l.

    Attributes
    ----------
    layer
        l, from 1.
    length
        Mean square of h^l.
    correlation
        Of the pre-activations of two inputs.
    gradient
        Mean square of the cotangent at h^l, that at the last layer's being 1.
    jacobian_mean, jacobian_variance
        Of the squared singular values of ∂h^l/∂h^1.

    Examples
    --------
    >>> last = jc.signal.predict("relu", depth=50, sigma_w=2**0.5, sigma_b=0.0).rows[-1]
    >>> last.layer, round(last.length, 6), round(last.jacobian_mean, 6)
    (50, 2.0, 1.0)
    """

    layer: int
    length: float
    correlation: float
    gradient: float
    jacobian_mean: float
    jacobian_variance: float


@dataclass(frozen=True)
class Prediction(Tabular):
    """What `predict` returns: ``.rows``, one a layer.

    Examples
    --------
    >>> prediction = jc.signal.predict("tanh", depth=3, sigma_w=1.0, sigma_b=0.0)
    >>> prediction
    Prediction(Mean-field theory of 3 layers: tanh, σ_w = 1, σ_b = 0)
    """

    title: str
    rows: tuple[LayerSignal, ...]

    def of(self, quantity: str) -> tuple[float, ...]:
        """One number a layer: any field of `LayerSignal`, such as ``"length"``.

        Raises
        ------
        ValueError
            If it is no such field.

        Examples
        --------
        >>> gradients = jc.signal.predict("identity", depth=3, sigma_w=2.0, sigma_b=0.0).of("gradient")
        >>> [round(gradient, 9) for gradient in gradients]
        [16.0, 4.0, 1.0]
        """
        word("quantity", quantity, [field.name for field in fields(LayerSignal)])
        return tuple(getattr(row, quantity) for row in self.rows)

    def _table(self) -> Table:
        rows = [
            [
                str(row.layer),
                *(f"{getattr(row, name):.3g}" for name in ("length", "correlation", "gradient")),
                *(f"{value:.3g}" for value in (row.jacobian_mean, row.jacobian_variance)),
            ]
            for row in self.rows
        ]
        return Table(self.title, HEADER, rows)


def predict(
    activation: Activation,
    depth: int,
    *,
    sigma_w: float,
    sigma_b: float,
    length: float = 1.0,
    correlation: float = 0.0,
    residual: float | None = None,
    orthogonal: bool = False,
) -> Prediction:
    """What a wide random network of ``depth`` layers does to signals and gradients, layer by layer.

    Of `jaxchain.nets.mlp` with equal widths, layer l is its stage ``dense_{l-1}``; of a convolutional network, a
    convolution away from the border.

    Parameters
    ----------
    activation, sigma_w, sigma_b
        As in `fixed_point`.
    depth
        Number of layers L.
    length, correlation
        Mean square of an input's entries, and the correlation of two inputs.
    residual
        Blocks h + s·(W₂ φ(W₁ h + b₁) + b₂) instead of layers, and their scale s: of `jaxchain.nets.residual_net` 1/√depth.
    orthogonal
        Whether weights are orthogonal instead of normal: then singular values spread less. Of layers alone.

    Returns
    -------
    Prediction
        One row a layer; of a residual network, the state after each block.

    Raises
    ------
    ValueError
        If ``depth`` is below 1, a length or scale is negative, a correlation not in [−1, 1], or as `fixed_point`.

    References
    ----------
    Schoenholz et al., arXiv 1611.01232; of convolutions Xiao et al., arXiv 1806.05393; of residual networks Yang and
    Schoenholz, arXiv 1712.08969; of singular values Pennington et al., arXiv 1711.04735, equation 22.

    Examples
    --------
    >>> print(jc.signal.predict("sigmoid", depth=3, sigma_w=1.0, sigma_b=0.0))
    Mean-field theory of 3 layers: sigmoid, σ_w = 1, σ_b = 0
    layer  length  correlation  gradient  mean σ²  variance of σ²
    1           1            0   0.00247        1               0
    2       0.293        0.852    0.0551   0.0448         0.00229
    3       0.266        0.991         1  0.00247        1.32e-05
    """
    depth = integer("depth", depth, "the number of layers", least=1, most=DEEPEST)
    layer = Layer.of(activation, sigma_w, sigma_b)
    here = Signal(
        number("length", length, "the mean square of an input's entries"),
        number("correlation", correlation, "that of two inputs", least=-1, most=1),
    )
    if residual is None:
        flag("orthogonal", orthogonal)
        here = _affine(layer, here)  # weights come before the first activation
        signals, factors, spreads = _walk(partial(_layer, layer, 0.0 if orthogonal else 1.0), here, depth - 1)
    elif orthogonal:
        msg = "orthogonal is of layers alone: the singular values of a residual block are predicted of normal weights."
        raise ValueError(msg)
    else:
        scale = number("residual", residual, "the scale of a block's branch") ** 2
        signals, factors, spreads = _walk(partial(_block, layer, scale), here, depth)
        signals, factors, spreads = signals[1:], factors[1:], spreads[1:]
    means = list(itertools.accumulate(factors, operator.mul, initial=1.0))
    back = list(itertools.accumulate(reversed(factors), operator.mul, initial=1.0))[::-1]
    spread = list(itertools.accumulate(spreads, initial=0.0))
    kind = "layers" if residual is None else "residual blocks"
    name = f"Mean-field theory of {depth} {kind}: {layer.rule.name}, σ_w = {sigma_w:.4g}, σ_b = {sigma_b:.4g}"
    return Prediction(
        name,
        tuple(
            LayerSignal(number, *signal, gradient, mean, mean * mean * wide)
            for number, (signal, gradient, mean, wide) in enumerate(zip(signals, back, means, spread, strict=True), 1)
        ),
    )


class Signal(NamedTuple):
    """A length and a correlation."""

    length: float
    correlation: float


Step = Callable[[Signal], tuple[Signal, float, float]]
"""From one layer to the next: the signal there, and of the squared singular values of the Jacobian between them the
mean, and the variance over the squared mean."""


def _walk(step: Step, here: Signal, count: int) -> tuple[list[Signal], list[float], list[float]]:
    signals, factors, spreads = [here], list[float](), list[float]()
    for _ in range(count):
        here, factor, spread = step(here)
        signals.append(here)
        factors.append(factor)
        spreads.append(spread)
    return signals, factors, spreads


def _affine(layer: Layer, signal: Signal) -> Signal:
    """W x + b alone."""
    return _signal(
        layer.weight * signal.length + layer.bias,
        layer.weight * signal.length * signal.correlation + layer.bias,
        signal.correlation,
    )


def _layer(layer: Layer, normal: float, here: Signal) -> tuple[Signal, float, float]:
    """W φ(h) + b. Means of free factors multiply, and their relative variances add: that of W is 1 or, orthogonal, 0."""
    there = Signal(layer.length(here.length), layer.correlation(*here))
    return there, layer.chi(here.length), normal + _slope_spread(layer, here.length)


def _block(layer: Layer, scale: float, here: Signal) -> tuple[Signal, float, float]:
    """Of x + s·(W₂ φ(W₁ x + b₁) + b₂), whose Jacobian is I + A with A = s W₂ D W₁ of mean t and relative variance v."""
    inside = _affine(layer, here)
    there = _signal(
        here.length + scale * layer.length(inside.length),
        here.length * here.correlation + scale * layer.length(inside.length) * layer.correlation(*inside),
        here.correlation,
    )
    t, v = scale * layer.weight * layer.chi(inside.length), 2 + _slope_spread(layer, inside.length)
    # tr (I+A)(I+A)ᵀ(I+A)(I+A)ᵀ: of the mixed terms only the four with one A and one Aᵀ are not zero on average.
    return there, 1 + t, (1 + 4 * t + t**2 * (1 + v)) / (1 + t) ** 2 - 1


def _slope_spread(layer: Layer, q: float) -> float:
    """The variance of φ′² over its squared mean."""
    mean = layer.slope_moment(q, 2)
    return layer.slope_moment(q, 4) / mean**2 - 1 if mean else 0.0


def _signal(length: float, covariance: float, before: float) -> Signal:
    return Signal(length, min(max(covariance / length, -1.0), 1.0) if 0 < length < math.inf else before)
