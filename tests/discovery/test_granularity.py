"""How coarse the stages are, and what the printed chain says of each."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same_function, plain, some
from conftest import draw

import jaxchain as jc
from jaxchain.cost.measure import flops

X = some(4)
W = some(4, 4, seed=1)

# ------------------------------------------------------------------------------------------------------- granularities


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (6, 5):
            x = nn.gelu(nn.Dense(width)(x))
        return nn.Dense(3)(x)


def linen():
    x = some(4)
    module = Perceptron()
    return module.apply, (draw(jax.eval_shape(module.init, jax.random.key(0), x)), x)


def equinox():
    params, rest = eqx.partition(eqx.nn.MLP(4, 3, 6, 2, key=jax.random.key(0)), eqx.is_inexact_array)
    return lambda params, x: eqx.combine(params, rest)(x), (params, X)


@pytest.mark.parametrize("build", [linen, equinox])
def test_parameters_of_all_stages_are_those_of_the_model(build):
    fun, args = build()
    total = sum(leaf.size for leaf in jax.tree.leaves(args[0]))
    for granularity in ("finest", "default", "module"):
        chain = jc.discover(fun, *args, granularity=granularity)
        assert sum(stage.row.parameters for stage in chain) == total


def test_the_default_joins_a_bias_to_its_product_and_finest_does_not():
    def fun(w, b, x):
        return jnp.tanh(w @ x + b)

    args = (W, X, X)
    assert plain(jc.discover(fun, *args).names) == ("dot", "tanh")
    assert plain(jc.discover(fun, *args, granularity="finest").names) == ("dot", "add", "tanh")


def test_a_chain_of_single_numbers_is_cut_at_every_operation():
    def h(x):
        return 1 / (1 + jnp.square(x))

    x = jnp.float32(0.5)
    assert plain(jc.discover(h, x).names) == plain(jc.discover(h, x, granularity="finest").names)
    assert plain(jc.discover(h, x).names) == ("square", "add", "div")
    assert len(jc.discover(h, X)) == 2


def test_sweeps_discover_as_finely_as_they_are_told_and_chains_are_what_they_are():
    def fun(x):
        return jnp.tanh(W @ x + 1)

    swept = {
        "forward": lambda g: jc.forward_sweep(fun, (X,), X, granularity=g).names[1:],
        "reverse": lambda g: jc.reverse_sweep(fun, (X,), X, granularity=g).names[1:],
        "local": lambda g: [stage.name for stage in jc.local_jacobians(fun, (X,), granularity=g)],
        "prefix": lambda g: jc.prefix_jacobians(fun, (X,), granularity=g)[1:],
        "suffix": lambda g: jc.suffix_jacobians(fun, (X,), granularity=g)[1:],
    }
    for found in swept.values():
        assert [len(found(g)) for g in (None, "default", "finest")] == [2, 2, 3]
    with pytest.raises(ValueError, match="this one is a chain already"):
        jc.forward_sweep(jc.discover(fun, X), (X,), X, granularity="finest")
    with pytest.raises(ValueError, match="granularity"):
        jc.forward_sweep(fun, (X,), X, granularity="coarse")


@pytest.mark.parametrize("numerator", [1.0, X + 1], ids=["constant", "array"])
def test_dividing_by_the_state_is_no_scaling_of_it(numerator):
    assert plain(jc.discover(lambda x: numerator / jnp.sin(x), X).names) == ("sin", "div")
    assert plain(jc.discover(lambda x: jnp.sin(numerator / x), X).names) == ("div", "sin")
    assert plain(jc.discover(lambda c, x: c / jnp.sin(x), numerator, X).names) == ("sin", "div")
    assert len(jc.discover(lambda x: jnp.sin(x) / numerator, X)) == 1


def test_the_default_joins_reshapes_and_casts_to_what_reads_them():
    def fun(w, x):
        return jnp.tanh(w @ jnp.sin(x).reshape(-1).astype(jnp.bfloat16).astype(jnp.float32))

    args = (W, X.reshape(2, 2))
    assert plain(jc.discover(fun, *args).names) == ("sin", "dot", "tanh")


def test_the_default_joins_the_parts_of_one_library_call():
    chain = jc.discover(lambda x: jax.nn.log_softmax(jnp.sin(x)), X)
    assert plain(chain.names) == ("sin", "log_softmax")
    assert len(jc.discover(lambda x: jax.nn.log_softmax(jnp.sin(x)), X, granularity="finest")) > 2


def test_module_joins_neighbours_in_the_same_scope():
    def fun(w, x):
        for layer in ("first", "second"):
            with jax.named_scope(layer):
                x = jnp.tanh(w @ x)
        return x

    assert jc.discover(fun, W, X).names == ("first/dot", "first/tanh", "second/dot", "second/tanh")
    assert jc.discover(fun, W, X, granularity="module").names == ("first", "second")


@pytest.mark.parametrize("granularity", ["finest", "default", "module"])
def test_every_granularity_is_the_same_function(granularity):
    net = jc.nets.transformer((3, 4, 2), 1, 2)
    args = draw(jax.eval_shape(net.init, jax.random.key(0))), some(3, 3)
    assert_same_function(jc.discover(net, *args, granularity=granularity), net, args)


def test_stages_of_coarser_chains_are_runs_of_finer_ones():
    net = jc.nets.transformer((3, 4, 2), 1, 2)
    args = draw(jax.eval_shape(net.init, jax.random.key(0))), some(3, 3)
    bounds = []
    for granularity in ("finest", "default", "module"):
        counts = np.cumsum([stage.row.equations for stage in jc.discover(net, *args, granularity=granularity)])
        bounds.append(set(counts.tolist()))
    assert bounds[0] >= bounds[1] >= bounds[2]


# ---------------------------------------------------------------------------------------------------------- the table


def test_a_printed_chain_has_a_row_a_stage_with_shapes_parameters_work_and_equations(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    title, header, *rows = str(jc.discover(lambda w, b, x: jnp.tanh(w @ x + b), some(3, 4), some(3), X)).splitlines()
    assert title == "Chain of 2 stages"
    assert header.split() == ["stage", "input", "output", "parameters", "work", "equations"]
    assert [row.split()[1:] for row in rows] == [
        ["f32[4]", "f32[3]", "15", "27", "FLOP", "2"],
        ["f32[3]", "f32[3]", "0", "3", "FLOP", "1"],
    ]


def test_work_in_the_table_is_what_xla_counts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    args = (some(3, 4), some(3), X)

    def fun(w, b, x):
        return w @ x + b

    assert sum(stage.row.flops for stage in jc.discover(fun, *args)) == flops(fun, *args) == 27


def test_the_note_on_a_stage_names_the_skip_that_crosses_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")

    def u_net(x):
        with jax.named_scope("down"):
            skip = jnp.tanh(x @ W)
        with jax.named_scope("bottom"):
            y = jnp.sin(skip @ W[:, :2]) @ W[:2]
            return jnp.concatenate([skip, y])

    chain = jc.discover(u_net, X, granularity="module")
    assert chain.names == ("down", "bottom")
    (note,) = [line for line in str(chain).splitlines() if " is one stage: " in line]
    assert note.startswith(
        "bottom is one stage: 2 values cross its middle: its input f32[4] (read last by concatenate)"
    )


def test_a_stage_of_one_equation_and_a_stage_that_was_only_joined_need_no_note():
    chain = jc.discover(lambda w, b, x: jnp.tanh(w @ x + b), W, X, X)
    assert [stage.row.why for stage in chain] == ["", ""]


def test_a_stage_whose_middle_is_an_integer_says_that_it_has_no_derivative():
    def fun(x):
        return x[jnp.argsort(jnp.sin(x))[::-1]] * 2

    chain = jc.discover(fun, X)
    assert len(chain) == 1
    assert "2 values cross its middle" in chain[0].row.why
