"""Acting in the environment: the only file that steps it."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax.environments import Environment

Policy = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""`(key, observations [N, ...]) -> (actions [N, ...], log-probabilities [N])`."""


@flax.struct.dataclass
class EnvironmentState:
    """N environments in the middle of their episodes.

    state: [N, ...] the environments' own states.
    observation: [N, ...] what the agent sees.
    episode_return: [N] true return of the running episodes so far.
    """

    state: Any
    observation: jax.Array
    episode_return: jax.Array


@flax.struct.dataclass
class Rollout:
    """T steps of N environments, time first.

    observation: [T, N, ...] what the agent saw.
    action: [T, N, ...] what it did.
    state: name → [T, N, ...] the environments' own states then, from which clips are drawn.
    log_prob: [T, N] logarithm of the probability with which it did so.
    next_observation: [T, N, ...] what that led to, also at the end of an episode.
    terminated: [T, N] the episode ended by itself.
    truncated: [T, N] the episode was cut off.
    true_reward: [T, N] for the teacher and the evaluation only; nothing that learns from preferences reads it.
    """

    observation: jax.Array
    action: jax.Array
    state: dict[str, jax.Array]
    log_prob: jax.Array
    next_observation: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    true_reward: jax.Array

    @property
    def done(self) -> jax.Array:
        """`[T, N]` whether the step was the last of its episode."""
        return self.terminated | self.truncated


def init(key: jax.Array, *, env: Environment, num_envs: int) -> EnvironmentState:
    """Resets N environments; the key is consumed."""
    observation, state = env.reset_many(key, num_envs)
    return EnvironmentState(state, observation, jnp.zeros(num_envs))


def rollout(
    key: jax.Array, state: EnvironmentState, policy: Policy, *, env: Environment, num_steps: int
) -> tuple[EnvironmentState, Rollout, dict[str, jax.Array]]:
    """Acts for T steps in each of N environments.

    Args:
      key: consumed.
      state: where the environments stand.
      policy: chooses the actions.
      env: the environment.
      num_steps: T.

    Returns:
      Where the environments stand now, the `[T, N]` rollout, and info with `episodes`, the number of episodes that
      ended, and `return`, their mean true return (NaN if none did).
    """

    def step(state: EnvironmentState, key: jax.Array):
        key_policy, key_env = jax.random.split(key)
        action, log_prob = policy(key_policy, state.observation)
        env_state, step = env.step_many(key_env, state.state, action)
        episode_return = state.episode_return + step.reward
        transition = Rollout(
            observation=state.observation,
            action=action,
            state=env.named_state(state.state),
            log_prob=log_prob,
            next_observation=step.final_observation,
            terminated=step.terminated,
            truncated=step.truncated,
            true_reward=step.reward,
        )
        carried = jnp.where(step.done, 0.0, episode_return)
        return EnvironmentState(env_state, step.observation, carried), (transition, episode_return)

    state, (steps, returns) = jax.lax.scan(step, state, jax.random.split(key, num_steps))
    episodes = steps.done.sum()
    mean_return = jnp.where(steps.done, returns, 0.0).sum() / episodes
    return state, steps, {"episodes": episodes, "return": mean_return}


def evaluate(
    key: jax.Array, policy: Policy, *, env: Environment, num_episodes: int, kept_steps: int | None = None
) -> tuple[jax.Array, Rollout]:
    """Plays one episode from each of a fixed set of starts.

    Args:
      key: consumed; the same key gives the same starts.
      policy: chooses the actions.
      env: the environment.
      num_episodes: E.
      kept_steps: of the rollout that is returned, K; all if None. An episode is played to its end in any case.

    Returns:
      `[E]` true returns of the first episode from each start, and the `[K, E]` rollout.
    """
    kept_steps = env.horizon if kept_steps is None else kept_steps
    key_init, key_kept, key_rest = jax.random.split(key, 3)
    state = init(key_init, env=env, num_envs=num_episodes)
    state, steps, _ = rollout(key_kept, state, policy, env=env, num_steps=kept_steps)
    first_episode = jnp.cumsum(steps.done, 0) - steps.done == 0
    returns = (steps.true_reward * first_episode).sum(0)
    if kept_steps == env.horizon:
        return returns, steps
    over, steps_left = steps.done.any(0), env.horizon - kept_steps
    return _finish(key_rest, state, policy, returns, over, env=env, steps_left=steps_left), steps


def _finish(
    key: jax.Array,
    state: EnvironmentState,
    policy: Policy,
    returns: jax.Array,
    over: jax.Array,
    *,
    env: Environment,
    steps_left: int,
) -> jax.Array:
    """Plays on until all first episodes are over, without keeping anything; returns `[E]` their true returns."""

    def unfinished(carry: tuple) -> jax.Array:
        return (carry[0] < steps_left) & ~carry[3].all()

    def step(carry: tuple) -> tuple:
        count, state, returns, over = carry
        state, steps, _ = rollout(jax.random.fold_in(key, count), state, policy, env=env, num_steps=1)
        returns = returns + jnp.where(over, 0.0, steps.true_reward[0])
        return count + 1, state, returns, over | steps.done[0]

    return jax.lax.while_loop(unfinished, step, (jnp.zeros((), int), state, returns, over))[2]
