"""Behavioural cloning: a policy that does what the trajectories do, in the states that they visit."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.environments import Environment
from rlhf_jax.networks import Actor, initialise
from rlhf_jax.offline import policy_gradient
from rlhf_jax.offline.config import CloningConfig
from rlhf_jax.offline.trajectories import Trajectories


def negative_log_likelihood(actor: Any, data: Trajectories, *, env: Environment, hidden: tuple[int, ...]) -> jax.Array:
    """Returns the mean of −log π(aₜ | oₜ) over all steps of all trajectories, in nats; padding does not count."""
    log_prob = policy_gradient.distribution(actor, data.observation, env=env, hidden=hidden).log_prob(data.action)
    return -jnp.where(data.mask, log_prob, 0.0).sum() / data.mask.sum()


def clone(
    key: jax.Array, data: Trajectories, *, env: Environment, hidden: tuple[int, ...], config: CloningConfig
) -> tuple[Any, jax.Array]:
    """Fits a policy to the actions of all trajectories, good and bad: it has no way to tell them apart.

    Args:
      key: consumed.
      data: n trajectories.
      env: the environment.
      hidden: widths of the hidden layers of the policy.
      config: the settings.

    Returns:
      Parameters of the policy, for `policy_gradient.policy`, and the `[fit_steps]` loss before each step, in nats.

    Reference: Pomerleau 1991, Efficient training of artificial neural networks for autonomous navigation.
    """
    network = Actor(env.action_size, env.continuous, hidden)
    actor = initialise(key, network, jnp.zeros(env.observation_shape), output_scale=0.01)
    adam = optax.adam(config.learning_rate)

    def step(carry: tuple[Any, optax.OptState], _: None):
        actor, optimiser = carry
        loss, grads = jax.value_and_grad(negative_log_likelihood)(actor, data, env=env, hidden=hidden)
        updates, optimiser = adam.update(grads, optimiser)
        return (optax.apply_updates(actor, updates), optimiser), loss

    (actor, _), losses = jax.lax.scan(step, (actor, adam.init(actor)), None, length=config.fit_steps)
    return actor, losses
