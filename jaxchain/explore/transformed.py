"""`transforms`: what each of JAX's transforms makes of one function, side by side.

Every line of every program knows the stage that it came from, so that one can watch a stage turn
into its tangent, that into its transpose, and see that reverse mode is forward mode run backwards.

References: Radul, Paszke, Frostig, Johnson and Maclaurin, You only linearize once: tangents
transpose to gradients, POPL 2023, arXiv 2204.10923.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxchain.arguments import from_start, looked_along
from jaxchain.chain import Chain
from jaxchain.collector import uncollected
from jaxchain.discovery import discover
from jaxchain.discovery.find import find
from jaxchain.discovery.group import Granularity, check_granularity
from jaxchain.errors import unknown
from jaxchain.explore.programs import make_rows
from jaxchain.explore.rows import StageLines, TransformRow
from jaxchain.show.html import render
from jaxchain.show.table import Table, Tabular, si
from jaxchain.stage import along

__all__ = ["StageLines", "TransformRow", "Transforms", "transforms"]

SHOWN = 400
"""How many lines of a program the HTML holds; all are in `TransformRow.lines`."""


@dataclass(frozen=True, eq=False)
class Transforms(Tabular):
    """What `transforms` found: a table for terminals, and all programs side by side in notebooks.

    Attributes
    ----------
    rows
        One a transform, those that do not exist for the function among them.
    chain
        Whose stages the lines are of.
    argument
        Which one is differentiated with respect to and mapped over, counted from 0.

    Examples
    --------
    >>> transforms = jc.transforms(lambda x: jnp.sin(x) * x, 2.0)
    >>> transforms["linearize"].residual_bytes  # sin x and cos x, 4 bytes each
    8
    """

    rows: tuple[TransformRow, ...]
    chain: Chain
    argument: int

    def __getitem__(self, name: str) -> TransformRow:
        """The row of one transform.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(unknown("transform", name, [row.name for row in self.rows]))

    def stage(self, name: str) -> StageLines:
        """What every transform makes of one stage.

        Parameters
        ----------
        name
            Of the stage, or how the only one begins that begins so.

        Raises
        ------
        KeyError
            If there is none; suggests the nearest names.

        Examples
        --------
        >>> chain = jc.Chain([jc.Stage("square", jnp.square), jc.Stage("sine", jnp.sin)])
        >>> dict(jc.transforms(chain, 2.0).stage("sine").programs)["linearize"]  # times what was kept: cos
        ('e:f32[] = mul d b',)
        """
        number = self.chain.position(name)
        programs = [
            (row.name, textwrap.dedent("\n".join(text for text, stage in row.lines if stage == number)))
            for row in self.rows
            if row.lines
        ]
        return StageLines(
            self.chain.names[number], tuple((title, tuple(text.splitlines())) for title, text in programs)
        )

    def _brief(self) -> str:
        return ", ".join(row.name for row in self.rows)

    def _records(self) -> Iterable[Mapping[str, Any]]:
        columns = ("name", "equations", "flops", "residual_bytes", "note")
        return ({column: getattr(row, column) for column in columns} for row in self.rows)

    def _table(self) -> Table:
        rows = [
            (
                row.name,
                str(row.equations) if row.lines else "",
                "" if row.flops is None else si(row.flops, "FLOP"),
                "" if row.residual_bytes is None else si(row.residual_bytes, "B"),
            )
            for row in self.rows
        ]
        notes = [f"{row.name}: {row.note or row.title}" for row in self.rows]
        return Table(
            f"What each transform makes of it {along(self.chain.names_with_input[0], self.argument)}",
            ("transform", "equations", "work", "residuals"),
            rows,
            notes,
        )

    def _repr_html_(self) -> str:
        shown = {stage for row in self.rows for _, stage in row.lines[:SHOWN] if stage is not None}
        stages = [(stage, self.chain.names[stage]) for stage in sorted(shown)]
        facts = [
            [
                f"{row.equations} equation{'s' * (row.equations != 1)}" * bool(row.lines),
                "" if row.flops is None else si(row.flops, "FLOP"),
                "" if row.residual_bytes is None else f"{si(row.residual_bytes, 'B')} of residuals",
            ]
            for row in self.rows
        ]
        programs = [
            (row, " · ".join(filter(None, known)), row.lines[:SHOWN], max(len(row.lines) - SHOWN, 0))
            for row, known in zip(self.rows, facts, strict=True)
        ]
        return render("transforms.html", programs=programs, stages=stages)


def transforms(
    fun: Callable[..., Any], *args: Any, argnum: int | None = None, granularity: Granularity | None = None
) -> Transforms:
    """What jvp, linearize, transpose, vjp, grad, vmap and jit make of a function, side by side.

    The function is traced with abstract values and never run. Calls are looked through, and equations
    whose result nothing reads are left out, so that counts compare like with like; inside loops and
    calls with a derivative rule of their own, JAX's program stays as it is.

    Parameters
    ----------
    fun
        A chain or any JAX function, whose chain is then discovered: its stages are those that lines
        are told apart by.
    args
        Its arguments, as arrays or ``jax.ShapeDtypeStruct``.
    argnum
        Of a plain function, which one to differentiate with respect to, and to vmap over; default: the last.
    granularity
        Of a plain function, how coarse its stages are, as in `jaxchain.discover`.

    Returns
    -------
    Transforms
        ``.rows``, one a transform; ``print`` it, ``print(t["vjp"])``, ``print(t.stage("dense_0"))``.

    Raises
    ------
    TypeError, ValueError
        As `jaxchain.discover`.

    Notes
    -----
    A transform that does not exist for a function (forward mode through a custom VJP, reverse mode
    through a while loop) keeps its row, with an empty program and a note that says why.

    References
    ----------
    Radul, Paszke, Frostig, Johnson and Maclaurin, You only linearize once: tangents transpose to
    gradients, POPL 2023, arXiv 2204.10923.

    Examples
    --------
    >>> table = jc.transforms(lambda x: jnp.sin(x) * x, 2.0)
    >>> [row.name for row in table.rows]
    ['fun', 'jvp', 'linearize', 'transpose', 'vjp', 'grad', 'vmap', 'jit']
    >>> table["fun"].equations, table["vmap"].flops  # sin and mul, of 8 samples
    (2, 16.0)
    """
    at, coarse = looked_along(fun, argnum, args), check_granularity(granularity, fun)
    if not isinstance(fun, Chain):
        return transforms_of(discover(fun, *args, argnum=at, granularity=coarse), args)
    if not fun.lead:
        find(fun, args, at)  # refuses what discover refuses, in the stages' own names
    return transforms_of(fun, args)


def transforms_of(chain: Chain, args: tuple[Any, ...]) -> Transforms:
    """The same of a chain that was found already."""
    at = chain.argnum % len(args)
    of, given, position = from_start(chain, jax.eval_shape(lambda *given: given, *args))
    with uncollected():
        return Transforms(make_rows(of, given, position), chain, at)
