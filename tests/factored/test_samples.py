"""Every sample's gradient, norm and moment is what accumulation says; samples that mix are refused; so is what is no loss."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from jax import lax
from losses import LOSSES, accumulated, assert_samples
from models import MODELS, of_linen, some

import jaxchain as jc

PARAMS = {"w": jnp.array([[1.0, -0.5], [0.5, 2.0], [0.0, 1.0]]), "b": jnp.array([0.1, -0.2])}
X, Y = jnp.arange(12.0).reshape(4, 3) / 12, jnp.ones((4, 2))
BATCH = (X, Y)


def loss(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"]) - y) ** 2)


# ------------------------------------------------------------------------------------------------ equal to accumulation


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_gradients_norms_and_moments_are_those_of_accumulated_gradients(case):
    assert_samples(case.fun, *case.args())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_they_are_so_for_models_of_other_frameworks(name):
    model, params, x = MODELS[name]()
    assert_samples(lambda params, x: jnp.mean(jnp.sin(model(params, x))), params, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "net", [jc.nets.residual_net([3, 4, 2], 1), jc.nets.transformer((3, 4, 2), 1, 2)], ids=["residual", "transformer"]
)
def test_they_are_so_for_networks_of_ones_own(net):
    params = jax.tree.map(lambda leaf: some(*leaf.shape), jax.eval_shape(net.init, jax.random.key(0)))
    x = some(3, 3) if net.names[0] != "embed" else some(3, 4, 3)
    assert_samples(lambda p, x: jnp.mean(jax.vmap(net, (None, 0))(p, x) ** 2), params, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk_size", [1, 3, 4, 9])
def test_chunks_change_nothing(chunk_size):
    whole, parts = (
        jax.jit(
            lambda p, b, c=c: (
                jc.sample_gradients(loss, p, b, chunk_size=c),
                jc.sample_gradient_norms(loss, p, b, chunk_size=c),
            )
        )(PARAMS, BATCH)
        for c in (None, chunk_size)
    )
    assert_close(parts, whole)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_parameters_dtypes_and_norms_single_precision(dtype):
    params, batch = jax.tree.map(lambda leaf: leaf.astype(dtype), (PARAMS, BATCH))
    gradients, norms = jax.jit(lambda p, b: (jc.sample_gradients(loss, p, b), jc.sample_gradient_norms(loss, p, b)))(
        params, batch
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(dtype)}
    assert norms.whole.dtype == jnp.float32
    exact = accumulated(loss, PARAMS, BATCH)
    tol = 8 * float(jnp.finfo(dtype).eps)
    assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients), exact, tol)
    assert_close(
        norms.whole, jnp.sqrt(sum(jnp.sum(leaf.reshape(4, -1) ** 2, 1) for leaf in jax.tree.leaves(exact))), tol
    )


@pytest.mark.usefixtures("x64")
def test_norms_have_the_leaves_own_precision_whatever_the_loss_computes_in():
    def mixed(params, batch):
        x, y = batch
        return jnp.mean((jnp.tanh(x @ params["w"]).astype(jnp.float64) + params["b"] - y) ** 2)

    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, BATCH))
    params["w"] = params["w"].astype(jnp.bfloat16)
    norms = jax.eval_shape(lambda p, b: jc.sample_gradient_norms(mixed, p, b), params, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(norms)} == {jnp.dtype(jnp.float32)}


def test_a_cast_on_the_way_keeps_the_parameters_own_dtype():
    def mixed(params, batch):
        low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, batch))
        return loss(*low).astype(jnp.float32)

    gradients = jc.sample_gradients(mixed, PARAMS, BATCH)
    assert_close(gradients, accumulated(mixed, PARAMS, BATCH), 0.03)


@pytest.mark.usefixtures("x64")
def test_complex_parameters_have_gradients_as_jax_has_them():
    def energy(p, x):
        return jnp.mean(jnp.abs(jnp.exp(1j * x) @ p["w"] * p["s"] + p["b"]) ** 2)

    params = {"w": some(3, 2) + 1j * some(3, 2)[::-1], "s": some(2) - 2j, "b": 1j * some(2)}
    x = some(4, 3)
    each = jax.jit(lambda p: accumulated(energy, p, x))(params)
    norms = {name: jnp.linalg.norm(leaf.reshape(4, -1), axis=1) for name, leaf in each.items()}
    gradients, found = jax.jit(lambda p: (jc.sample_gradients(energy, p, x), jc.sample_gradient_norms(energy, p, x)))(
        params
    )
    assert_close(gradients, each)
    assert_close(found.leaves, norms)


def test_samples_gradients_go_through_vmap_and_grad():
    def penalty(scale):
        return jnp.sum(jc.sample_gradient_norms(loss, jax.tree.map(lambda leaf: scale * leaf, PARAMS), BATCH).whole)

    def by_hand(scale):
        each = accumulated(loss, jax.tree.map(lambda leaf: scale * leaf, PARAMS), BATCH)
        return jnp.sum(jnp.sqrt(sum(jnp.sum(leaf.reshape(4, -1) ** 2, 1) for leaf in jax.tree.leaves(each))))

    scales = jnp.array([0.5, 1.0])
    assert_close(jax.jit(jax.vmap(jax.grad(penalty)))(scales), jax.jit(jax.vmap(jax.grad(by_hand)))(scales), 1e-4)


def test_the_mean_of_samples_gradients_is_the_gradient_of_a_mean():
    moments = jax.jit(lambda p, b: jc.gradient_moments(loss, p, b))(PARAMS, BATCH)
    assert_close(moments.mean, jax.jit(jax.grad(loss))(PARAMS, BATCH), 1e-5)


def test_signal_to_noise_tells_entries_that_agree_from_entries_that_vanish():
    @jax.jit
    def of(factor, x):
        return jc.gradient_moments(lambda w, x: factor * jnp.sum(x @ w), jnp.ones(3), x)

    assert of(1.0, jnp.array([[1.0, 0.0, 4.0], [1.0, 0.0, 2.0]])).signal_to_noise.tolist() == [np.inf, 0.0, 3.0]
    assert of(0.0, X).cosines.tolist() == [0.0] * 4


def test_results_show_which_sample_pulls_hardest_and_nothing_while_they_are_traced():
    norms, moments = jc.sample_gradient_norms(loss, PARAMS, BATCH), jc.gradient_moments(loss, PARAMS, BATCH)
    assert (repr(norms), repr(moments)) == (
        "SampleNorms(norms of 4 gradients)",
        "GradientMoments(moments of 4 gradients)",
    )
    whole = str(norms).splitlines()[2].split()
    assert float(whole[-2]) == pytest.approx(float(norms.whole.max()), rel=1e-2)
    assert int(whole[-1]) == int(norms.whole.argmax())
    assert "cosine with the mean" in str(moments)
    jax.jit(lambda p: str(jc.sample_gradient_norms(loss, p, BATCH)) and p)(PARAMS)


def test_half_precision_has_variances_of_single_precision():
    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (PARAMS, BATCH))
    moments = jax.jit(lambda p, b: jc.gradient_moments(loss, p, b))(params, batch)
    exact = jax.tree.map(lambda leaf: jnp.var(leaf, 0), accumulated(loss, PARAMS, BATCH))
    assert_close(moments.variance, exact, 0.1)
    assert moments.mean["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=["wish", "type"])
def test_the_batch_may_be_spread_over_a_mesh(kind):
    mesh = jax.make_mesh((1,), ("samples",), axis_types=(kind,))
    spread = jax.device_put(BATCH, jax.NamedSharding(mesh, jax.P("samples")))

    @jax.jit
    def of(batch):
        return jc.sample_gradients(loss, PARAMS, batch), jc.sample_gradient_norms(loss, PARAMS, batch).whole

    @jax.jit
    def moments(batch):
        return jc.gradient_moments(loss, PARAMS, batch).cosines

    assert_close(of(spread), of(BATCH))
    if kind == jax.sharding.AxisType.Explicit:
        with pytest.raises(ValueError, match="axis_types=Auto"):
            moments(spread)
    else:
        assert_close(moments(spread), moments(BATCH))


def test_chunks_of_a_batch_that_is_spread_as_a_part_of_its_type_are_refused():
    mesh = jax.make_mesh((1,), ("samples",), axis_types=(jax.sharding.AxisType.Explicit,))
    spread = jax.device_put(BATCH, jax.NamedSharding(mesh, jax.P("samples")))
    with pytest.raises(ValueError, match=r"chunk_size=2 .*'samples' of an explicit mesh.*axis_types=Auto"):
        jc.sample_gradients(loss, PARAMS, spread, chunk_size=2)
    whole = jax.device_put(BATCH, jax.NamedSharding(mesh, jax.P()))
    each = jax.jit(lambda batch: jc.sample_gradients(loss, PARAMS, batch, chunk_size=2))
    assert_close(each(whole), each(BATCH))


# ------------------------------------------------------------------------------------------------------- whatever is given


def test_no_samples_have_no_norms():
    none = jax.tree.map(lambda leaf: leaf[:0], BATCH)
    assert jc.sample_gradient_norms(loss, PARAMS, none).whole.shape == (0,)
    assert jc.sample_gradients(loss, PARAMS, none, chunk_size=2)["w"].shape == (0, 3, 2)
    with pytest.raises(ValueError, match="at least one sample"):
        jc.gradient_moments(loss, PARAMS, none)


def test_parameters_that_are_not_used_have_gradients_of_zero():
    params = PARAMS | {"unused": jnp.ones(5)}
    assert jnp.all(jc.sample_gradients(loss, params, BATCH)["unused"] == 0)
    assert jnp.all(jc.sample_gradient_norms(loss, params, BATCH).leaves["unused"] == 0)


REFUSED = {
    "vector": (
        lambda p, b: (b[0] @ p["w"]).sum(1),
        PARAMS,
        BATCH,
        TypeError,
        r"one real number, but loss\(params, batch\) returns float32\[1\]. Take its mean",
    ),
    "pair": (lambda p, b: (loss(p, b), b), PARAMS, BATCH, TypeError, r"pass the first alone"),
    "integer loss": (lambda p, b: b[0].sum().astype(int), PARAMS, BATCH, TypeError, "one real number"),
    "integers": (
        loss,
        PARAMS | {"n": jnp.arange(3)},
        BATCH,
        TypeError,
        r"params\['n'\] is int32\[3\], which has no derivative. Split it off",
    ),
    "no parameters": (loss, {}, BATCH, TypeError, "params holds no array"),
    "lengths": (
        loss,
        PARAMS,
        (X, Y[:3]),
        ValueError,
        r"The batch\[1\] is float32\[3,2\], of 3 samples along its first axis, but the batch\[0\] has 4",
    ),
    "a number in the batch": (
        loss,
        PARAMS,
        (X, 1.0),
        ValueError,
        r"The batch\[1\] is float32\[\], which has no axis of samples",
    ),
    "no batch": (loss, PARAMS, (), TypeError, "The batch holds no array"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("of", [jc.sample_gradients, jc.sample_gradient_norms, jc.gradient_moments])
def test_what_is_no_loss_over_a_batch_is_refused_by_name(of, name):
    fun, params, batch, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        of(fun, params, batch)


def test_a_while_loop_has_no_reverse_mode_and_the_error_says_what_to_write():
    def looped(p, batch):
        h = lax.while_loop(lambda h: jnp.sum(h) < 3, lambda h: h + jnp.abs(h @ p["w"] @ p["w"].T), batch[0])
        return jnp.mean(h)

    with pytest.raises(
        jc.ModeError, match=r"no reverse mode for this loss, whose stage 'while@.*' loops .*jax.lax.scan"
    ):
        jc.sample_gradient_norms(looped, PARAMS, BATCH, check=False)


# ------------------------------------------------------------------------------------------------------- samples that mix


class Normalised(nn.Module):
    """By the batch, or by what was kept of earlier ones."""

    kept: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="first")(x)
        return nn.Dense(2)(nn.BatchNorm(use_running_average=self.kept, name="norm")(x))


@pytest.mark.parametrize("kept", [True, False])
def test_normalisation_by_the_batch_is_refused_with_its_stage_and_by_kept_statistics_it_is_not(kept):
    module = Normalised(kept)
    _, variables = of_linen(Normalised(True), X)
    statistics = jax.tree.map(lambda leaf: jnp.abs(leaf) + 1, variables["batch_stats"])

    def of(params, x):
        out = module.apply({"params": params, "batch_stats": statistics}, x, mutable=[] if kept else ["batch_stats"])[0]
        return jnp.mean(out**2)

    if kept:
        each = jax.jit(lambda p: jc.sample_gradients(of, p, X))(variables["params"])
        assert_close(each, accumulated(of, variables["params"], X), 1e-5)
        return
    with pytest.raises(
        jc.SamplesMixError,
        match=r"Samples mix in stage 'norm', at .*: reduce_sum sums over the batch, and .* check=False",
    ):
        jc.sample_gradient_norms(of, variables["params"], X)
    assert jc.sample_gradient_norms(of, variables["params"], X, check=False).whole.shape == (4,)


def test_a_mean_over_what_the_batch_counts_is_refused_with_the_way_out():
    with pytest.raises(jc.SamplesMixError, match="divide by a constant, such as the number of samples"):
        jc.sample_gradients(lambda p, b: jnp.sum((b[0] @ p) * b[1]) / jnp.sum(b[1]), jnp.ones(3), (X, Y[:, 0]))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda p, x: jnp.sqrt(jnp.sum((x @ p) ** 2)),
        lambda p, x: jnp.mean((x - x.mean(0)) @ p),
        lambda p, x: jnp.mean(jnp.cumsum(x @ p)),
        lambda p, x: jnp.sum(jax.nn.softmax(x @ p) ** 2),
        lambda p, x: jnp.sum(x @ p) / jnp.sum(x),
        lambda p, x: jnp.sum(x @ p) * jnp.mean(x),
        lambda p, x: jnp.mean(x[::-1] * (x @ p)[:, None]),
        lambda p, x: jnp.sum((x @ p) @ (x @ p)[::-1]),
        lambda p, x: jnp.max(x @ p),
        lambda p, x: lax.scan(lambda s, row: (0.5 * s + row @ p, None), 0.0, x)[0],
        lambda p, x: lax.scan(lambda s, row: (s + row @ p, s), 0.0, x)[1].sum(),
        lambda p, x: lax.scan(lambda s, row: (s + row @ p + jnp.sin(s), None), 0.0, x)[0],
        lambda p, x: lax.scan(lambda c, row: ((c[0] + c[1] * (row @ p), c[1] + 1), None), (0.0, 1.0), x)[0][0],
        lambda p, x: lax.scan(lambda c, row: ((c[0] + c[1] @ p, row), None), (0.0, jnp.zeros(3)), x)[0][0],
        lambda p, x: jnp.sin(lax.scan(lambda s, row: (s + row @ p, None), 0.0, x)[0]),
    ],
    ids=(
        "norm|centred|cumulated|softmax|ratio|product|reversed|other's|greatest|decays|running sums|read|counter|last|of a sum"
    ).split("|"),
)
def test_losses_that_are_no_sums_over_samples_are_refused(mixed):
    with pytest.raises(jc.SamplesMixError, match=r"stage '.*', at test_samples.py:\d+: .*check=False"):
        jc.sample_gradients(mixed, jnp.ones(3), X)


@pytest.mark.parametrize(
    "summed",
    [
        lambda p, x: jnp.mean(x @ p) / 3 - 2 * jnp.sum(jnp.sin(x @ p), 0) + jnp.sum(p**2),
        lambda p, x: jnp.vdot(x @ p, x @ p).reshape(1, 1)[0, 0].astype(jnp.float32),
        lambda p, x: -jnp.sum(jnp.stack([jnp.sum(x @ p), jnp.sum(jnp.tanh(x @ p))]) * jnp.array([0.5, 2.0])),
        lambda p, x: jnp.mean(lax.map(lambda row: jnp.tanh(row @ p), x)),
        lambda p, x: jnp.ones(len(x)) @ (x @ p),
        lambda p, x: lax.scan(lambda s, row: (s + jnp.tanh(row @ p), None), 0.0, x)[0] / len(x),
        lambda p, x: sum(map(jnp.sum, lax.scan(lambda s, row: (jnp.sin(row) @ p + s, row @ p), 0.0, x))),
    ],
    ids=["means", "inner product", "several", "loop", "weighted", "added up", "added up beside a map"],
)
def test_sums_over_samples_are_not_refused(summed):
    assert_close(jc.sample_gradients(summed, jnp.ones(3), X), accumulated(summed, jnp.ones(3), X), 1e-5)
