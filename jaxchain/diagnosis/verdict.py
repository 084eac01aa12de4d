"""A verdict: does a chain pass signals on and gradients back, and if not, which stage is to blame and what helps.

The faults are looked for from the worst on, and what follows from one that was found already is not told again. Builds
on `walk` and `faults`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax

from jaxchain.arguments import check_args, check_numbers
from jaxchain.chain import Chain
from jaxchain.coordinates import is_inexact
from jaxchain.diagnosis.diagnosed import Diagnosis, Finding
from jaxchain.diagnosis.faults import about, collapse, growth, not_finite, span, stopped_units
from jaxchain.diagnosis.loss_chain import Arrays, loss_chain
from jaxchain.diagnosis.vitals import Vitals, vitals
from jaxchain.diagnosis.walk import Walk, walk
from jaxchain.discovery.find import UNROLL_LIMIT
from jaxchain.discovery.group import Granularity, check_granularity
from jaxchain.show.values import count
from jaxchain.stage import State
from jaxchain.sweep import Args, chain_of

__all__ = ["chain_at", "diagnose", "verdict_of"]

STOPPED = "No gradient arrives at {}: what comes behind it is flat here, as a loss is that has been met."

ZERO = "The chain input is zero, where many networks are not as they are elsewhere: give it real data."


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
        Of a plain function, which argument is the chain input; default: of a function of parameters and one array that
        array, of more (images and labels, a key) the one that meets most parameters.
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
        If the chain input is not floating point, or arguments are shapes, or traced.

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
    check_args(args)
    check_numbers(args, "A diagnosis")
    return verdict_of(walk(*chain_at(chain, args, argnum, granularity), cotangent))


def chain_at(
    chain: Chain | Callable[..., Any], args: Args, argnum: int | None, granularity: Granularity | None
) -> tuple[Chain, Args]:
    """The chain along the last argument; or, of a model and a batch of several arrays, along the one that meets most weights."""
    leaves, last = jax.tree.leaves(args), jax.tree.leaves(args[-1:])
    arrays_alone = all(hasattr(leaf, "dtype") or isinstance(leaf, (int, float, complex)) for leaf in leaves)
    one = len(args) < 2 or (len(args) < 3 and len(last) == 1 and arrays_alone)
    if isinstance(chain, Chain) or argnum is not None or one:
        return chain_of(chain, args, argnum, granularity), args
    arrays = Arrays.of(args, {})
    coarse = check_granularity(granularity, chain)
    found = loss_chain(chain, arrays, along=None, has_aux=False, granularity=coarse, unroll_limit=UNROLL_LIMIT)
    if len(last) > 1 and all(map(is_inexact, last)) and arrays_alone:  # a state of several arrays, perhaps
        together = chain_of(chain, args, argnum, granularity)
        if len(together) >= len(found.chain):
            return together, args
    return found.chain, found.args(found.values)


def verdict_of(walked: Walk) -> Diagnosis:
    """The diagnosis of a walk."""
    found = vitals(walked)
    findings = not_finite(found)
    if not findings:
        grown, explained = growth(found)
        # What theory explains of all layers has saturated units and inputs that look alike among its consequences.
        rules = (grown,) if explained else (stopped_units(found), collapse(found), grown)
        for new in itertools.chain(*rules):
            if new.stage not in {old.stage for old in findings}:
                findings.append(new)
    notes, stop = list(found.notes), found.states[span(found)[1]]
    notes += [] if found.states[0].norm else [ZERO]
    notes += [STOPPED.format(stop.name)] if stop.cotangent == 0 else []
    return Diagnosis(_in_words(findings, found), tuple(findings), tuple(notes))


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
    start, stop = span(found)
    first, last = found.states[start].cotangent, found.states[stop].cotangent
    if first is None or not last:
        return "all that could be looked at is finite"
    return f"from {found.states[stop].name} back to {found.states[start].name} a gradient is multiplied by {about(first / last)}"
