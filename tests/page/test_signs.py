"""What a structure looks like on the page: which drawings stand for it, and that the page holds each of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
from jaxchain.page.signs import ruled, signs

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 3, 3))
I3 = np.eye(3)
WHEEL = np.stack([np.roll([1.0, 2, 0, 4, 5, 6, 7], k) for k in range(7)])
POSITIONS = (3, 3), (3, 3)
"""Shapes of states: three positions of three numbers."""

CASES = {
    "dense": (RNG.normal(size=(4, 5)), ((), ()), ["dense"]),
    "zero": (np.zeros((4, 5)), ((), ()), ["zero"]),
    "identity": (np.eye(4), ((), ()), ["identity"]),
    "triangle": (np.tril(A), ((), ()), ["lower-triangular"]),
    "cumulative sum": (np.tril(np.ones((9, 9))), POSITIONS, ["block-lower-triangular"]),
    "weights over positions": (np.kron(I3, B), POSITIONS, ["identity", "⊗", "dense"]),
    "a mixing of positions": (np.kron(A, I3), POSITIONS, ["dense", "⊗", "identity"]),
    "a sum over those before": (
        np.kron(np.tril(np.ones((3, 3))), I3),
        POSITIONS,
        ["lower-triangular", "⊗", "identity"],
    ),
    "blocks": (np.kron(np.diag([1, 0, 0]), A) + np.kron(np.diag([0, 1, 1]), B), POSITIONS, ["block-diagonal"]),
    "circulant": (WHEEL, ((), ()), ["Toeplitz"]),
    "a residual stage": (
        np.eye(9) + 1e-2 * np.tril(RNG.normal(size=(9, 9)), -1),
        ((), ()),
        ["identity", "+", "lower-triangular"],
    ),
    "not finite": (np.full((2, 2), np.nan), ((), ()), ["not-finite"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_structure_is_drawn_as_what_it_is(name):
    matrix, shapes, drawn = CASES[name]
    assert signs(jc.Structure.of(matrix, *shapes)) == drawn


def test_lines_are_drawn_between_blocks_and_only_there():
    found = {name: ruled(jc.Structure.of(matrix, *shapes)) for name, (matrix, shapes, _) in CASES.items()}
    blocks = (*(name for name in CASES if "positions" in name), "cumulative sum", "a sum over those before", "blocks")
    assert {name for name, lines in found.items() if lines} == set(blocks)
    assert {found[name] for name in blocks} == {(3, 3)}
    assert ruled(jc.Structure.of(np.kron(A, B), *POSITIONS)) == (3, 3)
    assert ruled(None) is None


def test_every_drawing_is_on_the_page_and_numbers_stand_beside_their_units(tmp_path):
    def fun(x):
        return jnp.cumsum(jax.nn.relu(x @ A), axis=0)

    html = jc.report(fun, jnp.asarray(RNG.normal(size=(3, 3))), path=tmp_path / "page.html").read_text(encoding="utf-8")
    held, used = (set(re.findall(pattern, html)) for pattern in (r'id="sign-([\w-]+)"', r'href="#sign-([\w-]+)"'))
    kinds = {name for _, _, drawn in CASES.values() for name in drawn} - set("⊗+")
    assert used | kinds <= held
    assert {"identity", "dense"} <= used
    assert "\\xa0" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
