"""Names that a person recognises, unique, and found again by what they begin with."""

import inspect

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from agreement import plain, some
from conftest import draw
from jax import lax

import jaxchain as jc

X = some(4)
W = some(4, 4, seed=1)
NOISE = ("jvp", "vmap", "transpose(", "~", "->", "<", ">", "pjit", "_call", "(", ")", "//", " ")


def line_of(fun, text):
    """The line of this file where ``fun`` has ``text``."""
    lines, start = inspect.getsourcelines(fun)
    return start + next(number for number, line in enumerate(lines) if text in line)


# ---------------------------------------------------------------------------------------- plain functions: the source


def unnamed(w, x):
    x = w @ x
    x = jnp.sin(x)
    x = jnp.sum(x)
    return jnp.exp(x)


def test_a_plain_function_is_named_by_operation_and_source_line():
    start = line_of(unnamed, "w @ x")
    want = (f"{word}@test_names.py:{start + k}" for k, word in enumerate(["dot", "sin", "reduce_sum", "exp"]))
    assert jc.discover(unnamed, W, X).names == tuple(want)


def helper(x):
    return jnp.cos(x)


def calling(x):
    x = jnp.sin(x)
    return helper(x)


def test_the_line_is_the_innermost_one_that_the_user_wrote():
    first, second = jc.discover(calling, X).names
    assert first == f"sin@test_names.py:{line_of(calling, 'jnp.sin')}"
    assert second == f"cos@test_names.py:{line_of(helper, 'jnp.cos')}"


def library(x):
    x = jax.nn.relu(x)
    x = jax.nn.softplus(x)
    x = jnp.clip(x, 0.1, 0.5)
    x = jnp.cumsum(x)
    x = jnp.fft.fft(x)
    x = jnp.abs(x)
    return jnp.linalg.norm(x)


LIBRARY = ("relu", "softplus", "clip", "cumsum", "fft", "abs", "norm")


def test_a_library_function_is_named_by_its_own_name():
    assert plain(jc.discover(library, X).names) == LIBRARY


def test_a_library_function_is_placed_at_the_line_that_calls_it():
    start = line_of(library, "relu")
    names = jc.discover(library, X).names
    assert names == tuple(f"{word}@test_names.py:{start + k}" for k, word in enumerate(LIBRARY))


def relu_here(x):
    return jax.nn.relu(x)


def relu_there(x):
    return jnp.sin(jax.nn.relu(x))


def test_a_library_function_traced_before_elsewhere_is_placed_at_the_line_that_calls_it_now():
    for fun in (relu_here, relu_there, relu_here):
        assert jc.discover(fun, X).names[0] == f"relu@test_names.py:{line_of(fun, 'jax.nn.relu')}"


@jax.jit
def jitted(x):
    x = jnp.sin(x)
    return jnp.exp(x)


def test_lines_inside_a_jitted_function_are_its_own():
    start = line_of(inspect.unwrap(jitted), "jnp.sin")
    assert jc.discover(jitted, X).names == (f"sin@test_names.py:{start}", f"exp@test_names.py:{start + 1}")


def test_a_jitted_function_inside_another_is_a_scope():
    assert jc.discover(lambda x: jnp.tanh(jitted(x)), X).names == ("jitted/sin", "jitted/exp", "tanh")


def test_two_operations_of_one_line_are_numbered():
    def fun(w, x):
        return jnp.tanh(w @ jnp.tanh(w @ x))

    assert plain(jc.discover(fun, W, X).names) == ("dot_0", "tanh_0", "dot_1", "tanh_1")


def test_a_loop_in_python_numbers_its_rounds():
    def fun(x):
        for _ in range(3):
            x = jnp.sin(x)
        return x

    line = line_of(fun, "jnp.sin")
    assert jc.discover(fun, X).names == tuple(f"sin_{k}@test_names.py:{line}" for k in range(3))


def test_a_custom_rule_is_named_after_its_function():
    @jax.custom_jvp
    def my_activation(x):
        return jnp.maximum(x, 0)

    my_activation.defjvp(lambda p, t: (my_activation(p[0]), t[0]))
    assert plain(jc.discover(my_activation, X).names) == ("my_activation",)


def test_a_doubled_cond_is_named_after_the_cond():
    assert plain(jc.discover(lambda x: lax.cond(True, jnp.sin, jnp.cos, x) * 2, X).names) == ("cond",)


# ---------------------------------------------------------------------------------------------------------- scopes


def test_named_scopes_are_names():
    def fun(w, x):
        with jax.named_scope("encoder"):
            x = w @ x
        with jax.named_scope("decoder"):
            return jnp.sin(x)

    assert jc.discover(fun, W, X).names == ("encoder", "decoder")


def test_nested_scopes_are_paths():
    def fun(w, x):
        for layer in range(2):
            with jax.named_scope(f"layer_{layer}"):
                with jax.named_scope("linear"):
                    x = w @ x
                with jax.named_scope("activation"):
                    x = jnp.sin(x)
        return x

    want = ("layer_0/linear", "layer_0/activation", "layer_1/linear", "layer_1/activation")
    assert jc.discover(fun, W, X).names == want


def test_stages_that_share_a_scope_add_their_operation():
    def fun(w, x):
        with jax.named_scope("layer"):
            x = jnp.tanh(w @ x)
        with jax.named_scope("head"):
            return jnp.sum(x)

    assert jc.discover(fun, W, X).names == ("layer/dot", "layer/tanh", "head")


def test_a_scope_around_the_whole_function_is_left_out():
    def fun(w, x):
        with jax.named_scope("model"), jax.named_scope("body"):
            with jax.named_scope("linear"):
                x = w @ x
            with jax.named_scope("activation"):
                return jnp.sin(x)

    assert jc.discover(fun, W, X).names == ("linear", "activation")


def test_a_scope_entered_twice_is_numbered():
    def fun(w, x):
        for _ in range(2):
            with jax.named_scope("linear"):
                x = w @ x
            with jax.named_scope("activation"):
                x = jnp.sin(x)
        return x

    assert jc.discover(fun, W, X).names == ("linear_0", "activation_0", "linear_1", "activation_1")


def test_what_is_left_of_a_scope_beside_an_inner_one_is_not_named_as_if_it_were_all_of_it():
    def fun(w, x):
        with jax.named_scope("block"):
            with jax.named_scope("linear"):
                x = w @ x
            x = jnp.sin(x)
        with jax.named_scope("head"):
            return jnp.sum(x)

    assert jc.discover(fun, W, X).names == ("block/linear", "block/sin", "head")


def test_scopes_that_look_like_numbered_names_stay_unique():
    def fun(x):
        for name in ("a", "a_0", "b", "a", "a_1"):
            with jax.named_scope(name):
                x = jnp.sin(x)
        return x

    names = jc.discover(fun, X).names
    assert len(set(names)) == 5


def test_a_scope_named_input_does_not_take_the_name_of_the_chain_input():
    def fun(w, x):
        with jax.named_scope("input"):
            x = w @ x
        with jax.named_scope("output"):
            return jnp.sin(x)

    chain = jc.discover(fun, W, X)
    assert chain.names_with_input == ("input", "input_stage", "output")


# ------------------------------------------------------------------------------------------------------------- noise


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.relu(nn.Dense(4)(x)))


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
        for number in range(2):
            x = x + Inner(name=f"inner_{number}")(x)
        return nn.Dense(2, name="head")(x)


def linen():
    module = Outer()
    return module.apply, (draw(jax.eval_shape(module.init, jax.random.key(0), X)), X)


def equinox():
    params, rest = eqx.partition(eqx.nn.MLP(4, 2, 3, 2, key=jax.random.key(0)), eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, rest)(x), (params, X)


def transformed(build):
    fun, args = build()
    return {
        "itself": (fun, args),
        "jit": (jax.jit(fun), args),
        "vmap": (jax.vmap(fun, (None, 0)), (*args[:-1], args[-1][None])),
        "checkpoint": (jax.checkpoint(fun), args),
        "grad": (jax.grad(lambda *a: jnp.sum(fun(*a) ** 2), argnums=-1), args),
        "jvp": (lambda p, x: jax.jvp(lambda x: fun(p, x), (x,), (x,))[1], args),
    }


@pytest.mark.parametrize("granularity", ["finest", "default", "module"])
@pytest.mark.parametrize("transform", ["itself", "jit", "vmap", "checkpoint", "grad", "jvp"])
@pytest.mark.parametrize("build", [linen, equinox])
def test_names_are_unique_and_without_a_frameworks_or_a_transforms_noise(build, transform, granularity):
    fun, args = transformed(build)[transform]
    names = jc.discover(fun, *args, granularity=granularity).names
    assert len(set(names)) == len(names)
    for name in names:
        assert name
        assert name == name.strip("/_ ")
        assert not [noise for noise in NOISE if noise in name], name


@pytest.mark.parametrize("transform", ["jit", "vmap", "checkpoint"])
@pytest.mark.parametrize("build", [linen, equinox])
def test_jit_vmap_and_checkpoint_do_not_change_the_names(build, transform):
    cases = transformed(build)
    one, other = (jc.discover(fun, *args).names for fun, args in (cases["itself"], cases[transform]))
    assert one == other


def test_derivatives_inside_a_plain_function_are_named_without_the_transforms_marks():
    def fun(x):
        return jax.hessian(lambda x: jnp.sum(jnp.sin(x) ** 3))(x)

    for granularity in ("finest", "default", "module"):
        for name in jc.discover(fun, X, granularity=granularity).names:
            assert not [noise for noise in NOISE if noise in name], name


# ------------------------------------------------------------------------------------------------------------ look-up


class Multi(nn.Module):
    @nn.compact
    def __call__(self, x):
        for number in range(2):
            with jax.named_scope(f"Block_{number}"):
                x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
                x = x + nn.Dense(4)(nn.tanh(nn.Dense(8)(x)))
        return x


@pytest.fixture(scope="module")
def chain():
    module, x = Multi(), some(3, 4)
    return jc.discover(module.apply, draw(jax.eval_shape(module.init, jax.random.key(0), x)), x)


def test_a_stage_is_found_by_what_its_name_begins_with(chain):
    assert chain["Block_0/Multi"] is chain[0]
    assert chain["Block_1/Multi"] is chain[2]


def test_a_whole_name_wins_over_names_that_begin_with_it():
    def fun(x):
        for name in ("a", "ab", "abc"):
            with jax.named_scope(name):
                x = jnp.sin(x)
        return x

    found = jc.discover(fun, X)
    assert found["a"] is found[0]
    assert found["ab"] is found[1]


def test_an_ambiguous_beginning_lists_the_stages_it_could_mean(chain):
    with pytest.raises(KeyError) as error:
        chain["Block_0"]
    assert all(name in str(error.value) for name in chain.names[:2])
    assert not any(name in str(error.value) for name in chain.names[2:])
    assert "2 stages" in str(error.value)


def test_an_unknown_name_suggests_the_nearest(chain):
    with pytest.raises(KeyError, match=r"No stage is named 'Blok_1/MultiHead'\. Nearest: .*Block_1/MultiHead"):
        chain["Blok_1/MultiHead"]


def test_a_whole_block_can_be_taken_by_position(chain):
    part = chain[chain.position("Block_1/Multi") :]
    assert part.names == chain.names[2:]


def test_a_name_is_in_the_jaxpr_of_its_stage(chain):
    state = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    lowered = jax.jit(lambda *args: chain(*args)).lower(
        draw(jax.eval_shape(Multi().init, jax.random.key(0), state)), some(3, 4)
    )
    text = lowered.as_text(debug_info=True)
    assert all(name in text for name in chain.names)


def test_a_scope_without_a_printable_name_names_nothing():
    def fun(x):
        with jax.named_scope(" "):
            x = jnp.sin(x)
        with jax.named_scope("half \ud800"):
            return jnp.outer(x, x) @ x

    blank, half = jc.discover(fun, X).names
    assert blank.startswith("sin")
    assert half.startswith("half \\ud800")
    assert str(jc.discover(fun, X)).encode()
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        jc.Stage("half \ud800", jnp.sin)


@pytest.mark.parametrize(
    ("children", "name"),
    [
        (["Dense_1", "Dense_0"], "both/Dense"),
        (["key_proj", "query_proj"], "both/key_proj..query_proj"),
        (["query", "queue"], "both/query..queue"),
        (["attn_in", "attn_out"], "both/attn"),
        (["up"], "both/up"),
    ],
)
def test_modules_that_no_cut_parts_are_named_by_what_they_have_in_common_else_first_and_last(children, name):
    def fun(w, x):
        with jax.named_scope("both"):
            parts = []
            for child in children:
                with jax.named_scope(child):
                    parts.append(w @ x)
            x = jnp.tanh(sum(parts) * jnp.sum(x))
        with jax.named_scope("end"):
            return jnp.sin(x)

    assert jc.discover(fun, W, X, granularity="finest").names[0] == name


def test_a_long_scope_is_named_without_its_middle():
    def fun(x):
        with jax.named_scope("begin" + "q" * 3000 + "end"):
            x = jnp.sin(x)
        with jax.named_scope("head"):
            return jnp.cos(x)

    name = jc.discover(fun, X).names[0]
    assert len(name) == 120
    assert name.startswith("beginq")
    assert name.endswith("qend")


@eqx.filter_jit
def checked(x):
    return eqx.error_if(x, jnp.any(x > 9), "too large") * 2


def test_what_a_package_has_jitted_is_of_a_line_of_the_users():
    checked(X)  # so that its trace is an old one, which has no caller
    sources = {row.source for row in jc.trace(lambda x: jnp.sin(checked(x)), X).rows if row.source}
    assert {source.split(":")[0] for source in sources} == {"test_names.py"}
