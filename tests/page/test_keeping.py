"""What the page says of memory: places on the trade-off of `memory_plan`, or why there is none."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

import jaxchain as jc
from jaxchain.page.keeping import keeping
from jaxchain.show.table import si


def test_less_memory_is_told_with_more_work():
    net = jc.nets.residual_net([4, 8, 4], depth=4)
    args = net.init(jax.random.key(0)), jnp.ones(4)
    told = keeping(net, args, 100)
    assert told["rows"][0]["work"] == 1
    for more, less in itertools.pairwise(told["rows"]):
        assert more["bytes"] > less["bytes"]
        assert more["work"] <= less["work"]
    full = jc.memory_plan(net, args).full_bytes
    assert told["rows"][0]["bytes"] == full
    assert f"keeps {si(full, 'B')}" in told["finding"]


def test_where_nothing_can_be_saved_a_sentence_is_enough():
    told = keeping(jc.Chain([jc.Stage("double", lambda x: 2 * x)]), (jnp.ones(3),), 1)
    assert told["rows"] == []
    assert told["finding"].startswith("To pull one cotangent back")


def test_where_there_is_no_reverse_mode_the_page_says_so():
    chain = jc.Chain([jc.Stage("loop", lambda x: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, x))])
    told = keeping(chain, (jnp.ones(3),), 1)
    assert told["rows"] == []
    assert "Reverse mode does not exist here" in told["note"]


def test_a_long_program_is_left_alone():
    assert keeping(jc.Chain([jc.Stage("sin", jnp.sin)]), (1.0,), 10**5)["finding"] == ""
