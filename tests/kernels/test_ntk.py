"""Kernels are J J′ᵀ: of other people's models, of weights used over and over, in every way, in chunks, as an operator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, real_function
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from models import MODELS

import jaxchain as jc

WAYS = ("auto", "contraction", "products", "vectors")


def jacobians(fun, params, xs):
    """J of every sample, real, leaf by leaf joined: (B, m, P)."""

    def one(x):
        call, flat = real_function(lambda p: fun(p, x), params)
        return jax.jacrev(call)(flat)

    return jax.vmap(one)(xs)


def definition(fun, params, xs, count):
    """(B, count, m, m) of samples and the first of them, by contraction of whole Jacobians."""
    whole = jacobians(fun, params, xs)
    return jnp.einsum("bpk,cqk->bcpq", whole, whole[:count])


def first(samples, count=2):
    return jax.tree.map(lambda leaf: leaf[:count], samples)


def assert_kernel(fun, params, xs, ways=WAYS, tol=1e-10, alone=True):
    """Each way, against other samples and without any, what is defined; one program, compiled once."""
    ys = first(xs)

    @jax.jit
    def both(params, xs):
        got = [jc.ntk(fun, params, xs, ys, mode=way) for way in ways]
        return definition(fun, params, xs, 2), got + ([jc.ntk(fun, params, xs)[:, :2]] if alone else [])

    want, got = both(params, xs)
    for kernel in got:
        assert_close(kernel.reshape(want.shape), want, tol)


# ---------------------------------------------------------------------------------------------------- what it equals


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_kernels_of_other_peoples_models_are_contractions_of_their_jacobians(name):
    fun, params, xs = MODELS[name]()
    ways = WAYS if "mlp" in name or name == "nnx" else ("products",) if "images" in name else ("auto",)
    assert_kernel(lambda p, x: fun(p, x[None])[0], params, xs, ways, alone="mlp" in name)


def tied(params, tokens):
    x = params["table"][tokens]
    x = jnp.tanh(x @ params["w"]) @ params["w"].T
    return jnp.mean(x, 0) @ params["table"].T


def over_time(params, xs):
    def step(h, x):
        h = jnp.tanh(h @ params["w"] + x @ params["u"] + params["b"])
        return h, h @ params["v"]

    last, seen = lax.scan(step, jnp.zeros(4), xs)
    return {"last": last[:2], "seen": seen}


def over_layers(params, x):
    @jax.checkpoint
    def layer(x, rows):
        return x + jnp.tanh(x @ rows["w"] + rows["b"]) * params["s"], None

    return lax.scan(layer, x, {"w": params["w"], "b": params["b"]})[0]


def unrolled(params, x):
    for _ in range(3):
        x = jnp.sin(params["w"] @ x + params["b"])
    return x[0]


def grouped(params, x):
    y = lax.conv_general_dilated(
        x[None], params["k"], (2, 1), [(1, 0), (0, 2)], rhs_dilation=(1, 2), feature_group_count=2
    )
    return jnp.sum(jnp.tanh(y), (0, 2, 3))


OWN = {
    "tied embeddings, transposed weights": (tied, {"table": (5, 3), "w": (3, 4)}, jnp.arange(12).reshape(3, 4) % 5),
    "scan over time, a pytree": (over_time, {"w": (4, 4), "u": (2, 4), "b": (4,), "v": (4, 2)}, (3, 5, 2)),
    "scan over layers, computed again": (over_layers, {"w": (3, 4, 4), "b": (3, 4), "s": (4,)}, (3, 4)),
    "a weight three times, one number": (unrolled, {"w": (4, 4), "b": (4,)}, (3, 4)),
    "convolution by groups, dilated": (grouped, {"k": (4, 1, 2, 2)}, (3, 2, 5, 6)),
    "a weight that is nowhere": (lambda p, x: jnp.sin(x) * p["a"] + 0 * x, {"a": (3,), "b": (2,)}, (3, 3)),
    "an operand without a rule": (lambda p, x: jnp.linalg.inv(p["a"]) @ jnp.exp(p["b"] * x), {"a": (3, 3), "b": ()}, (3, 3)),
    "a scaled layer": (lambda p, x: x @ (p["w"] / 2).T + p["c"] - p["b"] / 3, {"w": (2, 3), "b": (2,), "c": (1,)}, (3, 3)),
}  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OWN)
def test_kernels_of_weights_in_loops_tied_transposed_and_scaled_are_contractions(name):
    fun, shapes, xs = OWN[name]
    shape = {k: jax.ShapeDtypeStruct(shape, jnp.float64) for k, shape in shapes.items()}
    xs = draw(jax.ShapeDtypeStruct(xs, jnp.float64), 1) if isinstance(xs, tuple) else xs
    assert_kernel(fun, draw(shape), xs)


@pytest.mark.usefixtures("x64")
def test_kernels_of_complex_parameters_and_outputs_are_those_of_their_real_coordinates():
    def fun(params, x):
        z = jnp.fft.fft(x) * params["z"]
        return jnp.tanh(z @ params["w"]), jnp.sum(jnp.abs(z) ** 2) * params["a"]

    like = {"z": jnp.zeros(4, complex), "w": jnp.zeros((4, 2), complex), "a": jnp.zeros(())}
    assert_kernel(fun, draw(like), draw(jnp.zeros((3, 4)), 1))


LAYERS = {
    "dense": lambda h, w, b: h @ w,
    "transposed": lambda h, w, b: h @ w.T,
    "left": lambda h, w, b: w @ h,
    "half": lambda h, w, b: jnp.concatenate([h @ w[:, :2], h[:, :1] * w[0, 0]], -1),
    "bias": lambda h, w, b: b - h,
    "scale": lambda h, w, b: h * (1 + b),
    "row": lambda h, w, b: h + w[1],
    "look-up": lambda h, w, b: h + w[jnp.array([2, 0, 2])],
    "tanh": lambda h, w, b: jnp.tanh(h),
    "first position": lambda h, w, b: h[0] @ w + b + h,
}
"""Of a state (3, 3), a weight (3, 3) and a shift (3,)."""

layers = st.lists(st.tuples(st.sampled_from(list(LAYERS)), st.integers(0, 1)), min_size=1, max_size=3)


@pytest.mark.usefixtures("x64")
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(["once", "thrice", "rows"]), layers), min_size=1, max_size=3))
def test_kernels_of_random_programs_are_contractions(program):
    def fun(params, h):
        def once(h, weights, shifts, names):
            for name, which in names:
                h = LAYERS[name](h, weights[which], shifts[which])
            return jnp.sin(h)

        both = params["w"], params["b"]
        for loop, names in program:
            if loop == "once":
                h = once(h, *both, names)
            elif loop == "thrice":
                h, _ = lax.scan(lambda h, _, names=names: (once(h, *both, names), None), h, None, length=3)
            else:
                h, _ = lax.scan(lambda h, row, names=names: (once(h, row[0][None], row[1][None], [(name, 0) for name, _ in names]), None), h, both)  # fmt: skip
        return h[:, 0]

    params = draw({"w": jnp.zeros((2, 3, 3)), "b": jnp.zeros((2, 3))})
    assert_kernel(fun, params, draw(jnp.zeros((3, 3, 3)), 1), ("products",), alone=False)


@pytest.mark.usefixtures("x64")
def test_a_wide_relu_layers_kernel_is_the_arc_cosine_kernel_up_to_its_standard_error():
    """Cho and Saul, Kernel methods for deep learning, NeurIPS 2009; Jacot et al., arXiv 1806.07572."""
    width = 2**16
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(keys[0], (width, 3)), jax.random.normal(keys[1], (width,))]
    xs = jax.random.normal(keys[2], (4, 3))
    xs /= jnp.linalg.norm(xs, axis=1, keepdims=True)

    def fun(params, x):
        return params[1] @ jax.nn.relu(params[0] @ x) * jnp.sqrt(2 / width)

    cosine = np.clip(np.asarray(xs @ xs.T), -1, 1)
    angle = np.arccos(cosine)
    limit = (np.sin(angle) + (np.pi - angle) * cosine) / np.pi + cosine * (np.pi - angle) / np.pi
    # The mean of independent terms 2 relu(u) relu(v) and 2 a² 1(u) 1(v) x·x′, whose second moments are at most 6 each.
    assert np.abs(jc.ntk(fun, params, xs) - limit).max() < 4 * 2 * np.sqrt(6 / width)


# --------------------------------------------------------------------------------------------------- parts, chunks, jit

NET = jc.nets.mlp([4, 5, 3])


def some_net():
    return draw(jax.eval_shape(NET.init, jax.random.key(0))), draw(jnp.zeros((5, 4)), 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", WAYS)
def test_diagonals_and_traces_over_outputs_are_those_of_the_full_blocks(mode):
    params, xs = draw(some_net())
    full, diagonal, trace = jax.jit(
        lambda p, x: [jc.ntk(NET, p, x, first(x), outputs=out, mode=mode) for out in ("full", "diagonal", "trace")]
    )(params, xs)
    assert_close(diagonal, jnp.diagonal(full, axis1=2, axis2=3), 1e-12)
    assert_close(trace, jnp.trace(full, axis1=2, axis2=3), 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_chunks_of_samples_change_nothing(mode, size):
    params, xs = some_net()
    whole, parts = jax.jit(
        lambda p, x: [jc.ntk(NET, p, x, first(x, 4), mode=mode, chunk_size=chunk) for chunk in (None, size)]
    )(params, xs)
    assert_close(parts, whole, 1e-12)


def test_a_number_gives_a_number_a_pair_and_no_samples_give_none():
    xs = jnp.ones((2, 3))
    assert jc.ntk(lambda w, x: w @ x, jnp.ones(3), xs).shape == (2, 2)
    assert jc.ntk(lambda w, x: (w @ x)[None], jnp.ones(3), xs).shape == (2, 2, 1, 1)
    assert jc.ntk(lambda w, x: {"a": w @ x, "n": 3}, jnp.ones(3), xs, xs[:1], outputs="diagonal").shape == (2, 1, 1)
    assert not jc.ntk(lambda w, x: x, 1.0, xs).any()
    assert jc.ntk(lambda w, x: w * x[:0], 1.0, xs).shape == (2, 2, 0, 0)
    theta = jc.ntk_operator(NET, some_net()[0], jnp.ones((2, 4)), jnp.ones((0, 4)), chunk_size=2)
    assert theta.shape == (6, 0) == theta.dense().shape
    assert theta.matvec(jnp.zeros(0)).tolist() == [0] * 6
    assert theta.T.matvec(jnp.zeros(6)).size == 0
    assert float(jc.ntk_operator(NET, some_net()[0], jnp.ones((0, 4))).trace()) == 0
    for none in (jc.ntk(NET, some_net()[0], xs[:0, :0].reshape(0, 4)), jc.ntk(lambda w, x: w * x, 1.0, xs, xs[:0])):
        assert none.size == 0


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_half_precision_is_added_up_as_single_and_single_stays_so(dtype, mode):
    params, xs = some_net()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float64), (params, xs))
        want = np.asarray(jax.jit(lambda p, x: definition(NET, p, x, 5))(*wide))
    got = jax.jit(lambda p, x: jc.ntk(NET, p, x, mode=mode))(
        *jax.tree.map(lambda leaf: leaf.astype(dtype), (params, xs))
    )
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 8 * float(jnp.finfo(dtype).eps) * np.abs(want).max()


@pytest.mark.usefixtures("x64")
def test_kernels_are_differentiated_and_mapped_as_what_they_are():
    params, xs = some_net()
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), params)

    def total(kernel):
        return lambda p: jnp.sum(jnp.cos(kernel(p)))

    @jax.jit
    def all_of(params, several):
        kernels = [lambda p: jc.ntk(NET, p, xs, first(xs)), lambda p: definition(NET, p, xs, 2)]
        return [(jax.grad(total(kernel))(params), jax.vmap(kernel)(several)) for kernel in kernels]

    ours, wanted = all_of(params, several)
    assert_close(ours, wanted, 1e-10)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=["wish", "type"])
def test_samples_spread_over_a_mesh_change_nothing(kind):
    mesh = jax.make_mesh((1,), ("samples",), axis_types=(kind,))
    params, xs = some_net()
    there = jax.device_put(xs, jax.NamedSharding(mesh, jax.P("samples")))

    @jax.jit
    def all_of(xs):
        theta = jc.ntk_operator(NET, params, xs)
        return (
            [jc.ntk(NET, params, xs, chunk_size=size) for size in (None, 2)],
            theta.matvec(jnp.ones(15)),
            theta.trace(),
        )

    spread = all_of(there)
    assert_close(spread, all_of(xs))
    if kind == jax.sharding.AxisType.Explicit:
        assert jax.typeof(spread[0][0]).sharding.spec[0] == "samples"


# ----------------------------------------------------------------------------------------------------------- operator


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "size"), [("net", None), ("scan over time, a pytree", 2)])
def test_the_operator_is_the_kernel_as_a_matrix(name, size):
    if name == "net":
        fun, (params, xs) = NET, some_net()
    else:
        fun, shapes, shape = OWN[name]
        params = draw({k: jax.ShapeDtypeStruct(shape, jnp.float64) for k, shape in shapes.items()})
        xs = draw(jax.ShapeDtypeStruct((5, *shape[1:]), jnp.float64), 1)

    @jax.jit
    def all_of(params, xs):
        theta, own = (jc.ntk_operator(fun, params, xs, ys, chunk_size=size) for ys in (first(xs, 3), None))
        v, w = (jnp.cos(jnp.arange(float(n))) for n in theta.shape)
        blocks = definition(fun, params, xs, 5).transpose(0, 2, 1, 3)
        whole = blocks.reshape(own.shape)
        part = whole[:, : theta.shape[1]]
        return (
            (theta.matvec(w), theta.T.matvec(v), theta.dense(), own.dense(), own.diagonal(), own.trace()),
            (part @ w, part.T @ v, part, whole, jnp.diagonal(whole), jnp.trace(whole)),
        )

    assert_close(*all_of(params, xs), 1e-10)


@pytest.mark.usefixtures("x64")
def test_the_operator_goes_through_jit_to_matfree():
    from matfree import decomp, funm

    params, xs = some_net()
    theta = jc.ntk_operator(NET, params, xs)

    @jax.jit
    def root(theta, v):
        tridiag = decomp.tridiag_sym(theta.shape[0], reortho="full")
        return funm.funm_lanczos_sym(funm.dense_funm_sym_eigh(jnp.sqrt), tridiag)(theta.matvec, v)

    v = jnp.ones(theta.shape[1])
    values, vectors = np.linalg.eigh(theta.dense())
    want = vectors @ (np.sqrt(np.maximum(values, 0)) * (vectors.T @ v))
    assert np.abs(root(theta, v) - want).max() < 1e-6 * np.abs(want).max()


def test_the_operator_solves_in_lineax():
    lx = pytest.importorskip("lineax")
    params, xs = some_net()
    theta = jc.ntk_operator(NET, params, xs)
    damped = lx.FunctionLinearOperator(
        lambda v: theta.matvec(v) + v, theta.input_structure, lx.positive_semidefinite_tag
    )
    solved = lx.linear_solve(damped, jnp.ones(theta.shape[0]), lx.CG(1e-5, 1e-5)).value
    assert_close(theta.matvec(solved) + solved, jnp.ones(theta.shape[0]), 1e-3)


# ---------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: jc.ntk(NET, {"n": jnp.arange(3)}, jnp.ones((2, 4))), r"params at \['n'\] is int32"),
        (lambda: jc.ntk(NET, {}, jnp.ones((2, 4))), "params holds no array"),
        (lambda: jc.ntk(NET, 1.0, ()), "xs holds no array"),
        (lambda: jc.ntk(jnp.dot, 1.0, {"a": jnp.ones(3), "b": jnp.ones(2)}), r"xs\['b'\] is .* of 2 samples .* xs\['a'\] has 3"),
        (lambda: jc.ntk(jnp.dot, 1.0, (jnp.ones(3), 1.0)), r"xs\[1\] is .*, which has no axis of samples"),
        (lambda: jc.ntk(jnp.dot, 1.0, jnp.ones(3), (jnp.ones(3),)), "ys must have the structure of xs"),
        (lambda: jc.ntk(jnp.dot, 1.0, jnp.ones((3, 2)), jnp.ones((3, 4))), r"sample of ys is float32\[4\], but one of xs is float32\[2\]"),
        (lambda: jc.ntk(lambda w, x: jnp.int32(w * x), 1.0, jnp.ones(3)), "no number that has a derivative"),
        (lambda: jc.ntk(jnp.dot, 1.0, jnp.ones(3), outputs="sum"), "Unknown outputs 'sum'"),
        (lambda: jc.ntk(jnp.dot, 1.0, jnp.ones(3), mode="factors"), "Unknown mode 'factors'"),
        (lambda: jc.ntk(lambda w, x: jnp.ones(64) * w * x, 1.0, jnp.ones(1000)), r'A kernel of .* outputs="trace"'),
        (lambda: jc.ntk(lambda w, x: lax.while_loop(lambda c: c < 9, lambda c: c * w + x, 1.0), 2.0, jnp.ones(3)), "no reverse mode"),
        (lambda: jc.ntk_operator(jnp.dot, 1.0, jnp.ones(3)).matvec(jnp.ones(4)), r"the shape \(3,\), but \(4,\)"),
        (lambda: jc.ntk_operator(jnp.dot, 1.0, jnp.ones(3), jnp.ones(2)).diagonal(), "no diagonal"),
    ],
)  # fmt: skip
def test_what_has_no_kernel_is_refused_in_a_sentence(call, told):
    with pytest.raises((TypeError, ValueError), match=told):
        call()


def test_pushing_forward_is_refused_where_a_rule_has_no_forward_mode_and_nothing_else_is():
    @jax.custom_vjp
    def bent(x):
        return jnp.sin(x)

    bent.defvjp(lambda x: (bent(x), x), lambda x, c: (c * 3,))

    def fun(w, x):
        return bent(w @ x)

    w, xs = jnp.ones((2, 3)), jnp.ones((2, 3))
    assert_close(jc.ntk(fun, w, xs), definition(fun, w, xs, 2))
    assert np.isinf(jc.ntk_plan(fun, w, xs).vectors)
    with pytest.raises(jc.ModeError, match="no forward mode"):
        jc.ntk(fun, w, xs, mode="vectors")
