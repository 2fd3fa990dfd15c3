"""One interface over any gymnax-style environment."""

import dataclasses
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Step:
    """What one action brought about.

    observation: [...] what the agent sees next; the first of a new episode if this one ended.
    final_observation: [...] what the action led to, also when the episode ended there; but for emulators, whose last
      step begins the next game, so that it is the first observation of that.
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
    observation_shape: shape of one observation; height, width and channels if it is an image.
    observation_dtype: its type; bytes and booleans are kept as they are in every buffer.
    continuous: whether the actions are a box rather than a set.
    action_size: dimensions of a continuous action, or the number of discrete ones.
    """

    name: str
    base: Any
    params: Any
    horizon: int
    observation_shape: tuple[int, ...]
    observation_dtype: Any
    continuous: bool
    action_size: int

    emulated: ClassVar[bool] = False
    """Whether it is played in an emulator, whose state is no array: it cannot be saved, and agents run abreast."""

    @property
    def measured(self) -> bool:
        """Whether the scale of observations is unknown, so that they are normalised by what is seen of them."""
        return bool(jnp.issubdtype(self.observation_dtype, jnp.floating))

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
        observation, state = self.base.reset(key, self.params)
        # gymnax resets some fields to Python numbers, whose weak type would make the second step compile again.
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state)
        return self._observed(observation), state

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Step]:
        """Returns the next state and what the action brought about; the key is consumed.

        An episode that ends is followed by a new one at once. One that ends by itself in its very last step is taken
        to be truncated: some of gymnax's environments call the time limit an end of that kind, too.
        """
        observation, state, reward, terminated, truncated, info = self.base.step(
            key, state, self.native_action(action), self.params
        )
        final = self._observed(info["final_observation"])
        reward, terminated = jnp.asarray(reward, jnp.float32), terminated & ~truncated
        return state, Step(self._observed(observation), final, reward, terminated, truncated)

    def reset_many(self, key: jax.Array, num_envs: int) -> tuple[jax.Array, Any]:
        """Returns `[N, ...]` first observations and states of N environments; the key is consumed."""
        return jax.vmap(self.reset)(jax.random.split(key, num_envs))

    def step_many(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Step]:
        """Returns the next states of N environments, and what `[N, ...]` actions brought about; the key is consumed."""
        return jax.vmap(self.step)(jax.random.split(key, action.shape[0]), state, action)

    def _observed(self, observation: jax.Array) -> jax.Array:
        return observation.astype(self.observation_dtype)

    def observations(self, values: np.ndarray) -> np.ndarray:
        """Returns `[..., *observation]` in the type of this environment's.

        Raises:
          ValueError: they have another shape, or bytes or booleans would lose by it.
        """
        given = np.asarray(values)
        shape, dtype = self.observation_shape, np.dtype(self.observation_dtype)
        if given.shape[given.ndim - len(shape) :] != shape:
            raise ValueError(f"observations of shape {given.shape}: those of {self.name} end in {shape}")
        converted = given.astype(dtype)
        if not self.measured and not np.array_equal(converted, given):
            raise ValueError(f"observations of type {given.dtype}: those of {self.name} are {dtype}")
        return converted

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


def wrap(base: Any, params: Any = None, *, name: str | None = None, binary: bool = False) -> Environment:
    """Wraps a gymnax-style environment object, such as your own.

    Args:
      base: has gymnax's `reset`, `step` (of six values), `default_params`, `action_space`, `observation_space`.
      params: its parameters; `base.default_params` if None.
      name: what to call it; `base.name` if None.
      binary: all that it observes is 0 or 1, and is kept as booleans.

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
    dtype = jnp.dtype(bool) if binary else jax.eval_shape(base.reset, jax.random.key(0), params)[0].dtype
    return Environment(
        name=name,
        base=base,
        params=params,
        horizon=horizon,
        observation_shape=tuple(base.observation_space(params).shape),
        observation_dtype=dtype if dtype in (jnp.uint8, jnp.bool) else jnp.dtype(jnp.float32),
        continuous=kind == "Box",
        action_size=int(space.shape[0]) if kind == "Box" else int(space.n),
    )
