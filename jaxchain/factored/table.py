"""`weight_sites`: every place where a leaf of the parameters meets the data, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxchain.arguments import position_among
from jaxchain.checks import check_function, check_inexact, check_result
from jaxchain.factored.factors import Factor, Picked, Product
from jaxchain.factored.function import Factored
from jaxchain.factored.sites import Site
from jaxchain.show.table import Table, Tabular

__all__ = ["WeightRow", "WeightSites", "weight_sites"]


@dataclass(frozen=True)
class WeightRow:
    """One weight site.

    Attributes
    ----------
    leaf
        The path of the leaf.
    stage
        Where it meets the data: the module, or operation and line.
    kind
        ``"dense"``; ``"shared"``, dense over several positions or steps; ``"convolution"``, ``"scale"``, ``"bias"``,
        ``"embedding"``; ``"other"``, without a rule, so that its gradient is made by the general way.
    shape
        Of the leaf.
    input, cotangent
        Shapes of the factors x and δ: (T, I) and (T, O), of several blocks (N, T, I) and (N, T, O), of an embedding the
        indices (T,) for x. Where a gradient is no larger than its factors: ``None``, and the shape of the leaf as it is used.

    Examples
    --------
    >>> row = jc.weight_sites(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((5, 3))).rows[0]
    >>> row.kind, row.input, row.cotangent
    ('shared', (5, 3), (5, 2))
    """

    leaf: str
    stage: str
    kind: str
    shape: tuple[int, ...]
    input: tuple[int, ...] | None
    cotangent: tuple[int, ...]


@dataclass(frozen=True)
class WeightSites(Tabular):
    """What `weight_sites` found: a table for terminals and notebooks.

    Attributes
    ----------
    rows
        One a site, in order of evaluation.
    argument
        Which one holds the parameters, counted from 0.
    unused
        Paths of the leaves that the result does not depend on, or only in ways that carry no derivative.

    Examples
    --------
    >>> sites = jc.weight_sites(lambda p, x: x @ p["w"] + p["b"], {"w": jnp.ones((3, 2)), "b": jnp.ones(2), "c": 1.0}, jnp.ones(3))
    >>> [(row.leaf, row.kind) for row in sites.rows], sites.unused
    ([("['w']", 'dense'), ("['b']", 'bias')], ("['c']",))
    """

    rows: tuple[WeightRow, ...]
    argument: int
    unused: tuple[str, ...]

    def _brief(self) -> str:
        return f"{len(self.rows)} sites of argument {self.argument}"

    def _table(self) -> Table:
        header = ("leaf", "shape", "stage", "kind", "input", "cotangent")
        rows = [
            (row.leaf or "the argument", _text(row.shape), row.stage, row.kind, _text(row.input), _text(row.cotangent))
            for row in self.rows
        ]
        notes = [f"Not used, or in no way that carries a derivative: {', '.join(self.unused)}."] if self.unused else []
        if others := sorted({row.leaf for row in self.rows if row.kind == "other"}):
            notes.append(
                f"Used in a way without a rule, and differentiated from there as any value is: {', '.join(others)}."
            )
        return Table(f"Weight sites of argument {self.argument}", header, rows, notes)


def _text(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else " × ".join(map(str, shape)) or "1"


def weight_sites(fun: Callable[..., Any], *args: Any, argnum: int = 0) -> WeightSites:
    """Every place where a leaf of the parameters meets the data.

    The function is traced once and never run. A leaf may be moved, cast or scaled by constants on its way; calls,
    ``jit``, ``vmap`` and ``jax.checkpoint`` are looked through and ``scan`` is looked into, whether its steps share a leaf
    or each has a row of it. A call with a derivative rule of its own, a branch or a ``while`` that a leaf enters stays
    whole: the leaf is then of kind ``"other"``.

    Parameters
    ----------
    fun
        Any JAX function.
    args
        Its arguments, as arrays or ``jax.ShapeDtypeStruct``.
    argnum
        Which of them holds the parameters.

    Returns
    -------
    WeightSites
        ``.rows``, one a site; ``print`` it.

    Raises
    ------
    TypeError
        If ``fun`` is not a function that JAX can trace, or a leaf of the parameters has no derivative.
    ValueError
        If there is no such argument.

    References
    ----------
    Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, ICML 2022, arXiv 2206.08720; Botev and Martens,
    KFAC-JAX, 2022.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 4, 2])
    >>> print(jc.weight_sites(net, net.init(jax.random.key(0)), jnp.ones(3)))
    Weight sites of argument 0
    leaf              shape    stage   kind  input  cotangent
    ['dense_0']['w']  4 × 3  dense_0  dense  1 × 3      1 × 4
    ['dense_0']['b']      4  dense_0   bias                 4
    ['dense_1']['w']  2 × 4  dense_1  dense  1 × 4      1 × 2
    ['dense_1']['b']      2  dense_1   bias                 2
    """
    check_function(fun, "weight_sites", args)
    at = position_among(args, argnum)
    check_inexact(args[at], f"Argument {at}")
    found = Factored.of(fun, args, at)
    check_result(found.out)
    rows = tuple(_row(found, site, factor) for site, factor in zip(found.sites, found.shapes(*args), strict=True))
    return WeightSites(rows, at, tuple(leaf.path for leaf in found.leaves if not leaf.sites))


def _row(found: Factored, site: Site, factor: Factor) -> WeightRow:
    leaf = found.leaves[site.leaf]
    match factor:
        case Product():
            one, other = factor.left.shape, factor.right.shape
        case Picked():
            one, other = factor.index.shape, factor.right.shape
        case _:
            one, other = None, factor.value.shape
    if one is not None and one[0] == 1:
        one, other = one[1:], other[1:]
    return WeightRow(leaf.path, site.stage, site.kind, tuple(leaf.like.shape), one, other)
