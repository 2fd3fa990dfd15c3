"""Proximal policy optimisation (Schulman et al. 2017) on whatever reward it is given."""

import dataclasses
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlhf_jax import convolution, normalisation
from rlhf_jax.config import PPOConfig
from rlhf_jax.convolution import Convolutions
from rlhf_jax.environments import Environment
from rlhf_jax.networks import Actor, Categorical, Critic, Gaussian, apply, initialise
from rlhf_jax.rollout import Policy, Rollout

METRICS = ("policy_loss", "value_loss", "entropy", "kl")


@flax.struct.dataclass
class PPOState:
    """What the agent has learnt.

    trunk: parameters of the convolutions that both networks look through; none for vectors.
    actor: parameters of the policy network.
    critic: parameters of the value network.
    optimiser: Adam's state over all.
    observation: running moments of the observations, which the networks are given normalised; of images nothing.
    """

    trunk: Any
    actor: Any
    critic: Any
    optimiser: optax.OptState
    observation: normalisation.Moments


@flax.struct.dataclass
class Batch:
    """Steps to learn from, all `[B, ...]`.

    observation: normalised observations, or images as they are.
    action: what was done there.
    log_prob: with which log-probability.
    advantage: how much better that was than expected.
    value: what the critic expected.
    target: what it should have expected.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    value: jax.Array
    target: jax.Array


def generalised_advantages(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    done: jax.Array,
    *,
    discount: jax.Array | float,
    trace_decay: jax.Array | float,
) -> jax.Array:
    """Returns generalised advantage estimates.

        δₜ = rₜ + γ (1 − terminatedₜ) V(sₜ₊₁) − V(sₜ)
        Aₜ = δₜ + γ λ (1 − doneₜ) Aₜ₊₁

    A truncated episode is bootstrapped from the value of its last state, a terminated one is not; no advantage leaks
    over the end of either.

    Args:
      rewards: `[T, ...]`.
      values: `[T, ...]` V of the state that was acted in.
      next_values: `[T, ...]` V of the state that the action led to, before any reset.
      terminated: `[T, ...]` the episode ended by itself.
      done: `[T, ...]` the episode ended, terminated or truncated.
      discount: γ.
      trace_decay: λ.

    Returns:
      `[T, ...]` advantages.

    Reference: Schulman et al. 2016, eq. 16.
    """
    chex.assert_equal_shape([rewards, values, next_values, terminated, done])
    deltas = rewards + discount * jnp.where(terminated, 0.0, next_values) - values
    decays = jnp.where(done, 0.0, discount * trace_decay)

    def step(advantage: jax.Array, inputs: tuple[jax.Array, jax.Array]):
        delta, decay = inputs
        advantage = delta + decay * advantage
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros_like(deltas[0]), (deltas, decays), reverse=True)[1]


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, clip: jax.Array | float) -> jax.Array:
    """Returns PPO's pessimistic policy objective, `min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)`, to be maximised.

    Args:
      ratio: `[...]` ρ, new over old probability of the action.
      advantage: `[...]` A.
      clip: ε.

    Reference: Schulman et al. 2017, eq. 7.
    """
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def value_error(value: jax.Array, old_value: jax.Array, target: jax.Array, clip: jax.Array | float | None) -> jax.Array:
    """Returns half the squared error of the critic; the larger of it and that of the clipped move, if `clip` is given.

    Args:
      value: `[...]` V now.
      old_value: `[...]` V when the rollout was collected.
      target: `[...]` what V should be.
      clip: how far V may move before its gradient stops; None for the plain error.
    """
    error = jnp.square(value - target)
    if clip is not None:
        clipped = old_value + jnp.clip(value - old_value, -clip, clip)
        error = jnp.maximum(error, jnp.square(clipped - target))
    return 0.5 * error


def networks(env: Environment, config: PPOConfig) -> tuple[Convolutions, Actor, Critic]:
    """Returns the trunk, and the policy and the value network over it, for this environment."""
    trunk = convolution.eyes(env.observation_shape, pooling=config.pooling)
    leak = 0.1 if trunk.layers else 0.0  # Settings for vectors were tuned with ReLU.
    actor = Actor(env.action_size, env.continuous, config.hidden, config.initial_std, leak)
    return trunk, actor, Critic(config.hidden, leak)


def _optimiser(config: PPOConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def init(key: jax.Array, *, env: Environment, config: PPOConfig) -> PPOState:
    """Returns an untrained agent; the key is consumed."""
    key_actor, key_critic = jax.random.split(key)
    trunk, actor, critic = networks(env, config)
    observation = jnp.zeros(env.observation_shape)
    trunk_params = initialise(jax.random.fold_in(key, 2), trunk, observation) if trunk.layers else {}
    seen = jax.eval_shape(trunk.apply, trunk_params, observation)
    params = (
        trunk_params,
        initialise(key_actor, actor, seen, output_scale=0.01),
        initialise(key_critic, critic, seen),
    )
    return PPOState(
        trunk=params[0],
        actor=params[1],
        critic=params[2],
        optimiser=_optimiser(config).init(params),
        observation=normalisation.for_observations(env),
    )


def distribution(
    state: PPOState, observation: jax.Array, *, env: Environment, config: PPOConfig
) -> Gaussian | Categorical:
    """Returns the policy's distribution over actions in `[..., *observation]`."""
    trunk, actor, _ = networks(env, config)
    seen = apply(trunk, state.trunk, normalisation.normalise_observations(state.observation, observation))
    return apply(actor, state.actor, seen)


def sampling_policy(state: PPOState, *, env: Environment, config: PPOConfig) -> Policy:
    """Returns the policy that acts at random as the actor says: it explores."""

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        actions = distribution(state, observation, env=env, config=config)
        action = actions.sample(key)
        return action, actions.log_prob(action)

    return policy


def deterministic_policy(state: PPOState, *, env: Environment, config: PPOConfig) -> Policy:
    """Returns the policy that always does what the actor thinks best: it is evaluated."""

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        actions = distribution(state, observation, env=env, config=config)
        action = actions.mode()
        return action, actions.log_prob(action)

    return policy


def _prepare(state: PPOState, rollout: Rollout, rewards: jax.Array, *, env: Environment, config: PPOConfig) -> Batch:
    """Returns the rollout as one batch of `T · N` steps, with advantages and targets."""
    trunk, _, critic = networks(env, config)
    observation = normalisation.normalise_observations(state.observation, rollout.observation)
    next_observation = normalisation.normalise_observations(state.observation, rollout.next_observation)

    def expect(observation: jax.Array) -> jax.Array:
        return apply(critic, state.critic, apply(trunk, state.trunk, observation))

    # Rewards times 1 − γ make a value a weighted mean of rewards, so that its scale does not depend on γ.
    rewards = (1.0 - config.discount) * rewards
    value = expect(observation)
    advantage = generalised_advantages(
        rewards,
        value,
        expect(next_observation),
        rollout.terminated,
        rollout.done,
        discount=config.discount,
        trace_decay=config.trace_decay,
    )
    batch = Batch(observation, rollout.action, rollout.log_prob, advantage, value, advantage + value)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def _shuffle(key: jax.Array, num_steps: int, num_envs: int) -> jax.Array:
    """Returns the row numbers `[T, N]` of a batch in a random order: time is permuted, and rotated by environment.

    A minibatch then holds as many steps of each environment, at random times. A full permutation costs T·N log(T·N),
    which on a CPU is as much as the gradient steps themselves.
    """
    key_order, key_shift = jax.random.split(key)
    order = jnp.argsort(jax.random.uniform(key_order, (num_steps,)))
    shift = jax.random.randint(key_shift, (num_envs,), 0, num_steps)
    time = order[(jnp.arange(num_steps)[:, None] + shift[None]) % num_steps]
    return time * num_envs + jnp.arange(num_envs)[None]


def _loss(
    params: tuple[Any, Any, Any], batch: Batch, *, env: Environment, config: PPOConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    trunk, actor, critic = networks(env, config)
    seen = apply(trunk, params[0], batch.observation)
    actions = apply(actor, params[1], seen)
    log_ratio = actions.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    policy_loss = -clipped_surrogate(ratio, advantage, config.clip).mean()
    value = apply(critic, params[2], seen)
    value_clip = config.clip if config.clip_value else None
    value_loss = value_error(value, batch.value, batch.target, value_clip).mean()
    entropy = actions.entropy().mean()
    loss = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy
    kl = (ratio - 1.0 - log_ratio).mean()
    return loss, dict(zip(METRICS, (policy_loss, value_loss, entropy, kl), strict=True))


def update(
    key: jax.Array,
    state: PPOState,
    rollout: Rollout,
    rewards: jax.Array,
    progress: jax.Array | float,
    *,
    env: Environment,
    config: PPOConfig,
) -> tuple[PPOState, dict[str, jax.Array]]:
    """Improves the policy and the critic on one rollout.

    Args:
      key: consumed.
      state: the agent that collected the rollout.
      rollout: `[T, N]` steps.
      rewards: `[T, N]` the reward to learn from, of about unit scale.
      progress: share of the training that is over, in [0, 1]; the learning rate decays with it.
      env: the environment.
      config: the settings.

    Returns:
      The agent after `epochs × minibatches` gradient steps, and info: means of the losses over the last epoch.
    """
    batch = _prepare(state, rollout, rewards, env=env, config=config)
    learning_rate = config.learning_rate * (1.0 - config.learning_rate_decay * progress)
    optimiser = _optimiser(config)

    def minibatch(carry: tuple[Any, optax.OptState], rows: jax.Array):
        params, opt_state = carry
        part = jax.tree.map(lambda x: x[rows], batch)
        grads, info = jax.grad(_loss, has_aux=True)(params, part, env=env, config=config)
        updates, opt_state = optimiser.update(grads, opt_state)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, params, updates)
        return (params, opt_state), info

    def epoch(carry: tuple[Any, optax.OptState], key: jax.Array):
        return jax.lax.scan(minibatch, carry, _shuffle(key, *rewards.shape).reshape(config.minibatches, -1))

    carry = ((state.trunk, state.actor, state.critic), state.optimiser)
    (params, opt_state), info = jax.lax.scan(epoch, carry, jax.random.split(key, config.epochs))
    state = dataclasses.replace(state, trunk=params[0], actor=params[1], critic=params[2], optimiser=opt_state)
    return state, jax.tree.map(lambda x: x[-1].mean(), info)
