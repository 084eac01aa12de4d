"""The Gauss–Newton matrix and Fisher's information are what they are defined as; as operators they serve others' solvers."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from definitions import assert_gauss_newton, doubled, everything, gauss_newton, of_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from losses import LOSSES
from models import MODELS, some

import jaxchain as jc

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

from programs import program

NET = jc.nets.mlp([3, 4, 3], "tanh")
PARAMS = {
    name: {"w": some(*shape), "b": some(shape[0])} for name, shape in {"dense_0": (4, 3), "dense_1": (3, 4)}.items()
}
XS, LABELS = some(5, 3), jnp.array([0, 2, 1, 1, 0])


def bent(z, y):
    """A convex loss of any outputs, whose Hessian is full."""
    flat = ravel_pytree(z)[0]
    return jnp.sum(jnp.log(jnp.cosh(flat * (1 + y)))) + jnp.sum(flat) ** 2 / 2


def cross_entropy(z, y):
    return jax.nn.logsumexp(z) - z[y]


# -------------------------------------------------------------------------------------------------- equal to its definition


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_the_operator_is_the_mean_of_jacobians_around_the_losss_hessian(name):
    model, params, xs = MODELS[name]()
    assert_gauss_newton(lambda p, x: model(p, x[None])[0], bent, params, xs, 0.1 * jnp.arange(len(xs)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_it_is_so_however_parameters_meet_the_data(case):
    params, batch = case.args()
    one = partial(jax.tree.map, lambda leaf: leaf[None])
    # One of them clips cotangents, so that there is no matrix whose product with a vector would be one.
    assert_gauss_newton(
        lambda p, x: case.fun(p, one(x)),
        lambda z, _: jnp.log(jnp.cosh(z)),
        params,
        batch,
        None,
        linear=case.name != "ruled",
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (jc.nets.residual_net([3, 4, 2], 1), (2, 3)),
        (jc.nets.conv_net((4, 4, 1), [2], 2), (2, 4, 4, 1)),
        (jc.nets.rnn((2, 3, 2)), (2, 4, 2)),
        (jc.nets.transformer((3, 4, 2), 1, 2), (2, 3, 3)),
    ],
    ids=["residual", "convolutions", "rnn", "transformer"],
)
def test_it_is_so_for_networks_of_ones_own_whose_states_may_be_several_arrays(net, shape):
    params = jax.tree.map(lambda leaf: some(*leaf.shape), jax.eval_shape(net.init, jax.random.key(0)))
    assert_gauss_newton(lambda p, x: {"y": net(p, x), "size": jnp.sum(x)}, bent, params, some(*shape), jnp.arange(2.0))


@pytest.mark.usefixtures("x64")
@given(st.integers(0, 10_000).filter(lambda seed: seed % 5))
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
def test_it_is_so_for_random_programs(seed):
    """Their first argument is little used: what others call the input is the parameters here."""
    made = program(seed)
    xs = made.args[0] * jnp.array([[1.0], [0.8]])

    def convex(z, _):
        return sum((jnp.sum(jnp.sqrt(1 + leaf**2)) for leaf in jax.tree.leaves(z)), jnp.zeros(()))

    @jax.jit
    def both(params, xs):
        got = everything(jc.ggn(lambda p, x: made(x, p), convex, params, (xs, None), convex=False))
        return got, of_matrix(gauss_newton(lambda p, x: made(x, p), convex, params, xs, None))

    got, want = both(made.args[1], xs)
    if made.kinds & {"low", "cast"}:  # single precision on the way
        assert_close(got, want, 1e-3)
    elif np.isfinite(want["dense"]).all():
        assert_close(got, want, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk_size", [1, 2, 5, 9])
def test_chunks_change_nothing(chunk_size):
    params, xs = doubled((PARAMS, XS))

    @jax.jit
    def both(params, xs):
        return [
            everything(jc.ggn(NET, cross_entropy, params, (xs, LABELS), chunk_size=size)) for size in (chunk_size, None)
        ]

    assert_close(*both(params, xs), 1e-12)


@pytest.mark.usefixtures("x64")
def test_a_rule_without_forward_mode_is_pushed_through_by_the_derivative_of_its_pull():
    @jax.custom_vjp
    def wave(x):
        return jnp.sin(x)

    wave.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    assert_gauss_newton(lambda w, x: wave(x @ w), bent, doubled(some(3, 2)), doubled(XS), 0.1 * jnp.arange(5))


# --------------------------------------------------------------------------------------------------------- likelihoods


LOSS_OF = {
    "categorical": lambda z, y: jnp.sum(jax.nn.logsumexp(z, -1)) - jnp.sum(jax.nn.one_hot(y, z.shape[-1]) * z),
    "gaussian": lambda z, y: jnp.sum((z - y) ** 2) / 2,
    "bernoulli": lambda z, y: jnp.sum(jax.nn.softplus(z) - y * z),
    "poisson": lambda z, y: jnp.sum(jnp.exp(z) - y * z),
}


def some_y(likelihood, shape):
    if likelihood == "categorical":
        return jnp.arange(np.prod(shape[:-1])).reshape(shape[:-1]).astype(int) % shape[-1]
    return jnp.arange(np.prod(shape)).reshape(shape) % 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("likelihood", LOSS_OF)
@pytest.mark.parametrize("positions", [False, True])
def test_fishers_information_is_the_gauss_newton_matrix_of_the_negative_log_likelihood(likelihood, positions):
    w, xs = doubled((some(3, 3), some(4, 2, 3) if positions else some(4, 3)))
    ys = some_y(likelihood, xs.shape)

    def model(w, x):
        return x @ w

    @jax.jit
    def both(w, xs):
        got = everything(jc.fisher(model, w, (xs, None), likelihood))
        return got, of_matrix(gauss_newton(model, LOSS_OF[likelihood], w, xs, ys))

    assert_close(*both(w, xs), 1e-10)


@pytest.mark.usefixtures("x64")
def test_it_is_what_the_model_expects_of_the_score_times_itself():
    params, xs = doubled((PARAMS, XS))
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def expected(params):
        def one(x):
            chances = jax.nn.log_softmax(NET(params, x))
            scores = jax.jacrev(lambda v: jax.nn.log_softmax(NET(unravel(v), x)))(flat)
            return (scores.T * jnp.exp(chances)) @ scores

        return jnp.mean(jax.vmap(one)(xs), 0)

    assert_close(jax.jit(lambda p: jc.fisher(NET, p, (xs, None)).dense())(params), expected(params), 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("likelihood", [*LOSS_OF, "a function"])
def test_the_empirical_one_is_the_mean_of_samples_gradients_times_themselves(likelihood):
    params, xs = doubled((PARAMS, XS))
    loss = LOSS_OF.get(likelihood, lambda z, y: jnp.sum((z - y) ** 4))
    ys = some_y(likelihood, (5, 3))

    @jax.jit
    def both(params, xs):
        each = jax.vmap(lambda x, y: ravel_pytree(jax.grad(lambda p: loss(NET(p, x), y))(params))[0])(xs, ys)
        given = likelihood if likelihood in LOSS_OF else loss
        return everything(jc.fisher(NET, params, (xs, ys), given, empirical=True)), of_matrix(each.T @ each / 5)

    assert_close(*both(params, xs), 1e-10)


@pytest.mark.parametrize("likelihood", LOSS_OF)
def test_drawn_outcomes_give_the_information_in_the_mean_and_the_same_for_the_same_key(likelihood):
    w, xs = 0.5 * some(3, 3), some(4, 3)

    @jax.jit
    def both(key):
        drawn = jc.fisher(lambda w, x: x @ w, w, (xs, None), likelihood, draws=4000, key=key)
        return everything(drawn), everything(jc.fisher(lambda w, x: x @ w, w, (xs, None), likelihood))

    got, want = both(jax.random.key(0))
    # Of 16,000 draws the mean is within a few hundredths.
    assert_close(got, want, 0.1)
    assert_close(of_matrix(got["dense"]), got, 1e-4)
    assert_close(both(jax.random.key(0))[0], got, 0)
    assert np.abs(both(jax.random.key(1))[0]["dense"] - got["dense"]).max() > 0


@pytest.mark.parametrize("logits", [[200.0, -200.0, 0.0], [-120.0, -100.0, 0.0], [0.0, -1e30, -1e30]])
def test_classes_without_a_chance_leave_everything_finite(logits):
    w = jnp.array(logits)

    def trace(w):
        return jc.fisher(lambda w, x: x * w, w, (jnp.ones(1), None)).trace()

    value, slope = jax.jit(jax.value_and_grad(trace))(w)
    chances = jax.nn.softmax(w)
    np.testing.assert_allclose(value, jnp.sum(chances * (1 - chances)), atol=1e-6)
    assert np.isfinite(slope).all()


# -------------------------------------------------------------------------------------------- transforms and precisions


@pytest.mark.usefixtures("x64")
def test_it_is_differentiated_and_mapped_as_any_function_is():
    params, xs = doubled((PARAMS, XS))

    def ours(p):
        fisher = jc.fisher(NET, p, (xs, None))
        return fisher.trace() + jnp.sum(ravel_pytree(fisher.diagonal())[0] ** 2)

    def theirs(p):
        matrix = gauss_newton(NET, cross_entropy, p, xs, LABELS)
        return jnp.trace(matrix) + jnp.sum(jnp.diag(matrix) ** 2)

    assert_close(jax.jit(jax.grad(ours))(params), jax.jit(jax.grad(theirs))(params), 1e-10)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    mapped = jax.jit(jax.vmap(ours))(two)
    assert_close(mapped, jnp.stack([jax.jit(ours)(jax.tree.map(lambda leaf, k=k: leaf[k], two)) for k in range(2)]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_have_the_parameters_dtypes(dtype):
    params, xs = jax.tree.map(lambda leaf: leaf.astype(dtype), (PARAMS, XS))

    @jax.jit
    def ours(params, xs):
        operator = jc.ggn(NET, cross_entropy, params, (xs, LABELS))
        return everything(operator), operator.diagonal(), operator.kronecker().solve(params, 0.1)

    got, diagonal, solved = ours(params, xs)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((diagonal, solved, got["dense"], got["product"]))}
    assert dtypes == {jnp.dtype(dtype)}
    assert got["trace"].dtype == jnp.float32
    exact = of_matrix(jax.jit(partial(gauss_newton, NET, cross_entropy))(PARAMS, XS, LABELS))
    got = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), got)
    assert_close(got, exact, 16 * float(jnp.finfo(dtype).eps))


def test_outside_jit_it_is_the_same():
    operator = jc.ggn(lambda w, x: jnp.tanh(x @ w), lambda z, y: jnp.sum((z - y) ** 2), some(3, 2), (XS, some(5, 2)))
    assert_close(everything(operator), of_matrix(operator.dense()), 1e-5)
    assert operator.T is operator
    assert operator.like.shape == (3, 2)


# ------------------------------------------------------------------------------------------------------- others' solvers


@pytest.mark.usefixtures("x64")
def test_matfree_finds_eigenvalues_and_the_trace_of_it():
    from matfree import decomp, eig, stochtrace

    params, xs = doubled((PARAMS, XS))
    operator = jc.fisher(NET, params, (xs, None))
    exact = jax.jit(operator.dense)()
    # Of ten outputs' directions at most so many eigenvalues are not zero: the Krylov space holds all of them.
    lanczos = eig.eigh_partial(decomp.tridiag_sym(12))
    start = jax.tree.map(lambda leaf: some(*leaf.shape), params)
    found, _ = jax.jit(lambda start: lanczos(operator, start))(start)
    np.testing.assert_allclose(jnp.sort(found)[-4:], jnp.linalg.eigvalsh(exact)[-4:], rtol=1e-8)
    signs = stochtrace.sampler_signs(params, num=300)
    estimate = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), signs)
    guess = jax.jit(lambda key: estimate(operator, key))(jax.random.key(0))
    np.testing.assert_allclose(guess, jnp.trace(exact), rtol=0.2)


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
def test_lineax_solves_with_it():
    lx = pytest.importorskip("lineax")
    params, xs = doubled((PARAMS, XS))
    operator = jc.fisher(NET, params, (xs, None))
    damped = lx.FunctionLinearOperator(
        lambda v: jax.tree.map(lambda product, leaf: product + 0.1 * leaf, operator(v), v),
        operator.like,
        lx.positive_semidefinite_tag,
    )
    plain = lx.FunctionLinearOperator(operator, operator.like, lx.positive_semidefinite_tag)
    solved = jax.jit(lambda v: lx.linear_solve(damped, v, lx.CG(rtol=1e-12, atol=1e-12)).value)(params)
    exact = jax.jit(operator.dense)()
    want = jnp.linalg.solve(exact + 0.1 * jnp.eye(len(exact)), ravel_pytree(params)[0])
    np.testing.assert_allclose(ravel_pytree(solved)[0], want, atol=1e-9)
    np.testing.assert_allclose(jax.jit(lambda: plain.as_matrix())(), exact, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_conjugate_gradients_solve_it_with_kronecker_factors_before_or_without():
    params, xs = doubled((PARAMS, XS))
    operator = jc.fisher(NET, params, (xs, None))
    exact = jax.jit(operator.dense)()
    want = jnp.linalg.solve(exact + 0.1 * jnp.eye(len(exact)), ravel_pytree(params)[0])

    @jax.jit
    def solved(params):
        near = partial(operator.kronecker().solve, damping=0.1)
        both = [operator.solve(params, 0.1, tol=1e-12, maxiter=200, precondition=how) for how in (None, near)]
        return [ravel_pytree(tree)[0] for tree in both]

    for got in solved(params):
        np.testing.assert_allclose(got, want, atol=1e-8)


# ------------------------------------------------------------------------------------------------------------- bad input

W, BATCH = jnp.ones((3, 2)), (XS, some(5, 2))


def linear(w, x):
    return x @ w


def squared(z, y):
    return jnp.sum((z - y) ** 2)


def test_a_loss_that_bends_down_is_refused_by_its_sample_unless_that_is_asked_for():
    def saddle(z, y):
        return jnp.sum(jnp.where(y > 0, -1.0, 1.0) * z**2)

    ys = jnp.array([-1.0, -1.0, -1.0, 1.0, -1.0])[:, None] * jnp.ones(2)
    operator = jc.ggn(linear, saddle, W, (XS, ys))
    for ask in (operator.diagonal, operator.trace, operator.dense, operator.kronecker):
        with pytest.raises(ValueError, match=r"not convex .* at sample 3 .* negative eigenvalue.* convex=False"):
            ask()
    taken = jc.ggn(linear, saddle, W, (XS, ys), convex=False)
    want = of_matrix(jax.jit(lambda w: gauss_newton(linear, saddle, w, XS, ys))(W))
    for got in (everything(taken), jax.jit(lambda w: everything(jc.ggn(linear, saddle, w, (XS, ys))))(W)):
        assert_close(got, want, 1e-5)
    assert np.linalg.eigvalsh(want["dense"]).min() < -0.01


def test_a_loss_that_is_flat_is_convex():
    operator = jc.ggn(linear, lambda z, y: jnp.sum(jax.nn.relu(z - y)), W, BATCH)
    assert operator.trace() == 0
    assert not operator.dense().any()


REFUSED = {
    "loss that is one real number": lambda: jc.ggn(linear, lambda z, y: z - y, W, BATCH),
    r"batch\[1\].*of 4 samples.*has 5": lambda: jc.ggn(linear, squared, W, (XS, some(4, 2))),
    "mean over samples, but the batch has none": lambda: jc.ggn(linear, squared, W, (XS[:0], some(0, 2))),
    r"params\['n'\] is int32": lambda: jc.ggn(lambda p, x: x @ p["w"], squared, {"w": W, "n": jnp.arange(2)}, BATCH),
    "is the pair": lambda: jc.ggn(linear, squared, W, XS),
    "output of fun is int32": lambda: jc.ggn(lambda w, x: jnp.argmax(x @ w), squared, W, BATCH),
    "is complex": lambda: jc.ggn(lambda w, x: x @ w + 1j, lambda z, y: jnp.sum(jnp.abs(z)), W, BATCH),
    "params at .* is complex|A leaf of params is complex": lambda: jc.ggn(linear, squared, W + 1j, BATCH),
    "params holds no array": lambda: jc.ggn(lambda p, x: x, squared, {}, BATCH),
    "Unknown likelihood 'gausian'. Did you mean 'gaussian'": lambda: jc.fisher(linear, W, BATCH, "gausian"),
    "logits of classes along its last axis, but fun returns float32": lambda: jc.fisher(
        lambda w, x: jnp.sum(x @ w), W, BATCH
    ),
    "likelihood is of one array": lambda: jc.fisher(lambda w, x: (x @ w, x), W, BATCH, "gaussian"),
    "no expectation is known": lambda: jc.fisher(linear, W, BATCH, squared),
    "reads ys: .* each is of shape": lambda: jc.fisher(linear, W, BATCH, empirical=True),
    "key is a random key": lambda: jc.fisher(linear, W, BATCH, draws=2),
    "vector must look like the parameters, or be flat": lambda: jc.fisher(linear, W, BATCH)(jnp.ones(5)),
    "damping is what is added": lambda: jc.fisher(linear, W, BATCH).solve(W, -1.0),
    "Unknown convention for shared weights 'sum'": lambda: jc.fisher(linear, W, BATCH).kronecker("sum"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(said):
    with pytest.raises((TypeError, ValueError), match=said):
        REFUSED[said]()


def test_a_matrix_too_large_to_be_made_unasked_is_refused_with_the_way_out():
    wide = jnp.zeros((40_000, 1))
    operator = jc.fisher(linear, wide, (jnp.ones((2, 40_000)), None), "gaussian")
    with pytest.raises(ValueError, match=r"40,000 × 40,000 numbers .* \.diagonal\(\) or \.kronecker\(\)"):
        operator.dense()
    np.testing.assert_allclose(operator.trace(), 40_000)


def test_a_leaf_that_is_not_used_has_no_curvature():
    params = {"w": W, "idle": jnp.ones(4)}
    operator = jc.ggn(lambda p, x: x @ p["w"], squared, params, BATCH)
    assert not operator.diagonal()["idle"].any()
    assert not operator(params)["idle"].any()
    np.testing.assert_allclose(operator.kronecker().solve(params, 0.5)["idle"], 2.0)
    nothing = jc.ggn(lambda p, x: x, squared, {"idle": jnp.ones(4)}, (XS, XS))
    assert nothing.trace() == 0
    assert nothing.kronecker().blocks == ()


def test_a_while_loop_over_parameters_is_refused_with_the_way_out():
    def looped(w, x):
        return jax.lax.while_loop(lambda h: jnp.sum(h) < 3, lambda h: h + 1 + jnp.sum(x @ w) ** 2, jnp.zeros(2))

    with pytest.raises(jc.ModeError, match=r"no reverse mode for fun, whose stage 'while.* loops .* jax.lax.scan"):
        jc.ggn(looped, squared, W, BATCH)
