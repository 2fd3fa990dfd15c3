"""Pictures show what they should: the pose, the side of the action, and an error for what cannot be drawn."""

import numpy as np
import pytest

from rlhf_jax.environments import rendering

SIZE = 128


def pendulum(angle: float, torque: float = 0.0, size: int = SIZE) -> np.ndarray:
    observation = np.array([np.cos(angle), np.sin(angle), 0.0], np.float32)
    return rendering.frame("Pendulum-v1", observation, np.array([torque], np.float32), size)


def cartpole(position: float, angle: float, action: int) -> np.ndarray:
    observation = np.array([position, 0.0, angle, 0.0], np.float32)
    return rendering.frame("CartPole-v1", observation, np.array(action, np.int32), SIZE)


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns the `[K, 2]` places of a colour: to the right of the centre and above it, in pixels."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colour).max(axis=-1) < 8)
    middle = 0.5 * (len(picture) - 1)
    return np.stack([columns - middle, middle - rows], axis=1)


def rod(picture: np.ndarray) -> np.ndarray:
    return pixels(picture, rendering._BODY)


def arrow(picture: np.ndarray) -> np.ndarray:
    return pixels(picture, rendering._ACTION)


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
    assert np.abs(picture - mirror).max() <= 110
    assert np.abs(picture - mirror).mean() < 1.0
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
    one, scalar = (rendering.frame("Pendulum-v1", observation, action) for action in (np.array([0.5]), 0.5))
    np.testing.assert_array_equal(one, scalar)


def test_cartpole_leans_moves_and_is_pushed_to_the_right():
    upright, leaning = rod(cartpole(0.0, 0.0, 1)), rod(cartpole(0.0, 0.3, 1))
    assert abs(upright[:, 0].mean()) < 1.0 and leaning[:, 0].mean() > 4.0
    assert rod(cartpole(1.5, 0.0, 1))[:, 0].mean() > 20.0
    # The head is the widest part of the arrow and lies on the side of the push.
    for action, side in ((0, -1), (1, 1)):
        columns, counts = np.unique(arrow(cartpole(0.0, 0.0, action))[:, 0], return_counts=True)
        assert side * columns[counts.argmax()] > 0


def test_cartpole_at_its_limits_is_wholly_in_the_picture():
    area = len(pixels(cartpole(0.0, 0.0, 1), rendering._INK))
    for position in (-2.4, 2.4):
        assert abs(len(pixels(cartpole(position, 0.0, 1), rendering._INK)) - area) < 0.1 * area


@pytest.mark.parametrize("size", [32, 65, 128])
def test_frames_stacks_the_pictures_of_a_segment(size):
    angles = np.array([0.0, 1.0, 2.0])
    observations = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    actions = np.array([[0.0], [0.5], [-1.0]])
    clip = rendering.frames("Pendulum-v1", observations, actions, size)
    assert clip.shape == (3, size, size, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip[1], pendulum(1.0, 0.5, size))
    assert rendering.frames("Pendulum-v1", observations[:0], actions[:0], size).shape == (0, size, size, 3)


def test_pictures_do_not_leak_into_each_other():
    first = pendulum(0.5, 1.0)
    kept = first.copy()
    pendulum(2.0, -1.0)
    first[:] = 0
    np.testing.assert_array_equal(pendulum(0.5, 1.0), kept)


def test_frames_rejects_unequal_lengths():
    with pytest.raises(ValueError, match="3 observations but 2 actions"):
        rendering.frames("Pendulum-v1", np.zeros((3, 3)), np.zeros((2, 1)))


def test_unknown_environment_names_it_the_known_ones_and_the_remedy():
    with pytest.raises(ValueError) as error:
        rendering.frame("Acrobot-v1", np.zeros(6), np.array(0))
    message = str(error.value)
    assert "\n" not in message
    for part in ("'Acrobot-v1'", "CartPole-v1", "Pendulum-v1", "register_renderer"):
        assert part in message


def test_registered_renderer_is_used_and_checked(monkeypatch):
    monkeypatch.setattr(rendering, "RENDERERS", dict(rendering.RENDERERS))
    rendering.register_renderer("Grey", lambda observation, action, size: np.full((size, size, 3), 128, np.uint8))
    assert rendering.frame("Grey", np.zeros(1), np.zeros(1), 16).mean() == 128
    rendering.register_renderer("Grey", lambda observation, action, size: np.zeros((size, size)))
    with pytest.raises(ValueError, match=r"'Grey' returned float64 \[16, 16\], not uint8 \[16, 16, 3\]"):
        rendering.frame("Grey", np.zeros(1), np.zeros(1), 16)
