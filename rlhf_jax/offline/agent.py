"""An agent that acts and learns epoch by epoch, by the policy gradient or by PPO, from whatever reward it is given."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import ppo, rollout
from rlhf_jax.environments import Environment, FixedHorizon
from rlhf_jax.offline import policy_gradient
from rlhf_jax.offline.config import OfflineConfig
from rlhf_jax.offline.policy_gradient import PolicyGradientState
from rlhf_jax.ppo import PPOState
from rlhf_jax.rollout import Rollout

Reward = Callable[[Rollout], jax.Array]
"""`[T, N]` steps to `[T, N]` rewards to learn from."""

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class Agent:
    """An agent in the middle of its training.

    key: [] what all its randomness is derived from, together with the epoch.
    epoch: [] epochs done.
    learner: what it has learnt.
    """

    key: jax.Array
    epoch: jax.Array
    learner: PolicyGradientState | PPOState

    @property
    def actor(self) -> Any:
        """Parameters of the policy, for `policy_gradient.policy`."""
        return self.learner.actor


def init(key: jax.Array, *, env: Environment, config: OfflineConfig) -> Agent:
    """Returns an untrained agent; the key is consumed."""
    key_loop, key_learner = jax.random.split(key)
    learner: PolicyGradientState | PPOState
    if config.algorithm == "ppo":
        learner = ppo.init(key_learner, env=env, config=config.ppo)
    else:
        learner = policy_gradient.init(key_learner, env=env, config=config.policy_gradient)
    return Agent(key_loop, jnp.zeros((), jnp.int32), learner)


def rollout_length(env: Environment, config: OfflineConfig) -> int:
    """Returns T of an epoch: all episodes that begin in the first `steps_per_env` steps have ended by then."""
    if isinstance(env.base, FixedHorizon):
        return -(-config.steps_per_env // env.horizon) * env.horizon
    return config.steps_per_env + env.horizon - 1


def epoch(agent: Agent, reward: Reward, *, env: Environment, config: OfflineConfig) -> tuple[Agent, Rollout, Metrics]:
    """Acts from fresh starts, and learns from what that brought.

    Args:
      agent: the agent.
      reward: to learn from.
      env: the environment.
      config: the settings.

    Returns:
      The agent, the `[T, N]` rollout, and metrics of the episodes that began in the first `steps_per_env` steps: mean
      true `return`, mean sum of the rewards to learn from as `predicted_return`, mean `length`; and `finite`, false
      once a parameter or a reward is not a number.
    """
    key_start, key_act, key_learn = jax.random.split(jax.random.fold_in(agent.key, agent.epoch), 3)
    if isinstance(agent.learner, PPOState):
        policy = ppo.sampling_policy(agent.learner, env=env, config=config.ppo)
    else:
        policy = policy_gradient.policy(agent.actor, env=env, hidden=config.hidden)
    start = rollout.init(key_start, env=env, num_envs=config.num_envs)
    _, steps, _ = rollout.rollout(key_act, start, policy, env=env, num_steps=rollout_length(env, config))
    rewards = reward(steps)
    learner: PolicyGradientState | PPOState
    if isinstance(agent.learner, PPOState):
        progress = jnp.clip(agent.epoch / config.epochs, 0.0, 1.0)
        # These need not be whole episodes: PPO bootstraps.
        first, first_rewards = jax.tree.map(lambda x: x[: config.steps_per_env], (steps, rewards))
        learner, _ = ppo.update(key_learn, agent.learner, first, first_rewards, progress, env=env, config=config.ppo)
    else:
        learner = policy_gradient.update(
            agent.learner, steps, rewards, config.steps_per_env, env=env, config=config.policy_gradient
        )
    mask, _ = policy_gradient.episodes_begun(steps.done, config.steps_per_env)
    episodes = (mask & steps.done).sum()
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((learner.actor, rewards))]).all()
    agent = dataclasses.replace(agent, epoch=agent.epoch + 1, learner=learner)
    return (
        agent,
        steps,
        {
            "return": jnp.where(mask, steps.true_reward, 0.0).sum() / episodes,
            "predicted_return": jnp.where(mask, rewards, 0.0).sum() / episodes,
            "length": mask.sum() / episodes,
            "finite": finite,
        },
    )


def advance(
    agent: Agent, reward: Reward, num_epochs: int, *, env: Environment, config: OfflineConfig
) -> tuple[Agent, Any, Metrics]:
    """Does several epochs.

    Returns:
      The agent, its actors after each epoch, `[num_epochs, ...]`, and the metrics, `[num_epochs]` each.
    """

    def step(agent: Agent, _: None):
        agent, _steps, metrics = epoch(agent, reward, env=env, config=config)
        return agent, (agent.actor, metrics)

    agent, (actors, metrics) = jax.lax.scan(step, agent, None, length=num_epochs)
    return agent, actors, metrics
