"""Which stage an operation came from: a mark that stays on it through every transform.

Every stage runs under a named scope that holds its number instead of its name; JAX carries scopes
through jvp, linearize, transpose and vmap, and XLA writes them into its own programs.
"""

from __future__ import annotations

import re
from dataclasses import replace

from jaxchain.chain import Chain

__all__ = ["marked", "stage_of"]

# Letters, digits and a full stop at the end: "/" parts scopes, "(" opens a transform's own name, XLA escapes what is not
# ASCII, and without the full stop stage 1 would begin like stage 12.
MARK = re.compile(r"jaxchain-stage-(\d+)\.")


def marked(chain: Chain) -> Chain:
    """The same chain, whose stages are named by their marks; it takes the same arguments.

    Parameters
    ----------
    chain
        Any chain. Its own names are gone from what is traced, so none of them can look like a mark.

    Returns
    -------
    Chain
        For tracing only: a `StageError` from it would name the mark, so apply the chain itself first.
    """
    stages = tuple(replace(stage, name=f"jaxchain-stage-{number}.") for number, stage in enumerate(chain))
    return replace(chain, stages=stages)


def stage_of(text: str) -> int | None:
    """The number of the stage whose mark a name stack or an HLO ``op_name`` holds; ``None``: of none.

    Of several the outermost, which comes first: what the stage's own function writes lies inside.

    >>> stage_of("jit(f)/transpose(jvp(jaxchain-stage-3.))/attention/dot_general")
    3
    """
    found = MARK.search(text)
    return None if found is None else int(found[1])
