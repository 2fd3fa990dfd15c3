"""Why a run works: how well the learnt reward agrees with the true one."""

import jax
import jax.numpy as jnp

from rlhf_jax import ppo, reward_ensemble, rollout, segments
from rlhf_jax.bradley_terry import preference_logit
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.ppo import PPOState
from rlhf_jax.reward_ensemble import RewardEnsemble


def judge_reward(
    key: jax.Array,
    agent: PPOState,
    ensemble: RewardEnsemble,
    *,
    env: Environment,
    config: Config,
    num_envs: int = 32,
    num_pairs: int = 1024,
) -> dict[str, jax.Array]:
    """Compares the learnt reward with the true one on fresh episodes of the agent, none of which was labelled.

    Args:
      key: consumed; the same key gives the same starts.
      agent: whose episodes they are; it acts as in training, exploration included.
      ensemble: the learnt reward.
      env: the environment.
      config: the settings.
      num_envs: episodes to judge on.
      num_pairs: pairs of their segments, drawn uniformly.

    Returns:
      `accuracy`, the share of the pairs that the learnt reward orders as their true returns are, and `correlation`,
      Pearson's, of both rewards over all steps.
    """
    key_init, key_rollout, key_pairs = jax.random.split(key, 3)
    start = rollout.init(key_init, env=env, num_envs=num_envs)
    policy = ppo.sampling_policy(agent, env=env, config=config.ppo)
    _, steps, _ = rollout.rollout(key_rollout, start, policy, env=env, num_steps=env.horizon)
    predicted = reward_ensemble.predict(ensemble, steps.observation, steps.action, env=env, config=config.reward)

    length = config.queries.segment_length
    pairs = segments.sample(key_pairs, segments.valid_starts(steps.done, length), (num_pairs, 2))
    predicted_order, true_order = (
        preference_logit(segments.window_sums(reward, length)[pairs.start, pairs.env]) > 0
        for reward in (predicted, steps.true_reward)
    )
    return {
        "accuracy": (predicted_order == true_order).mean(),
        "correlation": correlation(predicted, steps.true_reward),
    }


def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns Pearson's correlation of all entries of two arrays of one shape; NaN if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / jnp.sqrt(jnp.square(a).sum() * jnp.square(b).sum())
