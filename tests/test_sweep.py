"""Sweeps against jax.jvp, jax.vjp, JAX's Jacobians of slices, and central differences."""

import pickle
import sys
import warnings
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ZOO, assert_close, central_differences, draw, named, real, real_function

import jaxchain as jc
from jaxchain import nets
from jaxchain.cost.measure import flops
from jaxchain.plot.heat import COLOUR_MAP

BOTH_MODES = [case for case in ZOO if case.forward and case.reverse]
SLICED = [case for case in BOTH_MODES if case.name not in ("one stage", "integer inside")]
"""Cases whose second state can be a chain input."""


@cache
def forward(case):
    """The sweep, and what JAX says of the whole; one program."""
    tangent = draw(case.x, 4)

    def run(x):
        by_jax = jax.jvp(partial(case.chain, *case.others), (x,), (tangent,))
        return jc.forward_sweep(case.chain, (*case.others, x), tangent), by_jax

    return jax.jit(run)(case.x)


@cache
def reverse(case):
    cotangent = draw(case.states[-1], 5)

    def run(*args):
        out, pull = jax.vjp(case.chain, *args)
        return jc.reverse_sweep(case.chain, args, cotangent), (out, pull(cotangent))

    return jax.jit(run)(*case.args)


def test_a_forward_sweep_ends_in_jax_jvp(forward_case):
    sweep, by_jax = forward(forward_case)
    assert_close((sweep.primals[-1], sweep.tangents[-1]), by_jax)


def test_a_forward_sweep_starts_at_the_input(forward_case):
    sweep, _ = forward(forward_case)
    assert_close((sweep.primals[0], sweep.tangents[0]), (forward_case.x, draw(forward_case.x, 4)))


def test_a_reverse_sweep_ends_in_jax_vjp_of_all_arguments(reverse_case):
    sweep, (out, cotangents) = reverse(reverse_case)
    assert_close((sweep.primals[-1], sweep.arg_cotangents), (out, cotangents))
    assert_close(sweep.cotangents[0], cotangents[-1])


def test_a_reverse_sweep_starts_at_the_output(reverse_case):
    sweep, _ = reverse(reverse_case)
    assert_close(sweep.cotangents[-1], draw(reverse_case.states[-1], 5))


def test_the_parameters_cotangent_of_a_loss_is_jax_grad():
    case = named("loss")
    sweep = jc.reverse_sweep(case.chain, case.args, jnp.ones(()))
    assert_close(sweep.arg_cotangents, jax.jit(jax.grad(case.chain, argnums=(0, 1)))(*case.args))


def test_primals_are_what_one_stage_slices_return(forward_case):
    assert_close(forward(forward_case)[0].primals, forward_case.states)


@pytest.mark.parametrize("case", BOTH_MODES, ids=str)
def test_both_sweeps_have_the_same_primals(case):
    assert_close(forward(case)[0].primals, reverse(case)[0].primals)


def test_states_are_named_input_and_after_their_stages(mlp):
    names = ("input", "dense_0", "tanh_0", "dense_1")
    assert forward(mlp)[0].names == reverse(mlp)[0].names == names == ("input", *mlp.chain.names)


@pytest.mark.parametrize("case", SLICED, ids=str)
def test_a_sweep_of_a_slice_is_the_slice_of_a_sweep(case):
    f, r, part = forward(case)[0], reverse(case)[0], case.chain[1:-1] if len(case.chain) > 2 else case.chain[1:]
    inner = slice(1, 2 + len(part))
    f_want, r_want = (f.primals[inner], f.tangents[inner]), r.cotangents[inner]

    @jax.jit
    def both(others, primal, tangent, cotangent):
        args = (*others, primal)
        return jc.forward_sweep(part, args, tangent), jc.reverse_sweep(part, args, cotangent)

    f_part, r_part = both(case.args[:-1], f_want[0][0], f_want[1][0], r_want[-1])
    assert f_part.names[1:] == r_part.names[1:] == f.names[inner][1:]
    assert_close((f_part.primals, f_part.tangents), f_want)
    assert_close(r_part.cotangents, r_want)


@pytest.mark.parametrize("case", BOTH_MODES, ids=str)
def test_cotangent_times_tangent_is_the_same_at_every_state(case):
    pairs = zip(forward(case)[0].tangents, reverse(case)[0].cotangents, strict=True)
    products = [
        sum(
            np.sum(np.asarray(t).astype(complex) * np.asarray(c).astype(complex)).real
            for t, c in zip(jax.tree.leaves(tangent), jax.tree.leaves(cotangent), strict=True)
            if t.dtype != jax.dtypes.float0
        )
        for tangent, cotangent in pairs
    ]
    coarse = case.name == "mixed dtypes"
    np.testing.assert_allclose(products, products[0], rtol=5e-2 if coarse else 2e-4)


@pytest.mark.parametrize("number", [0.3, np.float64(0.3), np.array(0.3)], ids=["float", "numpy scalar", "numpy array"])
def test_sweeps_take_numbers_and_numpy_arrays_and_return_jax_arrays(number):
    chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("sin", jnp.sin)])
    one = type(number)(1.0) if not isinstance(number, np.ndarray) else np.array(1.0)
    f, r = jc.forward_sweep(chain, (number,), one), jc.reverse_sweep(chain, (number,), one)
    np.testing.assert_allclose([f.tangents[-1], r.arg_cotangents[0]], np.cos(0.09) * 0.6, rtol=1e-6)
    for leaf in jax.tree.leaves((f, r)):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype == jnp.float32


# --------------------------------------------------------------------------------------------------- a whole basis


@cache
def local(case):
    return jax.jit(partial(jc.local_jacobians, case.chain))(case.args)


@cache
def local_by_jax(case):
    case.states  # noqa: B018  computed outside the trace
    return jax.jit(lambda: [case.jacobian(k, k + 1) for k in range(len(case.chain))])()


@cache
def prefix(case):
    """The sweep, and what JAX says of each slice; one program."""
    q, _ = len(case.chain), case.states
    return jax.jit(lambda args: (jc.prefix_jacobians(case.chain, args), [case.jacobian(0, k) for k in range(q + 1)]))(
        case.args
    )


@cache
def suffix(case):
    q, _ = len(case.chain), case.states
    return jax.jit(lambda args: (jc.suffix_jacobians(case.chain, args), [case.jacobian(k, q) for k in range(q + 1)]))(
        case.args
    )


def assert_same_matrices(got, want, case):
    """Values only: the reference computes a state of mixed dtypes in another order."""
    coarse = case.name == "mixed dtypes"
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        scale = np.abs(other).max(initial=1e-30)
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=3e-2 if coarse else 2e-5)


def test_local_jacobians_are_the_jacobians_of_single_stages(case):
    found = local(case)
    assert tuple(jacobian.name for jacobian in found) == case.chain.names
    assert_same_matrices([jacobian.matrix for jacobian in found], local_by_jax(case), case)


def test_the_product_of_the_local_jacobians_is_the_jacobian(case):
    product = reduce(lambda done, jacobian: jacobian.matrix @ done, local(case), np.eye(real(case.states[0]).size))
    whole = prefix(case)[1][-1] if case.forward else suffix(case)[1][0]
    assert_same_matrices([product], [whole], case)


def test_local_jacobians_know_the_shapes_of_their_states(case):
    shapes = [
        jnp.shape(state) if hasattr(state, "shape") else tuple(leaf.shape for leaf in jax.tree.leaves(state))
        for state in case.states
    ]
    found = local(case)
    assert [jacobian.in_shape for jacobian in found] == shapes[:-1]
    assert [jacobian.out_shape for jacobian in found] == shapes[1:]


def test_prefix_jacobians_are_the_jacobians_of_the_chain_up_to_each_state(forward_case):
    assert_same_matrices(*prefix(forward_case), forward_case)


def test_suffix_jacobians_are_the_jacobians_of_the_chain_from_each_state(reverse_case):
    assert_same_matrices(*suffix(reverse_case), reverse_case)


@pytest.mark.parametrize("case", BOTH_MODES, ids=str)
def test_the_first_suffix_is_the_last_prefix(case):
    assert_same_matrices(suffix(case)[0][:1], prefix(case)[0][-1:], case)


@pytest.mark.parametrize("sweep", [jc.prefix_jacobians, jc.suffix_jacobians, jc.local_jacobians])
def test_several_jacobians_are_a_tuple_and_a_pytree_that_shows_itself(mlp, sweep):
    found = sweep(mlp.chain, mlp.args)
    assert isinstance(found, tuple)
    first, *_, last = found
    assert (found[0], found[-1], found[1:-1]) == (first, last, tuple(found)[1:-1])
    traced = jax.jit(lambda args: sweep(mlp.chain, args))(mlp.args)
    assert (type(traced), traced.names, len(traced)) == (jc.Jacobians, found.names, len(found))
    assert_close(traced, found)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(found)[0]]
    assert paths == [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tuple(found))[0]]
    text = str(found)
    assert [name for name in found.names if name not in text] == []
    assert f"{np.linalg.norm(jax.tree.leaves(found)[0]):.4g}" in text
    again = pickle.loads(pickle.dumps(found))
    assert (type(again), again.names) == (jc.Jacobians, found.names)
    assert_close(again, found)


def test_several_jacobians_pass_through_vmap_and_grad(mlp):
    params, x = mlp.args
    batched = jax.jit(jax.vmap(lambda x: jc.suffix_jacobians(mlp.chain, (params, x))))(jnp.stack([x, 2 * x]))
    assert type(batched) is jc.Jacobians
    assert_close(jax.tree.map(lambda leaf: leaf[0], batched), jc.suffix_jacobians(mlp.chain, mlp.args))
    slope = jax.jit(jax.grad(lambda jacobians: sum(jnp.sum(matrix) for matrix in jacobians)))(batched)
    assert_close(slope, jax.tree.map(jnp.ones_like, batched))


@pytest.mark.parametrize("sweep", [jc.prefix_jacobians, jc.suffix_jacobians, jc.local_jacobians])
@pytest.mark.parametrize("name", ["mlp", "complex ends", "integer inside"])
def test_the_chunk_size_changes_no_result(sweep, name):
    chain, args = named(name).chain, named(name).args
    whole, *chunked = jax.jit(lambda args: [sweep(chain, args, chunk_size=size) for size in (None, 1, 3, 100)])(args)
    for got in chunked:
        assert_close(got, whole)


@pytest.mark.parametrize("sweep", [jc.prefix_jacobians, jc.suffix_jacobians, jc.local_jacobians])
@pytest.mark.parametrize("chunk_size", [0, -2])
def test_a_chunk_size_below_one_is_refused(sweep, chunk_size, mlp):
    with pytest.raises(ValueError, match=f"at least 1 or None, but {chunk_size} was given"):
        sweep(mlp.chain, mlp.args, chunk_size=chunk_size)


@pytest.mark.usefixtures("x64")
def test_basis_sweeps_are_central_differences_in_float64(smooth_case):
    chain, args = smooth_case.build()
    fn, x = real_function(partial(chain, *args[:-1]), args[-1])
    assert x.dtype == jnp.float64

    def all_three():
        forward = jc.prefix_jacobians(chain, args)[-1] if smooth_case.forward else None
        reverse = jc.suffix_jacobians(chain, args)[0] if smooth_case.reverse else None
        return central_differences(fn, x), forward, reverse

    want, *found = jax.jit(all_three)()
    for got in found:
        if got is not None:
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-7 * np.abs(want).max())


def test_zero_columns_of_a_dead_unit_stay_zero_down_the_chain():
    case = named("dead relu")
    relu = local(case)[1]
    assert relu.name == "relu_0"
    assert not relu.matrix[:, :2].any()
    assert not suffix(case)[0][1][:, :2].any()


def test_an_empty_leaf_has_no_coordinates():
    chain = jc.Chain([jc.Stage("sin", lambda s: (jnp.sin(s[0]), s[1] * 2))])
    args = ((jnp.ones(2), jnp.zeros((0, 3))),)
    (jacobian,) = jc.local_jacobians(chain, args)
    assert jacobian.matrix.shape == (2, 2)
    assert jacobian.in_shape == ((2,), (0, 3))
    np.testing.assert_allclose(jc.suffix_jacobians(chain, args)[0], np.eye(2) * np.cos(1.0), rtol=1e-6)


# -------------------------------------------------------------------------------------- under JAX's transformations


@pytest.mark.parametrize("sweep", [jc.prefix_jacobians, jc.suffix_jacobians])
def test_basis_sweeps_of_a_batch_are_the_batch_of_basis_sweeps(sweep, mlp):
    one = jax.jit(lambda x: sweep(mlp.chain, (*mlp.others, x)))
    batched = jax.jit(jax.vmap(one))(jnp.stack([mlp.x, -mlp.x]))
    assert_close(jax.tree.map(lambda leaf: leaf[0], batched), one(mlp.x))
    assert_close(jax.tree.map(lambda leaf: leaf[1], batched), one(-mlp.x))


def test_a_vmapped_reverse_sweep_gives_per_sample_gradients(mlp):
    params, x = mlp.args
    xs, one = jnp.stack([x, 2 * x]), jnp.ones(3)
    got = jax.jit(jax.vmap(lambda x: jc.reverse_sweep(mlp.chain, (params, x), one).arg_cotangents[0]))(xs)
    want = jax.jit(jax.vmap(jax.grad(lambda p, x: jnp.sum(mlp.chain(p, x))), (None, 0)))(params, xs)
    assert_close(got, want)


@pytest.mark.parametrize("sweep", [jc.prefix_jacobians, jc.suffix_jacobians])
def test_basis_sweeps_can_be_differentiated(sweep, mlp):
    at = 0 if sweep is jc.suffix_jacobians else -1
    got = jax.jit(jax.grad(lambda p, x: jnp.sum(sweep(mlp.chain, (p, x))[at] ** 2), argnums=(0, 1)))(*mlp.args)
    want = jax.jit(jax.grad(lambda p, x: jnp.sum(jax.jacrev(mlp.chain, 1)(p, x) ** 2), argnums=(0, 1)))(*mlp.args)
    assert_close(got, want)


def test_a_sweep_outside_jit_is_the_sweep_inside(mlp):
    assert_close(jc.forward_sweep(mlp.chain, mlp.args, draw(mlp.x, 4)), forward(mlp)[0])
    assert_close(jc.reverse_sweep(mlp.chain, mlp.args, draw(mlp.states[-1], 5)), reverse(mlp)[0])


def test_sweeps_and_local_jacobians_are_pytrees_that_keep_their_names(mlp):
    for value in (forward(mlp)[0], reverse(mlp)[0], *local(mlp)):
        doubled = jax.tree.map(lambda leaf: 2 * leaf, value)
        assert type(doubled) is type(value)
        assert jax.tree.structure(doubled) == jax.tree.structure(value)
    assert doubled.name == mlp.chain.names[-1]
    assert_close(doubled.matrix, 2 * local(mlp)[-1].matrix)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_sweeps_keep_the_dtype(dtype):
    net = nets.mlp([3, 4, 2], "tanh", dtype=dtype)

    def every_sweep(x, y):
        args = (net.init(jax.random.key(0)), x)
        vectors = jc.forward_sweep(net, args, x), jc.reverse_sweep(net, args, y)
        bases = [sweep(net, args) for sweep in (jc.local_jacobians, jc.prefix_jacobians, jc.suffix_jacobians)]
        return vectors, bases

    found = jax.eval_shape(every_sweep, jnp.ones(3, dtype), jnp.ones(2, dtype))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(found)} == {dtype}


# ------------------------------------------------------------------------------------------------------------- cost

WIDE = nets.mlp([64, 128, 128, 128, 10], "tanh")
WIDE_ARGS = (jax.eval_shape(WIDE.init, jax.random.key(0)), jax.ShapeDtypeStruct((64,), jnp.float32))


def test_all_suffix_jacobians_cost_no_more_than_one_jacrev():
    one = flops(jax.jacrev(WIDE, 1), *WIDE_ARGS)
    assert flops(lambda *args: jc.suffix_jacobians(WIDE, args), *WIDE_ARGS) <= 1.1 * one


def test_all_prefix_jacobians_cost_no_more_than_one_jacfwd():
    one = flops(jax.jacfwd(WIDE, 1), *WIDE_ARGS)
    assert flops(lambda *args: jc.prefix_jacobians(WIDE, args), *WIDE_ARGS) <= 1.1 * one


@pytest.mark.parametrize("chunk_size", [3, 5])
def test_chunks_cost_little_more_than_the_whole(chunk_size):
    whole = flops(lambda *args: jc.suffix_jacobians(WIDE, args), *WIDE_ARGS)
    chunked = flops(lambda *args: jc.suffix_jacobians(WIDE, args, chunk_size=chunk_size), *WIDE_ARGS)
    assert 0.9 * whole <= chunked <= 1.2 * whole


def test_a_reverse_sweep_costs_no_more_than_jax_vjp():
    cotangent = jax.ShapeDtypeStruct((10,), jnp.float32)
    by_jax = flops(lambda *args: jax.vjp(WIDE, *args[:-1])[1](args[-1]), *WIDE_ARGS, cotangent)
    assert flops(lambda *args: jc.reverse_sweep(WIDE, args[:-1], args[-1]), *WIDE_ARGS, cotangent) <= 1.02 * by_jax


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("tangent", "message"),
    [
        (jnp.ones(4), r"tangent must look like the chain input: float32\[5\] is wanted, but float32\[4\] was given"),
        (jnp.ones((5, 1)), r"float32\[5\] is wanted, but float32\[5,1\] was given"),
        (jnp.ones(5, jnp.bfloat16), r"float32\[5\] is wanted, but bfloat16\[5\] was given"),
        (jnp.ones(5, int), r"float32\[5\] is wanted, but int32\[5\] was given"),
        (jnp.ones(5) + 1j, r"float32\[5\] is wanted, but complex64\[5\] was given"),
        ((jnp.ones(5),), r"tangent must have the structure of the chain input, PyTreeDef\(\*\)"),
    ],
)
def test_a_tangent_unlike_the_input_is_refused(tangent, message, mlp):
    with pytest.raises(jc.TangentMismatchError, match=message):
        jc.forward_sweep(mlp.chain, mlp.args, tangent)


@pytest.mark.parametrize(
    ("cotangent", "message"),
    [
        (jnp.ones(4), r"cotangent must look like the chain output: float32\[3\] is wanted, but float32\[4\] was given"),
        (jnp.ones(3, jnp.bfloat16), r"float32\[3\] is wanted, but bfloat16\[3\] was given"),
        ({"y": jnp.ones(3)}, r"cotangent must have the structure of the chain output"),
    ],
)
def test_a_cotangent_unlike_the_output_is_refused(cotangent, message, mlp):
    with pytest.raises(jc.TangentMismatchError, match=message):
        jc.reverse_sweep(mlp.chain, mlp.args, cotangent)


def test_a_mismatch_inside_a_pytree_names_the_leaf():
    case = named("pytree")
    with pytest.raises(jc.TangentMismatchError, match=r"chain input at \['c'\]: float32\[2,2\] is wanted"):
        jc.forward_sweep(case.chain, case.args, {"h": jnp.ones(3), "c": jnp.ones(4)})


EVERY_SWEEP = {
    "forward": lambda chain, args: jc.forward_sweep(chain, args, jnp.ones(3)),
    "reverse": lambda chain, args: jc.reverse_sweep(chain, args, jnp.ones(3)),
    "local": jc.local_jacobians,
    "prefix": jc.prefix_jacobians,
    "suffix": jc.suffix_jacobians,
}
SIN = jc.Chain([jc.Stage("sin", jnp.sin)])
every_sweep = pytest.mark.parametrize("sweep", EVERY_SWEEP.values(), ids=EVERY_SWEEP)


@every_sweep
def test_an_integer_chain_input_is_refused(sweep):
    with pytest.raises(TypeError, match=r"chain input is int32\[3\], and only floating-point or complex values"):
        sweep(SIN, (jnp.arange(3),))


@every_sweep
def test_an_integer_leaf_of_the_chain_input_is_named(sweep):
    with pytest.raises(TypeError, match=r"chain input at \['n'\] is int32\[\]"):
        sweep(jc.Chain([jc.Stage("pick", lambda s: s["x"])]), ({"x": jnp.ones(3), "n": jnp.int32(1)},))


@every_sweep
def test_an_empty_chain_input_is_refused(sweep):
    with pytest.raises(TypeError, match="chain input holds no array"):
        sweep(jc.Chain([jc.Stage("make", lambda _: jnp.ones(3))]), ((),))


@every_sweep
@pytest.mark.parametrize("args", [jnp.ones(3), [jnp.ones(3)]], ids=["array", "list"])
def test_arguments_that_are_no_tuple_are_refused(sweep, args):
    with pytest.raises(
        TypeError, match=r"args is the tuple of the function's positional arguments.*but .*Array.* was given"
    ):
        sweep(SIN, args)


@every_sweep
def test_a_stage_that_cannot_take_its_state_is_named(sweep):
    chain = jc.Chain([jc.Stage("wide", lambda x: jnp.tile(x, 2)), jc.Stage("narrow", lambda x: x @ jnp.ones((3, 3)))])
    with pytest.raises(jc.StageError, match=r"Stage 'narrow' cannot be applied.*float32\[6\]"):
        sweep(chain, (jnp.ones(3),))


def test_forward_through_a_custom_vjp_blames_the_mode_and_not_the_state():
    case = named("custom vjp")
    with pytest.raises(TypeError, match=r"custom_vjp") as error:
        jc.forward_sweep(case.chain, case.args, case.args[0])
    assert "Make the stage before it give" not in str(error.value)


def test_a_sweep_shows_each_state_with_its_norms(mlp):
    tangent, cotangent = draw(mlp.x, 4), draw(mlp.states[-1], 5)
    forward, reverse = jc.forward_sweep(mlp.chain, mlp.args, tangent), jc.reverse_sweep(mlp.chain, mlp.args, cotangent)
    for sweep, values in ((forward, forward.tangents), (reverse, reverse.cotangents)):
        rows = [line.split() for line in str(sweep).splitlines()[2:]]
        for row, name, primal, value in zip(rows, sweep.names, sweep.primals, values, strict=True):
            assert row[0] == name
            assert [float(cell) for cell in row[2:]] == [
                pytest.approx(float(jnp.linalg.norm(jnp.ravel(v))), rel=1e-3) for v in (primal, value)
            ]
            assert name in sweep._repr_html_()


def test_a_traced_sweep_shows_shapes_alone(mlp):
    def shown(tangent):
        text.append(str(jc.forward_sweep(mlp.chain, mlp.args, tangent)))
        return tangent

    text = []
    jax.jit(shown)(mlp.x)
    assert "f32[5]" in text[0]


@pytest.mark.filterwarnings("ignore:The chararray class:DeprecationWarning")  # treescope's, with NumPy 2.5
@pytest.mark.parametrize("installed", [True, False], ids=["treescope", "no treescope"])
def test_a_local_jacobian_shows_itself_in_a_notebook(mlp, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "treescope", None)
    chain = jc.Chain([jc.Stage("<b>", jnp.sin)])
    (local,) = jc.local_jacobians(chain, (jnp.ones(3),))
    html = local._repr_html_()
    assert "Jacobian of &lt;b&gt;, 3 × 3: diagonal" in html
    assert ("treescope" in html) == installed
    assert ("f32[3,3]" in html) or installed


def test_a_picture_in_a_notebook_is_red_where_positive_and_names_its_axes(monkeypatch):
    treescope = pytest.importorskip("treescope")
    asked, original = {}, treescope.render_array
    monkeypatch.setattr(treescope, "render_array", lambda array, **how: asked.update(how) or original(array, **how))
    (local,) = jc.local_jacobians(jc.Chain([jc.Stage("sum", lambda x: x[:2] + 1)]), (jnp.ones(3),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        local._repr_html_()
    assert asked["axis_labels"] == {0: "output of sum (2)", 1: "input (3)"}
    wanted = 255 * COLOUR_MAP(np.linspace(0, 1, 11))[:, :3]
    np.testing.assert_allclose(asked["colormap"], wanted, rtol=0, atol=2)  # as in figures
