"""What carries a derivative is what JAX itself hands a tangent: its symbolic zeros are the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Var

from jaxchain.program.flow import active, reach


def carrying(fn: Callable[..., Sequence[Any]], args: Sequence[Any], which: Sequence[int]) -> list[bool]:
    """Which results carry a derivative from the arguments ``which``, as `active` says."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    found = active(jaxpr.eqns, [jaxpr.invars[k] for k in which])
    return [isinstance(out, Var) and out in found for out in jaxpr.outvars]


def tangents(fn: Callable[..., Sequence[Any]], args: Sequence[Any], which: Sequence[int]) -> list[bool]:
    """Which results JAX hands a tangent that is no symbolic zero, when ``which`` alone are moved."""
    seen: list[bool] = []

    @jax.custom_jvp
    def look(x, always_moved):
        return always_moved

    def rule(primals, directions):
        seen.append(not isinstance(directions[0], SymbolicZero))
        return primals[1], directions[1]

    look.defjvp(rule, symbolic_zeros=True)

    def of_moved(always_moved, *moved):
        full = list(map(jnp.asarray, args))
        for k, value in zip(which, moved, strict=True):
            full[k] = value
        return [look(out, always_moved) for out in map(jnp.asarray, fn(*full))]

    moved = (1.0, *(args[k] for k in which))
    jax.eval_shape(lambda: jax.jvp(of_moved, moved, moved))
    return seen


# ------------------------------------------------------------------------------------------------------ written by hand


def stopped(x, y):
    return [lax.stop_gradient(x) * 2, lax.stop_gradient(x) * y, x * y]


def through_integers(x, y):
    return [jnp.floor(x).astype(int).astype(x.dtype), x.astype(int), y * jnp.argmax(jnp.stack([x, x]))]


def scan_with_time(x, y):
    (t, h), (times, states) = lax.scan(lambda c, _: ((c[0] + 0.5, c[1] * c[0]), (c[0], c[1])), (0.0, x), None, length=3)
    return [t, h, times, states, y]


def scan_that_mixes_late(x, y):
    """The third carry is reached from the first after two steps, not after one."""
    (a, b, c), _ = lax.scan(lambda s, _: ((s[0] * 2, s[0] + 1, s[1] + 1), None), (x, 1.0, 1.0), None, length=4)
    return [a, b, c]


def scan_with_a_constant_and_rows(x, y):
    carry, rows = lax.scan(lambda c, row: (c * y, (row + 1, row * c)), 1.0, jnp.stack([x, x]))
    return [carry, *rows]


def while_with_time(x, y):
    t, n, h, still = lax.while_loop(
        lambda s: s[0] < 3.0, lambda s: (s[0] + 1, s[1] + 1, s[2] * s[0], s[3]), (0.0, 0, x, 1.0)
    )
    return [t, n, h, still]


def while_whose_end_is_moved(x, y):
    """Only how often it runs depends on y."""
    return lax.while_loop(lambda s: s[0] < y, lambda s: (s[0] + 1, s[1] * 2), (0.0, x))


def while_with_constants(x, y):
    """The predicate's constant moves nothing, the body's does."""
    return lax.while_loop(lambda s: s[0] < x, lambda s: (s[0] + 1, s[1] * y), (0.0, 1.0))


def cond_operand_that_no_branch_returns(x, y):
    return lax.cond(y > 0, lambda x, y: (x, 1.0), lambda x, y: (x * x, 2.0), x, y)


def cond_in_one_branch(x, y):
    return lax.cond(True, lambda x, y: (x, y), lambda x, y: (lax.stop_gradient(x), 1.0), x, y)


def called(x, y):
    return jax.jit(lambda x, y: (y, lax.stop_gradient(x) + 1, x * 1.0))(x, y)


def rematerialised(x, y):
    return jax.checkpoint(lambda x, y: (y, lax.stop_gradient(x) + 1, jnp.sin(x)))(x, y)


def loop_in_a_loop(x, y):
    def outer(c, _):
        t, h = lax.fori_loop(0, 2, lambda i, s: (s[0] + 1, s[1] * s[0]), (c[0], c[1]))
        return (t, h), lax.cond(t > 0, lambda: t, lambda: 2 * t)

    (t, h), times = lax.scan(outer, (0.0, x), None, length=2)
    return [t, h, times]


CASES = [  # function, which results carry a derivative from x alone, and from y alone
    (stopped, [False, False, True], [False, True, True]),
    (through_integers, [False, False, False], [False, False, True]),
    (scan_with_time, [False, True, False, True, False], [False, False, False, False, True]),
    (scan_that_mixes_late, [True, True, True], [False, False, False]),
    (scan_with_a_constant_and_rows, [False, True, True], [True, False, True]),
    (while_with_time, [False, False, True, False], [False, False, False, False]),
    (while_whose_end_is_moved, [False, True], [False, False]),
    (while_with_constants, [False, False], [False, True]),
    (cond_operand_that_no_branch_returns, [True, False], [False, False]),
    (cond_in_one_branch, [True, False], [False, True]),
    (called, [False, False, True], [True, False, False]),
    (rematerialised, [False, False, True], [True, False, False]),
    (loop_in_a_loop, [False, True, False], [False, False, False]),
]
POINT = (1.25, 2.5)


@pytest.mark.parametrize(("fn", "of_x", "of_y"), CASES, ids=lambda part: getattr(part, "__name__", None))
def test_a_result_carries_a_derivative_exactly_where_it_has_one(fn, of_x, of_y):
    assert carrying(fn, POINT, [0]) == of_x
    assert carrying(fn, POINT, [1]) == of_y
    assert carrying(fn, POINT, [0, 1]) == [one or other for one, other in zip(of_x, of_y, strict=True)]


@pytest.mark.parametrize("fn", [case[0] for case in CASES], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
def test_the_answers_written_by_hand_are_jaxs_own(fn, which):
    assert carrying(fn, POINT, which) == tangents(fn, POINT, which)


@pytest.mark.parametrize(
    "fn",
    [stopped, scan_with_time, while_whose_end_is_moved, cond_in_one_branch, loop_in_a_loop],
    ids=lambda f: f.__name__,
)
def test_a_derivative_that_is_not_zero_is_carried(fn):
    for k in range(2):
        moved = jax.jit(lambda x, y, k=k: jax.jacfwd(lambda *a: list(fn(*a)), k)(x, y))(*map(jnp.asarray, POINT))
        numbers = [leaf.dtype != jax.dtypes.float0 and bool(np.any(np.asarray(leaf))) for leaf in moved]
        assert all(said for said, is_moved in zip(carrying(fn, POINT, [k]), numbers, strict=True) if is_moved)


def test_an_integer_carries_nothing_even_if_it_is_chosen():
    assert carrying(lambda n, x: [n, n * x, n + 1], (3, 1.0), [0]) == [False, False, False]


def test_what_has_a_rule_of_its_own_is_taken_to_carry_everything():
    """Nobody can tell what a rule returns before it has run."""

    @jax.custom_jvp
    def fn(x):
        return lax.stop_gradient(x)

    fn.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    assert carrying(lambda x: [fn(x)], (1.0,), [0]) == [True]


def test_reach_is_everything_computed_from_the_inputs_derivative_or_not():
    def fn(x, y):
        n = x.astype(int)
        return [n, lax.stop_gradient(x), jnp.sin(y), y * n]

    jaxpr = jax.make_jaxpr(fn)(*map(jnp.float32, POINT)).jaxpr
    found = reach(jaxpr.eqns, [jaxpr.invars[0]])
    assert [out in found for out in jaxpr.outvars] == [True, True, False, True]
    assert jaxpr.invars[0] in found
    assert jaxpr.invars[1] not in found


# ------------------------------------------------------------------------------------------------------------- at random

INDEX = st.integers(0, 9)
PLAIN = st.one_of(
    st.tuples(st.sampled_from(["sin", "stop", "integer", "copy"]), INDEX),
    st.tuples(st.sampled_from(["add", "mul", "where"]), INDEX, INDEX),
    st.just(("number",)),
)


def steps_of(step: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(step, min_size=2, max_size=4)


STEPS = steps_of(
    st.recursive(
        PLAIN,
        lambda step: st.one_of(
            st.tuples(st.sampled_from(["jit", "remat", "while"]), steps_of(step)),
            st.tuples(st.just("cond"), steps_of(step), steps_of(step)),
            st.tuples(st.just("scan"), steps_of(step), INDEX),
        ),
        max_leaves=8,
    )
)


def play(steps: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The values, and behind them what each step makes of those before it."""
    known = [*values]

    def at(k: int) -> Any:
        return known[k % len(known)]

    def two(steps: Sequence[Any], *more: Any) -> tuple[Any, Any]:
        last = play(steps, [*known, *more])[-2:]
        return last[0], last[1]

    for kind, *how in steps:
        match kind, how:
            case "sin", [i]:
                known.append(jnp.sin(at(i)))
            case "stop", [i]:
                known.append(lax.stop_gradient(at(i)))
            case "integer", [i]:
                known.append(lax.convert_element_type(lax.convert_element_type(at(i), int), float))
            case "copy", [i]:
                known.append(at(i))
            case "add", [i, j]:
                known.append(at(i) + at(j))
            case "mul", [i, j]:
                known.append(at(i) * at(j))
            case "where", [i, j]:
                known.append(lax.select(at(0) > 0, at(i), at(j)))
            case "number", []:
                known.append(jnp.float32(0.5))
            case "jit", [inner]:
                known += jax.jit(lambda *given, inner=inner: tuple(play(inner, given)[-2:]))(*known)
            case "remat", [inner]:
                known += jax.checkpoint(lambda *given, inner=inner: tuple(play(inner, given)[-2:]))(*known)
            case "cond", [one, other]:
                known += lax.cond(at(1) > 0, lambda one=one: two(one), lambda other=other: two(other))
            case "while", [inner]:
                state = (jnp.int32(0), *known[-2:])
                known += lax.while_loop(
                    lambda s: s[0] < 2, lambda s, inner=inner: (s[0] + 1, *two(inner, s[1], s[2])), state
                )[1:]
            case "scan", [inner, i]:
                carry, rows = lax.scan(
                    lambda c, row, inner=inner: ((made := two(inner, *c, row)), made[0] * row),
                    (at(-1), at(-2)),
                    jnp.stack([at(i), at(i + 1)]),
                )
                known += [*carry, rows[1]]
    return known


@settings(max_examples=100, deadline=None, derandomize=True)
@given(STEPS, st.sets(st.integers(0, 2), min_size=1).map(sorted))
def test_active_is_jaxs_own_symbolic_zeros(steps, which):
    args = [jnp.float32(0.25), jnp.float32(1.5), jnp.float32(-2.0)]
    assert carrying(lambda *a: play(steps, a), args, which) == tangents(lambda *a: play(steps, a), args, which)
