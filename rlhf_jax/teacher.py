"""Synthetic teachers: they answer queries by the true reward."""

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax.config import TeacherConfig
from rlhf_jax.queries import Queries


@flax.struct.dataclass
class Answers:
    """What a teacher, synthetic or human, said to Q queries.

    label: [Q] share of the preference that goes to slot 0: 1, 0, or ½ for a tie.
    weight: [Q] 1 for an answer; 0 where there is none: not asked, not answered yet, or cannot tell.
    """

    label: jax.Array
    weight: jax.Array


def oracle(returns: jax.Array) -> jax.Array:
    """Returns the label of a teacher that always prefers the larger return, and calls equal ones a tie.

    Args:
      returns: `[..., 2]` true undiscounted return of each segment.

    Returns:
      `[...]` labels: 1, ½ or 0.
    """
    return 0.5 * (1.0 + jnp.sign(returns[..., 0] - returns[..., 1]))


def answer(key: jax.Array, queries: Queries, *, config: TeacherConfig) -> Answers:
    """Answers every query that is asked.

    A share ε of the answers is a fair coin; the rest are the oracle's.

    Args:
      key: consumed.
      queries: Q pairs.
      config: the settings.

    Returns:
      Q answers, of weight 0 where nothing was asked.

    Reference: Christiano et al. 2017, §2.2.3.
    """
    key_error, key_coin = jax.random.split(key)
    label = oracle(queries.true_reward.sum(-1))
    random = jax.random.bernoulli(key_error, config.error_rate, label.shape)
    coin = jax.random.bernoulli(key_coin, 0.5, label.shape).astype(label.dtype)
    return Answers(label=jnp.where(random, coin, label), weight=queries.asked.astype(jnp.float32))
