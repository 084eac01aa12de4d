"""Jacobians: `jaxchain.jacobians` against the better of ``jax.jacfwd`` and ``jax.jacrev``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxchain as jc
from bench.core import Row, compile_seconds, less, race
from bench.models import (
    AUTOENCODER,
    ZOO,
    Case,
    batched_mlp,
    convolutional_autoencoder,
    elementwise,
    of_net,
    over_positions,
    physics,
    random_mlp,
    with_tanh_at_end,
)
from jaxchain.cost.measure import flops, measure

SIMPLE = {"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}


def transforms(case: Case) -> dict[str, Callable[..., Any]]:
    """The Jacobian of a case by the last argument, by us and by JAX."""
    fun, args = case
    last = len(args) - 1
    return {"auto": jc.jacobian(fun, last), **{name: jac(fun, last) for name, jac in SIMPLE.items()}}


def work(case: Case) -> tuple[float, float]:
    """Floating-point operations of ours, and of the better of JAX's two."""
    ours, *theirs = (flops(jac, *case[1]) for jac in transforms(case).values())
    return ours, min(theirs)


def autoencoder_jacobian(seed: int, quick: bool) -> Iterable[Row]:
    """Work, memory and time of a dense autoencoder's Jacobian, 784-512-256-32-256-512-784."""
    case = of_net(jc.nets.autoencoder(AUTOENCODER), (AUTOENCODER[0],), seed)
    costs = {name: measure(jac, *case[1], repeats=1) for name, jac in transforms(case).items()}
    ours, *theirs = costs.values()
    name = "autoencoder 784-…-32-…-784"
    yield less(f"{name}: work", ours.flops, min(c.flops for c in theirs), "FLOP", 15)
    yield less(f"{name}: temporaries", ours.peak_bytes, min(c.peak_bytes for c in theirs), "B", 5)
    seconds = race(transforms(case), *case[1], repeats=3 if quick else 30)
    yield less(f"{name}: time", seconds["auto"], min(seconds["jacfwd"], seconds["jacrev"]), "s", 7)


def planned_work(seed: int, quick: bool) -> Iterable[Row]:
    """Work where there is a waist, where there is none, and where nothing needs multiplying."""
    cases: dict[str, tuple[Callable[[], Case], float]] = {
        "conv autoencoder 28×28, code 16": (lambda: of_net(convolutional_autoencoder(), (28, 28, 1), seed), 11),
        "seven dense 64 + tanh": (lambda: of_net(with_tanh_at_end(jc.nets.mlp([64] * 8, "tanh")), (64,), seed), 1.14),
        "dense 300 → 10 + tanh": (lambda: of_net(with_tanh_at_end(jc.nets.mlp([300, 10], "tanh")), (300,), seed), 7),
        "1000-200-4-200-1000": (lambda: of_net(jc.nets.autoencoder([1000, 200, 4]), (1000,), seed), 65),
        "ten elementwise stages on 4096": (lambda: (elementwise, (jnp.linspace(-1, 1, 4096),)), 100),
    }
    for name, (build, at_least) in list(cases.items())[1 if quick else 0 :]:
        yield less(f"{name}: work", *work(build()), "FLOP", at_least)


def linear_stages(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """The Jacobian of a product, and of a convolution, by weights: read off, not computed."""
    key_w, key_k = jax.random.split(jax.random.key(seed))
    w, kernel = jax.random.normal(key_w, (48, 32)), jax.random.normal(key_k, (5, 3, 3, 3))
    cases: dict[str, Case] = {
        "x @ W": (lambda w, x: x @ w, (w, jnp.ones(48))),
        "positions: X @ W": (lambda w, x: x @ w, (w, jnp.ones((6, 48)))),
        "convolution": (lambda k, x: lax.conv(x, k, (1, 1), "SAME"), (kernel, jnp.ones((1, 3, 8, 8)))),
    }
    for name, (fun, args) in cases.items():
        yield Row(f"{name}: work of its Jacobian", flops(jc.jacobian(fun, 1), *args), None, "FLOP", at_most=0)


def random_chains(seed: int, quick: bool) -> Iterable[Row]:
    """Forty random MLPs against the optimal bracketing of their layers: the worst of them.

    The oracle counts derivatives alone. Whoever wants them at a point must evaluate the network
    there too, which weighs most where the input has few numbers: hence the second row.
    """
    rng, found = np.random.default_rng(seed), list[tuple[str, float, float, float]]()
    for _ in range(3 if quick else 40):
        net, widths = random_mlp(rng)
        shapes = jax.eval_shape(net.init, jax.random.key(seed)), jax.ShapeDtypeStruct((widths[0],), jnp.float32)
        ours, value = flops(jc.jacobian(net, 1), *shapes), flops(net, *shapes)
        found.append(("-".join(map(str, widths)), ours, 2 * optimal(widths), value))
    name, ours, oracle, _ = max(found, key=lambda one: one[1] / one[2])
    yield Row(f"worst of {len(found)} random chains, {name} / oracle", ours, oracle, "FLOP", at_most=1.2)
    name, ours, oracle, value = max(found, key=lambda one: one[1] / (one[2] + one[3]))
    yield Row(f"the same, {name} / oracle and one evaluation", ours, oracle + value, "FLOP", at_most=1.2)


def optimal(widths: list[int]) -> float:
    """Least multiply-adds for an MLP's Jacobian, no structure used: every activation is a stage of n edges."""
    sizes, edges = [widths[0]], list[int]()
    for n_in, n_out in pairwise(widths):
        sizes += [n_out, n_out]
        edges += [n_in * n_out, n_out]
    return jc.bracket(sizes[:-1], edges[:-1]).cost


def zoo(seed: int, quick: bool) -> Iterable[Row]:
    """Every kind of network: auto is to be no worse than the better of JAX's two."""
    for name in list(ZOO)[: 2 if quick else None]:
        net, shape = ZOO[name]
        case = of_net(net, shape, seed)
        yield Row(f"{name}: work", *work(case), "FLOP", at_most=1.02)
        seconds = race(transforms(case), *case[1], repeats=5 if quick else 60)
        yield Row(f"{name}: time", seconds["auto"], min(seconds["jacfwd"], seconds["jacrev"]), "s", at_most=1.1)


def positions(seed: int, quick: bool) -> Iterable[Row]:
    """Models of positions or steps, from all of them to all of them: half of a transformer needs one position's vectors."""
    at_least = (2, 1.8, 2, 5)
    for (name, case), gain in list(zip(over_positions(seed).items(), at_least, strict=True))[-1 if quick else 0 :]:
        modes = {"auto": jc.jacobian, **SIMPLE}
        counts = {key: flops(jac(case[0]), *case[1]) for key, jac in modes.items()}
        yield less(f"{name}: work", counts["auto"], min(counts["jacfwd"], counts["jacrev"]), "FLOP", gain)
        if not quick:
            seconds = race({key: jac(case[0]) for key, jac in modes.items()}, *case[1], repeats=5)
            yield Row(f"{name}: time", seconds["auto"], min(seconds["jacfwd"], seconds["jacrev"]), "s", at_most=0.85)


def batches(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """A batch of 64 through an MLP: one block a sample, against jax.jacrev of the batch."""
    if not hasattr(jc, "batch_jacobian"):
        print("  This version of jaxchain has no batch_jacobian: skipped.")
        return
    fun, args = batched_mlp(seed)
    ours, peer = (flops(jac(fun, argnums=1), *args) for jac in (jc.batch_jacobian, jax.jacrev))
    yield less("batch of 64: work of batch_jacobian", ours, peer, "FLOP", 60)


def compiling(seed: int, quick: bool) -> Iterable[Row]:
    """Seconds to plan, trace and compile: networks against jax.jacrev, physics against the faster of JAX's two."""
    nets = {"autoencoder": (jc.nets.autoencoder(AUTOENCODER), (AUTOENCODER[0],)), **ZOO}
    for name in ("autoencoder",) if quick else ("autoencoder", "classifier", "residual net", "conv net", "transformer"):
        case = of_net(*nets[name], seed)
        racing = {key: jac for key, jac in transforms(case).items() if key != "jacfwd"}
        seconds = compile_seconds(racing, *case[1], repeats=1 if quick else 9)
        yield Row(f"{name}: compile / jacrev's", seconds["auto"], seconds["jacrev"], "s", at_most=1.15)
    if quick:  # some ten seconds each time
        return
    case = physics(seed)
    seconds = compile_seconds(transforms(case), *case[1], repeats=3)
    peer = min(SIMPLE, key=lambda mode: seconds[mode])
    name = f"physics step of 2,000 equations: compile / {peer}'s, the faster of the two"
    yield Row(name, seconds["auto"], seconds[peer], "s", at_most=1.15)


def numerics(seed: int, quick: bool) -> Iterable[Row]:
    """Rounding: the error of auto in float32 over that of jax.jacrev; in float64 the gap between them."""
    nets = {"autoencoder": (jc.nets.autoencoder(AUTOENCODER), (AUTOENCODER[0],)), **ZOO}
    for name in (
        ("classifier",) if quick else ("autoencoder", "classifier", "residual net", "transformer", "wide GELU net")
    ):
        net, args = of_net(*nets[name], seed)
        single = {key: np.asarray(jax.jit(jac(net, 1))(*args)) for key, jac in BOTH.items()}
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), args)
            double = {key: np.asarray(jax.jit(jac(net, 1))(*wide)) for key, jac in BOTH.items()}
        scale = np.linalg.norm(double["jacrev"])
        ours, peer = (float(np.linalg.norm(single[key] - double["jacrev"]) / scale) for key in ("auto", "jacrev"))
        yield Row(f"{name}: float32 error / jacrev's", ours, peer, "", at_most=3)
        gap = float(np.linalg.norm(double["auto"] - double["jacrev"]) / scale)
        yield Row(f"{name}: float64 gap to jacrev, in 1e-12", gap * 1e12, None, "", at_most=1)


BOTH: dict[str, Callable[..., Any]] = {"auto": jc.jacobian, "jacrev": jax.jacrev}

BENCHMARKS = (
    autoencoder_jacobian,
    planned_work,
    linear_stages,
    random_chains,
    zoo,
    positions,
    batches,
    compiling,
    numerics,
)
