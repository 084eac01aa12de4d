"""The pages that the browser's tests look at, and what each was made of."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chromium import Browser, axe, browser, driver, violations  # noqa: F401
from conftest import draw, some_params

import jaxchain as jc

# ------------------------------------------------------------------------------------------------------------ the pages


@dataclass(frozen=True)
class Made:
    """A page and what it was made of."""

    path: Path
    chain: jc.Chain
    args: tuple
    tangent: object
    cotangent: object


def make(folder, name, chain, args, title):
    x = chain.split(*args)[0]
    tangent, cotangent = draw(x, 5), draw(jax.eval_shape(chain, *args), 6)
    path = jc.report(chain, *args, path=folder / f"{name}.html", title=title, tangent=tangent, cotangent=cotangent)
    return Made(path, chain, args, tangent, cotangent)


def norm(tree):
    return float(jnp.sqrt(sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(tree))))


def by_jax(net, args, tangent, cotangent):
    """Of every state and stage its norms and its Jacobian, by JAX alone."""
    params, x = args
    out, pull = jax.vjp(lambda p: net(p, x), params)
    gradients = pull(cotangent)[0]
    states = [x, *(net[: k + 1](params, x) for k in range(len(net)))]
    found = []
    for k, state in enumerate(states):
        pushed = tangent if k == 0 else jax.jvp(lambda v, k=k: net[:k](params, v), (x,), (tangent,))[1]
        pulled = cotangent if k == len(net) else jax.vjp(lambda v, k=k: net[k:](params, v), state)[1](cotangent)[0]
        jacobian = None if k == 0 else jax.jacrev(lambda v, k=k: net[k - 1 : k](params, v))(states[k - 1])
        gradient = norm(gradients[net.names[k - 1]]) if k and net.names[k - 1] in params else None
        found.append((norm(state), norm(pushed), norm(pulled), jacobian, gradient))
    np.testing.assert_allclose(states[-1], out, rtol=1e-6)
    return found


HOSTILE = (
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked=1'>",
    "a/b & 'c' #d=e%20",
    "{{ 7 * 7 }} </title>",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def waist(folder):
    """An autoencoder: each of the three orders is another one."""
    net = jc.nets.autoencoder([6, 5, 2], "tanh")
    return make(folder, "waist", net, (some_params(net), draw(jnp.zeros(6), 2)), "small autoencoder")


@pytest.fixture(scope="session")
def hostile(folder):
    """Names that would like to be markup, and numbers that are not finite."""
    functions = (jnp.log, lambda x: x[::-1] * 2, jnp.square, lambda x: x / x.sum())
    chain = jc.Chain([jc.Stage(name, fn) for name, fn in zip(HOSTILE, functions, strict=True)])
    return make(folder, "hostile", chain, (jnp.array([0.0, 1.0, -1.0]),), '<b>title</b> & "co" </script>')


@pytest.fixture(scope="session")
def long(folder):
    """More stages than fit side by side."""
    chain = jc.Chain([jc.Stage(f"block_{k // 10}/sin_{k}", jnp.sin) for k in range(150)])
    return make(folder, "long", chain, (draw(jnp.zeros(3), 2),), "150 sines")


@pytest.fixture(scope="session")
def transformer(folder):
    net = jc.nets.transformer((4, 8, 5), 2, 2, hidden=12)
    return make(folder, "transformer", net, (some_params(net), draw(jnp.zeros((3, 4)), 2)), "transformer")
