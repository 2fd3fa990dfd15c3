"""Statistics against literal numbers and SciPy; figures and animations by opening what was written."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments import figures

LABELS = {"title": "Title", "xlabel": "environment steps", "ylabel": "return"}


def returns(seeds: int = 8, points: int = 60) -> np.ndarray:
    """Returns `[S, P]` values shaped like Pendulum's, −1600 at first and then from −1300 to −150."""
    rng = np.random.default_rng(0)
    values = -150.0 - 1150.0 * np.exp(-np.linspace(0.0, 6.0, points)) + rng.normal(0.0, 20.0, (seeds, points))
    values[:, 0] = -1600.0
    return values


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


def test_a_condition_looks_alike_where_the_one_before_it_is_not_drawn(tmp_path):
    picture = draw(tmp_path / "curves.png", {"true reward": None, "25 labels": returns()})
    assert near(picture, (213, 94, 0)).sum() > 500 and not near(picture, (0, 114, 178)).any()
    with pytest.raises(ValueError, match="no curves"):
        draw(tmp_path / "none.png", {"true reward": None})


def test_learning_curves_draws_a_line_through_points_that_alternate_with_nan(tmp_path):
    """So are the returns of an environment whose episodes last longer than an iteration."""
    rising = np.tile(np.arange(60.0), (4, 1))
    rising[:, ::2] = np.nan
    blue = near(draw(tmp_path / "curves.png", {"reward": rising}, optimum=None), (0, 114, 178))[40:535, 120:600]
    columns = np.nonzero(blue.any(axis=0))[0]
    assert (np.diff(columns) == 1).all() and columns.max() - columns.min() > 400


def test_learning_curves_is_not_flattened_by_the_first_iteration(tmp_path):
    outlier = returns()
    outlier[:, 0] = -1e5
    blue = near(draw(tmp_path / "curves.png", {"reward": outlier}), (0, 114, 178))
    # Were the outlier shown, the curve from the second point on would lie within the top six rows.
    rows = np.nonzero(blue[:, 120:600].any(axis=1))[0]
    assert rows.max() - rows.min() > 300


@pytest.mark.parametrize("lowest, words", [(-1e5, ["cut off: down to −100,000"]), (-1300.0, [])])
def test_a_curve_that_leaves_the_frame_is_told_with_its_lowest_value(lowest, words):
    axes, steps, values = Figure().add_subplot(), np.arange(60), returns()
    values[:, 0] = lowest
    figures.set_limits(axes, steps, figures.draw_curves(axes, steps, {"reward": values}), None)
    assert [text.get_text() for text in axes.texts] == words
    assert (axes.get_ylim()[0] < lowest) == (not words)


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
