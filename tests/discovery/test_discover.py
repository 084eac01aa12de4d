"""What `discover` promises of every function: the same function, its arguments, under every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same_function, plain, some
from conftest import assert_close, draw
from jax import lax

import jaxchain as jc

X = some(4)
W = some(4, 4, seed=1)


def mlp(params, x):
    for w in params[:-1]:
        x = jnp.tanh(w @ x)
    return params[-1] @ x


ARGS = ([some(5, 4), some(3, 5, seed=1), some(2, 3, seed=2)], X)

# -------------------------------------------------------------------------------------------------- the same function


def test_a_chain_is_its_function_bit_for_bit_op_by_op():
    chain = jc.discover(mlp, *ARGS)
    with jax.disable_jit():
        np.testing.assert_array_equal(chain(*ARGS), mlp(*ARGS))


def test_a_chain_of_a_jitted_function_is_that_of_the_function():
    assert plain(jc.discover(jax.jit(mlp), *ARGS).names)[-1].endswith("dot")
    assert_same_function(jc.discover(jax.jit(mlp), *ARGS), mlp, ARGS)


def test_discovering_a_discovered_chain_finds_the_same_stages():
    chain = jc.discover(mlp, *ARGS)
    again = jc.discover(chain, *ARGS)
    assert len(again) == len(chain)
    assert_same_function(again, mlp, ARGS)


def test_a_ready_made_chain_is_discovered_with_its_own_names():
    net = jc.nets.transformer((3, 8, 2), 2, 2)
    params, x = draw(jax.eval_shape(net.init, jax.random.key(0))), some(4, 3)
    assert jc.discover(net, params, x).names == net.names


def test_what_is_returned_has_the_structure_of_the_functions_result():
    def fun(x):
        y = jnp.exp(x)
        return {"sin": jnp.sin(y), "both": (jnp.cos(y), [jnp.sum(y)]), "none": None}

    chain = jc.discover(fun, X)
    assert jax.tree.structure(chain(X)) == jax.tree.structure(fun(X))
    assert_same_function(chain, fun, (X,))


def test_several_outputs_are_all_held_by_the_last_stage():
    def fun(x):
        y = jnp.exp(jnp.tanh(x))
        return jnp.sin(y), jnp.cos(y)

    chain = jc.discover(fun, X)
    assert plain(chain.names)[:-1] == ("tanh", "exp")
    state = chain[:-1](X)
    assert_close(chain[-1](state), fun(X))


def test_unused_work_is_left_out():
    def fun(x):
        jnp.linalg.inv(jnp.outer(x, x) + jnp.eye(4))
        return jnp.sin(x)

    assert plain(jc.discover(fun, X).names) == ("sin",)


def test_a_function_that_returns_its_input_is_one_identity_stage():
    chain = jc.discover(lambda x: x, X)
    assert chain.names == ("identity",)
    assert_same_function(chain, lambda x: x, (X,))


def test_a_function_that_returns_its_input_twice_and_more_is_itself():
    def fun(x):
        return x, jnp.sin(x), x

    assert_same_function(jc.discover(fun, X), fun, (X,))


def test_constant_outputs_beside_dependent_ones_are_returned_by_the_last_stage():
    table = np.arange(3.0, dtype=np.float32)

    def fun(w, x):
        return jnp.sin(x), 3.0, jnp.asarray(table), w * 2

    chain = jc.discover(fun, X, X)
    assert_close(jax.tree.map(jnp.asarray, chain(X, X)), jax.tree.map(jnp.asarray, fun(X, X)))
    assert jax.tree.map(lambda leaf: leaf.dtype, chain(X, X)[2:]) == jax.tree.map(
        lambda leaf: leaf.dtype, fun(X, X)[2:]
    )


def test_literal_outputs_are_arrays_as_those_of_a_jitted_function():
    def fun(x):
        return jnp.sin(x), 3.0, 2

    got, want = jc.discover(fun, X)(X), jax.jit(fun)(X)
    assert all(isinstance(leaf, jax.Array) for leaf in got)
    assert_close(got, want)


def test_numbers_are_arguments_like_any_other():
    chain = jc.discover(lambda a, x: jnp.sin(a * x), 2.0, 0.5)
    assert_close(chain(2.0, 0.5), jnp.sin(jnp.asarray(1.0)))
    assert_close(chain(3.0, 0.5), jnp.sin(jnp.asarray(1.5)))


def test_numpy_arrays_are_arguments_like_any_other():
    w, x = np.ones(4, np.float32) / 2, np.ones(4, np.float32)
    chain = jc.discover(lambda w, x: jnp.sin(w * x), w, x)
    assert_close(chain(w, x), jnp.sin(jnp.asarray(w * x)))


# ------------------------------------------------------------------------------------------------------ all arguments


def three(params, x, scale):
    return params["w"] @ jnp.tanh(scale["a"] * x) + scale["b"]


THREE = ({"w": W}, X, {"a": some(4, seed=2), "b": some(4, seed=3)})


@pytest.mark.parametrize("argnum", [0, 1, 2, -1, -2, -3])
def test_argnum_selects_the_chain_argument(argnum):
    chain = jc.discover(three, *THREE, argnum=argnum)
    assert_close(chain.split(*THREE)[0], THREE[argnum])
    assert_same_function(chain, three, THREE, argnum=argnum)


def test_the_default_chain_argument_is_the_last():
    assert jc.discover(three, *THREE).names == jc.discover(three, *THREE, argnum=2).names


def test_a_pytree_argument_is_one_state():
    state = {"h": X, "pair": (some(4, seed=4), [some(3)])}

    def fun(s):
        return jnp.sin(s["h"] * s["pair"][0]).sum() * s["pair"][1][0]

    chain = jc.discover(fun, state)
    sweep = jc.forward_sweep(chain, (state,), state)
    assert jax.tree.structure(sweep.primals[0]) == jax.tree.structure(state)
    assert_same_function(chain, fun, (state,))


def test_shapes_are_enough_to_discover():
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), ARGS)
    chain = jc.discover(mlp, *like)
    assert chain.names == jc.discover(mlp, *ARGS).names
    assert str(chain) == str(jc.discover(mlp, *ARGS))
    assert_same_function(chain, mlp, ARGS)


def test_discovering_never_runs_the_function():
    chain = jc.discover(lambda x: jnp.sin(x) @ jnp.cos(x), jax.ShapeDtypeStruct((2**40,), jnp.float32))
    assert len(chain) == 1


def test_integer_and_key_arguments_are_side_inputs():
    def fun(index, key, x):
        return jnp.tanh(x)[index] * jax.random.normal(key)

    args = (jnp.asarray(2), jax.random.key(1), X)
    chain = jc.discover(fun, *args)
    assert_same_function(chain, fun, args)
    assert_close(chain(jnp.asarray(3), jax.random.key(2), X), fun(jnp.asarray(3), jax.random.key(2), X))
    cotangents = jc.reverse_sweep(chain, args, jnp.ones(())).arg_cotangents
    assert [c.dtype for c in cotangents[:2]] == [jax.dtypes.float0] * 2


def test_an_argument_that_is_none_or_empty_is_none():
    chain = jc.discover(lambda _nothing, _empty, x: jnp.sin(x), None, {}, X)
    assert_close(chain(None, {}, X), jnp.sin(X))


def test_an_argument_that_is_not_read_gets_a_cotangent_of_zero():
    chain = jc.discover(lambda _unused, x: jnp.sin(x), W, X)
    assert_close(jc.reverse_sweep(chain, (W, X), X).arg_cotangents[0], jnp.zeros_like(W))


def test_what_does_not_depend_on_the_chain_input_is_computed_once():
    def fun(w, x):
        v = jnp.linalg.inv(w)  # read by every stage
        return v @ jnp.tanh(v @ jnp.tanh(v @ x))

    w = W + 3 * jnp.eye(4)
    chain = jc.discover(fun, w, X)
    assert [str(jax.make_jaxpr(f)(w, X)).count(" lu ") for f in (chain, fun)] == [1, 1]
    assert_same_function(chain, fun, (w, X), tol=1e-4)


# ---------------------------------------------------------------------------------------------------------- constants


def test_closed_over_arrays_are_constants_and_not_copied():
    table = some(4, 4, seed=5)

    def fun(x):
        return table @ jnp.tanh(table @ jnp.tanh(table @ x))

    chain = jc.discover(fun, X)
    closed = jax.make_jaxpr(chain)(X)
    tables = [const for const in closed.consts if getattr(const, "shape", None) == (4, 4)]
    assert len(tables) == 1
    assert tables[0] is table or tables[0].unsafe_buffer_pointer() == table.unsafe_buffer_pointer()


def test_a_closed_over_array_is_no_side_input():
    chain = jc.discover(lambda x: W @ x, X)
    assert chain.split(X)[1] == ((),)


def test_a_closed_over_array_counts_among_the_parameters_of_the_stage_that_reads_it():
    chain = jc.discover(lambda x: W @ jnp.tanh(x), X)
    assert [stage.row.parameters for stage in chain] == [0, 16]


# --------------------------------------------------------------------------------------------------- under transforms


def test_a_chain_works_under_jit_vmap_and_grad():
    chain = jc.discover(mlp, *ARGS)
    xs = some(3, 4, seed=7)
    assert_close(jax.jit(chain)(*ARGS), mlp(*ARGS))
    assert_close(jax.jit(jax.vmap(chain, (None, 0)))(ARGS[0], xs), jax.jit(jax.vmap(mlp, (None, 0)))(ARGS[0], xs))
    assert_close(*(jax.jit(jax.grad(lambda p, x, f=f: f(p, x).sum()))(*ARGS) for f in (chain, mlp)))
    assert_close(*(jax.jit(jax.hessian(lambda x, f=f: f(ARGS[0], x).sum()))(X) for f in (chain, mlp)))
    assert_close(*(jax.jit(jax.jacrev(f, argnums=1))(*ARGS) for f in (chain, mlp)))


def test_a_function_is_discovered_under_jit_vmap_and_grad():
    def sweep(params, x):
        return jc.reverse_sweep(mlp, (params, x), jnp.ones(2)).arg_cotangents[1]

    want = jax.vjp(mlp, *ARGS)[1](jnp.ones(2))[1]
    assert_close(jax.jit(sweep)(*ARGS), want)
    assert_close(jax.jit(jax.vmap(sweep, (None, 0)))(ARGS[0], X[None])[0], want)
    got, wanted = (
        jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2)))(X)
        for f in (lambda x: sweep(ARGS[0], x), lambda x: jax.vjp(mlp, ARGS[0], x)[1](jnp.ones(2))[1])
    )
    assert_close(got, wanted)


def test_a_vmapped_function_is_a_chain():
    fun = jax.vmap(mlp, (None, 0))
    args = (ARGS[0], some(3, 4, seed=7))
    chain = jc.discover(fun, *args)
    assert len(chain) == len(jc.discover(mlp, *ARGS))
    assert_same_function(chain, fun, args)


def test_a_gradient_is_a_chain():
    fun = jax.grad(lambda w, x: jnp.sum(jnp.tanh(w @ x) ** 2), argnums=1)
    assert_same_function(jc.discover(fun, W, X), fun, (W, X))


def test_a_chain_that_is_scanned_over_keeps_its_values():
    chain = jc.discover(lambda w, x: jnp.tanh(w @ x), W, X)
    got = lax.scan(lambda c, _: (chain(W, c), None), X, None, length=3)[0]
    assert_close(got, jnp.tanh(W @ jnp.tanh(W @ jnp.tanh(W @ X))))


# ----------------------------------------------------------------------------------------------------- plain functions


def test_sweeps_and_jacobians_take_plain_functions():
    chain = jc.discover(mlp, *ARGS)
    assert_close(jc.forward_sweep(mlp, ARGS, X), jc.forward_sweep(chain, ARGS, X))
    assert_close(jc.reverse_sweep(mlp, ARGS, jnp.ones(2)), jc.reverse_sweep(chain, ARGS, jnp.ones(2)))
    for of in (jc.local_jacobians, jc.suffix_jacobians, jc.prefix_jacobians):
        assert_close(of(mlp, ARGS), of(chain, ARGS))


# ------------------------------------------------------------------------------------------------------------- slices


def test_a_slice_takes_the_functions_arguments_with_the_state_in_place_of_the_chain_input():
    chain = jc.discover(three, *THREE, argnum=1, granularity="finest")
    assert plain(chain.names) == ("mul", "tanh", "dot", "add")
    states = jc.forward_sweep(chain, THREE, X).primals
    for start in range(len(chain)):
        for stop in range(start + 1, len(chain) + 1):
            part = chain[start:stop]
            assert part.names == chain.names[start:stop]
            assert_close(part(THREE[0], states[start], THREE[2]), states[stop])


def test_a_sweep_of_a_slice_is_the_slice_of_a_sweep():
    chain = jc.discover(mlp, *ARGS)
    forward, reverse = jc.forward_sweep(chain, ARGS, X), jc.reverse_sweep(chain, ARGS, jnp.ones(2))
    part = chain[1:4]
    args = (ARGS[0], forward.primals[1])
    assert_close(jc.forward_sweep(part, args, forward.tangents[1]).tangents, forward.tangents[1:5])
    assert_close(jc.reverse_sweep(part, args, reverse.cotangents[4]).cotangents, reverse.cotangents[1:5])


def test_a_slice_of_a_slice_is_a_slice():
    chain = jc.discover(mlp, *ARGS)
    assert chain[1:][1:3].names == chain[2:4].names
    state = chain[:2](*ARGS)
    assert_close(chain[1:][1:3](ARGS[0], state), chain[2:4](ARGS[0], state))


# --------------------------------------------------------------------------------------------------------- precisions


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
def test_every_precision_is_kept(dtype):
    def fun(w, x):
        return jnp.tanh(w @ jnp.tanh(w @ x))

    args = (some(3, 3, dtype=dtype), some(3, seed=1, dtype=dtype))
    chain = jc.discover(fun, *args)
    assert {leaf.dtype for leaf in jc.forward_sweep(chain, args, args[1]).primals} == {jnp.dtype(dtype)}
    assert_same_function(chain, fun, args)


@pytest.mark.usefixtures("x64")
def test_double_precision_is_kept():
    args = (some(3, 3, dtype=jnp.float64), some(3, seed=1, dtype=jnp.float64))
    chain = jc.discover(lambda w, x: jnp.tanh(w @ x), *args)
    assert chain(*args).dtype == jnp.float64
    assert_same_function(chain, lambda w, x: jnp.tanh(w @ x), args)


def test_casts_between_precisions_are_kept():
    def fun(w, x):
        x = jnp.tanh(x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16))
        return x.astype(jnp.float32) * 2

    chain = jc.discover(fun, W, X)
    assert_close(chain(W, X), fun(W, X), 0.02)
    assert chain(W, X).dtype == jnp.float32


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_arrays_without_elements_are_states(shape):
    def fun(x):
        return jnp.sum(jnp.sin(x) * 2)

    x = jnp.zeros(shape)
    chain = jc.discover(fun, x)
    assert_close(chain(x), jnp.zeros(()))
    assert jc.reverse_sweep(chain, (x,), jnp.ones(())).arg_cotangents[0].shape == shape
    assert "float32[0" in str(chain) or "f32[" in str(chain)
