"""Any stage as one of a discovered chain: its program in sight, whoever made it."""

from __future__ import annotations

from jaxchain.discovery.find import find
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.stage import Side, Stage, State

__all__ = ["as_discovered"]


def as_discovered(stage: Stage, side: Side, state: State) -> tuple[DiscoveredStage, Side]:
    """A stage as a discovered one, and its side inputs as that takes them; one that was discovered is itself.

    >>> stage, side = as_discovered(jc.Stage("f", lambda w, x: x + jnp.sin(w * x)), (2.0,), jnp.ones(3))
    >>> [branch.names for branch in stage.branches], stage(*side, jnp.zeros(3)).tolist()
    ([('identity',), ('f',)], [0.0, 0.0, 0.0])
    """
    if isinstance(stage, DiscoveredStage):
        return stage, side
    found = find(stage, (*side, state), -1, unroll_limit=0)
    chain = found.chain([found.segments])
    (whole,) = chain
    assert isinstance(whole, DiscoveredStage)
    return whole, chain.split(*side, state)[1][0]
