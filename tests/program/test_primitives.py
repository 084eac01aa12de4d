"""The tables know every primitive of the installed JAX, and a layout function reads back what an equation was made with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback
from jax.extend.core import jaxpr_as_fun, jaxprs_in_params

from jaxchain.cost import count, linear
from jaxchain.explore import formula
from jaxchain.jacobians import local
from jaxchain.program import flow, primitives
from jaxchain.samples import bodies, rules

# ---------------------------------------------------------------------------------------------------------- the tables

EVERY = """
import gc, importlib, json
import jax
from jax.extend.core import Primitive
for name in '''
    jax.numpy jax.numpy.fft jax.numpy.linalg jax.scipy jax.scipy.cluster.vq jax.scipy.fft jax.scipy.integrate
    jax.scipy.interpolate jax.scipy.linalg jax.scipy.ndimage jax.scipy.optimize jax.scipy.signal jax.scipy.sparse.linalg
    jax.scipy.spatial.transform jax.scipy.special jax.scipy.stats jax.lax jax.lax.linalg jax.nn jax.nn.initializers
    jax.random jax.image jax.ops jax.ffi jax.export jax.experimental.sparse jax.experimental.sparse.linalg
'''.split():
    importlib.import_module(name)
print(json.dumps(sorted({thing.name for thing in gc.get_objects() if isinstance(thing, Primitive)})))
"""


@pytest.fixture(scope="module")
def every_primitive():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVERY], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_every_primitive_of_this_jax_is_known(every_primitive):
    assert {"add", "scan", "custom_vjp_call", "bcoo_todense", "threefry2x32"} <= set(every_primitive)  # it does look
    missing = [name for name in every_primitive if name not in primitives.FAMILY]
    assert not missing, (
        f"JAX {jax.__version__} has primitives that jaxchain does not know: {', '.join(missing)}. "
        "Enter each under its kind in FAMILIES of jaxchain/program/primitives.py."
    )


def test_no_primitive_is_of_two_kinds():
    times = Counter(name for names in primitives.FAMILIES.values() for name in names.split())
    assert not [name for name, often in times.items() if often > 1]


TABLES = {
    "program/primitives.py RESHAPING": primitives.RESHAPING,
    "program/primitives.py KEEPS_ORDER": primitives.KEEPS_ORDER,
    "program/primitives.py AFFINE": primitives.AFFINE,
    "program/primitives.py SHIFTS": primitives.SHIFTS,
    "program/primitives.py HEAVY": primitives.HEAVY,
    "program/primitives.py MOVES": primitives.MOVES,
    "program/primitives.py MIXING": primitives.MIXING,
    "jacobians/local.py RULES": local.RULES,
    "samples/rules.py RULES": rules.RULES,
    "samples/bodies.py BODIES": bodies.BODIES,
    "cost/linear.py RULES": linear.RULES,
    "cost/count.py RULES": count.RULES,
    "program/flow.py INSIDE": flow.INSIDE,
    "explore/formula.py FORMULAE": formula.FORMULAE,
    "explore/formula.py BINARY": formula.BINARY,
    "explore/formula.py REDUCTIONS": formula.REDUCTIONS,
}


@pytest.mark.parametrize("table", TABLES)
def test_a_rule_is_for_a_primitive_that_exists(table):
    assert TABLES[table]
    assert not [name for name in TABLES[table] if name not in primitives.FAMILY]


# -------------------------------------------------------------------------------------------------- equations to read


def equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(getattr(inner, "jaxpr", inner))


def equation(name: str, fn: Callable[..., Any], *args: Any) -> tuple[Any, list[Any]]:
    """The only equation of that primitive in the program of ``fn``, and the program's variables of ``args``."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    (eqn,) = [eqn for eqn in equations(jaxpr) if eqn.primitive.name == name]
    return eqn, list(jaxpr.invars)


X = jnp.arange(12.0).reshape(3, 4)
V = jnp.arange(4.0)

# -------------------------------------------------------------------------------------------------- loops and branches


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_tells_constants_carries_and_rows_apart(reverse):
    def fn(w, u, h, t, xs):
        return lax.scan(lambda c, x: ((w * c[0] + u * x, c[1] + 1.0), c[0] * x), (h, t), xs, reverse=reverse)

    eqn, (w, u, h, t, xs) = equation("scan", fn, V, V, V, 0.0, jnp.ones((7, 4)))
    loop = primitives.scan_of(eqn)
    assert (loop.length, loop.reverse, loop.consts, loop.carries) == (7, reverse, 2, 2)
    assert set(eqn.invars[:2]) == {w, u}
    assert list(eqn.invars[2:]) == [h, t, xs]
    assert [aval.shape for aval in loop.body.in_avals] == [(4,), (4,), (4,), (), (4,)]


def test_a_scan_without_constants_or_rows_is_all_carry():
    eqn, _ = equation("scan", lambda h: lax.scan(lambda c, _: (jnp.sin(c), None), h, None, length=5), V)
    loop = primitives.scan_of(eqn)
    assert (loop.consts, loop.carries, loop.length) == (0, 1, 5)


def test_a_while_loop_tells_the_constants_of_its_two_programs_apart():
    def fn(limit, a, b, c):
        return lax.while_loop(lambda s: s[0] < limit, lambda s: (s[0] + a, s[1] * b), (c, V))

    eqn, (limit, a, b, _) = equation("while", fn, 3.0, 1.0, 2.0, 0.0)
    loop = primitives.while_of(eqn)
    assert (loop.predicate_consts, loop.body_consts) == (1, 2)
    assert eqn.invars[0] is limit
    assert set(eqn.invars[1:3]) == {a, b}
    assert [aval.dtype for aval in loop.predicate.out_avals] == [bool]
    assert [aval.shape for aval in loop.body.out_avals] == [(), (4,)]


def test_the_branches_of_a_cond_are_in_the_order_of_its_index():
    eqn, _ = equation("cond", lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.exp], x), 1, V)
    names = [[inner.primitive.name for inner in branch.jaxpr.eqns] for branch in primitives.branches_of(eqn)]
    assert names == [["sin"], ["cos"], ["exp"]]
    for branch in primitives.branches_of(eqn):  # the first operand says which
        assert len(branch.in_avals) == len(eqn.invars) - 1


@pytest.mark.parametrize("transposes", [True, False])
def test_a_linear_solve_tells_whose_constants_an_operand_is(transposes):
    """Each of its programs, called with the operands said to be its constants, does what its name says."""

    def fn(of_product, of_solve, of_transpose, b):
        return lax.custom_linear_solve(
            lambda x: of_product * x,
            b,
            lambda _, y: y / of_solve + 0 * of_solve**2,
            (lambda _, y: y / of_transpose) if transposes else None,
            symmetric=False,
        )

    given = [jnp.array([2.0, 3.0]), jnp.array([5.0, 7.0]), jnp.array([11.0, 13.0]), jnp.ones(2)]
    eqn, variables = equation("custom_linear_solve", fn, *given)
    value = dict(zip(variables, given, strict=True))
    solve = primitives.linear_solve_of(eqn)
    want = {"matvec": 2.0 * 1, "vecmat": 2.0 * 1, "solve": 1 / 5, "transpose_solve": 1 / 11}
    assert {name for name, *_ in solve.programs} == (set(want) if transposes else {"matvec", "solve"})
    assert eqn.invars[solve.consts :] == [variables[-1]]
    for name, program, start, stop in solve.programs:
        operands = [value[var] for var in eqn.invars[start:stop]]
        (got,) = jaxpr_as_fun(program)(*operands, given[-1])
        np.testing.assert_allclose(got[0], want[name], rtol=1e-6)


def test_conjugate_gradients_are_a_linear_solve_with_the_matrix_as_a_constant():
    def fn(a, b):
        return jax.scipy.sparse.linalg.cg(lambda x: a @ x, b)[0]

    eqn, _ = equation("custom_linear_solve", fn, jnp.eye(3), jnp.ones(3))
    solve = primitives.linear_solve_of(eqn)
    for _, program, start, stop in solve.programs:
        assert [aval.shape for aval in program.in_avals[: stop - start]] == [
            var.aval.shape for var in eqn.invars[start:stop]
        ]
    assert [var.aval.shape for var in eqn.invars[solve.consts :]] == [(3,)]


def test_a_loop_runs_its_body_as_often_as_it_is_long():
    eqn, _ = equation("scan", lambda h: lax.scan(lambda c, _: (jnp.sin(c), None), h, None, length=5), V)
    ((body, times),) = primitives.bodies(eqn)
    assert ([inner.primitive.name for inner in body.eqns], times) == (["sin"], 5)


# --------------------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize(("call", "remat"), [(jax.jit, False), (jax.checkpoint, True)])
def test_a_call_tells_what_it_runs_and_whether_that_is_rematerialised(call, remat):
    (eqn,) = jax.make_jaxpr(lambda x: call(jnp.sin)(x))(V).jaxpr.eqns
    body, _ = primitives.opened(primitives.callee(eqn))
    assert [inner.primitive.name for inner in body.eqns] == ["sin"]
    assert (primitives.is_remat(eqn), primitives.is_inlined(eqn)) == (remat, not remat)
    assert primitives.custom_rule(eqn) is None


def test_a_call_that_asks_for_a_sharding_is_not_looked_through():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    (eqn,) = jax.make_jaxpr(jax.jit(jnp.sin, out_shardings=here))(V).jaxpr.eqns
    assert not primitives.is_inlined(eqn)


def test_a_function_with_a_jvp_rule_is_no_plain_call():
    @jax.custom_jvp
    def fn(x):
        return jnp.sin(x)

    fn.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
    eqn, _ = equation("custom_jvp_call", fn, V)
    rule = primitives.custom_rule(eqn)
    assert rule.forward
    assert [inner.primitive.name for inner in primitives.opened(rule.body)[0].eqns] == ["sin"]
    assert primitives.callee(eqn) is None


def test_a_function_with_a_vjp_rule_says_that_it_has_no_forward_rule():
    @jax.custom_vjp
    def fn(x):
        return jnp.sin(x)

    fn.defvjp(lambda x: (jnp.sin(x), x), lambda x, c: (c * jnp.cos(x),))
    eqn, _ = equation("custom_vjp_call", fn, V)
    rule = primitives.custom_rule(eqn)
    assert not rule.forward
    assert [inner.primitive.name for inner in primitives.opened(rule.body)[0].eqns] == ["sin"]


# ------------------------------------------------------------------------------------------------------------ products


@pytest.mark.parametrize(
    ("left", "right", "contracted", "batched"),
    [
        ((2, 3, 5), (2, 5, 7), ((2,), (1,)), ((0,), (0,))),
        ((3, 5, 2), (5, 7, 2, 4), ((1,), (0,)), ((2,), (2,))),
        ((3, 4), (5, 3, 4), ((0, 1), (1, 2)), ((), ())),
        ((3,), (4,), ((), ()), ((), ())),
    ],
)
def test_a_product_tells_summed_batched_and_free_axes(left, right, contracted, batched):
    a, b = jnp.ones(left), jnp.ones(right)
    eqn, _ = equation("dot_general", lambda a, b: lax.dot_general(a, b, (contracted, batched)), a, b)
    dot = primitives.dot_of(eqn)
    assert (tuple(map(tuple, dot.contracted)), tuple(map(tuple, dot.batched))) == (contracted, batched)
    shape = [left[axis] for axis in dot.batched[0]]
    shape += [left[axis] for axis in dot.free(0, len(left))] + [right[axis] for axis in dot.free(1, len(right))]
    assert tuple(shape) == eqn.outvars[0].aval.shape


@pytest.mark.parametrize("layout", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CHWN", "IHWO", "NHWC")])
def test_a_convolution_tells_which_axis_is_what_and_how_its_window_moves(layout):
    sizes = {"N": 2, "C": 4, "H": 9, "W": 11}, {"H": 3, "W": 2, "I": 2, "O": 6}
    image, kernel = (jnp.ones([size[axis] for axis in axes]) for size, axes in zip(sizes, layout, strict=False))

    def fn(image, kernel):
        return lax.conv_general_dilated(
            image,
            kernel,
            (2, 1),
            ((1, 2), (0, 3)),
            lhs_dilation=(1, 2),
            rhs_dilation=(2, 1),
            dimension_numbers=layout,
            feature_group_count=2,
        )

    eqn, _ = equation("conv_general_dilated", fn, image, kernel)
    conv = primitives.convolution_of(eqn)
    assert tuple(conv.image) == tuple(map(layout[0].index, "NCHW"))
    assert tuple(conv.kernel) == tuple(map(layout[1].index, "OIHW"))
    assert tuple(conv.out) == tuple(map(layout[2].index, "NCHW"))
    assert (tuple(conv.strides), tuple(conv.padding)) == ((2, 1), ((1, 2), (0, 3)))
    assert (tuple(conv.image_dilation), tuple(conv.kernel_dilation)) == ((1, 2), (2, 1))
    assert (conv.feature_groups, conv.batch_groups) == (2, 1)


def test_a_convolution_tells_groups_of_the_batch():
    def fn(image, kernel):
        return lax.conv_general_dilated(image, kernel, (1,), "VALID", batch_group_count=2)

    eqn, _ = equation("conv_general_dilated", fn, jnp.ones((4, 3, 5)), jnp.ones((6, 3, 2)))
    conv = primitives.convolution_of(eqn)
    assert (conv.feature_groups, conv.batch_groups) == (1, 2)


@pytest.mark.parametrize(
    ("fn", "sizes"),
    [
        (jnp.fft.fft, [4]),
        (jnp.fft.fft2, [3, 4]),
        (lambda x: jnp.fft.rfft(x, n=6), [6]),
        (lambda x: jnp.fft.irfft(x, n=5), [5]),
    ],
)
def test_a_fourier_transform_tells_the_lengths_of_the_trailing_axes(fn, sizes):
    eqn, _ = equation("fft", fn, X)
    assert list(primitives.fft_sizes(eqn)) == sizes


# ------------------------------------------------------------------------------------------------ windows, layout, order


@pytest.mark.parametrize("reduce", [lax.max, lax.min, lax.add])
def test_a_window_is_told_axis_by_axis(reduce):
    name = {lax.max: "reduce_window_max", lax.min: "reduce_window_min", lax.add: "reduce_window_sum"}[reduce]
    start = {lax.max: -jnp.inf, lax.min: jnp.inf, lax.add: 0.0}[reduce]

    def fn(x):
        return lax.reduce_window(x, start, reduce, (2, 3), (1, 2), ((0, 1), (1, 0)), base_dilation=(1, 2))

    eqn, _ = equation(name, fn, X)
    assert primitives.window_along(eqn, 0) == primitives.Window(2, 1, (0, 1), 1)
    assert primitives.window_along(eqn, 1) == primitives.Window(3, 2, (1, 0), 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"])
def test_a_cumulative_operation_tells_its_axis_and_where_it_begins(name, reverse):
    eqn, _ = equation(name, lambda x: getattr(lax, name)(x, axis=1, reverse=reverse), X)
    assert (primitives.axes_of(eqn), primitives.runs_backwards(eqn)) == ((1,), reverse)


@pytest.mark.parametrize(
    ("name", "fn", "axes"),
    [
        ("reduce_sum", lambda x: jnp.sum(x, (0, 2)), (0, 2)),
        ("reduce_max", lambda x: jnp.max(x, 1), (1,)),
        ("argmax", lambda x: lax.argmax(x, 1, jnp.int32), (1,)),
        ("sort", lambda x: lax.sort(x, dimension=1), (1,)),
        ("concatenate", lambda x: lax.concatenate([x, x], 2), (2,)),
        ("rev", lambda x: lax.rev(x, (0, 2)), (0, 2)),
        ("squeeze", lambda x: lax.squeeze(x, (1,)), (1,)),
        ("split", lambda x: lax.split(x, (1, 1), 0), (0,)),
        ("sin", jnp.sin, ()),
    ],
)
def test_the_axes_of_an_operation_are_those_it_was_given(name, fn, axes):
    eqn, _ = equation(name, fn, jnp.ones((2, 1, 4)))
    assert primitives.axes_of(eqn) == axes


def test_padding_is_told_before_after_and_between():
    padding = [(1, 2, 0), (0, -1, 3)]
    eqn, _ = equation("pad", lambda x: lax.pad(x, 0.0, padding), X)
    assert list(primitives.padding_of(eqn)) == padding


@pytest.mark.parametrize(
    ("fn", "taken"),
    [
        (lambda x: lax.slice(x, (0, 1), (3, 4)), [(0, 3, 1), (1, 4, 1)]),
        (lambda x: lax.slice(x, (1, 0), (3, 4), (1, 2)), [(1, 3, 1), (0, 4, 2)]),
    ],
)
def test_a_slice_is_told_by_start_stop_and_step(fn, taken):
    eqn, _ = equation("slice", fn, X)
    assert list(primitives.slice_of(eqn)) == taken
    np.testing.assert_array_equal(fn(X), X[tuple(slice(*along) for along in taken)])


def test_a_transpose_tells_the_operands_axes_in_the_results_order():
    eqn, _ = equation("transpose", lambda x: lax.transpose(x, (2, 0, 1)), jnp.ones((2, 3, 4)))
    assert tuple(primitives.permutation_of(eqn)) == (2, 0, 1)


def test_a_broadcast_tells_where_each_axis_of_the_operand_went():
    eqn, _ = equation("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (5, 3, 2, 4), (1, 3)), X)
    assert tuple(primitives.broadcast_axes(eqn)) == (1, 3)


@pytest.mark.parametrize("order", [None, (1, 0)])
def test_a_reshape_tells_in_which_order_it_reads(order):
    eqn, _ = equation("reshape", lambda x: lax.reshape(x, (2, 6), order), X)
    assert primitives.reshape_order(eqn) == order


def test_an_integer_power_tells_its_exponent():
    eqn, _ = equation("integer_pow", lambda x: x**-3, V)
    assert primitives.exponent_of(eqn) == -3


@pytest.mark.parametrize("left", [True, False])
def test_a_triangular_solve_tells_on_which_side_the_matrix_stands(left):
    a, b = jnp.eye(3), jnp.ones((3, 5) if left else (5, 3))
    eqn, _ = equation("triangular_solve", lambda a, b: lax.linalg.triangular_solve(a, b, left_side=left), a, b)
    assert primitives.matrix_is_left(eqn) is left


# --------------------------------------------------------------------------------------------------------------- indices


def test_a_gather_tells_its_numbers_and_how_much_it_takes():
    numbers = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
    eqn, _ = equation("gather", lambda x, i: lax.gather(x, i, numbers, (1, 2)), X, jnp.array([[2], [0]]))
    assert primitives.index_numbers(eqn) == numbers
    assert tuple(primitives.gather_sizes(eqn)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "scatter"),
    [
        ("scatter", lax.scatter),
        ("scatter-add", lax.scatter_add),
        ("scatter-mul", lax.scatter_mul),
        ("scatter-min", lax.scatter_min),
        ("scatter-max", lax.scatter_max),
    ],
)
def test_a_scatter_tells_its_numbers(name, scatter):
    numbers = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    eqn, _ = equation(name, lambda x, i, u: scatter(x, i, u, numbers), X, jnp.array([[2], [0]]), jnp.ones((2, 4)))
    assert primitives.index_numbers(eqn) == numbers


# --------------------------------------------------------------------------------------- equations and programs as values


@pytest.mark.parametrize(
    "fn", [lambda x, y: x * y + x, lambda x, y: jnp.dot(x, x) * y, lambda x, y: jax.nn.relu(x) + y]
)
def test_the_function_of_an_equation_is_what_it_computes(fn):
    closed = jax.make_jaxpr(fn)(V, V + 1)
    value = dict(zip(closed.jaxpr.invars, (V, V + 1), strict=True))
    for eqn in closed.jaxpr.eqns:
        reads, writes, call = primitives.function_of_equation(eqn)
        assert len(set(reads)) == len(reads)
        value.update(zip(writes, call(*(value[var] for var in reads)), strict=True))
    np.testing.assert_allclose(value[closed.jaxpr.outvars[0]], fn(V, V + 1), rtol=1e-6)


def test_a_pruned_program_computes_some_results_and_nothing_that_only_others_need():
    closed = jax.make_jaxpr(lambda x: (jnp.sin(x), jnp.cos(x) * 2, jnp.exp(jnp.sin(x))))(V)
    call = primitives.pruned(closed, slice(1, 2))
    np.testing.assert_array_equal(call(V)[0], jnp.cos(V) * 2)
    names = {eqn.primitive.name for eqn in jax.make_jaxpr(lambda x: call(x))(V).jaxpr.eqns}
    assert names == {"cos", "mul"}


def test_a_side_effect_is_one_and_printing_or_naming_a_mapped_axis_is_none():
    def acts(x):
        io_callback(lambda _: None, None, x)
        jax.debug.print("{}", x, ordered=True)
        jax.debug.print("{}", x)
        return x

    acting, in_order, printing = jax.make_jaxpr(acts)(V).jaxpr.eqns
    assert primitives.has_side_effect(acting)
    assert primitives.has_side_effect(in_order)
    assert not primitives.has_side_effect(printing)
    assert primitives.only_prints(printing)
    named = jax.make_jaxpr(lambda x: lax.psum(x, "i"), axis_env=[("i", 2)])(V)
    assert not any(map(primitives.has_side_effect, named.jaxpr.eqns))
