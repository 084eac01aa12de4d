"""What sweeps find, as data: states with their tangents or cotangents, and Jacobians. All are pytrees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxchain.coordinates import is_float0, is_inexact
from jaxchain.show.escape import escaped
from jaxchain.show.html import array_html
from jaxchain.show.shapes import describe
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count, norm
from jaxchain.stage import State, along
from jaxchain.structure import Structure

T = TypeVar("T")

__all__ = ["ForwardSweep", "Jacobians", "LocalJacobian", "ReverseSweep", "state_norm"]


@partial(jax.tree_util.register_dataclass, data_fields=["primals", "tangents"], meta_fields=["names", "argument"])
@dataclass(frozen=True)
class ForwardSweep(Shown):
    """States x_0 … x_q and their tangents ẋ_0 … ẋ_q. A pytree.

    Attributes
    ----------
    names
        q + 1 of them: ``"input"`` (or what makes it of tokens), then the stages'.
    primals, tangents
        q + 1 states each; a tangent has its state's structure, shapes and dtypes, float0 for integers.
    argument
        Which argument is the chain input, or enters it, counted from 0.

    Examples
    --------
    >>> sweep = jc.forward_sweep(lambda x: jnp.sin(x) ** 2, (0.5,), 1.0)
    >>> [f"{tangent:.4f}" for tangent in sweep.tangents]  # 1, cos x, 2 sin x cos x
    ['1.0000', '0.8776', '0.8415']
    """

    names: tuple[str, ...]
    primals: tuple[State, ...]
    tangents: tuple[State, ...]
    argument: int

    def _brief(self) -> str:
        return count(len(self.names), "state")

    def _table(self) -> Table:
        return _states(
            f"Forward sweep {along(self.names[0], self.argument)}",
            self.names,
            primal=self.primals,
            tangent=self.tangents,
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["primals", "cotangents", "arg_cotangents"],
    meta_fields=["names", "argument"],
)
@dataclass(frozen=True)
class ReverseSweep(Shown):
    """States x_0 … x_q and their cotangents x̄_0 … x̄_q. A pytree.

    Attributes
    ----------
    names
        q + 1 of them: ``"input"`` (or what makes it of tokens), then the stages'.
    primals, cotangents
        q + 1 states each; a cotangent has its state's structure, shapes and dtypes, float0 for integers.
    arg_cotangents
        A tuple like ``args``: what `jax.vjp` of the whole chain returns.
    argument
        Which argument is the chain input, or enters it, counted from 0.

    Examples
    --------
    >>> sweep = jc.reverse_sweep(lambda x: jnp.sin(x) ** 2, (0.5,), 1.0)
    >>> [f"{cotangent:.4f}" for cotangent in sweep.cotangents]  # 2 sin x cos x, 2 sin x, 1
    ['0.8415', '0.9589', '1.0000']
    """

    names: tuple[str, ...]
    primals: tuple[State, ...]
    cotangents: tuple[State, ...]
    arg_cotangents: tuple[Any, ...]
    argument: int

    def _brief(self) -> str:
        return count(len(self.names), "state")

    def _table(self) -> Table:
        return _states(
            f"Reverse sweep {along(self.names[0], self.argument)}",
            self.names,
            primal=self.primals,
            cotangent=self.cotangents,
        )


def _states(title: str, names: tuple[str, ...], **columns: tuple[State, ...]) -> Table:
    """One row a state: its shape and the norm of each column's value there."""
    states = next(iter(columns.values()))
    norms = [[_norm_text(value) for value in row] for row in zip(*columns.values(), strict=True)]
    rows = [(name, describe(state, short=True), *row) for name, state, row in zip(names, states, norms, strict=True)]
    return Table(title, ("state", "shape", *(f"‖{name}‖" for name in columns)), rows)


def _norm_text(state: State) -> str:
    """Euclidean norm of a state in short; nothing while it is traced."""
    try:
        return f"{state_norm(state):.4g}"
    except jax.errors.TracerArrayConversionError:
        return ""


def state_norm(state: State) -> float:
    """Euclidean norm of a state, whatever its structure; what carries no derivative has no say."""
    return math.hypot(*(norm(leaf) for leaf in jax.tree.leaves(state) if not is_float0(leaf) and is_inexact(leaf)))


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["name", "in_shape", "out_shape"])
@dataclass(frozen=True)
class LocalJacobian(Shown):
    """J_k = ∂x_k/∂x_{k-1} of one stage, between flattened states. A pytree.

    Attributes
    ----------
    name
        The stage's name.
    matrix
        (m, n): m numbers in the stage's output, n in its input. Leaves of a pytree state are
        joined in leaf order; a complex leaf counts as its real parts, then its imaginary parts.
    in_shape, out_shape
        Shapes of the states; for a pytree, a tuple of its leaves' shapes.

    Examples
    --------
    >>> (square,) = jc.local_jacobians(jnp.square, (jnp.array([1.0, 2.0]),))
    >>> square.matrix.tolist(), square.structure.kind
    ([[2.0, 0.0], [0.0, 4.0]], 'diagonal')
    """

    name: str
    matrix: jax.Array
    in_shape: tuple[Any, ...]
    out_shape: tuple[Any, ...]

    @cached_property
    def structure(self) -> Structure:
        """What the matrix is (see `Structure`). Needs values, so not under ``jit``."""
        return Structure.of(self.matrix, self.in_shape, self.out_shape)

    def _brief(self) -> str:
        return f"{escaped(self.name)}, {' × '.join(map(str, jnp.shape(self.matrix)))}"

    def __str__(self) -> str:
        """Its structure too, but for a matrix that is traced or a batch of them."""
        try:
            return f"Jacobian of {self._brief()}: {self.structure}"
        except (jax.errors.TracerArrayConversionError, ValueError):
            return f"Jacobian of {self._brief()}"

    def _repr_html_(self) -> str:
        axes = [
            f"{word} ({size})"
            for word, size in zip((f"output of {escaped(self.name)}", "input"), self.matrix.shape, strict=False)
        ]
        return array_html(self.matrix, str(self), axes if self.matrix.ndim == 2 else ())


@dataclass(frozen=True, eq=False)
class Jacobians(Shown, tuple[T, ...]):
    """Several Jacobians of a chain: a tuple that shows itself as a table. A pytree.

    Attributes
    ----------
    members
        Matrices, or each a `LocalJacobian`: what the tuple holds.
    names
        What each of them is: ``"∂dense_1/∂relu_0"``.
    title
        What all of them are.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1])
    >>> jacobians = jc.suffix_jacobians(net, (net.init(jax.random.key(0)), jnp.ones(3)))
    >>> jacobians
    Jacobians(4, ∂dense_1/∂input … ∂dense_1/∂dense_1)
    >>> whole, *_, identity = jacobians
    >>> whole.shape, identity.tolist()
    ((1, 3), [[1.0]])
    """

    members: tuple[T, ...]
    names: tuple[str, ...]
    title: str

    def __new__(cls, members: Iterable[T] = (), *_: Any, **__: Any) -> Jacobians[T]:
        """The tuple itself; what it is called is the dataclass's."""
        return super().__new__(cls, members)

    def _brief(self) -> str:
        ends = dict.fromkeys((*self.names[:1], *self.names[-1:]))
        return f"{len(self)}, {' … '.join(map(escaped, ends))}"

    def _table(self) -> Table:
        matrices = [getattr(member, "matrix", member) for member in self]
        rows = [
            (name, describe(matrix, short=True), _norm_text(matrix))
            for name, matrix in zip(self.names, matrices, strict=True)
        ]
        return Table(self.title, ("Jacobian", "shape", "‖J‖"), rows)


def _flatten(jacobians: Jacobians[Any]) -> tuple[list[tuple[Any, Any]], tuple[tuple[str, ...], str]]:
    """Under the keys of a tuple."""
    keys = map(jax.tree_util.SequenceKey, range(len(jacobians)))
    return list(zip(keys, jacobians, strict=True)), (jacobians.names, jacobians.title)


jax.tree_util.register_pytree_with_keys(Jacobians, _flatten, lambda told, members: Jacobians(tuple(members), *told))
