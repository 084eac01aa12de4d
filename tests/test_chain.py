"""Chains: what a stage and a chain are, and what they refuse."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close

import jaxchain as jc
from jaxchain import nets

SQUARE, EXP, SIN = (jc.Stage(name, fn) for name, fn in (("square", jnp.square), ("exp", jnp.exp), ("sin", jnp.sin)))
PLAIN = jc.Chain([SQUARE, EXP, SIN])
NET = nets.mlp([3, 4, 4, 2], "tanh")
PARAMS = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(NET.init, jax.random.key(0)))
X = jnp.ones(3)


# -------------------------------------------------------------------------------------------------------- a sequence


def test_a_chain_is_the_composition_of_its_stages():
    np.testing.assert_allclose(PLAIN(0.3), np.sin(np.exp(0.3**2)), rtol=1e-6)


def test_a_chain_composes_to_what_its_stages_do_one_by_one(case):
    out = jax.jit(case.chain)(*case.args)
    assert_close(out, case.states[-1])


def test_a_chain_is_a_sequence_of_its_stages():
    assert len(PLAIN) == 3
    assert PLAIN.names == ("square", "exp", "sin")
    assert PLAIN.names_with_input == ("input", "square", "exp", "sin")
    assert list(PLAIN) == [SQUARE, EXP, SIN]
    assert list(reversed(PLAIN)) == [SIN, EXP, SQUARE]
    assert EXP in PLAIN
    assert PLAIN.index(SIN) == 2


def test_stages_are_found_by_position_and_by_name():
    assert PLAIN[0] is PLAIN["square"] is PLAIN[-3] is SQUARE
    assert PLAIN.position("sin") == 2
    with pytest.raises(IndexError):
        PLAIN[3]


def test_a_name_that_is_no_stage_suggests_the_nearest():
    with pytest.raises(KeyError, match=r"No stage is named 'sine'\. Nearest: sin"):
        PLAIN["sine"]
    with pytest.raises(KeyError, match=r"No stage is named 'zzz'\. Nearest: square, exp, sin"):
        PLAIN["zzz"]


def test_the_repr_shows_the_order_of_evaluation():
    assert repr(PLAIN) == "Chain(square → exp → sin)"


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (0, 1), (1, 3), (1, None), (None, -1), (-2, None)])
def test_a_slice_is_a_chain_of_the_sliced_stages(start, stop):
    part = PLAIN[start:stop]
    assert isinstance(part, jc.Chain)
    assert part.stages == PLAIN.stages[start:stop]


def test_slices_put_together_are_the_whole():
    np.testing.assert_allclose(PLAIN[1:](PLAIN[:1](0.3)), PLAIN(0.3), rtol=1e-6)
    for cut in range(1, len(NET)):
        assert_close(NET[cut:](PARAMS, NET[:cut](PARAMS, X)), NET(PARAMS, X))


def test_a_slice_of_a_slice_is_a_slice():
    assert NET[1:][1:3].names == NET[2:4].names
    assert_close(NET[1:][1:3](PARAMS, jnp.ones(4)), NET[2:4](PARAMS, jnp.ones(4)))


def test_a_slice_takes_the_parameters_of_the_whole_and_its_own():
    part = NET[2:4]
    own = {"dense_1": PARAMS["dense_1"]}
    assert part.init(jax.random.key(0)).keys() == own.keys()
    assert_close(part(PARAMS, jnp.ones(4)), part(own, jnp.ones(4)))


def test_a_slice_without_parameters_takes_those_of_the_whole_or_none():
    part = NET[1:2]
    assert_close(part(PARAMS, X), part(X))


def test_a_chain_cannot_be_changed():
    for change in (
        lambda: setattr(PLAIN, "stages", ()),
        lambda: setattr(PLAIN, "other", 1),
        lambda: setattr(SQUARE, "name", "cube"),
        lambda: delattr(PLAIN, "argnum"),
    ):
        with pytest.raises(AttributeError, match="cannot"):
            change()
    with pytest.raises(TypeError, match="item assignment"):
        PLAIN[0] = SIN


def test_a_chain_does_not_see_later_changes_of_the_list_it_was_made_from():
    stages = [SQUARE, EXP]
    chain = jc.Chain(stages)
    stages.append(SIN)
    assert len(chain) == 2


def test_a_chain_of_a_generator_is_the_chain_of_the_list():
    assert jc.Chain(stage for stage in PLAIN).stages == PLAIN.stages


# -------------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_a_dict_from_the_stages_that_have_any():
    params = NET.init(jax.random.key(0))
    assert list(params) == ["dense_0", "dense_1", "dense_2"]
    assert PLAIN.init(jax.random.key(0)) == {}


def test_every_stage_draws_with_a_key_of_its_own():
    params = nets.mlp([4, 4, 4]).init(jax.random.key(0))
    assert not np.array_equal(params["dense_0"]["w"], params["dense_1"]["w"])


def test_the_same_key_gives_the_same_parameters():
    one, same, other = (NET.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert_close(one, same, tol=0)
    assert not np.array_equal(one["dense_0"]["w"], other["dense_0"]["w"])


def test_a_stage_may_draw_its_parameters_with_numpy():
    chain = jc.Chain([jc.Stage("scale", jnp.multiply, init=lambda _: np.float32(np.random.default_rng(0).normal()))])
    params = chain.init(jax.random.key(0))
    assert_close(chain(params, X), X * params["scale"])


def test_a_chain_works_under_jit_and_vmap():
    xs = jnp.stack([X, 2 * X])
    assert_close(jax.jit(jax.vmap(NET, (None, 0)))(PARAMS, xs)[1], jax.jit(NET)(PARAMS, 2 * X))


def test_a_chain_with_an_argnum_takes_its_input_there():
    class Both:
        """The side inputs of the only stage: all other arguments."""

        def __call__(self, *others):
            return (others,)

    chain = jc.Chain([jc.Stage("affine", lambda a, b, x: a * x + b)], sides=Both(), argnum=1)
    assert float(chain(2.0, 5.0, 1.0)) == 11.0  # a, x, b
    sweep = jc.reverse_sweep(chain, (jnp.array(2.0), jnp.array(5.0), jnp.array(1.0)), jnp.array(1.0))
    assert [float(cotangent) for cotangent in sweep.arg_cotangents] == [5.0, 2.0, 1.0]


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: jc.Chain([]), ValueError, "A chain needs at least one stage; this one has none."),
        (lambda: PLAIN[2:2], ValueError, "A chain needs at least one stage"),
        (lambda: jc.Chain([SIN, EXP, SIN]), ValueError, "used more than once: ['sin']"),
        (lambda: jc.Chain([SIN, jnp.exp]), TypeError, "Wrap it: jc.Stage(name, function)."),
        (lambda: jc.Stage("", jnp.sin), ValueError, "non-empty string; this one was given ''"),
        (lambda: jc.Stage("  ", jnp.sin), ValueError, "non-empty string; this one was given '  '"),
        (lambda: jc.Stage(3, jnp.sin), ValueError, "non-empty string; this one was given 3"),
        (lambda: jc.Stage("input", jnp.sin), ValueError, "cannot be named 'input'"),
        (lambda: jc.Stage("sin", 3), TypeError, "Stage 'sin': fn must be callable, but it is 3"),
        (lambda: jc.Stage("sin", jnp.sin, init=1), TypeError, "Stage 'sin': init must be callable, but it is 1"),
        (lambda: PLAIN[::2], ValueError, "its step must be 1, not 2"),
        (lambda: PLAIN[::-1], ValueError, "its step must be 1, not -1"),
        (lambda: PLAIN(), TypeError, "0 arguments were given"),
        (lambda: PLAIN(1.0, 2.0), TypeError, "call it with the state alone, not with 2 arguments"),
        (lambda: NET(X), TypeError, "this chain takes two arguments: chain(params, x)"),
        (lambda: NET(PARAMS, X, X), TypeError, "It was given 3"),
        (lambda: NET[1:2]({"foreign": 1}, X), TypeError, "call it with the state alone"),
    ],
)
def test_what_is_no_chain_is_refused(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


FOREIGN = nets.mlp([3, 5, 4, 2], "tanh")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            list(PARAMS.values()),
            "Parameters are a dict from stage name to that stage's parameters, but a list was given",
        ),
        (None, "but a NoneType was given"),
        ({name: PARAMS[name] for name in ("dense_0", "dense_2")}, "no entry for ['dense_1']"),
        ({**PARAMS, "dense_9": 1}, "entries for ['dense_9'], which are no stages here"),
        ({"conv_0": 1}, "no entry for ['dense_0', 'dense_1', 'dense_2'] and entries for ['conv_0']"),
        (
            jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(FOREIGN.init, jax.random.key(0))),
            "Parameters of stage 'dense_0' are {'b': float32[5], 'w': float32[5,3]}, "
            "but the stage takes {'b': float32[4], 'w': float32[4,3]}",
        ),
        ({**PARAMS, "dense_1": PARAMS["dense_1"]["w"]}, "Parameters of stage 'dense_1' are float32[4,4]"),
        ({**PARAMS, "dense_1": {"w": PARAMS["dense_1"]["w"]}}, "Parameters of stage 'dense_1' are {'w': float32[4,4]}"),
    ],
)
def test_parameters_of_another_chain_are_refused(params, message):
    with pytest.raises(jc.ParameterMismatchError, match=re.escape(message)) as error:
        NET(params, X)
    assert "chain.init(key)" in str(error.value)


def test_a_state_that_the_next_stage_cannot_take_names_stage_and_shape():
    chain = jc.Chain([SQUARE, jc.Stage("project", lambda x: jnp.ones((2, 4)) @ x)])
    for run, x in ((chain, X), (jax.jit(chain), X), (jax.vmap(chain), jnp.stack([X, X]))):
        with pytest.raises(jc.StageError, match=r"Stage 'project' cannot be applied.*float32\[3\]"):
            run(x)


def test_a_wrong_input_names_the_first_stage():
    with pytest.raises(jc.StageError, match=r"Stage 'dense_0'.*float32\[7\]"):
        NET(PARAMS, jnp.ones(7))


def test_a_stage_error_is_a_value_error_that_remembers_its_cause():
    with pytest.raises(ValueError, match="Stage 'dense_0'") as error:
        NET(PARAMS, jnp.ones(7))
    assert isinstance(error.value.__cause__, TypeError)


def test_jax_errors_about_traced_values_pass_unchanged():
    chain = jc.Chain([jc.Stage("branch", lambda x: x if x > 0 else -x)])
    assert float(chain(-1.0)) == 1.0
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(chain)(1.0)


def test_other_errors_of_a_stage_pass_unchanged():
    chain = jc.Chain([jc.Stage("broken", lambda x: x["missing"])])
    with pytest.raises(KeyError, match="missing"):
        chain({"x": X})
