"""Pictures show what they should: the pose, the side of the action, and an error for what cannot be drawn."""

import jax
import numpy as np
import pytest

import rlhf_jax
from rlhf_jax.environments import canvas, drawings, rendering
from rlhf_jax.environments.rendering import Moment

SIZE = 128


def pendulum(angle: float, torque: float = 0.0, size: int = SIZE) -> np.ndarray:
    observation = np.array([np.cos(angle), np.sin(angle), 0.0], np.float32)
    return rendering.frame("Pendulum-v1", Moment(observation, np.array([torque], np.float32)), size)


def cartpole(position: float, angle: float, action: int) -> np.ndarray:
    observation = np.array([position, 0.0, angle, 0.0], np.float32)
    return rendering.frame("CartPole-v1", Moment(observation, np.array(action, np.int32)), SIZE)


def mountain_car(position: float, action: int) -> np.ndarray:
    return rendering.frame("MountainCar-v0", Moment(np.array([position, 0.0]), np.array(action)), SIZE)


def mountain_car_continuous(position: float, push: float) -> np.ndarray:
    return rendering.frame("MountainCarContinuous-v0", Moment(np.array([position, 0.0]), np.array([push])), SIZE)


def acrobot(first: float, second: float, action: int) -> np.ndarray:
    observation = np.array([np.cos(first), np.sin(first), np.cos(second), np.sin(second), 0.0, 0.0])
    return rendering.frame("Acrobot-v1", Moment(observation, np.array(action)), SIZE)


def point_robot(place: tuple[float, float], goal: tuple[float, float], action: tuple[float, float]) -> np.ndarray:
    observation = np.array([*place, 0.0, 0.0, 0.0, -1.0])
    return rendering.frame("PointRobot-misc", Moment(observation, np.array(action), {"goal": np.array(goal)}), SIZE)


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns the `[K, 2]` places of a colour: to the right of the centre and above it, in pixels."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colour).max(axis=-1) < 8)
    middle = 0.5 * (len(picture) - 1)
    return np.stack([columns - middle, middle - rows], axis=1)


def rod(picture: np.ndarray) -> np.ndarray:
    return pixels(picture, canvas.BODY)


def arrow(picture: np.ndarray) -> np.ndarray:
    return pixels(picture, canvas.ACTION)


def head_side(picture: np.ndarray) -> int:
    """Returns whether a horizontal arrow points to the right, 1, or to the left, −1: its head is its widest part."""
    columns, counts = np.unique(arrow(picture)[:, 0], return_counts=True)
    return int(np.sign(columns[counts.argmax()] - columns.mean()))


def test_pendulum_points_where_gymnasium_draws_it():
    # Gymnasium turns a rod that points right by θ + π/2 counter-clockwise.
    for angle in np.linspace(-np.pi, np.pi, 17):
        x, y = rod(pendulum(angle)).mean(axis=0)
        expected = np.array([-np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(np.array([x, y]) / np.hypot(x, y), expected, atol=0.03)


def test_upright_rod_is_above_the_pivot_and_hanging_rod_below():
    up, down = rod(pendulum(0.0)), rod(pendulum(np.pi))
    assert up[:, 1].max() > 0.35 * SIZE and up[:, 1].min() > -0.06 * SIZE
    assert down[:, 1].min() < -0.35 * SIZE and down[:, 1].max() < 0.06 * SIZE


@pytest.mark.parametrize("angle, torque", [(0.4, 0.8), (1.7, -0.5), (2.9, 0.05), (0.0, 1.0)])
def test_mirrored_pose_gives_mirrored_picture(angle, torque):
    picture, mirror = pendulum(angle, torque).astype(int), pendulum(-angle, -torque)[:, ::-1].astype(int)
    # Rasterising rounds one way, which moves an edge by at most one of the four subpixels.
    assert np.abs(picture - mirror).max() <= 55
    assert np.abs(picture - mirror).mean() < 0.1
    assert np.abs(picture - mirror[:, ::-1]).mean() > 3.0


def test_positive_torque_is_drawn_counter_clockwise():
    for angle in (0.0, 1.0, -2.5, np.pi):
        forward = np.array([-np.cos(angle), -np.sin(angle)])  # where the tip moves as θ grows
        assert (arrow(pendulum(angle, 1.0)) @ forward).mean() > 5.0
        assert (arrow(pendulum(angle, -1.0)) @ forward).mean() < -5.0


def test_arrow_grows_with_torque_and_stops_at_the_largest():
    areas = [len(arrow(pendulum(0.3, torque))) for torque in (0.0, 0.25, 0.5, 1.0)]
    assert areas[0] == 0 and np.all(np.diff(areas) > 0)
    np.testing.assert_array_equal(pendulum(0.3, 7.0), pendulum(0.3, 1.0))


def test_scalar_torque_is_the_same_as_one_element():
    observation = np.array([1.0, 0.0, 0.0])
    one, scalar = (rendering.frame("Pendulum-v1", Moment(observation, action)) for action in (np.array([0.5]), 0.5))
    np.testing.assert_array_equal(one, scalar)


def test_cartpole_leans_moves_and_is_pushed_to_the_right():
    upright, leaning = rod(cartpole(0.0, 0.0, 1)), rod(cartpole(0.0, 0.3, 1))
    assert abs(upright[:, 0].mean()) < 1.0 and leaning[:, 0].mean() > 4.0
    assert rod(cartpole(1.5, 0.0, 1))[:, 0].mean() > 20.0
    assert head_side(cartpole(0.0, 0.0, 0)) == -1 and head_side(cartpole(0.0, 0.0, 1)) == 1


def test_cartpole_at_its_limits_is_wholly_in_the_picture():
    area = len(pixels(cartpole(0.0, 0.0, 1), canvas.INK))
    for position in (-2.4, 2.4):
        assert abs(len(pixels(cartpole(position, 0.0, 1), canvas.INK)) - area) < 0.1 * area


def test_cartpole_leans_by_its_angle():
    for angle in (-0.4, 0.0, 0.2, 0.7):
        values, axes = np.linalg.eigh(np.cov(rod(cartpole(0.0, angle, 1)).T))
        x, y = axes[:, values.argmax()]
        np.testing.assert_allclose(np.arctan(x / y), angle, atol=0.02)


VALLEY, TOP = -np.pi / 6, np.pi / 6  # Where sin(3 x) is −1 and 1, and the car is level.


def mountain_scale() -> float:
    """Returns the pixels of a unit of length, from the car at the valley and at the top, which are π/3 apart."""
    return (rod(mountain_car(TOP, 1)).mean(axis=0) - rod(mountain_car(VALLEY, 1)).mean(axis=0))[0] / (TOP - VALLEY)


def test_mountain_car_drives_on_gymnasiums_hill():
    valley = rod(mountain_car(VALLEY, 1)).mean(axis=0)
    # Gymnasium's hill is 0.45 sin(3 x) high.
    np.testing.assert_allclose(rod(mountain_car(TOP, 1)).mean(axis=0)[1] - valley[1], 0.9 * mountain_scale(), atol=0.5)
    for position in (-1.1, -0.8, -0.2, 0.1, 0.4):
        slope = np.arctan(1.35 * np.cos(3 * position))
        # The body stands a little above the ground, at right angles to it.
        level = valley + mountain_scale() * np.array([position - VALLEY, 0.45 * (np.sin(3 * position) + 1.0)])
        x, y = rod(mountain_car(position, 1)).mean(axis=0) - level
        height = 0.06 * SIZE
        np.testing.assert_allclose([x, y], [-height * np.sin(slope), height * (np.cos(slope) - 1.0)], atol=1.0)


def test_mountain_car_is_tilted_as_the_hill():
    for position, degrees in ((VALLEY, 0.0), (0.0, 53.5), (-np.pi / 3, -53.5)):
        values, axes = np.linalg.eigh(np.cov(rod(mountain_car(position, 1)).T))
        x, y = axes[:, values.argmax()]
        np.testing.assert_allclose(np.rad2deg(np.arctan(y / x)), degrees, atol=4.0)


@pytest.mark.parametrize("draw, goal", [(mountain_car, 0.5), (mountain_car_continuous, 0.45)])
def test_flag_stands_at_the_goal(draw, goal):
    picture = draw(VALLEY, 1)
    flag = pixels(picture, canvas.GOAL)
    # A few rows below the flag there is nothing but its pole.
    row = round(0.5 * (SIZE - 1) - flag[:, 1].min()) + 5
    darkness = canvas.PAPER[0] - picture[row, :, 0].astype(float)
    pole = (darkness * np.arange(SIZE)).sum() / darkness.sum() - 0.5 * (SIZE - 1)
    valley = rod(mountain_car(VALLEY, 1)).mean(axis=0)[0]
    np.testing.assert_allclose(pole, valley + (goal - VALLEY) * mountain_scale(), atol=0.5)


def test_mountain_car_is_pushed_to_the_side_of_the_action():
    for position in (-1.2, VALLEY, 0.6):
        assert head_side(mountain_car(position, 0)) == -1 and head_side(mountain_car(position, 2)) == 1
        assert len(arrow(mountain_car(position, 1))) == 0
        assert head_side(mountain_car_continuous(position, -0.8)) == -1
        assert head_side(mountain_car_continuous(position, 0.8)) == 1
    areas = [len(arrow(mountain_car_continuous(0.0, push))) for push in (0.0, 0.3, 0.6, 1.0)]
    assert areas[0] == 0 and np.all(np.diff(areas) > 0)
    np.testing.assert_array_equal(mountain_car_continuous(0.0, -3.0), mountain_car_continuous(0.0, -1.0))


@pytest.mark.parametrize("first, second", [(0.0, 0.0), (0.5, 0.8), (-1.2, 2.0), (np.pi, 0.0), (2.5, -1.5), (0.0, 1.6)])
def test_acrobot_hangs_and_bends_where_gymnasium_draws_it(first, second):
    picture = acrobot(first, second, 1)
    # Gymnasium shows ±2.2 m around the pivot; an angle of zero hangs, a positive one is to the right.
    metre = SIZE / 4.4
    elbow = metre * np.array([np.sin(first), -np.cos(first)])
    tip = elbow + metre * np.array([np.sin(first + second), -np.cos(first + second)])
    # The second link covers an end of the first.
    np.testing.assert_allclose(pixels(picture, canvas.INK).mean(axis=0), 0.5 * elbow, atol=3.0)
    # The ends of the second link are half discs of radius 0.03; a pixel that is covered in part may not count.
    forth, side = (tip - elbow) / metre, (elbow - tip)[::-1] * [-1.0, 1.0] / metre
    reach, width = (rod(picture) - elbow) @ forth, (rod(picture) - elbow) @ side
    np.testing.assert_allclose([reach.min(), reach.max()], [-0.03 * SIZE, metre + 0.03 * SIZE], atol=1.5)
    np.testing.assert_allclose([width.min(), width.max()], [-0.03 * SIZE, 0.03 * SIZE], atol=1.2)


def test_acrobot_has_to_pass_the_line_a_metre_above_its_pivot():
    line = pixels(acrobot(0.0, 0.0, 1), canvas.GOAL)
    np.testing.assert_allclose(line[:, 1].mean(), SIZE / 4.4, atol=0.6)
    assert np.ptp(line[:, 0]) > 0.9 * SIZE


def test_positive_torque_bends_the_acrobot_counter_clockwise():
    for first, second in ((0.0, 0.0), (1.0, -2.0), (3.0, 0.4)):
        elbow = SIZE / 4.4 * np.array([np.sin(first), -np.cos(first)])
        forward = np.array([np.cos(first + second), np.sin(first + second)])  # where the tip moves as θ₂ grows
        assert ((arrow(acrobot(first, second, 2)) - elbow) @ forward).mean() > 5.0
        assert ((arrow(acrobot(first, second, 0)) - elbow) @ forward).mean() < -5.0
        assert len(arrow(acrobot(first, second, 1))) == 0


def test_point_robot_shows_the_goal_of_the_state():
    unit = SIZE / 2.5  # [−1.25, 1.25] × [−0.75, 1.75] is seen.
    for angle in (0.0, 1.0, 2.5, np.pi):
        goal = np.array([np.cos(angle), np.sin(angle)])
        seen = pixels(point_robot((0.0, 0.3), tuple(goal), (0.0, 0.0)), canvas.GOAL)
        np.testing.assert_allclose(seen.mean(axis=0), unit * (goal - [0.0, 0.5]), atol=0.5)
        # It is reached within 0.2.
        np.testing.assert_allclose(len(seen), np.pi * (0.2 * unit) ** 2, rtol=0.1)


def test_point_robot_stands_where_it_is_and_moves_with_its_action():
    unit = SIZE / 2.5
    for place in ((0.0, 0.5), (-0.6, 0.1), (0.3, 1.2)):
        expected = unit * (np.array(place) - [0.0, 0.5])
        np.testing.assert_allclose(rod(point_robot(place, (1.0, 0.0), (0.0, 0.0))).mean(axis=0), expected, atol=0.5)
        for action in ((1.0, 0.0), (0.0, -1.0), (-0.7, 0.7), (0.2, 0.1)):
            x, y = arrow(point_robot(place, (1.0, 0.0), action)).mean(axis=0) - expected
            np.testing.assert_allclose(np.arctan2(y, x), np.arctan2(action[1], action[0]), atol=0.1)
    assert len(rod(point_robot((40.0, -40.0), (1.0, 0.0), (0.0, 0.0)))) > 20


def test_point_robot_without_its_state_is_an_error():
    with pytest.raises(ValueError, match="PointRobot-misc cannot be drawn without its state"):
        rendering.frame("PointRobot-misc", Moment(np.zeros(6), np.zeros(2)))


# Two observations, and two actions of opposite sign, of every environment that can be drawn.
CONTRACT = {
    "Pendulum-v1": ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.5], [0.5]),
    "CartPole-v1": ([0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.1, 0.0], 0, 1),
    "MountainCar-v0": ([-0.5, 0.0], [-0.3, 0.0], 0, 2),
    "MountainCarContinuous-v0": ([-0.5, 0.0], [-0.3, 0.0], [-0.5], [0.5]),
    "Acrobot-v1": ([1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 0, 2),
    "PointRobot-misc": ([0.0, 0.3, 0, 0, 0, 0], [0.4, 0.3, 0, 0, 0, 0], [-0.5, 0.5], [0.5, -0.5]),
}
STATES = {"PointRobot-misc": {"goal": [0.0, 1.0]}}


@pytest.mark.parametrize("name", sorted(drawings.BUILT_IN))
def test_every_renderer_shows_what_was_seen_and_done(name):
    here, there, minus, plus = CONTRACT[name]
    for size in (64, 128, 200):
        shown = [
            rendering.frame(name, Moment(np.array(observation), np.array(action), STATES.get(name, {})), size)
            for observation, action in ((here, minus), (there, minus), (here, plus))
        ]
        assert all(picture.shape == (size, size, 3) and picture.dtype == np.uint8 for picture in shown)
        for other in shown[1:]:
            # More than stray pixels: at least 0.1 % of the picture changes plainly.
            assert (np.abs(shown[0].astype(int) - other).max(axis=-1) > 60).mean() > 0.001


@pytest.mark.parametrize("name", sorted(drawings.BUILT_IN))
def test_every_renderer_takes_what_its_environment_gives(name):
    env = rlhf_jax.make(name)
    observation, state = env.reset(jax.random.key(0))
    moment = Moment(observation, np.zeros(env.action_shape, env.action_dtype), env.named_state(state))
    assert np.ptp(rendering.frame(name, moment, 64).reshape(-1, 3), axis=0).min() > 50


@pytest.mark.parametrize("size", [32, 65, 128])
def test_frames_stacks_the_pictures_of_a_segment(size):
    angles = np.array([0.0, 1.0, 2.0])
    observations = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    actions = np.array([[0.0], [0.5], [-1.0]])
    clip = rendering.frames("Pendulum-v1", Moment(observations, actions), size)
    assert clip.shape == (3, size, size, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip[1], pendulum(1.0, 0.5, size))
    nothing = Moment(observations[:0], actions[:0])
    assert rendering.frames("Pendulum-v1", nothing, size).shape == (0, size, size, 3)


def test_frames_gives_each_picture_its_own_state():
    goals = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    observations = np.tile([0.0, 0.3, 0.0, 0.0, 0.0, -1.0], (3, 1))
    clip = rendering.frames("PointRobot-misc", Moment(observations, np.zeros((3, 2)), {"goal": goals}))
    for picture, goal in zip(clip, goals, strict=True):
        np.testing.assert_array_equal(picture, point_robot((0.0, 0.3), tuple(goal), (0.0, 0.0)))


def test_pictures_do_not_leak_into_each_other():
    first = pendulum(0.5, 1.0)
    kept = first.copy()
    pendulum(2.0, -1.0)
    first[:] = 0
    np.testing.assert_array_equal(pendulum(0.5, 1.0), kept)


def test_frames_rejects_unequal_lengths():
    with pytest.raises(ValueError, match="3 observations but 2 actions"):
        rendering.frames("Pendulum-v1", Moment(np.zeros((3, 3)), np.zeros((2, 1))))
    with pytest.raises(ValueError, match="3 observations but 4 'theta' of the state"):
        rendering.frames("Pendulum-v1", Moment(np.zeros((3, 3)), np.zeros((3, 1)), {"theta": np.zeros(4)}))


@pytest.mark.parametrize(
    "ask",
    [
        rendering.require,
        lambda name: rendering.frame(name, Moment(np.zeros(6), np.array(0))),
        lambda name: rendering.frames(name, Moment(np.zeros((0, 6)), np.zeros(0))),
    ],
)
def test_unknown_environment_names_it_the_known_ones_and_the_remedy(ask):
    with pytest.raises(ValueError) as error:
        ask("Swimmer-misc")
    message = str(error.value)
    assert "\n" not in message
    for part in ("'Swimmer-misc'", "Acrobot-v1", "CartPole-v1", "Pendulum-v1", "register_renderer"):
        assert part in message


def test_registered_renderer_is_used_and_checked(monkeypatch):
    monkeypatch.setattr(rendering, "RENDERERS", dict(rendering.RENDERERS))
    moment = Moment(np.zeros(1), np.zeros(1), {"level": 128})
    rendering.register_renderer("Grey", lambda given, size: np.full((size, size, 3), given.state["level"], np.uint8))
    rendering.require("Grey")
    assert rendering.frame("Grey", moment, 16).mean() == 128
    rendering.register_renderer("Grey", lambda given, size: np.zeros((size, size)))
    with pytest.raises(ValueError, match=r"'Grey' returned float64 \[16, 16\], not uint8 \[16, 16, 3\]"):
        rendering.frame("Grey", moment, 16)


def test_shapes_outside_the_picture_leave_the_background():
    blank = canvas.Canvas().background(32)
    for centre in (3.0 + 0.5j, -2.0 + 0.5j, 0.5 + 4.0j):
        outside = canvas.Canvas()
        outside.disc(centre, 0.2, canvas.INK)
        np.testing.assert_array_equal(outside.over(blank), blank.pixels)


def test_drawing_only_the_box_of_the_shapes_is_the_same_as_drawing_all():
    for centre, radius in ((0.31 + 0.62j, 0.07), (0.02 + 0.97j, 0.11), (0.5 + 0.5j, 0.8)):
        part = canvas.Canvas()
        part.disc(centre, radius, canvas.INK)
        np.testing.assert_array_equal(part.over(canvas.Canvas().background(50)), part.background(50).pixels)
