"""Episodes that all last as long: an early end becomes an absorbing state."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class FixedHorizonState:
    """State of an environment whose episodes all last as long.

    inner: of the environment inside; where it stood before its last action, once absorbed.
    time: [] steps since the reset.
    absorbed: [] whether the episode inside has ended.
    """

    inner: Any
    time: jax.Array
    absorbed: jax.Array


@dataclasses.dataclass(frozen=True)
class FixedHorizon:
    """A gymnax-style environment without early ends, to be used by `rlhf_jax.wrap`.

    Where the environment inside terminates, this one moves to an absorbing state, which looks the same however it was
    reached, pays 0, and lasts until the time limit. The last number of an observation is 1 there and 0 elsewhere. The
    return of an episode is that of the environment inside; its length is always the time limit, and tells nothing.

    base: the environment inside; it observes vectors, and its only truncation is that at `max_steps_in_episode`.

    Example:
      >>> cartpole = rlhf_jax.make("CartPole-v1")
      >>> env = rlhf_jax.wrap(FixedHorizon(cartpole.base), cartpole.params)
      >>> env.name, env.observation_shape
      ('CartPole-v1 with a fixed horizon', (5,))

    Reference: Kostrikov et al. 2019, Discriminator-actor-critic, §4.2; Freire et al. 2020, DERAIL, early termination.
    """

    base: Any

    @property
    def name(self) -> str:
        """Name of the environment inside, and what was done to it."""
        return f"{self.base.name} with a fixed horizon"

    @property
    def default_params(self) -> Any:
        """Parameters of the environment inside."""
        return self.base.default_params

    def action_space(self, params: Any) -> Any:
        """Returns the action space of the environment inside."""
        return self.base.action_space(params)

    def observation_space(self, params: Any) -> Any:
        """Returns that of the environment inside with one number more; it must be of vectors, or it is a ValueError."""
        from gymnax.environments import spaces  # Here, not above: gymnax takes seconds to import.

        inner = self.base.observation_space(params)
        if len(inner.shape) != 1:
            raise ValueError(f"{self.base.name} observes arrays of shape {tuple(inner.shape)}; a vector is needed")
        low, high = (jnp.broadcast_to(jnp.asarray(bound), inner.shape) for bound in (inner.low, inner.high))
        # Zero, which the absorbing state shows, may lie outside the box inside.
        low, high = jnp.append(jnp.minimum(low, 0.0), 0.0), jnp.append(jnp.maximum(high, 0.0), 1.0)
        return spaces.Box(low, high, (inner.shape[0] + 1,))

    def reset(self, key: jax.Array, params: Any) -> tuple[jax.Array, FixedHorizonState]:
        """Returns the first observation and state of an episode: those of the environment inside by the same key."""
        observation, inner = self.base.reset(key, params)
        # gymnax resets some fields to Python numbers.
        inner = jax.tree.map(jnp.asarray, inner)
        absorbed = jnp.zeros((), bool)
        return _observe(observation, absorbed), FixedHorizonState(inner, jnp.zeros((), jnp.int32), absorbed)

    def step(
        self, key: jax.Array, state: FixedHorizonState, action: jax.Array, params: Any
    ) -> tuple[jax.Array, FixedHorizonState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Does one step; an episode that reaches the time limit is followed by a new one at once.

        Returns:
          Observation, state, reward, terminated (never), truncated, and info with the `final_observation`.
        """
        key_step, key_reset = jax.random.split(key)
        _, inner, reward, terminated, _, info = self.base.step(key_step, state.inner, action, params)
        reward = jnp.where(state.absorbed, 0.0, reward)
        absorbed = state.absorbed | terminated
        time = state.time + 1
        truncated = time >= params.max_steps_in_episode
        final = _observe(info["final_observation"], absorbed)
        # The environment inside has reset itself where it terminated; that episode is not shown.
        inner = jax.tree.map(lambda before, after: jnp.where(absorbed, before, after), state.inner, inner)
        start = self.reset(key_reset, params)
        observation, state = jax.tree.map(
            lambda new, old: jnp.where(truncated, new, old), start, (final, FixedHorizonState(inner, time, absorbed))
        )
        return observation, state, reward, jnp.zeros((), bool), truncated, {"final_observation": final}


def _observe(observation: jax.Array, absorbed: jax.Array) -> jax.Array:
    """Returns `[F + 1]` what is seen: the `[F]` observation inside and 0, or nothing and 1 once absorbed."""
    return jnp.append(jnp.where(absorbed, 0.0, observation), absorbed.astype(observation.dtype))
