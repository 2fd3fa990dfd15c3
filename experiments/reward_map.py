"""The learnt reward beside the true one, where states are a plane: what is drawn as a heat map."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import reward_ensemble
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.reward_ensemble import RewardEnsemble

_POINTS = 65  # Odd, so that the upright pendulum at rest is one of them.


@dataclasses.dataclass(frozen=True)
class Axis:
    """One side of a plane.

    label: what it is, with its unit.
    values: where the grid lies.
    ticks: marked values and what is written at them; left to the figure if empty.
    """

    label: str
    values: np.ndarray
    ticks: dict[float, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plane:
    """A grid of states, and what is seen and earned there when nothing is done.

    across: the W columns.
    up: the H rows, from the bottom.
    observation: [H, W, *observation] of each state.
    reward: [H, W] true reward of action zero.
    """

    across: Axis
    up: Axis
    observation: np.ndarray
    reward: np.ndarray


def _pendulum() -> Plane:
    """Returns the states of Pendulum-v1, whose reward is −(θ² + 0.1 θ̇² + 0.001 u²)."""
    angle, velocity = np.linspace(-np.pi, np.pi, _POINTS), np.linspace(-8.0, 8.0, _POINTS)
    theta, theta_dot = np.meshgrid(angle, velocity)
    ticks = {-np.pi: "−π", -np.pi / 2: "−π/2", 0.0: "0", np.pi / 2: "π/2", np.pi: "π"}
    return Plane(
        across=Axis("angle θ, 0 is upright", angle, ticks),
        up=Axis("angular velocity θ̇ in rad/s", velocity),
        observation=np.stack([np.cos(theta), np.sin(theta), theta_dot], -1).astype(np.float32),
        reward=-(theta**2 + 0.1 * theta_dot**2),
    )


PLANES: dict[str, Plane] = {"Pendulum-v1": _pendulum()}
"""The environments whose states are a plane."""


def learnt(ensemble: RewardEnsemble, *, env: Environment, config: Config) -> jax.Array:
    """Returns the learnt reward of action zero on the plane of the environment.

    Args:
      ensemble: M members.
      env: one of `PLANES`.
      config: the settings.

    Returns:
      `[H, W]` rewards, in the units of the ensemble.
    """
    observation = jnp.asarray(PLANES[env.name].observation)
    grid = observation.shape[: observation.ndim - len(env.observation_shape)]
    action = jnp.zeros((*grid, *env.action_shape), env.action_dtype)
    return reward_ensemble.predict(ensemble, observation, action, env=env, config=config.reward)


def on_true_scale(plane: Plane, rewards: np.ndarray) -> np.ndarray:
    """Returns `[H, W]` rewards times the scale, plus the offset, with which they are nearest to the true ones.

    A preference does not tell the scale and the offset. Nearest is by least squares; the scale is never negative, since
    that would draw a reward that is the wrong way round as if it were right. Such a one becomes a constant.
    """
    deviation = rewards - rewards.mean()
    variance = np.square(deviation).mean()
    covariance = (deviation * (plane.reward - plane.reward.mean())).mean()
    scale = max(covariance, 0.0) / variance if variance > 0 else 0.0
    return plane.reward.mean() + scale * deviation


def agreement(plane: Plane, maps: np.ndarray) -> np.ndarray:
    """Returns the `[seeds]` correlation, Pearson's, of `[seeds, H, W]` rewards with the true one; NaN of a constant."""
    deviation = (maps - maps.mean((1, 2), keepdims=True)).reshape(len(maps), -1)
    truth = (plane.reward - plane.reward.mean()).ravel()
    norms = np.linalg.norm(deviation, axis=1) * np.linalg.norm(truth)
    return np.divide(deviation @ truth, norms, out=np.full(len(maps), np.nan), where=norms > 0)
