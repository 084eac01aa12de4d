"""A fit under way: a running mean of samples' Jacobians on the device, and the checkpoint that it can go on from.

Means and squared deviations are updated as Welford does. Builds on `sample`, `positions`, `identity` and `reading`.

References: Welford, Note on a method for calculating corrected sums of squares and products, 1962.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import check_args
from jaxchain.chain import Chain
from jaxchain.checks import check_arrays
from jaxchain.derivative import Pass
from jaxchain.lens.identity import Model, Parameters, sample_digest
from jaxchain.lens.positions import Mask, valid_positions
from jaxchain.lens.reading import Lens
from jaxchain.lens.sample import Found, Sweep, ending, shapes_of
from jaxchain.meshes import untyped
from jaxchain.show.escape import escaped

__all__ = ["Options", "Run"]


@dataclass(frozen=True, eq=False)
class Options:
    """What `fit` was called with."""

    chain: Chain | Callable[..., Any]
    argnum: int | None
    until: str | None
    stages: tuple[str, ...] | None
    skip_first: int
    mask: Mask
    how: Pass


@dataclass
class Run:
    """A fit under way: what was there before, and the lens so far."""

    options: Options
    place: Path | None
    before: Lens | None
    number: int = 0
    lens: Lens | None = None
    saved: int = 0
    parameters: Parameters = field(default_factory=Parameters)
    sweeps: dict[Any, tuple[Sweep, Model]] = field(default_factory=dict[Any, tuple[Sweep, Model]])

    def take(self, args: Any) -> None:
        """One more sample."""
        args = _checked(args, self.number)
        args = args if self.options.how.sharding is None else untyped(args)
        sweep = self._sweep(args)
        valid = valid_positions(self.options.mask, args, sweep.positions, self.options.skip_first, self.number)
        sample = sample_digest(sweep.chain, args, valid)
        if self.before is not None and self.number < self.before.count:
            if self.before.samples[self.number] != sample:
                raise ValueError(self._foreign(f"its sample {self.number} is not the one given now"))
        else:
            found = sweep(args, valid)
            _check_finite(found, sweep, self.number)
            self.lens = _with(self._so_far, found.jacobians, sample)
        self.number += 1

    @property
    def _so_far(self) -> Lens:
        assert self.lens is not None
        return self.lens

    def _sweep(self, args: tuple[Any, ...]) -> Sweep:
        """The sweep for samples of these shapes, once the model is known to be the same as before."""
        key = shapes_of(args)
        known = self.sweeps.get(key)
        chain = known[0].chain if known else ending(self.options.chain, args, self.options.argnum, self.options.until)
        parameters = self.parameters.of(chain, args)
        if known is None:
            model = Model.of(chain, args, parameters)
            known = self.sweeps[key] = Sweep.of(chain, args, self.options.stages, self.options.how), model
        elif parameters != known[1].parameters:
            known = known[0], replace(known[1], parameters=parameters)
        self._agree(*known)
        return known[0]

    def _agree(self, sweep: Sweep, model: Model) -> None:
        """Begin with the first sample; refuse any other that is of another model."""
        if self.lens is None:
            self.lens = self._begun(sweep, model)
        reason = self.lens.model.unlike(model, together=True)
        if reason is None and {name: j.shape for name, j in self.lens.jacobians.items()} != sweep.shapes:
            reason = f"its states are {', '.join(sweep.shapes)}, not {', '.join(self.lens.jacobians)}"
        if reason is not None:
            msg = f"Sample {self.number} is of another model than those before: {reason}. A lens is of one model; what differs from sample to sample is the chain input, and arguments of integers and keys."
            raise ValueError(msg)
        if model.programs[0] not in self.lens.model.programs:
            self.lens = replace(self.lens, model=self.lens.model.joined(model))

    def _begun(self, sweep: Sweep, model: Model) -> Lens:
        """The lens of the checkpoint, or one of no sample."""
        target, skip = sweep.chain.names[-1], self.options.skip_first
        if self.before is None:
            mean, squares = (
                {name: jnp.zeros(shape, sweep.dtype) for name, shape in sweep.shapes.items()} for _ in range(2)
            )
            return Lens(mean, squares, 0, target, skip, (), model)
        before = self.before
        shapes = {name: jacobian.shape for name, jacobian in before.jacobians.items()}
        dtypes = {jacobian.dtype for jacobian in before.jacobians.values()}
        reason = before.model.unlike(model)
        if reason is not None:
            reason = f"it is of another model: {reason}"
        elif (before.target, before.skip_first) != (target, skip):
            reason = f"it leads to {before.target!r} with skip_first={before.skip_first}, not to {target!r} with skip_first={skip}"
        elif shapes != sweep.shapes or dtypes != {np.dtype(sweep.dtype)}:
            reason = f"its states are {', '.join(shapes)}, not {', '.join(sweep.shapes)}, or of another width or dtype"
        if reason is not None:
            raise ValueError(self._foreign(reason))
        self.saved = before.count
        return before

    def _foreign(self, reason: str) -> str:
        return f"The checkpoint {escaped(str(self.place))} is not of this call: {reason}. Choose another checkpoint_dir, or delete it to begin again."

    def finished(self) -> Lens:
        """The lens of all samples."""
        if self.lens is None:
            msg = "inputs gives no sample, so there is no mean. It is gone through once: a generator that was used up is empty."
            raise ValueError(msg)
        if self.before is not None and self.number < self.before.count:
            raise ValueError(
                self._foreign(f"it has seen {self.before.count} samples, but inputs gives only {self.number}")
            )
        self.save()
        return self.lens

    def save(self) -> None:
        """Write the checkpoint, unless there is nothing new."""
        if self.place is None or self.lens is None or self.lens.count <= self.saved:
            return
        if any(array.is_deleted() for array in self.lens.jacobians.values()):  # interrupted while they were added to
            return
        self.lens.save(self.place)
        self.saved = self.lens.count


def _checked(args: Any, number: int) -> tuple[Any, ...]:
    """A sample's arguments, once they are a tuple of arrays."""
    try:
        check_args(args)
        for k, arg in enumerate(args):
            check_arrays(arg, f"Argument {k}")
    except TypeError as error:
        msg = f"Sample {number}: {error}"
        raise TypeError(msg) from error
    return args


def _check_finite(found: Found, sweep: Sweep, number: int) -> None:
    """Refuse a sample whose Jacobian is not finite; names the state where that begins."""
    finite, states = jax.device_get((list(found.finite.values()), list(found.states.values())))
    bad = [name for name, fine in zip(found.finite, finite, strict=True) if not fine]
    if not bad:
        return
    wrong = next((name for name, fine in zip(found.states, states, strict=True) if not fine), None)
    what = (
        f"∂{sweep.chain.names[-1]}/∂{bad[-1]} is not finite, though all states are"
        if wrong is None
        else f"the state {wrong!r} is not finite"
    )
    msg = f"At sample {number} {what}, so that no mean can take it in. Leave the sample out, or mend the model: jc.reverse_sweep shows its states and cotangents."
    raise ValueError(msg)


def _with(lens: Lens, jacobians: dict[str, jax.Array], sample: str) -> Lens:
    """The lens of one sample more."""
    count = lens.count + 1
    means, squares = (
        {name: part[name] for name in jacobians} for part in _added(lens.jacobians, lens.squares, jacobians, count)
    )
    return replace(lens, jacobians=means, squares=squares, count=count, samples=(*lens.samples, sample))


@partial(jax.jit, donate_argnums=(0, 1))
def _added(means: Any, squares: Any, jacobians: Any, count: Any) -> tuple[Any, Any]:
    """Mean and sum of squared deviations with one more."""
    steps = jax.tree.map(lambda mean, new: (new - mean) / jnp.asarray(count, mean.dtype), means, jacobians)
    after = jax.tree.map(jnp.add, means, steps)
    spread = jax.tree.map(lambda s, new, was, now: s + (new - was) * (new - now), squares, jacobians, means, after)
    return after, spread
