"""Folded calls read as their callers wrote them, and open by any of their names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxchain.explore import trace


def folds(found: Any) -> list[str]:
    return [row.formula.split(" = ", 1)[1] for row, _ in found.walk(everything=True) if row.rows]


def test_a_library_calls_operands_are_in_the_callers_order_with_literals():
    def fun(x: Any, labels: Any) -> Any:
        rectified = jnp.where(x > 0, x, -1.0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(rectified), labels[:, None], axis=1)
        return jnp.clip(picked, -5.0, 5.0)

    assert folds(trace(fun, jnp.ones((2, 3)), jnp.array([0, 2]))) == [
        "where(v1, v-1, -1)",
        "log_softmax(v4)",
        "take_along_axis(v14, v15)",
        "clip(v20, -5, 5)",
    ]


def test_a_library_call_on_an_unrolled_loops_result_reads_that_result():
    def fun(x: Any) -> Any:
        return jax.nn.log_softmax(lax.fori_loop(0, 1, lambda _, v: jnp.sin(v) * 2, x))

    *_, last = folds(trace(fun, jnp.ones(3)))
    found = trace(fun, jnp.ones(3))
    (name,) = [row.name for row in found.rows if row.formula.endswith("× 2")]
    assert last == f"log_softmax({name})"


def test_a_module_that_holds_one_alone_opens_by_either_name():
    def fun(x: Any) -> Any:
        with jax.named_scope("outer"), jax.named_scope("inner"):
            x = jnp.sin(x) * 2
        return x + 1

    found = trace(fun, 1.0)
    assert folds(found) == ["outer/inner(v0)"]
    for name in ("outer", "inner", "outer/inner"):
        assert [row.name for row, _ in found.unfold(name).walk()] == ["v0", "v2", "v1", "v2", "v3", "y"]


def test_a_row_is_found_whatever_its_name_holds():
    assert trace(lambda d: {"a, b": d["a, b"] * 2}, {"a, b": 2.0})["y['a, b']"].tangent == 2
