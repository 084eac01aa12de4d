"""Singular values along a chain: of every stage, of every prefix and suffix, and of the whole.

The product of local Jacobians shrinks, blows up or loses rank on the way, and so does a gradient: this is where. Dense
where matrices are small (`dense`), else from products with vectors alone (`krylov`, `along`). Builds on `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jax.sharding import Mesh, Sharding

from jaxchain.arguments import check_args, check_numbers
from jaxchain.chain import Chain
from jaxchain.checks import integer, shown, word
from jaxchain.diagnosis.kinds import placed_again
from jaxchain.diagnosis.krylov import DEPTH
from jaxchain.diagnosis.measuring import Measured
from jaxchain.diagnosis.points import points_of
from jaxchain.diagnosis.spectra import Spectrum, averaged
from jaxchain.diagnosis.walk import stages_at
from jaxchain.discovery.group import Granularity
from jaxchain.meshes import sharding_of, untyped
from jaxchain.program.interpret import numbers_of
from jaxchain.show.table import si
from jaxchain.stage import along
from jaxchain.sweep import chain_of

__all__ = ["spectrum"]

PARTS = ("stages", "prefixes", "suffixes", "whole")

Part = Literal["stages", "prefixes", "suffixes", "whole"]

COUNT = 10
"""The singular values of a Jacobian too large for a matrix, where no number is asked for."""

MOST_STEPS = 10_000
"""Of a Jacobian whose singular values are so many, a matrix is made."""

WORK = 1e12
"""Floating-point operations of prefixes and suffixes above which they are computed only if asked for."""


def spectrum(
    chain: Chain | Callable[..., Any],
    args: tuple[Any, ...],
    k: int | None = None,
    *,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    of: Part | Sequence[Part] | None = None,
    in_axes: int | Sequence[int | None] | None = None,
    krylov_steps: int | None = None,
    sharding: Mesh | Sharding | None = None,
) -> Spectrum:
    """Singular values of each local Jacobian, of every prefix ∂x_k/∂x_0 and suffix ∂x_q/∂x_k, and of the whole.

    A Jacobian of up to a million entries, or with a short side, is made and decomposed. Of a larger one the k largest
    values come from Golub–Kahan–Lanczos with full reorthogonalisation, ‖J‖_F² and the log-volume from random probes
    with standard errors: for k = 10 altogether 59 JVPs and 50 VJPs, in memory for twice as many vectors as steps.

    Parameters
    ----------
    chain, args, argnum, granularity
        As for `forward_sweep`. Complex states count as their real and imaginary parts.
    k
        The k largest singular values of each; default: all that are computed, ten where no matrix is.
    of
        Which Jacobians: ``"stages"``, ``"prefixes"``, ``"suffixes"``, ``"whole"``, or several of these. Default: all;
        but prefixes and suffixes too large for matrices are left out where they would take minutes, and a note says so.
    in_axes
        Where ``args`` hold a batch of points, as for `jax.vmap` of ``chain``: an axis for each argument, or ``None``.
        Singular values are averaged by rank. Default: one point.
    krylov_steps
        Where no matrix is made, steps of Lanczos, each a JVP and a VJP; default: 3 k + 4. Values that lie close
        together need more.
    sharding
        Devices that share the work, as in `jaxchain.jacobian`: of a Jacobian that is made, the vectors of its basis;
        where none is, entries of vectors and of the Krylov space. Matrices are then gathered, since they are
        decomposed on the host, by every process.

    Returns
    -------
    Spectrum
        Numbers of the host, from computations whose sizes depend on them: not for use under ``jit``.

    Raises
    ------
    ValueError
        If ``k`` is above the rank that the shape of a Jacobian allows; if a state or a Jacobian is not finite, which
        names the stage; if axes of a batch differ.
    TypeError
        If the chain input is not floating point, or arguments are shapes, or traced.

    Notes
    -----
    Matrix-free values are lower bounds, and each has a singular value of J within ``sigma_error``. From a start vector
    that is random they are the largest except with negligible probability; of a value that J has many times some are
    found. Stochastic Lanczos quadrature sees little of the smallest singular values, so of an ill-conditioned Jacobian
    the log-volume is too large by up to about its error; the error says so, and is the larger for it. Where all states
    are of one size and small, log-volumes of prefixes, suffixes and the whole are the sums of the stages': the
    determinant of a product needs no small singular value of it. Singular values below σ₁·max(m, n)·ε are rounding.

    References
    ----------
    Golub and Van Loan, Matrix Computations, 4th ed., sec. 10.4; Saxe et al., arXiv 1312.6120, and Pennington,
    Schoenholz and Ganguli, arXiv 1711.04735 (what spectra say of training); Ubaru, Chen and Saad, Fast estimation of
    tr f(A) via stochastic Lanczos quadrature, 2017; Meyer et al., Hutch++, 2021.

    Examples
    --------
    >>> net = jc.nets.mlp([8, 8, 8], "identity", "orthogonal")
    >>> found = jc.spectrum(net, (net.init(jax.random.key(0)), jnp.ones(8)))
    >>> bool(jnp.allclose(found.whole, 1, atol=1e-5)), [float(v.max().round(3)) for v in found.prefixes.values()]
    (True, [1.0, 1.0, 1.0])
    """
    check_args(args)
    check_numbers(args, "A spectrum")
    count = integer("k", k, "how many singular values are told", least=1, optional=True)
    asked = _parts(of)
    taken = integer(
        "krylov_steps",
        krylov_steps,
        "how many steps of Lanczos are made",
        least=max(count or 1, DEPTH),
        most=MOST_STEPS,
        optional=True,
    )
    taken = 3 * (count or COUNT) + 4 if taken is None else taken
    points = points_of(args if sharding is None else untyped(args), in_axes)
    chain = chain_of(chain, points[0], argnum, granularity)
    names, stages = chain.names_with_input, stages_at(chain, points[0], sharding_of(sharding))
    at = Measured(stages, names, count, COUNT if count is None else count, taken)
    notes, runs = list[str](), _runs(asked, len(chain))
    if of is None and (work := at.work(_runs(["prefixes", "suffixes"], len(chain)))) > WORK:
        runs = _runs(["stages", "whole"], len(chain))
        notes.append(
            f'Prefixes and suffixes were left out, {si(work, "FLOP")}: of=["prefixes", "suffixes"] has them computed.'
        )
    at.check_count(runs)
    each = [at.rows(runs)]
    for point in points[1:]:
        state, sides = numbers_of(chain.split, *point)
        at = at.moved(placed_again(stages, sides, state))
        each.append(at.rows(runs))
    words = f"Singular values {along(names[0], chain.argnum % len(args))}"
    title = words if len(points) == 1 else f"{words}: means over {len(points)} points"
    rows = tuple(averaged(list(same)) for same in zip(*each, strict=True))
    return Spectrum(title, names, rows, len(points), (*notes, *at.notes))


def _runs(parts: Sequence[str], count: int) -> list[tuple[int, int]]:
    """The runs of stages, first and behind the last, that Jacobians are of: each one stage longer than one before it."""
    runs = {
        "stages": [(k, k + 1) for k in range(count)],
        "prefixes": [(0, k) for k in range(1, count + 1)],
        "suffixes": [(k, count) for k in range(count - 1, -1, -1)],
        "whole": [(0, count)],
    }
    return list(dict.fromkeys(run for part in PARTS if part in parts for run in runs[part]))


def _parts(of: Any) -> list[str]:
    if of is None:
        return list(PARTS)
    given = [of] if isinstance(of, str) else of
    if not isinstance(given, (list, tuple, set, frozenset)) or not given:
        msg = f"of is one of {', '.join(PARTS)}, or a list of such, but {shown(of)} was given."
        raise TypeError(msg)
    return [word("part", part, PARTS) for part in given]
