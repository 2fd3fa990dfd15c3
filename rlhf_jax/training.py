"""Figure 1 of Christiano et al. 2017: act, ask, fit the reward, improve the policy, all in one compiled loop."""

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import normalisation, ppo, preferences, queries, reward_ensemble, rollout, teacher
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.ppo import PPOState
from rlhf_jax.preferences import Preferences
from rlhf_jax.queries import Queries
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import EnvironmentState, Rollout
from rlhf_jax.teacher import Answers

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """One agent in the middle of its training.

    key: [] what all its randomness is derived from, together with the iteration.
    iteration: [] iterations done.
    environments: where its N environments stand.
    agent: the policy and its critic.
    ensemble: the learnt reward.
    preferences: the answered queries.
    true_reward_scale: [] standard deviation of the true reward under the untrained policy.
    """

    key: jax.Array
    iteration: jax.Array
    environments: EnvironmentState
    agent: PPOState
    ensemble: RewardEnsemble
    preferences: Preferences
    true_reward_scale: normalisation.Moments


def init(key: jax.Array, *, env: Environment, config: Config) -> TrainState:
    key_loop, key_env, key_agent, key_ensemble = jax.random.split(key, 4)
    num_slots = queries.slots(config)
    shape = (num_slots, 2, config.queries.segment_length)
    action_shape = (env.action_size,) if env.continuous else ()
    example = Queries(
        observation=jnp.zeros((*shape, *env.observation_shape)),
        action=jnp.zeros((*shape, *action_shape), jnp.float32 if env.continuous else jnp.int32),
        true_reward=jnp.zeros(shape),
        asked=jnp.zeros(num_slots, bool),
    )
    return TrainState(
        key=key_loop,
        iteration=jnp.zeros((), jnp.int32),
        environments=rollout.init(key_env, env=env, num_envs=config.num_envs),
        agent=ppo.init(key_agent, env=env, config=config.ppo),
        ensemble=reward_ensemble.init(key_ensemble, env=env, config=config.reward),
        preferences=preferences.init(
            example, capacity=config.labels.capacity or config.labels.max_budget, members=config.reward.members
        ),
        true_reward_scale=normalisation.init(),
    )


def propose(state: TrainState, *, env: Environment, config: Config) -> tuple[TrainState, Rollout, Queries, Metrics]:
    key_rollout, key_queries = jax.random.split(_key(state, 0))
    policy = ppo.sampling_policy(state.agent, env=env, config=config.ppo)
    environments, steps, info = rollout.rollout(
        key_rollout, state.environments, policy, env=env, num_steps=config.rollout_length
    )
    rewards = reward_ensemble.member_rewards(
        state.ensemble, steps.observation, steps.action, env=env, config=config.reward
    )
    due = queries.labels_by(state.iteration + 1, config=config) - queries.labels_by(state.iteration, config=config)
    asked = queries.select(
        key_queries, steps, rewards, due, num_slots=queries.slots(config), config=config.queries
    )
    return state.replace(environments=environments), steps, asked, info


def absorb(
    state: TrainState, steps: Rollout, asked: Queries, answers: Answers, *, env: Environment, config: Config
) -> tuple[TrainState, Metrics]:
    key_add, key_fit, key_ppo = jax.random.split(_key(state, 1), 3)
    warming_up = state.iteration < config.labels.warmup
    moments = normalisation.update(state.agent.observation, steps.observation)
    scale = normalisation.update(state.true_reward_scale, steps.true_reward)
    data = preferences.add(key_add, state.preferences, asked, answers)
    ensemble, fit_info = jax.lax.cond(
        config.use_true_reward,
        lambda: (state.ensemble, dict.fromkeys(("train_loss", "validation_loss", "accuracy", "l2"), jnp.float32(jnp.nan))),
        lambda: reward_ensemble.fit(key_fit, state.ensemble, data, moments, env=env, config=config.reward),
    )

    members = reward_ensemble.member_rewards(ensemble, steps.observation, steps.action, env=env, config=config.reward)
    predicted = reward_ensemble.mean_reward(ensemble, members)
    scale = jax.tree.map(lambda new, old: jnp.where(warming_up, new, old), scale, state.true_reward_scale)
    rewards = jnp.where(config.use_true_reward, steps.true_reward / scale.std, predicted)
    progress = jnp.maximum(state.iteration - config.labels.warmup, 0) / (config.iterations - config.labels.warmup)
    agent, ppo_info = jax.lax.cond(
        warming_up,
        lambda: (state.agent, dict.fromkeys(("policy_loss", "value_loss", "entropy", "kl"), jnp.float32(jnp.nan))),
        lambda: ppo.update(key_ppo, state.agent, steps, rewards, progress, env=env, config=config.ppo),
    )
    correlation = jnp.corrcoef(predicted.ravel(), steps.true_reward.ravel())[0, 1]
    state = state.replace(
        iteration=state.iteration + 1,
        agent=agent.replace(observation=moments),
        ensemble=ensemble,
        preferences=data,
        true_reward_scale=scale,
    )
    return state, {
        "labels": data.added,
        "predicted_return": predicted.mean() * env.horizon,
        "correlation": correlation,
        **fit_info,
        **ppo_info,
    }


def iteration(state: TrainState, *, env: Environment, config: Config) -> tuple[TrainState, Metrics]:
    state, steps, asked, info = propose(state, env=env, config=config)
    answers = teacher.answer(_key(state, 2), asked, config=config.teacher)
    state, absorb_info = absorb(state, steps, asked, answers, env=env, config=config)
    return state, info | absorb_info


def train(key: jax.Array, *, env: Environment, config: Config) -> tuple[TrainState, Metrics]:
    state = init(key, env=env, config=config)
    return jax.lax.scan(lambda s, _: iteration(s, env=env, config=config), state, None, length=config.iterations)


def _key(state: TrainState, stage: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, state.iteration), stage)
