"""A rule that came with a function, and its checkpoints, are what its chain is differentiated by."""

import functools

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same_function, kept, plain, some
from conftest import assert_close, draw
from jax import lax
from jax.experimental import sparse
from jax.experimental.ode import odeint

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


# ------------------------------------------------------------------------------------------- rules that others wrote


def held_in_a_loop(x):
    """A time that nothing may move, in the carry of a loop over the state (as solvers of differential equations have)."""

    def step(carry, _):
        y, t = carry
        return (jnp.sin(y) * eqxi.nondifferentiable(t), t + 1.0), None

    return lax.scan(step, (x, jnp.float32(1.0)), None, length=3)[0][0]


def held_by_a_branch(x):
    t, y = lax.cond(x[0] > 0, lambda x: (1.0, x), lambda x: (2.0, -x), x)
    return jnp.sin(y) * eqxi.nondifferentiable(t)


@eqx.filter_custom_jvp
def half_moving(x):
    return jnp.sin(x), jnp.cos(x)


@half_moving.def_jvp
def _(primals, tangents):
    return (jnp.sin(primals[0]), jnp.cos(primals[0])), (tangents[0] * jnp.cos(primals[0]), None)


def held_by_a_rule(x):
    moving, still = half_moving(jnp.sin(x))
    return jnp.tanh(moving) * eqxi.nondifferentiable(still)


@eqx.filter_custom_vjp
def only_back(x):
    return jnp.sin(x)


only_back.def_fwd(lambda perturbed, x: (jnp.sin(x), x))
only_back.def_bwd(lambda x, cotangent, perturbed, _: cotangent * jnp.cos(x))

RULES = {
    "held in a loop": held_in_a_loop,
    "held by a branch": held_by_a_branch,
    "held by a rule": held_by_a_rule,
    "only back": lambda x: jnp.cos(only_back(jnp.sin(x))),
    "checked": lambda x: jnp.cos(eqx.error_if(jnp.sin(x), jnp.any(x > 9), "too large")),
    "odeint": lambda x: odeint(lambda y, t: -(y**2), jnp.sin(x), np.array([0.0, 0.5]))[-1],
    "sparse": lambda x: jnp.tanh(sparse.BCOO((x, np.array([[0, 1], [1, 0], [2, 2], [2, 0]])), shape=(3, 3)) @ X[:3]),
    "branches on a constant": lambda x: jnp.sin(x) if np.array([1.0])[0] > 0 else x,
}
"""Each is differentiable by JAX, and refuses to be where JAX would not."""


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_holds_still_is_neither_pushed_nor_pulled(name):
    fun = RULES[name]
    with jax.disable_jit(False):
        want = jax.jit(jax.jacrev(fun))(X)
    out, pull = jax.vjp(fun, X)
    cotangent = draw(out, 3)
    assert_close(jc.reverse_sweep(fun, (X,), cotangent).cotangents[0], pull(cotangent)[0])
    product = functools.reduce(lambda j, link: link.matrix @ j, jc.local_jacobians(fun, (X,)), jnp.eye(4))
    assert_close(product, want)
    assert_close(jc.suffix_jacobians(fun, (X,))[0], want)
    for mode in ("auto", "mixed"):
        assert_close(jc.jacobian(fun, mode=mode)(X), want)
    trace = jc.trace(fun, X, cotangent=cotangent)
    assert_close(trace.rows[0].cotangent, pull(cotangent)[0])


@pytest.mark.parametrize("name", ["only back", "odeint"])
def test_where_there_is_no_forward_mode_the_stage_is_named(name):
    fun = RULES[name]
    for push in (lambda: jc.forward_sweep(fun, (X,), X), lambda: jc.prefix_jacobians(fun, (X,))):
        with pytest.raises(jc.ModeError, match=r"no forward mode for stage '.+': can't apply .*reverse_sweep"):
            push()
    with pytest.raises(jc.ModeError, match=r'no forward mode for .*: can\'t apply .* mode="auto"'):
        jc.jacobian(fun, mode="forward")(X)


def test_where_there_is_no_reverse_mode_the_stage_is_named():
    def fun(x):
        return jnp.cos(lax.while_loop(lambda c: c[0] > 2, lambda c: c / 2, jnp.exp(x)))

    for pull in (lambda: jc.reverse_sweep(fun, (X,), X), lambda: jc.suffix_jacobians(fun, (X,))):
        with pytest.raises(jc.ModeError, match=r"no reverse mode for stage 'while.*forward_sweep"):
            pull()


def test_a_derivative_that_a_rule_forbids_is_refused_in_words():
    def fun(x):
        return jnp.sin(eqxi.nondifferentiable(jnp.cos(x)))

    with pytest.raises(jc.ModeError, match=r"cannot be autodifferentiated"):
        jc.jacobian(fun)(X)
    with pytest.raises(jc.ModeError, match=r"no reverse mode for stage 'nondiff.*cannot be autodifferentiated"):
        jc.reverse_sweep(fun, (X,), X)


def test_a_rule_that_may_be_run_once_a_trace_has_the_function_traced_again():
    def fun(x):
        store = [1.0]

        @jax.custom_jvp
        def once(x):
            return jnp.sin(x)

        once.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), store.pop() * tangents[0] * jnp.cos(primals[0])))
        return jnp.cos(once(jnp.exp(x)))

    jac = jc.jacobian(fun)
    assert_close(jac(X), jax.jit(jax.jacrev(fun))(X))


def test_where_no_plan_can_be_made_the_decision_says_so():
    @jax.custom_jvp
    def choosy(x):
        return jnp.sin(x)

    def rule(primals, tangents):
        if primals[0].shape != X.shape or not isinstance(primals[0], jax.core.Tracer):
            msg = "only whole"
            raise LookupError(msg)
        return jnp.sin(primals[0]), tangents[0] * jnp.cos(primals[0])

    choosy.defjvp(rule)
    jac = jc.jacobian(lambda x: jnp.cos(choosy(jnp.exp(x))))
    assert_close(jac(X), jax.jit(jax.jacrev(lambda x: jnp.cos(jnp.sin(jnp.exp(x)))))(X))


def test_numbers_without_a_derivative_pass_a_rematerialised_call():
    @jax.checkpoint
    def mantissa(x):
        return jnp.sin(jnp.frexp(jnp.sin(x))[0])

    def fun(x):
        return mantissa(jnp.cos(x)) * 2

    x = jnp.array([0.3, 2.0])
    chain = jc.discover(fun, x)
    assert_close(chain(x), fun(x))
    assert_close(jc.reverse_sweep(chain, (x,), x).arg_cotangents, jax.vjp(fun, x)[1](x))
    assert_close(jax.jit(jc.jacobian(fun, mode="mixed"))(x), jax.jit(jax.jacrev(fun))(x))
