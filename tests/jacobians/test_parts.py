"""Parts of a Jacobian are parts of the Jacobian, and cost less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw

import jaxchain as jc
from jaxchain import nets
from jaxchain.cost.measure import flops

NET = nets.autoencoder([40, 20, 3])
ARGS = draw(jax.eval_shape(NET.init, jax.random.key(0))), draw(jnp.zeros(40))


def narrow(x):
    return NET(ARGS[0], x)


FUNCTIONS = {
    "waist": narrow,
    "elementwise": lambda x: jnp.sin(x) * 2,
    "identity": lambda x: x + 1,
    "dense": lambda x: jnp.cumsum(x) * x.sum(),
    "sparse": lambda x: jnp.roll(x, 1) * x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_diagonal_is_the_jacobians(name):
    fun, x = FUNCTIONS[name], ARGS[1]
    assert_close(jc.jacobian_diagonal(fun)(x), jnp.diagonal(jax.jit(jax.jacrev(fun))(x)), 1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gram_diagonal_is_that_of_the_gram_matrix(name):
    fun, x = FUNCTIONS[name], ARGS[1]
    whole = jax.jit(jax.jacrev(fun))(x)
    assert_close(jc.gram_diagonal(fun)(x), jnp.diagonal(whole.T @ whole), 1e-5)


@pytest.mark.parametrize("part", [jc.jacobian_diagonal, jc.gram_diagonal])
def test_a_waist_makes_a_part_cheaper_than_the_whole(part):
    assert flops(part(narrow), ARGS[1]) < 0.7 * flops(jc.jacobian(narrow), ARGS[1])


@pytest.mark.parametrize("rows", [[0], [3, -1, 3], np.array([5, 6]), []])
def test_chosen_rows_are_rows_of_the_jacobian(rows):
    want = jax.jit(jax.jacrev(narrow))(ARGS[1])[np.asarray(rows, int)]
    np.testing.assert_allclose(jc.jacobian_rows(narrow, rows)(ARGS[1]), want, rtol=1e-4, atol=1e-6)


def test_rows_of_a_pytree_output_count_through_its_leaves():
    def fun(p):
        return {"a": p["x"] * 2, "b": jnp.sum(p["x"]) * p["y"]}

    p = {"x": jnp.arange(3.0), "y": jnp.ones(2)}
    got = jc.jacobian_rows(fun, [3])(p)
    want = jax.tree.map(lambda leaf: leaf[:1], jax.jit(jax.jacrev(fun))(p)["b"])
    assert_close(got, want)


def test_a_row_that_does_not_exist_is_named():
    with pytest.raises(IndexError, match="no row 40: the output has 40 numbers"):
        jc.jacobian_rows(narrow, [1, 40])(ARGS[1])


def test_a_jacobian_that_is_not_square_has_no_diagonal():
    with pytest.raises(ValueError, match="3 × 5"):
        jc.jacobian_diagonal(lambda x: x[:3])(jnp.ones(5))


def test_partial_jacobians_are_products_of_local_ones():
    local = [np.asarray(j.matrix, float) for j in jc.local_jacobians(NET, ARGS)]
    names = NET.names_with_input
    for i in range(0, len(names), 2):
        for j in range(i, len(names)):
            want = (
                np.eye(local[i].shape[1])
                if i == j and i < len(local)
                else np.eye(local[-1].shape[0])
                if i == j
                else None
            )
            for matrix in local[i:j]:
                want = matrix if want is None else matrix @ want
            got = jc.partial_jacobian(NET, ARGS, names[i], names[j])
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_a_partial_jacobian_of_a_plain_function_goes_by_discovered_names():
    def fun(x):
        with jax.named_scope("first"):
            x = jnp.sin(x)
        with jax.named_scope("second"):
            return jnp.cumsum(x)

    x = jnp.ones(3)
    np.testing.assert_allclose(jc.partial_jacobian(fun, (x,), "first", "second"), np.tril(np.ones((3, 3))), rtol=1e-6)


def test_a_partial_jacobian_against_the_flow_is_refused():
    with pytest.raises(ValueError, match="'dense_0' comes before 'dense_1'"):
        jc.partial_jacobian(NET, ARGS, "dense_1", "dense_0")
    with pytest.raises(KeyError, match="dense_9"):
        jc.partial_jacobian(NET, ARGS, "input", "dense_9")


def test_rows_of_a_number_that_python_made_are_zero():
    assert_close(jc.jacobian_rows(lambda x: 3.0, [0])(jnp.ones(2)), jnp.zeros((1, 2)))


def test_rows_in_a_table_are_refused_and_a_mask_like_the_output_is_not():
    x = draw(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="in one list"):
        jc.jacobian_rows(jnp.sin, [[0, 1]])
    mask = np.array([[True, False], [False, True]])
    assert_close(jc.jacobian_rows(jnp.sin, mask)(x), jax.jit(jax.jacrev(jnp.sin))(x)[mask])


def test_the_chain_input_is_among_the_names_that_are_suggested():
    with pytest.raises(KeyError, match="Nearest: input"):
        jc.partial_jacobian(lambda x: jnp.tanh(x), (jnp.ones(3),), "inpt", "tanh")
