"""Pushing tangents and pulling cotangents is what JAX's own Jacobians say; and what counts as JAX's refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, real_function
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, jaxpr_as_fun, jaxprs_in_params

from jaxchain.derivative import ALL_AT_ONCE, Linear, Pass, jvp, linearize, rule_program, vjp, whole
from jaxchain.errors import REFUSALS, StageError, refusal

# ---------------------------------------------------------------------------------------------- functions of any state


@dataclass(frozen=True)
class Kind:
    """A function of one kind of state."""

    name: str
    fn: Callable[[Any], Any]
    like: Callable[[], Any]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def x(self) -> Any:
        return draw(self.like(), 5)

    @cached_property
    def jacobian(self) -> np.ndarray:
        """J of real coordinates, complex numbers as pairs, by JAX alone: in both modes."""
        fn, x = real_function(self.fn, self.x)
        forward, reverse = jax.jit(lambda x: (jax.jacfwd(fn)(x), jax.jacrev(fn)(x)))(x)
        close(forward, reverse)
        return np.asarray(forward)


def tree(s):
    return (s["b"] @ s["a"], {"sum": jnp.sum(s["a"] ** 2), "wave": jnp.sin(s["b"]) * s["a"][0]})


def of_complex(s):
    return {"z": jnp.conj(s["z"]) * jnp.exp(s["z"][::-1]) * s["r"], "abs": jnp.abs(s["z"])}


def mixed(s):
    return [jnp.sin(s[0]).astype(jnp.float64), s[1] * jnp.sum(s[0]), s[2] + 1, jnp.sum(s[1]).astype(jnp.float32) * s[2]]


KINDS = [
    Kind("array to longer", lambda x: jnp.outer(jnp.sin(x), x)[:, 1:], lambda: jnp.zeros(4)),
    Kind("array to shorter", lambda x: jnp.cos(x[:2]) * x[2], lambda: jnp.zeros(5)),
    Kind("scalar", lambda x: x**3, lambda: jnp.zeros(())),
    Kind("pytree", tree, lambda: {"a": jnp.zeros(3), "b": jnp.zeros((2, 3))}),
    Kind("complex", of_complex, lambda: {"r": jnp.zeros(()), "z": jnp.zeros(3, complex)}),
    Kind("mixed dtypes", mixed, lambda: [jnp.zeros(3, jnp.float32), jnp.zeros((2, 2)), jnp.zeros((), int)]),
]

CHUNKS = [ALL_AT_ONCE, Pass(1), Pass(3)]


@pytest.fixture(params=KINDS, ids=str)
def kind(request, x64):
    return request.param


@pytest.fixture(params=CHUNKS, ids=lambda how: f"chunks of {how.chunk_size}")
def how(request):
    return request.param


def close(got: Any, want: Any) -> None:
    """Within roundings of the coarsest state here, float32."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-6 * max(1.0, np.abs(want).max(initial=0.0)), rtol=0)


def at_once(kind: Kind, ask: Callable[[Linear], Any]) -> Any:
    """What is asked of the function at its point, compiled as one program."""
    return jax.jit(lambda x: ask(Linear(kind.fn, x)))(kind.x)


def test_the_matrix_is_jaxs_jacobian_in_both_modes(kind, how):
    forward, reverse = at_once(kind, lambda f: (f.matrix(how, "forward"), f.matrix(how, "reverse")))
    close(forward, kind.jacobian)
    close(reverse, kind.jacobian)


def test_columns_and_rows_are_products_with_the_jacobian(kind, how):
    m, n = kind.jacobian.shape
    right, left = (np.random.default_rng(6).normal(size=shape) for shape in ((n, 4), (5, m)))
    columns, rows = at_once(kind, lambda f: (f.columns(right, how), f.rows(left, how)))
    close(columns, kind.jacobian @ right)
    close(rows, left @ kind.jacobian)


def test_no_columns_and_no_rows_are_none(kind, how):
    m, n = kind.jacobian.shape
    columns, rows = at_once(kind, lambda f: (f.columns(jnp.zeros((n, 0)), how), f.rows(jnp.zeros((0, m)), how)))
    assert (columns.shape, rows.shape) == ((m, 0), (0, n))


def test_push_and_pull_are_each_others_adjoints_and_the_jacobians(kind):
    linear, want = Linear(kind.fn, kind.x), kind.jacobian
    tangent, cotangent = draw(jnp.zeros(want.shape[1]), 8), draw(jnp.zeros(want.shape[0]), 9)
    close(linear.push(tangent), want @ tangent)
    close(linear.pull(cotangent), cotangent @ want)
    close(cotangent @ linear.push(tangent), linear.pull(cotangent) @ tangent)


@pytest.mark.parametrize("like", [jnp.zeros((2, 3)), {"a": jnp.zeros(2), "z": jnp.zeros(2)}], ids=["array", "pytree"])
def test_the_diagonal_is_the_jacobians_where_that_is_diagonal(like, x64):
    fn, x = (lambda s: jax.tree.map(jnp.sin, s)), draw(like)
    flat, vector = real_function(fn, x)
    close(Linear(fn, x).diagonal(), jnp.diagonal(jax.jit(jax.jacfwd(flat))(vector)))


def test_the_value_is_the_functions_whichever_mode_computed_it(kind):
    want = kind.fn(kind.x)
    for mode in ("forward", "reverse"):
        assert_close(Linear(kind.fn, kind.x).value(mode), want)
    assert_close(Linear(kind.fn, kind.x).out, want)


def test_a_function_is_linearised_once_however_much_is_asked(x64):
    calls: list[int] = []

    def fn(x):
        calls.append(1)
        return jnp.sin(x) * x[0]

    linear = Linear(fn, draw(jnp.zeros(3)))
    assert not calls
    linear.matrix(mode="forward")
    linear.matrix(mode="reverse")
    once = len(calls)
    linear.push(jnp.ones(3))
    linear.pull(jnp.ones(3))
    linear.columns(jnp.ones((3, 2)), Pass(1))
    linear.rows(jnp.ones((2, 3)))
    assert (linear.value("forward").shape, linear.out.shape) == ((3,), (3,))
    assert len(calls) == once


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_whole_is_what_jax_itself_returns(mode, x64):
    x = draw(jnp.zeros(3))
    by = {"forward": jax.jacfwd, "reverse": jax.jacrev}[mode]
    fn = lambda x: {"a": jnp.sin(x), "b": jnp.sum(x)}  # noqa: E731
    assert_close(whole(fn, x, mode), by(fn)(x))
    z = x + 1j
    assert_close(whole(jnp.sin, z, mode, holomorphic=True), by(jnp.sin, holomorphic=True)(z))


# ----------------------------------------------------------------------------------------------------- within transforms


def product(x):
    return jnp.sin(x) * x[::-1]


def of_square(f):
    return jax.grad(lambda x: jnp.sum(f(x) ** 2))


TRANSFORMS = {
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])),
    "grad": of_square,
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x + 1,))[1],
    "vmap of grad": lambda f: lambda x: jax.vmap(of_square(f))(jnp.stack([x, 2 * x])),
}


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_jacobian_is_one_within_transforms(mode, name, how, x64):
    x, transform = draw(jnp.zeros(4)), TRANSFORMS[name]
    ours, jaxs = transform(lambda x: Linear(product, x).matrix(how, mode)), transform(jax.jacfwd(product))
    close(*jax.jit(lambda x: (ours(x), jaxs(x)))(x))


# ----------------------------------------------------------------------------------------------- leaves that are held fixed


@jax.custom_jvp
def guarded(x, y):
    """x y, for which nobody may ask a derivative along y."""
    return x * y


def _guard(primals, tangents):
    if not isinstance(tangents[1], SymbolicZero):
        msg = "A tangent was handed to what is held fixed."
        raise AssertionError(msg)
    moved = jnp.zeros_like(primals[0]) if isinstance(tangents[0], SymbolicZero) else tangents[0] * primals[1]
    return guarded(*primals), moved


guarded.defjvp(_guard, symbolic_zeros=True)


def guarded_pair(s):
    return {"out": guarded(jnp.sin(s["x"]), jnp.cos(s["y"])), "y": s["y"]}


def pair() -> dict[str, Any]:
    return draw({"n": jnp.zeros((), int), "x": jnp.zeros(3), "y": jnp.zeros(3)}, 3)


WHICH = [True, True, False]
"""Of the leaves n, x, y; an integer is never differentiated with respect to."""


def test_the_guard_does_guard(x64):
    with pytest.raises(AssertionError, match="held fixed"):
        Linear(guarded_pair, pair()).matrix(mode="forward")


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_leaf_held_fixed_is_never_handed_a_tangent_and_its_columns_are_zero(mode, wrap, how, x64):
    s = pair()
    got = jax.jit(lambda s: Linear(wrap(guarded_pair), s, WHICH).matrix(how, mode))(s)
    want = np.zeros((6, 6))
    want[:3, :3] = np.diag(jnp.cos(s["x"]) * jnp.cos(s["y"]))
    close(got, want)


def test_a_tangent_at_a_leaf_held_fixed_has_no_say(x64):
    s = pair()
    tangent = draw({"n": jnp.zeros(()), "x": jnp.zeros(3), "y": jnp.zeros(3)}, 4)
    tangent["n"] = np.zeros((), jax.dtypes.float0)
    want = {"out": jnp.cos(s["x"]) * jnp.cos(s["y"]) * tangent["x"], "y": jnp.zeros(3)}
    out, moved = jvp(guarded_pair, s, tangent, WHICH)
    assert_close(out, guarded_pair(s))
    assert_close(moved, want)
    out, push = linearize(guarded_pair, s, WHICH)
    assert_close(out, guarded_pair(s))
    assert_close(push(tangent), want)


def test_the_cotangent_of_a_leaf_held_fixed_is_zero_and_of_an_integer_float0(x64):
    s = pair()
    out, pull = vjp(guarded_pair, s, which=WHICH)
    (cotangent,) = pull(jax.tree.map(jnp.ones_like, out))
    assert_close(cotangent["x"], jnp.cos(s["x"]) * jnp.cos(s["y"]))
    assert_close(cotangent["y"], jnp.zeros(3))
    assert (cotangent["n"].dtype, cotangent["n"].shape) == (jax.dtypes.float0, ())


def test_a_vjp_of_several_arguments_with_something_beside_is_jaxs(x64):
    x, w = draw(jnp.zeros(3), 1), draw(jnp.zeros((2, 3)), 2)

    def fn(w, x):
        return w @ x, {"beside": x * 2}

    (out, aux), pull = vjp(fn, w, x, has_aux=True)
    want, back, want_aux = jax.vjp(fn, w, x, has_aux=True)
    assert_close((out, aux), (want, want_aux))
    assert_close(pull(jnp.ones(2)), back(jnp.ones(2)))


# ---------------------------------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("size", ["x", 2.5, True, 0, -1, float("nan"), [2], np.float32(2)])
def test_a_chunk_size_that_is_none_is_refused_by_name(size):
    with pytest.raises((TypeError, ValueError), match=r"^chunk_size is .* was given\.$"):
        Pass(chunk_size=size)


@pytest.mark.parametrize("size", [None, 1, 7, np.int64(3)])
def test_a_chunk_size_that_counts_is_taken(size):
    close(Pass(chunk_size=size).map(lambda row: row * 2, jnp.ones((5, 2))), 2 * np.ones((5, 2)))


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(
    ("run", "basis"), [(lambda row: row[:0], jnp.ones((5, 2))), (lambda row: row, jnp.ones((0, 2)))]
)
def test_chunks_of_nothing_are_nothing(run, basis, size):
    assert Pass(size).map(run, basis).shape == jax.jit(jax.vmap(run))(basis).shape


@pytest.mark.parametrize(("size", "most"), [(None, 7), (1, 1), (3, 3), (7, 7), (9, 7)])
def test_never_more_than_a_chunk_goes_through_at_once(size, most):
    at_once: list[int] = []

    @jax.custom_batching.custom_vmap
    def run(row):
        return row * 2

    @run.def_vmap
    def of_many(axis_size, in_batched, rows):
        at_once.append(axis_size)
        return rows * 2, True

    close(Pass(size).map(run, jnp.ones((7, 2))), 2 * np.ones((7, 2)))
    assert max(at_once) == most


def test_a_basis_spread_over_devices_gives_the_same():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for size in (None, 2):
        got = Pass(size, sharding).map(lambda row: row * 2, jnp.ones((5, 2)))
        close(got, 2 * np.ones((5, 2)))


# ---------------------------------------------------------------------------------------------------- rules as programs


@jax.custom_jvp
def doubling(x):
    return jnp.sin(x)


doubling.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 2 * tangents[0]))


@jax.custom_vjp
def tripling(x, y):
    return x * y


tripling.defvjp(lambda x, y: (x * y, (x, y)), lambda saved, c: (3 * c * saved[1], 5 * c * saved[0]))

V = np.linspace(-1.0, 1.5, 4)
RULES = {  # primitive, function, arguments, whether it has a JVP
    "tanh": ("tanh", jnp.tanh, (V,), True),
    "relu": ("custom_jvp_call", jax.nn.relu, (V,), True),
    "custom jvp": ("custom_jvp_call", doubling, (V,), True),
    "custom vjp": ("custom_vjp_call", tripling, (V, V + 1), False),
    "same operand twice": ("mul", lambda x: x * x, (V,), True),
    "literal": ("mul", lambda x: x * 3.0, (V,), True),
    "integer operand": ("dynamic_slice", lambda x, i: lax.dynamic_slice(x, (i,), (2,)), (V, np.int32(1)), True),
    "several results": ("sort", lambda x, n: tuple(lax.sort((x, n), num_keys=1)), (V[::-1], np.arange(4)), True),
    "branch": ("cond", lambda i, x: lax.switch(i, [jnp.sin, jnp.cos], x), (np.int32(1), V), True),
}


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
    ("name", "forward"),
    [(name, forward) for name in RULES for forward in (True, False) if RULES[name][3] or not forward],
)
def test_the_program_of_a_rule_computes_what_jax_does(name, forward, x64):
    primitive, fn, values, _ = RULES[name]
    values = [jnp.asarray(value) for value in values]
    eqn = next(eqn for eqn in equations(jax.make_jaxpr(fn)(*values).jaxpr) if eqn.primitive.name == primitive)
    program, moved, results = rule_program(eqn, forward=forward)

    is_moved = [jnp.issubdtype(value.dtype, jnp.floating) for value in values]
    assert moved == [k for k, moves in enumerate(is_moved) if moves]

    def of_moved(*chosen):
        given = iter(chosen)
        outs = fn(*(next(given) if moves else value for value, moves in zip(values, is_moved, strict=True)))
        outs = outs if isinstance(outs, tuple) else (outs,)
        assert results == [k for k, out in enumerate(outs) if jnp.issubdtype(out.dtype, jnp.floating)]
        return tuple(outs[k] for k in results)

    chosen = [values[k] for k in moved]
    if forward:
        directions = tuple(draw(chosen, 11))
        want = jax.jvp(of_moved, tuple(chosen), directions)[1]
    else:
        out, back = jax.vjp(of_moved, *chosen)
        directions = draw(out, 11)
        want = back(directions)
    got = jaxpr_as_fun(program)(*values, *directions)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        close(one, other)


# -------------------------------------------------------------------------------------------- where a mode does not exist


@jax.custom_vjp
def reverse_only(x):
    return jnp.sin(x)


reverse_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, c: (c * jnp.cos(x),))


def forward_only(x):
    return lax.while_loop(lambda s: jnp.sum(s) > 100.0, lambda s: s * 0.5, jnp.sin(x))


def called_back(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


mystery = Primitive("mystery")
mystery.def_impl(lambda x: x)
mystery.def_abstract_eval(lambda aval: aval)

REFUSED = {
    "forward mode through a custom VJP": lambda x: jax.jacfwd(reverse_only)(x),
    "linearising while jitted a custom VJP": lambda x: jax.jit(jax.jacfwd(reverse_only))(x),
    "reverse mode through a while loop": lambda x: jax.jacrev(forward_only)(x),
    "forward mode through a callback": lambda x: jax.jacfwd(called_back)(x),
    "reverse mode through a callback": lambda x: jax.jacrev(called_back)(x),
    "a primitive without a rule": lambda x: jax.jacfwd(mystery.bind)(x),
    "forward mode of an integer": lambda x: jax.jacfwd(lambda n: n * x)(3),
    "reverse mode of an integer": lambda x: jax.jacrev(lambda n: n * x)(3),
    "an integer for an output": lambda x: jax.jacrev(lambda x: x.astype(int))(x),
}


def raised(call: Callable[..., Any], *args: Any) -> Exception:
    with pytest.raises(REFUSALS) as caught:
        call(*args)
    return caught.value


@pytest.mark.parametrize("what", REFUSED)
def test_where_a_mode_does_not_exist_jaxs_first_line_is_the_reason(what):
    error = raised(REFUSED[what], jnp.ones(3))
    assert refusal(error) == str(error).splitlines()[0].rstrip(".")


BUGS = [
    TypeError("Weights of layer 3 are no arrays."),
    ValueError("k must be positive"),
    NotImplementedError("complex numbers are not yet supported"),
    StageError("Stage 'sin' failed: reverse-mode differentiation is not what it is for."),
]


def in_function(error):
    def fn(x):
        raise error

    return fn


def in_jvp_rule(error):
    @jax.custom_jvp
    def fn(x):
        return x

    def rule(primals, tangents):
        raise error

    fn.defjvp(rule)
    return fn


def in_vjp_rule(error):
    @jax.custom_vjp
    def fn(x):
        return x

    def rule(saved, cotangent):
        raise error

    fn.defvjp(lambda x: (x, None), rule)
    return fn


@pytest.mark.parametrize("where", [in_function, in_jvp_rule, in_vjp_rule], ids=lambda where: where.__name__)
@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_users_own_error_is_no_refusal(error, where):
    caught = raised(jax.jacrev(where(error)), jnp.ones(3))
    assert raised(refusal, caught) is caught
    assert str(error) in str(caught)


@pytest.mark.parametrize(
    "bug",
    [
        lambda x: x + jnp.ones(4),
        lambda x: x @ jnp.ones((4, 4)),
        lambda x: jnp.reshape(x, (2, 2)),
        lambda x: x if x[0] > 0 else -x,
        lambda x: jnp.concatenate(x[0]),
        lambda x: lax.cond(True, lambda x: x, lambda x: x[:1], x),
    ],
)
@pytest.mark.parametrize("by", [jax.jacfwd, jax.jacrev])
def test_a_shape_that_does_not_fit_is_no_refusal(bug, by):
    error = raised(jax.jit(by(bug)), jnp.ones(3))
    assert raised(refusal, error) is error


def test_a_mode_that_does_not_exist_gives_way_to_the_other(x64):
    x = draw(jnp.zeros(3))
    close(
        Linear(reverse_only, x).matrix(), jax.jit(jax.jacrev(reverse_only))(x)
    )  # as many rows as columns: forward is first
    narrow = lambda x: forward_only(x)[:1]  # noqa: E731
    close(Linear(narrow, x).matrix(), jax.jit(jax.jacfwd(narrow))(x))  # fewer rows: reverse is first
    with pytest.raises(TypeError, match="custom_vjp"):
        Linear(reverse_only, x).matrix(mode="forward")
    with pytest.raises(ValueError, match=r"[Rr]everse-mode"):
        Linear(forward_only, x).matrix(mode="reverse")


def test_a_users_bug_is_raised_from_the_mode_that_met_it():
    met: list[int] = []

    @jax.custom_jvp
    def fn(x):
        return x

    @fn.defjvp
    def rule(primals, tangents):
        met.append(1)
        raise ValueError("k must be positive")  # noqa: EM101

    with pytest.raises(ValueError, match="k must be positive"):
        Linear(fn, jnp.ones(3)).matrix()
    assert met == [1]
