"""Where numbers are lost: the stage, the way, the equation and the step, in cases that are told by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxchain as jc
from jaxchain.program.births import trail

ONES = jnp.ones((2, 2))


def layer_norm(x):
    centred = x - jnp.mean(x)
    return centred / jnp.sqrt(jnp.mean(centred**2))


def attention(mask):
    return lambda x: jax.nn.softmax(jnp.where(mask, x @ x.T, -jnp.inf)) @ x


def layers(weights, x):
    return lax.scan(lambda h, w: (h @ w, h.sum()), x, weights)[0]


def overflowing(steps):
    """Weights that multiply by 1e20 in step 7, and in step 8, where float32 ends."""
    return jnp.broadcast_to(jnp.eye(2), (steps, 2, 2)).at[7:9].multiply(1e20)


def counted(update):
    return lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, update(*c)), (0, x))[1]


def normalised(params, x):
    return jnp.tanh(params["v"] / jnp.linalg.norm(params["v"]) @ x)


CASES = {
    "a quotient in the branch of a where that is not chosen": (
        lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / x),
        (0.0,),
        ("select", "cotangent", "makes NaN of it", "jnp.where before"),
    ),
    "a root at 0": (
        lambda x: jnp.sum(jnp.sqrt(x)),
        (jnp.array([1.0, 0.0]),),
        ("sqrt", "cotangent", "div at test_nonfinite.py", "infinite here"),
    ),
    "a logarithm at 0": (
        lambda x: jnp.sum(jnp.log(x) * 2),
        (jnp.array([1.0, 0.0]),),
        ("mul", "state", "log at test_nonfinite.py", "zero or less"),
    ),
    "an exponential beyond bfloat16": (
        lambda x: jnp.sin(jnp.exp(x)),
        (jnp.array([1.0, 200.0], jnp.bfloat16),),
        ("exp", "state", "exp at test_nonfinite.py", "compute it in float32"),
    ),
    "an exponential that is then divided by": (
        jax.jit(lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x))),
        (jnp.array([1.0, 100.0]),),
        ("", "state", "exp at test_nonfinite.py", "subtract the largest"),
    ),
    "a norm at 0": (jnp.linalg.norm, (jnp.zeros(3),), ("norm", "cotangent", "makes NaN of it", "infinite here")),
    "the norm of zeros in a layer": (
        layer_norm,
        (jnp.zeros(3),),
        ("div", "state", "div at test_nonfinite.py", "divides by zero"),
    ),
    "a row that is masked everywhere": (
        attention(jnp.array([[True, True], [False, False]])),
        (ONES,),
        ("dot", "state", "sub at test_nonfinite.py", "(softmax)"),
    ),
    "a step of a loop, itself a stage": (
        layers,
        (overflowing(12), jnp.ones(2)),
        ("step_8", "state", "in step 8 of a loop", "A product of matrices"),
    ),
    "a step of a loop that is one stage": (
        layers,
        (overflowing(99), jnp.ones(2)),
        ("scan", "state", "in step 8 of a loop", "A product of matrices"),
    ),
    "a step of a loop that runs backwards": (
        lambda ws, x: jnp.sin(lax.scan(lambda h, w: (h @ w, h.sum()), x, ws, reverse=True)[0]) + x,
        (overflowing(99), jnp.ones(2)),
        ("", "state", "in step 7 of a loop", "A product of matrices"),
    ),
    "a number that a loop carries two steps before it is taken from itself": (
        lambda x: lax.scan(lambda c, _: ((c[0] * 1e30, c[0] - 2 * c[0]), None), (x, x), None, 99)[0][1] + x,
        (2.0,),
        ("", "state", "mul at test_nonfinite.py", "in step 1 of a loop; sub then makes NaN of it"),
    ),
    "a step of a while loop": (
        counted(lambda k, x: x / (5.0 - k)),
        (jnp.ones(2),),
        ("while", "state", "div at test_nonfinite.py", "in step 5 of a loop"),
    ),
    "the branch that is taken": (
        lambda x: 2 * lax.cond(x.sum() > 0, lambda x: jnp.log(x - 1), jnp.sin, x),
        (jnp.ones(2),),
        ("", "state", "log at test_nonfinite.py", "zero or less"),
    ),
    "a product beside a random key": (
        lambda key, x: jax.random.normal(key, (2,), x.dtype) * x * x,
        (jax.random.key(0), jnp.full(2, 1e38, jnp.bfloat16)),
        ("", "state", "mul at test_nonfinite.py", "in bfloat16"),
    ),
    "what a parameter is made of": (
        normalised,
        ({"v": jnp.zeros((2, 2))}, jnp.ones(2)),
        ("dot", "state", "div at test_nonfinite.py", "divides by zero"),
    ),
    "the gradient of what a parameter is made of": (
        lambda params, x: jnp.tanh(jnp.sqrt(params["v"]) @ x),
        ({"v": jnp.zeros((2, 2))}, jnp.ones(2)),
        ("dot", "argument cotangent", "div at test_nonfinite.py", "infinite here"),
    ),
    "the gradient of a parameter in its stage": (
        jc.Chain([jc.Stage("root", lambda p, x: x * jnp.sqrt(p), init=lambda _: jnp.zeros(2))]),
        ({"root": jnp.zeros(2)}, jnp.ones(2)),
        ("root", "argument cotangent", "div at test_nonfinite.py", "infinite here"),
    ),
    "the data": (jnp.sin, (jnp.array([1.0, jnp.nan]),), ("input", "state", "argument 0, entry [1]", "data")),
    "a parameter": (
        lambda params, x: jnp.tanh(params["w"] @ x),
        ({"w": ONES.at[1, 0].set(jnp.nan)}, jnp.ones(2)),
        ("dot", "state", "argument 0['w'], entry [1, 0]", "parameters"),
    ),
    "infinities that nothing takes out": (
        lambda x: jnp.where(x > 0, x, -jnp.inf) * 2,
        (jnp.array([1.0, -1.0]),),
        ("mul", "state", "", "written there"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_that_is_not_finite_is_named_with_its_equation(case):
    fun, args, (stage, kind, where, advice) = CASES[case]
    found = jc.locate_nonfinite(fun, args)
    assert (found.kind, found.finite) == (kind, False), found
    assert found.stage.startswith(stage)
    assert where in found.where
    assert advice in found.advice + found.where
    assert found.value
    # What JAX itself says: not finite forward, or else on the way back.
    out, pull = jax.vjp(fun, *args) if "while" not in case else (fun(*args), None)
    ahead = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    assert ahead == (kind != "state")
    if ahead:
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pull(jnp.ones_like(out))))


@pytest.mark.parametrize(
    "fun", [jnp.sin, attention(jnp.array([[True, True], [False, True]])), lambda x: jnp.where(x > 9, 1 / (x - 1), x)]
)
def test_what_is_finite_in_the_end_is_not_found(fun):
    found = jc.locate_nonfinite(fun, (ONES,))
    if "<lambda>" in repr(fun) and fun(ONES).shape == (2, 2) and fun is not jnp.sin and not found.finite:
        out, pull = jax.vjp(fun, ONES)  # the derivative of what is not chosen
        assert not np.isfinite(pull(jnp.ones_like(out))[0]).all()
    else:
        assert found.finite
        assert (found.stage, found.kind, found.where) == (None, None, "")
        assert "All states and derivatives are finite" in str(found)


def test_infinities_that_do_no_harm_are_told_in_a_note():
    found = jc.locate_nonfinite(lambda x: jnp.exp(jnp.where(x > 0, x, -jnp.inf) * 2), (jnp.array([1.0, -1.0]),))
    assert found.finite
    assert "lost again: mul" in found.notes[0]


def test_a_cotangent_that_is_given_is_looked_at():
    found = jc.locate_nonfinite(jnp.sin, (jnp.ones(2),), cotangent=jnp.array([1.0, jnp.inf]))
    assert (found.kind, found.where) == ("cotangent", "the cotangent that was given")
    chosen = jc.locate_nonfinite(jnp.sqrt, (jnp.array([0.0, 1.0]),), cotangent=jnp.array([0.0, 1.0]))
    assert chosen.value == "1 of 2 entries are NaN"  # 0 · ∞


def test_it_is_found_where_jax_would_stop_at_the_first():
    with jax.debug_nans(True), jax.debug_infs(True):
        found = jc.locate_nonfinite(jnp.log, (0.0,))
    assert found.where.startswith("log")


def test_it_shows_itself_in_all_ways():
    found = jc.locate_nonfinite(jnp.log, (0.0,))
    assert "the state of log" in repr(found)
    assert "the state of log" in str(found)
    assert "the state of log" in found._repr_html_()
    assert "logarithm of zero" in str(found)


def test_a_loop_of_calls_is_looked_into():
    step = jax.jit(lambda c: jnp.sqrt(c - 1.0))
    closed = jax.make_jaxpr(lambda x: lax.fori_loop(0, 6, lambda _, c: step(c), x))(2.5)
    birth = trail(closed, [jnp.float32(2.5)], 0).birth
    assert (birth.name, birth.steps, birth.nan) == ("sqrt", (2,), True)  # 2.5, 1.22, 0.47, √(-0.53)


# ----------------------------------------------------------------------------------------------------------- training


def rooted(params, batch):
    return jnp.mean((jnp.sqrt(jnp.abs(params)) * batch[0] - batch[1]) ** 2)


def test_a_run_that_diverges_says_the_step_and_the_stage():
    data = (jnp.ones((4, 2)), jnp.ones((4, 2)))
    with pytest.warns(RuntimeWarning, match="First not finite, at step 0: the cotangent of a parameter in "):
        found = jc.train.fit(rooted, jnp.array([1.0, 0.0]), data, optax.sgd(0.1), steps=5, progress=False)
    step, located = found.first_nonfinite
    assert (found.diverged_at, step, located.kind) == (1, 0, "argument cotangent")
    assert "First not finite, at step 0" in str(found)


def test_the_flow_that_is_observed_says_so_too():
    def loss(params, batch):
        return jnp.mean(jnp.exp(batch @ params) ** 2)

    params, data = jnp.ones(2), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    uphill = optax.sgd(-1.0)
    with pytest.warns(RuntimeWarning, match="at step 2: the state of"):
        found = jc.train.fit(loss, params, data, uphill, steps=9, observe=jc.flow(), progress=False)
    step, stage = found.history.first_nonfinite
    assert (step, found.first_nonfinite[0], found.diverged_at) == (2, 2, 2)
    assert stage == found.first_nonfinite[1].stage
    assert stage.startswith("exp")


def test_a_run_that_goes_well_says_nothing():
    data = (jnp.ones((4, 2)), jnp.ones((4, 2)))
    found = jc.train.fit(rooted, jnp.ones(2), data, optax.sgd(0.1), steps=2, observe=jc.flow(), progress=False)
    assert found.first_nonfinite is found.history.first_nonfinite is None
