"""Figures that compare conditions: they show what they are given, and nothing is cut off."""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from experiments import study_figures


def test_the_magnified_axis_has_an_inverse_and_a_place_for_one():
    values = np.array([-3.0, 0.0, 0.5, 0.99, 0.999, 1.0])
    np.testing.assert_allclose(study_figures._reduce(study_figures._magnify(values)), values, atol=1e-12)
    steps = np.diff(study_figures._magnify(np.array([0.9, 0.95, 0.975])))
    assert steps[1] > 0.85 * steps[0]  # as much room for each half of what is missing


def drawn(path):
    """The picture, and the share of it that is not white."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return picture, (picture.min(-1) < 200).mean()


def colour(picture, wanted):
    """How many pixels are near a colour."""
    return (np.abs(picture - np.array(wanted)).max(-1) < 30).sum()


def test_intervals_draw_every_condition_and_mark_what_lies_far_below(tmp_path):
    values = {"full": np.linspace(-150, -146, 8), "worse": np.linspace(-160, -150, 8)}
    study_figures.intervals(tmp_path / "a.png", values, baseline="full", title="t", xlabel="x")
    values["worse"] = np.append(values["worse"], -1200.0)
    study_figures.intervals(tmp_path / "b.png", values, baseline="full", title="t", xlabel="x")
    first, second = (drawn(tmp_path / name)[0] for name in ("a.png", "b.png"))
    assert first.shape == second.shape
    # The seed at −1200 does not press the others together: the blue interval of the baseline keeps a visible length.
    blue = (np.abs(second - np.array([0, 114, 178])).max(-1) < 30).any(0).nonzero()[0]
    assert blue.max() - blue.min() > 15


def test_label_efficiency_has_a_panel_for_each_teacher_and_a_line_for_each_rule(tmp_path):
    rng = np.random.default_rng(0)
    line = lambda: {n: rng.uniform(0.9, 0.99, 8) for n in (25, 100, 400)}  # noqa: E731
    one = {"oracle": {"disagreement": line()}}
    two = {name: {"disagreement": line(), "uniform": line()} for name in ("oracle", "person")}
    for name, panels in {"one": one, "two": two}.items():
        study_figures.label_efficiency(tmp_path / f"{name}.png", panels, title="t", ylabel="y")
    (single, _), (double, _) = (drawn(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert double.shape[1] > 1.5 * single.shape[1]
    assert colour(single, (213, 94, 0)) == 0 and colour(double, (213, 94, 0)) > 50


def test_more_lines_than_colours_can_still_be_told_apart():
    axes = Figure().add_subplot()
    for look in range(20):
        study_figures._draw_line(axes, str(look), look, {25: np.ones(3), 50: np.ones(3)}, band=False)
    looks = {
        (line.get_color(), line.get_linestyle(), str(line._dash_pattern), line.get_marker()) for line in axes.lines
    }
    assert len(axes.lines) == len(looks) == 20


def test_lines_are_means_in_the_order_of_the_labels():
    axes = Figure().add_subplot()
    study_figures._draw_line(axes, "a", 0, {100: np.array([0.5, 1.0]), 25: np.array([0.0, 0.5])}, band=True)
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[25, 0.25], [100, 0.75]])
    assert len(axes.collections) == 1  # the band
