"""Small trajectories, rewards and settings to learn offline from."""

import jax.numpy as jnp
import numpy as np
import probes

from rlhf_jax import normalisation, settings
from rlhf_jax.offline import trajectory_reward
from rlhf_jax.offline.config import OfflineConfig, TrajectoryRewardConfig
from rlhf_jax.offline.trajectories import Trajectories
from rlhf_jax.rollout import Rollout

CHOICE = probes.make(probes.Choice())  # one step; shows 0, pays 1 for action 1 and −1 for action 0


def column(*values):
    """One environment's `[T, 1]` values."""
    return jnp.array(values)[:, None]


def steps_of(action, done, observation=None):
    """A rollout of which only what is learnt from matters."""
    zeros = jnp.zeros(action.shape)
    observation = zeros[..., None] if observation is None else observation
    return Rollout(observation, action, {}, zeros, observation, done, jnp.zeros_like(done), zeros)


def some_trajectories(lengths, features=2, seed=0):
    """Trajectories of these lengths with random observations and actions; the padding is huge."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    observation = np.where(mask[..., None], rng.normal(size=(*mask.shape, features)), 1e6)
    action = np.where(mask, rng.integers(0, 2, mask.shape), 1)
    return Trajectories(
        jnp.asarray(observation, jnp.float32),
        jnp.asarray(action, jnp.int32),
        jnp.asarray(mask),
        jnp.asarray(lengths, jnp.float32),
    )


class Showing(probes.Probe):
    """A probe that shows two numbers."""

    def observation_space(self, params):
        from gymnax.environments import spaces

        return spaces.Box(-10.0, 10.0, (2,))


TWO = probes.make(Showing())


LINEAR = TrajectoryRewardConfig(hidden=(), fit_steps=60, learning_rate=0.1, l2=0.0)


def linear_reward(kernel, bias):
    """r = wᵀ f + b, of two observed numbers and the one-hot action."""
    params = {"params": {"Dense_0": {"kernel": jnp.array(kernel)[:, None], "bias": jnp.array([bias])}}}
    return trajectory_reward.TrajectoryReward(params, normalisation.init((2,)), jnp.float32(1.0))


def small(*assignments, algorithm="policy_gradient"):
    """Settings for a probe of one step."""
    base = OfflineConfig(algorithm=algorithm, num_envs=32, epoch_steps=64, epochs=30)
    return settings.override(base, ["policy_gradient.hidden=8", "ppo.hidden=8", "ppo.minibatches=4", *assignments])
