"""Sweeps: the chain rule run along a chain, one direction at a time.

A forward sweep pushes tangents, ẋ_k = J_k ẋ_{k-1}; a reverse sweep pulls cotangents back,
x̄_{k-1} = x̄_k J_k. Either can carry one vector or a whole basis; a basis is carried in one pass,
and every stage is read off on the way. Builds on `chain`, `discover` and `flat`.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, ch. 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxchain.arguments import check_args, looked_along
from jaxchain.chain import Chain
from jaxchain.checks import refuse_huge
from jaxchain.coordinates import check_like, require_inexact
from jaxchain.derivative import Linear, Pass, jvp, vjp
from jaxchain.discovery import discover
from jaxchain.discovery.group import Granularity, check_granularity
from jaxchain.errors import refused_in_words
from jaxchain.meshes import laid_out_where_made, sharding_of
from jaxchain.stage import Side, Stage, State
from jaxchain.swept import ForwardSweep, Jacobians, LocalJacobian, ReverseSweep

__all__ = [
    "ForwardSweep",
    "Jacobians",
    "LocalJacobian",
    "ReverseSweep",
    "forward_sweep",
    "linearised",
    "local_jacobians",
    "prefix_jacobians",
    "pulled_back",
    "reverse_sweep",
    "start",
    "suffix_jacobians",
]

Args = tuple[Any, ...]

Link = tuple[Stage, Linear]
"""A stage, and its linearisation at the state that it is given."""


def start(
    chain: Chain | Callable[..., Any], args: Args, argnum: int | None = None, granularity: Granularity | None = None
) -> tuple[Chain, State, tuple[Side, ...]]:
    """The chain (discovered, where a plain function was given), its input, and the side inputs.

    Raises
    ------
    TypeError
        If ``args`` is not a tuple, or the chain input is not floating point.
    ValueError
        If ``argnum`` contradicts the chain, or ``granularity`` is given of one.
    """
    chain = chain_of(chain, args, argnum, granularity)
    state, sides = chain.split(*args)
    return chain, require_inexact(state, "chain input"), sides


def chain_of(
    chain: Chain | Callable[..., Any], args: Args, argnum: int | None = None, granularity: Granularity | None = None
) -> Chain:
    """The chain, discovered where a plain function was given; errors as of `start`."""
    check_args(args)
    at, coarse = looked_along(chain, argnum, args), check_granularity(granularity, chain)
    return chain if isinstance(chain, Chain) else discover(chain, *args, argnum=at, granularity=coarse)


def _mode(mode: Literal["forward", "reverse"], stage: Stage) -> AbstractContextManager[None]:
    """Where a stage has no such mode, say so, and what has the other."""
    other = (
        "Pull cotangents (reverse_sweep, suffix_jacobians)"
        if mode == "forward"
        else "Push tangents (forward_sweep, prefix_jacobians)"
    )
    return refused_in_words(
        mode, f"stage {stage.name!r}", f"{other}, or accumulate local_jacobians, each in a mode that it has."
    )


def forward_sweep(
    chain: Chain | Callable[..., Any],
    args: Args,
    tangent: State,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
) -> ForwardSweep:
    """Push one tangent through every stage: ẋ_k = J_k ẋ_{k-1}.

    Parameters
    ----------
    chain
        The composition h = f_q ∘ … ∘ f_1, or a plain function, whose chain is then discovered.
    args
        Positional arguments of ``chain``, as for a call.
    argnum
        Of a plain function, which argument is the chain input; default: the last.
    granularity
        Of a plain function, how coarse its stages are, as in `discover`.
    tangent
        ẋ_0, with the structure, shapes and dtypes of the chain input: along tokens, of the state that it begins at.

    Returns
    -------
    ForwardSweep
        Primals x_0 … x_q and tangents ẋ_0 … ẋ_q; the last pair is `jax.jvp` of the chain.

    Raises
    ------
    TangentMismatchError
        If ``tangent`` does not look like the chain input; names the leaf.
    ModeError
        If a stage has no forward mode (a custom VJP); names the stage.
    TypeError
        If the chain input is not floating point.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.1.

    Examples
    --------
    >>> chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("sine", jnp.sin)])
    >>> print(jc.forward_sweep(chain, (2.0,), 1.0))  # 1, 2x, cos(x²)·2x
    Forward sweep along argument 0
    state   shape  ‖primal‖  ‖tangent‖
    input   f32[]         2          1
    square  f32[]         4          4
    sine    f32[]    0.7568      2.615
    """
    chain, state, sides = start(chain, args, argnum, granularity)
    tangent = check_like(tangent, state, "tangent", "chain input")
    primals, tangents = [state], [tangent]
    for stage, side in zip(chain, sides, strict=True):
        with _mode("forward", stage):
            state, tangent = jvp(partial(stage, *side), state, tangent, stage.carries)
        primals.append(state)
        tangents.append(tangent)
    at = chain.argnum % len(args)
    return ForwardSweep(chain.names_with_input, tuple(primals), tuple(tangents), at)


def reverse_sweep(
    chain: Chain | Callable[..., Any],
    args: Args,
    cotangent: State,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
) -> ReverseSweep:
    """Pull one cotangent back through every stage: x̄_{k-1} = x̄_k J_k.

    Parameters
    ----------
    chain
        The composition h = f_q ∘ … ∘ f_1, or a plain function, whose chain is then discovered.
    args
        Positional arguments of ``chain``, as for a call.
    argnum
        Of a plain function, which argument is the chain input; default: the last.
    granularity
        Of a plain function, how coarse its stages are, as in `discover`.
    cotangent
        x̄_q, with the structure, shapes and dtypes of the chain output.

    Returns
    -------
    ReverseSweep
        Primals x_0 … x_q, cotangents x̄_0 … x̄_q, and the cotangents of all arguments, equal to
        ``jax.vjp(chain, *args)[1](cotangent)``.

    Raises
    ------
    TangentMismatchError
        If ``cotangent`` does not look like the chain output; names the leaf.
    ModeError
        If a stage has no reverse mode (a while loop); names the stage.
    TypeError
        If the chain input is not floating point.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.2.

    Examples
    --------
    >>> chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("sine", jnp.sin)])
    >>> print(jc.reverse_sweep(chain, (2.0,), 1.0))  # from below: 1, cos(x²), cos(x²)·2x
    Reverse sweep along argument 0
    state   shape  ‖primal‖  ‖cotangent‖
    input   f32[]         2        2.615
    square  f32[]         4       0.6536
    sine    f32[]    0.7568            1
    """
    chain, *_ = start(
        chain, args, argnum, granularity
    )  # refuses bad arguments in jaxchain's words before jax.vjp does in its own
    (state, sides), pull_split = vjp(chain.split, *args)
    state = jax.tree.map(jnp.asarray, state)
    primals: list[State] = [state]
    pulls: list[Callable[[Any], tuple[Any, ...]]] = []
    for stage, side in zip(chain, sides, strict=True):
        with _mode("reverse", stage):
            state, pull = vjp(stage, *side, state, which=stage.carries_back)
        primals.append(state)
        pulls.append(pull)
    cotangent = check_like(cotangent, state, "cotangent", "chain output")
    cotangents, side_cotangents = [cotangent], []
    for stage, pull in zip(reversed(chain), reversed(pulls), strict=True):
        with _mode("reverse", stage):
            *side_cotangent, cotangent = pull(cotangent)
        cotangents.append(cotangent)
        side_cotangents.append(tuple(side_cotangent))
    arg_cotangents = pull_split((cotangent, tuple(reversed(side_cotangents))))
    cotangents.reverse()
    at = chain.argnum % len(args)
    return ReverseSweep(chain.names_with_input, tuple(primals), tuple(cotangents), arg_cotangents, at)


def local_jacobians(
    chain: Chain | Callable[..., Any],
    args: Args,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    chunk_size: int | None = None,
) -> Jacobians[LocalJacobian]:
    """Every stage's own Jacobian J_k = ∂x_k/∂x_{k-1}; their product J_q ⋯ J_1 is the whole one.

    Parameters
    ----------
    chain, args, argnum, granularity
        As for `forward_sweep`.
    chunk_size
        How many rows or columns are computed at once; ``None``: all. Bounds the memory.

    Returns
    -------
    Jacobians
        A tuple of q `LocalJacobian`, in order of evaluation; ``.matrix`` is (m_k, n_k).

    Raises
    ------
    TypeError
        If the chain input is not floating point.
    ValueError
        If ``chunk_size`` is below 1.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.1 and ch. 10.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> args = net.init(jax.random.key(0)), jnp.ones(3)
    >>> [(stage.name, stage.matrix.shape) for stage in jc.local_jacobians(net, args)]
    [('dense_0', (2, 3)), ('relu_0', (2, 2)), ('dense_1', (1, 2))]
    """
    how = Pass(chunk_size)
    chain, state, sides = start(chain, args, argnum, granularity)
    jacobians: list[LocalJacobian] = []
    made = 0
    for stage, side in zip(chain, sides, strict=True):
        link = Linear(partial(stage, *side), state, stage.carries)
        made += link.there.size * link.here.size
        refuse_huge((made,), link.here.dtype)
        jacobians.append(LocalJacobian(stage.name, link.matrix(how), link.here.shape, link.there.shape))
        state = link.out
    names = chain.names_with_input
    words = tuple(f"∂{after}/∂{before}" for before, after in itertools.pairwise(names))
    return Jacobians(tuple(jacobians), words, f"Local Jacobians along argument {chain.argnum % len(args)}")


def prefix_jacobians(
    chain: Chain | Callable[..., Any],
    args: Args,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    chunk_size: int | None = None,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
) -> Jacobians[jax.Array]:
    """∂x_k/∂x_0 for k = 0 … q, by one forward sweep of a basis.

    Parameters
    ----------
    chain, args, argnum, granularity
        As for `forward_sweep`.
    chunk_size
        How many columns are computed at once; ``None``: all n_0. Bounds the memory.
    sharding
        Spreads the columns over devices, as in `jaxchain.jacobian`, and leaves them there.

    Returns
    -------
    Jacobians
        A tuple of q + 1 matrices (n_k, n_0); the first is the identity, the last the whole Jacobian.

    Raises
    ------
    TypeError, ValueError
        As `local_jacobians`.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.1.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> args = net.init(jax.random.key(0)), jnp.ones(3)
    >>> [matrix.shape for matrix in jc.prefix_jacobians(net, args)]
    [(3, 3), (2, 3), (2, 3), (1, 3)]
    """
    how, chain = Pass(chunk_size, sharding_of(sharding)), chain_of(chain, args, argnum, granularity)
    matrices = laid_out_where_made(partial(_prefixes, chain, how), how.sharding, *args, columns=True)
    names = tuple(f"∂{name}/∂input" for name in chain.names_with_input)
    return Jacobians(matrices, names, f"Prefix Jacobians along argument {chain.argnum % len(args)}")


def _prefixes(chain: Chain, how: Pass, *args: Any) -> tuple[jax.Array, ...]:
    """Every (n_k, n_0)."""
    _, links = linearised(chain, args, None, None, "forward")
    first = links[0][1].here
    if how.sharding is None:  # who spreads them over devices means it
        refuse_huge((_sizes(links), first.size), first.dtype)

    def push(column: jax.Array, link: Link) -> jax.Array:
        with _mode("forward", link[0]):
            return link[1].push(column)

    return tuple(how.columns(lambda e: list(itertools.accumulate(links, push, initial=e)), first.identity()))


def suffix_jacobians(
    chain: Chain | Callable[..., Any],
    args: Args,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    chunk_size: int | None = None,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
) -> Jacobians[jax.Array]:
    """∂x_q/∂x_k for k = 0 … q, by one reverse sweep of a basis.

    Parameters
    ----------
    chain, args, argnum, granularity
        As for `forward_sweep`.
    chunk_size
        How many rows are computed at once; ``None``: all n_q. Bounds the memory.
    sharding
        Spreads the rows over devices, as in `jaxchain.jacobian`, and leaves them there.

    Returns
    -------
    Jacobians
        A tuple of q + 1 matrices (n_q, n_k); the first is the whole Jacobian, the last the identity.

    Raises
    ------
    TypeError, ValueError
        As `local_jacobians`.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.2.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> args = net.init(jax.random.key(0)), jnp.ones(3)
    >>> [matrix.shape for matrix in jc.suffix_jacobians(net, args)]
    [(1, 3), (1, 2), (1, 2), (1, 1)]
    """
    how, chain = Pass(chunk_size, sharding_of(sharding)), chain_of(chain, args, argnum, granularity)
    matrices = laid_out_where_made(partial(_suffixes, chain, how), how.sharding, *args)
    names = tuple(f"∂{chain.names[-1]}/∂{name}" for name in chain.names_with_input)
    return Jacobians(matrices, names, f"Suffix Jacobians along argument {chain.argnum % len(args)}")


def _suffixes(chain: Chain, how: Pass, *args: Any) -> tuple[jax.Array, ...]:
    """Every (n_q, n_k)."""
    _, links = linearised(chain, args, None, None, "reverse")
    last = links[-1][1].there
    if how.sharding is None:
        refuse_huge((last.size, _sizes(links)), links[0][1].here.dtype)
    return tuple(how.map(partial(pulled_back, links), last.identity()))


def pulled_back(links: Sequence[Link], row: jax.Array) -> list[jax.Array]:
    """A cotangent's coordinates at the state that some stages lead to, pulled back to every state before, first to last."""

    def pull(row: jax.Array, link: Link) -> jax.Array:
        with _mode("reverse", link[0]):
            return link[1].pull(row)

    return list(itertools.accumulate(reversed(links), pull, initial=row))[::-1]


def _sizes(links: list[Link]) -> int:
    """Numbers in all states."""
    return sum(link.here.size for _, link in links) + links[-1][1].there.size


def linearised(
    chain: Chain | Callable[..., Any],
    args: Args,
    argnum: int | None,
    granularity: Granularity | None,
    mode: Literal["forward", "reverse"],
) -> tuple[Chain, list[Link]]:
    """The chain, and every stage at its state, evaluated once on the way of one mode."""
    chain, state, sides = start(chain, args, argnum, granularity)
    links: list[Link] = []
    for stage, side in zip(chain, sides, strict=True):
        link = Linear(partial(stage, *side), state, stage.carries)
        with _mode(mode, stage):
            state = link.value(mode)
        links.append((stage, link))
    return chain, links
