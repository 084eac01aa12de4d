"""The same quantities on a real chain: drawn, run and averaged. Builds on `sweep`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.chain import Chain
from jaxchain.checks import integer, number, random_key, shown
from jaxchain.coordinates import Coordinates, require_inexact, widest
from jaxchain.patterns import chosen
from jaxchain.show.table import Table, Tabular
from jaxchain.signal.gaussian import Floats
from jaxchain.stage import State
from jaxchain.sweep import forward_sweep, reverse_sweep

__all__ = ["Measurement", "Spread", "StateSignal", "measure"]


@dataclass(frozen=True)
class Spread:
    """A mean over draws, and the standard deviation of one draw.

    Examples
    --------
    >>> print(jc.signal.Spread(1.25, 0.125))
    1.25 ± 0.12
    """

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.deviation:.2g}"


@dataclass(frozen=True)
class StateSignal:
    """What arrives at one state of a chain.

    Attributes
    ----------
    name
        The state's name, that of the stage which made it.
    weighted
        Whether that stage has parameters, as those that make pre-activations have.
    length
        Mean square of the state's entries.
    correlation
        Cosine of the states of two inputs.
    gradient
        Mean square of the entries of the cotangent there, that at the last state's being 1.

    Examples
    --------
    >>> net = jc.nets.mlp([100, 100, 100], "tanh", "lecun")
    >>> row = jc.signal.measure(net, jax.random.key(0)).rows[1]
    >>> row.name, row.weighted
    ('dense_0', True)
    """

    name: str
    weighted: bool
    length: Spread
    correlation: Spread
    gradient: Spread


@dataclass(frozen=True)
class Measurement(Tabular):
    """What `measure` returns: ``.rows``, one a state, input first.

    Examples
    --------
    >>> measured = jc.signal.measure(jc.nets.mlp([50, 50, 50], "relu"), jax.random.key(0), draws=4)
    >>> [row.name for row in measured.layers]
    ['dense_0', 'dense_1']
    >>> [row.name for row in measured["relu_*"]]
    ['relu_0']
    """

    title: str
    rows: tuple[StateSignal, ...]

    @property
    def layers(self) -> tuple[StateSignal, ...]:
        """The rows of what stages with parameters made: those that `predict` speaks of."""
        return tuple(row for row in self.rows if row.weighted)

    def __getitem__(self, pattern: str) -> tuple[StateSignal, ...]:
        """The rows whose names match a pattern such as ``"block_*"``.

        Raises
        ------
        KeyError
            If none does; tells the nearest names.
        """
        found = chosen([row.name for row in self.rows], pattern, "state")
        return self.rows if found is None else tuple(self.rows[k] for k in found)

    def _table(self) -> Table:
        rows = [[row.name, str(row.length), str(row.correlation), str(row.gradient)] for row in self.rows]
        return Table(self.title, ("state", "length", "correlation", "gradient"), rows)


def measure(
    chain: Chain, key: jax.Array, *, like: Any = None, draws: int = 32, length: float = 1.0, correlation: float = 0.0
) -> Measurement:
    """Draw parameters, inputs and an output's cotangent, and measure what arrives at every state.

    Parameters
    ----------
    chain
        A chain whose stages can draw their parameters (``chain.init``).
    key
        Of all that is drawn.
    like
        A chain input, or its ``jax.ShapeDtypeStruct``; only its shape is used. Default: the vector that the first
        stage's weights take.
    draws
        How many networks, each with two inputs and a cotangent of its own.
    length, correlation
        Of the inputs: mean square of their entries, and cosine between two of them.

    Returns
    -------
    Measurement
        Means and deviations over draws, state by state. Numbers of the host; not for use under ``jit``.

    Raises
    ------
    TypeError
        If ``chain`` is none, cannot draw parameters, or its input cannot be guessed.
    ValueError
        If ``draws`` is below 2, ``length`` is negative or ``correlation`` not in [−1, 1].

    References
    ----------
    Poole et al., arXiv 1606.05340, figures 1 and 2; Schoenholz et al., arXiv 1611.01232, figure 3.

    Examples
    --------
    >>> net = jc.nets.mlp([200] * 11, "tanh", "lecun", sigma_w=1.5)
    >>> measured = jc.signal.measure(net, jax.random.key(0))
    >>> theory = jc.signal.predict("tanh", depth=10, sigma_w=1.5, sigma_b=0.0)
    >>> row = measured.layers[-1]
    >>> abs(row.length.mean / theory.rows[-1].length - 1) < 0.1
    True
    """
    if not isinstance(chain, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"What is measured is a jc.Chain that draws its parameters, such as a network of jc.nets, but {shown(chain)} was given."
        raise TypeError(msg)
    key, draws = random_key(key), integer("draws", draws, "the number of networks drawn", least=2, most=1 << 20)
    cosine = number("correlation", correlation, "that of two inputs", least=-1, most=1)
    size = number("length", length, "the mean square of an input's entries")
    space = Coordinates.of(_input_of(chain) if like is None else require_inexact(_filled(like), "chain input"))

    @jax.jit
    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        of_params, of_inputs, of_cotangent = jax.random.split(key, 3)
        params, (first, second) = chain.init(of_params), _inputs(of_inputs, space, size, cosine)
        there = Coordinates.of(jax.eval_shape(chain, params, first))
        cotangent = there.unflatten(jax.random.normal(of_cotangent, (there.size,), there.dtype))
        swept = reverse_sweep(chain, (params, first), cotangent)
        others = forward_sweep(chain, (params, second), second).primals
        return (
            jnp.stack([_mean_square(state) for state in swept.primals]),
            jnp.stack([_cosine(state, other) for state, other in zip(swept.primals, others, strict=True)]),
            jnp.stack([_mean_square(back) for back in swept.cotangents]),
        )

    # One network after another: many at once would be as many times as large, and batched factorisations of several
    # layers (orthogonal weights) wait for each other for ever on XLA's CPU threads.
    drawn = [one(key) for key in jax.random.split(key, draws)]
    lengths, cosines, backs = (np.array(columns, np.float64).T for columns in zip(*drawn, strict=True))
    weighted = [False, *(stage.init is not None for stage in chain)]
    rows = zip(chain.names_with_input, weighted, lengths, cosines, backs / backs[-1], strict=True)
    title = f"Measured on {draws} draws of {len(chain)} stages: mean ± deviation of one draw"
    return Measurement(title, tuple(StateSignal(name, own, *map(_spread, columns)) for name, own, *columns in rows))


def _spread(draws: Floats) -> Spread:
    return Spread(float(draws.mean()), float(draws.std(ddof=1)))


def _inputs(key: jax.Array, space: Coordinates, length: float, cosine: float) -> tuple[State, State]:
    """Two inputs of exactly this mean square and this cosine."""
    dtype = widest(space.dtype, jnp.float32)
    basis = jnp.linalg.qr(jax.random.normal(key, (space.size, min(space.size, 2)), dtype))[0]
    first, across = basis[:, 0], basis[:, -1]  # of a single number there is one direction
    second = cosine * first + math.sqrt(1 - cosine**2) * across
    scale = math.sqrt(length * space.size)
    return tuple(space.unflatten((scale * vector).astype(space.dtype)) for vector in (first, second))  # pyright: ignore[reportReturnType]


def _vector(state: State) -> jax.Array:
    return Coordinates.of(state).flatten(state).astype(jnp.float32)


def _mean_square(state: State) -> jax.Array:
    return jnp.mean(jnp.square(_vector(state)))


def _cosine(state: State, other: State) -> jax.Array:
    one, two = map(_unit, (state, other))
    return jnp.where(jnp.any(one) & jnp.any(two), jnp.vdot(one, two), jnp.nan)


def _unit(state: State) -> jax.Array:
    """Its direction; divided by the largest entry first, so that squares stay within a float."""
    vector = _vector(state)
    scaled = vector / jnp.maximum(jnp.max(jnp.abs(vector)), jnp.finfo(vector.dtype).tiny)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled), jnp.finfo(vector.dtype).tiny)


def _filled(like: Any) -> Any:
    """Arrays, also where only shapes were given."""
    abstract = jax.ShapeDtypeStruct
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, abstract) else leaf, like)


def _input_of(chain: Chain) -> jax.ShapeDtypeStruct:
    """What a first dense layer takes, from the shape of its weights (n_out, n_in)."""
    params = jax.eval_shape(chain.init, jax.random.key(0))
    weights = params.get(chain.names[0], {}) if isinstance(params, dict) else {}
    leaves = [leaf for leaf in jax.tree.leaves(weights) if len(leaf.shape) == 2]
    if len(leaves) != 1:
        msg = f"The input of stage {chain.names[0]!r} cannot be told from its parameters. Give like: an input, or its jax.ShapeDtypeStruct."
        raise TypeError(msg)
    return jax.ShapeDtypeStruct(leaves[0].shape[-1:], leaves[0].dtype)
