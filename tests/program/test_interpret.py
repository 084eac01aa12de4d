"""A program interpreted equation by equation: JAX's own numbers to the bit, and few compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxchain as jc
from jaxchain.program.interpret import interpret, numbers_of

X = jnp.array([[1.5, -0.0, jnp.nan], [jnp.inf, -2.25, 1e-39]], jnp.float32)

PROGRAMS = {
    "moves": lambda x: jnp.concatenate([x.T[::-1], jnp.broadcast_to(x[:1, 1:, None], (1, 2, 2))[0].repeat(2, 0)[:1]]),
    "pad": lambda x: (lax.pad(x, 2.0, [(1, 0, 2), (0, 3, 0)]), lax.pad(x, 0.0, [(-1, 0, 0), (0, 0, 1)])),
    "arithmetic": lambda x: (x + 1, x * x - 3, -x, jnp.abs(x), x * 1e-20 * 1e-20, jnp.square(x)),
    "division": lambda x: (x / 3, 1 / x, jnp.int32(-7) / 2, jnp.arange(-3, 3) // 2, jnp.sqrt(jnp.abs(x))),
    "remainders": lambda x: (lax.rem(x, 0.7), lax.rem(jnp.arange(-5, 5), 3), lax.rem(jnp.arange(3), 0), x % 0.7),
    "finite": jnp.isfinite,
    "gathers": lambda x: (
        x[jnp.array([1, 0, 1])],
        x[:, jnp.array([[2, 0], [1, 1]])],
        x[jnp.array([0, 1]), jnp.array([2, 2])],
        jnp.take_along_axis(x, jnp.array([[2, 0, 1], [1, 1, 0]]), axis=1),
        jax.vmap(lambda row, at: lax.dynamic_slice(row, (at,), (2,)))(x, jnp.array([0, 1])),
        x[jnp.array([0, 7])],
        x.at[jnp.array([-9, 1])].get(mode="fill", fill_value=3),
        x.at[jnp.array([9])].get(mode="clip"),
    ),
    "scatters": lambda x: (
        x.at[1].set(5),
        x.at[jnp.array([0, 0, 1])].add(jnp.arange(9.0, dtype=x.dtype).reshape(3, 3) * 0.3),
        x.at[:, jnp.array([2, 0])].set(jnp.ones((2, 2), x.dtype)),
        x.at[jnp.array([0, 1]), jnp.array([2, 2])].add(1 / x[:, 1]),
        x.at[jnp.array([1, 8])].add(1),
        jax.vmap(lambda row, at: row.at[at].add(0.1))(x, jnp.array([0, 2])),
        x.at[0, 0].add(1e-40),
        x.at[jnp.array([0, 1]), 0].apply(jnp.sin),
        jnp.zeros(3, int).at[jnp.array([1, 1])].add(4),
    ),
    "comparison": lambda x: (jnp.where(x > 0, x, 2 * x), (x == x) & ~(x < 1), (x != 0) ^ (x >= 1)),
    "integers": lambda x: (jnp.arange(5, dtype="int8") * 100, x.astype("int32"), jnp.int32(7) // -2, ~jnp.arange(3)),
    "casts": lambda x: (x.astype("bfloat16") * 3, x.astype("float16"), (x > 0).astype("float32"), x.astype(complex)),
    "split": lambda x: jnp.split(x, [1], axis=1),
    "calls": lambda x: (jax.jit(jnp.sin)(x), jax.checkpoint(jnp.tanh)(x), jax.nn.relu(x), jax.nn.softplus(x)),
    "branches": lambda x: lax.switch(5, [jnp.sin, jnp.cos, lambda x: x @ x.T @ x], x),
    "loops": lambda x: (
        lax.fori_loop(0, 3, lambda _, x: x * 1.5, x),
        lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c * 2, x),
    ),
    "no numbers": lambda x: (jax.random.normal(jax.random.key(3), (2,)), x[:0], jax.random.key(1)),
}


@pytest.mark.parametrize("fun", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_has_the_bits_that_jax_computes(fun):
    want, got = fun(X), numbers_of(fun, X)
    assert jax.tree.structure(want) == jax.tree.structure(got)
    for one, other in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.extended):
            one, other = map(jax.random.key_data, (one, other))
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_a_single_number_keeps_its_precision():
    closed = jax.make_jaxpr(lambda x: (x * 1e30 * 1e30, x * 0.1 + 2))(1.5)
    got, want = interpret(closed, [jnp.float32(1.5)]), jax.jit(lambda x: (x * 1e30 * 1e30, x * 0.1 + 2))(1.5)
    assert [x.dtype for x in got] == [jnp.float32] * 2
    np.testing.assert_array_equal(got, want)  # infinite, which it is not in double precision


def test_a_function_that_looks_at_numbers_is_run_as_it_is():
    assert numbers_of(lambda x: x * 2 if x > 1 else x, jnp.float32(1.5)) == 3


def test_what_no_result_needs_is_not_computed():
    closed = jax.make_jaxpr(lambda x: (jax.pure_callback(lambda _: 1 / 0, x, x), x + 1)[1])(1.0)
    assert interpret(closed, [1.0]) == [2.0]


def compiled(run):
    """How many programs XLA compiles while ``run()`` runs."""
    counts = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: counts.append(event) if event.endswith("backend_compile_duration") else None
    )
    run()
    return len(counts)


def test_a_trace_compiles_kinds_of_arithmetic_not_equations():
    def fun(x):  # each slice a kind of its own to XLA, and so are its transpose and what reads it
        return sum((x[k : k + 2 + k % 7] * (k + 0.5))[:2] + x[k] for k in range(60))

    x = jnp.arange(80.0)
    found = jc.trace(fun, x)
    assert len(found.rows) > 240
    np.testing.assert_allclose(found["v0"].cotangent, jax.vjp(fun, x)[1](jnp.ones(2))[0], rtol=1e-6)
    jax.clear_caches()
    assert compiled(lambda: jc.trace(fun, x)) < 20
