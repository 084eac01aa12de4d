"""Where the side inputs of a chain's stages come from: its other arguments, such as parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from jaxchain.errors import ParameterMismatchError
from jaxchain.show.shapes import describe
from jaxchain.stage import Side, Stage

__all__ = ["GivenSides", "MergedSides", "ParameterSides", "Sides"]


class Sides(Protocol):
    """Turns a chain's other arguments into one tuple of side inputs a stage; can be sliced with it."""

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """One tuple a stage, from the arguments beside the chain input."""
        ...

    def __getitem__(self, index: slice, /) -> Sides:
        """The same for some neighbouring stages."""
        ...

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters, where the stages know how to make them."""
        ...


@dataclass(frozen=True)
class ParameterSides:
    """Side inputs of a chain of ready-made stages: each reads its own entry of the dict ``params``."""

    stages: tuple[Stage, ...]
    known: frozenset[str]
    """Names in the chain that this one was cut from: a slice takes the parameters of the whole."""

    def __getitem__(self, index: slice, /) -> ParameterSides:
        return ParameterSides(self.stages[index], self.known)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters of every stage that has some."""
        keys = jax.random.split(key, len(self.stages))
        return {s.name: s.init(k) for s, k in zip(self.stages, keys, strict=True) if s.init is not None}

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """Each stage's entry of ``params``, once it is known to belong to this chain."""
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


@dataclass(frozen=True)
class GivenSides:
    """Side inputs of a chain that is given them, ready, as its other argument: a tuple with an entry a stage."""

    picked: range
    """Which of them are this chain's: a slice takes those of the whole."""

    def __getitem__(self, index: slice, /) -> GivenSides:
        return GivenSides(self.picked[index])

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Nothing: they are given."""
        del key
        return {}

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """The stages' own, of what was given."""
        (sides,) = others
        return tuple(sides[k] for k in self.picked)


@dataclass(frozen=True)
class MergedSides:
    """Side inputs of a chain some of whose stages are merged."""

    parts: Sides
    groups: tuple[tuple[int, int], ...]
    """Of each stage, the range of parts that it is made of."""

    def __getitem__(self, index: slice, /) -> MergedSides:
        groups = self.groups[index]
        start = groups[0][0] if groups else 0
        parts = self.parts[start : groups[-1][1] if groups else 0]
        return MergedSides(parts, tuple((a - start, b - start) for a, b in groups))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Parameters of the parts: merging does not change them."""
        return self.parts.init(key)

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """Side inputs of the parts, bundled for the merged stages."""
        sides = self.parts(*others)
        return tuple(sides[a] if b - a == 1 else sides[a:b] for a, b in self.groups)
