"""Two programs have one fingerprint exactly where they compute the same whatever they are given; and what is kept by it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxchain.program.fingerprint import Kept, fingerprint, repeated
from jaxchain.program.flatten import flatten

X = jnp.arange(4.0)


def of_closed(closed: Any) -> Any:
    jaxpr = closed.jaxpr
    return fingerprint(jaxpr.eqns, jaxpr.invars, jaxpr.outvars, dict(zip(jaxpr.constvars, closed.consts, strict=True)))


def of_flat(closed: Any) -> Any:
    program = flatten(closed)
    return fingerprint(program.eqns, program.invars, program.outs, program.constants)


@pytest.fixture(params=[of_closed, of_flat], ids=["as traced", "flat"])
def of(request):
    """The fingerprint of a function at its arguments, of the program as JAX traced it and of the flat one."""
    return lambda fn, *args: request.param(jax.make_jaxpr(fn)(*args))


def closing_over(values: Any) -> Callable[[Any], Any]:
    array = jnp.asarray(values, jnp.float32)
    return lambda x: x * array


def indexing(*places: int) -> Callable[[Any], Any]:
    """Its index array is a constant of a program inside the program."""
    at = np.array(places)
    return lambda x: lax.cond(x[0] > 0, lambda x: x[at], lambda x: x[:2], x)


def power(n: int) -> Callable[[Any], Any]:
    return lambda x: lax.integer_pow(x, n)


def looping(length: int, step: float) -> Callable[[Any], Any]:
    return lambda x: lax.scan(lambda c, _: (c * step, None), x, None, length=length)[0]


def drawing(seed: int) -> Callable[[Any], Any]:
    key = jax.random.key(seed)
    return lambda x: x * jax.random.normal(key)


def with_a_rule(slope: float) -> Callable[[Any], Any]:
    @jax.custom_jvp
    def fn(x):
        return jnp.sin(x)

    fn.defjvp(lambda primals, tangents: (fn(primals[0]), slope * tangents[0]))
    return fn


PROGRAMS = {
    "elementwise": lambda x: jnp.sin(x) * 2 + 1,
    "jit": lambda x: jax.nn.softmax(x),
    "closes over an array": closing_over([1, 2, 3, 4]),
    "closes over an index in a branch": indexing(1, 2),
    "loop": looping(3, 0.5),
    "product": lambda x: jnp.outer(x, x) @ x,
    "random": lambda x: x * jax.random.normal(jax.random.key(3), (4,)),
    "rows of a table": lambda x: x[jnp.array([0, 2])],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_function_traced_twice_has_one_fingerprint(of, name):
    fn = PROGRAMS[name]
    first, second = of(lambda x: fn(x), X), of(lambda x: fn(x), X + 1)
    assert first == second
    assert hash(first) == hash(second)
    assert {first: "kept"}[second] == "kept"


def test_functions_written_in_two_places_have_one_fingerprint(of):
    assert of(closing_over([1, 2, 3, 4]), X) == of(closing_over([1, 2, 3, 4]), X)
    assert of(indexing(1, 2), X) == of(indexing(1, 2), X)
    assert of(looping(3, 0.5), X) == of(looping(3, 0.5), X)


DIFFERENT = {
    "shape": ((jnp.sin, X), (jnp.sin, X[:3])),
    "rank": ((jnp.sin, X), (jnp.sin, X[None])),
    "dtype": ((jnp.sin, X), (jnp.sin, X.astype(jnp.bfloat16))),
    "weak type": ((lambda x: x + 1, jnp.float32(1)), (lambda x: x + 1, 1.0)),
    "primitive": ((jnp.sin, X), (jnp.cos, X)),
    "parameter": ((power(3), X), (power(4), X)),
    "axis": ((lambda x: jnp.sum(x, 0), jnp.ones((3, 3))), (lambda x: jnp.sum(x, 1), jnp.ones((3, 3)))),
    "literal": ((lambda x: x * 2.0, X), (lambda x: x * 3.0, X)),
    "sign of a zero": ((lambda x: x * 0.0, X), (lambda x: x * -0.0, X)),
    "array closed over": ((closing_over([1, 2, 3, 4]), X), (closing_over([1, 2, 3, 5]), X)),
    "index in a branch": ((indexing(1, 2), X), (indexing(1, 3), X)),
    "length of a loop": ((looping(3, 0.5), X), (looping(4, 0.5), X)),
    "number in a loop": ((looping(3, 0.5), X), (looping(3, 0.25), X)),
    "order of operands": ((lambda x: x - jnp.flip(x), X), (lambda x: jnp.flip(x) - x, X)),
    "order of equations": ((lambda x: jnp.sin(jnp.exp(x)), X), (lambda x: jnp.exp(jnp.sin(x)), X)),
    "order of results": ((lambda x: (jnp.sin(x), jnp.cos(x)), X), (lambda x: (jnp.sin(x), jnp.cos(x))[::-1], X)),
    "number of results": ((lambda x: (jnp.sin(x), x), X), (jnp.sin, X)),
    "argument that is read": ((lambda x, y: x * 2, X, X), (lambda x, y: y * 2, X, X)),
    "argument beside it": ((lambda x: x * 2, X), (lambda x, y: x * 2, X, X)),
    "result that is a number": ((lambda x: (x, 1.0), X), (lambda x: (x, 2.0), X)),
    "random key": ((drawing(1), X), (drawing(2), X)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_programs_that_differ_in_one_thing_have_two_fingerprints(of, what):
    one, other = DIFFERENT[what]
    assert of(*one) != of(*other)


def test_the_order_of_independent_equations_counts(of):
    def other_way_round(x):
        cos = jnp.cos(x)
        return jnp.sin(x) + cos

    assert of(lambda x: jnp.sin(x) + jnp.cos(x), X) != of(other_way_round, X)


def test_equal_numbers_of_different_types_are_different_parameters():
    jaxpr = jax.make_jaxpr(power(3))(X).jaxpr
    (eqn,) = jaxpr.eqns

    def of_parameter(value: Any) -> Any:
        return fingerprint([eqn.replace(params={**eqn.params, "y": value})], jaxpr.invars, jaxpr.outvars, {})

    values = [1, 1.0, True, np.float32(1), np.array(1), (1,), [1], (1.0,), (True,), {"a": 1}, {"a": 1.0}, "1", None]
    found = [of_parameter(value) for value in values]
    assert all(one == of_parameter(value) for one, value in zip(found, values, strict=True))
    assert len(set(found)) == len(values)


def test_a_parameter_that_cannot_be_hashed_is_equal_to_itself_alone():
    class Unhashable:
        __hash__ = None

    jaxpr = jax.make_jaxpr(power(3))(X).jaxpr
    (eqn,) = jaxpr.eqns

    def of_parameter(value: Any) -> Any:
        return fingerprint([eqn.replace(params={**eqn.params, "y": value})], jaxpr.invars, jaxpr.outvars, {})

    one = Unhashable()
    assert of_parameter(one) == of_parameter(one)
    assert of_parameter(one) != of_parameter(Unhashable())
    hash(of_parameter(one))


def test_functions_with_rules_of_their_own_are_told_apart(of):
    assert of(with_a_rule(1.0), X) != of(with_a_rule(2.0), X)


def test_a_traced_value_closed_over_is_equal_to_itself_alone():
    def inside(y, z):
        one, again, other = (of_closed(jax.make_jaxpr(lambda x, v=v: x * v)(X)) for v in (y, y, z))
        assert one == again
        assert one != other
        return y

    jax.jit(inside)(X, X)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import jax, test_fingerprint as t
print(jax.config.jax_use_simplified_jaxpr_constants)
for of in (t.of_closed, t.of_flat):
    def fp(fn): return of(jax.make_jaxpr(fn)(t.X))
    assert fp(t.indexing(1, 2)) == fp(t.indexing(1, 2))
    assert fp(t.indexing(1, 2)) != fp(t.indexing(1, 3))
    assert fp(t.closing_over([1, 2, 3, 4])) == fp(t.closing_over([1, 2, 3, 4]))
    assert fp(t.closing_over([1, 2, 3, 4])) != fp(t.closing_over([1, 2, 3, 5]))
    hash(fp(t.indexing(1, 2)))
"""


@pytest.mark.parametrize("simplified", ["0", "1"])
def test_constants_count_by_their_bytes_wherever_jax_keeps_them(simplified):
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS": simplified},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(simplified == "1")]


# ------------------------------------------------------------------------------------------------------------ what is kept


def test_what_was_found_is_not_looked_for_again():
    looked: list[str] = []
    kept = Kept(3)

    def find(name: str) -> Callable[[], str]:
        return lambda: looked.append(name) or name.upper()

    assert [kept.get(name, find(name)) for name in "abab"] == ["A", "B", "A", "B"]
    assert looked == ["a", "b"]


def test_no_more_is_kept_than_was_said_and_the_oldest_goes_first():
    kept = Kept(3)
    for number in range(10):
        assert kept.get(number, lambda number=number: number) == number
        assert len(kept.found) <= 3
    assert list(kept.found) == [7, 8, 9]


def test_what_could_not_be_found_is_not_kept():
    kept = Kept(3)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: 1) == 1


def test_nothing_that_was_found_is_found_twice_even_if_it_is_none():
    looked: list[int] = []
    kept = Kept(2)
    for _ in range(3):
        assert kept.get("a", lambda: looked.append(1)) is None
    assert looked == [1]


@pytest.mark.parametrize(("one", "other", "same"), [(0.0, -0.0, False), (float("nan"), float("nan"), True)])
def test_numbers_among_the_parameters_are_compared_by_what_they_are(one, other, same):
    def filled(value):
        def fun(x):
            return x.at[jnp.array([1, 9])].get(mode="fill", fill_value=value)

        return of_closed(jax.make_jaxpr(fun)(jnp.arange(4.0)))

    assert (filled(one) == filled(other)) == same


def test_what_is_computed_again_is_found():
    def fun(x, y):
        one, two = jnp.sin(x) * y, jnp.sin(x) * y
        return one + lax.cumsum(two) + lax.cumsum(two, reverse=True), jnp.sin(y)

    eqns = jax.make_jaxpr(fun)(jnp.ones(3), jnp.ones(3)).jaxpr.eqns
    again = [eqn.primitive.name for eqn, is_again in zip(eqns, repeated(eqns), strict=True) if is_again]
    assert again == ["sin", "mul"]
