"""Whose Jacobian it is that lies on a disk: the function, the values that it was called with, and how blocks are made."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.jacobians.streamed import JacobianBlocks
from jaxchain.program.fingerprint import digests, tree_digest
from jaxchain.show.escape import escaped

__all__ = ["Marks"]

KIND = "jaxchain jacobian, 1"
"""What an array says it is; the number changes with the format."""

REASONS = {
    "jax": "it was computed with another version of JAX, {before}, and this is {now}",
    "platform": "it was computed on {before}, and this is {now}",
    "rows": "its output has other shapes",
    "columns": "its argument has other shapes",
    "dtype": "its numbers are {before}, not {now}",
    "function": "its function is another one",
    "constants": "the arrays that its function closed over, or the other arguments, have other values",
    "argument": "the argument has other values",
    "block": "its blocks have {before} rows, not {now}; block={before} goes on with it",
    "way": "its blocks are made in another way, by another mode, memory_limit or derivative rule",
}
"""What may differ, in the order in which it is looked for, and what is said then."""


@dataclass(frozen=True)
class Marks:
    """What tells the Jacobian of one call from others.

    Attributes
    ----------
    jax, platform
        The version that traced it, and where it runs: others give other bits.
    rows, columns
        Path, shape, and first and last of each leaf of the output and of the argument.
    dtype
        Of the numbers, as they were computed.
    function, constants, argument
        Digests of the program, of the arrays in it, and of the argument.
    block
        Rows of a block.
    way
        Digest of the programs that make what is kept, and a block: derivative rules are in them.
    """

    jax: str
    platform: str
    rows: list[dict[str, Any]]
    columns: list[dict[str, Any]]
    dtype: str
    function: str
    constants: str
    argument: str
    block: int
    way: str

    @classmethod
    def of(cls, blocks: JacobianBlocks) -> Marks:
        """Those of a call."""
        found, programs = blocks.plan.found, blocks.programs
        function, constants = digests(found.closed)
        made = [jax.make_jaxpr(programs.once)(*found.shapes), jax.make_jaxpr(programs.each)(*programs.given)]
        return cls(
            jax=jax.__version__,
            platform=jax.default_backend(),
            rows=_leaves(found.out),
            columns=_leaves(found.input),
            dtype=np.dtype(blocks.plan.units[0].here.dtype).name,
            function=function,
            constants=constants,
            argument=tree_digest(blocks.call.chosen),
            block=blocks.block,
            way=" ".join(mark for program in made for mark in digests(program)),  # rules may close over arrays
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": KIND, **json.loads(json.dumps(asdict(self)))}

    def unlike(self, told: Any) -> str | None:
        """Why what another call told is not of this one; ``None`` where it is."""
        if not isinstance(told, dict) or told.get("kind") != KIND:
            return "another program wrote it, or another version of jaxchain"
        now = self.plain()
        for name, reason in REASONS.items():
            if told.get(name) != now[name]:
                return reason.format(before=escaped(str(told.get(name))), now=now[name])
        return None


def _leaves(tree: Any) -> list[dict[str, Any]]:
    """Path and shape of each leaf, and which rows or columns are its own."""
    told: list[dict[str, Any]] = []
    start = 0
    for path, leaf in tree_flatten_with_path(tree)[0]:
        stop = start + math.prod(leaf.shape)
        told.append({"leaf": keystr(path), "shape": list(leaf.shape), "start": start, "stop": stop})
        start = stop
    return told
