"""Jacobians that are mostly zeros: what does it save to know where?

Question   A PDE's right-hand side on a grid, a convolution, a batch of samples that do not mix: how
           many derivatives are needed at once, and what do work and time come to?
Command    python experiments/sparse_jacobians.py        (the extra ``sparse`` adds asdex)
Theory     Columns that share no row can be computed in one tangent, the sum of their basis vectors.
           A five-point stencil needs five such colours or a few more on a grid of any size, jax.jacrev
           one cotangent a grid point. A convolution's matrix holds its weights. A batch of B has
           diagonal blocks alone: 1/B of the work.
Expect     Work falls by orders of magnitude; time less so, because all of the zeros are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from bench.core import race
from bench.models import batched_mlp, sparse_cases, stencil
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.cost.measure import measure
from jaxchain.show.table import Table, si
from jaxchain.show.values import times_less


@dataclass(frozen=True)
class Way:
    """One way to one Jacobian."""

    flops: float
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Case:
    """One function: its Jacobian's shape, share of entries that are not zero, colours, and the ways."""

    shape: tuple[int, int]
    nonzero: float
    colours: int | None
    ways: dict[str, Way]

    def gain(self, of: str) -> float:
        """How many times less ours takes than the better of jacfwd and jacrev."""
        ours, *theirs = (getattr(self.ways[name], of) for name in ("ours", "jacfwd", "jacrev"))
        return min(theirs) / ours


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS) -> None:
    """Compare ways to sparse Jacobians; draw two of them.

    Parameters
    ----------
    seed
        Of kernels, weights and inputs.
    quick
        A stencil of 16×16 in place of 64×64, fewer timed calls.
    out
        Folder for the figure and the numbers.
    """
    asdex = import_asdex()
    repeats, found = 1 if quick else 20, dict[str, Case]()
    for name, (fun, x) in sparse_cases(seed, 16 if quick else 64).items():
        found[name] = compare(fun, x, asdex, repeats)
    if hasattr(jc, "batch_jacobian"):
        found["batch of 64, an MLP"] = compare_batch(seed, repeats)
    else:
        print("This version of jaxchain has no batch_jacobian: the batch is left out.")
    heading("Dense results by every way")
    print(Table("", ("function", "Jacobian", "not zero", "colours", "way", "work", "temporaries", "time"), rows(found)))
    findings = [
        f"{name}: {times_less(case.gain('flops'), 'work')} and {times_less(case.gain('seconds'), 'time')}, against the better of jacfwd and jacrev"
        + (
            f"; {case.ways['ours'].seconds / case.ways['asdex'].seconds:.2f} times the time of asdex by hand."
            if "asdex" in case.ways
            else "."
        )
        for name, case in found.items()
    ]
    numbers = {"seed": seed, "quick": quick, "asdex": asdex is not None, "cases": found}
    conclude(out / "sparse_jacobians.json", numbers, findings, [draw(seed, out / "sparse_jacobians.png")])


def import_asdex() -> Any:
    """asdex, or ``None``, with a sentence that says why."""
    try:
        import asdex
    except ImportError as error:
        print(
            f"asdex cannot be imported with JAX {jax.__version__} ({error}): auto is compared with jacfwd and jacrev alone."
        )
        return None
    return asdex


def compare(fun: Callable[[jax.Array], jax.Array], x: jax.Array, asdex: Any, repeats: int) -> Case:
    """All ways to the dense Jacobian of a function of one array; the pattern is found beforehand."""
    ways: dict[str, Callable[..., Any]] = {
        "ours": jc.jacobian(fun),
        "jacfwd": jax.jacfwd(fun),
        "jacrev": jax.jacrev(fun),
    }
    colours = None
    if asdex is not None:
        coloring = asdex.jacobian_coloring(fun, x)
        ways["asdex"], colours = asdex.jacobian_from_coloring(fun, coloring, "dense"), int(coloring.num_colors)
    return measured(ways, (x,), repeats, colours, lambda jacobian: np.asarray(jacobian).reshape(x.size, x.size))


def compare_batch(seed: int, repeats: int) -> Case:
    """A batch through an MLP: its diagonal blocks alone, or all of it."""
    fun, args = batched_mlp(seed)
    ways = {"ours": jc.batch_jacobian(fun, 1), "jacfwd": jax.jacfwd(fun, 1), "jacrev": jax.jacrev(fun, 1)}
    batch, size = args[1].shape

    def whole(jacobian: Any) -> np.ndarray:
        if jacobian.ndim == 4:
            return np.asarray(jacobian).reshape(-1, batch * size)
        full = np.zeros((batch, jacobian.shape[1], batch, size), np.float32)
        full[np.arange(batch), :, np.arange(batch)] = jacobian
        return full.reshape(-1, batch * size)

    return measured(ways, args, repeats, None, whole)


def measured(
    ways: Mapping[str, Callable[..., Any]],
    args: tuple[Any, ...],
    repeats: int,
    colours: int | None,
    whole: Callable[[Any], np.ndarray],
) -> Case:
    """Work and memory by XLA, time in turns; every way must give the same matrix."""
    costs = {name: measure(fun, *args, repeats=1) for name, fun in ways.items()}
    reference = whole(costs["jacrev"].result)
    for name, cost in costs.items():
        np.testing.assert_allclose(whole(cost.result), reference, atol=1e-4, err_msg=name)
    seconds = race(ways, *args, repeats=repeats)
    table = {name: Way(cost.flops, cost.peak_bytes, seconds[name]) for name, cost in costs.items()}
    return Case(reference.shape, float((reference != 0).mean()), colours, table)


def rows(found: Mapping[str, Case]) -> list[tuple[str, ...]]:
    """A line a way; the function is named once."""
    lines: list[tuple[str, ...]] = []
    for name, case in found.items():
        head = (
            name,
            "×".join(map(str, case.shape)),
            f"{case.nonzero:.2%}",
            "–" if case.colours is None else f"{case.colours}",
        )
        for k, (way, cost) in enumerate(case.ways.items()):
            own = si(cost.flops, "FLOP"), si(cost.bytes, "B"), si(cost.seconds, "s")
            lines.append((*(head if k == 0 else ("", "", "", "")), way, *own))
    return lines


def draw(seed: int, path: Path) -> Path:
    """The Jacobians of a stencil and of a convolution on small grids, where each entry can be seen."""
    x = 0.3 * jax.random.normal(jax.random.key(seed), (8, 8))  # small, so that neither u³ nor tanh rules the picture
    convolve = sparse_cases(seed, 8)["32×32 convolution"][0]
    cases = {"five-point stencil": stencil, "convolution, tanh": convolve}
    with mpl.rc_context(jc.plot.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.7), layout="constrained")
        shares: list[float] = []
        for ax, (name, fun) in zip(axes, cases.items(), strict=True):
            jacobian = np.asarray(jax.jit(jc.jacobian(fun))(x)).reshape(64, 64)
            shares.append((jacobian != 0).mean())
            jc.plot.matrix(jacobian, ax=ax, title=f"{name}: {shares[-1]:.0%} not zero")
        figure.suptitle(
            "On an 8×8 grid, functions of neighbours have banded Jacobians, which a few tangents fill",
            x=0.01,
            ha="left",
            fontsize=11.5,
        )
    return jc.plot.save(figure, path)


if __name__ == "__main__":
    tyro.cli(main)
