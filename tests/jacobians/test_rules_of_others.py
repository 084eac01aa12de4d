"""A derivative rule that a user wrote is what differentiates: it is read, wherever the function that it belongs to comes from."""

import functools
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw

import jaxchain as jc
from jaxchain.derivative import pulls_linearly
from jaxchain.jacobians import sparse
from jaxchain.program.source import is_library

N = 40
X = draw(jnp.zeros(N), 3)
BATCH = draw(jnp.zeros((4, 3)), 4)
MODES = ("auto", "forward", "reverse", "mixed", *(("sparse",) if sparse.available() else ()))
every_mode = pytest.mark.parametrize("mode", MODES)


@jax.custom_jvp
def straight_through(x):
    """Rounds, and differentiates as the identity."""
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))

flipping_tanh = jax.custom_jvp(jnp.tanh)
flipping_tanh.defjvp(lambda primals, tangents: (jnp.tanh(*primals), tangents[0][::-1]))

flipping_sin = jax.custom_vjp(jnp.sin)
flipping_sin.defvjp(lambda x: (jnp.sin(x), None), lambda _, cotangent: (cotangent[::-1],))


@jax.custom_jvp
def ignoring(x):
    """Nothing of the input is in the value; the derivative has all of it, upside down."""
    return jnp.zeros_like(x)


ignoring.defjvp(lambda primals, tangents: (jnp.zeros_like(primals[0]), tangents[0][::-1]))


@jax.custom_jvp
def ignoring_samples_apart(x):
    return jnp.zeros_like(x)


ignoring_samples_apart.defjvp(lambda primals, tangents: (jnp.zeros_like(primals[0]), 3.0 * tangents[0]))


def rounded_sine(x):
    return jnp.sin(straight_through(x))


@every_mode
def test_a_straight_through_estimator_has_the_derivative_of_its_rule(mode):
    assert_close(jax.jit(jc.jacobian(rounded_sine, mode=mode))(X), jax.jit(jax.jacrev(rounded_sine))(X))


def test_parts_of_a_jacobian_follow_the_rule():
    whole = np.asarray(jax.jit(jax.jacrev(rounded_sine))(X))
    assert_close(jc.jacobian_diagonal(rounded_sine)(X), jnp.diagonal(whole))
    assert_close(jc.gram_diagonal(rounded_sine)(X), (whole**2).sum(0))
    assert_close(jc.jacobian_rows(rounded_sine, [0, 7, -1])(X), whole[[0, 7, -1]])


@every_mode
def test_a_rule_given_to_a_library_function_is_the_one_that_counts(mode):
    def fun(x):
        return jnp.cos(flipping_tanh(2 * x))

    assert_close(jax.jit(jc.jacobian(fun, mode=mode))(X), jax.jit(jax.jacrev(fun))(X))


@pytest.mark.parametrize("mode", ["auto", "reverse", "mixed"])
def test_a_vjp_given_to_a_library_function_is_the_one_that_counts(mode):
    def fun(x):
        return jnp.cos(flipping_sin(2 * x))

    assert_close(jax.jit(jc.jacobian(fun, mode=mode))(X), jax.jit(jax.jacrev(fun))(X))


@pytest.mark.parametrize("rule", [flipping_tanh, flipping_sin, ignoring], ids=["jvp", "vjp", "value ignores its input"])
def test_a_rule_that_mixes_samples_is_no_batch(rule):
    with pytest.raises(jc.SamplesMixError, match="derivative rule of its own"):
        jc.batch_jacobian(rule)(BATCH)


@pytest.mark.parametrize("rule", [ignoring_samples_apart, straight_through, jax.nn.relu, jax.nn.silu])
def test_a_rule_that_keeps_samples_apart_is_a_batch(rule):
    whole = jax.jit(jax.jacrev(rule))(BATCH)
    assert_close(jc.batch_jacobian(rule)(BATCH), jnp.stack([whole[b, :, b] for b in range(4)]))


def test_what_a_value_ignores_may_still_mix_further_on():
    with pytest.raises(jc.SamplesMixError):
        jc.batch_jacobian(lambda x: ignoring_samples_apart(x)[::-1])(BATCH)


def test_samples_that_meet_in_a_mutable_reference_are_not_proven_apart():
    def fun(x):
        ref = jax.new_ref(jnp.zeros(3))
        for row in x:
            ref[...] = ref[...] + row
        return x * ref[...]

    with pytest.raises(TypeError, match="side effects"):
        jc.batch_jacobian(fun)(BATCH)


def test_what_is_printed_mixes_no_samples():
    def fun(x):
        jax.debug.callback(lambda _: None, x.sum())
        return jnp.sin(x)

    assert_close(jc.batch_jacobian(fun)(BATCH), jc.batch_jacobian(jnp.sin)(BATCH))


def test_a_package_whose_folder_begins_like_jaxs_is_not_jax():
    folder = Path(jax.__file__).parent
    for near, ours in ((f"{folder}opt", False), (f"{folder}_md", False), (str(folder), True)):
        namespace = {}
        exec(compile("def fun(x):\n    return x + 1\n", f"{near}/module.py", "exec"), namespace)
        assert is_library(jax.make_jaxpr(jax.jit(namespace["fun"]))(1.0).eqns[0].params["jaxpr"]) is ours


TWO_PATTERNS = """
    import jax, jax.numpy as jnp, numpy as np
    import jaxchain as jc

    def looked_up(order):
        def fun(x):
            return jax.lax.cond(x[0] > 1e9, lambda x: x[order] * 2.0, lambda x: x[order], jnp.sin(x))
        return fun

    x = jnp.linspace(0.1, 1.0, 40)
    for order in (np.arange(40)[::-1].copy(), np.roll(np.arange(40), 3)):
        got, want = jc.jacobian(looked_up(order))(x), jax.jacrev(looked_up(order))(x)
        assert np.abs(np.asarray(got - want)).max() < 1e-6, "another function's pattern"
"""


@pytest.mark.parametrize("simplified", ["0", "1"])
def test_functions_that_differ_in_an_inner_array_alone_do_not_share_a_pattern(simplified, monkeypatch):
    monkeypatch.setenv("JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS", simplified)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_PATTERNS)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("length", [2, 4])
def test_a_mask_of_rows_is_as_long_as_the_output(length):
    with pytest.raises(IndexError, match=f"entry for each number in the output, 3, but this one has {length}"):
        jc.jacobian_rows(jnp.sin, np.ones(length, bool))(jnp.ones(3))


@jax.custom_jvp
def stepped(x):
    """Steps, whose rule has steps of its own for a value: differentiated again they are flat."""
    return jnp.floor(4 * x) / 4


stepped.defjvp(lambda primals, tangents: (jnp.floor(4 * primals[0]) / 4 + 0.125, tangents[0]))

stepped_back = jax.custom_vjp(lambda x: jnp.floor(4 * x) / 4)
stepped_back.defvjp(lambda x: (jnp.floor(4 * x) / 4 + 0.125, None), lambda _, cotangent: (cotangent,))


@pytest.mark.parametrize("rule", [stepped, stepped_back], ids=["jvp", "vjp"])
@pytest.mark.parametrize("mode", ["auto", "mixed", *(["sparse"] if sparse.available() else [])])
def test_states_and_second_derivatives_are_those_of_the_value_that_a_rule_says(rule, mode):
    w = draw(jnp.zeros((5, 5)), 1)

    def fun(x):
        return jnp.exp(w @ jnp.sin(rule(x)) / 4) @ w

    def of_entries(jacobian):
        return lambda x: jnp.sum(jnp.arange(25.0).reshape(5, 5) * jacobian(fun)(x) ** 2)

    def ours(fun):
        return jc.jacobian(fun, mode=mode)

    x = X[:5]
    if mode == "sparse" and rule is stepped_back:
        with pytest.raises(jc.ModeError):
            ours(fun)(x)
        return
    assert_close(jax.jit(ours(fun))(x), jax.jit(jax.jacrev(fun))(x))
    assert_close(jax.jit(jax.grad(of_entries(ours)))(x), jax.jit(jax.grad(of_entries(jax.jacrev)))(x), 1e-5)


def test_a_rule_in_a_scan_in_dead_code_or_in_aux_takes_no_mode_away():
    def in_scan(x):
        return jax.lax.scan(lambda c, w: (flipping_sin(c), (c * w).sum()), x, jnp.ones((2, 3)))

    def dead(x):
        return (flipping_sin(x), (x, 2 * x))[1]

    def with_aux(x):
        return jnp.sum(x * x) * jnp.arange(5.0), flipping_sin(x)

    x = X[:3]
    for mode in ("auto", "mixed"):
        for fun in (in_scan, dead):
            assert_close(jax.jit(jc.jacobian(fun, mode=mode))(x), jax.jit(jax.jacrev(fun))(x))
        assert_close(jc.jacobian(with_aux, mode=mode, has_aux=True)(x), jax.jit(jax.jacrev(with_aux, has_aux=True))(x))


def clipping(clip):
    """The identity, whose rule does something to the cotangent."""

    @jax.custom_vjp
    def clipped(x):
        return x * 1.0

    clipped.defvjp(lambda x: (x * 1.0, x), lambda x, cotangent: (clip(x, cotangent),))
    return clipped


RULES = {
    "clip": (lambda _, c: jnp.clip(c, -1, 1), False),
    "normalise": (lambda _, c: c / (1 + jnp.linalg.norm(c)), False),
    "positive part": (lambda _, c: jnp.where(c > 0, c, 0), False),
    "square": (lambda _, c: c * c, False),
    "weight decay": (lambda x, c: c + 0.1 * x, False),
    "constant": (lambda x, _: jnp.ones_like(x), False),
    "one entry set": (lambda _, c: c.at[0].set(1.0), False),
    "padded by ones": (lambda _, c: jnp.concatenate([c[1:], jnp.ones(1)]), False),
    "added in a loop": (lambda x, c: jax.lax.scan(lambda a, b: (a + 1, a + b), c[0], c)[1], False),
    "added in a branch": (lambda x, c: jax.lax.cond(x[0] > 0, lambda c: c + 1, lambda c: c, c), False),
    "constant elsewhere": (lambda x, c: jnp.where(x > 0, c, 0.3), False),
    "quantised": (lambda _, c: (10 * c).astype("int32").astype(c.dtype) / 10, False),
    "nothing": (lambda _, c: jnp.zeros_like(c), True),
    "one entry cleared": (lambda _, c: c.at[0].set(0.0), True),
    "shifted": (lambda _, c: jnp.concatenate([c[1:], jnp.zeros(1)]), True),
    "scale": (lambda x, c: c * jnp.cos(x), True),
    "mask": (lambda x, c: jnp.where(x > 0, c, 0), True),
    "scan": (lambda _, c: jax.lax.scan(lambda a, b: (a / 2 + b, a + b), jnp.zeros_like(c[0]), c)[1], True),
    "branch": (lambda x, c: jax.lax.cond(x[0] > 0, lambda c: 2 * c, lambda c: c[::-1], c), True),
}
each_rule = pytest.mark.parametrize("name", RULES)


@each_rule
def test_whether_a_rule_is_linear_in_the_cotangent(name):
    clip, linear = RULES[name]
    (eqn,) = jax.make_jaxpr(clipping(clip))(X[:8]).eqns
    assert pulls_linearly(eqn) is linear


@functools.cache
def clipped_programs(name):
    """A rule within a network, a rule within a square function, each with its input and Jacobian by JAX."""
    w_in, w_out = draw(jnp.zeros((30, 8)), 1), draw(jnp.zeros((30, 30)), 2)
    clipped = clipping(RULES[name][0])

    def fun(x):
        return w_out @ jnp.tanh(5 * clipped(jnp.sin(w_in @ x)))

    def square(x):
        return clipped(x) * 5 + clipped(jnp.sin(x)[::-1])

    return [(f, x, jax.jit(jax.jacrev(f))(x)) for f, x in ((fun, X[:8]), (square, X))]


@each_rule
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("forward", "sparse")])
def test_where_a_rule_clips_cotangents_rows_are_pulled_as_jax_pulls_them(name, mode):
    for fun, x, want in clipped_programs(name):
        assert_close(jax.jit(jc.jacobian(fun, mode=mode))(x), want)


@each_rule
def test_where_a_rule_clips_cotangents_parts_are_those_of_jaxs_jacobian(name):
    (fun, x, of_fun), (square, at, of_square) = clipped_programs(name)
    assert_close(jax.jit(jc.gram_diagonal(fun))(x), (of_fun**2).sum(0))
    assert_close(jax.jit(jc.jacobian_diagonal(square))(at), jnp.diagonal(of_square))


def telling(x, scale):
    """Its rule is told what moves, and refuses to be asked along ``scale``."""

    @jax.custom_vjp
    def scaled(x, scale):
        return x * scale

    def forward(x, scale):
        if scale.perturbed:
            msg = "scale stands still: it cannot be autodifferentiated"
            raise RuntimeError(msg)
        return x.value * scale.value, scale.value

    scaled.defvjp(forward, lambda scale, c: (c * scale, None), symbolic_zeros=True)
    return jnp.tanh(scaled(jnp.sin(x), scale))


LOOKS = {
    "plan": lambda fun: jc.plan(fun, (X, X)),
    "mixed": lambda fun: jc.jacobian(fun, mode="mixed")(X, X),
    "trace": lambda fun: jc.trace(fun, X, X, argnum=0),
    "transforms": lambda fun: jc.transforms(fun, X, X, argnum=0),
    "compare_modes": lambda fun: jc.compare_modes(fun, X, X),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_jax_has_asked_of_a_rule_can_be_asked_after_anything_that_looks(look):
    # JAX keeps the rule's program and, beside it, what its results are: the last is lost by a question that it refuses.
    fun = jax.jit(lambda x, scale: telling(x, scale))
    want = jax.jit(jax.jacrev(fun))(X, X)
    LOOKS[look](fun)
    assert_close(jc.jacobian(fun)(X, X), want)
    assert_close(jax.jit(jax.jacrev(lambda x, scale: fun(x, scale) * 1.0))(X, X), want)
    if look == "plan":
        assert jc.plan(fun, (X, X)).mode != "forward"


def test_samples_stay_apart_in_a_rule_that_closes_over_weights():
    inner, outer = draw(jnp.zeros((5, 5))) / 5, draw(jnp.zeros((3, 5)))

    def cell(z, x):
        return jnp.tanh(z @ inner + x @ outer)

    @jax.custom_vjp
    def settled(x):
        return jax.lax.fori_loop(0, 9, lambda _, z: cell(z, x), jnp.zeros(5))

    def back(kept, cotangent):
        z, x = kept
        slope = jnp.linalg.solve(jnp.eye(5) - jax.jacrev(cell)(z, x).T, cotangent)
        return jax.vjp(lambda x: cell(z, x), x)[1](slope)

    settled.defvjp(lambda x: ((z := settled(x)), (z, x)), back)
    fun, x = jax.vmap(settled), draw(jnp.zeros((6, 3)))
    decision = jc.plan(fun, (x,))
    assert decision.plan is not None
    assert decision.plan.cost < 0.3 * decision.plan.reverse_cost
    assert_close(jc.jacobian(fun)(x), jax.jacrev(fun)(x), tol=1e-5)
