"""Whose lens it is: fingerprints of the model (its program and the values of its parameters) and of every sample.

Arguments that hold floating-point numbers, but for the chain input, are the model's parameters; all else (tokens, keys,
masks) is a sample's own. Equal in every process and on every machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import is_inexact
from jaxchain.program.fingerprint import digests, tree_digest
from jaxchain.program.flow import fixed_draw
from jaxchain.program.reading import trace_program
from jaxchain.program.source import Site
from jaxchain.show.shapes import describe

__all__ = ["Model", "Parameters", "sample_digest"]


@dataclass(frozen=True)
class Program:
    """A model's program at samples of one shape: the digest of its equations, and of the arrays that it closed over."""

    equations: str
    constants: str


@dataclass(frozen=True)
class Model:
    """What tells a model from others.

    Attributes
    ----------
    parameters
        Digest of the arguments that hold floating-point numbers; empty where there are none.
    programs
        By the shape of a sample.
    jax
        The version that traced them: another one writes the same function differently.
    """

    parameters: str
    programs: tuple[tuple[str, Program], ...]
    jax: str

    @classmethod
    def of(cls, chain: Chain, args: tuple[Any, ...], parameters: str) -> Model:
        """The model that a chain is at these arguments, once nothing in it is random but by a key that it is given.

        Raises
        ------
        ValueError
            If it draws random numbers from a key of its own; names the line.
        """
        closed, _ = trace_program(chain, args)
        if (drawn := fixed_draw(closed)) is not None:
            msg = (
                f"The model draws random numbers ({drawn.primitive.name} at {Site.of(drawn)}) from a key that is none of its "
                "arguments: the same at every sample, so that the lens would be that of one draw. Turn what is random off "
                "(dropout: deterministic=True, inference=True), or make the key an argument of the function and give each "
                "sample one of its own."
            )
            raise ValueError(msg)
        program = Program(*digests(closed))
        return cls(parameters, ((shape_of_sample(chain, args), program),), jax.__version__)

    def unlike(self, other: Model, *, together: bool = False) -> str | None:
        """Why another model is not this one; ``None`` where it is.

        One that closes over its parameters is known by them at the same shape of sample alone, but for ``together``:
        the very same function, at another shape.
        """
        if self.parameters != other.parameters:
            return "its parameters have other values"
        ours, theirs = dict(self.programs), dict(other.programs)
        shared = ours.keys() & theirs.keys()
        if not (shared or self.parameters or together):
            return f"it closes over its parameters, which can only be compared at samples of the same shape, {' or '.join(ours)}"
        for shape in shared:
            if self.jax == other.jax and ours[shape].equations != theirs[shape].equations:
                return "its program is another"
            if (self.jax == other.jax or not self.parameters) and ours[shape].constants != theirs[shape].constants:
                return "the arrays that it closes over have other values"
        return None

    def joined(self, other: Model) -> Model:
        """The same model, known at the shapes of both."""
        return replace(self, programs=tuple({**dict(other.programs), **dict(self.programs)}.items()))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, told: dict[str, Any]) -> Model:
        """The inverse of `plain`."""
        return cls(told["parameters"], tuple((shape, Program(**one)) for shape, one in told["programs"]), told["jax"])


def _own(args: tuple[Any, ...], at: int) -> list[int]:
    """The arguments that belong to a sample alone."""
    return [k for k, arg in enumerate(args) if k == at or not any(map(is_inexact, jax.tree.leaves(arg)))]


def shape_of_sample(chain: Chain, args: tuple[Any, ...]) -> str:
    """Shapes and dtypes of what a sample brings."""
    return ", ".join(describe(args[k], short=True) for k in _own(args, chain.argnum % len(args)))


def sample_digest(chain: Chain, args: tuple[Any, ...], valid: np.ndarray[Any, Any]) -> str:
    """Of what a sample brings, and of the positions that count."""
    return tree_digest([args[k] for k in _own(args, chain.argnum % len(args))], valid)


@dataclass
class Parameters:
    """The digest of parameters, sample after sample: read again only where they are other arrays than before."""

    seen: list[Any] = field(default_factory=list[Any])
    digest: str = ""

    def of(self, chain: Chain, args: tuple[Any, ...]) -> str:
        """Of the arguments that hold floating-point numbers; empty where there are none."""
        own = _own(args, chain.argnum % len(args))
        model = [arg for k, arg in enumerate(args) if k not in own]
        leaves = jax.tree.leaves(model)
        # JAX's arrays never change; NumPy's are written to in place.
        same = len(leaves) == len(self.seen) and all(
            a is b and isinstance(a, jax.Array) for a, b in zip(leaves, self.seen, strict=True)
        )
        if not same:
            self.seen, self.digest = leaves, tree_digest(model) if model else ""
        return self.digest
