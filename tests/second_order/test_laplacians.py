"""Laplacians: weights, what they cost against folx and the trace of `jax.hessian`, and what memory they need."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw

import jaxchain as jc
from jaxchain.cost.measure import compiled_of, flops

DATA = Path(__file__).parents[1] / "data" / "folx_laplacians.json"
FOLX = json.loads(DATA.read_text(encoding="utf-8"))["cases"]

spec = importlib.util.spec_from_file_location("folx_laplacians", DATA.with_suffix(".py"))
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

TOL = 1e-10


def trace(fun, argnum=0):
    """The trace of JAX's own Hessian."""

    def of(*args):
        size = args[argnum].size
        return jnp.trace(jax.hessian(fun, argnum)(*args).reshape(size, size))

    return of


@pytest.mark.parametrize("name", FOLX)
def test_the_value_is_folxs(x64, name):
    fun, args = script.CASES[name]()
    assert float(jax.jit(jc.laplacian(fun, 1))(*args)) == pytest.approx(FOLX[name]["laplacian"], rel=TOL)


CHEAPER = {"MLP 64, five layers": (1.0, 0.55), "MLP 64 with a waist of 4": (1 / 3, 0.1), "32 particles": (1.0, 0.03)}
"""The most that it may take: of folx's work, and of that of the trace of JAX's Hessian."""


@pytest.mark.parametrize("name", CHEAPER)
def test_a_laplacian_takes_less_work_than_folxs_and_jaxs(x64, name):
    fun, args = script.CASES[name]()
    of_folx, of_jax = CHEAPER[name]
    ours = flops(jc.laplacian(fun, 1), *args)
    assert ours <= of_folx * FOLX[name]["flops"]
    assert ours <= of_jax * flops(trace(fun, 1), *args)
    predicted = jc.laplacian(fun, 1).plan(*args).costs["stages"]
    assert ours == pytest.approx(predicted, rel=0.2)


def test_a_hessian_through_a_waist_takes_a_third_of_jaxs_work():
    fun, args = script.mlp(128, 64, 8, 64, 64, 64, 1)
    ours, jaxs = flops(lambda *args: jc.hessian(fun, args, argnum=1), *args), flops(jax.hessian(fun, 1), *args)
    assert 3 * ours <= jaxs
    assert_close(
        jax.jit(lambda *args: jc.hessian(fun, args, argnum=1))(*args), jax.jit(jax.hessian(fun, 1))(*args), 1e-4
    )


def attention(w, x):
    return jnp.sum(jax.nn.softmax((x @ w) @ (x @ w).T) @ x)


def gated(w, x):
    return jnp.sum(jax.lax.scan(lambda h, row: (jax.nn.sigmoid(w @ h) * jnp.tanh(w @ (h + row)),) * 2, x[0], x)[1])


def residual(w, x):
    for _ in range(3):
        x = x + jnp.tanh(x @ w) @ w
    return jnp.sum(x**2)


NETS = {
    "one layer": lambda w, x: jnp.sum(jnp.tanh(x @ w)),
    "attention": attention,
    "gates": gated,
    "residual blocks": residual,
    "an energy": lambda w, x: jnp.sum(jnp.exp(-jnp.sum((x[:, None] - x[None]) ** 2, -1) / 2)),
    "relus": lambda w, x: jnp.sum(jax.nn.relu(jax.nn.relu(x @ w) @ w)),
}


@pytest.mark.parametrize("name", NETS)
def test_auto_takes_no_more_work_than_jaxs_own_order(name):
    w, x = draw(jnp.zeros((6, 6)), 1) / 2, draw(jnp.zeros((5, 6)), 2)
    fun = NETS[name]
    jaxs = flops(jax.hessian(fun, 1), w, x)
    assert flops(lambda *args: jc.hessian(fun, args, argnum=1), w, x) <= 1.02 * jaxs
    assert flops(jc.laplacian(fun, 1), w, x) <= 1.02 * flops(trace(fun, 1), w, x)


def coupled(w, x):
    return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w) * x)


def trial(w, x):
    return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w)) - jnp.sum(x**2) / 2


def test_terms_of_a_sum_are_chains_of_their_own(x64):
    w, x = draw(jnp.zeros((16, 16)), 1) / 4, draw(jnp.zeros(16), 2)
    w, x = w.astype(float), x.astype(float)
    plan = jc.laplacian(trial, 1).plan(w, x)
    assert len(plan.terms) == 2
    assert all("diagonals alone" in row.step or "∂" in row.step for row in plan.rows)
    assert flops(jc.laplacian(trial, 1), w, x) <= 0.5 * flops(trace(trial, 1), w, x)
    assert flops(lambda *args: jc.hessian(trial, args, argnum=1), w, x) <= 0.8 * flops(jax.hessian(trial, 1), w, x)
    ways = jax.jit(lambda *args: (jc.laplacian(trial, 1)(*args), jc.hessian(trial, args, argnum=1)))
    assert_close(ways(w, x), jax.jit(lambda *args: (trace(trial, 1)(*args), jax.hessian(trial, 1)(*args)))(w, x), TOL)


def doubled(w, x):
    y = jnp.sum(x**3) + w * jnp.sum(x) ** 2
    for _ in range(40):
        y = y + y
    return y * 2.0**-40


SUMS = {
    "cubes and a square of the sum": lambda w, x: jnp.sum(x**3) + jnp.sum(x) ** 2,
    "tanh and a fourth power": lambda w, x: jnp.sum(jnp.tanh(x)) + jnp.sum(x**2) ** 2,
    "a factor of a sum": lambda w, x: 3.0 - w * (jnp.sum(jnp.tanh(x)) - jnp.sum(x**2) ** 2) / 3,
    "a mean, a number added to an array": lambda w, x: -jnp.mean(jnp.tanh(x) + w * jnp.sum(x**2) ** 2),
    "a sum within a sum": lambda w, x: (
        w * (jnp.sum(x) ** 2 + 2 * (jnp.sum(x**3) - jnp.mean(x**2) ** 2)) + jnp.sum(x**4)
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_terms_that_a_diagonal_and_a_few_columns_make_take_no_push_an_input(x64, name):
    fun, many = SUMS[name], jax.ShapeDtypeStruct((20_000,), float)
    w, x = jnp.asarray(0.7), draw(jnp.zeros(7), 1).astype(float)
    assert flops(jc.laplacian(fun, 1), w, many) < 40 * many.size
    assert jc.hessian_diagonal(fun, 1).plan(w, many).costs["stages"] < 60 * many.size
    ways = jax.jit(
        lambda w, x: (
            jc.laplacian(fun, 1)(w, x),
            jc.hessian_diagonal(fun, 1)(w, x),
            jc.hessian(fun, (w, x), argnum=1, mode="stages"),
        )
    )
    matrix = jax.jit(jax.hessian(fun, 1))(w, x)
    assert_close(ways(w, x), (jnp.trace(matrix), jnp.diagonal(matrix), matrix), TOL)


def test_a_sum_of_too_many_terms_is_left_as_it_is(x64):
    x = draw(jnp.zeros(7), 1).astype(float)
    assert not jc.laplacian(doubled, 1).plan(0.7, x).terms
    assert_close(jax.jit(jc.laplacian(doubled, 1))(0.7, x), jax.jit(trace(doubled, 1))(0.7, x), TOL)


def test_a_quotient_is_no_sum_of_its_divisors_terms(x64):
    fun = lambda x: 1 / (2 + jnp.sum(jnp.cos(x)) + jnp.sum(x) ** 2)  # noqa: E731
    x = draw(jnp.zeros(7), 1).astype(float)
    assert not jc.laplacian(fun).plan(x).terms
    assert_close(jax.jit(jc.laplacian(fun))(x), jax.jit(trace(fun))(x), TOL)


@pytest.mark.parametrize("fun", [residual, coupled])
def test_a_stage_that_is_no_chain_is_opened_for_about_half_of_jaxs_work(x64, fun):
    w, x = draw(jnp.zeros((16, 16)), 1) / 4, draw(jnp.zeros(16), 2)
    w, x = w.astype(float), x.astype(float)
    assert "its equations, each" in str(jc.laplacian(fun, 1).plan(w, x))
    assert flops(jc.laplacian(fun, 1), w, x) <= 0.6 * flops(trace(fun, 1), w, x)
    got = jax.jit(lambda *args: (jc.laplacian(fun, 1)(*args), jc.laplacian(fun, 1, chunk_size=3)(*args)))(w, x)
    want = jax.jit(trace(fun, 1))(w, x)
    assert_close(got, (want, want), TOL)


def test_weights_are_a_diagonal_a_matrix_or_two_factors_of_one(x64):
    fun, (weights, x) = script.particles(3, 2, 4, 1)
    rng = np.random.default_rng(0)
    matrix, (left, right) = rng.normal(size=(6, 6)), rng.normal(size=(2, 6, 2))
    given = {"diagonal": x**2, "matrix": matrix, "pair": (left, right), "twice": (left, left)}

    @jax.jit
    def run(weights, x):
        hessian = jax.hessian(fun, 1)(weights, x).reshape(6, 6)
        want = {
            "diagonal": jnp.diagonal(hessian) @ (x**2).ravel(),
            "matrix": jnp.trace(matrix @ hessian),
            "pair": jnp.trace(left @ right.T @ hessian),
            "twice": jnp.trace(left @ left.T @ hessian),
        }
        got = {name: jc.laplacian(fun, 1, weights=a)(weights, x) for name, a in given.items()}
        chunked = {name: jc.laplacian(fun, 1, weights=a, chunk_size=2)(weights, x) for name, a in given.items()}
        return got, chunked, want

    got, chunked, want = run(weights, x)
    assert_close(got, want, TOL)
    assert_close(chunked, want, TOL)


def test_two_thin_factors_take_as_many_columns(x64):
    fun, args = script.CASES["MLP 64, five layers"]()
    factor = np.random.default_rng(0).normal(size=(64, 4))
    assert flops(jc.laplacian(fun, 1, weights=(factor, factor)), *args) < flops(jc.laplacian(fun, 1), *args) / 8


def test_chunks_change_nothing(x64):
    fun, args = script.CASES["MLP 64 with a waist of 4"]()
    whole, chunked = jax.jit(
        lambda *args: (jc.hessian_diagonal(fun, 1)(*args), jc.hessian_diagonal(fun, 1, chunk_size=5)(*args))
    )(*args)
    assert_close(whole, chunked, TOL)


MANY = 10**5

WIDE = {
    "an MLP": lambda w, x: jnp.sum(jnp.tanh(jnp.tanh(x.reshape(100, 1000) @ w) @ w.T) ** 2),
    "a loss of all inputs": lambda w, x: jnp.sum(jnp.tanh(jnp.tanh(x) * jnp.roll(jnp.sin(x), 1)) ** 2),
}


@pytest.mark.parametrize("name", WIDE)
def test_a_hundred_thousand_inputs_need_less_than_a_gibibyte(name):
    shapes = jax.ShapeDtypeStruct((1000, 8), jnp.float32), jax.ShapeDtypeStruct((MANY,), jnp.float32)
    memory = compiled_of(jc.laplacian(WIDE[name], 1), *shapes)[1].memory_analysis()
    assert memory.temp_size_in_bytes < 2**30


def test_the_plan_tells_what_is_done_and_what_it_takes():
    fun, args = script.CASES["MLP 64 with a waist of 4"]()
    plan = jc.laplacian(fun, 1).plan(*args)
    assert plan.mode == "stages"
    assert "4 numbers" in plan.rows[-1].step
    assert sum(row.flops for row in plan.rows) <= plan.costs["stages"]
    assert "times less work than JAX's own order" in str(plan)
    shapes = jax.eval_shape(lambda: args)
    assert str(jc.laplacian(fun, 1).plan(*shapes)) == str(plan)
