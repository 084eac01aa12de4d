"""What each stage adds to a Hessian: the terms of the sum, their signs, and a table of the ways to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, named, some_params
from matplotlib.axes import Axes

import jaxchain as jc

X = jnp.array([0.3, -0.8, 1.1])


def with_loss():
    net = jc.nets.mlp([3, 4, 4, 2], "tanh", sigma_b=0.1)
    chain = jc.Chain([*net, jc.Stage("loss", lambda y: jnp.sum(y**2))])
    return chain, (some_params(chain), X)


def test_the_terms_of_all_stages_are_the_hessian():
    chain, args = with_loss()
    found = jc.curvature(chain, *args)
    want = np.asarray(jax.jit(jax.hessian(chain, 1))(*args), np.float64)
    assert [row.name for row in found.rows] == list(chain.names)
    assert found.whole.norm == pytest.approx(np.linalg.norm(want), rel=1e-5)
    assert found.whole.trace == pytest.approx(np.trace(want), rel=1e-5)
    assert sum(row.trace for row in found.rows) == pytest.approx(found.whole.trace, rel=1e-5)
    np.testing.assert_allclose(found.whole.eigenvalues, np.linalg.eigvalsh(want), rtol=1e-5, atol=1e-5)


def test_a_stages_term_is_what_is_left_where_all_others_are_replaced_by_their_tangents():
    chain, args = with_loss()
    states = jc.forward_sweep(chain, args, jnp.zeros(3)).primals
    _, sides = chain.split(*args)

    def straight(number):
        def fn(*given):
            state, side = given[-1], given[:-1]
            at = states[number]
            return jax.jvp(lambda s: chain[number](*side, s), (at,), (state - at,))[1] + chain[number](*side, at)

        return fn

    bent = 3

    def fun(x):
        for number, (stage, side) in enumerate(zip(chain, sides, strict=True)):
            x = stage(*side, x) if number == bent else straight(number)(*side, x)
        return x

    want = np.asarray(jax.jit(jax.hessian(fun))(X))
    row = jc.curvature(chain, *args).rows[bent]
    assert row.norm == pytest.approx(float(np.linalg.norm(want)), rel=1e-4)
    np.testing.assert_allclose(row.eigenvalues, np.linalg.eigvalsh(want), rtol=1e-4, atol=1e-5)


def test_signs_are_those_of_the_second_derivatives():
    found = jc.curvature(lambda x: jnp.log(jnp.sum(jnp.exp(2 * x))), X)
    assert [row.sign for row in found.rows] == ["+", "0", "−"]
    assert found.whole.sign == "+"
    (saddle,) = jc.curvature(lambda x: x[0] * x[1], X).rows[-1:]
    assert saddle.sign == "±"
    assert saddle.positive == pytest.approx(1)
    assert saddle.negative == pytest.approx(-1)


@pytest.mark.parametrize("name", ["pytree", "integer inside", "cond and loop"])
def test_states_of_any_kind_have_terms(name):
    case = named(name)
    chain = jc.Chain([*case.chain, jc.Stage("sum", lambda s: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(s)))])
    found = jc.curvature(chain, *case.args)
    assert sum(row.trace for row in found.rows) == pytest.approx(found.whole.trace, rel=1e-4)
    assert found.whole.trace == pytest.approx(float(jax.jit(jc.laplacian(chain))(*case.args)), rel=1e-4)


def test_above_a_thousand_inputs_there_are_traces_alone():
    found = jc.curvature(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(1025))
    assert found.rows[0].eigenvalues is None
    assert found.whole.trace == pytest.approx(-1025 * np.sin(1), rel=1e-4)
    assert "sin" in str(found)


@pytest.mark.parametrize(
    ("fun", "error", "words"),
    [
        (jnp.sin, ValueError, "return one number"),
        (lambda x: jnp.sum(jax.pure_callback(np.sin, x, 2 * x)), jc.ModeError, "stage 'pure_callback"),
        (lambda x: jnp.sum(x) * 1j, jc.ModeError, "returns complex"),
    ],
)
def test_what_has_no_curvature_is_refused_in_words(fun, error, words):
    with pytest.raises(error, match=words):
        jc.curvature(fun, X)


@pytest.mark.parametrize(
    "call",
    [
        lambda fun, args: jc.curvature(fun, args),
        lambda fun, args: jc.laplacian(fun)(args),
        lambda fun, args: jc.hessian_diagonal(fun).plan(args),
        lambda fun, args: jc.compare_modes(fun, args, of="hessian"),
        lambda fun, args: jc.compare_modes(fun, args),
    ],
    ids=["curvature", "laplacian", "plan", "hessians", "jacobians"],
)
def test_a_tuple_of_arguments_in_place_of_them_is_refused_in_words(call):
    for fun, args in (
        (lambda x: jnp.sum(jnp.sin(x)), (X,)),
        (lambda w, x: w @ x, (X, X)),
        (jc.Chain([jc.Stage("sum", jnp.sum)]), (X,)),
    ):
        with pytest.raises(TypeError, match=r"arguments one after another.*\*args in place of args"):
            call(fun, args)


def test_a_function_of_a_tuple_fails_in_its_own_words():
    def fails(pair):
        msg = "my own"
        raise TypeError(msg)

    with pytest.raises(TypeError, match="my own"):
        jc.curvature(fails, (X, X))
    assert jc.curvature(lambda pair: pair[0] @ pair[1], (X, X)).whole.sign == "±"


def test_shapes_have_no_curvature_to_look_at():
    with pytest.raises(TypeError, match="curvature shows numbers"):
        jc.curvature(jnp.sum, jax.ShapeDtypeStruct((3,), jnp.float32))


def test_a_picture_has_a_bar_up_and_one_down_for_every_stage():
    chain, args = with_loss()
    found = jc.curvature(chain, *args)
    ax = jc.plot.curvature(found, title="curvature")
    assert isinstance(ax, Axes)
    assert [label.get_text() for label in ax.get_xticklabels()] == [*chain.names, "together"]
    heights = [patch.get_height() for patch in ax.patches[: 2 * len(found.rows)]]
    assert heights[::2] == pytest.approx([row.positive for row in found.rows])
    assert heights[1::2] == pytest.approx([row.negative for row in found.rows])


# --------------------------------------------------------------------------------------------------- compare_modes


def test_the_ways_to_compute_a_hessian_are_compared_and_agree():
    chain, args = with_loss()
    found = jc.compare_modes(chain, *args, of="hessian", repeats=1)
    assert {"forward-over-reverse", "reverse-over-forward", "stages", "auto"} <= {row.mode for row in found.rows}
    assert all(row.max_error < 1e-4 for row in found.rows)
    assert found["auto"].flops <= 1.02 * found["forward-over-reverse"].flops
    assert str(found).startswith("Hessian by the chain input, argument 1, in every mode")
    with pytest.raises(ValueError, match="Known: jacobian, hessian"):
        jc.compare_modes(chain, *args, of="hesse")


def test_ways_that_do_not_exist_have_no_row_and_a_note():
    fun = lambda x: jnp.sum(jax.lax.while_loop(lambda v: jnp.sum(v * v) > 1, lambda v: v / 2, x) ** 2)  # noqa: E731
    found = jc.compare_modes(fun, X, of="hessian", repeats=1)
    assert [row.mode for row in found.rows] == ["forward-over-forward", "auto"]
    assert "forward-over-reverse mode does not exist here" in str(found)


def ruled(rule):
    """x ↦ x², whose derivative somebody wrote."""
    square = jax.custom_vjp(lambda x: x**2)
    square.defvjp(lambda x: (x**2, x), lambda x, g: (rule(x) * g,))
    return lambda x: jnp.sum(jnp.sin(square(x)))


@pytest.mark.parametrize("rule", [lambda x: 2 * x, lambda x: 3 * x], ids=["its derivative", "no derivative of it"])
def test_ways_through_a_rule_that_somebody_wrote_are_compared(rule):
    fun = ruled(rule)
    found = jc.compare_modes(fun, X, of="hessian", repeats=1)
    assert {"forward-over-reverse", "reverse-over-reverse", "stages", "auto"} <= {row.mode for row in found.rows}
    assert "reverse-over-forward mode does not exist here" in str(found)
    assert found["auto"].max_error == 0
    want = [jax.jit(order(jax.grad(fun)))(X) for order in (jax.jacfwd, jax.jacrev)]
    assert found["reverse-over-reverse"].max_error == pytest.approx(float(jnp.abs(want[0] - want[1]).max()), abs=1e-5)
    plan = jc.hessian_diagonal(fun).plan(X)
    assert plan.mode == "forward-over-reverse"
    assert 'mode="stages" takes the rule at its word' in plan.why
    assert_close(jc.hessian(fun, (X,)), want[0])
