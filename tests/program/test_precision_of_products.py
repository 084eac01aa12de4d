"""Products of matrices that jaxchain adds are as precise as those of the function itself, whichever way that is said."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

import jaxchain as jc
from jaxchain.program.flatten import flatten
from jaxchain.program.precision import asked_precision

WEIGHTS = [jnp.full(shape, 0.1) for shape in ((8, 20), (20, 8), (8, 20), (20, 8))]
X, XS = jnp.ones(8), jnp.ones((2, 8))


def net(precision):
    def apply(x, weights=WEIGHTS):
        for w in weights:
            x = jnp.tanh(jnp.dot(x, w, precision=precision))
        return x

    return apply


def loss(f):
    return lambda w, xs: jnp.mean(jax.vmap(lambda x: jnp.sum(f(x, w) ** 2))(xs))


WAYS = {
    "planned Jacobian": lambda f: jc.jacobian(f, mode="mixed")(X),
    "some rows": lambda f: jc.jacobian_rows(f, [0])(X),
    "norms of columns": lambda f: jc.gram_diagonal(f)(X),
    "between states": lambda f: jc.partial_jacobian(f, (X,), "input", jc.discover(f, X).names[-1]),
    "determinant": lambda f: jc.logdet(f)(X),
    "Hessian by stages": lambda f: jc.hessian(lambda x: jnp.sum(f(x) ** 2), (X,), mode="stages"),
    "Laplacian": lambda f: jc.laplacian(lambda x: jnp.sum(f(x) ** 2))(X),
    "norms of samples' gradients": lambda f: jc.sample_gradient_norms(loss(f), WEIGHTS, XS).whole,
    "moments": lambda f: jc.gradient_moments(loss(f), WEIGHTS, XS).variance,
    "tangent kernel": lambda f: jc.ntk(lambda w, x: f(x, w), WEIGHTS, XS),
    "Gauss-Newton": lambda f: jc.ggn(lambda w, x: f(x, w), lambda z, _: jnp.sum(z**2), WEIGHTS, (XS, None)).diagonal(),
}


def precisions(fun):
    """The precision of every product in the program of ``fun()``."""

    def inside(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield str(eqn.params["precision"])
            for inner in jaxprs_in_params(eqn.params):
                yield from inside(getattr(inner, "jaxpr", inner))

    return set(inside(jax.make_jaxpr(fun)().jaxpr))


HIGHEST = {"(Precision.HIGHEST, Precision.HIGHEST)"}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_function_asks_for_holds_for_what_is_made_of_it(way):
    assert precisions(lambda: WAYS[way](net("highest"))) == HIGHEST
    with jax.default_matmul_precision("highest"):
        assert precisions(lambda: WAYS[way](net(None))) == HIGHEST
    assert precisions(lambda: WAYS[way](net(None))) == {"None"}


def test_what_holds_around_a_call_is_never_lowered():
    with jax.default_matmul_precision("float32"):
        assert precisions(lambda: jc.gram_diagonal(net("high"))(X)) == {
            "(Precision.HIGH, Precision.HIGH)",
            *HIGHEST,
        }


def test_a_plan_says_so():
    assert "at precision 'highest'" in " ".join(str(jc.plan(net("highest"), (X,))).split())
    assert "Matrices are multiplied" not in str(jc.plan(net(None), (X,)))


def test_the_highest_of_all_products_counts_loops_and_branches_among_them():
    def fun(x):
        x, _ = jax.lax.scan(lambda h, _: (jnp.dot(h, h, precision="high"), None), x, None, 3)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x, jnp.sin, x)

    assert asked_precision(flatten(jax.make_jaxpr(fun)(jnp.eye(2))).eqns) == "high"
    assert asked_precision([]) == "default"
