"""The learnt reward: an ensemble fitted to preferences (Christiano et al. 2017, §2.2.3)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlhf_jax import bradley_terry, convolution, networks, normalisation, sampling
from rlhf_jax.config import RewardConfig
from rlhf_jax.environments import Environment
from rlhf_jax.networks import RewardNetwork
from rlhf_jax.preferences import Preferences

METRICS = ("train_loss", "validation_loss", "accuracy", "l2")


@flax.struct.dataclass
class RewardEnsemble:
    """M reward networks.

    params: [M, ...] parameters.
    optimiser: [M, ...] Adam's state.
    observation: moments by which observations are normalised, frozen between fits.
    zero: [M] output of each member that counts as 0: its mean on the last reference batch, or its median.
    std: [M] standard deviation of the same.
    l2: [] coefficient of the squared weights.
    """

    params: Any
    optimiser: optax.OptState
    observation: normalisation.Moments
    zero: jax.Array
    std: jax.Array
    l2: jax.Array


def init(key: jax.Array, *, env: Environment, config: RewardConfig) -> RewardEnsemble:
    """Returns an untrained ensemble; the key is consumed."""
    examples = jnp.zeros(env.observation_shape), jnp.zeros(env.action_size)
    # Returns start near zero, where an answer teaches most: with the error rate, a confident member that is wrong
    # has almost no gradient, and a sum over a segment makes a random network confident.
    params = networks.initialise(key, _network(env, config), *examples, output_scale=0.01, copies=config.members)
    return RewardEnsemble(
        params=params,
        optimiser=jax.vmap(optax.scale_by_adam().init)(params),
        observation=normalisation.for_observations(env),
        zero=jnp.zeros(config.members),
        std=jnp.ones(config.members),
        l2=jnp.asarray(config.l2, jnp.float32),
    )


def _network(env: Environment, config: RewardConfig) -> RewardNetwork:
    eyes = convolution.eyes(env.observation_shape, pooling=config.pooling, dropout=config.dropout)
    return RewardNetwork(config.hidden, eyes)


def _inputs(
    ensemble: RewardEnsemble, observation: jax.Array, action: jax.Array, *, env: Environment, config: RewardConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns what the reward networks see: normalised observations, and the scaled features of actions."""
    observation = normalisation.normalise_observations(ensemble.observation, observation)
    return observation, config.action_scale * env.action_features(action)


def features(
    ensemble: RewardEnsemble, observation: jax.Array, action: jax.Array, *, env: Environment, config: RewardConfig
) -> jax.Array:
    """Returns all that the reward networks see of `[..., *observation]` and `[..., *action]` as vectors, `[..., F]`."""
    observation, action = _inputs(ensemble, observation, action, env=env, config=config)
    if observation.dtype == jnp.uint8:
        observation = observation / jnp.float32(255)
    return jnp.concatenate([observation.reshape(*action.shape[:-1], -1), action], -1)


def member_rewards(
    ensemble: RewardEnsemble, observation: jax.Array, action: jax.Array, *, env: Environment, config: RewardConfig
) -> jax.Array:
    """Returns the reward as each member predicts it, in the units of the Bradley–Terry model.

    Args:
      ensemble: M members.
      observation: `[..., *observation]`.
      action: `[..., *action]`.
      env: the environment.
      config: the settings.

    Returns:
      `[M, ...]` rewards.
    """
    inputs, network = _inputs(ensemble, observation, action, env=env, config=config), _network(env, config)
    return jax.vmap(lambda params: networks.apply(network, params, *inputs))(ensemble.params)


def predict(
    ensemble: RewardEnsemble, observation: jax.Array, action: jax.Array, *, env: Environment, config: RewardConfig
) -> jax.Array:
    """Returns the learnt reward of `[..., *observation]` and `[..., *action]`, `[...]`: the `mean_reward`."""
    return mean_reward(ensemble, member_rewards(ensemble, observation, action, env=env, config=config))


def preference_probability(
    ensemble: RewardEnsemble, observation: jax.Array, action: jax.Array, *, env: Environment, config: RewardConfig
) -> jax.Array:
    """Returns the probability that slot 0 is preferred, in the mean of the members.

    Args:
      ensemble: M members.
      observation: `[..., 2, L, *observation]` of pairs of segments.
      action: `[..., 2, L, *action]`.
      env: the environment.
      config: the settings.

    Returns:
      `[...]` probabilities, of an answer without error.
    """
    returns = member_rewards(ensemble, observation, action, env=env, config=config).sum(-1)
    return bradley_terry.preference_probability(returns).mean(0)


def mean_reward(ensemble: RewardEnsemble, rewards: jax.Array) -> jax.Array:
    """Returns the ensemble's reward: the mean of the independently normalised members.

    Args:
      ensemble: its normalisation is used.
      rewards: `[M, ...]` reward of each member.

    Returns:
      `[...]` rewards of about unit standard deviation, and of zero mean, or median, on the last reference batch.

    Reference: Christiano et al. 2017, §2.2.1 and §2.2.3, first modification.
    """
    shape = (-1,) + (1,) * (rewards.ndim - 1)
    return ((rewards - ensemble.zero.reshape(shape)) / ensemble.std.reshape(shape)).mean(0)


def _loss(returns: jax.Array, labels: jax.Array, config: RewardConfig) -> jax.Array:
    """Returns the `[...]` losses of `[..., 2]` predicted returns: of a comparison, or of the return of slot 0."""
    squared_error = jnp.square(returns[..., 0] - labels)
    return jnp.where(config.targets, squared_error, bradley_terry.cross_entropy(returns, labels, config.error_rate))


def _objective(
    params: Any,
    key: jax.Array,
    network: RewardNetwork,
    inputs: tuple[jax.Array, jax.Array],
    labels: jax.Array,
    l2: jax.Array,
    config: RewardConfig,
) -> jax.Array:
    """Returns the loss of `[B, 2, L, ...]` pairs; the key decides what is left out."""
    lead = inputs[1].shape[:3]
    # One long batch of steps: the same matrix products over [B, 2, L, F] take a third longer on a CPU.
    observation, action = (x.reshape(-1, *x.shape[3:]) for x in inputs)
    rewards: jax.Array = network.apply(params, observation, action, groups=lead[0], rngs={"dropout": key})  # type: ignore
    returns = rewards.reshape(lead).sum(-1)
    weights = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))
    return _loss(returns, labels, config).mean() + config.sparsity * jnp.abs(rewards).mean() + l2 * weights


def _gradient_steps(
    key: jax.Array, ensemble: RewardEnsemble, data: Preferences, *, env: Environment, config: RewardConfig
) -> RewardEnsemble:
    """Fits every member to its own bootstrap sample."""
    shape = (config.fit_steps, config.batch_size)
    multiplicity = data.multiplicity * data.filled[None]
    rows = jax.vmap(lambda key, m: sampling.draw(key, m, shape), out_axes=1)(
        jax.random.split(key, config.members), multiplicity
    )
    any_data = multiplicity.sum(-1) > 0
    optimiser, network = optax.scale_by_adam(), _network(env, config)
    keys = jax.random.split(jax.random.fold_in(key, config.members), (config.fit_steps, config.members))

    def member(params: Any, opt_state: optax.OptState, any_data: jax.Array, rows: jax.Array, key: jax.Array):
        inputs = _inputs(ensemble, data.observation[rows], data.action[rows], env=env, config=config)
        grads = jax.grad(_objective)(params, key, network, inputs, data.label[rows], ensemble.l2, config)
        updates, opt_state = optimiser.update(grads, opt_state)
        rate = jnp.where(any_data, config.learning_rate, 0.0)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state

    def step(carry: tuple[Any, optax.OptState], inputs: tuple[jax.Array, jax.Array]):
        return _over_members(member, network, *carry, any_data, *inputs), None

    (params, opt_state), _ = jax.lax.scan(step, (ensemble.params, ensemble.optimiser), (rows, keys))
    return dataclasses.replace(ensemble, params=params, optimiser=opt_state)


def _over_members(function: Callable, network: RewardNetwork, *args: Any) -> Any:
    """Maps over the members: abreast, but in turn where a CPU would hold the patches of images for all of them."""
    if network.eyes.layers and jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), args)
    return jax.vmap(function)(*args)


def adapted_l2(l2: jax.Array, ratio: jax.Array, *, config: RewardConfig) -> jax.Array:
    """Returns the L2 coefficient for the next fit: larger when the members overfit, smaller when they could fit more.

    Args:
      l2: `[]` the coefficient now; 0 stays.
      ratio: `[]` mean validation loss over mean training loss; NaN, from no data, leaves it.
      config: the band and the factor.

    Reference: Christiano et al. 2017, §2.2.3, second modification.
    """
    factor = jnp.where(ratio > config.l2_high, config.l2_adaptation, 1.0)
    factor = jnp.where(ratio < config.l2_low, 1.0 / config.l2_adaptation, factor)
    return jnp.where(l2 > 0, jnp.clip(l2 * factor, 1e-7, 1.0), 0.0)


def _reference_losses(
    returns: jax.Array, label: jax.Array, multiplicity: jax.Array, filled: jax.Array, config: RewardConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the mean loss in the bags and outside them, and the accuracy outside them, where ties have no say.

    Means, not sums: the two sets differ in size. Targets are right or wrong to a degree: they have no accuracy.
    """
    label = jnp.broadcast_to(label, returns.shape[:-1])
    loss = _loss(returns, label, config)
    in_bag = multiplicity * filled[None]
    out_of_bag = (multiplicity == 0) & filled[None]
    decided = out_of_bag & (label != 0.5)
    correct = (bradley_terry.preference_logit(returns) > 0) == (label > 0.5)
    return (
        (loss * in_bag).sum() / in_bag.sum(),
        (loss * out_of_bag).sum() / out_of_bag.sum(),
        jnp.where(config.targets, jnp.nan, (correct * decided).sum() / decided.sum()),
    )


def fit(
    key: jax.Array,
    ensemble: RewardEnsemble,
    data: Preferences,
    observation: normalisation.Moments,
    *,
    env: Environment,
    config: RewardConfig,
) -> tuple[RewardEnsemble, dict[str, jax.Array]]:
    """Fits the ensemble to the preferences, then normalises it and adapts its L2 coefficient.

    Args:
      key: consumed.
      ensemble: M members.
      data: the answered queries.
      observation: moments by which observations are normalised from now on.
      env: the environment.
      config: the settings.

    Returns:
      The ensemble and info: `train_loss` and `validation_loss` in nats, `accuracy` of the members on labels outside
      their bags, and `l2`; NaN while there is no label to tell them from.
    """
    key_steps, key_reference = jax.random.split(key)
    ensemble = dataclasses.replace(ensemble, observation=observation)
    ensemble = _gradient_steps(key_steps, ensemble, data, env=env, config=config)

    rows = sampling.draw(key_reference, data.filled, (config.reference_size,))
    rewards = member_rewards(ensemble, data.observation[rows], data.action[rows], env=env, config=config)
    train_loss, validation_loss, accuracy = _reference_losses(
        rewards.sum(-1), data.label[rows], data.multiplicity[:, rows], data.filled[rows], config
    )
    ensemble = dataclasses.replace(ensemble, l2=adapted_l2(ensemble.l2, validation_loss / train_loss, config=config))
    if config.normalise:
        std, zero = rewards.std((1, 2, 3)), (jnp.median if config.zero_median else jnp.mean)(rewards, (1, 2, 3))
        ensemble = dataclasses.replace(ensemble, zero=zero, std=jnp.where(std > 1e-6, std, 1.0))
    return ensemble, dict(zip(METRICS, (train_loss, validation_loss, accuracy, ensemble.l2), strict=True))


def fit_rounds(
    key: jax.Array,
    ensemble: RewardEnsemble,
    data: Preferences,
    observation: normalisation.Moments,
    num_rounds: int,
    *,
    env: Environment,
    config: RewardConfig,
) -> tuple[RewardEnsemble, dict[str, jax.Array]]:
    """Fits as often as a training of so many iterations does, to preferences that are all there from the start.

    Args:
      key: consumed.
      ensemble, data, observation, env, config: as for `fit`.
      num_rounds: how often.

    Returns:
      The ensemble, and the info of each `fit`, `[num_rounds]`.
    """

    def step(ensemble: RewardEnsemble, key: jax.Array):
        return fit(key, ensemble, data, observation, env=env, config=config)

    return jax.lax.scan(step, ensemble, jax.random.split(key, num_rounds))
