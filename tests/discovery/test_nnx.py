"""Modules of Flax nnx by their attributes, and their classes left as they were."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxchain as jc


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.mlp = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return x + jax.nn.relu(self.mlp(self.norm(x)))


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Linear(3, 4, rngs=rngs)
        self.layers = nnx.List([Block(rngs) for _ in range(3)])
        self.heads = nnx.Dict({"a/b": nnx.Linear(4, 2, rngs=rngs)})

    def __call__(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.heads["a/b"](x)


NAMES = ["embed", "layers[0]", "layers[1]", "layers[2]", "heads.a_b"]


def names(fun, *args):
    return [stage.name for stage in jc.discover(fun, *args).stages]


def test_stages_are_named_by_attributes():
    net = Net()
    graph, state = nnx.split(net)
    assert names(net, jnp.ones(3)) == names(lambda x: net(x), jnp.ones(3)) == NAMES
    assert names(lambda state, x: nnx.merge(graph, state)(x), state, jnp.ones(3)) == NAMES
    inside = jc.trace(net, jnp.ones(3)).unfold("layers[1]")
    assert "mlp" in {row.call for row, _ in inside.walk()}


class Encoder(Net):
    def encode(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = self.step(layer, x)
        return x

    def step(self, layer, x):
        return layer(x)


def test_any_method_may_be_what_is_called():
    net = Encoder()
    graph, state = nnx.split(net)
    assert names(net.encode, jnp.ones(3)) == names(lambda x: net.encode(x), jnp.ones(3)) == NAMES[:-1]
    assert names(lambda state, x: nnx.merge(graph, state).encode(x), state, jnp.ones(3)) == NAMES[:-1]


def test_a_function_that_jax_has_traced_before_is_named_so_too():
    net = Net()

    def fun(x):
        return net(x)

    jax.jit(fun)(jnp.ones(3))
    jax.make_jaxpr(fun)(jnp.ones(3))
    assert names(fun, jnp.ones(3)) == NAMES


def test_a_shared_module_and_two_models_have_names_of_their_own():
    net, other = Net(), nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    found = names(lambda x: net(other(net(x))), jnp.ones(3))
    assert [name for name in found if name.startswith("Linear")] == ["Linear"]
    assert sum(name.startswith("Net/embed") for name in found) == 2


def test_classes_are_as_they_were_whatever_happens():
    before = (Net.__call__, Block.__call__, nnx.Linear.__call__)

    def fails(x):
        raise RuntimeError(str(Net.__call__ is before[0]))

    with pytest.raises(RuntimeError, match="False"):
        jc.discover(fails, jnp.ones(3))
    assert (Net.__call__, Block.__call__, nnx.Linear.__call__) == before

    net = Net()
    barrier = threading.Barrier(4)

    def one():
        barrier.wait()
        found.append(names(lambda x: net(x) * 2, jnp.ones(3)))

    found = []
    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [part[:5] for part in found] == [NAMES] * 4
    assert (Net.__call__, Block.__call__, nnx.Linear.__call__) == before


def test_a_function_is_not_kept_alive():
    net = Net()

    def fun(x):
        return net(x)

    np.testing.assert_allclose(jc.jacobian(fun)(jnp.ones(3)), jax.jit(jax.jacrev(fun))(jnp.ones(3)), rtol=1e-5)
    gone = weakref.ref(fun)
    del fun
    jax.clear_caches()
    gc.collect()
    assert gone() is None


class Doubling(nnx.Module):
    @staticmethod
    def __call__(x):
        return x * 2


def test_a_call_without_a_self_is_left_as_it_is():
    assert names(lambda x: jnp.sin(Doubling()(x)), jnp.ones(3))[-1].startswith("sin")
