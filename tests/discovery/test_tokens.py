"""Along tokens a chain begins at the first floating-point state that everything after depends on them through."""

from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import some
from conftest import assert_close, draw
from flax import nnx
from jax import lax
from model_zoo import Block, drawn

import jaxchain as jc

VOCABULARY, LENGTH, WIDTH = 7, 5, 6
TOKENS = jnp.array([3, 1, 4, 0, 0])


# -------------------------------------------------------------------------------------------------------------- a zoo


class LinenTransformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH, name="embed")(tokens)
        for number in range(2):
            x = Block(name=f"block_{number}")(x)
        return nn.Dense(3, name="head")(x.mean(0))


def linen():
    module = LinenTransformer()
    return module.apply, (drawn(jax.eval_shape(module.init, jax.random.key(0), TOKENS)), TOKENS)


class NnxTransformer(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(x, mask=(tokens != 0)[None, None, :])
        return self.head(x.mean(0))


def of_nnx():
    graph, state = nnx.split(NnxTransformer(nnx.Rngs(0)))
    return lambda state, tokens: nnx.merge(graph, state)(tokens), (drawn(state), TOKENS)


class EquinoxTransformer(eqx.Module):
    embed: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __init__(self, key):
        one, two, three = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(VOCABULARY, WIDTH, key=one)
        self.attention = eqx.nn.MultiheadAttention(2, WIDTH, key=two)
        self.head = eqx.nn.Linear(WIDTH, 3, key=three)

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens)
        mask = jnp.broadcast_to(tokens != 0, (LENGTH, LENGTH))
        return self.head((x + self.attention(x, x, x, mask=mask)).mean(0))


def of_equinox():
    params, rest = eqx.partition(EquinoxTransformer(jax.random.key(0)), eqx.is_inexact_array)
    return lambda params, tokens: eqx.combine(params, rest)(tokens), (drawn(params), TOKENS)


def of_haiku(style):
    def model(tokens):
        x = hk.Embed(VOCABULARY, WIDTH, lookup_style=style, name="embed")(tokens)
        x = x + hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling(), model_size=WIDTH)(x, x, x)
        return hk.Linear(3, name="head")(x.mean(0))

    pure = hk.without_apply_rng(hk.transform(model))
    return pure.apply, (drawn(jax.eval_shape(pure.init, jax.random.key(0), TOKENS)), TOKENS)


OURS = jc.nets.transformer((WIDTH, WIDTH, 3), 2, 2)


def ours():
    net = OURS
    params = {"embed": some(VOCABULARY, WIDTH), "net": draw(jax.eval_shape(net.init, jax.random.key(0)), 1)}
    return lambda params, tokens: net(params["net"], params["embed"][tokens]), (params, TOKENS)


def masked(params, tokens, how=lambda mask: jnp.where(mask, 0.0, -1e9)):
    """Padding is masked in every block, as numbers made of booleans."""
    bias = how(tokens != 0)
    x = params["embed"][tokens] * 2.0 + params["positions"]
    for w in params["w"]:
        x = x + jax.nn.softmax(x @ x.T + bias) @ jnp.tanh(x @ w)
    return jnp.sum(jnp.where((tokens != 0)[:, None], x, 0.0), 0)


def masked_params():
    return {"embed": some(VOCABULARY, WIDTH), "positions": some(LENGTH, WIDTH), "w": some(2, WIDTH, WIDTH)}


def scanned(params, tokens):
    """Blocks in a loop that reads the mask."""
    mask = tokens != 0

    def block(x, w):
        return x + jnp.where(mask[:, None], jnp.tanh(x @ w), 0.0), None

    return lax.scan(block, params["embed"][tokens], params["w"])[0].sum(0)


def closed_over(params, tokens):
    del params
    return masked(FIXED, tokens)


FIXED = masked_params()
ZOO = {
    "linen": (linen, "embed"),
    "nnx": (of_nnx, "embed"),
    "equinox": (of_equinox, "Embedding"),
    "haiku": (partial(of_haiku, "ARRAY_INDEX"), "embed"),
    "haiku, one-hot": (partial(of_haiku, "ONE_HOT"), "embed"),
    "ours": (ours, "getitem"),
    "masks": (lambda: (masked, (masked_params(), TOKENS)), "getitem"),
    "a loop that reads a mask": (lambda: (scanned, (masked_params(), TOKENS)), "getitem"),
    "parameters closed over": (lambda: (closed_over, ({}, TOKENS)), "getitem"),
    "a table of two lookups": (
        lambda: (lambda p, t: jnp.tanh(p["embed"][t] + p["positions"][t % LENGTH]), (masked_params(), TOKENS)),
        "add",
    ),
}


@pytest.fixture(params=ZOO)
def case(request):
    build, start = ZOO[request.param]
    fun, args = build()
    return fun, args, start


def test_the_chain_begins_at_the_embedding_says_so_and_is_the_function(case):
    fun, args, start = case
    chain = jc.discover(fun, *args)
    name = chain.names_with_input[0]
    assert name.split("@")[0].split("/")[0].split("_")[0] == start
    assert chain.rows[0].in_shape == f"f32[{LENGTH},{WIDTH}]"
    assert f"the chain begins at {name}" in str(chain).replace("\n", " ")
    assert_close(*jax.jit(lambda *args: (chain(*args), fun(*args)))(*args))


def test_a_reverse_sweep_has_the_cotangents_of_all_arguments_and_of_the_embedding(case):
    fun, args, _ = case
    with jax.enable_x64(True):
        args = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64 if leaf.dtype.kind == "f" else leaf.dtype), args)
        chain = jc.discover(fun, *args)
        cotangent = draw(jax.eval_shape(fun, *args), 2)

        @jax.jit
        def swept_and_by_jax(*args):
            sweep = jc.reverse_sweep(chain, args, cotangent)
            out, pull = jax.vjp(fun, *args)
            after_start = jax.vjp(partial(_after, chain, chain.split(*args)[1]), sweep.primals[0])[1]
            return (sweep.primals[-1], sweep.arg_cotangents, sweep.cotangents[0]), (
                out,
                pull(cotangent),
                after_start(cotangent)[0],
            )

        assert_close(*swept_and_by_jax(*args), 1e-9)


def _after(chain, sides, state):
    for stage, side in zip(chain, sides, strict=True):
        state = stage(*side, state)
    return state


# ------------------------------------------------------------------------- against a function that takes the embedding


def after(x, params, tokens):
    """`masked`, from the embedding's output on."""
    bias = jnp.where(tokens != 0, 0.0, -1e9)
    x = x * 2.0 + params["positions"]
    for w in params["w"]:
        x = x + jax.nn.softmax(x @ x.T + bias) @ jnp.tanh(x @ w)
    return jnp.sum(jnp.where((tokens != 0)[:, None], x, 0.0), 0)


ARGS = (FIXED, TOKENS)
X = FIXED["embed"][TOKENS]
CHAIN = jc.discover(masked, *ARGS)
WHOLE = jax.jacrev(after)(X, *ARGS)
FLAT = WHOLE.reshape(WIDTH, -1)


def test_a_forward_sweep_takes_a_tangent_of_the_embedding():
    tangent = some(LENGTH, WIDTH, seed=4)
    sweep = jc.forward_sweep(masked, ARGS, tangent)
    assert_close((sweep.primals[-1], sweep.tangents[-1]), jax.jvp(lambda x: after(x, *ARGS), (X,), (tangent,)), 1e-5)
    assert f"Forward sweep from {sweep.names[0]} on, which argument 1 enters" in str(sweep)


def test_prefix_suffix_and_local_jacobians_multiply_to_the_whole_from_the_embedding_on():
    ends = ("input", CHAIN.names[0], CHAIN.names[-1])

    @jax.jit
    def all_ways(*args):
        parts = [jc.partial_jacobian(CHAIN, args, start, ends[-1]) for start in ends[:2]]
        return (
            jc.suffix_jacobians(CHAIN, args),
            jc.prefix_jacobians(CHAIN, args),
            jc.local_jacobians(CHAIN, args),
            parts,
        )

    suffixes, prefixes, local, parts = all_ways(*ARGS)
    product = np.linalg.multi_dot([stage.matrix for stage in reversed(local)])
    for got in (suffixes[0], prefixes[-1], product, parts[0]):
        assert_close(got, FLAT, 1e-5)
    assert_close(parts[1], suffixes[1], 1e-5)


def test_a_sweep_of_a_slice_or_a_merged_chain_is_the_slice_of_a_sweep():
    cotangent = some(WIDTH, seed=5)
    whole = jc.reverse_sweep(CHAIN, ARGS, cotangent)
    merged = CHAIN.merge(0, 1)
    for chain in (CHAIN[1:], CHAIN.merge(1, 2)[1:], merged, merged[1:]):
        part = jax.jit(partial(jc.reverse_sweep, chain))(ARGS, cotangent)
        assert_close(
            part.cotangents[0],
            dict(zip(whole.names, whole.cotangents, strict=True)).get(part.names[0], part.cotangents[0]),
        )
        assert_close((part.primals[-1], part.arg_cotangents), (whole.primals[-1], whole.arg_cotangents), 1e-5)
    assert_close(CHAIN[:2](*ARGS), whole.primals[2])
    assert "a state that they lead to" in str(CHAIN[1:]).replace("\n", " ")


def test_the_jacobian_of_a_chain_along_tokens_is_by_the_state_that_it_begins_at():
    assert_close(jc.jacobian(CHAIN)(*ARGS), WHOLE, 1e-5)
    by_parameters = jax.jit(lambda *args: (jc.jacobian(CHAIN, 0)(*args), jax.jacrev(masked)(*args)))
    assert_close(*by_parameters(*ARGS), 1e-5)
    assert_close(jax.jit(jc.jacobian_rows(CHAIN, [2]))(*ARGS)[0], WHOLE[2], 1e-5)
    planned = jc.plan(CHAIN, jax.eval_shape(lambda *args: args, *ARGS))
    assert f"by {CHAIN.names_with_input[0]}, which argument 1 enters" in str(planned)


def test_modes_of_a_chain_along_tokens_agree():
    compared = jc.compare_modes(CHAIN, *ARGS, repeats=1)
    assert {"forward", "reverse", "auto"} <= {row.mode for row in compared.rows}
    assert max(row.max_error for row in compared.rows) < 1e-5


def test_a_trace_along_tokens_pushes_one_random_direction_from_the_embedding_on():
    trace = jc.trace(masked, *ARGS)
    start = str(trace).splitlines()[0].split("from ")[1].split()[0]
    assert "gather" in trace[start].formula
    pushed = trace[start].tangent
    assert float(jnp.linalg.norm(pushed)) == pytest.approx(1, rel=1e-5)
    want = jax.jvp(lambda x: after(x, *ARGS), (X,), (pushed,))[1]
    assert_close(trace.rows[-1].tangent, want, 1e-5)


def test_transforms_along_tokens_are_of_what_comes_after_the_embedding():
    found = jc.transforms(masked, *ARGS)
    assert f"from {CHAIN.names_with_input[0]} on, which argument 1 enters" in " ".join(str(found).split())
    assert found["vjp"].equations > found["fun"].equations


# ------------------------------------------------------------------------------------------------------------- errors


def test_a_plain_function_has_no_jacobian_by_tokens_and_the_error_points_at_the_chain():
    for take in (jc.jacobian(masked, 1), jc.batch_jacobian(masked, 1), lambda *args: jc.plan(masked, args, argnum=1)):
        with pytest.raises(TypeError, match=r"Argument 1 is int32, which has no derivative.*jc\.discover"):
            take(*ARGS)


def test_where_no_floating_point_state_cuts_the_error_says_what_crosses():
    with pytest.raises(TypeError, match=r"cross gather f32\[5,6\] and mul f32\[5,6\]"):
        jc.discover(lambda p, t: (2 * p["embed"][t], 3 * p["positions"][t % 5] * 2), *ARGS)
    with pytest.raises(TypeError, match="the result itself is the first floating-point value"):
        jc.discover(lambda p, t: p["embed"][t], *ARGS)
    with pytest.raises(TypeError, match=r"no array of numbers is looked up .* 2\.0 instead of 2"):
        jc.discover(lambda x: jnp.sin(x**2), 2)
