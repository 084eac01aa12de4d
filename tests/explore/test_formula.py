"""Formulae read like mathematics; what has no sign of its own is a call."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxchain.explore import trace

X, M, T = jnp.arange(1.0, 4.0), jnp.ones((3, 3)), jnp.ones((2, 3, 4))

ADD = lax.ScatterDimensionNumbers((), (0,), (0,))


@jax.custom_jvp
def clipped(x: Any) -> Any:
    return jnp.clip(x, 0.0, 1.0)


clipped.defjvp(lambda primals, tangents: (clipped(*primals), tangents[0]))


@jax.custom_vjp
def reversed_gradient(x: Any) -> Any:
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))

CASES = [
    (lambda x, y: x + y, (1.0, 2.0), "v-1 + v0"),
    (lambda x, y: x - y, (1.0, 2.0), "v-1 - v0"),
    (lambda x, y: x * y, (1.0, 2.0), "v-1 × v0"),
    (lambda x, y: x / y, (1.0, 2.0), "v-1 / v0"),
    (lambda x, y: x**y, (1.0, 2.0), "v-1 ** v0"),
    (lambda x: x**3, (1.0,), "v0 ** 3"),
    (lambda x: lax.square(x), (1.0,), "v0 ** 2"),
    (lambda x: -x, (1.0,), "-v0"),
    (lambda x: 2 * x, (1.0,), "2 × v0"),
    (lambda x: x * -0.5, (1.0,), "v0 × (-0.5)"),
    (lambda x: 1j * x, (1.0 + 0j,), "(0+1j) × v0"),
    (lambda x, y: x <= y, (1.0, 2.0), "v-1 <= v0"),
    (lambda x, y: x & y, (True, False), "v-1 & v0"),
    (lambda x: ~x, (True,), "~v0"),
    (jnp.sin, (1.0,), "sin(v0)"),
    (jnp.log, (1.0,), "log(v0)"),
    (jax.nn.sigmoid, (1.0,), "sigmoid(v0)"),
    (partial(lax.max, 0.0), (1.0,), "max(0, v0)"),
    (lambda a, x: a @ x, (M, X), "v-1 @ v0"),
    (lambda x, y: x @ y, (X, X), "v-1 @ v0"),
    (lambda a, b: a @ b, (M, M), "v-1 @ v0"),
    (lambda a, x: lax.dot_general(a, x, (((0,), (0,)), ((), ()))), (M, X), "dot(v-1, v0; axes 0 and 0)"),
    (lambda a, b: lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,)))), (T, T), "dot(v-1, v0; axes 1 and 1; batch 0)"),
    (lambda x: lax.reshape(x, (6, 4)), (T,), "reshape(v0, 6×4)"),
    (lambda x: x[0], (jnp.ones((1,)),), "reshape(v0, scalar)"),
    (lambda x: jnp.broadcast_to(x, (2, 3)), (X,), "broadcast(v0, 2×3)"),
    (lambda x: lax.broadcast_in_dim(x, (3, 2), (0,)), (X,), "broadcast(v0, 3×2, axis 0)"),
    (lambda x: x[:, None], (X,), "reshape(v0, 3×1)"),
    (lambda x, y: lax.rem(x, y), (1.0, 2.0), "rem(v-1, v0)"),
    (lambda x, y: lax.div(x, y), (1, 2), "div(v-1, v0)"),
    (lambda x, y: x ^ y, (1, 2), "v-1 ^ v0"),
    (lambda x: jnp.sum(x), (M,), "sum(v0)"),
    (lambda x: jnp.sum(x, axis=0), (M,), "sum(v0, axis 0)"),
    (lambda x: jnp.sum(x, axis=(0, 2)), (T,), "sum(v0, axis 0, 2)"),
    (lambda x: jnp.all(x), (X > 1,), "all(v0)"),
    (lambda x: lax.argmax(x, 0, "int32"), (M,), "argmax(v0, axis 0)"),
    (lambda x: lax.cumsum(x), (X,), "cumsum(v0)"),
    (lambda x: lax.cumsum(x, axis=1, reverse=True), (M,), "cumsum(v0, axis 1, reverse)"),
    (lambda x: lax.reduce_precision(x, 5, 10), (X,), "reduce_precision(v0)"),
    (lambda w, x, y: lax.select(w, x, y), (X > 1, X, X), "where(v-2, v-1, v0)"),
    (lambda k, x, y: lax.select_n(k, x, y, x), (2, 1.0, 2.0), "select(v-2, v-1, v0, v-1)"),
    (lambda x: lax.slice(x, (0,), (3,), (2,)), (X,), "v0[::2]"),
    (lambda x: lax.slice(x, (1, 0), (3, 3)), (M,), "v0[1:3, :]"),
    (lambda x: lax.slice(x, (0, 1), (2, 3)), (M,), "v0[0:2, 1:3]"),
    (lambda x: lax.transpose(x, (1, 0)), (M,), "transpose(v0, 1, 0)"),
    (lambda x, y: lax.concatenate([x, y], 0), (X, X), "concatenate(v-1, v0)"),
    (lambda x, y: lax.concatenate([x, y], 1), (M, M), "concatenate(v-1, v0, axis 1)"),
    (lambda *xs: lax.concatenate(xs, 0), (X,) * 8, "concatenate(v-7, v-6, v-5, v-4, v-3, …)"),
    (lambda x: x.astype(jnp.float16), (X,), "float16(v0)"),
    (lambda x: lax.clamp(0.0, x, 1.0), (1.0,), "clamp(0, v0, 1)"),
    (lambda x, i: lax.scatter_add(x, i, 1.0, ADD), (X, np.zeros(1, int)), "scatter_add(v-1, v0, 1)"),
    (clipped, (1.0,), "clipped(v0)"),
    (reversed_gradient, (1.0,), "reversed_gradient(v0)"),
    (lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), (1.0,), "v0 > 0"),
    (lambda x: lax.scan(lambda c, t: (c * t, c), x, X), (1.0,), "scan(v0, c1; 3 steps)"),
    (lambda x: lax.iota("float32", 3) * x, (1.0,), "iota(3)"),
]


@pytest.mark.parametrize(("fun", "args", "wanted"), CASES, ids=[wanted for *_, wanted in CASES])
def test_an_equation_reads_like_mathematics(fun, args, wanted):
    assert trace(fun, *args)["v1"].formula.split(" = ", 1)[1] == wanted


def test_many_results_are_named_by_the_first_and_the_last():
    found = trace(lambda x: jnp.split(x, 8)[0], jnp.arange(8.0))
    assert found["v1"].formula == "v1, …, v8 = split(v0)"
    assert found["v5"] is found["v1"]


# ------------------------------------------------------------------------------------------ evaluated, they are the value


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T / 2) @ v


def pieces(x: Any) -> Any:
    return jnp.where(x > 0, jnp.clip(x, -0.5, 0.5), jnp.minimum(-x, 2.0)) + x[::-1][:1] - x.max()


def integers(n: Any) -> Any:
    return n % 3, n // 2, lax.rem(n, 3), lax.div(n, 2), (n & 6) | 1, ~n, -n * n, jnp.argmax(n)


DRAWN = jnp.sin(jnp.arange(12.0) ** 2).reshape(3, 4)

PROGRAMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "log_softmax": (jax.nn.log_softmax, (DRAWN,)),
    "layer norm": (layer_norm, (DRAWN,)),
    "attention": (attention, (DRAWN, DRAWN + 1, DRAWN * 2)),
    "gelu": (partial(jax.nn.gelu, approximate=False), (DRAWN,)),
    "pieces": (pieces, (DRAWN[0],)),
    "integers": (integers, (jnp.arange(-4, 4),)),
    "one_hot": (lambda n: jax.nn.one_hot(n, 3), (jnp.array([2, 0]),)),
    "powers": (lambda x: (-2.0) ** x + x**-2 - (-x) ** 3 + 1 / x, (jnp.array([2.0, 4.0]),)),
    "complex": (lambda z: jnp.real(z * 1j - z**2) + jnp.abs(z) / 3, (jnp.array([1 + 2j, -1j]),)),
    "random": (lambda x: x * jax.random.normal(jax.random.key(0), x.shape), (DRAWN,)),
    "logsumexp": (lambda x: jax.scipy.special.logsumexp(x, axis=1), (DRAWN,)),
    "spread": (lambda x: lax.broadcast_in_dim(x, (4, 4), (0,)) * x - jnp.ones((2, 4, 4)), (DRAWN[0],)),
    "joined": (lambda x: jnp.cumsum(jnp.concatenate([x, x * 2], axis=1).T.reshape(6, 4)[1:5, ::2], axis=1), (DRAWN,)),
}

WORDS: dict[str, Any] = {
    **{name: getattr(lax, name) for name in ("erf_inv", "erfc", "is_finite", "rem", "rsqrt", "stop_gradient")},
    **{
        name: getattr(jnp, name)
        for name in ("abs", "exp", "inf", "log", "nan", "real", "reshape", "sign", "sqrt", "sum")
    },
    "float32": partial(jnp.asarray, dtype="float32"),
    "argmax": jnp.argmax,
    "broadcast": lambda x, shape, axis=None: (
        lax.broadcast_in_dim(x, shape, axis) if axis else jnp.broadcast_to(x, shape)
    ),
    "concatenate": lambda *xs, axis=(0,): jnp.concatenate(xs, *axis),
    "cumsum": lambda x, axis=(0,): jnp.cumsum(x, *axis),
    "div": lax.div,
    "max": lambda x, *y, axis=None: jnp.maximum(x, *y) if y else jnp.max(x, axis),
    "min": lambda x, *y, axis=None: jnp.minimum(x, *y) if y else jnp.min(x, axis),
    "transpose": lambda x, *axes: jnp.transpose(x, axes),
    "where": jnp.where,
}
"""The calls that a formula tells whole; others, such as ``conv``, leave out parameters."""


def evaluated(text: str, known: dict[str, Any]) -> Any:
    """A formula as the Python that it nearly is."""
    text = re.sub(r"\b\d+(×\d+)+\b", lambda shape: f"({shape[0].replace('×', ', ')})", text)
    text = re.sub(r"axis (\d+(?:, \d+)*)", r"axis=(\1,)", text).replace("scalar", "()").replace("×", "*")
    text = re.sub(r"\b[vc]-?\d+\b", lambda name: f"known[{name[0]!r}]", text)
    return eval(text, {"known": known, **WORDS})


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_formula_evaluated_is_the_rows_value(name):
    fun, args = PROGRAMS[name]
    known: dict[str, Any] = {}
    seen = 0
    for row in trace(fun, *args).rows:
        known[row.name] = row.primal
        text = row.formula.split(" = ", 1)[1]
        call = re.match(r"(\w+)\(", text)
        if not re.fullmatch(r"v[1-9]\d*", row.name) or (call and call[1] not in WORDS) or ";" in text:
            continue
        got, want = np.asarray(evaluated(text, known)), np.asarray(row.primal)
        assert got.shape == want.shape, row.formula
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=row.formula)
        seen += 1
    assert seen >= 3
