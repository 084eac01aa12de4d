"""A lens is the mean of explicit per-position Jacobians, whoever wrote the model, and nobody gets one that is not theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from functools import partial
from zipfile import ZipFile

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from flax import nnx

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.derivative import Pass
from jaxchain.lens.sample import Sweep, ending

POSITIONS, WIDTH, SKIP = 10, 4, 3
VALID = np.arange(SKIP, POSITIONS - 1)
NET = jc.nets.transformer((3, WIDTH, 5), depth=2, heads=2)
RESIDUAL = NET[: NET.position("mlp_1") + 1]
PARAMS = NET.init(jax.random.key(0))
STATES = NET.names_with_input[:5]


def sample(k, positions=POSITIONS):
    return jnp.asarray(np.random.default_rng(k).normal(size=(positions, 3)), jnp.float32)


INPUTS = [(PARAMS, sample(k)) for k in range(5)]
fit = partial(jc.lens.fit, skip_first=SKIP)


@pytest.fixture(scope="module")
def whole():
    return fit(RESIDUAL, INPUTS)


@jax.jit
def every_pair(params, x):
    """∂x_q[p′, :]/∂x_k[p, :] for every state and every pair of positions."""
    states = jc.reverse_sweep(RESIDUAL, (params, x), jnp.zeros((POSITIONS, WIDTH))).primals
    return [jax.jacrev(lambda state, k=k: RESIDUAL[k:](params, state))(states[k]) for k in range(len(STATES))]


def by_hand(args, valid=VALID):
    return [np.asarray(pairs, np.float64)[valid][:, :, valid].sum(0).mean(1) for pairs in every_pair(*args)]


def assert_same(lens, other, *, bits=False):
    assert list(lens.jacobians) == list(other.jacobians)
    assert lens.count == other.count
    for kind in ("jacobians", "standard_errors"):
        for one, two in zip(getattr(lens, kind).values(), getattr(other, kind).values(), strict=True):
            (np.testing.assert_array_equal if bits else partial(np.testing.assert_allclose, atol=2e-6))(one, two)


# ------------------------------------------------------------------------------------------------------- the estimator


def test_a_lens_is_the_mean_of_explicit_jacobians_between_valid_positions(whole):
    samples = list(zip(*map(by_hand, INPUTS), strict=True))
    assert list(whole.jacobians) == list(STATES)
    for each, mean, error in zip(samples, whole.jacobians.values(), whole.standard_errors.values(), strict=True):
        scale = np.abs(np.mean(each, 0)).max()
        np.testing.assert_allclose(mean, np.mean(each, 0), atol=1e-5 * scale)
        np.testing.assert_allclose(error, np.std(each, 0, ddof=1) / np.sqrt(len(each)), atol=1e-5 * scale)


def test_chunks_and_chosen_states_change_no_number(whole):
    some = fit(NET, INPUTS[:2], until="mlp_1", stages=["attention_*", "input"], chunk_size=3)
    assert list(some.jacobians) == ["input", "attention_0", "attention_1"]
    want = fit(RESIDUAL, INPUTS[:2], chunk_size=None)
    for name, jacobian in some.jacobians.items():
        np.testing.assert_allclose(jacobian, want.jacobians[name], atol=1e-6)


def test_large_reductions_are_right_in_chunks_of_any_size():
    """Fused ones of jaxlib 0.10.2 and 0.11.0 are not (jax-ml/jax issue 39103)."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 128)), jnp.float32)
    norm = jc.Chain([jc.Stage("norm", lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True)))])
    rows = np.asarray(x, np.float64)[SKIP:-1]
    scale = np.sqrt(np.mean(rows**2, -1))[:, None, None]
    each = (np.eye(128) - rows[:, :, None] * rows[:, None, :] / (128 * scale**2)) / scale
    for size in (8, None):
        np.testing.assert_allclose(fit(norm, [(x,)], chunk_size=size).jacobians["input"], each.mean(0), atol=1e-6)


def test_of_linear_blocks_it_is_the_product_of_one_plus_each():
    blocks = [np.random.default_rng(k).normal(size=(WIDTH, WIDTH)) for k in range(3)]
    names = [f"block_{k}" for k in range(3)]
    chain = jc.Chain([jc.Stage(name, lambda x, w=w: x + x @ w.T) for name, w in zip(names, blocks, strict=True)])
    lens = fit(chain, [(jnp.ones((8, WIDTH)) * k,) for k in range(3)])
    product = np.eye(WIDTH)
    for name, block in zip(["block_1", "block_0", "input"], reversed(blocks), strict=True):
        product = product @ (np.eye(WIDTH) + block)
        np.testing.assert_allclose(lens.jacobians[name], product, rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(lens.standard_errors[name], 0, atol=1e-6)


def test_what_mixes_positions_is_summed_over_targets_and_averaged_over_sources():
    mixing = np.random.default_rng(0).normal(size=(6, 6))
    lens = jc.lens.fit(lambda x: mixing @ x, [(jnp.ones((6, 2)),)], skip_first=2)
    np.testing.assert_allclose(lens.jacobians["input"], mixing[2:5, 2:5].sum(0).mean() * np.eye(2), rtol=1e-5)


def test_all_states_cost_what_the_earliest_alone_costs():
    net = jc.nets.transformer((16, 32, 5), depth=2, heads=2)
    args = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((24, 16), jnp.float32)
    valid = jax.ShapeDtypeStruct((24,), bool)
    for chunk in (None, 8):  # whose trips are counted
        every, one = (
            flops(Sweep.of(ending(net, args, None, "mlp_1"), args, stages, Pass(chunk)).run, args, valid)
            for stages in (None, ("input",))
        )
        assert one > 5e6
        assert every <= 1.05 * one


def test_a_sweep_costs_one_pull_for_each_output_direction():
    args, valid = INPUTS[0], np.ones(POSITIONS, bool)
    sweep = Sweep.of(RESIDUAL, args, None, Pass(None))
    ours = flops(sweep.run, args, valid)
    pull = jax.vmap(lambda c: jax.vjp(partial(RESIDUAL, PARAMS), args[1])[1](c)[0])
    peer = flops(pull, jnp.ones((WIDTH, POSITIONS, WIDTH)))
    assert ours <= 1.15 * peer  # means over positions, and whether all is finite


# --------------------------------------------------------------------------------------------------- masks and positions


def test_padding_counts_for_nothing():
    def model(params, keep, x):
        x = jnp.where(keep[:, None], x, jnp.nan)  # so that whatever is looked at shows
        return x + jnp.tanh(x @ params)

    weights, keep = jnp.eye(3), np.arange(POSITIONS) < 8
    padded = fit(model, [(weights, keep, sample(0))], mask=1)
    short = fit(model, [(weights, keep[:8], sample(0)[:8])])
    np.testing.assert_allclose(padded.jacobians["input"], short.jacobians["input"], rtol=1e-6)


def test_padding_may_stand_to_the_left():
    keep = np.arange(POSITIONS) >= 2
    masked = fit(RESIDUAL, INPUTS[:1], mask=lambda params, x: keep)
    for name, want in zip(STATES, by_hand(INPUTS[0], np.arange(SKIP + 2, POSITIONS - 1)), strict=True):
        np.testing.assert_allclose(masked.jacobians[name], want, atol=1e-5)


def test_samples_of_several_lengths_are_averaged_alike():
    mixed = fit(RESIDUAL, [INPUTS[0], (PARAMS, sample(1, 8))])
    parts = [fit(RESIDUAL, [args]) for args in (INPUTS[0], (PARAMS, sample(1, 8)))]
    for name, jacobian in mixed.jacobians.items():
        np.testing.assert_allclose(jacobian, sum(part.jacobians[name] for part in parts) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"skip_first": 9}, r"Sample 0 has 10 positions, but skip_first=9 and the last one.*more than 10 are needed"),
        ({"mask": lambda *_: np.zeros(POSITIONS, bool)}, "The mask leaves out all 10 positions of sample 0"),
        ({"mask": lambda *_: np.arange(POSITIONS) < 4}, "Sample 0 has 4 of 10 positions that the mask keeps"),
        ({"mask": lambda *_: np.ones(3, bool)}, r"as 10 booleans, but for sample 0 its shape is \(3,\)"),
        ({"mask": lambda *_: np.arange(POSITIONS)}, "or zeros and ones"),
        ({"mask": 7}, "argnum=7 names no argument"),
    ],
    ids=["skip_first", "nothing", "too few", "shape", "numbers", "no argument"],
)
def test_positions_that_leave_none_are_refused_with_how_many_there_were(options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        fit(RESIDUAL, INPUTS[:1], **options)


# --------------------------------------------------------------------------------------- interrupted, resumed and merged

SCRIPT = """
    import os, sys, numpy as np, jax, jax.numpy as jnp
    import jaxchain as jc

    net = jc.nets.transformer((3, 4, 5), depth=2, heads=2)
    params = net.init(jax.random.key(0))

    def inputs():
        for k in range(4):
            if k == 3:
                os.kill(os.getpid(), 9)
            yield params, jnp.asarray(np.random.default_rng(k).normal(size=(10, 3)), jnp.float32)

    jc.lens.fit(net, inputs(), until="mlp_1", skip_first=3, checkpoint_dir=sys.argv[1], checkpoint_every=2)
"""


def in_another_process(script, *args, **environment):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_fit_that_was_killed_goes_on_to_the_same_bits(tmp_path, whole):
    killed = in_another_process(SCRIPT, tmp_path)
    assert killed.returncode == -9, killed.stderr
    kept = jc.lens.load(tmp_path / "lens.npz")
    assert kept.count == 2
    gone_on = fit(RESIDUAL, INPUTS, checkpoint_dir=tmp_path)
    assert gone_on.samples == whole.samples
    assert gone_on.model == whole.model == kept.model
    assert_same(gone_on, whole, bits=True)


def test_a_checkpoint_is_gone_on_from_by_more_samples(tmp_path, whole):
    first = fit(RESIDUAL, INPUTS[:3], checkpoint_dir=tmp_path)
    assert first.count == 3
    assert_same(fit(RESIDUAL, iter(INPUTS), checkpoint_dir=tmp_path), whole, bits=True)
    assert_same(jc.lens.load(tmp_path / "lens.npz"), whole, bits=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lens.npz"]


def test_samples_before_an_interruption_are_kept(tmp_path):
    def interrupted():
        yield from INPUTS[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(RESIDUAL, interrupted(), checkpoint_dir=tmp_path)
    assert jc.lens.load(tmp_path / "lens.npz").count == 3


@pytest.mark.parametrize("cut", [1, 2])
def test_lenses_of_disjoint_slices_merge_to_the_whole(whole, cut):
    parts = [fit(RESIDUAL, part) for part in (INPUTS[:cut], INPUTS[cut:4], INPUTS[4:])]
    merged = jc.lens.merge(*parts)
    assert merged.samples == whole.samples
    assert_same(merged, whole)
    assert_same(jc.lens.merge(jc.lens.merge(*parts[1:]), parts[0]), whole)


def test_what_is_saved_is_loaded_to_the_bit(tmp_path, whole):
    path = whole.save(tmp_path / "new" / "lens")
    assert_same(jc.lens.load(path), whole, bits=True)
    assert jc.lens.load(path).model == whole.model


OTHER = jax.tree.map(lambda leaf: leaf * 1.5, PARAMS)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (lambda: {"inputs": [(OTHER, x) for _, x in INPUTS]}, "another model: its parameters have other values"),
        (lambda: {"inputs": INPUTS[1:]}, "its sample 0 is not the one given now"),
        (lambda: {"inputs": INPUTS[:1]}, "it has seen 3 samples, but inputs gives only 1"),
        (lambda: {"skip_first": SKIP - 1}, "skip_first=3"),
        (lambda: {"mask": lambda *_: np.arange(POSITIONS) < 9}, "its sample 0 is not the one given now"),
        (lambda: {"stages": "embed"}, "its states are input, embed"),
        (lambda: {"chain": RESIDUAL[:-1]}, "another model: its program is another"),
    ],
)
def test_a_checkpoint_of_another_call_is_refused_and_left_alone(tmp_path, again, said):
    fit(RESIDUAL, INPUTS[:3], checkpoint_dir=tmp_path)
    before = (tmp_path / "lens.npz").read_bytes()
    with pytest.raises(ValueError, match=f"is not of this call: .*{said}"):
        fit(**{"chain": RESIDUAL, "inputs": INPUTS, "checkpoint_dir": tmp_path, **again()})
    assert (tmp_path / "lens.npz").read_bytes() == before


def damaged(path):
    content = path.read_bytes()
    yield "is damaged or cut short", content[: len(content) // 2]
    yield "is damaged or cut short", b""
    middle = len(content) // 3
    yield "is damaged or cut short", content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    yield "is no lens", b"some text that someone wrote"
    for name, arrays in {"other": {"w": np.ones(3)}, "pickled": {"told": np.array([{}], object)}}.items():
        np.savez(path.parent / f"{name}.npz", **arrays)
        yield "is no lens", (path.parent / f"{name}.npz").read_bytes()
        (path.parent / f"{name}.npz").unlink()


def test_what_is_cut_short_or_foreign_is_refused_with_the_reason(tmp_path, whole):
    path = whole.save(tmp_path / "lens.npz")
    for said, content in list(damaged(path)):
        path.write_bytes(content)
        for read in (lambda: jc.lens.load(path), lambda: fit(RESIDUAL, INPUTS, checkpoint_dir=tmp_path)):
            with pytest.raises(ValueError, match=said):
                read()
        assert path.read_bytes() == content


def test_a_file_of_another_format_is_refused(tmp_path, whole):
    path = whole.save(tmp_path / "lens.npz")
    with ZipFile(path) as found:
        assert not any(name.endswith(".pkl") for name in found.namelist())
    arrays = dict(np.load(path))
    told = json.loads(bytes(arrays["told"]).decode()) | {"kind": "jaxchain lens, 99"}
    np.savez(path, **{**arrays, "told": np.frombuffer(json.dumps(told).encode(), np.uint8)})
    with pytest.raises(ValueError, match="it says it is 'jaxchain lens, 99'"):
        jc.lens.load(path)
    with pytest.raises(FileNotFoundError, match="There is no lens at"):
        jc.lens.load(tmp_path / "nothing.npz")


def test_lenses_that_are_not_parts_of_one_are_not_merged(whole):
    one = fit(RESIDUAL, INPUTS[:2])
    refused = {
        "2 samples of it are in the others": one,
        "it is of another model: its parameters": fit(RESIDUAL, [(OTHER, sample(9))]),
        "skip_first=1": jc.lens.fit(RESIDUAL, [(PARAMS, sample(9))], skip_first=1),
        "it reads input, embed": fit(RESIDUAL[:-1], [(PARAMS, sample(9))]),
    }
    for said, lens in refused.items():
        with pytest.raises(ValueError, match=f"Lens 2 of those to merge .*{said}"):
            jc.lens.merge(whole, lens)


# ---------------------------------------------------------------------------------------------------------- staleness


def test_a_lens_is_for_its_own_model_alone(whole):
    whole.check(NET, INPUTS[0])
    whole.check(NET, (PARAMS, sample(7, 20)))  # of another length
    states = whole.states(NET, INPUTS[0])
    assert list(states) == [*STATES, "mlp_1"]
    want = jax.jit(lambda args: jc.forward_sweep(RESIDUAL, args, args[-1]).primals)(INPUTS[0])
    assert_close(tuple(states.values()), want)
    with pytest.raises(ValueError, match=r"This lens is stale: .* its parameters have other values"):
        whole.states(NET, (OTHER, sample(0)))
    with pytest.raises(ValueError, match=r"This lens is stale: .* it has no state 'mlp_1'"):
        whole.check(NET[:3], INPUTS[0])
    wider = jc.nets.transformer((3, WIDTH, 5), depth=2, heads=1)
    with pytest.raises(ValueError, match=r"This lens is stale: .* its program is another"):
        whole.check(wider, INPUTS[0])


def test_a_model_that_closes_over_its_parameters_is_known_by_them():
    def closing(w):
        return lambda x: x + jnp.tanh(x @ w)

    inputs = [(sample(0),), (sample(1, 8),)]
    lens = fit(closing(jnp.eye(3)), inputs)
    lens.check(closing(jnp.eye(3)), inputs[0])
    with pytest.raises(ValueError, match="arrays that it closes over have other values"):
        lens.check(closing(2 * jnp.eye(3)), inputs[1])
    with pytest.raises(ValueError, match="can only be compared at samples of the same shape"):
        lens.check(closing(jnp.eye(3)), (sample(0, 20),))


def test_parameters_that_change_between_samples_are_refused():
    with pytest.raises(ValueError, match="Sample 1 is of another model than those before: its parameters"):
        fit(RESIDUAL, [(PARAMS, sample(0)), (OTHER, sample(1))])
    written = jax.tree.map(np.array, PARAMS)  # in place, by an optimiser of NumPy's

    def training():
        yield written, sample(0)
        written["embed"]["b"] += 1
        yield written, sample(1)

    with pytest.raises(ValueError, match="Sample 1 is of another model"):
        fit(RESIDUAL, training())


# ------------------------------------------------------------------------------------------------------------- randomness


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        for k in range(2):
            x = x + nn.Dropout(0.5, deterministic=not train)(jnp.tanh(nn.Dense(3, name=f"dense_{k}")(x)))
        return x


def test_randomness_of_the_models_own_is_refused_and_keys_that_are_given_are_not():
    model, x = Dropped(), sample(0)
    variables = model.init(jax.random.key(0), x, train=False)

    def own(variables, x):
        return model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(3)})

    def given(variables, key, x):
        return model.apply(variables, x, train=True, rngs={"dropout": key})

    def off(variables, x):
        return model.apply(variables, x, train=False)

    with pytest.raises(ValueError, match=r"draws random numbers \(.* from a key that is none of its arguments"):
        fit(own, [(variables, x)])
    drawn = [fit(given, [(variables, jax.random.key(k), x)]) for k in range(2)]
    assert fit(given, [(variables, jax.random.key(k), x) for k in range(2)]).count == 2
    assert not np.allclose(*(lens.jacobians["input"] for lens in drawn))
    jc.lens.merge(*drawn)  # other keys are other samples
    assert fit(off, [(variables, x)]).count == 1


def test_randomness_inside_loops_branches_and_rules_is_found():
    key = jax.random.key(0)

    def noisy(x, key=key):
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    @jax.custom_jvp
    def ruled(x):
        return noisy(x)

    ruled.defjvp(lambda primals, tangents: (ruled(*primals), noisy(*tangents)))
    models = {
        "scan": lambda x: jax.lax.scan(lambda c, k: (c + noisy(c, jax.random.fold_in(key, k)), None), x, np.arange(3))[
            0
        ],
        "cond": lambda x: x + jax.lax.cond(x[0, 0] > 0, noisy, lambda x: x, x),
        "rule": lambda x: x + ruled(x),
        "jit": lambda x: x + jax.jit(noisy)(x),
        "remat": lambda x: x + jax.checkpoint(noisy)(x),
    }
    for name, model in models.items():
        with pytest.raises(ValueError, match="draws random numbers"):
            fit(model, [(sample(0),)])
        assert name
    unread = lambda x: (jax.random.normal(key), 2 * x)[1]  # noqa: E731
    assert fit(unread, [(sample(0),)]).count == 1


# ------------------------------------------------------------------------------------------------------ whoever wrote it


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        return x + nn.Dense(WIDTH, name="down")(nn.gelu(nn.Dense(8, name="up")(nn.LayerNorm()(x))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(7, WIDTH)(tokens)
        for k in range(2):
            x = Block(name=f"block_{k}")(x)
        return nn.Dense(7, name="unembed")(nn.LayerNorm(name="norm")(x))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, WIDTH, rngs=rngs, decode=False)
        self.mlp = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.mlp(nnx.gelu(x))


class EquinoxBlock(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, WIDTH, key=one)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 6, 1, key=two)

    def __call__(self, x):
        x = x + self.attention(x, x, x)
        return x + jax.vmap(self.mlp)(x)


def linen():
    tokens = jnp.arange(POSITIONS)[None] % 7  # with the axis of samples that Flax models want
    model = Linen()
    return model.apply, (model.init(jax.random.key(0), tokens), tokens), "block_1/add_1"


def of_nnx():
    graph, state = nnx.split([NnxBlock(nnx.Rngs(k)) for k in range(2)])

    def model(state, x):
        for block in nnx.merge(graph, state):
            x = block(x)
        return x

    return model, (state, jnp.asarray(np.random.default_rng(0).normal(size=(1, POSITIONS, WIDTH)), jnp.float32)), None


def of_equinox():
    blocks = [EquinoxBlock(jax.random.key(k)) for k in range(2)]
    params, rest = eqx.partition(blocks, eqx.is_inexact_array)

    def model(params, x):
        for block in eqx.combine(params, rest):
            x = block(x)
        return x

    return model, (params, jnp.asarray(np.random.default_rng(0).normal(size=(POSITIONS, WIDTH)), jnp.float32)), None


@pytest.mark.parametrize("build", [linen, of_nnx, of_equinox], ids=["linen", "nnx", "equinox"])
def test_models_that_others_wrote_have_a_lens_equal_to_explicit_jacobians(build):
    model, args, until = build()
    chain = jc.discover(model, *args)
    if until is not None:
        until = [
            name
            for name, row in zip(chain.names, chain.rows, strict=True)
            if row.out_shape == f"f32[1,{POSITIONS},{WIDTH}]" and name.startswith("block_1")
        ][-1]
    lens = fit(model, [args], until=until)
    part = chain if until is None else chain[: chain.position(until) + 1]
    assert len(lens.jacobians) == len(part) >= 4
    (state, sides), whole = part.split(*args), None
    for k, name in enumerate(part.names_with_input[:-1]):
        if k in (0, 2):

            def tail(state, k=k):
                for stage, side in zip(part[k:], sides[k:], strict=True):
                    state = stage(*side, state)
                return state.reshape(POSITIONS, WIDTH)

            pairs = jax.jit(jax.jacrev(tail))(state).reshape(POSITIONS, WIDTH, POSITIONS, WIDTH)
            whole = np.asarray(pairs)[VALID][:, :, VALID].sum(0).mean(1)
            np.testing.assert_allclose(lens.jacobians[name], whole, atol=1e-5)
        state = part[k](*sides[k], state)


# ------------------------------------------------------------------------------------------------------------- precision


def test_bfloat16_states_are_averaged_in_float32(whole):
    half = jc.nets.transformer((3, WIDTH, 5), depth=2, heads=2, dtype=jnp.bfloat16)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    lens = fit(half, [(params, x.astype(jnp.bfloat16)) for _, x in INPUTS], until="mlp_1")
    for name, jacobian in lens.jacobians.items():
        assert jacobian.dtype == jnp.float32
        np.testing.assert_allclose(jacobian, whole.jacobians[name], atol=0.15)
    state = jnp.ones((2, WIDTH), jnp.bfloat16)
    assert lens.apply(state, "embed").dtype == jnp.bfloat16


def test_float64_is_kept_and_not_read_as_float32(tmp_path, whole):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), PARAMS)
        double = jc.nets.transformer((3, WIDTH, 5), depth=2, heads=2, dtype=jnp.float64)
        lens = fit(double, [(params, jnp.asarray(x, jnp.float64)) for _, x in INPUTS], until="mlp_1")
        path = lens.save(tmp_path / "lens.npz")
        assert_same(jc.lens.load(path), lens, bits=True)
    for name, jacobian in lens.jacobians.items():
        assert jacobian.dtype == jnp.float64
        np.testing.assert_allclose(jacobian, whole.jacobians[name], atol=1e-5)
    with pytest.raises(ValueError, match="jax_enable_x64"):
        jc.lens.load(path)


# --------------------------------------------------------------------------------------------------------------- reading


def test_a_state_is_read_as_the_unembedding_of_its_transported_self(whole):
    states, unembed = whole.states(NET, INPUTS[0]), partial(NET[5:], PARAMS)
    read = whole.apply(states["embed"], "embed", unembed)
    want = unembed(states["embed"] @ whole.jacobians["embed"].T)
    np.testing.assert_allclose(read, want, rtol=1e-5)
    np.testing.assert_allclose(
        whole.apply(states["embed"][4], "embed"), states["embed"][4] @ whole.jacobians["embed"].T, rtol=1e-5
    )
    end = whole.apply(states["mlp_1"], "mlp_1", unembed)
    np.testing.assert_array_equal(end, jc.lens.logit(states["mlp_1"], unembed))
    np.testing.assert_allclose(end, NET(*INPUTS[0]), rtol=1e-5, atol=1e-6)


def test_a_lens_goes_through_jit_vmap_and_grad(whole):
    state = jnp.ones((3, POSITIONS, WIDTH))
    apply = jax.jit(lambda lens, state: lens.apply(state, "embed"))
    np.testing.assert_allclose(apply(whole, state), whole.apply(state, "embed"), rtol=1e-6)
    each = jax.vmap(lambda state: whole.apply(state, "embed"))(state)
    np.testing.assert_allclose(each, whole.apply(state, "embed"), rtol=1e-6)
    slope = jax.grad(lambda state: whole.apply(state, "embed")[0])(jnp.ones(WIDTH))
    np.testing.assert_allclose(slope, whole.jacobians["embed"][0], rtol=1e-6)


def test_a_lens_shows_what_it_knows(whole):
    assert repr(whole) == "Lens(5 states to mlp_1, 5 samples)"
    text = str(whole)
    assert "Jacobian lens on mlp_1, from 5 samples" in text
    assert "cos(J, I)" in whole._repr_html_()
    row = whole.rows[1]
    assert (row.name, row.shape) == ("embed", (WIDTH, WIDTH))
    jacobian = np.asarray(whole.jacobians["embed"])
    assert row.norm == pytest.approx(np.linalg.norm(jacobian))
    assert row.likeness == pytest.approx(np.trace(jacobian) / np.linalg.norm(jacobian) / 2)
    assert np.isnan(fit(RESIDUAL, INPUTS[:1]).rows[0].error)


# ------------------------------------------------------------------------------------------------------------ malformed


@pytest.mark.parametrize(
    ("chain", "inputs", "options", "said"),
    [
        (RESIDUAL, [], {}, "inputs gives no sample"),
        (RESIDUAL, [sample(0)], {}, "Sample 0: args is the tuple"),
        (RESIDUAL, [(PARAMS, "x")], {}, "Sample 0: Argument 1 is 'x', which is not an array"),
        (RESIDUAL, {"a": 1}, {}, "inputs gives tuples"),
        (RESIDUAL, 3, {}, "inputs gives tuples"),
        (jnp.sin, [(jnp.ones(3),)], {}, r"the chain ends in 'sin.*', f32\[3\].*This one has no state"),
        (lambda x: jnp.sin(x).sum(1), [(jnp.ones((20, 3)),)], {}, "the last state of its residual stream: until=.* until='sin"),
        (jnp.sin, [(jnp.ones((8, 20, 3)),)], {}, "looks like 8 samples. Give one at a time"),
        (lambda x: jnp.ones((20, 2)) * x.sum(), [(jnp.ones((7, 3)),)], {}, "No state before .* has its 20 positions"),
        (RESIDUAL, INPUTS, {"until": "mlp_9"}, "No stage is named 'mlp_9'. Nearest: mlp_"),
        (RESIDUAL, INPUTS, {"stages": "block_*"}, "No state with the output's positions is named 'block_\\*'"),
        (RESIDUAL, INPUTS, {"stages": 3}, "stages are patterns"),
        (RESIDUAL, INPUTS, {"skip_first": -1}, "skip_first is how many positions"),
        (RESIDUAL, INPUTS, {"chunk_size": 0}, "chunk_size is how many"),
        (RESIDUAL, INPUTS, {"checkpoint_every": 0}, "checkpoint_every is after how many samples"),
        (RESIDUAL, INPUTS, {"sharding": "x"}, "sharding is a jax.sharding.Mesh"),
        (RESIDUAL, INPUTS, {"mask": "x"}, "mask is a function of args or an argument's position"),
    ],
)  # fmt: skip
def test_what_no_lens_can_be_fitted_to_is_refused(chain, inputs, options, said):
    with pytest.raises((TypeError, ValueError, KeyError), match=said):
        jc.lens.fit(chain, inputs, **options)


def test_what_is_not_finite_is_named_by_state_and_sample_and_the_others_are_kept(tmp_path):
    inputs = [(PARAMS, sample(0)), (PARAMS, sample(1)), (PARAMS, sample(2).at[5, 0].set(jnp.nan))]
    with pytest.raises(ValueError, match="At sample 2 the state 'input' is not finite"):
        fit(RESIDUAL, inputs, checkpoint_dir=tmp_path)
    assert_same(jc.lens.load(tmp_path / "lens.npz"), fit(RESIDUAL, inputs[:2]), bits=True)
    root = jc.Chain(
        [jc.Stage("sine", jnp.sin), jc.Stage("root", lambda x: x + jnp.sqrt(x)), jc.Stage("line", lambda x: 2 * x)]
    )
    with pytest.raises(ValueError, match="At sample 0 ∂line/∂sine is not finite, though all states are"):
        fit(root, [(jnp.zeros((8, 2)),)])


def test_states_and_stages_that_a_lens_does_not_have_are_refused(whole):
    with pytest.raises(KeyError, match=r"No state of this lens is named 'mlp_7'. Nearest: mlp_"):
        whole.apply(jnp.ones(WIDTH), "mlp_7")
    with pytest.raises(ValueError, match=r"State 'embed' is 4 wide, but what was given is f32\[5\]"):
        whole.apply(jnp.ones(5), "embed")
    with pytest.raises(TypeError, match="A state is an array of real numbers"):
        whole.apply("x", "embed")
    with pytest.raises(TypeError, match="unembed is a function"):
        whole.apply(jnp.ones(WIDTH), "embed", 3)
    with pytest.raises(TypeError, match="unembed is a function"):
        jc.lens.logit(jnp.ones(WIDTH), None)


# -------------------------------------------------------------------------------------------------------------- devices

DEVICES = """
    import json, jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    import jaxchain as jc
    from jaxchain.cost.measure import flops
    from jaxchain.derivative import Pass
    from jaxchain.lens.sample import Sweep

    net, valid, found = jc.nets.transformer((16, 32, 32), depth=1, heads=2), (np.arange(12) > 1) & (np.arange(12) < 11), []
    args = net.init(jax.random.key(0)), jnp.asarray(np.random.default_rng(0).normal(size=(12, 16)), jnp.float32)
    sweep = lambda how: Sweep.of(net[:3], args, None, how)
    work, want = flops(sweep(Pass()).run, args, valid), sweep(Pass())(args, valid).jacobians
    for kind in (AxisType.Auto, AxisType.Explicit):
        where = NamedSharding(jax.make_mesh((4,), ("rows",), axis_types=(kind,)), PartitionSpec("rows"))
        for chunk in (None, 8) if kind == AxisType.Auto else (12,):  # of 32 rows 8 are left over
            lens = jc.lens.fit(net[:3], [args] * 2, skip_first=2, sharding=where, chunk_size=chunk)
            gaps = [jnp.abs(j - want[name]).max() for name, j in lens.jacobians.items()]
            share = 0 if chunk == 12 else flops(sweep(Pass(chunk, where)).run, args, valid) / work
            found.append((float(max(gaps)), share))
    print(json.dumps(found))
"""


def test_a_basis_over_four_devices_gives_the_same_lens():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    run = in_another_process(DEVICES, XLA_FLAGS=flags)
    assert run.returncode == 0, run.stderr
    for error, share in json.loads(run.stdout):
        assert error < 1e-5
        assert share < 1.4 / 4
