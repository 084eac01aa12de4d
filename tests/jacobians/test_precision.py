"""Casts to fewer bits within a program: simple modes round as JAX's do, bit for bit, other orders within those bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw

import jaxchain as jc

LOW = float(jnp.finfo(jnp.bfloat16).eps)
FUNCTIONS = {
    "cast first": lambda x: jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype) * 2,
    "cast last": lambda x: jnp.sin(x).astype(jnp.bfloat16) * 2,
    "cast within": lambda x: jnp.sin(x).astype(jnp.bfloat16).astype(x.dtype) @ jnp.outer(x, x),
    "product within": lambda x: jnp.cos(jnp.sin(x.astype(jnp.bfloat16)) @ jnp.eye(3, dtype=jnp.bfloat16)).astype(
        x.dtype
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_cast_to_fewer_bits_costs_those_bits_and_no_more(name, x64):
    fun, x = FUNCTIONS[name], draw(jnp.zeros(3), 1)
    want = jax.jit(jax.jacrev(fun))(x)
    np.testing.assert_array_equal(jc.jacobian(fun, mode="reverse")(x), want, strict=True)
    np.testing.assert_array_equal(jc.jacobian(fun, mode="forward")(x), jax.jit(jax.jacfwd(fun))(x), strict=True)
    for mode in ("auto", "mixed"):
        for chunk_size in (None, 2):
            assert_close(jc.jacobian(fun, mode=mode, chunk_size=chunk_size)(x), want, 2 * LOW)
