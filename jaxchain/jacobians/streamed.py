"""`jacobian_blocks`: a Jacobian that need not fit into memory, a block of rows after another.

One program makes every block; what all blocks share is computed once and kept. Builds on `rowwise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import check_args, differentiated
from jaxchain.checks import check_function, check_limit, integer, word
from jaxchain.cost.budget import fit
from jaxchain.derivative import ALL_AT_ONCE, Pass
from jaxchain.errors import ModeError, refused_in_words
from jaxchain.jacobians.blocks import Call, require_real
from jaxchain.jacobians.planner import Plan, make_plan
from jaxchain.jacobians.row_programs import RowPrograms
from jaxchain.jacobians.rowwise import Kept, RowMode, RowWay, ways_of
from jaxchain.jacobians.within import compiled
from jaxchain.show.table import Table, si
from jaxchain.show.values import count

__all__ = ["JacobianBlocks", "jacobian_blocks"]

ROOM = 64 * 2**20
"""Bytes of a block, and of the vectors that are computed at once, where nothing is said."""

KEPT = 256 * 2**20
"""Bytes that are kept from block to block, where nothing is said."""


def jacobian_blocks(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    argnum: int | None = None,
    block: int | None = None,
    memory_limit: int | None = None,
    mode: RowMode = "auto",
) -> JacobianBlocks:
    """The Jacobian of ``fun`` at ``args`` in blocks of rows, in order, for one that is larger than memory.

    ``for rows, part in jc.jacobian_blocks(fun, args)``: ``rows`` is a slice of the flattened output, ``part`` holds these
    rows, a pytree like the argument with one axis more in front, as `jaxchain.jacobian_rows` has it. All parts one after
    another, in the shape of the output, are the result of ``jax.jacrev``.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    args
        Its arguments; as ``jax.ShapeDtypeStruct`` they can be planned for, not computed.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    block
        Rows of a block; the last may have fewer. ``None``: as many as ``memory_limit`` has room for, or 64 MiB.
    memory_limit
        Most bytes beside the arguments: temporaries as XLA's ``memory_analysis`` measures them, what is kept from block
        to block, and one block. Costs a few compilations. Whoever keeps blocks needs more.
    mode
        ``"reverse"``: a cotangent a row. ``"forward"``: all columns again for every block, of which it keeps its rows; of
        far more rows than columns that is the cheaper one, the more so the larger a block. ``"mixed"``: factors of the
        Jacobian (what leads to the narrowest state, what leads on from there) are computed once and kept, and a block
        multiplies rows of them. ``"auto"``: the cheapest that there is room for.

    Returns
    -------
    JacobianBlocks
        A sequence of (slice, part): iterate over it, or ask for one by its number. ``print`` tells how blocks are made.

    Raises
    ------
    ValueError
        If ``block`` or ``memory_limit`` is below 1, or the limit cannot be met (says the least that can).
    TypeError
        If an input or output is not real floating point.
    ModeError
        If the mode does not exist for the function.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 3; Naumann, arXiv 2406.11862.

    Examples
    --------
    >>> for rows, part in jc.jacobian_blocks(lambda x: x**2, (jnp.array([1.0, 2.0, 3.0]),), block=2):
    ...     print(rows, part.tolist())
    slice(0, 2, None) [[2.0, 0.0, 0.0], [0.0, 4.0, 0.0]]
    slice(2, 3, None) [[0.0, 0.0, 6.0]]
    """
    check_function(fun, "jacobian_blocks")
    check_args(args)
    word("mode", mode, get_args(RowMode))
    block = integer("block", block, "how many rows a block has", least=1, optional=True)
    check_limit(memory_limit)
    call = Call.of(fun, differentiated(fun, argnum, args), False, args, {})
    found = call.find()
    require_real(found)
    with refused_in_words("simple" if mode == "auto" else mode, call.name, ""):
        return _chosen(call, make_plan(found), mode, block, memory_limit)


@dataclass(frozen=True, eq=False)
class JacobianBlocks:
    """A Jacobian in blocks of rows, made by `jaxchain.jacobian_blocks`; each is computed when it is asked for.

    Attributes
    ----------
    shape
        (m, n): numbers in the output and in the argument.
    block
        Rows of a block; the last may have fewer.
    at_once
        How many rows, or columns, are computed at once; ``None``: all of a block.
    plan
        The order of multiplication that what is kept is made in.
    way
        What is kept, and what is done for every block.

    Examples
    --------
    >>> net = jc.nets.autoencoder([64, 32, 4])
    >>> blocks = jc.jacobian_blocks(net, (net.init(jax.random.key(0)), jnp.ones(64)), block=48)
    >>> len(blocks), blocks[1][0], blocks[1][1].shape
    (2, slice(48, 64, None), (16, 64))
    >>> print(blocks)
    Jacobian of 64 × 64 by the chain input, argument 1, in 2 blocks of 48 rows
    ∂dense_3/∂dense_1 (64 × 4) and ∂dense_1/∂input (4 × 64) are computed once and kept. A block is its
    rows of ∂dense_3/∂dense_1 times ∂dense_1/∂input.
    Multiply-adds: ...
    """

    call: Call
    plan: Plan
    way: RowWay
    block: int
    at_once: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.plan.sizes[-1], self.plan.sizes[0]

    def __len__(self) -> int:
        return math.ceil(self.shape[0] / self.block)

    def __getitem__(self, number: int) -> tuple[slice, Any]:
        at = range(len(self))[integer("The number of a block", number, "which one is asked for")]
        rows = self.rows(at)
        first = min(rows.start, self.shape[0] - self.block)  # one program for all: the last block begins sooner
        self._check_numbers()
        with refused_in_words(self.way.mode, self.call.name, ""):
            part = self._each(self._kept, np.int32(first), *self._args)
        if rows.start == first:
            return rows, part
        return rows, jax.tree.map(lambda leaf: leaf[rows.start - first :], part)

    def __iter__(self) -> Iterator[tuple[slice, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        m, n = self.shape
        return f"JacobianBlocks({m:,} × {n:,}, {count(len(self), 'block')} of {count(self.block, 'row')})"

    def __str__(self) -> str:
        m, n = self.shape
        blocks = f"{count(len(self), 'block')} of {count(self.block, 'row')}"
        here, whole = (
            si(math.ceil(cost) if math.isfinite(cost) else cost, "") for cost in (self.way.cost, self.plan.cost)
        )
        notes = [
            self.way.words(self.plan),
            f"Multiply-adds: {here}; the cheapest order for all rows at once takes {whole}.",
        ]
        return str(Table(f"Jacobian of {m:,} × {n:,} by {self.call.argument}, in {blocks}", (), [], notes))

    def rows(self, number: int) -> slice:
        """The rows of a block.

        Examples
        --------
        >>> jc.jacobian_blocks(jnp.sin, (jnp.ones(5),), block=3).rows(1)
        slice(3, 5, None)
        """
        return slice(number * self.block, min((number + 1) * self.block, self.shape[0]))

    def _check_numbers(self) -> None:
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self.call.args)):
            msg = "The arguments are shapes alone, at which blocks can be planned, not computed. Give arrays."
            raise TypeError(msg)

    @property
    def _args(self) -> tuple[Any, ...]:
        return jax.tree.map(jnp.asarray, self.call.chosen), {}

    @cached_property
    def programs(self) -> RowPrograms:
        """What is run."""
        return RowPrograms(self.plan, self.way, self.block, Pass(self.at_once))

    @cached_property
    def _kept(self) -> Kept:
        return compiled(self.programs.once, self.plan.found.shapes)(*self._args)

    @cached_property
    def _each(self) -> Callable[..., Any]:
        return compiled(self.programs.each, self.programs.given)


def _chosen(call: Call, plan: Plan, mode: RowMode, block: int | None, limit: int | None) -> JacobianBlocks:
    """The cheapest way that there is room for."""
    m, n = plan.sizes[-1], plan.sizes[0]
    itemsize = max(side.dtype.itemsize for side in (plan.units[0].here, plan.units[-1].there))
    wide = max(ROOM // (max(*plan.sizes, 1) * itemsize), 1)  # vectors at once
    free = wide if limit is None else max(limit // (4 * max(n, 1) * itemsize), 1)  # rows, where nobody says how many
    rows = max(min(block or free, m), 1)
    ways = _usable(plan, ways_of(plan, mode, math.ceil(m / rows)), rows)

    def sized(way: RowWay, size: int | None) -> JacobianBlocks:
        """Of a block that nobody chose, its rows are what is computed at once; else so many of them, or columns."""
        if block is None and way.direction == "pull" and limit is not None:
            return JacobianBlocks(call, plan, way, max(min(size or m, m), 1), None)
        return JacobianBlocks(call, plan, way, rows, size)

    if limit is None or not m:
        way = next((way for way in ways if way.kept * itemsize <= KEPT), ways[-1])
        return sized(way, None if (n if way.direction == "push" else rows) <= wide else wide)

    def needs(way: RowWay, size: int | None) -> int:
        programs = sized(way, size).programs
        return programs.held if programs.held > limit and size != 1 else programs.needs

    number, size = fit([partial(needs, way) for way in ways], max(m, n) if block is None else max(rows, n), limit)
    return sized(ways[number], size)


def _usable(plan: Plan, ways: list[RowWay], rows: int) -> list[RowWay]:
    """Those that rules which others wrote do not refuse."""
    if not ways:
        msg = "Neither forward nor reverse mode exists for the function, nor one of them for each of its stages."
        raise ModeError(msg)
    if not plan.found.foreign:
        return ways
    usable: list[RowWay] = []
    for way in ways:
        try:
            programs = RowPrograms(plan, way, rows, ALL_AT_ONCE)
            jax.eval_shape(programs.each, *programs.given)
        except Exception:
            if way is ways[-1] and not usable:
                raise
            continue
        usable.append(way)
    return usable
