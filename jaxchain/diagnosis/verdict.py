"""A verdict: does a chain pass signals on and gradients back, and if not, which stage is to blame and what helps.

Each fault has one rule, a function of what was measured; the rules are tried from the worst fault on, and what follows
from a fault that was found already is not told again. Builds on `vitals` and `theory`.

References: Glorot and Bengio, AISTATS 2010 (saturation, norms by layer); He et al., arXiv 1502.01852; Schoenholz et al.,
arXiv 1611.01232 (χ₁); Dong, Cordonnier and Loukas, arXiv 2103.03404 (rank collapse); Lu et al., arXiv 1903.06733 (dead
ReLUs); De and Smith, arXiv 2002.10444 (the scale of residual branches).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxchain.arguments import check_args
from jaxchain.chain import Chain
from jaxchain.coordinates import is_inexact
from jaxchain.diagnosis.diagnosed import Diagnosis, Finding
from jaxchain.diagnosis.loss_chain import Arrays, loss_chain
from jaxchain.diagnosis.theory import Layers, layers_of
from jaxchain.diagnosis.vitals import Entered, StageVitals, Vitals, directions_possible, vitals
from jaxchain.diagnosis.walk import Walk, walk
from jaxchain.discovery.find import UNROLL_LIMIT
from jaxchain.discovery.group import Granularity, check_granularity
from jaxchain.show.values import count, large
from jaxchain.stage import State
from jaxchain.sweep import Args, chain_of

__all__ = ["diagnose", "verdict_of"]

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

ZERO = "The chain input is zero, where many networks are not as they are elsewhere: give it real data."

BLAMED = 0.5
"""A stage that is this share of all growth or decay, on a logarithmic scale, is to blame by itself."""


def diagnose(
    chain: Chain | Callable[..., Any],
    args: Args,
    cotangent: State | None = None,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
) -> Diagnosis:
    """Whether a chain passes signals on and gradients back; if not, which stage is to blame, and what helps.

    It looks at one point: at initial parameters it says whether a network will train, later why it stopped. Give a batch
    where the model takes one: units that are off at one input are alive at another.

    Parameters
    ----------
    chain
        The composition h = f_q ∘ … ∘ f_1, or a plain function, whose chain is then discovered.
    args
        Positional arguments of ``chain``, as for a call.
    cotangent
        What is pulled back, with the structure, shapes and dtypes of the chain output. Default: 1 of a single number,
        else a random direction of length one, the same at every call.
    argnum
        Of a plain function, which argument is the chain input; default: the last, or the array in it (images, of
        images and labels) along which there are most stages.
    granularity
        Of a plain function, how coarse its stages are, as in `discover`.

    Returns
    -------
    Diagnosis
        Print it, or read ``.verdict`` and ``.findings``. It looks at values, so it cannot run under ``jit``.

    Raises
    ------
    TangentMismatchError
        If ``cotangent`` does not look like the chain output; names the leaf.
    TypeError
        If the chain input is not floating point.

    References
    ----------
    Glorot and Bengio, AISTATS 2010; Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232; Dong et al.,
    arXiv 2103.03404.

    Examples
    --------
    >>> x = jax.random.normal(jax.random.key(1), (64,))
    >>> net = jc.nets.mlp([64] * 22, "sigmoid", "lecun")
    >>> print(jc.diagnose(net, (net.init(jax.random.key(0)), x)).verdict)  # doctest: +ELLIPSIS
    Gradients vanish: ... Look at ... first.
    """
    return verdict_of(walk(*_looked_along(chain, args, argnum, granularity), cotangent))


def _looked_along(
    chain: Chain | Callable[..., Any], args: Args, argnum: int | None, granularity: Granularity | None
) -> tuple[Chain, Args]:
    """The chain along the last argument; or, of a batch of several arrays, along the one that has most stages."""
    check_args(args)
    if isinstance(chain, Chain) or argnum is not None or len(args) < 2 or len(jax.tree.leaves(args[-1])) < 2:
        return chain_of(chain, args, argnum, granularity), args
    arrays = Arrays.of(args, {})
    coarse = check_granularity(granularity, chain)
    found = loss_chain(chain, arrays, along=None, has_aux=False, granularity=coarse, unroll_limit=UNROLL_LIMIT)
    if all(is_inexact(leaf) for leaf in jax.tree.leaves(args[-1])):
        together = chain_of(chain, args, argnum, granularity)
        if len(together) >= len(found.chain):
            return together, args
    return found.chain, found.args(found.values)


def verdict_of(walked: Walk) -> Diagnosis:
    """The diagnosis of a walk."""
    found = vitals(walked)
    findings = _not_finite(found)
    if not findings:
        growth, explained = _growth(found)
        # What theory explains of all layers has saturated units and inputs that look alike among its consequences.
        rules = (growth,) if explained else (_stopped_units(found), _collapse(found), growth)
        for new in itertools.chain(*rules):
            if new.stage not in {old.stage for old in findings}:
                findings.append(new)
    notes = found.notes if found.states[0].norm else (*found.notes, ZERO)
    return Diagnosis(_in_words(findings, found), tuple(findings), notes)


def _in_words(findings: list[Finding], found: Vitals) -> str:
    if not findings:
        return f"Nothing is wrong: {_kept(found)}."
    first = findings[0]
    opening = {
        "not finite": "Numbers are lost",
        "dead": "Units are dead",
        "saturated": "Units are saturated",
        "collapsed": "Differences are lost",
        "vanishing": "Gradients vanish",
        "exploding": "Gradients explode",
    }[first.kind]
    more = f" {count(len(findings) - 1, 'other finding')} below." if len(findings) > 1 else ""
    return f"{opening}: {first.evidence}. Look at {first.stage} first.{more}"


def _kept(found: Vitals) -> str:
    start, stop = _span(found)
    first, last = found.states[start].cotangent, found.states[stop].cotangent
    if first is None or not last:
        return "all that could be looked at is finite"
    return f"from {found.states[stop].name} back to {found.states[start].name} a gradient is multiplied by {_about(first / last)}"


def _not_finite(found: Vitals) -> list[Finding]:
    """The first state that is not finite; else the first cotangent on the way back."""
    states = found.states
    k = next((k for k, state in enumerate(states) if state.broken), None)
    if k == 0:
        evidence = f"{_entries(states[0].broken, states[0].size)} of the chain input are NaN or infinite"
        return [Finding(states[0].name, "not finite", evidence, "Drop or fill what is missing in the data.")]
    if k is not None:
        evidence = f"{_entries(states[k].broken, states[k].size)} that {states[k].name} makes are NaN or infinite, and all that it was given is finite"
        advice = "It divides by zero, overflows, or takes a root or logarithm outside its domain: bound what it is given, or compute in more bits."
        return [Finding(states[k].name, "not finite", evidence, advice)]
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


def _entries(some: int, of: int) -> str:
    return f"{some:,} of {of:,} entries"


def _stopped_units(found: Vitals) -> list[Finding]:
    """Dead units and saturated entries, the stage of the largest share first."""
    if not found.states[0].norm:
        return []  # at an input of zero they say nothing of the network
    findings: list[tuple[float, Finding]] = []
    for stage in found.stages:
        for entered in stage.entered:
            if new := _stopped(stage, entered):
                findings.append(new)
                break
    return [finding for _, finding in sorted(findings, key=lambda pair: -pair[0])]


def _stopped(stage: StageVitals, entered: Entered) -> tuple[float, Finding] | None:
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


def _collapse(found: Vitals) -> list[Finding]:
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
    possible, left = directions_possible(found.states), [state.told_apart for state in found.states]
    for k, now in enumerate(left):
        if now is None or possible[k] < ENOUGH or now >= FEW:
            continue
        drops = [(_log(left[j - 1]) - _log(left[j]), j) for j in range(1, k + 1) if left[j] is not None]
        blamed = found.stages[max(drops)[1] - 1].name
        evidence = f"at {found.states[k].name} {possible[k]} random tangents point in one direction (effective rank {now:.3f}), so the Jacobian up to there has rank one in effect"
        advice = "Look at the weights there: rows that are multiples of one another, or one that outgrows all others. Draw them anew, orthogonal for depth, or add a skip connection."
        return [Finding(blamed, "collapsed", evidence, advice)]
    return []


def _log(value: float | None) -> float:
    return math.log(max(value or 0.0, 1e-30))


def _span(found: Vitals) -> tuple[int, int]:
    """From which state to which a gradient is followed: from the input to what the last parameters make.

    What a loss does behind them is the size of its gradient, which no initialiser changes.
    """
    reached = [k for k, state in enumerate(found.states) if state.cotangent is not None]
    weighted = [k + 1 for k, stage in enumerate(found.stages) if stage.parameters]
    start = min(reached, default=0)
    stop, end = max([k for k in weighted if k > start], default=len(found.states) - 1), len(found.states) - 1
    return start, stop if found.states[stop].cotangent else end


def _growth(found: Vitals) -> tuple[list[Finding], bool]:
    """Gradients that vanish or explode, and whether theory explains it, of all layers alike."""
    start, stop = _span(found)
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
        f"a gradient is multiplied by {_about(times)} from {found.states[stop].name} back to {found.states[start].name}"
    )
    if strongest / total > BLAMED and len(logs) > 1:
        alone = (
            f"by {_about(math.exp(strongest))} in {stage.name} alone"
            if found.factor(blamed)
            else f"all of it lost in {stage.name}"
        )
        return [Finding(stage.name, kind, f"{whole}, {alone}", _advice_alone(stage, kind))], False
    layers = layers_of(found)
    each = f"by {math.exp(total / len(logs)):.3g} a stage" if layers is None else _against_theory(layers)
    return [Finding(stage.name, kind, f"{whole}: {each}", _advice(layers, found, kind))], layers is not None


def _step(found: Vitals, k: int) -> float:
    """The logarithm of a stage's factor; what passes nothing at all counts as a very small one."""
    factor = found.factor(k)
    return math.log(max(factor, 1e-30)) if factor is not None else 0.0


def _against_theory(layers: Layers) -> str:
    return f"by {_about(layers.measured)} a layer (√χ₁ of {layers.activation} at σ_w = {_about(layers.sigma_w)} is {_about(layers.theory)})"


def _advice_alone(stage: StageVitals, kind: str) -> str:
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


def _about(value: float) -> str:
    """Two digits: more would be of this point alone."""
    return large(float(f"{value:.2g}"))
