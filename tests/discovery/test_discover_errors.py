"""Bad input: it works, or the error says what was given, what was wanted, where, and the way out."""

import inspect
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same_function, plain, some
from conftest import assert_close
from jax import lax
from jax.experimental import io_callback
from jax.sharding import NamedSharding, PartitionSpec

import jaxchain as jc

X = some(4)


def line_of(fun, text):
    lines, start = inspect.getsourcelines(fun)
    return f"{__file__.rsplit('/', 1)[-1]}:{start + next(n for n, line in enumerate(lines) if text in line)}"


# ------------------------------------------------------------------------------------------------------- side effects


def calling_back(x):
    y = jnp.sin(x)
    return io_callback(np.asarray, jax.ShapeDtypeStruct((4,), jnp.float32), y)


def calling_back_in_order(x):
    y = jnp.sin(x)
    return io_callback(np.asarray, jax.ShapeDtypeStruct((4,), jnp.float32), y, ordered=True)


EFFECTS = {
    "io_callback": (calling_back, "io_callback", "return io_callback"),
    "ordered io_callback": (calling_back_in_order, "io_callback", "return io_callback"),
}
WITHIN = {
    "directly": lambda fun: fun,
    "in a call": lambda fun: lambda x: jnp.cos(fun(x)),
    "in jit": jax.jit,
    "in jit in a call": lambda fun: lambda x: jnp.cos(jax.jit(fun)(x)),
    "in jit in jit": lambda fun: jax.jit(lambda x: jnp.cos(jax.jit(fun)(x))),
    "in cond": lambda fun: lambda x: lax.cond(x[0] > 0, fun, jnp.sin, x),
    "in scan": lambda fun: lambda x: lax.scan(lambda c, _: (fun(c), None), x, None, length=3)[0],
    "in while": lambda fun: lambda x: lax.while_loop(lambda c: c[0] > 0, fun, x),
}


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("effect", EFFECTS)
def test_a_side_effect_is_refused_with_its_operation_and_its_own_line(effect, within):
    fun, operation, text = EFFECTS[effect]
    with pytest.raises(TypeError, match="side effects") as error:
        jc.discover(WITHIN[within](fun), X)
    assert f"{operation} at {line_of(fun, text)}" in str(error.value)


def test_the_error_on_a_side_effect_says_the_way_out():
    with pytest.raises(TypeError, match="Take them out"):
        jc.discover(calling_back, X)


def listening(shown):
    """A layer that reports a number which nothing else needs."""

    def fun(x):
        y = jnp.sin(x)
        jax.debug.callback(lambda value: shown.append(float(value)), y.sum())
        return jnp.cos(y)

    return fun


@pytest.mark.parametrize("within", [name for name in WITHIN if name != "in while"])
def test_a_chain_reports_what_its_function_reports(within):
    shown = []
    fun = WITHIN[within](listening(shown))
    want = fun(X)
    jax.effects_barrier()
    told = sorted(shown)
    shown.clear()
    assert_close(jc.discover(fun, X)(X), want)
    jax.effects_barrier()
    assert_close(jnp.array(sorted(shown)), jnp.array(told))


def test_what_nothing_else_reads_is_reported_twice_and_beside_what_does_not_depend_on_the_input():
    shown = []

    def fun(x):
        dead = jnp.sin(x) * 2
        for value in (dead[0], dead[1] + jnp.cos(jnp.arange(4.0)).sum()):
            jax.debug.callback(lambda value: shown.append(float(value)), value)
        return jnp.tanh(jnp.cos(x))

    assert_close(jc.discover(fun, X)(X), jnp.tanh(jnp.cos(X)))
    jax.effects_barrier()
    assert_close(jnp.array(shown), jnp.array([jnp.sin(X[0]) * 2, jnp.sin(X[1]) * 2 + jnp.cos(jnp.arange(4.0)).sum()]))


def test_a_planned_jacobian_reports_once():
    shown = []

    def fun(x):
        y = jnp.sin(x)
        jax.debug.callback(lambda value: shown.append(float(value)), y.sum())
        return jnp.cos(y) * y

    for mode in ("auto", "mixed"):
        assert_close(
            jc.jacobian(fun, mode=mode)(X),
            jnp.diag(jax.jit(jax.vmap(jax.grad(lambda x: jnp.cos(jnp.sin(x)) * jnp.sin(x))))(X)),
        )
        jax.effects_barrier()
        assert_close(jnp.array(shown), jnp.sin(X).sum()[None])
        shown.clear()


def test_what_is_reported_moves_no_cut_and_no_derivative():
    def quiet(x):
        return jnp.tanh(jnp.cos(jnp.sin(x)) * 3)

    shown = []

    def fun(x):
        y = jnp.sin(x)
        z = jnp.cos(y) * 3
        jax.debug.callback(lambda *value: shown.append(value), y[0], z[0])
        return jnp.tanh(z)

    assert plain(jc.discover(fun, X).names) == plain(jc.discover(quiet, X).names)
    assert_close(jc.reverse_sweep(fun, (X,), X).cotangents[0], jax.vjp(quiet, X)[1](X)[0])
    assert_close(jc.jacobian(fun)(X), jax.jit(jax.jacrev(quiet))(X))


def test_what_is_reported_across_stages_is_left_out_with_a_warning():
    def fun(x):
        z = jnp.cos(jnp.sin(x))
        jax.debug.callback(lambda *_: None, x, z)
        return jnp.tanh(z)

    with pytest.warns(UserWarning, match=r"debug_callback at .* no single stage knows together"):
        chain = jc.discover(fun, X)
    assert_close(chain(X), jnp.tanh(jnp.cos(jnp.sin(X))))


def test_a_collective_over_a_named_axis_is_no_side_effect():
    def centred(x):
        return jnp.sin(x - lax.pmean(x, "batch"))

    def gradient(of):
        return jax.vmap(of, axis_name="batch")(X)

    got = gradient(lambda x: jc.reverse_sweep(centred, (x,), jnp.ones(())).arg_cotangents[0])
    assert_close(got, gradient(lambda x: jax.vjp(centred, x)[1](jnp.ones(()))[0]))


def test_a_pure_callback_works_forward():
    def fun(x):
        return jnp.sin(jax.pure_callback(np.cos, jax.ShapeDtypeStruct((4,), jnp.float32), jnp.tanh(x)))

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("tanh", "pure_callback", "sin")
    assert_close(chain(X), jnp.sin(jnp.cos(jnp.tanh(X))))


# ---------------------------------------------------------------------------------------------- no derivative anywhere


def independent(w, _):
    return jnp.sin(w)


def test_an_output_that_does_not_depend_on_the_input_is_said_and_has_derivative_zero():
    with pytest.warns(UserWarning, match="does not depend on the chain input.*argnum"):
        chain = jc.discover(independent, X, X)
    assert_close(chain(X, X), jnp.sin(X))
    assert_same_function(chain, independent, (X, X))
    assert not jc.local_jacobians(chain, (X, X))[0].matrix.any()


def through_integers(x):
    return jnp.ones(3) * jnp.argmax(x)


def test_dependence_through_integers_alone_is_said_and_has_derivative_zero():
    with pytest.warns(UserWarning, match="only through integers"):
        chain = jc.discover(through_integers, X)
    assert_close(chain(X), through_integers(X))
    assert_same_function(chain, through_integers, (X,))


def test_an_integer_output_is_said_to_have_no_derivative():
    with pytest.warns(UserWarning, match="only through integers"):
        chain = jc.discover(jnp.argmax, X)
    assert int(chain(X)) == int(jnp.argmax(X))


@pytest.mark.parametrize("call", ["discover", "forward_sweep", "reverse_sweep", "local_jacobians"])
def test_the_warning_points_at_the_users_line(call):
    run = {
        "discover": lambda: jc.discover(independent, X, X),
        "forward_sweep": lambda: jc.forward_sweep(independent, (X, X), X),
        "reverse_sweep": lambda: jc.reverse_sweep(independent, (X, X), X),
        "local_jacobians": lambda: jc.local_jacobians(independent, (X, X)),
    }[call]
    with pytest.warns(UserWarning, match="does not depend") as caught:
        run()
    assert caught[0].filename == __file__


def test_a_function_that_depends_on_its_input_is_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jc.discover(lambda x: (jnp.sin(x), jnp.argmax(x)), X)


def test_a_function_that_returns_nothing_of_its_input_is_warned_about():
    with pytest.warns(UserWarning, match="does not depend on the chain input"):
        chain = jc.discover(lambda _: 3.0, X)
    assert chain(X) == 3.0


@pytest.mark.parametrize("returned", [None, (), {"y": None}], ids=str)
def test_a_function_that_returns_no_array_is_refused(returned):
    with pytest.raises(TypeError, match="which holds no array, so there is nothing to differentiate"):
        jc.discover(lambda _: returned, X)


# ---------------------------------------------------------------------------------------------------- not a function


@pytest.mark.parametrize("what", [3, "sin", None, jnp.ones(3)], ids=str)
def test_what_is_not_callable_is_refused(what):
    with pytest.raises(TypeError, match=r"discover needs a function, but .* is not callable"):
        jc.discover(what, X)


@pytest.mark.parametrize("returned", ["a string", object(), print], ids=["string", "object", "function"])
def test_a_function_that_returns_something_else_than_arrays_is_refused(returned):
    with pytest.raises(TypeError, match="returns arrays, but this one does not"):
        jc.discover(lambda x: (jnp.sin(x), returned), X)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: x if x[0] > 0 else -x,
        lambda x: np.sin(x),
        lambda x: float(x[0]) * x,
        lambda x: x[: int(x[0])],
        lambda x: x[x > 0],
    ],
    ids=["if", "numpy", "float", "int", "mask"],
)
def test_a_function_that_needs_concrete_values_is_refused_with_its_line_and_the_way_out(fun):
    with pytest.raises(jc.TraceError, match=rf"{Path(__file__).name}:\d+, asks for numbers.*Use jax.numpy") as error:
        jc.discover(fun, X)
    assert str(error.value.__cause__).splitlines()[0].rstrip(".") in str(error.value)


def test_an_error_of_the_function_itself_comes_through():
    def fun(_):
        msg = "mine"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="mine"):
        jc.discover(fun, X)


def test_too_few_arguments_are_refused_in_pythons_words():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        jc.discover(lambda a, b: a + b, X)


def test_a_tracer_that_leaked_out_of_another_trace_is_refused_with_jaxs_error():
    leaked = []
    jax.jit(lambda x: leaked.append(x) or x)(X)
    with pytest.raises(jax.errors.UnexpectedTracerError):
        jc.discover(lambda x: x + leaked[0], X)(X)


def test_a_tracer_of_a_trace_that_is_under_way_is_a_constant():
    def outer(w, x):
        return jc.reverse_sweep(lambda x: jnp.sin(w * x), (x,), x).arg_cotangents[0]

    want = X * jnp.cos(X * X) * X
    assert_close(jax.jit(outer)(X, X), want)
    assert_close(jax.jvp(lambda w: outer(w, X), (X,), (X,)), jax.jvp(lambda w: X * jnp.cos(w * X) * w, (X,), (X,)))
    assert_close(jax.jit(jax.vmap(outer))(X[None], X[None])[0], want)


def test_discovering_leaks_no_tracer():
    with jax.checking_leaks():
        chain = jc.discover(lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), jnp.tanh(x), None, length=2)[0], X)
    assert len(chain) == 3


# ---------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("argnum", [2, 7, -3])
def test_an_argnum_out_of_range_is_refused_with_the_number_of_arguments(argnum):
    with pytest.raises(ValueError, match=f"argnum={argnum} names no argument: 2 were given"):
        jc.discover(jnp.add, X, X, argnum=argnum)


@pytest.mark.parametrize("argnum", ["x", 0.5, (0, 1)])
def test_an_argnum_that_is_no_integer_is_refused_by_name(argnum):
    with pytest.raises((TypeError, ValueError), match="argnum"):
        jc.discover(jnp.add, X, X, argnum=argnum)


def test_no_argument_at_all_is_refused():
    with pytest.raises(ValueError, match="0 were given"):
        jc.discover(lambda: 1.0)


@pytest.mark.parametrize("granularity", ["coarse", None, 3])
def test_an_unknown_granularity_is_refused_with_the_known_ones(granularity):
    with pytest.raises(ValueError, match="Known: default, finest, module"):
        jc.discover(jnp.sin, X, granularity=granularity)


@pytest.mark.parametrize("limit", [-1, None, "all"])
def test_an_unroll_limit_that_is_no_number_of_steps_is_refused_by_name(limit):
    with pytest.raises((TypeError, ValueError), match="unroll_limit"):
        jc.discover(jnp.sin, X, unroll_limit=limit)


def test_an_argument_that_is_not_made_of_arrays_is_refused_with_the_leaf_and_the_way_out():
    model = eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"Argument 0\.activation.* is not an array.*eqx\.partition"):
        jc.discover(lambda model, x: model(x), model, X)
    with pytest.raises(TypeError, match=r"Argument 0\['name'\] is 'relu', which is not an array"):
        jc.discover(lambda p, x: x * p["w"], {"name": "relu", "w": X}, X)


@pytest.mark.parametrize("x", [jnp.arange(4), jnp.ones(4, bool), jax.random.key(0), 3], ids=["int", "bool", "key", "3"])
def test_a_chain_input_without_a_derivative_is_refused_with_its_dtype(x):
    with pytest.raises(TypeError, match=r"The chain input is .* which has no derivative.*argnum"):
        jc.discover(lambda x: x, x)


def test_a_chain_input_with_an_integer_leaf_is_refused_with_the_leaf():
    with pytest.raises(TypeError, match=r"The chain input at \['n'\] is int32, which has no derivative"):
        jc.discover(lambda s: s["x"] * s["n"], {"x": X, "n": jnp.arange(4)})


@pytest.mark.parametrize("x", [(), {}, None], ids=str)
def test_a_chain_input_without_arrays_is_refused(x):
    with pytest.raises(TypeError, match="the chain input, holds no array"):
        jc.discover(lambda _: 1.0, x)


# -------------------------------------------------------------------------------------------------- the call afterwards


def affine(w, x):
    return jnp.tanh(w * x)


@pytest.mark.parametrize(
    "other", [X[:3], X[None], X.astype(jnp.bfloat16), {"w": X}], ids=["shape", "rank", "dtype", "structure"]
)
def test_other_arguments_at_the_call_are_refused_with_what_was_discovered(other):
    chain = jc.discover(affine, X, X)
    with pytest.raises(TypeError, match=r"discovered for other arguments .*float32\[4\].*Discover again"):
        chain(other, X)


@pytest.mark.parametrize(
    "other", [X[:3], X[None], X.astype(jnp.bfloat16), (X,)], ids=["shape", "rank", "dtype", "tuple"]
)
def test_another_chain_input_at_the_call_is_refused_with_what_was_discovered(other):
    chain = jc.discover(affine, X, X)
    with pytest.raises((jc.StageError, TypeError), match=r"discovered for .*float32\[4\].*discover again"):
        chain(X, other)


@pytest.mark.parametrize("args", [(), (X,), (X, X, X)], ids=len)
def test_another_number_of_arguments_at_the_call_is_refused(args):
    chain = jc.discover(affine, X, X)
    with pytest.raises(TypeError, match="arguments"):
        chain(*args)


def test_fresh_parameters_are_the_frameworks_business():
    with pytest.raises(TypeError, match="initialise the model in its own framework"):
        jc.discover(affine, X, X).init(jax.random.key(0))


def test_a_sweep_of_an_integer_output_asks_for_its_own_cotangent():
    with pytest.warns(UserWarning, match="only through integers"):
        chain = jc.discover(jnp.argmax, X)
    assert_close(jc.reverse_sweep(chain, (X,), np.zeros((), jax.dtypes.float0)).arg_cotangents[0], jnp.zeros(4))


# ------------------------------------------------------------------------------------------- dynamic shapes, shardings


def test_a_symbolic_shape_works_or_is_refused_in_a_sentence():
    (n,) = jax.export.symbolic_shape("n")
    with pytest.raises((TypeError, ValueError), match=r"symbolic|dynamic|polymorphic"):
        jc.discover(lambda x: jnp.sum(jnp.sin(x) * 2) / x.shape[0], jax.ShapeDtypeStruct((n,), jnp.float32))


def sharding():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("d"))


def test_a_donated_argument_is_an_argument_like_any_other():
    fun = jax.jit(lambda x: jnp.sin(jnp.cos(x)), donate_argnums=0)
    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("cos", "sin")
    x = X + 0
    assert_close(chain(x), jnp.sin(jnp.cos(X)))
    assert_close(x, X)  # still there


def test_a_jitted_call_that_asks_for_shardings_keeps_them():
    place = sharding()
    fun = jax.jit(lambda x: jnp.sin(jnp.cos(x)), in_shardings=place, out_shardings=place)
    chain = jc.discover(lambda x: jnp.exp(fun(x)), X)
    assert_close(chain(X), jnp.exp(fun(X)))
    assert chain[:1](X).sharding.is_equivalent_to(place, 1)
    assert_same_function(chain, lambda x: jnp.exp(fun(x)), (X,))


def test_a_sharding_constraint_is_kept():
    def fun(x):
        return jnp.sin(lax.with_sharding_constraint(jnp.cos(x), sharding()))

    chain = jc.discover(fun, X)
    assert "sharding_constraint" in str(jax.make_jaxpr(chain)(X))
    assert_same_function(chain, fun, (X,))


def test_shard_map_is_one_stage():
    place = sharding()

    def fun(x):
        y = jax.shard_map(jnp.cos, mesh=place.mesh, in_specs=place.spec, out_specs=place.spec)(x)
        return jnp.sin(y)

    chain = jc.discover(fun, X)
    assert plain(chain.names) == ("shard_map", "sin")
    assert_close(chain(X), jnp.sin(jnp.cos(X)))


def test_a_program_that_is_too_long_to_look_at_is_refused_at_once_and_differentiated_by_jax():
    def doubled(fun, times):
        for _ in range(times):
            fun = jax.jit(lambda x, fun=fun: fun(fun(x)))
        return fun

    long, x = doubled(jnp.sin, 18), jnp.ones(3)  # 2¹⁸ sines and the calls around them, in eighteen small programs
    with pytest.raises(
        TypeError, match=r"has 524,287 equations, more than the 200,000 .* Write what it repeats as jax\.lax\.scan"
    ):
        jc.discover(long, x)
    with pytest.raises(TypeError, match="more than the 200,000"):
        jc.trace(long, x)
    assert "could not be read" in jc.jacobian(long).plan(x).why
