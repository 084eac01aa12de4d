"""Names that a person recognises: the framework's own words, else the operation and the user's line."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from jaxchain.cost.count import flops
from jaxchain.discovery.group import scope, shared_prefix
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import HEAVY, callee, custom_rule, is_var, source_of
from jaxchain.program.segment import Segment
from jaxchain.stage import INPUT

__all__ = ["names", "operation"]

WORD = 3
"""The fewest letters that modules must have in common to be named by."""

WORDS = {
    "conv_general_dilated": "conv",
    "custom_jvp_call": "custom_jvp",
    "custom_vjp_call": "custom_vjp",
    "dot_general": "dot",
    "logistic": "sigmoid",
    "rewriting_take": "getitem",
    "select_n": "select",
}


def names(groups: Sequence[Sequence[Segment]]) -> list[str]:
    """One unique name a group.

    A group that is a module (no neighbour shares its scope) has the module's name; otherwise the
    scope and the operation, or where there is no scope at all the operation and the source line.
    """
    scopes = [scope(g) for g in groups]
    root = len(shared_prefix(scopes)) if len(groups) > 1 else 0
    modular = any(len(own) > root for own in scopes)
    base: list[tuple[str, str]] = []
    for own, run in itertools.groupby(zip(scopes, groups, strict=True), key=lambda pair: pair[0]):
        members = [g for _, g in run]
        for g in members:
            shown, label = own[root:], _children(len(own), g) or operation(g)
            alone = (
                shown
                and len(members) == 1
                and not any(len(other) > len(own) == len(shared_prefix([own, other])) for other in scopes)
            )
            base.append(("/".join(shown if alone else (*shown, label)), "" if modular else _place(g)))
    return _unique([(label if label != INPUT else f"{INPUT}_stage", place) for label, place in base])


def _place(segments: Sequence[Segment]) -> str:
    key = _key(segments)
    return f"@{key.site}" if key is not None and key.site.file else ""


def _children(depth: int, segments: Sequence[Segment]) -> str:
    """Where most of the work is done, among the modules inside a group's own scope."""
    work: dict[str, float] = {}
    for segment in segments:
        for equation in segment.equations:
            if len(equation.scope) > depth and equation.name in HEAVY:
                child = equation.scope[depth]
                work[child] = work.get(child, 0.0) + flops(equation.eqn)
    return _together(list(work))


def _together(children: Sequence[str]) -> str:
    """Modules by one name: what theirs begin with, ``Dense`` for ``Dense_1`` and ``Dense_0``; else the first and last."""
    if len(children) < 2:
        return "".join(children)
    return common if len(common := _stem(children)) >= WORD else f"{children[0]}..{children[-1]}"


def _stem(children: Sequence[str]) -> str:
    """The words that all names begin with, a number left out."""
    common = "".join(shared_prefix([tuple(name) for name in children]))
    if any(name[len(common) :][:1].isalpha() for name in children):
        common = common.rpartition("_")[0]  # query and queue have no word in common
    return common.rstrip("_0123456789")


def operation(segments: Sequence[Segment]) -> str:
    """What a group does, in one word: the library function called, else its costliest primitive."""
    equations = [equation for segment in segments for equation in segment.equations]
    key = _key(segments)
    if key is None:
        return (
            "identity" if any(out in segments[0].inputs for out in segments[-1].outputs if is_var(out)) else "constant"
        )
    calls = {equation.origin.call.name if equation.origin.call else "" for equation in equations}
    if len(calls) == 1 and (call := calls.pop()):
        return call
    if key.name in HEAVY or len(equations) == 1:
        return word(key)
    functions = {equation.site.function for equation in equations}
    own = next(iter(functions)) if len(functions) == 1 else ""
    return WORDS.get(own, own) or word(key)


def word(equation: Equation) -> str:
    """One equation's operation in the words of the person who wrote it."""
    rule = custom_rule(equation.eqn)
    body = callee(equation.eqn) if rule is None else rule.body
    if body is not None:
        name = source_of(body).split(" at ")[0].split(".")[-1].strip("_<>")
        if name.isidentifier() and name != "lambda" and "wrap" not in name:
            return name
    return WORDS.get(equation.name, equation.name)


def _key(segments: Sequence[Segment]) -> Equation | None:
    """The costliest equation of a group, heavy primitives first, the last of equals."""
    equations = [equation for segment in segments for equation in segment.equations]
    return max(reversed(equations), key=lambda e: (e.name in HEAVY, flops(e.eqn)), default=None)


def _unique(base: list[tuple[str, str]]) -> list[str]:
    """Labels and places as names; those that occur more than once are numbered: ``relu_0``, ``relu_1``."""
    total, seen, taken = Counter(base), Counter[tuple[str, str]](), {label + place for label, place in base}
    unique: list[str] = []
    for label, place in base:
        if total[label, place] == 1:
            unique.append(label + place)
            continue
        # A name that someone else has already, relu_0 written by hand, is passed over.
        while (candidate := f"{label}_{seen[label, place]}{place}") in taken:
            seen[label, place] += 1
        taken.add(candidate)
        unique.append(candidate)
    return unique
