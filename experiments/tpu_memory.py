"""Does a TPU's compiler keep to the bytes that jc.checkpoint was given, and what does the host's memory save?

Question   A plan counts bytes from a program. Compiled for a TPU, does reverse mode of a deep residual network stay
           within the limit; and what does it take where a loop may keep its carries in the host's memory?
Command    python experiments/tpu_memory.py
           No TPU is needed: where libtpu is installed (pip install libtpu) it compiles ahead of time for a topology
           of that name, and says what the program would take. Without it there is what the plan says.
Theory     A carry of b bytes on the host costs a transfer there and back, b·offload FLOPs' worth, where running a
           step again costs its FLOPs: of two products of width d, in bfloat16, 2d for each byte of its carry. Above a
           few thousand channels the transfer is the cheaper.
Expect     Temporary memory near or within each limit; with offloading all carries in the host's memory, to the byte, and on
           the device what one step takes.
References docs.jax.dev, Ahead-of-time lowering and compilation; JAX memories and host offloading.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from common import RESULTS, conclude, heading
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxchain as jc
from jaxchain.show.table import Table, si

OFFLOAD = 1e4
"""FLOPs a byte: some 10¹⁴ a second, and 20 GB a second each way."""


def main(topology: str = "v5e:2x2", quick: bool = False, out: Path = RESULTS) -> None:
    """Bytes on one TPU and on its host, of reverse mode in several limits.

    Parameters
    ----------
    topology
        A TPU and how many, as libtpu names them; one of them is compiled for.
    quick
        A smaller network.
    out
        Folder for the numbers.
    """
    place = device_of(topology)
    depth, width, rows = (16, 1024, 2048) if quick else (24, 8192, 16384)
    weights = jax.ShapeDtypeStruct((depth, width, width), jnp.bfloat16)
    x = jax.ShapeDtypeStruct((rows, width), jnp.bfloat16)
    least = {way: jc.memory_plan(residual, (weights, x), offload=way).curve[-1][0] for way in (None, OFFLOAD)}
    heading(f"{depth} residual layers of width {width}, {rows} rows, on one TPU of {topology}")
    cases = [(None, None), (least[None], None), (least[None], OFFLOAD), (least[OFFLOAD], OFFLOAD)]
    found = [one(place, weights, x, *case) for case in cases]
    header = ("limit", "a byte to the host", "said", "on the TPU", "said of the host", "on the host", "work")
    lines = [
        (
            "none" if f["limit"] is None else si(f["limit"], "B"),
            "never" if f["offload"] is None else si(f["offload"], "FLOP"),
            si(f["predicted"], "B"),
            "–" if f["device"] is None else si(f["device"], "B"),
            si(f["predicted_host"], "B"),
            "–" if f["host"] is None else si(f["host"], "B"),
            f"{f['times']:.2f} ×",
        )
        for f in found
    ]
    print(Table("Temporary memory: what the plan says, and XLA's compiler for TPUs", header, lines))
    findings = [f"The least without the host is {si(least[None], 'B')}, with it {si(least[OFFLOAD], 'B')}."]
    if place is None:
        findings.append("Nothing was compiled: pip install libtpu (Linux on x86-64 alone).")
    else:
        limited = [f for f in found if f["limit"] is not None and f["device"] is not None]
        findings.append(f"Without a limit the program {'fits' if found[0]['device'] else 'does not fit'} on the TPU.")
        worst = max(f["device"] / f["limit"] for f in limited)
        findings.append(
            f"At most {worst:.2f} of a limit is taken; the host holds what was said, to the byte, in {sum(f['host'] == f['predicted_host'] for f in limited)} of {len(limited)} programs."
        )
    conclude(out / "tpu_memory.json", {"topology": topology, "least": [*least.values()], "cases": found}, findings, [])


def device_of(topology: str) -> NamedSharding | None:
    """A place on one TPU of a topology that need not be there; ``None`` without libtpu."""
    from jax.experimental import topologies

    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(name, value)  # or libtpu asks the network who it is
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (RuntimeError, NotImplementedError):
        return None
    return NamedSharding(Mesh(described.devices[:1], ("alone",)), PartitionSpec())


def residual(weights: jax.Array, x: jax.Array) -> jax.Array:
    """A deep residual network, its layers stacked."""

    def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return x + jnp.tanh(jax.nn.gelu(x @ w) @ w.T), None

    return jnp.sum(jax.lax.scan(layer, x, weights)[0].astype(jnp.float32) ** 2)


def one(place: NamedSharding | None, weights: Any, x: Any, limit: int | None, offload: float | None) -> dict[str, Any]:
    """What its gradients take, as said and as compiled."""
    fun: Callable[..., Any] = residual if limit is None else jc.checkpoint(residual, limit, offload=offload)
    plan = jc.memory_plan(residual, (weights, x), limit, offload=offload)
    memory = None if place is None else compiled(place, fun, weights, x)
    return {
        "limit": limit,
        "offload": offload,
        "predicted": plan.peak_bytes,
        "device": memory and memory.temp_size_in_bytes,
        "predicted_host": plan.hosted_bytes,
        "host": memory and memory.host_temp_size_in_bytes,
        "times": plan.times(plan.extra_flops),
    }


def compiled(place: NamedSharding, fun: Callable[..., Any], *args: jax.ShapeDtypeStruct) -> Any:
    """What XLA says of the memory of a function's gradients; ``None`` where it is more than a TPU has."""
    there = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place) for leaf in args]
    try:
        step = jax.jit(jax.value_and_grad(fun, argnums=(0, 1)), out_shardings=place)
        return step.lower(*there).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


if __name__ == "__main__":
    tyro.cli(main)
