"""Real models: stages and names as their definitions say, values and derivatives as JAX says."""

import jax
import pytest
from agreement import assert_same_function, plain
from conftest import assert_close, draw, real_function
from model_zoo import MODELS

import jaxchain as jc
from jaxchain.cost.measure import flops

of_models = pytest.mark.parametrize("model", MODELS, ids=str)


@of_models
def test_stages_and_their_names_are_those_of_the_models_definition(model):
    assert plain(model.chain.names) == model.stages


@of_models
def test_modules_and_their_names_are_those_of_the_models_definition(model):
    fun, args = model.built
    chain = jc.discover(fun, *args, granularity="module")
    assert plain(chain.names) == (model.modules or model.stages)


@of_models
def test_values_and_derivatives_of_all_arguments_are_those_of_the_model(model):
    fun, args = model.built
    assert_same_function(model.chain, fun, args, forward=model.forward, tol=2e-5)


@of_models
def test_the_product_of_local_jacobians_is_the_models_jacobian(model):
    fun, args = model.built
    flat, x = real_function(lambda x: fun(*args[:-1], x), args[-1])

    @jax.jit
    def run(args, x):
        return jc.local_jacobians(model.chain, args), (jax.jacfwd if model.forward else jax.jacrev)(flat)(x)

    locals_, want = run(args, x)
    assert tuple(j.name for j in locals_) == model.chain.names
    product = locals_[0].matrix
    for j in locals_[1:]:
        product = j.matrix @ product
    assert_close(product, want.reshape(-1, x.size), 5e-5)


@of_models
def test_a_compiled_chain_costs_what_the_compiled_model_costs(model):
    fun, args = model.built
    assert flops(model.chain, *args) <= 1.01 * flops(fun, *args)


@of_models
def test_a_compiled_reverse_sweep_costs_what_jax_vjp_costs(model):
    fun, args = model.built
    cotangent = draw(jax.eval_shape(fun, *args), 2)
    ours = flops(lambda *args: jc.reverse_sweep(model.chain, args, cotangent), *args)
    theirs = flops(lambda *args: (lambda out, pull: (out, pull(cotangent)))(*jax.vjp(fun, *args)), *args)
    assert ours <= 1.05 * theirs


@of_models
def test_finest_has_no_fewer_stages_than_default_nor_default_than_module(model):
    fun, args = model.built
    finest, module = (len(jc.discover(fun, *args, granularity=g)) for g in ("finest", "module"))
    assert finest >= len(model.chain) >= module


@of_models
def test_the_table_has_one_row_a_stage(model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    lines = str(model.chain).splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(model.chain)]] == list(model.chain.names)
