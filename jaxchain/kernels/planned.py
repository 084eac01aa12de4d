"""The plan of a kernel as a table: a row a leaf, the way that it goes and what the others would take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxchain.kernels.between import block_shape
from jaxchain.kernels.choosing import Choice, Way
from jaxchain.kernels.pairing import Outputs
from jaxchain.kernels.pricing import Prices
from jaxchain.show.table import Table, Tabular, si

__all__ = ["KernelPlan", "KernelRow", "planned"]


@dataclass(frozen=True)
class KernelRow:
    """One leaf of the parameters in a kernel.

    Attributes
    ----------
    leaf
        Its path.
    shape
        Its shape.
    kind
        Of its sites, as in `jaxchain.weight_sites`.
    way
        ``"contraction"``, ``"products"`` of factors, or ``"vectors"``, pushed forward together with all that go so.
    contraction, products
        Floating-point operations of the leaf alone, that way; infinite where there is no such way.

    Examples
    --------
    >>> row = jc.ntk_plan(lambda w, x: x @ w, jnp.ones((50, 3)), jnp.ones((8, 50))).rows[0]
    >>> row.kind, row.way, row.contraction, row.products
    ('dense', 'products', 176400.0, 7030.0)
    """

    leaf: str
    shape: tuple[int, ...]
    kind: str
    way: Way
    contraction: float
    products: float


@dataclass(frozen=True)
class KernelPlan(Tabular):
    """Which way each leaf goes in a kernel, and what that takes.

    Attributes
    ----------
    rows
        One a leaf that the function depends on.
    samples
        B, B'.
    shape
        Of the block of a pair: (m, m), (m,) or ().
    cost
        Floating-point operations of all, the function and its backward passes included.
    vectors
        The same, if all leaves were pushed forward; infinite where there is no forward mode.
    unused
        Paths of leaves that the function does not depend on.

    Examples
    --------
    >>> plan = jc.ntk_plan(lambda w, x: jnp.tanh(w @ x), jnp.ones((3, 90)), jnp.ones((4, 90)))
    >>> plan.samples, plan.shape, [row.way for row in plan.rows]
    ((4, 4), (3, 3), ['products'])
    """

    rows: tuple[KernelRow, ...]
    samples: tuple[int, int]
    shape: tuple[int, ...]
    outputs: Outputs
    cost: float
    vectors: float
    unused: tuple[str, ...]

    def _brief(self) -> str:
        pairs = " × ".join(f"{n:,}" for n in self.samples)
        of = f", {' × '.join(f'{n:,}' for n in self.shape)} outputs each" if self.shape else ""
        told = "" if self.outputs == "full" else f", {self.outputs} over outputs"
        return f"Neural tangent kernel of {pairs} samples{of}{told}: {si(self.cost, 'FLOP')}"

    def _table(self) -> Table:
        header = ("leaf", "shape", "kind", "way", "contraction", "products")
        rows = [
            (
                row.leaf or "params",
                " × ".join(map(str, row.shape)) or "()",
                row.kind,
                row.way,
                si(row.contraction, "FLOP"),
                "–" if math.isinf(row.products) else si(row.products, "FLOP"),
            )
            for row in self.rows
        ]
        notes = ["Each figure is what the leaf takes alone; leaves with the same δ share δ · δ′."]
        if math.isinf(self.vectors):
            notes.append("There is no forward mode, and so no kernel-vector products.")
        else:
            notes.append(f"By kernel-vector products, all leaves together take {si(self.vectors, 'FLOP')}.")
        if self.unused:
            notes.append(f"Not used, or in no way that carries a derivative: {', '.join(self.unused)}.")
        return Table(self._brief(), header, rows, notes)


def planned(prices: Prices, choice: Choice, is_scalar: bool) -> KernelPlan:
    """A choice, told."""
    function = prices.basis.function
    leaves = function.leaves
    rows = tuple(
        KernelRow(
            leaves[number].path,
            leaves[number].like.shape,
            " + ".join(dict.fromkeys(function.sites[k].kind for k in leaves[number].sites)),
            way,
            prices.contractions[number],
            prices.products(number),
        )
        for number, way in choice.ways.items()
    )
    return KernelPlan(
        rows,
        (prices.block.rows, prices.block.columns),
        () if is_scalar else block_shape(prices.basis, prices.outputs),
        prices.outputs,
        choice.cost + prices.evaluation,
        prices.vectors(prices.used) + prices.evaluation,
        tuple(leaf.path for leaf in leaves if not leaf.sites),
    )
