"""`Chain.merge`: neighbouring stages as one, and everything else as before."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_same_function, plain, some
from conftest import assert_close, draw

import jaxchain as jc


def mlp(params, x):
    for w in params[:-1]:
        x = jnp.tanh(w @ x)
    return params[-1] @ x


def discovered():
    args = ([some(5, 4), some(3, 5, seed=1), some(2, 3, seed=2)], some(4))
    return jc.discover(mlp, *args), args


def ready_made():
    net = jc.nets.mlp([4, 5, 3, 2], "tanh", sigma_b=0.1)
    return net, (jax.tree.map(lambda leaf: leaf / 2, draw(jax.eval_shape(net.init, jax.random.key(0)))), some(4))


of_both = pytest.mark.parametrize("build", [discovered, ready_made])


@of_both
@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3), (0, -1)])
def test_a_merged_chain_takes_the_same_arguments_and_is_the_same_function(build, first, last):
    chain, args = build()
    merged = chain.merge(first, last)
    assert_same_function(merged, chain, args)


@of_both
@pytest.mark.parametrize("position", [0, 1, -1])
def test_merging_one_stage_renames_it(build, position):
    chain, args = build()
    merged = chain.merge(position, position, "alone")
    assert merged.names[position] == "alone"
    assert_close(merged(*args), chain(*args))


@of_both
@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3), (2, -1), (0, -1)])
def test_merging_takes_the_names_of_the_ends_and_leaves_the_others(build, first, last):
    chain, _ = build()
    start, stop = range(len(chain))[first], range(len(chain))[last] + 1
    joined = f"{chain.names[start]}..{chain.names[stop - 1]}"
    assert chain.merge(first, last).names == (*chain.names[:start], joined, *chain.names[stop:])


@of_both
def test_a_merged_stage_can_be_named(build):
    chain, _ = build()
    merged = chain.merge(1, 3, "middle")
    assert merged.names == (chain.names[0], "middle", *chain.names[4:])
    assert merged["middle"] is merged[1]


@of_both
def test_stages_to_merge_can_be_given_by_name(build):
    chain, _ = build()
    assert chain.merge(chain.names[1], chain.names[3]).names == chain.merge(1, 3).names


@of_both
def test_sweeps_of_a_merged_chain_are_those_of_the_chain_with_states_left_out(build):
    chain, args = build()
    merged, keep = chain.merge(1, 3), [0, 1, 4, 5]

    @jax.jit
    def run(*args):
        return [(jc.forward_sweep(c, args, args[-1]), jc.reverse_sweep(c, args, jnp.ones(2))) for c in (merged, chain)]

    (forward, reverse), (all_forward, all_reverse) = run(*args)
    assert_close(forward.primals, tuple(all_forward.primals[k] for k in keep))
    assert_close(forward.tangents, tuple(all_forward.tangents[k] for k in keep))
    assert_close(reverse.cotangents, tuple(all_reverse.cotangents[k] for k in keep))
    assert_close(reverse.arg_cotangents, all_reverse.arg_cotangents)


@of_both
def test_the_local_jacobian_of_a_merged_stage_is_the_product_of_its_parts(build):
    chain, args = build()
    parts = [local.matrix for local in jc.local_jacobians(chain, args)[1:4]]
    merged = jc.local_jacobians(chain.merge(1, 3), args)[1]
    assert_close(merged.matrix, parts[2] @ parts[1] @ parts[0])


@of_both
def test_a_slice_of_a_merged_chain_takes_the_same_arguments(build):
    chain, args = build()
    merged = chain.merge(1, 3)
    states = jc.forward_sweep(merged, args, args[-1]).primals
    for start in range(len(merged)):
        for stop in range(start + 1, len(merged) + 1):
            part = merged[start:stop]
            assert part.names == merged.names[start:stop]
            assert_close(part(*args[:-1], states[start]), states[stop])


@of_both
def test_a_slice_can_be_merged(build):
    chain, args = build()
    part = chain[1:4].merge(1, 2)
    state = chain[:1](*args)
    assert len(part) == 2
    assert_close(part(*args[:-1], state), chain[1:4](*args[:-1], state))


@of_both
def test_merging_twice_is_merging_once(build):
    chain, args = build()
    twice, once = chain.merge(1, 2, "a").merge("a", 2, "all"), chain.merge(1, 3, "all")
    assert twice.names == once.names
    assert_close(twice(*args), once(*args))
    assert_close(twice[1:](*args[:-1], chain[:1](*args)), chain[1:](*args[:-1], chain[:1](*args)))


def test_merging_does_not_change_the_parameters_of_a_ready_made_chain():
    chain, _ = ready_made()
    key = jax.random.key(3)
    assert_close(chain.merge(1, 3).init(key), chain.init(key))
    assert jax.tree.structure(chain.merge(0, -1).init(key)) == jax.tree.structure(chain.init(key))


@of_both
def test_the_table_of_a_merged_chain_adds_its_parts_up(build):
    chain, _ = build()
    rows, merged = [stage.row for stage in chain], chain.merge(1, 3)[1].row
    assert merged.parameters == sum(row.parameters for row in rows[1:4])
    if rows[0].flops is not None:
        assert merged.flops == sum(row.flops for row in rows[1:4])
        assert merged.equations == sum(row.equations for row in rows[1:4])
        assert (merged.in_shape, merged.out_shape) == (rows[1].in_shape, rows[3].out_shape)
    assert str(chain.merge(1, 3)).splitlines()[0] == f"Chain of {len(chain) - 2} stages"


@of_both
def test_merging_backwards_is_refused(build):
    chain, _ = build()
    with pytest.raises(ValueError, match="comes before"):
        chain.merge(3, 1)


@of_both
def test_merging_what_is_not_there_is_refused(build):
    chain, _ = build()
    with pytest.raises(KeyError, match="Nearest"):
        chain.merge(0, "nowhere")
    with pytest.raises(IndexError):
        chain.merge(0, 17)


@of_both
def test_a_taken_name_is_refused(build):
    chain, _ = build()
    with pytest.raises(ValueError, match="unique"):
        chain.merge(1, 3, chain.names[0])


def test_merging_keeps_the_argnum_of_a_discovered_chain():
    args = (some(4), [some(5, 4), some(3, 5, seed=1)])

    def fun(x, params):
        return mlp(params, x)

    chain = jc.discover(fun, *args, argnum=0)
    assert plain(chain.names) == ("dot", "tanh", "dot")
    assert_same_function(chain.merge(0, 1), fun, args, argnum=0)


def test_a_merged_chain_works_under_vmap_and_grad():
    chain, (params, x) = discovered()
    merged = chain.merge(0, 2)
    xs = jnp.stack([x, 2 * x])
    assert_close(jax.jit(jax.vmap(partial(merged, params)))(xs), jax.jit(jax.vmap(partial(chain, params)))(xs))
    assert_close(*(jax.jit(jax.grad(lambda p, c=c: c(p, x).sum()))(params) for c in (merged, chain)))
