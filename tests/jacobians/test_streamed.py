"""Blocks of rows, one after another, are the rows of the Jacobian; and they keep within what memory there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, named, some_params

import jaxchain as jc
from jaxchain import nets
from jaxchain.cost.measure import flops
from jaxchain.jacobians.rowwise import _every_way
from jaxchain.jacobians.streamed import JacobianBlocks


def stacked(blocks):
    """All blocks as one pytree of (m, *in); rows come in order, none twice."""
    every = list(blocks)
    assert [row for rows, _ in every for row in range(rows.start, rows.stop)] == list(range(blocks.shape[0]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *(part for _, part in every))


def by_jax(fun, args, at, forward=False):
    """The same, of `jax.jacrev`."""
    out = jax.eval_shape(fun, *args)
    whole = jax.jit((jax.jacfwd if forward else jax.jacrev)(fun, at))(*args)
    rows = [
        jax.tree.map(lambda block, leaf=leaf: block.reshape(leaf.size, *block.shape[leaf.ndim :]), part)
        for leaf, part in zip(jax.tree.leaves(out), jax.tree.structure(out).flatten_up_to(whole), strict=True)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)


def double(args):
    return jax.tree.map(lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, args)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["autoencoder", "pytree", "custom vjp", "while"])
def test_blocks_one_after_another_are_the_jacobian_of_jax(name):
    case = named(name)
    chain, args = case.chain, double(case.args)
    blocks = jc.jacobian_blocks(chain, args, block=2)
    want = by_jax(chain, args, len(args) - 1, forward=not case.reverse)
    assert_close(jax.tree.map(np.asarray, stacked(blocks)), jax.tree.map(np.asarray, want), 1e-13)


@pytest.mark.usefixtures("x64")
def test_every_way_to_make_a_block_makes_the_same():
    case = named("mlp")
    args = double(case.args)
    blocks = jc.jacobian_blocks(case.chain, args, block=2)
    want = by_jax(case.chain, args, 1)
    ways = [way for way in _every_way(blocks.plan, 2) if np.isfinite(way.cost)]
    assert {way.direction for way in ways} == {"push", "pull"}
    assert len(ways) > 8
    for way in ways:
        got = stacked(JacobianBlocks(blocks.call, blocks.plan, way, 2, 1))
        assert_close(np.asarray(got), np.asarray(want), 1e-13)


@pytest.mark.parametrize("mode", ["forward", "reverse", "mixed"])
def test_a_mode_that_is_asked_for_is_taken(mode):
    case = named("autoencoder")
    blocks = jc.jacobian_blocks(case.chain, case.args, mode=mode, block=4)
    assert_close(stacked(blocks), by_jax(case.chain, case.args, 1), 1e-5)
    assert blocks.way.simple(blocks.plan) == (mode != "mixed")
    assert mode == "mixed" or blocks.way.mode == mode


def waist(width=200, narrow=4):
    net = nets.autoencoder([width, 40, narrow])
    return net, (some_params(net), draw(jnp.zeros(width)))


def test_an_autoencoder_keeps_its_two_factors_and_multiplies_them_block_by_block():
    net, args = waist()
    blocks = jc.jacobian_blocks(net, args, block=50)
    way = blocks.way
    assert way.start == way.stop == blocks.plan.sizes.index(4)
    programs = blocks.programs
    found = flops(programs.once, *blocks.plan.found.shapes) + len(blocks) * flops(programs.each, *programs.given)
    whole = flops(jc.jacobian(net), *args)
    assert found <= 1.1 * whole < flops(jc.jacobian(net, mode="reverse"), *args) / 5


def held(blocks):
    """Most bytes at once beside the arguments, asked of XLA anew: what is kept, a block, and temporaries."""

    def temporary(fun, given):
        return jax.jit(fun).lower(*given).compile().memory_analysis().temp_size_in_bytes

    programs, shapes = blocks.programs, blocks.plan.found.shapes
    kept, part = programs.given[0], jax.eval_shape(programs.each, *programs.given)
    parts = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((kept, part)))
    return parts + max(temporary(programs.once, shapes), temporary(programs.each, programs.given))


@pytest.mark.parametrize(("mode", "block"), [("auto", None), ("auto", 30), ("reverse", None), ("forward", 40)])
def test_blocks_keep_within_a_limit_that_the_jacobian_does_not(mode, block):
    net, args = waist()
    limit = 100_000
    blocks = jc.jacobian_blocks(net, args, memory_limit=limit, mode=mode, block=block)
    assert 4 * np.prod(blocks.shape) > limit
    assert held(blocks) <= limit
    assert block in (None, blocks.block)
    assert_close(stacked(blocks), by_jax(net, args, 1), 1e-4)


def test_the_least_that_blocks_need_is_told():
    net, args = waist()
    with pytest.raises(ValueError, match=r"memory_limit=10 bytes cannot be met: the least that any mode needs is \d+"):
        jc.jacobian_blocks(net, args, memory_limit=10)


def test_of_far_more_rows_than_columns_all_columns_are_pushed_once_for_a_block():
    def tall(x):
        return jnp.cumsum(jnp.sin(jnp.arange(4000.0) * x[0] + x[1]) * x[2]) + jnp.sum(x)

    args, block, limit = (draw(jnp.zeros(30)),), 400, 250_000
    blocks = jc.jacobian_blocks(tall, args, block=block, memory_limit=limit)
    assert limit < 4 * np.prod(blocks.shape)  # so that the whole is not kept
    assert blocks.way.mode == "forward"
    reverse = jc.jacobian_blocks(tall, args, block=block, mode="reverse")
    works = [flops(one.programs.each, *one.programs.given) for one in (blocks, reverse)]
    assert works[0] < works[1] / 5
    assert_close(stacked(blocks), jax.jit(jax.jacfwd(tall))(*args), 1e-4)


def test_one_program_makes_all_blocks():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    blocks = jc.jacobian_blocks(lambda x: jnp.sin(x) * jnp.sum(x), (draw(jnp.zeros(9)),), block=2)
    list(blocks)
    before = len(compiled)
    assert before
    list(blocks)
    for number in (3, 0, -1):
        blocks[number]
    assert len(compiled) == before


def test_blocks_of_a_function_that_is_traced_are_traced():
    x = draw(jnp.zeros(5))

    def fun(x):
        return jnp.sin(x) * x[0]

    def through(x):
        return stacked(jc.jacobian_blocks(fun, (x,), block=2))

    assert_close(jax.jit(through)(x), jax.jacrev(fun)(x))
    assert_close(jax.jit(jax.jacfwd(through))(x), jax.jit(jax.jacfwd(jax.jacrev(fun)))(x))
    assert_close(jax.jit(jax.vmap(through))(x[None]), jax.jacrev(fun)(x)[None])


def test_dtypes_are_those_of_jacrev():
    x = {"a": draw(jnp.zeros(3, jnp.bfloat16)), "b": draw(jnp.zeros(2, jnp.float32))}

    def fun(x):
        return x["a"].astype(jnp.float32)[:2] * x["b"], jnp.tanh(x["a"])

    assert_close(stacked(jc.jacobian_blocks(fun, (x,), block=2)), by_jax(fun, (x,), 0))


def test_blocks_are_planned_from_shapes_and_computed_from_numbers():
    shape = jax.ShapeDtypeStruct((6,), jnp.float32)
    blocks = jc.jacobian_blocks(jnp.sin, (shape,), block=4)
    assert (len(blocks), blocks.shape, blocks.rows(1)) == (2, (6, 6), slice(4, 6))
    assert "Jacobian of 6 × 6 by argument 0, in 2 blocks of 4 rows" in str(blocks)
    with pytest.raises(TypeError, match="shapes alone, at which blocks can be planned"):
        blocks[0]


@pytest.mark.parametrize("fun", [lambda x: x[:0], lambda x: jnp.zeros(3)], ids=["no row", "of nothing"])
def test_of_what_is_empty_or_constant_there_are_blocks_too(fun):
    blocks = jc.jacobian_blocks(fun, (jnp.ones(2),), block=2)
    assert len(blocks) == -(-jax.eval_shape(fun, jnp.ones(2)).size // 2)
    for _, part in blocks:
        assert not part.any()


def test_no_block_is_beyond_the_last():
    blocks = jc.jacobian_blocks(jnp.sin, (jnp.ones(3),), block=2)
    with pytest.raises(IndexError):
        blocks[2]


def test_what_has_no_such_mode_says_so():
    with pytest.raises(jc.ModeError, match="no reverse mode for"):
        jc.jacobian_blocks(named("while").chain, named("while").args, mode="reverse")[0]
    with pytest.raises(jc.ModeError, match="real floating-point"):
        jc.jacobian_blocks(lambda x: x + 1j, (jnp.ones(3),))
    with pytest.raises(ValueError, match="Unknown mode 'sparse'"):
        jc.jacobian_blocks(jnp.sin, (jnp.ones(3),), mode="sparse")
