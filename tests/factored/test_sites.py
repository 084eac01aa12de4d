"""Weight sites: every leaf's are found, named and told by kind; each rule's factors make the gradient that accumulation makes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from conftest import assert_close
from losses import LOSSES
from models import MODELS, TOKENS, Transformer, of_linen, some

import jaxchain as jc
from jaxchain.factored.factors import Product, explicit_cost, ghost_cost, inner, squared_norm
from jaxchain.factored.function import Factored
from jaxchain.factored.rules import KINDS, RULES


def kinds_of(sites):
    found = dict[str, str]()
    for row in sites.rows:
        found[row.leaf] = f"{found.get(row.leaf, '')} {row.kind}".strip()
    return found


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_site_of_every_leaf_is_found_and_its_kind_told(case):
    params, batch = case.args()
    sites = jc.weight_sites(case.fun, params, jax.tree.map(lambda leaf: leaf[:1], batch))
    found = kinds_of(sites)
    assert {leaf: found[f"['{leaf}']"] for leaf in case.kinds} == {
        leaf: kind.strip() for leaf, kind in case.kinds.items()
    }
    assert {*found, *sites.unused} == {f"['{leaf}']" for leaf in case.params}


def test_the_cases_hold_every_kind_and_every_rule():
    met, names = set[str](), set[str]()
    for case in LOSSES:
        params, batch = case.args()
        for site in Factored.of(case.fun, (params, jax.tree.map(lambda leaf: leaf[:1], batch))).sites:
            met.add(site.kind)
            if site.found.meeting is not None:
                names.add(site.found.equation.name)
    assert met == set(KINDS)
    assert names == set(RULES) - {"add_any"}  # which no program has before it is differentiated


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_factors_multiplied_out_are_the_gradient_that_accumulation_makes(case):
    params, batch = case.args()
    read = Factored.of(case.fun, (params, batch))

    @jax.jit
    def ours(params, batch):
        done = read.evaluate(params, batch)
        factors = read.factors(done.values, done.pull(jnp.ones_like(done.out)))
        return done.out, read.gradient(factors)

    assert_close(ours(params, batch), jax.jit(jax.value_and_grad(case.fun))(params, batch), 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", [(1, 1, 5, 4), (2, 3, 5, 4), (1, 40, 3, 2), (3, 1, 2, 7)], ids=str)
def test_norms_and_inner_products_of_factors_are_those_of_what_they_make(sizes):
    n, t, i, o = sizes
    one, other = (Product(scale * some(n, t, i), some(n, t, o)[::-1] - scale) for scale in (1.0, 2.0))
    together = one.gradient() + other.gradient()
    assert_close(squared_norm([one]), jnp.sum(one.gradient() ** 2), 1e-12)
    assert_close(squared_norm([one, other]), jnp.sum(together**2), 1e-12)
    assert_close(inner(one, other), jnp.sum(one.gradient() * other.gradient()), 1e-12)


def test_costs_count_the_multiply_adds_of_either_way():
    single, many = Product(some(1, 1, 5), some(1, 1, 4)), Product(some(2, 30, 5), some(2, 30, 4))
    assert (ghost_cost([single]), explicit_cost([single])) == (5 + 4 + 1, 5 * 4 + 5 * 4)
    assert (ghost_cost([many]), explicit_cost([many])) == (2 * 900 * 10, 2 * 30 * 20 + 2 * 20)


def test_a_weight_that_no_product_is_made_of_takes_no_backward_work():
    """Below the first site nothing is pulled back, and no weight's gradient is made on the way to δ."""
    weights = {"a": jnp.ones((64, 8)), "b": jnp.ones((8, 16))}
    read = Factored.of(lambda p, x: jnp.sum(jnp.sin(jnp.sin(x) @ p["a"]) @ p["b"]), (weights, jnp.ones((1, 64))))

    def deltas(params, x):
        done = read.evaluate(params, x)
        return done.pull(jnp.ones_like(done.out))

    products = [
        eqn for eqn in jax.make_jaxpr(deltas)(weights, jnp.ones((1, 64))).eqns if eqn.primitive.name == "dot_general"
    ]
    assert len(products) == 3  # two on the way, and on the way back the one that takes δ through b


@pytest.mark.usefixtures("x64")
def test_a_function_of_several_results_is_pulled_back_from_all_of_them_and_a_leaf_may_be_one():
    def fun(p, x):
        return {"y": jnp.tanh(x @ p["w"]), "w": p["w"], "several": (p["w"].T, jnp.arange(3.0))}

    params, x = {"w": some(3, 2)}, some(4, 3)
    read = Factored.of(fun, (params, x))
    done = read.evaluate(params, x)
    cotangent = jax.tree.map(lambda leaf: some(*leaf.shape), done.out)
    got = read.gradient(read.factors(done.values, done.pull(cotangent)))
    assert_close(got, jax.vjp(lambda p: fun(p, x), params)[1](cotangent)[0], 1e-12)
    assert [site.kind for site in read.sites] == ["shared", "other", "other"]


def test_stages_are_named_as_their_modules_are():
    _, params = of_linen(Transformer(), TOKENS)
    sites = jc.weight_sites(lambda p, x: jnp.mean(Transformer().apply(p, x)), params, TOKENS)
    stages = {row.stage for row in sites.rows}
    assert {"Embed_0", "LayerNorm_0"} <= {stage.split("/")[0].split(".")[0] for stage in stages}
    assert any("MultiHeadDotProductAttention_0/query" in stage for stage in stages)
    _, nnx, x = MODELS["nnx"]()
    assert [row.stage for row in jc.weight_sites(MODELS["nnx"]()[0], nnx, x).rows][-1].startswith("second")


def test_the_table_says_what_is_not_used_and_what_has_no_rule():
    params = {"w": jnp.ones((3, 2)), "g": jnp.ones(2), "idle": jnp.ones(4)}
    sites = jc.weight_sites(lambda x, p: x @ p["w"] * jnp.exp(p["g"]), jnp.ones(3), params, argnum=1)
    text = " ".join(str(sites).split())  # notes are wrapped to the terminal's width
    assert "Weight sites of argument 1" in text
    assert "Not used, or in no way that carries a derivative: ['idle']." in text
    assert "Used in a way without a rule, and differentiated from there as any value is: ['g']." in text
    assert repr(sites) == "WeightSites(2 sites of argument 1)"
    assert "<table" in sites._repr_html_()
    assert list(sites.to_pandas().kind) == ["dense", "other"]


def test_sites_are_found_of_shapes_and_inside_a_while_loop_as_well():
    def looped(w, x):
        return jax.lax.while_loop(lambda h: jnp.sum(h) < 3, lambda h: h @ w, x)

    (row,) = jc.weight_sites(looped, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(3, 3), (3,)])).rows
    assert (row.kind, row.stage.split("@")[0], row.shape) == ("other", "while", (3, 3))


def test_what_has_no_derivative_is_refused_by_name():
    with pytest.raises(TypeError, match=r"Argument 0 at \['n'\] is int32"):
        jc.weight_sites(lambda p, x: x * p["n"], {"n": jnp.arange(3)}, jnp.ones(3))
    with pytest.raises(ValueError, match="argnum=2 names no argument"):
        jc.weight_sites(jnp.add, jnp.ones(3), jnp.ones(3), argnum=2)
