"""Host only: the learnt rewards of a run, on disk and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import checkpoint, environments, normalisation
from rlhf_jax.environments import Environment, FixedHorizon
from rlhf_jax.offline import trajectory_reward
from rlhf_jax.offline.config import TrajectoryRewardConfig
from rlhf_jax.offline.trajectory_reward import TrajectoryReward

FOLDER = "rewards"
FIXED_HORIZON = "_fixed_horizon"
"""How the names of conditions end whose episodes all last as long."""


def make(name: str, horizon: int, *, fixed_horizon: bool) -> Environment:
    """Makes an environment of gymnax's registry with another time limit.

    Args:
      name: such as "CartPole-v1".
      horizon: steps after which an episode is cut off.
      fixed_horizon: let all episodes last as long.
    """
    made = environments.make(name)
    params = made.params.replace(max_steps_in_episode=horizon)
    return environments.wrap(FixedHorizon(made.base) if fixed_horizon else made.base, params)


def save(folder: Path, rewards: dict[str, TrajectoryReward]) -> None:
    """Writes the rewards of a run.

    Args:
      folder: of the run.
      rewards: by condition, `[seeds, ...]`.
    """
    for condition, reward in rewards.items():
        checkpoint.save(folder / FOLDER / condition, 1, reward)


def load_reward(
    path: str | Path, seed: int | None = None, condition: str = "rlhf"
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Loads a learnt reward from the folder of a run.

    Args:
      path: the folder.
      seed: of the agent; may be left out if there is only one.
      condition: whose reward, such as "rlhf" or "rlhf_fixed_horizon".

    Returns:
      `(observations [..., F], actions [...]) -> rewards [...]`, all NumPy; it raises ValueError if they do not fit.

    Raises:
      ValueError: there is no such run, condition or seed, or its files are damaged.

    Example:
      >>> reward = load_reward("results/cartpole/2026-01-01-120000", seed=0)  # doctest: +SKIP
      >>> reward(np.zeros((7, 4)), np.ones(7, int)).shape  # doctest: +SKIP
      (7,)
    """
    path = Path(path)
    record = _record(path)
    seeds, found = record["seeds"], sorted(folder.name for folder in (path / FOLDER).glob("*"))
    if condition not in found:
        raise ValueError(f"{path} has no reward of condition {condition!r}; it has {', '.join(found) or 'none'}")
    if seed is None and len(seeds) > 1:
        raise ValueError(f"{path} has several seeds, name one: {', '.join(map(str, seeds))}")
    if seed is not None and seed not in seeds:
        raise ValueError(f"{path} has no seed {seed}; it has {', '.join(map(str, seeds))}")
    try:
        values = record["conditions"][condition]
        config = TrajectoryRewardConfig(**{**values["reward"], "hidden": tuple(values["reward"]["hidden"])})
        env = make(values["env"], values["horizon"], fixed_horizon=condition.endswith(FIXED_HORIZON))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / 'config.json'} is not of this version: {error}") from None
    rewards = checkpoint.restore(path / FOLDER / condition, 1, _abstract(len(seeds), env, config))
    row = 0 if seed is None else seeds.index(seed)
    return _callable(jax.tree.map(lambda x: x[row], rewards), env, config)


def _record(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        record = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the folder of a run: {file} cannot be read ({type(error).__name__})") from None
    if not isinstance(record, dict) or not {"seeds", "conditions"} <= set(record):
        raise ValueError(f"{path} is not the folder of a run: {file} names no seeds or conditions")
    return record


def _abstract(num_seeds: int, env: Environment, config: TrajectoryRewardConfig) -> TrajectoryReward:
    """Returns the shapes of the rewards of all seeds."""

    def one(key: jax.Array) -> TrajectoryReward:
        return trajectory_reward.init(key, normalisation.init(env.observation_shape), env=env, config=config)

    return jax.eval_shape(jax.vmap(one), jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds)))


def _callable(
    reward: TrajectoryReward, env: Environment, config: TrajectoryRewardConfig
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    @jax.jit
    def predict(observations: jax.Array, actions: jax.Array) -> jax.Array:
        return trajectory_reward.predict(reward, observations, actions, env=env, config=config)

    def rewards(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        shapes = np.shape(observations), np.shape(actions)
        if shapes[0] != shapes[1][: len(shapes[1]) - len(env.action_shape)] + env.observation_shape:
            raise ValueError(
                f"observations of shape {shapes[0]} and actions of shape {shapes[1]} do not fit: for {env.name} they "
                f"are (..., {env.observation_shape[0]}) and (...)"
            )
        return np.asarray(predict(jnp.asarray(observations, jnp.float32), jnp.asarray(actions, env.action_dtype)))

    return rewards
