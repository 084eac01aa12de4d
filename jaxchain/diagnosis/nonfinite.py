"""Where numbers are lost: the first stage on the way there, else on the way back, and the equation in it.

One walk along the chain finds the stage; of that stage alone the program is looked at equation by equation, and so is
that of its derivative. Builds on `walk` and `births`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.arguments import check_args, check_numbers
from jaxchain.chain import Chain
from jaxchain.derivative import vjp
from jaxchain.diagnosis.kinds import Placed
from jaxchain.diagnosis.located import OTHERWISE, Nonfinite, advice_of, told, where_of
from jaxchain.diagnosis.loss_chain import Arrays, loss_chain
from jaxchain.diagnosis.verdict import chain_at
from jaxchain.diagnosis.walk import Walk, walk
from jaxchain.discovery.find import UNROLL_LIMIT
from jaxchain.discovery.group import Granularity
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import REFUSALS, refusal
from jaxchain.program.births import Birth, broken, trail
from jaxchain.program.interpret import numbers_of
from jaxchain.program.primitives import ClosedJaxpr
from jaxchain.stage import Stage, State
from jaxchain.sweep import Args

__all__ = ["locate_nonfinite", "lost_in_loss"]

GIVEN = "Drop or fill what is missing in the data; or, of parameters that a step of training broke, go back to finite ones, with a lower learning rate or clipped gradients."
WRITTEN = "These infinities were written there, and nothing behind takes them out: mask with a large finite number, or take the maximum with one."


def locate_nonfinite(
    chain: Chain | Callable[..., Any],
    args: Args,
    *,
    argnum: int | None = None,
    cotangent: State | None = None,
    granularity: Granularity | None = None,
) -> Nonfinite:
    """The first stage whose state or derivative is NaN or infinite, and the equation in it that made it so.

    Forward, the states in order; where all are finite, the reverse sweep, from the output on. Infinities that somebody
    wrote, as a mask's -∞ is, and that leave result and derivative finite, are told in a note alone.

    Parameters
    ----------
    chain
        The composition h = f_q ∘ … ∘ f_1, or a plain function, whose chain is then discovered.
    args
        Positional arguments of ``chain``, as for a call.
    argnum
        Of a plain function, which argument is the chain input; default: as of `diagnose`.
    cotangent
        What is pulled back, with the structure, shapes and dtypes of the chain output. Default: 1 of a single number,
        else a random direction of length one, the same at every call.
    granularity
        Of a plain function, how coarse its stages are, as in `discover`.

    Returns
    -------
    Nonfinite
        Print it, or read ``.stage``, ``.kind`` and ``.where``. It looks at values, so it cannot run under ``jit``.

    Raises
    ------
    TangentMismatchError
        If ``cotangent`` does not look like the chain output; names the leaf.
    TypeError
        If the chain input is not floating point, or arguments are shapes, or traced.

    Notes
    -----
    Every operation is evaluated by itself, so what XLA fuses and keeps in more bits than its dtype has may be lost here
    and not there, or one step earlier.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 14 (where derivatives do not exist).

    Examples
    --------
    Where a quotient is not wanted its derivative is taken all the same:

    >>> def sinc(x):
    ...     return jnp.where(x == 0, 1.0, jnp.sin(x) / x)
    >>> found = jc.locate_nonfinite(sinc, (0.0,))
    >>> found.kind, found.value, found.where.endswith("mul then makes NaN of it")
    ('cotangent', '1 of 1 entry is NaN', True)
    """
    check_args(args)
    check_numbers(args, "Looking for what is not finite")
    with jax.debug_nans(False), jax.debug_infs(False):  # which would raise before the first is found
        return _located(*chain_at(chain, args, argnum, granularity), cotangent, _which(args))


def lost_in_loss(loss: Callable[..., Any], params: Any, batch: Any) -> Nonfinite:
    """The same of a training loss, along the array of its data that meets most parameters."""
    with jax.debug_nans(False), jax.debug_infs(False):
        arrays = Arrays.of((params, batch), {})
        found = loss_chain(loss, arrays, along=None, has_aux=False, granularity="default", unroll_limit=UNROLL_LIMIT)
        return _located(found.chain, found.args(found.values), None, _which((params, batch)))


def _located(chain: Chain, args: Args, cotangent: State | None, given: str) -> Nonfinite:
    """What is lost along a chain; ``given`` says which of the arguments it was asked with has such numbers."""
    walked = walk(chain, args, cotangent)
    return _ahead(chain, args, walked, given) or _back(chain, args, walked) or Nonfinite(notes=_notes(walked))


# ------------------------------------------------------------------------------------------------------------- there


def _ahead(chain: Chain, args: Args, walked: Walk, given: str) -> Nonfinite | None:
    """The first state that is not finite; ``given`` says which argument has such numbers."""
    if not _any(walked.states) or _harmless(walked):
        return None
    if _any(walked.states[0]):
        return Nonfinite(walked.names[0], "state", given, told(walked.states[0]), GIVEN)
    written: Nonfinite | None = None
    for at in walked.stages:
        if not _any(at.out):
            continue
        name, value = at.stage.name, told(at.out)
        birth = _made(chain, args, at)
        if birth is not None:
            birth = _placed(birth, at.stage)
            return Nonfinite(name, "state", where_of(birth), value, advice_of(birth, back=False))
        if given and _any(at.side):
            return Nonfinite(name, "state", given, value, GIVEN)
        written = written or Nonfinite(name, "state", "", value, WRITTEN)
    return written


def _made(chain: Chain, args: Args, at: Placed) -> Birth | None:
    """What broke a stage's state: an equation of the stage, or of its parameters before it is given them."""
    fun = (
        at.stage.segment.jaxpr if isinstance(at.stage, DiscoveredStage) else lambda side, state: at.stage(*side, state)
    )
    birth = _birth(fun, (at.side, at.state), at.out)
    if birth is not None or not _any(at.side):
        return birth
    sides = numbers_of(lambda *args: chain.split(*args)[1], *args)
    return _birth(lambda *args: chain.split(*args)[1], args, sides)


def _harmless(walked: Walk) -> bool:
    """Whether infinities on the way, and no NaN, left the result and all derivatives finite."""
    return not (
        _any(walked.states, nan=True) or _any(walked.states[0], walked.states[-1], walked.cotangents, walked.given)
    )


def _notes(walked: Walk) -> tuple[str, ...]:
    masked = [name for name, state in zip(walked.names, walked.states, strict=True) if _any(state)]
    some = [f"Infinite on the way, which is lost again: {', '.join(masked)}."] if masked else []
    return (*some, *walked.notes)


# -------------------------------------------------------------------------------------------------------------- back


def _back(chain: Chain, args: Args, walked: Walk) -> Nonfinite | None:
    """The first on the way back whose cotangent, or that of its side inputs, is not finite."""
    if walked.cotangents[-1] is not None and _any(walked.cotangents[-1]):
        return Nonfinite(
            walked.names[-1],
            "cotangent",
            "the cotangent that was given",
            told(walked.cotangents[-1]),
            "Give a finite one.",
        )
    for k in range(len(walked.stages) - 1, -1, -1):
        at, above, before, given = walked.stages[k], walked.cotangents[k + 1], walked.cotangents[k], walked.given[k]
        if above is None or not _any(before, given):
            continue
        kind, lost = ("cotangent", before) if _any(before) else ("argument cotangent", given)
        birth = _birth(at.kind.pull, (at.side, at.state, above), (given, before), wanted=lost)
        return _back_at(at, kind, lost, birth, walked)
    return _of_arguments(chain, args, walked)


def _of_arguments(chain: Chain, args: Args, walked: Walk) -> Nonfinite | None:
    """What is lost between the stages' side inputs and the arguments that they are made of."""
    if walked.cotangents[0] is None or any(side is None for side in walked.given):
        return None

    def pull(args: Args, cotangent: Any) -> Any:
        return vjp(chain.split, *args)[1](cotangent)

    if not _any(numbers_of(pull, args, (walked.cotangents[0], walked.given))):
        return None
    for k in range(len(walked.stages) - 1, -1, -1):

        def pull_one(args: Args, cotangent: Any, k: int = k) -> Any:
            return vjp(lambda *args: chain.split(*args)[1][k], *args)[1](cotangent)  # of zeros a NaN is made, too

        out = numbers_of(pull_one, args, walked.given[k])
        if _any(out):
            birth = _birth(pull_one, (args, walked.given[k]), out)
            return _back_at(walked.stages[k], "argument cotangent", out, birth, walked)
    return None


def _back_at(at: Placed, kind: Any, lost: Any, birth: Birth | None, walked: Walk) -> Nonfinite:
    birth = None if birth is None else _placed(birth, at.stage)
    where, advice = ("", OTHERWISE) if birth is None else (where_of(birth), advice_of(birth, back=True))
    value = told([leaf for leaf in jax.tree.leaves(lost) if _any(leaf)])
    return Nonfinite(at.stage.name, kind, where, value, advice, walked.notes)


# ---------------------------------------------------------------------------------------------------------- equations


def _birth(fun: Callable[..., Any] | ClosedJaxpr, args: tuple[Any, ...], out: Any, wanted: Any = None) -> Birth | None:
    """The equation that broke the first broken leaf of ``fun(*args)``, which is ``out``; of ``wanted`` alone, if given."""
    try:
        closed = fun if isinstance(fun, ClosedJaxpr) else jax.make_jaxpr(fun)(*args)
    except jax.errors.ConcretizationTypeError:  # a rule that branches on a value, as it may outside jit
        return None
    except REFUSALS as error:
        refusal(error)
        return None
    chosen = {id(leaf) for leaf in jax.tree.leaves(out if wanted is None else wanted)}
    leaves = [(k, leaf) for k, leaf in enumerate(jax.tree.leaves(out)) if id(leaf) in chosen and _any(leaf)]
    for k, _ in sorted(leaves, key=lambda pair: not broken(pair[1], nan=True).any()):  # of NaN more can be told
        birth = trail(closed, jax.tree.leaves(args), k).birth
        if birth is not None:
            return birth
    return None


def _placed(birth: Birth, stage: Stage) -> Birth:
    """What JAX kept no line of is told where all of its stage was written, if that is one line; steps of unrolled loops."""
    if not isinstance(stage, DiscoveredStage):
        return birth
    steps = [step for e in stage.segment.equations if e.eqn is birth.around for _, step in e.origin.steps]
    birth = replace(birth, steps=(*steps, *birth.steps))
    if birth.site.file:
        return birth
    lines = {(equation.site.file, equation.site.line): equation.site for equation in stage.segment.equations}
    return replace(birth, site=next(iter(lines.values()))) if len(lines) == 1 else birth


def _any(*trees: Any, nan: bool = False) -> bool:
    return any(broken(leaf, nan=nan).any() for leaf in jax.tree.leaves(trees))


def _which(args: Sequence[Any]) -> str:
    """The first leaf of the arguments that is not finite, and its first such entry."""
    for path, leaf in tree_flatten_with_path(tuple(args))[0]:
        if _any(leaf):
            place = tuple(int(k) for k in np.argwhere(broken(leaf))[0])
            return f"argument {keystr(path[:1])[1:-1]}{keystr(path[1:])}" + (f", entry {list(place)}" if place else "")
    return ""
