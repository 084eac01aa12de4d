"""The zoo: small chains that between them hold every kind of state, stage and size; and how values are compared."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

# Thousands of small programs: XLA's generator of fused loops and its parallel one cost more here than they save. The
# flags are of JAX 0.10; a later one refuses the first of them.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
# Programs here are compiled once and run once, those of processes that tests start among them.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Matrices here are small: threads of LAPACK's factorisations wait for each other, and for the suite's other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain import nets

jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where a line of a compiled program is from

# ---------------------------------------------------------------------------------------------- comparing values


def draw(like: Any, seed: int = 0) -> Any:
    """Normal numbers with the structure, shapes and dtypes of ``like``."""
    rng = np.random.default_rng(seed)

    def one(leaf: Any) -> jax.Array:
        shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
        parts = rng.normal(size=(2, *shape))
        return jnp.asarray(parts[0] + 1j * parts[1] if jnp.iscomplexobj(leaf) else parts[0], dtype)

    return jax.tree.map(one, like)


def tolerance(*trees: Any) -> float:
    """Thirty-odd roundings of the coarsest dtype."""
    inexact = [leaf.dtype for leaf in jax.tree.leaves(trees) if is_inexact(leaf)]
    return 32 * max((float(jnp.finfo(dtype).eps) for dtype in inexact), default=0.0)


def assert_close(got: Any, want: Any, tol: float | None = None) -> None:
    """Same structure, shapes and dtypes; values within ``tol`` of the largest entry."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (jnp.shape(one), one.dtype) == (jnp.shape(other), other.dtype)
        if one.dtype == jax.dtypes.float0:
            continue
        kind = np.complex128 if jnp.iscomplexobj(one) else np.float64
        one, other = np.asarray(one).astype(kind), np.asarray(other).astype(kind)
        scale = np.abs(other).max(initial=0.0) + 1e-30
        np.testing.assert_allclose(
            one / scale, other / scale, rtol=0, atol=tolerance(got, want) if tol is None else tol
        )


# ------------------------------------------------------------------------------ states as real vectors, written anew


def is_inexact(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def real(state: Any) -> jax.Array:
    """A state as one real vector: leaf order, real parts before imaginary parts, integers left out."""
    parts = [
        jnp.ravel(part)
        for leaf in jax.tree.leaves(state)
        if is_inexact(leaf)
        for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
    return jnp.concatenate(parts)


def from_real(vector: jax.Array, like: Any) -> Any:
    """The inverse of `real`; integers come from ``like``."""
    leaves, treedef = jax.tree.flatten(like)
    built, at = [], 0
    for leaf in leaves:
        if not is_inexact(leaf):
            built.append(leaf)
            continue
        part = vector[at : at + leaf.size].reshape(leaf.shape)
        at += leaf.size
        if jnp.iscomplexobj(leaf):
            part = part + 1j * vector[at : at + leaf.size].reshape(leaf.shape)
            at += leaf.size
        built.append(part.astype(leaf.dtype))
    return treedef.unflatten(built)


def real_function(fn: Callable[[Any], Any], x: Any) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """``fn`` as a function of one real vector, and the vector at ``x``."""
    return lambda vector: real(fn(from_real(vector, x))), real(x)


def central_differences(fn: Callable[[jax.Array], jax.Array], x: jax.Array, step: float = 1e-4) -> jax.Array:
    """The Jacobian of a function of a vector, column by column; error O(step⁴)."""

    def column(e: jax.Array) -> jax.Array:
        near, far = (fn(x + d) - fn(x - d) for d in (step * e, 2 * step * e))
        return (8 * near - far) / (12 * step)

    return jax.vmap(column)(jnp.eye(x.size, dtype=x.dtype)).T


# ------------------------------------------------------------------------------------------------------------ the zoo


@dataclass(frozen=True)
class Case:
    """One chain at one point, built when first used.

    ``forward``, ``reverse``: whether JAX itself can differentiate it so. ``smooth``: whether central differences
    in float64 are its derivative.
    """

    name: str
    build: Callable[[], tuple[jc.Chain, tuple[Any, ...]]]
    forward: bool = True
    reverse: bool = True
    smooth: bool = True

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _built(self) -> tuple[jc.Chain, tuple[Any, ...]]:
        with jax.enable_x64(False):  # whichever test asks first
            return self.build()

    @property
    def chain(self) -> jc.Chain:
        return self._built[0]

    @property
    def args(self) -> tuple[Any, ...]:
        return self._built[1]

    @property
    def others(self) -> tuple[Any, ...]:
        """All arguments but the chain input."""
        return self.args[:-1]

    @property
    def x(self) -> Any:
        """The chain input."""
        return self.args[-1]

    @cached_property
    def states(self) -> tuple[Any, ...]:
        """x_0 … x_q, by calling one-stage slices one after another."""

        def run(state: Any) -> tuple[Any, ...]:
            states = [state]
            for k in range(len(self.chain)):
                states.append(self.chain[k : k + 1](*self.others, states[-1]))
            return tuple(states)

        with jax.enable_x64(False):
            return jax.jit(run)(self.x)

    def jacobian(self, start: int, stop: int) -> jax.Array:
        """∂x_stop/∂x_start by JAX alone, as a real matrix."""
        if start == stop:
            return jnp.eye(real(self.states[start]).size)
        fn, x = real_function(lambda x: self.chain[start:stop](*self.others, x), self.states[start])
        return (jax.jacfwd if self.forward else jax.jacrev)(fn)(x)


def some_params(net: jc.Chain) -> dict[str, Any]:
    """Parameters drawn by NumPy: nothing to compile, biases not zero."""
    return jax.tree.map(lambda leaf: leaf / 2, draw(jax.eval_shape(net.init, jax.random.key(0)), 1))


def of_net(build: Callable[[], jc.Chain], shape: tuple[int, ...]) -> Callable[[], tuple[jc.Chain, tuple[Any, ...]]]:
    def built() -> tuple[jc.Chain, tuple[Any, ...]]:
        net = build()
        return net, (some_params(net), draw(jnp.zeros(shape), 2))

    return built


def of_stages(x: Callable[[], Any], **stages: Callable[[Any], Any]) -> Callable[[], tuple[jc.Chain, tuple[Any, ...]]]:
    return lambda: (jc.Chain([jc.Stage(name, fn) for name, fn in stages.items()]), (draw(x(), 3),))


def with_loss() -> tuple[jc.Chain, tuple[Any, ...]]:
    net = nets.mlp([4, 5, 3], "sigmoid", sigma_b=0.1)
    chain = jc.Chain([*net, jc.Stage("loss", lambda y: jnp.mean((y - jnp.arange(3.0)) ** 2))])
    return chain, (some_params(chain), draw(jnp.zeros(4), 2))


def with_dead_units() -> tuple[jc.Chain, tuple[Any, ...]]:
    net = nets.mlp([4, 6, 3], "relu")
    params = some_params(net)
    params["dense_0"]["b"] = params["dense_0"]["b"].at[:2].set(-100.0)
    return net, (params, draw(jnp.zeros(4), 2))


@jax.custom_vjp
def straight_through(x: jax.Array) -> jax.Array:
    """Rounds; its rule says that it does not (Bengio et al., arXiv 1308.3432)."""
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, cotangent: (cotangent,))


@jax.custom_jvp
def twice(x: jax.Array) -> jax.Array:
    """The identity; its rule says that it doubles."""
    return x


twice.defjvp(lambda primals, tangents: (primals[0], 2 * tangents[0]))


def bilinear(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"h": jnp.tanh(state["c"] @ state["h"][:2]), "c": jnp.outer(state["h"], state["h"])[:2]}


def halve(x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda v: jnp.sum(v * v) > 1.0, lambda v: jnp.sin(v) * 0.5, x)


def branch(x: jax.Array) -> jax.Array:
    return jax.lax.cond(x[0] < 10.0, jnp.cosh, jnp.exp, x)


def power(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 3, lambda _, v: v * jnp.flip(v), x)


ZOO = (
    Case("mlp", of_net(lambda: nets.mlp([5, 7, 3], "tanh", sigma_b=0.1), (5,))),
    Case("autoencoder", of_net(lambda: nets.autoencoder([6, 4, 2], "softplus"), (6,))),
    Case("conv_net", of_net(lambda: nets.conv_net((4, 5, 2), [3], 2, "gelu", sigma_b=0.1), (4, 5, 2))),
    Case("residual_net", of_net(lambda: nets.residual_net((3, 5, 2), 2, "silu"), (3,))),
    Case("rnn", of_net(lambda: nets.rnn([2, 4, 3, 2]), (4, 2))),
    Case("transformer", of_net(lambda: nets.transformer((2, 4, 3), 1, 2, hidden=5), (3, 2))),
    Case("one stage", of_stages(lambda: jnp.zeros(3), outer=lambda x: jnp.outer(x, jnp.sin(x)))),
    Case("scalar", of_stages(lambda: jnp.zeros(()), square=jnp.square, exp=lambda x: jnp.exp(x / 4), sin=jnp.sin)),
    Case("loss", with_loss),
    Case(
        "pytree",
        of_stages(
            lambda: {"h": jnp.zeros(3), "c": jnp.zeros((2, 2))},
            cell=bilinear,
            pair=lambda s: (s["c"].T, s["h"] * 2),
            wave=lambda s: {"a": jnp.sin(s[0]), "b": [s[1] ** 2, jnp.sum(s[0])]},
        ),
    ),
    Case(
        "mixed dtypes",
        of_stages(
            lambda: (jnp.zeros(3, jnp.bfloat16), jnp.zeros((2, 2), jnp.float32)),
            swap=lambda s: (jnp.tanh(s[1]), s[0] * 2),
            join=lambda s: (s[0] @ s[1].astype(jnp.float32)[:2], s[1] * s[1]),
        ),
        smooth=False,
    ),
    Case(
        "fft",
        of_stages(
            lambda: jnp.zeros(6),
            fft=jnp.fft.fft,
            filter=lambda z: z * z * (1 + 2j),
            ifft=jnp.fft.ifft,
            real=jnp.real,
        ),
    ),
    Case(
        "complex ends",
        of_stages(
            lambda: jnp.zeros(3) + 0j,
            conjugate=lambda z: jnp.conj(z) * jnp.flip(z),
            split=lambda z: {"abs": jnp.abs(z), "z": jnp.exp(z)},
            merge=lambda s: s["abs"] * s["z"],
        ),
    ),
    Case("custom jvp", of_stages(lambda: jnp.zeros(4), sin=jnp.sin, twice=twice, cos=jnp.cos), smooth=False),
    Case(
        "custom vjp",
        of_stages(lambda: jnp.zeros(4), scale=lambda x: 3 * x, round=straight_through, narrow=lambda x: x[:2] ** 2),
        forward=False,
        smooth=False,
    ),
    Case("cond and loop", of_stages(lambda: jnp.zeros(4), branch=branch, power=power)),
    Case("while", of_stages(lambda: jnp.zeros(3), exp=jnp.exp, halve=halve, square=jnp.square), reverse=False),
    Case("dead relu", with_dead_units),
    Case(
        "integer inside",
        of_stages(
            lambda: jnp.zeros(3),
            largest=lambda x: {"x": 2 * x, "at": jnp.argmax(x)},
            scale=lambda s: s["x"] * s["x"][s["at"]],
        ),
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one case run one after another, so that one worker compiles its programs once."""

    def place(item: pytest.Item) -> tuple[str, str]:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        cases = [value for value in params if isinstance(value, Case)]
        return item.path.name, str(cases[0]) if cases else ""

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage walks through it again, and each waits for more garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def kinds(which: Callable[[Case], bool]) -> Any:
    return pytest.fixture(params=[case for case in ZOO if which(case)], ids=str)


@kinds(lambda _: True)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@kinds(lambda case: case.forward)
def forward_case(request: pytest.FixtureRequest) -> Case:
    """A case that JAX can differentiate forward."""
    return request.param


@kinds(lambda case: case.reverse)
def reverse_case(request: pytest.FixtureRequest) -> Case:
    """A case that JAX can differentiate in reverse."""
    return request.param


@kinds(lambda case: case.smooth)
def smooth_case(request: pytest.FixtureRequest) -> Case:
    """A case that central differences can check."""
    return request.param


def named(name: str) -> Case:
    return next(case for case in ZOO if case.name == name)


@pytest.fixture
def mlp() -> Case:
    return named("mlp")


@pytest.fixture
def optimised() -> Any:
    """XLA's usual optimisations, for the few tests that compute for long."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64() -> Any:
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield
