"""Maximum-entropy inverse reinforcement learning (Ziebart et al. 2008) with a reward network.

Trajectories are explained, not compared: p(τ) ∝ exp Σₜ r(oₜ, aₜ). The reward that makes them likeliest is raised where
they go and lowered where the policy goes that is best for it, until both go the same ways.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlhf_jax.environments import Environment
from rlhf_jax.offline import agent as agents
from rlhf_jax.offline import policy_gradient, trajectories, trajectory_reward
from rlhf_jax.offline.agent import Agent, Metrics
from rlhf_jax.offline.config import InverseRLConfig, OfflineConfig, TrajectoryRewardConfig
from rlhf_jax.offline.trajectories import Trajectories
from rlhf_jax.offline.trajectory_reward import TrajectoryReward
from rlhf_jax.rollout import Rollout


@flax.struct.dataclass
class Visits:
    """Steps, each with its share in the mean of a sum over an episode.

    observation: [..., *observation].
    action: [..., *action].
    weight: [...] 1 over the number of episodes; 0 for what does not count.
    """

    observation: jax.Array
    action: jax.Array
    weight: jax.Array


@flax.struct.dataclass
class InverseRL:
    """A reward and a policy in the middle of their training.

    agent: learns from the reward as it is.
    reward: explains the trajectories; its scale is 1, because the entropy of the policy is measured in its units.
    optimiser: Adam's state, of the reward.
    """

    agent: Agent
    reward: TrajectoryReward
    optimiser: optax.OptState


def visits_of(data: Trajectories) -> Visits:
    """Returns the steps of n trajectories."""
    return Visits(data.observation, data.action, data.mask / data.mask.shape[0])


def visits_in(steps: Rollout, num_steps: int) -> Visits:
    """Returns the steps of the episodes that begin in the first `num_steps` steps of a rollout, and end in it."""
    mask, _ = policy_gradient.episodes_begun(steps.done, num_steps)
    return Visits(steps.observation, steps.action, mask / (mask & steps.done).sum())


def reward_gradient(
    reward: TrajectoryReward, expert: Visits, own: Visits, *, env: Environment, config: TrajectoryRewardConfig
) -> Any:
    """Returns the gradient of the log-likelihood of the expert's trajectories.

        ∇ log p = E_expert[ Σₜ ∇ r(oₜ, aₜ) ] − E_π[ Σₜ ∇ r(oₜ, aₜ) ]

    For a linear reward, r = wᵀ f, it is the expert's expected sum of features less that of the policy, where π is the
    policy that is best for r and its own entropy.

    Args:
      reward: r.
      expert: steps of the trajectories.
      own: steps of π.
      env: the environment.
      config: of the network.

    Returns:
      A pytree like `reward.params`.

    Reference: Ziebart et al. 2008, eq. 6.
    """

    def gap(params: Any) -> jax.Array:
        now = dataclasses.replace(reward, params=params)

        def total(visits: Visits) -> jax.Array:
            rewards = trajectory_reward.predict(now, visits.observation, visits.action, env=env, config=config)
            return jnp.where(visits.weight > 0, visits.weight * rewards, 0.0).sum()

        return total(expert) - total(own)

    return jax.grad(gap)(reward.params)


def init(key: jax.Array, data: Trajectories, *, env: Environment, config: OfflineConfig) -> InverseRL:
    """Returns an untrained policy and reward for these trajectories; the key is consumed."""
    key_agent, key_reward = jax.random.split(key)
    moments = trajectories.observation_moments(data)
    reward = trajectory_reward.init(key_reward, moments, env=env, config=config.reward)
    agent = agents.init(key_agent, env=env, config=config)
    return InverseRL(agent, reward, _adam(config.inverse_rl).init(reward.params))


def epoch(
    state: InverseRL, data: Trajectories, *, env: Environment, config: OfflineConfig
) -> tuple[InverseRL, Metrics]:
    """Improves the policy on the reward and its entropy, and then the reward.

    Args:
      state: both.
      data: what to explain.
      env: the environment.
      config: the settings.

    Returns:
      Both, and the metrics of `agent.epoch`.
    """

    def soft_reward(steps: Rollout) -> jax.Array:
        rewards = trajectory_reward.predict(
            state.reward, steps.observation, steps.action, env=env, config=config.reward
        )
        return rewards - steps.log_prob

    agent, steps, metrics = agents.epoch(state.agent, soft_reward, env=env, config=config)
    expert, own, adam = visits_of(data), visits_in(steps, config.steps_per_env), _adam(config.inverse_rl)

    def step(carry: tuple[TrajectoryReward, optax.OptState], _: None):
        reward, optimiser = carry
        uphill = reward_gradient(reward, expert, own, env=env, config=config.reward)
        grads = jax.tree.map(lambda p, u: config.inverse_rl.l2 * p - u, reward.params, uphill)
        updates, optimiser = adam.update(grads, optimiser)
        return (dataclasses.replace(reward, params=optax.apply_updates(reward.params, updates)), optimiser), None

    (reward, optimiser), _ = jax.lax.scan(
        step, (state.reward, state.optimiser), None, length=config.inverse_rl.reward_steps
    )
    return InverseRL(agent, reward, optimiser), metrics


def advance(
    state: InverseRL, data: Trajectories, num_epochs: int, *, env: Environment, config: OfflineConfig
) -> tuple[InverseRL, Metrics]:
    """Does several epochs; returns policy and reward, and the metrics, `[num_epochs]` each."""

    def step(state: InverseRL, _: None):
        return epoch(state, data, env=env, config=config)

    return jax.lax.scan(step, state, None, length=num_epochs)


def _adam(config: InverseRLConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)
