"""Values in a line: numbers in full, arrays by what can be checked at a glance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from jaxchain.show.values import facts, norm, scalar, sparkline, summary

ANY = arrays.arrays(np.float64, arrays.array_shapes(max_dims=3, min_side=0, max_side=30))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (-0.0, "-0"),
        (jnp.float32(np.sin(5)), "-0.9589243"),
        (np.float64(1e-300), "1e-300"),
        (jnp.bfloat16(1.5), "1.5"),
        (jnp.inf, "inf"),
        (-jnp.inf, "-inf"),
        (jnp.nan, "nan"),
        (1 - 2j, "1-2j"),
        (jnp.complex64(complex(-0.0, 0.0)), "-0+0j"),
        (3, "3"),
        (np.int64(2**53 + 1), "9007199254740993"),
        (True, "True"),
    ],
)
def test_a_number_is_told_in_full(value, text):
    assert scalar(value) == summary(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jnp.array([3.0, -4.0]), "f32[2] ‖5‖ █▁"),
        (jnp.array([0.0, 1.0, 2.0, 7.0]), "f32[4] ‖7.348‖ ▁▂▃█"),
        (jnp.zeros((2, 3)), "f32[2,3] ‖0‖ ▁▁▁▁▁▁"),
        (jnp.zeros((0, 3)), "f32[0,3] ‖0‖"),
        (jnp.array([1.0, jnp.nan, -jnp.inf, 0.0]), "f32[4] ‖nan‖ █×∞▁"),
        (jnp.array([1.0, jnp.inf]), "f32[2] ‖inf‖ █∞"),
        (jnp.ones(2, jnp.bfloat16), "bf16[2] ‖1.414‖ ██"),
        (jnp.array([3.0, 4j]), "c64[2] ‖5‖ ▆█"),
        (jnp.array([1, 2], jnp.uint8), "u8[2] ‖2.236‖ ▅█"),
        (jnp.array([True, False]), "bool[2] █▁"),
        (jax.random.split(jax.random.key(0), 3), "key<fry>[3]"),
        (jax.random.key(0), "key<fry>[]"),
        (None, ""),
        (np.zeros(3, jax.dtypes.float0), ""),
        ((jnp.ones(4), None, 2), "f32[4] ‖2‖, –, 2"),
        ((1, 2, 3, 4, 5), "1, 2, 3, … 5 in all"),
    ],
)
def test_every_kind_of_array_has_a_look(value, text):
    assert summary(value) == text


def test_shape_and_picture_can_be_left_out():
    value = jnp.array([3.0, 4.0])
    assert summary(value, shape=False) == "‖5‖ ▆█"
    assert summary(value, shape=False, picture=False) == "‖5‖"


@settings(max_examples=100, deadline=None, database=None)
@given(ANY)
def test_a_picture_is_short_and_has_a_mark_for_every_block(value):
    drawn = sparkline(value)
    assert len(drawn) == -(-value.size // max(-(-value.size // 12), 1))
    assert set(drawn) <= set("▁▂▃▄▅▆▇█×∞")
    assert ("×" in drawn) == bool(np.isnan(value).any())


@pytest.mark.parametrize("position", [0, 57, 99])
def test_no_block_hides_what_is_large(position):
    value = np.zeros(100)
    value[position] = -5
    assert sparkline(value).index("▁") == position // 9
    assert set(sparkline(value)) == {"▁", "█"}


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_a_norm_neither_overflows_nor_underflows(scale):
    assert norm(scale * np.array([3.0, 4.0])) == pytest.approx(5 * scale, rel=1e-15)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (jnp.array([[3.0, jnp.nan, -jnp.inf, 1.0]]), {"norm": np.inf, "min": 1, "max": 3, "mean": 2, "not_finite": 2}),
        (jnp.array([3.0, 4j]), {"norm": 5, "min": 3, "max": 4, "mean": 3.5, "not_finite": 0}),
        (jnp.array([jnp.nan]), {"norm": np.nan, "min": None, "max": None, "mean": None, "not_finite": 1}),
        (jnp.zeros((0, 3)), {"norm": 0, "min": None, "max": None, "mean": None, "not_finite": 0}),
        (jnp.array([True, False]), {"min": 0, "max": 1, "mean": 0.5, "not_finite": 0}),
        (jax.random.split(jax.random.key(0), 3), {}),
    ],
    ids=str,
)
def test_the_facts_of_an_array_are_numpys_over_what_is_finite(value, told):
    found = facts(value)
    assert (found.pop("shape"), found.pop("dtype")) == (list(value.shape), str(value.dtype))
    if "norm" in told and not np.isfinite(told["norm"]):
        assert not np.isfinite(found.pop("norm"))
        del told["norm"]
    assert found == told


@pytest.mark.parametrize("value", [None, 2.5, 3, np.zeros(3, jax.dtypes.float0), jax.random.key(0)], ids=str)
def test_what_is_no_array_or_one_number_has_no_facts(value):
    assert facts(value) is value
    assert facts((value,)) == [value]
