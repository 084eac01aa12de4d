"""The record of a diagnosis: findings, each with its evidence and what to do, and the verdict that sums them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxchain.show.table import Table, Tabular

__all__ = ["Diagnosis", "Finding", "Kind"]

Kind = Literal["not finite", "dead", "saturated", "collapsed", "vanishing", "exploding"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    stage
        The stage to look at first.
    kind
        ``"not finite"``: a state or a cotangent; ``"dead"``: units that nothing passes back; ``"saturated"``: entries
        where the activation is flat; ``"collapsed"``: rows, or directions, that can no longer be told apart;
        ``"vanishing"`` and ``"exploding"``: gradients.
    evidence
        What was measured, and what theory says of it.
    advice
        What to do.

    Examples
    --------
    >>> (finding,) = jc.diagnose(lambda x: jnp.log(jnp.tanh(x)), (jnp.array([1.0, -1.0]),)).findings
    >>> finding.stage.split("@")[0], finding.kind
    ('log', 'not finite')
    """

    stage: str
    kind: Kind
    evidence: str
    advice: str


@dataclass(frozen=True)
class Diagnosis(Tabular):
    """What `diagnose` returns.

    Attributes
    ----------
    verdict
        One or two sentences: what is wrong and where to look first, or that nothing was found.
    findings
        The worst first; none where a chain is healthy.
    notes
        What could not be looked at, and why.

    Examples
    --------
    >>> net = jc.nets.mlp([64] * 4, "relu", "he")
    >>> diagnosis = jc.diagnose(net, (net.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64,))))
    >>> diagnosis.healthy, diagnosis.findings
    (True, ())
    """

    verdict: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def rows(self) -> tuple[Finding, ...]:
        """The findings."""
        return self.findings

    def _brief(self) -> str:
        return "healthy" if self.healthy else ", ".join(f"{row.kind} at {row.stage}" for row in self.findings)

    @property
    def rest(self) -> tuple[str, ...]:
        """The findings beside the first, a paragraph each."""
        return tuple(f"{row.stage}, {row.kind}: {row.evidence}. {row.advice}" for row in self.findings[1:])

    def _table(self) -> Table:
        advice = [row.advice for row in self.findings[:1]]  # the verdict has the first one's evidence
        return Table(self.verdict, (), (), (*advice, *self.rest, *self.notes))
