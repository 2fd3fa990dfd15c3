"""A reward ensemble that is fitted to all answers at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import probes

import rlhf_jax
from rlhf_jax import normalisation, preferences, reward_ensemble, teacher
from rlhf_jax.queries import Queries


def known_reward(observation, action):
    """A reward that is known: upright is good, torque is bad."""
    return observation[..., 0] - 0.3 * jnp.square(action[..., 0])


def test_fit_orders_pairs_that_it_has_not_seen_as_a_known_reward_does():
    env = rlhf_jax.make("Pendulum-v1")
    config = rlhf_jax.Config()
    keys = jax.random.split(jax.random.key(0), 6)
    count, length = 600, 10
    angle = jax.random.uniform(keys[0], (count, 2, 1), minval=-np.pi, maxval=np.pi)
    angle = angle + 0.1 * jnp.arange(length)[None, None]
    observation = jnp.stack([jnp.cos(angle), jnp.sin(angle), jax.random.normal(keys[1], angle.shape)], -1)
    action = jax.random.uniform(keys[2], (*angle.shape, 1), minval=-1.0, maxval=1.0)
    returns = known_reward(observation, action).sum(-1)
    label = (returns[:, 0] > returns[:, 1]).astype(jnp.float32)
    told = 300
    queries = Queries(observation[:told], action[:told], {}, jnp.zeros((told, 2, length)), jnp.ones(told, bool))

    @jax.jit
    def fit(key):
        empty = preferences.init(env=env, capacity=told, length=length, members=config.reward.members)
        data = preferences.add(keys[3], empty, queries, teacher.Answers(label[:told], jnp.ones(told)))
        moments = normalisation.update(normalisation.init(env.observation_shape), queries.observation)
        ensemble = reward_ensemble.init(key, env=env, config=config.reward)
        ensemble, info = reward_ensemble.fit_rounds(keys[4], ensemble, data, moments, 80, env=env, config=config.reward)
        unseen = observation[told:], action[told:]
        before, after = (
            reward_ensemble.preference_probability(model, *unseen, env=env, config=config.reward)
            for model in (reward_ensemble.init(key, env=env, config=config.reward), ensemble)
        )
        return before, after, info

    before, after, info = fit(keys[5])
    right = [float(((probability > 0.5) == (label[told:] > 0.5)).mean()) for probability in (before, after)]
    assert right[1] > 0.93 > 0.8 > right[0]
    assert info["train_loss"].shape == (80,) and info["accuracy"][-20:].mean() > 0.9
    assert info["train_loss"][-20:].mean() < 0.7 * info["train_loss"][0]


def test_fit_learns_from_pictures_which_half_is_brighter():
    env = probes.make(probes.PicturedMatch())
    config = dataclasses.replace(rlhf_jax.Config().reward, learning_rate=3e-3)
    rng, count, told = np.random.default_rng(0), 400, 300
    observation = jnp.asarray(rng.integers(0, 256, (count, 2, 2, *env.observation_shape)), jnp.uint8)
    action = jnp.zeros((count, 2, 2), jnp.int32)
    half = observation.astype(jnp.float32).reshape(count, 2, 2, 2, -1).sum((2, 4))
    returns = half[..., 0] - half[..., 1]
    label = (returns[:, 0] > returns[:, 1]).astype(jnp.float32)
    queries = Queries(observation[:told], action[:told], {}, jnp.zeros((told, 2, 2)), jnp.ones(told, bool))

    @jax.jit
    def fit(key):
        empty = preferences.init(env=env, capacity=told, length=2, members=config.members)
        data = preferences.add(key, empty, queries, teacher.Answers(label[:told], jnp.ones(told)))
        ensemble = reward_ensemble.init(key, env=env, config=config)
        moments = ensemble.observation  # of bytes, whose scale is known, and which are not measured
        ensemble, _ = reward_ensemble.fit_rounds(key, ensemble, data, moments, 40, env=env, config=config)
        unseen = observation[told:], action[told:]
        return reward_ensemble.preference_probability(ensemble, *unseen, env=env, config=config)

    right = (fit(jax.random.key(0)) > 0.5) == (label[told:] > 0.5)
    assert right.mean() > 0.85
