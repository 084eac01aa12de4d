"""`curvature`: what each stage of a chain adds to the Hessian of its result, P_kᵀ (λ_k · f_k″) P_k, as a table.

The sum as it stands in the books, stage by stage as a person names them: prefix Jacobians by one forward sweep of a
basis, cotangents by one reverse sweep, and between them each stage's own second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.arguments import check_numbers, default_argnum, one_after_another
from jaxchain.chain import Chain
from jaxchain.checks import check_function, refuse_huge
from jaxchain.coordinates import Coordinates
from jaxchain.derivative import Linear
from jaxchain.discovery.group import Granularity
from jaxchain.errors import refused_in_words
from jaxchain.meshes import closures_in_words, gathered
from jaxchain.second_order.bend import with_gradient
from jaxchain.second_order.scalar import check_scalar
from jaxchain.show.extremes import Floats
from jaxchain.show.shapes import describe
from jaxchain.show.table import Table, Tabular, shorten
from jaxchain.stage import along
from jaxchain.sweep import start as start_of

__all__ = ["Curvature", "CurvatureRow", "curvature"]

MOST = 1024
"""For more inputs no eigenvalues are computed: they take n³ a stage."""


ROUNDING = 1e-6
"""Eigenvalues below this share of the largest are taken to be zero."""


@dataclass(frozen=True, eq=False)
class CurvatureRow:
    """What one stage adds to the Hessian, a symmetric matrix (n, n) by the chain input.

    Attributes
    ----------
    name
        The stage's.
    in_shape, out_shape
        Its states.
    norm
        ‖·‖_F of what it adds.
    trace
        Of what it adds: its share of the Laplacian.
    eigenvalues
        Of what it adds, the least first; ``None`` above 1024 inputs.

    Examples
    --------
    >>> row = jc.curvature(lambda x: jnp.sum(jnp.exp(x)), jnp.zeros(2)).rows[0]
    >>> row.trace, row.eigenvalues.tolist(), row.sign
    (2.0, [1.0, 1.0], '+')
    """

    name: str
    in_shape: str
    out_shape: str
    norm: float
    trace: float
    eigenvalues: Floats | None = field(repr=False)

    @property
    def positive(self) -> float:
        """The sum of its positive eigenvalues, those left out that are rounding; NaN where none were computed."""
        return self._sum(1)

    @property
    def negative(self) -> float:
        """The sum of its negative eigenvalues, likewise."""
        return self._sum(-1)

    @property
    def sign(self) -> str:
        """``+`` where it bends upwards in every direction or not at all, ``−`` downwards, ``±`` in both ways, ``0``."""
        if not self.norm:
            return "0"
        up, down = self.positive > 0, self.negative < 0
        return "±" if up and down else "+" if up else "−" if down else ""

    def _sum(self, sign: int) -> float:
        if self.eigenvalues is None:
            return math.nan
        least = ROUNDING * float(np.abs(self.eigenvalues).max(initial=0))
        return float(self.eigenvalues[sign * self.eigenvalues > least].sum())


@dataclass(frozen=True, eq=False)
class Curvature(Tabular):
    """What the stages of a chain add to the Hessian of its result: ``print`` it, or `jaxchain.plot.curvature`.

    Attributes
    ----------
    rows
        One a stage, in order of evaluation.
    whole
        The Hessian itself, their sum.
    begins
        Where the chain begins, in words.

    Examples
    --------
    >>> net = jc.Chain([*jc.nets.mlp([3, 4, 1], "tanh"), jc.Stage("loss", lambda y: jnp.sum(y**2))])
    >>> found = jc.curvature(net, net.init(jax.random.key(0)), jnp.ones(3))
    >>> [(row.name, row.sign) for row in found.rows if row.norm]
    [('tanh_0', '...'), ('loss', '+')]
    """

    rows: tuple[CurvatureRow, ...]
    whole: CurvatureRow
    begins: str = ""

    def _brief(self) -> str:
        return f"{len(self.rows)} stages, trace {self.whole.trace:.4g}"

    def _table(self) -> Table:
        header = ("stage", "input", "output", "norm", "trace", "sign", "sum of λ > 0", "sum of λ < 0")
        rows = [
            (
                shorten(r.name, 60),
                r.in_shape,
                r.out_shape,
                f"{r.norm:.3g}",
                f"{r.trace:.3g}",
                r.sign,
                *("" if math.isnan(part) else f"{part:.3g}" for part in (r.positive, r.negative)),
            )
            for r in (*self.rows, self.whole)
        ]
        note = "Together they are the Hessian; its trace is the sum of theirs, its eigenvalues λ are not."
        return Table(f"What each stage adds to the Hessian {self.begins}", header, rows, [note])


def curvature(
    fun: Chain | Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    granularity: Granularity | None = None,
) -> Curvature:
    """What each stage adds to the Hessian of a function of one number: H = Σ_k P_kᵀ (λ_k · f_k″) P_k.

    P_k is the Jacobian of the state before stage k by the chain input, λ_k the derivative of the result by the
    state after it. A stage that is linear adds nothing, whatever comes before and after. Custom derivative rules are
    taken at their word.

    Parameters
    ----------
    fun
        A chain or any JAX function that returns one real number.
    args
        Its arguments, one after another; numbers, not shapes.
    argnum
        Which one to differentiate with respect to; default: of a chain its input, else the first.
    granularity
        As in `jaxchain.discover`.

    Returns
    -------
    Curvature
        ``.rows``, one a stage, and ``.whole``. It looks at values, so it is no part of a traced program.

    Raises
    ------
    ValueError
        If the function returns more than one number, or n² numbers for every stage are huge.
    ModeError
        A `TypeError`, if the chain input or the result is complex (take real and imaginary parts, each as a function
        of its own), or a stage has no second derivative (names it).
    TypeError
        If an argument has only shapes, the chain input is not floating point, or a tuple of arguments is given for
        them.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, sec. 5.4 and 10.4.

    Examples
    --------
    >>> found = jc.curvature(lambda x: jnp.log(jnp.sum(jnp.exp(x))), jnp.zeros(2))
    >>> [(row.name.split("@")[0], round(row.trace, 3), row.sign) for row in found.rows]
    [('exp', 1.0, '+'), ('reduce_sum', 0.0, '0'), ('log', -0.5, '−')]
    """
    check_function(fun, "curvature")
    check_numbers(args, "curvature")
    args = gathered(args)
    with one_after_another(fun, args, "curvature"):
        chain, state, sides = start_of(fun, args, default_argnum(fun) if argnum is None else argnum, granularity)
        out = jax.eval_shape(chain, *args)
    check_scalar(state, out, "curvature")
    space = Coordinates.of(state)
    refuse_huge((len(chain), space.size, space.size), space.dtype)
    with closures_in_words(), refused_in_words("forward-over-reverse", "this chain", "jc.laplacian takes what exists."):
        terms = _compiled(chain, state, sides)
    shapes = _shapes(chain, state, sides)
    rows = [_row(name, *shape, term) for name, shape, term in zip(chain.names, shapes, terms, strict=True)]
    whole = _row("together", "", "", jnp.sum(jnp.stack(terms), axis=0))
    return Curvature(tuple(rows), whole, along(chain.names_with_input[0], chain.argnum % len(args)))


def _terms(chain: Chain, state: Any, sides: Any) -> list[jax.Array]:
    """P_kᵀ (λ_k · f_k″) P_k of every stage, (n, n) each."""
    states = [state]
    for stage, side in zip(chain, sides, strict=True):
        with refused_in_words("reverse", f"stage {stage.name!r}", ""):
            states.append(Linear(partial(stage, *side), states[-1], stage.carries).value("reverse"))
    cotangents = [jnp.ones((1,), Coordinates.of(states[-1]).dtype)]
    links = list(zip(chain, sides, states, strict=False))
    for stage, side, before in reversed(links):
        with refused_in_words("reverse", f"stage {stage.name!r}", ""):
            cotangents.append(Linear(partial(stage, *side), before, stage.carries).pull(cotangents[-1]))
    prefix, terms = Coordinates.of(state).identity(), list[jax.Array]()
    for (stage, side, before), cotangent in zip(links, cotangents[-2::-1], strict=True):
        with refused_in_words("forward-over-reverse", f"stage {stage.name!r}", ""):
            both = with_gradient(partial(stage, *side), before, cotangent, stage.carries)
            pushed = Linear(both, before, stage.carries).columns(prefix)
        rows = Coordinates.of(before).size
        moved, met = pushed[: len(pushed) - rows], pushed[len(pushed) - rows :]
        terms.append(prefix.T @ met)
        prefix = moved
    return terms


_compiled = jax.jit(_terms)
"""Once for a chain, which is a static part of what it is called with."""


def _shapes(chain: Chain, state: Any, sides: Any) -> list[tuple[str, str]]:
    """The states before and after every stage, in short."""
    found: list[tuple[str, str]] = []
    for stage, side in zip(chain, sides, strict=True):
        after = jax.eval_shape(stage, *side, state)
        found.append((describe(state, short=True), describe(after, short=True)))
        state = after
    return found


def _row(name: str, before: str, after: str, term: jax.Array) -> CurvatureRow:
    values = np.asarray(term, np.float64)
    small = len(values) <= MOST and bool(np.isfinite(values).all())
    eigenvalues: Floats | None = (
        np.linalg.eigvalsh((values + values.T) / 2).astype(np.float64, copy=False) if small else None
    )
    return CurvatureRow(name, before, after, float(np.linalg.norm(values)), float(np.trace(values)), eigenvalues)
