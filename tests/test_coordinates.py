"""Coordinates: states as flat vectors of real numbers, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, real

from jaxchain.coordinates import Coordinates, check_like, require_inexact
from jaxchain.derivative import Pass
from jaxchain.errors import TangentMismatchError

STATES = {
    "scalar": jnp.zeros(()),
    "vector": jnp.zeros(3),
    "image": jnp.zeros((2, 3, 4)),
    "complex": jnp.zeros((2, 2), jnp.complex64),
    "empty": jnp.zeros((0, 3)),
    "mixed": (jnp.zeros(2, jnp.bfloat16), {"z": jnp.zeros(2, jnp.complex64), "a": jnp.zeros((2, 1))}),
    "with integers": {"x": jnp.zeros(3), "n": jnp.zeros(2, jnp.int32)},
}
state = pytest.mark.parametrize("state", STATES.values(), ids=STATES)


def tangent_of(state):
    """A random tangent: float0 where the state is of integers."""
    return jax.tree.map(
        lambda leaf: (
            draw(leaf, 1) if jnp.issubdtype(leaf.dtype, jnp.inexact) else np.zeros(leaf.shape, jax.dtypes.float0)
        ),
        state,
    )


@state
def test_unflatten_undoes_flatten(state):
    space, tangent = Coordinates.of(state), tangent_of(state)
    assert_close(space.unflatten(space.flatten(tangent)), tangent, tol=0)
    assert_close(space.unflatten_cotangent(space.flatten_cotangent(tangent)), tangent, tol=0)


@state
def test_flatten_undoes_unflatten(state):
    space = Coordinates.of(state)
    vector = jnp.arange(space.size, dtype=space.dtype)
    assert_close(space.flatten(space.unflatten(vector)), vector, tol=0)
    assert_close(space.flatten_cotangent(space.unflatten_cotangent(vector)), vector, tol=0)


@state
def test_a_cotangent_pairs_with_a_tangent_as_in_jax(state):
    space, tangent = Coordinates.of(state), tangent_of(state)
    cotangent = jax.tree.map(lambda leaf: leaf if leaf.dtype == jax.dtypes.float0 else leaf * (2 + leaf), tangent)
    by_jax = sum(
        float(np.sum(np.asarray(c).astype(complex) * np.asarray(t).astype(complex)).real)
        for c, t in zip(jax.tree.leaves(cotangent), jax.tree.leaves(tangent), strict=True)
        if t.dtype != jax.dtypes.float0
    )
    np.testing.assert_allclose(space.flatten_cotangent(cotangent) @ space.flatten(tangent), by_jax, rtol=1e-5)


@state
def test_coordinates_are_in_leaf_order_and_real_before_imaginary(state):
    tangent = jax.tree.map(lambda leaf: draw(leaf, 1), state)
    np.testing.assert_array_equal(Coordinates.of(state).flatten(tangent), real(tangent))


@state
def test_the_identity_is_one_basis_vector_a_coordinate(state):
    space = Coordinates.of(state)
    np.testing.assert_array_equal(space.identity(), np.eye(space.size))
    assert space.identity().dtype == space.dtype


@state
def test_abstract_states_have_the_coordinates_of_concrete_ones(state):
    one, other = Coordinates.of(state), Coordinates.of(jax.eval_shape(lambda: state))
    assert (one.size, one.shape, one.dtype) == (other.size, other.shape, other.dtype)


def test_sizes_and_shapes_count_real_numbers():
    assert {name: Coordinates.of(state).size for name, state in STATES.items()} == {
        "scalar": 1,
        "vector": 3,
        "image": 24,
        "complex": 8,
        "empty": 0,
        "mixed": 8,
        "with integers": 3,
    }
    assert Coordinates.of(STATES["image"]).shape == (2, 3, 4)
    assert Coordinates.of(STATES["mixed"]).shape == ((2,), (2, 1), (2,))


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 7, 100])
def test_a_map_over_a_basis_is_the_same_in_chunks(chunk_size):
    basis = jnp.eye(7)
    got = Pass(chunk_size).map(lambda e: {"sum": e.sum(), "double": 2 * e}, basis)
    assert_close(got, {"sum": jnp.ones(7), "double": 2 * basis}, tol=0)


def test_something_that_looks_right_passes_unchanged():
    like = {"a": jnp.ones(2), "n": jnp.int32(1)}
    given = {"a": jnp.zeros(2), "n": np.zeros((), jax.dtypes.float0)}
    assert_close(check_like(given, like, "tangent", "state"), given, tol=0)


def test_a_state_of_floats_passes_as_arrays():
    assert isinstance(require_inexact(0.5, "state"), jax.Array)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": jnp.ones(3)}, r"at \['a'\]: float32\[2\] is wanted, but float32\[3\] was given"),
        ({"b": jnp.ones(2)}, r"must have the structure of the state"),
        ({"a": jnp.ones(2, jnp.float16)}, r"float32\[2\] is wanted, but float16\[2\] was given"),
    ],
)
def test_something_that_looks_wrong_is_refused(given, message):
    with pytest.raises(TangentMismatchError, match=message):
        check_like(given, {"a": jnp.ones(2)}, "tangent", "state")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": jnp.ones(2), "mask": jnp.ones(2, bool)}, r"state at \['mask'\] is bool\[2\]"),
        ((), "state holds no array"),
        (jax.random.key(0), r"state is key<fry>\[\]"),
    ],
)
def test_a_state_without_a_derivative_is_refused(state, message):
    with pytest.raises(TypeError, match=message):
        require_inexact(state, "state")
