"""Hessians, their products, diagonals and traces, in every way, against `jax.hessian`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, named, real, real_function
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxchain as jc
from jaxchain.jacobians.sparse import available
from jaxchain.second_order.products import PRODUCTS
from jaxchain.second_order.ways import HessianMode

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))
programs = pytest.importorskip("programs")

pytestmark = pytest.mark.usefixtures("x64")

TOL = 1e-10


def wide(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def scalar(fun: Any) -> Any:
    """A function of one number that bends in every result of ``fun``."""

    def of(*args: Any) -> jax.Array:
        parts = [jnp.ravel(jnp.asarray(leaf)) for leaf in jax.tree.leaves(fun(*args))]
        parts = [part for part in parts if jnp.issubdtype(part.dtype, jnp.floating)]
        return sum((jnp.sum(jnp.sin(part) * jnp.linspace(0.3, 1, part.size)) for part in parts), jnp.zeros(()))

    return of


def assert_second_derivatives(fun: Any, args: tuple[Any, ...], argnum: int = -1, *, stages: bool = True) -> None:
    """All that is computed of a function's Hessian is what JAX makes of it, in one compiled program."""
    argnum %= len(args)
    vector = draw(args[argnum], 5)

    @jax.jit
    def run(*args: Any) -> Any:
        def of_vector(vector: jax.Array) -> jax.Array:
            return real_function(lambda x: fun(*args[:argnum], x, *args[argnum + 1 :]), args[argnum])[0](vector)[0]

        matrix = jax.hessian(of_vector)(real(args[argnum]))
        diagonal = jnp.diagonal(matrix)
        want = [matrix @ real(vector), diagonal, jnp.sum(diagonal)]
        got = [
            real(jc.hvp(fun, args, vector, argnum=argnum)),
            real(jc.hessian_diagonal(fun, argnum)(*args)),
            jc.laplacian(fun, argnum)(*args),
        ]
        blocks = jax.hessian(fun, argnum)(*args)
        modes: list[HessianMode] = ["auto", "stages"] if stages else ["auto"]
        return got, want, [(jc.hessian(fun, args, argnum=argnum, mode=mode), blocks) for mode in modes]

    got, want, hessians = run(*args)
    assert_close(got, want, TOL)
    for ours, jaxs in hessians:
        assert_close(ours, jaxs, TOL)


NETS = ["mlp", "conv_net", "residual_net", "rnn", "transformer", "pytree", "loss", "cond and loop", "integer inside"]


@pytest.mark.parametrize("name", NETS)
def test_all_second_derivatives_of_a_chain_are_jaxs(name):
    case = named(name)
    stages = name != "transformer"  # slow to compile
    assert_second_derivatives(scalar(case.chain), wide(case.args), stages=stages)


def with_flax():
    model = nn.Sequential([nn.Dense(5), nn.gelu, nn.LayerNorm(), nn.Dense(3), nn.log_softmax])
    x = jnp.arange(4.0) / 3
    return model.apply, (wide(draw(jax.eval_shape(model.init, jax.random.key(0), x), 1)), x)


def with_equinox():
    mlp = eqx.nn.MLP(3, 2, width_size=4, depth=2, activation=jnp.tanh, key=jax.random.key(0))
    arrays, rest = eqx.partition(mlp, eqx.is_array)
    return lambda arrays, x: eqx.combine(arrays, rest)(x), (wide(arrays), jnp.arange(3.0) / 2)


def with_scan():
    def fun(w, x):
        return jax.lax.scan(lambda h, row: (jnp.tanh(w @ h + row),) * 2, x[0], x)[1]

    return fun, (draw(jnp.zeros((3, 3)), 1), draw(jnp.zeros((4, 3)), 2))


def with_remat():
    @jax.checkpoint
    def layer(x, w):
        return jnp.tanh(w @ x)

    def fun(ws, x):
        for w in ws:
            x = layer(x, w)
        return x

    return fun, (list(draw(jnp.zeros((3, 4, 4)), 1)), draw(jnp.zeros(4), 2))


def with_long_loop():
    return lambda w, x: jax.lax.fori_loop(0, 70, lambda _, v: jnp.sin(w * v), x), (
        jnp.array(1.1),
        draw(jnp.zeros(3), 2),
    )


@pytest.mark.parametrize("build", [with_flax, with_equinox, with_scan, with_remat, with_long_loop])
def test_all_second_derivatives_of_a_model_are_jaxs(build):
    fun, args = build()
    assert_second_derivatives(scalar(fun), args)


@given(seed=st.integers(0, 10**6).filter(lambda seed: seed % 5))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_all_second_derivatives_of_a_random_program_are_jaxs(seed):
    program = programs.program(seed)
    fun = scalar(program)
    if not program.kinds.isdisjoint(
        ("f32({})", "bf16({})", "low")
    ):  # a tangent that is rounded on one way and not on another
        return
    try:
        jax.eval_shape(jax.hessian(fun, 1), *program.args)
    except Exception:
        return
    assert_second_derivatives(fun, program.args, 1, stages=False)


# ---------------------------------------------------------------------------------------------------------- the ways


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("mode", get_args(HessianMode)[:1] + PRODUCTS + ("stages", "sparse"))
def test_every_mode_gives_the_same_hessian(mode, chunk_size):
    if mode == "sparse" and not available():
        pytest.skip("asdex is not here")
    x = jnp.linspace(-1, 1, 12)
    got = jax.jit(lambda x: jc.hessian(rosenbrock, (x,), mode=mode, chunk_size=chunk_size))(x)
    assert_close(got, jax.jit(jax.hessian(rosenbrock))(x), TOL)


@pytest.mark.skipif(not available(), reason="asdex is not here")
def test_a_stencils_diagonal_comes_of_a_few_colours():
    x = jnp.linspace(-1, 1, 40)
    assert jc.laplacian(rosenbrock).plan(x).mode == "sparse"
    got = jax.jit(jc.hessian_diagonal(rosenbrock))(x)
    assert_close(got, jnp.diagonal(jax.jit(jax.hessian(rosenbrock))(x)), TOL)


@jax.custom_vjp
def backwards_twice(x):
    return jnp.sin(x)


@jax.custom_vjp
def slope(x):
    return jnp.cos(x)


slope.defvjp(lambda x: (jnp.cos(x), x), lambda x, g: (-jnp.sin(x) * g,))
backwards_twice.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (slope(x) * g,))


def ends_when_it_wants(x):
    return jnp.sum(jax.lax.while_loop(lambda v: jnp.sum(v * v) > 1.0, lambda v: 0.7 * jnp.sin(v) * v, jnp.exp(x)))


@pytest.mark.parametrize(
    ("fun", "reference", "mode"),
    [
        (lambda x: jnp.sum(backwards_twice(x)[:2] ** 2), jax.jacrev, "reverse-over-reverse"),
        (ends_when_it_wants, jax.jacfwd, "forward-over-forward"),
    ],
    ids=["custom VJPs alone", "while loop"],
)
def test_without_one_of_the_modes_the_other_is_taken_twice(fun, reference, mode):
    x = jnp.array([0.3, 1.2, -0.4])
    want = jax.jit(reference(reference(fun)))(x)
    assert_close(jax.jit(lambda x: jc.hessian(fun, (x,)))(x), want, TOL)
    assert_close(jax.jit(lambda x: jc.hvp(fun, (x,), x))(x), want @ x, TOL)
    assert_close(jax.jit(jc.laplacian(fun))(x), jnp.trace(want), TOL)
    assert jc.laplacian(fun).plan(x).mode == mode


@jax.custom_jvp
def tripled(x):
    return x


tripled.defjvp(lambda primals, tangents: (primals[0], 3 * tangents[0]))


def test_a_rule_that_is_no_derivative_is_differentiated_as_jax_does():
    def fun(x):
        return jnp.sum(jnp.sin(tripled(jnp.cos(x))))

    x = jnp.arange(3.0)
    assert_close(jax.jit(lambda x: jc.hessian(fun, (x,)))(x), jax.jit(jax.hessian(fun))(x), TOL)
    assert "not JAX's own" in jc.laplacian(fun).plan(x).why


def test_kinks_bend_nothing():
    w = draw(jnp.zeros((5, 4)), 1)

    def fun(x):
        return jnp.sum(jnp.abs(jax.nn.relu(w @ x) - 0.1))

    for x in (jnp.zeros(4), draw(jnp.zeros(4), 2)):
        assert not jnp.any(jc.hessian(fun, (x,)))
        assert float(jc.laplacian(fun)(x)) == 0


@pytest.mark.parametrize(
    "fun", [lambda x: 3.0, jnp.sum, lambda x: jnp.sum(x[:0] ** 2)], ids=["constant", "linear", "empty"]
)
def test_where_nothing_bends_the_hessian_is_zero(fun):
    assert_close(jc.hessian(fun, (jnp.ones(3),)), jnp.zeros((3, 3)))
    assert_close(jc.hessian_diagonal(fun)(jnp.ones(3)), jnp.zeros(3))
    assert_close(jc.laplacian(fun)(jnp.ones(3)), jnp.zeros(()))


# ----------------------------------------------------------------------------------------------- transforms and dtypes


def weighty(w, x):
    return jnp.sum(jnp.tanh(w @ jnp.tanh(w @ x)) ** 2)


def test_second_derivatives_are_mapped_and_differentiated_again():
    w, xs = draw(jnp.zeros((3, 3)), 1), draw(jnp.zeros((2, 3)), 2)

    @jax.jit
    def run(w, xs):
        def trace(w, x):
            return jnp.trace(jax.hessian(weighty, 1)(w, x))

        got = jc.laplacian(weighty, 1)
        return [
            (jax.vmap(got, (None, 0))(w, xs), jax.vmap(trace, (None, 0))(w, xs)),
            (jax.grad(got)(w, xs[0]), jax.grad(trace)(w, xs[0])),
            (
                jax.grad(lambda w: jnp.sum(jc.hessian(weighty, (w, xs[0]), argnum=1) ** 2))(w),
                jax.grad(lambda w: jnp.sum(jax.hessian(weighty, 1)(w, xs[0]) ** 2))(w),
            ),
        ]

    for got, want in run(w, xs):
        assert_close(got, want, TOL)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_have_the_dtype_of_the_argument(dtype):
    w, x = draw(jnp.zeros((8, 8), dtype), 1) / 4, draw(jnp.zeros(8, dtype), 2)
    got = jax.jit(lambda w, x: jc.hessian(weighty, (w, x), argnum=1, mode="stages"))(w, x)
    want = jax.jit(jax.hessian(weighty, 1))(w.astype(jnp.float64), x.astype(jnp.float64))
    others = jc.laplacian(weighty, 1), lambda w, x: jc.hvp(weighty, (w, x), x, argnum=1)
    assert {got.dtype, *(jax.eval_shape(other, w, x).dtype for other in others)} == {jnp.dtype(dtype)}
    assert float(jnp.abs(got - want).max()) < 16 * float(jnp.finfo(dtype).eps) * float(jnp.abs(want).max())


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_stage_without_a_second_derivative_is_named():
    def fun(x):
        return jnp.sum(jax.pure_callback(np.sin, x, jnp.tanh(x)))

    x = jnp.ones(3)
    for call in (
        lambda: jc.hessian(fun, (x,)),
        lambda: jc.hvp(fun, (x,), x),
        lambda: jc.laplacian(fun)(x),
        lambda: jc.hessian_diagonal(fun)(x),
    ):
        with pytest.raises(
            jc.ModeError, match=r"no second derivative of stage pure_callback@.*callbacks do not support"
        ):
            call()


def test_a_mode_that_was_asked_for_and_does_not_exist_is_refused_by_name():
    with pytest.raises(jc.ModeError, match=r'no mode="stages" for stage while@'):
        jc.hessian(ends_when_it_wants, (jnp.ones(3),), mode="stages")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: jc.hessian(jnp.sin, (x,)), ValueError, "return one number, but this one returns an array of shape"),
        (lambda x: jc.laplacian(lambda x: (x[0], x[1]))(x), ValueError, "2 arrays, which looks like a value and an aux"),
        (lambda x: jc.laplacian(lambda x: (x[0], 3))(x), ValueError, "a value and an aux"),
        (lambda x: jc.hessian(lambda x: (x, x, x), (x,)), ValueError, "returns 3 arrays. Choose one number of them"),
        (lambda x: jc.laplacian(lambda x: jnp.sum(x) + 0j)(x), jc.ModeError, "Take real and imaginary parts"),
        (lambda x: jc.hvp(jnp.sum, (x,), x[:2]), jc.TangentMismatchError, "The vector must look like"),
        (lambda x: jc.hessian(jnp.sum, (jnp.arange(3),)), TypeError, "Argument 0 is int"),
        (lambda x: jc.hessian(lambda z: jnp.sum(z).real, (x + 0j,)), jc.ModeError, "takes complex128"),
        (lambda x: jc.hessian_diagonal(lambda x: jnp.sum(x) + 0j)(x), jc.ModeError, "returns complex128"),
        (lambda x: jc.hessian(jnp.sum, (x,), mode="stage"), ValueError, "Did you mean 'stages'"),
        (lambda x: jc.hessian(jnp.sum, x), TypeError, "args is the tuple"),
        (lambda x: jc.laplacian(jnp.sum, argnum=3)(x), ValueError, "^argnum=3 names no argument: 1 were given"),
        (lambda x: jc.hessian(jnp.dot, (x, x), argnum=(0, 1)), TypeError, "argnum is one argument here, but .* Put several into one"),
        (lambda x: jc.hvp(jnp.dot, (x, x), x, argnum=[0]), TypeError, "argnum is one argument here"),
        (lambda x: jc.laplacian(jnp.sum, weights=x[:2])(x), ValueError, "weights are like the argument"),
        (lambda x: jc.laplacian(jnp.sum, weights="x")(x), TypeError, "weights are real numbers"),
        (lambda x: jc.hessian(jnp.sum, (jnp.ones(10**5),)), ValueError, "jc.hessian_diagonal and jc.laplacian do without"),
    ],
)  # fmt: skip
def test_what_has_no_second_derivative_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.ones(3))


def test_the_way_out_of_several_numbers_is_one_for_a_chain_with_parameters():
    net = jc.nets.mlp([3, 4, 1], "tanh")
    args = net.init(jax.random.key(0)), jnp.ones(3)
    with pytest.raises(
        ValueError, match=r"shape \[1\]. .* lambda \*args: jnp.sum\(fun\(\*args\)\); a chain takes a stage more"
    ):
        jc.laplacian(net)(*args)
    ways = jc.laplacian(lambda *args: jnp.sum(net(*args)), 1), jc.laplacian(jc.Chain([*net, jc.Stage("sum", jnp.sum)]))
    got = jax.jit(lambda *args: [way(*args) for way in ways])(*args)
    assert_close(*got)
    assert float(got[0]) != 0


def test_what_is_returned_is_named_after_what_it_is_of():
    def energy(x):
        """Of a spring."""
        return jnp.sum(x**2)

    assert repr(jc.laplacian(energy)).startswith("<function laplacian(energy) at")
    assert repr(jc.hessian_diagonal(lambda x: jnp.sum(x))).startswith("<function hessian_diagonal(<lambda>) at")
    assert "laplacian(Chain)" in repr(jc.laplacian(jc.Chain([jc.Stage("sum", jnp.sum)])))
    assert jc.laplacian(energy).__doc__.startswith("The Laplacian of energy.\n\nIts ``plan(*args)`` tells how")
    assert jc.laplacian(energy).__doc__.endswith("Of a spring.")
