"""Gymnax-style environments of a few states, whose values and best actions are known by heart.

Each isolates one class of bug: an agent that fails on one of them and passes those before it says where to look. The
idea of probes is Andy Jones's; rejax tests its agents like that.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from rlhf_jax import environments


@flax.struct.dataclass
class Params:
    """Parameters of a probe."""

    max_steps_in_episode: int = 1


@flax.struct.dataclass
class State:
    """State of a probe.

    time: [] steps since the reset.
    sign: [] −1 or 1, drawn at every step for the probes that show it.
    """

    time: jax.Array
    sign: jax.Array


@dataclasses.dataclass(frozen=True)
class Probe:
    """Episodes of `length` steps that end by themselves, or, if not `terminates`, are cut off there.

    length: steps of an episode.
    terminates: whether an episode ends by itself; its time limit is twice as long then.
    continuous: whether actions are in a box, −1 to 1, rather than 0 or 1.
    """

    length: int = 1
    terminates: bool = True
    continuous: bool = False

    name = "Probe"

    @property
    def default_params(self) -> Params:
        return Params(2 * self.length if self.terminates else self.length)

    def action_space(self, params: Params) -> Any:
        del params
        return spaces.Box(-1.0, 1.0, (1,)) if self.continuous else spaces.Discrete(2)

    def observation_space(self, params: Params) -> Any:
        del params
        return spaces.Box(-10.0, 10.0, (1,))

    def observe(self, state: State) -> jax.Array:
        """The observation: nothing to see."""
        del state
        return jnp.zeros(1)

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        """The reward for an action: always 1."""
        del state, action
        return jnp.ones(())

    def reset(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        del params
        state = State(jnp.zeros((), jnp.int32), jax.random.rademacher(key, (), jnp.float32))
        return self.observe(state), state

    def step(self, key: jax.Array, state: State, action: jax.Array, params: Params):
        reward = self.reward(state, action)
        key_sign, key_reset = jax.random.split(key)
        after = State(state.time + 1, jax.random.rademacher(key_sign, (), jnp.float32))
        terminated = jnp.logical_and(self.terminates, after.time >= self.length)
        truncated = after.time >= params.max_steps_in_episode
        start = self.reset(key_reset, params)
        observation, carried = jax.tree.map(
            lambda new, old: jnp.where(terminated | truncated, new, old), start, (self.observe(after), after)
        )
        return observation, carried, reward, terminated, truncated, {"final_observation": self.observe(after)}


class Sign(Probe):
    """Shows a random sign and pays it: the value depends on the observation."""

    def observe(self, state: State) -> jax.Array:
        return state.sign[None]

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        del action
        return state.sign


class Delayed(Probe):
    """Shows the time and pays 1 in the last step only: the value is discounted."""

    def observe(self, state: State) -> jax.Array:
        return state.time[None].astype(jnp.float32)

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        del action
        return (state.time == self.length - 1).astype(jnp.float32)


class Choice(Probe):
    """Pays 1 for action 1 and −1 for action 0; or, for a continuous one, less the farther it is from ½."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        del state
        return -4.0 * jnp.square(action[0] - 0.5) if self.continuous else 2.0 * action - 1.0


class Match(Sign):
    """Shows a random sign and pays 1 for the action of that sign, −1 for the other: policy and observation together."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return state.sign * (2.0 * action - 1.0)


class PicturedMatch(Match):
    """The same, but the sign is shown as a picture: a bright spot in the upper or in the lower half."""

    SHAPE = (6, 6, 1)

    def observation_space(self, params: Params) -> Any:
        del params
        return spaces.Box(0, 255, self.SHAPE, jnp.uint8)

    def observe(self, state: State) -> jax.Array:
        row = jnp.where(state.sign > 0, 1, 4)
        return jnp.zeros(self.SHAPE, jnp.uint8).at[row, 2:4].set(255)


class Clock(Delayed):
    """Shows the time and pays time + action, with no randomness at all: every step can be foretold."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return (state.time + action).astype(jnp.float32)


def make(probe: Probe) -> environments.Environment:
    """Wraps a probe as the library's environments are."""
    return environments.wrap(probe)
