"""The faults that a chain may have: one rule each, a function of what was measured, with the stage to blame and advice.

Builds on `vitals` and `theory`.

References: Glorot and Bengio, AISTATS 2010 (saturation, norms by layer); He et al., arXiv 1502.01852; Schoenholz et al.,
arXiv 1611.01232 (χ₁); Dong, Cordonnier and Loukas, arXiv 2103.03404 (rank collapse); Lu et al., arXiv 1903.06733 (dead
ReLUs); De and Smith, arXiv 2002.10444 (the scale of residual branches).
"""

from __future__ import annotations

import math

import numpy as np

from jaxchain.diagnosis.diagnosed import Finding
from jaxchain.diagnosis.theory import Layers, layers_of
from jaxchain.diagnosis.vitals import Entered, StageVitals, Vitals
from jaxchain.show.values import count, large

__all__ = ["about", "collapse", "growth", "not_finite", "span", "stopped_units"]

TOO_MUCH = 1e3
"""A gradient that grows or shrinks more from the last parameters to the input trains no first layer well."""

DEAD = {1: 0.9, 2: 0.7, 8: 0.5}
"""Rows an activation was looked at → the share of dead units that is too much: at one input half of all ReLUs are off."""

SATURATED = 0.5
"""The share of flat entries that is too much."""

ALIKE, APART = 1e-3, 1e-2
"""Rows that differ by less, of their norm, are one; if they differed by more before."""

DEEP = 8
"""Of a function without parameters, so many stages make a chain in which gradients may vanish: in fewer, as where units
are converted, a factor is meant.
"""

FEW, ENOUGH = 1.1, 4
"""Tangents collapsed where fewer directions than this are left, of at least so many possible."""

BLAMED = 0.5
"""A stage that is this share of all growth or decay, on a logarithmic scale, is to blame by itself."""


def not_finite(found: Vitals) -> list[Finding]:
    """The first state that is not finite; else the first cotangent on the way back."""
    states = found.states
    through = not states[-1].broken and not any(state.broken_back for state in states)
    k = next((k for k, state in enumerate(states) if state.broken and not (state.masked and through)), None)
    if k is not None:
        return [_lost(found, k)]
    k = next((k for k in range(len(states) - 1, -1, -1) if states[k].broken_back), None)
    if k is None:
        return []
    if k == len(states) - 1:
        evidence = "the cotangent that was given is not finite"
        return [Finding(states[k].name, "not finite", evidence, "Give a finite one.")]
    blamed = found.stages[k].name
    evidence = f"the states are finite, but {_entries(states[k].broken_back, states[k].size)} of the cotangent that {blamed} passes back are not"
    advice = "Its derivative is infinite or undefined here, as a root's or a norm's is at 0: add a small number inside, or choose what it is given by jnp.where before it is applied."
    return [Finding(blamed, "not finite", evidence, advice)]


def _lost(found: Vitals, k: int) -> Finding:
    """The first state that is not finite."""
    state = found.states[k]
    some = _entries(state.broken, state.size)
    if k == 0:
        evidence = f"{some} of the chain input are NaN or infinite"
        return Finding(state.name, "not finite", evidence, "Drop or fill what is missing in the data.")
    stage = found.stages[k - 1]
    if stage.broken:
        evidence = f"{_entries(stage.broken, stage.parameters)} of the parameters of {state.name} are NaN or infinite"
        advice = "A step of training broke them: go back to parameters that were finite, with a lower learning rate or clipped gradients."
        return Finding(state.name, "not finite", evidence, advice)
    evidence = f"{some} that {state.name} makes are NaN or infinite, and all that it was given is finite"
    advice = "It divides by zero, overflows, or takes a root or logarithm outside its domain: bound what it is given, or compute in more bits."
    return Finding(state.name, "not finite", evidence, advice)


def _entries(some: int, of: int) -> str:
    return f"{some:,} of {of:,} entries"


def stopped_units(found: Vitals) -> list[Finding]:
    """Dead units and saturated entries, the stage of the largest share first."""
    if not found.states[0].norm:
        return []  # at an input of zero they say nothing of the network
    findings: list[tuple[float, Finding]] = []
    for stage in found.stages[: max(found.last_matrix - 1, 1)]:  # what a loss does behind the last weights is no layer
        for entered in stage.entered:
            if new := _stopped(stage, entered):
                findings.append(new)
                break
    return [finding for _, finding in sorted(findings, key=lambda pair: -pair[0])]


def _stopped(stage: StageVitals, entered: Entered) -> tuple[float, Finding] | None:
    if not entered.rms:
        return None  # all that enters is zero: that comes from elsewhere
    rows = count(entered.rows, "row")
    scale = f"what enters it has a root mean square of {entered.rms:.3g}"
    limit = next(share for least, share in reversed(DEAD.items()) if entered.rows >= least)
    if entered.saturated >= SATURATED:
        evidence = (
            f"{entered.saturated:.0%} of the entries of {stage.name} are where its activation is flat, and {scale}"
        )
        advice = "Make what enters it smaller: scale the inputs to a variance of one, draw smaller weights before it, or normalise."
        return entered.saturated, Finding(stage.name, "saturated", evidence, advice)
    if entered.dead >= limit:
        evidence = f"{entered.dead:.0%} of the units of {stage.name} pass nothing back at any of {rows}, and {scale}"
        advice = "Nothing brings these units back: draw the weights before it anew with biases of zero, lower the learning rate, or use an activation that is flat nowhere (leaky ReLU)."
        return entered.dead, Finding(stage.name, "dead", evidence, advice)
    return None


def collapse(found: Vitals) -> list[Finding]:
    """Where rows become one row, or all directions one direction."""
    return [*_alike(found), *_one_direction(found)][:1]


def _alike(found: Vitals) -> list[Finding]:
    distinct = [state.distinct for state in found.states]
    seen = 0.0
    for k, now in enumerate(distinct):
        if now is None:
            continue
        if k and seen > APART and now < ALIKE and found.states[k].width >= ENOUGH:
            drops = [(_log(distinct[j - 1]) - _log(distinct[j]), j) for j in range(1, k + 1) if distinct[j] is not None and distinct[j - 1]]  # fmt: skip
            blamed = found.stages[max(drops)[1] - 1].name if drops else found.stages[k - 1].name
            evidence = f"the rows (samples or positions) of {found.states[k].name} differ by {large(now)} of their norm, those of an earlier state by {large(seen)}"
            advice = "Pass the state on beside what averages it (a skip connection), or sharpen the weights of the average; without one, attention makes all positions one."
            return [Finding(blamed, "collapsed", evidence, advice)]
        seen = max(seen, now)
    return []


def _one_direction(found: Vitals) -> list[Finding]:
    left, seen = [state.told_apart for state in found.states], 0.0
    for k, now in enumerate(left):
        if now is None:
            continue
        if found.states[k].width < ENOUGH:
            seen = now  # a narrow state: from there on no more can be told apart
        elif seen >= ENOUGH / 2 and now < FEW:
            drops = [(_log(left[j - 1]) - _log(left[j]), j) for j in range(1, k + 1) if left[j] is not None]
            blamed = found.stages[max(drops)[1] - 1].name
            evidence = f"at {found.states[k].name} random tangents point in one direction (effective rank {now:.3f}), those of an earlier state in {seen:.1f}, so the Jacobian up to there has rank one in effect"
            advice = "Look at the weights there: rows that are multiples of one another, or one that outgrows all others. Draw them anew, orthogonal for depth, or add a skip connection."
            return [Finding(blamed, "collapsed", evidence, advice)]
        seen = max(seen, now)
    return []


def _log(value: float | None) -> float:
    return math.log(max(value or 0.0, 1e-30))


def span(found: Vitals) -> tuple[int, int]:
    """From which state to which a gradient is followed: from what the first weights make to what the last ones make.

    What a loss does behind them is the size of its gradient, and what is done before them is the scale of the data;
    neither changes how alike layers learn. Without weights: from the input to the output.
    """
    reached = [k for k, state in enumerate(found.states) if state.cotangent is not None]
    weighted = [k + 1 for k, stage in enumerate(found.stages) if stage.matrix and k + 1 in reached]
    end = len(found.states) - 1
    return (weighted[0], weighted[-1]) if len(weighted) > 1 else (min(reached, default=0), end)


def growth(found: Vitals) -> tuple[list[Finding], bool]:
    """Gradients that vanish or explode, and whether theory explains it, of all layers alike."""
    start, stop = span(found)
    first, last = found.states[start].cotangent, found.states[stop].cotangent
    if first is None or not last or 1 / TOO_MUCH <= first / last <= TOO_MUCH:
        return [], False
    if stop - start < DEEP and not any(stage.parameters for stage in found.stages):
        return [], False
    times = first / last
    kind = "vanishing" if times < 1 else "exploding"
    logs = np.array([_step(found, k) for k in range(start, stop)])
    blamed = start + int(np.argmin(logs) if times < 1 else np.argmax(logs))
    stage, strongest, total = (
        found.stages[blamed],
        logs[blamed - start],
        math.log(times) if times else float(logs.sum()),
    )
    whole = (
        f"a gradient is multiplied by {about(times)} from {found.states[stop].name} back to {found.states[start].name}"
    )
    if strongest / total > BLAMED and len(logs) > 1:
        alone = (
            f"by {about(math.exp(strongest))} in {stage.name} alone"
            if found.factor(blamed)
            else f"all of it lost in {stage.name}"
        )
        return [
            Finding(stage.name, kind, f"{whole}, {alone}", _advice_alone(stage, kind, lost=not found.factor(blamed)))
        ], False
    layers = layers_of(found)
    each = f"by {math.exp(total / len(logs)):.3g} a stage" if layers is None else _against_theory(layers)
    return [Finding(stage.name, kind, f"{whole}: {each}", _advice(layers, found, kind))], layers is not None


def _step(found: Vitals, k: int) -> float:
    """The logarithm of a stage's factor; what passes nothing at all counts as a very small one."""
    factor = found.factor(k)
    return math.log(max(factor, 1e-30)) if factor is not None else 0.0


def _against_theory(layers: Layers) -> str:
    return f"by {about(layers.measured)} a layer (√χ₁ of {layers.activation} at σ_w = {about(layers.sigma_w)} is {about(layers.theory)})"


def _advice_alone(stage: StageVitals, kind: str, *, lost: bool) -> str:
    if stage.parameters and stage.weight and lost:
        return "Nothing at all passes back: there is a stop_gradient, a rounding or an integer in it, or all that it passes on is off."
    if stage.parameters and not stage.weight:
        return "Its parameters are all zero, so nothing before it is trained until they move; draw them at random if that was not meant."
    if stage.parameters:
        way = "larger" if kind == "vanishing" else "smaller"
        return f"Draw its weights {way}: of variance 1/(inputs of a unit) a linear stage keeps norms, of 2/(inputs) one before a ReLU."
    return "It has no parameters: change the scale of what enters it, or normalise before it."


def _advice(layers: Layers | None, found: Vitals, kind: str) -> str:
    if layers is None:
        if kind == "exploding" and _grows(found):
            return "States grow along with it, as those of residual blocks do: multiply each branch by 1/√(number of blocks), or normalise before it."
        way = "small" if kind == "vanishing" else "large"
        return f"Weights are too {way} for this depth, or nothing carries the gradient past the stages: He's initialiser for ReLU, LeCun's for tanh, skip connections, normalisation."
    if math.isnan(layers.critical) or layers.activation in ("sigmoid", "softplus"):
        return f"No scale of the weights mends {layers.activation} at this depth: use tanh or ReLU, or residual blocks, which pass the gradient on beside it."
    ratio = layers.critical / layers.sigma_w
    if 0.9 < ratio < 1.1:
        return "The scale of the weights is the critical one, and the depth too much for it: orthogonal weights, or residual blocks."
    return (
        f"Multiply the weights by {ratio:.3g}, to σ_w = {layers.critical:.3g} (standard deviation σ_w/√inputs), where {layers.activation} keeps gradients"
        + (", which is He's initialiser." if layers.activation == "relu" else ".")
    )


def _grows(found: Vitals) -> bool:
    norms = [state.norm for state in found.states if state.norm and math.isfinite(state.norm)]
    return len(norms) > 1 and max(norms) > 10 * norms[0]


def about(value: float) -> str:
    """Two digits: more would be of this point alone."""
    return large(float(f"{value:.2g}"))
