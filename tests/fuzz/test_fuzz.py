"""Whatever JAX says of a random program, jaxchain says: its value, its sweeps, its Jacobians in every mode, its parts.

A hundred programs, a third of them on each version of Python; ``pytest -m long -s`` takes three thousand and prints how many there were. A failure
prints the program, whose number makes it again: ``print(program(17))``.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from programs import Program, program

import jaxchain as jc
from jaxchain.errors import SamplesMixError, refusal
from jaxchain.factored.function import Factored

REFUSED = (TypeError, ValueError, NotImplementedError)
LONG, CHUNK = range(1000, 4000), 100
WAYS = [("auto", None), ("mixed", 2), ("forward", 2), ("mixed", None), ("auto", 2), ("reverse", 2), ("forward", None)]


def matrix(blocks: Any, out: Any, x: Any) -> jax.Array:
    """A Jacobian in JAX's blocks as (m, n), whatever their dtypes."""
    columns = jax.tree.leaves(x)
    parts = iter(jax.tree.leaves(blocks))
    rows = [[next(parts).reshape(leaf.size, column.size) for column in columns] for leaf in jax.tree.leaves(out)]
    return jnp.concatenate([jnp.concatenate(row, 1).astype(float) for row in rows])


def flat(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(tree)])


@dataclass(frozen=True)
class Fuzzed:
    """A program, what JAX says of it, and what jaxchain says of the same."""

    program: Program

    @cached_property
    def out(self) -> Any:
        with jax.ensure_compile_time_eval():
            made = jax.eval_shape(lambda *args: jax.tree.map(jnp.asarray, self.program(*args)), *self.program.args)
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)

    def of_x(self, x: Any) -> Any:
        return self.program(self.program.args[0], x)

    def exists(self, make: Callable[..., Any]) -> bool:
        try:
            jax.eval_shape(make, self.program.args[1])
        except REFUSED:
            return False
        return True

    @cached_property
    def modes(self) -> dict[str, Callable[..., Any]]:
        """JAX's own modes, those that it has."""
        both = {"reverse": jax.jacrev, "forward": jax.jacfwd}
        return {name: mode for name, mode in both.items() if self.exists(mode(self.of_x))}

    def functional(self, jacobian: Callable[..., Any], x: Any) -> jax.Array:
        """The gradient of a function of the Jacobian's entries."""

        def of(x: Any) -> jax.Array:
            entries = flat(jacobian(self.of_x)(x))
            return jnp.sum(jnp.cos(jnp.arange(entries.size)) * entries**2)

        return flat(jax.grad(of)(x))


Compared = dict[str, tuple[Any, Any]]


def jacobians(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """Two of the modes, whole or in chunks; one that JAX lacks is refused in words, or done without."""
    found: Compared = {}
    for k in (f.program.seed // 2, f.program.seed // 2 + 1):
        mode, chunk = WAYS[k % len(WAYS)]
        name = f"Jacobian in {mode} mode, chunk_size={chunk}"
        try:
            got = jc.jacobian(f.of_x, mode=mode, chunk_size=chunk)(x)
        except REFUSED as error:
            error.add_note(name)
            if mode in ("auto", "mixed", *f.modes):
                raise
            refusal(error)  # raises again what is no refusal of JAX's
            continue
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)] * len(jax.tree.leaves(f.out))
        assert mode == "forward" or [leaf.dtype for leaf in jax.tree.leaves(got)] == dtypes, name
        found[name] = matrix(got, f.out, x), whole
    return found


def sweeps(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """The value, one tangent, one cotangent, a basis each."""
    w, fun = f.program.args[0], f.program
    chain = jc.discover(fun, w, x)
    found: Compared = {"value": (flat(chain(w, x)), flat(fun(w, x)))}
    if "forward" in f.modes:
        tangent = draw(x, 1)
        swept, (_, want) = jc.forward_sweep(chain, (w, x), tangent), jax.jvp(f.of_x, (x,), (tangent,))
        found["forward sweep"] = flat(swept.tangents[-1]), flat(want)
        found["prefix Jacobian"] = jc.prefix_jacobians(chain, (w, x), chunk_size=2)[-1], whole
    if "reverse" in f.modes and f.exists(lambda x: jax.vjp(fun, w, x)[1](draw(f.out))):
        cotangent = draw(f.out, 2)
        want = pulled(f, x, cotangent)
        swept = jc.reverse_sweep(chain, (w, x), cotangent)
        found["reverse sweep"] = flat(swept.arg_cotangents), flat(want)
        found["first cotangent"] = flat(swept.cotangents[0]), flat(want[1])
        found["suffix Jacobian"] = jc.suffix_jacobians(chain, (w, x))[0], whole
    return found


def pulled(f: Fuzzed, x: Any, cotangent: Any) -> Any:
    """Cotangents of both arguments."""
    return jax.vjp(lambda w, x: jax.tree.map(jnp.asarray, f.program(w, x)), f.program.args[0], x)[1](cotangent)


def parts(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """Rows, diagonals and norms, each without the rest."""
    m, n = whole.shape
    found: Compared = {"gram diagonal": (flat(jc.gram_diagonal(f.of_x)(x)), (whole**2).sum(0))}
    if m:
        rows = jc.jacobian_rows(f.of_x, [0, -1])(x)
        found["rows"] = matrix(rows, jnp.zeros(2), x), whole[jnp.array([0, -1])]
    if m == n:
        found["diagonal"] = flat(jc.jacobian_diagonal(f.of_x)(x)), jnp.diagonal(whole)
    return found


def gradients(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """What is differentiated once more."""
    jax_mode = next(iter(f.modes.values()))
    if not f.exists(partial(f.functional, jax_mode)):
        return {}
    mode = ("auto", "mixed")[f.program.seed // 10 % 2]
    return {f"gradient of {mode}": (f.functional(partial(jc.jacobian, mode=mode), x), f.functional(jax_mode, x))}


def with_aux(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """The Jacobian of one of two results, and the other."""
    fun = partial(f.program.with_aux, f.program.args[0])
    jac, aux = jc.jacobian(fun, has_aux=True)(x)
    return {"jacobian with aux": (matrix(jac, f.out, x), whole), "aux": (flat(aux), flat(fun(x)[1]))}


def batches(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """Samples side by side never mix; where that cannot be proven, the primitive is named."""
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2 + 0.1]), x)
    mode = next(iter(f.modes.values()))
    try:
        got = jc.batch_jacobian(jax.vmap(f.of_x))(batch)
    except SamplesMixError as error:
        if "cannot be proven" not in str(error) or "check=False" not in str(error):
            raise
        got = jc.batch_jacobian(jax.vmap(f.of_x), check=False)(batch)
    return {"batch Jacobian": (flat(got), flat(jax.vmap(mode(f.of_x))(batch)))}


def weights(f: Fuzzed, x: Any, whole: jax.Array) -> Compared:
    """The first argument's derivative from the factors at its sites, and its norm from them, whatever the program does to it."""

    def total(w: Any, x: Any) -> jax.Array:
        return jnp.sum(jnp.sin(flat(jax.tree.map(jnp.asarray, f.program(w, x)))))

    w = f.program.args[0]
    if not f.exists(lambda x: jax.grad(total)(w, x)):
        return {}
    read, want = Factored.of(total, (w, x)), flat(jax.grad(total)(w, x))
    done = read.evaluate(w, x)
    factors = read.factors(done.values, done.pull(jnp.ones_like(done.out)))
    norm = jnp.sqrt(sum(read.squared_norm(leaf, factors) for leaf in read.leaves))
    return {"factored gradient": (flat(read.gradient(factors)), want), "its norm": (norm, jnp.linalg.norm(want))}


KINDS = (sweeps, parts, gradients, with_aux, batches, weights)


def ends_of_a_trace(f: Fuzzed, x: Any) -> Compared:
    """A trace's rows of the arguments and results, not under ``jit``: it shows numbers."""
    w, fun = f.program.args[0], f.program
    tangent, cotangent = draw(x, 1), draw(f.out, 2)
    rows = jc.trace(fun, w, x, tangent=(jnp.zeros_like(w), tangent), cotangent=cotangent).rows
    given, last = rows[: 1 + len(jax.tree.leaves(x))], rows[len(rows) - len(jax.tree.leaves(f.out)) :]
    found: Compared = {}
    if "forward" in f.modes:
        found["traced tangents"] = flat([r.tangent for r in last]), flat(jax.jvp(f.of_x, (x,), (tangent,))[1])
    if "reverse" in f.modes and given[0].cotangent is not None:
        want = pulled(f, x, cotangent)
        found["traced cotangents"] = flat([r.cotangent for r in given]), flat(want)
    return found


def tolerance(p: Program, x: Any) -> float:
    """Of the largest entry: a thousand-odd roundings; where a program rounds to fewer bits, what those say."""
    single = "f32({})" in p.kinds or any(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(x))
    return 0.3 if "low" in p.kinds else 3e-3 if single else 1e-8


def agree(seed: int, count: Counter[str]) -> None:
    """Ask one question of a program; ``count`` what was compared."""
    p = program(seed)
    f, x = Fuzzed(p), p.args[1]
    if not f.modes:
        count["programs that JAX cannot differentiate"] += 1
        return
    kind = jacobians if seed % 2 else KINDS[seed // 2 % len(KINDS)]

    def compared(x: Any) -> list[Compared]:
        return [kind(f, x, matrix(next(iter(f.modes.values()))(f.of_x)(x), f.out, x))]

    try:
        kinds = jax.jit(compared)(x)
        if seed % 10 == 3:
            kinds.append(ends_of_a_trace(f, x))
        for name, (got, want) in (item for found in kinds for item in found.items()):
            if not np.isfinite(want).all():
                count["comparisons left out, for JAX says NaN"] += 1
                continue
            count["comparisons"] += 1
            tol = tolerance(p, x)
            # A saturated tanh leaves of its slope 1 - t² nothing but rounding: what is that small says nothing.
            scale = np.abs(want).max(initial=0.0) + (1e-2 if tol > 1e-6 else 1e-5)
            np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=tol, err_msg=name)
        count["programs"] += 1
    except Exception as error:
        error.add_note(str(p))
        raise


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """A program whose result does not depend on its input is one, too."""
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.filterwarnings("ignore", "The result ", UserWarning)
        yield


EACH = 34
"""Programs on each of three versions of Python, other ones on each: a hundred where all of them run, as in ``.ci/run``."""
FIRST = EACH * (sys.version_info.minor - 11)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + EACH))
def test_a_random_program_is_differentiated_as_jax_does(seed: int) -> None:
    agree(seed, Counter())


@pytest.mark.long
@pytest.mark.parametrize("first", LONG[::CHUNK])
def test_three_thousand_random_programs_are_differentiated_as_jax_does(first: int) -> None:
    count, wrong = Counter[str](), list[str]()
    for seed in range(first, first + CHUNK):
        try:
            agree(seed, count)
        except Exception as error:  # all of them are wanted
            wrong.append("\n".join([repr(error), *error.__notes__]))
        jax.clear_caches()
    print(f"\nprograms {first} to {first + CHUNK - 1}: {dict(count)}, {len(wrong)} wrong")  # noqa: T201  # the long run's outcome
    assert not wrong, "\n\n".join(wrong)
