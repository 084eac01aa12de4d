"""What JSON gets is what was there: every number comes back, finite or not, whatever held it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxchain as jc
from jaxchain.show.plain import plain


@dataclass(frozen=True)
class Point:
    x: float
    _hidden: object = print


class Pair(NamedTuple):
    left: object
    right: object


def through_json(value):
    return json.loads(json.dumps(plain(value), allow_nan=False))


def as_javascript_reads(value):
    """Lists of numbers, with JavaScript's Number applied to strings."""
    if isinstance(value, list):
        return [as_javascript_reads(item) for item in value]
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value] if isinstance(value, str) else value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_what_json_knows_stays_as_it_is(value):
    assert plain(value) == value


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "int8", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
@pytest.mark.parametrize("module", [np, jnp])
def test_arrays_are_nested_lists_of_their_numbers(dtype, shape, module):
    array = module.arange(math.prod(shape)).reshape(shape).astype(jnp.dtype(dtype))
    np.testing.assert_array_equal(np.asarray(through_json(array)).reshape(shape), np.asarray(array, np.float64))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 1e-45, 0.1])
@pytest.mark.parametrize("hold", [float, np.float64, np.array, lambda x: (x,), lambda x: np.array([[x]])])
def test_numbers_that_are_not_finite_are_strings_that_javascript_reads(number, hold):
    got = np.ravel(as_javascript_reads(through_json(hold(number))))
    np.testing.assert_array_equal(got, [number])
    assert np.signbit(got) == np.signbit(number)


def test_the_strings_are_these():
    assert plain(np.array([np.nan, np.inf, -np.inf])) == ["NaN", "Infinity", "-Infinity"]


def test_complex_numbers_have_two_parts():
    assert plain(1 - 2j) == {"re": 1.0, "im": -2.0}
    assert plain(jnp.array([complex(0, jnp.inf)])) == [{"re": 0.0, "im": "Infinity"}]


def test_what_has_fields_is_an_object_of_the_public_ones():
    assert plain(Point(1.0)) == {"x": 1.0}
    assert plain(Pair(Point(2.0), [Path("a") / "b"])) == {"left": {"x": 2.0}, "right": ["a/b"]}
    assert plain({1: (x for x in "ab"), "s": {3}}) == {"1": ["a", "b"], "s": [3]}


def test_rows_of_chains_plans_and_comparisons_are_json():
    net = jc.nets.mlp([3, 2])
    args = net.init(jax.random.key(0)), jnp.ones(3)
    rows = through_json([stage.row for stage in jc.discover(net, *args)])
    assert [row["name"] for row in rows] == ["dense_0"]
    assert rows[0]["in_shape"] == "f32[3]"
    assert through_json(jc.plan(net, args).steps)[0]["start"] == 0
    assert set(through_json(jc.ModeRow("auto", 1.0, 2, 0.5, 0.5, math.nan))) >= {"mode", "flops", "max_error"}


def test_a_tangent_of_an_integer_is_null():
    assert plain(np.zeros((2,), jax.dtypes.float0)) is None


@pytest.mark.parametrize("shape", [(), (2,)])
def test_random_keys_are_the_words_that_they_are_made_of(shape):
    keys = jax.random.split(jax.random.key(3), shape)
    again = jax.random.wrap_key_data(jnp.array(through_json({"key": keys})["key"], jnp.uint32))
    assert (again == keys).all()


@pytest.mark.parametrize("value", [print, object(), Point, int, [print], {"a": Pair(1, print)}])
def test_what_has_no_form_in_json_is_named(value):
    with pytest.raises(TypeError, match=r"JSON has no form for .*, a (builtin_function_or_method|object|type): give "):
        plain(value)
