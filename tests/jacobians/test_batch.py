"""`batch_jacobian`: the diagonal blocks of jax.jacrev at 1/B of its work, and a proof that the others are zero."""

import functools
import itertools
import re
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, some_params
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.experimental import io_callback

from jaxchain import nets
from jaxchain.cost.measure import flops
from jaxchain.jacobians.batch import batch_jacobian
from jaxchain.samples.proof import SamplesMixError

HERE = re.escape(Path(__file__).name)
B, D = 4, 3
X = draw(jnp.zeros((B, D)))


def blocks(fun, x, in_axis=0, out_axis=0, by=jax.jacrev):
    """The blocks (B, B, *out, *in) of jax.jacrev, as a pytree like its result."""
    outs, out_tree = jax.tree.flatten(jax.eval_shape(fun, x))
    ins, in_tree = jax.tree.flatten(x)

    def block(leaf, out, into):
        return jnp.moveaxis(leaf, (out_axis % out.ndim, out.ndim + in_axis % into.ndim), (0, 1))

    rows = [in_tree.flatten_up_to(row) for row in out_tree.flatten_up_to(by(fun)(x))]
    return out_tree.unflatten(
        [
            in_tree.unflatten([block(*two) for two in zip(row, [out] * len(ins), ins, strict=True)])
            for row, out in zip(rows, outs, strict=True)
        ]
    )


def diagonal(fun, x, in_axis=0, out_axis=0, by=jax.jacrev):
    """What batch_jacobian is to be, by JAX alone."""
    return jax.tree.map(lambda leaf: leaf[(np.arange(len(leaf)),) * 2], blocks(fun, x, in_axis, out_axis, by))


def agree(fun, x, in_axis=0, out_axis=0, by=jax.jacrev, **options):
    jac = batch_jacobian(fun, in_axis=in_axis, out_axis=out_axis, **options)
    assert_close(*jax.jit(lambda x: (jac(x), diagonal(fun, x, in_axis, out_axis, by)))(x))


# ------------------------------------------------------------------------------------------------------------ models


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), feature_group_count=1)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (2, 2), (2, 2)) + nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.Conv(6, (2, 2), feature_group_count=3)(x)
        return nn.Dense(2)(nn.LayerNorm()(x.reshape((x.shape[0], -1))))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return nn.softmax(nn.Dense(3)(nn.gelu(x)))


def linen(module, *shape):
    x = draw(jnp.zeros(shape), 2)
    params = jax.tree.map(lambda leaf: jnp.abs(leaf) / 2 + 0.1, draw(jax.eval_shape(module.init, jax.random.key(0), x)))
    return functools.partial(module.apply, params), x


def mlp():
    net = nets.mlp([D, 5, 2], "tanh", sigma_b=0.1)
    return jax.vmap(functools.partial(net, some_params(net))), draw(jnp.zeros((B, D)))


def equinox_mlp():
    return jax.vmap(eqx.nn.MLP(D, 2, 4, 2, key=jax.random.key(0))), draw(jnp.zeros((B, D)))


def haiku_lstm():
    """Positions first, the batch on axis 1, by hk.dynamic_unroll."""

    def unroll(x):
        core = hk.LSTM(2)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    net, x = hk.without_apply_rng(hk.transform(unroll)), draw(jnp.zeros((5, B, D)))
    return functools.partial(net.apply, draw(jax.eval_shape(net.init, jax.random.key(0), x))), x


MODELS = {
    "mlp": (mlp, 0),
    "equinox mlp": (equinox_mlp, 0),
    "convolutional net": (lambda: linen(ConvNet(), B, 4, 4, 2), 0),
    "attention over positions": (lambda: linen(Attention(), B, 3, 4), 0),
    "recurrent net, batch on axis 1": (haiku_lstm, 1),
}


@pytest.mark.parametrize(("build", "axis"), MODELS.values(), ids=MODELS)
def test_the_result_is_the_diagonal_blocks_of_jacrev(build, axis):
    agree(*build(), axis, axis)


def tree_function(x, w=2.0):
    return {"y": [jnp.sin(x["a"] @ x["c"][..., None])[..., 0]], "z": x["c"].sum(-1) * w}


TREE = {"a": draw(jnp.zeros((B, 2, D)), 1), "c": draw(jnp.zeros((B, D)), 2)}


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_pytrees_modes_and_chunks_change_no_structure(mode, chunk_size):
    agree(tree_function, TREE, mode=mode, chunk_size=chunk_size)


@pytest.mark.parametrize(("in_axis", "out_axis"), [*itertools.product([0, 1, -1], [0, 2, -2])])
def test_the_batch_may_lie_on_any_axis(in_axis, out_axis):
    def sample(v):
        return jnp.outer(jnp.sin(v), v[:2])

    agree(
        jax.vmap(sample, in_axis, out_axis),
        draw(jnp.zeros((B, D)) if in_axis == 0 else jnp.zeros((D, B))),
        in_axis,
        out_axis,
    )


@pytest.mark.parametrize("argnums", [0, 1, -2, (0, 1), (-2, 0), [1]], ids=str)
def test_argnums_choose_as_for_jacrev(argnums):
    def fun(x, y, w):
        return jnp.sin(x @ w) * y, y

    args = draw((jnp.zeros((B, 2)), jnp.zeros((B, D)), jnp.zeros((2, D))))
    picked = args[argnums] if isinstance(argnums, int) else tuple(args[k] for k in argnums)
    positions = [argnums] if isinstance(argnums, int) else argnums

    def of_picked(picked):
        full = list(args)
        for k, value in zip(positions, [picked] if isinstance(argnums, int) else picked, strict=True):
            full[k] = value
        return fun(*full)

    assert_close(batch_jacobian(fun, argnums)(*args), diagonal(of_picked, picked))


def test_keywords_and_static_arguments_pass_through():
    def fun(x, kind, *, scale):
        return jnp.sin(x) * scale if kind == "sin" else x

    x = X
    assert_close(batch_jacobian(fun)(x, "sin", scale=2.0), diagonal(lambda x: fun(x, "sin", scale=2.0), x))


@pytest.mark.parametrize(("mode", "by"), [("forward", jax.jacfwd), ("reverse", jax.jacrev)])
def test_dtypes_are_jaxs_own(mode, by):
    def fun(x):
        return {"low": x["high"].astype(jnp.bfloat16) * 2, "high": x["low"].astype(jnp.float32) ** 2}

    x = {"low": jnp.ones((B, 2), jnp.bfloat16), "high": jnp.ones((B, D))}
    agree(fun, x, by=by, mode=mode)


@pytest.mark.parametrize("widths", [(2, 5), (5, 2)])
def test_it_composes_with_jit_vmap_grad_and_itself(widths):
    w = draw(jnp.zeros(widths))

    def fun(w, x):
        return jnp.tanh(x @ w)

    def by_jax(w, x):
        return diagonal(functools.partial(fun, w), x)

    jac = batch_jacobian(fun, 1)
    x = draw(jnp.zeros((B, widths[0])))
    xs = jnp.stack([x, 2 * x])
    for transformed in (
        lambda f: jax.jit(f)(w, x),
        lambda f: jax.vmap(f, (None, 0))(w, xs),
        lambda f: jax.grad(lambda w, x: jnp.sum(f(w, x) ** 2), (0, 1))(w, x),
        lambda f: jax.jvp(functools.partial(f, w), (x,), (x,)),
    ):
        assert_close(*jax.jit(lambda at=transformed: (at(jac), at(by_jax)))())
    second = batch_jacobian(jac, 1)(w, x)
    assert_close(second, jax.jit(jax.vmap(jax.hessian(functools.partial(fun, w))))(x))


def test_an_output_that_no_sample_touches_has_a_zero_jacobian():
    got = batch_jacobian(lambda x: (jnp.ones((B, 2)), x))(X)
    assert got[0].shape == (B, 2, D)
    assert not got[0].any()


@pytest.mark.parametrize("size", [0, 1])
def test_no_sample_and_one_sample_are_batches(size):
    x = draw(jnp.zeros((size, D)))
    assert_close(
        batch_jacobian(lambda x: jnp.sin(x - x.mean(0, keepdims=True)))(x),
        diagonal(lambda x: jnp.sin(x - x.mean(0, keepdims=True)), x),
    )


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_a_batch_of_64_takes_60_times_fewer_operations_than_jacrev(chunk_size):
    net = nets.mlp([40, 64, 32], "tanh")  # the primal is computed once by both, so the ratio nears 64 from below
    params, x = some_params(net), jax.ShapeDtypeStruct((64, 40), jnp.float32)
    fun = jax.vmap(functools.partial(net, params))
    assert flops(jax.jacrev(fun), x) >= 60 * flops(batch_jacobian(fun, chunk_size=chunk_size), x)


@pytest.mark.parametrize("shape", [(2, 30), (30, 2)])
def test_auto_takes_the_fewer_passes(shape):
    w = draw(jnp.zeros(shape))
    x = jnp.ones((B, shape[0]))
    work = {
        m: flops(batch_jacobian(lambda x: jnp.tanh(jnp.sin(x) @ w), mode=m), x) for m in ("auto", "forward", "reverse")
    }
    assert work["auto"] == min(work.values()) < max(work.values())


# ------------------------------------------------------------------- whatever is vmapped keeps samples apart, provably


@jax.custom_jvp
def sigmoid(v):
    return 1 / (1 + jnp.exp(-v))


@sigmoid.defjvp
def _(primals, tangents):
    y = sigmoid(*primals)
    return y, y * (1 - y) * tangents[0]


@jax.custom_vjp
def straight_through(v):
    return jnp.round(v)


straight_through.defvjp(lambda v: (jnp.round(v), v), lambda v, c: (c * jnp.cos(v),))


def matrix(v):
    return jnp.outer(v, v) / 4 + jnp.diag(2 + jnp.arange(4.0))


W = draw(jnp.zeros((4, 4)), 5)
SAMPLE = {  # of one sample, (4,) to (4,)
    "dense": lambda v: jnp.tanh(v @ W),
    "softmax": jax.nn.softmax,
    "gelu": jax.nn.gelu,
    "layer norm": lambda v: (v - v.mean()) / jnp.sqrt(v.var() + 0.1),
    "logsumexp": lambda v: v - jax.nn.logsumexp(v),
    "sort": jnp.sort,
    "argsort": lambda v: v[jnp.argsort(v)] * v,
    "top_k": lambda v: jnp.tile(lax.top_k(v, 2)[0], 2),
    "cumsum": jnp.cumsum,
    "cummax": lambda v: lax.cummax(v, reverse=True),
    "roll and flip": lambda v: jnp.roll(v, 1) * jnp.flip(v),
    "outer": lambda v: jnp.outer(jnp.sin(v), v).sum(0),
    "attention": lambda v: jax.nn.softmax(jnp.outer(v, v)) @ v,
    "reshape": lambda v: jnp.sin(v.reshape(2, 2)).T.ravel(),
    "concatenate and split": lambda v: jnp.concatenate(jnp.split(v, 2)[::-1]) * 2,
    "stack and unstack": lambda v: jnp.stack(jnp.unstack(v)[::-1]),
    "pad": lambda v: jnp.pad(v[1:3], 1, constant_values=0.5),
    "repeat": lambda v: jnp.repeat(v[:2], 2),
    "look-up": lambda v: v[jnp.argmax(v)] * v,
    "several look-ups": lambda v: v[jnp.argsort(v)[:2]].sum() + v,
    "dynamic slice": lambda v: jnp.tile(lax.dynamic_slice(v, (jnp.argmax(v),), (2,)), 2),
    "dynamic update": lambda v: lax.dynamic_update_slice(v, v[:1] * 2, (jnp.argmin(v),)),
    "write": lambda v: v.at[jnp.argmax(v)].add(v[0]),
    "write many": lambda v: v.at[jnp.array([0, 2])].set(v[1:3] ** 2),
    "segments": lambda v: jax.ops.segment_sum(v, jnp.array([0, 1, 1, 3]), 4),
    "where": lambda v: jnp.where(v > 0, v, jnp.exp(v)),
    "branch": lambda v: lax.cond(v[0] > 0, jnp.sin, lambda v: v * v[1], v),
    "switch": lambda v: lax.switch(jnp.argmax(v) % 2, [jnp.sin, jnp.flip], v),
    "scan": lambda v: lax.scan(lambda c, a: (jnp.sin(c + a), c * a), v[0], v)[1],
    "loop": lambda v: lax.fori_loop(0, 3, lambda k, u: jnp.sin(u) * v[k], v),
    "nested loop": lambda v: lax.map(lambda a: lax.scan(lambda c, b: (c * b + a, None), a, v)[0], v) / 4,
    "associative scan": lambda v: lax.associative_scan(jnp.add, v),
    "convolution": lambda v: jnp.convolve(v, jnp.sin(v[:3]), "same"),
    "grouped convolution": lambda v: lax.conv_general_dilated(v.reshape(1, 2, 2), W.reshape(4, 1, 4)[..., :2], (2,), "VALID", feature_group_count=2).ravel(),
    "fft": lambda v: jnp.abs(jnp.fft.fft(v)) + jnp.fft.irfft(jnp.fft.rfft(v) ** 2, 4),
    "solve": lambda v: jnp.linalg.solve(matrix(v), v),
    "determinant": lambda v: v * jnp.linalg.det(matrix(v)) / 100,
    "cholesky": lambda v: jnp.linalg.cholesky(matrix(v)).sum(1),
    "eigenvalues": lambda v: jnp.linalg.eigvalsh(matrix(v)),
    "gradient": jax.grad(lambda v: jnp.sin(v).prod()),
    "gradient of pooling": jax.grad(lambda v: (nn.max_pool(v[None, :, None], (2,), (2,)) ** 2).sum()),
    "gradient of convolution": lambda v: jax.grad(lambda k: (jnp.convolve(v, k, "same") ** 2).sum())(v[:3]).sum() * v,
    "jacobian": lambda v: jax.jacfwd(lambda v: jnp.sin(v) * v[0])(v).sum(0),
    "rematerialised": jax.checkpoint(lambda v: jnp.sin(jnp.sin(v))),
    "jitted": jax.jit(lambda v: jnp.sin(v) * v.sum()),
    "own JVP": lambda v: sigmoid(v) * v.sum(),
    "own VJP": straight_through,
    "interpolation": lambda v: jnp.interp(v, jnp.arange(4.0), jnp.sin(v)),
    "noise": lambda v: v * jax.random.uniform(jax.random.key(0), (4,)),
    "barrier": lambda v: lax.optimization_barrier((v, jnp.sin(v)))[1],
    "special": lambda v: jax.scipy.special.erf(v) + lax.lgamma(v**2 + 1),
}  # fmt: skip
SAMPLES = draw(jnp.zeros((3, 4)), 7)


@pytest.mark.parametrize("sample", SAMPLE.values(), ids=SAMPLE)
def test_a_vmapped_function_passes_the_proof(sample):
    agree_with_vmap(sample)


def agree_with_vmap(sample):
    got, want = jax.jit(lambda x: (batch_jacobian(jax.vmap(sample))(x), jax.vmap(jax.jacrev(sample))(x)))(SAMPLES)
    assert_close(got, want, tol=1e-4)


@given(
    st.lists(st.sampled_from(sorted(SAMPLE)), min_size=2, max_size=4),
    st.sampled_from(["one", "two", "mapped", "axis 1"]),
)
@settings(deadline=None, derandomize=True, max_examples=8)
def test_vmapped_programs_pass_the_proof(names, how):
    def sample(v):
        return functools.reduce(lambda v, name: jnp.tanh(SAMPLE[name](v)), names, v)

    def run(x):
        if how == "two":  # a second vmapped axis behind the batch
            pair = batch_jacobian(jax.vmap(jax.vmap(sample)))(jnp.stack([x, x], 1))
            return pair[:, 0, :, 0] + pair[:, 1, :, 0]  # the second is zero
        if how == "axis 1":
            return batch_jacobian(jax.vmap(sample, 1, 1), in_axis=1, out_axis=-1)(x.T)
        return batch_jacobian(jax.vmap(sample) if how == "one" else lambda x: lax.map(sample, x))(x)

    assert_close(*jax.jit(lambda x: (run(x), jax.vmap(jax.jacrev(sample))(x)))(SAMPLES), tol=1e-3)


def test_a_vmapped_while_loop_passes_the_proof():
    def sample(v):
        return lax.while_loop(lambda c: jnp.sum(c[0] ** 2) > 0.5, lambda c: (c[0] * 0.7 * c[1], c[1] * 0.99), (v, 1.0))[
            0
        ]

    agree(jax.vmap(sample), SAMPLES, by=jax.jacfwd)


# ----------------------------------------------------------------------------------- where samples mix, it is said so


def batch_norm(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-3)


def attend(x):
    return jax.nn.softmax(x @ x.T) @ x


@jax.custom_vjp
def clipped(x):
    return x


def clip_rule(_, c):
    return (c / jnp.sqrt((c**2).sum()),)


clipped.defvjp(lambda x: (x, None), clip_rule)


@jax.custom_jvp
def centred(x):
    return jnp.sin(x)


@centred.defjvp
def _(primals, tangents):
    return centred(*primals), tangents[0] - tangents[0].mean(0)


MIXING = {  # function of a batch: what the message says
    "mean": (lambda x: jnp.sin(x) - x.mean(0), "reduce_sum reduces over the batch"),
    "batch norm in training": (lambda x: batch_norm(jnp.sin(x)), "reduce_sum reduces over the batch"),
    "attention over the batch": (lambda x: attend(jnp.sin(x)), "its operands hold the batch on axis 0 and axis 1"),
    "product with its transpose": (lambda x: x @ x.T @ jnp.ones((B, 2)), "on axis 0 and axis 1"),
    "weighted sum": (lambda x: x + jnp.ones((B, B)) @ x, "dot_general sums over the batch"),
    "maximum": (lambda x: x / x.max(), "reduce_max reduces over the batch"),
    "roll": (lambda x: jnp.roll(x, 1, 0), "moves or picks samples"),
    "flip": (lambda x: jnp.flip(x, 0), "rev reverses the batch"),
    "sort": (lambda x: jnp.sort(x, 0), "sort sorts along the batch"),
    "top_k": (lambda x: x + lax.top_k(x.T, 1)[0].T, "top_k picks the largest along the batch"),
    "cumsum": (lambda x: jnp.cumsum(x, 0), "cumsum accumulates along the batch"),
    "fft": (lambda x: jnp.abs(jnp.fft.fft(x, axis=0)), "fft transforms along the batch"),
    "first sample": (lambda x: x * x[:1], "moves or picks samples"),
    "permutation": (lambda x: x[jnp.array([1, 0, 3, 2])], "looks samples up by index"),
    "write": (lambda x: jnp.zeros((B, D)).at[jnp.array([1, 0, 3, 2])].set(x), "writes samples by index"),
    "look-up of windows": (lambda x: jax.vmap(lambda i: lax.dynamic_slice(x, (i, 0), (2, D)))(jnp.arange(2)).reshape(B, D), "gather takes 2 of the 4 entries"),
    "write of a window": (lambda x: jnp.zeros((8, D)).at[2:6].set(x).reshape(2, B, D).sum(0), "scatter takes 4 of the 8 entries"),
    "recurrence over samples": (lambda x: lax.scan(lambda c, v: (c + v, c * v), jnp.ones(D), x)[1], "carries each sample of the batch on"),
    "moving average": (lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "SAME"), "windows over several entries"),
    "convolution": (lambda x: lax.conv(x[None], jnp.ones((B, B, 1)), (1,), "SAME")[0], "convolves over the batch"),
    "merged axes": (lambda x: jnp.cumsum(x.reshape(-1)).reshape(B, D), "cumsum accumulates along the batch"),
    "loss over a loop": (lambda x: lax.scan(lambda c, _: (c - c.mean(0), None), x, length=2)[0], "reduce_sum reduces over the batch"),
    "matrix of samples": (lambda x: jnp.linalg.inv(x @ jnp.ones((D, B)) + 9 * jnp.eye(B)), "takes as part of a matrix the batch"),
    "own VJP that clips": (lambda x: clipped(jnp.sin(x)), "has a derivative rule of its own in which reduce_sum reduces over the batch"),
    "own JVP that centres": (lambda x: centred(jnp.sin(x)), "has a derivative rule of its own in which reduce_sum reduces over the batch"),
    "batch split over axes": (lambda x: x.reshape(2, 2, D).reshape(B, D), "splits the batch over several axes"),
    "no rule": (lambda x: jax.pure_callback(np.sin, x, x), "pure_callback is a primitive without a rule"),
    "library function": (lambda x: jax.nn.softmax(x, 0), "reduce_sum reduces over the batch"),
}  # fmt: skip


@pytest.mark.parametrize(("fun", "reason"), MIXING.values(), ids=MIXING)
def test_where_samples_mix_the_stage_operation_and_line_are_named(fun, reason):
    with pytest.raises(SamplesMixError, match=re.escape(reason)) as caught:
        batch_jacobian(fun)(X)
    message = str(caught.value)
    assert re.search(rf"in stage '[^'?]+', at {HERE}:\d+: ", message)
    assert "check=False" in message


def test_the_first_place_where_samples_mix_is_named():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(4, name="embed")(x))
            x = nn.BatchNorm(use_running_average=False, name="norm")(x)
            return nn.Dense(2, name="head")(x - x.mean(0))

    net, x = Net(), X
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    fun = functools.partial(net.apply, draw(params), mutable=["batch_stats"])
    with pytest.raises(SamplesMixError, match=rf"Samples mix in stage '.*norm.*', at {HERE}:"):
        batch_jacobian(lambda x: fun(x)[0])(x)


def test_what_is_printed_mixes_nothing():
    def fun(x):
        jax.debug.callback(lambda _: None, x.sum())
        return jax.vmap(lambda v: (jax.debug.callback(lambda _: None, v[0]), jnp.sin(v))[1])(x)

    agree(fun, X, mode="reverse")
    with pytest.raises(SamplesMixError, match="reduce_sum reduces over the batch"):
        batch_jacobian(lambda x: fun(x) * x.sum(0))(X)


def test_side_effects_are_refused_unless_nothing_is_to_be_proven():
    def fun(x):
        io_callback(lambda _: None, None, lax.stop_gradient(x.sum()))
        return jnp.sin(x)

    with pytest.raises(TypeError, match=rf"side effects.*io_callback at {HERE}:\d+"):
        batch_jacobian(fun)(X)
    assert_close(batch_jacobian(fun, check=False)(X), diagonal(jnp.sin, X))


def test_what_is_not_returned_may_mix():
    def fun(x):
        jnp.sort(x, 0).mean()
        return lax.scan(lambda c, _: (jnp.sin(c), c.mean()), x, length=3)[0]

    agree(fun, X)


UNPROVEN = {
    "batch split over axes": lambda x: x.reshape(2, 2, D).reshape(B, D) ** 2,
    "each sample by its index": lambda x: x[jnp.arange(B)] ** 2,
}


@pytest.mark.parametrize("fun", UNPROVEN.values(), ids=UNPROVEN)
def test_check_false_skips_the_proof(fun):
    with pytest.raises(ValueError, match="check=False"):
        batch_jacobian(fun)(X)
    agree(fun, X, check=False)


# ------------------------------------------------- soundness: where the proof accepts, every other block is exactly 0

SQUARE = {  # of a batch, (4, 4) to (4, 4)
    "sin": jnp.sin,
    "transpose": jnp.transpose,
    "dense": lambda x: x @ W,
    "dense over the batch": lambda x: W @ x,
    "product": lambda x: x @ x,
    "product with its transpose": lambda x: x @ x.T,
    "times its transpose": lambda x: x * x.T,
    "softmax": jax.nn.softmax,
    "centred over the batch": lambda x: x - x.mean(0),
    "centred over features": lambda x: x - x.mean(1, keepdims=True),
    "row sums as columns": lambda x: x + x.sum(1),
    "reshape": lambda x: jnp.cumsum(x.reshape(2, 8), 1).reshape(4, 4),
    "swap inside": lambda x: x.reshape(4, 2, 2).swapaxes(1, 2).reshape(4, 4),
    "swap outside": lambda x: x.reshape(2, 2, 4).swapaxes(0, 1).reshape(4, 4),
    "interleave": lambda x: jnp.repeat(x, 2, 0).reshape(4, 8)[:, 2:6],
    "tile": lambda x: jnp.tile(x, (2, 1)).reshape(2, 4, 4)[1],
    "tile and cut": lambda x: jnp.tile(x, (2, 1)).reshape(4, 8)[:, :4],
    "roll": lambda x: jnp.roll(x, 1, 1),
    "roll over the batch": lambda x: jnp.roll(x, 1, 0),
    "sort": lambda x: jnp.sort(x, 1),
    "cumsum over the batch": lambda x: jnp.cumsum(x, 0),
    "scan over the batch": lambda x: lax.scan(lambda c, v: (c * v, c + v), jnp.ones(4), x)[1],
    "scan over features": lambda x: lax.scan(lambda c, v: (c * v, c + v), jnp.ones(4), x.T)[1].T,
    "scan transposes": lambda x: lax.scan(lambda c, _: (jnp.sin(c.T), None), x, length=2)[0],
    "map over samples": lambda x: lax.map(lambda v: v * v.sum(), x),
    "map with all": lambda x: lax.map(lambda v: v * x[0], x),
    "map in map": lambda x: lax.map(lambda v: lax.map(lambda u: jnp.vdot(u, v), x), x),
    "map in map, turned": lambda x: lax.map(lambda v: lax.map(lambda u: jnp.vdot(u, v), x), x).T,
    "map in map, apart": lambda x: lax.map(lambda v: lax.map(lambda u: u * v.sum(), v), x),
    "depthwise convolution": lambda x: lax.conv_general_dilated(x[None], W[:, None, :2], (1,), "SAME", feature_group_count=4)[0],
    "grouped convolution": lambda x: lax.conv_general_dilated(x[None], jnp.ones((4, 2, 3)), (1,), "SAME", feature_group_count=2)[0],
    "convolution of channels": lambda x: lax.conv_general_dilated(x[:, None], x[:, None, :3], (1,), "SAME")[:, 0],
    "batch groups": lambda x: lax.conv_general_dilated(x[:, None], W[:, None, :3], (1,), "SAME", batch_group_count=4)[0],
    "batch groups of two": lambda x: jnp.tile(lax.conv_general_dilated(x[:, None], W[:, None, :3], (1,), "SAME", batch_group_count=2)[0], (1, 1)),
    "windows": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2), (1, 1), "SAME"),
    "look-up": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "look-up over the batch": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0),
    "columns": lambda x: x[:, jnp.array([2, 0, 1, 1])],
    "write columns": lambda x: x.at[:, 1:3].set(x[:, :2]),
    "write rows": lambda x: x.at[1:3].set(x[:2]),
    "solve": lambda x: jnp.linalg.solve(W + 5 * jnp.eye(4), x.T).T,
    "solve over the batch": lambda x: jnp.linalg.solve(W + 5 * jnp.eye(4), x),
    "while": lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0],
    "cond": lambda x: lax.cond(W[0, 0] > 0, jnp.sin, jnp.transpose, x),
}  # fmt: skip
APART = {"sin", "dense", "softmax", "centred over features", "swap inside", "roll", "sort", "scan over features", "map over samples", "map in map, apart", "depthwise convolution", "batch groups", "windows", "look-up", "columns", "write columns", "solve", "while", "tile", "interleave"}  # fmt: skip


def check_soundness(names):
    """Whether the proof accepts; if so, that jacrev's blocks off the diagonal are zeros, and ours those on it."""

    def fun(x):
        return functools.reduce(lambda x, name: SQUARE[name](x), names, x)

    by = jax.jacfwd if "while" in names else jax.jacrev
    try:
        got = batch_jacobian(fun)(W)
    except SamplesMixError:
        return False
    all_blocks = blocks(fun, W, by=by)
    off = all_blocks * (1 - jnp.eye(4))[:, :, None, None]
    assert not off.any(), names
    assert_close(got, all_blocks[(np.arange(4),) * 2], tol=1e-4)
    return True


@pytest.mark.parametrize("name", SQUARE)
def test_what_keeps_samples_apart_is_accepted_and_nothing_else(name):
    assert check_soundness([name]) == (name in APART)


@given(st.lists(st.sampled_from(sorted(SQUARE)), min_size=2, max_size=4))
@settings(deadline=None, derandomize=True, max_examples=80)
def test_where_the_proof_accepts_all_other_blocks_are_zero(names):
    accepted = check_soundness(names)
    assert accepted or not APART.issuperset(names)


@pytest.mark.parametrize("middle", ["dense over the batch", "sin", "softmax", "roll", "cumsum over the batch", "scan over features", "scan over the batch", "product", "centred over features", "sort"])  # fmt: skip
def test_a_transpose_and_back_is_followed(middle):
    check_soundness(["transpose", middle, "transpose"])


# ---------------------------------------------------------------------------------------------------------- bad input


REFUSED = {
    "unknown mode": (lambda: batch_jacobian(jnp.sin, mode="fast"), ValueError, "Known: auto, forward, reverse"),
    "chunk size": (lambda: batch_jacobian(jnp.sin, chunk_size=0), ValueError, "at least 1 or None, but 0 was given"),
    "argnums": (lambda: batch_jacobian(jnp.sin, 1)(X), ValueError, "names argument 1"),
    "input axis": (lambda: batch_jacobian(jnp.sin, in_axis=2)(X), ValueError, r"in_axis=2 is out of range for the input"),
    "output axis": (lambda: batch_jacobian(jnp.sin, out_axis=-3)(X), ValueError, r"out_axis=-3 is out of range"),
    "scalar": (lambda: batch_jacobian(jnp.sin)(0.5), ValueError, "in_axis=0 is out of range for the input"),
    "input sizes": (lambda: batch_jacobian(lambda x: x["a"])({"a": X, "b": X[:2]}), ValueError, r"disagree: 2 on axis 0 of the input\['b'\]"),
    "output size": (lambda: batch_jacobian(lambda _: jnp.ones((2, 2)))(X), ValueError, "disagree: 2 on axis 0 of the output"),
    "output size, unchecked": (lambda: batch_jacobian(lambda x: x[:2], check=False)(X), ValueError, "disagree: 2 on axis 0"),
    "wrong output axis": (lambda: batch_jacobian(lambda x: {"y": (x @ jnp.ones((D, B))).T})(X), ValueError, r"output\['y'\] holds the batch on axis 1, not on out_axis=0"),
    "joined output": (lambda: batch_jacobian(lambda x: jnp.repeat(x, 2, 0), check=True)(X), ValueError, "disagree: 8 on axis 0"),
    "loss": (lambda: batch_jacobian(lambda x: (x**2).mean())(X), SamplesMixError, "reduce_sum reduces over the batch"),
    "integers in": (lambda: batch_jacobian(jnp.sin)(jnp.arange(3)), TypeError, "Argument 0 is int32, which has no derivative"),
    "integers out": (lambda: batch_jacobian(lambda x: {"y": jnp.argmax(x, 1)})(X), TypeError, r"but the output\['y'\]"),
    "complex": (lambda: batch_jacobian(jnp.sin)(X + 1j), TypeError, "real floating-point"),
    "nothing": (lambda: batch_jacobian(lambda x: x)({}), TypeError, "The input holds no array"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "reason"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call, kind, reason):
    with pytest.raises(kind, match=reason):
        call()


def test_a_custom_vjp_that_leaves_only_reverse_mode_and_a_loop_that_leaves_only_forward_mode_run():
    w = draw(jnp.zeros((D, 7)))
    agree(lambda x: straight_through(x @ w), X)
    agree(
        lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0].sum(1),
        X,
        by=jax.jacfwd,
    )
