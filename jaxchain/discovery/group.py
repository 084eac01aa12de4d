"""How coarse the stages are: which neighbouring segments a person would call one.

``finest`` keeps every cut. The default joins the parts of one library call, the parts of one loop
step, and trivial pieces to what they belong to: a bias to its product, a reshape or a cast to what
reads it; but where all states are single numbers, each operation on one stays a stage. ``module`` also joins whatever neighbours have the same named scope.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from jaxchain.chain import Chain
from jaxchain.checks import word
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import AFFINE, RESHAPING, shape_of
from jaxchain.program.segment import Segment

__all__ = ["Granularity", "check_granularity", "group", "scope"]

Granularity = Literal["default", "finest", "module", "bundles"]


def check_granularity(granularity: Any, given: Any) -> Granularity:
    """How coarse a chain is to be discovered; ``None``: ``"default"``, and all that what is a chain already can be.

    Raises
    ------
    ValueError
        If there is no such granularity, or a chain was given.
    """
    if granularity is None:
        return "default"
    word("granularity", granularity, get_args(Granularity))
    if isinstance(given, Chain):
        msg = "granularity is how coarse a chain is discovered, but this one is a chain already. Leave it out, or discover its function with it."
        raise ValueError(msg)
    return granularity


def group(segments: Sequence[Segment], granularity: Granularity) -> list[list[Segment]]:
    """The segments of each stage, in order."""
    groups = [[segment] for segment in segments]
    if granularity == "finest":
        return groups
    groups = _join_alike(groups, _step)
    groups = _join_alike(groups, _call)
    numbers = all(shape_of(atom) == () for segment in segments for atom in (*segment.inputs, *segment.outputs))
    groups = _attach_trivial(groups, _only_reshapes if numbers else _is_trivial)
    return _join_modules(groups) if granularity == "module" else groups


def _join_modules(groups: list[list[Segment]]) -> list[list[Segment]]:
    """Join neighbours of which one lies in the other's module; what all share is no module."""
    root = len(shared_prefix([scope(g) for g in groups]))
    joined: list[list[Segment]] = []
    for g in groups:
        before, own = scope(joined[-1]) if joined else (), scope(g)
        common = min(len(before), len(own))
        if common > root and before[:common] == own[:common]:
            joined[-1] = joined[-1] + g
        else:
            joined.append(g)
    return joined


def scope(segments: Sequence[Segment]) -> tuple[str, ...]:
    """The named scope that a group's main part lies in: the longest that all its equations share."""
    main = [segment for segment in segments if not _is_trivial(segment)] or segments
    scopes = [equation.scope for segment in main for equation in segment.equations]
    return shared_prefix(scopes)


def shared_prefix(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest beginning that all paths share."""
    shared = itertools.takewhile(lambda step: len(set(step)) == 1, zip(*paths, strict=False))
    return tuple(step[0] for step in shared)


def _join_alike(groups: list[list[Segment]], key: Callable[[list[Segment]], object | None]) -> list[list[Segment]]:
    """Join neighbours with the same key; ``None`` is like nothing else."""
    keyed = [(key(g), g) for g in groups]
    joined: list[list[Segment]] = []
    for number, (mark, g) in enumerate(keyed):
        if number and mark is not None and mark == keyed[number - 1][0]:
            joined[-1] = joined[-1] + g
        else:
            joined.append(g)
    return joined


def _shared(group: list[Segment], of: Callable[[Equation], object | None]) -> object | None:
    marks = {of(equation) for segment in group for equation in segment.equations}
    return marks.pop() if len(marks) == 1 else None


def _step(group: list[Segment]) -> object | None:
    return _shared(group, lambda e: e.origin.steps[:1] or None)


def _call(group: list[Segment]) -> object | None:
    return _shared(group, lambda e: e.origin.call)


def _only_reshapes(segment: Segment) -> bool:
    return all(equation.name in RESHAPING for equation in segment.equations)


def _is_trivial(segment: Segment) -> bool:
    return all(equation.name in RESHAPING or _is_affine(equation, segment) for equation in segment.equations)


def _is_affine(equation: Equation, segment: Segment) -> bool:
    """Scales or shifts its input: one operand is the state, the other is not; dividing *by* the state is neither."""
    operands = [atom for atom in equation.reads if atom not in segment.sides and atom not in segment.constants]
    inverts = equation.name == "div" and equation.eqn.invars[1] in operands
    return equation.name in AFFINE and len(operands) == 1 and not inverts


def _attach_trivial(groups: list[list[Segment]], is_trivial_part: Callable[[Segment], bool]) -> list[list[Segment]]:
    """Attach runs of trivial segments: scales and shifts to what is before, pure reshapes to what is after.

    A run is attached only within its own named scope or inwards, so that a module made of trivial
    pieces alone (a normalisation with fixed statistics) stays a stage of its own.
    """
    trivial = [all(map(is_trivial_part, g)) for g in groups]
    runs = [
        (is_trivial, [g for _, g in run])
        for (is_trivial, _), run in itertools.groupby(
            zip(trivial, groups, strict=True), key=lambda p: (p[0], p[0] and scope(p[1]))
        )
    ]
    parts: list[tuple[bool, list[Segment]]] = []
    for is_trivial, run in runs:
        if is_trivial:
            parts.append((True, [segment for g in run for segment in g]))
        else:
            parts += [(False, g) for g in run]
    attached: list[list[Segment]] = []
    carried: list[Segment] = []  # trivial parts on their way to what comes after them
    for number, (is_trivial, part) in enumerate(parts):
        if not is_trivial:
            attached.append(carried + part)
            carried = []
            continue
        before = not carried and bool(attached) and _within(part, attached[-1])
        after = number + 1 < len(parts) and not parts[number + 1][0] and _within(part, parts[number + 1][1])
        # x @ w + b: the shift is the product's; reshape(x) @ w: the reshape is what the product reads.
        shifts = any(equation.name in AFFINE for segment in part for equation in segment.equations)
        if after and not (before and shifts):
            carried = carried + part
        elif before:
            attached[-1] = attached[-1] + part
        else:
            attached += [carried, part] if carried else [part]
            carried = []
    return [*attached, carried] if carried else attached


def _within(part: list[Segment], other: list[Segment]) -> bool:
    own = scope(part)
    return scope(other)[: len(own)] == own
