"""Figure 1 of Christiano et al. 2017: act, ask, fit the reward, improve the policy, all in one compiled loop.

propose    act in the environment, cut segments, choose the pairs to ask about
label      a synthetic teacher, compiled, or a person, on the host
absorb     store the answers, fit the reward ensemble, relabel the rollout, improve the policy
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax import (
    judgement,
    normalisation,
    ppo,
    preferences,
    queries,
    reward_ensemble,
    rollout,
    segments,
    teacher,
    train_state,
)
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.ppo import PPOState
from rlhf_jax.queries import Queries
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout
from rlhf_jax.teacher import Answers
from rlhf_jax.train_state import TrainState

Metrics = dict[str, jax.Array]


def train(key: jax.Array, *, env: Environment, config: Config) -> tuple[TrainState, Metrics]:
    """Trains one agent from scratch: a pure function, to be jitted, and mapped over keys and settings.

    Every number of `config` that is not marked static may be an array, so that agents that differ in seed, label
    budget or learning rate are lanes of one compiled program.

    Args:
      key: consumed.
      env: the environment.
      config: the settings; see `rlhf_jax.settings.validate`.

    Returns:
      The trained agent and the metrics of `propose` and `absorb`, `[iterations]` each.

    Example:
      >>> env = rlhf_jax.make("Pendulum-v1")
      >>> config = rlhf_jax.Config(iterations=2, labels=rlhf_jax.LabelConfig(warmup=1, max_budget=20, budget=20))
      >>> keys = jax.vmap(jax.random.key)(jnp.arange(3))
      >>> agents, metrics = jax.jit(jax.vmap(lambda key: rlhf_jax.train(key, env=env, config=config)))(keys)
      >>> metrics["labels"][:, -1].tolist()
      [20, 20, 20]

    Reference: Christiano et al. 2017, figure 1 and §2.2.
    """
    return advance(train_state.init(key, env=env, config=config), config.iterations, env=env, config=config)


def advance(state: TrainState, num_iterations: int, *, env: Environment, config: Config) -> tuple[TrainState, Metrics]:
    """Does several rounds; returns the agent and the metrics, `[num_iterations]` each."""

    def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return iteration(state, env=env, config=config)

    return jax.lax.scan(step, state, None, length=num_iterations)


def iteration(state: TrainState, *, env: Environment, config: Config) -> tuple[TrainState, Metrics]:
    """Does one round with the synthetic teacher; returns the agent and the metrics of both halves."""
    state, steps, asked, acting = propose(state, env=env, config=config)
    answers = label(state, asked, config=config)
    state, learning = absorb(state, steps, asked, answers, env=env, config=config)
    return state, acting | learning


def propose(state: TrainState, *, env: Environment, config: Config) -> tuple[TrainState, Rollout, Queries, Metrics]:
    """Acts with the current policy and chooses which pairs of segments to ask about.

    Args:
      state: the agent.
      env: the environment.
      config: the settings.

    Returns:
      The agent with its environments moved on, the `[T, N]` rollout, Q queries about it, none where
      `labels.max_budget` is 0, and metrics: `return`, the mean true return of the `episodes` that ended, and those of
      `rlhf_jax.judgement.judge`, of the reward before it learns from this rollout, NaN where the true one is given.
    """
    key_rollout, key_queries = jax.random.split(_stage_key(state, "propose"))
    policy = ppo.sampling_policy(state.agent, env=env, config=config.ppo)
    environments, steps, metrics = rollout.rollout(
        key_rollout, state.environments, policy, env=env, num_steps=config.rollout_length
    )
    state = _measure(dataclasses.replace(state, environments=environments), steps, config=config)
    if not config.labels.max_budget:  # All are on the true reward.
        return state, steps, queries.none(steps, config=config.queries), metrics | _nothing(judgement.METRICS)
    rewards = reward_ensemble.member_rewards(
        state.ensemble, steps.observation, steps.action, env=env, config=config.reward
    )
    judged, _ = judgement.judge(state.ensemble, rewards, steps, state.segment_return, config=config)
    judged = {name: jnp.where(config.use_true_reward, jnp.nan, value) for name, value in judged.items()}
    due = queries.labels_by(state.iteration + 1, config=config) - queries.labels_by(state.iteration, config=config)
    chosen = queries.select(
        key_queries,
        steps,
        rewards,
        reward_ensemble.features(state.ensemble, steps.observation, steps.action, env=env, config=config.reward),
        _answered(state, env=env, config=config),
        due,
        num_slots=queries.slots(config),
        config=config.queries,
    )
    return state, steps, chosen, metrics | judged


def _measure(state: TrainState, steps: Rollout, *, config: Config) -> TrainState:
    """Adds the true rewards of this rollout to their moments, if the policy that acted is untrained."""
    length = config.queries.segment_length
    returns, whole = segments.window_sums(steps.true_reward, length), segments.valid_starts(steps.done, length)
    old = state.true_reward, state.segment_return
    new = normalisation.update(old[0], steps.true_reward), normalisation.update(old[1], returns, whole)
    untrained = state.iteration < config.labels.warmup
    true_reward, segment_return = jax.tree.map(lambda x, y: jnp.where(untrained, x, y), new, old)
    return dataclasses.replace(state, true_reward=true_reward, segment_return=segment_return)


def _answered(state: TrainState, *, env: Environment, config: Config) -> tuple[jax.Array, jax.Array]:
    """Returns `[C, 2, F]` means over the segments of the buffer of what reward networks see, and which there are."""
    data = state.preferences
    seen = reward_ensemble.features(state.ensemble, data.observation, data.action, env=env, config=config.reward)
    return seen.mean(2), data.filled


def label(state: TrainState, asked: Queries, *, config: Config) -> Answers:
    """Returns what the synthetic teacher says to the queries of this iteration.

    Args:
      state: the agent.
      asked: Q queries.
      config: the settings.

    Returns:
      `[Q]` answers; where `reward.targets`, their labels are the returns of the first segments, in standard deviations.
    """
    if not config.labels.max_budget:  # Other people's teachers need not know what to say to no queries at all.
        return Answers(label=jnp.zeros(0), weight=jnp.zeros(0))
    opinion = teacher.opinion(asked.true_reward, state.segment_return, config=config.teacher)
    answers = teacher.answer(_stage_key(state, "label"), opinion, asked.asked)
    target = (asked.true_reward[:, 0].sum(-1) - state.segment_return.mean) / state.segment_return.std
    return dataclasses.replace(answers, label=jnp.where(config.reward.targets, target, answers.label))


def absorb(
    state: TrainState, steps: Rollout, asked: Queries, answers: Answers, *, env: Environment, config: Config
) -> tuple[TrainState, Metrics]:
    """Learns from the answers, and then from the rollout with the rewards that it has learnt.

    Args:
      state: the agent.
      steps: `[T, N]` the rollout to improve the policy on. Its true reward decides nothing, unless
        `config.use_true_reward`.
      asked: Q queries, about this rollout or an earlier one.
      answers: what the teacher said to them; weight 0 where nothing came.
      env: the environment.
      config: the settings.

    Returns:
      The agent one iteration on, and metrics: `labels` so far; new `answers`, how many of them are `ties`, and how
      many queries are `silences`, without one; `predicted_return`, the learnt reward's mean over the rollout × the time
      limit of an episode, NaN where `labels.max_budget` is 0; `finite`, false once a parameter, reward or answer is
      not; those of `reward_ensemble.fit` and `ppo.update`, NaN where these did not run.
    """
    key_add, key_fit, key_ppo = jax.random.split(_stage_key(state, "absorb"), 3)
    observation = state.agent.observation
    if config.normalise_observations and env.measured:
        observation = normalisation.update(observation, steps.observation)
    data = preferences.add(key_add, state.preferences, asked, answers, bootstrap=config.reward.bootstrap)
    state = dataclasses.replace(state, preferences=data)
    ensemble, predicted, fit_metrics = _fit(key_fit, state, observation, steps, env=env, config=config)
    rewards = jnp.where(config.use_true_reward, steps.true_reward / state.true_reward.std, predicted)
    agent, ppo_metrics = _improve(key_ppo, state, steps, rewards, env=env, config=config)
    state = dataclasses.replace(
        state,
        iteration=state.iteration + 1,
        agent=dataclasses.replace(agent, observation=observation),
        ensemble=ensemble,
    )
    return state, {
        "labels": data.added,
        **teacher.count(answers, asked.asked),
        "predicted_return": predicted.mean() * env.horizon,
        "finite": _all_finite(
            (agent.trunk, agent.actor, agent.critic, ensemble.params, rewards, answers.label * answers.weight)
        ),
        **fit_metrics,
        **ppo_metrics,
    }


def _fit(
    key: jax.Array,
    state: TrainState,
    moments: normalisation.Moments,
    steps: Rollout,
    *,
    env: Environment,
    config: Config,
) -> tuple[RewardEnsemble, jax.Array, Metrics]:
    """Returns the ensemble, fitted unless that is for nobody, what it predicts of the rollout, and how the fit went."""
    old, unfitted = state.ensemble, _nothing(reward_ensemble.METRICS)
    if not config.labels.max_budget:  # All are on the true reward.
        return old, jnp.full_like(steps.true_reward, jnp.nan), unfitted
    new, metrics = jax.lax.cond(
        jnp.logical_or(config.use_true_reward, config.reward.frozen),
        lambda: (old, unfitted),
        lambda: reward_ensemble.fit(key, old, state.preferences, moments, env=env, config=config.reward),
    )
    return new, reward_ensemble.predict(new, steps.observation, steps.action, env=env, config=config.reward), metrics


def _improve(
    key: jax.Array, state: TrainState, steps: Rollout, rewards: jax.Array, *, env: Environment, config: Config
) -> tuple[PPOState, Metrics]:
    """Returns the agent after PPO on the rollout, or as it was while only initial labels are gathered."""
    since_warmup = state.iteration - config.labels.warmup
    progress = jnp.clip(since_warmup / (config.iterations - config.labels.warmup), 0.0, 1.0)
    return jax.lax.cond(
        since_warmup < 0,
        lambda: (state.agent, _nothing(ppo.METRICS)),
        lambda: ppo.update(key, state.agent, steps, rewards, progress, env=env, config=config.ppo),
    )


def halves(*, env: Environment, config: Config) -> tuple[Callable, Callable]:
    """Returns `propose` and `absorb` with these settings, compiled, for a loop that has its answers from outside.

    The agent that the first one returns shares with the one that it was given all that acting does not change. Compiled
    as it stands, `propose` returns a copy, also of the preferences, which with images are gigabytes.

    Args:
      env: the environment.
      config: concrete settings.

    Returns:
      `propose(state)`, which returns agent, rollout, queries and metrics; and `absorb(state, rollout, queries,
      answers)`, which returns agent and metrics.
    """

    @jax.jit
    def act(state: TrainState) -> tuple[dict[str, Any], Rollout, Queries, Metrics]:
        acted, steps, asked, metrics = propose(state, env=env, config=config)
        before, after = vars(state), vars(acted)
        return {name: after[name] for name in after if after[name] is not before[name]}, steps, asked, metrics

    def propose_sharing(state: TrainState) -> tuple[TrainState, Rollout, Queries, Metrics]:
        changed, steps, asked, metrics = act(state)
        return dataclasses.replace(state, **changed), steps, asked, metrics

    return propose_sharing, jax.jit(partial(absorb, env=env, config=config))


def _stage_key(state: TrainState, stage: str) -> jax.Array:
    """Returns the key of one stage of the iteration, the same whether it runs compiled whole or piece by piece."""
    number = ("propose", "label", "absorb").index(stage)
    return jax.random.fold_in(state.key, 3 * state.iteration + number)


def _nothing(names: tuple[str, ...]) -> Metrics:
    return dict.fromkeys(names, jnp.float32(jnp.nan))


def _all_finite(tree: object) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
