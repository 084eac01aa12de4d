"""What JAX is told to refuse in a user's code, or to leave uncompiled, does not refuse or change what jaxchain does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close, draw, named

import jaxchain as jc
from jaxchain.diagnosis import dense, measuring

SETTINGS = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "tracer leaks": jax.checking_leaks,
    "no jit": jax.disable_jit,
    "stop at NaN": lambda: jax.debug_nans(True),
    "stop at infinity": lambda: jax.debug_infs(True),
}
X = draw(jnp.zeros(3), 1)


def fun(x: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.sin(x) @ jnp.outer(x, x)) * 2


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def setting(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return request.param


def test_a_jacobian_is_the_same(setting: Callable[[], Any]):
    with setting():
        got = jc.jacobian(fun, mode="mixed")(X), jc.jacobian(fun, chunk_size=2)(X)
    assert_close(got, (jax.jit(jax.jacrev(fun))(X),) * 2)


NET = jc.nets.mlp([3, 4, 2], activation="relu")
PARAMS = NET.init(jax.random.key(0))
BATCH = (draw(jnp.zeros((4, 3)), 1), draw(jnp.zeros((4, 2)), 2))


def loss(params: Any, batch: Any) -> jax.Array:
    xs, ys = batch
    return jnp.mean((jax.vmap(NET, (None, 0))(params, xs) - ys) ** 2)


def trained(observe: Any = None) -> Any:
    how = {"batch_size": 2, "key": jax.random.key(1), "observe": observe, "progress": False}
    return jc.train.fit(loss, PARAMS, BATCH, optax.adam(0.1), steps=2, **how)


def net_of_x(x: jax.Array) -> jax.Array:
    return NET(PARAMS, x)


SINE = jc.Chain([jc.Stage("sin", jnp.sin)])

PARTS: dict[str, Callable[[Any], Any]] = {
    "discover": lambda _: jc.discover(net_of_x, X)(X),
    "pushed": lambda _: jc.forward_sweep(NET, (PARAMS, X), X).tangents,
    "pulled": lambda _: jc.reverse_sweep(NET, (PARAMS, X), jnp.ones(2)).arg_cotangents,
    "local": lambda _: [j.matrix for j in jc.local_jacobians(NET, (PARAMS, X))],
    **{
        mode: lambda _, mode=mode: jc.jacobian(net_of_x, mode=mode)(X)
        for mode in ("auto", "forward", "reverse", "mixed")
    },
    "batch": lambda _: jc.batch_jacobian(jax.vmap(net_of_x))(BATCH[0]),
    "hessian": lambda _: jc.hessian(lambda x: jnp.sum(net_of_x(x) ** 3), (X,)),
    "kernel": lambda _: jc.ntk(NET, PARAMS, BATCH[0]),
    "samples": lambda _: jc.sample_gradients(loss, PARAMS, BATCH),
    "norms": lambda _: jc.sample_gradient_norms(loss, PARAMS, BATCH).whole,
    "fit": lambda _: trained().params,
    # What follows takes long where leaks are looked for, or nothing is compiled.
    "spectrum": lambda _: jc.spectrum(NET, (PARAMS, X)).whole,
    "curvature": lambda _: jc.ggn(NET, lambda z, y: jnp.sum((z - y) ** 2), PARAMS, BATCH).diagonal(),
    "flow": lambda _: jc.gradient_flow(NET, (PARAMS, X), jnp.ones(2)).cotangent,
    "followed": lambda _: np.nan_to_num(trained(jc.flow()).history.observed.gradient),
    "finite": lambda _: jnp.float32(jc.locate_nonfinite(NET, (PARAMS, X)).finite),
    "lens": lambda _: jc.lens.fit(SINE, [(jnp.ones((6, 2)),)], skip_first=1, progress=False).jacobians,
    "report": lambda folder: jnp.float32(jc.report(net_of_x, X, path=folder / "page.html", progress=False).exists()),
}

QUICK = list(PARTS)[: list(PARTS).index("spectrum")]
LEAKS = [name for name in QUICK if name not in ("auto", "mixed", "hessian", "local", "norms")]
"""Others are asked for leaks above."""


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {name: part(tmp_path_factory.mktemp("usual")) for name, part in PARTS.items()}


@pytest.mark.parametrize("name", ["tracer leaks", "no jit", "stop at NaN", "stop at infinity"])
def test_all_parts_say_the_same(name: str, usual: dict[str, Any], tmp_path: Any):
    parts = {"tracer leaks": LEAKS, "no jit": QUICK}.get(name, list(PARTS))
    with SETTINGS[name]():
        got = {part: PARTS[part](tmp_path) for part in parts}
    assert_close(got, {part: usual[part] for part in parts}, 1e-5)


def energy(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(x * jnp.flip(x)) ** 2)


def test_second_derivatives_are_the_same(setting: Callable[[], Any]):
    with setting():
        got = jc.hessian(energy, (X,), mode="stages"), jc.laplacian(energy, chunk_size=2)(X)
    want = jax.jit(jax.hessian(energy))(X)
    assert_close(got, (want, jnp.trace(want)), 1e-5)


@pytest.mark.parametrize("name", ["rnn", "conv_net", "transformer"])
@pytest.mark.parametrize("promotion", ["rank promotion", "dtype promotion"])
def test_a_network_and_its_planned_jacobian_are_the_same(promotion: str, name: str):
    net, (params, x) = named(name).chain, named(name).args
    with SETTINGS[promotion]():
        got = net(params, x), jax.jit(jc.jacobian(net, mode="mixed"))(params, x)
    assert_close(got, (net(params, x), jax.jit(jax.jacrev(net, 1))(params, x)), 1e-5)


def test_a_spectrum_without_matrices_is_the_same(setting: Callable[[], Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dense, "ENTRIES", 0)
    monkeypatch.setattr(measuring, "SHORT", 0)
    x = draw(jnp.zeros(12), 1)
    with setting():
        found = jc.spectrum(fun, (x,), 2, of="whole", krylov_steps=6)
    np.testing.assert_allclose(found.whole, np.linalg.svd(jax.jit(jax.jacrev(fun))(x))[1][:2], rtol=1e-4, atol=1e-5)


def test_what_outlives_a_trace_holds_none_of_its_tracers():
    with jax.checking_leaks():
        got = jc.transforms(jnp.tanh, X)
    assert str(got) == str(jc.transforms(jnp.tanh, X))


def test_modes_are_measured_where_nothing_is_compiled_to_be_run():
    with jax.disable_jit():
        modes = jc.compare_modes(jnp.tanh, X, repeats=1)
        assert jc.transforms(jnp.tanh, X)["jit"].lines
    assert {row.mode for row in modes.rows} >= {"forward", "reverse"}


def test_a_state_of_two_precisions_is_carried_where_nothing_may_be_promoted():
    def two(x: jax.Array) -> Any:
        low = jnp.sin(x).astype(jnp.bfloat16)
        return low * 2, x @ jnp.outer(low.astype(x.dtype), x)

    with jax.numpy_dtype_promotion("strict"):
        got, suffix = jc.jacobian(two, mode="mixed")(X), jc.suffix_jacobians(two, (X,))[0]
    assert_close(got, jax.jit(jax.jacrev(two))(X), 0.02)
    assert_close(suffix, jnp.concatenate(jax.jit(jax.jacrev(two))(X)), 0.02)
