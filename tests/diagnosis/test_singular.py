"""Singular values along a chain are NumPy's of JAX's own Jacobians, formed or not, and say what theory says."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw, real

import jaxchain as jc
from jaxchain.derivative import Linear
from jaxchain.diagnosis import dense, krylov, measuring, singular

NET = jc.nets.mlp([9, 7, 12, 8, 6], "tanh", "lecun", sigma_w=1.5)
ARGS = NET.init(jax.random.key(0)), draw(jnp.zeros(9), 1)
PARTS = ["stages", "prefixes", "suffixes", "whole"]


def jacobian_of(chain, args, first, last):
    """∂x_last/∂x_first by `jax.jacrev`."""
    state = args[-1] if first == 0 else chain[:first](*args)
    matrix = jax.jit(jax.jacrev(lambda x: chain[first:last](args[0], x)))(state)
    return np.asarray(matrix, np.float64).reshape(-1, np.size(state))


def sigma_of(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.fixture(scope="module")
def found():
    return jc.spectrum(NET, ARGS)


@pytest.fixture
def matrix_free(monkeypatch):
    monkeypatch.setattr(dense, "ENTRIES", 0)
    monkeypatch.setattr(measuring, "SHORT", 0)


def test_every_spectrum_is_numpys_of_jaxs_own_jacobian(found):
    q = len(NET)
    for k in range(q):
        for part, ends in (("stages", (k, k + 1)), ("prefixes", (0, k + 1)), ("suffixes", (k, q))):
            name = NET.names_with_input[ends[0] if part == "suffixes" else ends[1]]
            want = sigma_of(jacobian_of(NET, ARGS, *ends))
            np.testing.assert_allclose(getattr(found, part)[name], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.whole, found.suffixes["input"])


def test_what_is_said_of_a_jacobian_follows_from_its_singular_values(found):
    row, matrix = found["tanh_0", "dense_1"], jacobian_of(NET, ARGS, 2, 3)
    sigma = sigma_of(matrix)
    assert (row.name, row.shape, row.method) == ("∂dense_1/∂tanh_0", (12, 7), "dense")
    shares = sigma / sigma.sum()
    assert row.condition == pytest.approx(sigma[0] / sigma[-1], rel=1e-4)
    assert row.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert row.stable_rank == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-5)
    assert row.log_volume == pytest.approx(np.log(sigma).sum(), abs=1e-4)
    assert row.squared_norm == pytest.approx((matrix**2).sum(), rel=1e-5)
    assert (row.sigma_error, row.log_volume_error, row.squared_norm_error) == (0, 0, 0)


def test_a_linear_chain_of_orthogonal_matrices_keeps_every_length():
    net = jc.nets.mlp([20] * 9, "identity", "orthogonal")
    found = jc.spectrum(net, (net.init(jax.random.key(1)), jnp.ones(20)))
    for row in found.rows:
        np.testing.assert_allclose(row.sigma, 1, atol=1e-5)
        assert row.log_volume == pytest.approx(0, abs=1e-4)
        assert row.condition == pytest.approx(1, abs=1e-4)
        assert (row.effective_rank, row.stable_rank) == pytest.approx((20, 20), rel=1e-4)


def test_k_are_the_k_largest_of_each(found):
    some = jc.spectrum(NET, ARGS, 3)
    for few, all_of_them in zip(some.rows, found.rows, strict=True):
        np.testing.assert_array_equal(few.sigma, all_of_them.sigma[:3])
        assert (few.log_volume, few.effective_rank) == (all_of_them.log_volume, all_of_them.effective_rank)


@pytest.mark.parametrize("part", PARTS)
def test_only_what_is_asked_for_is_computed(found, part):
    some = jc.spectrum(NET, ARGS, of=part)
    assert {row.name for row in some.rows} <= {row.name for row in found.rows}
    assert len(some.rows) == (1 if part == "whole" else len(NET))
    np.testing.assert_array_equal(some[some.rows[-1].start, some.rows[-1].stop].sigma, some.rows[-1].sigma)


def test_log_volumes_of_square_stages_add_up_where_small_values_are_lost():
    net = jc.nets.mlp([12] * 41, "identity", "lecun")
    params = net.init(jax.random.key(0))
    found = jc.spectrum(net, (params, jnp.ones(12)))
    want = sum(np.linalg.slogdet(np.asarray(layer["w"], np.float64))[1] for layer in params.values())
    whole = found["input", found.names[-1]]
    assert whole.condition == math.inf
    assert whole.log_volume == pytest.approx(want, abs=1e-3)


# ----------------------------------------------------------------------------------------------------------- matrix-free


@pytest.fixture(scope="module")
def wide():
    net = jc.nets.mlp([60, 50, 70, 60], "tanh", "lecun")
    return net, (net.init(jax.random.key(0)), draw(jnp.zeros(60), 1))


def test_matrix_free_is_as_dense(matrix_free, wide):
    net, args = wide
    some, net_sizes = jc.spectrum(net, args, 4, krylov_steps=32), [60, 50, 50, 70, 70, 60]
    assert {row.method for row in some.rows} == {"matrix-free"}
    for row in some.rows:
        first, last = (net.names_with_input.index(name) for name in (row.start, row.stop))
        matrix = jacobian_of(net, args, first, last)
        sigma = sigma_of(matrix)
        assert row.shape == matrix.shape
        assert (row.sigma <= sigma[:4] * (1 + 1e-5)).all()
        np.testing.assert_allclose(row.sigma[:2], sigma[:2], rtol=0.02)
        near = np.abs(row.sigma[:, None] - sigma).min(1)
        assert (near <= row.sigma_error + 1e-5 * sigma[0]).all()
        assert abs(row.squared_norm - (matrix**2).sum()) <= 5 * row.squared_norm_error + 1e-4 * row.squared_norm
        waist = min(net_sizes[first : last + 1]) < min(matrix.shape)
        assert (row.log_volume == -math.inf) == waist
        assert (
            waist or abs(row.log_volume - np.log(sigma).sum()) <= 5 * row.log_volume_error
        )  # of four probes: Student's t
        assert (row.condition, row.effective_rank) == (None, None)


def operator_of(matrix):
    matrix = jnp.asarray(matrix)
    return krylov.Operator(lambda v: matrix @ v, lambda u: u @ matrix, *matrix.shape)


DEGENERATE = {
    "identity": np.eye(50),
    "a ReLU's": np.diag(np.arange(50) % 2.0),
    "of rank one": np.outer(np.eye(50)[3], np.ones(50)),
    "zero": np.zeros((50, 50)),
    "below a float's square": 1e-30 * np.eye(50),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_lanczos_goes_on_where_its_space_is_exhausted(name):
    matrix = DEGENERATE[name]
    form, sums = jax.jit(lambda given: krylov.found(operator_of(matrix), given, 12, estimate=True))(
        krylov.draws(50, 50, 50, 50)
    )
    sigma = sigma_of(matrix)
    np.testing.assert_allclose(krylov.largest(form, 3).sigma, sigma[:3], rtol=1e-5, atol=1e-6 * sigma[0])
    volume, _ = krylov.volume(form, sums, 50)
    full = sigma[-1] > 0
    assert volume == (pytest.approx(np.log(sigma).sum(), rel=1e-4, abs=0.01) if full else -math.inf)


def passes(jaxpr, name, times=1):
    """How often an equation runs, loops and batches counted."""
    count = 0
    for eqn in jaxpr.eqns:
        inner = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        if eqn.primitive.name == name:
            shape = eqn.outvars[0].aval.shape
            count += times * math.prod(shape[:-1])
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            body = getattr(value, "jaxpr", value)
            if hasattr(body, "eqns"):
                count += passes(body, name, inner)
    return count


def test_ten_singular_values_and_the_estimates_take_no_more_than_sixty_pairs():
    n = 100_000
    state = jax.ShapeDtypeStruct((n,), jnp.float32)
    given = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, krylov.draws(n, n, n, n)))

    def stage(x):
        return jnp.cumsum(jnp.sin(x))  # the only sums along a vector, one for each tangent or cotangent

    program = jax.make_jaxpr(
        lambda x, given: krylov.found(krylov.Operator.of(Linear(stage, x)), given, 34, estimate=True)
    )(state, given)
    count = passes(program.jaxpr, "cumsum") - 2  # the primal, once a mode
    assert count == 59 + 50


def test_memory_is_linear_in_the_state():
    def temporaries(n):
        given = krylov.draws(n, n, n, n)
        fn = jax.jit(lambda x, given: krylov.found(krylov.Operator.of(Linear(jnp.tanh, x)), given, 34, estimate=True))
        return fn.lower(jnp.ones(n), given).compile().memory_analysis().temp_size_in_bytes / n

    small, large = temporaries(2_000), temporaries(20_000)
    assert large == pytest.approx(small, rel=0.1)
    assert large < 4 * 8 * 34  # bytes: a few times both bases


# ------------------------------------------------------------------------------------------- batches, dtypes, structures


def test_of_a_batch_means_by_rank_and_their_spread():
    batch = draw(jnp.zeros((5, 9)), 3)
    found = jc.spectrum(NET, (ARGS[0], batch), in_axes=(None, 0))
    single = [jc.spectrum(NET, (ARGS[0], x)) for x in batch]
    for row, *rows in zip(found.rows, *(one.rows for one in single), strict=True):
        stacked = np.stack([one.sigma for one in rows])
        np.testing.assert_allclose(row.sigma, stacked.mean(0), rtol=1e-6)
        np.testing.assert_allclose(row.deviation, stacked.std(0, ddof=1), rtol=1e-6, atol=1e-12)
        assert row.squared_norm == pytest.approx(np.mean([one.squared_norm for one in rows]))
    assert found.samples == 5
    assert "means over 5 points" in str(found)


def test_a_complex_state_counts_as_real_and_imaginary_parts():
    x = draw(jnp.zeros(4, complex), 1)
    w = draw(jnp.zeros((4, 4), complex), 2)
    found = jc.spectrum(lambda x: jnp.sin(w @ x), (x,), of="whole")
    matrix = jax.jacobian(lambda pair: real(jnp.sin(w @ (pair[:4] + 1j * pair[4:]))))(real(x))
    np.testing.assert_allclose(found.whole, sigma_of(matrix), rtol=1e-5)


@pytest.mark.parametrize("free", [False, True], ids=["dense", "matrix-free"])
def test_half_precision_is_within_its_rounding(monkeypatch, free):
    net = jc.nets.mlp([30, 30, 30], "tanh", "orthogonal", dtype=jnp.bfloat16)
    args = net.init(jax.random.key(0)), jnp.zeros(30, jnp.bfloat16)
    if free:
        monkeypatch.setattr(dense, "ENTRIES", 0)
        monkeypatch.setattr(measuring, "SHORT", 0)
    found = jc.spectrum(net, args, 3, of="whole", krylov_steps=12)
    np.testing.assert_allclose(found.whole, 1, atol=0.05)


def test_double_precision_tells_values_that_single_precision_cannot():
    with jax.enable_x64(True):
        found = jc.spectrum(lambda x: jnp.array([1.0, 1e-12]) * x, (jnp.ones(2),))
        assert found.whole.tolist() == [1.0, 1e-12]
        assert found.rows[0].condition == pytest.approx(1e12)


def test_spectra_of_others_models_are_those_of_their_jacobians():
    eqx, nn = pytest.importorskip("equinox"), pytest.importorskip("flax.linen")
    x = draw(jnp.zeros((6, 6, 1)), 1)
    conv = nn.Sequential([nn.Conv(3, (3, 3)), nn.relu, nn.Conv(2, (3, 3), strides=(2, 2)), lambda x: x.reshape(-1)])
    mlp = eqx.nn.MLP(9, 4, width_size=8, depth=2, key=jax.random.key(0))
    for fun, args in ((conv.apply, (conv.init(jax.random.key(0), x), x)), (mlp, (ARGS[1],))):
        whole = jax.jit(jax.jacrev(lambda last, fun=fun, args=args: fun(*args[:-1], last)))(args[-1])
        want = sigma_of(np.reshape(whole, (-1, args[-1].size)))
        np.testing.assert_allclose(jc.spectrum(fun, args, of="whole").whole, want, rtol=1e-4, atol=1e-5)


MEMORY = """
import pathlib, re, resource, jax, jax.numpy as jnp, numpy as np, jaxchain as jc
kernel = jax.random.normal(jax.random.key(0), (3, 3, 3, 32)) / 5
conv = lambda x, w, s: jax.lax.conv_general_dilated(x[None], w, (s, s), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
fun = lambda w, x: jax.nn.relu(conv(x, w, 4))
found = jc.spectrum(fun, (kernel, jnp.ones((224, 224, 3))), 10, of="whole")
status = pathlib.Path("/proc/self/status")  # Linux counts what the parent had among a process's ru_maxrss
own = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
print(found.rows[0].shape, int(own[1]) if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_large_convolutions_jacobian_takes_less_than_two_gibibytes():
    out = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, timeout=300).stdout
    assert out.startswith("(100352, 150528)")
    assert int(out.split()[-1]) < 2**21  # kibibytes


# --------------------------------------------------------------------------------------------------------- what is refused


def test_more_values_than_a_jacobian_has_are_refused_and_it_is_named():
    with pytest.raises(ValueError, match=r"k=7 .* ∂dense_3/∂input is 6 × 9 and has 6\. Ask for at most k=6"):
        jc.spectrum(NET, ARGS, 7)
    assert len(jc.spectrum(NET, ARGS, 6).whole) == 6


def test_a_state_that_is_not_finite_is_named():
    chain = jc.Chain([jc.Stage("sine", jnp.sin), jc.Stage("log", jnp.log), jc.Stage("square", jnp.square)])
    with pytest.raises(ValueError, match=r"State 'log' is not finite .* the first along the chain"):
        jc.spectrum(chain, (-jnp.ones(3),))


def test_a_derivative_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="∂root/∂input is not finite, though all states are: stage 'root'"):
        jc.spectrum(jc.Chain([jc.Stage("root", jnp.sqrt)]), (jnp.zeros(3),))


@jax.custom_vjp
def backwards_alone(x):
    return jnp.sin(x)


backwards_alone.defvjp(lambda x: (jnp.sin(x), x), lambda x, back: (jnp.cos(x) * back,))


def forwards_alone(x):
    return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]


@pytest.mark.parametrize(("fn", "mode"), [(backwards_alone, "forward"), (forwards_alone, "reverse")])
def test_a_stage_without_a_mode_is_decomposed_where_it_is_small_and_else_left_out_in_words(monkeypatch, fn, mode):
    chain = jc.Chain([jc.Stage("double", lambda x: 2 * x), jc.Stage("odd", fn), jc.Stage("tanh", jnp.tanh)])
    args = (draw(jnp.zeros(30), 1),)
    found = jc.spectrum(chain, args)
    assert (found.notes, set(found.prefixes)) == ((), set(chain.names))
    monkeypatch.setattr(dense, "ENTRIES", 0)
    monkeypatch.setattr(measuring, "SHORT", 0)
    free = jc.spectrum(chain, args, 2, krylov_steps=6)
    assert set(free.stages) == {"double", "tanh"}
    assert any(f"of stage 'odd' it has no {mode} mode" in note for note in free.notes)
    with pytest.raises(KeyError, match="left out"):
        _ = free.whole


def test_large_prefixes_and_suffixes_are_left_out_unless_asked_for(monkeypatch, matrix_free):
    monkeypatch.setattr(singular, "WORK", 1.0)
    chain, args = jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("tanh", jnp.tanh)]), (draw(jnp.zeros(20), 1),)
    found = jc.spectrum(chain, args, 2, krylov_steps=4)
    assert [row.name for row in found.rows] == ["∂sin/∂input", "∂tanh/∂sin", "∂tanh/∂input"]
    assert "Prefixes and suffixes were left out" in found.notes[0]
    assert not jc.spectrum(chain, args, 2, krylov_steps=4, of=["prefixes"]).notes


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"k": 0}, ValueError, "k is how many singular values are told"),
        ({"of": "prefix"}, ValueError, "Did you mean 'prefixes'"),
        ({"of": []}, TypeError, "of is one of"),
        ({"krylov_steps": 4, "k": 6}, ValueError, "krylov_steps is how many steps of Lanczos"),
        ({"in_axes": (0,)}, ValueError, "an entry for each of the 2 arguments"),
        ({"in_axes": (None, None)}, ValueError, "at least one, but there are none"),
        ({"in_axes": (None, 1)}, ValueError, "axis 1 of argument 1"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_a_sentence(how, error, says):
    with pytest.raises(error, match=says):
        jc.spectrum(NET, ARGS, **how)
