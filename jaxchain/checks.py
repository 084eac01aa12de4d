"""One checker a kind of argument, for every public function and the command.

Each returns what was given in its plain form, or says what was given, what is wanted and the way out.
"""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.show.escape import escaped
from jaxchain.show.table import one_line, si

__all__ = [
    "check_arrays",
    "check_function",
    "check_inexact",
    "check_limit",
    "check_offload",
    "check_result",
    "flag",
    "integer",
    "integers",
    "is_array",
    "number",
    "path_to_write",
    "random_key",
    "refuse_huge",
    "shown",
    "text",
    "word",
]

UNASKED = 4 * 2**30
"""Bytes of a Jacobian that are made unasked: more than most are, and less than a slip makes. The same everywhere, so
that what runs on one machine runs on another."""

LARGEST = 2**31 - 1
"""The most steps or numbers along an axis that a program of JAX counts."""


def shown(value: Any) -> str:
    """What was given, in one short line."""
    return one_line(repr(value), 60)


def integer(
    name: str, value: Any, what: str, *, least: int | None = None, most: int | None = None, optional: bool = False
) -> Any:
    """An integer within bounds, as Python's; NumPy's and JAX's are some, booleans are none."""
    if optional and value is None:
        return None
    low = f" of at least {least}" if most is None else f" from {least} to {most:,}"
    wanted = f"an integer{'' if least is None else low}{' or None' if optional else ''}"
    msg = f"{name} is {what}, {wanted}, but {shown(value)} was given."
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None:
        raise TypeError(msg)
    if (least is not None and whole < least) or (most is not None and whole > most):
        raise ValueError(msg)
    return whole


def integers(name: str, values: Any, what: str, *, least: int, most: int | None = None) -> list[int]:
    """Several such integers."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or getattr(values, "ndim", 1) != 1:
        msg = f"{name} is a list of integers, but {shown(values)} was given."
        raise TypeError(msg)
    return [integer(f"Each of {name}", value, what, least=least, most=most) for value in values]


def check_limit(memory_limit: Any, *, optional: bool = True) -> None:
    """Refuse what is no number of bytes."""
    integer("memory_limit", memory_limit, "a number of bytes, such as 2**30", least=1, optional=optional)


def check_offload(offload: Any) -> float | None:
    """A price of a byte that goes to the host, or ``None``."""
    what = "what a byte sent to the host's memory and back counts as, in FLOPs"
    return number("offload", offload, what, optional=True)


def number(
    name: str, value: Any, what: str, *, least: float = 0, most: float = math.inf, optional: bool = False
) -> Any:
    """A finite number within bounds, at least 0 unless told; what is traced is taken on trust."""
    if (optional and value is None) or (isinstance(value, Tracer) and value.shape == ()):
        return value
    wanted = f"a finite number of at least {least:g}" if math.isinf(most) else f"a number from {least:g} to {most:g}"
    msg = f"{name} is {what}, {wanted}{' or None' if optional else ''}, but {shown(value)} was given."
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value) or np.iscomplexobj(value):
        raise TypeError(msg)
    try:
        plain = float(value)
    except (TypeError, ValueError, OverflowError):
        plain = None
    if plain is None:
        raise TypeError(msg)
    if not (math.isfinite(plain) and least <= plain <= most):
        raise ValueError(msg)
    return plain


def flag(name: str, value: Any) -> bool:
    """True or False; whatever else Python takes for one of them is more likely a slip."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} is True or False, but {shown(value)} was given."
        raise TypeError(msg)
    return bool(value)


def word(kind: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        near = get_close_matches(value, known, n=1) if isinstance(value, str) else ()
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"Unknown {kind} {shown(value)}.{hint} Known: {', '.join(known)}."
        raise ValueError(msg)
    return value


def text(name: str, value: Any, *, optional: bool = False) -> Any:
    """Words, such as a title."""
    if not (isinstance(value, str) or (optional and value is None)):
        msg = f"{name} is a string{' or None' if optional else ''}, but {shown(value)} was given."
        raise TypeError(msg)
    return value


def check_function(fun: Any, caller: str, args: tuple[Any, ...] = ()) -> None:
    """Refuse what is not callable, and arguments that are not made of arrays."""
    if not callable(fun):
        msg = f"{caller} needs a function, but {shown(fun)} is not callable."
        raise TypeError(msg)
    for number, arg in enumerate(args):
        check_arrays(arg, f"Argument {number}")


def is_array(leaf: Any) -> bool:
    """Whether JAX takes it for an array, or for the shape of one."""
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return getattr(leaf.dtype, "kind", "V") not in "OUSMmT"
    if not isinstance(leaf, (bool, int, float, complex)):
        return False
    try:
        jax.typeof(leaf)
    except OverflowError:  # an integer that no dtype holds
        return False
    return True


def check_arrays(tree: Any, place: str) -> None:
    """Refuse leaves that are no arrays."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if not is_array(leaf):
            msg = (
                f"{place}{keystr(path)} is {shown(leaf)}, which is not an array of numbers. Close over it, "
                "or split it off (eqx.partition, nnx.split), and pass the arrays alone."
            )
            raise TypeError(msg)


def check_result(out: Any) -> None:
    """Refuse what a function returned, unless it is arrays."""
    check_arrays(out, "The function's result")
    if not jax.tree.leaves(out):
        msg = f"The function returns {shown(out)}, which holds no array, so there is nothing to differentiate. Does it lack a return?"
        raise TypeError(msg)


def check_inexact(tree: Any, place: str) -> None:
    """Refuse leaves that carry no derivative."""
    check_arrays(tree, place)
    for path, leaf in tree_flatten_with_path(tree)[0]:
        dtype = leaf.dtype if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf).dtype
        if not jax.dtypes.issubdtype(dtype, np.inexact):
            msg = (
                f"{place}{f' at {keystr(path)}' if path else ''} is {dtype}, which has no derivative. Choose another argnum, "
                "or make what is not differentiated an argument of its own. Tokens have a derivative where a model turns "
                "them into numbers: jc.discover(fun, *args) begins there, and jc.jacobian takes its chain."
            )
            raise TypeError(msg)


INSTEAD = (
    "Make chosen rows of it (jc.jacobian_rows), all of them block by block (jc.jacobian_blocks, jc.jacobian_to_zarr), "
    "blocks between states (jc.partial_jacobian) or products with vectors (jax.jvp, jax.vjp)"
)
"""What there is in place of a whole Jacobian."""


def refuse_huge(
    shape: Sequence[int],
    dtype: Any,
    *,
    asked: int | None = None,
    limited: bool = False,
    what: str = "A Jacobian",
    instead: str = INSTEAD,
) -> None:
    """Refuse a matrix above `UNASKED` bytes, and above what was ``asked`` for; what is only traced may be of any size.

    Raises
    ------
    ValueError
        Says how large it is, what else there is, and how to ask for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= max(UNASKED, asked or 0) or isinstance(jax.numpy.zeros(()), Tracer):
        return
    ask = f"with memory_limit={size}, or more" if limited else "under jax.jit"
    msg = (
        f"{what} of {' × '.join(f'{n:,}' for n in shape)} numbers takes {si(size, 'B')}; above {si(UNASKED, 'B')} none is made unasked. "
        f"{instead}: chunks bound what is computed at once, not the result. To have all of it, ask {ask}."
    )
    raise ValueError(msg)


def random_key(key: Any) -> jax.Array:
    """One random key, of either kind."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    if not typed and not (isinstance(key, (jax.Array, np.ndarray)) and dtype == np.uint32 and len(shape or ()) == 1):
        msg = f"key is a random key, such as jax.random.key(0), but {shown(key)} was given."
        raise TypeError(msg)
    return key  # pyright: ignore[reportReturnType]


def path_to_write(name: str, value: Any) -> Path:
    """The path of a file to write, once it can be one."""
    wanted = f"{name} is the file to write, a string or a Path"
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        msg = f"{wanted}, but {shown(value)} was given."
        raise TypeError(msg)
    if not os.fspath(value) or "\0" in os.fspath(value):
        msg = f"{wanted}; {shown(os.fspath(value))} can be the name of none."
        raise ValueError(msg)
    try:
        os.stat(value)  # Path.exists is silent about these
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            msg = f"{wanted}, but {escaped(os.fspath(value))[:60]} cannot be opened: {error.strerror}. Choose another path."
            raise ValueError(msg) from error
    return Path(value)
