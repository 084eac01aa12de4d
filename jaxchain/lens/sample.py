"""One sample's Jacobians: a reverse sweep of the output basis, a one-hot at every valid target position at once.

With v the valid positions, J_k = mean over p in v of Σ_{p′ in v} ∂x_q[p′]/∂x_k[p], for every state x_k that has x_q's
positions. All of them are read off in one sweep. Builds on `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import check_args, looked_along
from jaxchain.chain import Chain
from jaxchain.checks import refuse_huge
from jaxchain.coordinates import widest
from jaxchain.derivative import Pass
from jaxchain.discovery import discover
from jaxchain.patterns import chosen
from jaxchain.program.fingerprint import Kept
from jaxchain.show.shapes import describe
from jaxchain.stage import State
from jaxchain.sweep import linearised, pulled_back

__all__ = ["Found", "Sweep", "compiled", "ending", "shapes_of", "states_of"]

Args = tuple[Any, ...]

BROKEN = ("0.10.2", "0.11.0")
"""The jaxlibs whose fused reductions are wrong on CPUs where they are large (jax-ml/jax issue 39103)."""

KEPT = Kept(8)
"""The sweeps of the last chains, compiled: one call of `fit` after another compiles once."""


def ending(chain: Chain | Callable[..., Any], args: Args, argnum: int | None, until: str | None) -> Chain:
    """The chain, discovered where a plain function was given, up to the state named ``until``."""
    check_args(args)
    at = looked_along(chain, argnum, args)
    chain = chain if isinstance(chain, Chain) else discover(chain, *args, argnum=at)
    return chain if until is None else chain[: chain.position(until) + 1]


def compiled(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit`, with no reduction fused where XLA does that wrongly."""
    wrong = version("jaxlib") in BROKEN and jax.default_backend() == "cpu"
    return jax.jit(fun, compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""} if wrong else None)


def shapes_of(args: Args) -> Hashable:
    """What tells calls apart that are traced anew."""
    leaves, tree = jax.tree.flatten(args)
    return tree, tuple(map(jax.typeof, leaves))


def states_of(chain: Chain, args: Args) -> dict[str, State]:
    """Every state of a chain, x_0 … x_q, by name."""
    state, sides = chain.split(*args)
    states = [state]
    for stage, side in zip(chain, sides, strict=True):
        states.append(state := stage(*side, state))
    return dict(zip(chain.names_with_input, states, strict=True))


@dataclass(frozen=True)
class Found:
    """What a sweep found at one sample.

    Attributes
    ----------
    jacobians
        Of each source state.
    finite
        Whether each of them is.
    states
        Whether each state of the chain is finite.
    """

    jacobians: dict[str, jax.Array]
    finite: dict[str, jax.Array]
    states: dict[str, jax.Array]


@dataclass(frozen=True, eq=False)
class Sweep:
    """The sweep for samples of some shapes.

    Attributes
    ----------
    chain
        That ends in x_q.
    positions
        How many each state has that is read.
    sources
        Number in the chain and name of every such state.
    shapes
        (width_out, width) of their Jacobians.
    dtype
        Of the averages: float32, or wider where x_q is.
    how
        In chunks of how many rows, over which devices.
    """

    chain: Chain
    positions: int
    sources: dict[str, int]
    shapes: dict[str, tuple[int, int]]
    dtype: Any
    how: Pass

    @classmethod
    def of(cls, chain: Chain, args: Args, stages: tuple[str, ...] | None, how: Pass) -> Sweep:
        """The sweep along a chain at arguments of these shapes.

        Raises
        ------
        ValueError
            If the chain has no axis of positions, or holds several samples.
        KeyError
            If a pattern in ``stages`` matches no state.
        """
        return KEPT.get((chain, shapes_of(args), stages, how), lambda: cls._made(chain, args, stages, how))

    @classmethod
    def _made(cls, chain: Chain, args: Args, stages: Sequence[str] | None, how: Pass) -> Sweep:
        states = jax.eval_shape(lambda *args: states_of(chain, args), *args)
        target = chain.names[-1]
        out = _matrix_shape(states[target])
        if out is None:
            raise ValueError(_without_positions(states, target))
        shapes = {name: _matrix_shape(state) for name, state in states.items() if name != target}
        found = {name: (out[1], shape[1]) for name, shape in shapes.items() if shape and shape[0] == out[0]}
        if not found:
            msg = f"No state before {target!r} has its {out[0]} positions, so there is nothing to look through a lens at. Is {target!r} the end of a residual chain? Name its end: until=...."
            raise ValueError(msg)
        read = chosen(list(found), stages, "state with the output's positions")
        if read is not None:
            found = {name: shape for k, (name, shape) in enumerate(found.items()) if k in read}
        dtype = widest(states[target].dtype, jnp.float32)
        refuse_huge((3 * sum(rows * columns for rows, columns in found.values()),), dtype)
        numbers = {name: k for k, name in enumerate(chain.names_with_input) if name in found}
        return cls(chain, out[0], numbers, found, dtype, how)

    def __call__(self, args: Args, valid: np.ndarray[Any, Any]) -> Found:
        """The Jacobians at one sample, averaged over its valid positions."""
        jacobians, finite, states = self._compiled(args, valid)
        # JAX sorts the keys of a dict; here the chain's order is kept.
        return Found(
            {name: jacobians[name] for name in self.sources},
            {name: finite[name] for name in self.sources},
            {name: states[name] for name in self.chain.names_with_input},
        )

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return compiled(self.run)

    def run(
        self, args: Args, valid: jax.Array
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
        """What is compiled: the Jacobians, whether they are finite, whether the states are."""
        _, links = linearised(self.chain, args, None, None, "reverse")
        here = [link.here for _, link in links] + [links[-1][1].there]
        first, last = min(self.sources.values()), len(links)
        several = jnp.sum(valid).astype(self.dtype)

        def rows(direction: jax.Array) -> dict[str, jax.Array]:
            everywhere = jnp.where(valid[:, None], direction[None, :], jnp.zeros((), direction.dtype))
            pulled = pulled_back(links[first:], everywhere.reshape(-1))
            return {name: mean(pulled[number - first]) for name, number in self.sources.items()}

        def mean(row: jax.Array) -> jax.Array:
            # Chosen, not multiplied by zero: what a mask leaves out may be no number.
            each = jnp.where(valid[:, None], row.reshape(self.positions, -1).astype(self.dtype), 0)
            return jnp.sum(each, axis=0) / several

        width = here[last].size // self.positions
        jacobians = self.how.map(rows, jnp.eye(width, dtype=here[last].dtype))
        states = [link.state for _, link in links] + [links[-1][1].value("reverse")]
        named = dict(zip(self.chain.names_with_input, map(_is_finite, states), strict=True))
        return jacobians, {name: _is_finite(jacobian) for name, jacobian in jacobians.items()}, named


def _matrix_shape(state: State) -> tuple[int, int] | None:
    """(positions, width) of a state, axes of one before them left out; ``None`` where it is no such array."""
    shape, dtype = getattr(state, "shape", ()), getattr(state, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or len(shape) < 2:
        return None
    *before, positions, width = shape
    return (positions, width) if all(size == 1 for size in before) and width else None


def _without_positions(states: dict[str, State], target: str) -> str:
    """Why a chain that ends so has no lens."""
    given = f"A lens reads states of shape (positions, width), but the chain ends in {target!r}, {describe(states[target], short=True)}"
    shape = getattr(states[target], "shape", ())
    if len(shape) == 3 and shape[0] > 1:
        return f"{given}, which looks like {shape[0]} samples. Give one at a time, each as args of its own, with a leading axis of one where the model wants it."
    known = [name for name, state in list(states.items())[1:] if (found := _matrix_shape(state)) and found[0] > 1]
    hint = f" until={known[-1]!r}, say." if known else " This one has no state of that shape."
    return f"{given}. Name the last state of its residual stream: until=....{hint}"


def _is_finite(state: State) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
