"""The cut rule on plain graphs, against networkx's dominators."""

import random

import networkx as nx
import pytest
from agreement import separators
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxchain.discovery.cuts import Cut, cuts, live_sets

SOURCE, SINK = "source", "sink"


def values(found):
    return [set(cut.values) for cut in found]


# ------------------------------------------------------------------------------------------------ graphs made by hand


def test_a_path_is_cut_after_every_operation_but_the_last():
    found = cuts(reads=["x", "a", "b"], writes=["a", "b", "y"], inputs="x", outputs="y")
    assert found == [Cut(1, frozenset("a")), Cut(2, frozenset("b"))]


def test_a_skip_prevents_cuts_between_its_ends():
    # a = f(x), b = g(a), c = h(b), y = a + c
    assert cuts(reads=["x", "a", "b", "ac"], writes=["a", "b", "c", "y"], inputs="x", outputs="y") == [
        Cut(1, frozenset("a"))
    ]


def test_a_skip_from_the_input_prevents_every_cut_that_it_spans():
    # a = f(x), y = x + a, z = g(y)
    assert values(cuts(reads=["x", "xa", "y"], writes=["a", "y", "z"], inputs="x", outputs="z")) == [{"y"}]


def test_the_input_and_the_output_are_no_cuts():
    assert cuts(reads=["x"], writes=["y"], inputs="x", outputs="y") == []


def test_an_empty_program_has_no_cuts():
    assert cuts(reads=[], writes=[], inputs="x", outputs="x") == []


def test_an_operation_that_reads_one_value_twice_is_like_any_other():
    assert values(cuts(reads=["x", "aa"], writes=["a", "y"], inputs="x", outputs="y")) == [{"a"}]


def test_several_inputs_are_cut_where_they_have_become_one():
    assert values(cuts(reads=["x", "pz", "a"], writes=["p", "a", "y"], inputs="xz", outputs="y")) == [{"a"}]


def test_several_outputs_are_cut_before_they_part():
    assert values(cuts(reads=["x", "a", "a"], writes=["a", "y", "z"], inputs="x", outputs="yz")) == [{"a"}]


def test_a_result_among_the_outputs_that_is_read_again_is_a_cut_only_where_it_is_alone():
    # y = f(x) is a result itself, and z = g(y) another one: everything after y is made from y alone.
    assert values(cuts(reads=["x", "y"], writes=["y", "z"], inputs="x", outputs="yz")) == [{"y"}]


def test_an_input_that_is_also_an_output_is_live_throughout():
    assert cuts(reads=["x", "a"], writes=["a", "y"], inputs="x", outputs="xy") == []


def test_an_operation_with_two_results_is_no_cut_while_both_are_live():
    assert values(cuts(reads=["x", "a", "bc"], writes=["a", "bc", "y"], inputs="x", outputs="y")) == [{"a"}]


def test_a_result_that_nobody_reads_does_not_prevent_a_cut():
    assert values(cuts(reads=["x", "a"], writes=["ab", "y"], inputs="x", outputs="y")) == [{"a"}]


def test_an_unread_input_does_not_prevent_a_cut():
    assert values(cuts(reads=["x", "a"], writes=["a", "y"], inputs="xw", outputs="y")) == [{"a"}]


def test_a_value_that_may_not_be_a_state_is_no_cut():
    found = cuts(reads=["x", "a", "i"], writes=["a", "i", "y"], inputs="x", outputs="y", may_cut=lambda v: v != "i")
    assert values(found) == [{"a"}]


def test_a_bundle_counts_as_one_value_at_its_position_only():
    two_steps = {"reads": ["x", "x", "hc", "hc", "HC"], "writes": ["h", "c", "H", "C", "y"]}
    assert cuts(**two_steps, inputs="x", outputs="y") == []
    found = cuts(**two_steps, inputs="x", outputs="y", bundles={2: frozenset("hc"), 4: frozenset("HC")})
    assert found == [Cut(2, frozenset("hc")), Cut(4, frozenset("HC"))]
    assert cuts(**two_steps, inputs="x", outputs="y", bundles={3: frozenset("hc")}) == []


def test_a_bundle_is_no_cut_where_something_else_is_live_too():
    # The loop's carry is (h, c), but x is read again afterwards.
    program = {"reads": ["x", "x", "hcx"], "writes": ["h", "c", "y"]}
    assert cuts(**program, inputs="x", outputs="y", bundles={2: frozenset("hc")}) == []


def test_a_bundle_is_no_cut_where_part_of_it_is_dead():
    program = {"reads": ["x", "x", "h", "p"], "writes": ["h", "c", "p", "y"]}
    assert values(cuts(**program, inputs="x", outputs="y", bundles={2: frozenset("hc")})) == [{"h"}, {"p"}]


def test_a_bundle_may_be_of_values_that_alone_may_not_be_a_state():
    program = {"reads": ["x", "x", "ic"], "writes": ["i", "c", "y"]}
    found = cuts(**program, inputs="x", outputs="y", may_cut=lambda _: False, bundles={2: frozenset("ic")})
    assert values(found) == [{"i", "c"}]


def test_live_sets_are_what_is_made_already_and_still_to_be_read():
    live = [set(s) for s in live_sets(["x", "a", "ab"], ["a", "b", "y"], "x", "y")]
    assert live == [{"a"}, {"a", "b"}, {"y"}]


def test_as_many_writes_as_reads_are_required():
    with pytest.raises(ValueError, match="zip"):
        cuts(reads=["x", "a"], writes=["a"], inputs="x", outputs="a")


# ------------------------------------------------------------------------------------------------------ random graphs


@st.composite
def programs(draw):
    """A random program all of whose operations lie between its inputs and its outputs, in a random valid order.

    An operation reads up to three values and writes one or two. Values are integers.
    """
    size = draw(st.integers(1, 24))
    reach = draw(st.sampled_from([1, 2, 4, 100]))  # short reach: few skips, many cuts
    inputs = list(range(draw(st.integers(1, 3))))
    made, operations = list(inputs), []
    for _ in range(size):
        reads = draw(st.lists(st.sampled_from(made[-reach:]), min_size=1, max_size=3))
        writes = [len(made) + k for k in range(draw(st.sampled_from([1, 1, 1, 2])))]
        operations.append((reads, writes))
        made += writes
    outputs = [made[-1], *draw(st.lists(st.sampled_from(made), max_size=draw(st.sampled_from([0, 0, 2]))))]
    kept, wanted = [], set(outputs)
    for reads, writes in reversed(operations):
        if not wanted.isdisjoint(writes):
            wanted.update(reads)
            kept.append((reads, writes))
    return in_some_order(kept[::-1], inputs, draw(st.integers(0, 2**32 - 1))), inputs, outputs


def in_some_order(operations, inputs, seed):
    """The operations in another order in which every value is made before it is read."""
    rng, waiting, known, ordered = random.Random(seed), list(operations), set(inputs), []
    while waiting:
        ready = [operation for operation in waiting if known.issuperset(operation[0])]
        operation = rng.choice(ready)
        waiting.remove(operation)
        known.update(operation[1])
        ordered.append(operation)
    return ordered


def graph_of(operations, inputs, outputs):
    """Values and operations as vertices, so that one operation with two results is two vertices joined to one."""
    graph = nx.DiGraph()
    graph.add_edges_from((SOURCE, value) for value in inputs)
    graph.add_edges_from((value, SINK) for value in outputs)
    for number, (reads, writes) in enumerate(operations):
        graph.add_edges_from((value, ("operation", number)) for value in reads)
        graph.add_edges_from((("operation", number), value) for value in writes)
    return graph


@settings(deadline=None, derandomize=True, max_examples=400)
@given(programs())
@example(([], [0], [0]))
@example(([([0], [1]), ([0], [2]), ([1, 2], [3])], [0], [3]))
def test_cuts_are_exactly_the_single_vertex_separators_between_input_and_output(program):
    operations, inputs, outputs = program
    reads, writes = zip(*operations, strict=True) if operations else ((), ())
    found = cuts(reads, writes, inputs, outputs)
    want = [v for v in separators(graph_of(*program), SOURCE, SINK) if not isinstance(v, tuple)]
    ends = {*inputs, *(outputs if len(set(outputs)) == 1 else ())}  # vertices of the graph, but no cuts inside it
    assert values(found) == [{v} for v in want if v not in ends]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(programs(), st.integers(0, 2**32 - 1))
def test_cuts_do_not_depend_on_the_order_of_evaluation(program, seed):
    operations, inputs, outputs = program
    again = in_some_order(operations, inputs, seed)
    found, other = (cuts([r for r, _ in o], [w for _, w in o], inputs, outputs) for o in (operations, again))
    assert values(found) == values(other)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(programs())
def test_cuts_lie_strictly_inside_and_their_positions_increase(program):
    operations, inputs, outputs = program
    found = cuts([r for r, _ in operations], [w for _, w in operations], inputs, outputs)
    positions = [0, *(cut.position for cut in found), len(operations)]
    assert positions == sorted(positions)
    assert len(set(positions[1:-1])) == len(found)
    assert all(0 < cut.position < len(operations) for cut in found)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(programs(), st.integers(2, 3))
def test_values_that_may_not_be_states_are_left_out_of_the_cuts_and_nothing_else_is(program, modulus):
    operations, inputs, outputs = program
    reads, writes = [r for r, _ in operations], [w for _, w in operations]
    every = cuts(reads, writes, inputs, outputs)
    some = cuts(reads, writes, inputs, outputs, may_cut=lambda value: value % modulus)
    assert some == [cut for cut in every if all(value % modulus for value in cut.values)]
