"""A discovered stage: a segment of the program, as a `Stage` that knows its shapes and why it is whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax

from jaxchain.chain import Chain
from jaxchain.cost.count import flops
from jaxchain.discovery.cuts import cuts, live_sets, minima
from jaxchain.discovery.group import group
from jaxchain.discovery.name import names, word
from jaxchain.errors import warn
from jaxchain.program.flat import Equation, Program, needed
from jaxchain.program.flow import reach
from jaxchain.program.primitives import RESHAPING, Var, is_inexact, is_var, shape_of, size_of
from jaxchain.program.segment import Segment, fits
from jaxchain.show.shapes import describe
from jaxchain.stage import Side, Stage, StageRow, State

__all__ = ["DiscoveredStage", "bundles", "split_after", "split_at_cuts"]


@dataclass(frozen=True, eq=False)
class DiscoveredStage(Stage):
    """One stage of a discovered chain: ``stage(*side, state)``.

    Attributes
    ----------
    parts
        The segments between cuts that it is made of; more than one where trivial ones were joined.
    in_tree, out_tree
        Structure of the state before and after.
    active
        The program's variables that carry a derivative from the chain input.
    """

    parts: tuple[Segment, ...] = field(default=(), repr=False)
    in_tree: Any = field(default=None, repr=False)
    out_tree: Any = field(default=None, repr=False)
    active: frozenset[Var] = field(default=frozenset(), repr=False)

    @classmethod
    def of(
        cls, name: str, parts: Sequence[Segment], in_tree: Any, out_tree: Any, active: frozenset[Var]
    ) -> DiscoveredStage:
        """The stage that some consecutive segments are."""
        whole = Segment.join(parts)

        def fn(*args: Any) -> State:
            *side, state = args
            leaves, tree = jax.tree.flatten(state)
            given = [*side, *leaves]
            if tree != in_tree or not fits(given, (*whole.sides, *whole.inputs)):
                msg = f"it was discovered for {describe(in_tree.unflatten([v.aval for v in whole.inputs]))}, and programs have fixed shapes; discover again"
                raise ValueError(msg)
            return out_tree.unflatten(whole.call(*given))

        return cls(name, fn, None, tuple(parts), in_tree, out_tree, active)

    @property
    def carries(self) -> tuple[bool, ...]:
        """Which variables of its state carry a derivative from the chain input."""
        return tuple(var in self.active for var in self.segment.inputs)

    @property
    def carries_back(self) -> tuple[bool, ...]:
        """Which side values and variables of its state carry a derivative from any argument."""
        carrying = self.segment.program.carrying | self.active  # a start state may carry where no argument does
        return tuple(var in carrying for var in (*self.segment.sides, *self.segment.inputs))

    @cached_property
    def segment(self) -> Segment:
        """All of it as one segment."""
        return Segment.join(self.parts)

    @property
    def branches(self) -> tuple[Chain, ...]:
        """The terms of a stage that is a sum, x + g(x), as chains ``branch(*side, state)``; else empty."""
        terms = _terms(self.segment)
        return tuple(_branch(self, term) for term in terms) if len(terms) > 1 else ()

    @property
    def row(self) -> StageRow:
        """What `print` shows of it."""
        segment = self.segment
        program = segment.program
        arrays = {_before_reshaping(program, var) for var in (*segment.sides, *segment.constants)}
        return StageRow(
            self.name,
            _aval_text(self.in_tree, segment.inputs),
            _aval_text(self.out_tree, segment.outputs),
            sum(math.prod(shape_of(var)) for var in arrays if is_inexact(var) and var in program.given),
            sum(flops(equation.eqn) for equation in segment.equations),
            len(segment.equations),
            next((program.notes[v] for e in segment.equations for v in e.eqn.outvars if v in program.notes), "")
            or self._why(),
        )

    def _why(self) -> str:
        """Which values cross the narrowest place of its largest uncut part, and so prevent a cut there."""
        cut = [part for part in self.parts if part.inputs != part.outputs] or self.parts  # without what only prints
        part = max(cut, key=lambda p: len(p.equations))
        if len(part.equations) < 2:
            return ""
        crossing = _crossing(part)[1:-1]
        middle = len(crossing) / 2
        place = min(range(len(crossing)), key=lambda k: (len(crossing[k]), abs(k - middle)))
        order = {var: number for number, e in enumerate(part.equations) for var in e.writes}
        makers = {var: word(e) for e in part.equations for var in e.writes}
        readers = {var: word(e) for e in part.equations for var in e.reads}
        values = [
            f"{makers.get(v, 'its input')} {v.aval.str_short(short_dtypes=True)} (read last by {readers.get(v, 'the output')})"
            for v in sorted(crossing[place], key=lambda v: order.get(v, -1))
        ]
        shown = values[:3] + [f"{len(values) - 3} more"] * (len(values) > 3)
        crossing_values = "1 value crosses" if len(values) == 1 else f"{len(values)} values cross"
        return f"{crossing_values} its middle: {', '.join(shown)}"


def _before_reshaping(program: Program, var: Any) -> Any:
    """The variable that a side value is a mere copy of, such as a bias before it is broadcast."""
    while (made := program.makers.get(var)) is not None and made.name in RESHAPING and made.reads:
        var = made.reads[0]
    return var


def split_at_cuts(segment: Segment, carries: dict[int, list[Any]] | None = None) -> list[Segment]:
    """A segment, cut wherever a single value (or a loop's carry) crosses."""
    reads, writes, dependent = _edges(segment)
    bundles = {position: frozenset(v for v in carry if v in dependent) for position, carry in (carries or {}).items()}
    found = cuts(
        reads,
        writes,
        segment.inputs,
        filter(dependent.__contains__, filter(is_var, segment.outputs)),
        may_cut=is_inexact,
        bundles=bundles,
    )
    return _split(segment, {c.position: _in_order(c.values, (carries or {}).get(c.position, [])) for c in found})


def bundles(segment: Segment, below: float = math.inf) -> list[int]:
    """After how many equations of a segment fewer numbers cross than on either side of there, and fewer than ``below``."""
    sizes = [sum(map(size_of, live)) for live in _crossing(segment)]
    return [position for position in minima(sizes) if sizes[position] < below]


def split_after(segment: Segment, positions: Iterable[int]) -> list[Segment]:
    """A segment, cut after so many of its equations, wherever all that crosses there can be a state."""
    crossing = _crossing(segment)
    made = list(dict.fromkeys([*segment.inputs, *(var for e in segment.equations for var in e.writes)]))
    inside = [k for k in sorted(set(positions)) if 0 < k < len(segment.equations) and all(map(is_inexact, crossing[k]))]
    return _split(segment, {k: tuple(var for var in made if var in crossing[k]) for k in inside})


def _split(segment: Segment, between: Mapping[int, tuple[Any, ...]]) -> list[Segment]:
    """A segment, cut after some of its equations, in order; with the state at each cut."""
    before, after = [segment.inputs, *between.values()], [*between.values(), segment.outputs]
    return [
        Segment(segment.equations[first:stop], inputs, outputs, segment.program)
        for (first, stop), inputs, outputs in zip(
            itertools.pairwise([0, *between, len(segment.equations)]), before, after, strict=True
        )
    ]


def _crossing(segment: Segment) -> list[set[Any]]:
    """The live values before each equation of a segment, and after the last."""
    reads, writes, dependent = _edges(segment)
    wanted = [var for var in segment.outputs if is_var(var) and var in dependent]
    # The set is updated in place, hence the copies.
    return [set(segment.inputs), *(set(live) for live in live_sets(reads, writes, segment.inputs, wanted))]


def _in_order(values: Collection[Any], carry: Sequence[Any]) -> tuple[Any, ...]:
    """A state's variables: the only one, or those of a loop's carry in its own order."""
    return tuple(values) if len(values) == 1 else tuple(v for v in dict.fromkeys(carry) if v in values)


def _edges(segment: Segment) -> tuple[list[list[Any]], list[list[Any]], set[Any]]:
    """What each equation reads and writes among the values that depend on the segment's input; those values."""
    dependent = reach((e.eqn for e in segment.equations), segment.inputs)
    reads = [[var for var in e.reads if var in dependent] for e in segment.equations]
    return reads, [e.writes for e in segment.equations], dependent


def _aval_text(tree: Any, atoms: Sequence[Any]) -> str:
    return describe(tree.unflatten([atom.aval for atom in atoms]), short=True)


def _terms(segment: Segment) -> list[Any]:
    """The summands of a segment's single output that depend on its input; sums of sums are opened."""
    if len(segment.outputs) != 1:
        return []
    _, _, dependent = _edges(segment)
    maker = {var: e for e in segment.equations for var in e.writes}
    uses: dict[Any, int] = {}
    for e in segment.equations:
        for var in e.reads:
            uses[var] = uses.get(var, 0) + 1

    def opened(atom: Any, *, last: bool) -> list[Any]:
        made = maker.get(atom) if is_var(atom) else None
        if made is None or made.name not in ("add", "add_any") or not (last or uses.get(atom, 0) == 1):
            return [atom]
        operands = made.eqn.invars
        if not all(is_var(a) and a in dependent and shape_of(a) == shape_of(atom) for a in operands):
            return [atom]
        return [term for operand in operands for term in opened(operand, last=False)]

    return opened(segment.outputs[0], last=True)


def _branch(stage: DiscoveredStage, term: Any) -> Chain:
    """The chain from a stage's state to one summand of its output; it takes the stage's own arguments."""
    whole = stage.segment
    kept = needed(whole.equations, [term])
    dependent = reach((e.eqn for e in kept), whole.inputs)
    inner = tuple(e for e in kept if any(v in dependent for v in e.reads))
    groups = group(split_at_cuts(Segment(inner, whole.inputs, (term,), whole.program)), "default")
    stages = chain_stages(groups, stage.in_tree, stage.out_tree, stage.active)
    return Chain(stages, sides=BranchSides(whole.sides, tuple(s.segment.sides for s in stages)))


def chain_stages(
    groups: Sequence[Sequence[Segment]],
    in_tree: Any,
    out_tree: Any,
    active: frozenset[Var],
    prints: Sequence[Equation] = (),
    named: Sequence[str] | None = None,
) -> list[DiscoveredStage]:
    """One stage a group; states inside are arrays, or tuples of a loop's carry. ``prints`` are kept where they can be."""
    trees = [in_tree, *(_tree(g[-1].outputs) for g in groups[:-1]), out_tree]
    return [
        DiscoveredStage.of(n, g, trees[k], trees[k + 1], active)
        for k, (n, g) in enumerate(zip(named or names(groups), _printing(groups, prints), strict=True))
    ]


def _printing(groups: Sequence[Sequence[Segment]], prints: Sequence[Equation]) -> list[Sequence[Segment]]:
    """The groups, with what is printed at the end of the first that knows all of it."""
    kept = list(groups)
    if not prints:
        return kept
    program, inputs = groups[0][0].program, groups[0][0].inputs
    dependent = reach(program.eqns, inputs)
    staged = {id(e) for g in groups for segment in g for e in segment.equations}
    aside = [e for e in program.equations if id(e) not in staged]
    for equation in prints:
        for k, g in enumerate(groups):
            if (before := _made_from(g, equation, aside, dependent)) is not None:
                state, there = g[-1].outputs, {id(e) for segment in kept[k] for e in segment.equations}
                # Each equation once: JAX forgets a value after the equation that reads it last.
                new = [e for e in before if id(e) not in there]
                kept[k] = [*kept[k], Segment((*new, equation), tuple(filter(is_var, state)), state, program)]
                break
        else:
            what = f"{equation.name} at {equation.site}"
            warn(
                f"{what} prints values that no single stage knows together, so the chain does without it.", UserWarning
            )
    return kept


def _made_from(
    group: Sequence[Segment], printed: Equation, aside: Sequence[Equation], dependent: set[Var]
) -> list[Equation] | None:
    """The equations of no stage that make what is printed from what a group knows; ``None``: it takes more than that."""
    known = {*group[0].inputs, *(var for segment in group for e in segment.equations for var in e.writes)}
    made = needed(aside, printed.reads)
    known.update(var for e in made for var in e.writes)
    read = {var for e in (*made, printed) for var in e.reads}
    return made if known.issuperset(read & dependent) else None


def _tree(atoms: Sequence[Any]) -> Any:
    return jax.tree.structure(atoms[0] if len(atoms) == 1 else tuple(atoms))


@dataclass(frozen=True)
class BranchSides:
    """Side inputs of a branch: picked from those of the stage that it is a branch of."""

    given: tuple[Any, ...]
    wanted: tuple[tuple[Any, ...], ...]

    def __getitem__(self, index: slice, /) -> BranchSides:
        return BranchSides(self.given, self.wanted[index])

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Nothing: a branch takes the stage's side inputs."""
        del key
        return {}

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """Side inputs of each stage, from those of the stage branched from."""
        values = dict(zip(self.given, others, strict=True))
        return tuple(tuple(values[var] for var in side) for side in self.wanted)
