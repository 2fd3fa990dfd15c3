"""One interface over any gymnax-style environment."""

import dataclasses
import difflib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Step:
    """What one action brought about.

    observation: [...] what the agent sees next; the first of a new episode if this one ended.
    final_observation: [...] what the action led to, also when the episode ended there.
    reward: [] the true reward.
    terminated: [] the episode ended by itself; its value after this step is zero.
    truncated: [] the episode was cut off; its value after this step is that of `final_observation`.
    """

    observation: jax.Array
    final_observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array

    @property
    def done(self) -> jax.Array:
        """`[]` whether the next observation belongs to a new episode."""
        return self.terminated | self.truncated


@dataclasses.dataclass(frozen=True, eq=False)
class Environment:
    """A gymnax-style environment with its parameters, and actions in a common form.

    A continuous action is in [−1, 1] along each dimension and is clipped there; a discrete one is an integer.

    name: what people call it.
    base: the gymnax-style environment.
    params: its parameters.
    horizon: steps after which an episode is truncated.
    observation_shape: shape of one observation.
    continuous: whether the actions are a box rather than a set.
    action_size: dimensions of a continuous action, or the number of discrete ones.
    """

    name: str
    base: Any
    params: Any
    horizon: int
    observation_shape: tuple[int, ...]
    continuous: bool
    action_size: int

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (self.action_size,) if self.continuous else ()

    @property
    def action_dtype(self) -> Any:
        """Type of one action."""
        return jnp.float32 if self.continuous else jnp.int32

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Returns the first observation and state of an episode; the key is consumed."""
        return self.base.reset(key, self.params)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Step]:
        """Returns the next state and what the action brought about; the key is consumed.

        An episode that ends is followed by a new one at once.
        """
        observation, state, reward, terminated, truncated, info = self.base.step(
            key, state, self.native_action(action), self.params
        )
        final = info["final_observation"]
        return state, Step(observation, final, jnp.asarray(reward, jnp.float32), terminated, truncated)

    def named_state(self, state: Any) -> dict[str, jax.Array]:
        """Returns the arrays of a state by name, such as "theta"; "outer.inner" where they are nested."""
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}

    def action_features(self, action: jax.Array) -> jax.Array:
        """Returns what the reward network is told of an action: its clipped value, or a one-hot code.

        Args:
          action: `[..., D]` continuous or `[...]` discrete actions.

        Returns:
          `[..., action_size]` features.
        """
        if self.continuous:
            return jnp.clip(action, -1.0, 1.0)
        return jax.nn.one_hot(action, self.action_size)

    def native_action(self, action: jax.Array) -> jax.Array:
        """Returns `[..., *action]` actions in the units of the base environment."""
        if not self.continuous:
            return action
        space = self.base.action_space(self.params)
        low, high = (jnp.broadcast_to(jnp.asarray(bound), action.shape) for bound in (space.low, space.high))
        return low + 0.5 * (jnp.clip(action, -1.0, 1.0) + 1.0) * (high - low)


def wrap(base: Any, params: Any = None, *, name: str | None = None) -> Environment:
    """Wraps a gymnax-style environment object, such as your own.

    Args:
      base: has gymnax's `reset`, `step` (of six values), `default_params`, `action_space`, `observation_space`.
      params: its parameters; `base.default_params` if None.
      name: what to call it; `base.name` if None.

    Returns:
      The environment as the library uses it.

    Raises:
      ValueError: its action space is neither a box nor discrete, or it has no time limit.
    """
    params = base.default_params if params is None else params
    name = base.name if name is None else name
    horizon = int(getattr(params, "max_steps_in_episode", 0))
    if horizon <= 0:
        raise ValueError(f"{name} has max_steps_in_episode = {horizon}; a time limit of at least 1 step is needed")
    space = base.action_space(params)
    kind = type(space).__name__
    if kind not in ("Box", "Discrete"):
        raise ValueError(f"{name} has a {kind} action space; Box and Discrete are supported")
    if kind == "Box" and not np.isfinite([space.low, space.high]).all():
        raise ValueError(f"{name} has an action space from {space.low} to {space.high}; its bounds must be finite")
    return Environment(
        name=name,
        base=base,
        params=params,
        horizon=horizon,
        observation_shape=tuple(base.observation_space(params).shape),
        continuous=kind == "Box",
        action_size=int(space.shape[0]) if kind == "Box" else int(space.n),
    )


def make(name: str) -> Environment:
    """Makes an environment of gymnax's registry.

    Args:
      name: such as "Pendulum-v1".

    Raises:
      ValueError: no environment has this name; the nearest ones are offered.
    """
    import gymnax  # Here, not above: it loads plotting libraries, which take seconds.

    if name not in gymnax.registered_envs:
        nearest = difflib.get_close_matches(name, gymnax.registered_envs, n=3, cutoff=0.3)
        raise ValueError(
            f"unknown environment {name!r}; did you mean {' or '.join(nearest) or 'Pendulum-v1'}? "
            f"All names: {', '.join(gymnax.registered_envs)}"
        )
    base, params = gymnax.make(name)
    return wrap(base, params, name=name)
