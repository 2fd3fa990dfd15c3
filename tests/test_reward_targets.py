"""The reward ensemble on the returns of single segments instead of on comparisons."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import environments, normalisation, preferences, reward_ensemble
from rlhf_jax.config import RewardConfig
from rlhf_jax.networks import RewardNetwork
from rlhf_jax.queries import Queries
from rlhf_jax.teacher import Answers

LENGTH, NUMBER = 5, 300
TRUE_WEIGHTS = np.array([1.0, -0.5, 0.25, 2.0])  # of three observations and one action
CONFIG = RewardConfig(
    members=3,
    hidden=(32,),
    fit_steps=200,
    batch_size=32,
    reference_size=64,
    learning_rate=3e-3,
    action_scale=1.0,
    l2=1e-4,
    targets=True,
)


@functools.cache
def env():
    """Only the shapes of its observations and actions matter here."""
    return environments.make("Pendulum-v1")


def segments(seed, slots):
    """Random segments and their standardised `[Q, slots]` returns by the known linear reward."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(2.0, 3.0, (NUMBER, slots, LENGTH, 3)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (NUMBER, slots, LENGTH, 1)).astype(np.float32)
    reward = np.concatenate([observation, action], -1) @ TRUE_WEIGHTS
    # The mean and the spread of a return are 7.5 and 8.1.
    return jnp.asarray(observation), jnp.asarray(action), (reward.sum(-1) - 7.5) / 8.1


@functools.cache
def buffer():
    """The returns of the segments in slot 0; in slot 1 there is nothing that could be learnt from."""
    observation, action, returns = segments(0, 2)
    queries = Queries(observation, action, {}, jnp.zeros((NUMBER, 2, LENGTH)), jnp.ones(NUMBER, bool))
    answers = Answers(jnp.asarray(returns[:, 0], jnp.float32), jnp.ones(NUMBER))
    empty = preferences.init(env=env(), capacity=320, length=LENGTH, members=3)
    return preferences.add(jax.random.key(0), empty, queries, answers)


@functools.cache
def untrained():
    return reward_ensemble.init(jax.random.key(1), env=env(), config=CONFIG)


@jax.jit
def fit(key, ensemble, data, config=CONFIG):
    """Compiled once; `targets` may differ from call to call."""
    moments = normalisation.update(normalisation.init((3,)), segments(0, 1)[0])
    return reward_ensemble.fit(key, ensemble, data, moments, env=env(), config=config)


@functools.cache
def fitted():
    """The ensemble after three fits, and what the last one told."""
    ensemble = untrained()
    for i in range(3):
        ensemble, info = fit(jax.random.key(i), ensemble, buffer())
    return ensemble, info


def constant(rewards):
    """An ensemble whose members give these rewards to whatever they see."""
    params = jax.tree.map(jnp.zeros_like, untrained().params)
    params["params"]["Dense_1"]["bias"] = jnp.array(rewards)[:, None]
    return dataclasses.replace(untrained(), params=params)


def test_loss_is_the_squared_error_of_the_return_of_the_first_segment():
    """Returns of 1, 2 and 3 and a target of 3: members 0 and 2, which hold the row, lose 4 and 0, member 1 loses 1."""
    one_row = buffer().replace(
        label=buffer().label.at[0].set(3.0),
        filled=jnp.arange(320) == 0,
        multiplicity=jnp.zeros((3, 320), jnp.int32).at[:, 0].set(jnp.array([1, 0, 1])),
    )
    still = dataclasses.replace(CONFIG, learning_rate=0.0)
    _, info = fit(jax.random.key(0), constant([0.2, 0.4, 0.6]), one_row, still)
    np.testing.assert_allclose(info["train_loss"], 2.0, rtol=1e-5)
    np.testing.assert_allclose(info["validation_loss"], 1.0, rtol=1e-5)
    assert np.isnan(info["accuracy"])


def test_gradient_is_that_of_the_squared_error():
    """Of one member with returns (1, 9): 2 (1 − 3) · 5 steps by the bias, as no comparison would have it."""
    params = jax.tree.map(lambda x: x[0], constant([0.2, 0.0, 0.0]).params)
    inputs = jnp.ones((1, 2, LENGTH, 3)), jnp.ones((1, 2, LENGTH, 1))
    network, key = RewardNetwork(CONFIG.hidden), jax.random.key(0)
    gradient = jax.grad(reward_ensemble._objective)(
        params, key, network, inputs, jnp.array([3.0]), jnp.array(0.0), CONFIG
    )
    np.testing.assert_allclose(gradient["params"]["Dense_1"]["bias"], [-20.0], rtol=1e-5)


def test_second_segment_teaches_nothing():
    garbage = buffer().replace(
        observation=buffer().observation.at[:, 1].set(50.0), action=buffer().action.at[:, 1].set(-1.0)
    )
    clean, soiled = (fit(jax.random.key(4), untrained(), data)[0].params for data in (buffer(), garbage))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), clean, soiled)
    compared = dataclasses.replace(CONFIG, targets=False)
    clean, soiled = (fit(jax.random.key(4), untrained(), data, compared)[0].params for data in (buffer(), garbage))
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(abs(a - b).max() > 1e-2), clean, soiled)))


def test_known_linear_reward_is_recovered_with_its_scale_and_offset():
    """On segments it has not seen the members' mean return is the target itself, not only in the same order."""
    ensemble, info = fitted()
    observation, action, returns = segments(1, 1)
    rewards = reward_ensemble.member_rewards(ensemble, observation, action, env=env(), config=CONFIG)
    predicted = np.asarray(rewards).sum(-1).mean(0)
    assert returns.std() > 0.9
    assert np.sqrt(np.square(predicted - returns).mean()) < 0.25
    assert np.corrcoef(predicted.ravel(), returns.ravel())[0, 1] > 0.97
    assert info["train_loss"] < info["validation_loss"] < 0.1
    assert np.isnan(info["accuracy"])
