"""A flat program pushed and pulled: the chain rule on paper, and as much of it as JAX has itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, straight_through
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxchain.explore import trace

UNARY = {jnp.sin: (np.sin, np.cos), jnp.tanh: (np.tanh, lambda a: 1 - np.tanh(a) ** 2)}
BINARY = {
    jnp.add: (np.add, lambda a, b: (1.0, 1.0)),
    jnp.subtract: (np.subtract, lambda a, b: (1.0, -1.0)),
    jnp.multiply: (np.multiply, lambda a, b: (b, a)),
}
STEPS = st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 99), st.integers(0, 99))


def on_paper(steps: Sequence[Any], values: list[float], tangents: list[float]) -> tuple[list[float], ...]:
    """The chain rule by hand, step by step and back again: every value, tangent and cotangent."""
    partials: list[list[tuple[int, float]]] = []
    for fn, *at in steps:
        read = [k % len(values) for k in at][: 1 if fn in UNARY else 2]
        operands = [values[k] for k in read]
        numpy_fn, derivative = UNARY[fn] if fn in UNARY else BINARY[fn]
        slopes = np.atleast_1d(derivative(*operands))
        partials.append([(k, float(d)) for k, d in zip(read, slopes, strict=True)])
        tangents.append(sum(d * tangents[k] for k, d in partials[-1]))
        values.append(float(numpy_fn(*operands)))
    cotangents = [0.0] * (len(values) - 1) + [1.0]
    for number in reversed(range(len(steps))):
        for k, d in partials[number]:
            cotangents[k] += d * cotangents[number + len(values) - len(steps)]
    return values, tangents, cotangents


@settings(max_examples=30, deadline=None, database=None)
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_every_straight_line_program_has_the_columns_that_the_chain_rule_gives(steps):
    def program(*args: Any) -> Any:
        values = list(args)
        for fn, *at in steps:
            read = [k % len(values) for k in at][: 1 if fn in UNARY else 2]
            values.append(fn(*(values[k] for k in read)))
        return values[-1]

    with jax.enable_x64(True):
        rows = trace(program, 0.7, -1.2, tangent=(0.5, 2.0)).rows[:-1]
    wanted = on_paper(steps, [0.7, -1.2], [0.5, 2.0])
    got = [[getattr(row, column) for row in rows] for column in ("primal", "tangent", "cotangent")]
    np.testing.assert_allclose(np.array(got, float), wanted, rtol=1e-12, atol=1e-12)


def doubled_until_nine(x: Any) -> Any:
    return lax.while_loop(lambda v: v < 9, lambda v: v * 2, x)


@pytest.mark.parametrize(
    ("fun", "gradient"),
    [
        (lambda x: x * doubled_until_nine(lax.stop_gradient(x) * 2), 12.0),
        (lambda x: x * doubled_until_nine(jnp.asarray(x > 0, "float32")), 16.0),
    ],
    ids=["stop_gradient", "boolean"],
)
def test_wherever_jax_has_the_arguments_cotangents_they_are_there(fun, gradient):
    found = trace(fun, 1.5)
    assert found["v0"].cotangent == jax.jit(jax.grad(fun))(1.5) == gradient
    assert found["v2"].cotangent is None
    assert found.notes[0].startswith("No cotangents of what does not depend on the arguments: Reverse-mode")


def test_the_note_names_the_first_equation_that_refuses():
    def fun(x: Any) -> Any:
        return doubled_until_nine(straight_through(jnp.sin(x)) + 1) * 2

    forward, reverse = trace(fun, 1.0).notes
    assert forward.startswith("No tangents: ")
    assert "(straight_through, test_evaluate.py:" in forward
    assert reverse.startswith("No cotangents: ")
    assert "(while, test_evaluate.py:" in reverse


def test_numpys_doubles_are_what_jax_takes_them_for():
    found = trace(lambda w, x: w @ x, np.eye(3), np.ones(3), tangent=(np.eye(3), np.ones(3)), cotangent=np.ones(3))
    assert_close(found["y"].tangent, jnp.full(3, 2.0))
    assert {row.cotangent.dtype for row in found.rows} == {jnp.dtype("float32")}


def test_keys_and_integers_pass_through_beside_what_is_differentiated():
    found = trace(lambda key, k, x: (jax.random.split(key), k + 1, x * k), jax.random.key(0), 3, 2.0)
    assert [row.cotangent for row in found.rows if row.name in ("y1", "y2")] == [None, None]
    assert found["v0"].cotangent == found["y3"].tangent == 3


def test_what_neither_mode_has_a_rule_for_is_noted():
    found = trace(lambda x: x.at[jnp.array([0, 1])].multiply(x[:2]), jnp.arange(1.0, 6.0))
    assert_close(found["y"].primal, jnp.array([1.0, 4.0, 3.0, 4.0, 5.0]))
    assert [note.split(":")[0] for note in found.notes] == ["No tangents", "No cotangents"]
