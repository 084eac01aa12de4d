"""States in one line: few arrays by their shapes, many by how many they are."""

import jax
import jax.numpy as jnp
from flax import nnx

import jaxchain as jc
from jaxchain.show.shapes import describe

NET = jc.nets.mlp([6, 5, 4, 3])
PARAMS = NET.init(jax.random.key(0))


def test_few_arrays_are_shown_by_their_shapes():
    assert describe({"w": jnp.ones((2, 3)), "b": jnp.ones(2)}, short=True) == "{'b': f32[2], 'w': f32[2,3]}"


def test_many_arrays_are_shown_by_what_holds_them_and_how_many_they_are():
    assert describe(PARAMS, short=True) == "dict of 6 arrays, 74 numbers"
    assert describe([jnp.ones(300)] * 5, short=True) == "list of 5 arrays, 1.50 k numbers"


def test_few_arrays_in_a_large_module_are_counted_too():
    state = nnx.split(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))[1]
    assert describe(state, short=True) == "State of 2 arrays, 8 numbers"


def test_a_chain_along_parameters_and_its_sweep_fit_on_a_page():
    x = jnp.ones(6)
    chain = jc.discover(NET, PARAMS, x, argnum=0)
    sweep = jc.reverse_sweep(chain, (PARAMS, x), jnp.ones(3))
    for text in (str(chain), str(sweep)):
        assert "dict of 6 arrays, 74 numbers" in text
        assert len(text.splitlines()) < 10
