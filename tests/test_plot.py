"""Laws of the figures: what is on the axes is what is in the arrays, and says so in words."""

import inspect
from itertools import pairwise

import matplotlib as mpl

mpl.use("Agg")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text

import jaxchain as jc
from jaxchain import plot
from jaxchain.plot import style
from jaxchain.show.extremes import extreme_of_blocks
from jaxchain.swept import LocalJacobian


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def local(name, matrix):
    matrix = jnp.asarray(matrix)
    return LocalJacobian(name, matrix, (matrix.shape[1],), (matrix.shape[0],))


def mlp(*sizes):
    rng = np.random.default_rng(0)
    pairs = pairwise(sizes)
    return [local(f"dense_{k}", rng.normal(size=(m, n)).astype(np.float32)) for k, (n, m) in enumerate(pairs)]


def words(ax):
    """All that is written on a figure."""
    ax.figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in ax.figure.findobj(Text))


def line(ax, colour):
    """The lines of one colour."""
    return [found for found in ax.lines if to_rgb(found.get_color()) == to_rgb(colour)]


SIZES = np.array([8, 16, 32])
STEPS = np.arange(4)
DRAW = {
    "matrix": lambda **kw: plot.matrix(np.eye(3), **kw),
    "chain": lambda **kw: plot.chain(mlp(4, 3, 2), **kw),
    "singular_values": lambda **kw: plot.singular_values(mlp(4, 3, 2), **kw),
    "gradient_norms": lambda **kw: plot.gradient_norms(STEPS, {"a": [4, 3, 2, 1], "b": [1, 1, 1, 1]}, **kw),
    "norms_by_depth": lambda **kw: plot.norms_by_depth({"He": [1, 2, 4]}, theory={"He": [1, 2, 4]}, **kw),
    "cost_curves": lambda **kw: plot.cost_curves(SIZES, SIZES, [20, 20, 20], crossing=20, **kw),
}
every_figure = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())


# --- every figure -------------------------------------------------------------------------------


@every_figure
def test_draws_on_the_given_axes_and_returns_them(draw):
    _, (left, right) = plt.subplots(1, 2)
    assert draw(ax=right) is right
    assert right.has_data()
    assert not left.has_data()


@every_figure
def test_makes_axes_that_suit_a_readme(draw):
    figure = draw().figure
    width, height = figure.get_size_inches()
    assert 2 <= width <= 8.2
    assert height <= 8
    figure.draw_without_rendering()


@every_figure
def test_leaves_settings_as_they_are_and_shows_nothing(draw, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("plt.show was called"))
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


@every_figure
def test_titles_stand_at_the_left(draw):
    ax = draw(title="What was found")
    assert ax.get_title(loc="left") == "What was found"
    assert ax.get_title(loc="center") == ""


@every_figure
def test_signature_is_keyword_only_after_the_data(draw):
    del draw
    for name in DRAW:
        parameters = inspect.signature(getattr(plot, name)).parameters
        assert parameters["ax"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["ax"].default is None


def test_modes_differ_in_colour_lightness_marker_and_dash():
    assert set(plot.COLOURS) == set(plot.MARKERS) == set(plot.LINESTYLES) == {"forward", "reverse", "planned"}
    for kind in (plot.COLOURS, plot.MARKERS, plot.LINESTYLES):
        assert len(set(kind.values())) == 3
    grey = sorted(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in plot.COLOURS.values())
    assert np.diff(grey).min() > 0.15


def test_save_writes_a_white_png_makes_folders_and_closes(tmp_path):
    ax = plot.matrix(np.eye(3))
    path = plot.save(ax, tmp_path / "a" / "b.png")
    pixels = plt.imread(path)
    assert path == tmp_path / "a" / "b.png"
    assert np.all(pixels[0, 0] == 1)
    assert not plt.fignum_exists(ax.figure.number)
    assert plot.save(plot.matrix(np.eye(2)).figure, str(tmp_path / "c.png")).exists()


# --- matrix -------------------------------------------------------------------------------------


def test_colour_limits_are_symmetric_at_the_percentile():
    values = np.random.default_rng(0).normal(size=(40, 30)) + 0.5
    image = plot.matrix(values, clip=97).images[0]
    assert image.get_clim() == pytest.approx((-np.percentile(abs(values), 97), np.percentile(abs(values), 97)))
    assert image.get_cmap()(image.norm(0.0))[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)


@pytest.mark.parametrize(("clip", "extend"), [(90, "both"), (100, "neither")])
def test_scale_bar_has_arrows_only_where_entries_are_clipped(clip, extend):
    image = plot.matrix(np.arange(1.0, 21).reshape(4, 5), clip=clip).images[0]
    assert image.colorbar.extend == extend


@pytest.mark.parametrize("limit", [5.44, 1.0, 0.00272, 8190.0])
@pytest.mark.parametrize("shape", [(20, 20), (2, 30)], ids=str)
def test_a_scale_bar_has_round_ticks_near_its_ends(shape, limit):
    values = np.zeros(shape)
    values[0, :2] = limit, -limit
    ticks = plot.matrix(values).images[0].colorbar.get_ticks()
    assert ticks.tolist() == [-tick for tick in reversed(ticks)]
    assert limit / 2 < ticks[-1] <= limit * (1 + 1e-6)
    assert all(float(f"{tick:.2g}") == pytest.approx(tick) for tick in ticks)


@pytest.mark.parametrize("shape", [(4, 5), (3, 9), (9, 2)])
def test_scale_bar_can_be_left_out(shape):
    assert plot.matrix(np.ones(shape), colorbar=False).images[0].colorbar is None
    assert plot.matrix(np.ones(shape)).images[0].colorbar is not None


def test_zeros_have_no_say_in_the_limits():
    assert plot.matrix(3 * np.eye(300)).images[0].get_clim() == (-3, 3)


def test_cells_are_square_and_labels_carry_the_sizes():
    ax = plot.matrix(np.ones((32, 256)), in_label="input of dense_2", title="J")
    assert ax.get_aspect() == 1
    assert ax.images[0].get_interpolation() == "nearest"
    assert ax.get_xlabel() == "input of dense_2 (256)"
    assert ax.get_ylabel() == "output (32)"
    assert max(len(ax.get_xticks()), len(ax.get_yticks())) <= 6


@pytest.mark.parametrize("shape", [(1, 784), (784, 1)])
def test_a_hairline_is_stretched_and_says_so(shape):
    ax = plot.matrix(np.ones(shape))
    ax.apply_aspect()
    box = ax.get_window_extent()
    assert max(box.width / box.height, box.height / box.width) == pytest.approx(20)
    assert "stretched" in words(ax)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, int])
def test_any_dtype_can_be_drawn(dtype):
    values = jnp.arange(6).reshape(2, 3).astype(dtype)
    np.testing.assert_array_equal(plot.matrix(values).images[0].get_array(), np.arange(6.0).reshape(2, 3))


def test_what_is_not_finite_is_masked_counted_and_kept_out_of_the_limits():
    ax = plot.matrix([[1.0, np.nan, -2.0], [np.inf, -np.inf, 0.5]], clip=100)
    np.testing.assert_array_equal(ax.images[0].get_array().mask, [[False, True, False], [True, True, False]])
    assert ax.images[0].get_clim() == (-2, 2)
    assert "1 NaN, 2 infinite" in words(ax)
    assert sorted(len(marks.get_offsets()) for marks in ax.collections) == [1, 2]


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.full((2, 2), np.nan), [[0.0]], np.full((2, 2), 1e-300)])
def test_a_matrix_without_scale_can_be_drawn(values, tmp_path):
    assert plot.save(plot.matrix(values), tmp_path / "m.png").exists()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_matrix_says_that_it_is_empty(shape):
    ax = plot.matrix(np.zeros(shape))
    assert f"empty: {shape[0]}×{shape[1]}" in words(ax)


def test_a_big_matrix_is_drawn_by_the_extremes_of_its_blocks():
    values = np.random.default_rng(0).normal(size=(1030, 600))
    values[1029, 1] = -50
    ax = plot.matrix(values)
    image = ax.images[0]
    assert image.get_array().shape == (344, 300)
    assert image.get_array()[343, 0] == -50
    assert image.get_extent() == [-0.5, 599.5, 1029.5, -0.5]
    assert "block of 3×2" in words(ax)
    assert "block" not in words(plot.matrix(values[:512, :512]))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_every_block_keeps_its_signed_entry_of_largest_magnitude(m, n, rows, columns, seed):
    values = np.random.default_rng(seed).normal(size=(m, n))
    cells = extreme_of_blocks(values, rows, columns)
    a, b = -(-m // rows), -(-n // columns)
    assert cells.shape == (-(-m // a), -(-n // b))
    for i, j in np.ndindex(cells.shape):
        block = values[i * a : (i + 1) * a, j * b : (j + 1) * b]
        assert cells[i, j] == block.flat[abs(block).argmax()]


def test_a_block_with_nan_or_infinity_shows_it():
    values = np.ones((4, 4))
    values[0, 1], values[3, 3], values[3, 0] = np.nan, -np.inf, 7
    np.testing.assert_array_equal(extreme_of_blocks(values, 2, 2), [[np.nan, 1], [7, -np.inf]])


# --- chain --------------------------------------------------------------------------------------


def test_the_equation_has_a_picture_of_every_factor_last_first_and_of_the_product():
    jacobians = mlp(6, 5, 4, 3)
    images = plot.chain(jacobians).images
    drawn = [np.asarray(image.get_array()) for image in images]
    for picture, jacobian in zip(drawn[:3], reversed(jacobians), strict=True):
        np.testing.assert_array_equal(picture, jacobian.matrix)
    first, second, third = (np.asarray(j.matrix, dtype=float) for j in jacobians)
    np.testing.assert_allclose(drawn[3], third @ second @ first)
    lefts = [image.get_extent()[0] for image in images]
    assert lefts == sorted(lefts)
    for image, values in zip(images, drawn, strict=True):
        assert image.get_clim()[1] == -image.get_clim()[0] == pytest.approx(np.percentile(abs(values), 99.5))


@pytest.mark.parametrize("sizes", [(3, 4), (2, 9, 5), (9, 5, 7, 1)])
def test_the_product_is_the_same_from_either_side(sizes):
    jacobians = mlp(*sizes)
    want = np.linalg.multi_dot([np.asarray(j.matrix) for j in reversed(jacobians)] + [np.eye(sizes[0])])
    np.testing.assert_allclose(plot.chain(jacobians).images[-1].get_array(), want, rtol=1e-5, atol=1e-6)


def test_the_equation_is_written_with_its_signs_names_and_shapes():
    assert len(plot.chain(mlp(4, 3, 2), product=False).images) == 2
    text = words(plot.chain(mlp(64, 32, 10)))
    for part in ("dense_1\n10×32", "dense_0\n32×64", "J\n10×64", "·", "="):
        assert part in text
    assert "=" not in words(plot.chain(mlp(4, 3, 2), product=False))


def test_factors_are_to_one_scale_down_to_a_least_size():
    images = plot.chain(mlp(64, 32, 16, 1)).images
    sides = [
        (image.get_extent()[3] - image.get_extent()[2], image.get_extent()[1] - image.get_extent()[0])
        for image in images
    ]
    scale = sides[2][1] / 64
    assert sides[2] == pytest.approx((32 * scale, 64 * scale))
    assert sides[1] == pytest.approx((16 * scale, 32 * scale))
    assert sides[0][0] == pytest.approx(0.13)


@pytest.mark.parametrize("sizes", [(1,) * 7, (64,) * 21, (784, 256, 32, 256, 784, 10), (3, 400, 2) * 4])
def test_a_long_equation_wraps_within_the_page_and_nothing_overlaps(sizes):
    ax = plot.chain(mlp(*sizes))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    boxes = [image.get_extent() for image in ax.images]
    assert right <= 7.8 + 1e-9
    for x0, x1, y0, y1 in boxes:
        assert left <= x0 < x1 <= right
        assert bottom <= y0 < y1 <= top
    for k, (x0, x1, y0, y1) in enumerate(boxes):
        assert not any(x0 < b[1] and b[0] < x1 and y0 < b[3] and b[2] < y1 for b in boxes[k + 1 :])
    figure = ax.figure
    figure.draw_without_rendering()
    captions = [text.get_window_extent() for text in ax.texts if "×" in text.get_text()]
    assert len(captions) == len(sizes)
    assert not any(a.overlaps(b) for k, a in enumerate(captions) for b in captions[k + 1 :])


def test_a_long_equation_shrinks_to_the_height_of_given_axes():
    _, ax = plt.subplots(figsize=(8, 4), dpi=100)
    plot.chain(mlp(*(64,) * 15), ax=ax)
    bounds = ax.get_window_extent()
    assert ax.get_ylim()[1] - ax.get_ylim()[0] <= bounds.height / 100 + 0.2  # the remark below has a line of its own


def test_a_chain_with_nan_empty_states_or_long_names_can_be_drawn():
    holes = [local("a_stage/with_a/very_long/name_0", np.zeros((0, 3))), local("b", np.zeros((2, 0)))]
    text = words(plot.chain(holes))
    assert "2×3" in text
    assert "…" in text
    assert "1 NaN" in words(plot.chain([local("a", [[np.nan, 1.0]])]))


def test_a_reduced_factor_says_so():
    assert "largest |J|" in words(plot.chain(mlp(784, 700)))
    assert "largest |J|" not in words(plot.chain(mlp(64, 32)))


# --- singular values ----------------------------------------------------------------------------


def test_each_stage_has_a_marker_for_every_singular_value():
    jacobians = mlp(7, 5, 3)
    ax = plot.singular_values(jacobians)
    strips = [points for points in ax.lines if points.get_marker() == "o"]
    for place, (points, jacobian) in enumerate(zip(strips, jacobians, strict=True)):
        np.testing.assert_allclose(points.get_ydata(), np.linalg.svd(jacobian.matrix, compute_uv=False), rtol=1e-5)
        assert set(points.get_xdata()) == {place}
    assert ax.get_yscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["dense_0", "dense_1"]


def test_zero_singular_values_are_counted_instead_of_drawn():
    relu = local("relu", np.diag([1.0, 0, 0, 1]).astype(np.float32))
    rank_one = local("rank_one", np.outer([1.0, 2, 3], [1.0, 1, 1, 1]).astype(np.float32))
    ax = plot.singular_values([relu, rank_one])
    assert words(ax).count("2 zero") == 2
    assert [len(points.get_ydata()) for points in ax.lines if points.get_marker() == "o"] == [2, 1]


@pytest.mark.parametrize("part", ["stages", "prefixes", "suffixes"])
def test_a_spectrum_is_drawn_as_its_values_say(part):
    net = jc.nets.mlp([4, 3, 2], "tanh")
    found = jc.spectrum(net, (net.init(jax.random.key(0)), jnp.ones(4)))
    ax = plot.singular_values(found, part=part)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(getattr(found, part))
    drawn = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) and line.get_marker() == "o"]
    for points, values in zip(drawn, getattr(found, part).values(), strict=True):
        np.testing.assert_array_equal(points, values)


def test_what_a_spectrum_lacks_cannot_be_drawn():
    found = jc.spectrum(jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("cos", jnp.cos)]), (jnp.ones(2),), of="whole")
    with pytest.raises(ValueError, match="This spectrum has no stages"):
        plot.singular_values(found)


def test_stages_without_singular_values_say_why():
    ax = plot.singular_values([local("a", [[np.nan]]), local("b", np.zeros((0, 2))), local("c", np.zeros((2, 2)))])
    text = words(ax)
    for part in ("not finite", "empty", "2 zero"):
        assert part in text


def test_singular_values_of_bfloat16_are_not_taken_for_rounding():
    ax = plot.singular_values([local("a", jnp.diag(jnp.asarray([1, 1e-3])).astype(jnp.bfloat16))])
    assert "zero" not in words(ax)


# --- lines --------------------------------------------------------------------------------------


def test_gradient_norms_draw_the_numbers_and_leave_gaps_at_what_a_log_axis_lacks():
    ax = plot.gradient_norms(STEPS, {"a": [1, 0, np.nan, 2], "dead": jnp.zeros(4, jnp.bfloat16)})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1, np.nan, np.nan, 2])
    assert ax.get_yscale() == "log"
    assert "dead: nothing above 0" in words(ax)
    assert ax.get_legend() is None


def test_neighbouring_stages_differ_in_dash_and_shade():
    ax = plot.gradient_norms(STEPS, {f"dense_{k}": np.full(4, 10.0**k) for k in range(6)})
    for one, other in pairwise(ax.lines):
        assert one.get_linestyle() != other.get_linestyle() or one._dash_pattern != other._dash_pattern
        assert to_rgb(one.get_color()) != to_rgb(other.get_color())


@pytest.mark.parametrize("count", [1, 2, 9, 80])
def test_labels_at_line_ends_do_not_overlap(count):
    ax = plot.gradient_norms(STEPS, {f"dense_{k}": np.full(4, 1 + 1e-3 * k) for k in range(count)})
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts if text.get_text().startswith("dense")]
    assert len(boxes) == min(count, len(boxes))
    assert count > 20 or len(boxes) == count
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_spread_keeps_order_bounds_and_gaps_and_moves_no_more_than_it_must(targets):
    gap = 0.1
    places = style.spread(targets, gap)
    order = np.argsort(targets, kind="stable")
    assert np.all(np.diff(places[order]) >= gap - 1e-9)
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9
    if np.all(np.diff(np.sort(targets)) >= gap):
        np.testing.assert_allclose(places, targets, atol=1e-9)


def test_theory_is_dashed_in_the_colour_of_its_case():
    ax = plot.norms_by_depth({"a": [1, 2, 4], "b": [1, 1, 1]}, theory={"b": [1, 1.5, 2]})
    (dashed,) = [found for found in ax.lines if found.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed.get_ydata(), [1, 1.5, 2])
    assert len(line(ax, dashed.get_color())) == 3
    assert {"a", "b"} <= set(words(ax).splitlines())
    assert "dashed: theory" in words(ax)
    assert "theory" not in words(plot.norms_by_depth({"a": [1, 2, 4]}))


def test_costs_are_points_on_their_theory_with_the_crossing_marked():
    ax = plot.cost_curves(SIZES, SIZES * 9, [160, 161, 170], theory_forward=SIZES * 10, crossing=16)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    joined, points = line(ax, plot.COLOURS["forward"])
    np.testing.assert_array_equal(joined.get_ydata(), SIZES * 10)
    np.testing.assert_array_equal(points.get_ydata(), SIZES * 9)
    assert points.get_marker() == plot.MARKERS["forward"]
    assert {"forward", "reverse", "n = m", "number of inputs n (log scale)", "FLOPs (log scale)"} <= set(
        words(ax).splitlines()
    )
    assert any(list(found.get_xdata()) == [16, 16] for found in ax.lines)


@pytest.mark.parametrize("values", [[0.0, 0, 0, 0], [1e-140, 1, 1e140, 1], [2.0, 2, 2, 2], [0.95, 1, 1.02, 1.1]])
def test_lines_of_any_range_can_be_drawn(values, tmp_path):
    assert plot.save(plot.gradient_norms(STEPS, {"a": values}), tmp_path / "a.png").exists()
    assert plot.save(plot.norms_by_depth({"a": values}), tmp_path / "b.png").exists()
    assert plot.save(plot.cost_curves(SIZES, values[:3], values[:3]), tmp_path / "c.png").exists()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: plot.matrix(np.ones(3)), r"matrix must be two-dimensional.*\(3,\)"),
        (lambda: plot.matrix(np.ones((2, 2)), clip=0), "clip is a percentile"),
        (lambda: plot.chain([]), "jacobians is empty"),
        (lambda: plot.chain([mlp(3, 2)[0], mlp(3, 2)[0]]), "jacobians do not form a product: 'dense_0' takes 3"),
        (
            lambda: plot.chain([LocalJacobian("a", jnp.ones(3), (3,), ())]),
            "jacobians, the Jacobian of 'a' must be two-d",
        ),
        (lambda: plot.singular_values([]), "jacobians is empty"),
        (
            lambda: plot.singular_values([LocalJacobian("a", jnp.ones(3), (3,), ())]),
            "the Jacobian of 'a' must be two-d",
        ),
        (lambda: plot.gradient_norms(STEPS, {}), "norms is empty"),
        (lambda: plot.gradient_norms(STEPS, {"a": [1.0, 2]}), r"norms\['a'\] has 2 values, but 4"),
        (lambda: plot.gradient_norms(np.ones((2, 2)), {"a": [1.0]}), "steps must be one-dimensional"),
        (lambda: plot.norms_by_depth({}), "cases is empty"),
        (lambda: plot.norms_by_depth({"a": [1.0]}, theory={"b": [1.0]}), "theory has the label 'b'"),
        (lambda: plot.norms_by_depth({"a": [1.0]}, theory={"a": [1.0, 2]}), r"theory\['a'\] has 2 values"),
        (lambda: plot.cost_curves(SIZES, [1.0], SIZES), "forward has 1 values"),
        (lambda: plot.cost_curves(SIZES, SIZES, SIZES, theory_reverse=[1.0]), "theory_reverse has 1 values"),
    ],
)
def test_refusals_name_the_argument(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()


Z = np.array([[1.0 + 2.0j, 0.0]], np.complex64)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, np.ndarray.tolist], ids=["numpy", "jax", "list"])
@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (plot.matrix, "matrix"),
        (lambda z: plot.chain([LocalJacobian("a", z, (2,), (1,))]), "the Jacobian of 'a'"),
        (lambda z: plot.singular_values([LocalJacobian("a", z, (2,), (1,))]), "the Jacobian of 'a'"),
        (lambda z: plot.gradient_norms([0, 1], {"a": z[0]}), r"norms\['a'\]"),
        (lambda z: plot.cost_curves([1, 2], z[0], [1.0, 1.0]), "forward"),
    ],
    ids=["matrix", "chain", "singular_values", "gradient_norms", "cost_curves"],
)
def test_no_imaginary_part_is_dropped_in_silence(draw, name, kind):
    with pytest.raises(ValueError, match=rf"{name} is complex(64|128), .*\.real.*\.imag.*abs\(\)"):
        draw(kind(Z))


@pytest.mark.parametrize("part", [np.real, np.imag, np.abs])
def test_every_part_that_is_offered_instead_can_be_drawn(part):
    np.testing.assert_array_equal(plot.matrix(part(Z)).images[0].get_array(), part(Z))


def test_a_very_long_name_is_shown_by_its_ends():
    ax = plot.singular_values([LocalJacobian("a" * 3000 + "z", jnp.eye(2), (2,), (2,))])
    (label,) = (text.get_text() for text in ax.get_xticklabels())
    assert len(label) == 60
    assert label.startswith("aa")
    assert label.endswith("az")


# ---------------------------------------------------------------------------------------------------------------- films


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_film_of_a_sweep_has_a_frame_a_step_and_the_last_one_twice(tmp_path, direction):
    from PIL import Image

    graph = jc.graph(lambda x: jnp.sin(x) * x, 2.0)
    with Image.open(jc.plot.animate(graph, tmp_path / "graph.gif", direction=direction)) as film:
        assert film.n_frames in (len(graph.rows), len(graph.rows) + 1)  # equal frames may be one
    net = jc.nets.mlp([3, 4, 2])
    jacobians = jc.local_jacobians(net, (net.init(jax.random.key(0)), jnp.ones(3)))
    with Image.open(jc.plot.animate(jacobians, tmp_path / "chain.gif", direction=direction)) as film:
        assert film.n_frames in (len(jacobians), len(jacobians) + 1)


def test_a_film_that_cannot_be_made_is_said_to_be_so(tmp_path):
    graph = jc.graph(jnp.sin, 2.0)
    with pytest.raises(ValueError, match=r"ends in \.gif or \.mp4, but film\.avi"):
        jc.plot.animate(graph, tmp_path / "film.avi")
    with pytest.raises(ValueError, match="direction"):
        jc.plot.animate(graph, tmp_path / "film.gif", direction="sideways")
    with pytest.raises(TypeError, match="jacobians"):
        jc.plot.animate("chain", tmp_path / "film.gif")
