"""What reverse mode keeps and runs again, in a number of bytes: `memory_plan` says it, `checkpoint` does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
from jax.core import Tracer

from jaxchain.arguments import check_args
from jaxchain.checks import check_arrays, check_function, check_limit, check_offload, check_result
from jaxchain.errors import warn
from jaxchain.memory.schedule import Again, Part
from jaxchain.memory.search import Curve, Schedules, front, saves_unrolled
from jaxchain.memory.stages import HOSTED, LOOPED, Pieces, pieces_in_steps, pieces_of
from jaxchain.program.primitives import ClosedJaxpr, any_equation_of, only_prints
from jaxchain.program.reading import abstract, trace_program
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count

__all__ = ["MemoryPlan", "MemoryRow", "memory_plan", "plan_of", "traced"]

NEAR = 0.05
"""A loop is written out where its steps save more than this share of the work: a program as short as it was is worth so much."""


@dataclass(frozen=True)
class MemoryRow:
    """What reverse mode does with one stage.

    Attributes
    ----------
    name
        As `jaxchain.discover` calls it.
    state_bytes
        Of the state before it, arguments aside.
    kept_bytes
        What is kept for its derivative, beside that state, when it runs last before it.
    runs
        How often it is evaluated, the part that is made again of what was kept not counted.
    work
        FLOPs of one evaluation.
    extra_flops
        What running it again, or making again what was not kept, takes; sending values to the host, as FLOPs, included.
    hosted_bytes
        What of it lies in the host's memory meanwhile, at most: XLA may need less of it.
    how
        In words.

    Examples
    --------
    >>> row = jc.memory_plan(jnp.sin, (jnp.ones(1000),)).rows[0]
    >>> row.name.split("@")[0], row.runs, row.how
    ('sin', 1, 'everything kept')
    """

    name: str
    state_bytes: int
    kept_bytes: int
    runs: int
    work: float
    extra_flops: float
    hosted_bytes: int
    how: str


@dataclass(frozen=True, eq=False)
class MemoryPlan(Tabular):
    """Which states reverse mode keeps and which stages it runs again, to stay within a number of bytes.

    Attributes
    ----------
    memory_limit
        Bytes of temporary memory, or ``None``: nothing runs again.
    offload
        FLOPs that a byte sent to the host and back counts as, or ``None``: nothing is sent.
    curve
        The whole trade-off: (bytes, extra FLOPs), from all that is kept to the least memory.
    rows
        One `MemoryRow` a stage.
    flops
        What reverse mode takes where all is kept: one evaluation and one cotangent, as counted.
    extra_flops
        What it takes beside that.
    peak_bytes
        The bytes that are predicted to be enough.

    Examples
    --------
    >>> net = jc.nets.mlp([64] * 17, activation="tanh")
    >>> params, x = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((512, 64), jnp.float32)
    >>> plan = jc.memory_plan(jax.vmap(net, in_axes=(None, 0)), (params, x), memory_limit=1_300_000)
    >>> max(row.runs for row in plan.rows), f"{1 + plan.extra_flops / plan.flops:.2f} times the work"
    (2, '1.23 times the work')
    """

    memory_limit: int | None
    offload: float | None
    curve: Curve
    flops: float
    extra_flops: float
    peak_bytes: int
    parts: tuple[Part, ...] = field(repr=False)
    pieces: Pieces = field(repr=False)

    def times(self, extra_flops: float) -> float:
        """So many FLOPs beside, as a multiple of those where all is kept.

        Examples
        --------
        >>> jc.memory_plan(jnp.sin, (jnp.ones(1000),)).times(0.0)
        1.0
        """
        return 1 + extra_flops / max(self.flops, 1.0)

    @property
    def full_bytes(self) -> int:
        """The bytes it takes to keep everything."""
        return self.curve[0][0]

    @cached_property
    def rows(self) -> tuple[MemoryRow, ...]:
        """One a stage, in order of evaluation."""
        found: dict[int, MemoryRow] = {}
        self._walk(self.parts, 0, found)
        return tuple(found[number] for number in sorted(found))

    def _walk(self, parts: Sequence[Part], depth: int, found: dict[int, MemoryRow]) -> None:
        for part in parts:
            if isinstance(part, Again):
                self._walk(part.parts, depth + 1, found)
                continue
            piece = self.pieces.pieces[part.stage]
            way = piece.ways[part.way]
            extra = depth * piece.work + way.work
            found[part.stage] = MemoryRow(
                piece.name, piece.state, way.kept, 1 + depth, piece.work, extra, way.hosted, piece.words[part.way]
            )

    @property
    def hosted_bytes(self) -> int:
        """The bytes that lie in the host's memory, all stages together."""
        return sum(row.hosted_bytes for row in self.rows)

    @property
    def unrolled(self) -> bool:
        """Whether something runs again that is no step of a loop."""
        return any(row.runs > 1 for row in self.rows) or any(
            row.extra_flops and row.how not in (LOOPED, HOSTED) for row in self.rows
        )

    def _table(self) -> Table:
        header = ("stage", "state before", "kept", "runs", "work", "extra work", "how")
        rows = [
            (r.name, si(r.state_bytes, "B"), si(r.kept_bytes, "B"), str(r.runs), si(r.work, "FLOP"), si(r.extra_flops, "FLOP"), r.how)
            for r in self.rows
        ]  # fmt: skip
        limit = "without a limit" if self.memory_limit is None else f"within {si(self.memory_limit, 'B')}"
        title = f"Reverse mode of {count(len(self.rows), 'stage')} {limit}: {self._gain()}"
        return Table(title, header, rows, [*self._notes()])

    def _gain(self) -> str:
        if not self.extra_flops:
            return f"everything is kept, {si(self.full_bytes, 'B')}"
        times = f"{self.times(self.extra_flops):.2f} times the work"
        return f"{si(self.peak_bytes, 'B')} in place of {si(self.full_bytes, 'B')}, for {times}"

    def _notes(self) -> list[str]:
        if self.memory_limit is None:
            steps = self.curve[:: max(len(self.curve) // 6, 1)]
            ways = ", ".join(
                f"{si(size, 'B')} for {self.times(extra):.2f}×"
                for size, extra in dict.fromkeys((*steps, self.curve[-1]))
            )
            return [f"Less memory, more work: {ways}."]
        notes = []
        if any(equation.origin.steps for piece in self.pieces.pieces for equation in piece.segment.equations):
            notes.append("Short loops are written out, step by step: that takes less work in these bytes.")
        if self.hosted_bytes:
            notes.append(
                f"{si(self.hosted_bytes, 'B')} lie in the host's memory; a byte sent there and back counts as {si(self.offload or 0.0, 'FLOP')}."
            )
        if jax.default_backend() == "cpu":
            if self.hosted_bytes:
                notes.append("A CPU's memory is the host's, so that this saves nothing there.")
            if self.unrolled and not saves_unrolled():
                notes.append(
                    "On CPUs JAX before 0.11.2 runs at once what is to be run again, so that this saves nothing there; steps of a jax.lax.scan it does run again."
                )
        return notes


def traced(fun: Callable[..., Any], args: Any, kwargs: Any) -> tuple[ClosedJaxpr, Any]:
    """The program of one call, and its result as shapes.

    Raises
    ------
    TypeError
        If an argument or the result is not made of arrays, or the call lies in a ``jax.shard_map``.
    """
    check_function(fun, "checkpoint", args)
    check_arrays(kwargs, "Keyword argument ")
    if not jax.tree.leaves((args, kwargs)):
        msg = "There is nothing to differentiate with respect to: the arguments hold no array."
        raise TypeError(msg)
    closed, out = trace_program(lambda args, kwargs: fun(*args, **kwargs), (args, kwargs))
    check_result(out)
    if any(_varies(jax.typeof(leaf)) for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, Tracer)):
        msg = "Inside jax.shard_map values belong to devices of a mesh, and a plan is of a whole program: call what jc.checkpoint makes outside, or use jax.checkpoint there."
        raise TypeError(msg)
    if printed := [eqn for eqn in closed.jaxpr.eqns if any_equation_of(eqn, only_prints)]:
        warn(f"{count(len(printed), 'equation')} print, which a checkpointed function does not do.", UserWarning)
    return closed, out


def _varies(aval: Any) -> bool:
    """Whether a value differs from device to device of a mesh that is mapped over."""
    kind = getattr(aval, "manual_axis_type", None)
    return bool(getattr(kind, "varying", ()))


def plan_of(
    closed: ClosedJaxpr, memory_limit: int | None, offload: float | None = None, *, whole: bool = False
) -> MemoryPlan:
    """The plan of a program; ``whole``: its trade-off is wanted where the limit is met with hardly any work, too.

    Raises
    ------
    ValueError
        If the limit cannot be met; says the least that can.
    """
    found = Schedules(pieces_of(closed, offload))
    reverse, curve = sum(piece.reverse for piece in found.pieces.pieces), found.curve
    whole = whole or memory_limit is None or found.extra(memory_limit) > NEAR * reverse
    if whole and saves_unrolled() and (in_steps := pieces_in_steps(found.pieces.program)) is not None:
        written = Schedules(in_steps)
        curve = front(curve, written.curve)
        if memory_limit is not None and written.extra(memory_limit) + NEAR * reverse < found.extra(memory_limit):
            found = written
    if memory_limit is not None and memory_limit < curve[-1][0]:
        msg = f"memory_limit={memory_limit} bytes cannot be met: the least that reverse mode of this function needs is {curve[-1][0]} bytes."
        raise ValueError(msg)
    extra, parts = found.best(memory_limit)
    enough = min(found.enough(extra), math.inf if memory_limit is None else memory_limit)
    return MemoryPlan(memory_limit, offload, curve, reverse, extra, int(enough), parts, found.pieces)


def memory_plan(
    fun: Callable[..., Any], args: tuple[Any, ...], memory_limit: int | None = None, *, offload: float | None = None
) -> MemoryPlan:
    """Which states reverse mode of ``fun`` keeps, which stages it runs again, and what that takes.

    Parameters
    ----------
    fun
        A chain or any JAX function; reverse mode with respect to all of its arguments.
    args
        Its arguments, as arrays or ``jax.ShapeDtypeStruct``: nothing is computed.
    memory_limit
        Most temporary memory, in bytes; arguments, results and gradients of arguments are none. ``None``: nothing runs
        again, and ``.curve`` is the whole trade-off.
    offload
        What a ``jax.lax.scan`` keeps of its steps may go to the host's memory and come back, and a byte that does counts
        as so many FLOPs: those that the device does meanwhile, about 10⁴ on an accelerator (4·10¹⁴ FLOPs and
        5·10¹⁰ bytes a second, there and back). ``None``: nothing is sent.

    Returns
    -------
    MemoryPlan
        ``print`` it; `jaxchain.plot.memory_tradeoff` draws it.

    Raises
    ------
    ValueError
        If the limit cannot be met (says the least that can), or ``offload`` is negative.
    TypeError
        If ``args`` is no tuple, or the function cannot be traced to a program.
    Exception
        JAX's own, where there is no reverse mode.

    References
    ----------
    Herrmann et al., arXiv 1911.13214 (rotor); Griewank and Walther, Algorithm 799: revolve, 2000; inside a stage Zhao
    et al., Rockmate, ICML 2023.

    Examples
    --------
    >>> def deep(w, x):
    ...     return jax.lax.scan(lambda x, w: (jnp.tanh(w @ x), None), x, w)[0]
    >>> shapes = jax.ShapeDtypeStruct((100, 64, 64), jnp.float32), jax.ShapeDtypeStruct((64, 256), jnp.float32)
    >>> plan = jc.memory_plan(deep, shapes, memory_limit=5 * 10**6)
    >>> plan.peak_bytes < 5 * 10**6 < plan.full_bytes, plan.rows[0].how
    (True, 'a loop by a schedule of its own')
    >>> jc.memory_plan(deep, shapes, memory_limit=10**6, offload=100.0).rows[0].how
    "a loop through the host's memory"
    """
    check_args(args)
    check_function(fun, "memory_plan", args)
    check_limit(memory_limit)
    offload = check_offload(offload)
    plan = plan_of(traced(fun, abstract(args), {})[0], memory_limit, offload, whole=True)
    if plan.pieces.refused is not None:
        raise plan.pieces.refused
    return plan
