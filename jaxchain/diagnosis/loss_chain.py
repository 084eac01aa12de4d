"""The chain of a training loss: along which of its data, and what beside the loss is computed on the way.

A loss reads parameters first and data after them: inputs, labels, masks, keys. Along one array of these the program
meets most parameters (then: has most stages), and that is what a person calls the network. Builds on `discovery`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.chain import Chain
from jaxchain.diagnosis.layout import reading_parameters
from jaxchain.discovery.find import Found, find
from jaxchain.discovery.group import Granularity, group
from jaxchain.errors import first_line, unknown
from jaxchain.program.flat import needed
from jaxchain.program.flow import active, dependent
from jaxchain.program.primitives import Var, function_of, is_var, opened
from jaxchain.program.segment import Segment
from jaxchain.show.shapes import describe

__all__ = ["Arrays", "LossChain", "loss_chain"]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A call's arguments, the arrays among them apart from whatever else a model holds (functions, numbers, names).

    Attributes
    ----------
    leaves
        Everything, in order.
    tree
        Its structure.
    places
        Which of the leaves are arrays.
    parameters
        How many of these arrays belong to the first argument.
    """

    leaves: list[Any]
    tree: Any
    places: tuple[int, ...]
    parameters: int

    @classmethod
    def of(cls, args: tuple[Any, ...], named: dict[str, Any]) -> Arrays:
        """Those of a call."""
        leaves, tree = jax.tree.flatten((args, named))
        places = tuple(k for k, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray, np.generic)))
        first = len(jax.tree.leaves(args[:1]))
        return cls(leaves, tree, places, sum(k < first for k in places))

    @property
    def values(self) -> list[Any]:
        """The arrays."""
        return [self.leaves[k] for k in self.places]

    def with_values(self, values: Mapping[int, Any]) -> Arrays:
        """The same with other arrays in some places."""
        leaves = list(self.leaves)
        for k, value in values.items():
            leaves[self.places[k]] = value
        return replace(self, leaves=leaves)

    def call(self, fun: Callable[..., Any], values: Sequence[Any]) -> Any:
        """``fun`` with other arrays in their places."""
        leaves = list(self.leaves)
        for place, value in zip(self.places, values, strict=True):
            leaves[place] = value
        args, named = self.tree.unflatten(leaves)
        return fun(*args, **named)

    @property
    def paths(self) -> list[str]:
        """Where each array stands: ``1/x`` is entry ``x`` of the second argument; named ones by their names."""
        numbered = tree_flatten_with_path(self.tree.unflatten(range(len(self.leaves))))[0]
        paths = [keystr(path[1:], simple=True, separator="/") for path, _ in numbered]
        return [paths[k] for k in self.places]


@dataclass(frozen=True, eq=False)
class LossChain:
    """A loss as a chain along one of its arrays.

    Attributes
    ----------
    chain
        It takes all other arrays as a list, then that one.
    found
        The program that it was cut from.
    order
        Which array comes where: the others, then the one.
    values
        The arrays of this call; more than were given, where the loss closes over values that are being traced.
    """

    chain: Chain
    found: Found
    order: tuple[int, ...]
    values: tuple[Any, ...]

    def args(self, values: Sequence[Any]) -> tuple[list[Any], Any]:
        """The chain's arguments."""
        *others, along = (values[k] for k in self.order)
        return others, along

    @property
    def taps(self) -> Mapping[int, tuple[Var, ...]]:
        """The variables inside of each stage that what is returned beside the loss is made of."""
        inside = {id(e): k for k, stage in enumerate(self._segments) for e in stage.equations}
        wanted = {var for e in self._aside for var in e.reads} | set(filter(is_var, self.found.aux_outs))
        taps: dict[int, list[Var]] = {}
        for equation in self.found.program.equations:
            if (stage := inside.get(id(equation))) is not None:
                taps.setdefault(stage, []).extend(var for var in equation.writes if var in wanted)
        return {k: tuple(variables) for k, variables in taps.items() if variables}

    def aux(self, values: Sequence[Any], tapped: Mapping[Var, Any]) -> Any:
        """What the loss returns beside its value."""
        program, known = self.found.program, tuple(tapped)
        segment = Segment(tuple(self._aside), (*program.invars, *known), self.found.aux_outs, program)
        others, along = self.args(values)
        return self.found.aux_tree.unflatten(segment.call(*others, along, *(tapped[var] for var in known)))

    @property
    def _segments(self) -> list[Segment]:
        return [stage.segment for stage in self.chain]  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _aside(self) -> list[Any]:
        """The equations that only what is returned beside the loss needs."""
        inside = {id(e) for segment in self._segments for e in segment.equations}
        outside = [e for e in self.found.program.equations if id(e) not in inside]
        return needed(outside, filter(is_var, self.found.aux_outs))


def loss_chain(
    loss: Callable[..., Any],
    arrays: Arrays,
    *,
    along: str | None,
    has_aux: bool,
    granularity: Granularity,
    unroll_limit: int,
) -> LossChain:
    """The chain of a loss, along the array of its data that meets most parameters, or along the one that is named.

    Raises
    ------
    KeyError
        If no array is named ``along``; suggests the nearest.
    TypeError
        If there are no data, or no array of them leads to the loss.
    """
    values = arrays.values

    def call(values: Sequence[Any]) -> Any:
        result = arrays.call(loss, values)
        if has_aux and not (isinstance(result, tuple) and len(result) == 2):  # pyright: ignore[reportUnknownArgumentType]
            msg = f"With has_aux=True the loss returns a pair (loss, aux), but this one returns {describe(result)}."
            raise TypeError(msg)
        return result

    best: tuple[int, Found, tuple[int, int]] | None = None
    refused: list[str] = []
    paths = arrays.paths
    for at in _candidates(arrays, along):
        try:
            found = _found(call, values, at, has_aux, unroll_limit)
        except TypeError as error:
            if not jnp.issubdtype(values[at].dtype, jnp.integer) or "chain input is" not in str(error):
                raise
            refused.append(f"along {paths[at]}: {first_line(error)}")
            continue
        score = _weights_read(found, arrays.parameters), len(found.segments)
        if best is None or score > best[2]:
            best = at, found, score
    if best is None:
        msg = "The loss reads no array of data along which it can be watched. " + "; ".join(refused)
        raise TypeError(msg)
    at, found, _ = best
    traced = {id(value): value for value in opened(found.closed)[1] if isinstance(value, Tracer)}
    if traced:  # a derivative with respect to what a function closes over is asked of its arguments alone
        call, values = _with_constants(found, at, len(values), list(traced.values())), [*values, *traced.values()]
        found = _found(call, values, at, has_aux, unroll_limit)
    chain = reading_parameters(found.chain(group(found.segments, granularity)))
    order = (*(k for k in range(len(values)) if k != at), at)
    return LossChain(chain, found, order, tuple(values))


def _weights_read(found: Found, parameters: int) -> int:
    """How many values that are made of the first ``parameters`` arrays alone enter stages that pass derivatives on."""
    program, count = found.program, 0
    moved = active(program.eqns, program.invars[:parameters])
    with_data = dependent(program.eqns, program.invars[parameters:])
    for segment in found.segments:
        count += sum(var in moved and var not in with_data for var in segment.sides)
    return count


def _candidates(arrays: Arrays, along: str | None) -> list[int]:
    """The arrays of data that a loss may be watched along."""
    paths, values = arrays.paths, arrays.values
    numbers = [
        k
        for k in range(arrays.parameters, len(values))
        if jnp.issubdtype(values[k].dtype, jnp.floating) or jnp.issubdtype(values[k].dtype, jnp.integer)
    ]
    if along is not None:
        named = [k for k in numbers if paths[k] == along] or [k for k in numbers if paths[k].endswith(f"/{along}")]
        if not named:
            raise KeyError(unknown("array of data", along, [paths[k] for k in numbers] or ["(there are none)"]))
        return named[:1]
    if not numbers:
        given = describe(tuple(arrays.leaves))[:200]
        msg = f"A loss is watched along its data: watched(params, batch), parameters first. But no array comes after the first argument: {given}. Give the batch as an argument, and do not close over it."
        raise TypeError(msg)
    return numbers


def _found(call: Callable[..., Any], values: Sequence[Any], at: int, has_aux: bool, unroll_limit: int) -> Found:
    others = [value for k, value in enumerate(values) if k != at]

    def fun(others: list[Any], along: Any) -> Any:
        return call([*others[:at], along, *others[at:]])

    return find(fun, (others, values[at]), -1, unroll_limit, has_aux=has_aux, begin=True)


def _with_constants(found: Found, at: int, count: int, constants: list[Any]) -> Callable[..., Any]:
    """The function that was traced, of its arrays and then of the constants that are being traced."""
    jaxpr, consts = opened(found.closed)
    numbers = {id(value): number for number, value in enumerate(constants)}
    trees = [found.out_tree] if found.aux_tree is None else [found.out_tree, found.aux_tree]

    def call(values: Sequence[Any]) -> Any:
        given, extra = list(values[:count]), values[count:]
        along = given.pop(at)
        known = [extra[numbers[id(value)]] if id(value) in numbers else value for value in consts]
        results = iter(function_of(jaxpr, known)(*given, along))
        outs = [tree.unflatten(itertools.islice(results, tree.num_leaves)) for tree in trees]
        return outs[0] if found.aux_tree is None else tuple(outs)

    return call
