"""A drawing of each environment of vectors, the way Gymnasium draws it where it has it.

Every drawing shows the action as an orange arrow. Places are complex numbers, as in `canvas`.
"""

import cmath
import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rlhf_jax.environments.canvas import BODY, GOAL, GUIDE, INK, PAPER, Background, Canvas


class Moment(NamedTuple):
    """What a renderer is given.

    observation: `[...]` what the agent saw.
    action: `[...]` what it did then: in [−1, 1] if continuous, an integer if discrete.
    state: name → `[...]` the environment's own state then, such as "theta"; empty where it was not kept.
    """

    observation: np.ndarray
    action: np.ndarray
    state: Mapping[str, np.ndarray] = types.MappingProxyType({})


Renderer = Callable[[Moment, int], np.ndarray]
"""`(moment, size) -> [size, size, 3]` uint8."""


def pendulum(moment: Moment, size: int) -> np.ndarray:
    """Draws Pendulum-v1: up is upright, a positive angle or torque is counter-clockwise.

    The arrow leaves the rod in the direction of the torque; its length is proportional to the torque.

    Args:
      moment: observation `[3]` cos θ, sin θ, θ̇ in rad/s, with θ = 0 upright; action `[1]` or `[]` torque as a
        fraction of the largest.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    cos, sin, _ = moment.observation.tolist()
    centre, length, half_width = 0.5 + 0.5j, 0.36, 0.042
    up = 1j * complex(cos, sin)
    canvas = Canvas()
    canvas.arc_arrow(centre, 0.62 * length, cmath.phase(up), _fraction(moment.action), half_width)
    canvas.rod(centre, centre + length * up, half_width, BODY)
    canvas.disc(centre, 0.026, PAPER)
    canvas.disc(centre, 0.013, INK)
    return canvas.over(_pendulum_background(size))


@functools.lru_cache(maxsize=8)
def _pendulum_background(size: int) -> Background:
    """Draws the path of the tip, and the mark of the upright position."""
    canvas = Canvas()
    canvas.disc(0.5 + 0.5j, 0.365, GUIDE)
    canvas.disc(0.5 + 0.5j, 0.355, PAPER)
    canvas.rod(0.5 + 0.925j, 0.5 + 0.965j, 0.01, GUIDE)
    return canvas.background(size)


_TRACK = 0.22j
_CARTPOLE_METRE = 0.37 / 2.4


def cartpole(moment: Moment, size: int) -> np.ndarray:
    """Draws CartPole-v1: a positive position or angle is to the right.

    The ticks on the track are where the episode ends. The pole is drawn longer than to scale, since its angle is what
    is judged; the arrow under the cart is the push.

    Args:
      moment: observation `[4]` x in m, ẋ in m/s, θ in rad, θ̇ in rad/s, with θ = 0 upright; action `[]` 0 pushes to
        the left, 1 to the right.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    position, _, angle, _ = moment.observation.tolist()
    push = 2 * int(moment.action) - 1
    cart = 0.5 + _CARTPOLE_METRE * position + _TRACK
    hinge = cart + 0.09j
    canvas = Canvas()
    canvas.box(cart + 0.055j, 0.11 + 0.055j, 0.025, INK)
    canvas.rod(hinge, hinge + 0.4j * cmath.exp(-1j * angle), 0.026, BODY)
    canvas.disc(hinge, 0.012, PAPER)
    canvas.arrow(cart - 0.1 * push - 0.075j, 0.2 * push, 0.042)
    return canvas.over(_cartpole_background(size))


@functools.lru_cache(maxsize=8)
def _cartpole_background(size: int) -> Background:
    """Draws the track, and the marks of its two ends."""
    canvas = Canvas()
    canvas.rod(0.03 + _TRACK, 0.97 + _TRACK, 0.008, GUIDE)
    for position in (-2.4, 2.4):
        end = 0.5 + _CARTPOLE_METRE * position + _TRACK
        canvas.rod(end - 0.03j, end + 0.03j, 0.008, GUIDE)
    return canvas.background(size)


_MOUNTAIN_UNIT = 0.76 / 1.8


def mountain_car(moment: Moment, size: int) -> np.ndarray:
    """Draws MountainCar-v0: a positive position is to the right, the flag is the goal at 0.5.

    The car is drawn larger than to scale; the arrow below it is the push.

    Args:
      moment: observation `[2]` position in [−1.2, 0.6] and velocity; action `[]` 0 pushes to the left, 1 not at all, 2
        to the right.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    return _mountain(moment, float(moment.action) - 1.0, 0.5, size)


def mountain_car_continuous(moment: Moment, size: int) -> np.ndarray:
    """Draws MountainCarContinuous-v0 as `mountain_car`, with the goal at 0.45.

    Args:
      moment: observation `[2]` position in [−1.2, 0.6] and velocity; action `[1]` or `[]` push to the right as a
        fraction of the largest, to which the length of the arrow is proportional.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    return _mountain(moment, _fraction(moment.action), 0.45, size)


def _mountain(moment: Moment, push: float, goal: float, size: int) -> np.ndarray:
    position, _ = moment.observation.tolist()
    ground, turn = _hill(position), cmath.exp(1j * math.atan(1.35 * math.cos(3.0 * position)))
    canvas = Canvas()
    canvas.box(ground + 0.06j * turn, 0.075 + 0.028j, 0.015, BODY, turn)
    for side in (-0.042, 0.042):
        canvas.disc(ground + (side + 0.032j) * turn, 0.027, INK)
        canvas.disc(ground + (side + 0.032j) * turn, 0.009, PAPER)
    canvas.arrow(ground.real + 0.1j - 0.1 * push, 0.2 * push, 0.042)
    return canvas.over(_mountain_background(goal, size))


@functools.lru_cache(maxsize=8)
def _mountain_background(goal: float, size: int) -> Background:
    """Draws the hill, and the flag at the goal."""
    canvas = Canvas()
    canvas.curve(_hill(np.linspace(-1.4, 0.8, 101)), 0.008, GUIDE)
    foot, top = _hill(goal), _hill(goal) + 0.2j
    canvas.rod(foot, top, 0.007, INK)
    canvas.polygon(np.array([top + 0.006j, top + 0.1 - 0.032j, top - 0.07j]), GOAL)
    return canvas.background(size)


def _hill(position):
    """Returns the place of the ground at a position: it is 0.45 sin(3 x) high."""
    return 0.12 + 0.43j + _MOUNTAIN_UNIT * (position + 1.2 + 0.45j * np.sin(3.0 * position))


_ACROBOT_METRE = 0.25 / 1.1


def acrobot(moment: Moment, size: int) -> np.ndarray:
    """Draws Acrobot-v1: both angles are counter-clockwise, from hanging down and from the first link.

    The line is the height that the tip has to pass. The arrow leaves the second link in the direction of the torque
    between the links.

    Args:
      moment: observation `[6]` cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁ and θ̇₂ in rad/s; action `[]` 0 is the torque −1, 1
        none, 2 the torque +1.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    cos1, sin1, cos2, sin2, _, _ = moment.observation.tolist()
    first = -1j * complex(cos1, sin1)
    second = first * complex(cos2, sin2)
    pivot, half_width = 0.5 + 0.5j, 0.03
    elbow = pivot + _ACROBOT_METRE * first
    canvas = Canvas()
    canvas.rod(pivot, elbow, half_width, INK)
    canvas.arc_arrow(elbow, 0.62 * _ACROBOT_METRE, cmath.phase(second), float(moment.action) - 1.0, half_width)
    canvas.rod(elbow, elbow + _ACROBOT_METRE * second, half_width, BODY)
    for joint in (pivot, elbow):
        canvas.disc(joint, 0.013, PAPER)
    return canvas.over(_acrobot_background(size))


@functools.lru_cache(maxsize=8)
def _acrobot_background(size: int) -> Background:
    """Draws the height to pass."""
    canvas = Canvas()
    height = 1j * (0.5 + _ACROBOT_METRE)
    canvas.rod(0.03 + height, 0.97 + height, 0.006, GOAL)
    return canvas.background(size)


_POINT_ROBOT_UNIT = 0.4


def point_robot(moment: Moment, size: int) -> np.ndarray:
    """Draws gymnax's PointRobot-misc: the goal, which the agent does not see, lies on the half circle.

    The arrow is the step, drawn five times as long as it is. A robot that leaves the picture is drawn at its edge.

    Args:
      moment: observation `[6]`, the first two the place; action `[2]` to the right and upwards, as a fraction of the
        largest; state "goal" `[2]`.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.

    Raises:
      ValueError: the state was not kept.
    """
    if "goal" not in moment.state:
        raise ValueError("PointRobot-misc cannot be drawn without its state, which has the goal")
    robot, goal = (_floor(*place.tolist()) for place in (moment.observation[:2], moment.state["goal"]))
    robot = complex(*np.clip([robot.real, robot.imag], 0.05, 0.95).tolist())
    canvas = Canvas()
    canvas.disc(goal, 0.2 * _POINT_ROBOT_UNIT, GOAL)
    step = complex(*np.clip(moment.action, -1.0, 1.0).tolist())
    # It begins at the edge of the robot, which would hide a short one.
    canvas.arrow(robot + (0.04 * step / abs(step) if step else 0.0), 0.2 * step, 0.042)
    canvas.disc(robot, 0.04, BODY)
    canvas.disc(robot, 0.012, PAPER)
    return canvas.over(_point_robot_background(size))


@functools.lru_cache(maxsize=8)
def _point_robot_background(size: int) -> Background:
    """Draws the half circle on which goals lie."""
    canvas = Canvas()
    angles = np.linspace(0.0, math.pi, 49)
    canvas.curve(_floor(np.cos(angles), np.sin(angles)), 0.008, GUIDE)
    return canvas.background(size)


def _floor(x, y):
    """Returns the place of a point of the floor, of which [−1.25, 1.25] × [−0.75, 1.75] is seen."""
    return 0.5 + 0.3j + _POINT_ROBOT_UNIT * (x + 1j * y)


def _fraction(action: np.ndarray) -> float:
    """Returns the only element of a continuous action, clipped to [−1, 1]."""
    return min(max(action.item(), -1.0), 1.0)


LEGEND = "The orange arrow is what the agent does: its push or torque."
"""What people need to know to read these pictures."""

BUILT_IN: dict[str, Renderer] = {
    "Pendulum-v1": pendulum,
    "CartPole-v1": cartpole,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Acrobot-v1": acrobot,
    "PointRobot-misc": point_robot,
}
"""Renderer of each environment of vectors, by name."""
