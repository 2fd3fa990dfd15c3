"""Figures of learnt rewards, by opening what was written."""

import warnings

import numpy as np
import pytest
import synthetic_runs
from PIL import Image

from experiments.reporting import reward_figures

PLANE = synthetic_runs.PLANE
TIME = np.arange(1, 41)
BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def opened(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(picture, colour, within=24):
    return np.abs(picture - np.array(colour)).max(axis=-1) < within


def orange(picture):
    return picture[..., 0] - picture[..., 2] > 60


def flat(value):
    return np.full((2, len(TIME)), value)


def test_held_out_draws_the_reward_below_its_ceiling(tmp_path):
    panels = {"accuracy": (flat(0.7), flat(0.95)), "log-likelihood": (flat(-0.6), flat(-0.2))}
    reward_figures.held_out(tmp_path / "both.png", TIME, panels, title="Title")
    picture = opened(tmp_path / "both.png")
    half = len(picture) // 2
    for part in (picture[:half, 150:600], picture[half:, 150:600]):
        blue, vermilion = near(part, BLUE), near(part, VERMILION)
        assert np.nonzero(vermilion)[0].mean() < np.nonzero(blue)[0].mean() - 40
    reward_figures.held_out(tmp_path / "one.png", TIME, {"accuracy": panels["accuracy"]}, title="Title")
    assert len(opened(tmp_path / "one.png")) < 0.7 * len(picture)


def test_proxy_and_truth_hatches_the_alarm_where_it_is(tmp_path):
    alarm = np.zeros((2, len(TIME)), bool)
    curves = {"proxy": flat(0.0) + TIME, "truth": flat(0.0) - TIME, "title": "Title"}
    reward_figures.proxy_and_truth(tmp_path / "calm.png", TIME, alarm=alarm, **curves)
    assert not orange(opened(tmp_path / "calm.png")).any()
    alarm[1, 30:] = True
    reward_figures.proxy_and_truth(tmp_path / "alarm.png", TIME, alarm=alarm, **curves)
    picture = opened(tmp_path / "alarm.png")
    columns, blue = (np.nonzero(marks[:, 100:720].any(axis=0))[0] for marks in (orange(picture), near(picture, BLUE)))
    share = (columns.min() - blue.min()) / (columns.max() - blue.min())
    assert 0.7 < share < 0.8  # 29.5 of 39 iterations


def test_pooled_weighs_seeds_by_their_pairs_and_skips_empty_bins():
    nan = np.nan
    bins = np.array(
        [[[0.1, 0.2, 3.0], [0.8, 1.0, 2.0], [nan, nan, 0.0]], [[0.3, 0.6, 1.0], [nan, nan, 0.0], [nan] * 3]]
    )
    expected = [[0.15, 0.3, 4.0], [0.8, 1.0, 2.0], [nan, nan, 0.0]]
    np.testing.assert_allclose(reward_figures.pooled(bins), expected)


def test_reliability_diagram_draws_over_confidence_below_the_diagonal(tmp_path):
    heights = {}
    for name, sharpness in (("over", 3.0), ("under", 0.4)):
        bins = synthetic_runs.reliability(sharpness)
        reward_figures.reliability_diagram(tmp_path / f"{name}.png", {name: bins}, title="Title")
        picture = opened(tmp_path / f"{name}.png")
        rows, columns = np.nonzero(near(picture, BLUE))
        heights[name] = rows[columns > np.median(columns) + 30].mean()
    assert heights["over"] > heights["under"] + 40


def test_reliability_diagram_has_a_panel_for_each_condition(tmp_path, recwarn):
    bins = synthetic_runs.reliability(1.0)
    bins[:, 2] = [np.nan, np.nan, 0.0]
    reward_figures.reliability_diagram(tmp_path / "4.png", {str(i): bins for i in range(4)}, title="Title")
    picture = opened(tmp_path / "4.png")
    empty = picture[len(picture) // 2 + 60 : -100, picture.shape[1] // 3 + 60 :]
    assert (empty > 250).all()
    picture = near(picture, BLUE)
    blocks = [[block.sum() for block in np.array_split(row, 3, axis=1)] for row in np.array_split(picture, 2)]
    assert np.all(np.array(blocks)[0] > 1000) and blocks[1][0] > 1000 and max(blocks[1][1:]) < 300
    assert not recwarn.list
    with pytest.raises(ValueError, match="no reliability"):
        reward_figures.reliability_diagram(tmp_path / "none.png", {}, title="Title")


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Pictures of rewards that are the true one on another scale, its reverse, and unlike each other."""
    file = tmp_path_factory.mktemp("maps") / "maps.png"
    rewards = {"scaled": np.stack([0.2 * PLANE.reward + 3.0] * 2), "reversed": -PLANE.reward[None]}
    pictures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, values in {**rewards, "unlike": synthetic_runs.maps()}.items():
            reward_figures.reward_maps(file, PLANE, values, title="Title")
            pictures[name] = opened(file)
    return pictures


def yellow(picture):
    """How many pixels of the left and of the right panel of two are as yellow as the best reward."""
    half = picture.shape[1] * 45 // 100
    return [near(part, (253, 231, 37), 40).sum() for part in (picture[:, :half], picture[:, half:-200])]


def test_reward_maps_draws_a_scaled_copy_of_the_truth_like_the_truth(maps):
    left, right = yellow(maps["scaled"])
    assert left > 1000 and abs(left - right) < 0.02 * left


def test_reward_maps_draws_a_reversed_reward_as_knowing_nothing(maps):
    left, right = yellow(maps["reversed"])
    assert left > 1000 and right == 0


def test_reward_maps_shows_a_seed_of_its_own_only_if_seeds_differ(maps):
    assert maps["scaled"].shape == maps["reversed"].shape
    assert maps["unlike"].shape[1] > maps["scaled"].shape[1] + 300
