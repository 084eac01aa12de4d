"""What a chain is: named stages f_1 … f_q, composed to h = f_q ∘ … ∘ f_1.

A stage maps a *state* (an array or a pytree) to the next one and may read *side inputs*:
parameters, for the networks of `jaxchain.nets`. This module builds on JAX alone and knows
nothing of the rest of jaxchain.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self, overload

import jax

from jaxchain.errors import ParameterMismatchError, StageError

__all__ = ["Chain", "Stage"]


State = Any
"""The value between two stages: an array or a pytree of arrays."""

Side = tuple[Any, ...]
"""What a stage reads before its state, as positional arguments: ``stage(*side, state)``."""

INPUT = "input"
"""The name of the state x_0, which no stage made."""


def describe(value: Any) -> str:
    """Shapes and dtypes in one line: ``float32[256]``, ``{'h': float32[8], 'c': float32[8]}``."""

    def one(leaf: Any) -> str:
        try:
            aval = leaf if hasattr(leaf, "str_short") else jax.typeof(leaf)
            return aval.str_short()
        except TypeError:
            return type(leaf).__name__

    return str(jax.tree.map(lambda leaf: _Bare(one(leaf)), value))


class _Bare(str):
    """A string that prints without quotes inside a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Stage:
    """One link f_k of a chain: a pure function of its state and its side inputs.

    Parameters
    ----------
    name
        Not empty, unique within its chain; ``"input"`` is the chain input's own name.
    fn
        ``fn(x) -> y``, or ``fn(params, x) -> y`` where ``init`` is given. Works on one sample.
    init
        ``init(key) -> params``, a pytree of arrays. ``None``: the stage has no parameters.

    Raises
    ------
    ValueError
        If the name is empty or reserved.
    TypeError
        If ``fn`` or ``init`` is not callable.
    """

    name: str
    fn: Callable[..., State]
    init: Callable[[jax.Array], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"A stage needs a name that is a non-empty string; this one was given {self.name!r}."
            raise ValueError(msg)
        if self.name == INPUT:
            msg = f"A stage cannot be named {INPUT!r}: that is the name of the chain input x_0. Choose another name."
            raise ValueError(msg)
        for role, value in (("fn", self.fn), ("init", self.init)):
            if not callable(value) and not (role == "init" and value is None):
                msg = f"Stage {self.name!r}: {role} must be callable, but it is {value!r}."
                raise TypeError(msg)

    def __call__(self, *args: Any) -> State:
        """Apply the stage: ``stage(*side, state)``, so ``stage(x)`` or ``stage(params, x)``.

        Raises
        ------
        StageError
            If the function refuses its arguments; names the stage and the state's shape. JAX's
            own errors about tracers pass unchanged.
        """
        try:
            return self.fn(*args)
        except jax.errors.JAXTypeError:
            raise
        except (TypeError, ValueError) as error:
            given = describe(args[-1]) if args else "nothing"
            msg = (
                f"Stage {self.name!r} cannot be applied to the state that it was given, {given}. "
                f"Its function said: {str(error).rstrip('.')}. Make the stage before it give what this one takes."
            )
            raise StageError(msg) from error

    @cached_property
    def params_like(self) -> Any:
        """What ``init`` returns, as shapes and dtypes; ``None`` where that cannot be known abstractly."""
        init = self.init
        if init is None:
            return None
        try:
            return jax.eval_shape(lambda: init(jax.random.key(0)))
        except jax.errors.JAXTypeError:  # an init that computes with NumPy; legal, only not checkable
            return None


class Sides(Protocol):
    """Turns a chain's other arguments into one tuple of side inputs a stage; can be sliced with it."""

    def __call__(self, *others: Any) -> tuple[Side, ...]: ...

    def __getitem__(self, index: slice, /) -> Sides: ...


@dataclass(frozen=True)
class ParameterSides:
    """Side inputs of a chain of ready-made stages: each reads its own entry of the dict ``params``."""

    stages: tuple[Stage, ...]
    known: frozenset[str]
    """Names in the chain that this one was cut from: a slice takes the parameters of the whole."""

    def __getitem__(self, index: slice, /) -> ParameterSides:
        return ParameterSides(self.stages[index], self.known)

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        owners = [stage for stage in self.stages if stage.init is not None]
        if not owners:
            # A slice without parameters still accepts those of the whole, so that slices are interchangeable.
            if others and not (len(others) == 1 and isinstance(others[0], dict) and self.known.issuperset(others[0])):
                msg = f"No stage of this chain has parameters: call it with the state alone, not with {len(others) + 1} arguments."
                raise TypeError(msg)
            return ((),) * len(self.stages)
        if len(others) != 1:
            msg = (
                f"Stage {owners[0].name!r} has parameters, so this chain takes two arguments: "
                f"chain(params, x) with params = chain.init(key). It was given {len(others) + 1}."
            )
            raise TypeError(msg)
        params = others[0]
        self._check(params, owners)
        return tuple(() if stage.init is None else (params[stage.name],) for stage in self.stages)

    def _check(self, params: Any, owners: Sequence[Stage]) -> None:
        way_out = "Use params = chain.init(key) of this very chain."
        if not isinstance(params, dict):
            msg = f"Parameters are a dict from stage name to that stage's parameters, but a {type(params).__name__} was given. {way_out}"
            raise ParameterMismatchError(msg)
        missing = [stage.name for stage in owners if stage.name not in params]
        foreign = sorted(str(name) for name in set(params) - self.known)
        if missing or foreign:
            parts = [f"no entry for {missing}"] * bool(missing) + [
                f"entries for {foreign}, which are no stages here"
            ] * bool(foreign)
            msg = f"These are the parameters of another chain: {' and '.join(parts)}. {way_out}"
            raise ParameterMismatchError(msg)
        for stage in owners:
            want, got = stage.params_like, params[stage.name]
            if want is None or _shapes(want) == _shapes(got):
                continue
            msg = (
                f"Parameters of stage {stage.name!r} are {describe(got)}, but the stage takes {describe(want)}: "
                f"they belong to another chain. {way_out}"
            )
            raise ParameterMismatchError(msg)


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [jax.numpy.shape(leaf) for leaf in leaves]


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Sequence[Stage]):
    """An immutable sequence of stages and the function h = f_q ∘ … ∘ f_1 that they compose to.

    Parameters
    ----------
    stages
        At least one; names unique.
    sides
        Where the stages' side inputs come from. Default: from a dict of parameters.
    argnum
        Position of the chain input among the arguments of a call.

    Raises
    ------
    ValueError
        If there is no stage, or two have the same name.
    TypeError
        If something in ``stages`` is not a `Stage`.
    """

    stages: tuple[Stage, ...]
    sides: Sides
    argnum: int = -1

    def __init__(self, stages: Iterable[Stage], *, sides: Sides | None = None, argnum: int = -1) -> None:
        stages = tuple(stages)
        for stage in stages:
            if not isinstance(stage, Stage):  # pyright: ignore[reportUnnecessaryIsInstance]
                msg = f"A chain is made of stages, but {stage!r} is none. Wrap it: jc.Stage(name, function)."
                raise TypeError(msg)
        names = [stage.name for stage in stages]
        if not names:
            msg = "A chain needs at least one stage; this one has none."
            raise ValueError(msg)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"Stage names must be unique within a chain; used more than once: {twice}. Rename those stages."
            raise ValueError(msg)
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "sides", sides or ParameterSides(stages, frozenset(names)))
        object.__setattr__(self, "argnum", argnum)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in order of evaluation."""
        return tuple(stage.name for stage in self.stages)

    @property
    def names_with_input(self) -> tuple[str, ...]:
        """The names of the states x_0 … x_q: ``"input"``, then each stage's."""
        return (INPUT, *self.names)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters: stage name → that stage's parameters; stages without any are left out."""
        keys = jax.random.split(key, len(self.stages))
        return {s.name: s.init(k) for s, k in zip(self.stages, keys, strict=True) if s.init is not None}

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
        """
        if not -len(args) <= self.argnum < len(args):
            msg = f"The chain input is argument {self.argnum}, but {len(args)} arguments were given."
            raise TypeError(msg)
        position = self.argnum % len(args)
        return args[position], self.sides(*args[:position], *args[position + 1 :])

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
        """A stage by position or name, or a slice, which is a chain again and takes the whole's arguments."""
        if isinstance(index, slice):
            if index.step not in (None, 1):
                msg = f"A slice of a chain keeps neighbouring stages together, so its step must be 1, not {index.step}."
                raise ValueError(msg)
            return type(self)(self.stages[index], sides=self.sides[index], argnum=self.argnum)
        if isinstance(index, str):
            return self.stages[self.position(index)]
        return self.stages[index]

    def position(self, name: str) -> int:
        """Where the stage of this name stands.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.
        """
        names = self.names
        if name in names:
            return names.index(name)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or list(names[:5])
        msg = f"No stage is named {name!r}. Nearest: {', '.join(near)}."
        raise KeyError(msg)

    def __repr__(self) -> str:
        return f"Chain({' → '.join(self.names)})"
