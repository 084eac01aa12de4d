"""Loops that read their input row by row: Jacobians from those of their steps, against JAX's."""

import jax
import jax.numpy as jnp
import pytest
from conftest import assert_close, draw
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.discovery.find import find
from jaxchain.jacobians.planner import make_plan
from jaxchain.jacobians.recurrence import Recurrence

T, D, H = 12, 7, 7
XS = draw(jnp.zeros((T, D)))


def w(*shape, seed=0):
    return draw(jnp.zeros(shape), seed) / 3


def gated(carry, x):
    both = jnp.concatenate([x, carry])
    update, reset = jax.nn.sigmoid(w(H, D + H) @ both), jax.nn.sigmoid(w(H, D + H, seed=1) @ both)
    new = jnp.tanh(w(H, D + H, seed=2) @ jnp.concatenate([x, reset * carry]))
    return ((1 - update) * carry + update * new,) * 2


def long_and_short(state, x):
    hidden, cell = state
    gates = jnp.split(w(4 * H, D + H) @ jnp.concatenate([x, hidden]), 4)
    cell = jax.nn.sigmoid(gates[0]) * cell + jax.nn.sigmoid(gates[1]) * jnp.tanh(gates[2])
    hidden = jax.nn.sigmoid(gates[3]) * jnp.tanh(cell)
    return (hidden, cell), {"hidden": hidden, "twice": 2 * cell[:2]}


def filtered(state, y):
    mean, spread = jnp.tanh(w(H, H) @ state[0]), w(H, H) @ state[1] @ w(H, H).T + jnp.eye(H)
    gain = jnp.linalg.solve(w(D, H) @ spread @ w(D, H).T + jnp.eye(D), w(D, H) @ spread).T
    mean = mean + gain @ (jnp.sin(y) * mean[:D] - w(D, H) @ mean)
    return (mean, spread - gain @ w(D, H) @ spread), (mean, spread)


@jax.custom_vjp
def clipped_back(x):
    return jnp.tanh(x)


clipped_back.defvjp(lambda x: (jnp.tanh(x), x), lambda x, c: (c * (1 - jnp.tanh(x) ** 2),))
ZERO = jnp.zeros(H)


def scan(step, first, xs, **options):
    """As wide as numbers are by default, which a test may change."""
    first = jax.tree.map(lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, first)
    return lax.scan(step, first, xs, **options)


def loop(step, first, **options):
    return lambda xs: scan(step, first, xs, **options)[1]


def with_a_counter(carry, x):
    count, hidden = carry
    return (count + 1, gated(hidden, x * count)[0]), (hidden * count, count.astype(float))


def with_keys(xs):
    keys = jax.random.split(jax.random.key(0), T)

    def step(carry, x_and_key):
        x, key = x_and_key
        return gated(carry, x * jax.random.bernoulli(key, 0.5, (D,)))

    return scan(step, ZERO, (xs, keys))[1]


def from_the_first(first_and_rows):
    first, xs, scales = first_and_rows

    def step(carry, row):
        hidden = gated(carry, row[0] * row[1])[0]
        return hidden, (hidden, row[0] * hidden[0])

    return scan(step, first, (xs, scales))


def two_loops(xs):
    return loop(long_and_short, (ZERO, ZERO), reverse=True)(jnp.tanh(loop(gated, ZERO)(xs))[:, :D])


def in_a_residual(xs):
    return xs @ w(D, H) + jnp.tanh(loop(gated, ZERO)(xs))


# A function, its input, and the share of the work of the better simple mode that it takes at most.
LOOPS = {
    "gated": (loop(gated, ZERO), XS, 0.6),
    "backwards": (loop(gated, ZERO, reverse=True), XS, 0.6),
    "long and short": (loop(long_and_short, (ZERO, ZERO)), XS, 0.9),
    "last carry and rows": (lambda xs: scan(gated, ZERO, xs), XS, 0.6),
    "last carry": (lambda xs: scan(gated, ZERO, xs)[0], XS, 1.02),
    "a filter's means and spreads": (loop(filtered, (ZERO, jnp.eye(H))), XS, 0.8),
    "a counter": (loop(with_a_counter, (1.0 + jnp.zeros(()), ZERO)), XS, 0.7),
    "a whole number": (loop(with_a_counter, (jnp.int32(1), ZERO)), XS, 0.7),
    "keys": (with_keys, XS, 0.6),
    "first carry, rows, scales": (from_the_first, (ZERO + 1, XS, XS[:, 0]), 1.02),
    "two steps": (loop(gated, ZERO), XS[:2], 1.02),
    "rows of matrices": (loop(lambda c, x: (gated(c, x.sum(0) + x[0])[0],) * 2, ZERO), jnp.stack([XS, XS / 2], 1), 0.6),
    "transposed before": (lambda xs: loop(gated, ZERO)(jnp.sin(xs).T), XS.T, 0.6),
    "reshaped before": (lambda xs: loop(gated, ZERO)(xs.reshape(T, D)), XS.reshape(T * D), 0.6),
    "in a residual": (in_a_residual, XS, 1.02),
    "two loops": (two_loops, XS, 1.02),
    "a rule without forward mode": (loop(lambda c, x: (clipped_back(gated(c, x)[0]),) * 2, ZERO), XS, 1.02),
    "a while loop inside": (
        loop(lambda c, x: (lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, gated(c, x)[0]))[1],) * 2, ZERO), XS, 1.02,
    ),
    "a branch inside": (loop(lambda c, x: (lax.cond(x[0] > 0, gated, lambda c, x: (c * x[1], c), c, x)[0],) * 2, ZERO), XS, 1.02),
    "rows read twice": (lambda xs: scan(lambda c, r: gated(c, r[0] * r[1]), ZERO, (xs, xs))[1], XS, 1.02),
    "rows read twice, others not at all": (lambda xs: scan(lambda c, r: gated(c, r[0] * r[1]), ZERO, (xs[0], xs[0]))[1], (XS, XS[:, 0]), 1.02),
    "two carries from one, rows not all": (
        lambda xs: scan(lambda s, x: ((gated(s[0], x)[0], gated(s[1], 2 * x)[0]), s[0]), (xs[1], xs[1]), xs[0])[1], (XS, ZERO, XS[0]), 1.02,
    ),
    "a number beside it": (lambda xs: (scan(gated, ZERO, xs)[1], 2.0), XS, 1.02),
    "a constant of the input": (lambda xs: scan(lambda c, x: gated(c, x + xs[0]), ZERO, xs)[1], XS, 1.02),
    "nothing carried": (loop(lambda c, x: (c, jnp.outer(x, x)), ZERO), XS, 0.6),
    "unrolled by four": (loop(gated, ZERO, unroll=4), XS, 1.02),
    "rematerialised": (loop(jax.checkpoint(gated), ZERO), XS, 0.7),
    "a recurrence of numbers": (loop(lambda c, x: (c * x.sum() + x[0],) * 2, jnp.zeros(())), XS, 1.02),
}  # fmt: skip
each = pytest.mark.parametrize("name", LOOPS)


def transform(fun):
    return jax.jacfwd(fun) if fun is LOOPS["a while loop inside"][0] else jax.jacrev(fun)


@pytest.mark.usefixtures("x64")
@each
def test_jacobians_of_loops_are_jaxs(name):
    fun, x, _ = LOOPS[name]
    x = jax.tree.map(lambda leaf: leaf.astype(float), x)
    assert_close(jax.jit(jc.jacobian(fun, mode="mixed"))(x), jax.jit(transform(fun))(x), tol=1e-12)


@pytest.mark.parametrize("name", ["gated", "backwards", "a filter's means and spreads", "a whole number", "last carry"])
def test_steps_take_less_work_than_a_basis(name):
    fun, x, share = LOOPS[name]
    assert flops(jc.jacobian(fun), x) <= share * min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))


@pytest.mark.parametrize("kind", ["vmap", "grad", "jvp", "chunks", "bfloat16", "eager"])
def test_loops_within_transforms(kind):
    fun = loop(gated, ZERO)
    jac, jaxs = jc.jacobian(fun), jax.jacrev(fun)
    if kind == "vmap":
        batch = jnp.stack([XS, XS + 1])
        assert_close(jax.jit(jax.vmap(jac))(batch), jax.jit(jax.vmap(jaxs))(batch), tol=1e-4)
    elif kind == "grad":
        got, want = (jax.jit(jax.grad(lambda x, j=j: (j(x) ** 2).sum()))(XS) for j in (jac, jax.jacfwd(fun)))
        assert_close(got, want, tol=1e-4)
    elif kind == "jvp":
        got, want = (jax.jit(lambda x, j=j: jax.jvp(j, (x,), (x,))[1])(XS) for j in (jac, jaxs))
        assert_close(got, want, tol=1e-4)
    elif kind == "chunks":
        assert_close(jax.jit(jc.jacobian(fun, mode="mixed", chunk_size=3))(XS), jax.jit(jaxs)(XS), tol=1e-4)
    elif kind == "bfloat16":
        got = jax.jit(
            jc.jacobian(loop(lambda c, x: (jnp.tanh(c + x[0]) * x[1],) * 2, ZERO.astype("bfloat16")), mode="mixed")
        )(XS.astype("bfloat16"))
        want = jax.jit(jax.jacrev(loop(lambda c, x: (jnp.tanh(c + x[0]) * x[1],) * 2, ZERO)))(XS)
        assert got.dtype == "bfloat16"
        assert float(abs(got.astype("float32") - want).max()) < 0.1 * float(abs(want).max())
    else:
        assert_close(jac(XS), jaxs(XS), tol=1e-4)


def test_the_plan_says_how():
    fun = loop(gated, ZERO)
    assert (
        jc.plan(fun, (XS,)).describe(jc.plan(fun, (XS,)).steps[0]).endswith("from the Jacobians of its loop's 12 steps")
    )
    (unit,) = make_plan(find(fun, (XS,), 0)).units
    assert isinstance(unit.inside, Recurrence)
    assert unit.inside.sizes == (H, D, 0, 0)
    assert unit.inside.stretches == [(0, 4), (4, 8), (8, 12)]
