"""How much of a Jacobian does each of eight devices compute, in one process or in several?

Question   With ``sharding=`` every device sends its own share of a basis, or of a batch, through the model. Is its
           share of the work and of the memory an eighth, is the result that of one device, and does the same call
           do on several processes, of which each holds a part?
Command    python experiments/distributed_jacobian.py
           Two processes on one machine, four devices each, one command in each of two terminals:
           python experiments/distributed_jacobian.py --processes 2 --process 0 --coordinator 127.0.0.1:9911
           python experiments/distributed_jacobian.py --processes 2 --process 1 --coordinator 127.0.0.1:9911
           Slurm, a process for each GPU: srun --gpus-per-task=1 python experiments/distributed_jacobian.py
           A TPU pod: the plain command on all of its hosts (gcloud compute tpus tpu-vm ssh ... --worker=all
           --command=...). There `jax.distributed.initialize` finds coordinator and processes by itself.
Theory     Of n vectors every device takes n/8. All evaluate the model, which a vector takes about two to three
           times, so that a device's work is (1 + 8/2n) / 8 of the whole, its memory an eighth and what the model's
           own evaluation keeps.
Expect     Shares within a tenth of an eighth, a gap of float32's rounding. On virtual CPU devices time stays what it
           is, since they share the processor's cores, which one device uses already.
References jax.readthedocs.io, Multi-controller JAX; `jax.distributed.initialize`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.lens.sample import compiled
from jaxchain.meshes import on_host
from jaxchain.show.table import Table, si


@dataclass(frozen=True)
class Share:
    """One call on one device, and of each device where all work together: operations, bytes, seconds; and their gap."""

    flops: tuple[float, float]
    bytes: tuple[float, float]
    seconds: tuple[float, float]
    gap: float
    spread: str

    def times_devices(self, what: str) -> float:
        """A device's part of the whole, times the number of devices: one where all is divided."""
        alone, each = getattr(self, what)
        return jax.device_count() * each / alone


def main(
    seed: int = 0,
    quick: bool = False,
    out: Path = RESULTS,
    processes: int | None = None,
    process: int | None = None,
    coordinator: str | None = None,
    devices: int | None = None,
) -> None:
    """Jacobians of a transformer over all devices, against one.

    Parameters
    ----------
    seed
        Of weights and data.
    quick
        A smaller model, and reverse mode alone.
    out
        Folder for the figure and the numbers, which the first process writes.
    processes, process, coordinator
        How many processes there are, which of them this is, and the first one's address and port. Where a cluster
        tells (Slurm, TPU pods, Open MPI), leave them out; on one machine, too.
    devices
        Virtual devices of each process where there are CPUs alone; default: eight among all processes.
    """
    begin(processes, process, coordinator, devices or 8 // (processes or 1))
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    found = {name: shares(make, args, mesh) for name, (make, args) in calls(seed, quick).items()}
    if jax.process_index():
        return
    title = f"{jax.device_count()} devices, {jax.process_count()} processes: {jax.devices()[0].device_kind}"
    heading(title)
    print(Table("", HEADER, [cells(name, one) for name, one in found.items()]))
    worst = {what: max(one.times_devices(what) for one in found.values()) for what in ("flops", "bytes")}
    gap, count = max(one.gap for one in found.values()), jax.device_count()
    findings = [
        f"Each of {count} devices does at most {worst['flops']:.3f}/{count} of the work and holds at most {worst['bytes']:.3f}/{count} of the memory.",
        f"Results are those of one device to {gap:.1e}, and stay where they were made.",
        *(
            f"{name}: {si(one.seconds[0], 's')} on one device, {si(one.seconds[1], 's')} on {count}."
            for name, one in found.items()
        ),
    ]
    figure = draw(found, out / "distributed_jacobian.png")
    numbers = {
        "seed": seed,
        "quick": quick,
        "devices": count,
        "processes": jax.process_count(),
        "shares": {name: asdict(one) for name, one in found.items()},
        "worst": worst,
        "gap": gap,
    }
    conclude(out / "distributed_jacobian.json", numbers, findings, [figure])


def begin(processes: int | None, process: int | None, coordinator: str | None, devices: int) -> None:
    """Let the processes know of each other, before JAX looks at any device."""
    jax.config.update("jax_num_cpu_devices", devices)
    if processes is not None:
        jax.distributed.initialize(coordinator, processes, process)
        return
    with suppress(ValueError):  # JAX knows of no cluster here: one process
        jax.distributed.initialize()


def calls(seed: int, quick: bool) -> dict[str, tuple[Callable[..., Callable[..., Any]], tuple[Any, ...]]]:
    """By name, what makes a call for a sharding, and its arguments."""
    width, positions, depth = (16, 16, 1) if quick else (32, 32, 3)
    net = jc.nets.transformer((width, width, width), depth=depth, heads=2)
    params = net.init(jax.random.key(seed))
    x = jax.random.normal(jax.random.key(seed + 1), (positions, width))
    mlp = jc.nets.mlp([64, 128, 64], "tanh")
    batch = jax.random.normal(jax.random.key(seed + 2), (32 * jax.device_count(), 64))

    def over_batch(params: Any, xs: jax.Array) -> jax.Array:
        return jax.vmap(mlp, (None, 0))(params, xs)

    def by(mode: str) -> Callable[..., Callable[..., Any]]:
        return lambda where: jc.jacobian(net, mode=mode, sharding=where)

    ways = {"reverse": "reverse"} if quick else {"reverse": "reverse", "forward": "forward", "planned": "mixed"}
    return {
        **{f"jacobian, {name}": (by(mode), (params, x)) for name, mode in ways.items()},
        "suffix_jacobians": (
            lambda where: lambda *args: tuple(jc.suffix_jacobians(net, args, sharding=where)),
            (params, x),
        ),
        "batch_jacobian": (
            lambda where: jc.batch_jacobian(over_batch, 1, sharding=where),
            (mlp.init(jax.random.key(seed)), batch),
        ),
    }


def shares(make: Callable[..., Callable[..., Any]], args: tuple[Any, ...], mesh: jax.sharding.Mesh) -> Share:
    """What one device does alone, and each where all do."""
    made = [compiled(make(where)).lower(*args).compile() for where in (None, mesh)]
    memory = [one.memory_analysis() for one in made]
    timed = [called(one, args) for one in made]
    alone, together = (jax.tree.leaves(result) for result, _ in timed)
    return Share(
        flops=tuple(one.cost_analysis()["flops"] for one in made),
        bytes=tuple(float(one.temp_size_in_bytes + one.output_size_in_bytes) for one in memory),
        seconds=tuple(seconds for _, seconds in timed),
        gap=max(float(np.abs(on_host(a) - on_host(b)).max()) for a, b in zip(alone, together, strict=True)),
        spread=" ".join(sorted({str(leaf.sharding.spec) for leaf in together})),
    )


def called(function: Callable[..., Any], args: tuple[Any, ...], repeats: int = 5) -> tuple[Any, float]:
    """The result, and the median time of a call after the first."""
    result, took = jax.block_until_ready(function(*args)), list[float]()
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        took.append(time.perf_counter() - start)
    return result, float(np.median(took))


HEADER = ("call", "work", "each", "× devices", "memory", "each", "× devices", "time", "together", "result")


def cells(name: str, one: Share) -> tuple[str, ...]:
    """One call as a row of text."""
    work, memory = ([si(value, unit) for value in pair] for pair, unit in ((one.flops, "FLOP"), (one.bytes, "B")))
    parts = [f"{one.times_devices(what):.3f}" for what in ("flops", "bytes")]
    return name, *work, parts[0], *memory, parts[1], *(si(value, "s") for value in one.seconds), one.spread


def draw(found: dict[str, Share], path: Path) -> Path:
    """A device's part of work and memory, times the devices, a pair of bars a call."""
    places, count = jnp.arange(len(found)), jax.device_count()
    with mpl.rc_context(jc.plot.STYLE):
        figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
        for shift, what, label, colour in (
            (-0.2, "flops", "work", jc.plot.COLOURS["reverse"]),
            (0.2, "bytes", "memory", jc.plot.COLOURS["forward"]),
        ):
            values = [one.times_devices(what) / count for one in found.values()]
            ax.bar(places + shift, values, 0.36, label=label, color=colour)
        ax.axhline(1 / count, color="#555555", linewidth=0.9)
        ax.annotate(f"1/{count}", (len(found) - 0.5, 1 / count), (0, 4), textcoords="offset points", fontsize=8.5)
        ax.set(title=f"What each of {count} devices does of the whole", ylabel="share of one device's")
        ax.set_xticks(places, list(found))
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return jc.plot.save(figure, path)


if __name__ == "__main__":
    tyro.cli(main)
