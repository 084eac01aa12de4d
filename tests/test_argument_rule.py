"""With respect to what: a chain knows its input; a plain function is differentiated by the first, looked along by the last."""

import jax
import jax.numpy as jnp
import pytest
from conftest import assert_close, draw, some_params

import jaxchain as jc

W, X = draw(jnp.zeros((4, 3)), 1), draw(jnp.zeros(3), 2)


def fun(x, w):
    return jnp.tanh(w @ jnp.sin(x))


FIRST = jc.discover(fun, X, W, argnum=0)
ARGS = (X, W)

LOOKING = {
    "forward_sweep": lambda f, **how: jc.forward_sweep(f, ARGS, jnp.ones_like(ARGS[how.get("argnum", 0)]), **how),
    "reverse_sweep": lambda f, **how: jc.reverse_sweep(f, ARGS, jnp.ones(4), **how),
    "local_jacobians": lambda f, **how: jc.local_jacobians(f, ARGS, **how),
    "prefix_jacobians": lambda f, **how: jc.prefix_jacobians(f, ARGS, **how),
    "suffix_jacobians": lambda f, **how: jc.suffix_jacobians(f, ARGS, **how),
    "spectrum": lambda f, **how: jc.spectrum(f, ARGS, of="whole", **how),
    "trace": lambda f, **how: jc.trace(f, *ARGS, **how),
    "transforms": lambda f, **how: jc.transforms(f, *ARGS, **how),
}
looking = pytest.mark.parametrize("name", LOOKING)


def size_of_input(found):
    """How many numbers the input has that a result is about."""
    match found:
        case jc.ForwardSweep() | jc.ReverseSweep():
            return found.primals[0].size
        case jc.Spectrum():
            return found.rows[0].shape[1]
        case jc.Trace():
            return next(row.primal.size for row in found.rows if row.tangent is not None and jnp.any(row.tangent != 0))
        case jc.Transforms():
            return found["grad"].jaxpr.out_avals[0].size
        case (jc.LocalJacobian(), *_):
            return found[0].matrix.shape[1]
        case _:
            return found[0].shape[1]


@looking
def test_what_looks_along_a_chain_takes_the_chains_own_input(name):
    assert size_of_input(LOOKING[name](FIRST)) == X.size


@looking
def test_what_looks_along_a_function_takes_the_argument_that_is_named(name):
    assert size_of_input(LOOKING[name](fun, argnum=0)) == X.size


@looking
def test_another_argument_than_a_chains_own_is_refused(name):
    with pytest.raises(ValueError, match="This chain runs along argument 0, so argnum=1 cannot be looked along"):
        LOOKING[name](FIRST, argnum=1)


def test_sweeps_of_a_function_run_along_the_last_argument_where_none_is_named():
    sweep = jc.reverse_sweep(fun, ARGS, jnp.ones(4))
    assert sweep.primals[0].shape == W.shape
    assert_close(sweep.arg_cotangents, jax.vjp(fun, *ARGS)[1](jnp.ones(4)))


def test_a_jacobian_of_a_chain_is_by_its_input_and_of_a_function_by_its_first_argument():
    assert_close(jc.jacobian(FIRST)(*ARGS), jax.jit(jax.jacrev(fun))(*ARGS))
    assert_close(jc.jacobian(lambda w, x: fun(x, w))(W, X), jax.jit(jax.jacrev(fun, 1))(*ARGS))


def test_a_named_argument_is_differentiated_by_even_where_a_chain_has_another_input():
    assert_close(jc.jacobian(FIRST, 1)(*ARGS), jax.jit(jax.jacrev(fun, 1))(*ARGS))
    assert jc.plan(FIRST, ARGS, argnum=1).sizes[0] == W.size


@pytest.mark.parametrize("part", [jc.gram_diagonal, lambda f, *a: jc.jacobian_rows(f, [0], *a)])
def test_parts_of_a_chains_jacobian_are_by_its_input(part):
    assert_close(part(FIRST)(*ARGS), part(fun, 0)(*ARGS))
    net = jc.nets.mlp([3, 3])
    assert part(net)(some_params(net), X).shape[-1] == 3


def test_a_plan_is_of_the_chains_input_and_says_so():
    decision = jc.plan(FIRST, ARGS)
    assert (decision.sizes[0], decision.sizes[-1]) == (X.size, 4)
    assert "by the chain input, argument 0" in str(decision)
    assert "by argument 1" in str(jc.plan(fun, ARGS, argnum=1))


def energy(x, w):
    return jnp.sum(fun(x, w) ** 2)


def test_second_derivatives_are_by_a_chains_input_and_of_a_function_by_its_first_argument():
    chain = jc.discover(energy, X, W, argnum=0)
    want = jax.jit(jax.hessian(energy))(X, W)
    for f in (chain, energy):
        assert_close(jc.hessian(f, ARGS), want)
        assert_close(jc.hessian_diagonal(f)(*ARGS), jnp.diagonal(want))
        assert_close(jc.laplacian(f)(*ARGS), jnp.trace(want))
        assert_close(jc.hvp(f, ARGS, X), want @ X)
        assert jc.curvature(f, *ARGS).whole.trace == pytest.approx(float(jnp.trace(want)), rel=1e-4)
    assert jc.hessian(chain, ARGS, argnum=1).shape == W.shape * 2
    assert "argument 1" in str(jc.laplacian(energy, 1).plan(*ARGS))


def test_modes_are_compared_by_the_first_argument_and_the_table_says_so():
    found = jc.compare_modes(fun, *ARGS, repeats=1)
    assert "by argument 0" in str(found)
    assert "by argument 1" in str(jc.compare_modes(fun, *ARGS, argnum=1, repeats=1))


def test_a_batch_of_a_chain_is_its_input():
    chain = jc.discover(lambda x, w: jnp.tanh(x @ w.T), jnp.ones((5, 3)), W, argnum=0)
    assert jc.batch_jacobian(chain)(jnp.ones((5, 3)), W).shape == (5, 4, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda args: jc.plan(fun, args),
        lambda args: jc.forward_sweep(fun, args, X),
        lambda args: jc.reverse_sweep(fun, args, X),
        lambda args: jc.local_jacobians(fun, args),
        lambda args: jc.partial_jacobian(fun, args, "sin", "dot"),
    ],
)
def test_arguments_are_a_tuple_wherever_they_come_as_one(call):
    with pytest.raises(TypeError, match="args is the tuple of the function's positional arguments"):
        call([X, W])


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_a_chain_passes_through_transforms_as_an_argument(transform):
    chain = jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("square", jnp.square)])

    def run(x, chain):
        return chain(x).sum() if transform is jax.grad else chain(x)

    point = jnp.arange(3.0)
    want = transform(lambda x: run(x, chain))(point)
    got = jax.jit(lambda chain, x: transform(lambda x: run(x, chain))(x))(chain, point)
    assert_close(got, want)
    assert jax.tree.leaves(chain) == []
