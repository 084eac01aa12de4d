"""Parts of a Jacobian, each for what it costs: some rows, the diagonal, column norms, one state by another.

None forms more of the whole than it needs: where the chain has a waist, a diagonal is summed from the
two factors that meet there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.chain import Chain
from jaxchain.coordinates import Coordinates
from jaxchain.discovery import discover
from jaxchain.discovery.find import find
from jaxchain.jacobians.blocks import function_of_chosen, real_spaces
from jaxchain.jacobians.execute import Linearised, execute, linearise, perform
from jaxchain.jacobians.matrix import Dense, Diagonal, Identity, Matrix
from jaxchain.jacobians.modes import jacobian
from jaxchain.jacobians.planner import Plan, make_plan
from jaxchain.stage import INPUT, State

__all__ = ["gram_diagonal", "jacobian_diagonal", "jacobian_rows", "partial_jacobian"]


def jacobian_rows(fun: Callable[..., Any], rows: Sequence[int] | np.ndarray, argnums: int = 0) -> Callable[..., Any]:
    """Chosen rows of the Jacobian, as a function; the others cost nothing.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    rows
        Numbers of the rows: positions in the flattened output, negative ones from the end; or a mask.
    argnums
        Which argument to differentiate with respect to.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns (len(rows), *in), a pytree like that argument.

    Raises
    ------
    IndexError
        From the call, if the output has no such row.
    TypeError
        If ``rows`` are no integers; from the call, if an input or output is not real floating point.
    """
    wanted = np.asarray(rows).reshape(-1)
    if wanted.dtype == bool:
        wanted = np.flatnonzero(wanted)
    if wanted.size and not np.issubdtype(wanted.dtype, np.integer):
        msg = f"rows are the numbers of rows, or a mask, but {rows!r} was given."
        raise TypeError(msg)
    wanted = wanted.astype(int)

    @wraps(fun, updated=())
    def chosen(*args: Any, **kwargs: Any) -> Any:
        def some(*args: Any) -> jax.Array:
            out = fun(*args, **kwargs)
            space = Coordinates.of(out)
            wrong = [row for row in wanted.tolist() if not -space.size <= row < space.size]
            if wrong:
                msg = f"There is no row {wrong[0]}: the output has {space.size} numbers."
                raise IndexError(msg)
            return space.flatten(out)[wanted % max(space.size, 1)]

        return jacobian(some, argnums)(*args)

    return chosen


def jacobian_diagonal(fun: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """The diagonal of a square Jacobian, as a function: ∂y_i/∂x_i.

    Parameters
    ----------
    fun
        A chain or any JAX function with as many outputs as inputs.
    argnums
        Which argument to differentiate with respect to.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns a pytree like that argument. An elementwise function
        costs one tangent; a chain with a waist of k numbers, the two factors there and n·k
        multiply-adds.

    Raises
    ------
    ValueError
        From the call, if the Jacobian is not square.
    TypeError
        From the call, if an input or output is not real floating point.
    """

    def diagonal(plan: Plan, args: tuple[Any, ...]) -> jax.Array:
        m, n = plan.sizes[-1], plan.sizes[0]
        if m != n:
            msg = f"Only a square Jacobian has a diagonal; this one is {m} × {n}."
            raise ValueError(msg)
        split, direct = _best_split(plan, lambda k: 2.0 * n * k, 0.0)
        if direct:
            return _diagonal_of(_whole(plan, args))
        right, left = _factors(plan, args, split)
        return jnp.sum(left * right.T, axis=1)

    return _of_plan(fun, argnums, diagonal)


def gram_diagonal(fun: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """diag(JᵀJ): the squared norm of every column, how strongly each input moves the output.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    argnums
        Which argument to differentiate with respect to.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns a pytree like that argument. At a waist of k numbers
        it takes the two factors there and (m + n)·k² multiply-adds instead of all m × n entries.

    Raises
    ------
    TypeError
        From the call, if an input or output is not real floating point.
    """

    def gram(plan: Plan, args: tuple[Any, ...]) -> jax.Array:
        m, n = plan.sizes[-1], plan.sizes[0]
        split, direct = _best_split(plan, lambda k: 2.0 * (m + n) * k * k, 2.0 * m * n)
        if direct:
            whole = _whole(plan, args)
            return _diagonal_of(whole) ** 2 if not isinstance(whole, Dense) else jnp.sum(whole.entries**2, axis=0)
        right, left = _factors(plan, args, split)
        return jnp.sum(right * ((left.T @ left) @ right), axis=0)

    return _of_plan(fun, argnums, gram)


def partial_jacobian(chain: Chain | Callable[..., Any], args: tuple[Any, ...], start: str, stop: str) -> jax.Array:
    """∂(state after ``stop``)/∂(state after ``start``), by name, planned like a whole Jacobian.

    Parameters
    ----------
    chain
        A chain, or a function whose chain is then discovered.
    args
        Its positional arguments.
    start, stop
        Names of stages; ``"input"`` is the chain input. ``start`` comes first.

    Returns
    -------
    jax.Array
        (m, n) between flattened states.

    Raises
    ------
    KeyError
        If there is no such stage; suggests the nearest names.
    ValueError
        If ``stop`` comes before ``start``.
    """
    chain = chain if isinstance(chain, Chain) else discover(chain, *args)
    first, last = (-1 if name == INPUT else chain.position(name) for name in (start, stop))
    if last < first:
        msg = f"{stop!r} comes before {start!r} in the chain: nothing flows that way. Swap them."
        raise ValueError(msg)
    position = chain.argnum % len(args)

    def with_input(state: State) -> tuple[Any, ...]:
        return (*args[:position], state, *args[position + 1 :])

    state = chain[: first + 1](*args) if first >= 0 else args[position]
    if first == last:
        return Coordinates.of(state).identity()
    between = chain[first + 1 : last + 1]
    found = find(lambda s: between(*with_input(s)), (state,), 0)
    return execute(make_plan(found), (state,))


def _of_plan(
    fun: Callable[..., Any], argnums: int, compute: Callable[[Plan, tuple[Any, ...]], jax.Array]
) -> Callable[..., Any]:
    @wraps(fun, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = function_of_chosen(fun, argnums, False, args, kwargs)
        chosen = jax.tree.map(jnp.asarray, chosen)
        here, _ = real_spaces(of_chosen, chosen)
        return here.unflatten(compute(make_plan(find(lambda x: of_chosen(x)[0], (chosen,), 0)), (chosen,)))

    return wrapped


def _best_split(plan: Plan, work: Callable[[int], float], direct: float) -> tuple[int, bool]:
    """The state at which two factors are cheapest to meet, and whether the whole matrix is cheaper still."""
    q = len(plan.units)
    costs = {
        k: plan.solution.cost(0, k) + plan.solution.cost(k, q) + work(plan.sizes[k])
        for k in range(1, q)
        if not (plan.is_diagonal(0, k) or plan.is_diagonal(k, q))
    }
    best = min(costs, key=costs.__getitem__, default=0)
    return best, plan.whole is not None or not costs or 2 * plan.cost + direct <= costs[best]


def _whole(plan: Plan, args: tuple[Any, ...]) -> Matrix:
    if plan.whole is not None:
        return Dense(execute(plan, args))
    units = linearise(plan, args)
    return perform(plan.steps, units)[0, len(units)]


def _factors(plan: Plan, args: tuple[Any, ...], split: int) -> tuple[jax.Array, jax.Array]:
    """The matrices before and after one state."""
    units: list[Linearised] = linearise(plan, args)
    q = len(units)
    steps = (*plan.solution.steps(0, split), *plan.solution.steps(split, q))
    ready = perform(steps, units)
    return ready[0, split].dense(), ready[split, q].dense()


def _diagonal_of(matrix: Matrix) -> jax.Array:
    if isinstance(matrix, Identity):
        return jnp.ones((matrix.size,), matrix.dtype)
    return matrix.entries if isinstance(matrix, Diagonal) else jnp.diagonal(matrix.entries)
