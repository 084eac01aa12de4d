"""What a chain is: named stages f_1 … f_q, composed to h = f_q ∘ … ∘ f_1.

A stage maps a *state* (an array or a pytree) to the next one and may read *side inputs*:
parameters, for the networks of `jaxchain.nets`. Builds on `stage` and `sides`; knows nothing of
the rest of jaxchain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, overload

import jax

from jaxchain.checks import integer, random_key, shown, text
from jaxchain.errors import unknown
from jaxchain.show.table import Table, Tabular, si
from jaxchain.show.values import count
from jaxchain.sides import MergedSides, ParameterSides, Sides
from jaxchain.stage import INPUT, MergedStage, Side, Stage, StageRow, State

__all__ = ["Chain"]

BEGINS = "The argument is integers, which have no derivative: the chain begins at {}, {}, {}."
FIRST = "the first floating-point state, through which alone everything after depends on them"


@jax.tree_util.register_static  # so that a chain can be passed through jit, vmap and grad
@dataclass(frozen=True, eq=False)
class Chain(Tabular, Sequence[Stage]):
    """An immutable sequence of stages and the function h = f_q ∘ … ∘ f_1 that they compose to.

    Parameters
    ----------
    stages
        At least one; names unique.
    sides
        Where the stages' side inputs come from. Default: from a dict of parameters.
    argnum
        Position of the chain input among the arguments of a call.
    lead
        Stages before the chain that make its input of that argument, where it has no derivative (tokens); side inputs
        are then theirs, too, and come from all arguments.

    Raises
    ------
    ValueError
        If there is no stage, or two have the same name.
    TypeError
        If something in ``stages`` is not a `Stage`.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, ch. 2 and 3.

    Examples
    --------
    >>> chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("sine", jnp.sin)])
    >>> f"{chain(2.0):.4f}"  # sin(2²)
    '-0.7568'
    >>> chain.names, chain["sine"].name, chain[:1]
    (('square', 'sine'), 'sine', Chain(square))
    """

    stages: tuple[Stage, ...]
    sides: Sides
    argnum: int = -1
    lead: tuple[Stage, ...] = ()

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        sides: Sides | None = None,
        argnum: int = -1,
        lead: tuple[Stage, ...] = (),
    ) -> None:
        if not isinstance(stages, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"A chain is made of a list of stages, but {shown(stages)} was given."
            raise TypeError(msg)
        stages = tuple(stages)
        for stage in stages:
            if not isinstance(stage, Stage):  # pyright: ignore[reportUnnecessaryIsInstance]
                msg = f"A chain is made of stages, but {shown(stage)} is none. Wrap it: jc.Stage(name, function)."
                raise TypeError(msg)
        names = [stage.name for stage in stages]
        if not names:
            msg = "A chain needs at least one stage; this one has none."
            raise ValueError(msg)
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            msg = f"Stage names must be unique within a chain; used more than once: {twice}. Rename those stages."
            raise ValueError(msg)
        object.__setattr__(self, "stages", stages)
        if not (sides is None or callable(sides)):
            msg = f"sides is what computes the stages' side inputs, a `Sides` or None, but {shown(sides)} was given."
            raise TypeError(msg)
        argnum = integer("argnum", argnum, "the position of the chain input")
        object.__setattr__(self, "sides", sides or ParameterSides(stages, frozenset(names)))
        object.__setattr__(self, "argnum", argnum)
        object.__setattr__(self, "lead", lead)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in order of evaluation."""
        return tuple(stage.name for stage in self.stages)

    @property
    def names_with_input(self) -> tuple[str, ...]:
        """The names of the states x_0 … x_q: ``"input"``, or what makes it of tokens, then each stage's."""
        return (self.lead[-1].name if self.lead else INPUT, *self.names)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters: stage name → that stage's parameters; stages without any are left out.

        Raises
        ------
        TypeError
            If the chain was discovered: its function's own arguments are its parameters.

        Examples
        --------
        >>> params = jc.nets.mlp([3, 2, 1]).init(jax.random.key(0))
        >>> jax.tree.map(jnp.shape, params)
        {'dense_0': {'b': (2,), 'w': (2, 3)}, 'dense_1': {'b': (1,), 'w': (1, 2)}}
        """
        return self.sides.init(random_key(key))

    def split(self, *args: Any) -> tuple[State, tuple[Side, ...]]:
        """The chain input x_0 and each stage's side inputs, from the arguments of a call.

        A pure function: its own VJP carries cotangents of states and side inputs back to the
        arguments.

        Raises
        ------
        TypeError
            If the number of arguments is not the chain's.
        ParameterMismatchError
            If ``params`` belongs to another chain; names the stage.

        Examples
        --------
        >>> net = jc.nets.mlp([3, 2, 1])
        >>> state, sides = net.split(net.init(jax.random.key(0)), jnp.ones(3))
        >>> state.shape, [len(side) for side in sides]  # a dense stage reads its parameters, relu reads nothing
        ((3,), [1, 0, 1])
        """
        if not -len(args) <= self.argnum < len(args):
            msg = f"The chain input is argument {self.argnum}, but {len(args)} arguments were given."
            raise TypeError(msg)
        position = self.argnum % len(args)
        if not self.lead:
            return args[position], self.sides(*args[:position], *args[position + 1 :])
        state, sides = args[position], self.sides(*args)
        for stage, side in zip(self.lead, sides, strict=False):
            state = stage(*side, state)
        return state, sides[len(self.lead) :]

    def __call__(self, *args: Any) -> State:
        """h(args): ``chain(x)``, or ``chain(params, x)`` where a stage has parameters."""
        state, sides = self.split(*args)
        for stage, side in zip(self.stages, sides, strict=True):
            state = stage(*side, state)
        return state

    def __len__(self) -> int:
        return len(self.stages)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    @overload
    def __getitem__(self, index: int | str, /) -> Stage: ...
    @overload
    def __getitem__(self, index: slice, /) -> Self: ...
    def __getitem__(self, index: int | str | slice, /) -> Stage | Self:
        """A stage by position or name, or a slice, which is a chain again and takes the whole's arguments.

        Of a chain along tokens a slice takes the tokens, too, and begins at the state that they lead to there.
        """
        if isinstance(index, slice):
            if index.step not in (None, 1):
                msg = f"A slice of a chain keeps neighbouring stages together, so its step must be 1, not {index.step}."
                raise ValueError(msg)
            first, last, _ = index.indices(len(self))
            if self.lead:
                lead = (*self.lead, *self.stages[:first])
                return replace(
                    self, stages=self.stages[index], sides=self.sides[: max(first, last) + len(self.lead)], lead=lead
                )
            return replace(self, stages=self.stages[index], sides=self.sides[index])
        return self.stages[self._number(index)]

    def _number(self, index: int | str) -> int:
        """A stage's number from 0, of its position or name."""
        if isinstance(index, str):
            return self.position(index)
        at: int = integer("A stage", index, "chosen by its name or position")
        if not -len(self) <= at < len(self):
            msg = f"There is no stage {at}: the chain has {len(self)} stage{'s' * (len(self) != 1)}, counted from 0."
            raise IndexError(msg)
        return at % len(self)

    def position(self, name: str) -> int:
        """Where the stage of this name, or the only one whose name begins so, stands.

        Raises
        ------
        KeyError
            If there is none, or several begin so; suggests the nearest names.

        Examples
        --------
        >>> net = jc.nets.mlp([3, 2, 1])
        >>> net.position("dense_1"), net.position("relu")
        (2, 1)
        """
        names = self.names
        text("A stage's name", name)
        if name in names:
            return names.index(name)
        begun = [other for other in names if other.startswith(name)]
        if len(begun) == 1:
            return names.index(begun[0])
        if begun:
            msg = f"{len(begun)} stages have names that begin with {name!r}: {', '.join(begun[:5])}. Say which."
            raise KeyError(msg)
        raise KeyError(unknown("stage", name, names))

    def merge(self, first: int | str, last: int | str, name: str | None = None) -> Chain:
        """The same chain with the stages from ``first`` to ``last``, both included, made one.

        The result takes the same arguments, parameters included.

        Parameters
        ----------
        first, last
            Stages by position or name.
        name
            Of the new stage; default: the two names, joined by ``..``.

        Raises
        ------
        KeyError, IndexError
            If there is no such stage.
        ValueError
            If ``last`` comes before ``first``.

        Examples
        --------
        >>> net = jc.nets.mlp([3, 2, 1])
        >>> net.merge("dense_0", "relu_0", "hidden").names
        ('hidden', 'dense_1')
        """
        start, stop = self._number(first), self._number(last)
        text("name", name, optional=True)
        if stop < start:
            msg = f"merge joins the stages from first to last, but {self.names[stop]!r} comes before {self.names[start]!r}. Swap them."
            raise ValueError(msg)
        parts = self.stages[start : stop + 1]
        if len(parts) == 1:
            renamed = replace(parts[0], name=name or parts[0].name)
            return replace(self, stages=(*self.stages[:start], renamed, *self.stages[stop + 1 :]))
        before = len(self.lead)
        groups = (
            *((k, k + 1) for k in range(start + before)),
            (start + before, stop + 1 + before),
            *((k, k + 1) for k in range(stop + 1 + before, len(self) + before)),
        )
        merged = MergedStage.of(name or f"{parts[0].name}..{parts[-1].name}", parts)
        stages = (*self.stages[:start], merged, *self.stages[stop + 1 :])
        return replace(self, stages=stages, sides=MergedSides(self.sides, groups))

    @property
    def rows(self) -> tuple[StageRow, ...]:
        """What is known of each stage."""
        return tuple(stage.row for stage in self.stages)

    def _brief(self) -> str:
        return " → ".join(self.names if len(self) <= 12 else (*self.names[:6], "…", *self.names[-5:]))

    def _table(self) -> Table:
        header = ("stage", "input", "output", "parameters", "work", "equations")
        text = [
            (
                r.name,
                r.in_shape or "",
                r.out_shape or "",
                f"{r.parameters:,}",
                "" if r.flops is None else si(r.flops, "FLOP"),
                str(r.equations or ""),
            )
            for r in self.rows
        ]
        known = [k for k, _ in enumerate(header) if any(row[k] for row in text)]
        whole: dict[str, list[str]] = {}
        for r in self.rows:
            whole.setdefault(r.why, []).append(r.name)
        notes = [f"{_several(names)}: {why}." for why, names in whole.items() if why]
        begins = f" from {self.names_with_input[0]} on" if self.lead else ""
        along = f" along argument {self.argnum}" if self.argnum != -1 else ""
        if self.lead:
            first = FIRST if len(self.lead) == 1 else "a state that they lead to"
            notes = [BEGINS.format(self.names_with_input[0], self.rows[0].in_shape, first), *notes]
        return Table(
            f"Chain of {count(len(self), 'stage')}{begins}{along}",
            [header[k] for k in known],
            [[row[k] for k in known] for row in text],
            notes,
        )


def _several(names: list[str]) -> str:
    """``a is one stage``, ``a and b are one stage each``, ``a … z (26) are one stage each``."""
    if len(names) == 1:
        return f"{names[0]} is one stage"
    listed = " and ".join(names) if len(names) == 2 else f"{names[0]} … {names[-1]} ({len(names)} stages)"
    return f"{listed} are one stage each"
