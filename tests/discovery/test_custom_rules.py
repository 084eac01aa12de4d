"""A rule that came with a function, and its checkpoints, are what its chain is differentiated by."""

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_same_function, kept, plain, some
from conftest import assert_close
from jax import lax

import jaxchain as jc

X = some(4)
W = some(4, 4, seed=1)

# ------------------------------------------------------------------------------------------------------- custom rules


@jax.custom_vjp
def ticklish(x):
    return jnp.sin(x)


ticklish.defvjp(lambda x: (jnp.sin(x), None), lambda _, cotangent: (7 * cotangent,))


@jax.custom_jvp
def jumpy(x):
    return jnp.exp(x)


jumpy.defjvp(lambda primals, tangents: (jnp.exp(primals[0]), 5 * tangents[0]))


@pytest.mark.parametrize("granularity", ["finest", "default", "module"])
def test_a_custom_vjp_is_differentiated_by_its_rule_even_if_that_is_wrong(granularity):
    chain = jc.discover(lambda x: ticklish(2 * x), X, granularity=granularity)
    assert_close(jc.reverse_sweep(chain, (X,), X).arg_cotangents[0], 14 * X)


@pytest.mark.parametrize("granularity", ["finest", "default", "module"])
def test_a_custom_jvp_is_differentiated_by_its_rule_even_if_that_is_wrong(granularity):
    chain = jc.discover(lambda x: jumpy(2 * x), X, granularity=granularity)
    assert_close(jc.forward_sweep(chain, (X,), X).tangents[-1], 10 * X)
    assert_close(jc.reverse_sweep(chain, (X,), X).arg_cotangents[0], 10 * X)


def test_custom_rules_are_kept_inside_jit_checkpoint_scan_and_vmap():
    def fun(x):
        x = jax.jit(lambda x: ticklish(jumpy(x)))(x)
        x = jax.checkpoint(lambda x: ticklish(jumpy(x)))(x)
        x = lax.scan(lambda c, _: (ticklish(c), None), x, None, length=2)[0]
        return jax.vmap(ticklish)(x)

    chain = jc.discover(fun, X)
    assert_close(jc.reverse_sweep(chain, (X,), X).arg_cotangents[0], 7**5 * 5**2 * X)
    assert_same_function(chain, fun, (X,), forward=False)


def test_a_custom_rule_is_one_stage_named_after_its_function():
    def fun(x):
        return jumpy(ticklish(x))

    assert plain(jc.discover(fun, X, granularity="finest").names) == ("ticklish", "jumpy")


def test_a_custom_vjp_with_static_arguments_and_a_residual_of_parameters_keeps_its_rule():
    @jax.custom_vjp
    def scaled(w, x):
        return w * x

    scaled.defvjp(lambda w, x: (w * x, (w, x)), lambda kept, c: (11 * c * kept[1], 13 * c * kept[0]))
    chain = jc.discover(lambda w, x: jnp.tanh(scaled(w, x)), X, X)
    assert_same_function(chain, lambda w, x: jnp.tanh(scaled(w, x)), (X, X), forward=False)


def test_local_jacobians_of_a_custom_vjp_are_those_of_its_rule():
    (local,) = jc.local_jacobians(ticklish, (X,))
    assert_close(local.matrix, 7 * jnp.eye(4))


def test_a_solver_with_its_own_transpose_keeps_it():
    def fun(w, x):
        return lax.custom_linear_solve(
            lambda v: w @ v, jnp.sin(x), lambda _, b: jnp.linalg.solve(w, b), lambda _, b: jnp.linalg.solve(w.T, b)
        )

    w = W + 3 * jnp.eye(4)
    assert_same_function(jc.discover(fun, w, X), fun, (w, X), tol=1e-4)


# ------------------------------------------------------------------------------------------------------ checkpointing


def gated(x):
    return jnp.sin(jnp.cos(x) * jnp.tanh(x)) * x  # no cut inside


def test_what_was_rematerialised_stays_so_when_differentiated():
    chain, free = jc.discover(jax.checkpoint(gated), X), jc.discover(gated, X)
    assert len(chain) == len(free) == 1
    assert kept(chain, X) == kept(jax.checkpoint(gated), X) == X.size < kept(free, X)
    assert_same_function(chain, gated, (X,))


def test_each_stage_of_a_rematerialised_call_is_rematerialised():
    chain = jc.discover(jax.checkpoint(lambda x: gated(gated(x))), X)
    assert len(chain) == 2
    assert [kept(stage, X) for stage in chain] == [X.size] * 2
    assert_same_function(chain, lambda x: gated(gated(x)), (X,))


def test_the_policy_of_a_checkpoint_is_kept():
    def fun(w, x):
        return jnp.sin(w @ x) * x

    saved = jax.checkpoint(fun, policy=jax.checkpoint_policies.dots_saveable)
    for one in (saved, jax.checkpoint(fun)):
        assert kept(jc.discover(one, W, X), W, X) == kept(one, W, X)
    assert kept(jc.discover(saved, W, X), W, X) > kept(jc.discover(jax.checkpoint(fun), W, X), W, X)


def test_a_checkpoint_within_a_checkpoint_keeps_values_and_derivatives():
    def fun(x):
        return jax.checkpoint(lambda x: jnp.tanh(jax.checkpoint(gated)(x)))(x) * 2

    assert_same_function(jc.discover(fun, X), fun, (X,))


def test_a_checkpoint_with_parameters_and_a_skip_keeps_values_and_derivatives():
    def fun(w, x):
        skip = x
        x = jax.checkpoint(lambda w, x: jnp.tanh(w @ jnp.tanh(w @ x)))(w, x)
        return jax.checkpoint(lambda x, s: jnp.sin(x + s))(x, skip)

    assert_same_function(jc.discover(fun, W, X), fun, (W, X))
