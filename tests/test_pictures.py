"""Pictures of what is seen as images: known colours at known places, and every thing told apart from every other."""

import itertools

import jax
import numpy as np
import pytest

import rlhf_jax
from rlhf_jax.environments import canvas, moving_dot, pictures, rendering
from rlhf_jax.environments.rendering import Moment

DOTS = ["MovingDot-v0", "MovingDotNoFrameskip-v0"]
LAYERS = {
    "Breakout-MinAtar": (10, 10, 4),
    "Asterix-MinAtar": (10, 10, 4),
    "Freeway-MinAtar": (10, 10, 7),
    "SpaceInvaders-MinAtar": (10, 10, 6),
    "Seaquest-MinAtar": (10, 10, 10),
    "Pong-misc": (30, 40, 3),
}


def dot(x, y, action=0, size=192, name="MovingDot-v0"):
    state = {"x": np.array(x), "y": np.array(y)}
    return rendering.frame(name, Moment(np.zeros((84, 84, 4), np.uint8), np.array(action), state), size)


def pixels(picture, colour):
    """Returns the `[K, 2]` columns and rows of a colour, from the middle of the picture, rows upwards."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colour).max(axis=-1) < 8)
    middle = 0.5 * (len(picture) - 1)
    return np.stack([columns - middle, middle - rows], axis=1)


@pytest.mark.parametrize("name", DOTS)
@pytest.mark.parametrize("size", [128, 192])
def test_dot_is_where_it_is_and_large_enough_to_see(name, size):
    for x, y in ((80, 105), (2, 2), (157, 2), (2, 207), (157, 207), (40, 150)):
        seen = pixels(dot(x, y, size=size, name=name), (255, 255, 255))
        np.testing.assert_allclose(seen.mean(0), 0.82 * size / 210 * np.array([x - 80, 105 - y]), atol=0.5)
        assert 5 <= np.ptp(seen, axis=0).min() + 1 <= 0.06 * size


def test_dot_stays_on_the_frame_which_has_the_shape_of_the_games():
    frame = pixels(dot(80, 105), canvas.INK)
    width, height = np.ptp(frame, axis=0)
    # As wide and as high as the raw frame, and the half of the larger dot on every side.
    border = 2 * 0.024 * 192
    np.testing.assert_allclose((width - border) / (height - border), moving_dot.WIDTH / moving_dot.HEIGHT, atol=0.02)
    for place in itertools.product(moving_dot.X_LIMITS, moving_dot.Y_LIMITS):
        seen = pixels(dot(*place), (255, 255, 255))
        assert (seen.min(0) >= frame.min(0) - 1).all() and (seen.max(0) <= frame.max(0) + 1).all()


@pytest.mark.parametrize("action, direction", [(1, (0, -1)), (2, (1, 0)), (3, (0, 1)), (4, (-1, 0))])
def test_arrow_points_where_the_dot_is_moved(action, direction):
    for x, y in ((30, 150), (2, 2), (157, 207)):
        picture = dot(x, y, action)
        arrow, square = pixels(picture, canvas.ACTION), pixels(picture, (255, 255, 255))
        assert len(arrow) > 40
        offset = arrow.mean(0) - square.mean(0)
        np.testing.assert_allclose(offset / np.hypot(*offset), direction, atol=0.1)


def test_dot_without_an_action_has_no_arrow_and_the_middle_is_marked():
    away = dot(30, 150)
    assert len(pixels(away, canvas.ACTION)) == 0
    mark = pixels(away, pictures._MARK)
    assert len(mark) > 20
    np.testing.assert_allclose(mark.mean(0), [0.0, 0.0], atol=0.5)
    assert np.abs(mark).max() < 0.06 * 192


def test_dot_without_its_state_is_an_error():
    with pytest.raises(ValueError, match="MovingDot cannot be drawn without its state"):
        rendering.frame("MovingDot-v0", Moment(np.zeros((84, 84, 4), np.uint8), np.array(0)))


def test_every_layer_of_every_grid_has_a_colour():
    assert {name: (*shape[:2], len(pictures.GRIDS[name])) for name, shape in LAYERS.items()} == LAYERS
    assert set(pictures.GRIDS) == set(LAYERS)
    for name, colours in pictures.GRIDS.items():
        assert set(colours) == set(range(LAYERS[name][-1]))
        assert rendering.legend(name)


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_cells_are_sharp_and_where_they_belong(name, size):
    """One thing in each layer, in turn: its colour fills its cell, and everything else is empty."""
    height, width, layers = LAYERS[name]
    cell = size / width
    for layer in range(layers):
        observation = np.zeros((height, width, layers), bool)
        row, column = height - 2 - layer % 3, layer
        observation[row, column, layer] = True
        picture = rendering.frame(name, Moment(observation, np.array(0)), size)
        colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        colour = pictures.GRIDS[name][layer]
        assert colours <= {colour, pictures._EMPTY, pictures._GAP, canvas.PAPER}
        seen = pixels(picture, colour)
        middle = [cell * (column + 0.5 - 0.5 * width), cell * (0.5 * height - row - 0.5)]
        # A cell may lose its first row and column to the gap, and is larger or smaller than most by one pixel.
        np.testing.assert_allclose(seen.mean(0), middle, atol=1.5)
        assert (cell - 2.0) ** 2 <= len(seen) <= (cell + 1.0) ** 2


def test_breakout_in_literal_colours():
    observation = np.zeros((10, 10, 4), np.float32)
    observation[1:4, :, 3] = 1.0
    observation[9, 4, 0] = observation[5, 6, 1] = observation[4, 5, 2] = 1.0
    picture = rendering.frame("Breakout-MinAtar", Moment(observation, np.array(1)), 200)
    cells = picture[10::20, 10::20]
    assert cells[9, 4].tolist() == [255, 255, 255]
    assert cells[5, 6].tolist() == [240, 222, 60]
    assert cells[4, 5].tolist() == [118, 106, 40]
    assert (cells[1:4] == [86, 180, 233]).all()
    assert cells[0, 0].tolist() == cells[8, 4].tolist() == [36, 40, 50]


def test_what_is_in_front_hides_what_is_behind():
    """A ball that did not move yet lies on its own trail; an alien of a direction on that of none."""
    cells = np.zeros((10, 10, 4))
    cells[3, 0, [1, 2]] = 1.0
    picture = rendering.frame("Breakout-MinAtar", Moment(cells, np.array(0)), 100)
    assert tuple(picture[35, 5].tolist()) == pictures.GRIDS["Breakout-MinAtar"][1]
    cells = np.zeros((10, 10, 6))
    cells[0, 0, [1, 2]] = cells[0, 1, [1, 3]] = cells[0, 2, [1, 2, 5]] = 1.0
    picture = rendering.frame("SpaceInvaders-MinAtar", Moment(cells, np.array(0)), 100)
    for column, layer in ((0, 2), (1, 3), (2, 5)):
        assert tuple(picture[5, 10 * column + 5].tolist()) == pictures.GRIDS["SpaceInvaders-MinAtar"][layer]


def test_wide_grid_lies_in_the_middle_of_the_paper():
    picture = rendering.frame("Pong-misc", Moment(np.zeros((30, 40, 3)), np.array(0)), 160)
    assert (picture[:20] == canvas.PAPER).all() and (picture[140:] == canvas.PAPER).all()
    assert (picture[20:140] == pictures._EMPTY).all()


# Linear RGB as seen without the red cones, and without the green ones: Machado et al. 2009, severity 1.
SIGHTS = {
    "usual": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
XYZ = [[0.433949, 0.376216, 0.189836], [0.212673, 0.715152, 0.072175], [0.017757, 0.109474, 0.872768]]


def lab(colours, sight):
    """Returns the `[K, 3]` CIE L*a*b* of `[K, 3]` sRGB colours, of which a difference of 2.3 is just noticed."""
    share = np.asarray(colours) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.clip(linear @ np.asarray(sight).T, 0.0, 1.0) @ np.asarray(XYZ).T).T
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=1)


@pytest.mark.parametrize("sight", sorted(SIGHTS))
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_things_can_be_told_apart(name, sight):
    colours = lab([pictures._EMPTY, *pictures.GRIDS[name].values()], SIGHTS[sight])
    distances = [np.linalg.norm(one - other) for one, other in itertools.combinations(colours, 2)]
    assert min(distances) > 14.0


@pytest.mark.parametrize("name", ["PongNoFrameskip-v4", "EnduroNoFrameskip-v4"])
def test_atari_is_the_newest_frame_in_the_shape_of_the_game(name):
    observation = np.zeros((84, 84, 4), np.uint8)
    observation[..., 3] = 90
    observation[10:30, 40:80, 3] = 200
    observation[50:70, :20, 0] = 255  # Of an older frame, which is not shown.
    picture = rendering.frame(name, Moment(observation, np.array(2)), 210)
    assert (picture[:, :25] == canvas.PAPER).all() and (picture[:, 185:] == canvas.PAPER).all()
    game = picture[:, 25:185]
    assert (game == game[..., :1]).all()
    assert (game[30:70, 82:146] == 200).all()
    assert (game[100:] == 90).all()


def test_atari_can_be_given_a_renderer(monkeypatch):
    monkeypatch.setattr(rendering, "RENDERERS", dict(rendering.RENDERERS))
    monkeypatch.setattr(rendering, "LEGENDS", dict(rendering.LEGENDS))
    name, moment = "PongNoFrameskip-v4", Moment(np.zeros((84, 84, 4), np.uint8), np.array(0))
    assert "grey" in rendering.legend(name)
    rendering.register_renderer(name, lambda moment, size: np.full((size, size, 3), 7, np.uint8), "All seven.")
    assert (rendering.frame(name, moment, 16) == 7).all() and rendering.legend(name) == "All seven."


@pytest.mark.parametrize(
    "name, drawn",
    [("Pendulum-v1", True), ("MovingDot-v0", True), ("QbertNoFrameskip-v4", True), ("Swimmer-misc", False)],
)
def test_what_can_be_drawn(name, drawn):
    assert rendering.can_draw(name) is drawn
    assert bool(rendering.legend(name)) is drawn
    if drawn:
        rendering.require(name)
    else:
        with pytest.raises(ValueError, match=f"cannot draw '{name}', only .*MovingDot-v0.*Atari.*register_renderer"):
            rendering.require(name)


@pytest.mark.parametrize("name", sorted(pictures.BUILT_IN))
def test_every_renderer_takes_what_its_environment_gives(name):
    env = rlhf_jax.make(name)
    observation, state = env.reset(jax.random.key(0))
    moment = Moment(observation, np.zeros(env.action_shape, env.action_dtype), env.named_state(state))
    for size in (64, 129):
        picture = rendering.frame(name, moment, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        assert np.ptp(picture.reshape(-1, 3), axis=0).min() > 50
