"""Queries: which pairs of segments to ask about, and how many when (Christiano et al. 2017, §2.2.4 and A.1)."""

import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import query_rules, segments
from rlhf_jax.config import Config, QueryConfig
from rlhf_jax.rollout import Rollout
from rlhf_jax.segments import Windows

SCHEDULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": lambda t: t,
    "hyperbolic": np.log1p,  # a rate of 1 / (1 + t)
    "inverse_quadratic": np.arctan,  # 1 / (1 + t²)
    "exponential": lambda t: 1.0 - 2.0**-t,  # in proportion to 2⁻ᵗ
}
"""How many labels have come by time t, in half-lives, up to a factor. All rates but the constant halve by t = 1."""


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

    The initial share is spread evenly over the warm-up. Then the rate falls with the steps s since: as h / (s + h) in
    the hyperbolic schedule, whose integral is h log(1 + s / h).

    Args:
      config: the settings; `labels` gives the initial share, the schedule and the half-life h.

    Returns:
      `[iterations + 1]` shares, from 0 to 1.

    Reference: Christiano et al. 2017, A.1.
    """
    labels = config.labels
    iteration = np.arange(config.iterations + 1)
    warm = np.minimum(iteration / labels.warmup, 1.0)
    steps = np.maximum(iteration - labels.warmup, 0) * config.num_envs * config.rollout_length
    decayed = SCHEDULES[labels.schedule](steps / labels.half_life)
    return labels.initial_fraction * warm + (1.0 - labels.initial_fraction) * decayed / decayed[-1]


def slots(config: Config) -> int:
    """Returns Q, the number of pairs that the busiest iteration of the largest budget asks about."""
    return math.ceil(np.diff(schedule(config)).max() * config.labels.max_budget)


def labels_by(iteration: jax.Array, *, config: Config) -> jax.Array:
    """Returns the `[]` number of labels that are due before this iteration."""
    share = jnp.asarray(schedule(config), jnp.float32)[iteration]
    return jnp.floor(share * config.labels.budget + 1e-3).astype(jnp.int32)


def select(
    key: jax.Array,
    rollout: Rollout,
    member_rewards: jax.Array,
    features: jax.Array,
    answered: tuple[jax.Array, jax.Array],
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
      features: `[T, N, F]` what the reward network sees of each step.
      answered: `[C, 2, F]` means of the same over the segments that were asked about before, and `[C]` which there are.
      count: `[]` number of pairs to ask about, at most `num_slots`.
      num_slots: Q.
      config: the settings.

    Returns:
      Q queries, of which the first `count` are asked; none if no segment of the rollout stays within an episode.
    """
    key_pairs, key_rule, key_share = jax.random.split(key, 3)
    length, num_candidates = config.segment_length, config.candidates * num_slots
    valid = segments.valid_starts(rollout.done, length)
    pairs = segments.sample(key_pairs, valid, (num_candidates, 2))
    returns = segments.window_sums(jnp.moveaxis(member_rewards, 0, -1), length)
    means = segments.window_sums(features, length) / length
    # Rounded at random, so that rounds of few queries get their share too.
    num_random = jnp.floor(config.random_share * count + jax.random.uniform(key_share)).astype(int)
    # As many candidates per query in a round with few queries as in the busiest one. The first are the random queries.
    index = jnp.arange(num_candidates)
    candidates = query_rules.Candidates(
        member_returns=jnp.moveaxis(returns[pairs.start, pairs.env], -1, 0),
        features=query_rules.pair_features(means[pairs.start, pairs.env]),
        answered=query_rules.pair_features(answered[0]),
        filled=answered[1],
        eligible=(index >= num_random) & (index < config.candidates * count),
    )
    ruled = query_rules.RULES[config.selection](key_rule, candidates, num_slots)
    slot = jnp.arange(num_slots)
    chosen = jnp.where(slot < num_random, slot, ruled[slot - num_random])
    pairs = jax.tree.map(lambda x: x[chosen], pairs)
    return _cut(rollout, pairs, (slot < count) & valid.any(), length)


def none(rollout: Rollout, *, config: QueryConfig) -> Queries:
    """Returns the queries of a loop in which nobody is asked: Q = 0."""
    nowhere = jnp.zeros((0, 2), int)
    return _cut(rollout, Windows(start=nowhere, env=nowhere), jnp.zeros(0, bool), config.segment_length)


def _cut(rollout: Rollout, pairs: Windows, asked: jax.Array, length: int) -> Queries:
    """Cuts the segments of `[Q, 2]` windows out of a rollout."""
    return Queries(
        observation=segments.cut(rollout.observation, pairs, length),
        action=segments.cut(rollout.action, pairs, length),
        state={name: segments.cut(values, pairs, length) for name, values in rollout.state.items()},
        true_reward=segments.cut(rollout.true_reward, pairs, length),
        asked=asked,
    )
