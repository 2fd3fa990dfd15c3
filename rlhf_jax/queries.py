"""Queries: which pairs of segments to ask about, and how many when (Christiano et al. 2017, §2.2.4 and A.1)."""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import bradley_terry, segments
from rlhf_jax.config import Config, QueryConfig
from rlhf_jax.rollout import Rollout

SELECTIONS = ("disagreement", "uniform")


@flax.struct.dataclass
class Queries:
    """Q pairs of segments.

    observation: [Q, 2, L, ...] what the agent saw.
    action: [Q, 2, L, ...] what it did.
    state: name → [Q, 2, L, ...] the environments' own states, to draw clips from.
    true_reward: [Q, 2, L] for synthetic teachers only.
    asked: [Q] whether the pair is asked about; the slots of a round that are not due are left empty.
    """

    observation: jax.Array
    action: jax.Array
    state: dict[str, jax.Array]
    true_reward: jax.Array
    asked: jax.Array


def schedule(config: Config) -> np.ndarray:
    """Returns the share of the budget that has been asked after each iteration.

    The initial share is spread evenly over the warm-up. Then the rate falls with the steps s since, as h / (s + h),
    whose integral is h log(1 + s / h).

    Args:
      config: the settings; `labels` gives the initial share and the half-life h.

    Returns:
      `[iterations + 1]` shares, from 0 to 1.

    Reference: Christiano et al. 2017, A.1.
    """
    labels = config.labels
    iteration = np.arange(config.iterations + 1)
    warm = np.minimum(iteration / labels.warmup, 1.0)
    steps = np.maximum(iteration - labels.warmup, 0) * config.num_envs * config.rollout_length
    decayed = np.log1p(steps / labels.half_life)
    return labels.initial_fraction * warm + (1.0 - labels.initial_fraction) * decayed / decayed[-1]


def slots(config: Config) -> int:
    """Returns Q, the number of pairs that the busiest iteration of the largest budget asks about."""
    return math.ceil(np.diff(schedule(config)).max() * config.labels.max_budget)


def labels_by(iteration: jax.Array, *, config: Config) -> jax.Array:
    """Returns the `[]` number of labels that are due before this iteration."""
    share = jnp.asarray(schedule(config), jnp.float32)[iteration]
    return jnp.floor(share * config.labels.budget + 1e-3).astype(jnp.int32)


def disagreement(member_returns: jax.Array) -> jax.Array:
    """Returns the variance over the ensemble of the probability that slot 0 is preferred.

    Args:
      member_returns: `[M, ..., 2]` return of each segment as each member predicts it.

    Returns:
      `[...]` variances.

    Reference: Christiano et al. 2017, §2.2.4.
    """
    return jnp.var(bradley_terry.preference_probability(member_returns), axis=0)


def select(
    key: jax.Array,
    rollout: Rollout,
    member_rewards: jax.Array,
    count: jax.Array,
    *,
    num_slots: int,
    config: QueryConfig,
) -> Queries:
    """Draws candidate pairs from a rollout and keeps those that are worth most.

    Args:
      key: consumed.
      rollout: `[T, N]` steps.
      member_rewards: `[M, T, N]` reward of each step as each member predicts it.
      count: `[]` number of pairs to ask about, at most `num_slots`.
      num_slots: Q.
      config: the settings.

    Returns:
      Q queries, of which the first `count` are asked; none if no segment of the rollout stays within an episode.
    """
    key_pairs, key_rank = jax.random.split(key)
    length, num_candidates = config.segment_length, config.candidates * num_slots
    valid = segments.valid_starts(rollout.done, length)
    pairs = segments.sample(key_pairs, valid, (num_candidates, 2))
    if config.selection == "uniform":
        score = jax.random.uniform(key_rank, (num_candidates,))
    else:
        returns = segments.window_sums(jnp.moveaxis(member_rewards, 0, -1), length)
        score = disagreement(jnp.moveaxis(returns[pairs.start, pairs.env], -1, 0))
    # As many candidates per query in a round with few queries as in the busiest one.
    score = jnp.where(jnp.arange(num_candidates) < config.candidates * count, score, -1.0)
    _, best = jax.lax.top_k(score, num_slots)
    pairs = jax.tree.map(lambda x: x[best], pairs)
    return Queries(
        observation=segments.cut(rollout.observation, pairs, length),
        action=segments.cut(rollout.action, pairs, length),
        state={name: segments.cut(values, pairs, length) for name, values in rollout.state.items()},
        true_reward=segments.cut(rollout.true_reward, pairs, length),
        asked=(jnp.arange(num_slots) < count) & valid.any(),
    )
