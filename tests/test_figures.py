"""Statistics against literal numbers and SciPy; figures and animations by opening what was written."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import figures

LABELS = {"title": "Title", "xlabel": "environment steps", "ylabel": "return"}


def returns(seeds: int = 8, points: int = 60) -> np.ndarray:
    """Returns `[S, P]` values shaped like Pendulum's, −1600 at first and then from −1300 to −150."""
    rng = np.random.default_rng(0)
    values = -150.0 - 1150.0 * np.exp(-np.linspace(0.0, 6.0, points)) + rng.normal(0.0, 20.0, (seeds, points))
    values[:, 0] = -1600.0
    return values


@pytest.mark.parametrize(
    "values, expected",
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([100.0, 1.0, 2.0], (0.25 * 1 + 2 + 0.25 * 100) / 1.5),
        ([1000.0, 3.0, 1.0, -1000.0], 2.0),
        ([0.0, 1.0, 2.0, 4.0, 100.0], (0.75 * 1 + 2 + 0.75 * 4) / 2.5),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -9.0], 3.5),
    ],
)
def test_interquartile_mean_is_the_mean_of_the_middle_half(values, expected):
    np.testing.assert_allclose(figures.interquartile_mean(np.array(values)), expected)


@pytest.mark.parametrize("seeds", [4, 8, 20])
def test_interquartile_mean_agrees_with_scipy_where_a_quarter_is_whole(seeds):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(seeds).normal(size=(seeds, 5, 3))
    np.testing.assert_allclose(figures.interquartile_mean(values), stats.trim_mean(values, 0.25, axis=0))


@pytest.mark.parametrize("seeds", range(1, 12))
def test_interquartile_mean_agrees_with_four_copies_of_each_seed(seeds):
    # Four copies make the quarter whole without moving the quantiles.
    values = np.random.default_rng(seeds).normal(size=(seeds, 3))
    middle = np.sort(np.repeat(values, 4, axis=0), axis=0)[seeds : 3 * seeds].mean(axis=0)
    np.testing.assert_allclose(figures.interquartile_mean(values), middle)


def test_interquartile_mean_never_passes_over_a_lost_seed():
    values = np.arange(16.0).reshape(8, 2)
    values[3, 0] = np.nan
    result = figures.interquartile_mean(values)
    assert np.isnan(result[0]) and result[1] == 8.0


@pytest.mark.parametrize("seeds", [3, 8, 10])
def test_bootstrap_interval_contains_the_statistic(seeds):
    values = np.random.default_rng(1).normal(size=(seeds, 40))
    low, high = figures.bootstrap_interval(values)
    middle = figures.interquartile_mean(values)
    assert low.shape == high.shape == (40,)
    assert np.all(low < middle) and np.all(middle < high)


def test_bootstrap_interval_of_identical_seeds_is_a_point():
    low, high = figures.bootstrap_interval(np.tile([1.0, -2.0, 3.0], (8, 1)))
    np.testing.assert_allclose(low, [1.0, -2.0, 3.0])
    np.testing.assert_allclose(high, [1.0, -2.0, 3.0])


def test_bootstrap_interval_of_the_mean_has_the_width_of_theory():
    values = np.random.default_rng(2).normal(size=400)
    low, high = figures.bootstrap_interval(values, statistic=lambda x: x.mean(axis=0), level=0.95, samples=4000)
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std() / 20.0, rtol=0.06)
    inner_low, inner_high = figures.bootstrap_interval(values, statistic=lambda x: x.mean(axis=0), level=0.5)
    assert low < inner_low < inner_high < high


def test_bootstrap_interval_repeats_with_its_seed_and_marks_lost_points():
    values = returns()
    values[2, 5] = np.nan
    first, second = figures.bootstrap_interval(values), figures.bootstrap_interval(values)
    np.testing.assert_array_equal(first, second)
    assert np.isnan(first[0][5]) and np.isnan(first[1][5]) and np.isfinite(np.delete(first, 5, axis=1)).all()
    low, high = figures.bootstrap_interval(values, statistic=lambda x: np.nanmean(x, axis=0))
    assert np.isnan(low[5]) and np.isnan(high[5])
    assert not np.array_equal(first, figures.bootstrap_interval(values, seed=1), equal_nan=True)


def draw(path, curves, steps=None, optimum=-140.0) -> np.ndarray:
    steps = np.linspace(1e3, 3e5, 60) if steps is None else steps
    figures.learning_curves(path, steps, curves, optimum=optimum, **LABELS)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (900, 600)
        return np.asarray(image.convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(picture - np.array(colour)).max(axis=-1) < 24


def test_learning_curves_shows_each_condition_and_tolerates_nan(tmp_path):
    slow = 0.5 * returns() - 500.0
    slow[:, :4] = np.nan
    slow[0, 4:7] = np.nan
    picture = draw(tmp_path / "curves.png", {"true reward": returns(), "25 labels": slow})
    blue, vermilion = near(picture, (0, 114, 178)), near(picture, (213, 94, 0))
    assert blue.sum() > 500 and vermilion.sum() > 500
    assert (tmp_path / "curves.png").stat().st_size < 100_000
    # The curve with lost points begins further to the right.
    assert np.nonzero(vermilion.any(axis=0))[0][0] > np.nonzero(blue.any(axis=0))[0][0] + 20


def test_learning_curves_is_not_flattened_by_the_first_iteration(tmp_path):
    outlier = returns()
    outlier[:, 0] = -1e5
    blue = near(draw(tmp_path / "curves.png", {"reward": outlier}), (0, 114, 178))
    # Were the outlier shown, the curve from the second point on would lie within the top six rows.
    rows = np.nonzero(blue[:, 120:600].any(axis=1))[0]
    assert rows.max() - rows.min() > 300


@pytest.mark.parametrize("optimum", [None, -140.0])
@pytest.mark.parametrize("curves", [{"lost": np.full((8, 60), np.nan)}, {"flat": np.full((1, 60), 3.0)}])
def test_learning_curves_draws_degenerate_curves_without_warning(tmp_path, recwarn, curves, optimum):
    assert draw(tmp_path / "curves.png", curves, optimum=optimum).std() > 5.0
    assert not recwarn.list


def test_learning_curves_shows_a_single_point(tmp_path, recwarn):
    picture = draw(tmp_path / "curves.png", {"tiny": np.array([[1.0], [2.0]])}, steps=np.array([10]), optimum=None)
    assert near(picture, (0, 114, 178))[40:535, 120:600].sum() > 20
    assert not recwarn.list


def test_learning_curves_rejects_other_lengths_and_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"'short' has shape \(8, 59\), not \(seeds, 60\)"):
        draw(tmp_path / "curves.png", {"short": returns()[:, 1:]})
    with pytest.raises(ValueError, match="no curves"):
        draw(tmp_path / "curves.png", {})


def test_labels_keep_their_places_or_move_apart():
    assert figures._spread([0.9, 0.5, 0.1], [0.1, 0.1, 0.1]) == [0.9, 0.5, 0.1]
    np.testing.assert_allclose(figures._spread([0.99, 0.98, 0.97], [0.1, 0.2, 0.1]), [0.95, 0.8, 0.65])
    np.testing.assert_allclose(figures._spread([0.5, 0.02, 0.01], [0.1, 0.1, 0.1]), [0.5, 0.15, 0.05])


def moving_square(steps: int) -> np.ndarray:
    clip = np.full((steps, 40, 60, 3), (245, 246, 249), np.uint8)
    for t in range(steps):
        clip[t, 10:20, 2 * t : 2 * t + 10] = (45, 84, 140)
    return clip


def test_animation_has_every_frame_loops_and_keeps_its_speed(tmp_path):
    clip = moving_square(20)
    figures.animation(tmp_path / "clip.gif", clip, fps=30)
    shown, duration = [], 0
    with Image.open(tmp_path / "clip.gif") as image:
        assert image.format == "GIF" and image.n_frames == 20 and image.info["loop"] == 0
        for t in range(20):
            image.seek(t)
            duration += image.info["duration"]
            shown.append(np.asarray(image.convert("RGB")))
    assert duration == 670  # 20 frames at 30 a second, in whole hundredths
    assert np.abs(np.array(shown).astype(int) - clip).max() <= 4
    assert (tmp_path / "clip.gif").stat().st_size < 20_000


@pytest.mark.parametrize(
    "clip, fps, message",
    [
        (np.zeros((3, 4, 4, 3)), 10, "float64"),
        (np.zeros((0, 4, 4, 3), np.uint8), 10, "at least 1"),
        (np.zeros((3, 4, 4, 3), np.uint8), 60, "fps = 60"),
    ],
)
def test_animation_rejects_what_it_cannot_write(tmp_path, clip, fps, message):
    with pytest.raises(ValueError, match=message):
        figures.animation(tmp_path / "clip.gif", clip, fps=fps)


def test_tile_places_clips_row_by_row_with_white_between():
    clips = np.stack([np.full((2, 5, 7, 3), value, np.uint8) for value in (10, 20, 30)])
    grid = figures.tile(clips, columns=2)
    assert grid.shape == (2, 14, 18, 3) and grid.dtype == np.uint8
    assert np.all(grid[:, :5, :7] == 10) and np.all(grid[:, :5, 11:] == 20) and np.all(grid[:, 9:, :7] == 30)
    assert np.all(grid[:, 5:9] == 255) and np.all(grid[:, :, 7:11] == 255) and np.all(grid[:, 9:, 7:] == 255)
    with pytest.raises(ValueError, match="0 columns"):
        figures.tile(clips, columns=0)


def test_figures_does_not_load_pyplot():
    check = "import sys, experiments.figures; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
