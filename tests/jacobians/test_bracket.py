"""The bracketing problem: published optima, brute force, and what a plan's steps add up to."""

import json
import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxchain as jc

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "jacobian_chaining.json").read_text(encoding="utf-8"))
VARIANTS = [name for name, value in PUBLISHED.items() if isinstance(value, dict)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_optimum_is_met_exactly(variant):
    how = PUBLISHED[variant]
    for instance in how["instances"]:
        found = jc.bracket(
            instance["sizes"], instance["edges"], memory_limit=how["memory_limit"], matrix_free=how["matrix_free"]
        )
        assert found.cost == instance["optimum"]


def test_the_published_costs_of_pure_modes_are_bounds():
    for instance in PUBLISHED["matrix_free"]["instances"]:
        assert jc.bracket(instance["sizes"], instance["edges"]).cost <= min(instance["tangent"], instance["adjoint"])


def brute_force(sizes, edges, limit, matrix_free):
    """The least cost by recursion over every tree of steps, written from the definition."""

    @cache
    def least(i, j):
        if j == i + 1:
            adjoint = [sizes[j] * edges[i]] if limit is None or edges[i] <= limit else []
            return min([sizes[i] * edges[i], *adjoint])
        options = []
        for k in range(i + 1, j):
            options.append(least(i, k) + least(k, j) + sizes[i] * sizes[k] * sizes[j])
            if matrix_free:
                options.append(least(i, k) + sizes[i] * sum(edges[k:j]))
                if limit is None or sum(edges[i:k]) <= limit:
                    options.append(least(k, j) + sizes[j] * sum(edges[i:k]))
        return min(options)

    return least(0, len(edges))


chains = st.integers(1, 7).flatmap(
    lambda q: st.tuples(
        st.lists(st.integers(0, 40), min_size=q + 1, max_size=q + 1),
        st.lists(st.integers(0, 900), min_size=q, max_size=q),
    )
)


@given(chains, st.one_of(st.none(), st.integers(0, 2000)), st.booleans())
def test_the_optimum_is_that_of_brute_force_and_its_steps_add_up_to_it(chain, limit, matrix_free):
    sizes, edges = chain
    found = jc.bracket(sizes, edges, memory_limit=limit, matrix_free=matrix_free)
    assert found.cost == brute_force(tuple(sizes), tuple(edges), limit, matrix_free)
    assert sum(step.cost for step in found.steps) == found.cost
    ready = set()
    for step in found.steps:
        needs = {
            "multiply": {(step.start, step.middle), (step.middle, step.stop)},
            "eliminate tangent": {(step.start, step.middle)},
            "eliminate adjoint": {(step.middle, step.stop)},
        }.get(step.kind, set())
        assert needs <= ready
        ready = (ready - needs) | {(step.start, step.stop)}
    assert ready == {(0, len(edges))}


def test_costs_beyond_64_bits_are_exact():
    big = 10**9
    assert jc.bracket([big, big, big], [big**2, big**2]).cost == 2 * big**3


def test_a_chain_of_500_stages_is_solved():
    rng = random.Random(0)
    sizes, edges = [rng.randint(1, 500) for _ in range(501)], [rng.randint(1, 10**5) for _ in range(500)]
    found = jc.bracket(sizes, edges)
    assert 0 < found.cost <= min(sizes[0], sizes[-1]) * sum(edges)


@pytest.mark.parametrize(
    ("sizes", "edges", "message"),
    [
        ([3], [], "q ≥ 1 stages"),
        ([3, 4], [1, 2], "2 sizes and 2 edges"),
        ([3, -4], [1], "at least 0, but -4"),
        ([3, 4.5], [1], "an integer of at least 0, but 4.5"),
    ],
)
def test_what_is_no_chain_is_refused(sizes, edges, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jc.bracket(sizes, edges)
