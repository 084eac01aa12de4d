"""One reverse sweep along a chain that keeps of every state and stage some numbers: its gradient flow.

Each stage is pulled back by itself, so the cotangents of all states are there, as they are not in `jax.grad`; nothing
but reductions of them is added to what a training step computes anyway. Builds on `derivative` and `flowing`.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.2; Glorot and Bengio, AISTATS 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxchain.chain import Chain
from jaxchain.checks import flag
from jaxchain.coordinates import check_like, random_direction, require_inexact
from jaxchain.derivative import Linear, vjp
from jaxchain.diagnosis.flowing import HIGHEST, LOWEST, GradientFlow
from jaxchain.diagnosis.layout import reading_parameters
from jaxchain.diagnosis.lengths import counts, inexact, length, peak
from jaxchain.diagnosis.slopes import Activation, activations
from jaxchain.diagnosis.tapped import Tapped, discovered_alone
from jaxchain.discovery.group import Granularity
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.errors import refused_in_words
from jaxchain.patterns import chosen
from jaxchain.program.primitives import Var
from jaxchain.stage import Side, Stage, State
from jaxchain.sweep import Args, chain_of

__all__ = ["Passed", "Wanted", "gradient_flow", "pass_back"]

NO_TAPS: Mapping[int, tuple[Var, ...]] = {}

STEPS = 8
"""Power steps for the largest singular value."""

EDGES = (0.0, *(10.0**k for k in range(LOWEST, HIGHEST + 1)))


@dataclass(frozen=True)
class Wanted:
    """What is reported: of which stages (their numbers; ``None``: all), and what beside norms."""

    stages: tuple[int, ...] | None = None
    histogram: bool = False
    sigma: bool = False
    gradients: bool = False

    def __post_init__(self) -> None:
        for name in ("histogram", "sigma", "gradients"):
            flag(name, getattr(self, name))


class Passed(NamedTuple):
    """The chain's output; the cotangents of its input and of every stage's side inputs; the flow; values asked for."""

    out: State
    cotangent: State
    sides: tuple[Side, ...]
    flow: GradientFlow
    tapped: Mapping[Var, Any]


def gradient_flow(
    chain: Chain | Callable[..., Any],
    args: Args,
    cotangent: State | None = None,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    stages: str | Sequence[str] | None = None,
    histogram: bool = False,
    sigma: bool = False,
) -> GradientFlow:
    """How the gradient flows back along a chain: norms by stage, and what stops it, from one reverse sweep.

    It traces, so it may be called under ``jit``, ``vmap``, in a ``scan``; what is printed needs values.

    Parameters
    ----------
    chain
        The composition h = f_q ∘ … ∘ f_1, or a plain function, whose chain is then discovered.
    args
        Positional arguments of ``chain``, as for a call.
    cotangent
        x̄_q, with the structure, shapes and dtypes of the chain output. Default: 1 of a single number, else a random
        direction of length one, the same at every call.
    argnum
        Of a plain function, which argument is the chain input; default: the last.
    granularity
        Of a plain function, how coarse its stages are, as in `discover`.
    stages
        Which stages are reported: patterns of their names (``"block_*"``), which may begin at any module in them;
        default: all.
    histogram
        Count the gradients' entries by magnitude.
    sigma
        Also the largest singular value of each stage's Jacobian, by some power steps: about eight times the work.

    Returns
    -------
    GradientFlow
        Print it, or read ``.rows``. A pytree.

    Raises
    ------
    TangentMismatchError
        If ``cotangent`` does not look like the chain output; names the leaf.
    KeyError
        If a pattern matches no stage; suggests the nearest names.
    ModeError
        If a stage has no reverse mode (a while loop); names the stage.
    TypeError
        If the chain input is not floating point.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.

    Examples
    --------
    >>> net = jc.nets.mlp([8, 8, 8, 8], activation="sigmoid", init="he")
    >>> print(jc.gradient_flow(net, (net.init(jax.random.key(0)), jnp.ones(8)), stages="sigmoid_*"))
    Gradient flow
    stage      ‖state‖  ‖cotangent‖  ‖gradient‖  ‖weight‖  dead  saturated
    sigmoid_0    1.625       0.2959                        0.0%       0.0%
    sigmoid_1    1.465        1.056                        0.0%       0.0%
    """
    chain = reading_parameters(chain_of(chain, args, argnum, granularity))
    state, sides = chain.split(*args)
    state = require_inexact(state, "chain input")
    wanted = Wanted(chosen(chain.names, stages), histogram, sigma)

    def given(out: State) -> State:
        if cotangent is None:
            return random_direction(out, 1)
        return check_like(cotangent, out, "cotangent", "chain output")

    with jax.debug_nans(False):  # NaN is what a stage has not, which is no reason to stop
        return pass_back(chain, state, sides, given, wanted).flow


def pass_back(
    chain: Chain,
    state: State,
    sides: Sequence[Side],
    cotangent_of: Callable[[State], State],
    wanted: Wanted,
    carrying: Collection[Var] | None = None,
    taps: Mapping[int, tuple[Var, ...]] = NO_TAPS,
) -> Passed:
    """Go along a chain from its input and side inputs, and back from the cotangent that its output is given.

    With ``carrying``, variables of a discovered chain's program, nothing else is differentiated with respect to.
    ``taps`` are variables inside of its stages whose values are wanted, by the stage's number.
    """
    kept = range(len(chain)) if wanted.stages is None else wanted.stages
    passes, norms, known = list[_Pass](), [length(state)], dict[Var, Any]()
    for k, (stage, side) in enumerate(zip(chain, sides, strict=True)):
        one = _Pass.along(stage, side, state, _which(stage, carrying), taps.get(k, ()), look=k in kept)
        passes.append(one)
        known |= one.tapped
        state = one.out
        norms.append(length(state))
    cotangent = cotangent_of(state)
    back, reached, pulled = [length(cotangent, peak(cotangent))], [True], list[Side]()
    parts: dict[int, dict[str, Any]] = {}
    for k in reversed(range(len(chain))):
        with _reverse(chain[k]):
            *of_side, cotangent = passes[k].pull(cotangent)
        pulled.append(tuple(of_side))
        if k in kept:
            parts[k] = passes[k].told(of_side, back[-1], wanted)
        reached.append(passes[k].moves)
        back.append(length(cotangent, peak(cotangent)) if reached[-1] else jnp.full_like(back[-1], jnp.nan))
    back.reverse()
    reached.reverse()
    at = (0, *(k + 1 for k in kept))
    states = [passes[0].state, *(one.out for one in passes)]
    flow = GradientFlow(
        names=tuple(chain.names_with_input[k] for k in at),
        sizes=tuple(sum(leaf.size for leaf in inexact(states[k])) for k in at),
        parameters=tuple(parts[k].pop("parameters") for k in kept),
        state=_stacked([norms[k] for k in at]),
        cotangent=_stacked([back[k] for k in at]),
        reached=jnp.asarray([reached[k] for k in at]),
        **_together([parts[k] for k in kept]),
    )
    return Passed(state, cotangent, tuple(reversed(pulled)), flow, known)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One stage on the way: what went in, what came out, what pulls back, and what its activations were given."""

    stage: Stage
    side: Side
    state: State
    which: Sequence[bool] | None
    out: State
    pull: Callable[[State], tuple[Any, ...]]
    tapped: Mapping[Var, Any]
    activations: Sequence[Activation]

    @classmethod
    def along(
        cls,
        stage: Stage,
        side: Side,
        state: State,
        which: Sequence[bool] | None,
        variables: tuple[Var, ...],
        *,
        look: bool,
    ) -> _Pass:
        """Apply a stage, and keep what pulls a cotangent back through it."""
        alone = discovered_alone(stage, side, state) if look or variables else None
        found = activations(alone[0]) if look and alone is not None else []
        variables = tuple(dict.fromkeys((*variables, *(one.segment.inputs[0] for one in found))))
        with _reverse(stage):
            if alone is None or not variables:
                out, pull = vjp(stage, *side, state, which=which)
                return cls(stage, side, state, which, out, pull, {}, ())
            tapped, arguments = Tapped(alone[0], variables), alone[1]
            (out, values), pull = vjp(lambda *args: tapped(*arguments(*args)), *side, state, which=which, has_aux=True)
        return cls(stage, side, state, which, out, pull, dict(zip(variables, values, strict=True)), found)

    @property
    def moves(self) -> bool:
        """Whether its state is differentiated with respect to."""
        return self.which is None or any(self.which[len(jax.tree.leaves(self.side)) :])

    def told(self, cotangents: Sequence[Any], near: jax.Array, wanted: Wanted) -> dict[str, Any]:
        """What the stage reports, of the cotangents of its side inputs."""
        values, gradients = jax.tree.leaves(self.side), jax.tree.leaves(tuple(cotangents))
        moved = [True] * len(values) if self.which is None else list(self.which[: len(values)])
        weights = inexact([value for value, moves in zip(values, moved, strict=True) if moves])
        gradients = inexact([value for value, moves in zip(gradients, moved, strict=True) if moves])
        nothing = jnp.float32(jnp.nan)
        shares = [one.shares(self.tapped[one.segment.inputs[0]]) for one in self.activations]
        dead, saturated = (
            (reduce(jnp.fmax, each, nothing) for each in zip(*shares, strict=True)) if shares else (nothing, nothing)
        )
        linear = Linear(partial(self.stage, *self.side), self.state, self.stage.carries)
        return {
            "parameters": sum(leaf.size for leaf in weights),
            "gradient": length(gradients, near) if gradients else nothing,
            "weight": length(weights) if weights else nothing,
            "dead": dead,
            "saturated": saturated,
            "histogram": counts(gradients, EDGES) if wanted.histogram else None,
            "sigma": _largest(linear) if wanted.sigma else None,
            "gradients": tuple(gradients) if wanted.gradients else None,
        }


def _largest(linear: Linear) -> jax.Array:
    """σ₁ from below: ‖J v‖ after power steps v ← Jᵀ J v from a random direction (Golub and Van Loan, ch. 8.2)."""
    for mode in ("forward", "reverse"):  # linearised here, not inside of a step
        linear.value(mode)

    @jax.jit  # so that one step is traced, and interpreted each time
    def step(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        pushed = linear.push(vector)
        back = linear.pull(pushed)
        return back / jnp.maximum(jnp.linalg.norm(back), jnp.finfo(back.dtype).tiny), jnp.linalg.norm(pushed)

    vector, length = linear.here.flatten(random_direction(linear.state, 2)), jnp.asarray(jnp.nan)
    for _ in range(STEPS):
        vector, length = step(vector)
    return length


def _which(stage: Stage, carrying: Collection[Var] | None) -> tuple[bool, ...] | None:
    if carrying is None or not isinstance(stage, DiscoveredStage):
        return stage.carries_back
    return tuple(var in carrying for var in (*stage.segment.sides, *stage.segment.inputs))


def _reverse(stage: Stage) -> Any:
    return refused_in_words("reverse", f"stage {stage.name!r}", "No gradient flows through it.")


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of all stages, by what they are."""
    gradients = [part.pop("gradients") for part in parts]
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    stacked = {name: None if column[0] is None else _stacked(column) for name, column in columns.items()}
    return {**stacked, "gradients": None if gradients[0] is None else tuple(gradients)}


def _stacked(numbers: Sequence[jax.Array]) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):
        return jnp.stack(numbers)
