"""Parts of a Jacobian, each for what it costs: some rows, the diagonal, column norms, one state by another.

None forms more of the whole than it needs: where the chain has a waist, a diagonal is summed from the
two factors that meet there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import begun, default_argnum, from_start, position_among
from jaxchain.chain import Chain
from jaxchain.checks import check_result, refuse_huge, shown, text
from jaxchain.coordinates import Coordinates
from jaxchain.discovery.find import find
from jaxchain.errors import unknown
from jaxchain.jacobians.blocks import Call, named_like, require_real
from jaxchain.jacobians.bracketing import Step
from jaxchain.jacobians.execute import Linearised, by_colours, linearise, perform
from jaxchain.jacobians.matrix import Blocks, Dense, Diagonal, Identity, Matrix, Triangle
from jaxchain.jacobians.modes import jacobian
from jaxchain.jacobians.planner import Plan, make_plan
from jaxchain.program.precision import precisely
from jaxchain.stage import INPUT, State
from jaxchain.sweep import start as start_of

__all__ = ["gram_diagonal", "jacobian_diagonal", "jacobian_rows", "of_plan", "partial_jacobian", "refuse_huge_steps"]


def jacobian_rows(
    fun: Callable[..., Any], rows: Sequence[int] | np.ndarray, argnums: int | None = None
) -> Callable[..., Any]:
    """Chosen rows of the Jacobian, as a function; the others cost nothing.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    rows
        Numbers of the rows: positions in the flattened output, negative ones from the end; or a mask.
    argnums
        Which argument to differentiate with respect to; default: of a chain its input, else the first.

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
    ValueError
        If they are no list.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., sec. 3.2.

    Examples
    --------
    >>> jc.jacobian_rows(jnp.square, [0, -1])(jnp.array([1.0, 2.0, 3.0])).tolist()
    [[2.0, 0.0, 0.0], [0.0, 0.0, 6.0]]
    """
    wanted = np.asarray(rows)
    if wanted.ndim > 1 and wanted.dtype != bool:
        msg = f"rows are counted in the flattened output, in one list, but {shown(rows)} was given."
        raise ValueError(msg)
    wanted = wanted.reshape(-1)
    if wanted.size and wanted.dtype != bool and not np.issubdtype(wanted.dtype, np.integer):
        msg = f"rows are the numbers of rows, or a mask, but {shown(rows)} was given."
        raise TypeError(msg)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        at = default_argnum(fun) if argnums is None else argnums
        of, args, at = begun(fun, args, position_among(args, at)) if isinstance(fun, Chain) else (fun, args, at)

        def some(*args: Any) -> jax.Array:
            out = of(*args, **kwargs)
            check_result(out)
            out = jax.tree.map(jnp.asarray, out)  # a result may be a number of Python's
            space = Coordinates.of(out)
            return space.flatten(out)[_numbers(wanted, space.size)]

        return jacobian(some, at)(*args)

    return named_like(fun, chosen, "Chosen rows of the Jacobian")


def _numbers(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows' numbers from 0, of numbers from either end or of a mask over all ``size`` of them."""
    if rows.dtype == bool and rows.size != size:
        msg = f"A mask of rows has an entry for each number in the output, {size}, but this one has {rows.size}."
        raise IndexError(msg)
    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
    wrong = [row for row in numbers.tolist() if not -size <= row < size]
    if wrong:
        msg = f"There is no row {wrong[0]}: the output has {size} numbers."
        raise IndexError(msg)
    return numbers % max(size, 1)


def jacobian_diagonal(fun: Callable[..., Any], argnums: int | None = None) -> Callable[..., Any]:
    """The diagonal of a square Jacobian, as a function: ∂y_i/∂x_i.

    Parameters
    ----------
    fun
        A chain or any JAX function with as many outputs as inputs.
    argnums
        Which argument to differentiate with respect to; default: of a chain its input, else the first.

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

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 10.

    Examples
    --------
    >>> jc.jacobian_diagonal(lambda x: x * jnp.sum(x))(jnp.array([1.0, 2.0])).tolist()  # Σx + x_i
    [4.0, 5.0]
    """

    def diagonal(plan: Plan, args: tuple[Any, ...]) -> jax.Array:
        m, n = plan.sizes[-1], plan.sizes[0]
        if m != n:
            msg = f"Only a square Jacobian has a diagonal; this one is {m} × {n}."
            raise ValueError(msg)
        split, direct = _best_split(plan, lambda k: n * k, 0.0)
        if direct:
            return _diagonal_of(_whole(plan, args))
        right, left = _factors(plan, args, split)
        return jnp.sum(left * right.T, axis=1)

    return of_plan(fun, argnums, _like_input(diagonal), "The diagonal of the Jacobian")


def gram_diagonal(fun: Callable[..., Any], argnums: int | None = None) -> Callable[..., Any]:
    """diag(JᵀJ): the squared norm of every column, how strongly each input moves the output.

    Parameters
    ----------
    fun
        A chain or any JAX function.
    argnums
        Which argument to differentiate with respect to; default: of a chain its input, else the first.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns a pytree like that argument. At a waist of k numbers
        it takes the two factors there and (m + n)·k² multiply-adds instead of all m × n entries.

    Raises
    ------
    TypeError
        From the call, if an input or output is not real floating point.

    References
    ----------
    Moré, The Levenberg-Marquardt algorithm: implementation and theory, 1978, scales variables by it.

    Examples
    --------
    >>> jc.gram_diagonal(lambda x: jnp.array([[3.0, 1.0], [4.0, 2.0]]) @ x)(jnp.ones(2)).tolist()  # 3² + 4², 1² + 2²
    [25.0, 5.0]
    """

    def gram(plan: Plan, args: tuple[Any, ...]) -> jax.Array:
        m, n = plan.sizes[-1], plan.sizes[0]
        split, direct = _best_split(plan, lambda k: (m + n) * k * k, m * n)
        if direct:
            whole = _whole(plan, args)
            full = isinstance(whole, Blocks | Triangle | Dense)
            return jnp.sum(whole.dense() ** 2, axis=0) if full else _diagonal_of(whole) ** 2
        right, left = _factors(plan, args, split)
        return jnp.sum(right * ((left.T @ left) @ right), axis=0)

    return of_plan(fun, argnums, _like_input(gram), "Squared norms of the columns of the Jacobian")


def partial_jacobian(
    chain: Chain | Callable[..., Any], args: tuple[Any, ...], start: str, stop: str, *, argnum: int | None = None
) -> jax.Array:
    """∂(state after ``stop``)/∂(state after ``start``), by name, planned like a whole Jacobian.

    Parameters
    ----------
    chain
        A chain, or a function whose chain is then discovered.
    args
        Its positional arguments.
    start, stop
        Names of stages; ``"input"`` is the chain input. ``start`` comes first.
    argnum
        Of a plain function, which argument is the chain input; default: the last.

    Returns
    -------
    jax.Array
        (m, n) between flattened states, a complex number in them as its real and imaginary part.

    Raises
    ------
    KeyError
        If there is no such stage; suggests the nearest names.
    ValueError
        If ``stop`` comes before ``start``.
    TypeError
        If ``args`` is not a tuple, or the chain input is not floating point.

    References
    ----------
    Naumann, arXiv 2406.11862.

    Examples
    --------
    >>> chain = jc.Chain([jc.Stage("double", lambda x: 2 * x), jc.Stage("square", jnp.square)])
    >>> jc.partial_jacobian(chain, (jnp.array([1.0, 3.0]),), "double", "square").tolist()  # 2 · (2x)
    [[4.0, 0.0], [0.0, 12.0]]
    """
    text("start", start)
    text("stop", stop)
    chain, *_ = start_of(chain, args, argnum)
    first, last = (_position(chain, name) for name in (start, stop))
    if last < first:
        msg = f"{stop!r} comes before {start!r} in the chain: nothing flows that way. Swap them."
        raise ValueError(msg)
    whole, args, position = from_start(chain, args)

    def with_input(state: State) -> tuple[Any, ...]:
        return (*args[:position], state, *args[position + 1 :])

    state = whole[: first + 1](*args) if first >= 0 else args[position]
    here = Coordinates.of(state)
    if first == last:
        refuse_huge((here.size, here.size), here.dtype)
        return here.identity()
    between = whole[first + 1 : last + 1]
    found = find(lambda s: between(*with_input(s)), (state,), 0)
    refuse_huge((Coordinates.of(found.out).size, here.size), here.dtype)
    with precisely(found.program):
        return _whole(make_plan(found), (state,)).dense()


def _position(chain: Chain, name: str) -> int:
    """Of the stage that ends in a state; of the chain input, -1."""
    if name in (INPUT, chain.names_with_input[0]):
        return -1
    if not any(known.startswith(name) for known in chain.names):
        raise KeyError(unknown("state", name, chain.names_with_input))
    return chain.position(name)


def of_plan(
    fun: Callable[..., Any], argnums: int | None, compute: Callable[[Plan, tuple[Any, ...]], jax.Array], what: str
) -> Callable[..., Any]:
    """The function of ``fun``'s arguments that computes something of its plan, at the chosen argument."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = Call.of(fun, default_argnum(fun) if argnums is None else argnums, False, args, kwargs)
        found = call.find()
        require_real(found)
        with precisely(found.program):
            return compute(make_plan(found), (jax.tree.map(jnp.asarray, call.chosen), {}))

    return named_like(fun, wrapped, what)


def _like_input(compute: Callable[[Plan, tuple[Any, ...]], jax.Array]) -> Callable[[Plan, tuple[Any, ...]], Any]:
    """The same, its vector as a pytree like the chosen argument."""
    return lambda plan, args: Coordinates.of(args[0]).unflatten(compute(plan, args))


def _best_split(plan: Plan, work: Callable[[int], float], direct: float) -> tuple[int, bool]:
    """The state at which two factors are cheapest to meet, and whether the whole matrix is cheaper still."""
    q = len(plan.units)
    costs = {
        k: plan.solution.cost(0, k) + plan.solution.cost(k, q) + work(plan.sizes[k])
        for k in range(1, q)
        if not (plan.is_diagonal(0, k) or plan.is_diagonal(k, q))
    }
    best = min(costs, key=costs.__getitem__, default=0)
    return best, plan.whole is not None or not costs or plan.cost + direct <= costs[best]


def refuse_huge_steps(plan: Plan, steps: Sequence[Step]) -> None:
    """Refuse steps one of which makes a huge matrix."""
    made = [(plan.sizes[s.stop], plan.sizes[s.start]) for s in steps if not plan.is_diagonal(s.start, s.stop)]
    refuse_huge(max(made, key=math.prod, default=(0, 0)), plan.units[0].here.dtype)


def _whole(plan: Plan, args: tuple[Any, ...]) -> Matrix:
    if plan.whole is not None:
        refuse_huge((plan.sizes[-1], plan.sizes[0]), plan.units[0].here.dtype)
        return Dense(by_colours(plan.found, plan.whole, args))
    refuse_huge_steps(plan, plan.steps)
    units = linearise(plan, plan.steps, args)
    return perform(plan.steps, units)[0, len(units)]


def _factors(plan: Plan, args: tuple[Any, ...], split: int) -> tuple[jax.Array, jax.Array]:
    """The matrices before and after one state."""
    q = len(plan.units)
    steps = (*plan.solution.steps(0, split), *plan.solution.steps(split, q))
    refuse_huge_steps(plan, steps)
    units: list[Linearised] = linearise(plan, steps, args)
    ready = perform(steps, units)
    return ready[0, split].dense(), ready[split, q].dense()


def _diagonal_of(matrix: Matrix) -> jax.Array:
    if isinstance(matrix, Identity):
        return jnp.ones((matrix.size,), matrix.dtype)
    return matrix.entries if isinstance(matrix, Diagonal) else jnp.diagonal(matrix.dense())
