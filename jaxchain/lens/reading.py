"""A lens: average Jacobians with their standard errors, and what is read with them. Builds on `identity` and `stored`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.chain import Chain
from jaxchain.checks import path_to_write, text
from jaxchain.coordinates import widest
from jaxchain.errors import unknown
from jaxchain.lens import stored
from jaxchain.lens.identity import Model, Parameters
from jaxchain.lens.sample import compiled, ending, shapes_of, states_of
from jaxchain.lens.unembedding import checked_state, checked_unembed
from jaxchain.meshes import on_host
from jaxchain.program.fingerprint import Kept
from jaxchain.show.shapes import describe
from jaxchain.show.table import Table, Tabular
from jaxchain.show.values import count as counted

__all__ = ["Lens", "LensRow"]


KEPT = Kept(8)
"""The programs of the last chains, and what computes their states, compiled."""


@dataclass(frozen=True)
class LensRow:
    """What a lens knows of one state.

    Attributes
    ----------
    name
        The state's.
    shape
        (width_out, width) of its Jacobian.
    norm
        Frobenius norm of its Jacobian.
    error
        That of its standard errors; NaN from a single sample.
    likeness
        Cosine between the Jacobian and the identity, which the logit lens takes in its place; NaN between widths that
        differ.

    Examples
    --------
    >>> fun = lambda x: x + x @ jnp.diag(jnp.array([1.0, 0.0]))
    >>> lens = jc.lens.fit(fun, [(jnp.ones((4, 2)),)], skip_first=0)
    >>> lens.rows[0].name, round(lens.rows[0].norm, 4), round(lens.rows[0].likeness, 4)  # diag(2, 1): √5, 3/√10
    ('input', 2.2361, 0.9487)
    """

    name: str
    shape: tuple[int, int]
    norm: float
    error: float
    likeness: float


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["jacobians", "squares"],
    meta_fields=["count", "target", "skip_first", "samples", "model"],
)
@dataclass(frozen=True)
class Lens(Tabular):
    """The average Jacobian from every state of a residual chain to its end. A pytree.

    Attributes
    ----------
    jacobians
        State name → (width_out, width): mean over samples and source positions p of Σ_{p′} ∂x_q[p′]/∂x_k[p].
    squares
        Sums over samples of squared deviations from that mean.
    count
        How many samples.
    target
        The name of x_q.
    skip_first
        How many positions at the beginning were left out.
    samples
        A fingerprint of each sample.
    model
        That of the model.

    Examples
    --------
    >>> net = jc.nets.transformer((5, 8, 5), depth=1, heads=2)
    >>> params = net.init(jax.random.key(0))
    >>> inputs = [(params, jax.random.normal(jax.random.key(k), (12, 5))) for k in range(3)]
    >>> lens = jc.lens.fit(net, inputs, until="mlp_0", skip_first=4)
    >>> lens
    Lens(3 states to mlp_0, 3 samples)
    >>> {name: jacobian.shape for name, jacobian in lens.jacobians.items()}
    {'input': (8, 5), 'embed': (8, 8), 'attention_0': (8, 8)}
    """

    jacobians: dict[str, jax.Array]
    squares: dict[str, jax.Array]
    count: int
    target: str
    skip_first: int
    samples: tuple[str, ...]
    model: Model

    @property
    def standard_errors(self) -> dict[str, jax.Array]:
        """State name → (width_out, width): of the mean over samples; NaN from a single one."""
        several = self.count * (self.count - 1)
        return {
            name: jnp.sqrt(square / several) if several else square + jnp.nan for name, square in self.squares.items()
        }

    @property
    def rows(self) -> tuple[LensRow, ...]:
        """One a state, in the chain's order."""
        errors = self.standard_errors
        return tuple(
            _row(name, on_host(j).astype(float), on_host(errors[name]).astype(float))
            for name, j in self.jacobians.items()
        )

    def apply(self, state: Any, stage: str, unembed: Callable[[Any], Any] | None = None) -> Any:
        """What a state is disposed to become at the chain's end, unembed(J_k x_k).

        Parameters
        ----------
        state
            (…, width), as the chain has it at ``stage``: one position or all of them. Works under jit, vmap and grad.
        stage
            The state's name; that of the chain's end, ``target``, is the identity.
        unembed
            From (…, width_out) to logits, mostly the model's own last norm and unembedding. ``None``: J_k x_k itself.

        Raises
        ------
        KeyError
            If the lens has no such state; suggests the nearest names.
        ValueError, TypeError
            If ``state`` has another width, or is no array of numbers; if ``unembed`` is no function.

        Examples
        --------
        >>> fun = lambda x: x + x @ jnp.diag(jnp.array([1.0, 0.0]))
        >>> lens = jc.lens.fit(fun, [(jnp.ones((4, 2)),)], skip_first=0)
        >>> lens.apply(jnp.array([1.0, 10.0]), "input", lambda x: x[::-1]).tolist()
        [10.0, 2.0]
        """
        jacobian = self._jacobian(text("stage", stage))
        state, unembed = checked_state(state), checked_unembed(unembed)
        if jacobian is None:
            return unembed(state)
        if state.shape[-1:] != jacobian.shape[1:]:
            msg = f"State {stage!r} is {jacobian.shape[1]} wide, but what was given is {describe(state, short=True)}: its last axis is the width."
            raise ValueError(msg)
        wide = widest(state.dtype, jacobian.dtype)
        moved = jnp.einsum("...n,mn->...m", state.astype(wide), jacobian.astype(wide))
        return unembed(moved.astype(state.dtype))

    def check(self, chain: Chain | Callable[..., Any], args: tuple[Any, ...], *, argnum: int | None = None) -> None:
        """Refuse a model that is not the one which the lens was fitted to.

        Parameters
        ----------
        chain, args, argnum
            The model and arguments of one sample, as for `fit`.

        Raises
        ------
        ValueError
            If it has other parameters, another program, or no state of the target's name; says which.

        Examples
        --------
        >>> model = lambda w, x: x + jnp.tanh(x @ w)
        >>> lens = jc.lens.fit(model, [(jnp.eye(2), jnp.ones((4, 2)))], skip_first=0)
        >>> lens.check(model, (jnp.eye(2), jnp.zeros((4, 2))))
        >>> lens.check(model, (jnp.ones((2, 2)), jnp.zeros((4, 2))))
        Traceback (most recent call last):
        ValueError: This lens is stale: the model is not the one that it was fitted to, since its parameters have ...
        """
        self._checked(chain, args, argnum)

    def states(
        self, chain: Chain | Callable[..., Any], args: tuple[Any, ...], *, argnum: int | None = None
    ) -> dict[str, jax.Array]:
        """The states of one sample that the lens reads, and the chain's end; of no other model than its own.

        Parameters
        ----------
        chain, args, argnum
            The model and arguments of one sample, as for `fit`.

        Returns
        -------
        dict
            State name → the state, for `apply`.

        Raises
        ------
        ValueError
            As `check`.

        Examples
        --------
        >>> model = lambda w, x: x + jnp.tanh(x @ w)
        >>> lens = jc.lens.fit(model, [(jnp.eye(2), jnp.ones((4, 2)))], skip_first=0)
        >>> [(name, state.shape) for name, state in lens.states(model, (jnp.eye(2), jnp.ones((6, 2)))).items()][0]
        ('input', (6, 2))
        """
        part, model = self._checked(chain, args, argnum)
        names = (*self.jacobians, self.target)

        def read(*args: Any) -> list[jax.Array]:
            states = states_of(part, args)
            return [states[name] for name in names]

        states = KEPT.get((model.programs, names), lambda: compiled(read))(*args)
        return dict(zip(names, states, strict=True))

    def save(self, path: str | Path) -> Path:
        """Write the lens to a file, whole or not at all; `jaxchain.lens.load` reads it.

        Raises
        ------
        TypeError, ValueError
            If ``path`` can be the name of no file.

        Examples
        --------
        >>> lens = jc.lens.fit(lambda x: 2 * x, [(jnp.ones((4, 2)),)], skip_first=0)
        >>> jc.lens.load(lens.save("lens.npz")).jacobians["input"].tolist()
        [[2.0, 0.0], [0.0, 2.0]]
        """
        path = path_to_write("path", path)
        arrays = {f"mean {name}": j for name, j in self.jacobians.items()} | {
            f"squares {name}": s for name, s in self.squares.items()
        }
        told = {
            "states": list(self.jacobians),
            "count": self.count,
            "target": self.target,
            "skip_first": self.skip_first,
            "samples": list(self.samples),
            "model": self.model.plain(),
        }
        stored.write(path, arrays, told)
        return path

    def _jacobian(self, name: str) -> jax.Array | None:
        """Of a state; ``None``: the identity."""
        if name in self.jacobians:
            return self.jacobians[name]
        if name == self.target:
            return None
        raise KeyError(unknown("state of this lens", name, [*self.jacobians, self.target]))

    def _checked(
        self, chain: Chain | Callable[..., Any], args: tuple[Any, ...], argnum: int | None
    ) -> tuple[Chain, Model]:
        """The chain up to the target, and what tells it from others, once it is the lens's own."""
        whole = ending(chain, args, argnum, None)
        lacking = [name for name in (self.target, *self.jacobians) if name not in whole.names_with_input]

        def traced() -> tuple[Chain, Model]:
            part = whole if lacking else whole[: whole.position(self.target) + 1]
            return part, Model.of(part, args, "")

        # A chain never changes, so that it is read once for all samples of a shape; a function may close over what does.
        key = whole, None if lacking else self.target, shapes_of(args)
        part, model = KEPT.get(key, traced) if whole is chain else traced()
        model = replace(model, parameters=Parameters().of(part, args))
        reason = f"it has no state {lacking[0]!r}" if lacking else self.model.unlike(model)
        if reason is not None:
            msg = f"This lens is stale: the model is not the one that it was fitted to, since {reason}. Fit a lens to this one."
            raise ValueError(msg)
        return part, model

    def _brief(self) -> str:
        return f"{counted(len(self.jacobians), 'state')} to {self.target}, {counted(self.count, 'sample')}"

    def _table(self) -> Table:
        rows = [
            (
                r.name,
                f"{r.shape[0]} × {r.shape[1]}",
                f"{r.norm:.4g}",
                _or_dash(r.error, "{:.2g}"),
                _or_dash(r.likeness, "{:.3f}"),
            )
            for r in self.rows
        ]
        return Table(
            f"Jacobian lens on {self.target}, from {counted(self.count, 'sample')}",
            ("state", "Jacobian", "‖J‖", "±", "cos(J, I)"),
            rows,
        )


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def _row(name: str, jacobian: np.ndarray[Any, Any], errors: np.ndarray[Any, Any]) -> LensRow:
    rows, columns = jacobian.shape
    norm = float(np.linalg.norm(jacobian))
    square = rows == columns and norm > 0
    likeness = float(np.trace(jacobian)) / (norm * math.sqrt(rows)) if square else math.nan
    return LensRow(name, (rows, columns), norm, float(np.linalg.norm(errors)), likeness)
