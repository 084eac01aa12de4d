"""What the report's page says: numbers, pictures and sentences, as one tree that JSON can hold.

The page's script reads this tree and nothing else; a person who reads the page without a script
gets the same numbers from its tables. Builds on `survey`, `ways`, `trace` and `transforms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import argument_in_words, from_start
from jaxchain.chain import Chain
from jaxchain.coordinates import is_inexact
from jaxchain.cost.count import flops
from jaxchain.derivative import vjp
from jaxchain.diagnosis.survey import Link, Survey, survey
from jaxchain.diagnosis.verdict import verdict_of
from jaxchain.discovery.find import Found, find
from jaxchain.errors import REFUSALS, refusal
from jaxchain.explore.computation import Node
from jaxchain.explore.dependence import graph_of
from jaxchain.explore.evaluate import constant_direction
from jaxchain.explore.mark import marked, stage_of
from jaxchain.explore.nest import TraceRow
from jaxchain.explore.tracing import Trace, names_of, trace_of
from jaxchain.explore.transformed import transforms_of
from jaxchain.jacobians.compare import Limits, compare_decided, predictions
from jaxchain.jacobians.decision import Decision, decide
from jaxchain.page.drawing import NODES, drawings, is_small, too_many
from jaxchain.page.folding import fold
from jaxchain.page.headline import directions, headline, passes
from jaxchain.page.inside import insides
from jaxchain.page.keeping import keeping
from jaxchain.page.picture import picture
from jaxchain.page.signs import ruled, signs
from jaxchain.page.ways import named, ways
from jaxchain.program.interpret import numbers_of
from jaxchain.program.primitives import plain_parameters
from jaxchain.show.plain import plain
from jaxchain.show.shapes import describe
from jaxchain.show.table import si
from jaxchain.show.values import count, norm, summary
from jaxchain.stage import INPUT, along
from jaxchain.sweep import prefix_jacobians, suffix_jacobians

__all__ = ["facts", "page"]

CELLS = 8e5
"""Cells that the local Jacobians' pictures share; with those of the steps a page stays below 10 MB."""

POSITIONS = 128
"""The most positions between which the norms of blocks are shown."""

SPECTRUM = 64
"""The most singular values of one stage that the page holds."""

TRACED, KINDS = 5_000, 1_000
"""The most equations whose values the page holds, and the most kinds: each is compiled by itself."""

FORMED = 1 << 24
"""The most entries of a whole Jacobian that leads the page; beyond, what happens along the chain comes first."""

PARTIAL = 1 << 14
"""The most entries of a partial derivative in a graph on the page."""

FEW_ROWS = 32
"""Up to so many equations a graph is tried with nothing folded."""

MEASURED_WORK, MEASURED_STAGES, MEASURED_EQUATIONS = 2e9, 150, 500
"""Up to this many operations, stages and equations all modes are compiled and timed; beyond, only predicted."""


def page(
    chain: Chain,
    args: tuple[Any, ...],
    title: str,
    *,
    fun: Callable[..., Any] | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Everything on the page, for one chain at one point.

    ``fun`` is what the chain was discovered in, and ``say`` is told what is under way.
    """
    of, given, at = from_start(chain, args)
    fun = chain if fun is None else fun
    say(f"Sweeping both ways through {len(chain)} stages")
    surveyed = survey(chain, args, tangent, cotangent)
    diagnosed = verdict_of(surveyed.walked)
    say("Looking inside the stages")
    inside = insides(of, given, surveyed)
    say("Planning the cheapest order")
    found = find(marked(of), given, at)
    decision = _decided(found, chain, argument_in_words(chain, args, chain.argnum % len(args)))
    say("Multiplying the Jacobians in three orders")
    by = {"prefixes": prefix_jacobians, "suffixes": suffix_jacobians}
    orders = ways(surveyed, decision, lambda kind: by[kind](of, given))
    say("Comparing the modes")
    modes = _modes(of, found, decision, given)
    say("Tracing every equation")
    # As the caller named them, not the marked chain.
    called = _stage_by_stage(chain, given) if chain.lead else names_of(fun, given)
    traced = _traced(called, of, given, surveyed, found)
    say("Transforming the program")
    return plain(
        {
            "title": title,
            "headline": headline(decision, chain.names, surveyed, diagnosed, large=_large(surveyed)),
            "advice": [diagnosed.findings[0].advice, *diagnosed.rest] if diagnosed.findings else [],
            "large": _large(surveyed),
            "facts": facts(chain, args, surveyed),
            "notes": list(surveyed.notes),
            "directions": directions(tangent is None, cotangent is None),
            "states": _states(chain, surveyed),
            "stages": [a | b for a, b in zip(_stages(surveyed, _sources(found, len(chain))), inside, strict=True)],
            "groups": fold(chain.names),
            "leaves": _leaves(fun, chain, args, surveyed),
            "ways": orders,
            "modes": modes,
            "keeping": keeping(chain, args, len(found.program.equations)),
            "plan": _planned(decision, chain),
            "trace": _trace(traced, chain),
            "graph": _graph(traced, chain.names, found, given, at),
            "programs": _programs(chain, args),
        }
    )


def _large(surveyed: Survey) -> bool:
    """Whether nobody would form the whole Jacobian."""
    return surveyed.links[0].shape[1] * surveyed.links[-1].shape[0] > FORMED


def facts(chain: Chain, args: tuple[Any, ...], surveyed: Survey) -> list[str]:
    """What a chain is, in a few words each: its sizes, its stages, its input, its parameters."""
    n, m = surveyed.links[0].shape[1], surveyed.links[-1].shape[0]
    position = chain.argnum % len(args)
    others = jax.tree.leaves(args[:position] + args[position + 1 :])
    parameters = sum(np.size(leaf) for leaf in others if is_inexact(leaf))
    told = [f"{n:,} → {m:,}", count(len(chain), "stage")]
    if len(args) > 1 or chain.lead:
        told.append(along(chain.names_with_input[0], position))
    return [*told, f"{si(parameters, '')} parameter{'s' * (parameters != 1)}"] if parameters else told


def _states(chain: Chain, surveyed: Survey) -> list[dict[str, Any]]:
    sizes = [surveyed.links[0].shape[1], *(link.shape[0] for link in surveyed.links)]
    rows = zip(
        chain.names_with_input,
        surveyed.states,
        sizes,
        surveyed.primals,
        surveyed.tangents,
        surveyed.cotangents,
        strict=True,
    )
    return [
        {
            "name": name,
            "shape": describe(state, short=True),
            "size": size,
            "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
            "complex": any(map(jnp.iscomplexobj, jax.tree.leaves(state))),
            "primal": primal,
            "tangent": tangent,
            "cotangent": cotangent,
        }
        for name, state, size, primal, tangent, cotangent in rows
    ]


def _stages(surveyed: Survey, sources: Sequence[str]) -> list[dict[str, Any]]:
    side = int(min(max(math.sqrt(CELLS / len(surveyed.links)), 8), 256))
    return [
        {
            "name": link.stage.name,
            "in_shape": describe(before, short=True),
            "out_shape": describe(after, short=True),
            "m": link.shape[0],
            "n": link.shape[1],
            "parameters": link.stage.row.parameters,
            "aside": link.aside,
            "times": passed,
            "flops": link.work,
            "words": "" if link.structure is None else str(link.structure),
            "signs": signs(link.structure),
            "source": source,
            **_spectrum(link),
            "gradient": link.gradient,
            "picture": _picture(link, side),
            "positions": _positions(link, before, after),
            "why_not": link.refusal,
        }
        for link, before, after, source, passed in zip(
            surveyed.links, surveyed.states, surveyed.states[1:], sources, passes(surveyed), strict=False
        )
    ]


def _leaves(fun: Callable[..., Any], chain: Chain, args: tuple[Any, ...], surveyed: Survey) -> list[dict[str, Any]]:
    """The gradient of every array of the other arguments, beside the array itself."""
    at = chain.argnum % len(args)
    told = [k != at and is_inexact(leaf) for k, arg in enumerate(args) for leaf in jax.tree.leaves(arg)]
    if surveyed.pulled is None or not any(told):
        return []
    try:
        gradients = numbers_of(lambda pulled, *args: vjp(chain.split, *args)[1](pulled), surveyed.pulled, *args)
    except REFUSALS as error:
        refusal(error)
        return []
    rows: list[dict[str, Any]] = []
    columns = names_of(fun, args), jax.tree.leaves(args), jax.tree.leaves(gradients), told
    for name, leaf, gradient, tells in zip(*columns, strict=True):
        if tells:
            size, steep = norm(leaf), norm(gradient)
            about = {"name": name, "shape": "×".join(map(str, np.shape(leaf))) or "scalar"}
            rows.append({**about, "weight": size, "gradient": steep, "ratio": steep / size if size else math.inf})
    return rows


def _picture(link: Link, side: int) -> dict[str, Any] | None:
    if link.matrix is None:
        return None
    return picture(link.matrix, side, columns=link.columns, width=link.shape[1], ruled=ruled(link.structure))


def _positions(link: Link, before: Any, after: Any) -> dict[str, Any] | None:
    """Norms of the blocks between positions, where both states are arrays along one leading axis: who depends on whom."""
    shapes = [np.shape(leaf) for state in (before, after) for leaf in jax.tree.leaves(state)]
    if (
        link.whole is None
        or len(shapes) != 2
        or min(map(len, shapes)) < 2
        or any(map(jnp.iscomplexobj, (before, after)))
    ):
        return None
    (count, *_), (out, *_) = shapes
    if count != out or not 2 <= count <= POSITIONS:
        return None
    m, n = link.shape
    blocks = link.whole.reshape(count, m // count, count, n // count)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.square(blocks).sum(axis=(1, 3)))
    return {**picture(norms, POSITIONS), "positions": True}


def _spectrum(link: Link) -> dict[str, Any]:
    """Singular values, thinned out where there are many; or why there are none."""
    if link.sigma is None and link.largest is not None:
        note = "From below, by Lanczos steps: products with the Jacobian, which was not decomposed."
        return {"sigma": None, "largest": link.largest.tolist(), "sigma_note": note}
    if link.sigma is None:
        why = "Only some columns were computed." if link.columns else "The matrix is too large to decompose here."
        if link.structure is not None:
            why = "The matrix is empty." if 0 in link.shape else "Some entries are not finite."
        return {"sigma": None, "sigma_note": why if not link.refusal else ""}
    count = len(link.sigma)
    kept = np.unique(np.linspace(0, count - 1, min(count, SPECTRUM)).astype(int))
    note = f"{len(kept)} of {count}, evenly chosen." if len(kept) < count else ""
    return {"sigma": link.sigma[kept].tolist(), "sigma_note": note}


def _sources(found: Any, count: int) -> list[str]:
    """The line that does most of each stage's work."""
    best: dict[int, tuple[float, str]] = {}
    for segment in found.segments:
        for equation in segment.equations:
            stage = stage_of("/".join(equation.origin.scope))
            work = flops(equation.eqn)
            if stage is not None and equation.site.file and work >= best.get(stage, (-1.0, ""))[0]:
                best[stage] = work, str(equation.site)
    return [best.get(stage, (0.0, ""))[1] for stage in range(count)]


def _decided(found: Found, chain: Chain, argument: str) -> Decision:
    """What `jacobian` does with the chain, the states of its plan named as the chain's own."""
    decision = decide(found, "auto", argument)
    assert decision.plan is not None
    return replace(decision, plan=named(decision.plan, chain.names))


def _planned(decision: Decision, chain: Chain) -> dict[str, Any]:
    """What the page's script needs to know of a decision: which order to show first, and where it is narrow."""
    assert decision.plan is not None
    shown = decision.mode if decision.mode in ("forward", "reverse") else "planned"
    return {
        "waist": chain.names_with_input[0] if decision.plan.waist == INPUT else decision.plan.waist,
        "waist_size": min(decision.plan.sizes),
        "mode": shown,
        "why": f"jc.jacobian runs {decision.mode} mode. {decision.why}",
    }


def _modes(chain: Chain, found: Found, decision: Decision, args: tuple[Any, ...]) -> dict[str, Any]:
    about = {
        "mixed": "the planned order of multiplication",
        "sparse": "several columns or rows at once, by colours",
        "auto": f"what jc.jacobian does: {decision.mode} mode",
    }
    predicted = predictions(decision)
    note = "Predicted, not measured: compiling every mode of so large a Jacobian, or so long a program, takes long. jc.compare_modes does it."
    small = len(chain) <= MEASURED_STAGES and len(found.program.equations) <= MEASURED_EQUATIONS
    if small and max(predicted.values(), default=0.0) <= MEASURED_WORK:
        try:
            compared = compare_decided(chain, found, decision, args, limits=Limits(repeats=3))
        except REFUSALS as error:  # no mode at all, as for callbacks
            note = f"jc.jacobian has no mode for this function: {refusal(error)}."
        else:
            rows = [{**vars(row), "about": about.get(row.mode, "")} for row in compared.rows]
            return {"rows": rows, "notes": list(compared.notes), "measured": True}
    unknown = dict.fromkeys(("flops", "peak_bytes", "compile_seconds", "run_seconds", "max_error"))
    rows = [
        {"mode": mode, **unknown, "predicted_flops": cost, "about": about.get(mode, "")}
        for mode, cost in predicted.items()
    ]
    return {"rows": rows, "notes": [note], "measured": False}


def _stage_by_stage(chain: Chain, given: tuple[Any, ...]) -> list[str]:
    """Names of what a chain along tokens is given: side inputs by the stage that reads them, and the state it begins at."""
    state, *names = chain.names_with_input
    named = [*zip(names, given[0], strict=True), (state, given[1])]
    counted = [(name, len(jax.tree.leaves(value))) for name, value in named]
    return [f"{name}[{k}]" if many > 1 or name != state else name for name, many in counted for k in range(many)]


def _traced(names: list[str], chain: Chain, args: tuple[Any, ...], surveyed: Survey, found: Found) -> Trace | str:
    """Every equation with its values, in folds of stages; or why not."""
    program = found.program
    kinds = {
        (e.name, *(str(atom.aval) for atom in e.eqn.invars), str(plain_parameters(e.eqn))) for e in program.equations
    }
    if len(program.equations) > TRACED or len(kinds) > KINDS:
        return f"{count(len(program.equations), 'equation')} of {count(len(kinds), 'kind')} are too many to be traced here: jc.trace(fun, *args) shows them."
    tangent, at = list(constant_direction(args, 0)), chain.argnum % len(args)
    tangent[at] = surveyed.tangent
    return trace_of(program, found.out, args, names, tuple(tangent), surveyed.cotangent)


def _trace(traced: Trace | str, chain: Chain) -> dict[str, Any]:
    """Every equation with its values, under the stage that it belongs to."""
    if isinstance(traced, str):
        return {"rows": [], "notes": [traced]}
    rows = [
        {
            "name": row.name,
            "formula": _unmarked(row, chain.names),
            "source": row.source,
            "depth": depth,
            "fold": bool(row.rows),
            "stage": _stage_of(row),
            "primal": summary(row.primal),
            "tangent": summary(row.tangent),
            "cotangent": summary(row.cotangent),
        }
        for row, depth in traced.walk(everything=True)
    ]
    return {"rows": rows, "notes": list(traced.notes)}


def _graph(traced: Trace | str, names: Sequence[str], found: Found, args: tuple[Any, ...], at: int) -> dict[str, Any]:
    """The computational graph, one node a stage where those are folds; or why there is none."""
    if isinstance(traced, str):
        return {"graphs": [], "notes": [traced], "small": False}
    if (made := sum(bool(row.reads and row.writes) for row in traced.tree)) > NODES:
        return too_many(made)
    start = len(jax.tree.leaves(args[:at]))
    own = found.program.invars[start : start + len(jax.tree.leaves(args[at]))]
    stages = {name: _stage_of(row) for row, _ in traced.walk(everything=True) for name in row.writes}
    whole = graph_of(found.program, traced, own, folded=False) if len(traced.rows) <= FEW_ROWS else None
    graph = whole if whole is not None and is_small(whole) else graph_of(found.program, traced, own, entries=PARTIAL)
    return drawings(graph, stages, partial(_unmarked, names=names))


def _stage_of(row: TraceRow) -> int | None:
    return stage_of("/".join((*row.scope, row.call)))


def _unmarked(row: TraceRow | Node, names: Sequence[str]) -> str:
    """A row's or a node's formula, its stage called by its own name."""
    stage = stage_of(row.call)
    return row.formula if stage is None else row.formula.replace(row.call, names[stage])


def _programs(chain: Chain, args: tuple[Any, ...]) -> list[dict[str, Any]]:
    """What each transform makes of the program."""
    fields = ("name", "title", "equations", "flops", "residual_bytes", "lines", "note")
    return [{field: getattr(row, field) for field in fields} for row in transforms_of(chain, args).rows]
