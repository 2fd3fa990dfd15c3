"""Pictures of an environment, drawn on the host from what the agent saw and did and where the environment stood.

A renderer is a function of one `Moment`, so that a stored segment can be shown long after it was played.
"""

import numpy as np

from rlhf_jax.environments import atari_games, drawings, pictures
from rlhf_jax.environments.drawings import Moment, Renderer

__all__ = [
    "LEGENDS",
    "RENDERERS",
    "STEPS_PER_SECOND",
    "Moment",
    "Renderer",
    "can_draw",
    "frame",
    "frames",
    "legend",
    "register_renderer",
    "require",
]

STEPS_PER_SECOND = 20
"""How fast people are shown clips."""

RENDERERS: dict[str, Renderer] = {**drawings.BUILT_IN, **pictures.BUILT_IN}
"""Renderer of each environment, by name; Atari's games, too many to list, are drawn without being here."""

LEGENDS: dict[str, str] = {**dict.fromkeys(drawings.BUILT_IN, drawings.LEGEND), **pictures.LEGENDS}
"""What people need to know to read its pictures, by name; may be empty."""


def register_renderer(name: str, function: Renderer, legend: str = "") -> None:
    """Makes an environment drawable; an earlier renderer of the same name is replaced.

    Args:
      name: of the environment, such as "Pendulum-v1".
      function: `(moment, size) -> [size, size, 3]` uint8.
      legend: what people need to know to read the pictures.
    """
    RENDERERS[name], LEGENDS[name] = function, legend


def can_draw(env_name: str) -> bool:
    """Returns whether the environment has a renderer."""
    return env_name in RENDERERS or atari_games.is_atari(env_name)


def legend(env_name: str) -> str:
    """Returns what people need to know to read the pictures of the environment; empty if there is nothing to say."""
    return LEGENDS.get(env_name, pictures.ATARI_LEGEND if atari_games.is_atari(env_name) else "")


def require(env_name: str) -> None:
    """Raises a ValueError unless the environment can be drawn; so that a run can say so before it starts."""
    if not can_draw(env_name):
        raise ValueError(
            f"cannot draw {env_name!r}, only {', '.join(sorted(RENDERERS))}, and Atari games such as "
            f"PongNoFrameskip-v4; add it with register_renderer({env_name!r}, function)"
        )


def frame(env_name: str, moment: Moment, size: int = 128) -> np.ndarray:
    """Draws one moment of an episode.

    Args:
      env_name: name of the environment.
      moment: what the agent saw and did, and the environment's own state.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.

    Raises:
      ValueError: the environment has no renderer, or its renderer returned another shape or type.
    """
    require(env_name)
    observation, action, state = moment
    state = {name: np.asarray(value) for name, value in state.items()}
    # An Atari game may have been given a renderer of its own.
    renderer = RENDERERS.get(env_name, pictures.newest_frame)
    picture = renderer(Moment(np.asarray(observation), np.asarray(action), state), size)
    if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
        raise ValueError(
            f"the renderer of {env_name!r} returned {picture.dtype} {list(picture.shape)}, not uint8 {[size, size, 3]}"
        )
    return picture


def frames(env_name: str, moments: Moment, size: int = 128) -> np.ndarray:
    """Draws a segment, one picture for each step.

    Args:
      env_name: name of the environment.
      moments: as of `frame`, with a leading axis `[T]` on every array.
      size: height and width in pixels.

    Returns:
      `[T, size, size, 3]` uint8 RGB.

    Raises:
      ValueError: the lengths differ, or `frame` cannot draw this environment.
    """
    require(env_name)
    observations, actions = np.asarray(moments.observation), np.asarray(moments.action)
    states = {name: np.asarray(values) for name, values in moments.state.items()}
    steps = len(observations)
    for name, values in {"actions": actions, **{f"{name!r} of the state": v for name, v in states.items()}}.items():
        if len(values) != steps:
            raise ValueError(f"{steps} observations but {len(values)} {name}")
    pictures = np.empty((steps, size, size, 3), np.uint8)
    for t in range(steps):
        state = {name: values[t] for name, values in states.items()}
        pictures[t] = frame(env_name, Moment(observations[t], actions[t], state), size)
    return pictures
