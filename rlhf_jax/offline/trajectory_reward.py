"""A reward network fitted to preferences between whole trajectories."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlhf_jax import bradley_terry, networks, normalisation
from rlhf_jax.environments import Environment
from rlhf_jax.networks import RewardNetwork
from rlhf_jax.offline import trajectories
from rlhf_jax.offline.config import TrajectoryRewardConfig
from rlhf_jax.offline.trajectories import Pairs, Trajectories


@flax.struct.dataclass
class TrajectoryReward:
    """A learnt reward.

    params: parameters of the network.
    observation: moments by which observations are normalised.
    scale: [] root of the mean squared output over the trajectories that it was learnt from.

    Where trajectories differ in length the zero of the reward has a meaning, and preferences between them tell it: c
    more in every step moves the log-odds of a pair by c times the difference of the lengths. So outputs may be divided
    by a positive number, but nothing may be subtracted from them.
    """

    params: Any
    observation: normalisation.Moments
    scale: jax.Array


def init(
    key: jax.Array, observation: normalisation.Moments, *, env: Environment, config: TrajectoryRewardConfig
) -> TrajectoryReward:
    """Returns an untrained reward.

    Args:
      key: consumed.
      observation: moments by which observations are normalised.
      env: the environment; it observes vectors.
      config: the settings.
    """
    examples = jnp.zeros(env.observation_shape), jnp.zeros(env.action_size)
    # Sums over hundreds of steps start near zero, so that no pair is decided before anything is learnt.
    params = networks.initialise(key, RewardNetwork(config.hidden), *examples, output_scale=0.01)
    return TrajectoryReward(params, observation, jnp.ones(()))


def predict(
    reward: TrajectoryReward,
    observation: jax.Array,
    action: jax.Array,
    *,
    env: Environment,
    config: TrajectoryRewardConfig,
) -> jax.Array:
    """Returns the learnt reward of `[..., *observation]` and `[..., *action]`, `[...]`, of about unit scale."""
    observation = normalisation.normalise(reward.observation, observation)
    network = RewardNetwork(config.hidden)
    return networks.apply(network, reward.params, observation, env.action_features(action)) / reward.scale


def returns(
    reward: TrajectoryReward, data: Trajectories, *, env: Environment, config: TrajectoryRewardConfig
) -> jax.Array:
    """Returns the `[n]` sums of the learnt reward over trajectories; padding does not count."""
    rewards = predict(reward, data.observation, data.action, env=env, config=config)
    return jnp.where(data.mask, rewards, 0.0).sum(1)


def squared_weights(reward: TrajectoryReward) -> jax.Array:
    """Returns the sum of the squares of the kernels; the biases, which hold the zero of the reward, are free."""
    kernels = [leaf for leaf in jax.tree.leaves(reward.params) if leaf.ndim > 1]
    return jnp.stack([jnp.square(kernel).sum() for kernel in kernels]).sum()


def accuracy(predicted: jax.Array, pairs: Pairs) -> jax.Array:
    """Returns the share of pairs that predicted returns `[n]` order as the labels do; ties have no say."""
    decided = pairs.label != 0.5
    correct = (bradley_terry.preference_logit(predicted[pairs.index]) > 0) == (pairs.label > 0.5)
    return (correct & decided).sum() / decided.sum()


def fit(
    key: jax.Array, data: Trajectories, pairs: Pairs, *, env: Environment, config: TrajectoryRewardConfig
) -> tuple[TrajectoryReward, dict[str, jax.Array]]:
    """Fits a reward network by cross-entropy on the sums of its outputs over each trajectory.

    Each gradient step is on all pairs: predicted returns are computed once for each trajectory, not once for each pair
    that it is in.

    Args:
      key: consumed.
      data: n trajectories.
      pairs: P preferences between them.
      env: the environment.
      config: the settings.

    Returns:
      The reward, and metrics before each step, `[fit_steps]`: the mean cross-entropy `loss`, in nats, and `accuracy`.

    Reference: Christiano et al. 2017, §2.2.3; Brown et al. 2019, T-REX, eq. 2, for whole trajectories.
    """
    reward = init(key, trajectories.observation_moments(data), env=env, config=config)
    adam = optax.adam(config.learning_rate)

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        fitted = dataclasses.replace(reward, params=params)
        predicted = returns(fitted, data, env=env, config=config)
        nats = bradley_terry.cross_entropy(predicted[pairs.index], pairs.label).mean()
        info = {"loss": nats, "accuracy": accuracy(predicted, pairs)}
        return nats + config.l2 * squared_weights(fitted), info

    def step(carry: tuple[Any, optax.OptState], _: None):
        params, optimiser = carry
        grads, info = jax.grad(loss, has_aux=True)(params)
        updates, optimiser = adam.update(grads, optimiser)
        return (optax.apply_updates(params, updates), optimiser), info

    (params, _), info = jax.lax.scan(step, (reward.params, adam.init(reward.params)), None, length=config.fit_steps)
    reward = dataclasses.replace(reward, params=params)
    squares = jnp.square(predict(reward, data.observation, data.action, env=env, config=config))
    scale = jnp.sqrt(jnp.where(data.mask, squares, 0.0).sum() / data.mask.sum())
    return dataclasses.replace(reward, scale=jnp.maximum(scale, 1e-6)), info
