"""What to keep inside a stage: the best choice, by trying all."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import pytest

from jaxchain.cost.count import flops
from jaxchain.cost.liveness import bytes_of, most_alive
from jaxchain.derivative import residual_program
from jaxchain.memory.inside import Residuals, named
from jaxchain.program.primitives import is_var, name_given


def attention(x):
    scores = jnp.exp(x @ jnp.sin(x).T)
    return scores / jnp.sum(scores) @ x


def residuals_of(fun, *shapes):
    jaxpr = jax.make_jaxpr(fun)(*shapes)
    program, _ = residual_program(lambda *values: named(jaxpr.jaxpr, jaxpr.consts, values), *shapes)
    return Residuals(program.jaxpr, len(jaxpr.jaxpr.outvars), frozenset(), ())


def work_without(residuals: Residuals, kept: set) -> float:
    """What it takes to make all that is needed of what is kept and of the inputs."""
    done, todo = {}, [var for var in residuals.needed if var not in kept]
    while todo:
        var = todo.pop()
        eqn = residuals.makers.get(var)
        if eqn is None or id(eqn) in done:
            continue
        done[id(eqn)] = 0.0 if name_given(eqn) else flops(eqn)
        todo += [read for read in eqn.invars if is_var(read) and read in residuals.makers and read not in kept]
    return sum(done.values())


@pytest.mark.parametrize("fun", [attention, lambda x: jnp.exp(jnp.tanh(x @ x) @ x)])
def test_what_is_kept_is_the_best_of_all_choices(fun):
    residuals = residuals_of(fun, jnp.ones((6, 6)))
    values = list(residuals.names)
    for chosen in residuals.choices():
        sets = (set(some) for r in range(len(values) + 1) for some in itertools.combinations(values, r))
        best = min(work_without(residuals, some) for some in sets if sum(map(bytes_of, some)) <= chosen.kept)
        kept = {var for var, name in residuals.names.items() if name in chosen.names}
        assert sum(map(bytes_of, kept)) == chosen.kept
        assert work_without(residuals, kept) == chosen.work == best


def test_less_kept_is_more_work():
    choices = residuals_of(attention, jnp.ones((6, 6))).choices()
    assert len(choices) > 2
    assert choices[-1].kept == 0
    for more, less in itertools.pairwise(choices):
        assert more.kept > less.kept
        assert more.work < less.work


def test_what_is_alive_at_once_is_counted():
    def chain(x):
        for _ in range(5):
            x = x @ x
        return x

    program = jax.make_jaxpr(chain)(jnp.ones((4, 4)))
    assert most_alive(program.jaxpr) == 2 * 64  # one product while the next is made of it
    both = jax.make_jaxpr(lambda x: (x @ x) @ (x @ x @ x))(jnp.ones((4, 4)))
    assert most_alive(both.jaxpr) == 3 * 64
