"""A function put together again by a schedule: `jax.checkpoint` around what runs again, within one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from jaxchain.memory.apart import apart, in_turn
from jaxchain.memory.schedule import Again, Kept, Part
from jaxchain.memory.stages import Pieces
from jaxchain.program.primitives import Atom, Var, as_array, dtype_of, is_var

__all__ = ["Rebuilt"]


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """The function of a program's leaves that its schedule makes of it."""

    pieces: Pieces
    parts: tuple[Part, ...]

    def __call__(self, *leaves: Any) -> list[Any]:
        """The results of the program."""
        program = self.pieces.program
        known = dict(zip(program.invars, leaves, strict=True)) | {
            var: as_array(value) for var, value in program.constants.items() if var in program.outs
        }
        self._run(self.parts, known)
        return [_value(out, known) for out in program.outs]

    def _run(self, parts: Sequence[Part], known: dict[Var, Any]) -> None:
        for part in parts:
            call, reads, writes = self._kept(part) if isinstance(part, Kept) else self._again(part)
            made = call(*(known[var] for var in reads))
            shared = [var for var in reads if var in self._waiting]
            if shared or not self._waiting.isdisjoint(writes):
                made, values = in_turn(made, [known[var] for var in shared])
                known.update(zip(shared, values, strict=True))
            known.update(zip(writes, made, strict=True))

    def _kept(self, part: Kept) -> tuple[Callable[..., Any], Sequence[Var], Sequence[Var]]:
        piece = self.pieces.pieces[part.stage]
        return piece.function(part.way), piece.reads, piece.writes

    def _again(self, part: Again) -> tuple[Callable[..., Any], Sequence[Var], Sequence[Var]]:
        inside = set(part.stages)
        members = [self.pieces.pieces[number] for number in sorted(inside)]
        made = {var for piece in members for var in piece.writes}
        reads = list(dict.fromkeys(var for piece in members for var in piece.reads if var not in made))
        writes = [var for piece in members for var in piece.writes if not self._readers[var] <= inside]

        def run(*values: Any) -> list[Any]:
            known = dict(zip(reads, values, strict=True))
            self._run(part.parts, known)
            return [known[var] for var in writes]

        alone = apart if any(piece.loops for piece in members) else jax.checkpoint
        return alone(run), reads, writes

    @cached_property
    def _waiting(self) -> set[Var]:
        """What is read far from where it is made, or by several stages; of what they read a part of, that part."""
        made = {var: number for number, piece in enumerate(self.pieces.pieces) for var in piece.writes}
        readers = self._reading(piece.segment.sides for piece in self.pieces.pieces)
        return {var for var, stages in readers.items() if stages != {made.get(var, min(stages) - 1) + 1}}

    @cached_property
    def _readers(self) -> dict[Var, set[int]]:
        return self._reading(piece.reads for piece in self.pieces.pieces)

    def _reading(self, reads: Iterable[Sequence[Var]]) -> dict[Var, set[int]]:
        """The stages that read each value, of what each reads; −1 for the result."""
        readers: dict[Var, set[int]] = {}
        for number, read in enumerate(reads):
            for var in read:
                readers.setdefault(var, set()).add(number)
        for out in filter(is_var, self.pieces.program.outs):
            readers.setdefault(out, set()).add(-1)
        return readers


def _value(out: Atom, known: dict[Var, Any]) -> Any:
    return known[out] if is_var(out) else jax.numpy.asarray(out.val, dtype_of(out))
