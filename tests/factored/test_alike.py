"""A loss is one function of every sample: what it reads beside the batch is the same for each, or it is refused."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from conftest import assert_close
from jax import lax
from losses import accumulated

import jaxchain as jc

W = jnp.array([[1.0, -0.5], [0.5, 2.0], [0.0, 1.0]])
X, Y = jnp.sin(jnp.arange(12.0)).reshape(4, 3), jnp.arange(4.0)
KEY = jax.random.key(0)
TABLE = jnp.cos(jnp.outer(Y, Y))


def out(w, x):
    return jnp.tanh(x @ w)


def total(w, x):
    return out(w, x).sum(1)


@pytest.mark.parametrize(
    "apart",
    [
        lambda w, x: jnp.mean((total(w, x) - Y) ** 2),
        lambda w, x: jnp.mean((total(w, x) - jnp.tile(Y[: -(-len(x) // 2)], 2)[: len(x)]) ** 2),
        lambda w, x: jnp.mean(jax.jit(lambda x: (total(w, x) - Y) ** 2)(x)),
        lambda w, x: jnp.mean(total(w, x) - jnp.arange(9.0)[: len(x)]),
        lambda w, x: jnp.mean(total(w, x) * jnp.arange(len(x))),
        lambda w, x: jnp.mean(total(w, x) + w.reshape(-1)[:4]),
        lambda w, x: jnp.mean(jnp.where((Y > 1)[:, None], out(w, x), 0)),
        lambda w, x: jnp.mean(out(w, x)[:, :1] * jnp.take_along_axis(TABLE, jnp.zeros((4, 1), int), 1)),
        lambda w, x: jnp.mean(lax.scan(lambda h, _: (jnp.tanh(h + total(w, x)), None), Y, None, length=2)[0]),
        lambda w, x: jnp.mean(lax.scan(lambda k, row: (k + 1, (row @ w).sum() * k), 0.0, x)[1]),
        lambda w, x: jnp.mean(out(w, x).at[0].set(0.0)),
        lambda w, x: jnp.mean(lax.dynamic_update_slice(out(w, x), jnp.zeros((1, 2)), (0, 0))),
        lambda w, x: jnp.mean(out(w, x) * jnp.zeros((len(x), 1)).at[0].set(1.0)),
        lambda w, x: jnp.mean(out(w, x) * lax.dynamic_update_slice(jnp.zeros((len(x), 1)), jnp.ones((1, 1)), (0, 0))),
        lambda w, x: jnp.mean(out(w, x).at[:, 0].set(Y[: len(x)]) * (x @ w)),
        lambda w, x: jnp.arange(len(x), dtype=x.dtype) @ total(w, x),
        lambda w, x: jnp.mean(out(w, x) * jax.random.bernoulli(KEY, 0.5, (len(x), 2))),
        lambda w, x: jnp.mean(jax.vmap(lambda k, row: (row @ w * jax.random.normal(k, (2,))).sum())(jax.random.split(KEY, len(x)), x)),
    ],
    ids="labels|tiled|jitted|sliced|iota|parameters|mask|picked|first state|counter|written|block|made mask|made block|column|weights|noise|keys".split("|"),
)  # fmt: skip
def test_what_each_sample_meets_alone_belongs_into_the_batch(apart):
    with pytest.raises(jc.SamplesMixError, match=r"stage '.*', at test_alike.py:\d+: .*check=False"):
        jax.eval_shape(lambda x: jc.sample_gradients(apart, W, x), X)


def test_the_refusal_names_the_line_and_the_way_out():
    with pytest.raises(
        jc.SamplesMixError, match=r"stage 'sub@test_alike.py:\d+'.*: sub meets .* put that into the batch"
    ):
        jc.sample_gradients(lambda w, x: jnp.mean((total(w, x) - Y) ** 2), W, X)


@pytest.mark.parametrize(
    "alike",
    [
        lambda w, x: jnp.mean(out(w, x) ** 2 * jnp.ones((len(x), 1))),
        lambda w, x: jnp.full(len(x), 1 / len(x), x.dtype) @ total(w, x),
        lambda w, x: jnp.mean(out(w, x)[:, None] * jnp.broadcast_to(Y[:, None], (len(x), 4, 2))),
        lambda w, x: jnp.mean((jnp.repeat(out(w, x), 4, 0) + jnp.broadcast_to(TABLE[:, :2], (len(x), 4, 2)).reshape(-1, 2)) ** 2),
        lambda w, x: jnp.mean(out(w, x) @ jnp.ones((2, 4), x.dtype) @ TABLE),
        lambda w, x: jnp.mean(lax.scan(lambda h, _: (jnp.tanh(h + total(w, x)), None), jnp.zeros(len(x), x.dtype), None, length=2)[0]),
        lambda w, x: jnp.mean(lax.scan(lambda h, u: (jnp.tanh(h @ u), None), out(w, x), TABLE[:, :2, None] * jnp.ones(2))[0]),
        lambda w, x: jnp.mean(TABLE[(x[:, 0] > 0).astype(int)] * out(w, x)[:, :1]),
        lambda w, x: jnp.mean(out(w, x)[:, jnp.array([0, 1, 1, 0])] * Y),
        lambda w, x: jnp.mean(jax.nn.one_hot((x[:, 0] > 0).astype(int), 4) * total(w, x)[:, None]),
        lambda w, x: jnp.mean(out(w, x)[:, :1, None] * jnp.tril(TABLE)),
        lambda w, x: jnp.mean(out(w, x).at[:, 0].set(0.0) * jax.random.normal(KEY, (2,))),
        lambda w, x: jnp.mean(jnp.concatenate([jnp.tile(w[None, 0], (len(x), 1)), x], 1)[:, 1:4] @ w),
        lambda w, x: jnp.mean((out(w, x)[:, None] * jnp.tile(TABLE[:, :2], (len(x), 1)).reshape(-1, 4, 2)) ** 2),
    ],
    ids="ones|weights|positions|flat positions|square|zero state|layers|table|columns|labels|mask|noise|token|tiled".split("|"),
)  # fmt: skip
def test_what_is_the_same_for_every_sample_is_not_refused(alike):
    def of(x):
        return jc.sample_gradients(alike, W, x), accumulated(alike, W, x), jax.grad(alike)(W, x)

    each, wanted, whole = jax.jit(of)(X)
    assert_close(each, wanted, 1e-5)
    assert_close(jnp.sum(each, 0) / len(X), whole, 1e-5)


# ---------------------------------------------------------------------------------------------------- a key for every sample


class Noisy(nn.Module):
    """Drops what it draws not to keep."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=False)(jnp.tanh(nn.Dense(4)(x))))


DRAWN = {
    "normal": lambda k: jax.random.normal(k, (2,)),
    "split": lambda k: jax.random.uniform(jax.random.split(k)[1], (2,)),
    "folded": lambda k: jax.random.bernoulli(jax.random.fold_in(k, 3), 0.5, (2,)),
    "seeded": lambda k: jax.random.gumbel(jax.random.key(jax.random.bits(k)), (2,)),
    "unwrapped": lambda k: jax.random.uniform(jax.random.wrap_key_data(jax.random.key_data(k))),
    "permuted": lambda k: jax.random.permutation(k, jnp.arange(2.0)),
    "dropout": lambda k: eqx.nn.Dropout(0.5)(jnp.ones(2), key=k),
}


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_from_a_sample_s_own_key_stays_apart(name, make):
    def noisy(w, batch):
        return jnp.mean(jax.vmap(lambda x, key: jnp.sin(x @ w) * DRAWN[name](key))(*batch))

    batch = X, jax.random.split(make(1), 4)
    got, wanted = jax.jit(lambda batch: (jc.sample_gradients(noisy, W, batch), accumulated(noisy, W, batch)))(batch)
    assert_close(got, wanted, 1e-5)


def test_dropout_of_modules_stays_apart_where_each_sample_has_its_key():
    module = Noisy()
    params = module.init({"params": KEY, "dropout": KEY}, X[0])

    def noisy(params, batch):
        return jnp.mean(jax.vmap(lambda x, key: module.apply(params, x, rngs={"dropout": key}))(*batch) ** 2)

    batch = X, jax.random.split(KEY, 4)
    got, wanted = jax.jit(lambda b: (jc.sample_gradients(noisy, params, b), accumulated(noisy, params, b)))(batch)
    assert_close(got, wanted, 1e-5)


def test_a_key_drawn_from_by_all_samples_mixes_them():
    def mixed(w, batch):
        x, keys = batch
        return jnp.mean(x @ w) * jax.random.uniform(keys[0])

    with pytest.raises(jc.SamplesMixError, match=r"test_alike.py:\d+"):
        jax.eval_shape(lambda b: jc.sample_gradients(mixed, W, b), (X, jax.random.split(KEY, 4)))
