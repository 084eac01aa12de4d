"""Structure: every kind on a matrix built by hand, laws over all matrices, and real stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import some_params
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import jaxchain as jc
from jaxchain import nets
from jaxchain.structure import Structure


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def near_diagonal(n):
    return np.triu(np.tril(normal(n, n), 1), -1)


def scattered(m, n, count):
    flat = np.zeros(m * n)
    flat[np.random.default_rng(0).permutation(m * n)[:count]] = 1.5
    return flat.reshape(m, n)


BLOCKS = np.ones((2, 3)) + normal(2, 3) / 10
KINDS = {
    # name: (matrix, input shape, output shape, kind, identity_plus)
    "identity": (np.eye(5), (5,), (5,), "identity", False),
    "identity of images": (np.eye(6), (2, 3), (2, 3), "identity", False),
    "one by one": (np.ones((1, 1)), (), (), "identity", False),
    "diagonal": (np.diag([1.0, 2.0, 3.0]), (3,), (3,), "diagonal", False),
    "diagonal with a zero": (np.diag([1.0, 0.0, 3.0]), (3,), (3,), "diagonal", False),
    "twice the identity": (2 * np.eye(8), (8,), (8,), "diagonal", False),
    "block-diagonal": (np.kron(np.eye(3), BLOCKS), (3, 3), (3, 2), "block-diagonal", False),
    "lower-triangular": (np.tril(normal(6, 6)), (6,), (6,), "lower-triangular", False),
    "block lower-triangular": (
        np.kron(np.tril(np.ones((4, 4))), BLOCKS),
        (4, 3),
        (4, 2),
        "block lower-triangular",
        False,
    ),
    "banded": (near_diagonal(12), (12,), (12,), "banded", False),
    "banded, wide": (np.kron(near_diagonal(12), np.ones((1, 2))), (24,), (12,), "banded", False),
    "block-banded": (np.kron(near_diagonal(8), BLOCKS), (8, 3), (8, 2), "block-banded", False),
    "sparse": (scattered(10, 10, 12), (10,), (10,), "sparse", False),
    "dense": (normal(5, 7), (7,), (5,), "dense", False),
    "dense between images": (normal(8, 12), (3, 4), (2, 4), "dense", False),
    "zero": (np.zeros((3, 4)), (4,), (3,), "zero", False),
    "NaN": (np.array([[1.0, np.nan], [0.0, 1.0]]), (2,), (2,), "not finite", False),
    "infinity": (np.array([[1.0, 0.0], [0.0, -np.inf]]), (2,), (2,), "not finite", False),
    "identity plus dense": (np.eye(32) + 0.05 * normal(32, 32), (32,), (32,), "dense", True),
    "identity plus block-diagonal": (
        np.eye(32) + 0.1 * np.kron(np.eye(8), normal(4, 4)),
        (8, 4),
        (8, 4),
        "block-diagonal",
        True,
    ),
    "identity plus block lower-triangular": (
        np.eye(32) + 0.1 * np.kron(np.tril(normal(8, 8)), normal(4, 4, seed=1)),
        (8, 4),
        (8, 4),
        "block lower-triangular",
        True,
    ),
}
by_hand = pytest.mark.parametrize(("matrix", "in_shape", "out_shape", "kind", "plus"), KINDS.values(), ids=KINDS)


@by_hand
def test_a_matrix_is_called_what_it_is(matrix, in_shape, out_shape, kind, plus):
    found = Structure.of(matrix, in_shape, out_shape)
    assert (found.kind, found.identity_plus) == (kind, plus)
    assert str(found).startswith(f"identity + {kind}" if plus else kind)


@by_hand
def test_the_numbers_behind_the_words_are_numpys(matrix, in_shape, out_shape, kind, plus):
    del plus
    found, nonzero = Structure.of(matrix, in_shape, out_shape), matrix != 0
    assert found.shape == matrix.shape
    assert found.nonzero_share == nonzero.mean()
    assert found.zero_rows == sum(not row.any() for row in matrix)
    assert found.zero_columns == sum(not column.any() for column in matrix.T)
    assert found.rank == (0 if kind == "not finite" else np.linalg.matrix_rank(matrix))
    if matrix.shape[0] == matrix.shape[1]:
        below = [i - j for i, j in np.argwhere(nonzero)]
        assert found.bandwidth == (max([0, *below]), max([0, *(-d for d in below)]))


def test_one_line_says_all_that_matters():
    dead = np.diag([1.0, 0.0, 0.0])
    assert str(Structure.of(dead)) == "diagonal · 2 of 3 columns zero · rank 1 of 3"
    assert str(Structure.of(normal(2, 5))) == "dense · rank 2 (full)"
    matrix, in_shape, out_shape, _, _ = KINDS["block-banded"]
    assert "8 × 8 blocks" in str(Structure.of(matrix, in_shape, out_shape))
    assert "rank" not in str(Structure.of(KINDS["NaN"][0]))


CIRCLE = np.stack([np.roll(normal(7), k) for k in range(7)])
WIRED, WEIGHTS = normal(4, 3, seed=2), normal(5, 6, seed=3)
SHIFTS_AND_FACTORS = {
    "circulant": (CIRCLE, (7,), (7,), "circulant", None, "dense · circulant"),
    "Toeplitz": (CIRCLE[:, :6], (6,), (7,), "Toeplitz", None, "dense · Toeplitz"),
    "a running sum": (np.tri(5), (5,), (5,), "Toeplitz", None, "lower-triangular · Toeplitz"),
    "a sum of what follows": (np.tri(5).T, (5,), (5,), "Toeplitz", None, "upper-triangular · Toeplitz"),
    "a shift around": (np.roll(np.eye(6), 1, 0), (6,), (6,), "circulant", None, "sparse · 0.17 of entries non-zero · circulant"),
    "weights of each": (np.kron(np.eye(3), WEIGHTS), (3, 6), (3, 5), "", ((3, 3), (5, 6)), "block-diagonal · 3 × 3 blocks · I ⊗ B, B 5 × 6"),
    "positions mixed": (np.kron(WIRED, np.eye(5)), (3, 5), (4, 5), "", ((4, 3), (5, 5)), "sparse · 0.2 of entries non-zero · A ⊗ I, A 4 × 3"),
    "both": (np.kron(WIRED, WEIGHTS), (3, 6), (4, 5), "", ((4, 3), (5, 6)), "dense · A ⊗ B, A 4 × 3, B 5 × 6"),
    "neither": (np.kron(WIRED, WEIGHTS) + np.eye(20, 18), (3, 6), (4, 5), "", None, "dense · rank"),
    "blocks that differ": (np.kron(np.eye(3), WEIGHTS) * normal(15, 1), (3, 6), (3, 5), "", None, "block-diagonal · 3 × 3 blocks · rank"),
    "an earlier sum over rows": (np.kron(np.tri(3).T, WEIGHTS), (3, 6), (3, 5), "", ((3, 3), (5, 6)), "block upper-triangular · 3 × 3 blocks · A ⊗ B"),
    "a diagonal": (2 * np.eye(6), (2, 3), (2, 3), "", None, "diagonal · rank"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", SHIFTS_AND_FACTORS)
def test_shifts_and_kronecker_factors(name, dtype):
    matrix, in_shape, out_shape, shifts, factors, words = SHIFTS_AND_FACTORS[name]
    with jax.enable_x64(True):
        found = Structure.of(jnp.asarray(matrix, dtype), in_shape, out_shape)
    assert (found.shifts, found.factors) == (shifts, factors)
    assert str(found).startswith(words)


def test_layers_are_called_what_they_are():
    x, w = jnp.ones((4, 5)), jnp.asarray(normal(5, 3), jnp.float32)
    (found,) = jc.local_jacobians(jc.discover(lambda x: x @ w, x), (x,))
    assert str(found.structure).startswith("block-diagonal · 4 × 4 blocks · I ⊗ B, B 3 × 5")
    kernel = jnp.fft.rfft(jnp.arange(8.0) ** 2)
    filtered = jc.jacobian(lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * kernel))(jnp.ones(8))
    assert str(Structure.of(filtered)).startswith("dense · circulant")


def test_blocks_are_counted_along_the_leading_axes():
    found = Structure.of(np.kron(np.eye(3), BLOCKS), (3, 3), (3, 2))
    assert found.blocks == (3, 3)
    assert found.block_nonzero_share == pytest.approx(1 / 3)
    assert Structure.of(np.eye(4), (4,), (4,)).blocks is None
    assert Structure.of(np.eye(4), ((2,), (2,)), (2, 2)).blocks is None


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_an_empty_matrix_is_zero(shape):
    found = Structure.of(np.zeros(shape), shape[1:], shape[:1])
    assert (found.kind, found.rank, found.nonzero_share, found.bandwidth) == ("zero", 0, 0.0, (0, 0))
    assert str(found).startswith("zero")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@by_hand
def test_the_words_do_not_depend_on_the_dtype(matrix, in_shape, out_shape, kind, plus, dtype):
    found = Structure.of(jnp.asarray(matrix, dtype), in_shape, out_shape)
    assert (found.kind, found.identity_plus) == (kind, plus)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_rank_is_judged_by_the_rounding_of_the_dtype(dtype):
    rank_two = normal(6, 2) @ normal(2, 6, seed=1)
    with jax.enable_x64(True):
        assert Structure.of(jnp.asarray(rank_two, dtype)).rank == 2
        assert Structure.of(jnp.eye(6, dtype=dtype)).rank == 6


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 2)), 1.0])
def test_what_is_no_matrix_is_refused(array):
    with pytest.raises(ValueError, match="a matrix with two axes; this array has shape"):
        Structure.of(array)


def test_the_words_need_values_so_not_under_jit(mlp):
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda args: jc.local_jacobians(mlp.chain, args)[0].structure.rank)(mlp.args)


# ----------------------------------------------------------------------------------------------- laws over matrices

small = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-2, 2).map(float))


@settings(max_examples=60, deadline=None)
@given(small, st.integers(-20, 20))
def test_a_positive_scale_changes_nothing_but_the_identity(matrix, power):
    one, other = Structure.of(matrix), Structure.of(matrix * 2.0**power)
    fields = ("shape", "nonzero_share", "bandwidth", "rank", "zero_rows", "zero_columns", "blocks")
    assert [getattr(one, field) for field in fields] == [getattr(other, field) for field in fields]
    if not (one.identity_plus or other.identity_plus):
        words = [kind.replace("identity", "diagonal") for kind in (one.kind, other.kind)]
        assert words[0] == words[1]


@settings(max_examples=60, deadline=None)
@given(small)
def test_rank_is_numpys_and_bounded_by_what_is_not_zero(matrix):
    found = Structure.of(matrix)
    m, n = matrix.shape
    assert found.rank == np.linalg.matrix_rank(matrix)
    assert found.rank <= min(m - found.zero_rows, n - found.zero_columns)


@settings(max_examples=60, deadline=None)
@given(small)
def test_transposing_swaps_rows_and_columns(matrix):
    one, other = Structure.of(matrix), Structure.of(matrix.T)
    assert (one.zero_rows, one.zero_columns) == (other.zero_columns, other.zero_rows)
    assert (one.rank, one.nonzero_share) == (other.rank, other.nonzero_share)
    if matrix.shape[0] == matrix.shape[1]:
        assert one.bandwidth == other.bandwidth[::-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_a_diagonal_matrix_is_never_more_than_diagonal(diagonal):
    found = Structure.of(np.diag(diagonal))
    assert found.kind in ("zero", "identity", "diagonal")
    assert not found.identity_plus
    assert found.bandwidth == (0, 0)


@pytest.mark.parametrize("n", [4, 5, 8, 16, 64])
@pytest.mark.parametrize("power", [0, 0.5], ids=["variance one", "variance 1/n"])
def test_a_random_gaussian_matrix_is_never_identity_plus_something(n, power):
    found = [Structure.of(n**-power * normal(n, n, seed=seed)) for seed in range(100)]
    assert not any(structure.identity_plus for structure in found)


# -------------------------------------------------------------------------------------------------------- real stages


def structures(net, x):
    return {
        jacobian.name: jacobian.structure
        for jacobian in jax.jit(lambda args: jc.local_jacobians(net, args))((some_params(net), x))
    }


def test_an_activation_is_diagonal_and_dead_units_are_zero_columns():
    net = nets.mlp([4, 6, 3], "relu")
    params = some_params(net)
    params["dense_0"]["b"] = jnp.array([-100.0, -100.0, 100.0, 100.0, 100.0, 100.0])
    dense, relu, _ = (jacobian.structure for jacobian in jc.local_jacobians(net, (params, jnp.ones(4))))
    assert (dense.kind, dense.rank) == ("dense", 4)
    assert (relu.kind, relu.zero_columns, relu.zero_rows, relu.rank) == ("diagonal", 2, 2, 4)


def test_a_live_smooth_activation_is_diagonal_and_of_full_rank():
    found = structures(nets.mlp([4, 6, 3], "tanh"), jnp.ones(4))["tanh_0"]
    assert (found.kind, found.rank, found.zero_columns) == ("diagonal", 6, 0)


def test_a_convolution_of_an_image_is_block_banded_and_flatten_is_the_identity():
    found = structures(nets.conv_net((8, 8, 1), [2], 3, "tanh"), normal(8, 8, 1).astype(np.float32))
    conv = found["conv_0"]
    assert (conv.kind, conv.blocks, conv.shape) == ("block-banded", (8, 8), (128, 64))
    assert conv.block_nonzero_share == pytest.approx(22 / 64)  # three block diagonals: 8 + 7 + 7
    assert found["tanh_0"].kind == "diagonal"
    assert found["flatten"].kind == "identity"


def test_causal_attention_is_block_lower_triangular_and_its_neighbours_block_diagonal():
    found = structures(nets.transformer((2, 4, 3), 1, 2), normal(6, 2).astype(np.float32))
    assert found["attention_0"].kind == "block lower-triangular"
    assert found["attention_0"].blocks == (6, 6)
    assert {found[name].kind for name in ("embed", "mlp_0", "norm", "unembed")} == {"block-diagonal"}


def test_a_recurrent_layer_is_block_lower_triangular_and_reading_its_end_is_sparse():
    found = structures(nets.rnn([2, 3, 2]), normal(5, 2).astype(np.float32))
    assert found["rnn_0"].kind == "block lower-triangular"
    assert found["last"].zero_columns == 12


def test_a_residual_block_is_the_identity_plus_something_dense():
    net = nets.residual_net((8, 32, 2), 3, "tanh")
    params = net.init(jax.random.key(0))
    found = {j.name: j.structure for j in jc.local_jacobians(net, (params, jnp.ones(8)))}
    for name in ("block_0", "block_1", "block_2"):
        assert (found[name].identity_plus, found[name].kind) == (True, "dense")
        assert str(found[name]).startswith("identity + dense")
    assert not found["dense_in"].identity_plus
    assert not found["dense_out"].identity_plus
