"""Marks: which stage an operation came from, read off any program that a transform makes of the chain."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from conftest import Case, assert_close

import jaxchain as jc
from jaxchain.explore.mark import marked, stage_of

HOSTILE = ("a/b", 'jvp("x")', "jaxchain-stage-1.", "§0 transpose(jvp(§2))", "</script>\n{}", "12", "日本 語")


def named(names: tuple[str, ...]) -> jc.Chain:
    return jc.Chain([jc.Stage(name, jnp.sin if k % 2 else jnp.cos) for k, name in enumerate(names)])


def stages(jaxpr: jax.extend.core.Jaxpr) -> list[int | None]:
    return [stage_of(str(eqn.source_info.name_stack)) for eqn in jaxpr.eqns]


def test_a_marked_chain_is_the_same_function(case: Case):
    chain = marked(case.chain)
    assert len(chain) == len(case.chain)
    assert_close(jax.jit(lambda *args: chain(*args))(*case.args), case.states[-1])


@pytest.mark.parametrize("names", [HOSTILE, tuple("abcdefghijklmn")])
def test_marks_number_the_stages_whatever_these_are_called(names: tuple[str, ...]):
    x = jnp.ones(3)
    chain = marked(named(names))
    assert stages(jax.make_jaxpr(lambda x: chain(x))(x).jaxpr) == list(range(len(names)))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: lambda x: jax.vjp(f, x)[1](x),
        lambda f: lambda x: jax.linearize(f, x)[1](x),
        lambda f: jax.vmap(f),
        lambda f: jax.grad(lambda x: f(x)[0]),
        lambda f: lambda x: jax.jvp(jax.vmap(f), (x,), (x,)),
        lambda f: lambda x: jax.vjp(jax.vmap(f), x)[1](x),
    ],
    ids=["jvp", "vjp", "linearize", "vmap", "grad", "jvp of vmap", "vjp of vmap"],
)
def test_marks_survive_every_transform(transform):
    chain = marked(named(HOSTILE))
    found = stages(jax.make_jaxpr(transform(lambda x: chain(x)))(jnp.ones(3)).jaxpr)
    assert set(found) - {None} == set(range(len(HOSTILE)))


def test_marks_reach_compiled_programs():
    chain = marked(named(HOSTILE))
    text = jax.jit(lambda x: chain(x)).lower(jnp.ones(3)).compile().as_text() or ""
    assert {stage_of(line) for line in text.splitlines() if " sine(" in line} == {1, 3, 5}


def test_of_nested_marks_the_outermost_counts():
    inner = marked(jc.Chain([jc.Stage("s", jnp.sin), jc.Stage("c", jnp.cos)]))
    outer = marked(jc.Chain([jc.Stage("first", jnp.exp), jc.Stage("second", lambda x: inner(x))]))
    assert stages(jax.make_jaxpr(lambda x: outer(x))(1.0).jaxpr) == [0, 1, 1]


def test_a_users_own_scope_lies_inside():
    def fn(x):
        with jax.named_scope("jaxchain-stage-7."):
            return jnp.sin(x)

    chain = marked(jc.Chain([jc.Stage("a", fn)]))
    assert stages(jax.make_jaxpr(lambda x: chain(x))(1.0).jaxpr) == [0]


def test_numbers_are_read_whole_and_text_without_a_mark_is_of_no_stage():
    assert stage_of("jit(f)/transpose(jvp(jaxchain-stage-12.))/mul") == 12
    assert stage_of("jit(f)/dense_3/mul") is None
    assert stage_of("jaxchain-stage-12") is None
    assert stage_of("") is None


def test_a_marked_chain_takes_the_parameters_of_the_chain(mlp: Case):
    params, x = mlp.args
    assert_close(marked(mlp.chain)(params, x), mlp.chain(params, x))
