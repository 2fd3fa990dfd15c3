"""Reward-to-go policy gradient (Williams 1992) over whole episodes."""

from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlhf_jax.environments import Environment
from rlhf_jax.networks import Actor, Categorical, Gaussian, apply, initialise
from rlhf_jax.offline.config import PolicyGradientConfig
from rlhf_jax.rollout import Policy, Rollout


@flax.struct.dataclass
class PolicyGradientState:
    """What the agent has learnt.

    actor: parameters of the policy network.
    optimiser: Adam's state.
    """

    actor: Any
    optimiser: optax.OptState


def reward_to_go(rewards: jax.Array, done: jax.Array) -> jax.Array:
    """Returns the undiscounted sum of the rewards from each step to the end of its episode.

        Gₜ = rₜ + (1 − doneₜ) Gₜ₊₁

    Episodes are whole, so nothing is bootstrapped: a termination and a truncation are the same here.

    Args:
      rewards: `[T, ...]`.
      done: `[T, ...]` the step was the last of its episode.

    Returns:
      `[T, ...]` sums; those of an episode that runs on at T are incomplete.
    """
    chex.assert_equal_shape([rewards, done])

    def step(later: jax.Array, inputs: tuple[jax.Array, jax.Array]):
        reward, done = inputs
        total = reward + jnp.where(done, 0.0, later)
        return total, total

    return jax.lax.scan(step, jnp.zeros_like(rewards[0]), (rewards, done), reverse=True)[1]


def episodes_begun(done: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Returns which steps belong to episodes that begin early enough, and how old their episodes are.

    Episodes are taken for when they begin, not for when they end: of those that end before some time too many would
    be short.

    Args:
      done: `[T, ...]` the step was the last of its episode; the first step is the first of one.
      num_steps: an episode must begin in one of the first so many steps.

    Returns:
      `[T, ...]` whether a step belongs to such an episode, and `[T, ...]` the steps of the episode before it.
    """
    begins = jnp.concatenate([jnp.ones_like(done[:1]), done[:-1]])
    now = jnp.arange(done.shape[0]).reshape(-1, *(1 for _ in done.shape[1:]))
    start = jax.lax.cummax(jnp.where(begins, now, 0), axis=0)
    return start < num_steps, now - start


def advantages(to_go: jax.Array, age: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns rewards-to-go less their mean over all steps of the same age in their episodes.

    The mean is a baseline: it leaves the expected gradient as it is, but for its own share of 1/n in the mean of n
    episodes, and removes most of its noise. What a step is paid whatever is done, such as a constant where all episodes
    last as long, is gone exactly.

    Args:
      to_go: `[T, N]` rewards-to-go.
      age: `[T, N]` steps of the episode before each, below T.
      mask: `[T, N]` which steps count.

    Returns:
      `[T, N]` advantages; 0 where the mask is false.
    """
    bins = jnp.zeros(to_go.shape[0])
    mean = bins.at[age].add(jnp.where(mask, to_go, 0.0)) / jnp.maximum(bins.at[age].add(mask), 1.0)
    return jnp.where(mask, to_go - mean[age], 0.0)


def distribution(
    actor: Any, observation: jax.Array, *, env: Environment, hidden: tuple[int, ...]
) -> Categorical | Gaussian:
    """Returns the policy's distribution over actions in `[..., *observation]`."""
    return apply(Actor(env.action_size, env.continuous, hidden), actor, observation)


def policy(actor: Any, *, env: Environment, hidden: tuple[int, ...], explores: jax.Array | bool = True) -> Policy:
    """Returns the policy of an actor: it draws its actions, or, where it does not explore, takes the likeliest."""

    def act(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        actions = distribution(actor, observation, env=env, hidden=hidden)
        action = jnp.where(explores, actions.sample(key), actions.mode())
        return action, actions.log_prob(action)

    return act


def init(key: jax.Array, *, env: Environment, config: PolicyGradientConfig) -> PolicyGradientState:
    """Returns an untrained agent; the key is consumed."""
    network = Actor(env.action_size, env.continuous, config.hidden)
    actor = initialise(key, network, jnp.zeros(env.observation_shape), output_scale=0.01)
    return PolicyGradientState(actor, optax.scale_by_adam().init(actor))


def update(
    state: PolicyGradientState,
    steps: Rollout,
    rewards: jax.Array,
    num_steps: int,
    *,
    env: Environment,
    config: PolicyGradientConfig,
) -> PolicyGradientState:
    """Does one step of Adam along the policy gradient.

        ∇J = E[ Σₜ ∇ log π(aₜ | sₜ) (Gₜ − bₜ) ]

    Args:
      state: the agent that acted.
      steps: `[T, N]` what it did, from fresh starts.
      rewards: `[T, N]` the reward to learn from.
      num_steps: learn from the episodes that begin in the first so many steps; they must all end within T.
      env: the environment.
      config: the settings.

    Reference: Williams 1992; Sutton et al. 2000, theorem 1.
    """
    mask, age = episodes_begun(steps.done, num_steps)
    advantage = advantages(reward_to_go(rewards, steps.done), age, mask)

    def loss(actor: Any) -> jax.Array:
        log_prob = distribution(actor, steps.observation, env=env, hidden=config.hidden).log_prob(steps.action)
        return -(advantage * log_prob).sum() / mask.sum()

    updates, optimiser = optax.scale_by_adam().update(jax.grad(loss)(state.actor), state.optimiser)
    actor = jax.tree.map(lambda p, u: p - config.learning_rate * u, state.actor, updates)
    return PolicyGradientState(actor, optimiser)
