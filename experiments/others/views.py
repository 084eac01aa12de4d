"""Every view and mode of jaxchain on one program, each against JAX itself.

A view is a function that returns nothing where all is right, a few words where it rightly could not
look, and raises otherwise.
"""

from __future__ import annotations

import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxchain as jc
from jaxchain.errors import first_line, refusal
from others.core import Program

__all__ = ["CHEAP", "VIEWS", "Outcome", "Subject", "look", "views"]

ROUNDINGS = 1000
"""How many roundings of the largest entry two ways of computing a thing may differ by: solvers stop at a tolerance."""

TINY = 1e-6
"""A largest entry so small is zero by cancellation."""

NO_MODE = "no such mode"


@dataclass(frozen=True)
class Outcome:
    """How one view of one program went.

    Attributes
    ----------
    words
        ``"ok"``; ``"no such mode"`` where JAX has none either and jaxchain says so; ``"refused: …"`` where a proof
        names the primitive that it has no rule for; ``"none"`` where there is nothing to look at; else what went wrong.
    seconds
        How long it took, compilation included.
    failed
        Whether something went wrong.
    details
        The traceback, if so.
    """

    words: str
    seconds: float
    failed: bool = False
    details: str = ""


class WrongError(AssertionError):
    """jaxchain and JAX disagree."""


def close(got: Any, want: Any, what: str) -> None:
    """Same structure and shapes; the same numbers to within roundings of the largest."""
    if jax.tree.structure(got) != jax.tree.structure(want):
        msg = f"{what}: structure {jax.tree.structure(got)}, not {jax.tree.structure(want)}"
        raise WrongError(msg)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(want) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    scale = max((float(np.abs(np.nan_to_num(leaf)).max(initial=0)) for leaf in leaves), default=0.0) + TINY
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.shape(one) != jnp.shape(other):
            msg = f"{what}: shape {jnp.shape(one)}, not {jnp.shape(other)}"
            raise WrongError(msg)
        if not jnp.issubdtype(jnp.result_type(other), jnp.inexact):  # no derivative
            continue
        one, other = np.asarray(one), np.asarray(other)
        if (np.isnan(one) != np.isnan(other)).any():
            msg = f"{what}: {np.isnan(one).sum()} NaN, not {np.isnan(other).sum()}"
            raise WrongError(msg)
        gap = np.abs(np.nan_to_num(one) - np.nan_to_num(other)).max(initial=0)
        if gap > ROUNDINGS * float(jnp.finfo(other.dtype).eps) * scale:
            msg = f"{what}: differs by {gap:.2g}, where the largest entry is {scale:.2g}"
            raise WrongError(msg)


def direction(like: Any, seed: int) -> Any:
    """A direction in which to differentiate, as JAX wants it: ``float0`` where there is no derivative."""
    leaves, tree = jax.tree.flatten(like)
    rng = np.random.default_rng(seed)

    def one(leaf: Any) -> Any:
        shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            return np.zeros(shape, jax.dtypes.float0)
        return jnp.asarray(rng.normal(size=shape), dtype)

    return tree.unflatten([one(leaf) for leaf in leaves])


class Subject:
    """A program with what JAX says of it, computed when first asked for."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        self.fun, self.args, self.argnum = program.build()
        self.x = self.args[self.argnum]
        self.value = jax.block_until_ready(jax.jit(self.fun)(*self.args))
        self.tangent, self.cotangent = direction(self.x, seed), direction(self.value, seed + 1)

    def along(self, x: Any) -> Any:
        """The function of the one argument looked along."""
        return self.fun(*self.args[: self.argnum], x, *self.args[self.argnum + 1 :])

    @cached_property
    def has_forward(self) -> bool:
        """Whether JAX has a forward mode here."""
        return exists(lambda: jax.jvp(self.along, (self.x,), (self.tangent,)))

    @cached_property
    def has_reverse(self) -> bool:
        """Whether it has a reverse mode."""
        return exists(lambda: jax.vjp(self.along, self.x)[1](self.cotangent))

    @cached_property
    def has_all(self) -> bool:
        """Whether it has one in all arguments together."""
        return exists(lambda: jax.vjp(self.fun, *self.args)[1](self.cotangent))

    @cached_property
    def references(self) -> dict[str, Any]:
        """The tangent, the cotangents and the Jacobian by JAX, where it has them, in one compiled program."""

        def run(*args: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            if self.has_forward:
                found["tangent"] = jax.jvp(self.along, (self.x,), (self.tangent,))[1]
            if self.has_reverse:
                found["cotangent"] = jax.vjp(self.along, self.x)[1](self.cotangent)[0]
            if self.has_all:
                found["cotangents"] = _inexact(jax.vjp(self.fun, *args)[1](self.cotangent))
            if self.has_forward or self.has_reverse:
                jac = jax.jacrev if self.has_reverse else jax.jacfwd
                found["jacobian"] = jac(self.fun, self.argnum)(*args)
            return found

        return jax.jit(run)(*self.args)

    @cached_property
    def matrix(self) -> np.ndarray:
        """The Jacobian between flattened output and input."""
        inputs = len(jax.tree.leaves(self.x))
        blocks = jax.tree.leaves(self.references["jacobian"])
        ins = [jnp.size(leaf) for leaf in jax.tree.leaves(self.x)] * (len(blocks) // inputs)
        flat = [np.asarray(block).reshape(-1, size) for block, size in zip(blocks, ins, strict=True)]
        return np.concatenate([np.concatenate(flat[k : k + inputs], 1) for k in range(0, len(flat), inputs)])

    @cached_property
    def chain(self) -> jc.Chain:
        """As it is discovered."""
        return jc.discover(self.fun, *self.args, argnum=self.argnum)


def exists(compute: Callable[[], Any]) -> bool:
    """Whether JAX can make a program of it: lowered, since some of its refusals come that late; by any error."""
    try:
        jax.jit(compute).lower()
    except Exception:
        return False
    return True


def _inexact(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


def expected(there: bool, compute: Callable[[], Any]) -> Any:
    """What ``compute`` returns; where JAX has no such mode, it must be refused in a sentence instead."""
    if there:
        return compute()
    try:
        return compute()
    except jc.ModeError:
        raise NoModeError from None
    except (TypeError, ValueError, NotImplementedError) as error:
        refusal(error)  # raises it again, unless it is a known saying
        raise NoModeError from None


class NoModeError(Exception):
    """JAX has no such mode, and jaxchain says so."""


# --------------------------------------------------------------------------------------------------------- the views


def discover(s: Subject) -> str | None:
    """The chain is the function."""
    if not len(s.chain) or not str(s.chain):
        msg = "no stages"
        raise WrongError(msg)
    close(jax.jit(s.chain.__call__)(*s.args), s.value, "value")
    return None


def forward_sweep(s: Subject) -> str | None:
    """`jax.jvp`, by stages."""

    def sweep() -> Any:
        return jax.jit(lambda t, *args: (f := jc.forward_sweep(s.chain, args, t)).primals[-1:] + f.tangents[-1:])(
            s.tangent, *s.args
        )

    value, tangent = expected(s.has_forward, sweep)
    close(value, s.value, "value")
    close(tangent, s.references["tangent"] if s.has_forward else jvp_by_rows(s), "tangent")
    return None


def jvp_by_rows(s: Subject) -> Any:
    """The tangent from reverse mode's Jacobian, where JAX has no forward mode and jaxchain finds one all the same."""
    flat, _ = ravel_pytree(s.tangent)
    return ravel_pytree(s.value)[1](jnp.asarray(s.matrix @ np.asarray(flat)))


def vjp_by_columns(s: Subject) -> Any:
    """The cotangent from forward mode's Jacobian, likewise."""
    flat, _ = ravel_pytree(s.cotangent)
    return ravel_pytree(s.x)[1](jnp.asarray(np.asarray(flat) @ s.matrix))


def reverse_sweep(s: Subject) -> str | None:
    """`jax.vjp` in all arguments, by stages."""

    def sweep() -> Any:
        def run(*args: Any) -> Any:
            back = jc.reverse_sweep(s.chain, args, s.cotangent)
            return back.primals[-1], back.cotangents[0], _inexact(back.arg_cotangents)

        return jax.jit(run)(*s.args)

    value, cotangent, cotangents = expected(s.has_reverse, sweep)
    close(value, s.value, "value")
    close(cotangent, s.references["cotangent"] if s.has_reverse else vjp_by_columns(s), "cotangent of the input")
    if s.has_all:
        close(cotangents, s.references["cotangents"], "cotangents of the arguments")
    return None


def local(s: Subject) -> str | None:
    """The product of local Jacobians is the Jacobian."""

    def product() -> Any:
        def run(*args: Any) -> Any:
            whole = None
            for one in jc.local_jacobians(s.chain, args):
                whole = one.matrix if whole is None else one.matrix @ whole
            return whole

        return jax.jit(run)(*s.args)

    close(expected(s.has_forward and s.has_reverse, product), s.matrix, "product")
    return None


def in_mode(mode: Literal["auto", "mixed", "forward", "reverse"]) -> Callable[[Subject], str | None]:
    """`jaxchain.jacobian` in one mode; ``auto`` finds one wherever JAX has any."""

    def view(s: Subject) -> str | None:
        there = {
            "auto": s.has_forward or s.has_reverse,
            "mixed": s.has_forward and s.has_reverse,  # else a stage may lack the mode that it is planned in
            "forward": s.has_forward,
            "reverse": s.has_reverse,
        }[mode]
        got = expected(there, lambda: jax.jit(jc.jacobian(s.fun, s.argnum, mode=mode))(*s.args))
        close(got, s.references["jacobian"], mode)
        return None

    return view


def parts(s: Subject) -> str | None:
    """Two rows; the diagonal, where the Jacobian is square."""
    m, n = s.matrix.shape
    got = jax.jit(jc.jacobian_rows(s.fun, [0, -1], s.argnum))(*s.args)
    flat = np.concatenate([np.asarray(leaf).reshape(2, -1) for leaf in jax.tree.leaves(got)], 1)
    close(flat, s.matrix[[0, -1]], "rows")
    if m == n:
        got = jax.jit(jc.jacobian_diagonal(s.fun, s.argnum))(*s.args)
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(got)])
        close(flat, np.diagonal(s.matrix), "diagonal")
    return None


def plan(s: Subject) -> str | None:
    """The plan prints, and is possible."""
    made = jc.plan(s.fun, s.args, argnum=s.argnum)
    if not str(made) or not {"forward": s.has_forward, "reverse": s.has_reverse}.get(made.mode, True):
        msg = f"plans {made.mode} mode, which JAX does not have: {made.why}"
        raise WrongError(msg)
    return None


def trace(s: Subject) -> str | None:
    """Primals, tangents and cotangents at the ends are JAX's; whatever mode JAX has is there."""
    tangent = tuple(s.tangent if k == s.argnum else zeros(arg) for k, arg in enumerate(s.args))
    traced = jc.trace(s.fun, *s.args, argnum=s.argnum, tangent=tangent, cotangent=s.cotangent)
    if not str(traced):
        msg = "prints nothing"
        raise WrongError(msg)
    outs, start = len(jax.tree.leaves(s.value)), len(jax.tree.leaves(s.args[: s.argnum]))
    last, first = traced.rows[-outs:], traced.rows[start : start + len(jax.tree.leaves(s.x))]
    close([row.primal for row in last], jax.tree.leaves(s.value), "primal of the output")
    if s.has_forward:
        close([row.tangent for row in last], jax.tree.leaves(s.references["tangent"]), "tangent of the output")
    if s.has_reverse:
        close([row.cotangent for row in first], jax.tree.leaves(s.references["cotangent"]), "cotangent of the input")
    return None


def zeros(like: Any) -> Any:
    """The zero direction."""
    return jax.tree.map(lambda leaf: leaf * 0 if leaf.dtype != jax.dtypes.float0 else leaf, direction(like, 0))


def transforms(s: Subject) -> str | None:
    """Every row is there whose mode JAX has."""
    table = jc.transforms(s.fun, *s.args, argnum=s.argnum)
    for name, there in (("fun", True), ("jvp", s.has_forward), ("vjp", s.has_all), ("jit", True)):
        if there and table[name].note:
            msg = f"no {name}: {table[name].note}"
            raise WrongError(msg)
    if not str(table):
        msg = "prints nothing"
        raise WrongError(msg)
    return None


def page(s: Subject) -> str | None:
    """The page is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = jc.report(s.fun, *s.args, argnum=s.argnum, path=Path(folder) / "page.html")
        if path.stat().st_size < 10_000:
            msg = "an empty page"
            raise WrongError(msg)
    return None


def batch(s: Subject) -> str | None:
    """A function under ``vmap`` never mixes its samples: the proof holds, or names the primitive that it cannot."""
    axes = tuple(0 if k == s.argnum else None for k in range(len(s.args)))
    many = jax.vmap(s.fun, axes)
    scale = jnp.array([1.0, 0.9])
    xs = jax.tree.map(lambda x: jnp.stack([(x * k).astype(x.dtype) for k in scale]), s.x)
    args = (*s.args[: s.argnum], xs, *s.args[s.argnum + 1 :])
    jac = jax.vmap((jax.jacrev if s.has_reverse else jax.jacfwd)(s.fun, s.argnum), axes)
    if not exists(lambda: (many(*args), jac(*args))):
        return "none: no vmap"
    want = jax.jit(jac)(*args)
    refused = None
    try:
        got = jax.jit(jc.batch_jacobian(many, s.argnum))(*args)
    except jc.SamplesMixError as error:
        named = re.search(r"cannot be proven .*: (\w+) ", str(error))
        if not named:
            raise
        refused = f"refused: {named[1]}"
        got = jax.jit(jc.batch_jacobian(many, s.argnum, check=False))(*args)
    close(got, want, "blocks")
    return refused


VIEWS: dict[str, Callable[[Subject], str | None]] = {
    "discover": discover,
    "forward": forward_sweep,
    "reverse": reverse_sweep,
    "local": local,
    "auto": in_mode("auto"),
    "mixed": in_mode("mixed"),
    "jacfwd": in_mode("forward"),
    "jacrev": in_mode("reverse"),
    "parts": parts,
    "plan": plan,
    "trace": trace,
    "transforms": transforms,
    "page": page,
    "batch": batch,
}
"""What is shown of a program: discovery, sweeps, local Jacobians, the modes of `jacobian`, its parts, and the rest."""

CHEAP = ("discover", "forward", "reverse", "auto", "plan")
"""Those that a test runs on every program."""


def look(subject: Subject, view: str) -> Outcome:
    """One view of one program."""
    start = time.perf_counter()
    try:
        words, failed, details = VIEWS[view](subject) or "ok", False, ""
    except NoModeError:
        words, failed, details = NO_MODE, False, ""
    except Exception as error:  # whatever goes wrong is what is looked for
        words, failed = f"{type(error).__name__}: {first_line(error)}", True
        details = "".join(traceback.format_exception(error))
    return Outcome(words, time.perf_counter() - start, failed, details)


def views(program: Program, names: Iterable[str] = VIEWS, seed: int = 0) -> Iterator[tuple[str, Outcome]]:
    """View after view of a program; a program that cannot be built or run fails once, as ``"build"``."""
    start = time.perf_counter()
    try:
        subject = Subject(program, seed)
    except Exception as error:
        details = "".join(traceback.format_exception(error))
        yield (
            "build",
            Outcome(f"{type(error).__name__}: {first_line(error)}", time.perf_counter() - start, True, details),
        )
        return
    for name in names:
        yield name, look(subject, name)
