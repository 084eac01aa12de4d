"""What a stage is: one named pure function of a chain, of its state and its side inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax

from jaxchain.checks import shown
from jaxchain.errors import StageError
from jaxchain.show.escape import escaped
from jaxchain.show.shapes import describe

__all__ = ["INPUT", "MergedStage", "Side", "Stage", "StageRow", "State", "along"]

State = Any
"""The value between two stages: an array or a pytree of arrays."""

Side = tuple[Any, ...]
"""What a stage reads before its state, as positional arguments: ``stage(*side, state)``."""

INPUT = "input"
"""The name of the state x_0, which no stage made."""


def along(name: str, argument: int) -> str:
    """Along which argument, or from which state on where that one has no derivative; ``name`` is the state x_0's."""
    return f"along argument {argument}" if name == INPUT else f"from {name} on, which argument {argument} enters"


class StageRow(NamedTuple):
    """What a table of stages says of one; ``None`` where it is not known without arguments."""

    name: str
    in_shape: str | None
    out_shape: str | None
    parameters: int
    flops: float | None
    equations: int | None
    why: str = ""
    """Why the stage is not cut further, where it has more than one equation."""


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

    Examples
    --------
    >>> layer = jc.Stage("dense", lambda w, x: w @ x, init=lambda key: jnp.ones((3, 2)))
    >>> layer(layer.init(jax.random.key(0)), jnp.array([1.0, 2.0])).tolist()
    [3.0, 3.0, 3.0]
    """

    name: str
    fn: Callable[..., State]
    init: Callable[[jax.Array], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"A stage needs a name that is a non-empty string; this one was given {shown(self.name)}."
            raise ValueError(msg)
        if not self.name.isascii() and self.name != self.name.encode("utf-8", "replace").decode():
            msg = f"A stage's name is to be printed, but {self.name!r} holds half of a surrogate pair. Choose another name."
            raise ValueError(msg)
        if self.name == INPUT:
            msg = f"A stage cannot be named {INPUT!r}: that is the name of the chain input x_0. Choose another name."
            raise ValueError(msg)
        for role, value in (("fn", self.fn), ("init", self.init)):
            if not callable(value) and not (role == "init" and value is None):
                msg = f"Stage {self.name!r}: {role} must be callable, but it is {shown(value)}."
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
            with jax.named_scope(self.name):  # so that profilers and `discover` can tell stages apart
                return self.fn(*args)
        except (TypeError, ValueError) as error:
            if self._takes(*args):
                raise  # about something else than the state's shape, such as a derivative that does not exist
            given = describe(args[-1]) if args else "nothing"
            msg = (
                f"Stage {self.name!r} cannot be applied to the state that it was given, {given}. "
                f"Its function said: {escaped(str(error), lines=True).rstrip('.')}. Make the stage before it give what this one takes."
            )
            raise StageError(msg) from error

    def _takes(self, *args: Any) -> bool:
        """Whether the function accepts arguments of these shapes."""
        try:
            jax.eval_shape(self.fn, *args)
        except jax.errors.JAXTypeError:
            return True
        except (TypeError, ValueError):
            return False
        return True

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

    @property
    def branches(self) -> tuple[Sequence[Stage], ...]:
        """The terms of a stage known to be a sum, as chains ``branch(*side, state)``; else empty."""
        return ()

    @property
    def carries(self) -> tuple[bool, ...] | None:
        """Which leaves of its state carry a derivative from the chain input; ``None``: all real or complex ones."""
        return None

    @property
    def carries_back(self) -> tuple[bool, ...] | None:
        """The same of its side inputs and state, from any argument of the chain: what a cotangent is asked for."""
        return None

    @property
    def row(self) -> StageRow:
        """What `print` shows of it."""
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.params_like))
        return StageRow(self.name, None, None, size, None, None)


@dataclass(frozen=True)
class MergedStage(Stage):
    """Neighbouring stages as one: ``stage(*sides, state)`` with the tuple of side inputs of each part."""

    parts: tuple[Stage, ...] = ()

    @classmethod
    def of(cls, name: str, parts: tuple[Stage, ...]) -> MergedStage:
        """The stage that ``parts`` compose to."""

        def fn(*args: Any) -> State:
            *sides, state = args
            for part, side in zip(parts, sides, strict=True):
                state = part(*side, state)
            return state

        return cls(name, fn, None, parts)

    @property
    def carries(self) -> tuple[bool, ...] | None:
        """Of its first part."""
        return self.parts[0].carries

    @property
    def carries_back(self) -> tuple[bool, ...] | None:
        """Side inputs of all parts, then the state of the first; known where every part's are."""
        known = [(part.carries_back, part.carries) for part in self.parts]
        if any(back is None or state is None for back, state in known):
            return None
        sides = [back[: len(back) - len(state)] for back, state in known if back is not None and state is not None]
        first = self.parts[0].carries_back or ()
        return (*itertools.chain(*sides), *first[len(sides[0]) :])

    @property
    def row(self) -> StageRow:
        """The sum over its parts."""
        rows = [part.row for part in self.parts]
        work = None if any(r.flops is None for r in rows) else sum(r.flops or 0.0 for r in rows)
        equations = None if any(r.equations is None for r in rows) else sum(r.equations or 0 for r in rows)
        why = "; ".join(f"in {r.name} {r.why}" for r in rows if r.why)
        return StageRow(
            self.name, rows[0].in_shape, rows[-1].out_shape, sum(r.parameters for r in rows), work, equations, why
        )
