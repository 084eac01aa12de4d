"""Arguments of the right kind and the wrong structure: each is refused in a sentence of ours, which names what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_malformed import is_ours

import jaxchain as jc

X, NAN = jnp.ones(3), jnp.array([1.0, jnp.nan, 1.0])
NET = jc.nets.mlp([3, 4, 2])
PARAMS = NET.init(jax.random.key(0))
OTHER = jc.nets.mlp([3, 5, 2]).init(jax.random.key(0))
CHAIN = jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("square", jnp.square)])
DATA = (jnp.ones((4, 3)), jnp.ones((4, 2)))
SHORT = (jnp.ones((4, 3)), jnp.ones((5, 2)))
SEQUENCE = jnp.ones((8, 3))
ADAM = optax.adam(0.1)


def loss(params, batch):
    return jnp.mean((jax.vmap(NET, (None, 0))(params, batch[0]) - batch[1]) ** 2)


def fit(**how):
    return jc.train.fit(
        **{"loss": loss, "params": PARAMS, "data": DATA, "optimizer": ADAM, "steps": 2, "progress": False} | how
    )


def energy(x):
    return jnp.sum(x**2)


def looks(x):
    return x if x[0] > 0 else -x


CALLS = {
    "a tangent of another shape": (lambda: jc.forward_sweep(CHAIN, (X,), jnp.ones(4)), "tangent"),
    "a tangent of another dtype": (lambda: jc.forward_sweep(CHAIN, (X,), jnp.ones(3, int)), "tangent"),
    "a tangent of another structure": (lambda: jc.forward_sweep(CHAIN, (X,), (X,)), "tangent"),
    "a cotangent of another shape": (lambda: jc.reverse_sweep(CHAIN, (X,), jnp.ones(4)), "cotangent"),
    "a cotangent like the input": (lambda: jc.reverse_sweep(NET, (PARAMS, X), X), "cotangent"),
    "a cotangent to locate by": (lambda: jc.locate_nonfinite(CHAIN, (X,), cotangent=jnp.ones(2)), "cotangent"),
    "a cotangent to diagnose by": (lambda: jc.diagnose(CHAIN, (X,), jnp.ones(2)), "cotangent"),
    "a cotangent that flows": (lambda: jc.gradient_flow(CHAIN, (X,), jnp.ones(2)), "cotangent"),
    "a cotangent to trace": (lambda: jc.trace(jnp.sin, X, cotangent=jnp.ones(2)), "cotangent"),
    "a tangent to trace": (lambda: jc.trace(jnp.sin, X, tangent=(jnp.ones(2),)), "tangent"),
    "parameters of another net": (lambda: jc.reverse_sweep(NET, (OTHER, X), jnp.ones(2)), "another chain"),
    "no parameters": (lambda: NET(X), "two arguments"),
    "parameters of a chain without": (lambda: CHAIN(PARAMS, X), "No stage of this chain has parameters"),
    "parameters as a list": (lambda: NET([PARAMS], X), "Parameters are a dict"),
    "one argument too many": (lambda: jc.discover(jnp.sin, X)(X, X), "arguments"),
    "an array of another shape for a discovered chain": (
        lambda: jc.discover(jnp.sin, X)(jnp.ones(4)),
        "discover again",
    ),
    "a state that a stage cannot take": (lambda: NET(PARAMS, jnp.ones(5)), "dense_0"),
    "integers along a chain": (lambda: jc.forward_sweep(CHAIN, (jnp.arange(3),), X), "floating"),
    "text among arguments": (lambda: jc.discover(lambda d: d["x"], {"x": X, "name": "a"}), "'name'"),
    "a function that looks at numbers": (lambda: jc.discover(looks, X), "asks for numbers"),
    "a stage of another name": (lambda: jc.partial_jacobian(CHAIN, (X,), "sine", "square"), "sin"),
    "stages the wrong way round": (lambda: jc.partial_jacobian(CHAIN, (X,), "square", "sin"), "Swap"),
    "a chain along another argument": (lambda: jc.forward_sweep(NET, (PARAMS, X), X, argnum=0), "argnum"),
    "an argument that is not there": (lambda: jc.plan(jnp.sin, (X,), argnum=3), "argnum"),
    "a row that is not there": (lambda: jc.jacobian_rows(jnp.sin, [7])(X), "row"),
    "a diagonal of what is not square": (lambda: jc.jacobian_diagonal(jnp.sum)(X), "square"),
    "a determinant of what is not square": (lambda: jc.logdet(jnp.sum)(X), "square"),
    "a Hessian of several numbers": (lambda: jc.hessian(jnp.sin, (X,)), "return one number"),
    "a Laplacian of several numbers": (lambda: jc.laplacian(jnp.sin)(X), "return one number"),
    "a vector of another shape": (lambda: jc.hvp(energy, (X,), jnp.ones(4)), "v"),
    "a matrix of weights that does not fit": (lambda: jc.laplacian(energy, weights=jnp.ones((2, 2)))(X), "weights"),
    "samples that mix": (lambda: jc.batch_jacobian(lambda x: x - x.mean(0))(DATA[0]), "mix"),
    "batches of two lengths": (lambda: jc.sample_gradients(loss, PARAMS, SHORT), "4"),
    "integers as parameters": (lambda: jc.sample_gradients(loss, {"w": jnp.arange(3)}, DATA), "params"),
    "norms of integers": (lambda: jc.sample_gradient_norms(loss, {"w": jnp.arange(3)}, DATA), "params"),
    "a loss of several numbers": (lambda: jc.gradient_moments(lambda p, b: b[0] @ p, X, DATA), "loss"),
    "samples of two shapes": (lambda: jc.ntk(NET, PARAMS, DATA[0], jnp.ones((2, 4))), "ys"),
    "a batch that is no pair": (lambda: jc.ggn(NET, lambda z, y: jnp.sum(z), PARAMS, DATA[0]), "pair"),
    "a vector of another curvature": (
        lambda: jc.ggn(NET, lambda z, y: jnp.sum((z - y) ** 2), PARAMS, DATA)(jnp.ones(3)),
        "vector",
    ),
    "a vector of another kernel": (lambda: jc.ntk_operator(NET, PARAMS, DATA[0]).matvec(jnp.ones(3)), "vector"),
    "NaN among the data": (lambda: fit(data=(DATA[0].at[2, 1].set(jnp.nan), DATA[1])), "sample"),
    "data of two lengths": (lambda: fit(data=SHORT), "4"),
    "integers as parameters to train": (lambda: fit(params={"w": jnp.arange(3)}), "'w'"),
    "a batch without a key": (lambda: fit(batch_size=2), "key"),
    "a batch larger than the data": (lambda: fit(batch_size=9, key=jax.random.key(0)), "batch_size"),
    "a loss that is no number": (lambda: fit(loss=lambda p, b: b[0]), "loss"),
    "a loss that is NaN at once": (lambda: fit(loss=lambda p, b: loss(p, b) / 0), "first step"),
    "an optimiser's name": (lambda: fit(optimizer="adam"), "optimizer"),
    "an observation of strings": (lambda: fit(observe=lambda info: "x"), "observe"),
    "sequences of one position": (
        lambda: jc.lens.fit(CHAIN, [(SEQUENCE[:1],)], skip_first=0, progress=False),
        "position",
    ),
    "a mask of another length": (
        lambda: jc.lens.fit(CHAIN, [(SEQUENCE,)], mask=lambda x: jnp.ones(3, bool), progress=False),
        "mask",
    ),
    "no sequences": (lambda: jc.lens.fit(CHAIN, [], progress=False), "inputs"),
    "a folder for a page": (lambda: jc.report(jnp.sin, X, path=".", progress=False), "is a folder"),
    "a folder that is not there": (lambda: jc.report(jnp.sin, X, path="none/such/page.html", progress=False), "none"),
    "shapes for a page": (lambda: jc.report(jnp.sin, jax.ShapeDtypeStruct((3,), float), progress=False), "shapes"),
    "shapes to look through": (lambda: jc.locate_nonfinite(jnp.sin, (jax.ShapeDtypeStruct((3,), float),)), "shapes"),
    "numbers that are traced": (lambda: jax.jit(lambda x: jc.diagnose(CHAIN, (x,)).verdict)(X), "shapes"),
    "two names that are one": (lambda: jc.Chain([jc.Stage("a", jnp.sin), jc.Stage("a", jnp.cos)]), "unique"),
    "a step in a slice": (lambda: CHAIN[::2], "step"),
    "a name that nothing has": (lambda: CHAIN["cosine"], "cosine"),
    "sizes and edges that do not match": (lambda: jc.bracket([3, 1, 3], [3]), "edges"),
    "a size below zero": (lambda: jc.bracket([3, -1, 3], [3, 3]), "sizes"),
    "a net of one size": (lambda: jc.nets.mlp([3]), "sizes"),
    "heads that do not divide the width": (lambda: jc.nets.transformer([3, 5, 2], depth=1, heads=2), "heads"),
    "a point that no activation has": (lambda: jc.signal.fixed_point("tanh", sigma_w=-1.0, sigma_b=0.0), "sigma_w"),
    "paths between nodes that are not there": (lambda: jc.graph(energy, X).paths("a", "y"), "a"),
    "a matrix that is none": (lambda: jc.plot.matrix(np.ones(3)), "matrix"),
}


def test_there_are_sixty_of_them():
    assert len(CALLS) >= 60


@pytest.mark.parametrize("case", CALLS)
def test_what_is_malformed_is_refused_in_words(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, words = CALLS[case]
    with pytest.raises((TypeError, ValueError, KeyError, IndexError, OSError)) as caught:
        call()
    error = caught.value
    assert is_ours(error), repr(error)
    assert words.lower() in str(error).lower()
    assert str(error).rstrip("'\"").endswith((".", ")"))
