"""Checkpointed functions: the same values and gradients, by XLA's own measure within the limit, for the work that was said."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain.cost.measure import flops, measure
from jaxchain.memory import cutting
from jaxchain.memory.apart import COPIES
from jaxchain.memory.rebuild import Rebuilt
from jaxchain.memory.schedule import Again, Kept
from jaxchain.memory.stages import pieces_of
from jaxchain.program.reading import trace_program
from tests.models import MODELS

RERUNS = jax.default_backend() != "cpu" or jax.__version_info__ >= (0, 11, 2)
"""Whether the compiler runs again, outside loops, what is to be run again."""


def compiled(fun, *args):
    """A program to be measured and run: `jax.jit` alone would compile it once more."""
    return jax.jit(fun).lower(*args).compile()


def temporaries(fun, *args) -> int:
    return bytes_of(compiled(fun, *args))


def bytes_of(program) -> int:
    return program.memory_analysis().temp_size_in_bytes


def gradient(fun):
    return jax.value_and_grad(fun, argnums=(0, 1))


def close(got, want, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = float(np.max(np.abs(other), initial=0.0))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)


def unrolled(depth):
    def loss(weights, x):
        for w in weights:
            x = x + jax.nn.gelu(x @ w) @ w.T
        return jnp.sum(x**2)

    weights = [0.05 * jax.random.normal(key, (32, 32)) for key in jax.random.split(jax.random.key(0), depth)]
    return loss, (weights, jnp.ones((128, 32)))


def scanned(depth, *, reverse=False):
    def loss(weights, x):
        def step(x, w):
            return x + jnp.tanh(x @ w) @ w.T, jnp.sum(x)

        x, sums = jax.lax.scan(step, x, weights, reverse=reverse)
        return jnp.sum(x**2) + jnp.sum(sums[:3])

    return loss, (0.05 * jax.random.normal(jax.random.key(0), (depth, 32, 32)), jnp.ones((128, 32)))


# ---------------------------------------------------------------------------------------------------- within the limit


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.skipif(not RERUNS, reason="this compiler for CPUs runs at once what is to be run again")
def test_a_deep_network_keeps_within_the_limit(share):
    loss, args = unrolled(24)
    whole = measure(gradient(loss), *args, repeats=0)
    limit = int(share * whole.peak_bytes)
    lean = jc.checkpoint(loss, limit)
    assert temporaries(gradient(lean), *args) <= limit
    plan = lean.plan(*args)
    assert flops(gradient(lean), *args) <= whole.flops * 1.35
    assert flops(gradient(lean), *args) == pytest.approx(whole.flops + plan.extra_flops, rel=0.05)


@pytest.mark.skipif(not RERUNS, reason="this compiler for CPUs runs at once what is to be run again")
@pytest.mark.parametrize("place", [0.5, 1.0])
def test_every_chain_of_the_zoo_keeps_within_the_limit(reverse_case, place):
    chain, args = reverse_case.chain, reverse_case.args

    def loss(*args):
        inexact = [leaf for leaf in jax.tree.leaves(chain(*args)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in inexact)

    curve = jc.memory_plan(loss, args).curve
    limit = curve[int(place * (len(curve) - 1))][0]
    lean = jax.value_and_grad(jc.checkpoint(loss, limit), argnums=tuple(range(len(args))), allow_int=True)
    assert temporaries(lean, *args) <= limit


def tied(depth, *, looped):
    """Layers of the same weights, whose cotangents are summed."""

    def loss(w, x):
        if looped:
            return jnp.sum(jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=depth)[0] ** 2)
        for _ in range(depth):
            x = jnp.tanh(x @ w)
        return jnp.sum(x**2)

    return loss, (0.1 * jax.random.normal(jax.random.key(0), (32, 32)), jnp.ones((512, 32)))


@pytest.mark.parametrize("more", [1.0, 1.5, 3.0])
@pytest.mark.skipif(not RERUNS, reason="this compiler for CPUs runs at once what is to be run again")
def test_a_loop_takes_no_more_than_the_program_written_out(more):
    (loop, args), (written, _) = tied(64, looped=True), tied(64, looped=False)
    limit = int(more * jc.memory_plan(written, args).curve[-1][0])
    lean = jc.checkpoint(loop, limit)
    assert temporaries(gradient(lean), *args) <= limit
    least = flops(gradient(jc.checkpoint(written, limit)), *args)
    assert flops(gradient(lean), *args) <= 1.05 * least


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.skipif(not RERUNS, reason="this compiler for CPUs runs at once what is to be run again")
def test_cotangents_of_shared_weights_are_summed_one_after_another(place):
    """XLA would hold one of each layer until the end, and each is 32 times a state here."""

    def loss(w, x):
        for _ in range(12):
            x = jnp.tanh(x @ w) + x
        return jnp.sum(x**2)

    args = 0.05 * jax.random.normal(jax.random.key(0), (128, 128)), jnp.ones((4, 128))
    curve = jc.memory_plan(loss, args).curve
    limit = curve[int(place * (len(curve) - 1))][0]
    assert temporaries(gradient(jc.checkpoint(loss, limit)), *args) <= limit


@pytest.mark.parametrize("more", [1.0, 2.0])
@pytest.mark.skipif(not RERUNS, reason="this compiler for CPUs runs at once what is to be run again")
def test_states_of_which_a_little_is_read_at_the_end_are_let_go(more):
    """A row of every state is a result: XLA would rather hold the states until those are stacked."""

    def loss(weights, x):
        def step(x, row):
            return x + jnp.tanh(x @ row[0] + row[1]), x[0]

        x, some = jax.lax.scan(step, x, weights)
        return jnp.sum(x**2) + jnp.sum(some)

    args = (0.2 * jax.random.normal(jax.random.key(0), (20, 16, 16)), jnp.ones((20, 16))), jnp.ones((256, 16))
    limit = int(more * jc.memory_plan(loss, args).curve[-1][0])
    assert temporaries(gradient(jc.checkpoint(loss, limit)), *args) <= limit


@pytest.mark.parametrize("share", [0.5, 0.25, 0.2])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_keeps_within_the_limit(share, reverse):
    loss, args = scanned(64, reverse=reverse)
    plain = compiled(gradient(loss), *args)
    whole = bytes_of(plain)
    lean = compiled(gradient(jc.checkpoint(loss, int(share * whole))), *args)
    assert bytes_of(lean) <= share * whole
    close(lean(*args), plain(*args))


@pytest.mark.parametrize("more", [0, 3, 8, 30])
def test_a_loop_that_reads_nothing_stacked_keeps_within_the_limit(more):
    """XLA runs a loop of one round with what ran before: a round of its own is none."""

    def loss(w, x):
        return jnp.sum(jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=64)[0] ** 2)

    args = 0.1 * jax.random.normal(jax.random.key(0), (32, 32)), jnp.ones((512, 32))
    limit = jc.memory_plan(loss, args).curve[-1][0] + more * args[1].nbytes
    lean = compiled(gradient(jc.checkpoint(loss, limit)), *args)
    assert bytes_of(lean) <= limit
    close(lean(*args), jax.jit(gradient(loss))(*args))


def ode(params, y):
    """Runge and Kutta's steps, whose constants weigh as much as the state."""

    def field(y):
        return jnp.tanh(y @ params["in"]) @ params["out"]

    def step(y, _):
        one = field(y)
        two = field(y + one / 2)
        three = field(y + two / 2)
        return y + (one + 2 * two + 2 * three + field(y + three)) / 6, None

    return jnp.mean(jax.lax.scan(step, y, None, length=61)[0] ** 2)


def dropping(params, x):
    def step(carry, _):
        x, key = carry
        key, drawn = jax.random.split(key)
        return (jnp.tanh(x @ params["in"] @ params["out"]) * jax.random.bernoulli(drawn, 0.9, x.shape), key), None

    return jnp.mean(jax.lax.scan(step, (x, jax.random.key(7)), None, length=61)[0][0] ** 2)


@pytest.mark.parametrize("loss", [ode, dropping])
@pytest.mark.parametrize("more", [1.0, 1.5])
def test_a_loop_of_ones_own_keeps_within_the_limit(loss, more):
    args = {"in": jnp.full((16, 32), 0.02), "out": jnp.full((32, 16), 0.02)}, jnp.ones((64, 16))
    limit = int(more * jc.memory_plan(loss, args).curve[-1][0])
    lean = jc.checkpoint(loss, limit)
    assert temporaries(gradient(lean), *args) <= limit


@pytest.mark.parametrize("more", [1.0, 1.3, 2.0])
@pytest.mark.parametrize(("loops", "length"), [(2, 32), (8, 8)])
def test_loops_in_a_row_keep_within_the_limit(loops, length, more):
    """Room for what a loop stacks is made before all else, unless it runs again by itself."""

    def loss(weights, x):
        for w in weights:
            x = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
        return jnp.sum(x**2)

    keys = jax.random.split(jax.random.key(0), loops)
    args = [0.1 * jax.random.normal(key, (length, 32, 32)) for key in keys], jnp.ones((512, 32))
    curve = jc.memory_plan(loss, args).curve
    assert curve[-1][0] < curve[0][0] / (2.5 if COPIES else 4)
    limit = int(more * curve[-1][0])
    lean = compiled(gradient(jc.checkpoint(loss, limit)), *args)
    assert bytes_of(lean) <= limit
    if more == 1.0:
        close(lean(*args), jax.jit(gradient(loss))(*args))


def complex_steps(w, x):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x * (1 + 0.5j), None, length=24)[0]


def counting_backwards(w, x):
    """Rows from the end, results of every step, numbers and keys that go round."""

    def step(carry, row):
        x, key, number, scale = carry
        key, drawn = jax.random.split(key)
        x = jnp.tanh(x @ w) * jax.random.bernoulli(drawn, 0.9, x.shape) + row * scale
        return (x, key, number + 1, scale * 0.9), (jnp.sum(x), number)

    (x, _, number, _), stacked = jax.lax.scan(step, (x, jax.random.key(3), 0, 1.0), jnp.arange(24.0), reverse=True)
    return x, number, stacked


@pytest.mark.parametrize("fun", [complex_steps, counting_backwards])
def test_steps_that_run_again_by_themselves_are_the_same_function(fun, monkeypatch):
    monkeypatch.setattr(cutting, "WRITTEN", 0)  # or they are no loop any more
    args = 0.2 * jax.random.normal(jax.random.key(0), (16, 16)), jnp.ones((64, 16))
    plan = jc.memory_plan(fun, args)
    lean = jc.checkpoint(fun, plan.curve[-1][0])
    assert " cond[" in str(jax.make_jaxpr(lean)(*args))

    def loss(fun):
        return lambda w, x: sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(fun(w, x)))

    close(jax.jit(lean)(*args), fun(*args))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), args)
    close(*(jax.jit(jax.vmap(gradient(loss(f))))(*batch) for f in (lean, fun)), 1e-4)
    (got, along), (want, along_it) = (
        jax.jit(lambda *a, f=f: jax.jvp(gradient(loss(f)), a, args))(*args) for f in (lean, fun)
    )
    close(got, want, 1e-4)
    close(along, along_it, 1e-3)


def test_a_loop_takes_the_work_that_was_said():
    loss, args = scanned(64)
    full = jc.memory_plan(loss, args)
    lean = jc.checkpoint(loss, full.full_bytes // 5)
    extra = lean.plan(*args).extra_flops
    assert 0 < extra < 0.6 * full.flops
    assert total(gradient(lean), *args) == pytest.approx(total(gradient(loss), *args) + extra, rel=0.03)


def total(fun, *args) -> float:
    """FLOPs of a program as it is written, each loop as often as it runs: counted here, by products alone."""

    def count(jaxpr) -> float:
        found = 0.0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                ((left, _), _) = eqn.params["dimension_numbers"]
                shape = eqn.invars[0].aval.shape
                found += 2 * eqn.outvars[0].aval.size * np.prod([shape[axis] for axis in left])
            inner = [value for value in eqn.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
            found += eqn.params.get("length", 1) * sum(count(getattr(part, "jaxpr", part)) for part in inner)
        return found

    return count(jax.make_jaxpr(fun)(*args).jaxpr)


def test_a_limit_that_cannot_be_met_says_the_least():
    loss, args = scanned(16)
    with pytest.raises(ValueError, match=r"memory_limit=1000 bytes cannot be met: the least .* is \d+ bytes"):
        jc.checkpoint(loss, 1000)(*args)
    with pytest.raises(ValueError, match="memory_limit"):
        jc.checkpoint(loss, 0)
    with pytest.raises(TypeError, match="callable"):
        jc.checkpoint(3, 10**6)


# ------------------------------------------------------------------------------------------------------- the same function


def run_again(first: int, last: int, pieces) -> tuple:
    """A schedule that runs again as much as it can: halves within halves, each stage kept in the fewest bytes."""
    if first == last:
        ways = pieces.pieces[first].ways
        return (Kept(first, min(range(len(ways)), key=lambda k: ways[k].kept)),)
    middle = (first + last) // 2
    return Again(run_again(first, middle, pieces)), *run_again(middle + 1, last, pieces)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_other_people_have_the_same_gradients(name):
    model, params, x = MODELS[name]()

    def loss(params):
        return jnp.mean(jnp.sin(model(params, x)))

    closed, _ = trace_program(loss, (params,))
    pieces = pieces_of(closed)
    rebuilt = Rebuilt(pieces, run_again(0, len(pieces.pieces) - 1, pieces))
    assert "prevent_cse=" in str(jax.make_jaxpr(rebuilt)(*jax.tree.leaves(params)))

    def lean(params):
        return rebuilt(*jax.tree.leaves(params))[0]

    close(jax.jit(jax.value_and_grad(lean))(params), jax.jit(jax.value_and_grad(loss))(params))


def test_every_schedule_of_a_curve_gives_the_same_gradient():
    loss, args = unrolled(6)
    want = jax.jit(gradient(loss))(*args)
    curve = jc.memory_plan(loss, args).curve
    assert all(more[0] > less[0] and more[1] < less[1] for more, less in itertools.pairwise(curve))
    for size, _ in curve[:: max(len(curve) // 4, 1)]:
        close(jax.jit(gradient(jc.checkpoint(loss, size)))(*args), want)


def test_chains_work_along_their_arguments():
    net = jc.nets.mlp([8] * 7, activation="tanh")
    args = net.init(jax.random.key(0)), jnp.ones(8)
    lean = jc.checkpoint(net, jc.memory_plan(net, args).curve[-1][0])
    close(jax.jit(lean)(*args), jax.jit(net)(*args))
    close(jc.jacobian(lean, 1)(*args), jax.jacrev(net, 1)(*args))


def test_jit_vmap_grad_and_forward_mode_work():
    def fun(x):
        y = jnp.sin(x @ x)
        return jnp.sum(jnp.exp(y @ x) * x, axis=0), y[0]

    x = jnp.eye(4) * 0.3 + 0.1
    lean = jc.checkpoint(fun, jc.memory_plan(fun, (x,)).curve[-1][0])
    batch = jnp.stack([x, 2 * x])
    close(jax.vmap(lean)(batch), jax.vmap(fun)(batch))
    close(jax.jvp(lean, (x,), (x,)), jax.jvp(fun, (x,), (x,)))
    close(jax.hessian(lambda x: lean(x)[1][0])(x), jax.hessian(lambda x: fun(x)[1][0])(x))
    close(jax.jit(jax.jacrev(lean))(x), jax.jacrev(fun)(x))


def test_integers_keys_and_results_that_are_arguments_pass_through():
    def fun(tokens, table, key):
        x = table[tokens] * jax.random.bernoulli(key, 0.5, (3, 4))
        return {"loss": jnp.sum(jnp.tanh(x @ x.T)), "tokens": tokens, "table": table, "three": 3.0}

    args = jnp.array([0, 2, 1]), jnp.ones((3, 4)), jax.random.key(0)
    lean = jc.checkpoint(fun, 10**6)
    assert jax.tree.structure(lean(*args)) == jax.tree.structure(fun(*args))
    close(lean(*args), fun(*args))
    assert jnp.asarray(lean(*args)["three"]).dtype == jnp.asarray(3.0).dtype


def test_keyword_arguments_and_closed_over_tracers_work():
    def outer(w):
        def fun(x, *, scale):
            return jnp.sum(jnp.tanh(w @ x) * scale)

        return jc.checkpoint(fun, 10**6)(jnp.ones(3), scale=2.0)

    w = jnp.ones((3, 3))
    close(jax.grad(outer)(w), jax.grad(lambda w: jnp.sum(jnp.tanh(w @ jnp.ones(3)) * 2.0))(w))


def test_a_plan_in_print_says_what_is_kept_and_what_runs_again():
    loss, args = scanned(64)
    plan = jc.memory_plan(loss, args, 10**6)
    words = " ".join(str(plan).split())  # wherever lines break
    assert "within 1.00 MB" in words
    assert "a loop by a schedule of its own" in {row.how for row in plan.rows}
    assert "Less memory, more work" in " ".join(str(jc.memory_plan(loss, args)).split())
    assert plan.peak_bytes <= 10**6 < plan.full_bytes
    assert {row.name for row in plan.rows} == {row.name for row in jc.memory_plan(loss, args).rows}


def test_planning_computes_nothing():
    net = jc.nets.mlp([4096] * 9)
    shapes = jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((10**6, 4096), jnp.float32)
    plan = jc.memory_plan(jax.vmap(net, in_axes=(None, 0)), shapes, 10**11)
    assert plan.peak_bytes <= 10**11 < plan.full_bytes


def test_a_plan_is_of_the_program_that_is_traced_now():
    lean = jc.checkpoint(lambda x: jnp.sum(x) / jax.lax.axis_size("i"), 10**6)
    for size in (8, 4):
        assert jax.vmap(lean, axis_name="i")(jnp.ones((size, 4)))[0] == 4 / size
    dot = jc.checkpoint(lambda x: jnp.sum(x @ x), 10**6)
    assert "HIGHEST" not in str(jax.make_jaxpr(dot)(jnp.eye(3)))
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in str(jax.make_jaxpr(dot)(jnp.eye(3)))


def test_rules_that_others_wrote_are_those_of_this_call():
    def fun(x, slope):
        @jax.custom_jvp
        def h(x):
            return jnp.sin(x)

        h.defjvp(lambda primals, tangents: (jnp.sin(*primals), tangents[0] * slope))
        return jnp.sum(h(x))

    slope = 2.0
    lean = jc.checkpoint(lambda x: fun(x, slope), 10**6)
    for slope in (2.0, 3.0):  # closed over
        close(jax.grad(lean)(jnp.ones(2)), jnp.full(2, slope))


@pytest.mark.parametrize("length", [12, 70])
def test_rules_that_others_wrote_are_those_of_each_loop(length):
    """Loops of one program but for the rule of what they call."""

    def turned(sign):
        @jax.custom_vjp
        def f(x):
            return jnp.sin(x)

        f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (sign * g * jnp.cos(x),))
        return f

    up, down = turned(1.0), turned(-1.0)

    def loss(w, x):
        for f in (up, up, down, up):
            x, _ = jax.lax.scan(lambda x, w, f=f: (x + f(x @ w), None), x, w)
        return jnp.sum(x**2)

    args = 0.07 * jax.random.normal(jax.random.key(0), (length, 8, 8)), jnp.ones((16, 8))
    lean = jc.checkpoint(loss, jc.memory_plan(loss, args).curve[-1][0])
    close(jax.jit(gradient(lean))(*args), jax.jit(gradient(loss))(*args))


def test_where_there_is_no_reverse_mode_the_function_still_runs_and_the_plan_says_why():
    def fun(x):
        return jnp.sum(jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, jnp.sin(x)))

    x = jnp.ones(3)
    lean = jc.checkpoint(fun, 10**6)
    close(lean(x), fun(x))
    close(jax.jvp(lean, (x,), (x,)), jax.jvp(fun, (x,), (x,)))
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jc.memory_plan(fun, (x,))


def test_what_is_printed_is_missed_aloud():
    def fun(x):
        jax.debug.print("{x}", x=x)
        return jnp.sin(x)

    with pytest.warns(UserWarning, match="1 equations? print"):
        jc.checkpoint(fun, 10**6)(1.0)


def test_functions_without_work_or_derivative_have_plans():
    for fun in (lambda x: x, lambda x: jnp.ones(3), lambda x: jax.lax.scan(lambda x, _: (x, x), x, None, length=0)[1]):
        assert "everything is kept" in str(jc.memory_plan(fun, (jnp.ones(3),)))


def test_an_argument_that_is_no_array_is_named():
    with pytest.raises(TypeError, match="Argument 1 is 'train'"):
        jc.checkpoint(lambda x, mode: x, 10**6)(jnp.ones(3), "train")


def test_arrays_whose_types_say_how_they_are_spread_are_checkpointed():
    def loss(w, x):
        return jnp.sum(jax.lax.scan(lambda x, _: (jnp.tanh(x @ w) + x, None), x, None, length=70)[0] ** 2)

    args = 0.2 * jax.random.normal(jax.random.key(0), (8, 8)), jnp.ones((16, 8))
    curve = jc.memory_plan(loss, args).curve
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    specs = jax.P(), jax.P("d")
    with jax.set_mesh(mesh):
        w, x = (jax.device_put(arg, jax.NamedSharding(mesh, spec)) for arg, spec in zip(args, specs, strict=True))
        leans = [jc.checkpoint(loss, size) for size, _ in reversed(curve)]
        lean = next(lean for lean in leans if " cond[" in str(jax.make_jaxpr(lean)(w, x)))
        got = jax.jit(jax.grad(lean))(w, x)
    close(got, jax.jit(jax.grad(loss))(*args), 1e-4)


def test_inside_a_shard_map_the_way_out_is_said():
    mesh = jax.make_mesh((1,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
    lean = jc.checkpoint(lambda x: jnp.sum(x**2), 10**6)
    spec = jax.sharding.PartitionSpec("b")
    with pytest.raises(TypeError, match=r"Inside jax\.shard_map"):
        jax.shard_map(lambda x: lean(x)[None], mesh=mesh, in_specs=spec, out_specs=spec)(jnp.ones(4))
