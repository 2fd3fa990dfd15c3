"""Whole episodes of a fixed set of policies, and preferences between pairs of them by their true return."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import normalisation, rollout
from rlhf_jax.environments import Environment
from rlhf_jax.rollout import Policy, Rollout


@flax.struct.dataclass
class Trajectories:
    """n whole episodes, padded to the longest possible.

    observation: [n, T, ...] what the policy saw.
    action: [n, T, ...] what it did.
    mask: [n, T] false where the episode is over; nothing there counts.
    true_return: [n] sum of the true rewards, for the teacher and the evaluation only.
    """

    observation: jax.Array
    action: jax.Array
    mask: jax.Array
    true_return: jax.Array


@flax.struct.dataclass
class Pairs:
    """P answered queries about pairs of trajectories.

    index: [P, 2] which trajectories.
    label: [P] μ, the share of the preference that goes to slot 0: 1, 0, or ½ for a tie.
    """

    index: jax.Array
    label: jax.Array


def play(key: jax.Array, policy: Policy, *, env: Environment, num_episodes: int) -> Trajectories:
    """Plays whole episodes, one from each of n starts; the key is consumed."""
    returns, steps = rollout.evaluate(key, policy, env=env, num_episodes=num_episodes)
    return from_rollout(steps, returns)


def from_rollout(steps: Rollout, returns: jax.Array) -> Trajectories:
    """Cuts the first episode of each environment out of a rollout that is as long as the horizon.

    Args:
      steps: `[T, n]` steps from fresh starts.
      returns: `[n]` true returns of these episodes.
    """
    first_episode = jnp.cumsum(steps.done, 0) - steps.done == 0
    observation, action, mask = (jnp.swapaxes(x, 0, 1) for x in (steps.observation, steps.action, first_episode))
    return Trajectories(observation, action, mask, returns)


def observation_moments(data: Trajectories) -> normalisation.Moments:
    """Returns the moments of all observations that are not padding."""
    observation = data.observation.astype(jnp.float32)
    mask = data.mask.reshape(*data.mask.shape, *(1 for _ in observation.shape[2:]))
    count = data.mask.sum().astype(jnp.float32)
    mean = jnp.where(mask, observation, 0.0).sum((0, 1)) / count
    deviation = jnp.where(mask, observation - jnp.expand_dims(mean, (0, 1)), 0.0)
    return normalisation.Moments(count, mean, jnp.square(deviation).sum((0, 1)))


def compare(key: jax.Array, returns: jax.Array, num_pairs: int) -> Pairs:
    """Draws pairs of different trajectories, and prefers the larger true return.

    Args:
      key: consumed.
      returns: `[n]` true returns, n of at least 2.
      num_pairs: P.
    """
    key_first, key_step = jax.random.split(key)
    count = returns.shape[0]
    first = jax.random.randint(key_first, (num_pairs,), 0, count)
    second = (first + jax.random.randint(key_step, (num_pairs,), 1, count)) % count
    index = jnp.stack([first, second], 1)
    return Pairs(index, preference(returns[index]))


def preference(returns: jax.Array) -> jax.Array:
    """Returns the label of the larger of two true returns: `[..., 2]` to `[...]`, ½ where they are the same."""
    return 0.5 * (1.0 + jnp.sign(returns[..., 0] - returns[..., 1]))


def check(returns: np.ndarray, labels: np.ndarray) -> None:
    """Checks, on the host, that a reward can be learnt from trajectories.

    Args:
      returns: `[n]` their true returns.
      labels: `[P]` which ones are preferred.

    Raises:
      ValueError: there is nothing to learn from, or something is not a number.
    """
    returns, labels = np.asarray(returns), np.asarray(labels)
    if returns.size == 0 or labels.size == 0:
        raise ValueError(f"no reward can be learnt from {returns.size} trajectories and {labels.size} pairs of them")
    if not np.isfinite(returns).all():
        raise ValueError(f"{(~np.isfinite(returns)).sum()} of {returns.size} true returns are NaN or infinite")
    if (labels == 0.5).all():
        raise ValueError(
            f"all {labels.size} pairs of trajectories tie (returns from {returns.min():g} to {returns.max():g}): "
            "there is no preference to learn a reward from"
        )
