"""Loops are chains along their carry: one stage a step."""

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_same_function, kept, plain, some
from conftest import assert_close, real_function
from jax import lax

import jaxchain as jc

STEPS = 5
X = some(3)
W = some(STEPS, 3, seed=1)


def steps(count, start=0):
    return tuple(f"step_{k}" for k in range(start, start + count))


def scaled(c, w):
    return jnp.tanh(c * w), None


def test_a_scan_over_its_carry_is_one_stage_a_step():
    chain = jc.discover(lambda ws, x: lax.scan(scaled, x, ws)[0], W, X)
    assert chain.names == steps(STEPS)
    assert_same_function(chain, lambda ws, x: lax.scan(scaled, x, ws)[0], (W, X))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_reads_its_own_slice_of_the_scanned_arrays(reverse):
    chain = jc.discover(lambda ws, x: lax.scan(scaled, x, ws, reverse=reverse)[0], W, X)
    state, sides = chain.split(W, X)
    order = range(STEPS)[::-1] if reverse else range(STEPS)
    for stage, side, k in zip(chain, sides, order, strict=True):
        assert_close(side, (W[k],))
        want = jnp.tanh(state * W[k])
        state = stage(*side, state)
        assert_close(state, want)


def test_a_reverse_scan_is_a_chain_from_the_last_slice_to_the_first():
    def fun(ws, x):
        return lax.scan(scaled, x, ws, reverse=True)[0]

    chain = jc.discover(fun, W, X)
    assert chain.names == steps(STEPS)
    assert_same_function(chain, fun, (W, X))


def test_layers_stacked_by_scan_get_the_cotangent_of_the_stack():
    def fun(stack, x):
        return lax.scan(lambda c, p: (jnp.tanh(p["w"] @ c + p["b"]), None), x, stack)[0]

    args = {"w": some(4, 3, 3), "b": some(4, 3, seed=1)}, X
    chain = jc.discover(fun, *args)
    assert chain.names == steps(4)
    sweep = jc.reverse_sweep(chain, args, jnp.ones(3))
    assert_close(sweep.arg_cotangents, jax.vjp(fun, *args)[1](jnp.ones(3)))


def test_a_carry_that_is_a_pytree_is_one_state():
    def cell(carry, x):
        h, c = carry["h"], carry["c"]
        c = jax.nn.sigmoid(h + x) * c + jnp.tanh(h - x)
        return {"h": jnp.tanh(c) * h, "c": c}, None

    def fun(xs, state):
        return lax.scan(cell, state, xs)[0]

    args = W, {"h": X, "c": some(3, seed=2)}
    chain = jc.discover(fun, *args)
    assert chain.names == steps(STEPS)
    sweep = jc.forward_sweep(chain, args, args[1])
    assert [len(jax.tree.leaves(state)) for state in sweep.primals] == [2] * (STEPS + 1)
    assert jax.tree.structure(sweep.primals[-1]) == jax.tree.structure(args[1])
    assert_same_function(chain, fun, args)


def test_the_local_jacobian_of_every_step_is_that_of_the_body():
    a, b = some(3, 3, seed=4), some(2, 3, seed=5)

    def body(carry):
        h, c = carry
        c = a @ c + b.T @ h  # made first, but second in the carry
        return b @ c, c

    def fun(carry):
        return lax.fori_loop(0, 3, lambda _, carry: body(carry), carry)

    carry = (some(2), X)
    flat, x = real_function(body, carry)
    want = jax.jit(jax.jacfwd(flat))(x)
    for local in jc.local_jacobians(fun, (carry,)):
        assert_close(local.matrix, want)


def two_terms(pair):
    """x_{k+1} = sin(x_k) x_{k-1}: a step hands part of its input on as it is."""
    return lax.scan(lambda c, _: ((jnp.sin(c[0]) * c[1], c[0]), None), pair, None, length=4)[0]


@pytest.mark.parametrize(
    "fun",
    [two_terms, lambda pair: two_terms((pair[0], 2 * pair[0])), lambda pair: jax.checkpoint(two_terms)(pair)],
    ids=["the input", "part of the input", "checkpointed"],
)
def test_a_recurrence_of_two_terms_is_one_stage_a_step(fun):
    args = ((X, some(3, seed=2)),)
    chain = jc.discover(fun, *args)
    assert len(chain) == 4
    assert_same_function(chain, fun, args)


def test_a_counter_in_the_carry_is_a_side_value():
    def fun(x):
        return lax.scan(lambda c, _: ((c[0] + 1, jnp.sin(c[1]) * c[0]), None), (1, x), None, length=4)[0][1]

    chain = jc.discover(fun, X)
    assert chain.names == steps(4)
    assert all(state.shape == (3,) for state in jc.forward_sweep(chain, (X,), X).primals)
    assert_same_function(chain, fun, (X,))


def test_a_counter_that_is_a_result_too_is_one_of_the_last_stages_outputs():
    def fun(x):
        return lax.scan(lambda c, _: ((c[0] + 1, jnp.sin(c[1]) * c[0]), None), (1, x), None, length=4)[0]

    chain = jc.discover(fun, X)
    assert chain.names == steps(4)
    assert_close(chain(X), fun(X))
    assert int(chain(X)[0]) == 5


def test_a_static_fori_loop_is_one_stage_a_step():
    def fun(w, x):
        return lax.fori_loop(2, 6, lambda i, c: jnp.sin(w * c) + i, x)

    chain = jc.discover(fun, X, X)
    assert chain.names == steps(4)
    assert_same_function(chain, fun, (X, X))


def test_a_fori_loop_that_reads_rows_by_its_index_is_one_stage_a_step():
    def fun(ws, x):
        return lax.fori_loop(0, STEPS, lambda i, c: jnp.tanh(c * ws[i]), x)

    chain = jc.discover(fun, W, X)
    assert chain.names == steps(STEPS)
    assert_same_function(chain, fun, (W, X))


def test_a_loop_with_a_trip_count_known_only_at_run_time_is_one_stage():
    def fun(n, x):
        return jnp.cos(lax.fori_loop(0, n, lambda _, c: jnp.sin(c), jnp.exp(x)))

    chain = jc.discover(fun, 3, X)
    assert plain(chain.names) == ("exp", "while", "cos")
    assert_close(chain(4, X), fun(4, X))


def test_a_while_loop_and_a_cond_are_one_stage_each():
    def fun(x):
        x = lax.while_loop(lambda c: jnp.sum(c) > 0.1, lambda c: jnp.sin(c) / 2, jnp.exp(x))
        return lax.cond(True, jnp.sin, jnp.cos, x) * 2

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("exp", "while", "cond")  # the doubling joins what it doubles
    finest = jc.discover(fun, X, granularity="finest")
    assert plain(finest.names) == ("exp", "while", "cond", "mul")
    assert_close(chain(X), fun(X))
    assert_close(jc.forward_sweep(chain, (X,), X).tangents[-1], jax.jvp(fun, (X,), (X,))[1])


def test_a_cond_whose_predicate_depends_on_the_state_is_part_of_one_stage():
    def fun(x):
        return lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, jnp.exp(x))

    chain = jc.discover(fun, X)
    assert len(chain) == 1
    assert_same_function(chain, fun, (X,))


def test_a_scan_whose_outputs_are_used_stays_one_stage():
    def fun(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), c), jnp.cos(x), None, length=4)[1])

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("cos", "scan", "reduce_sum")
    assert_same_function(chain, fun, (X,))


def test_a_scan_whose_outputs_are_dropped_is_one_stage_a_step():
    chain = jc.discover(lambda x: lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=4)[0], X)
    assert chain.names == steps(4)


def test_a_scan_over_the_chain_value_itself_stays_one_stage():
    def fun(x):
        return lax.scan(lambda c, y: (jnp.sin(c * y), None), 1.0, jnp.cos(x))[0]

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("cos", "scan")
    assert_same_function(chain, fun, (X,))


def test_a_scan_that_reads_the_chain_value_at_every_step_stays_one_stage():
    def fun(x):
        return lax.scan(lambda c, _: (jnp.sin(c * x), None), jnp.ones(3), None, length=3)[0]

    chain = jc.discover(fun, X)
    assert len(chain) == 1
    assert_same_function(chain, fun, (X,))


def test_a_map_over_the_chain_value_is_one_stage():
    def fun(x):
        return jnp.cos(lax.map(jnp.sin, x))

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("scan", "cos")
    assert_same_function(chain, fun, (X,))


def test_a_loop_over_the_unroll_limit_stays_one_stage_and_says_so():
    def fun(x):
        return lax.fori_loop(0, 10, lambda _, c: jnp.sin(c), x)

    chain = jc.discover(fun, X, unroll_limit=9)
    assert plain(chain.names) == ("scan",)
    said = " ".join(str(chain).split())
    assert f"{chain.names[0]} is one stage: a loop of 10 steps, more than unroll_limit=9" in said
    assert_same_function(chain, fun, (X,))


def test_a_loop_at_the_unroll_limit_is_one_stage_a_step():
    chain = jc.discover(lambda x: lax.fori_loop(0, 10, lambda _, c: jnp.sin(c), x), X, unroll_limit=10)
    assert chain.names == steps(10)
    assert "unroll_limit" not in str(chain)


def test_an_unroll_limit_of_zero_unrolls_nothing():
    chain = jc.discover(lambda x: lax.fori_loop(0, 1, lambda _, c: jnp.sin(c), x), X, unroll_limit=0)
    assert plain(chain.names) == ("scan",)


def test_the_default_unroll_limit_leaves_a_thousand_steps_one_stage():
    def fun(x):
        return lax.fori_loop(0, 1000, lambda _, c: jnp.sin(c), x)

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("scan",)
    assert_same_function(chain, fun, (X,))


def test_a_scan_of_one_step_is_one_stage():
    chain = jc.discover(lambda x: jnp.cos(lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=1)[0]), X)
    assert plain(chain.names) == ("step_0", "cos")


def test_a_scan_of_no_steps_is_the_identity():
    def fun(x):
        return jnp.cos(lax.scan(lambda c, w: (jnp.sin(c * w), None), x, jnp.zeros((0, 3)))[0])

    chain = jc.discover(fun, X)
    assert_close(chain(X), jnp.cos(X))
    assert_same_function(chain, fun, (X,))


def test_a_body_that_returns_its_carry_adds_no_stage():
    chain = jc.discover(lambda x: jnp.sin(lax.scan(lambda c, _: (c, None), x, None, length=3)[0]), X)
    assert plain(chain.names) == ("sin",)
    assert_close(chain(X), jnp.sin(X))


def test_a_body_that_ignores_its_carry_cuts_the_input_off():
    def fun(x):
        return lax.scan(lambda _, w: (jnp.sin(w), None), x, W)[0]

    with pytest.warns(UserWarning, match="does not depend on the chain input"):
        chain = jc.discover(fun, X)
    assert_close(chain(X), fun(X))


def test_a_body_that_swaps_its_carry_keeps_both_parts():
    def fun(pair):
        return lax.scan(lambda c, w: ((c[1] * w, jnp.sin(c[0])), None), pair, W)[0]

    args = ((X, some(3, seed=2)),)
    chain = jc.discover(fun, *args)
    assert len(chain) == STEPS
    assert_same_function(chain, fun, args)


def test_a_carry_part_that_never_meets_the_input_is_a_side_value():
    def fun(x):
        return lax.scan(lambda c, _: ((c[0] * 2, jnp.sin(c[1] + c[0])), None), (jnp.ones(3), x), None, length=3)[0][1]

    chain = jc.discover(fun, X)
    assert chain.names == steps(3)
    assert all(len(jax.tree.leaves(state)) == 1 for state in jc.forward_sweep(chain, (X,), X).primals)
    assert_same_function(chain, fun, (X,))


def test_a_carry_part_that_meets_the_input_on_the_way_joins_the_state():
    def fun(x):
        return lax.scan(lambda c, _: ((jnp.sin(c[0]), c[0] + c[1]), None), (x, jnp.zeros(3)), None, length=3)[0]

    chain = jc.discover(fun, X)
    assert chain.names == steps(3)
    sizes = [len(jax.tree.leaves(state)) for state in jc.forward_sweep(chain, (X,), X).primals]
    assert sizes == [1, 2, 2, 2]
    assert_same_function(chain, fun, (X,))


def test_steps_lie_in_the_named_scope_around_their_loop():
    def fun(x):
        with jax.named_scope("flow"):
            x = lax.fori_loop(0, 2, lambda _, c: jnp.sin(c) * c, x)
        with jax.named_scope("head"):
            return jnp.sum(x)

    assert jc.discover(fun, X).names == ("flow/step_0", "flow/step_1", "head")


def test_finest_cuts_inside_the_steps():
    def fun(x):
        return lax.fori_loop(0, 2, lambda _, c: jnp.cos(jnp.sin(c)), x)

    chain = jc.discover(fun, X, granularity="finest")
    assert plain(chain.names) == ("step_0/sin", "step_0/cos", "step_1/sin", "step_1/cos")


def nested(x):
    def outer(c, _):
        return lax.fori_loop(0, 2, lambda _, d: jnp.sin(d) + 1.0, c), None

    return lax.scan(outer, x, None, length=3)[0]


def test_a_loop_in_a_loop_keeps_values_and_derivatives():
    assert_same_function(jc.discover(nested, X), nested, (X,))


def test_a_loop_in_a_loop_is_one_stage_an_outer_step():
    assert len(jc.discover(nested, X)) == 3


def test_finest_cuts_a_loop_in_a_loop_at_every_inner_step():
    assert len(jc.discover(nested, X, granularity="finest")) == 3 * 2 * 2


def test_finest_cuts_a_loop_in_a_loop_of_one_step():
    def fun(ws, x):
        return lax.scan(lambda c, _: (lax.scan(scaled, c, ws)[0], None), x, None, length=1)[0]

    chain = jc.discover(fun, W, X, granularity="finest")
    assert len(chain) == STEPS * 2
    assert_same_function(chain, fun, (W, X))


def test_two_loops_one_after_another_are_the_steps_of_both():
    def fun(x):
        x = lax.fori_loop(0, 2, lambda _, c: jnp.sin(c), x)
        return lax.fori_loop(0, 3, lambda _, c: jnp.cos(c), x)

    chain = jc.discover(fun, X)
    assert len(chain) == 5
    assert len(set(chain.names)) == 5
    assert_same_function(chain, fun, (X,))


def test_a_loop_inside_a_jitted_function_is_one_stage_a_step():
    chain = jc.discover(jax.jit(lambda ws, x: jax.jit(lambda x: lax.scan(scaled, x, ws)[0])(x)), W, X)
    assert len(chain) == STEPS
    assert_same_function(chain, lambda ws, x: lax.scan(scaled, x, ws)[0], (W, X))


def test_a_loop_over_a_checkpointed_body_keeps_the_states_alone_when_differentiated():
    def body(c, w):
        return jnp.sin(jnp.cos(c * w)), None

    def fun(ws, x):
        return lax.scan(jax.checkpoint(body), x, ws)[0]

    chain, free = (jc.discover(f, W, X) for f in (fun, lambda ws, x: lax.scan(body, x, ws)[0]))
    assert chain.names == steps(STEPS)
    assert_same_function(chain, fun, (W, X))
    states_and_slices = 2 * STEPS * X.size
    assert kept(chain, W, X) == states_and_slices < kept(free, W, X)


def test_a_vmapped_loop_is_one_stage_a_step():
    def fun(x):
        return jax.vmap(lambda y: lax.fori_loop(0, 3, lambda _, c: jnp.sin(c), y))(x)

    chain = jc.discover(fun, some(2, 3))
    assert len(chain) == 3
    assert_same_function(chain, fun, (some(2, 3),))


def test_a_scan_with_unroll_is_one_stage_a_step_all_the_same():
    def fun(ws, x):
        return lax.scan(scaled, x, ws, unroll=2)[0]

    chain = jc.discover(fun, W, X)
    assert len(chain) == STEPS
    assert_same_function(chain, fun, (W, X))


def test_a_loop_differentiated_inside_the_function_keeps_its_values():
    def fun(x):
        return jax.grad(lambda x: jnp.sum(lax.fori_loop(0, 3, lambda _, c: jnp.sin(c) * c, x)))(x)

    chain = jc.discover(fun, X)
    assert_same_function(chain, fun, (X,))


def test_a_loop_that_reads_constants_it_closed_over_shares_them_among_steps():
    w = some(3, 3)

    def fun(x):
        return lax.fori_loop(0, 4, lambda _, c: jnp.tanh(w @ c), x)

    chain = jc.discover(fun, X)
    assert len(chain) == 4
    closed = jax.make_jaxpr(chain)(X)
    assert sum(const is w or getattr(const, "shape", ()) == (3, 3) for const in closed.consts) == 1


def thrice(x):
    def once(body):
        return lambda c, _: (lax.scan(body, c, None, length=20)[0], None)

    return once(once(once(lambda c, _: (jnp.tanh(c * 1.1) + 0.1, None))))(x, None)[0]


def test_unrolling_is_bounded_as_a_whole_and_says_which_loops_stay():
    chain = jc.discover(thrice, X)
    assert chain.names == steps(20)
    assert sum(row.equations for row in chain.rows) < 2048
    assert chain.rows[0].why.startswith(
        "a loop of 20 steps, and unrolling all loops would add more than 2,048 equations"
    )
    assert_same_function(chain, thrice, (X,))


def test_a_loop_that_is_too_much_does_not_keep_a_small_one_whole():
    def fun(x):
        def heavy(c, _):
            for _ in range(50):
                c = jnp.sin(c)
            return c, None

        return lax.scan(heavy, lax.scan(lambda c, _: (jnp.cos(c), None), x, None, length=3)[0], None, length=60)[0]

    chain = jc.discover(fun, X)
    assert chain.names[:3] == steps(3)
    assert len(chain) == 4
    assert "a loop of 60 steps, and unrolling" in chain.rows[3].why
