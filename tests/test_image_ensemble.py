"""The reward ensemble on images: filters that are left out in its fits, and members in turn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlhf_jax import environments, normalisation, preferences, reward_ensemble
from rlhf_jax.config import RewardConfig
from rlhf_jax.reward_ensemble import _network, _objective

MEMBERS = 2


@functools.cache
def env():
    return environments.make("Breakout-MinAtar")


def buffer(observation):
    """One answered pair for each of `[P, 2, 10, 10, 4]`, in the bootstrap samples of all members."""
    count = len(observation)
    empty = preferences.init(env=env(), capacity=count, length=1, members=MEMBERS)
    return preferences.Preferences(
        observation=jnp.asarray(observation)[:, :, None],
        action=empty.action,
        label=jnp.ones(count),
        filled=jnp.ones(count, bool),
        multiplicity=jnp.ones((MEMBERS, count), jnp.int32),
        added=jnp.int32(count),
    )


def images(*lead):
    return np.random.default_rng(0).integers(0, 2, (*lead, 10, 10, 4)).astype(bool)


def fitted(observation, dropout, seed=0, fit_steps=1):
    """The output layer after a fit to these pairs, `[members, 8, 1]`."""
    config = RewardConfig(members=MEMBERS, hidden=(8,), fit_steps=fit_steps, batch_size=1, dropout=dropout, l2=0.0)
    ensemble = reward_ensemble.init(jax.random.key(1), env=env(), config=config)
    moments = normalisation.for_observations(env())
    fit = tiny.quick_jit(
        lambda key: reward_ensemble.fit(key, ensemble, buffer(observation), moments, env=env(), config=config)
    )
    return np.asarray(fit(jax.random.key(seed))[0].params["params"]["Dense_1"]["kernel"])


@pytest.mark.parametrize(("dropout", "same"), [(0.5, False), (0.0, True)])
def test_a_gradient_step_leaves_filters_out_at_random(dropout, same):
    """Of one pair every draw of a batch is the same; what differs between keys is what is left out."""
    one, other = (fitted(images(1, 2), dropout, seed) for seed in (0, 1))
    assert np.array_equal(one, other) == same


def test_both_clips_of_a_pair_miss_the_same_filters():
    """Of two equal clips each is as likely to be the better one, whatever is left out."""
    config = RewardConfig(members=1, hidden=(8,), dropout=0.5, l2=0.0)
    ensemble, network = reward_ensemble.init(jax.random.key(1), env=env(), config=config), _network(env(), config)
    params = jax.tree.map(lambda x: x[0], ensemble.params)

    def loss(clips):
        inputs = clips[:, :, None], jnp.zeros((len(clips), 2, 1, env().action_size))
        labels = jnp.ones(len(clips))
        return float(_objective(params, jax.random.key(2), network, inputs, labels, jnp.float32(0.0), config))

    assert loss(images(4, 1).repeat(2, 1)) == pytest.approx(np.log(2.0), abs=1e-6)
    assert abs(loss(images(4, 2)) - np.log(2.0)) > 1e-4


def test_members_in_turn_learn_as_abreast(monkeypatch):
    in_turn = fitted(images(5, 2), 0.5, fit_steps=3)
    monkeypatch.setattr(reward_ensemble, "_over_members", lambda function, _, *args: jax.vmap(function)(*args))
    abreast = fitted(images(5, 2), 0.5, fit_steps=3)
    np.testing.assert_allclose(in_turn, abreast, rtol=1e-4, atol=1e-6)
    assert np.abs(in_turn[0] - in_turn[1]).max() > 0.01
