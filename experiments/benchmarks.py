"""What jaxchain costs against the peer one would use instead.

Question   Does importing, training and sweeping with jaxchain cost more than JAX and optax alone?
Command    python experiments/benchmarks.py
Expect     A row a figure: ours, the peer's, their ratio, the target, and whether it holds. Where we
           lose, the row says so. Another benchmark is one more function in BENCHMARKS.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax
import tyro
from common import RESULTS, accuracy, adam, conclude, cross_entropy, heading, load_digits

import jaxchain as jc
from jaxchain.jacobian.measure import flops
from jaxchain.table import Table, si


@dataclass(frozen=True)
class Row:
    """One figure: ours and the peer's in ``unit``; their ratio, or ours where there is no peer, is to be within bounds."""

    name: str
    ours: float
    peer: float | None
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def judged(self) -> float:
        """The number that the target is about."""
        return self.ours if self.peer is None else self.ours / self.peer

    @property
    def holds(self) -> bool:
        """Whether it is within the target's bounds."""
        low = self.at_least is None or self.judged >= self.at_least
        return low and (self.at_most is None or self.judged <= self.at_most)

    @property
    def target(self) -> str:
        """The bounds in words."""
        unit = "" if self.peer is not None else self.unit
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        return " and ".join(f"{sign} {quantity(bound, unit)}" for sign, bound in bounds if bound is not None)

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        peer, ratio = ("–", "–") if self.peer is None else (quantity(self.peer, self.unit), f"{self.judged:.3f}")
        return self.name, quantity(self.ours, self.unit), peer, ratio, self.target, "yes" if self.holds else "NO"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{value:.1%}" if unit == "%" else si(value, unit) if unit else f"{value:.2f}"


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS) -> None:
    """Measure every figure against its peer.

    Parameters
    ----------
    seed
        Of data, weights and minibatches.
    quick
        Fewer processes and training steps, so that times and accuracy are rough; work is exact.
    out
        Folder for the numbers.
    """
    rows: list[Row] = []
    for benchmark in BENCHMARKS:
        print(f"· {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        rows += benchmark(seed, quick)
    device = jax.devices()[0]
    place = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
    }
    heading(f"Against the peer, on {place['device']}, JAX {place['jax']}, Python {place['python']}")
    print(Table("", ("figure", "ours", "peer", "ratio", "target", "holds"), [row.cells() for row in rows]))
    lost = [row.name for row in rows if not row.holds]
    findings = [
        f"{len(rows) - len(lost)} of {len(rows)} targets hold." + (f" Missed: {'; '.join(lost)}." if lost else ""),
        *(f"{row.name}: {quantity(row.judged, '' if row.peer else row.unit)}, target {row.target}." for row in rows),
    ]
    fields = ("name", "ours", "peer", "unit", "judged", "target", "holds")
    numbers = {
        "seed": seed,
        "quick": quick,
        **place,
        "rows": [{field: getattr(row, field) for field in fields} for row in rows],
    }
    conclude(out / "benchmarks.json", numbers, findings, [])


def importing(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Import jaxchain, and jax with optax, in fresh processes taking turns."""
    statements = ("import jaxchain", "import jax, optax")
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(2 if quick else 10):
        for statement in statements:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[statement].append(time.perf_counter() - start)
    ours, peer = map(statistics.median, seconds.values())
    yield Row("import jaxchain / jax, optax", ours, peer, "s", at_most=1.15)


def training_step(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Count the operations of a training step, and of one written by hand."""
    net, digits, optimizer = jc.nets.mlp([64, 128, 64, 10]), load_digits(seed), adam(1000)
    loss = cross_entropy(net)
    params = net.init(jax.random.key(seed))
    args = (params, optimizer.init(params), (digits.train[0][:64], digits.train[1][:64]))

    def by_hand(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    # `fit` keeps the first three results, unless it observes.
    ours = flops(lambda *args: jc.train.update(loss, optimizer, *args)[:3], *args)
    yield Row("training step / by hand", ours, flops(by_hand, *args), "FLOP", at_most=1.0)


def digits_fit(seed: int, quick: bool) -> Iterable[Row]:
    """Train on digits: held-out accuracy, and seconds with compilation."""
    net, digits, steps = jc.nets.mlp([64, 128, 64, 10]), load_digits(seed), 150 if quick else 1500
    params, key = net.init(jax.random.key(seed)), jax.random.key(seed + 1)
    start = time.perf_counter()
    fit = jc.train.fit(
        cross_entropy(net), params, digits.train, adam(steps), steps=steps, batch_size=64, key=key, progress=False
    )
    seconds = time.perf_counter() - start
    yield Row("accuracy on a fifth of digits", accuracy(net, fit.params, digits.test), None, "%", at_least=0.97)
    yield Row("time to fit digits", seconds, None, "s", at_most=30)


def suffix_sweep(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Count the operations of all suffix Jacobians, and of jax.jacrev of the whole."""
    net = jc.nets.mlp([256, 256, 256, 256, 256, 32], "tanh", "lecun")
    key_params, key_x = jax.random.split(jax.random.key(seed))
    args = (net.init(key_params), jax.random.normal(key_x, (256,)))
    ours = flops(lambda *args: jc.suffix_jacobians(net, args), *args)
    peer = flops(jax.jacrev(net, argnums=-1), *args)
    yield Row("suffix_jacobians / jax.jacrev", ours, peer, "FLOP", at_most=1.1)


BENCHMARKS: tuple[Callable[[int, bool], Iterable[Row]], ...] = (importing, training_step, digits_fit, suffix_sweep)

if __name__ == "__main__":
    tyro.cli(main)
