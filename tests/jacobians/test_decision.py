"""One decision: what `jc.plan` and `jac.plan` print is what `jacobian` runs, and XLA counts it so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw, some_params

import jaxchain as jc
from jaxchain.cost.measure import flops

NETS = {
    "64-128-64-10": (jc.nets.mlp([64, 128, 64, 10]), 64, "reverse"),
    "10-64-256": (jc.nets.mlp([10, 64, 256], "tanh", "lecun"), 10, "forward"),
    "64-4-64": (jc.nets.autoencoder([64, 4]), 64, "mixed"),
}
nets = pytest.mark.parametrize("name", NETS)


def at(name):
    net, size, mode = NETS[name]
    return net, (some_params(net), draw(jnp.zeros(size), 2)), mode


@nets
def test_the_plan_is_the_decision_that_the_jacobian_takes(name):
    net, args, mode = at(name)
    decision = jc.plan(net, args)
    assert decision.mode == mode
    assert str(jc.jacobian(net).plan(*args)) == str(decision)
    done = flops(jc.jacobian(net), *args)
    assert done == flops(jc.jacobian(net, mode=mode), *args)
    if mode in ("forward", "reverse"):
        assert done == flops({"forward": jax.jacfwd, "reverse": jax.jacrev}[mode](net, 1), *args)


@nets
def test_the_comparison_and_the_page_show_the_same_decision(name, tmp_path):
    from jaxchain.page.content import page

    net, args, mode = at(name)
    assert f"auto runs {mode} mode" in str(jc.compare_modes(net, *args, repeats=1))
    shown = page(net, args, "title", say=lambda _: None)["plan"]
    assert shown["why"].startswith(f"jc.jacobian runs {mode} mode.")
    assert shown["mode"] == {"mixed": "planned"}.get(mode, mode)


@nets
def test_the_steps_are_those_of_the_mode_and_cost_what_it_costs(name):
    net, args, mode = at(name)
    decision = jc.plan(net, args)
    assert sum(step.cost for step in decision.steps) == pytest.approx(decision.cost)
    assert (len(decision.steps) == 1) == (mode != "mixed")
    assert decision.cost <= min(decision.forward_cost, decision.reverse_cost)


def test_a_plan_of_shapes_is_the_plan_of_arrays():
    net, args, _ = at("64-4-64")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    assert str(jc.plan(net, shapes)) == str(jc.plan(net, args)) == str(jc.jacobian(net).plan(*shapes))


def test_a_decision_is_by_the_arguments_of_the_call():
    decision = jc.jacobian(lambda a, b: jnp.sin(a) * b, (0, 1)).plan(jnp.ones(3), jnp.ones(3))
    assert decision.sizes[0] == 6
    assert "arguments 0, 1" in str(decision)


def test_what_was_asked_for_is_the_reason():
    assert jc.jacobian(jnp.sin, mode="reverse").plan(jnp.ones(3)).why == 'mode="reverse" was asked for.'


def test_what_cannot_be_read_is_left_to_jax_and_said():
    def looks_at_values(x):
        return jnp.sin(x) if x[0] > 0 else jnp.cos(x)

    decision = jc.jacobian(looks_at_values).plan(jnp.ones(3))
    assert decision.mode == "reverse"
    assert decision.why.startswith("The function could not be read")
    assert "reverse mode" in str(decision)
    assert jc.jacobian(looks_at_values)(jnp.ones(3)).shape == (3, 3)


def test_a_memory_limit_is_part_of_the_decision():
    net = jc.nets.mlp([50, 200, 40], "tanh")
    args = some_params(net), draw(jnp.zeros(50), 2)
    whole = jax.jit(jc.jacobian(net)).lower(*args).compile().memory_analysis().temp_size_in_bytes
    decision = jc.jacobian(net, memory_limit=int(whole * 0.9)).plan(*args)
    assert decision.chunk_size is not None
    assert "memory limit" in str(decision)


def test_a_function_is_traced_once():
    calls = []

    def fun(x):
        calls.append(x)
        return jnp.tanh(x) * x[0]

    jax.jit(jc.jacobian(fun)).lower(jnp.ones(5))
    assert len(calls) == 1


def test_a_call_with_aux_traces_once_and_returns_it():
    calls = []

    def fun(x):
        calls.append(x)
        return jnp.tanh(x), {"norm": jnp.linalg.norm(x)}

    jac, aux = jax.jit(jc.jacobian(fun, has_aux=True))(jnp.ones(5))
    want, _ = jax.jit(jax.jacrev(fun, has_aux=True))(jnp.ones(5))
    assert len(calls) == 2
    assert jnp.allclose(jac, want)
    assert jnp.allclose(aux["norm"], jnp.sqrt(5.0))


@pytest.mark.parametrize(
    "how", [{}, {"mode": "forward"}, {"mode": "reverse"}, {"mode": "forward", "holomorphic": True}]
)
def test_a_complex_call_is_jaxs_own_and_the_plan_says_so(how):
    z = jnp.array([1.0 + 2.0j, 0.5 - 1.0j])
    decision = jc.jacobian(jnp.square, **how).plan(z)
    assert decision.plan is None
    assert decision.mode == how.get("mode", "forward")


def test_where_no_mode_exists_the_plan_says_so():
    @jax.custom_vjp
    def only_reverse(x):
        return x / 2

    only_reverse.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))

    def neither(x):
        return jax.lax.while_loop(lambda c: c.sum() > 1, only_reverse, x)

    text = str(jc.plan(neither, (jnp.ones(3),)))
    assert "Neither forward nor reverse mode exists here" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("limit", "error", "sentence"),
    [
        ("1GB", TypeError, "a number of bytes, .* '1GB'"),
        (0, ValueError, "at least 1 .* 0"),
        (-1, ValueError, "at least 1 .* -1"),
    ],
)
def test_a_memory_limit_that_is_none_is_refused_alike_everywhere(limit, error, sentence):
    for call in (
        lambda: jc.jacobian(jnp.sin, memory_limit=limit),
        lambda: jc.plan(jnp.sin, (jnp.ones(3),), memory_limit=limit),
    ):
        with pytest.raises(error, match=sentence):
            call()


def test_a_limit_that_is_refused_names_what_is_really_the_least():
    inner, outer = draw(jnp.zeros((300, 4)), 1), draw(jnp.zeros((4, 16)), 2)

    def fun(x):
        return jnp.tanh(inner @ jnp.tanh(outer @ x))

    with pytest.raises(ValueError, match=r"least that any mode needs is \d+ bytes") as refused:
        jc.plan(fun, (jnp.ones(16),), memory_limit=1)
    least = int("".join(filter(str.isdigit, str(refused.value).partition("needs is")[2])))
    assert jc.plan(fun, (jnp.ones(16),), memory_limit=least).mode


def test_what_is_returned_beside_the_output_is_no_type_of_jaxs_inside():
    _, (number, array) = jc.jacobian(lambda x: (x * 2, (1.5, np.arange(3))), has_aux=True)(jnp.ones(2))
    assert isinstance(number, jax.Array)
    assert isinstance(array, jax.Array)


def test_a_sharding_that_has_no_say_is_refused():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(ValueError, match="sharding spreads the vectors of a basis, of which colours have few"):
        jc.jacobian(jnp.sin, sharding=here, mode="sparse")
    for call in (jc.jacobian, jc.batch_jacobian):
        with pytest.raises(TypeError, match=r"sharding is a jax\.sharding\.Mesh, .* but 3 was given. All devices: "):
            call(jnp.sin, sharding=3)


def test_what_two_calls_compute_alike_counts_once():
    inner, outer = (jnp.ones((3, 3)) * number for number in (0.3, 0.7))

    def net(x):
        return outer @ jnp.tanh(inner @ x)

    def twice(x):  # pulled back, both begin with the same rows times the same weights; pushed, they do not
        return jax.checkpoint(net)(x) + jax.jit(net)(jnp.sin(x))

    x = jnp.ones(3)
    plan = jc.jacobian(twice).plan(x)
    assert plan.reverse_cost < plan.forward_cost
    assert flops(jc.jacobian(twice), x) <= min(flops(jax.jacfwd(twice), x), flops(jax.jacrev(twice), x))
