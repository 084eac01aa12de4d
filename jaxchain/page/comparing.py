"""`compare`: one self-contained page that shows two chains beside each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.arguments import check_numbers, looked_along
from jaxchain.chain import Chain
from jaxchain.checks import check_function, shown, text
from jaxchain.diagnosis.survey import survey
from jaxchain.discovery import discover
from jaxchain.page.beside import Pair, Side, SideBySide, pairs, rows, whole, whole_row
from jaxchain.page.compared import page
from jaxchain.page.contrast import alignment, headline
from jaxchain.page.headline import directions
from jaxchain.page.writing import check_target, to_html, write
from jaxchain.show.progress import telling

__all__ = ["compare"]


def compare(
    a: tuple[Callable[..., Any], tuple[Any, ...]],
    b: tuple[Callable[..., Any], tuple[Any, ...]],
    path: str | os.PathLike[str] = "compare.html",
    *,
    names: tuple[str, str] = ("a", "b"),
    title: str | None = None,
    argnum: int | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    force: bool = False,
    progress: bool = False,
) -> SideBySide:
    """Put two chains beside each other, in numbers and on one self-contained HTML page.

    Two points of one function, two parameters of one model (before and after training), or two models. Both follow
    the same directions. Their stages are aligned in order: by name and shapes, else by shapes alone.

    Parameters
    ----------
    a, b
        Each a chain or any JAX function, with the tuple of its arguments: ``(net, (params, x))``.
    path
        The file to write. One that jaxchain wrote earlier is replaced.
    names
        What the sides are called.
    title
        Of the page; default: from ``names``.
    argnum
        Which argument is the chain input, where a side is not a chain; default: the last.
    tangent, cotangent
        The directions that both follow, like the chain inputs and outputs; default: random directions of length one,
        and 1 for a single number.
    force
        Replace a file that is not ours, too.
    progress
        Show on standard error what is under way.

    Returns
    -------
    SideBySide
        One row a pair of stages; its ``path`` is the file.

    Raises
    ------
    FileExistsError, FileNotFoundError, IsADirectoryError, PermissionError
        As `jaxchain.report`.
    TypeError, ValueError
        If a side is not a function with its arguments, and as `jaxchain.discover`; a note says of which side.
    TangentMismatchError
        If a direction does not look like the state that it belongs to; a note says of which side.

    Notes
    -----
    Where accumulating every local Jacobian would take too long, some of its columns are, and norms and differences
    are those of the columns that were computed on both sides. The page says so wherever it applies.

    Examples
    --------
    >>> net = jc.nets.mlp([3, 4, 2], "tanh")
    >>> before, x = net.init(jax.random.key(0)), jnp.ones(3)
    >>> after = jax.tree.map(lambda w: 2 * w, before)
    >>> found = jc.compare((net, (before, x)), (net, (after, x)), names=("before", "after"))
    >>> [row.name for row in found.rows], found.rows[1].difference  # J of dense_0 is its weight, doubled
    (['input', 'dense_0', 'tanh_0', 'dense_1'], 1.0)
    """
    names = _names(names)
    text("title", title, optional=True)
    target = check_target(path, force=force, progress=progress, kind="comparison")
    given = [_given(label, side, argnum) for label, side in (("a", a), ("b", b))]
    with telling(progress) as say:
        first, second = (
            _side(label, name, side, argnum, tangent, cotangent, say)
            for label, name, side in zip("ab", names, given, strict=True)
        )
        say("Aligning the stages")
        together, entire = pairs(first, second), whole(first, second)
        found = _found(first, second, together, entire, target)
        followed = f"{directions(tangent is None, cotangent is None)} {_shared(first, second)}"
        say("Drawing and writing the page")
        data = page(found, (first, second), together, entire, title or f"{names[0]} and {names[1]}", followed)
        write(target, to_html(data, "compare/page.html"))
    return found


def _names(names: Any) -> tuple[str, str]:
    """The names of the sides, two that differ."""
    pair = tuple(names) if isinstance(names, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(name, str) and name.strip() for name in pair) or pair[0] == pair[1]:
        msg = f'names is what the two sides are called, two different strings such as ("before", "after"), but {shown(names)} was given.'
        raise ValueError(msg)
    return pair


@contextlib.contextmanager
def _about(label: str) -> Generator[None]:
    """Say on an error which side it is about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"jaxchain.compare says this of side {label}.")
        raise


def _given(label: str, side: Any, argnum: int | None) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A side's function and arguments, once they can be looked along."""
    match side:
        case (fun, tuple() as args) if callable(fun):
            pass
        case _:
            msg = f"{label} is a function or chain with the tuple of its arguments, (fun, (x,)) or (net, (params, x)), but {shown(side)} was given."
            raise TypeError(msg)
    with _about(label):
        check_function(fun, "compare", args)
        check_numbers(args, "A comparison")
        looked_along(fun, argnum, args)
    return fun, args


def _side(
    label: str,
    name: str,
    given: tuple[Callable[..., Any], tuple[Any, ...]],
    argnum: int | None,
    tangent: Any,
    cotangent: Any,
    say: Callable[[str], None],
) -> Side:
    fun, args = given
    say(f"Sweeping both ways through {name}")
    with _about(label):
        at = looked_along(fun, argnum, args)
        chain = fun if isinstance(fun, Chain) else discover(fun, *args, argnum=at)
        return Side(name, chain, args, survey(chain, args, tangent, cotangent))


def _found(a: Side, b: Side, together: list[Pair], entire: Pair | None, target: Path) -> SideBySide:
    names, aligned = (a.name, b.name), rows(a, b, together)
    row = None if entire is None else whole_row(a, b, entire)
    return SideBySide(aligned, row, names, headline(aligned, row, names), tuple(alignment(aligned, names)), target)


def _shared(a: Side, b: Side) -> str:
    """Whether both sides follow the same directions."""
    apart = [
        word
        for word, place in (("inputs", 0), ("outputs", -1))
        if _shapes(a.surveyed.states[place]) != _shapes(b.surveyed.states[place])
    ]
    if not apart:
        return "Both sides follow the same."
    return f"The two {' and '.join(apart)} differ in shape, so there each side follows one of its own."


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
