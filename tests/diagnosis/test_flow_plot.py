"""Pictures of gradient flow: what is drawn is what is in the record, and what is wrong looks like nothing else."""

import matplotlib as mpl

mpl.use("Agg")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from matplotlib.colors import to_rgba

import jaxchain as jc
from jaxchain.plot import flowing

NET = jc.nets.mlp([4, 6, 6, 2], activation="sigmoid")
PARAMS = NET.init(jax.random.key(0))
DATA = jnp.ones((8, 4)), jnp.zeros((8, 2))


def loss(params, batch):
    return jnp.mean((jax.vmap(NET, (None, 0))(params, batch[0]) - batch[1]) ** 2)


@pytest.fixture(scope="module")
def found():
    return jc.train.fit(loss, PARAMS, DATA, optax.adam(1e-2), steps=12, observe=jc.flow(every=3), progress=False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_a_fit_its_history_and_its_flow_are_drawn_stage_by_step(found):
    whole = jc.plot.gradient_flow(found)
    assert rows(whole)[:3] == ["dense_0", "sigmoid_0", "dense_1"]  # no cotangent is made of the input
    (image,) = whole.images
    assert image.get_array().shape == (7, 4, 4)
    left, right, *_ = image.get_extent()
    assert (left, right) == (-1.5, 10.5)
    history = jc.plot.gradient_flow(found.history, what="gradient")
    assert rows(history) == ["dense_0", "dense_1", "dense_2"]
    assert jc.plot.gradient_flow(found.history.observed, what="dead").images


def test_one_point_is_a_line_over_the_states(found):
    flow = jax.tree.map(lambda leaf: leaf[-1], found.history.observed)
    ax = jc.plot.gradient_flow(flow, what="state")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), flow.state, rtol=1e-6)
    assert ax.get_yscale() == "log"


def test_zero_and_what_is_not_finite_look_like_nothing_else(found):
    flow = found.history.observed
    cotangent = flow.cotangent.copy()
    cotangent[1, 2], cotangent[2, 3] = 0, np.nan
    ax = jc.plot.gradient_flow(jax.tree.map(lambda leaf: cotangent if leaf is flow.cotangent else leaf, flow))
    cells = ax.images[0].get_array()
    assert tuple(cells[1, 1]) == to_rgba(flowing.ZERO)
    assert tuple(cells[2, 2]) == to_rgba(flowing.NOT_FINITE)
    assert "black: exactly zero" in ax.texts[-1].get_text()
    assert "red: not finite" in ax.texts[-1].get_text()


def test_what_was_not_observed_is_refused():
    flow = jc.gradient_flow(NET, (PARAMS, jnp.ones(4)))
    with pytest.raises(ValueError, match="does not hold update_to_weight"):
        jc.plot.gradient_flow(flow, what="update_to_weight")
    with pytest.raises(ValueError, match="No stage of this flow has share of dead units"):
        jc.plot.gradient_flow(jc.gradient_flow(lambda x: 2 * x, (1.0,)), what="dead")
    with pytest.raises(TypeError, match="flow is a GradientFlow"):
        jc.plot.gradient_flow(3.0)
