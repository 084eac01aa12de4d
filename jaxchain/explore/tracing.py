"""`trace`: the evaluation trace of the textbooks, of any JAX function.

One row an equation in the order of evaluation: what it computes, its tangent as forward mode
carries it along, and its cotangent, a column to be read from the bottom as reverse mode fills it.

References: Baydin, Pearlmutter, Radul and Siskind, Automatic differentiation in machine learning: a
survey, JMLR 2018, tables 2 and 3; Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 2 and 3.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.arguments import check_numbers, looked_along
from jaxchain.chain import Chain
from jaxchain.checks import check_function
from jaxchain.collector import uncollected
from jaxchain.coordinates import Coordinates, check_like, is_float0, is_inexact, random_direction
from jaxchain.discovery.find import UNROLL_LIMIT, unrolling
from jaxchain.discovery.start import all_integers, first_state
from jaxchain.errors import unknown
from jaxchain.explore.evaluate import constant_direction, evaluate
from jaxchain.explore.nest import Names, TraceRow, rows_of
from jaxchain.explore.terminal import trace_text
from jaxchain.program.flat import Program
from jaxchain.program.flatten import flatten, unrolled
from jaxchain.program.primitives import like
from jaxchain.program.reading import trace_program
from jaxchain.show.html import render
from jaxchain.show.shapes import describe
from jaxchain.show.table import Tabular
from jaxchain.show.values import count, norm, summary

__all__ = ["Flattened", "Trace", "TraceRow", "drawn", "flattened", "tangents_of", "trace", "trace_of"]

SHOWN = 60
"""How many rows a terminal is given; notebooks get ten times as many."""

NOTHING = "{} is of a function at its arguments, but no array was given among them. Make what the function closes over an argument."

HINTS = ("all are in .rows", ".unfold() shows them all, .unfold(name) those of one name")
"""How to come to the rows that are left out, and to those in folds."""


@dataclass(frozen=True, eq=False)
class Trace(Tabular):
    """What `trace` found: a table in terminals, a tree that opens and closes in notebooks.

    Attributes
    ----------
    tree
        Rows, those of one call or module folded into one.
    opened
        Which of them are shown open; ``None``: all.
    notes
        What is missing, and why.
    title
        What is shown above it: along which argument, where no tangent was given.

    Examples
    --------
    >>> trace = jc.trace(lambda x: jnp.sin(x) * x, 2.0)
    >>> [row.formula for row in trace.rows]
    ['v0 = x', 'v1 = sin(v0)', 'v2 = v1 × v0', 'y = v2']
    >>> f"{trace['v2'].tangent:.4f}"  # cos(2)·2 + sin(2)
    '0.0770'
    """

    tree: tuple[TraceRow, ...]
    opened: frozenset[str] | None = frozenset()
    notes: tuple[str, ...] = ()
    title: str = "Evaluation trace"

    @property
    def rows(self) -> tuple[TraceRow, ...]:
        """One row an equation, nothing folded."""
        return tuple(leaf for row in self.tree for leaf in row.leaves)

    def __getitem__(self, name: str) -> TraceRow:
        """The row of this name.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.
        """
        for row in self.rows:
            if name == row.name or name in row.name.split(", "):
                return row
        raise KeyError(unknown("row", name, [row.name for row in self.rows]))

    def unfold(self, name: str | None = None) -> Trace:
        """The same trace with the calls and modules of this name, or a part of it, shown open; ``None``: all of them.

        Raises
        ------
        KeyError
            If nothing of that name is folded; says what is.

        Examples
        --------
        >>> chain = jc.Chain([jc.Stage("line", lambda x: 2 * x + 1), jc.Stage("sine", jnp.sin)])
        >>> trace = jc.trace(chain, 1.0)
        >>> [row.formula for row, _ in trace.walk()]
        ['v0 = x', 'v2 = line(v0)', 'v3 = sin(v2)', 'y = v3']
        >>> [row.formula for row, _ in trace.unfold("line").walk()]
        ['v0 = x', 'v2 = line(v0)', 'v1 = 2 × v0', 'v2 = v1 + 1', 'v3 = sin(v2)', 'y = v3']
        """
        if name is None:
            return replace(self, opened=None)
        known = list(dict.fromkeys(row.call for row, _ in self.walk(everything=True) if row.rows))
        named = {call for call in known if name in (call, *call.split("/"))}
        if not named:
            msg = f"Nothing named {name!r} is folded. Folded: {', '.join(known[:8]) or 'nothing'}."
            raise KeyError(msg)
        return replace(self, opened=None if self.opened is None else self.opened | named)

    def walk(self, *, everything: bool = False) -> Iterator[tuple[TraceRow, int]]:
        """Rows in order with their depth, folds before what they hold; closed ones alone unless ``everything``.

        Examples
        --------
        >>> chain = jc.Chain([jc.Stage("line", lambda x: 2 * x + 1), jc.Stage("sine", jnp.sin)])
        >>> [(row.call or row.name, depth) for row, depth in jc.trace(chain, 1.0).walk(everything=True)]
        [('v0', 0), ('line', 0), ('v1', 1), ('v2', 1), ('v3', 0), ('y', 0)]
        """

        def inside(rows: Sequence[TraceRow], depth: int) -> Iterator[tuple[TraceRow, int]]:
            for row in rows:
                yield row, depth
                if row.rows and (everything or self.opened is None or row.call in self.opened):
                    yield from inside(row.rows, depth + 1)

        return inside(self.tree, 0)

    def __str__(self) -> str:
        return self.text(SHOWN)

    def _brief(self) -> str:
        return count(len(self.rows), "row")

    def _records(self) -> Iterable[Mapping[str, Any]]:
        within: list[str] = []
        for row, depth in self.walk(everything=True):
            within[depth:] = [row.call]
            if not row.rows:
                norms = ((f"{kind}_norm", _norm(getattr(row, kind))) for kind in ("primal", "tangent", "cotangent"))
                shape = "" if row.primal is None else describe(row.primal, short=True)
                told = {
                    "name": row.name,
                    "formula": row.formula,
                    "source": row.source,
                    "call": "/".join(within[:depth]),
                }
                yield {**told, "shape": shape, **dict(norms)}

    def text(self, most: int | None = SHOWN, *, hints: tuple[str, str] = HINTS) -> str:
        """What ``print`` shows: the first and last of ``most`` rows, or all of them (``None``).

        Parameters
        ----------
        most
            How many rows are shown.
        hints
            How to come to the rows that are left out, and to those in folds, where it is not Python that is asked.

        Examples
        --------
        >>> print(jc.trace(lambda x: jnp.sin(x) ** 2, 0.0).text(2))
        Evaluation trace along argument 0
        trace       source  primal ↓  tangent ↓  cotangent ↑
        v0 = x                     0          1            0
        … 2 rows …
        y = v2                     0          0            1
        2 rows are left out here; all are in .rows.
        """
        return trace_text(self.title, list(self.walk()), self.notes, most, hints)

    def _repr_html_(self) -> str:
        rows, left_out = _first(self.tree, 10 * SHOWN)
        notes = [*self.notes, f"{left_out} rows are left out here; {HINTS[0]}."] if left_out else self.notes
        return render("trace.html", rows=rows, opened=self.opened, notes=notes, summary=summary)


def _norm(value: Any) -> float | None:
    """Euclidean norm of all numbers in a row's value; ``None`` where there is none."""
    numbers = [leaf for leaf in jax.tree.leaves(value) if jnp.issubdtype(jnp.result_type(leaf), jnp.number)]
    return math.hypot(*map(norm, numbers)) if numbers else None


def _first(tree: Sequence[TraceRow], most: int) -> tuple[list[TraceRow], int]:
    """The rows that begin within the first ``most`` equations, and how many equations are then left out."""
    kept, count = list[TraceRow](), 0
    sizes = [sum(1 for _ in row.leaves) for row in tree]
    for row, size in zip(tree, sizes, strict=True):
        if count >= most:
            break
        kept.append(row)
        count += size
    return kept, sum(sizes) - count


def trace(
    fun: Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    unroll_limit: int = UNROLL_LIMIT,
) -> Trace:
    """The evaluation trace of a function: every equation with its primal, tangent and cotangent.

    One JVP gives all tangents; the cotangents come of one VJP a kind of equation, from the last to the first.

    Parameters
    ----------
    fun
        Any pure JAX function, or a chain.
    args
        Its positional arguments, as arrays.
    argnum
        Of a plain function, which argument is looked along; default: the last.
    tangent
        A tuple like ``args``, as in `jax.jvp`; for a function of one argument, its tangent alone will
        do. Default: in the argument that is looked along a random one of length one, the same at
        every call (1, if the argument is a single number), zeros in the others; where that is integers (tokens),
        such a one in the first floating-point value that everything after depends on them through.
    cotangent
        Like the output; default: ones.
    unroll_limit
        As in `jaxchain.discover`: a loop over that argument becomes a group of rows a step, up to
        so many steps.

    Returns
    -------
    Trace
        ``.rows``; ``print`` it. What a library function, a named module or a loop's step computes is
        folded into one row, see `Trace.unfold`.

    Raises
    ------
    TypeError
        If ``fun`` is not a function that JAX can trace, or an argument is not made of arrays.
    TangentMismatchError
        If ``tangent`` or ``cotangent`` does not look like the arguments or the output; names the leaf.

    Notes
    -----
    It computes with numbers, so it is no part of a traced program. Where forward mode does not exist
    (a custom VJP) tangents are ``None``, where reverse mode does not (a while loop) cotangents are. A
    complex cotangent is JAX's, not conjugated: c pairs with a tangent t as Re Σ c·t.

    References
    ----------
    Baydin et al., Automatic differentiation in machine learning: a survey, JMLR 2018, tables 2 and 3.

    Examples
    --------
    Forward mode down the tangents, reverse mode up the cotangents; ``print(trace)`` shows a table:

    >>> trace = jc.trace(lambda x1, x2: jnp.log(x1) + x1 * x2 - jnp.sin(x2), 2.0, 5.0, tangent=(1.0, 0.0))
    >>> for row in trace.rows:
    ...     print(f"{row.formula:14} {row.primal:7.3f} {row.tangent:7.3f} {row.cotangent:7.3f}")
    v-1 = x1         2.000   1.000   5.500
    v0 = x2          5.000   0.000   1.716
    v1 = log(v-1)    0.693   0.500   1.000
    v2 = v-1 × v0   10.000   5.000   1.000
    v3 = v1 + v2    10.693   5.500   1.000
    v4 = sin(v0)    -0.959   0.000  -1.000
    v5 = v3 - v4    11.652   5.500   1.000
    y = v5          11.652   5.500   1.000
    """
    check_function(fun, "trace", args)
    flat = flattened(fun, args, argnum, "A trace", unroll_limit, inside=tangent is None)
    found = trace_of(
        flat.program, flat.out, args, flat.names, tangents_of(args, flat.at, tangent), cotangent, flat.begin
    )
    if tangent is not None:
        return found
    names, notes = Names(flat.program), (*drawn(found, args, flat.at), *found.notes)
    from_there = "".join(f", from {names[var]} on" for var in flat.begin)
    return replace(found, title=f"Evaluation trace along argument {flat.at}{from_there}", notes=notes)


@dataclass(frozen=True)
class Flattened:
    """A function at its arguments as a flat program.

    Attributes
    ----------
    program, out
        All of it, and its result's shapes.
    at
        Which argument is looked along.
    own
        Which of the arguments' arrays are that argument's.
    names
        What the caller names the arguments' arrays.
    begin
        Where that argument is integers: the tangent of the first floating-point value that they lead to, by variable.
    """

    program: Program
    out: Any
    at: int
    own: slice
    names: list[str]
    begin: Mapping[Any, Any]


def flattened(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    argnum: int | None,
    shower: str,
    unroll_limit: int,
    *,
    inside: bool,
) -> Flattened:
    """Trace a function that is to be shown with its numbers; ``inside``: along integers begin where they become numbers.

    Raises
    ------
    TypeError, ValueError
        As `trace`.
    """
    unroll_limit = unrolling(unroll_limit)
    if not args:
        raise TypeError(NOTHING.format(shower))
    at = looked_along(fun, argnum, args)
    check_numbers(args, shower)
    start = len(jax.tree.leaves(args[:at]))
    if not jax.tree.leaves(args):
        raise TypeError(NOTHING.format(shower))
    own = slice(start, start + len(jax.tree.leaves(args[at])))
    with uncollected():
        closed, out = trace_program(fun, args)
        program = flatten(closed, lambda invars: invars[own], unroll_limit)
        begin: dict[Any, Any] = {}
        if inside and all_integers(args[at]):
            with contextlib.suppress(TypeError):  # where there is no such state, there are no tangents
                state = first_state(program, program.invars[own])
                program, begin = unrolled(program, [state], unroll_limit), {state: random_direction(like(state), 0)}
    return Flattened(program, out, at, own, names_of(fun, args), begin)


def trace_of(
    program: Program,
    out: Any,
    args: tuple[Any, ...],
    names: Sequence[str],
    tangent: tuple[Any, ...],
    cotangent: Any,
    begin: Mapping[Any, Any] | None = None,
) -> Trace:
    """The trace of a flat program at ``args``; ``names`` are those of its arguments' arrays, ``out`` its result's shapes.

    ``begin``: tangents that begin at variables inside.
    """
    leaves, tangents = jax.tree.leaves(args), jax.tree.leaves(tangent)
    if cotangent is None:
        cotangent = constant_direction(out, 1)
    cotangents = jax.tree.leaves(_direction(out, cotangent, "cotangent", "output"))
    values = evaluate(program, list(map(jnp.asarray, leaves)), tangents, cotangents, begin)
    notes = list(values.notes)
    if not begin and not any(map(is_inexact, leaves)):
        notes.append("No argument is a real or complex number, so nothing has a derivative: give 2.0 instead of 2.")
    return Trace(rows_of(program, values, names, _results(out), cotangents), notes=tuple(notes))


def drawn(found: Trace, args: tuple[Any, ...], at: int) -> tuple[str, ...]:
    """What is said of a tangent that nobody gave: nothing of a number's, which is 1, nor where there are none."""
    pushed = any(row.tangent is not None for row in found.rows if row.reads and row.writes)
    many = Coordinates.of(args[at]).size > 1
    return (f"The tangent of argument {at} is random, of length one.",) if pushed and many else ()


def tangents_of(args: tuple[Any, ...], at: int, tangent: Any) -> tuple[Any, ...]:
    """One tangent an argument, from what the caller gave."""
    alone = not isinstance(tangent, tuple) or jax.tree.structure(tangent) == jax.tree.structure(args[0])
    if tangent is None:
        still = constant_direction(args, 0)
        tangent = (*still[:at], random_direction(args[at], 0), *still[at + 1 :])
    elif len(args) == 1 and alone:
        tangent = (tangent,)
    return _direction(args, tangent, "tangent", "arguments")


def _direction(point: Any, given: Any, kind: str, place: str) -> Any:
    """A tangent or cotangent as arrays like ``point``; whatever is given for integers has no meaning."""
    like = constant_direction(point, 0)
    leaves, tree = jax.tree.flatten(like)
    parts, same = jax.tree.flatten(given)
    if tree == same:
        given = tree.unflatten([_part(part, leaf) for part, leaf in zip(parts, leaves, strict=True)])
    return check_like(given, like, kind, place)


def _part(part: Any, like: Any) -> Any:
    if is_float0(like):
        return like
    return jnp.asarray(part, like.dtype) if isinstance(part, int | float | complex) else part


def names_of(fun: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """What the caller names every array among the arguments: ``x``, ``params['w']``."""
    return [name for word, arg in _words(fun, args) for name in _paths(word, arg)]


def _words(fun: Callable[..., Any], args: tuple[Any, ...]) -> Iterable[tuple[str, Any]]:
    """The arguments, each with its parameter's name."""
    if isinstance(fun, Chain) and len(args) <= 2:
        return zip(("params", "x")[-len(args) :], args, strict=True)
    try:
        return inspect.signature(fun).bind(*args).arguments.items()
    except (TypeError, ValueError):  # a built-in has no signature
        return [(f"x{k}" if len(args) > 1 else "x", arg) for k, arg in enumerate(args, start=1)]


def _results(out: Any) -> list[str]:
    """``y``, or ``y1``, ``y2``, … of a tuple; the leaves of a pytree by their paths."""
    if type(out) is tuple:
        return [name for k, part in enumerate(out, start=1) for name in _paths(f"y{k}", part)]
    return _paths("y", out)


def _paths(word: str, tree: Any) -> list[str]:
    return [word + keystr(path) for path, _ in tree_flatten_with_path(tree)[0]]
