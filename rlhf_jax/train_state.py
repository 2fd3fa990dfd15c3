"""The state of one agent between two iterations, how it begins, and how it goes on from another one."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import normalisation, ppo, preferences, reward_ensemble, rollout
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.ppo import PPOState
from rlhf_jax.preferences import Preferences
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import EnvironmentState


@flax.struct.dataclass
class TrainState:
    """One agent in the middle of its training.

    key: [] what all its randomness is derived from, together with the iteration.
    iteration: [] iterations done.
    environments: where its N environments stand.
    agent: the policy and its critic.
    ensemble: the learnt reward.
    preferences: the answered queries.
    true_reward: [] moments of the true reward under the untrained policy, which give it unit scale.
    segment_return: [] moments of the true return of segments under the same, by which a synthetic teacher measures.
    """

    key: jax.Array
    iteration: jax.Array
    environments: EnvironmentState
    agent: PPOState
    ensemble: RewardEnsemble
    preferences: Preferences
    true_reward: normalisation.Moments
    segment_return: normalisation.Moments


def init(key: jax.Array, *, env: Environment, config: Config) -> TrainState:
    """Returns an untrained agent in fresh environments; the key is consumed."""
    key_loop, key_env, key_agent, key_ensemble = jax.random.split(key, 4)
    return TrainState(
        key=key_loop,
        iteration=jnp.zeros((), jnp.int32),
        environments=rollout.init(key_env, env=env, num_envs=config.num_envs),
        agent=ppo.init(key_agent, env=env, config=config.ppo),
        ensemble=reward_ensemble.init(key_ensemble, env=env, config=config.reward),
        preferences=preferences.init(
            env=env,
            capacity=config.labels.kept,
            length=config.queries.segment_length,
            members=config.reward.members,
        ),
        true_reward=normalisation.init(),
        segment_return=normalisation.init(),
    )


def restart(state: TrainState, *, env: Environment, config: Config) -> TrainState:
    """Gives an agent fresh environments, where those that it acted in were played in an emulator that is gone."""
    key = jax.random.fold_in(state.key, 3 * config.iterations + state.iteration)
    return dataclasses.replace(state, environments=rollout.init(key, env=env, num_envs=config.num_envs))


def inherit(state: TrainState, earlier: TrainState) -> TrainState:
    """Gives a new agent the reward that an earlier one learnt, and the preferences that it was learnt from.

    Args:
      state: the new agent; its buffer has room for the preferences.
      earlier: of the same environment, segment length and reward networks.

    Returns:
      The new agent with them, and with the moments by which the reward sees observations normalised.
    """
    capacity = state.preferences.label.shape[0]
    return dataclasses.replace(
        state,
        agent=dataclasses.replace(state.agent, observation=earlier.agent.observation),
        ensemble=earlier.ensemble,
        preferences=preferences.resize(earlier.preferences, capacity),
    )
