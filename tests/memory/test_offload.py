"""What a loop keeps may lie in the host's memory: by the residuals' own types, and as accelerators' compilers are told."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain.cost.liveness import bytes_of
from jaxchain.memory import cutting
from tests.memory.test_checkpoint import close, gradient, scanned

DEPTH = 24
CHEAP, DEAR = 1.0, 1e9
"""FLOPs for each byte that goes to the host and back: less, and more, than it takes to run a step again."""


@pytest.fixture(scope="module")
def case():
    loss, args = scanned(DEPTH)
    least = jc.memory_plan(loss, args).curve[-1][0]
    return loss, args, least


def residuals(fun, *args):
    """Bytes of what a VJP keeps, in the host's memory and elsewhere, arguments included."""
    kept = jax.make_jaxpr(lambda *args: jax.vjp(fun, *args)[1])(*args).jaxpr.outvars
    on_host = [str(var.aval).find("<host>") >= 0 for var in kept]
    return tuple(
        sum(bytes_of(var) for var, there in zip(kept, on_host, strict=True) if there == where)
        for where in (True, False)
    )


def test_where_sending_is_cheap_the_carries_lie_on_the_host(case):
    loss, args, least = case
    plan = jc.memory_plan(loss, args, least, offload=CHEAP)
    carries = DEPTH * args[1].nbytes
    assert plan.hosted_bytes >= carries
    assert plan.extra_flops < jc.memory_plan(loss, args, least).extra_flops
    hosted, kept = residuals(jc.checkpoint(loss, least, offload=CHEAP), *args)
    assert hosted == plan.hosted_bytes
    # On the device the arguments and the last state's slopes alone: no carry of the loop.
    assert kept <= sum(leaf.nbytes for leaf in args) + 2 * args[1].nbytes + 2048


def test_a_limit_below_all_schedules_can_be_met_through_the_host(case):
    loss, args, least = case
    with pytest.raises(ValueError, match="cannot be met"):
        jc.memory_plan(loss, args, least // 2)
    plan = jc.memory_plan(loss, args, least // 2, offload=CHEAP)
    assert plan.peak_bytes <= least // 2 < plan.hosted_bytes


def test_where_sending_is_dear_or_not_allowed_nothing_is_sent(case):
    loss, args, least = case
    for offload in (None, DEAR):
        assert jc.memory_plan(loss, args, least, offload=offload).hosted_bytes == 0
        assert residuals(jc.checkpoint(loss, least, offload=offload), *args)[0] == 0


def test_transfers_are_a_part_of_the_work(case):
    loss, args, least = case
    free, cheap = (jc.memory_plan(loss, args, least, offload=price) for price in (0, CHEAP))
    assert cheap.extra_flops == pytest.approx(free.extra_flops + CHEAP * cheap.hosted_bytes)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_jaxs(dtype, reverse):
    loss, args = scanned(8, reverse=reverse)
    args = jax.tree.map(lambda leaf: leaf.astype(dtype), args)
    limit = jc.memory_plan(loss, args, offload=0).curve[-1][0]
    lean = jc.checkpoint(loss, limit, offload=0)
    assert lean.plan(*args).hosted_bytes
    close(jax.jit(gradient(lean))(*args), jax.jit(gradient(loss))(*args), 1e-5 if dtype == jnp.float32 else 2e-2)


def test_jit_vmap_forward_mode_and_second_derivatives_work(monkeypatch):
    monkeypatch.setattr(cutting, "WRITTEN", 0)  # what is written out sends nothing
    loss, (weights, x) = scanned(4)
    lean = jc.checkpoint(loss, jc.memory_plan(loss, (weights, x), offload=0).curve[-1][0], offload=0)
    assert lean.plan(weights, x).hosted_bytes
    xs = jnp.stack([x, 2 * x])
    grad, want = jax.grad(lean, argnums=1), jax.grad(loss, argnums=1)
    close(jax.jit(jax.vmap(grad, (None, 0)))(weights, xs), jax.jit(jax.vmap(want, (None, 0)))(weights, xs))
    close(
        jax.jit(lambda x: jax.jvp(lambda x: grad(weights, x), (x,), (x,))[1])(x),
        jax.jit(lambda x: jax.jvp(lambda x: want(weights, x), (x,), (x,))[1])(x),
        1e-4,
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_compilers_are_told_to_send_and_to_fetch(case, platform):
    loss, args, least = case
    step = jax.jit(gradient(jc.checkpoint(loss, least // 2, offload=CHEAP)))
    program = step.trace(*args).lower(lowering_platforms=(platform,)).as_text()
    placed = [line for line in program.splitlines() if "annotate_device_placement" in line]
    assert sum('"pinned_host"' in line for line in placed) == sum('"device"' in line for line in placed) >= 1


def test_a_price_may_be_an_array(case):
    loss, args, least = case
    for price in (np.float32(CHEAP), jnp.float32(CHEAP)):
        assert jc.memory_plan(loss, args, least, offload=price).hosted_bytes
        assert jc.checkpoint(loss, least, offload=price).plan(*args).hosted_bytes


def test_keys_go_along_unsent():
    def loss(weights, x, key):
        def step(carry, w):
            x, key = carry
            return (jnp.tanh(x @ w) + jax.random.normal(key, x.shape), jax.random.split(key)[0]), None

        return jnp.sum(jax.lax.scan(step, (x, key), weights)[0][0] ** 2)

    _, (weights, x) = scanned(6)
    args = weights, x, jax.random.key(0)
    lean = jc.checkpoint(loss, jc.memory_plan(loss, args, offload=0).curve[-1][0], offload=0)
    close(jax.jit(gradient(lean))(*args), jax.jit(gradient(loss))(*args))


def test_a_plan_in_print_says_what_lies_where(case):
    loss, args, least = case
    plan = jc.memory_plan(loss, args, least // 2, offload=CHEAP)
    assert plan.rows[0].how == "a loop through the host's memory"
    text = " ".join(str(plan).split())
    assert "lie in the host's memory; a byte sent there and back counts as 1 FLOP." in text
    assert ("saves nothing there" in text) == (jax.default_backend() == "cpu")


@pytest.mark.parametrize("value", [-1.0, float("nan"), "cheap", True])
def test_what_is_no_price_is_named(case, value):
    loss, args, least = case
    for call in (lambda: jc.checkpoint(loss, least, offload=value), lambda: jc.memory_plan(loss, args, offload=value)):
        with pytest.raises((TypeError, ValueError), match="offload"):
            call()
