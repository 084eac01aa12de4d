"""Threads that use one chain say what one of them alone says, and nothing that is remembered is mixed up."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

import jaxchain as jc

NET = jc.nets.mlp([4, 6, 2, 4], activation="tanh")
PARAMS = NET.init(jax.random.key(0))
CALLS = 200


def point(k):
    return jnp.cos(jnp.arange(4.0) + k)


def both(work):
    """The results of 200 calls by one thread, and by each of two at once, which begin together."""
    alone = [work(k) for k in range(CALLS)]
    with ThreadPoolExecutor(2) as pool:
        together = [list(each) for each in pool.map(lambda _: [work(k) for k in range(CALLS)], range(2))]
    return alone, together


def test_two_threads_of_200_calls_agree_with_one():
    chain = jc.discover(NET, PARAMS, point(0))
    planned = jc.jacobian(chain)
    compiled = jax.jit(lambda x: (planned(PARAMS, x), jc.reverse_sweep(chain, (PARAMS, x), x).cotangents[0]))
    alone, together = both(lambda k: compiled(point(k % 7)))
    for each in together:
        jax.tree.map(np.testing.assert_array_equal, each, alone)


def test_functions_that_are_read_by_two_threads_at_once_keep_apart():
    """Traced and planned anew in every call, so that whatever is remembered of programs is used by both."""

    def work(k):
        size = 2 + k % 3
        fun = lambda x: jnp.sin(x) * size  # noqa: E731
        x = jnp.ones(size)
        plan = jc.plan(fun, (x,))
        return size, plan.sizes, jc.discover(fun, x).names, plan.cost

    alone = [work(k) for k in range(12)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, [k for k in range(12) for _ in range(2)]))
    assert together[::2] == together[1::2] == alone
