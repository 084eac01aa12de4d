"""`jacobian` against jax.jacfwd and jax.jacrev: result, structure, options, cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, tolerance

import jaxchain as jc
from jaxchain.cost.measure import flops
from jaxchain.jacobians import modes


def pair(x, y):
    return {"sum": jnp.sin(x["a"]) @ y, "outer": [jnp.outer(y, x["b"]), jnp.sum(x["a"] ** 2)]}


X, Y = {"a": draw(jnp.zeros((2, 3)), 1), "b": draw(jnp.zeros(2), 2)}, draw(jnp.zeros(3), 3)
FUNCTIONS = {
    "tall": (lambda x: jnp.concatenate([jnp.sin(x), x**2]), (draw(jnp.zeros(3)),)),
    "wide": (lambda x: jnp.sin(x[:2]) * x[2], (draw(jnp.zeros(5)),)),
    "scalar to scalar": (jnp.sin, (jnp.array(0.3),)),
    "scalar to image": (lambda t: t * jnp.ones((2, 3)), (jnp.array(0.3),)),
    "image to scalar": (jnp.sum, (draw(jnp.zeros((2, 3))),)),
    "pytree to pytree": (lambda x: pair(x, Y), (X,)),
    "number": (lambda x: jnp.stack([x, x * x]), (0.5,)),
    "mixed dtypes": (
        lambda x: {"low": x["f32"].astype(jnp.bfloat16) * 2, "high": x["bf16"].astype(jnp.float32) ** 2},
        ({"f32": jnp.ones(3), "bf16": jnp.ones(2, jnp.bfloat16)},),
    ),
}
every_function = pytest.mark.parametrize(("fun", "args"), FUNCTIONS.values(), ids=FUNCTIONS)
BY_JAX = {"forward": jax.jacfwd, "reverse": jax.jacrev}
MODES = ("auto", "mixed", *BY_JAX)
every_mode = pytest.mark.parametrize("mode", MODES)
each_mode = pytest.mark.parametrize("mode", BY_JAX)


@each_mode
@pytest.mark.parametrize("chunk_size", [None, 2])
@every_function
def test_each_mode_is_jaxs_own(fun, args, mode, chunk_size):
    jac = jc.jacobian(fun, mode=mode, chunk_size=chunk_size)
    assert_close(*jax.jit(lambda *args: (jac(*args), BY_JAX[mode](fun)(*args)))(*args))


@pytest.mark.parametrize("mode", ["auto", "mixed"])
@every_function
def test_planned_modes_have_the_values_and_structure_of_jaxs(fun, args, mode):
    run = jax.jit(lambda *args: (jc.jacobian(fun, mode=mode)(*args), jax.jacfwd(fun)(*args), jax.jacrev(fun)(*args)))
    got, forward, reverse = run(*args)
    assert jax.tree.structure(got) == jax.tree.structure(reverse)
    for leaf, one, other in zip(*map(jax.tree.leaves, (got, forward, reverse)), strict=True):
        assert leaf.dtype in (one.dtype, other.dtype)
        assert_close(leaf.astype(float), other.astype(float), tol=tolerance(one, other))


@each_mode
def test_the_chunk_size_changes_no_result(mode):
    fun, args = FUNCTIONS["pytree to pytree"]
    sizes = (None, 1, 3, 4, 5, 100)
    whole, *chunked = jax.jit(lambda *args: [jc.jacobian(fun, mode=mode, chunk_size=size)(*args) for size in sizes])(
        *args
    )
    for got in chunked:
        assert_close(got, whole)


@pytest.mark.parametrize("argnums", [0, 1, -1, -2, (0,), (0, 1), (1, 0), (-1, 0), [0, 1]], ids=str)
@pytest.mark.parametrize("chunk_size", [None, 2])
@each_mode
def test_argnums_are_jaxs_own(mode, argnums, chunk_size):
    jac = jc.jacobian(pair, argnums, mode=mode, chunk_size=chunk_size)
    assert_close(*jax.jit(lambda *args: (jac(*args), BY_JAX[mode](pair, argnums)(*args)))(X, Y))


@every_mode
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_aux_is_returned_beside_the_jacobian(mode, chunk_size):
    def fun(x):
        return jnp.sin(x), {"twice": 2 * x, "kind": jnp.arange(2)}

    x = jnp.arange(3.0)
    jac, aux = jc.jacobian(fun, mode=mode, has_aux=True, chunk_size=chunk_size)(x)
    assert_close((jac, aux), jax.jit(jax.jacrev(fun, has_aux=True))(x))


@every_mode
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_keyword_arguments_are_not_differentiated(mode, chunk_size):
    def fun(x, *, scale, power=2):
        return scale * x**power

    x = jnp.arange(1.0, 4.0)
    got = jc.jacobian(fun, mode=mode, chunk_size=chunk_size)(x, scale=jnp.array(3.0), power=3)
    np.testing.assert_allclose(got, np.diag(9 * x**2), rtol=1e-6)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_a_holomorphic_function_has_a_complex_jacobian(mode):
    z = draw(jnp.zeros(3, jnp.complex64))
    fun = lambda z: jnp.stack([z[0] * z[1], jnp.exp(z[2])])  # noqa: E731
    assert_close(jc.jacobian(fun, mode=mode, holomorphic=True)(z), jax.jit(jax.jacrev(fun, holomorphic=True))(z))


def test_a_real_function_is_not_holomorphic():
    with pytest.raises(TypeError, match=r"holomorphic=True requires inputs with complex dtype"):
        jc.jacobian(lambda x: jnp.sin(jnp.cos(x)), holomorphic=True)(jnp.ones(40))


def test_an_order_of_real_matrices_is_not_holomorphic():
    with pytest.raises(ValueError, match='mode="mixed" multiplies real Jacobians'):
        jc.jacobian(jnp.sin, mode="mixed", holomorphic=True)


def test_the_jacobian_of_a_chain_is_that_of_its_function(mlp):
    found = jax.jit(lambda *args: [jc.jacobian(mlp.chain, -1, mode=mode)(*args) for mode in MODES])
    for got in found(*mlp.args):
        assert_close(got, jax.jit(jax.jacrev(mlp.chain, 1))(*mlp.args))
    assert_close(jax.jit(jc.jacobian(mlp.chain))(*mlp.args), jax.jit(jax.jacrev(mlp.chain, 1))(*mlp.args))
    assert_close(jax.jit(jc.jacobian(mlp.chain, 0))(*mlp.args), jax.jit(jax.jacrev(mlp.chain))(*mlp.args))


def test_auto_differentiates_what_only_reverse_mode_can_where_sizes_are_equal():
    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (rounded(x), None), lambda _, cotangent: (cotangent,))
    np.testing.assert_array_equal(jc.jacobian(rounded)(jnp.ones(3)), np.eye(3))


# ------------------------------------------------------------------------------------------- under transformations


def cubic(x):
    return jnp.sum(jnp.sin(x) ** 2) * x


@every_mode
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_jacobians_work_under_jit_vmap_grad_and_themselves(mode, chunk_size):
    def every_way(jac, x):
        batch = jax.vmap(jac)(jnp.stack([x, 2 * x]))
        return jac(x), batch, jax.grad(lambda x: jnp.sum(jac(x) ** 2))(x)

    jac = jc.jacobian(cubic, mode=mode, chunk_size=chunk_size)
    twice = jc.jacobian(jac, mode=mode, chunk_size=chunk_size)
    got, want, hessians = jax.jit(
        lambda x: (every_way(jac, x), every_way(jax.jacrev(cubic), x), (twice(x), jax.hessian(cubic)(x)))
    )(draw(jnp.zeros(3)))
    assert_close(got, want)
    assert_close(*hessians)


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_any_two_modes_nested_give_the_hessian(outer, inner):
    loss = lambda x: jnp.sum(jnp.cos(x) * x[::-1])  # noqa: E731
    x = draw(jnp.zeros(4))
    assert_close(jax.jit(jc.jacobian(jc.jacobian(loss, mode=inner), mode=outer))(x), jax.jit(jax.hessian(loss))(x))


def test_the_wrapper_keeps_name_and_docstring():
    def fun(x):
        """What it is."""
        return x

    assert (jc.jacobian(fun).__name__, jc.jacobian(fun).__doc__) == ("fun", "The Jacobian of fun.\n\nWhat it is.")


def test_the_jacobian_of_a_chain_does_not_take_the_docstring_of_all_chains(mlp):
    assert jc.jacobian(mlp.chain).__doc__ == "The Jacobian of Chain."


# ------------------------------------------------------------------------------------------------------------- cost


@pytest.mark.parametrize(("n", "m"), [(4, 64), (64, 4), (32, 32)])
def test_auto_costs_no_more_than_the_cheaper_of_forward_and_reverse(n, m):
    net = jc.nets.mlp([n, 32, 32, m], "tanh")
    args = (jax.eval_shape(net.init, jax.random.key(0)), jax.ShapeDtypeStruct((n,), jnp.float32))
    cost = {mode: flops(jc.jacobian(net, 1, mode=mode), *args) for mode in ("auto", "forward", "reverse")}
    assert cost["auto"] <= 1.02 * min(cost["forward"], cost["reverse"])
    if n < m:
        assert cost["forward"] < cost["reverse"] / 2
    if n > m:
        assert cost["reverse"] < cost["forward"] / 2


# --------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"Unknown mode 'backward'\. Known: auto, forward, reverse"):
        jc.jacobian(jnp.sin, mode="backward")


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_a_chunk_size_below_one_is_refused(chunk_size):
    with pytest.raises(ValueError, match=f"at least 1 or None, but {chunk_size} was given"):
        jc.jacobian(jnp.sin, chunk_size=chunk_size)


def test_chunks_of_a_holomorphic_jacobian_are_refused():
    with pytest.raises(ValueError, match=r"chunk_size computes real Jacobians; leave it out"):
        jc.jacobian(jnp.sin, chunk_size=1, holomorphic=True)


@pytest.mark.parametrize("argnums", [2, -3, (0, 2)])
def test_an_argument_that_is_not_there_is_refused(argnums):
    for mode, chunk_size in (("auto", None), ("forward", 1), ("reverse", 1)):
        with pytest.raises(ValueError, match=r"names argument -?\d, but 2 positional arguments were given"):
            jc.jacobian(pair, argnums, mode=mode, chunk_size=chunk_size)(X, Y)


@every_mode
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_an_integer_input_is_refused(mode, chunk_size):
    with pytest.raises(TypeError, match=r"int32"):
        jc.jacobian(lambda x: x * 1.0, mode=mode, chunk_size=chunk_size)(jnp.arange(3))


@pytest.mark.parametrize("mode", ["auto", "mixed", "reverse"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_an_integer_output_is_refused(mode, chunk_size):
    with pytest.raises(TypeError, match=r"int32"):
        jc.jacobian(lambda x: jnp.argsort(x), mode=mode, chunk_size=chunk_size)(jnp.arange(3.0))


def test_chunks_of_a_complex_function_are_refused():
    with pytest.raises(TypeError, match=r"an output is complex64\[3\]. Cast it"):
        jc.jacobian(jnp.fft.fft, chunk_size=2)(jnp.ones(3))


@pytest.mark.parametrize("mode", ["auto", "mixed"])
def test_dtypes_are_those_of_jacrev_also_where_they_are_mixed(mode):
    def fun(x):
        return jnp.tanh(x), jnp.tanh(x[:2]).astype(jnp.bfloat16) * 2

    for f, x in ((fun, jnp.ones(6)), (lambda a: a * jnp.ones(9, jnp.bfloat16), jnp.float32(2))):
        got, want = jc.jacobian(f, mode=mode)(x), jax.jit(jax.jacrev(f))(x)
        assert [leaf.dtype for leaf in jax.tree.leaves(got)] == [leaf.dtype for leaf in jax.tree.leaves(want)]


def test_auto_leaves_to_jax_what_cannot_be_planned():
    def loud(x):
        jax.debug.callback(lambda _: None, x[0])
        return jnp.sin(x)

    def branching(x):
        return x * 3 if x[0] > 0 else x

    x = jnp.ones(3)
    for fun in (loud, branching):
        np.testing.assert_allclose(jc.jacobian(fun)(x), jax.jacrev(fun)(x))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: jc.jacobian(None), TypeError, "needs a function"),
        (lambda: jc.jacobian(jnp.multiply, (0, 0))(1.0, 2.0), ValueError, "names an argument twice"),
        (lambda: jc.jacobian(jnp.sin, "x")(1.0), TypeError, "argnums is the position of an argument"),
        (lambda: jc.jacobian(jnp.sin, has_aux=True)(1.0), TypeError, "has_aux=True wants a function that returns"),
        (lambda: jc.plan(jnp.sin, jnp.ones(3)), TypeError, "args is the tuple"),
        (
            lambda: jc.compare_modes(jnp.sin, jnp.ones(3), repeats=0),
            ValueError,
            "repeats is the number .* at least 1, but 0 was given",
        ),
        (lambda: jc.jacobian_rows(jnp.sin, [0.5]), TypeError, "rows are the numbers of rows"),
        (lambda: jc.jacobian_diagonal(jnp.sin, 7)(jnp.ones(3)), ValueError, "argnums=7 names argument 7"),
    ],
)
def test_nonsense_is_refused_by_the_argument_that_is_wrong(build, error, message):
    with pytest.raises(error, match=message):
        build()


def planned(monkeypatch):
    """A list that grows by one whenever a call plans."""
    plans, decide = [], modes.decide
    monkeypatch.setattr(modes, "decide", lambda *args: plans.append(args) or decide(*args))
    return plans


def test_calls_outside_jit_plan_once_a_program_not_once_a_call(monkeypatch):
    plans, w = planned(monkeypatch), draw(jnp.zeros((5, 3)), 0)
    jac = jc.jacobian(lambda x: jnp.tanh(w @ jax.nn.relu(x)))
    for x in (draw(jnp.zeros(3), 0), draw(jnp.zeros(3), 1), draw(jnp.zeros(3), 0)):
        assert_close(jac(x), jax.jit(jax.jacrev(lambda x: jnp.tanh(w @ jax.nn.relu(x))))(x))
    assert len(plans) == 1
    jac(draw(jnp.zeros((3, 2)), 0))
    assert len(plans) == 2


def test_what_a_function_closes_over_may_change_between_calls():
    state = {"scale": 1.0, "w": jnp.ones(3), "data": np.ones(3, "float32"), "square": False}

    def fun(x):
        y = x * state["w"] * state["data"] * state["scale"]
        return y**2 if state["square"] else y

    jac, x = jc.jacobian(fun), draw(jnp.zeros(3), 0)
    for key, value in [("scale", 2.0), ("w", draw(jnp.zeros(3), 1)), ("square", True), ("scale", 1.0)]:
        state[key] = value
        assert_close(jac(x), jax.jit(jax.jacrev(fun))(x))
    state["data"][:] = 5
    assert_close(jac(x), jax.jit(jax.jacrev(fun))(x))
    with jax.checking_leaks():
        assert_close(
            jax.jit(jax.vmap(jac))(draw(jnp.zeros((2, 3)), 0)),
            jax.jit(jax.vmap(jax.jacrev(fun)))(draw(jnp.zeros((2, 3)), 0)),
        )
