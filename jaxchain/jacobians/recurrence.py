"""A loop that reads its input row by row: its Jacobian from those of its steps.

Of a ``scan`` over rows x_t with carry c_t and results y_t forward mode pushes a tangent for each entry of each row through
every step. But x_s reaches c_t through the carries in between alone: ∂c_t/∂x_s = A_t ⋯ A_{s+1} B_s, A_t = ∂c_t/∂c_{t-1},
B_t = ∂c_t/∂x_t. So the steps are linearised by themselves, all at once, by a vector for each number of a carry and a
row; from then on a step is a product with A_t. What later rows would add to earlier steps, the zero half, is left out in
stretches.

Reference: Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 9 (elimination).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import pieces
from jaxchain.cost.linear import Work
from jaxchain.derivative import Linear
from jaxchain.jacobians.matrix import stretches
from jaxchain.program.flow import moved_results
from jaxchain.program.primitives import (
    Jaxpr,
    JaxprEqn,
    Scan,
    dtype_of,
    function_of,
    is_inexact,
    is_var,
    opened,
    scan_of,
    size_of,
)
from jaxchain.program.segment import Segment

__all__ = ["Recurrence", "reads_rows", "recurrence_of"]


LEAST = 4
"""A stretch has so many steps at least: each is one more loop to compile."""


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The loop that a segment is, but for reshapes and shifts.

    Attributes
    ----------
    segment
        All of it.
    core
        The loop alone.
    work
        Multiply-adds of a tangent through all of it, and of an evaluation.
    """

    segment: Segment
    core: Segment
    work: Work

    @property
    def eqn(self) -> JaxprEqn:
        """The loop's equation."""
        return self.core.equations[0].eqn

    @cached_property
    def loop(self) -> Scan:
        """Its layout."""
        return scan_of(self.eqn)

    @cached_property
    def body(self) -> Jaxpr:
        """The program of a step: of constants, carry and row."""
        return opened(self.loop.body)[0]

    @cached_property
    def moved(self) -> list[int]:
        """Which results carry a derivative."""
        moves = moved_results(self.eqn, [atom in self.core.inputs for atom in self.eqn.invars])
        return [
            k for k, (var, moved) in enumerate(zip(self.eqn.outvars, moves, strict=True)) if moved and is_inexact(var)
        ]

    @property
    def carries(self) -> list[int]:
        """Those of them that are carries."""
        return [k for k in self.moved if k < self.loop.carries]

    @cached_property
    def rows(self) -> list[int]:
        """Which operands are rows of the input."""
        first = self.loop.consts + self.loop.carries
        return [k for k in range(first, len(self.eqn.invars)) if self.eqn.invars[k] in self.core.inputs]

    @cached_property
    def started(self) -> list[int]:
        """Which carries begin as a part of the input."""
        return [k for k in self.carries if self.eqn.invars[self.loop.consts + k] in self.core.inputs]

    @cached_property
    def results(self) -> dict[int, int]:
        """Which of them are rows that are wanted, and which result of a step has the same value: a carry, often."""
        first: dict[Any, int] = {}
        outvars = self.body.outvars
        wanted = [k for k in self.moved if k >= self.loop.carries and self.eqn.outvars[k] in self.core.outputs]
        for k in (*self.carries, *wanted):
            first.setdefault(outvars[k] if is_var(outvars[k]) else k, k)
        return {k: first[outvars[k] if is_var(outvars[k]) else k] for k in wanted}

    @cached_property
    def made(self) -> list[int]:
        """Which results of a step are differentiated: carries, then other rows."""
        return [*self.carries, *(k for k, same in self.results.items() if k == same)]

    @cached_property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers in a carry, a row of the input, a row of results that is no carry, and a first carry of the input."""
        outs = [size_of(var) for var in self.body.outvars]
        carry, row = sum(outs[k] for k in self.carries), sum(size_of(self.body.invars[k]) for k in self.rows)
        return carry, row, sum(outs[k] for k in self.made) - carry, sum(outs[k] for k in self.started)

    @cached_property
    def stretches(self) -> list[tuple[int, int]]:
        """The first step of each stretch, and the first after it."""
        return stretches(self.loop.length, LEAST)

    @property
    def cost(self) -> float:
        """Multiply-adds."""
        h, d, o, first = self.sizes
        widths = sum((stop - start) * (first + stop * d) for start, stop in self.stretches)
        # Beside the evaluation that finds the carries, each step is evaluated again where it is linearised.
        return self.work.once + self.work.tangent * min(h + d, h + o) + h * (h + o) * widths

    @property
    def words(self) -> str:
        """What is done."""
        return f"from the Jacobians of its loop's {self.loop.length} steps"

    def matrix(self, sides: Sequence[Any], state: Sequence[Any]) -> jax.Array:
        """J (m, n)."""
        steps = self._steps(*self._operands(sides, state))
        last, rows = self._multiplied(steps[::-1] if self.loop.reverse else steps)
        return self._in_order(last, rows[::-1] if self.loop.reverse else rows)

    def _operands(self, sides: Sequence[Any], state: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """The loop's constants, its first carry and its rows."""
        program, at = self.segment.program, self.segment.equations.index(self.core.equations[0])
        known = dict(zip(self.segment.sides, sides, strict=True))
        before = Segment(self.segment.equations[:at], self.segment.inputs, self.core.inputs, program)
        entered = before.call(*(known[var] for var in before.sides), *state)
        known |= {**program.constants, **dict(zip(self.core.inputs, entered, strict=True))}
        values = [known[atom] if is_var(atom) else jnp.asarray(atom.val, dtype_of(atom)) for atom in self.eqn.invars]
        first = self.loop.consts + self.loop.carries
        return values[: self.loop.consts], values[self.loop.consts : first], values[first:]

    def _steps(self, consts: list[Any], carry: list[Any], rows: list[Any]) -> jax.Array:
        """J of each step, (T, carry and own results, carry and row), in the order of rows."""
        body, count = function_of(*opened(self.loop.body)), self.loop.carries

        def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
            return body(*consts, *carry, *row)[:count], carry

        _, before = jax.lax.scan(step, carry, rows, length=self.loop.length, reverse=self.loop.reverse)
        moving = [*self.carries, *(k - self.loop.consts for k in self.rows)]

        def jacobian(values: list[Any]) -> jax.Array:
            def of_moving(chosen: tuple[Any, ...]) -> tuple[Any, ...]:
                given = dict(zip(moving, chosen, strict=True))
                out = body(*consts, *(given.get(k, value) for k, value in enumerate(values)))
                return tuple(out[k] for k in self.made)

            return Linear(of_moving, tuple(values[k] for k in moving)).matrix()

        return jax.vmap(jacobian)([*before, *rows])

    def _multiplied(self, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """J of the last carry (h, n), and of each row of results (T, o, n), by the first carry and the rows one by one."""
        h, d, _, first = self.sizes
        outs = [size_of(var) for var in self.body.outvars]
        ends = dict(zip(self.made, itertools.accumulate(outs[k] for k in self.made), strict=True))
        places = [slice(ends[same] - outs[same], ends[same]) for same in self.results.values()]

        def advance(columns: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            step, at = now
            after = jax.lax.dynamic_update_slice(step[:, :h] @ columns, step[:, h:], (jnp.int32(0), first + at * d))
            return after[:h], jnp.concatenate([after[place] for place in places] or [after[:0]])

        begins = np.concatenate([np.full(outs[k], k in self.started) for k in self.carries])
        columns, made = jnp.eye(h, dtype=steps.dtype)[:, begins], []
        for start, stop in self.stretches:
            columns = jnp.pad(columns, ((0, 0), (0, first + stop * d - columns.shape[1])))
            at = jnp.arange(start, stop, dtype=jnp.int32)
            columns, rows = jax.lax.scan(advance, columns, (steps[start:stop], at))
            made.append(jnp.pad(rows, ((0, 0), (0, 0), (0, (self.loop.length - stop) * d))))
        return columns, jnp.concatenate(made)

    def _in_order(self, last: jax.Array, rows: jax.Array) -> jax.Array:
        """The same, as the segment's state has rows and columns."""
        first, outvars, invars = self.sizes[3], self.eqn.outvars, self.eqn.invars
        ends = pieces(last, [size_of(outvars[k]) for k in self.carries])
        apart = pieces(rows, [size_of(self.body.outvars[k]) for k in self.results], 1)
        parts = dict(zip((outvars[k] for k in self.carries), ends, strict=True))
        for k, part in zip(self.results, apart, strict=True):
            parts[outvars[k]] = part.reshape(-1, part.shape[-1])
        zero = {
            var: jnp.zeros((size_of(var), last.shape[1]), last.dtype) for var in self.core.outputs if var not in parts
        }
        whole = jnp.concatenate([(parts | zero)[var] for var in self.core.outputs])
        by_step = whole[:, first:].reshape(len(whole), self.loop.length, -1)
        by_step = by_step[:, ::-1] if self.loop.reverse else by_step
        began = pieces(whole[:, :first], [size_of(self.body.outvars[k]) for k in self.started], 1)
        columns = dict(zip((invars[self.loop.consts + k] for k in self.started), began, strict=True))
        read = pieces(by_step, [size_of(self.body.invars[k]) for k in self.rows], 2)
        for k, part in zip(self.rows, read, strict=True):
            columns[invars[k]] = part.reshape(len(whole), -1)
        return jnp.concatenate([columns[var] for var in self.core.inputs], 1)


def reads_rows(eqn: JaxprEqn, reads: Sequence[bool]) -> bool:
    """Whether a ``scan`` reads something row by row, and nothing of it at every step; given which operands are of it."""
    loop = scan_of(eqn)
    return any(reads[loop.consts + loop.carries :]) and not any(reads[: loop.consts])


def recurrence_of(segment: Segment, core: Segment, work: Work) -> Recurrence | None:
    """The loop that a segment is, but for reshapes and shifts around its ``core``; ``None``: it is none."""
    if len(core.equations) != 1 or core.equations[0].name != "scan" or not all(map(is_var, core.outputs)):
        return None
    eqn, inputs = core.equations[0].eqn, set(core.inputs)
    reads = [is_var(atom) and atom in inputs for atom in eqn.invars]
    if (
        eqn.effects
        or scan_of(eqn).length < 2
        or sum(reads) != len(core.inputs)  # one of them is read twice,
        or not inputs.issubset(filter(is_var, eqn.invars))  # or by nobody
        or not reads_rows(eqn, reads)
        or not set(core.outputs) <= set(eqn.outvars)
        or len(set(core.outputs)) != len(core.outputs)
    ):
        return None
    found = Recurrence(segment, core, work)
    numbers = [*(found.body.invars[k] for k in found.rows), *(found.body.outvars[k] for k in found.made)]
    one_dtype = len({dtype_of(var) for var in (*numbers, *core.inputs, *core.outputs)}) == 1
    return found if one_dtype and found.carries else None  # without carries the rows are positions
