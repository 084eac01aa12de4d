"""The Jacobians of runs of stages at one point, each measured: decomposed where it is small, else by products with it.

What a run cannot be measured for, a stage without forward or reverse mode, is told and left out. Builds on `dense`,
`krylov` and `along`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.coordinates import Coordinates
from jaxchain.diagnosis.along import runs
from jaxchain.diagnosis.dense import Matrices, singular_values
from jaxchain.diagnosis.kinds import Placed
from jaxchain.diagnosis.krylov import DEPTH, PROBES, RULES, Found, largest, volume
from jaxchain.diagnosis.spectra import SingularRow
from jaxchain.errors import REFUSALS, ModeError, refusal
from jaxchain.meshes import on_host
from jaxchain.show.extremes import Floats
from jaxchain.stage import State
from jaxchain.swept import state_norm

__all__ = ["Measured"]

Run = tuple[int, int]
"""The first of some neighbouring stages, and that behind the last."""

SHORT = 64
"""A side so short is gone through one basis vector at a time, if Krylov's steps are not more."""


class Measured:
    """A chain at one point.

    ``count`` values of each Jacobian are told, ``None``: all of a matrix, and ``fewer`` of what is none, by ``steps``.

    Raises
    ------
    ValueError
        If a state is not finite; names the first.
    """

    def __init__(
        self, stages: Sequence[Placed], names: Sequence[str], count: int | None, fewer: int, steps: int
    ) -> None:
        self.stages, self.names, self.count, self.fewer, self.steps = stages, names, count, fewer, steps
        self.matrices = Matrices(stages, max(SHORT, steps))
        self.sizes = self.matrices.sizes
        self.volumes = dict[int, float]()
        self.lost, self.together = dict[str, dict[str, None]](), False
        for name, state in zip(names, (stages[0].state, *(at.out for at in stages)), strict=True):
            if not math.isfinite(state_norm(state)):
                msg = f"State {name!r} is not finite at these arguments, and it is the first along the chain: NaN and ∞ have no derivatives to decompose. Look at what {name!r} makes of its input there."
                raise ValueError(msg)

    def moved(self, stages: Sequence[Placed]) -> Measured:
        """The same chain at another point; what was compiled, and what was told of it, goes along."""
        other = Measured(stages, self.names, self.count, self.fewer, self.steps)
        other.lost, other.find = self.lost, self.find
        return other

    @cached_property
    def find(self) -> Callable[..., Found]:
        """Matrix-free, any run; compiled when first called."""
        return runs(self.stages)

    def work(self, wanted: Sequence[Run]) -> float:
        """About how many floating-point operations the products of what is no matrix take."""
        products = 2 * (self.steps + RULES * DEPTH) + PROBES + 1
        single = [at.kind.work for at in self.stages]
        return sum(2.0 * products * sum(single[a:b]) for a, b in wanted if not self.matrices.fits(a, b))

    def check_count(self, wanted: Sequence[Run]) -> None:
        """Refuse more singular values than a Jacobian has.

        Raises
        ------
        ValueError
            Names the one that has the fewest.
        """
        fewest = min(wanted, key=lambda run: (self._short_side(*run), run[0] - run[1]))
        most = self._short_side(*fewest)
        if self.count is not None and self.count > most:
            m, n = self._shape(*fewest)
            msg = f"k={self.count} singular values were asked for, but {self._name(*fewest)} is {m:,} × {n:,} and has {most:,}. Ask for at most k={most}, or with of=… for Jacobians that have as many."
            raise ValueError(msg)

    @property
    def notes(self) -> list[str]:
        """What was left out, and why."""
        return [
            f"{', '.join(list(names)[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} left out: {why}."
            for why, names in self.lost.items()
        ]

    def rows(self, wanted: Sequence[Run]) -> list[SingularRow]:
        """What each run's Jacobian is; of what cannot be told, a word in ``lost``."""
        found = list[SingularRow]()
        # Where runs need a program of the whole chain, single stages have no need of their own.
        self.together = any(last > first + 1 and not self.matrices.fits(first, last) for first, last in wanted)
        for first, last in wanted:
            try:
                dense = self.matrices.fits(first, last)
                row = self._dense(first, last) if dense else self._matrix_free(first, last)
            except REFUSALS as error:
                self.lost.setdefault(refusal(error), {})[self._name(first, last)] = None
            else:
                found.append(row)
        return found

    def _dense(self, first: int, last: int) -> SingularRow:
        matrix = self.matrices.between(first, last)
        self._check_finite(first, last, matrix)
        sigma = singular_values(matrix)
        total, zero = float(sigma.sum()), _rounding(matrix.shape, self.stages[first].state)
        full = bool(sigma.size) and sigma[-1] > zero * sigma[0]
        shares = sigma[sigma > 0] / total if total else np.ones(1)
        squares = float(np.square(sigma).sum())
        return SingularRow(
            self.names[first], self.names[last], self._shape(first, last), "dense",
            sigma=sigma[: self.count], deviation=np.zeros_like(sigma[: self.count]), sigma_error=0.0,
            condition=float(sigma[0] / sigma[-1]) if full else math.inf,
            effective_rank=math.exp(-float(shares @ np.log(shares))) if total else 0.0,
            stable_rank=squares / float(sigma[0]) ** 2 if total else 0.0,
            log_volume=self._volume(first, last, float(np.log(sigma).sum()) if full else -math.inf),
            log_volume_error=0.0, squared_norm=squares, squared_norm_error=0.0,
        )  # fmt: skip

    def _volume(self, first: int, last: int, own: float) -> float:
        """A log-volume: between states of one size the sum of the stages', where these are known."""
        if self._has_waist(first, last):
            return -math.inf
        if last == first + 1:
            self.volumes[first] = own
            return own
        square = len(set(self.sizes[first : last + 1])) == 1
        known = [self.volumes.get(k) for k in range(first, last)]
        return sum(v for v in known if v is not None) if square and None not in known else own

    def _has_waist(self, first: int, last: int) -> bool:
        """Whether a state on the way is of fewer numbers than either end, and so of a rank below the full one."""
        return min(self.sizes[first : last + 1]) < self._short_side(first, last)

    def _matrix_free(self, first: int, last: int) -> SingularRow:
        for at in self.stages[first:last]:
            if why := at.kind.refused():
                msg = f"of stage {at.stage.name!r} {why}, and a Jacobian too large for a matrix takes both modes"
                raise ModeError(msg)
        steps = min(self.steps, self._short_side(first, last))
        if last == first + 1 and not self.together:
            form, estimated = self.stages[first].krylov(steps, estimate=True)
        else:
            form, estimated = self.find(self.stages, first, last, steps)
        assert estimated is not None
        self._check_finite(first, last, form.upper)
        found, scale = largest(form, self.fewer), float(form.scale) ** 2
        squares = scale * float(np.square(on_host(form.upper)).sum() + estimated.rest)
        log_volume, error = volume(form, estimated, self._short_side(first, last))
        if self._has_waist(first, last):
            log_volume, error = -math.inf, 0.0
        return SingularRow(
            self.names[first], self.names[last], self._shape(first, last), "matrix-free",
            sigma=found.sigma, deviation=np.zeros_like(found.sigma), sigma_error=float(found.errors.max()),
            condition=None, effective_rank=None,
            stable_rank=squares / float(found.sigma[0]) ** 2 if found.sigma[0] else 0.0,
            log_volume=log_volume, log_volume_error=error,
            squared_norm=squares, squared_norm_error=scale * float(estimated.rest_error),
        )  # fmt: skip

    def _check_finite(self, first: int, last: int, numbers: Floats | jax.Array) -> None:
        if not np.isfinite(on_host(numbers)).all():
            where = f"stage {self.names[last]!r}" if last == first + 1 else f"the stages up to {self.names[last]!r}"
            msg = f"The Jacobian {self._name(first, last)} is not finite, though all states are: {where} cannot be differentiated at these arguments, or derivatives overflow there."
            raise ValueError(msg)

    def _name(self, first: int, last: int) -> str:
        return f"∂{self.names[last]}/∂{self.names[first]}"

    def _shape(self, first: int, last: int) -> tuple[int, int]:
        return self.sizes[last], self.sizes[first]

    def _short_side(self, first: int, last: int) -> int:
        return min(self._shape(first, last))


def _rounding(shape: tuple[int, ...], state: State) -> float:
    """Below which share of σ₁ a singular value is rounding: NumPy's max(m, n)·ε, ε of the state or, if finer, of float32."""
    dtypes = (Coordinates.of(state).dtype, jnp.float32)
    return max(shape) * min(float(jnp.finfo(dtype).eps) for dtype in dtypes)
