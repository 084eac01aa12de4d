"""What `spectrum` finds, as data: one row a Jacobian, with its singular values and what they say.

A row of several samples holds means over them. Builds on `show`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jaxchain.show.extremes import Floats
from jaxchain.show.table import Table, Tabular, shorten

__all__ = ["SingularRow", "Spectrum", "averaged"]


@dataclass(frozen=True, eq=False)
class SingularRow:
    """One Jacobian ∂stop/∂start, (m, n), and its singular values.

    Attributes
    ----------
    start, stop
        Names of the states between which it maps.
    shape
        (m, n).
    method
        ``dense``: from the matrix; ``matrix-free``: from products with it. A batch has one of the two as well.
    sigma
        Singular values, largest first: all min(m, n), or the k largest. Of a batch, their means by rank.
    deviation
        Of a batch, the standard deviation over samples, by rank; else zeros.
    sigma_error
        Matrix-free, no further from each of ``sigma`` lies a singular value of J; at most so far, over all of them.
        The values are from below. 0 where dense.
    condition
        σ₁/σ_min; ∞ where σ_min is rounding. ``None`` matrix-free: the smallest is not known.
    effective_rank
        exp H(p), H the entropy of p_i = σ_i/Σσ, of all singular values. ``None`` matrix-free.
    stable_rank
        ‖J‖_F²/σ₁²; at most the rank. 0 of a zero matrix.
    log_volume, log_volume_error
        Σ log σ over all min(m, n) singular values: ½ log det of J Jᵀ or of Jᵀ J, whichever is smaller, by natural
        logarithm. −∞ where one of them is rounding; its standard error, 0 where dense.
    squared_norm, squared_norm_error
        ‖J‖_F² = tr Jᵀ J = Σ σ², and its standard error, 0 where dense.

    References
    ----------
    Roy and Vetterli, The effective rank, EUSIPCO 2007; Rudelson and Vershynin, Sampling from large matrices, 2007
    (stable rank).

    Examples
    --------
    >>> (row,) = jc.spectrum(lambda x: jnp.array([3.0, 4.0]) * x, (jnp.ones(2),)).rows
    >>> row.sigma.tolist(), row.condition, row.squared_norm
    ([4.0, 3.0], 1.3333333333333333, 25.0)
    """

    start: str
    stop: str
    shape: tuple[int, int]
    method: Literal["dense", "matrix-free"]
    sigma: Floats = field(repr=False)
    deviation: Floats = field(repr=False)
    sigma_error: float
    condition: float | None
    effective_rank: float | None
    stable_rank: float
    log_volume: float
    log_volume_error: float
    squared_norm: float
    squared_norm_error: float

    @property
    def name(self) -> str:
        """``∂stop/∂start``."""
        return f"∂{self.stop}/∂{self.start}"

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table says of it, behind its name."""
        count = len(self.sigma)
        varies = bool(count) and self.deviation[0] > 1e-9 * self.sigma[0]
        spread = f" ± {self.deviation[0]:.2g}" if varies else ""
        first, last = (f"{value:.4g}" for value in self.sigma[[0, -1]]) if count else ("–", "–")
        return (
            " × ".join(f"{size:,}" for size in self.shape),
            f"{first}{spread}",
            f"σ{_subscript(count)} = {last}",
            "" if self.condition is None else f"{self.condition:.3g}",
            "" if self.effective_rank is None else f"{self.effective_rank:.3g}",
            f"{self.stable_rank:.3g}",
            _estimate(self.log_volume, self.log_volume_error),
            _estimate(self.squared_norm, self.squared_norm_error),
        )


def averaged(rows: list[SingularRow]) -> SingularRow:
    """The same Jacobian at several points: means, and the standard deviation of singular values by rank."""
    first, count = rows[0], len(rows)
    if count == 1:
        return first
    sigma = np.stack([row.sigma for row in rows])

    def average(name: str) -> Any:
        values = [getattr(row, name) for row in rows]
        return None if any(value is None for value in values) else float(np.mean(values))

    def combined(name: str) -> float:
        return math.hypot(*(getattr(row, name) for row in rows)) / count

    return SingularRow(
        first.start, first.stop, first.shape, first.method, sigma.mean(0), sigma.std(0, ddof=1),
        max(row.sigma_error for row in rows), average("condition"), average("effective_rank"),
        average("stable_rank"), average("log_volume"), combined("log_volume_error"),
        average("squared_norm"), combined("squared_norm_error"),
    )  # fmt: skip


LONGEST = 40
"""Letters of a Jacobian's name in a table."""

HEADER = (
    "Jacobian", "shape", "σ₁", "last told", "condition", "effective rank", "stable rank", "log-volume", "‖J‖²",
)  # fmt: skip


def _subscript(count: int) -> str:
    return str(count).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _estimate(value: float, error: float) -> str:
    return _plain(value, 4) + (f" ± {_plain(error, 2)}" if error else "")


def _plain(value: float, digits: int) -> str:
    """A number without an exponent, where it is not very large or small."""
    return f"{value:.0f}" if 10 ** (digits - 1) <= abs(value) < 1e7 else f"{value:.{digits}g}"


@dataclass(frozen=True, eq=False)
class Spectrum(Tabular):
    """What `spectrum` returns: ``.rows``, one a Jacobian, each once: of stages, prefixes, suffixes and the whole.

    A prefix ends at a state, ∂x_k/∂x_0, a suffix begins there, ∂x_q/∂x_k; the identities among them are left out.

    Attributes
    ----------
    title
        Along which argument.
    names
        Of the q + 1 states, the input first.
    rows
        The Jacobians that were asked for.
    samples
        How many points were averaged over.
    notes
        What was left out, and why.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 2, 1], "tanh")
    >>> found = jc.spectrum(net, (net.init(jax.random.key(0)), jnp.ones(3)))
    >>> list(found.stages), list(found.prefixes), list(found.suffixes)
    (['dense_0', 'tanh_0', 'dense_1'], ['dense_0', 'tanh_0', 'dense_1'], ['input', 'dense_0', 'tanh_0'])
    >>> found.whole.shape, found["dense_0", "tanh_0"].shape
    ((1,), (2, 2))
    """

    title: str
    names: tuple[str, ...]
    rows: tuple[SingularRow, ...]
    samples: int
    notes: tuple[str, ...]

    @property
    def stages(self) -> Mapping[str, Floats]:
        """Stage name → singular values of its local Jacobian ∂x_k/∂x_{k-1}."""
        ends = zip(self.names, self.names[1:], strict=False)
        return {stop: self[start, stop].sigma for start, stop in ends if (start, stop) in self}

    @property
    def prefixes(self) -> Mapping[str, Floats]:
        """State name → singular values of ∂x_k/∂x_0, for k = 1 … q."""
        first = self.names[0]
        return {stop: self[first, stop].sigma for stop in self.names[1:] if (first, stop) in self}

    @property
    def suffixes(self) -> Mapping[str, Floats]:
        """State name → singular values of ∂x_q/∂x_k, for k = 0 … q - 1."""
        last = self.names[-1]
        return {start: self[start, last].sigma for start in self.names[:-1] if (start, last) in self}

    @property
    def whole(self) -> Floats:
        """Singular values of ∂x_q/∂x_0.

        Raises
        ------
        KeyError
            If it was not asked for, or left out; says why.
        """
        return self[self.names[0], self.names[-1]].sigma

    def __contains__(self, ends: object) -> bool:
        return any((row.start, row.stop) == ends for row in self.rows)

    def __getitem__(self, ends: tuple[str, str]) -> SingularRow:
        """The row of ∂stop/∂start, by ``(start, stop)``.

        Raises
        ------
        KeyError
            If there is none; lists what was left out.
        """
        for row in self.rows:
            if (row.start, row.stop) == ends:
                return row
        known = ", ".join(row.name for row in self.rows[:4])
        msg = " ".join((f"There is no spectrum from and to {ends!r}; there are {known}, ….", *self.notes))
        raise KeyError(msg)

    def _brief(self) -> str:
        return f"{self.title}, {len(self.rows)} Jacobians"

    def _table(self) -> Table:
        own = set(zip(self.names, self.names[1:], strict=False))  # a stage's by its name
        labels = [row.stop if (row.start, row.stop) in own else row.name for row in self.rows]
        rows = [(shorten(label, LONGEST), *row.cells) for label, row in zip(labels, self.rows, strict=True)]
        return Table(self.title, HEADER, rows, self.notes)

    def _records(self) -> Iterable[Mapping[str, Any]]:
        plain = ("sigma", "deviation")
        for row in self.rows:
            yield {name: value.tolist() if name in plain else value for name, value in vars(row).items()}
