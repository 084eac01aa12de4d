"""Lenses that were fitted before: `load` takes one up from its file, `merge` makes one of several. Builds on `reading`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.checks import path_to_write, shown
from jaxchain.lens import stored
from jaxchain.lens.identity import Model
from jaxchain.lens.reading import Lens
from jaxchain.show.values import count as counted

__all__ = ["load", "merge"]


def load(path: str | Path) -> Lens:
    """The lens that `Lens.save` or a checkpoint of `fit` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is cut short or no lens, or holds float64 while JAX's 64-bit mode is off.

    Examples
    --------
    >>> lens = jc.lens.fit(lambda x: 2 * x, [(jnp.ones((4, 2)),)], skip_first=0)
    >>> jc.lens.load(lens.save("lens.npz"))
    Lens(1 state to mul@..., 1 sample)
    """
    path = path_to_write("path", path)
    arrays, told = stored.read(path)
    try:
        names = told["states"]
        means, squares = (
            {name: _kept(arrays[f"{kind} {name}"], path) for name in names} for kind in ("mean", "squares")
        )
        model = Model.from_plain(told["model"])
        return Lens(means, squares, told["count"], told["target"], told["skip_first"], tuple(told["samples"]), model)
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is no lens: it lacks {error}. Choose another path."
        raise ValueError(msg) from error


def _kept(array: np.ndarray[Any, Any], path: Path) -> jax.Array:
    """An array of a file as JAX's, to the last bit."""
    if array.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        msg = f'The lens in {path} is float64, which JAX holds only in its 64-bit mode: jax.config.update("jax_enable_x64", True).'
        raise ValueError(msg)
    return jnp.asarray(array)


def merge(*lenses: Lens) -> Lens:
    """One lens of several that were fitted to the same model on other samples: that of all samples.

    Means and deviations are combined as Chan, Golub and LeVeque do, so that it equals the lens that is fitted on all
    samples at once, up to rounding.

    Raises
    ------
    ValueError
        If there is none; if they are of other models, states or positions, or share a sample.
    TypeError
        If one is no lens.

    References
    ----------
    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.

    Examples
    --------
    >>> inputs = [(jax.random.normal(jax.random.key(k), (4, 2)),) for k in range(4)]
    >>> fun = lambda x: x + jnp.tanh(x)
    >>> one, two = (jc.lens.fit(fun, part, skip_first=0) for part in (inputs[:3], inputs[3:]))
    >>> whole = jc.lens.fit(fun, inputs, skip_first=0)
    >>> merged = jc.lens.merge(one, two)
    >>> merged.count, bool(jnp.allclose(merged.jacobians["input"], whole.jacobians["input"]))
    (4, True)
    """
    for lens in lenses:
        if not isinstance(lens, Lens):  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"merge takes lenses, but {shown(lens)} was given."
            raise TypeError(msg)
    if not lenses:
        msg = "merge takes at least one lens."
        raise ValueError(msg)
    merged = lenses[0]
    for number, lens in enumerate(lenses[1:], start=2):
        _check_alike(merged, lens, number)
        merged = _merged(merged, lens)
    return merged


def _check_alike(one: Lens, two: Lens, number: int) -> None:
    """Refuse lenses that are not parts of one."""
    shapes = [{name: jacobian.shape for name, jacobian in lens.jacobians.items()} for lens in (one, two)]
    reason = one.model.unlike(two.model)
    if shapes[0] != shapes[1] or one.target != two.target:
        reason = f"it reads {', '.join(two.jacobians)} to {two.target}, the others {', '.join(one.jacobians)} to {one.target}"
    elif one.skip_first != two.skip_first:
        reason = f"it has skip_first={two.skip_first}, the others {one.skip_first}"
    elif reason is None and (shared := set(one.samples) & set(two.samples)):
        reason = f"{counted(len(shared), 'sample')} of it {'is' if len(shared) == 1 else 'are'} in the others, too, and would count twice"
    elif reason is not None:
        reason = f"it is of another model: {reason}"
    if reason is not None:
        msg = f"Lens {number} of those to merge does not go with the ones before: {reason}. Merge lenses of one model, fitted on other samples."
        raise ValueError(msg)


def _merged(one: Lens, two: Lens) -> Lens:
    total = one.count + two.count
    means, squares = dict[str, jax.Array](), dict[str, jax.Array]()
    for name, like in one.jacobians.items():
        a, b, s, t = (np.asarray(x[name], np.float64) for x in (one.jacobians, two.jacobians, one.squares, two.squares))
        apart = b - a
        means[name] = jnp.asarray(a + apart * (two.count / total), like.dtype)
        squares[name] = jnp.asarray(s + t + apart**2 * (one.count * two.count / total), like.dtype)
    return replace(
        one,
        jacobians=means,
        squares=squares,
        count=total,
        samples=one.samples + two.samples,
        model=one.model.joined(two.model),
    )
