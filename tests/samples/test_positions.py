"""Axes along which a stage works position by position: proven where it does, never where it does not; blocks of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from jax import lax
from jax.flatten_util import ravel_pytree

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.discovery.find import find
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Layout, multiply
from jaxchain.program.segment import Segment
from jaxchain.samples.positions import position_axes

close = partial(assert_close, tol=1e-4)
"""What is written into the wrong place is off by as much as the largest entry; a few hundred roundings are none of it."""

T, D = 6, 5
X = draw(jnp.zeros((T, D)), 1)
CUBE = draw(jnp.zeros((4, T, D)), 2)
W = draw(jnp.zeros((D, 7)), 3)
SQUARE = draw(jnp.zeros((D, D)), 4)
MIX = draw(jnp.zeros((T, T)), 5)
IMAGES = draw(jnp.zeros((T, 1, 8, 8)), 6)
KERNEL = draw(jnp.zeros((3, 1, 3, 3)), 7)


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def half(x):
    """The half of a transformer's block that works at each position by itself."""
    return x + jax.nn.gelu(normalised(x) @ SQUARE) @ SQUARE


def convolved(stride):
    return lambda x: jnp.tanh(lax.conv_general_dilated(x, KERNEL, (stride, stride), "SAME"))


@jax.custom_jvp
def flips_its_tangent(x):
    return jnp.tanh(x)


flips_its_tangent.defjvp(lambda p, t: (jnp.tanh(p[0]), t[0][::-1]))


@jax.custom_vjp
def flips_its_cotangent(x):
    return jnp.tanh(x)


flips_its_cotangent.defvjp(lambda x: (jnp.tanh(x), None), lambda _, c: (c[::-1],))


@jax.custom_jvp
def mixes_and_says_it_does_not(x):
    return jnp.cumsum(x, 0)


mixes_and_says_it_does_not.defjvp(lambda p, t: (jnp.cumsum(p[0], 0), 2 * t[0] * p[0].sum()))

# A function, its input, the axes of the input and of the output that count positions (None: none).
CASES = {
    "half a block": (half, X, ((0,), (0,))),
    "layer norm": (normalised, X, ((0,), (0,))),
    "weights": (lambda x: jnp.sin(x) @ W, X, ((0,), (0,))),
    "two axes": (lambda x: jnp.tanh(x) @ W, CUBE, ((0, 1), (0, 1))),
    "softmax over the first": (lambda x: jax.nn.softmax(x, 0), X, ((1,), (1,))),
    "softmax over the middle": (lambda x: jax.nn.softmax(x, 1), CUBE, ((0, 2), (0, 2))),
    "positions last": (lambda x: jnp.sin(MIX @ x), X, ((1,), (1,))),
    "transposed": (lambda x: (jnp.sin(x) @ W).T, X, ((0,), (1,))),
    "two axes, transposed": (lambda x: (jnp.tanh(x) @ W).transpose(1, 0, 2), CUBE, ((1,), (0,))),
    "convolution": (convolved(1), IMAGES, ((0,), (0,))),
    "convolution by strides": (convolved(2), IMAGES, ((0,), (0,))),
    "vmap": (jax.vmap(lambda x: x * jnp.sin(x).sum()), X, ((0,), (0,))),
    "a scan over features": (lambda x: lax.scan(lambda c, r: (jnp.sin(c + r),) * 2, jnp.zeros(T), x.T)[1].T, X, ((0,), (0,))),
    "sort of each": (lambda x: jnp.sort(x, 1), X, ((0,), (0,))),
    "gather of features": (lambda x: jnp.sin(x)[:, jnp.array([3, 0, 0])], X, ((0,), (0,))),
    "a sum over it": (lambda x: x.sum(1), X, ((0,), (0,))),
    "positions kept still": (lambda x: x * lax.stop_gradient(x).sum(), X, ((0, 1), (0, 1))),
    "a rule that says it does not mix": (mixes_and_says_it_does_not, X, ((0, 1), (0, 1))),
    "columns read first": (lambda x: jnp.tanh(x).ravel(order="F"), X, None),
    "columns read first, after weights": (lambda x: jnp.tanh(x @ W).reshape((7, T), order="F"), X, None),
    # What mixes, or may.
    "flip": (lambda x: jnp.sin(x)[::-1], X, ((1,), (1,))),
    "roll": (lambda x: x.sum(1, keepdims=True) * jnp.roll(x, 1, 0), X, None),
    "flip both": (lambda x: jnp.sin(x)[::-1, ::-1], X, None),
    "interleaved": (lambda x: jnp.sin(x).reshape(2, 3, D).transpose(1, 0, 2).reshape(T, D), X, ((1,), (1,))),
    "reshaped to as many": (lambda x: (x * x.sum(1, keepdims=True)).reshape(D, T), X, None),
    "flattened": (lambda x: (x * x.sum(1, keepdims=True)).reshape(-1), X, None),
    "sorted": (lambda x: jnp.sort(x * x.sum(1, keepdims=True), 0), X, None),
    "gather by index": (lambda x: (x * x.sum(1, keepdims=True))[jnp.array([1, 0, 2, 3, 4, 5])], X, None),
    "gather by value": (lambda x: (x * x.sum(1, keepdims=True))[jnp.argsort(x[:, 0])], X, None),
    "convolution along it": (convolved(1), IMAGES[:1], None),
    "cumulative": (lambda x: jnp.cumsum(x * x.sum(1, keepdims=True), 0), X, None),
    "attention": (lambda x: jax.nn.softmax(x @ x.T) @ x, X, None),
    "x xᵀ": (lambda x: x @ x.T, X, None),
    "square of both": (lambda x: MIX @ jnp.sin(x) @ SQUARE, X, None),
    "flipped tangent": (lambda x: flips_its_tangent(x) * x.sum(1, keepdims=True), X, None),
    "flipped cotangent": (lambda x: flips_its_cotangent(x) * x.sum(1, keepdims=True), X, None),
    "of all": (lambda x: x * x.sum(), X, None),
    "one row added to all": (lambda x: x + x[:1], X, ((1,), (1,))),
    "writes a row": (lambda x: (x * x.sum(1, keepdims=True)).at[2].set(x[0]), X, None),
    "the last position of a scan": (lambda x: lax.scan(lambda c, r: (c + r * r.sum(),) * 2, jnp.zeros(D), x)[1], X, None),
}  # fmt: skip

PAIR = (X, draw(jnp.zeros((T, 3)), 8))
TWINS = (draw(jnp.zeros((T, T)), 9), draw(jnp.zeros((T, T)), 10))
FIRST = ((0,), (0,))


def scaled(x, y):
    return x * y.sum(1, keepdims=True), y * x.sum(1, keepdims=True)


# The same of functions of several arrays, the axes of each: all of them count the same positions, or none do.
TREES = {
    "two": (lambda xy: scaled(*xy), PAIR, (FIRST, FIRST)),
    "two to one": (lambda xy: jnp.sin(xy[0]) @ W * xy[1].sum(1, keepdims=True), PAIR, (FIRST, ((0,),))),
    "one to two": (lambda x: (jnp.sin(x) @ W, x.sum(1)), X, (((0,),), FIRST)),
    "handed on": (lambda x: (x, jnp.sin(x) @ W), X, (((0,),), FIRST)),
    "places changed": (lambda xy: scaled(*xy)[::-1], PAIR, (FIRST, FIRST)),
    "one transposed": (lambda xy: (scaled(*xy)[0].T, scaled(*xy)[1]), PAIR, (FIRST, ((1,), (0,)))),
    "on other axes": (lambda xy: (xy[0] * xy[1].sum(0)[:, None], xy[1]), (X, PAIR[1].T), (((0,), (1,)), ((0,), (1,)))),
    "two axes of both": (lambda xy: (xy[0] * xy[1].sum(2, keepdims=True), xy[1]), (CUBE, CUBE[..., :3]), (((0, 1),) * 2,) * 2),
    "vmap": (lambda xy: jax.vmap(lambda x, y: (x * y.sum(), jnp.outer(x, y)))(*xy), PAIR, (FIRST, FIRST)),
    "a scan of both": (lambda xy: lax.scan(lambda c, _: (scaled(*map(jnp.sin, c)), None), xy, None, 2)[0], PAIR, (FIRST, FIRST)),
    # What mixes, or may.
    "one flipped": (lambda xy: (xy[0] * xy[1].sum(1, keepdims=True)[::-1], xy[1]), PAIR, None),
    "one rolled": (lambda xy: (xy[0], jnp.roll(xy[1], 1, 0) * xy[0].sum(1, keepdims=True)), PAIR, None),
    "one against the other": (lambda xy: (xy[0] + xy[1].T * xy[0].sum(1, keepdims=True) * xy[0].sum(0), xy[1]), TWINS, None),
    "one shared": (lambda xy: scaled(xy[0], jnp.broadcast_to(xy[1], (T, 3))), (X, PAIR[1][0]), None),
    "one summed": (lambda xy: (xy[0] * xy[1].sum(), xy[1]), PAIR, None),
    "all pairs": (lambda xy: (xy[0] @ xy[0].T @ xy[1], xy[0]), PAIR, None),
    "one of them constant": (lambda x: (jnp.sin(x) @ W, jnp.ones((T, 2))), X, None),
    "a part of it": (lambda x: (x * x.sum(1, keepdims=True), x[:3] * x[:3].sum(1, keepdims=True)), X, None),
    "both in one": (lambda xy: jnp.concatenate(scaled(*xy), 0), (X, X + 1), None),
}  # fmt: skip
each_case = pytest.mark.parametrize("name", CASES)


def segment_of(fun, x):
    """The whole function as one segment."""
    return Segment.join(find(fun, (x,), 0).segments)


@each_case
def test_the_axes_of_positions(name):
    fun, x, axes = CASES[name]
    assert position_axes(segment_of(fun, x)) == (axes and ((axes[0],), (axes[1],)))


@pytest.mark.parametrize("name", [*CASES, *TREES])
def test_where_positions_are_proven_nothing_is_outside_their_blocks(name):
    fun, x, _ = (CASES | TREES)[name]
    if (axes := position_axes(segment_of(fun, x))) is None:
        return
    flat, unflatten = ravel_pytree(x)
    jac = np.asarray(jax.jit(jax.jacrev(lambda flat: ravel_pytree(fun(unflatten(flat)))[0]))(flat))
    outside = place_of_each(fun(x), axes.out)[:, None] != place_of_each(x, axes.into)
    assert not jac[outside].any()
    assert jac[~outside].any()


def place_of_each(tree, axes):
    """The position that each coordinate belongs to."""
    each = []
    for leaf, own in zip(jax.tree.leaves(tree), axes, strict=True):
        at = [np.indices(leaf.shape)[axis] for axis in own]
        each.append(np.ravel_multi_index(at, [leaf.shape[axis] for axis in own]).ravel())
    return np.concatenate(each)


@pytest.mark.parametrize("name", TREES)
def test_the_axes_of_positions_of_several_arrays(name):
    fun, x, axes = TREES[name]
    assert position_axes(segment_of(fun, x)) == axes


@pytest.mark.parametrize("name", TREES)
def test_a_jacobian_of_blocks_of_several_arrays_is_jaxs(name):
    fun, x, _ = TREES[name]

    def between(x):
        return jax.tree.map(jnp.tanh, fun(jax.tree.map(jnp.sin, x)))

    for mode in ("auto", "mixed"):
        close(*jax.jit(lambda x, mode=mode: (jc.jacobian(between, mode=mode)(x), jax.jacrev(between)(x)))(x))


@each_case
def test_a_jacobian_of_blocks_is_jaxs(name):
    fun, x, _ = CASES[name]

    def between(x):  # two stages more, so that blocks are multiplied
        return jnp.tanh(fun(jnp.sin(x) * 1.5) * 0.5)

    close(*jax.jit(lambda x: (jc.jacobian(between, mode="mixed")(x), jax.jacrev(between)(x)))(x))


NOT_LINEAR = {
    "adds": lambda c: c + 1.0,
    "softmax": lambda c: jax.nn.softmax(c, axis=-1),
    "fills zeros": lambda c: jnp.where(c == 0, 7.0, c),
}


@pytest.mark.parametrize("rule", NOT_LINEAR)
@pytest.mark.parametrize("place", ["alone", "last", "in the middle"])
def test_one_cotangent_serves_all_positions_only_where_the_rule_is_linear_in_it(rule, place):
    @jax.custom_vjp
    def bent(x):
        return jnp.tanh(x)

    bent.defvjp(lambda x: (jnp.tanh(x), None), lambda _, c: (NOT_LINEAR[rule](c),))
    fun = {"alone": bent, "last": lambda x: bent(x @ SQUARE), "in the middle": lambda x: bent(x @ SQUARE) @ SQUARE}[
        place
    ]
    want = jax.jit(jax.jacrev(fun))(X)
    for mode in ("auto", "mixed"):
        close(jc.jacobian(fun, mode=mode)(X), want)
    close(jc.gram_diagonal(fun)(X), (want**2).sum((0, 1)))


@pytest.mark.parametrize("mode", ["auto", "mixed"])
@pytest.mark.parametrize(
    ("x", "w"), [((0, 4), (4, 3)), ((3, 0), (0, 2)), ((3, 4), (4, 0)), ((1, 4), (4, 3)), ((6, 1), (1, 1))]
)
def test_weights_at_no_or_one_position(mode, x, w):
    x, w = draw(jnp.zeros(x)), draw(jnp.zeros(w), 1)
    for fun in (lambda x: x @ w, lambda x: jnp.tanh(x @ w)):
        close(jc.jacobian(fun, mode=mode)(x), jax.jit(jax.jacrev(fun))(x))


MIXERS = {
    "the weights of a batch": (lambda w: jnp.tanh(jnp.ones((4, 8)) @ w) @ draw(jnp.zeros((16, 8)), 3), (8, 16)),
    "a weight on the left after one on the right": (lambda x: draw(jnp.zeros((4, 16)), 3) @ jnp.tanh(x @ SQUARE), (16, D)),
    "a square one on the left": (lambda x: draw(jnp.zeros((16, 16)), 3) @ jnp.tanh(x @ SQUARE), (16, D)),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXERS)
def test_blocks_of_other_positions_are_multiplied_as_they_were_priced(name):
    fun, shape = MIXERS[name]
    x = draw(jnp.zeros(shape), 2)
    close(jax.jit(jc.jacobian(fun))(x), jax.jit(jax.jacrev(fun))(x))
    assert flops(jc.jacobian(fun), x) <= 1.02 * min(flops(jax.jacfwd(fun), x), flops(jax.jacrev(fun), x))


def attention(x):
    return x + jax.nn.softmax(x @ x.T) @ x


def test_the_half_of_a_block_that_works_by_positions_nearly_vanishes():
    x = draw(jnp.zeros((16, 12)), 9)
    w_in, w_out = draw(jnp.zeros((12, 48)), 10), draw(jnp.zeros((48, 12)), 11)

    def net(x):
        for _ in range(2):
            x = attention(x)
            x = x + jax.nn.gelu(normalised(x) @ w_in) @ w_out
        return x

    close(jax.jit(jc.jacobian(net))(x), jax.jit(jax.jacrev(net))(x))
    best = min(flops(jax.jacfwd(net), x), flops(jax.jacrev(net), x))
    assert flops(jc.jacobian(net), x) < 0.6 * best
    assert "for each of 16 positions" in str(jc.plan(net, (x,)))


def test_a_plan_names_blocks_and_kronecker_products():
    def net(w, x):
        return jnp.tanh(normalised(x @ w) * x.sum(1, keepdims=True)) @ w

    decision = jc.plan(net, (jax.ShapeDtypeStruct(SQUARE.shape, X.dtype), X), argnum=1)
    told = list(map(decision.describe, decision.steps))
    assert any(step.endswith("is I ⊗ its weights, read off, for each of 6 positions") for step in told)
    assert told[-1].endswith("back to input, for each of 6 positions")


def test_a_function_over_a_batch_takes_one_samples_vectors():
    def fun(xs):
        return jax.vmap(lambda x: half(x[None])[0])(xs)

    xs = draw(jnp.zeros((16, D)), 12)
    close(*jax.jit(lambda xs: (jc.jacobian(fun)(xs), jax.jacrev(fun)(xs)))(xs))
    best = min(flops(jax.jacfwd(fun), xs), flops(jax.jacrev(fun), xs))
    assert flops(jc.jacobian(fun), xs) < best / 8


@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp", "chunks", "bfloat16"])
def test_blocks_within_transforms(transform):
    w = draw(jnp.zeros((D, D)), 13)

    def fun(x):
        return half(attention(half(x)) @ w)

    ours, jaxs = jc.jacobian(fun, mode="mixed"), jax.jacrev(fun)
    if transform == "grad":
        close(*(jax.jit(jax.grad(lambda x, jac=jac: (jac(x) ** 2).sum()))(X) for jac in (ours, jaxs)))
    elif transform == "vmap":
        close(*(jax.jit(jax.vmap(jac))(CUBE) for jac in (ours, jaxs)))
    elif transform == "jvp":
        close(*(jax.jit(lambda x, jac=jac: jax.jvp(jac, (x,), (x,))[1])(X) for jac in (ours, jaxs)))
    elif transform == "chunks":
        close(*jax.jit(lambda x: (jc.jacobian(fun, mode="mixed", chunk_size=2)(x), jaxs(x)))(X))
    else:
        x = X.astype("bfloat16")
        got, want = jax.jit(jc.jacobian(half, mode="mixed"))(x), jax.jit(jax.jacrev(half))(X)
        assert got.dtype == x.dtype
        np.testing.assert_allclose(np.asarray(got, np.float32), want, atol=0.1 * float(jnp.abs(want).max()))


# ---------------------------------------------------------------------------------------------------------- the algebra

SHAPES = [((T, D), (0,)), ((D, T), (1,)), ((2, T, D), (0, 1)), ((2, D, 3), (0, 2)), ((3, 1, D, 2), (0, 3))]


@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_a_layout_splits_and_joins(shape, axes):
    layout, size = Layout.of([shape], [axes]), int(np.prod(shape))
    assert layout.count * layout.width == size
    array = np.arange(2 * size * 3).reshape(2, size, 3)
    split = layout.split(jnp.asarray(array), 1)
    others = [k for k in range(len(shape)) if k not in axes]
    want = array.reshape(2, *shape, 3).transpose(0, *(1 + k for k in (*axes, *others)), 1 + len(shape))
    np.testing.assert_array_equal(split, want.reshape(2, layout.count, layout.width, 3))
    np.testing.assert_array_equal(layout.join(split, 1), array)


@pytest.mark.parametrize("same", [False, True], ids=["blocks", "one block"])
def test_products_are_those_of_the_dense_matrices(same):
    first, last = Layout.of([(T, D)], [(0,)]), Layout.of([(D, T)], [(1,)])

    def blocks(into, out, seed):
        return Blocks(draw(jnp.zeros((1 if same else T, D, D)), seed), into, out)

    n = T * D
    factors = [
        Identity(n, jnp.float32),
        Diagonal(draw(jnp.zeros(n), 1)),
        Dense(draw(jnp.zeros((n, n)), 2)),
        *(blocks(into, out, 3) for into in (first, last) for out in (first, last)),
    ]
    for left in factors:
        for right in factors:
            product = multiply(left, right)
            close(product.dense(), left.dense() @ right.dense())
            if isinstance(left, Blocks) and isinstance(right, Blocks):
                assert isinstance(product, Blocks) == (left.into == right.out)
