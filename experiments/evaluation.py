"""How good an agent is: its policy from fixed starts, and its reward on three kinds of states."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments import reward_map
from rlhf_jax import judgement, ppo, reward_distances, reward_ensemble, rollout, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.rollout import Policy, Rollout

# The first key whose 512 starts are as hard as the average: their optimal mean return on Pendulum-v1 is −138.0 by
# dynamic programming, against −137.9 over all starts. Among the first eight keys it ranges from −133.3 to −138.0.
KEY = 1
STARTS = 512
CLIPS = 4
JUDGED = ("expert", "on_policy", "random")
"""States to judge a reward on: where the deterministic policy goes, where the exploring one does, and random actions.

The best episodes look too much alike to judge a reward on them alone.
"""

_EPISODES = 32  # of each kind of states
_COVERED, _MEANS = 512, 32  # transitions, and draws for the expectation in the distances


def evaluate(state: training.TrainState, *, env: Environment, config: Config) -> dict[str, jax.Array]:
    """Plays the deterministic policy from the fixed starts, and compares the learnt reward with the true one.

    Args:
      state: the agent.
      env: its environment.
      config: its settings.

    Returns:
      `return`, the mean over the starts; `observation`, `action` and `state` of the first episodes, `[horizon, CLIPS,
      ...]`; `<states>.<metric>` for all metrics of `rlhf_jax.judgement.judge` and the distances `epic` and `dard`;
      `reliability`, `[bins, 3]`, on the exploring policy's states; and a `reward_map` where there is a plane to draw.
    """
    key_starts, key_judge = jax.random.key(KEY), jax.random.key(KEY + 1)
    # One rollout for all, because two would take twice as long to compile.
    num_episodes = STARTS + 2 * _EPISODES
    returns, steps = rollout.evaluate(
        key_starts, _policy(state, num_episodes, env=env, config=config), env=env, num_episodes=num_episodes
    )
    parts = [steps_of(steps, start) for start in (0, STARTS, STARTS + _EPISODES)]
    judge = partial(_judge, key_judge, state, env=env, config=config)
    metrics, reliability = jax.vmap(judge)(jax.tree.map(lambda *x: jnp.stack(x), *parts))
    found = {
        "return": returns[:STARTS].mean(),
        "reliability": reliability[JUDGED.index("on_policy")],
        **{f"{states}.{name}": values[i] for i, states in enumerate(JUDGED) for name, values in metrics.items()},
        **jax.tree.map(
            lambda x: x[:, :CLIPS], {"observation": steps.observation, "action": steps.action, "state": steps.state}
        ),
    }
    if config.env in reward_map.PLANES:
        found["reward_map"] = reward_map.learnt(state.ensemble, env=env, config=config)
    return found


def steps_of(steps: Rollout, start: int) -> Rollout:
    """Returns the episodes of one kind, those from this column on."""
    return jax.tree.map(lambda x: x[:, start : start + _EPISODES], steps)


def _policy(state: training.TrainState, num_episodes: int, *, env: Environment, config: Config) -> Policy:
    """Returns a policy for all episodes: deterministic from the fixed starts, then exploring, then uniformly random."""
    index = jnp.arange(num_episodes).reshape(-1, *(1 for _ in env.action_shape))

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_explore, key_random = jax.random.split(key)
        actions = ppo.distribution(state.agent, observation, env=env, config=config.ppo)
        action = jnp.where(index >= STARTS, actions.sample(key_explore), actions.mode())
        random = reward_distances.uniform_actions(key_random, num_episodes, env=env)
        action = jnp.where(index >= STARTS + _EPISODES, random, action)
        return action, actions.log_prob(action)

    return policy


def _judge(
    key: jax.Array, state: training.TrainState, steps: Rollout, *, env: Environment, config: Config
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Returns the metrics of a reward on a rollout, and the `[bins, 3]` reliability of its probabilities."""
    key_truth, key_epic, key_dard = jax.random.split(key, 3)
    rewards = reward_ensemble.member_rewards(
        state.ensemble, steps.observation, steps.action, env=env, config=config.reward
    )
    metrics, reliability = judgement.judge(state.ensemble, rewards, steps, state.segment_return, config=config)
    covered = reward_distances.coverage(steps, env=env, num_samples=_COVERED)
    learnt = reward_distances.learnt_reward(state.ensemble, env=env, config=config.reward)
    truth = reward_distances.true_reward(key_truth, env=env)
    settings: dict[str, Any] = {"env": env, "discount": config.ppo.discount, "num_means": _MEANS}
    metrics["epic"] = reward_distances.epic_distance(key_epic, learnt, truth, *covered, **settings)
    metrics["dard"] = reward_distances.dard_distance(key_dard, learnt, truth, *covered, **settings)
    counts = jnp.stack([reliability.predicted, reliability.observed, reliability.count], -1)
    return {name.removeprefix("heldout_"): value for name, value in metrics.items()}, counts
