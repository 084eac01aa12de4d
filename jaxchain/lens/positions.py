"""Which positions of a sample count: those that a mask keeps, without the first few and without the last.

Early positions are attention sinks and the last one has no next token; both as in the published estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxchain.arguments import position_among
from jaxchain.checks import integer, shown

__all__ = ["Mask", "check_mask", "valid_positions"]

Mask = Callable[..., Any] | int | None
"""``mask(*args)``, or which argument: true where a position holds a token. ``None``: everywhere."""


def check_mask(mask: Any) -> Any:
    """Refuse what can be no mask."""
    return (
        mask
        if mask is None or callable(mask)
        else integer("mask", mask, "a function of args or an argument's position")
    )


def valid_positions(
    mask: Mask, args: tuple[Any, ...], positions: int, skip_first: int, sample: int
) -> NDArray[np.bool_]:
    """(positions,): true where a position is a source and a target.

    Raises
    ------
    ValueError, TypeError
        If none is left, or the mask is none of these positions.
    """
    kept = np.ones(positions, bool)
    if mask is not None:
        given = mask(*args) if callable(mask) else args[position_among(args, mask)]
        kept = _as_mask(given, positions, sample)
        if not kept.any():
            msg = f"The mask leaves out all {positions} positions of sample {sample}, so there is nothing to average over. It is true where a position holds a token."
            raise ValueError(msg)
    number = np.cumsum(kept) - 1  # of padding to the left, too, the first to be skipped are the first that are kept
    valid = kept & (number >= skip_first) & (number < kept.sum() - 1)
    if not valid.any():
        of = (
            f"{kept.sum()} of {positions} positions that the mask keeps"
            if mask is not None
            else f"{positions} positions"
        )
        msg = (
            f"Sample {sample} has {of}, but skip_first={skip_first} and the last one, which has no next token, leave "
            f"none: more than {skip_first + 1} are needed. Give longer samples, or a smaller skip_first."
        )
        raise ValueError(msg)
    return valid


def _as_mask(given: Any, positions: int, sample: int) -> NDArray[np.bool_]:
    wanted = f"mask tells of each of the {positions} positions whether it counts, as {positions} booleans"
    try:
        mask = np.asarray(given)
    except Exception as error:
        msg = f"{wanted}, but for sample {sample} it is {shown(given)}."
        raise TypeError(msg) from error
    if mask.size != positions or mask.shape[-1:] != (positions,):
        msg = f"{wanted}, but for sample {sample} its shape is {mask.shape}."
        raise ValueError(msg)
    if mask.dtype != bool and not (mask.dtype.kind in "iuf" and np.isin(mask, (0, 1)).all()):
        msg = f"{wanted} (or zeros and ones), but for sample {sample} it is {shown(given)}."
        raise TypeError(msg)
    return mask.reshape(positions).astype(bool)
