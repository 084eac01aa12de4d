"""A loss that also returns its gradient flow, from the one backward pass that training makes anyway.

The trick is a derivative rule: going forward it computes the loss, sweeps back along its chain at once, and keeps the
gradients; going back it hands these out. So the cotangents of the states are there when the loss returns, and no pass
is made twice. What nobody reads, XLA leaves out. Builds on `passing` and `loss_chain`.

References: Schneider, Dangel and Hennig, Cockpit: a practical debugging tool for the training of deep neural networks,
NeurIPS 2021, which takes its instruments from the backward pass, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxchain.checks import check_function, flag, integer, text, word
from jaxchain.coordinates import is_float0, is_real_number
from jaxchain.derivative import vjp
from jaxchain.diagnosis.loss_chain import Arrays, LossChain, loss_chain
from jaxchain.diagnosis.noise import batched, ratio, split_batch
from jaxchain.diagnosis.passing import Passed, Wanted, pass_back
from jaxchain.discovery.find import UNROLL_LIMIT, unrolling
from jaxchain.discovery.group import Granularity
from jaxchain.patterns import check_patterns, chosen
from jaxchain.program.flow import active
from jaxchain.show.shapes import describe

__all__ = ["Watching", "chain_of", "watch", "watched_call"]


@dataclass(frozen=True)
class Watching:
    """What is watched, and how; see `watch`."""

    stages: str | Sequence[str] | None = None
    along: str | None = None
    has_aux: bool = False
    granularity: Granularity = "default"
    unroll_limit: int = UNROLL_LIMIT
    wanted: Wanted = field(default_factory=Wanted)
    parts: int | None = None

    def __post_init__(self) -> None:
        if self.stages is not None:
            check_patterns(self.stages)
        text("along", self.along, optional=True)
        flag("has_aux", self.has_aux)
        word("granularity", self.granularity, get_args(Granularity))
        unrolling(self.unroll_limit)
        integer("signal_to_noise", self.parts, "in how many parts a batch is split", least=2, optional=True)


def watch(
    loss_fn: Callable[..., Any],
    stages: str | Sequence[str] | None = None,
    *,
    along: str | None = None,
    has_aux: bool = False,
    granularity: Granularity = "default",
    unroll_limit: int = UNROLL_LIMIT,
    histogram: bool = False,
    sigma: bool = False,
    keep_gradients: bool = False,
    signal_to_noise: int | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """Make a loss also return its gradient flow, in any training loop.

    ``jax.value_and_grad(jc.watch(loss_fn), has_aux=True)(params, batch)`` returns ``((loss, flow), grads)``: the loss
    and gradients that it returned before, from one backward pass. It works under ``jit``, ``vmap``, ``scan``, and with
    `equinox.filter_value_and_grad`; leaves that are no arrays are left alone.

    Parameters
    ----------
    loss_fn
        ``loss_fn(params, *data) -> scalar``, pure; parameters come first.
    stages
        Which stages are reported: patterns of their names (``"block_*"``), one or several; default: all.
    along
        The array of data that the network is a chain along, as the path of its argument: ``"1/x"``, or its end,
        ``"x"``. Default: the one along which the loss meets most parameters, then the one with most stages: inputs
        rather than labels, and nothing behind a ``stop_gradient``.
    has_aux
        Whether ``loss_fn`` returns ``(loss, aux)``; the watched one then returns ``(loss, (aux, flow))``. Like the
        flow, aux has no derivative then: one that is asked for is refused.
    granularity, unroll_limit
        How coarse the stages are, as in `discover`. A ``scan`` over layers is unrolled, each step a stage, up to
        ``unroll_limit`` steps.
    histogram
        Count the gradients' entries by magnitude: about twenty comparisons an entry.
    sigma
        Also the largest singular value of each stage's Jacobian, by some power steps: many times the work.
    keep_gradients
        Keep the gradients by stage in the flow, so that `GradientFlow.compared` can tell the cosine to the step before.
    signal_to_noise
        Also the gradient's signal-to-noise ratio, from the gradients of so many equal parts of the batch: a second
        backward pass. For a loss that is a mean over samples, which lie on the first axis of the data; NaN where the
        parts' gradients show that it is none.

    Returns
    -------
    Callable
        ``watched(params, *data) -> (loss, flow)``, `flow` a `GradientFlow`. Flow and gradients are of the loss
        itself: where float16 needs it to be multiplied, do so inside of ``loss_fn``, for behind it what has vanished
        is lost. Flow carries no derivative, and there is no forward mode.

    Raises
    ------
    KeyError
        When called: if a pattern matches no stage, or no array is at ``along``; suggests the nearest names.
    TypeError
        When called: if the loss is no real scalar, or no array of data comes after the parameters. When differentiated:
        if a derivative of ``aux`` is asked for.
    ModeError
        When called: if a stage has no reverse mode; names the stage.

    References
    ----------
    Schneider, Dangel and Hennig, Cockpit, NeurIPS 2021.

    Examples
    --------
    >>> def loss(params, batch):
    ...     x, labels = batch
    ...     return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - labels) ** 2)
    >>> params = {"w": jnp.ones((2, 3)), "v": jnp.ones(3)}
    >>> step = jax.jit(jax.value_and_grad(jc.watch(loss), has_aux=True))
    >>> (value, flow), grads = step(params, (jnp.ones((4, 2)), jnp.zeros(4)))
    >>> f"{flow.gradient[0]:.4f}", f"{jnp.linalg.norm(grads['w']):.4f}"  # of the first stage, and of its weight
    ('1.0010', '1.0010')
    """
    check_function(loss_fn, "watch")
    wanted = Wanted(None, histogram, sigma, keep_gradients)
    how = Watching(stages, along, has_aux, granularity, unroll_limit, wanted, signal_to_noise)

    @functools.wraps(loss_fn)
    def watched(*args: Any, **named: Any) -> tuple[Any, Any]:
        return watched_call(loss_fn, args, named, how)

    return watched


def watched_call(
    loss_fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], how: Watching
) -> tuple[Any, Any]:
    """The loss, and its flow (after what it returns beside it), with a derivative rule that makes one backward pass."""
    arrays, chain = chain_of(loss_fn, args, named, how)
    wanted = replace(how.wanted, stages=chosen(chain.chain.names, how.stages))

    def told(values: Sequence[Any], swept: Any) -> Any:
        if how.parts is None:
            return swept
        (loss, aside), gradients = swept
        aux, flow = aside if how.has_aux else (None, aside)
        flow = replace(flow, signal_to_noise=_ratio(loss_fn, arrays, chain, values, how, flow.gradient))
        return (loss, (aux, flow) if how.has_aux else flow), gradients

    @jax.custom_vjp
    def run(*values: Any) -> tuple[Any, Any]:
        moved = [k < arrays.parameters for k in range(len(values))]
        return told(values, _swept(chain, values, moved, wanted, how.has_aux))[0]

    def forward(*primals: Any) -> Any:
        values, moved = [p.value for p in primals], [p.perturbed for p in primals]
        return told(values, _swept(chain, values, moved, wanted, how.has_aux))

    def backward(gradients: list[Any], cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
        scale, aside = cotangents
        if how.has_aux and not all(map(_is_nothing, jax.tree.leaves(aside[0], is_leaf=_is_nothing))):
            msg = "What a watched loss returns beside it has no derivative here. Add what is to be differentiated to the loss itself, or call jax.value_and_grad(..., has_aux=True)."
            raise TypeError(msg)
        if isinstance(scale, SymbolicZero):
            return tuple(None for _ in gradients)
        return tuple(None if g is None else (g * scale).astype(g.dtype) for g in gradients)

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(*chain.values)


def chain_of(
    loss_fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], how: Watching
) -> tuple[Arrays, LossChain]:
    """The arrays of a call, and the chain of the loss along one of them."""
    arrays = Arrays.of(args, named)
    return arrays, loss_chain_of(loss_fn, arrays, how)


def loss_chain_of(loss_fn: Callable[..., Any], arrays: Arrays, how: Watching) -> LossChain:
    """The chain of the loss at some arrays, once it leads to a real number."""
    chain = loss_chain(
        loss_fn,
        arrays,
        along=how.along,
        has_aux=how.has_aux,
        granularity=how.granularity,
        unroll_limit=how.unroll_limit,
    )
    _check_scalar(chain.found.out)
    return chain


def _swept(
    chain: LossChain, values: Sequence[Any], moved: Sequence[bool], wanted: Wanted, has_aux: bool
) -> tuple[tuple[Any, Any], list[Any]]:
    """What a watched loss returns, and the gradients of its arrays; ``None`` of those that do not move."""
    passed, pull = _passed(chain, values, moved, wanted)
    back = jax.tree.leaves(pull((passed.cotangent, passed.sides)))
    gradients: list[Any] = [None] * len(values)
    for k, gradient in zip(chain.order, back, strict=True):
        gradients[k] = gradient if moved[k] else None
    aside: Any = (chain.aux(values, passed.tapped), passed.flow) if has_aux else passed.flow
    return (passed.out, aside), gradients


def _passed(
    chain: LossChain, values: Sequence[Any], moved: Sequence[bool], wanted: Wanted
) -> tuple[Passed, Callable[[Any], tuple[Any, ...]]]:
    """There and back along the chain, from a cotangent of one; and what pulls back to the arrays."""
    program, args = chain.found.program, chain.args(values)
    ordered = [moved[k] for k in chain.order]
    carrying = active(program.eqns, (var for var, moves in zip(program.invars, ordered, strict=True) if moves))
    (state, sides), pull = vjp(chain.chain.split, *args, which=ordered)

    def ones(out: Any) -> Any:
        return jax.tree.map(jnp.ones_like, out)

    return pass_back(chain.chain, state, sides, ones, wanted, carrying, chain.taps), pull


def _ratio(
    loss_fn: Callable[..., Any],
    arrays: Arrays,
    chain: LossChain,
    values: Sequence[Any],
    how: Watching,
    norms: jax.Array,
) -> jax.Array:
    """The gradient's signal-to-noise ratio by stage, from the parts of a batch."""
    parts, along = how.parts or 2, chain.order[-1]
    given = list(values[: len(arrays.places)])
    samples = batched(given, arrays.parameters, along, parts)
    split = [split_batch(given[k], parts) for k in samples]
    few = arrays.with_values({k: part[0] for k, part in zip(samples, split, strict=True)})
    part_how = replace(how, along=arrays.paths[along])
    part = loss_chain_of(loss_fn, few, part_how)
    wanted = Wanted(chosen(part.chain.names, how.stages), gradients=True)
    moved = [k < arrays.parameters for k in range(len(values))]

    def gradients(*batch: Any) -> Sequence[Any]:
        of_part = list(values)
        for k, value in zip(samples, batch, strict=True):
            of_part[k] = value
        return _passed(part, of_part, moved, wanted)[0].flow.gradients

    return ratio(gradients, split, norms)


def _is_nothing(cotangent: Any) -> bool:
    """Whether a cotangent is zero by its type."""
    return isinstance(cotangent, SymbolicZero) or is_float0(cotangent)


def _check_scalar(out: Any) -> None:
    if is_real_number(out):
        return
    msg = f"A loss that is watched returns one real number, but this one returns {describe(out)}. Take its mean, or say has_aux=True where it returns (loss, aux)."
    raise TypeError(msg)
