"""Any run of neighbouring stages as one operator, for Krylov methods: one program for all runs of a chain.

A program for every prefix and suffix would take long to compile. Here each stage is passed or applied as it runs, by a
condition, and vectors are as long as the longest state, zero where they end. Builds on `krylov` and `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Linear
from jaxchain.diagnosis.kinds import Placed
from jaxchain.diagnosis.krylov import Found, Operator, draws, found

__all__ = ["runs"]


def runs(stages: Sequence[Placed]) -> Callable[..., Found]:
    """``find(placed, first, last, steps)``: what `found` finds of stages ``first`` … ``last`` - 1, at any such point."""
    which = [at.stage.carries for at in stages]
    functions = [None if at.kind.refused() else at.kind.called for at in stages]
    sizes = [Coordinates.of(stages[0].state).size, *(Coordinates.of(at.out).size for at in stages)]
    longest, wide = max(sizes), jnp.result_type(float)

    @partial(jax.jit, static_argnames=("steps", "flip"))
    def program(points: Any, first: int, last: int, given: Any, *, steps: int, flip: bool) -> Found:
        links = [
            None if function is None else Operator.of(Linear(partial(function, *side), state, carries))
            for function, (side, state), carries in zip(functions, points, which, strict=True)
        ]

        def passed(number: int, product: Callable[[jax.Array], jax.Array], size: int) -> Callable[..., jax.Array]:
            """A stage's own product where it lies within the run; else what came in."""
            within = (first <= number) & (number < last)

            def applied(v: jax.Array) -> jax.Array:
                made = product(v[:size])
                return jnp.pad(made, (0, longest - made.size))

            return lambda v: jax.lax.cond(within, applied, lambda v: v, v)

        pushes = [passed(k, link.push, link.columns) for k, link in enumerate(links) if link is not None]
        pulls = [passed(k, link.pull, link.rows) for k, link in enumerate(links) if link is not None]
        operator = Operator(partial(_one_by_one, pushes), partial(_one_by_one, pulls[::-1]), longest, longest).over(
            stages[0].kind.sharding
        )
        return found(operator.transposed if flip else operator, given, steps, estimate=True)

    def find(placed: Sequence[Placed], first: int, last: int, steps: int) -> Found:
        n, m = sizes[first], sizes[last]
        given = draws(longest, longest, max(m, n), min(m, n))
        points = [(at.side, at.state) for at in placed]
        return program(
            points, first, last, jax.tree.map(partial(jnp.asarray, dtype=wide), given), steps=steps, flip=n > m
        )

    return find


def _one_by_one(products: Sequence[Callable[[jax.Array], jax.Array]], vector: jax.Array) -> jax.Array:
    for product in products:
        vector = product(vector)
    return vector
