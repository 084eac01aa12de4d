"""The page of a token transformer in Flax linen and nnx: pre-norm blocks, a causal mask, integers as input."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from flax import nnx
from test_report import decoded

import jaxchain as jc
from jaxchain.diagnosis import survey as surveying

VOCABULARY, LENGTH, HEADS = 512, 32, 4
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, LENGTH))


class LinenBlock(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, mask):
        x = x + nn.MultiHeadDotProductAttention(HEADS, name="attention")(nn.LayerNorm()(x), mask=mask)
        y = nn.gelu(nn.Dense(4 * self.width, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width, name="down")(y)


class Linen(nn.Module):
    blocks: int
    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, self.width, name="embed")(tokens)
        for number in range(self.blocks):
            x = LinenBlock(self.width, name=f"block_{number}")(x, nn.make_causal_mask(tokens))
        return nn.Dense(VOCABULARY, name="head")(nn.LayerNorm(name="norm")(x))


class MLP(nnx.Module):
    def __init__(self, width, rngs):
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


class NnxBlock(nnx.Module):
    def __init__(self, width, rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(HEADS, width, decode=False, rngs=rngs)
        self.mlp = MLP(width, rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.norms[0](x), mask=mask)
        return x + self.mlp(self.norms[1](x))


class Nnx(nnx.Module):
    def __init__(self, blocks, width):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.blocks = nnx.List([NnxBlock(width, rngs) for _ in range(blocks)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, nnx.make_causal_mask(tokens))
        return self.head(self.norm(x))


def linen(blocks, width):
    module = Linen(blocks, width)
    return module.apply, jax.eval_shape(module.init, jax.random.key(0), TOKENS)


def of_nnx(blocks, width):
    graph, like = nnx.split(nnx.eval_shape(lambda: Nnx(blocks, width)))
    return lambda state, tokens: nnx.merge(graph, state)(tokens), like


@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (linen, ("block_{}/attention", "block_{}/up..down")),
        (of_nnx, ("blocks[{}]/attention", "blocks[{}]/mlp")),
    ],
    ids=["linen", "nnx"],
)
@pytest.mark.parametrize(
    ("blocks", "width", "work"), [(2, 64, 1e9), pytest.param(12, 256, surveying.WORK, marks=pytest.mark.long)]
)
def test_the_page_of_a_token_transformer(tmp_path, monkeypatch, make, stages, blocks, width, work):
    monkeypatch.setattr(surveying, "WORK", work)
    fun, like = make(blocks, width)
    params = jax.tree.map(lambda leaf: leaf / width**0.5, draw(like))
    cotangent = draw(jnp.zeros((LENGTH, VOCABULARY)), 6)
    path = jc.report(fun, params, TOKENS, path=tmp_path / "page.html", cotangent=cotangent)
    html = path.read_text(encoding="utf-8")
    assert len(html) < 2e6
    assert 0 < html.index("Along the chain</h2>") < html.index('<div class="board">')
    data = decoded(html)
    assert "from embed on, which argument 1 enters" in data["facts"]
    names = [stage["name"] for stage in data["stages"]]
    assert names == [*(name.format(k) for k in range(blocks) for name in stages), "norm", "head"]
    assert data["trace"]["rows"]
    assert data["graph"]["graphs"]

    pull = jax.jit(lambda params: jax.vjp(fun, params, TOKENS)[1](cotangent)[0])
    lengths = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(pull(params))]
    shown = [leaf["gradient"] for leaf in data["leaves"]]
    np.testing.assert_allclose(shown, lengths, rtol=1e-4, atol=1e-6 * max(lengths))  # that of a key's bias is 0
