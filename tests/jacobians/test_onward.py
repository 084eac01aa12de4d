"""Stages through which no position reaches an earlier one: columns pushed in stretches, against JAX's Jacobians."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.discovery.find import find
from jaxchain.jacobians import unit
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Layout, Triangle, multiply
from jaxchain.jacobians.onward import onward_of
from jaxchain.jacobians.planner import make_plan

T, D, HEADS = 6, 4, 2
XS = draw(jnp.zeros((T, D)))
EARLIER = np.tril(np.ones((T, T), bool))
LEFT_OUT = {"-inf": lambda dtype: -jnp.inf, "least": lambda dtype: jnp.finfo(dtype).min, "-1e9": lambda dtype: -1e9}


def w(*shape, seed=0):
    return draw(jnp.zeros(shape), seed) / 2


def scores(x, scale=1.0):
    query, key, value = (x @ w(D, D, seed=k).astype(x.dtype) for k in range(3))
    split = [each.reshape(len(x), HEADS, -1).swapaxes(0, 1) for each in (query * scale, key, value)]
    return split[0] @ split[1].swapaxes(1, 2) / math.sqrt(D // HEADS), split[2]


def mixed(weights, value):
    return (weights @ value).swapaxes(0, 1).reshape(T, D)


def attention(fill="-inf", mask=EARLIER, scale=1.0):
    def attend(x):
        raw, value = scores(x, scale)
        kept = jnp.where(mask, raw, LEFT_OUT[fill](x.dtype))
        return x + mixed(jax.nn.softmax(kept), value)

    return attend


def by_hand(x):
    """A softmax of one's own, its mask put in twice."""
    raw, value = scores(x)
    raw = jnp.where(EARLIER, raw, -jnp.inf)
    weights = jnp.exp(raw - raw.max(-1, keepdims=True))
    weights = jnp.where(EARLIER, weights, 0) / weights.sum(-1, keepdims=True)
    return jnp.tanh(mixed(weights, value)) + x


def least_taken_off_itself(x):
    """Where the mask leaves numbers out, 0 is left, whose exponential is 1."""
    raw, value = scores(x)
    least = jnp.finfo(x.dtype).min
    return mixed(jnp.exp(jnp.where(EARLIER, raw, least) - jnp.where(EARLIER, 0, least)), value)


def least_of_whole_rows(x):
    """The first position sees nobody: its weights are all the same, and everybody counts."""
    raw, value = scores(x)
    return mixed(jax.nn.softmax(jnp.where(np.tril(EARLIER, -1), raw, jnp.finfo(x.dtype).min)), value)


def masked_by_what_comes(x):
    raw, value = scores(x)
    return mixed(jax.nn.softmax(jnp.where(raw > 0, raw, -jnp.inf).at[:, :, 0].set(0)), value)


def running_sums(x):
    return jnp.tril(jnp.ones((T, T), x.dtype)) @ jnp.sin(x) * x


def two_arrays(pair):
    x, y = pair
    return attention()(x * y[:, None]), jnp.tril(jnp.ones((T, T), x.dtype)) @ (y * x[:, 0])


def step(carry, row):
    hidden, cell = carry
    gates = jnp.split(w(4 * D, 2 * D).astype(row.dtype) @ jnp.concatenate([row, hidden]), 4)
    cell = jax.nn.sigmoid(gates[0]) * cell + jax.nn.sigmoid(gates[1]) * jnp.tanh(gates[2])
    hidden = jax.nn.sigmoid(gates[3]) * jnp.tanh(cell)
    return (hidden, cell), hidden


def loop(step=step, last=False, **options):
    def run(xs):
        zero = jnp.zeros(D, xs.dtype)
        carry, rows = lax.scan(step, (zero, zero), xs, **options)
        return carry if last else rows

    return run


def counted(carry, row):
    (hidden, cell), index = carry[:2], carry[2]
    after, out = step((hidden, cell), row * index)
    return (*after, index + 1), out * (index + 2)


def with_a_counter(xs):
    zero = jnp.zeros(D, xs.dtype)
    return lax.scan(counted, (zero, zero, jnp.int32(1)), xs)[1]


# A function, its input, and whether later columns are known to take less.
STAGES = {
    "causal attention": (attention(), XS, True),
    "the least number left out": (attention("least"), XS, True),
    "a softmax of one's own": (by_hand, XS, True),
    "a billion below, scores lower": (attention("-1e9", scale=1e11), XS, False),
    "left out of whole rows": (least_of_whole_rows, XS, False),
    "the least off itself": (least_taken_off_itself, XS, False),
    "a mask of the input": (masked_by_what_comes, XS, False),
    "later positions alone": (attention(mask=EARLIER.T), XS, False),
    "sums by a constant matrix": (running_sums, XS, True),
    "two arrays": (two_arrays, (XS, XS[:, 0]), True),
    "a short loop": (loop(), XS, True),
    "its last carry": (loop(last=True), XS, True),
    "backwards": (loop(reverse=True), XS, False),
    "a residual around it": (lambda xs: xs + loop()(jnp.sin(xs)), XS, True),
    "a counter": (with_a_counter, XS, True),
    "a branch in it": (loop(lambda c, x: lax.cond(x[0] > 0, step, lambda c, x: (c, c[0] * x), c, x)), XS, False),
    "a long loop": (lambda xs: loop()(jnp.concatenate([xs, xs])), XS, False),
    "a rule of one's own": (lambda xs: loop()(jax.nn.relu(xs)), XS, True),
}  # fmt: skip


@pytest.fixture
def wherever(monkeypatch):
    """Stretches wherever they are possible, however little there is to do."""
    for name in ("LEAST_ONWARD", "LEAST_OPENED"):
        monkeypatch.setattr(unit, name, 1)
    for name in ("SHARE", "OPENED"):
        monkeypatch.setattr(unit, name, 0.99)


def wide(tree):
    return jax.tree.map(lambda leaf: leaf.astype(float), tree)


@pytest.mark.usefixtures("x64", "wherever")
@pytest.mark.parametrize("name", STAGES)
def test_jacobians_in_stretches_are_jaxs(name):
    fun, x, _ = STAGES[name]
    x = wide(x)
    assert_close(jax.jit(jc.jacobian(fun, mode="mixed"))(x), jax.jit(jax.jacfwd(fun))(x), tol=1e-12)


@pytest.mark.usefixtures("x64", "wherever")
@pytest.mark.parametrize("name", STAGES)
def test_positions_that_reach_no_earlier_ones_are_found(name):
    fun, x, onward = STAGES[name]
    (whole,) = [unit.joined(plan.found, str, plan.units) for plan in [make_plan(find(fun, (wide(x),), 0))]]
    found = onward_of(whole.segment, whole.carries)
    outs = jax.tree.leaves(jax.eval_shape(fun, wide(x)))
    last = outs[0].shape[0] != T
    assert (found is not None and (found.out is not None or last) and found.share < 0.9) == onward


def deep(x):
    for _ in range(2):
        x = attention()(x)
        x = x + jnp.tanh(x @ w(D, D, seed=3)) @ w(D, D, seed=4)
    return x


@pytest.mark.usefixtures("x64")
def test_stretches_take_less_work_than_whole_columns(monkeypatch):
    x = wide(XS)
    before = flops(jc.jacobian(deep), x)
    monkeypatch.setattr(unit, "LEAST_ONWARD", 1)
    assert flops(jc.jacobian(deep), x) < 0.75 * before
    plan = jc.jacobian(deep).plan(x)
    assert "each through later positions alone" in str(plan)


def test_a_short_loop_takes_less_work_than_the_better_mode():
    fun, x = loop(), XS[:3]
    assert flops(jc.jacobian(fun), x) < 0.8 * min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))


@pytest.mark.usefixtures("wherever")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_stretches_keep_the_dtype_and_transform(dtype):
    x = XS.astype(dtype)
    jac = jc.jacobian(attention(), mode="mixed")
    want = jax.jit(jax.jacrev(attention()))(XS)
    got = jax.jit(jax.vmap(jac))(jnp.stack([x, x]))[1]
    assert got.dtype == x.dtype
    assert_close(got.astype(jnp.float32), want, tol=0.1 if dtype == "bfloat16" else 1e-5)


def triangle():
    layout = Layout.of([(T, D)], [[0]])
    blocks = Blocks(w(T, D, D), layout, layout)
    made = Triangle.of(blocks, layout, layout)
    parts = tuple(part + w(*part.shape, seed=k + 1) for k, part in enumerate(made.parts))
    return blocks, Triangle(parts, layout, layout)


def test_triangles_multiply_as_matrices_do():
    blocks, later = triangle()
    for left in (Identity(T * D, jnp.float32), Diagonal(w(T * D)), blocks, Dense(w(5, T * D)), later):
        assert_close(multiply(left, later).dense(), left.dense() @ later.dense(), tol=1e-5)
    for right in (Diagonal(w(T * D)), blocks, Dense(w(T * D, 5))):
        assert_close(multiply(later, right).dense(), later.dense() @ right.dense(), tol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_a_triangle_of_blocks_on_the_diagonal_is_them(count):
    layout = Layout.of([(count, 3)], [[0]])
    for matrix in (Identity(3 * count, jnp.float32), Diagonal(w(3 * count)), Blocks(w(count, 3, 3), layout, layout)):
        assert_close(Triangle.of(matrix, layout, layout).dense(), matrix.dense())
    assert Triangle.of(Dense(w(3 * count, 3 * count)), layout, layout) is None
