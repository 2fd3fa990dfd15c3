"""Why a run works: how well the learnt reward agrees with the true one."""

import jax
import jax.numpy as jnp

from rlhf_jax import reward_ensemble, segments
from rlhf_jax.bradley_terry import preference_logit
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout


def judge_reward(
    key: jax.Array, ensemble: RewardEnsemble, steps: Rollout, *, env: Environment, config: Config, num_pairs: int = 1024
) -> dict[str, jax.Array]:
    """Compares the learnt reward with the true one on a rollout, which should hold nothing that was labelled.

    Args:
      key: consumed.
      ensemble: the learnt reward.
      steps: `[T, N]` the rollout to judge on.
      env: the environment.
      config: the settings.
      num_pairs: pairs of segments, drawn uniformly from the rollout.

    Returns:
      `accuracy`, the share of the pairs that the learnt reward orders as their true returns are, and `correlation`,
      Pearson's, of both rewards over all steps.
    """
    predicted = reward_ensemble.predict(ensemble, steps.observation, steps.action, env=env, config=config.reward)
    length = config.queries.segment_length
    pairs = segments.sample(key, segments.valid_starts(steps.done, length), (num_pairs, 2))
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
