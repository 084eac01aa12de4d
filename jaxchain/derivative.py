"""Push tangents and pull cotangents: one, or a whole basis, at a point. All that jaxchain differentiates it does here.

(Beside it only JAX's own transforms are called as such: to show them, in `explore.programs`; for a training step; and
where `jacobian` hands a call through to `jax.jacfwd` or `jax.jacrev`.)

JAX's symbolic zeros are kept. Leaves that carry no derivative (integers, and whatever the caller says that no
input moves) are held fixed: they are never handed a tangent, nor asked for a cotangent. Builds on `coordinates`.

References: Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, ch. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad

from jaxchain.checks import integer
from jaxchain.coordinates import Coordinates, is_inexact
from jaxchain.errors import REFUSALS, refusal
from jaxchain.meshes import devices_along, spread
from jaxchain.program.linearity import adds_nothing
from jaxchain.program.primitives import (
    ClosedJaxpr,
    JaxprEqn,
    Var,
    custom_rule,
    function_of,
    function_of_equation,
    like,
    of_some,
    sees_what_moves,
)
from jaxchain.program.primitives import (
    is_inexact as carries,
)
from jaxchain.program.source import is_library

__all__ = [
    "ALL_AT_ONCE",
    "Linear",
    "Pass",
    "is_linear",
    "jvp",
    "linearize",
    "pulls_linearly",
    "residual_program",
    "rule_program",
    "vjp",
    "whole",
]

State = Any
Carries = Sequence[bool] | None
"""Which leaves are differentiated with respect to; ``None``: all that are real or complex."""


@dataclass(frozen=True)
class Pass:
    """How a basis goes through: ``chunk_size`` vectors at once, spread over devices by ``sharding``.

    Raises
    ------
    TypeError, ValueError
        If ``chunk_size`` is not an integer, or below 1.
    """

    chunk_size: int | None = None
    sharding: jax.sharding.Sharding | None = None

    def __post_init__(self) -> None:
        size = integer(
            "chunk_size", self.chunk_size, "how many rows or columns are computed at once", least=1, optional=True
        )
        object.__setattr__(self, "chunk_size", size)

    def map(self, run: Callable[[jax.Array], Any], basis: jax.Array) -> Any:
        """``run`` on every row of ``basis``; results stacked in front, and left where they were made."""
        if self.sharding is not None and len(basis):
            return _over_devices(run, basis, self.chunk_size, self.sharding)
        if self.chunk_size is None or _is_empty(run, basis):  # jax.lax.map cannot put chunks of nothing together
            return jax.vmap(run)(basis)
        return jax.lax.map(run, basis, batch_size=self.chunk_size)

    def columns(self, run: Callable[[jax.Array], Any], matrix: jax.Array) -> Any:
        """``run``, of vectors to vectors, on every column of ``matrix``; results are columns, too."""
        # Columns as they are: transposing them there and back would copy the matrix.
        with suppress(NotImplementedError):  # JAX's sparse arrays are batched along their first axis alone
            if self.sharding is not None and matrix.size:
                return _over_devices(run, matrix, self.chunk_size, self.sharding, axis=1)
            if self.chunk_size is None:
                return jax.vmap(run, in_axes=1, out_axes=1)(matrix)
        return jax.tree.map(lambda rows: spread(rows.T, self.sharding, 1), self.map(run, matrix.T))

    def laid(self, matrix: jax.Array) -> jax.Array:
        """A matrix with its rows over the devices; where they do not go round, its columns."""
        rows = len(matrix) % devices_along(self.sharding) == 0
        return spread(matrix, self.sharding, 0 if rows else 1)


def _over_devices(
    run: Callable[[jax.Array], Any], basis: jax.Array, chunk: int | None, sharding: jax.sharding.Sharding, axis: int = 0
) -> Any:
    """Every device goes through neighbouring rows, in chunks of its own: nothing is sent from one to another.

    Rows are along one axis of the basis, and of the results.
    """
    devices, count = devices_along(sharding), basis.shape[axis]
    each = -(-count // devices)
    # A row is done again where they do not go round: of it all is known to be finite, as of zeros it is not.
    rest = jnp.repeat(jax.lax.slice_in_dim(basis, 0, 1, axis=axis), devices * each - count, axis)
    full = jnp.concatenate([basis, rest], axis) if rest.size else basis

    def laid(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: spread(leaf, sharding, axis), tree)

    if chunk is None or chunk >= count:
        found = laid(jax.vmap(run, axis, axis)(laid(full)))
    else:
        steps = -(-each // max(chunk // devices, 1))
        size = -(-each // steps)  # the last chunk begins a little earlier, where they do not go round
        dealt = laid(laid(full).reshape(*full.shape[:axis], devices, each, *full.shape[axis + 1 :]))
        by_device = jax.vmap(jax.vmap(run, axis, axis), axis, axis)

        def step(made: Any, number: jax.Array) -> tuple[Any, None]:
            part = jax.lax.dynamic_slice_in_dim(dealt, number * size, size, axis + 1)
            put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=number * size, axis=axis + 1)
            return jax.tree.map(put, made, laid(by_device(laid(part)))), None

        shapes = jax.eval_shape(by_device, dealt)
        blank = laid(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
        found = jax.tree.map(
            lambda leaf: leaf.reshape(*leaf.shape[:axis], devices * each, *leaf.shape[axis + 2 :]),
            jax.lax.scan(step, blank, jnp.arange(steps))[0],
        )
    return jax.tree.map(lambda leaf: jax.lax.slice_in_dim(spread(leaf, sharding, axis), 0, count, axis=axis), found)


def _is_empty(run: Callable[[jax.Array], Any], basis: jax.Array) -> bool:
    """Whether there is no vector, or a result without numbers."""
    return not len(basis) or not all(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(run, basis[0])))


ALL_AT_ONCE = Pass()


def _fixed(fn: Callable[..., State], args: tuple[Any, ...], which: Carries) -> tuple[Any, list[Any], list[bool]]:
    """``fn`` of the leaves that are differentiated with respect to, those leaves, and which of all leaves they are."""
    leaves, tree = jax.tree.flatten(args)
    # Python's numbers are leaves, too, and JAX differentiates them as arrays.
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    moved = [is_inexact(leaf) for leaf in leaves]
    if which is not None:
        moved = [moves and may for moves, may in zip(moved, which, strict=True)]

    def of_moved(*values: Any) -> State:
        given = iter(values)
        return fn(*tree.unflatten([next(given) if moves else leaf for leaf, moves in zip(leaves, moved, strict=True)]))

    return of_moved, [leaf for leaf, moves in zip(leaves, moved, strict=True) if moves], moved


def jvp(fn: Callable[[State], State], state: State, tangent: State, which: Carries = None) -> tuple[State, State]:
    """f(x) and J ẋ. A tangent at a leaf that is held fixed has no say."""
    of_moved, values, moved = _fixed(fn, (state,), which)
    tangents = [leaf for leaf, moves in zip(jax.tree.leaves(tangent), moved, strict=True) if moves]
    return jax.jvp(of_moved, tuple(values), tuple(tangents))


def vjp(
    fn: Callable[..., State], *args: Any, which: Carries = None, has_aux: bool = False
) -> tuple[Any, Callable[[State], tuple[Any, ...]]]:
    """f(x) (with ``has_aux`` f's pair) and ``pull(ȳ)`` → ȳ J, a tuple like ``args``; zero at leaves held fixed."""
    of_moved, values, moved = _fixed(fn, args, which)
    out, back, *aux = jax.vjp(of_moved, *values, has_aux=has_aux)
    leaves, tree = jax.tree.flatten(args)

    def pull(cotangent: State) -> tuple[Any, ...]:
        given = iter(back(cotangent))
        return tree.unflatten(
            [next(given) if moves else _zero(leaf) for leaf, moves in zip(leaves, moved, strict=True)]
        )

    return (out, *aux) if has_aux else out, pull


def residual_program(fn: Callable[..., State], *args: Any, which: Carries = None) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """The program of f(x) and of all that its VJP keeps of it; and that of the whole VJP, of x and a cotangent.

    Parameters
    ----------
    fn, args
        f and its arguments, as arrays or shapes.
    which
        The leaves that are differentiated with respect to; the others are held fixed.

    Returns
    -------
    kept
        From the leaves of x to those of f(x), then of what is kept.
    pulled
        From the leaves of x, then of the cotangents that f(x) can have, to those of x's own that are not held fixed.
    """

    def differentiated(given: tuple[Any, ...]) -> tuple[Any, Callable[..., Any]]:
        of_moved, values, _ = _fixed(fn, given, which)
        return jax.vjp(of_moved, *values)

    def run(*given: Any) -> Any:
        return tuple(map(jax.tree.leaves, differentiated(given)))

    def pull(given: tuple[Any, ...], cotangents: list[Any]) -> Any:
        out, back = differentiated(given)
        leaves, tree = jax.tree.flatten(out)
        some = iter(cotangents)
        return back(tree.unflatten([next(some) if is_inexact(leaf) else _zero(leaf) for leaf in leaves]))

    kept, (out, _) = jax.make_jaxpr(run, return_shape=True)(*args)
    return kept, jax.make_jaxpr(pull)(args, [leaf for leaf in out if is_inexact(leaf)])


def _zero(leaf: Any) -> Any:
    """The cotangent of a leaf that is held fixed; JAX's float0 where it carries no derivative at all."""
    return jnp.zeros_like(leaf) if is_inexact(leaf) else np.zeros(jnp.shape(leaf), jax.dtypes.float0)


def linearize(
    fn: Callable[[State], State], state: State, which: Carries = None
) -> tuple[State, Callable[[State], State]]:
    """f(x) and ``push(ẋ)`` → J ẋ, f's own evaluation done once. A tangent at a leaf that is held fixed has no say."""
    of_moved, values, moved = _fixed(fn, (state,), which)
    out, linear = jax.linearize(of_moved, *values)

    def push(tangent: State) -> State:
        return linear(*(t for t, moves in zip(jax.tree.leaves(tangent), moved, strict=True) if moves))

    return out, push


@dataclass(frozen=True, eq=False)
class Linear:
    """A function at a state, linearised when it is first asked for: J from either side, on vectors of coordinates.

    Attributes
    ----------
    fn, state
        f and x.
    which
        The leaves of x that are differentiated with respect to; the others are held fixed.
    checkpointed
        Whether `jax.checkpoint` is in f: tangents alone would evaluate that part of it once more.
    """

    fn: Callable[[State], State]
    state: State
    which: Carries = None
    checkpointed: bool = False

    @cached_property
    def here(self) -> Coordinates:
        """Coordinates of x."""
        return Coordinates.of(self.state)

    @cached_property
    def there(self) -> Coordinates:
        """Coordinates of f(x)."""
        return Coordinates.of(jax.eval_shape(self.fn, self.state))

    @cached_property
    def _forward(self) -> tuple[State, Callable[[jax.Array], jax.Array]]:
        out, push = linearize(self.fn, self.state, self.which)
        there = Coordinates.of(out)
        return out, lambda vector: there.flatten(push(self.here.unflatten(vector)))

    @cached_property
    def _evaluated(self) -> State:
        return self.fn(self.state)

    @cached_property
    def _reverse(self) -> tuple[State, Callable[[jax.Array], jax.Array]]:
        out, back = vjp(self.fn, self.state, which=self.which)
        there = Coordinates.of(out)
        return out, lambda vector: self.here.flatten_cotangent(*back(there.unflatten_cotangent(vector)))

    def value(self, mode: Literal["forward", "reverse"]) -> State:
        """f(x), as that mode's primal pass computes it."""
        if mode == "forward" and self.checkpointed:
            return self._evaluated
        return (self._forward if mode == "forward" else self._reverse)[0]

    @property
    def out(self) -> State:
        """f(x), from whichever mode ran."""
        return self.value("reverse" if "_reverse" in vars(self) else "forward")

    @property
    def push(self) -> Callable[[jax.Array], jax.Array]:
        """ẋ → J ẋ."""
        if self.checkpointed:
            return lambda vector: self.there.flatten(
                jvp(self.fn, self.state, self.here.unflatten(vector), self.which)[1]
            )
        return self._forward[1]

    @property
    def pull(self) -> Callable[[jax.Array], jax.Array]:
        """ȳ → ȳ J."""
        return self._reverse[1]

    def columns(self, matrix: jax.Array, how: Pass = ALL_AT_ONCE) -> jax.Array:
        """J · matrix."""
        return how.columns(self.push, matrix)

    def rows(self, matrix: jax.Array, how: Pass = ALL_AT_ONCE) -> jax.Array:
        """Matrix · J."""
        return how.map(self.pull, matrix)

    def matrix(self, how: Pass = ALL_AT_ONCE, mode: Literal["forward", "reverse"] | None = None) -> jax.Array:
        """J itself (m, n), in one mode; by default that of fewer vectors, or the other where that does not exist."""
        if mode == "forward" and how.sharding is not None:  # as they are made, so that none is copied
            return self.columns(self.here.identity(), how)
        if mode == "forward":
            return how.map(self.push, self.here.identity()).T
        if mode == "reverse":
            return self.rows(self.there.identity(), how)
        first, second = ("forward", "reverse") if self.here.size <= self.there.size else ("reverse", "forward")
        try:
            return self.matrix(how, first)
        except REFUSALS as error:  # a custom VJP has no forward mode, a while loop no reverse mode
            refusal(error)
            return self.matrix(how, second)

    def diagonal(self) -> jax.Array:
        """The entries of J where it is known to be diagonal: one tangent of ones."""
        return self.push(jnp.ones((self.here.size,), self.here.dtype))


def whole(
    fn: Callable[[State], State], state: State, mode: Literal["forward", "reverse"], *, holomorphic: bool = False
) -> Any:
    """The whole Jacobian as JAX itself computes and shapes it: `jax.jacfwd` or `jax.jacrev`."""
    return (jax.jacfwd if mode == "forward" else jax.jacrev)(fn, holomorphic=holomorphic)(state)


def is_linear(eqn: JaxprEqn) -> bool:
    """Whether JAX knows a primitive's transpose, so that it is linear in what a derivative rule hands to it."""
    return eqn.primitive in ad.primitive_transposes


def pulls_linearly(eqn: JaxprEqn, active: Container[Var] | None = None) -> bool:
    """Whether an equation's backward rule is linear in the cotangents, as a derivative is, and one that clips is not.

    Every rule of JAX's own is. Of one that a user wrote JAX is asked for the transpose: what is linear has one; and
    nothing may be added that does not come from the cotangent. It is asked of the operands in ``active`` alone; a rule
    that is told which operands move is not asked where they are unknown: the answer is then no.
    """
    rule = custom_rule(eqn)
    if rule is None or rule.forward or (rule.body is not None and is_library(rule.body)):
        return True
    told = sees_what_moves(eqn)
    if told and active is None:
        return False
    try:
        reads, writes, _ = function_of_equation(eqn)
        # One that fails, asked for what JAX never asks of it, leaves JAX's record of its results empty for good.
        # Nor are there cotangents of what a rule closes over.
        which = None if active is None else [var in active for var in reads]
        program, moved, results = rule_program(eqn, forward=False, which=which)
        if not adds_nothing(program, [*(False for _ in reads), *(True for _ in results)]):
            return False

        def transposed(values: list[Any], cotangents: list[Any], pulled: list[Any]) -> Any:
            return jax.linear_transpose(
                lambda *given: function_of(program.jaxpr, program.consts)(*values, *given), *cotangents
            )(pulled)

        given, back = [writes[k] for k in results], [reads[k] for k in moved]
        jax.eval_shape(transposed, *(list(map(like, variables)) for variables in (reads, given, back)))
    except REFUSALS:  # not linear, or not known to be
        return False
    return True


def rule_program(eqn: JaxprEqn, *, forward: bool, which: Carries = None) -> tuple[ClosedJaxpr, list[int], list[int]]:
    """The program that JAX differentiates one equation by, its own or its author's rule.

    Parameters
    ----------
    eqn
        Any equation.
    forward
        Whether by a JVP; else by a VJP.
    which
        Which of the values read (each variable once) are differentiated with respect to; the others are held fixed.

    Returns
    -------
    program
        Of the values read (each variable once), then the tangents of the operands that carry a derivative (the
        cotangents of such results), to the tangents of the results (the cotangents of the operands).
    moved, results
        Which of the values read, and of the results that are used, carry a derivative.
    """
    # Each variable once: of x · x the two cotangents of x are one, added up by JAX.
    reads, writes, call = function_of_equation(eqn)
    moved = [k for k, var in enumerate(reads) if carries(var) and (which is None or which[k])]
    results = [k for k, var in enumerate(writes) if carries(var)]

    def derivative(values: list[Any], directions: list[Any]) -> Any:
        def of_moved(*chosen: Any) -> list[Any]:
            out = of_some(call, values, moved)(*chosen)
            return [out[k] for k in results]

        primals = [values[k] for k in moved]
        return jax.jvp(of_moved, primals, directions)[1] if forward else jax.vjp(of_moved, *primals)[1](directions)

    given = [reads[k] for k in moved] if forward else [writes[k] for k in results]
    return jax.make_jaxpr(derivative)([like(var) for var in reads], [like(var) for var in given]), moved, results
