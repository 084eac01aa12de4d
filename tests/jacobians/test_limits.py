"""A memory limit is kept by XLA's own measure, in every mode, of everyone's models; and what fits is not refused."""

import jax
import jax.numpy as jnp
import pytest
from conftest import assert_close, draw, named

import jaxchain as jc
from jaxchain import nets
from jaxchain.jacobians import sparse

models = pytest.importorskip("models", reason="needs the extra models")


def conv():
    net = nets.conv_net((8, 8, 1), [3], 4, "gelu")
    return net, 1, (draw(jax.eval_shape(net.init, jax.random.key(0))), draw(jnp.zeros((8, 8, 1))))


def of_zoo(name):
    chain, args = named(name).chain, named(name).args
    return chain, len(args) - 1, args


def of_models(name):
    fun, params, x = models.MODELS[name]()
    return fun, 1, (params, x)


FUNCTIONS = {
    "conv": conv,
    "pytree": lambda: of_zoo("pytree"),
    **{name: lambda name=name: of_models(name) for name in ("linen images", "equinox mlp")},
}


def temporary_bytes(fun, *args):
    return jax.jit(fun).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("conv", "forward"),
        ("conv", "sparse"),
        ("pytree", "mixed"),
        ("linen images", "auto"),
        ("linen images", "mixed"),
        ("equinox mlp", "sparse"),
        ("equinox mlp", "reverse"),
    ],
)
def test_a_limit_is_kept_and_what_fits_is_not_refused(name, mode):
    if mode == "sparse" and sparse.unavailable():
        pytest.skip(sparse.unavailable())
    fun, at, args = FUNCTIONS[name]()
    free = temporary_bytes(jc.jacobian(fun, at, mode=mode), *args)
    assert temporary_bytes(jc.jacobian(fun, at, mode=mode, memory_limit=max(free, 1)), *args) <= free
    half = max(free // 2, 1)
    try:
        assert temporary_bytes(jc.jacobian(fun, at, mode=mode, memory_limit=half), *args) <= half
    except ValueError as error:
        assert "cannot be met: the least that any mode needs" in str(error)  # noqa: PT017


def test_a_half_is_met_by_chunks():
    fun, at, args = conv()
    free = temporary_bytes(jc.jacobian(fun, at, mode="forward"), *args)
    bound = jc.jacobian(fun, at, mode="forward", memory_limit=free // 2)
    assert temporary_bytes(bound, *args) <= free // 2
    assert bound.plan(*args).chunk_size


def test_outside_jit_too_it_is_the_measured_program_that_runs():
    """Compiled as one, not operation by operation, each with results that nobody measured."""
    fun, at, args = of_zoo("rnn")
    bound = jc.jacobian(fun, memory_limit=10**6)
    assert len(jax.make_jaxpr(bound)(*args).eqns) == 1 < len(jax.make_jaxpr(jc.jacobian(fun))(*args).eqns)
    assert_close(bound(*args), jax.jit(jax.jacrev(fun, at))(*args), 1e-5)
