"""What is read off a program is what accumulation gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from jax import lax

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.discovery.find import find
from jaxchain.jacobians.execute import execute
from jaxchain.jacobians.planner import make_plan


def weights(*shape, seed=1):
    return draw(jnp.zeros(shape), seed)


def conv(shape, kernel, dimensions=("NHWC", "HWIO", "NHWC"), **options):
    """A convolution of one array of a shape by constant weights."""
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": dimensions, **options}
    return lambda x: lax.conv_general_dilated(x, weights(*kernel), **options), shape


READ_OFF = {
    "tanh": (jnp.tanh, (5,), "diagonal"),
    "relu": (jax.nn.relu, (5,), "diagonal"),
    "gelu": (jax.nn.gelu, (5,), "diagonal"),
    "silu": (jax.nn.silu, (2, 3), "diagonal"),
    "softplus": (jax.nn.softplus, (5,), "diagonal"),
    "scale by an array": (lambda x: x * weights(5), (5,), "diagonal"),
    "bias": (lambda x: x + weights(5), (5,), "identity"),
    "minus a constant": (lambda x: x - 3.0, (5,), "identity"),
    "a constant minus": (lambda x: 3.0 - x, (5,), "diagonal"),
    "reshape": (lambda x: x.reshape(3, 2), (6,), "identity"),
    "weights @ x": (lambda x: weights(4, 5) @ x, (5,), "linear"),
    "x @ weights": (lambda x: x @ weights(5, 4), (5,), "linear"),
    "x @ weights at every position": (lambda x: x @ weights(5, 4), (3, 5), "linear"),
    "weights @ x over positions": (lambda x: weights(4, 3) @ x, (3, 5), "linear"),
    "contraction of two axes": (lambda x: jnp.einsum("iabj,ab->ij", x, weights(2, 3)), (4, 2, 3, 2), "linear"),
    "contraction in other orders": (lambda x: jnp.einsum("bia,abk->ki", x, weights(3, 2, 5)), (2, 4, 3), "linear"),
    "convolution": (*conv((1, 5, 5, 2), (3, 3, 2, 3)), "linear"),
    "convolution, strided and padded": (
        *conv((1, 6, 5, 1), (3, 2, 1, 2), window_strides=(2, 1), padding=((1, 2), (0, 1))),
        "linear",
    ),
    "convolution, dilated": (*conv((1, 7, 7, 1), (3, 3, 1, 1), rhs_dilation=(2, 1), padding="VALID"), "linear"),
    "convolution, transposed": (
        *conv((1, 3, 3, 1), (3, 3, 1, 2), lhs_dilation=(2, 2), padding=((1, 1), (2, 2))),
        "linear",
    ),
    "convolution in groups": (*conv((1, 4, 4, 4), (3, 3, 2, 6), feature_group_count=2), "linear"),
    "convolution, channels first": (*conv((1, 2, 4, 4), (3, 2, 3, 3), ("NCHW", "OIHW", "NCHW")), "linear"),
    "convolution of a batch": (*conv((2, 4, 4, 1), (3, 3, 1, 2)), "linear"),
}


@pytest.mark.parametrize("name", READ_OFF)
def test_what_is_read_off_is_the_jacobian(name):
    fun, shape, kind = READ_OFF[name]
    x = weights(*shape, seed=2)
    plan = make_plan(find(fun, (x,), 0))
    assert [unit.kind for unit in plan.units] == [kind]
    want = jax.jit(jax.jacrev(fun))(x).reshape(plan.sizes[-1], x.size)
    np.testing.assert_allclose(execute(plan, (x,)), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, (_, _, kind) in READ_OFF.items() if kind in ("linear", "identity")])
def test_linear_stages_take_no_multiply_adds(name):
    fun, shape, _ = READ_OFF[name]
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert flops(jc.jacobian(fun), x) == 0 or jc.plan(fun, (x,)).cost == 0


def test_side_values_may_be_arguments_that_are_differentiated():
    w, x = weights(4, 5), weights(5, seed=2)

    def total(jacobian):
        return lambda w: jnp.sum(jnp.sin(jacobian(lambda x: jnp.tanh(w @ x))(x)))

    np.testing.assert_allclose(
        jax.jit(jax.grad(total(jc.jacobian)))(w), jax.jit(jax.grad(total(jax.jacrev)))(w), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "fun"),
    {
        "softmax mixes": jax.nn.softmax,
        "a product with itself": lambda x: x * x[::-1],
        "a mean in between": lambda x: x - x.mean(),
        "cumulative sum": jnp.cumsum,
    }.items(),
)
def test_what_is_not_elementwise_is_not_taken_for_it(name, fun):
    del name
    x = weights(5)
    np.testing.assert_allclose(jc.jacobian(fun)(x), jax.jit(jax.jacrev(fun))(x), rtol=1e-5, atol=1e-6)


def test_a_users_own_rule_is_never_taken_for_elementwise():
    @jax.custom_jvp
    def odd(x):
        return jnp.sin(x)

    odd.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), jnp.roll(tangents[0], 1)))
    x = weights(4)
    np.testing.assert_array_equal(jc.jacobian(odd)(x), jax.jit(jax.jacfwd(odd))(x))


@pytest.mark.parametrize("mode", ["auto", "mixed", "forward", "reverse"])
def test_an_output_that_does_not_depend_on_the_input_has_a_zero_jacobian(mode):
    x, y = weights(3), weights(3, seed=2)
    for fun in (lambda x, y: y * 2, lambda x, y: jnp.ones(3), lambda x, y: jnp.ones_like(x) * 2):
        np.testing.assert_array_equal(jc.jacobian(fun, mode=mode)(x, y), np.zeros((3, 3)))
        np.testing.assert_array_equal(jc.jacobian_diagonal(fun)(x, y), np.zeros(3))
        np.testing.assert_array_equal(jc.gram_diagonal(fun)(x, y), np.zeros(3))


def test_a_stage_that_forgets_its_input_makes_every_partial_jacobian_across_it_zero():
    chain = jc.Chain([jc.Stage("a", jnp.sin), jc.Stage("b", jnp.ones_like), jc.Stage("c", lambda x: x * 2)])
    for start, stop in (("a", "b"), ("input", "c")):
        np.testing.assert_array_equal(jc.partial_jacobian(chain, (weights(3),), start, stop), np.zeros((3, 3)))


def test_neighbouring_diagonals_are_one():
    plan = jc.plan(lambda x: jnp.exp(jnp.sin(x) * 2) + 1, (weights(5),))
    assert [unit.kind for unit in plan.plan.units] == ["diagonal"]
