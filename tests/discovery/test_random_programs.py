"""Random programs: `discover(f)` is f, its cuts are the separators of f's dependency graph, its sweeps are JAX's.

A program is data: a list of steps. It is run in two ways: *nested*, with jit, checkpoint, scan and custom rules,
which is what `discover` gets; and *flat*, the same mathematics in plain Python, whose jaxpr is the oracle's graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from agreement import separators, some
from conftest import assert_close, draw
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

import jaxchain as jc

SIZE = 4
WEIGHTS = 3
PARAMS = {"w": some(WEIGHTS, SIZE, SIZE, seed=1), "b": some(WEIGHTS, SIZE, seed=2)}
X = some(SIZE, seed=3)
TABLE = some(SIZE, seed=4)  # closed over


@jax.custom_jvp
def bent(x):
    """Its rule is deliberately not its derivative."""
    return jnp.tanh(x)


bent.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 3 * tangents[0]))


@jax.custom_vjp
def twisted(x):
    """Its rule is deliberately not its derivative."""
    return jnp.sin(x)


twisted.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (cotangent * x,))

UNARY = {
    "sin": jnp.sin,
    "tanh": jnp.tanh,
    "gauss": lambda x: jnp.exp(-x * x),
    "relu": jax.nn.relu,  # jitted inside, with a rule of its own
    "reshape": lambda x: x.reshape((2, 2) if x.ndim == 1 else (SIZE,)),
    "closed over": lambda x: x * TABLE.reshape(x.shape),
    "bent": bent,
    "twisted": twisted,
}
BINARY = {"add": jnp.add, "mul": jnp.multiply, "sub": jnp.subtract}


def dense(params, k, x):
    return (params["w"][k] @ x.reshape(SIZE) + params["b"][k]).reshape(x.shape)


@dataclass(frozen=True)
class Step:
    """One operation on values made before, or a block of them: a small program of one input."""

    kind: str
    reads: tuple[int, ...]
    index: int = 0
    block: tuple[Step, ...] = ()


BLOCKS = ("jit", "checkpoint", "scan", "stacked", "recurrence")
SINGLE = ("jit", "checkpoint", "scan", "stacked")
"""Without the loop whose carry is a pair: its steps are cut where no single value separates."""


@st.composite
def programs(draw, depth=2, size=8, blocks=BLOCKS):
    """Up to ``size`` steps, each reading values not far back; blocks nest ``depth`` deep.

    No checkpoint in a checkpoint: the inner one stays whole.
    """
    made, program = 1, []
    for _ in range(draw(st.integers(1, size))):
        recent = st.integers(max(0, made - draw(st.sampled_from([1, 1, 1, 2, 4]))), made - 1)
        kind = draw(st.sampled_from(["unary"] * 4 + ["binary"] * 2 + ["dense"] + list(blocks) * (depth > 0)))
        if kind == "unary":
            program.append(Step(draw(st.sampled_from(sorted(UNARY))), (draw(recent),)))
        elif kind == "binary":
            program.append(Step(draw(st.sampled_from(sorted(BINARY))), (draw(recent), draw(recent))))
        elif kind == "dense":
            program.append(Step("dense", (draw(recent),), draw(st.integers(0, WEIGHTS - 1))))
        else:
            inside = tuple(b for b in blocks if not kind == b == "checkpoint")
            block = tuple(draw(programs(depth - 1, 3, inside)))
            program.append(Step(kind, (draw(recent),), draw(st.integers(1, 3)), block))
        made += 1
    return program


def run(program, params, x, *, nested):
    """The last value of a program."""
    values = [x]
    for step in program:
        operands = [values[k] for k in step.reads]
        first = operands[0]
        if step.kind in UNARY:
            value = UNARY[step.kind](first)
        elif step.kind in BINARY:
            value = BINARY[step.kind](first, operands[1].reshape(first.shape))
        elif step.kind == "dense":
            value = dense(params, step.index, first)
        else:
            value = (nested_block if nested else flat_block)(step, params, first)
        values.append(value)
    return values[-1]


def flat_block(step, params, x):
    def body(x):
        return run(step.block, params, x, nested=False).reshape(x.shape)

    if step.kind == "scan":
        for _ in range(step.index):
            x = body(x)
        return x
    if step.kind == "stacked":
        for k in range(WEIGHTS):
            x = body(x) * params["b"][k].reshape(x.shape)
        return x
    if step.kind == "recurrence":
        before = jnp.ones_like(x)
        for _ in range(step.index):
            x, before = body(x) * before, x
        return x
    return body(x)


def nested_block(step, params, x):
    def body(params, x):
        return run(step.block, params, x, nested=True).reshape(x.shape)

    if step.kind == "scan":
        return lax.scan(lambda c, _: (body(params, c), None), x, None, length=step.index)[0]
    if step.kind == "stacked":
        return lax.scan(lambda c, b: (body(params, c) * b.reshape(c.shape), None), x, params["b"])[0]
    if step.kind == "recurrence":
        pair = (x, jnp.ones_like(x))
        return lax.scan(lambda c, _: ((body(params, c[0]) * c[1], c[0]), None), pair, None, length=step.index)[0][0]
    return (jax.jit if step.kind == "jit" else jax.checkpoint)(body)(params, x)


def kinds(program):
    return {kind for step in program for kind in (step.kind, *kinds(step.block))}


def as_function(program):
    return lambda params, x: run(program, params, x, nested=True)


def settled(count):
    return settings(deadline=None, derandomize=True, max_examples=count)


def separating_values(program):
    """The values at all single-vertex separators between x and the result, in order: jaxpr, networkx, evaluation."""
    closed = jax.make_jaxpr(lambda params, x: run(program, params, x, nested=False))(PARAMS, X)
    (x, (out,)) = closed.jaxpr.invars[-1], closed.jaxpr.outvars
    graph = nx.DiGraph([(out, "result")])
    for number, eqn in enumerate(closed.jaxpr.eqns):
        graph.add_edges_from((atom, number) for atom in eqn.invars if not hasattr(atom, "val"))
        graph.add_edges_from((number, var) for var in eqn.outvars)
    found = (
        [v for v in separators(graph, x, "result") if not isinstance(v, int) and v is not out] if out is not x else []
    )
    jaxpr = closed.jaxpr.replace(outvars=found)
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(PARAMS), X)


# ----------------------------------------------------------------------------------------------------------- the laws


@settled(120)
@given(programs())
def test_a_random_program_and_its_chain_give_the_same_bits_op_by_op(program):
    fun = as_function(program)
    chain = jc.discover(fun, PARAMS, X)
    with jax.disable_jit():
        np.testing.assert_array_equal(chain(PARAMS, X), fun(PARAMS, X), strict=True)


@settled(12)
@given(programs())
def test_a_random_program_and_its_chain_agree_within_rounding_when_both_are_compiled(program):
    fun = as_function(program)
    chain = jc.discover(fun, PARAMS, X)
    assert_close(jax.jit(chain)(PARAMS, X), jax.jit(fun)(PARAMS, X))


@settled(120)
@given(programs(blocks=SINGLE))
def test_cuts_of_a_random_program_are_exactly_the_separators_of_its_dependency_graph(program):
    with jax.disable_jit():
        want = separating_values(program)
    chain = jc.discover(as_function(program), PARAMS, X, granularity="finest")
    with jax.disable_jit():
        state, sides = chain.split(PARAMS, X)
        got = []
        for stage, side in zip(chain, sides, strict=True):
            state = stage(*side, state)
            got.append(state)
    assert_close(got[:-1], want)


@settled(25)
@given(programs(), st.sampled_from(["finest", "default", "module"]))
def test_a_forward_sweep_of_a_random_program_is_jax_jvp(program, granularity):
    assume("twisted" not in kinds(program))
    fun, tangent = as_function(program), draw(X, 5)
    chain = jc.discover(fun, PARAMS, X, granularity=granularity)
    with jax.disable_jit():
        sweep = jc.forward_sweep(chain, (PARAMS, X), tangent)
        want = jax.jvp(lambda x: fun(PARAMS, x), (X,), (tangent,))
    assert_close((sweep.primals[-1], sweep.tangents[-1]), want)


@settled(25)
@given(programs(), st.sampled_from(["finest", "default", "module"]))
def test_a_reverse_sweep_of_a_random_program_is_jax_vjp_of_all_arguments(program, granularity):
    fun = as_function(program)
    chain = jc.discover(fun, PARAMS, X, granularity=granularity)
    with jax.disable_jit():
        out, pull = jax.vjp(fun, PARAMS, X)
        cotangent = draw(out, 6)
        sweep = jc.reverse_sweep(chain, (PARAMS, X), cotangent)
        want = pull(cotangent)
    assert_close((sweep.primals[-1], sweep.arg_cotangents), (out, want), 1e-5)
    assert_close(sweep.cotangents[0], want[1], 1e-5)


@settled(25)
@given(programs(depth=1), st.booleans())
def test_a_random_program_along_its_parameters_is_a_chain_too(program, pytree):
    params = PARAMS if pytree else PARAMS["b"]

    def fun(params, x):
        params = params if pytree else {"w": PARAMS["w"], "b": params}
        return run(program, params, x * params["b"][0], nested=True)

    chain = jc.discover(fun, params, X, argnum=0)
    with jax.disable_jit():
        out, pull = jax.vjp(fun, params, X)
        cotangent = draw(out, 6)
        sweep = jc.reverse_sweep(chain, (params, X), cotangent)
        want = pull(cotangent)
    assert_close((sweep.primals[-1], sweep.arg_cotangents), (out, want), 1e-5)
    assert_close(sweep.cotangents[0], want[0], 1e-5)


@settled(40)
@given(programs())
def test_coarser_granularities_have_no_more_stages_and_names_are_unique(program):
    chains = [jc.discover(as_function(program), PARAMS, X, granularity=g) for g in ("finest", "default", "module")]
    lengths = [len(chain) for chain in chains]
    assert lengths == sorted(lengths, reverse=True)
    for chain in chains:
        assert len(set(chain.names)) == len(chain)
        assert len(str(chain).splitlines()) >= len(chain) + 2
