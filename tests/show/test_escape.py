"""Control characters in names: shown as escapes, wherever a terminal is written to."""

import re

import jax.numpy as jnp
import pytest

import jaxchain as jc
from jaxchain.cli.outcome import Common, finish
from jaxchain.show.escape import escaped
from jaxchain.show.table import Table

EVIL = "a\x1b[2J\x00\x07\u202eb\nc"
"""Clears the screen, ends a C string, rings, turns the line around, and begins another."""

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


def test_what_is_not_printed_is_shown_as_its_escape():
    assert escaped(EVIL) == r"a\x1b[2J\x00\x07\u202eb\nc"
    assert escaped("a\nb\x1b", lines=True) == "a\nb\\x1b"
    assert escaped("4\xa0MB", lines=True) == "4\xa0MB"
    assert escaped("∂ x̄ ẋ é 语 × [red]") == "∂ x̄ ẋ é 语 × [red]"
    assert escaped("\ud800") == r"\ud800"


def test_a_table_shows_escapes_and_keeps_its_rows():
    text = str(Table(EVIL, (EVIL, "n"), [(EVIL, "1")], (EVIL,)))
    assert not CONTROL.search(text)
    assert len(text.splitlines()) == 4


def shown():
    chain = jc.Chain([jc.Stage(EVIL, jnp.sin), jc.Stage("square", jnp.square)])
    x = {EVIL: jnp.ones(2)}
    yield chain, repr(chain)
    yield jc.forward_sweep(chain, (jnp.ones(2),), jnp.ones(2)), jc.local_jacobians(chain, (jnp.ones(2),))[0]
    yield jc.trace(chain, jnp.ones(2)).unfold(), jc.trace(lambda x: x[EVIL] * 2, x)
    found = jc.transforms(chain, jnp.ones(2))
    yield found, found.stage("a")
    yield found["jvp"], jc.plan(chain, (jnp.ones(2),))


def test_no_result_hands_a_control_character_to_the_terminal():
    for results in shown():
        for result in results:
            assert not CONTROL.search(str(result)), repr(str(result))


@pytest.mark.parametrize(
    "call",
    [
        lambda: jc.Chain([jc.Stage(EVIL, lambda x: x @ jnp.ones(3))])(jnp.ones(2)),
        lambda: jc.Chain([jc.Stage(EVIL, jnp.sin)]).position("x"),
        lambda: jc.discover(lambda x: x[EVIL], {EVIL: jnp.arange(2)}),
        lambda: jc.jacobian(jnp.sin, mode=EVIL),
        lambda: jc.forward_sweep(lambda x: x[EVIL], ({EVIL: jnp.ones(2)},), {EVIL: jnp.ones(3)}),
    ],
)
def test_no_error_hands_a_control_character_to_the_terminal(call, capsys):
    with pytest.raises((ValueError, TypeError, KeyError)) as caught:
        call()
    assert not CONTROL.search(str(caught.value.args[0]))
    finish(Common(), lambda: (call(), None))
    assert not CONTROL.search(capsys.readouterr().err)
