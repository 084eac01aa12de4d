"""Where a value holds the samples of a batch: on an axis, in the steps of a loop, nowhere, or nobody knows any more.

What is followed is the derivative: a value holds sample b where it has a derivative with respect to sample b. Integers
and stopped values hold none, however they were computed: what they select or decide changes with the batch in
steps, and between two steps the Jacobian is what the proof says. Inside a derivative rule that a user wrote (see
`Prover.of_values`) the values themselves are followed, integers too: there they *are* the derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from jaxchain.program.primitives import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxchain.program.source import Site

__all__ = ["OTHERS_ROWS", "Lost", "Mixes", "Place", "Prover", "Shared", "State", "Step", "Unproven", "joined"]


class Place(NamedTuple):
    """Which entries of a value belong to which of B samples: along ``axis``, entry p belongs to sample (p // inner) mod B.

    A plain batch axis has ``inner`` 1 and length B; a reshape may join it with others.
    """

    axis: int
    inner: int = 1

    def __str__(self) -> str:
        return f"axis {self.axis}"


class Step(NamedTuple):
    """A value inside a loop over the samples: all of it belongs to the sample of the current step.

    ``loop`` is how many loops are under way, the outermost being 1, so that nested ones can be told apart.
    """

    loop: int

    def __str__(self) -> str:
        return "the steps of a loop"


@dataclass(frozen=True)
class Lost:
    """What became of a value's batch: ``eqn`` mixed samples, or where not ``certain`` nobody knows.

    Attributes
    ----------
    eqn, reason
        The equation, and the end of a sentence that begins with its primitive.
    number
        Losses are counted in order of evaluation.
    site
        The user's line.
    adds
        Whether all that was done to samples, each by itself, is to add them up.
    """

    eqn: JaxprEqn
    reason: str
    certain: bool
    number: int
    site: Site
    adds: bool = False


class Shared(NamedTuple):
    """A value that does not depend on the batch, and is known to be the same for all samples at some places alone.

    Told from ``None`` only where a proof asks for one function of every sample (`jaxchain.samples.uniform`).
    """

    same: frozenset[Place]


State = Place | Step | Lost | Shared | None
"""Where a value holds the batch; ``None``: nowhere, all samples share it, or it carries no derivative."""


class Mixes(Exception):  # noqa: N818  # a verdict of a rule, never seen by a user
    """Samples meet in this equation; says how."""


class Unproven(Exception):  # noqa: N818
    """No rule can tell whether samples meet in this equation; says why."""


class Prover(Protocol):
    """What follows a batch through a program: `jaxchain.samples.proof.Batch`."""

    @property
    def samples(self) -> int:
        """B."""
        ...

    @property
    def loops(self) -> int:
        """How many loops over the samples are under way."""
        ...

    @property
    def derivatives(self) -> bool:
        """Whether derivatives are followed; else values."""
        ...

    @property
    def alike(self) -> bool:
        """Whether every sample must meet the same shared values."""
        ...

    @property
    def devices(self) -> frozenset[Any]:
        """The axes of a mesh of devices over which the samples are spread."""
        ...

    @property
    def depth(self) -> int:
        """How many primitives of others are being looked through."""
        ...

    def lost(self, eqn: JaxprEqn, reason: str, *, certain: bool) -> Lost:
        """The state of what ``eqn`` makes, where that loses the batch."""
        ...

    def walk(self, jaxpr: Jaxpr | ClosedJaxpr, states: Sequence[State]) -> list[State]:
        """The states of a program's results, from those of its arguments."""
        ...

    def inside_loop(self) -> Prover:
        """The same, within one more loop over the samples."""
        ...

    def of_values(self) -> Prover:
        """The same, of values, as in a program whose inputs are tangents or cotangents: integers hold samples, too."""
        ...

    def of_derivatives(self) -> Prover:
        """The same, of derivatives."""
        ...

    def deeper(self) -> Prover:
        """The same, within one more primitive of others."""
        ...

    def on_devices(self, devices: Iterable[Any], samples: int) -> Prover:
        """The same, on each of the devices over which the samples are spread; so many are there."""
        ...

    def rule(
        self, eqn: JaxprEqn, which: tuple[bool, ...], *, forward: bool
    ) -> tuple[ClosedJaxpr, list[int], list[int]]:
        """`jaxchain.derivative.rule_program`, each made once: a rule may refuse to be run again."""
        ...


def joined(batch: Prover, eqn: JaxprEqn, ones: Sequence[State], others: Sequence[State]) -> list[State]:
    """The states of values each of which is either of two."""
    return [_join(batch, eqn, one, other) for one, other in zip(ones, others, strict=True)]


def _join(batch: Prover, eqn: JaxprEqn, one: State, other: State) -> State:
    if one is None or one == other:
        return other
    if isinstance(one, Shared) or isinstance(other, Shared):
        return _join_shared(batch, eqn, one, other)
    if other is None or isinstance(one, Lost):
        return one
    if isinstance(other, Lost):
        return other
    return batch.lost(eqn, f"holds the batch now on {one}, now on {other}", certain=False)


def _join_shared(batch: Prover, eqn: JaxprEqn, one: State, other: State) -> State:
    if isinstance(one, Shared) and isinstance(other, Shared):
        return Shared(one.same & other.same)
    shared, of_batch = (one, other) if isinstance(one, Shared) else (other, one)
    if isinstance(shared, Shared) and isinstance(of_batch, Place) and of_batch not in shared.same:
        return batch.lost(eqn, OTHERS_ROWS, certain=False)
    return shared if of_batch is None else of_batch


OTHERS_ROWS = (
    "meets the batch with an array that is not of it, or drawn from a key that is not, and whose entries need not be "
    "the same for every sample: put that into the batch (for random numbers, a key for every sample)"
)
"""Why samples that do not mix may yet have losses that are not one function of each."""
