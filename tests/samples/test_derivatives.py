"""What keeps samples apart is the derivative: what has none may mix, and every kind of primitive is followed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw
from jax import lax
from jax.custom_derivatives import linear_call
from jax.experimental import sparse
from jax.experimental.ode import odeint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from jaxchain.jacobians.batch import batch_jacobian
from jaxchain.samples.place import Place
from jaxchain.samples.proof import SamplesMixError, prove

B = D = 3
X = draw(jnp.zeros((B, D)), 3)
LOWER, MIDDLE, UPPER = jnp.array([0.0, 0.1, 0.2]), jnp.array([2.0, 3.0, 4.0]), jnp.array([0.3, 0.1, 0.0])
SPARSE = sparse.BCOO.fromdense(jnp.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0], [4.0, 0.0, 5.0]]))


def tridiagonal(v, scale=1.0):
    return lax.linalg.tridiagonal_solve(LOWER * scale, MIDDLE * scale, UPPER * scale, v)


def twice_as_others_do():
    """A primitive of another package, evaluated, differentiated and mapped by rules of its own: 2 x, and its kin."""
    twice = Primitive("twice_of_others")
    twice.def_impl(lambda x: 2 * x)
    twice.def_abstract_eval(lambda x: x)
    ad.primitive_jvps[twice] = lambda primals, tangents: (twice.bind(*primals), twice.bind(*tangents))
    batching.primitive_batchers[twice] = lambda args, axes: (twice.bind(*args), axes[0])
    ad.primitive_transposes[twice] = lambda ct, _: [twice.bind(ct)]
    mixing = Primitive("mixing_of_others")
    mixing.def_impl(lambda x: x - x.mean(0))
    mixing.def_abstract_eval(lambda x: x)
    ad.primitive_jvps[mixing] = lambda primals, tangents: (mixing.bind(*primals), tangents[0] - tangents[0].mean(0))
    gate = Primitive("any_of_others")
    gate.def_impl(lambda x: (x > 0).any())
    gate.def_abstract_eval(lambda x: jax.core.ShapedArray((), jnp.dtype(bool)))
    return twice.bind, mixing.bind, gate.bind


twice, mixing, any_positive = twice_as_others_do()


def with_rule(rule):
    """The identity, whose cotangents go through ``rule``."""
    fun = jax.custom_vjp(lambda x: x)
    fun.defvjp(lambda x: (x, None), lambda _, c: (rule(c),))
    return fun


def raising(x, bad):
    """As checked at run time: a callback raises where something is wrong with any sample."""

    def never(_):
        msg = "bad"
        raise RuntimeError(msg)

    kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return lax.cond(bad, lambda: jax.pure_callback(never, kind, jnp.int32(0)), lambda: x)


@jax.custom_jvp
def checked(x):
    return raising(x, jnp.isnan(x).any())


checked.defjvp(lambda p, t: (checked(*p), raising(*t, jnp.isnan(*t).any())))


def linear(transposed):
    return lambda x: linear_call(lambda _, v: 2 * v, lambda _, c: transposed(c), (), jnp.sin(x))


WITHOUT_DERIVATIVE = {
    "argmax": lambda x: x * jnp.argmax(x, 0),
    "rank among the samples": lambda x: x * jnp.argsort(x, 0),
    "stopped mean": lambda x: x * lax.stop_gradient(x.mean(0)),
    "rounded mean": lambda x: x * jnp.round(4 * x.mean(0)) + jnp.sign(x.sum(0)),
    "shared predicate": lambda x: lax.cond((x > 0).all(), jnp.sin, jnp.cos, x),
    "chosen by others": lambda x: jnp.where((x > 0).any(0), jnp.sin(x), jnp.cos(x)),
    "shared number of steps": lambda x: lax.while_loop(lambda c: (c > 0).any(), lambda c: jnp.sin(c) - 0.5, x),
    "counted along the batch": lambda x: lax.scan(lambda n, v: (n + (v > 0).sum(), v * n), 0, x)[1],
    "look-up by what others say": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0) % D, 1),
}
UNMAPPED = {  # JAX cannot map their derivatives, but the proof holds
    "checked": lambda x: checked(jnp.sin(x)),
    "linear call": linear(lambda c: 2 * c),
    "ragged": lambda x: lax.ragged_dot(x, jnp.stack([jnp.eye(D), jnp.ones((D, D))]), jnp.array([1, 2])),
}
KINDS = {
    "named axis before the batch": lambda x: jax.vmap(lambda v: v * lax.pmean(v, "outer"), 1, 1, axis_name="outer")(x),
    "one tridiagonal matrix": jax.vmap(lambda v: tridiagonal(v[:, None])[:, 0]),
    "tridiagonal matrices": jax.vmap(lambda v: tridiagonal(v[:, None], 2 + v[0])[:, 0]),
    "sparse times samples": jax.vmap(lambda v: SPARSE @ jnp.sin(v)),
    "samples times sparse": lambda x: jnp.sin(x) @ SPARSE,
    "sparse samples": jax.vmap(lambda v: sparse.BCOO((SPARSE.data * v[0], SPARSE.indices), shape=(D, D)) @ v),
    "made dense": jax.vmap(lambda v: sparse.BCOO((SPARSE.data * v[0], SPARSE.indices), shape=(D, D)).todense()[0]),
    "made sparse": lambda x: sparse.BCOO.fromdense(x, n_batch=1, nse=D).todense(),
    "odeint": jax.vmap(lambda v: odeint(lambda y, t: -jnp.tanh(y) * y.sum(), v, jnp.array([0.0, 1.0]))[1]),
    "associative scan": jax.vmap(lambda v: lax.associative_scan(jnp.multiply, v)),
    "named axis behind the batch": jax.vmap(jax.vmap(lambda a: a - lax.pmean(a, "inner"), axis_name="inner")),
    "approximate largest": lambda x: lax.approx_max_k(x, 2)[0],
    "primitive of others": lambda x: twice(jnp.sin(x)),
    "mapped primitive of others": jax.vmap(lambda v: twice(v * v.sum())),
    "callback without derivative": lambda x: x * jax.pure_callback(np.sin, x, lax.stop_gradient(x)),
}


def agree(fun, x=X):
    jac = batch_jacobian(fun)
    by = jax.jacfwd if fun is WITHOUT_DERIVATIVE["shared number of steps"] else jax.jacrev
    all_blocks = jnp.moveaxis(by(fun)(x), 2, 1)
    apart = np.eye(len(x), dtype=bool)
    assert not np.any(all_blocks[~apart])
    assert_close(jac(x), all_blocks[apart], tol=1e-4)


@pytest.mark.parametrize("fun", WITHOUT_DERIVATIVE.values(), ids=WITHOUT_DERIVATIVE)
def test_what_carries_no_derivative_may_depend_on_all_samples(fun):
    agree(fun)


@pytest.mark.parametrize("fun", KINDS.values(), ids=KINDS)
def test_every_kind_of_primitive_keeps_samples_apart(fun):
    agree(fun)


@pytest.mark.parametrize("fun", UNMAPPED.values(), ids=UNMAPPED)
def test_a_proof_asks_for_no_mode(fun):
    assert prove(fun, X, B, [0]) == [Place(0)]


MIXING = {
    "tridiagonal along the batch": (tridiagonal, "takes as part of a matrix the batch"),
    "sparse along the batch": (lambda x: SPARSE @ x, "bcoo_dot_general sums over the batch"),
    "samples stored by index": (lambda x: sparse.BCOO((x[:, 0], jnp.arange(B)[:, None]), shape=(B,)).todense(), "stores samples by index"),
    "odeint of all": (lambda x: odeint(lambda y, t: -y * y.sum(0), x, jnp.array([0.0, 1.0]))[1], "split splits the batch"),
    "associative scan along the batch": (lambda x: lax.associative_scan(jnp.multiply, x), "along the batch"),
    "named axis of the batch": (jax.vmap(lambda v: v * lax.pmean(v, "batch"), axis_name="batch"), "psum reduces over the batch"),
    "named axis of the batch, behind another": (jax.vmap(jax.vmap(lambda a: a * lax.pmax(a, "batch"), axis_name="batch"), 1, 1), "pmax reduces over the batch"),
    "transpose of others": (linear(lambda c: c + c.sum(0)), "reduce_sum reduces over the batch"),
    "groups along the batch": (lambda x: lax.ragged_dot(jnp.ones((2, D)), x[:, :, None] * jnp.ones(2), jnp.array([1, 1, 0])), "groups of entries along the batch"),
    "primitive of others": (mixing, "has a derivative rule of its own in which reduce_sum reduces over the batch"),
    "carried on": (lambda x: lax.scan(lambda c, v: (c + v, c * v), jnp.ones(D), x)[1], "carries each sample of the batch on"),
    "index times mean": (lambda x: jnp.argmax(x, 0) * x.mean(0) + x, "reduce_sum reduces over the batch"),
    "rule that asks all cotangents": (with_rule(lambda c: c * (jnp.abs(c).max() < 1)), "in which reduce_max reduces over the batch"),
    "rule that counts cotangents": (with_rule(lambda c: c * (c > 0).sum(0)), "in which reduce_sum reduces over the batch"),
    "rule that stops a mean": (with_rule(lambda c: c - lax.stop_gradient(c.mean(0))), "in which reduce_sum reduces over the batch"),
    "rule that branches": (with_rule(lambda c: lax.cond((c > 0).any(), jnp.zeros_like, lambda c: c, c)), "in which reduce_or reduces over the batch"),
    "rule that asks others' primitive": (with_rule(lambda c: c * any_positive(c)), "in which reduce_or reduces over the batch"),
    "rule that calls back": (with_rule(lambda c: lax.cond((c > 0).any(), lambda c: jax.pure_callback(np.tanh, c, c), lambda c: c, c)), "reduces over the batch"),
    "callback": (lambda x: jax.pure_callback(np.sin, x, x), "pure_callback is a primitive without a rule"),
}  # fmt: skip


@pytest.mark.parametrize(("fun", "reason"), MIXING.values(), ids=MIXING)
def test_where_derivatives_mix_it_is_said(fun, reason):
    with pytest.raises(SamplesMixError, match=re.escape(reason)) as caught:
        batch_jacobian(fun)(X)
    assert "check=False" in str(caught.value)


# ------------------------------------------------------------------------------------------------------ over devices

MESH = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def over_devices(fun, out):
    return jax.shard_map(fun, mesh=MESH, in_specs=P("data", "model"), out_specs=out, check_vma=False)


def proven(fun, samples, out):
    return prove(over_devices(fun, out), jax.ShapeDtypeStruct((samples, 6), jnp.float32), samples, [0])


TALK = {
    "features summed": (lambda x: jnp.sin(x) / lax.psum(x * x, "model"), P("data", "model")),
    "features gathered": (lambda x: lax.all_gather(jnp.sin(x), "model", axis=1, tiled=True), P("data")),
    "features sent on": (lambda x: lax.ppermute(x, "model", [(0, 1), (1, 0)]), P("data", "model")),
}


@pytest.mark.parametrize("samples", [4, 8], ids=["one a device", "two a device"])
@pytest.mark.parametrize(("fun", "out"), TALK.values(), ids=TALK)
def test_devices_that_hold_the_same_samples_may_talk(fun, out, samples):
    assert proven(fun, samples, out) == [Place(0)]


@pytest.mark.parametrize("samples", [4, 8], ids=["one a device", "two a device"])
@pytest.mark.parametrize(
    ("fun", "out", "reason"),
    [
        (lambda x: x - lax.pmean(x, "data"), P("data", "model"), "psum combines the samples of several devices"),
        (lambda x: jax.jit(lambda x: lax.ppermute(x, ("data",), [(0, 1)]))(x), P("data", "model"), "ppermute combines"),
        (jnp.sin, P(None, "model"), "gathers the batch from devices in another way"),
    ],
    ids=["summed", "sent on", "replicated"],
)
def test_devices_that_hold_different_samples_may_not(fun, out, reason, samples):
    with pytest.raises(SamplesMixError, match=reason):
        proven(fun, samples, out)
