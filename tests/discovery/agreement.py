"""How a discovered chain is compared with JAX: same values, same derivatives; and graphs by networkx."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
from conftest import assert_close, draw

import jaxchain as jc

HALF = 1 / 2


def some(*shape: int, seed: int = 0, dtype: Any = jnp.float32) -> jax.Array:
    """Numbers of size about one half, drawn by NumPy."""
    return draw(jnp.zeros(shape, dtype), seed) * jnp.asarray(HALF, dtype)


def both(chain: Any, fun: Callable[..., Any], args: tuple[Any, ...], *, argnum: int = -1, forward: bool = True) -> Any:
    """(value, jvp, vjp of all arguments) by the chain's sweeps and by JAX, in one compiled program."""
    tangent = draw(args[argnum], 1)
    cotangent = draw(jax.eval_shape(fun, *args), 2)
    argnum %= len(args)

    def along(x: Any, args: tuple[Any, ...]) -> Any:
        return fun(*args[:argnum], x, *args[argnum + 1 :])

    @jax.jit
    def run(*args: Any) -> Any:
        out, pull = jax.vjp(fun, *args)
        back = jc.reverse_sweep(chain, args, cotangent)
        got, want = [chain(*args), back.primals[-1], back.arg_cotangents], [fun(*args), out, pull(cotangent)]
        if forward:
            push = jc.forward_sweep(chain, args, tangent)
            got.append((push.primals[-1], push.tangents[-1]))
            want.append(jax.jvp(lambda x: along(x, args), (args[argnum],), (tangent,)))
        return got, want

    return run(*args)


def assert_same_function(
    chain: Any,
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    argnum: int = -1,
    forward: bool = True,
    tol: float | None = None,
) -> None:
    """``chain`` has the value, the JVP and the VJP of ``fun``, with respect to all arguments."""
    got, want = both(chain, fun, args, argnum=argnum, forward=forward)
    assert_close(got, want, tol)


def kept(fun: Callable[..., Any], *args: Any) -> int:
    """How many numbers reverse mode keeps between the function and its pullback."""
    leaves = jax.tree.leaves(jax.vjp(fun, *args)[1])
    return sum(leaf.size for leaf in {id(leaf): leaf for leaf in leaves}.values())


def plain(names: Iterable[str]) -> tuple[str, ...]:
    """Names without the place in the source."""
    return tuple(name.split("@")[0] for name in names)


def separators(graph: nx.DiGraph, source: Hashable, sink: Hashable) -> list[Any]:
    """Every vertex that all paths from source to sink pass, both left out, in order: networkx's dominators."""
    between = nx.descendants(graph, source) & nx.ancestors(graph, sink) | {source, sink}
    above = nx.immediate_dominators(graph.subgraph(between), source)
    found: list[Any] = []
    at = above[sink]
    while at != source:
        found.append(at)
        at = above[at]
    return found[::-1]
