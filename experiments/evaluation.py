"""How good an agent is: its policy from fixed starts, and its reward on three kinds of states."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments import reward_map
from rlhf_jax import judgement, ppo, reward_distances, reward_ensemble, rollout, train_state
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment, atari
from rlhf_jax.rollout import Policy, Rollout

# The first key whose 512 starts are as hard as the average: their optimal mean return on Pendulum-v1 is −138.0 by
# dynamic programming, against −137.9 over all starts. Among the first eight keys it ranges from −133.3 to −138.0.
KEY = 1
CLIPS = 4
JUDGED = ("expert", "on_policy", "random")
"""States to judge a reward on: where the deterministic policy goes, where the exploring one does, and random actions.

The best episodes look too much alike to judge a reward on them alone.
"""
EMULATED_MINUTES = 5  # of an episode: Bellemare et al. 2013, "The arcade learning environment", §3.
_COVERED, _MEANS = 512, 32  # transitions, and draws for the expectation in the distances


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is played to evaluate an agent.

    starts: episodes of the deterministic policy, whose returns count.
    episodes: of the exploring policy, and of each kind of states that the reward is judged on; those of experts are
      the first of the starts.
    steps: of each episode that is kept for that.
    """

    starts: int
    episodes: int
    steps: int


_FEW = Plan(4, 2, 200)
_GAMES = ((2**18, (512, 32)), (2**20, (128, 16)), (2**25, (32, 8)))  # below so many bytes of observations in a game


def plan(env: Environment) -> Plan:
    """Returns how much is played: of images less, because they take longer to see and more memory to keep."""
    if env.emulated:
        return _FEW
    size = env.horizon * math.prod(env.observation_shape) * jnp.dtype(env.observation_dtype).itemsize
    games = next((games for limit, games in _GAMES if size < limit), None)
    return _FEW if games is None else Plan(*games, env.horizon)


def shortened(env: Environment) -> Environment:
    """Returns the environment; for an emulator another one, whose games last some minutes at most."""
    steps = EMULATED_MINUTES * atari.STEPS_PER_MINUTE
    return dataclasses.replace(env, horizon=min(env.horizon, steps)) if env.emulated else env


def evaluate(
    state: train_state.TrainState, judged: bool = True, *, env: Environment, config: Config
) -> dict[str, jax.Array]:
    """Plays the policy, deterministic and exploring, and compares the learnt reward with the true one.

    Args:
      state: the agent.
      judged: whether it has learnt a reward; it costs as much as the policy to evaluate.
      env: its environment.
      config: its settings.

    Returns:
      `return`, the mean over the starts, and `exploring_return` of the policy as it explores in training, over the
      episodes of that kind; `observation`, `action` and `state` of the first episodes, `[steps, CLIPS, ...]`; and what
      else `MEASURES` has for the environment. Of a reward that was learnt also `<states>.<metric>` for all metrics of
      `rlhf_jax.judgement.judge`, and for vectors the distances `epic` and `dard`; `reliability`, `[bins, 3]`, on the
      exploring policy's states; and a `reward_map` where there is a plane to draw.
    """
    key_starts, key_judge = jax.random.key(KEY), jax.random.key(KEY + 1)
    if env.emulated:  # Agents that share an emulator are told apart by their keys; 4 I is beyond those of training.
        key_starts = jax.random.fold_in(state.key, 4 * config.iterations + KEY)
    sizes = plan(env)
    # One rollout for all, because two would take twice as long to compile.
    num_episodes = sizes.starts + sizes.episodes * (1 + judged)
    policy = _policy(state, num_episodes, env=env, config=config)
    returns, steps = rollout.evaluate(key_starts, policy, env=env, num_episodes=num_episodes, kept_steps=sizes.steps)
    shown = {"observation": steps.observation, "action": steps.action, "state": steps.state}
    # Of a game without chance all starts are one episode: that with the policy's own chance tells how good it is.
    exploring = returns[sizes.starts : sizes.starts + sizes.episodes].mean()
    found = {"return": returns[: sizes.starts].mean(), "exploring_return": exploring}
    found |= jax.tree.map(lambda x: x[:, :CLIPS], shown)
    if judged:
        found |= _reward(key_judge, state, steps, env=env, config=config)
    first = jax.tree.map(lambda x: x[:, : sizes.starts], steps)
    return found | {name: measure(first) for name, measure in MEASURES.get(config.env, {}).items()}


def _reward(
    key: jax.Array, state: train_state.TrainState, steps: Rollout, *, env: Environment, config: Config
) -> dict[str, jax.Array]:
    """Judges the learnt reward on the episodes of each kind."""
    sizes = plan(env)
    parts = [_steps_of(steps, start, sizes) for start in (0, sizes.starts, sizes.starts + sizes.episodes)]
    judge = partial(_judge, key, state, env=env, config=config)
    metrics, reliability = jax.vmap(judge)(jax.tree.map(lambda *x: jnp.stack(x), *parts))
    found = {f"{states}.{name}": values[i] for i, states in enumerate(JUDGED) for name, values in metrics.items()}
    found["reliability"] = reliability[JUDGED.index("on_policy")]
    if config.env in reward_map.PLANES:
        found["reward_map"] = reward_map.learnt(state.ensemble, env=env, config=config)
    return found


def _steps_of(steps: Rollout, start: int, sizes: Plan) -> Rollout:
    """Returns the episodes of one kind, those from this column on."""
    return jax.tree.map(lambda x: x[:, start : start + sizes.episodes], steps)


def _policy(state: train_state.TrainState, num_episodes: int, *, env: Environment, config: Config) -> Policy:
    """Returns a policy for all episodes: deterministic from the fixed starts, then exploring, then uniformly random."""
    sizes = plan(env)
    index = jnp.arange(num_episodes).reshape(-1, *(1 for _ in env.action_shape))

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_explore, key_random = jax.random.split(key)
        actions = ppo.distribution(state.agent, observation, env=env, config=config.ppo)
        action = jnp.where(index >= sizes.starts, actions.sample(key_explore), actions.mode())
        random = reward_distances.uniform_actions(key_random, num_episodes, env=env)
        action = jnp.where(index >= sizes.starts + sizes.episodes, random, action)
        return action, actions.log_prob(action)

    return policy


def _judge(
    key: jax.Array, state: train_state.TrainState, steps: Rollout, *, env: Environment, config: Config
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Returns the metrics of a reward on a rollout, and the `[bins, 3]` reliability of its probabilities."""
    # Step by step: what a member makes of an image before its dense layers takes more memory than the image.
    predict = partial(reward_ensemble.member_rewards, state.ensemble, env=env, config=config.reward)
    rewards = jax.lax.map(lambda seen: predict(*seen), (steps.observation, steps.action))
    rewards = jnp.moveaxis(rewards, 0, 1)
    metrics, reliability = judgement.judge(state.ensemble, rewards, steps, state.segment_return, config=config)
    if len(env.observation_shape) == 1:
        metrics |= _distances(key, state, steps, env=env, config=config)
    counts = jnp.stack([reliability.predicted, reliability.observed, reliability.count], -1)
    return {name.removeprefix("heldout_"): value for name, value in metrics.items()}, counts


def _distances(
    key: jax.Array, state: train_state.TrainState, steps: Rollout, *, env: Environment, config: Config
) -> dict[str, jax.Array]:
    """Returns the EPIC and the DARD distance of the learnt reward from the true one."""
    key_truth, key_epic, key_dard = jax.random.split(key, 3)
    covered = reward_distances.coverage(steps, env=env, num_samples=_COVERED)
    learnt = reward_distances.learnt_reward(state.ensemble, env=env, config=config.reward)
    truth = reward_distances.true_reward(key_truth, env=env)
    settings: dict[str, Any] = {"env": env, "discount": config.ppo.discount, "num_means": _MEANS}
    return {
        "epic": reward_distances.epic_distance(key_epic, learnt, truth, *covered, **settings),
        "dard": reward_distances.dard_distance(key_dard, learnt, truth, *covered, **settings),
    }


def _final_distance(steps: Rollout) -> jax.Array:
    """Returns how far the dot of MovingDot is from the middle in the end, in pixels, mean over episodes."""
    from rlhf_jax.environments import moving_dot  # Here, not above: it loads gymnax, which takes seconds.

    last = steps.state["x"][-1], steps.state["y"][-1], steps.action[-1]
    x, y, _ = jax.vmap(lambda x, y, action: moving_dot.move(x, y, action, moving_dot.REPEAT))(*last)
    return moving_dot.distance(x[:, -1], y[:, -1]).mean()


MEASURES: dict[str, dict[str, Callable[[Rollout], jax.Array]]] = {"MovingDot-v0": {"final_distance": _final_distance}}
"""What else is measured on the episodes of the starts, by environment and name."""
